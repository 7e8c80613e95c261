import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Demands, demandRules, readDemands } from '../demands.js';
import { WebauthError } from '../errors.js';
import { withOwn } from '../http.js';
import { checkOptions, checkWAA, flag, kindOf, originList, type Rules } from '../options.js';
import { type Requirements, requirementRules, type WAA } from '../waa.js';
import { Glue, type Next } from './glue.js';
import { sendFailure } from './pages.js';

/** Middleware for Express 4 and 5, or anything else that calls `(request, response, next)`. */
export type Middleware = (request: IncomingMessage, response: ServerResponse, next: Next) => void;

/** Whom a route lets through: people who may enter, and have authenticated as it demands. */
export interface RouteRequirements extends Requirements, Demands {
  /** Origins of pages that may send what changes something, beside the application's own. */
  readonly origins?: readonly string[];
  /** Whether API tokens are taken too, as `Authorization: Bearer`: false. */
  readonly bearer?: boolean;
}

/** What {@link webauth} makes. */
export interface Webauth extends Middleware {
  /**
   * Lets through only people who are logged in and may enter. Browsers going to a page are sent to log in, also where the
   * login that there is does not meet the demands; programs get 401 with a `loginUrl`. People who may not enter get 403,
   * and so does what changes something (POST and the like) and comes from a page of another origin.
   * @throws TypeError at once if these are no requirements.
   */
  require(requirements?: RouteRequirements): Middleware;
  /** Error handler: a page for people, JSON for programs. Install it last. Other errors than ours are passed on. */
  readonly failurePage: (error: unknown, request: IncomingMessage, response: ServerResponse, next: Next) => void;
}

/**
 * Sets `request.auth` where somebody is logged in, and serves the routes of the login, under the path of `baseUrl`:
 * `/webauth/login`, `/webauth/callback`, `/webauth/logout`, `/webauth/ticket`. Failures go to the next error handler.
 */
export function webauth(waa: WAA): Webauth {
  checkWAA('webauth()', waa);
  const glue = glues.get(waa) ?? new Glue(waa);
  glues.set(waa, glue);
  const middleware: Middleware = (request, response, next) => {
    checkHandler(webauthUse, next);
    glue.handle(request, response, next);
  };
  return Object.assign(middleware, {
    require: (requirements: RouteRequirements = {}, ...others: unknown[]): Middleware => {
      if (others.length > 0) throw new TypeError(notCalled);
      checkOptions('require()', requirements, rules);
      waa.checkRequirements('require()', requirements);
      const origins = withOwn(waa.origins, requirements.origins);
      const { bearer = false } = requirements;
      const guard = { who: requirements, demands: readDemands(requirements), origins, bearer };
      return (request, response, next) => {
        checkHandler(requireUse, next);
        glue.require(guard, request, response, next);
      };
    },
    failurePage: (error: unknown, request: IncomingMessage, response: ServerResponse, next: Next): void => {
      checkHandler(failurePageUse, next);
      if (!(error instanceof WebauthError) || response.headersSent) next(error);
      else sendFailure(waa, error, request, response);
    },
  });
}

// Express calls it with each request.
const notCalled = `auth.require was passed without a call: write app.get('/', auth.require(), …), with parentheses`;
const webauthUse = 'webauth(waa) is a handler (request, response, next): pass it to app.use(auth)';
const requireUse =
  'auth.require() returns a handler (request, response, next): pass it to app.get(path, auth.require(), …)';
const failurePageUse =
  'auth.failurePage is an error handler (error, request, response, next): pass it to app.use(auth.failurePage), without a call';

/** Checks the last argument of a handler: in a framework that calls handlers otherwise, it is missing. */
function checkHandler(use: string, next: unknown): void {
  if (typeof next !== 'function') throw new TypeError(`${use}; here the argument next is ${kindOf(next)}`);
}

const rules: Rules<RouteRequirements> = {
  ...requirementRules,
  origins: originList,
  bearer: flag,
  ...demandRules,
};

/** One for each application, however often its middleware is made. */
const glues = new WeakMap<WAA, Glue>();
