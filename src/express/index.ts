import type { IncomingMessage, ServerResponse } from 'node:http';
import { checkOptions, texts } from '../config.js';
import { SessionError, WebauthError } from '../errors.js';
import { checkFormOrigin, formatCookie, isNavigation, readCookie, requestTarget } from '../http.js';
import { responseFromQuery } from '../response.js';
import type { Auth } from '../session/session.js';
import type { Requirements, WAA } from '../waa.js';
import { sendFailure, sendLogout } from './pages.js';

type Next = (error?: unknown) => void;

/** Middleware for Express 4 and 5, or anything else that calls `(request, response, next)`. */
export type Middleware = (request: IncomingMessage, response: ServerResponse, next: Next) => void;

/** What {@link webauth} makes. */
export interface Webauth extends Middleware {
  /**
   * Lets through only people who are logged in and may enter. Browsers going to a page are sent to log in; programs get
   * 401 with a `loginUrl`; people who may not enter get 403.
   */
  require(requirements?: Requirements): Middleware;
  /** Error handler: a page for people, JSON for programs. Install it last. Other errors than ours are passed on. */
  readonly failurePage: (error: unknown, request: IncomingMessage, response: ServerResponse, next: Next) => void;
}

/**
 * Sets `request.auth` where somebody is logged in, and serves the routes of the login, under the path of `baseUrl`:
 * `/webauth/login`, `/webauth/callback`, `/webauth/logout`. Failures go to the next error handler.
 */
export function webauth(waa: WAA): Webauth {
  const glue = glues.get(waa) ?? new Glue(waa);
  glues.set(waa, glue);
  const middleware: Middleware = (request, response, next) => glue.handle(request, response, next);
  return Object.assign(middleware, {
    require: (requirements: Requirements = {}): Middleware => {
      checkOptions('require()', requirements, { principals: texts, ptags: texts });
      return (request, response, next) => glue.require(requirements, request, response, next);
    },
    failurePage: (error: unknown, request: IncomingMessage, response: ServerResponse, next: Next): void => {
      if (!(error instanceof WebauthError) || response.headersSent) next(error);
      else sendFailure(waa, error, request, response);
    },
  });
}

/** One for each application, however often its middleware is made. */
const glues = new WeakMap<WAA, Glue>();

type Route = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** Who is logged in on a request, or why nobody is. */
type Visitor = { readonly auth: Auth } | { readonly problem: SessionError };

class Glue {
  readonly #waa: WAA;
  readonly #host: string;
  /** By path, then by method. */
  readonly #routes: ReadonlyMap<string, Readonly<Record<string, Route>>>;
  readonly #visitors = new WeakMap<IncomingMessage, Visitor>();

  constructor(waa: WAA) {
    this.#waa = waa;
    this.#host = new URL(waa.origin).host;
    const { login, callback, logout } = waa.routes;
    this.#routes = new Map<string, Record<string, Route>>([
      [login, { GET: (...at) => this.#login(...at) }],
      [callback, { GET: (...at) => this.#callback(...at) }],
      [logout, { GET: (...at) => this.#logoutPage(...at), POST: (...at) => this.#logout(...at) }],
    ]);
  }

  handle(request: IncomingMessage, response: ServerResponse, next: Next): void {
    const visitor = this.#visitor(request);
    request.auth = 'auth' in visitor ? visitor.auth : undefined;
    const methods = this.#routes.get(requestTarget(request).path);
    if (methods === undefined) return next();
    const route = Object.hasOwn(methods, request.method ?? '') ? methods[request.method as string] : undefined;
    if (route === undefined) return refuseMethod(response, Object.keys(methods));
    this.#run(route, request, response, next);
  }

  require(requirements: Requirements, request: IncomingMessage, response: ServerResponse, next: Next): void {
    const visitor = this.#visitors.get(request);
    if (visitor === undefined) {
      return next(new TypeError('require() needs app.use(webauth(waa)) before it, which also serves the login itself'));
    }
    if ('problem' in visitor) return this.#turnAway(visitor.problem, request, response, next);
    try {
      this.#waa.authorise(visitor.auth, requirements);
    } catch (error) {
      return this.#fail(error, response, next);
    }
    request.auth = visitor.auth;
    keepPrivate(response);
    next();
  }

  #visitor(request: IncomingMessage): Visitor {
    const known = this.#visitors.get(request);
    if (known) return known;
    const visitor = this.#readVisitor(request);
    this.#visitors.set(request, visitor);
    return visitor;
  }

  #readVisitor(request: IncomingMessage): Visitor {
    try {
      return { auth: this.#waa.openSession(readCookie(request, this.#waa.cookies.session)) };
    } catch (error) {
      if (error instanceof SessionError) return { problem: error };
      throw error;
    }
  }

  #turnAway(problem: SessionError, request: IncomingMessage, response: ServerResponse, next: Next): void {
    const returnTo = this.#returnPath(request);
    // Of a cookie that we did not make, people are told: to send them to log in, again and again, would hide it.
    const canLogIn = problem.status === 401 && problem.code !== 'ERR_SESSION_INVALID';
    if (canLogIn && isNavigation(request)) {
      return this.#run((...at) => this.#redirectToLogin(returnTo, ...at), request, response, next);
    }
    problem.loginUrl = this.#waa.loginUrl(returnTo);
    this.#fail(problem, response, next);
  }

  #redirectToLogin(returnTo: string, request: IncomingMessage, response: ServerResponse): void {
    const { origin, routes, cookies } = this.#waa;
    const { path, query } = requestTarget(request);
    const asked = path === routes.login;
    // The cookie of this login has to be set where the login service sends people back to. `moved` ends it there: a
    // proxy may rewrite Host on the way to us.
    const moved = asked && /(?:^|&)moved=1(?:&|$)/.test(query);
    if (request.headers.host !== this.#host && !moved) {
      this.#waa.log('info', 'login started', `asked for under another name than that of baseUrl, ${this.#host}`);
      return redirect(response, `${origin}${this.#waa.loginUrl(returnTo)}&moved=1`);
    }
    // A login has just succeeded: unless a person asks for another, by a click, this would go round and round.
    const clicked = asked && request.headers['sec-fetch-user'] === '?1';
    if (!clicked && this.#cookie(request, cookies.done) !== undefined) throw this.#waa.loginWasLost(returnTo);
    const { location, nonce } = this.#waa.startLogin(returnTo, this.#cookie(request, cookies.login));
    this.#setCookie(response, cookies.login, nonce, this.#waa.loginTime);
    redirect(response, location);
  }

  #login(request: IncomingMessage, response: ServerResponse): void {
    const returnTo = new URLSearchParams(requestTarget(request).query).get('return') ?? '';
    if (request.auth) redirect(response, this.#waa.origin + this.#waa.safeReturn(returnTo));
    else this.#redirectToLogin(returnTo, request, response);
  }

  async #callback(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin, cookies } = this.#waa;
    const encoded = responseFromQuery(requestTarget(request).query);
    const login = await this.#waa.finishLogin(encoded, readCookie(request, cookies.login), request.auth);
    if (login.cookie !== undefined) {
      this.#setCookie(response, cookies.session, login.cookie);
      this.#setCookie(response, cookies.login, '', 0);
      this.#setCookie(response, cookies.done, '1', login.doneTime);
    }
    redirect(response, origin + login.returnTo);
  }

  #logoutPage(request: IncomingMessage, response: ServerResponse): void {
    sendLogout(this.#waa, request.auth, response);
  }

  async #logout(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin, origins, cookies, routes } = this.#waa;
    checkFormOrigin(request, origins);
    this.#setCookie(response, cookies.session, '', 0);
    this.#setCookie(response, cookies.done, '', 0);
    const visitor = this.#visitor(request);
    if ('auth' in visitor) await this.#waa.endSession(visitor.auth);
    // The cookie is gone, but nobody can be told that the session is.
    else if (visitor.problem.code === 'ERR_STORE_UNAVAILABLE') throw visitor.problem;
    redirect(response, origin + routes.logout);
  }

  #run(route: Route, request: IncomingMessage, response: ServerResponse, next: Next): void {
    const done = (async () => route(request, response))();
    done.catch((error) => this.#fail(error, response, next)).catch(next);
  }

  #fail(error: unknown, response: ServerResponse, next: Next): void {
    if (error instanceof WebauthError) this.#waa.refused(error);
    if (!response.headersSent) response.setHeader('Cache-Control', 'no-store');
    next(error);
  }

  /** A cookie of which a doubled one is as good as none. */
  #cookie(request: IncomingMessage, name: string): string | undefined {
    try {
      return readCookie(request, name);
    } catch {
      return undefined;
    }
  }

  #setCookie(response: ServerResponse, name: string, value: string, maxAge?: number): void {
    const options = { secure: this.#waa.cookies.secure, ...(maxAge === undefined ? {} : { maxAge }) };
    response.appendHeader('Set-Cookie', formatCookie(name, value, options));
  }

  /** Where to go after logging in: the page that was asked for, or the page of ours that a program or form is on. */
  #returnPath(request: IncomingMessage): string {
    if (isNavigation(request)) {
      const { path, query } = requestTarget(request);
      return query === '' ? path : `${path}?${query}`;
    }
    const { referer } = request.headers;
    const from = referer !== undefined && URL.canParse(referer) ? new URL(referer) : undefined;
    return from?.origin === this.#waa.origin ? from.pathname + from.search : '';
  }
}

/** What is behind a guard is for this person only, unless the handler says otherwise. */
function keepPrivate(response: ServerResponse): void {
  if (!response.hasHeader('Cache-Control')) response.setHeader('Cache-Control', 'private, no-cache');
  const vary = String(response.getHeader('Vary') ?? '');
  if (!/(?:^|[,\s])(?:cookie|\*)(?:$|[,\s])/i.test(vary)) response.appendHeader('Vary', 'Cookie');
}

function redirect(response: ServerResponse, location: string): void {
  response
    .writeHead(303, {
      Location: location,
      'Content-Length': 0,
      'Cache-Control': 'no-store',
      'Referrer-Policy': 'same-origin',
    })
    .end();
}

function refuseMethod(response: ServerResponse, allowed: string[]): void {
  const text = `This address takes ${allowed.join(' and ')} only.\n`;
  response.writeHead(405, { Allow: allowed.join(', '), 'Cache-Control': 'no-store', 'Content-Type': 'text/plain' });
  response.end(text);
}
