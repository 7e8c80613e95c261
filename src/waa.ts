import { randomBytes } from 'node:crypto';
import { type Attempt, Attempts, cookiesBlocked, keptOrNew, LOGIN_TIME } from './attempts.js';
import {
  allowsDevelopment,
  type Config,
  type Cookies,
  checkConfig,
  cookiesOf,
  isWithin,
  type LogEvent,
  type Routes,
  routesOf,
  socketCookieOf,
} from './config.js';
import { logToConsole } from './console-log.js';
import { type Demands, demandFields, formatDemands, unmet } from './demands.js';
import { digest } from './digest.js';
import { logsToConsole } from './environment.js';
import { AuthorisationError, SessionError, singleLine, VerificationError, WebauthError } from './errors.js';
import {
  callable,
  checkArgument,
  checkFields,
  checkOptions,
  isText,
  names,
  origin as originRule,
  passes,
  type Rule,
  type Rules,
  required,
  restriction,
  tags,
  text,
  unrestricted,
} from './options.js';
import { checkPrincipals, isDemoKey, type Profile, raven } from './profiles.js';
import { formatRequest } from './request.js';
import { type AuthResponse, parseResponse } from './response.js';
import type { ListedSession } from './session/list.js';
import { MemoryStore } from './session/memory.js';
import { checkOwnAuth } from './session/own-auth.js';
import { Pace } from './session/pace.js';
import { Sealer } from './session/seal.js';
import type { Auth } from './session/session.js';
import { Sessions, type SocketCookies } from './session/sessions.js';
import type { Store } from './session/store.js';
import { type NewToken, newTokenRules, type Token } from './session/tokens.js';
import type { OnEnd, OnRenew } from './session/watches.js';
import { type VerifiedResponse, verifyParsed } from './verify.js';

/** Who may enter: people who pass both. */
export interface Requirements {
  /** These people; an empty list lets in nobody. */
  readonly principals?: readonly string[];
  /** People with one of these ptags; an empty list asks for none. */
  readonly ptags?: readonly string[];
  /** Of an API token, that it has all of these; none, by default. Sessions are good for everything. */
  readonly scopes?: readonly string[];
}

export const requirementRules: Rules<Requirements> = {
  principals: restriction(names),
  ptags: restriction(tags),
  scopes: restriction(names),
};

/** The same for a call, where one that is undefined is as configured. */
const routeRules = unrestricted(requirementRules);
const noRequirements: Requirements = {};

/** The cookie that opens sockets at another origin, and nothing else. */
export interface SocketCookie extends SocketCookies {
  readonly name: string;
  readonly secure: boolean;
}

/** API tokens. Each is for one person, shown once, and kept as a hash. */
export interface TokenDesk {
  /** @throws TypeError if it has no name or no end. */
  create(token: NewToken): Promise<Token & { readonly token: string }>;
  /** The live ones of a person, the oldest first. */
  list(principal: string): Promise<Token[]>;
  /** Ends one everywhere. Resolves to whether that person has one of that handle. */
  revoke(principal: string, handle: string): Promise<boolean>;
}

/** The sessions that people have. */
export interface SessionDesk {
  /** The live ones of a person, the one used last first. @param asking the session that asks, to be told from others. */
  list(principal: string, asking?: Auth): Promise<ListedSession[]>;
  /** Ends one everywhere. Resolves to whether that person has one of that handle. */
  revoke(principal: string, handle: string): Promise<boolean>;
}

declare module 'node:http2' {
  interface Http2ServerRequest {
    /** Session or token of the user; set by `webauth`. */
    auth?: Auth | undefined;
  }
}

/** Checks the configuration once and throws TypeError, with what to do, where it cannot be used safely. */
export function createWAA(config: Config): WAA {
  return new WAA(config);
}

declare global {
  namespace Express {
    /** Exists without the types of Express too. */
    interface Request {}
  }
}

interface WithAuth {
  /** Authenticated user; set by `webauth` and by `acceptUpgrades`. */
  auth?: Auth | undefined;
}

/** Property `auth` as `Declared` has it, {@link WithAuth} otherwise: two declarations would clash (TS2320). */
type AuthProperty<Declared> = 'auth' extends keyof Declared ? Pick<Declared, 'auth' & keyof Declared> : WithAuth;

declare module 'node:http' {
  interface IncomingMessage extends AuthProperty<Express.Request> {}
}

const MAX_RETURN = 2048;
/** Seconds: longer than a clock is put back by, so that a response that is fresh again is not one to be used again. */
const REPLAY_MEMORY = 3600 + 10 * 60;
const DONE_TIME = 10;
/** Longest part of a path that an error shows: characters. */
const MAX_SHOWN = 100;
/** Browsers drop cookies of over 4096 characters; this leaves room for name and attributes. */
const MAX_COOKIE = 3800;

/** One application's logins and sessions, without any HTTP. Made by {@link createWAA}; the glue calls it. */
export class WAA {
  /** Of `baseUrl`. */
  readonly origin: string;
  /** What an Origin header has to say. */
  readonly origins: ReadonlySet<string>;
  readonly routes: Routes;
  readonly cookies: Cookies;
  readonly wls: Profile;
  /** Whether what is for development only is accepted. */
  readonly isDevelopment: boolean;
  /** Whether the pages after a logout clear the browser's cache. */
  readonly clearsCache: boolean;
  /** How long the login cookie is kept: seconds. */
  readonly loginTime: number = LOGIN_TIME;
  /** How long after a login it would be a loop to need another: seconds. */
  readonly doneTime: number = DONE_TIME;

  readonly #config: Config;
  readonly #log: Config['log'];
  readonly #now: () => Date;
  readonly #store: Store;
  readonly #sessions: Sessions;
  readonly #attempts: Attempts;
  /** Throttles the log to once a minute: every login behind a proxy that rewrites paths fails alike. */
  readonly #pathMismatches = new Pace(60_000);
  /** Requirements that were checked. */
  readonly #checked = new WeakSet<Requirements>([noRequirements]);
  readonly #requirements: { readonly principals: readonly string[] | undefined; readonly ptags: readonly string[] };
  /**
   * Resolves once the store has been heard, or not for some seconds; until it is, nobody has a session. Rejects with a
   * TypeError with the code `ERR_STORE_UNAVAILABLE` if the store cannot be used as it is configured.
   */
  readonly ready: Promise<void>;
  /** API tokens, for programs that act for a person. */
  readonly tokens: TokenDesk;
  /** People's sessions. @throws TypeError if `listSessions` is not on. */
  readonly sessions: SessionDesk;

  constructor(config: Config) {
    checkConfig(config);
    this.#config = config;
    this.#log = config.log ?? (logsToConsole() && logToConsole);
    this.#now = config.now ?? (() => new Date());
    this.wls = config.wls ?? raven;
    this.isDevelopment = allowsDevelopment(config);
    this.origin = new URL(config.baseUrl).origin;
    this.origins = new Set([this.origin]);
    this.routes = routesOf(config);
    this.cookies = cookiesOf(config);
    this.clearsCache = config.clearCacheOnLogout ?? true;
    this.#requirements = {
      principals: config.requirePrincipals,
      ptags: config.requirePtags ?? this.wls.requirePtags,
    };
    const secrets = this.#readSecrets();
    const place = this.origin + this.routes.home.slice(0, -1);
    const sealerOf = (purpose: string, cookie: string, ...bound: string[]) =>
      new Sealer(secrets, purpose, cookie, place, this.cookies.path, ...bound);
    this.#attempts = new Attempts(sealerOf('login attempt', this.cookies.login), this.#now);
    this.#store = config.store ?? new MemoryStore({ now: this.#now });
    this.#announce();
    this.#sessions = new Sessions({
      sealerOf: (purpose, ...bound) => sealerOf(purpose, this.cookies.session, ...bound),
      store: this.#store,
      lifetimes: {
        maxLife: config.maxLife ?? 7200,
        useWlsLife: config.useWlsLife ?? true,
        inactiveTimeout: config.inactiveTimeout,
      },
      wls: this.wls.name,
      place,
      cookie: this.cookies.session,
      now: this.#now,
      staleAfter: (config.staleAfter ?? 10) * 1000,
      allowStale: config.dangerouslyAllowStaleSessions ?? false,
      listed: config.listSessions ?? false,
      complain: (message, level = 'error') =>
        this.log(level, 'store', message, level === 'error' ? { code: 'ERR_STORE_UNAVAILABLE' } : {}),
    });
    this.ready = this.#sessions.ready;
    // Of all that can be wrong with a store, this is not over by itself; somebody has to hear of it.
    if (!this.#log) this.ready.catch(({ message }: Error) => process.emitWarning(message));
    this.tokens = this.#tokenDesk();
    this.sessions = this.#sessionDesk();
  }

  /**
   * Where to send the browser to log in, and the nonce that it has to keep in the login cookie.
   * @param returnTo path and query on this origin to come back to; the application's own path if it is anything else.
   * @param nonce what the login cookie holds already: tabs share it.
   * @param demands how the person has to authenticate.
   * @param live who is logged in already, and has to come back.
   */
  startLogin(
    returnTo: string,
    nonce?: string,
    demands: Demands = {},
    live?: Auth,
  ): { readonly location: string; readonly nonce: string } {
    checkArgument('startLogin()', 'returnTo', returnTo, required(text));
    checkArgument('startLogin()', 'nonce', nonce, text);
    checkFields('startLogin()', 'demands', demands, demandFields);
    if (live !== undefined) this.#checkOwn('startLogin()', live);
    this.noteReturn(returnTo);
    const purpose = { returnTo: this.safeReturn(returnTo), demands, principal: live?.principal };
    const begun = this.#attempts.begin(purpose, nonce);
    const { iact, aauth } = demands;
    const location = formatRequest(this.wls.authUrl, {
      url: this.#callbackUrl,
      params: begun.params,
      date: this.#now(),
      ...(iact === undefined ? {} : { iact }),
      ...(aauth === undefined ? {} : { aauth }),
      ...(this.#config.desc === undefined ? {} : { desc: this.#config.desc }),
    });
    const why = live ? 'to authenticate again' : 'to log in';
    this.log('debug', 'login started', `a browser is sent to the login service ${why}`, live);
    return { location, nonce: begun.nonce };
  }

  /**
   * Takes what the login service answered and, if it verifies, starts a new session in place of the live one.
   * @param nonce the login cookie.
   * @param live the session that the browser has. If it has that and no login cookie any more, another tab finished
   *   first: for the same person the session goes on as it is, and nothing is used up.
   * @param anchor the anchor cookie, if this application has one.
   * @throws WebauthError. The live session goes on then. Where the attempt is one of ours, `loginUrl` leads to another.
   */
  async finishLogin(encoded: string, nonce: string | undefined, live?: Auth, anchor?: string): Promise<Login> {
    checkArgument('finishLogin()', 'nonce', nonce, text);
    checkArgument('finishLogin()', 'anchor', anchor, text);
    if (live !== undefined) this.#checkOwn('finishLogin()', live);
    const parsed = parseResponse(encoded);
    const { params, kid, status } = parsed;
    const attempt = this.#attempts.open(params, nonce);
    const { returnTo, demands } = attempt;
    try {
      this.#attempts.checkBrowser(attempt, nonce, live !== undefined);
      // Anybody can have a token made, and send people here with a failure in words of his own.
      if (nonce === undefined && status !== 200) throw cookiesBlocked();
      this.#refuseDemoKey(kid);
      const { iact, aauth } = demands;
      const response = verifyParsed(encoded, parsed, { ...this.#expectations(), params, iact, aauth });
      if (nonce === undefined) return { ...unchanged, auth: this.#goOn(response, attempt, live), returnTo, demands };
      checkStepUp(response, attempt);
      return { ...(await this.#startSession(response, attempt, live, anchor)), returnTo, demands };
    } catch (error) {
      // Who could not be logged in without being asked can be, if they are asked.
      const again = demands.iact === false ? { ...demands, iact: undefined } : demands;
      if (error instanceof WebauthError) error.loginUrl = this.loginUrl(returnTo, again);
      throw error;
    }
  }

  /**
   * Judges a login response that arrived at another path than the callback. To ignore it would send the browser to log in
   * again, without end.
   *
   * @returns the error; `undefined` for the response to a login of another application, or
   * of over half an hour ago: an address in the history of a browser.
   */
  rejectMisdirected(encoded: string, path: string): VerificationError | undefined {
    const attempt = this.#attempts.find(paramsOf(encoded));
    if (attempt === undefined) return undefined;
    const error = pathMismatch('a login response', path, this.routes.callback);
    error.loginUrl = this.loginUrl(attempt.returnTo, attempt.demands);
    return error;
  }

  /**
   * Opens a session cookie.
   * @param anchor the anchor cookie, if this application has one.
   * @throws SessionError if there is no live session in it.
   */
  openSession(cookie: string | undefined, anchor?: string): Auth {
    return this.#sessions.open(cookie, anchor);
  }

  /**
   * A single-use stand-in for a session cookie, good for half a minute.
   * @param cookie the session cookie, and the anchor cookie if this application has one.
   * @throws SessionError if there is no live session in it, or it has too many tickets already.
   */
  async makeTicket(
    cookie: string | undefined,
    anchor?: string,
  ): Promise<{ readonly ticket: string; readonly expires: Date }> {
    return this.#sessions.makeTicket(cookie, anchor);
  }

  /**
   * Uses a ticket up, and says whose it was.
   * @throws SessionError if it is no ticket, or was used, or is too old, or its session is over.
   */
  takeTicket(ticket: string): Promise<Auth> {
    return this.#sessions.takeTicket(ticket);
  }

  /** The cookie of browsers that have this application's pages, and its sockets at another origin. */
  socketCookie(origin: string): SocketCookie {
    checkArgument('socketCookie()', 'origin', origin, required(originRule));
    const { name, secure } = socketCookieOf(this.#config, origin);
    return { name, secure, ...this.#sessions.socketCookies(name, origin) };
  }

  /** @throws AuthorisationError if the person or the token may not enter. What `route` leaves out is as configured. */
  authorise(auth: Auth, route: Requirements = noRequirements): void {
    if (!this.#checked.has(route)) {
      checkOptions('authorise()', route, routeRules);
      this.checkRequirements('authorise()', route);
    }
    if (!passes(isAuth, auth)) checkOwnAuth('authorise()', auth);
    checkScopes(auth, route.scopes);
    const { principals = this.#requirements.principals, ptags = this.#requirements.ptags } = route;
    if (principals && !principals.includes(auth.principal)) {
      throw new AuthorisationError(
        'ERR_PRINCIPAL_REFUSED',
        `only some people may enter here, and ${auth.principal} is not one of them`,
      );
    }
    if (ptags.length > 0 && !ptags.some((tag) => auth.ptags.includes(tag))) {
      const wanted = ptags.map((tag) => `"${tag}"`).join(' or ');
      throw new AuthorisationError('ERR_PTAGS_REFUSED', `to enter here, a person needs the ptag ${wanted}`);
    }
  }

  /**
   * Checks requirements once, when a guard is made of them. Their types have been checked.
   *
   * @param of the function that takes them, for the message.
   * @throws TypeError if the login service never sends one of the principals.
   */
  checkRequirements(of: string, route: Requirements): void {
    checkPrincipals(`the option principals of ${of}`, route.principals, this.wls);
    this.#checked.add(route);
  }

  /** Why the login of this session is not what is asked for; undefined if it is. */
  unmet(auth: Auth, demands: Demands): SessionError | undefined {
    return unmet(auth, demands, this.#now().getTime());
  }

  /**
   * Ends a session everywhere: its cookie opens no more, and its sockets close; and with it those of other applications
   * that the browser shares an anchor cookie with.
   * @throws TypeError for a copy of an `Auth` object, before anything is done.
   */
  async endSession(auth: Auth): Promise<void> {
    this.#checkOwn('endSession()', auth);
    await this.#sessions.logOut(auth);
    this.log('info', 'logout', 'a session was ended', auth);
  }

  /** As `endSession`, for a peeked session, of whichever login service, which may be revoked already. */
  async endPeeked(auth: Auth): Promise<void> {
    if (await this.#sessions.logOutPeeked(auth)) this.log('info', 'logout', 'a session was ended', auth);
  }

  /**
   * Opens a session cookie, only to revoke its session: that may have expired, have been revoked, have lost its binding
   * cookie or have begun with another login service, and the store may be unreachable.
   * @throws SessionError if no secret of this application sealed it.
   */
  peekSession(cookie: string): Auth {
    return this.#sessions.peek(cookie);
  }

  /** Whether a peeked session is bound to that binding cookie. */
  isBound(auth: Auth, anchor: string | undefined): boolean {
    return this.#sessions.isBound(auth, anchor);
  }

  /** Whether all that this process knows speaks for a peeked session, though the store may be unreachable. */
  isTrusted(auth: Auth, anchor: string | undefined): boolean {
    return this.#sessions.isTrusted(auth, anchor);
  }

  /** Whether a peeked session is known to be revoked, or to be none that the store knows. */
  isRevoked(auth: Auth): boolean {
    return this.#sessions.isRevoked(auth);
  }

  /** Whether a user or the application revoked a peeked session. */
  isEnded(auth: Auth): boolean {
    return this.#sessions.isEnded(auth);
  }

  /** Whether a peeked session with that binding cookie was revoked together with all earlier ones of its user. */
  isEndedWithOthers(auth: Auth, anchor: string | undefined): boolean {
    return this.#sessions.isEndedWithOthers(auth, anchor);
  }

  /** As `isRevoked`, once the store has been told of every revocation that this process made. */
  isRevokedEverywhere(auth: Auth): Promise<boolean> {
    return this.#sessions.isRevokedEverywhere(auth);
  }

  /** Whether a session can be used no more, by the clock, with whichever copy of its cookie. */
  isOver(auth: Auth): boolean {
    return this.#sessions.endOf(auth) <= this.#now();
  }

  /** Ends a session in whose place another one has begun; others of the browser go on. */
  async retireSession(auth: Auth): Promise<void> {
    this.#checkOwn('retireSession()', auth);
    await this.retirePeeked(auth);
  }

  /** As `retireSession`, for a peeked session, of whichever login service. */
  async retirePeeked(auth: Auth): Promise<void> {
    await this.#sessions.revoke(auth);
    this.log('info', 'revoked', 'a session was replaced by that of another login', auth);
  }

  /** Ends all sessions of a person, on all their devices, and in all applications that share the store. */
  async endSessions(principal: string): Promise<void> {
    this.#checkPrincipal('endSessions()', principal);
    await this.#sessions.revokeAll(principal);
    this.log('info', 'revoked', 'all sessions of a person were ended', { principal });
  }

  /** Keeps a person out of all applications that share the store: their sessions end, and their tokens are refused. */
  async block(principal: string): Promise<void> {
    this.#checkPrincipal('block()', principal);
    await this.#sessions.block(principal);
    this.log('warn', 'blocked', 'a person was blocked', { principal });
  }

  /** Lets a person in again. Their tokens are good again; they have to log in anew. */
  async unblock(principal: string): Promise<void> {
    // Of any form: a block may have been made before forms were checked.
    checkArgument('unblock()', 'principal', principal, principalRule);
    await this.#sessions.unblock(principal);
    this.log('info', 'blocked', 'a person is no longer blocked', { principal });
  }

  /**
   * Says whose API token it is.
   * @throws SessionError if it is none, or was revoked, or is over; AuthorisationError if its person is blocked.
   */
  openToken(token: string): Promise<Auth> {
    return this.#sessions.tokens.open(token);
  }

  /** The session as just used, with a cookie that says so; undefined where none is needed. */
  renew(auth: Auth): { readonly auth: Auth; readonly cookie: string } | undefined {
    return this.#sessions.renew(auth);
  }

  /** Notes in the list of people's sessions, if there is one, that this one is in use. */
  note(auth: Auth, userAgent?: string): void {
    this.#sessions.list?.note(auth, this.#sessions.endOf(auth), userAgent);
  }

  /**
   * Calls back once, when the session ends for whatever reason. Returns a function that stops watching.
   * @param auth the object that a guard, an open socket, `openSession` or `takeTicket` gave.
   * @param onRenew is told the new end, whenever the session was used on any process and so lasts longer than was known.
   */
  watch(auth: Auth, onEnd: OnEnd, onRenew?: OnRenew): () => void {
    this.#checkOwn('watch()', auth);
    checkArgument('watch()', 'onEnd', onEnd, required(callable));
    checkArgument('watch()', 'onRenew', onRenew, callable);
    return this.#sessions.watch(auth, onEnd, onRenew);
  }

  /** Makes `auth` say what `fresh` does, of the same person: who has it goes on by that session. */
  adopt(auth: Auth, fresh: Auth): void {
    this.#sessions.adopt(auth, fresh);
  }

  /** The path at which a person can log in, as is demanded, and come back to `returnTo`. */
  loginUrl(returnTo: string, demands: Demands = {}): string {
    const back = encodeURIComponent(this.safeReturn(returnTo));
    return `${this.routes.login}?return=${back}${formatDemands(demands)}`;
  }

  /** Whether browsers send the session cookie to that path. */
  reaches(path: string): boolean {
    return this.cookies.path === '/' || isWithin(path, this.cookies.path);
  }

  /** @throws SessionError if the session, which was open before, has ended meanwhile. */
  recheck(auth: Auth): void {
    this.#sessions.recheck(auth);
  }

  /** @throws SessionError (503) if the store has not been reached for `staleAfter`, so that no login can succeed. */
  checkStore(): void {
    this.#sessions.checkStore();
  }

  /** The path if it is one on this origin of at most 2 KB, else that of the application. */
  safeReturn(path: string): string {
    return path.length <= MAX_RETURN && returnShape.test(path) ? path : this.routes.home;
  }

  /** Reports a return path that is too long. Its text stays out of the log: a query may hold secrets. */
  noteReturn(path: string): void {
    if (path.length <= MAX_RETURN) return;
    this.log(
      'warn',
      'login started',
      `the address that a login was started from has ${path.length} characters, and a login returns to at most ${MAX_RETURN}: it will return to ${this.routes.home} instead. Shorten the address`,
    );
  }

  /** Reports a refusal: loudly where something is wrong, quietly where somebody is merely not logged in. */
  refused(error: WebauthError, auth?: Auth, level?: LogEvent['level']): void {
    const isPath = error.code === 'ERR_PATH_MISMATCH';
    if (isPath && !this.#pathMismatches.isDue(this.#now().getTime())) return;
    const quiet = error instanceof SessionError && error.status === 401 && error.code !== 'ERR_SESSION_INVALID';
    this.log(level ?? (quiet ? 'debug' : 'warn'), 'refused', error.message, { ...auth, code: error.code });
  }

  /** Reports to `config.log`, or to its default. */
  log(
    level: LogEvent['level'],
    event: LogEvent['event'],
    message: string,
    about: Pick<LogEvent, 'code' | 'principal' | 'sessionId'> = {},
  ): void {
    if (!this.#log) return;
    const { code, principal, sessionId } = about;
    const more = { ...(code && { code }), ...(principal && { principal }), ...(sessionId && { sessionId }) };
    // A log that cannot be written, now or later, is no reason to refuse people, or to end the process.
    try {
      const line = singleLine(message);
      const written: unknown = this.#log({ time: this.#now(), level, event, message: line, ...more });
      if (written instanceof Promise) written.catch(() => {});
    } catch {}
  }

  /** Stops watching. A store that was given stays open: it may serve others too. */
  async close(): Promise<void> {
    this.#sessions.stop();
    if (this.#config.store === undefined) await this.#store.close();
  }

  #announce(): void {
    if (this.#config.dangerouslyActAsDevelopment) {
      this.log('warn', 'start', 'dangerouslyActAsDevelopment is on: anybody may be able to log in');
    }
    if (this.#config.dangerouslyAllowStaleSessions) {
      this.log(
        'warn',
        'start',
        'dangerouslyAllowStaleSessions is on: ended sessions are let in while the store is away',
      );
    }
    if (this.#config.store === undefined) {
      this.log('info', 'start', 'sessions are kept in memory: a restart logs everyone out');
      if (this.#config.coordinatedLogout) {
        this.log('warn', 'start', 'coordinatedLogout reaches nobody: give the applications one store');
      }
    }
  }

  #readSecrets(): Buffer[] {
    const given = this.#config.secret;
    if (given === undefined) {
      this.log('warn', 'start', 'no secret is configured: a random one is used until this process ends');
      return [randomBytes(32)];
    }
    return [given].flat().map((secret) => Buffer.from(secret, 'hex'));
  }

  /**
   * Checks that this package made an `Auth`, for a login of this application's login service.
   * @throws TypeError otherwise.
   */
  #checkOwn(method: string, auth: Auth): void {
    checkOwnAuth(method, auth);
    const { wls } = auth;
    if (wls === this.wls.name) return;
    throw new TypeError(`the session is one of ${wls}, and this is the application's side of ${this.wls.name}`);
  }

  /** @throws TypeError unless it is a principal that the login service can send: revoking another would do nothing. */
  #checkPrincipal(of: string, principal: string): void {
    checkArgument(of, 'principal', principal, principalRule);
    checkPrincipals(`the argument principal of ${of}`, [principal], this.wls);
  }

  get #callbackUrl(): string {
    return this.origin + this.routes.callback;
  }

  #expectations() {
    const { responseTimeout = 30, clockSkew = 5 } = this.#config;
    const { keys, oldVersionPtags } = this.wls;
    return { keys, oldVersionPtags, url: this.#callbackUrl, now: this.#now(), responseTimeout, clockSkew };
  }

  /** Looked at when starting, and here again, since keys can be added while the application runs. */
  #refuseDemoKey(kid: string): void {
    const key = this.wls.keys.get(kid);
    if (key === undefined || !isDemoKey(key) || this.isDevelopment) return;
    throw new VerificationError(
      'ERR_KEY_UNKNOWN',
      'the key of the demonstration service is not accepted in production',
    );
  }

  /** In a second tab: as the same person, and not where it would have to begin again at once. */
  #goOn({ principal }: VerifiedResponse, { demands }: Attempt, live: Auth | undefined): Auth {
    if (live?.principal !== principal || this.unmet(live, demands)) throw cookiesBlocked();
    return live;
  }

  async #startSession(
    response: VerifiedResponse,
    { demands, principal }: Attempt,
    replaced: Auth | undefined,
    held: string | undefined,
  ): Promise<Pick<Login, 'auth' | 'cookie' | 'anchor'>> {
    const anchor = this.cookies.anchor === undefined ? undefined : this.#anchor(held);
    const session = await this.#sessions.begin(response, anchor);
    const auth = this.#sessions.describe(session);
    this.#checkUsable(auth, demands);
    const cookie = checkLength(this.#sessions.seal(session));
    await this.#spend(response);
    await this.#config.onLogin?.(auth, response);
    if (replaced) await this.retireSession(replaced);
    if (principal === undefined) this.log('info', 'login', 'somebody logged in', auth);
    else this.log('info', 'step-up', 'somebody who was logged in authenticated again', auth);
    return { auth, cookie, anchor };
  }

  /** One that was logged out of, or that was restored after that, is not bound to again. */
  #anchor(held: string | undefined): string {
    const anchor = keptOrNew(held);
    return this.#sessions.isSpent(anchor) ? keptOrNew(undefined) : anchor;
  }

  #tokenDesk(): TokenDesk {
    const { tokens } = this.#sessions;
    return {
      create: async (asked) => {
        checkOptions('tokens.create()', asked, newTokenRules);
        checkPrincipals('the option principal of tokens.create()', [asked.principal], this.wls);
        const { token, ...made } = await tokens.create(asked);
        this.log('info', 'token', `the token "${made.name}" was made`, { principal: made.principal });
        return { ...made, token };
      },
      list: async (principal) => {
        checkArgument('tokens.list()', 'principal', principal, required(text));
        return tokens.list(principal);
      },
      revoke: async (principal, handle) => {
        checkArgument('tokens.revoke()', 'principal', principal, required(text));
        checkArgument('tokens.revoke()', 'handle', handle, handleRule);
        const found = await tokens.revoke(principal, handle);
        if (found) this.log('info', 'token', 'a token was revoked', { principal });
        return found;
      },
    };
  }

  #sessionDesk(): SessionDesk {
    const list = () => {
      if (this.#sessions.list) return this.#sessions.list;
      throw new TypeError('no list of sessions is kept: set listSessions: true');
    };
    return {
      list: async (principal, asking) => {
        checkArgument('sessions.list()', 'principal', principal, required(text));
        checkArgument('sessions.list()', 'asking', asking, askingRule);
        return list().list(principal, asking);
      },
      revoke: async (principal, handle) => {
        checkArgument('sessions.revoke()', 'principal', principal, required(text));
        checkArgument('sessions.revoke()', 'handle', handle, handleRule);
        const found = await list().revoke(principal, handle);
        if (found) this.log('info', 'revoked', "one of a person's sessions was ended", { principal });
        return found;
      },
    };
  }

  /** A session that would need another login at once is an error: it would go round and round. */
  #checkUsable(auth: Auth, demands: Demands): void {
    if (auth.expires.getTime() - this.#now().getTime() < this.doneTime * 1000) {
      const { expiresBecause } = auth;
      const why =
        expiresBecause === 'life' ? 'log out of the login service first' : `${expiresBecause} is too short here`;
      throw new SessionError('ERR_SESSION_EXPIRED', `the session would be over at once: ${why}`);
    }
    if (this.unmet(auth, demands) === undefined) return;
    throw new VerificationError(
      'ERR_IACT_UNSATISFIED',
      `the page asks for an authentication of the last ${demands.maxAge} s, and this one was older when it arrived`,
    );
  }

  /** One use: remembered for well longer than a response stays fresh, so that machines with other clocks agree. */
  async #spend({ issue, id }: AuthResponse): Promise<void> {
    const key = digest('response', JSON.stringify([this.wls.name, issue.getTime(), id]));
    const { responseTimeout, clockSkew } = this.#expectations();
    const memory = Math.max(REPLAY_MEMORY, 2 * (responseTimeout + clockSkew));
    const expires = new Date(this.#now().getTime() + memory * 1000);
    if (await this.#sessions.spend(key, expires)) return;
    throw new VerificationError('ERR_RESPONSE_REPLAYED', 'this response was used before; log in again');
  }
}

/** A finished login. */
export interface Login {
  readonly auth: Auth;
  /** What to set as session cookie; undefined where the one that the browser has goes on. */
  readonly cookie: string | undefined;
  /** What to set as anchor cookie, if this application has one. */
  readonly anchor: string | undefined;
  /** What it was asked for; it would be a loop to need another for the same. */
  readonly demands: Demands;
  /** The path to go to. */
  readonly returnTo: string;
}

/** Another tab has logged in, and the session goes on. */
const unchanged = { cookie: undefined, anchor: undefined } as const;

// One slash and no second one (nor a backslash, which browsers read as one), then visible ASCII.
const returnShape = /^\/(?![/\\])[\x21-\x7e]*$/;

/** Error of a request that a proxy has rewritten on its way. @param what what arrived. */
export function pathMismatch(what: string, path: string, expected: string): VerificationError {
  // A long segment may be a secret of the application's, such as the token of a link.
  const shown = path.replace(/[^/]{31,}/g, '…').slice(0, MAX_SHOWN);
  const [found, own] = [shown, expected].map((one) => JSON.stringify(one));
  return new VerificationError(
    'ERR_PATH_MISMATCH',
    `${what} arrived at the path ${found} instead of ${own}. Let every proxy pass paths on unchanged, with the path of baseUrl in front, and give all processes the same baseUrl and callbackPath`,
  );
}

/** `params` of a response; empty if it is malformed, which no login of ours has. */
function paramsOf(encoded: string): string {
  try {
    return parseResponse(encoded).params;
  } catch {
    return '';
  }
}

/** Who authenticates again has to be who is logged in. */
function checkStepUp(response: VerifiedResponse, { principal }: Attempt): void {
  if (principal === undefined || principal === response.principal) return;
  throw new AuthorisationError(
    'ERR_PRINCIPAL_REFUSED',
    `the person who was logged in was to authenticate again, and not ${response.principal}: to change accounts, log out first`,
  );
}

function isAuth(value: unknown): boolean {
  const { principal, ptags } = value as Auth;
  return isText(principal) && Array.isArray(ptags);
}

const principalRule: Rule = required([
  (value) => isText(value) && value !== '',
  'is a principal, such as "abc12": a text that is not empty',
]);
const askingRule: Rule = [
  (value) => isText((value as Partial<Auth>).sessionId),
  'is the Auth object of the session that asks, such as request.auth',
];
const handleRule: Rule = required([isText, 'is the handle of an item that list() gave: a text']);

function checkScopes({ via, scopes = [] }: Auth, wanted: readonly string[] = []): void {
  const missing = via === 'token' ? wanted.filter((scope) => !scopes.includes(scope)) : [];
  if (missing.length === 0) return;
  throw new AuthorisationError('ERR_SCOPE_REFUSED', `to enter here, a token needs the scope ${missing.join(' and ')}`);
}

function checkLength(cookie: string): string {
  if (cookie.length <= MAX_COOKIE) return cookie;
  throw new VerificationError(
    'ERR_COOKIES_BLOCKED',
    'the login service says so much of this person that no browser would keep the session cookie',
  );
}
