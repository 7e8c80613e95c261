import { isDevelopment, isLoopback } from './environment.js';
import type { ErrorCode } from './errors.js';
import { isDemoKey, type Profile, raven } from './profiles.js';
import { formatRequest } from './request.js';
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
  readonly wls?: Profile;
  /** What remembers spent responses and ended sessions: a `MemoryStore` by default, which serves one process. */
  readonly store?: Store;
  /** Receives what happens, as data. Nothing is printed by default. */
  readonly log?: (event: LogEvent) => void;
  /** Below the path of `baseUrl`; `/webauth/callback` by default. */
  readonly callbackPath?: string;
  /** What the login service shows as asking. */
  readonly desc?: string;
  /** Longest life of a session from the login on: seconds, 7200 by default. */
  readonly maxLife?: number;
  /** Whether a session also ends with the user's session at the login service, where that says how long: true. */
  readonly useWlsLife?: boolean;
  /** How old a response may be: seconds, 30 by default. */
  readonly responseTimeout?: number;
  /** How far the login service's clock may be ahead: seconds, 5 by default. */
  readonly clockSkew?: number;
  /** Who may enter where a route does not say; anybody, by default. */
  readonly requirePrincipals?: readonly string[];
  /** Ptags of which a person needs one where a route does not say; those of the login service by default. */
  readonly requirePtags?: readonly string[];
  /** Called after each login with the session and the verified response, before the person goes on. */
  readonly onLogin?: (auth: Auth, response: VerifiedResponse) => void | Promise<void>;
  /** The clock. */
  readonly now?: () => Date;
  /** Accept in production what is for development only: demo keys, login services on loopback, plain http there. */
  readonly dangerouslyActAsDevelopment?: boolean;
}

/** Something that happened. It never holds a token, a cookie, a signature or a query. */
export interface LogEvent {
  readonly time: Date;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly event: 'start' | 'login started' | 'login' | 'refused' | 'logout';
  readonly message: string;
  readonly code?: ErrorCode;
  /** Only where it is verified. */
  readonly principal?: string;
}

/** @throws TypeError, with what to do, where the configuration cannot be used safely. */
export function checkConfig(config: Config): void {
  checkOptions('createWAA', config, rules);
  const development = isDevelopment() || config.dangerouslyActAsDevelopment === true;
  checkBaseUrl(config.baseUrl, development);
  checkSecret(config.secret, development);
  checkProfile(config.wls ?? raven, config.desc, development);
}

/** What an option's value has to be, and the words for it. */
export type Rule = readonly [test: (value: unknown) => boolean, needs: string];

const isText = (value: unknown) => typeof value === 'string';
const text: Rule = [isText, 'is a text'];
const flag: Rule = [(value) => typeof value === 'boolean', 'is true or false'];
const YEAR = 366 * 24 * 3600;
const isSeconds = (value: unknown) => typeof value === 'number' && value >= 0 && value <= YEAR;
const seconds: Rule = [isSeconds, 'is a number of seconds, at most those of a year'];
const callable: Rule = [(value) => typeof value === 'function', 'is a function'];
const object: Rule = [(value) => typeof value === 'object' && value !== null, 'is an object'];

/** A list, and not one text, in which parts of names would be found too. */
export const texts: Rule = [
  (value) => Array.isArray(value) && value.every(isText),
  'is a list of texts, such as ["abc12"]',
];

/** Options by name; there are no others. @throws TypeError with the name, and never the value: it may be a secret. */
export function checkOptions(of: string, options: object, rules: Readonly<Record<string, Rule>>): void {
  if (typeof options !== 'object' || options === null) throw new TypeError(`${of} takes an object of options`);
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (!rule) throw new TypeError(`${of} has no option ${name}; it has: ${Object.keys(rules).join(', ')}`);
    if (value !== undefined && !rule[0](value)) throw new TypeError(`the option ${name} ${rule[1]}`);
  }
}

const rules: { readonly [K in keyof Required<Config>]: Rule } = {
  baseUrl: text,
  secret: [(value) => [value].flat().every(isSecret), `${needsSecret()}, or a list of such`],
  wls: object,
  store: [isStore, 'has the methods of a Store'],
  log: callable,
  callbackPath: [
    (value) => isPath(value) && value !== '/webauth/login' && value !== '/webauth/logout',
    'is a path of letters, digits and -._~/ that begins with one slash, and not one of our other routes',
  ],
  desc: text,
  maxLife: seconds,
  useWlsLife: flag,
  responseTimeout: seconds,
  clockSkew: seconds,
  requirePrincipals: texts,
  requirePtags: texts,
  onLogin: callable,
  now: callable,
  dangerouslyActAsDevelopment: flag,
};

function checkBaseUrl(baseUrl: string | undefined, development: boolean): void {
  const example = 'the address at which people find the application, such as https://example.cam.ac.uk';
  if (baseUrl === undefined) throw new TypeError(`baseUrl is missing: give ${example}`);
  if (!URL.canParse(baseUrl))
    throw new TypeError(`baseUrl ${JSON.stringify(baseUrl)} is not absolute: give ${example}`);
  const { protocol, hostname, username, password, search, hash, pathname } = new URL(baseUrl);
  if (username || password || search || hash || /[?#]/.test(baseUrl)) {
    throw new TypeError(`baseUrl is an origin and perhaps a path, without user, query or fragment: give ${example}`);
  }
  if (protocol !== 'https:' && protocol !== 'http:') {
    throw new TypeError(`baseUrl ${JSON.stringify(baseUrl)} is neither https nor http: give ${example}`);
  }
  if (pathname !== '/' && !isPath(pathname))
    throw new TypeError('the path of baseUrl holds something other than letters, digits and -._~/');
  if (protocol === 'https:') return;
  if (!isLoopback(hostname)) {
    throw new TypeError(
      `baseUrl is plain http, so that cookies could be read and set by others on the way: give ${example}`,
    );
  }
  if (!development) throw new TypeError(`baseUrl is plain http on this machine, ${onlyDevelopment}`);
}

const onlyDevelopment = 'which is for development only: set NODE_ENV=development (unset, it counts as production)';

function checkSecret(secret: Config['secret'], development: boolean): void {
  if (secret !== undefined ? secret.length > 0 : development) return;
  throw new TypeError(
    `secret is missing: it ${needsSecret()}. On your own machine NODE_ENV=development does without (unset, it counts as production)`,
  );
}

function checkProfile(wls: Profile, desc: string | undefined, development: boolean): void {
  const { name, authUrl, logoutUrl = authUrl, keys, oldVersionPtags, requirePtags } = wls;
  const lists = [oldVersionPtags, requirePtags].every((list) => texts[0](list));
  if (!isText(name) || !isText(authUrl) || typeof keys?.get !== 'function' || !lists) {
    throw new TypeError('the option wls is a login service: { name, authUrl, keys, oldVersionPtags, requirePtags }');
  }
  // Throws if these are no addresses to send people to, or `desc` cannot be sent.
  for (const address of [authUrl, logoutUrl])
    formatRequest(address, { url: 'https://example.org/', ...(desc && { desc }) });
  if (development) return;
  if (isLoopback(new URL(authUrl).hostname))
    throw new TypeError(`the login service is on this machine, ${onlyDevelopment}`);
  for (const kid of keys.kids) {
    const key = keys.get(kid);
    if (key && isDemoKey(key)) {
      throw new TypeError(
        `key ${kid} is that of Raven's demonstration service, with which anybody can log in as anybody, ${onlyDevelopment}`,
      );
    }
  }
}

function isStore(value: unknown): boolean {
  const methods = ['mark', 'next', 'spend', 'put', 'get', 'take', 'delete', 'list', 'subscribe', 'close'];
  const store = value as Record<string, unknown> | null;
  return typeof store === 'object' && methods.every((name) => typeof store?.[name] === 'function');
}

function isSecret(value: unknown): boolean {
  return typeof value === 'string' && /^[0-9a-f]{64}$/i.test(value);
}

function needsSecret(): string {
  return 'is 32 random bytes as 64 hex digits (make one with: openssl rand -hex 32)';
}

function isPath(value: unknown): boolean {
  return (
    typeof value === 'string' &&
    /^(?:\/[\w.~-]+)+\/?$/.test(value) &&
    new URL(value, 'http://localhost').pathname === value
  );
}
