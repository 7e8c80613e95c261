import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { type Demands, demandRules, readDemands } from '../demands.js';
import { WebauthError } from '../errors.js';
import { withOwn } from '../http.js';
import { checkOptions, checkWAA, flag, kindOf, originList, type Rules } from '../options.js';
import { type Requirements, requirementRules, type WAA } from '../waa.js';
import { Glue, type Next } from './glue.js';
import { sendFailure } from './pages.js';

/** Request of an HTTP/1.1 server, or of the compatibility API of an HTTP/2 server. */
type Request = IncomingMessage | Http2ServerRequest;
/** Response of an HTTP/1.1 server, or of the compatibility API of an HTTP/2 server. */
type Response = ServerResponse | Http2ServerResponse;

/**
 * Middleware for Express 4 and 5, or anything else that calls `(request, response, next)`. The servers of `node:http2`
 * may, too; Express itself does not run on these.
 */
export type Middleware = (request: Request, response: Response, next: Next) => void;

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
  readonly failurePage: (error: unknown, request: Request, response: Response, next: Next) => void;
}

/**
 * Sets `request.auth` where somebody is logged in, and serves the routes of the login, under the path of `baseUrl`:
 * `/webauth/login`, `/webauth/callback`, `/webauth/logout`, `/webauth/ticket`. Failures go to the next error handler.
 */
export function webauth(waa: WAA): Webauth {
  checkWAA('webauth()', waa);
  const glue = glues.get(waa) ?? new Glue(waa);
  glues.set(waa, glue);
  const middleware = handler(webauthUse, (request, response, next) => glue.handle(request, response, next));
  return Object.assign(middleware, {
    require: (requirements: RouteRequirements = {}, ...others: unknown[]): Middleware => {
      if (others.length > 0) throw new TypeError(notCalled);
      checkOptions('require()', requirements, rules);
      waa.checkRequirements('require()', requirements);
      const origins = withOwn(waa.origins, requirements.origins);
      const { bearer = false } = requirements;
      const guard = { who: requirements, demands: readDemands(requirements), origins, bearer };
      return handler(requireUse, (request, response, next) => glue.require(guard, request, response, next));
    },
    failurePage: (error: unknown, request: Request, response: Response, next: Next): void => {
      const send = handler(failurePageUse, (asked, answer, pass) => {
        if (!(error instanceof WebauthError) || answer.headersSent) pass(error);
        else sendFailure(waa, error, asked, answer);
      });
      send(request, response, next);
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

/**
 * Makes a handler. The compatibility API of HTTP/2 has all that is used here of HTTP/1.1. In a framework that calls
 * handlers otherwise, the last argument is missing.
 * @param use how the handler is to be used, for the TypeError.
 */
function handler(
  use: string,
  serve: (request: IncomingMessage, response: ServerResponse, next: Next) => void,
): Middleware {
  return (request, response, next) => {
    if (typeof next !== 'function') throw new TypeError(`${use}; here the argument next is ${kindOf(next)}`);
    serve(request as IncomingMessage, response as ServerResponse, next);
  };
}

const rules: Rules<RouteRequirements> = {
  ...requirementRules,
  origins: originList,
  bearer: flag,
  ...demandRules,
};

/** One for each application, however often its middleware is made. */
const glues = new WeakMap<WAA, Glue>();
