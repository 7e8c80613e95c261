// One machine of an application that several of them serve: the program, and the hold that a test has on it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { Server } from 'socket.io';
import { WebSocket, WebSocketServer } from 'ws';
import type { Config } from '../src/config.js';
import { webauth } from '../src/express/index.js';
import { KeySet } from '../src/keys.js';
import type { Store } from '../src/session/store.js';
import { createWAA, type WAA } from '../src/waa.js';
import { acceptUpgrades } from '../src/websocket/index.js';
import { acceptConnections } from '../src/websocket/socketio.js';
import type { Browser, Page } from './processes.js';

/** What a machine is told, as JSON. */
export interface Settings {
  readonly baseUrl: string;
  readonly secret: string;
  /** Of a Redis its url, or of files their folder. */
  readonly store: { readonly redis: string } | { readonly lmdb: string };
  readonly authUrl: string;
  /** The login service's public key, in PEM, by its kid. */
  readonly keys: Readonly<Record<string, string>>;
  readonly config?: Partial<Config>;
  /** Whether the program waits for the store, and says what became of that: true, by default. */
  readonly awaits?: boolean;
}

const self = fileURLToPath(import.meta.url);
/** Modules that each machine imports first. */
export const imports: string[] = ['tsx'];
/** How long anything may take that a machine is asked: milliseconds. */
const PATIENCE = 5000;

/** A socket to a machine, or why there is none. */
export interface Connection {
  readonly socket: WebSocket;
  /** 101 if it is open. */
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  /** Resolves to the code with which it was closed. */
  readonly closed: Promise<number>;
}

/** What else a handshake shows. */
export interface Shown {
  readonly headers?: Record<string, string>;
  readonly protocols?: string[];
}

// What a run that is broken off leaves behind.
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A process of its own, which runs this file. It has to be ended. */
export class Machine {
  readonly #settings: Settings;
  #child!: ChildProcess;
  #ended: Promise<unknown> = Promise.resolve();
  #look = (): void => {};
  #url = '';
  /** All that it has printed: errors of the store and warnings, and what nobody caught. */
  output = '';

  private constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** Resolves when it listens, and its store was heard unless it does not wait for that. */
  static async start(settings: Settings): Promise<Machine> {
    const machine = new Machine(settings);
    await machine.start();
    return machine;
  }

  async start(): Promise<void> {
    const loaders = imports.flatMap((name) => ['--import', name]);
    const child = spawn(process.execPath, [...loaders, '--expose-gc', self, JSON.stringify(this.#settings)], {
      env: { PATH: process.env['PATH'], NODE_ENV: 'test' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    running.add(child);
    this.#ended = once(child, 'close').finally(() => running.delete(child));
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        this.output += chunk;
        this.#look();
      });
    }
    this.output = '';
    const [, port] = await this.printed(/^listening on (\d+)$/m);
    this.#url = `http://127.0.0.1:${port}`;
    if (this.#settings.awaits !== false) await this.printed(/^(?:ready|not ready: .*)$/m);
  }

  /** Where it listens. */
  get url(): string {
    return this.#url;
  }

  /** Resolves as soon as the output matches; rejects if the process ends before it does. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    const found = new Promise<RegExpExecArray>((resolve) => {
      this.#look = () => {
        const match = pattern.exec(this.output);
        if (match) resolve(match);
      };
      this.#look();
    });
    const over = this.#ended.then(() => {
      throw new Error(`it ended, and never printed ${pattern}; it printed:\n${this.output}`);
    });
    return Promise.race([found, over]);
  }

  /** Ends it at once, whatever it is doing. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** One request of a browser to a path of the application. @throws Error if it is not answered in time. */
  async ask(
    browser: Browser,
    path: string,
    options: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string } = {},
  ): Promise<Page> {
    const { origin, host } = new URL(this.#settings.baseUrl);
    const headers = { Host: host, Origin: origin, ...options.headers };
    return inTime(browser.ask(this.#url + path, { ...options, headers }), path);
  }

  /** Asks for a page as a program does, and says with which status it was answered. */
  async status(browser: Browser, path = '/'): Promise<number> {
    return (await this.ask(browser, path, { headers: { Accept: 'application/json' } })).status;
  }

  /** Opens a socket, as a page of the application does. */
  async connect(
    browser: Browser,
    path = '/socket',
    { headers: more = {}, protocols = [] }: Shown = {},
  ): Promise<Connection> {
    const { origin, host } = new URL(this.#settings.baseUrl);
    const headers = { Host: host, Origin: origin, Cookie: browser.cookieHeader, ...more };
    const socket = new WebSocket(this.#url.replace('http', 'ws') + path, protocols, { headers });
    const closed = new Promise<number>((resolve) => socket.on('close', resolve));
    const refused = new Promise<IncomingMessage>((resolve) =>
      socket.once('unexpected-response', (_, answer) => {
        answer.resume();
        resolve(answer);
      }),
    );
    const opened = once(socket, 'upgrade') as Promise<IncomingMessage[]>;
    socket.on('error', () => {});
    const answer = await inTime(Promise.race([opened.then(([first]) => first), refused]), path);
    return { socket, status: answer?.statusCode ?? 0, headers: answer?.headers ?? {}, closed };
  }

  /** Does what only its operator can. @throws Error with the code of what it throws. */
  async operate<T>(browser: Browser, what: Deed, ...given: unknown[]): Promise<T> {
    const path = `${new URL(this.#settings.baseUrl).pathname.replace(/\/$/, '')}/operate`;
    const headers = { 'Content-Type': 'application/json', Accept: 'application/json' };
    const page = await this.ask(browser, path, { method: 'POST', headers, body: JSON.stringify([what, ...given]) });
    const { value, error } = JSON.parse(page.body) as { readonly value: T; readonly error?: { readonly code: string } };
    if (page.status !== 200) throw new Error(error?.code);
    return value;
  }

  /** How much it keeps in memory, after a clearing up: bytes. */
  async heap(browser: Browser): Promise<number> {
    return this.operate(browser, 'heap');
  }
}

async function inTime<T>(answer: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} was not answered within ${PATIENCE / 1000} s`)), PATIENCE);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

export type Deed = keyof ReturnType<typeof deedsOf>;

/** The machine's own, which can be put forward. */
const clock = { ahead: 0, now: (): Date => new Date(Date.now() + clock.ahead) };

function deedsOf(waa: WAA) {
  return {
    block: async (principal: string) => waa.block(principal),
    unblock: async (principal: string) => waa.unblock(principal),
    endSessions: async (principal: string) => waa.endSessions(principal),
    makeToken: async (principal: string, name: string) => waa.tokens.create({ principal, name, ttl: 600 }),
    tokens: async (principal: string) => waa.tokens.list(principal),
    revokeToken: async (principal: string, handle: string) => waa.tokens.revoke(principal, handle),
    sessions: async (principal: string) => waa.sessions.list(principal),
    revokeSession: async (principal: string, handle: string) => waa.sessions.revoke(principal, handle),
    takeTicket: async (ticket: string) => waa.takeTicket(ticket),
    pass: async (seconds: number) => {
      clock.ahead += seconds * 1000;
    },
    heap: async () => {
      globalThis.gc?.();
      return process.memoryUsage().heapUsed;
    },
  };
}

/** Loads that one only, since each takes a while. */
async function open(store: Settings['store']): Promise<Store> {
  const { now } = clock;
  if ('redis' in store) {
    return new (await import('../src/session/redis.js')).RedisStore({ url: store.redis, now });
  }
  return new (await import('../src/session/lmdb.js')).LmdbStore({ path: store.lmdb, now });
}

async function serve({ baseUrl, secret, store, authUrl, keys, config = {}, awaits = true }: Settings): Promise<void> {
  process.on('unhandledRejection', (reason) => console.log('nobody caught:', reason));
  const waa = createWAA({
    baseUrl,
    secret,
    store: await open(store),
    now: clock.now,
    wls: { name: 'test', authUrl, keys: KeySet.from(keys), oldVersionPtags: ['current'], requirePtags: [] },
    log: ({ level, event, message }) => {
      if (event === 'store' || event === 'start') console.log(`${level}: ${message}`);
    },
    ...config,
  });
  const say = (error: Error) => console.log(`not ready: ${error.name}: ${error.message}`);
  if (awaits) waa.ready.then(() => console.log('ready'), say);
  const { home } = waa.routes;
  const deeds = deedsOf(waa) as Record<string, (...given: unknown[]) => Promise<unknown>>;
  const auth = webauth(waa);
  const app = express().set('env', 'test').use(auth);
  app.get(home, auth.require(), (request, response) => response.send(request.auth?.principal));
  app.get(`${home}api`, auth.require({ bearer: true }), (request, response) => response.send(request.auth?.principal));
  app.post(`${home}operate`, express.json(), async (request, response) => {
    const [what, ...given] = request.body as [string, ...unknown[]];
    response.send({ value: await deeds[what]?.(...given) });
  });
  app.use(auth.failurePage);
  const server = app.listen(0, '127.0.0.1', () => {
    console.log(`listening on ${(server.address() as AddressInfo).port}`);
  });
  acceptUpgrades(server, new WebSocketServer({ noServer: true }), waa, { path: `${home}socket` });
  const [any, late] = [new WebSocketServer({ noServer: true }), new WebSocketServer({ noServer: true })];
  acceptUpgrades(server, any, waa, { path: `${home}any`, credentials: ['bearer', 'basic', 'subprotocol', 'query'] });
  acceptUpgrades(server, late, waa, { path: `${home}late`, credentials: ['firstMessage'] });
  late.on('connection', (socket) => socket.send('open'));
  // What is not for it is for the others.
  const io = new Server(server, { path: `${home}socket.io`, serveClient: false, destroyUpgrade: false });
  acceptConnections(io, waa);
  io.on('connection', (socket) => socket.emit('hello', socket.data.auth.principal));
}

if (process.argv[1] === self) await serve(JSON.parse(process.argv[2] as string) as Settings);
