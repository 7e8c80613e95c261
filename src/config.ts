import { types } from 'node:util';
import { developmentAdvice, isDevelopment, isLoopback } from './environment.js';
import type { ErrorCode } from './errors.js';
import {
  callable,
  checkFields,
  checkOptions,
  clock,
  flag,
  isSeconds,
  isText,
  isTextList,
  keySet,
  names,
  type Rules,
  required,
  restriction,
  seconds,
  tags,
  text,
} from './options.js';
import { checkPrincipals, isDemoKey, type Profile, raven } from './profiles.js';
import { formatRequest } from './request.js';
import { checkStrength, isSecret, isUnsplit, needsSecret } from './session/secret.js';
import type { Auth } from './session/session.js';
import type { Store } from './session/store.js';
import type { VerifiedResponse } from './verify.js';

/** How an application logs people in. Only `baseUrl` and, in production, `secret` have no default. */
export interface Config {
  /** Where people find the application: its origin and, if it has one, its path. Never taken from a request. */
  readonly baseUrl: string;
  /** 32 random bytes as 64 hex digits; of several, the first seals and all open. Development makes one up. */
  readonly secret?: string | readonly string[] | undefined;
  /** The login service: `raven` by default. */
  readonly wls?: Profile | undefined;
  /** What remembers spent responses and ended sessions: a `MemoryStore` by default, which serves one process. */
  readonly store?: Store | undefined;
  /**
   * Receives events. By default, `NODE_ENV=development` prints them on standard error, and nothing is printed in
   * production and in tests. `false`: nothing is printed.
   */
  readonly log?: ((event: LogEvent) => void) | false | undefined;
  /** Below the path of `baseUrl`; `/webauth/callback` by default. */
  readonly callbackPath?: string | undefined;
  /** What the names of our cookies begin with: `webauth` by default. Applications on one host need different ones. */
  readonly cookieName?: string | undefined;
  /**
   * The paths to which the session cookie is sent: `/` by default, and only then do browsers keep neighbours from
   * setting it.
   */
  readonly cookiePath?: string | undefined;
  /** What the login service shows as asking. */
  readonly desc?: string | undefined;
  /** Longest life of a session, from the login service's answer on: seconds, 7200 by default. */
  readonly maxLife?: number | undefined;
  /** Whether a session also ends with the user's session at the login service, where that says how long: true. */
  readonly useWlsLife?: boolean | undefined;
  /** How long a session may go unused: seconds, from half of it to all of it. For ever, by default. */
  readonly inactiveTimeout?: number | undefined;
  /**
   * Whether logging out here also logs the browser out of the other applications of this origin that say so, and have the
   * same store: false. It takes a second cookie, `__Host-webauth-session-id`, which they share. With
   * a `cookiePath` it is always so.
   */
  readonly coordinatedLogout?: boolean | undefined;
  /**
   * Whether the pages after a logout clear the browser's cache of the whole origin, also for other applications, so that
   * Back shows nothing private: true.
   */
  readonly clearCacheOnLogout?: boolean | undefined;
  /** Whether a list is kept of each person's sessions, with what their browsers say they are: false. */
  readonly listSessions?: boolean | undefined;
  /** How long the store may be out of hearing before sessions are refused: seconds, 10 by default. */
  readonly staleAfter?: number | undefined;
  /** How old a response may be: seconds, 30 by default. */
  readonly responseTimeout?: number | undefined;
  /** How far the login service's clock may be ahead: seconds, 5 by default. */
  readonly clockSkew?: number | undefined;
  /** Who may enter where a route does not say; anybody, by default. */
  readonly requirePrincipals?: readonly string[];
  /** Ptags of which a person needs one where a route does not say; those of the login service by default. */
  readonly requirePtags?: readonly string[];
  /**
   * Called, and waited for, after each login and step-up, with the session and the verified response, before the person
   * goes on. What it throws refuses the login. (One that it let pass can still fail afterwards.)
   */
  readonly onLogin?: ((auth: Auth, response: VerifiedResponse) => void | Promise<void>) | undefined;
  /**
   * Go on when the store is out of hearing for longer than `staleAfter`: sessions that were ended meanwhile, on other
   * machines, are let in.
   */
  readonly dangerouslyAllowStaleSessions?: boolean | undefined;
  /** The clock. */
  readonly now?: (() => Date) | undefined;
  /** Accept in production what is for development only: demo keys, login services on loopback, plain http there. */
  readonly dangerouslyActAsDevelopment?: boolean | undefined;
}

/** Something that happened. It never holds a token, a cookie, a signature or a query. */
export interface LogEvent {
  readonly time: Date;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /**
   * `start`: of how the application is configured; `store`: the store of sessions failed; `login started`: a browser was sent to the login
   * service; `login`: a session began; `step-up`: one began in place of the same person's, with what a page asked for;
   * `refused`: a request was, and `code` says why; `logout`: a session was ended, by its person or by the program, or,
   * as a warning, its cookie was removed from a browser and it may live on;
   * `revoked`: sessions were ended otherwise; `blocked`: a person was, or is no longer; `token`: one was made or revoked.
   */
  readonly event:
    | 'start'
    | 'store'
    | 'login started'
    | 'login'
    | 'step-up'
    | 'refused'
    | 'logout'
    | 'revoked'
    | 'blocked'
    | 'token';
  readonly message: string;
  readonly code?: ErrorCode;
  /** Only where it is verified. */
  readonly principal?: string;
  /** Names the session that it is about; not a credential. */
  readonly sessionId?: string;
}

/** Paths as they arrive: of the application, and of our own routes. */
export interface Routes {
  readonly home: string;
  readonly login: string;
  readonly callback: string;
  readonly logout: string;
  readonly ticket: string;
  /** Clears the browser's cache, for the pages after a logout. */
  readonly cleared: string;
}

export function routesOf({ baseUrl, callbackPath = '/webauth/callback' }: Config): Routes {
  const path = new URL(baseUrl).pathname.replace(/\/$/, '');
  return {
    home: `${path}/`,
    login: `${path}/webauth/login`,
    callback: path + callbackPath,
    logout: `${path}/webauth/logout`,
    ticket: `${path}/webauth/ticket`,
    cleared: `${path}/webauth/cleared`,
  };
}

/** Names of our cookies, and how they are set. */
export interface Cookies {
  readonly session: string;
  readonly login: string;
  /** There for a moment after a login. */
  readonly done: string;
  readonly secure: boolean;
  /** Of the session cookie; the others are for the whole host. */
  readonly path: string;
  /**
   * Without which the session cookie is worth nothing: where its path lets others on the domain plant one, and where
   * several applications log out together.
   */
  readonly anchor: string | undefined;
}

export function cookiesOf(config: Config): Cookies {
  const { baseUrl, cookieName = 'webauth', cookiePath = '/', coordinatedLogout = false } = config;
  const secure = new URL(baseUrl).protocol === 'https:';
  const prefix = secure ? '__Host-' : '';
  const sessionPrefix = secure && cookiePath !== '/' ? '__Secure-' : prefix;
  return {
    session: `${sessionPrefix}${cookieName}-session`,
    login: `${prefix}${cookieName}-login`,
    done: `${prefix}${cookieName}-done`,
    secure,
    path: cookiePath,
    anchor: cookiePath === '/' && !coordinatedLogout ? undefined : `${prefix}webauth-session-id`,
  };
}

/** Of the cookie that opens sockets at another origin. */
export function socketCookieOf(
  { cookieName = 'webauth' }: Config,
  origin: string,
): { readonly name: string; readonly secure: boolean } {
  const secure = new URL(origin).protocol === 'https:';
  return { name: `${secure ? '__Host-' : ''}${cookieName}-socket`, secure };
}

/** Whether what is for development only is accepted. */
export function allowsDevelopment({ dangerouslyActAsDevelopment = false }: Config): boolean {
  return isDevelopment() || dangerouslyActAsDevelopment;
}

/** @throws TypeError, with what to do, where the configuration cannot be used safely. */
export function checkConfig(config: Config): void {
  checkOptions('createWAA', config, rules);
  const development = allowsDevelopment(config);
  checkBaseUrl(config.baseUrl, development);
  checkCookiePath(config);
  checkSecret(config.secret, development);
  const { wls = raven } = config;
  checkProfile(wls, config.desc, development);
  checkPrincipals('the option requirePrincipals', config.requirePrincipals, wls);
}

const rules: Rules<Config> = {
  baseUrl: text,
  secret: [(value) => isText(value) || isTextList(value), `${needsSecret}, or a list of such`],
  wls: [
    (value) => typeof value === 'object' && value !== null,
    'is a login service, such as raven, which this package exports, and not its name',
  ],
  store: [isStore, 'has the methods of a Store'],
  log: [(value) => value === false || typeof value === 'function', 'is a function, or false'],
  callbackPath: [
    (value) => isPath(value) && !/^\/webauth\/(?:login|logout|ticket|cleared)$/.test(value as string),
    'is a path of letters, digits and -._~/ that begins with one slash, and not one of our other routes',
  ],
  cookieName: [
    (value) => isText(value) && /^[a-z][\w-]{0,31}$/i.test(value),
    'is at most 32 letters, digits, - and _, and begins with a letter',
  ],
  cookiePath: [(value) => value === '/' || isPath(value), 'is / or a path of letters, digits and -._~/'],
  desc: text,
  maxLife: seconds,
  useWlsLife: flag,
  inactiveTimeout: [
    (value) => isSeconds(value) && value > 20,
    'is a number of seconds, more than 20: a session has to outlast its login',
  ],
  coordinatedLogout: flag,
  clearCacheOnLogout: flag,
  listSessions: flag,
  staleAfter: seconds,
  dangerouslyAllowStaleSessions: flag,
  responseTimeout: seconds,
  clockSkew: seconds,
  requirePrincipals: restriction(names),
  requirePtags: restriction(tags),
  onLogin: callable,
  now: clock,
  dangerouslyActAsDevelopment: flag,
};

function checkBaseUrl(baseUrl: string | undefined, development: boolean): void {
  const example = 'the address at which people find the application, such as https://example.cam.ac.uk';
  if (baseUrl === undefined) throw new TypeError(`baseUrl is missing: give ${example}`);
  if (!URL.canParse(baseUrl))
    throw new TypeError(`baseUrl ${JSON.stringify(baseUrl)} is not absolute: give ${example}`);
  const { protocol, username, password, search, hash, pathname } = new URL(baseUrl);
  if (username || password || search || hash || /[?#]/.test(baseUrl)) {
    throw new TypeError(`baseUrl is an origin and perhaps a path, without user, query or fragment: give ${example}`);
  }
  if (protocol !== 'https:' && protocol !== 'http:') {
    throw new TypeError(`baseUrl ${JSON.stringify(baseUrl)} is neither https nor http: give ${example}`);
  }
  if (pathname !== '/' && !isPath(pathname))
    throw new TypeError('the path of baseUrl holds something other than letters, digits and -._~/');
  checkEncrypted('baseUrl', baseUrl, `give ${example}`, development);
}

/** @throws TypeError if others could read what is sent there: if it is not https and, in development, not this machine. */
export function checkEncrypted(what: string, address: string, advice: string, development: boolean): void {
  const { protocol, hostname } = new URL(address);
  if (protocol === 'https:') return;
  if (!isLoopback(hostname)) {
    throw new TypeError(`${what} is plain http, so that cookies could be read and set by others on the way: ${advice}`);
  }
  if (!development) throw new TypeError(`${what} is plain http on this machine, ${onlyDevelopment()}`);
}

/** Whether a cookie of that path is sent with requests for another path (RFC 6265, 5.1.4). */
export function isWithin(path: string, cookiePath: string): boolean {
  return path === cookiePath || path.startsWith(cookiePath.endsWith('/') ? cookiePath : `${cookiePath}/`);
}

function checkCookiePath(config: Config): void {
  const { path } = cookiesOf(config);
  const outside = Object.values(routesOf(config)).find((route) => !isWithin(route, path));
  if (outside === undefined) return;
  throw new TypeError(
    `the route ${outside} lies outside of cookiePath, ${path}, so that the session would never be sent there: leave cookiePath out, or make it the path of baseUrl`,
  );
}

const onlyDevelopment = () => `which is for development only: ${developmentAdvice()}`;

function checkSecret(secret: Config['secret'], development: boolean): void {
  if (isUnsplit(secret)) {
    throw new TypeError(
      "the option secret has white space around it, such as the end of a line, or several secrets in one text: write secret: cookieSecret(), which reads UCAM_WEBAUTH_SECRET, or cookieSecret({ env: 'NAME' })",
    );
  }
  for (const one of [secret ?? []].flat()) if (!isSecret(one)) throw new TypeError(describeMalformed(one));
  if (secret !== undefined && !development) checkStrength([secret].flat());
  if (secret !== undefined ? secret.length > 0 : development) return;
  throw new TypeError(
    `secret is missing: it ${needsSecret}. If it is read from an environment variable, that variable is not set. On your own machine no secret is needed: ${developmentAdvice()}`,
  );
}

/** Describes a text that is no secret by its form alone. */
function describeMalformed(secret: string): string {
  const form = /^[\da-f]*$/i.test(secret) ? '' : ', not all of them hex digits';
  return `the option secret ${needsSecret}, or a list of such; here it is a text of ${secret.length} characters${form}`;
}

const profileRules: Rules<Profile> = {
  name: required([(value) => isText(value) && value !== '', 'is a text that is not empty']),
  authUrl: required(text),
  logoutUrl: text,
  keys: required(keySet),
  oldVersionPtags: required(tags),
  requirePtags: required(tags),
  principalPattern: [
    // With these flags, a pattern does not match the same text each time.
    (value) => types.isRegExp(value) && !value.global && !value.sticky,
    'is a RegExp without the flags g and y',
  ],
};

function checkProfile(wls: Profile, desc: string | undefined, development: boolean): void {
  try {
    checkFields('createWAA', 'wls', wls, profileRules);
  } catch (cause) {
    throw new TypeError(
      `the option wls is a login service: { name, authUrl, keys, oldVersionPtags, requirePtags }; of createWLS(), its profile. Here ${(cause as Error).message}`,
      { cause },
    );
  }
  const { authUrl, logoutUrl = authUrl, keys } = wls;
  // Throws if these are no addresses to send people to, or `desc` cannot be sent.
  for (const address of [authUrl, logoutUrl])
    formatRequest(address, { url: 'https://example.org/', ...(desc && { desc }) });
  if (development) return;
  if (isLoopback(new URL(authUrl).hostname))
    throw new TypeError(`the login service is on this machine, ${onlyDevelopment()}`);
  for (const kid of keys.kids) {
    const key = keys.get(kid);
    if (key && isDemoKey(key)) {
      throw new TypeError(
        `key ${kid} is that of Raven's demonstration service, with which anybody can log in as anybody, ${onlyDevelopment()}`,
      );
    }
  }
}

function isStore(value: unknown): boolean {
  const methods = ['mark', 'next', 'spend', 'put', 'get', 'take', 'delete', 'list', 'subscribe', 'lag', 'close'];
  const store = value as Record<string, unknown> | null;
  return typeof store === 'object' && methods.every((name) => typeof store?.[name] === 'function');
}

function isPath(value: unknown): boolean {
  return (
    typeof value === 'string' &&
    /^(?:\/[\w.~-]+)+\/?$/.test(value) &&
    new URL(value, 'http://localhost').pathname === value
  );
}
