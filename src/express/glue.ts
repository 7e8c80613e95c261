import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Demands, formatDemands, parseDemands } from '../demands.js';
import { digest } from '../digest.js';
import { AuthorisationError, ResponseError, SessionError, VerificationError, WebauthError } from '../errors.js';
import {
  checkFormOrigin,
  formatCookie,
  formatRemovals,
  hostOf,
  isNavigation,
  isSafe,
  offersScheme,
  purposeOf,
  quoteHeader,
  rawTarget,
  readCookie,
  readCookies,
  readScheme,
  readSession,
  refuseMethod,
  requestTarget,
  sendData,
  wantsPage,
} from '../http.js';
import { responseFromQuery } from '../response.js';
import type { Auth } from '../session/session.js';
import { pathMismatch, type Requirements, type WAA } from '../waa.js';
import { appendEarly, keepPrivate, setCookie, setEarly, setLate } from './late.js';
import { sendCleared, sendDeparture, sendEndedTogether, sendLogout, sendRemoved } from './pages.js';

export type Next = (error?: unknown) => void;

/** What a route asks for, read once. */
export interface Guard {
  readonly who: Requirements;
  readonly demands: Demands | undefined;
  readonly origins: ReadonlySet<string>;
  /** Whether API tokens are taken too. */
  readonly bearer: boolean;
}

type Route = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** Who is logged in on a request, or why nobody is. */
type Visitor =
  | { readonly auth: Auth; readonly problem?: undefined }
  | { readonly auth?: undefined; readonly problem: SessionError };

/**
 * What we keep of a request, on itself: a WeakMap would cost more than all else here, in the clearing up. Each application
 * keeps its visitor by a name that nobody else has, and OURS says that `auth` is not from some other middleware.
 */
type Kept = { [name: symbol]: unknown };
const OURS = Symbol.for('ucam-webauth.request');

/** Turns requests into calls on the WAA, and back. */
export class Glue {
  readonly #waa: WAA;
  readonly #host: string;
  /** By path, then by method. */
  readonly #routes: ReadonlyMap<string, Readonly<Record<string, Route>>>;
  readonly #name = Symbol('ucam-webauth visitor');

  constructor(waa: WAA) {
    this.#waa = waa;
    this.#host = new URL(waa.origin).host;
    const { login, callback, logout, ticket, cleared } = waa.routes;
    this.#routes = new Map<string, Record<string, Route>>([
      ...(waa.clearsCache ? [[cleared, { GET: sendCleared }] as const] : []),
      [login, { GET: (...at) => this.#login(...at), POST: (...at) => this.#loginByButton(...at) }],
      [callback, { GET: (...at) => this.#callback(...at) }],
      [logout, { GET: (...at) => this.#logoutPage(...at), POST: (...at) => this.#logout(...at) }],
      [ticket, { POST: (...at) => this.#ticket(...at) }],
    ]);
  }

  handle(request: IncomingMessage, response: ServerResponse, next: Next): void {
    const { path, query } = requestTarget(request);
    const methods = this.#routes.get(path);
    this.#setAuth(request, methods ? this.#visitor(request) : this.#receive(request, response));
    const misdirected = query !== '' && this.#findMisdirected(request);
    if (misdirected) return this.#fail(misdirected, response, next);
    if (methods === undefined) {
      this.#watchRewritten(path, response);
      return next();
    }
    const route = Object.hasOwn(methods, request.method ?? '') ? methods[request.method as string] : undefined;
    if (route === undefined) return refuseMethod(response, Object.keys(methods));
    this.#run(route, request, response, next);
  }

  require(guard: Guard, request: IncomingMessage, response: ServerResponse, next: Next): void {
    if (!guard.bearer || !offersScheme(request, 'bearer')) return this.#requireSession(guard, request, response, next);
    const done = this.#requireToken(guard, request, response);
    done
      .then(
        () => next(),
        (error) => this.#fail(error, response, next),
      )
      .catch(next);
  }

  /** What was sent with it is not a browser's doing, so it does not matter where from. */
  async #requireToken(guard: Guard, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const auth = await this.#waa.openToken(readScheme(request, 'bearer'));
    this.#waa.authorise(auth, guard.who);
    const unmet = guard.demands && this.#waa.unmet(auth, guard.demands);
    if (unmet) throw unmet;
    request.auth = auth;
    keepPrivate(response);
  }

  #requireSession(guard: Guard, request: IncomingMessage, response: ServerResponse, next: Next): void {
    const { who, demands, origins } = guard;
    const visitor = this.#known(request);
    if (visitor === undefined) {
      return next(new TypeError('require() needs app.use(webauth(waa)) before it, which also serves the login itself'));
    }
    const { auth, problem } = this.#recheck(visitor);
    if (problem?.status === 401 && guard.bearer && !isNavigation(request)) {
      appendEarly(response, 'WWW-Authenticate', 'Bearer');
    }
    if (problem) return this.#turnAway(problem, demands, request, response, next);
    try {
      if (!isSafe(request)) checkFormOrigin(request, origins);
      this.#waa.authorise(auth, who);
    } catch (error) {
      return this.#fail(error, response, next, auth);
    }
    const unmet = demands && this.#waa.unmet(auth, demands);
    if (unmet) return this.#turnAway(unmet, demands, request, response, next);
    request.auth = auth;
    keepPrivate(response);
    next();
  }

  /** Returns the error of a request of a login that began here, and that arrives at another path than its own. */
  #findMisdirected(request: IncomingMessage): WebauthError | undefined {
    const { path, query } = requestTarget(request);
    if (!isSafe(request)) return undefined;
    if (query.includes('WLS-Response')) return this.#findResponse(path, query);
    if (path === this.#waa.routes.login || !this.#isDetour(query)) return undefined;
    // Where the page needs a login too, the redirect would be sent again, without end.
    const error = pathMismatch('a redirect to the login route', path, this.#waa.routes.login);
    const search = new URLSearchParams(query);
    error.loginUrl = this.#waa.loginUrl(search.get('return') ?? '', parseDemands(search));
    return error;
  }

  /** Returns the error of a login response at another path than the callback. */
  #findResponse(path: string, query: string): WebauthError | undefined {
    if (path === this.#waa.routes.callback) return undefined;
    try {
      return this.#waa.rejectMisdirected(responseFromQuery(query), path);
    } catch (error) {
      if (error instanceof ResponseError) return undefined;
      throw error;
    }
  }

  /**
   * Whether a query is that of a redirect to the login route of our own host. It names the path of `baseUrl`, since several
   * applications may be on that host. A proxy that rewrites addresses may also decode slashes.
   */
  #isDetour(query: string): boolean {
    const decoded = query.replaceAll(/%2F/gi, '/');
    return decoded.startsWith('return=/') && hasPair(decoded, `moved=${this.#waa.routes.home}`);
  }

  /** Reports a request for a route of ours whose path a proxy has changed, if no other handler answers it. */
  #watchRewritten(path: string, response: ServerResponse): void {
    const at = path.lastIndexOf(OUR_FOLDER);
    if (at < 0) return;
    const route = this.#waa.routes.home + path.slice(at + 1, path.endsWith('/') ? -1 : undefined);
    if (!this.#routes.has(route)) return;
    response.once('finish', () => {
      if (response.statusCode === 404) this.#waa.refused(pathMismatch('a request for a route of ours', path, route));
    });
  }

  /** Of several copies, for several login services, one that knows nobody leaves what another one found. */
  #setAuth(request: IncomingMessage, { auth }: Visitor): void {
    if (auth === undefined && kept(request)[OURS]) return;
    request.auth = auth;
    if (auth) kept(request)[OURS] = true;
  }

  /** What is done once for each request that is not for our own routes. */
  #receive(request: IncomingMessage, response: ServerResponse): Visitor {
    const visitor = this.#visitor(request);
    if (visitor.auth) return this.#keepUp(visitor.auth, request, response);
    const { problem } = visitor;
    if (problem.code !== 'ERR_SESSION_INVALID') return visitor;
    this.#waa.refused(problem);
    if (problem.cookie === 'broken') setLate(response, this.#sessionCookie('', 0));
    return visitor;
  }

  /** Sees to it that the session is known to be in use. */
  #keepUp(auth: Auth, request: IncomingMessage, response: ServerResponse): Visitor {
    this.#waa.note(auth, request.headers['user-agent']);
    const renewed = this.#waa.renew(auth);
    if (renewed === undefined) return { auth };
    const visitor = { auth: renewed.auth };
    kept(request)[this.#name] = visitor;
    // Of a session that ended meanwhile it would take the place of the next one's cookie.
    setLate(response, this.#sessionCookie(renewed.cookie), () => this.#recheck(visitor).problem === undefined);
    return visitor;
  }

  #visitor(request: IncomingMessage): Visitor {
    const known = this.#known(request);
    if (known) return known;
    const visitor = this.#readVisitor(request);
    kept(request)[this.#name] = visitor;
    return visitor;
  }

  #known(request: IncomingMessage): Visitor | undefined {
    return kept(request)[this.#name] as Visitor | undefined;
  }

  #readVisitor(request: IncomingMessage): Visitor {
    try {
      return { auth: this.#waa.openSession(...readSession(request, this.#waa.cookies)) };
    } catch (error) {
      if (error instanceof SessionError) return { problem: error };
      throw error;
    }
  }

  /** What is sent slowly can arrive after the session has ended. */
  #recheck(visitor: Visitor): Visitor {
    if (visitor.problem) return visitor;
    try {
      this.#waa.recheck(visitor.auth);
      return visitor;
    } catch (error) {
      return { problem: error as SessionError };
    }
  }

  #turnAway(
    problem: SessionError,
    demands: Demands | undefined,
    request: IncomingMessage,
    response: ServerResponse,
    next: Next,
  ): void {
    const { path } = requestTarget(request);
    const returnTo = this.#returnPath(request);
    if (!this.#waa.reaches(path)) {
      const error = outOfReach(path, this.#waa.cookies.path);
      error.loginUrl = this.#waa.loginUrl(returnTo);
      return this.#fail(error, response, next);
    }
    // Of a cookie that nobody made, people are told: to send them to log in, again and again, would hide it.
    const invalid = problem.code === 'ERR_SESSION_INVALID';
    const canLogIn = problem.status === 401 && (!invalid || problem.cookie === 'foreign');
    const purpose = purposeOf(request);
    if (canLogIn && isNavigation(request) && purpose === 'prefetch') return this.#fail(prefetched(), response, next);
    if (canLogIn && isNavigation(request) && purpose === 'window') {
      const need = { returnTo, demands, problem };
      return this.#run((...at) => this.#redirectToLogin(need, ...at), request, response, next);
    }
    problem.loginUrl = this.#waa.loginUrl(returnTo, demands);
    // That one is in the log since the request came in.
    if (invalid) this.#answer(problem, response, next);
    else this.#fail(problem, response, next, this.#visitor(request).auth);
  }

  #redirectToLogin(need: Need, request: IncomingMessage, response: ServerResponse): void {
    const { origin, routes, cookies } = this.#waa;
    const { returnTo, demands, isPressed = false } = need;
    const { path, query } = requestTarget(request);
    const hasMoved = path === routes.login && this.#isDetour(query);
    if (!isPressed) this.#refuseLoop(need, request);
    this.#checkStore(need);
    // The cookie of this login has to be set where the login service sends people back to. `moved` ends it there: a
    // proxy may rewrite Host on the way to us. A form's Origin is not rewritten.
    const isHere = hostOf(request) === this.#host || (isPressed && request.headers.origin === origin);
    if (!isHere && !hasMoved) {
      this.#waa.noteReturn(returnTo);
      this.#waa.log(
        'info',
        'login started',
        `the application was requested under another name: the request has the Host ${quoteHeader(hostOf(request) ?? '')}, and baseUrl has ${this.#host}: the browser is sent there first (a test sends the header Host: ${this.#host})`,
      );
      const moved = `moved=${encodeURIComponent(routes.home)}`;
      return redirect(response, `${origin}${this.#waa.loginUrl(returnTo, demands)}&${moved}`);
    }
    const nonce = this.#cookie(request, cookies.login);
    // Who has no session any more need not come back as the same person.
    const stepUp = need.problem.code === 'ERR_STEP_UP_REQUIRED';
    const login = this.#waa.startLogin(returnTo, nonce, demands, stepUp ? this.#visitor(request).auth : undefined);
    this.#setCookie(response, cookies.login, login.nonce, this.#waa.loginTime);
    if (isPressed && wantsPage(request)) sendDeparture(this.#waa, login.location, response);
    else redirect(response, login.location);
  }

  /** @throws SessionError if the store cannot be reached, so that users do not type a password for a login that fails. */
  #checkStore({ returnTo, demands }: Need): void {
    try {
      this.#waa.checkStore();
    } catch (error) {
      (error as WebauthError).loginUrl = this.#waa.loginUrl(returnTo, demands);
      throw error;
    }
  }

  /** A login has just succeeded, and another one is needed all the same: it would be in vain too. */
  #refuseLoop({ returnTo, demands, problem }: Need, request: IncomingMessage): void {
    const { cookies } = this.#waa;
    const done = this.#cookie(request, cookies.done);
    const insufficient = problem.code === 'ERR_STEP_UP_REQUIRED';
    if (done === undefined || (insufficient && !done.split('.').includes(markOf(demands)))) return;
    if (
      problem.code === 'ERR_SESSION_REVOKED' &&
      this.#carried(request).sessions.some((one) => this.#waa.isEnded(one))
    ) {
      // The login was not in vain: the user or the application ended its session since.
      problem.loginUrl = this.#waa.loginUrl(returnTo, demands);
      throw problem;
    }
    const arrived = this.#cookie(request, cookies.session) !== undefined;
    const why = arrived ? problem.message : 'the browser did not keep its session cookie';
    const code = insufficient ? 'ERR_IACT_UNSATISFIED' : 'ERR_COOKIES_BLOCKED';
    const error = new VerificationError(code, `a login has just succeeded, and it was in vain: ${why}`);
    error.loginUrl = this.#waa.loginUrl(returnTo, demands);
    throw error;
  }

  /**
   * Begins a login for the button of a page of ours. Its POST with our own Origin shows that a user wants another login;
   * `Sec-Fetch-User` does not: WebKit never sends it, Firefox sends it with scripted navigations too, and all browsers
   * send it with the redirects after a click.
   */
  #loginByButton(request: IncomingMessage, response: ServerResponse): void {
    try {
      checkFormOrigin(request, this.#waa.origins);
    } catch (error) {
      const query = new URLSearchParams(requestTarget(request).query);
      (error as WebauthError).loginUrl = this.#waa.loginUrl(query.get('return') ?? '', parseDemands(query));
      throw error;
    }
    this.#login(request, response, true);
  }

  #login(request: IncomingMessage, response: ServerResponse, isPressed = false): void {
    const query = new URLSearchParams(requestTarget(request).query);
    const returnTo = query.get('return') ?? '';
    const demands = parseDemands(query);
    this.#checkNavigation(request, returnTo, demands);
    const visitor = this.#visitor(request);
    if (visitor.auth) this.#keepUp(visitor.auth, request, response);
    const problem = visitor.auth ? demands && this.#waa.unmet(visitor.auth, demands) : visitor.problem;
    if (problem?.status === 503) {
      problem.loginUrl = this.#waa.loginUrl(returnTo, demands);
      throw problem;
    }
    if (problem) return this.#redirectToLogin({ returnTo, demands, problem, isPressed }, request, response);
    // Another process, to which the page leads, may think otherwise.
    if (this.#isDetour(requestTarget(request).query)) this.#setDone(request, response, {});
    redirect(response, this.#waa.origin + this.#waa.safeReturn(returnTo));
  }

  async #callback(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin, cookies } = this.#waa;
    this.#checkNavigation(request, '');
    const encoded = responseFromQuery(requestTarget(request).query);
    const { auth } = this.#visitor(request);
    const anchor = cookies.anchor && readCookie(request, cookies.anchor);
    const login = await this.#waa.finishLogin(encoded, readCookie(request, cookies.login), auth, anchor);
    if (login.cookie !== undefined) {
      await this.#retireReplaced(request, response, auth);
      this.#waa.note(login.auth, request.headers['user-agent']);
      if (cookies.anchor && login.anchor !== undefined) this.#setCookie(response, cookies.anchor, login.anchor);
      setCookie(response, this.#sessionCookie(login.cookie));
      this.#setCookie(response, cookies.login, '', 0);
      this.#setDone(request, response, login.demands);
    }
    redirect(response, origin + login.returnTo);
  }

  async #ticket(request: IncomingMessage, response: ServerResponse): Promise<void> {
    checkFormOrigin(request, this.#waa.origins);
    const { auth, problem } = this.#visitor(request);
    if (problem) {
      problem.loginUrl = this.#waa.loginUrl(this.#returnPath(request));
      throw problem;
    }
    this.#keepUp(auth, request, response);
    sendData(response, 200, await this.#waa.makeTicket(...readSession(request, this.#waa.cookies)));
  }

  async #logoutPage(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { auth } = this.#visitor(request);
    if (auth) this.#keepUp(auth, request, response);
    const { sessions, foreign } = this.#carried(request);
    // A session that may be live has to be revoked.
    const revoked = await Promise.all(sessions.map((one) => this.#waa.isRevokedEverywhere(one)));
    const isOut = foreign === undefined && !revoked.includes(false);
    sendLogout(this.#waa, isOut ? undefined : { principal: auth?.principal }, response);
  }

  async #logout(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin, origins, routes, cookies } = this.#waa;
    checkFormOrigin(request, origins);
    const { query } = requestTarget(request);
    const carried = this.#carried(request);
    const { problem } = this.#visitor(request);
    if (problem?.code === 'ERR_SESSION_INVALID') this.#waa.refused(problem);
    const everywhere = hasPair(query, 'everywhere=yes');
    const owner = everywhere ? this.#owner(request, carried) : undefined;
    const failure = await this.#revoke(carried, owner);
    const missed = everywhere && owner === undefined ? problem : undefined;
    const unfinished = failure ?? (missed?.status === 503 ? missed : undefined);
    // The cookie stays, so that the next attempt can revoke what may live on.
    if (unfinished && !hasPair(query, 'here=yes')) {
      // A login after a logout is no loop.
      if (readCookies(request, cookies.done).length > 0) this.#setCookie(response, cookies.done, '', 0);
      throw unfinished;
    }
    this.#removeCookies(request, response, carried);
    if (unfinished) return this.#sayRemoved(unfinished, request, response);
    const isDone = missed === undefined || this.#isEndedWithOthers(request, carried);
    if (!isDone) {
      missed.loginUrl = this.#waa.loginUrl(routes.logout);
      throw missed;
    }
    if (missed && wantsPage(request)) return sendEndedTogether(this.#waa, response);
    redirect(response, origin + routes.logout);
  }

  /**
   * Whether a logout everywhere has nothing left to revoke that began before an earlier one, as with its retry. A cookie
   * that a sibling may have planted does not count.
   */
  #isEndedWithOthers(request: IncomingMessage, { sessions, foreign, doubled }: Carried): boolean {
    const { anchor } = this.#waa.cookies;
    const [one] = sessions;
    if (one === undefined || foreign || doubled) return false;
    return this.#waa.isEndedWithOthers(one, anchor && this.#cookie(request, anchor));
  }

  /** The user asked for it, though the session may live on. */
  #sayRemoved(why: WebauthError, request: IncomingMessage, response: ServerResponse): void {
    const { code, message } = why;
    const what = 'a session cookie was removed from a browser, and its session may live on';
    this.#waa.log('warn', 'logout', `${what}: ${message}`, { code });
    sendRemoved(this.#waa, request, response);
  }

  /** User whose sessions may all be revoked: only by a session that nothing known here speaks against. */
  #owner(request: IncomingMessage, { sessions, doubled }: Carried): string | undefined {
    const { auth, problem } = this.#visitor(request);
    if (auth) return auth.principal;
    const { anchor } = this.#waa.cookies;
    const [one] = sessions;
    if (problem.status !== 503 || doubled || one === undefined) return undefined;
    return this.#waa.isTrusted(one, anchor && this.#cookie(request, anchor)) ? one.principal : undefined;
  }

  /** Revokes all at once; returns what failed. What the store cannot be told now, it is told later. */
  async #revoke({ sessions, foreign }: Carried, owner: string | undefined): Promise<WebauthError | undefined> {
    const jobs = sessions.map((auth) => this.#waa.endPeeked(auth));
    if (owner !== undefined) jobs.push(this.#waa.endSessions(owner));
    const failed = (await Promise.allSettled(jobs)).filter((one) => one.status === 'rejected');
    const [reason] = failed.map((one): unknown => one.reason);
    if (reason === undefined || reason instanceof WebauthError) return reason ?? foreign;
    throw reason;
  }

  /**
   * Removes the session cookie, and the binding cookie of what was revoked with it. Where the cookie came twice, from
   * wherever else it may have been set.
   */
  #removeCookies(request: IncomingMessage, response: ServerResponse, { sessions, doubled }: Carried): void {
    const { cookies } = this.#waa;
    setCookie(response, this.#sessionCookie('', 0));
    this.#setCookie(response, cookies.done, '', 0);
    if (doubled) this.#removeStray(request, response, cookies.session);
    if (cookies.anchor === undefined) return;
    const held = readCookies(request, cookies.anchor);
    if (!held.some((anchor) => sessions.some((auth) => this.#waa.isBound(auth, anchor)))) return;
    this.#setCookie(response, cookies.anchor, '', 0);
    if (held.length > 1) this.#removeStray(request, response, cookies.anchor);
  }

  #removeStray(request: IncomingMessage, response: ServerResponse, name: string): void {
    for (const line of formatRemovals(name, new URL(requestTarget(request).path, this.#waa.origin))) {
      setCookie(response, line);
    }
  }

  /** Revokes every other session whose cookie gives way to that of a new login. */
  async #retireReplaced(request: IncomingMessage, response: ServerResponse, replaced: Auth | undefined): Promise<void> {
    const { sessions, foreign, doubled } = this.#carried(request);
    const live = sessions.filter((auth) => !this.#waa.isRevoked(auth) && !this.#waa.isOver(auth));
    const others = live.filter(({ sessionId }) => sessionId !== replaced?.sessionId);
    await Promise.all(others.map((auth) => this.#waa.retirePeeked(auth)));
    if (doubled) this.#removeStray(request, response, this.#waa.cookies.session);
    if (foreign === undefined) return;
    const message = 'a session cookie that does not open here gave way to that of a login; its session may live on';
    this.#waa.log('warn', 'login', message, { code: 'ERR_SESSION_INVALID' });
  }

  /** Opens every session cookie of a request, also where there are several. */
  #carried(request: IncomingMessage): Carried {
    const values = readCookies(request, this.#waa.cookies.session);
    const sessions = new Map<string, Auth>();
    let foreign: SessionError | undefined;
    for (const value of values) {
      try {
        const auth = this.#waa.peekSession(value);
        sessions.set(auth.sessionId, auth);
      } catch (error) {
        if ((error as SessionError).cookie === 'foreign') foreign = logoutIncomplete();
      }
    }
    return { sessions: [...sessions.values()], foreign, doubled: values.length > 1 };
  }

  /** @throws AuthorisationError unless the browser loads the address as the page of a window, where it says. */
  #checkNavigation(request: IncomingMessage, returnTo: string, demands?: Demands): void {
    const purpose = purposeOf(request);
    if (purpose === 'window') return;
    const error = purpose === 'prefetch' ? prefetched() : navigationRequired(purpose);
    error.loginUrl = this.#waa.loginUrl(returnTo, demands);
    throw error;
  }

  /** Adds to what the last moments' logins were for. */
  #setDone(request: IncomingMessage, response: ServerResponse, demands: Demands): void {
    const { done } = this.#waa.cookies;
    const before = this.#cookie(request, done)?.split('.') ?? [];
    const marks = [...before.filter((mark) => markShape.test(mark)).slice(1 - MAX_MARKS), markOf(demands)];
    this.#setCookie(response, done, marks.join('.'), this.#waa.doneTime);
  }

  #run(route: Route, request: IncomingMessage, response: ServerResponse, next: Next): void {
    const done = (async () => route(request, response))();
    done.catch((error) => this.#fail(error, response, next)).catch(next);
  }

  #fail(error: unknown, response: ServerResponse, next: Next, auth?: Auth): void {
    if (error instanceof WebauthError) this.#waa.refused(error, auth);
    this.#answer(error, response, next);
  }

  #answer(error: unknown, response: ServerResponse, next: Next): void {
    if (!response.headersSent) setEarly(response, 'Cache-Control', 'no-store');
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

  #sessionCookie(value: string, maxAge?: number): string {
    const { session, path } = this.#waa.cookies;
    return this.#formatCookie(session, value, maxAge, path);
  }

  #setCookie(response: ServerResponse, name: string, value: string, maxAge?: number): void {
    setCookie(response, this.#formatCookie(name, value, maxAge));
  }

  #formatCookie(name: string, value: string, maxAge?: number, path = '/'): string {
    return formatCookie(name, value, {
      secure: this.#waa.cookies.secure,
      path,
      ...(maxAge === undefined ? {} : { maxAge }),
    });
  }

  /** Where to go after logging in: the page that was asked for, or the page of ours that a program or form is on. */
  #returnPath(request: IncomingMessage): string {
    if (isNavigation(request)) return rawTarget(request);
    const { referer } = request.headers;
    const from = referer !== undefined && URL.canParse(referer) ? new URL(referer) : undefined;
    return from?.origin === this.#waa.origin ? from.pathname + from.search : '';
  }
}

/** Why somebody has to log in, and what for. */
interface Need {
  readonly returnTo: string;
  readonly demands: Demands | undefined;
  readonly problem: SessionError;
  /** Whether a user pressed the button of a page of ours: false. */
  readonly isPressed?: boolean;
}

/** The session cookies of a request. */
interface Carried {
  /** Sessions that a secret of this application sealed, each of them once. */
  readonly sessions: readonly Auth[];
  /** Error of a logout, where a machine with another secret may have sealed one. */
  readonly foreign: SessionError | undefined;
  /** Whether there was more than one cookie. */
  readonly doubled: boolean;
}

/** Names, in the cookie of the last moments' logins, what one was for. */
function markOf(demands: Demands = {}): string {
  return digest('requirements', formatDemands(demands)).slice(0, 8);
}

/** Folder of our routes, below the path of `baseUrl`. */
const OUR_FOLDER = '/webauth/';

const markShape = /^[\w-]{8}$/;
const MAX_MARKS = 8;

/** Whether a query has that pair, written so. */
function hasPair(query: string, pair: string): boolean {
  return query.split('&').includes(pair);
}

function kept(request: IncomingMessage): Kept {
  return request as unknown as Kept;
}

function outOfReach(path: string, cookiePath: string): VerificationError {
  return new VerificationError(
    'ERR_COOKIES_BLOCKED',
    `${JSON.stringify(path.slice(0, 100))} needs a login, and browsers send the session to ${cookiePath} only: its route, or cookiePath, has to be another`,
  );
}

function logoutIncomplete(): SessionError {
  return new SessionError(
    'ERR_LOGOUT_INCOMPLETE',
    'no secret of this machine opens the session cookie, so that its session could not be revoked; another machine of the application may have a newer secret: try again',
  );
}

function navigationRequired(purpose: 'frame' | 'part'): AuthorisationError {
  const found = purpose === 'frame' ? 'in a frame' : 'as a part of a page (an image, a script, a fetch)';
  return new AuthorisationError(
    'ERR_NAVIGATION_REQUIRED',
    `a login was requested ${found}; a login takes a navigation of the whole window: follow a link`,
  );
}

function prefetched(): AuthorisationError {
  return new AuthorisationError(
    'ERR_PREFETCH_REFUSED',
    'the browser asked in advance, before its user did; a login takes a navigation: follow the link',
  );
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
