import { createPrivateKey, createPublicKey, generateKeyPairSync, KeyObject } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { developmentAdvice, isDevelopment, isLoopback } from '../environment.js';
import { KeySet } from '../keys.js';
import {
  callable,
  checkArgument,
  checkOptions,
  clock,
  date,
  flag,
  isText,
  kindOf,
  passes,
  type Rule,
  type Rules,
  restriction,
  text,
  texts,
} from '../options.js';
import type { Profile } from '../profiles.js';
import { type AuthRequest, formatRequest, parseRequest, parseRequestLeniently } from '../request.js';
import { type AuthResponse, formatResponse, formatSigned } from '../response.js';
import { signText } from '../signature.js';
import { type Account, checkAccounts, crsid, defaultAccounts } from './accounts.js';
import { createHandler } from './service.js';

export type { Account } from './accounts.js';

/** How the development login service behaves. Everything has a default. */
export interface WLSOptions {
  /** Who can log in: some people with `current`, and some without, by default. */
  readonly accounts?: readonly Account[];
  /** RSA private key, PEM or KeyObject: a fresh one of 2048 bits by default. */
  readonly key?: KeyObject | string;
  /** Name of the key: 1 by default. */
  readonly kid?: string;
  /** How long its own session lasts: seconds, 36000 by default. */
  readonly sessionLife?: number;
  /** Receives each answer that goes back to an application. Nothing is printed by default. */
  readonly log?: (answer: AuthResponse) => void;
  /** The clock. */
  readonly now?: () => Date;
  /**
   * Whether every deviation of a request from the protocol is rejected, to test an agent: `false` by default. Raven-made
   * agents send empty parameters and `skew`, so by default these are accepted, and deviations that change neither the
   * answer nor its destination are named on the page instead.
   */
  readonly strict?: boolean;
  /** Run where `NODE_ENV` is neither `development` nor `test`. */
  readonly dangerouslyActAsDevelopment?: boolean;
  /** Let other machines log in too, as anybody. */
  readonly dangerouslyListenBeyondLoopback?: boolean;
}

/** Makes a development login service. Throws TypeError in production, where anybody could log in as anybody. */
export function createWLS(options: WLSOptions = {}): WLS {
  return new WLS(options);
}

const DEFAULT_PORT = 8711;

/** A login service that behaves as Raven does and believes everybody. Made by {@link createWLS}. */
export class WLS {
  /** Serves requests in any `node:http` server, or in Express. */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  readonly #accounts: readonly Account[];
  readonly #sessionLife: number;
  readonly #now: () => Date;
  readonly #key: KeyObject;
  readonly #kid: string;
  readonly #keys: KeySet;
  readonly #beyondLoopback: boolean;
  readonly #parse: typeof parseRequestLeniently;
  #url = nameAddress('localhost', DEFAULT_PORT);
  #server: Server | undefined;
  #answers = 0;

  constructor(options: WLSOptions) {
    checkWLS(options);
    this.#accounts = options.accounts ?? defaultAccounts;
    this.#sessionLife = options.sessionLife ?? 36000;
    this.#now = options.now ?? (() => new Date());
    this.#key = readKey(options.key);
    this.#kid = options.kid ?? '1';
    this.#keys = KeySet.from({ [this.#kid]: publicPem(this.#key) });
    this.#beyondLoopback = options.dangerouslyListenBeyondLoopback ?? false;
    this.#parse = options.strict ? parseRequest : parseRequestLeniently;
    this.handler = createHandler({
      accounts: this.#accounts,
      sessionLife: this.#sessionLife,
      beyondLoopback: this.#beyondLoopback,
      now: this.#now,
      parse: this.#parse,
      answer: (asked, fields) => this.#answer(asked, fields),
      log: options.log ?? (() => {}),
    });
  }

  /** Where it is found, such as `http://localhost:8711`. */
  get url(): string {
    return this.#url;
  }

  /**
   * What an application takes as its login service. Read it after {@link listen}: it holds the port. If all accounts have
   * principals as Raven's are, an application that names another principal is told so, as with Raven.
   */
  get profile(): Profile {
    return {
      name: 'development',
      authUrl: `${this.#url}/auth/authenticate.html`,
      logoutUrl: `${this.#url}/auth/logout.html`,
      keys: this.#keys,
      oldVersionPtags: ['current'],
      requirePtags: ['current'],
      ...(this.#accounts.every(({ principal }) => crsid.test(principal)) && { principalPattern: crsid }),
    };
  }

  /**
   * Listens on a server of its own.
   * @param port 0 takes a free one.
   */
  async listen(port = DEFAULT_PORT, host = '127.0.0.1'): Promise<void> {
    checkArgument('listen()', 'port', port, portNumber);
    checkArgument('listen()', 'host', host, text);
    if (!isLoopback(host) && !this.#beyondLoopback) {
      throw new TypeError(
        `${JSON.stringify(host)} is not on loopback, and whoever reaches it could log in as anybody: listen on 127.0.0.1`,
      );
    }
    if (this.#server) throw new TypeError('this login service listens already: close() it first');
    const server = createServer(this.handler);
    this.#server = server;
    try {
      await start(server, port, host);
    } catch (error) {
      this.#server = undefined;
      throw error;
    }
    this.#url = nameAddress(host, (server.address() as AddressInfo).port);
  }

  /** Stops listening, and ends all connections. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }

  /**
   * Answers without a browser, by default as if the first account had just logged in.
   * @param request what is asked, or the address that `formatRequest` made of it.
   * @param overrides replace fields before signing; `kid` and `sig` are replaced afterwards. A failing `status` leaves
   *   out what only a success has.
   * @returns the encoded response: the value of `WLS-Response`, before it is percent-encoded.
   */
  respond(request: AuthRequest | string, overrides: Partial<AuthResponse> = {}): string {
    if (!passes(isRequest, request)) {
      throw new TypeError(
        `respond() takes the address that the application redirects to (the Location of its answer), or a request with a url; here it is ${kindOf(request)}${request === undefined ? '. The application redirects only requests with Accept: text/html' : ''}`,
      );
    }
    checkOptions('a response', overrides, fieldRules, 'field');
    if (isText(request)) checkAddress(request);
    const address = typeof request === 'string' ? request : formatRequest(this.profile.authUrl, request);
    const asked = this.#parse(address.slice(address.indexOf('?') + 1), () => {});
    const { principal, ptags } = this.#accounts[0] as Account;
    const success = { principal, ptags, auth: 'pwd', life: this.#sessionLife };
    const failed = (overrides.status ?? 200) !== 200;
    return formatResponse(this.#answer(asked, failed ? overrides : { ...success, ...overrides }));
  }

  #answer(asked: AuthRequest, fields: Partial<AuthResponse>): AuthResponse {
    const { status = 200 } = fields;
    const issue = this.#now();
    this.#answers += 1;
    const response = {
      // 520 is for those who speak another version; and Raven answers a cancelled login in version 1, whatever was asked.
      ver: status === 410 || status === 520 ? 1 : (asked.ver ?? 3),
      status,
      msg: '',
      issue,
      id: `${Math.floor(issue.getTime() / 1000)}-${process.pid}-${this.#answers}`,
      url: asked.url,
      principal: '',
      ptags: [],
      auth: '',
      sso: [],
      life: undefined,
      params: asked.params ?? '',
      ...fields,
    };
    return { kid: this.#kid, sig: signText(this.#key, formatSigned(response)), ...response };
  }
}

const rules: Rules<WLSOptions> = {
  accounts: [Array.isArray, 'is a list of accounts, such as { principal: "test0001", ptags: ["current"] }'],
  key: [(value) => isText(value) || value instanceof KeyObject, 'is a private key: PEM, or a KeyObject'],
  kid: text,
  sessionLife: [
    (value) => Number.isSafeInteger(value) && (value as number) > 0,
    'is a whole number of seconds, at least 1',
  ],
  log: callable,
  now: clock,
  strict: flag,
  dangerouslyActAsDevelopment: flag,
  dangerouslyListenBeyondLoopback: flag,
};

function checkWLS(options: WLSOptions): void {
  checkOptions('createWLS', options, rules);
  if (!isDevelopment() && !options.dangerouslyActAsDevelopment) {
    throw new TypeError(`the development login service lets anybody log in as anybody: ${developmentAdvice()}`);
  }
  if (options.accounts) checkAccounts(options.accounts);
}

const portNumber: Rule = [
  (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 65535,
  'is a port: a whole number from 0 to 65535',
];

/** Types only: a test may want a response that is wrong. */
const fieldRules: Rules<AuthResponse> = {
  ver: restriction([Number.isInteger, 'is 1, 2 or 3']),
  status: restriction([Number.isInteger, 'is 200 or the code of a failure, such as 410']),
  msg: restriction(text),
  issue: restriction(date),
  id: restriction(text),
  url: restriction(text),
  principal: restriction(text),
  ptags: restriction(texts),
  auth: restriction(text),
  sso: restriction(texts),
  life: [Number.isInteger, 'is a whole number of seconds, or undefined'],
  params: restriction(text),
  kid: restriction(text),
  sig: [(value) => value instanceof Uint8Array, 'is a Buffer, or undefined'],
};

function isRequest(value: unknown): boolean {
  return isText(value) ? URL.canParse(value) : Boolean((value as AuthRequest).url);
}

/** @throws TypeError, with what to do, for an address that is not one of a login service. */
function checkAddress(address: string): void {
  const { host, pathname, searchParams } = new URL(address);
  if (searchParams.has('ver') || !pathname.endsWith('/webauth/login')) return;
  throw new TypeError(
    `respond() takes the address of the login service, and got that of the application's own login route at ${host}: the application redirects there if the Host of the request is not that of its baseUrl. Send the request with the header Host: ${host} (supertest sends 127.0.0.1 and a port: add .set('Host', '${host}')), and give respond() the Location of that answer`,
  );
}

function readKey(key: WLSOptions['key']): KeyObject {
  if (key === undefined) return generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const parsed = typeof key === 'string' ? readPem(key) : key;
  if (parsed.type === 'private' && parsed.asymmetricKeyType === 'rsa') return parsed;
  throw new TypeError('key is not the private half of an RSA key');
}

function readPem(pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw new TypeError('key is not a private key in PEM', { cause });
  }
}

function publicPem(key: KeyObject): string {
  return createPublicKey(key).export({ type: 'spki', format: 'pem' }) as string;
}

/** What a browser on this machine calls the address; applications accept plain http under a loopback name only. */
function nameAddress(host: string, port: number): string {
  const here = ['localhost', '127.0.0.1', '0.0.0.0', '::1', '::'].includes(host);
  return `http://${here ? 'localhost' : host.includes(':') ? `[${host}]` : host}:${port}`;
}

function start(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // Stays on: a later error of the server would otherwise end the process.
    server.on('error', (error: NodeJS.ErrnoException) => {
      const taken = `port ${port} of ${host} is taken: end what listens there, or choose another port`;
      reject(error.code === 'EADDRINUSE' ? new Error(taken, { cause: error }) : error);
    });
    server.listen(port, host, resolve);
  });
}
