import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { type Config, checkConfig, type LogEvent } from './config.js';
import { isDevelopment } from './environment.js';
import { AuthorisationError, SessionError, VerificationError, WebauthError } from './errors.js';
import { isDemoKey, type Profile, raven } from './profiles.js';
import { formatRequest } from './request.js';
import { type AuthResponse, parseResponse } from './response.js';
import { expired, LiveSessions, type OnEnd, revoked } from './session/live.js';
import { MemoryStore } from './session/memory.js';
import { Sealer } from './session/seal.js';
import {
  type Auth,
  describe,
  type Lifetimes,
  newSessionId,
  openSession,
  type Session,
  sealSession,
  sessionEnd,
} from './session/session.js';
import type { Store } from './session/store.js';
import { type VerifiedResponse, verifyResponse } from './verify.js';

/** Who may enter: people who pass both. */
export interface Requirements {
  /** These people; an empty list lets in nobody. */
  readonly principals?: readonly string[];
  /** People with one of these ptags; an empty list asks for none. */
  readonly ptags?: readonly string[];
}

/** Checks the configuration once and throws TypeError, with what to do, where it cannot be used safely. */
export function createWAA(config: Config): WAA {
  return new WAA(config);
}

declare module 'node:http' {
  interface IncomingMessage {
    /** Who is logged in; set by `webauth` and by `acceptUpgrades`. */
    auth?: Auth | undefined;
  }
}

const MAX_RETURN = 2048;
const LOGIN_TIME = 30 * 60;
const REPLAY_MEMORY = 10 * 60;
const DONE_TIME = 10;
const RETRY_AFTER = 1000; // milliseconds

/** One application's logins and sessions, without any HTTP. Made by {@link createWAA}; the glue calls it. */
export class WAA {
  /** Of `baseUrl`. */
  readonly origin: string;
  /** What an Origin header has to say. */
  readonly origins: ReadonlySet<string>;
  /** Paths as they arrive: of the application, and of our own routes. */
  readonly routes: {
    readonly home: string;
    readonly login: string;
    readonly callback: string;
    readonly logout: string;
  };
  readonly cookies: {
    readonly session: string;
    readonly login: string;
    /** There for a moment after a login. */
    readonly done: string;
    readonly secure: boolean;
  };
  readonly wls: Profile;
  /** How long the login cookie is kept: seconds. */
  readonly loginTime: number = LOGIN_TIME;

  readonly #config: Config;
  readonly #now: () => Date;
  readonly #callbackUrl: string;
  readonly #store: Store;
  readonly #live: LiveSessions;
  readonly #attempts: Sealer;
  readonly #sessions: Sealer;
  readonly #requirements: { readonly principals: readonly string[] | undefined; readonly ptags: readonly string[] };
  readonly #lifetimes: Lifetimes;
  #mark: string | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  /** Resolves once the store has first been asked, whether or not it answered; until it does, nobody has a session. */
  readonly ready: Promise<void>;

  constructor(config: Config) {
    checkConfig(config);
    const base = new URL(config.baseUrl);
    const path = base.pathname.replace(/\/$/, '');
    const callback = path + (config.callbackPath ?? '/webauth/callback');
    const secure = base.protocol === 'https:';
    const prefix = secure ? '__Host-' : '';
    this.#config = config;
    this.#now = config.now ?? (() => new Date());
    this.wls = config.wls ?? raven;
    this.origin = base.origin;
    this.origins = new Set([base.origin]);
    this.routes = { home: `${path}/`, login: `${path}/webauth/login`, callback, logout: `${path}/webauth/logout` };
    this.cookies = {
      session: `${prefix}webauth-session`,
      login: `${prefix}webauth-login`,
      done: `${prefix}webauth-done`,
      secure,
    };
    this.#callbackUrl = base.origin + callback;
    this.#requirements = {
      principals: config.requirePrincipals,
      ptags: config.requirePtags ?? this.wls.requirePtags,
    };
    this.#lifetimes = { maxLife: config.maxLife ?? 7200, useWlsLife: config.useWlsLife ?? true };
    const secrets = this.#readSecrets();
    const bound = [base.origin + path, '/'];
    this.#attempts = new Sealer(secrets, 'login attempt', ...bound);
    this.#sessions = new Sealer(secrets, 'session', this.cookies.session, ...bound);
    this.#store = config.store ?? new MemoryStore({ now: this.#now });
    this.#live = new LiveSessions(this.#store, this.#now);
    this.#announce();
    this.ready = this.#start();
  }

  /**
   * Where to send the browser to log in, and the nonce that it has to keep in the login cookie.
   * @param returnTo path and query on this origin to come back to; the application's own path if it is anything else.
   * @param nonce what the login cookie holds already: tabs share it.
   */
  startLogin(returnTo: string, nonce?: string): { readonly location: string; readonly nonce: string } {
    const kept = nonce !== undefined && nonceShape.test(nonce) ? nonce : newNonce();
    const attempt = [this.safeReturn(returnTo), this.#now().getTime(), hash(kept)];
    const location = formatRequest(this.wls.authUrl, {
      url: this.#callbackUrl,
      params: this.#attempts.seal(JSON.stringify(attempt)),
      date: this.#now(),
      ...(this.#config.desc === undefined ? {} : { desc: this.#config.desc }),
    });
    this.log('debug', 'login started', 'a browser is sent to the login service');
    return { location, nonce: kept };
  }

  /**
   * Takes what the login service answered and, if it verifies, starts a new session in place of the live one.
   * @param nonce the login cookie.
   * @param live the session that the browser has. If it has that and no login cookie any more, another tab finished
   *   first: for the same person the session goes on as it is, and nothing is used up.
   * @throws WebauthError. The live session goes on then. Where the attempt is one of ours, `loginUrl` leads to another.
   */
  async finishLogin(encoded: string, nonce: string | undefined, live?: Auth): Promise<Login> {
    const { params, kid } = parseResponse(encoded);
    const attempt = this.#openAttempt(params, nonce);
    const { returnTo } = attempt;
    try {
      this.#checkBrowser(attempt, nonce, live);
      this.#refuseDemoKey(kid);
      const response = verifyResponse(encoded, { ...this.#expectations(), params });
      if (nonce === undefined) return { auth: samePerson(response, live), cookie: undefined, doneTime: 0, returnTo };
      return { ...(await this.#startSession(response, live)), returnTo };
    } catch (error) {
      if (error instanceof WebauthError) error.loginUrl = this.loginUrl(returnTo);
      throw error;
    }
  }

  /**
   * Opens a session cookie.
   * @throws SessionError if there is no live session in it.
   */
  openSession(cookie: string | undefined): Auth {
    if (cookie === undefined) throw new SessionError('ERR_SESSION_MISSING', 'nobody is logged in');
    if (this.#mark === undefined) throw storeAway();
    const session = openSession(this.#sessions, cookie);
    if (session.mark !== this.#mark || session.wls !== this.wls.name) throw revoked();
    const auth = describe(session, this.#lifetimes.maxLife);
    if (this.#live.isRevoked(session.id)) throw revoked();
    if (auth.expires.getTime() <= this.#now().getTime()) throw expired();
    return auth;
  }

  /** @throws AuthorisationError if the person may not enter. What `route` leaves out is as configured. */
  authorise(auth: Auth, route: Requirements = {}): void {
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

  /** Ends a session everywhere: its cookie opens no more, and its sockets close. */
  async endSession(auth: Auth): Promise<void> {
    await this.#ask(() => this.#live.revoke(auth.sessionId, auth.expires));
    this.log('info', 'logout', 'a session was ended', { principal: auth.principal });
  }

  /** Calls back once, when the session ends for whatever reason. Returns a function that stops watching. */
  watch(auth: Auth, onEnd: OnEnd): () => void {
    return this.#live.watch(auth.sessionId, auth.expires, onEnd);
  }

  /** The path at which a person can log in and come back to `returnTo`. */
  loginUrl(returnTo: string): string {
    return `${this.routes.login}?return=${encodeURIComponent(this.safeReturn(returnTo))}`;
  }

  /** A login has just succeeded, and there is no session all the same. */
  loginWasLost(returnTo: string): VerificationError {
    const error = new VerificationError(
      'ERR_COOKIES_BLOCKED',
      'a login has just succeeded, and its session is not there: the browser did not keep its cookie, or the application was restarted, or its processes do not share a secret and a store',
    );
    error.loginUrl = this.loginUrl(returnTo);
    return error;
  }

  /** The path if it is one on this origin of at most 2 KB, else that of the application. */
  safeReturn(path: string): string {
    return path.length <= MAX_RETURN && returnShape.test(path) ? path : this.routes.home;
  }

  /** Reports a refusal: loudly where something is wrong, quietly where somebody is merely not logged in. */
  refused(error: WebauthError): void {
    const quiet = error instanceof SessionError && error.status === 401 && error.code !== 'ERR_SESSION_INVALID';
    this.log(quiet ? 'debug' : 'warn', 'refused', error.message, { code: error.code });
  }

  /** Reports to `config.log`. */
  log(
    level: LogEvent['level'],
    event: LogEvent['event'],
    message: string,
    more: Pick<LogEvent, 'code' | 'principal'> = {},
  ): void {
    try {
      this.#config.log?.({ time: this.#now(), level, event, message, ...more });
    } catch {
      // A log that cannot be written is no reason to refuse people, or to end the process.
    }
  }

  /** Stops watching. A store that was given stays open: it may serve others too. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#live.stop();
    clearTimeout(this.#retry);
    if (this.#config.store === undefined) await this.#store.close();
  }

  async #start(): Promise<void> {
    try {
      await this.#live.start();
      this.#mark = await this.#store.mark();
      if (this.#closed) this.#live.stop();
    } catch (error) {
      this.log('error', 'start', `the store cannot be reached: ${(error as Error).message}`);
      if (!this.#closed) this.#retry = setTimeout(() => this.#start(), RETRY_AFTER).unref();
    }
  }

  /** Whatever fails in a store is told to the log, and to nobody else. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.log('error', 'refused', `the store failed: ${(error as Error).message}`, { code: 'ERR_STORE_UNAVAILABLE' });
      throw storeAway();
    }
  }

  #announce(): void {
    if (this.#config.dangerouslyActAsDevelopment) {
      this.log('warn', 'start', 'dangerouslyActAsDevelopment is on: anybody may be able to log in');
    }
    if (this.#config.store === undefined) {
      this.log('info', 'start', 'sessions are kept in memory: a restart logs everyone out');
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

  #openAttempt(params: string, nonce: string | undefined): Attempt {
    const opened = this.#attempts.open(params);
    if (typeof opened === 'string') throw nonce === undefined ? cookiesBlocked() : notThisAttempt();
    const [returnTo, time, nonceHash] = JSON.parse(opened.text) as [string, number, string];
    return { returnTo, time, nonceHash };
  }

  /** Whether the browser that began the attempt is the one that comes back. */
  #checkBrowser({ time, nonceHash }: Attempt, nonce: string | undefined, live: Auth | undefined): void {
    if (nonce === undefined && live === undefined) throw cookiesBlocked();
    if (nonce !== undefined && !timingSafeEqual(Buffer.from(hash(nonce)), Buffer.from(nonceHash)))
      throw notThisAttempt();
    if (this.#now().getTime() - time > LOGIN_TIME * 1000) throw cookiesBlocked();
  }

  #expectations() {
    const { responseTimeout = 30, clockSkew = 5 } = this.#config;
    const { keys, oldVersionPtags } = this.wls;
    return { keys, oldVersionPtags, url: this.#callbackUrl, now: this.#now(), responseTimeout, clockSkew };
  }

  /** Looked at when starting, and here again, since keys can be added while the application runs. */
  #refuseDemoKey(kid: string): void {
    const key = this.wls.keys.get(kid);
    if (key === undefined || !isDemoKey(key) || isDevelopment() || this.#config.dangerouslyActAsDevelopment) return;
    throw new VerificationError(
      'ERR_KEY_UNKNOWN',
      'the key of the demonstration service is not accepted in production',
    );
  }

  async #startSession(response: VerifiedResponse, replaced: Auth | undefined): Promise<Omit<Login, 'returnTo'>> {
    await this.ready;
    if (this.#mark === undefined) throw storeAway();
    const session = this.#newSession(response, this.#mark);
    const auth = describe(session, this.#lifetimes.maxLife);
    if (auth.expires.getTime() <= this.#now().getTime()) {
      throw new SessionError(
        'ERR_SESSION_EXPIRED',
        'the session would be over at once: log out of the login service first',
      );
    }
    await this.#spend(response);
    await this.#config.onLogin?.(auth, response);
    if (replaced) await this.#ask(() => this.#live.revoke(replaced.sessionId, replaced.expires));
    this.log('info', 'login', 'somebody logged in', { principal: auth.principal });
    const doneTime = Math.min(DONE_TIME, Math.floor((auth.expires.getTime() - this.#now().getTime()) / 1000));
    return { auth, cookie: sealSession(this.#sessions, session), doneTime };
  }

  #newSession(response: VerifiedResponse, mark: string): Session {
    const { principal, ptags, auth, sso, life } = response;
    const issue = response.issue.getTime();
    const ends = sessionEnd(issue, life, this.#lifetimes);
    const loggedIn = this.#now().getTime();
    return { id: newSessionId(), principal, ptags, auth, sso, wls: this.wls.name, issue, loggedIn, ...ends, mark };
  }

  /** One use: remembered for well longer than a response stays fresh, so that machines with other clocks agree. */
  async #spend({ issue, id }: AuthResponse): Promise<void> {
    const key = hash(JSON.stringify(['response', this.wls.name, issue.getTime(), id]));
    const { responseTimeout, clockSkew } = this.#expectations();
    const memory = Math.max(REPLAY_MEMORY, 2 * (responseTimeout + clockSkew));
    const expires = new Date(this.#now().getTime() + memory * 1000);
    if (await this.#ask(() => this.#store.spend(key, expires))) return;
    throw new VerificationError('ERR_RESPONSE_REPLAYED', 'this response was used before; log in again');
  }
}

/** A finished login. */
export interface Login {
  readonly auth: Auth;
  /** What to set as session cookie; undefined where the one that the browser has goes on. */
  readonly cookie: string | undefined;
  /** How long it would be a loop to need another login: seconds. */
  readonly doneTime: number;
  /** The path to go to. */
  readonly returnTo: string;
}

/** What a token in `params` says of the attempt that it was made for. */
interface Attempt {
  readonly returnTo: string;
  readonly time: number;
  readonly nonceHash: string;
}

// One slash and no second one (nor a backslash, which browsers read as one), then visible ASCII.
const returnShape = /^\/(?![/\\])[\x21-\x7e]*$/;

// 128 bits in base64url.
const nonceShape = /^[\w-]{22}$/;

function newNonce(): string {
  return randomBytes(16).toString('base64url');
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}

function samePerson({ principal }: VerifiedResponse, live: Auth | undefined): Auth {
  if (live?.principal !== principal) throw cookiesBlocked();
  return live;
}

function cookiesBlocked(): VerificationError {
  return new VerificationError(
    'ERR_COOKIES_BLOCKED',
    'the browser did not bring back the cookie of this login: cookies are blocked, or the login was finished in another tab, or it took over half an hour',
  );
}

function storeAway(): SessionError {
  return new SessionError('ERR_STORE_UNAVAILABLE', 'the store of sessions cannot be reached: try again in a moment');
}

function notThisAttempt(): VerificationError {
  return new VerificationError('ERR_PARAMS_MISMATCH', 'the response belongs to no login that this browser began here');
}
