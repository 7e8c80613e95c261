import { spawn } from 'node:child_process';
import { createHash, type X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transformSync } from 'esbuild';
import express from 'express';
import type { Browser, BrowserContext, BrowserContextOptions, Page } from 'playwright-core';
import { expect } from 'vitest';
import { WebSocketServer } from 'ws';
import type { Config, LogEvent } from '../../src/config.js';
import { type Webauth, webauth } from '../../src/express/index.js';
import { html, sendPage } from '../../src/html.js';
import { MemoryStore } from '../../src/session/memory.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades } from '../../src/websocket/index.js';
import { createWLS } from '../../src/wls/index.js';

const howToInstall =
  'the tests in a real browser need Chromium (Debian: apt-get install chromium; elsewhere, set CHROMIUM to the path of a Chromium or Chrome)';

/** Where a browser may be installed. */
interface Whereabouts {
  /** Environment variable that names its path. */
  readonly variable: string;
  /** File names, to be searched for in `PATH`. */
  readonly names: readonly string[];
  /** Further paths. */
  readonly elsewhere: readonly string[];
  readonly howToInstall: string;
}

/**
 * Returns the path of a browser, or `undefined` after a warning if it is absent.
 *
 * @throws Error if it is absent in continuous integration, or at the path that the environment variable names.
 */
export function findBrowser({ variable, names, elsewhere, howToInstall }: Whereabouts): string | undefined {
  const { [variable]: named, CI: integration, PATH = '' } = process.env;
  const usual = PATH.split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  const found = (named ? [named] : [...usual, ...elsewhere]).find((path) => existsSync(path));
  if (found) return found;
  if (named || integration) throw new Error(howToInstall);
  console.warn(`Left out: ${howToInstall}.`);
  return undefined;
}

/** Returns the path of Chromium. @param preferred names to search for first. */
export function findChromium(...preferred: readonly string[]): string | undefined {
  return findBrowser({
    variable: 'CHROMIUM',
    names: [...preferred, 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome.exe'],
    elsewhere: [
      '/Applications/Chromium.app/Contents/MacOS/Chromium',
      '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
      'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
    ],
    howToInstall,
  });
}

/**
 * The same, but where it is there the shell of Chromium without windows (Debian: chromium-headless-shell), which takes a
 * third of the time. It has no settings to block cookies by, and keeps no passwords.
 */
export function findQuickChromium(): string | undefined {
  return findChromium('chromium-headless-shell');
}

/** For a browser that talks to this machine only, perhaps as root in a container. */
export const browserArgs: readonly string[] = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** The client, as a page loads it: as a module. */
export const clientScript = transformSync(readFileSync(new URL('../../src/client/index.ts', import.meta.url), 'utf8'), {
  loader: 'ts',
  target: 'es2022',
}).code;

/** Has a browser trust this one certificate: by its key, whoever signed it. */
export function trusting(certificate: X509Certificate): string {
  const publicKey = certificate.publicKey.export({ type: 'spki', format: 'der' });
  return `--ignore-certificate-errors-spki-list=${createHash('sha256').update(publicKey).digest('base64')}`;
}

/** Collects what a browser's console complains of, in all pages of the context. */
export class Complaints {
  readonly #messages: string[] = [];

  constructor(context: BrowserContext) {
    context.on('weberror', (error) => this.#messages.push(`uncaught: ${error.error().message}`));
    context.on('console', (message) => {
      if (message.type() === 'error') this.#messages.push(`${message.text()} (at ${message.location().url})`);
    });
  }

  /** Takes out those that a test provokes; there has to be one. */
  expect(pattern: RegExp): void {
    const found = this.#messages.filter((message) => pattern.test(message));
    expect(found, `complaints like ${pattern} among ${JSON.stringify(this.#messages)}`).not.toEqual([]);
    this.#messages.splice(0, Infinity, ...this.#messages.filter((message) => !pattern.test(message)));
  }

  /** No page may have asked for anything that its policy forbids, nor thrown. */
  expectNone(): void {
    // Chromium's console also reports each page that has an error as its status. Firefox requests the icon of a page that
    // is left while it loads, though the page names another one.
    const meant =
      /^Failed to load resource: the server responded with a status of 4\d\d|favicon\.ico because it violates/;
    expect(this.#messages.filter((message) => !meant.test(message))).toEqual([]);
  }
}

/** What a browser is like, and what its console has to complain of. */
export interface Fresh extends BrowserContextOptions {
  readonly provoked?: readonly RegExp[];
}

/** Runs a test in a browser that was never used before. Its console has to show what is provoked, and nothing else. */
export async function inFresh(
  browser: Browser,
  { provoked = [], ...options }: Fresh,
  test: (page: Page, context: BrowserContext) => Promise<void>,
): Promise<void> {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(10_000);
  const complaints = new Complaints(context);
  try {
    await test(await context.newPage(), context);
  } finally {
    await context.close();
  }
  for (const pattern of provoked) complaints.expect(pattern);
  complaints.expectNone();
}

export interface Running {
  readonly url: string;
  close(): Promise<void>;
}

export interface Demo extends Running {
  /** All that it has printed so far. */
  readonly printed: () => string;
}

/** Starts the demonstration as `npm start` does, on ports of its own. */
export async function startDemo(options: readonly string[] = []): Promise<Demo> {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const { NODE_ENV, ...env } = process.env;
  const demo = spawn(process.execPath, ['dist/cli/main.js', 'demo', '--port', '0', '--wls-port', '0', ...options], {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = once(demo, 'exit');
  let printed = '';
  const url = await new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer) => {
      printed += chunk;
      const address = /Open (https?:\S+)\/ in a browser/.exec(printed)?.[1];
      if (address) resolve(address);
    };
    demo.stdout.on('data', read);
    demo.stderr.on('data', read);
    exited.then(() => reject(new Error(`the demonstration ended (npm run build makes dist/): ${printed}`)), reject);
  });
  return {
    url,
    printed: () => printed,
    close: async () => {
      demo.kill();
      await exited;
    },
  };
}

/** A small application, and what its server sees. */
export interface Application extends Running {
  readonly server: Server;
  /** Every request and upgrade, as it arrives, before anything of ours has looked at it. */
  readonly arrived: Arrival[];
  readonly events: LogEvent[];
  /** Whose sockets were accepted. */
  readonly opened: string[];
  readonly store: MemoryStore;
}

export interface Arrival {
  readonly line: string;
  readonly cookie: string;
  readonly origin: string | undefined;
}

/** Starts an application with everything of ours in it, and its login service, on ports of their own. */
export async function startApplication(host = 'localhost'): Promise<Application> {
  const wls = createWLS();
  await wls.listen(0);
  const server = createServer();
  const url = await listen(server, host);
  const application = runApplication(server, { baseUrl: url, wls: wls.profile });
  return { ...application, close: async () => void (await Promise.all([application.close(), wls.close()])) };
}

/** Adds to the application's pages. */
export type Routes = (app: express.Express, auth: Webauth, config: Config) => void;

/**
 * The application itself: a page with a socket at `/`, one that nobody may see, sockets at `/live`.
 * @param server listens already, at what the configuration calls `baseUrl`.
 */
export function runApplication(server: Server, config: Config, addRoutes: Routes = () => {}): Application {
  const application = {
    url: config.baseUrl,
    server,
    arrived: [] as Arrival[],
    events: [] as LogEvent[],
    opened: [] as string[],
    store: new MemoryStore(),
  };
  const { store, events } = application;
  const complete = { store, log: (event: LogEvent) => void events.push(event), ...config };
  const waa = createWAA(complete);
  const note = ({ method, url, headers }: IncomingMessage) =>
    void application.arrived.push({ line: `${method} ${url}`, cookie: headers.cookie ?? '', origin: headers.origin });
  server.on('request', note).on('upgrade', note);
  server.on(
    'request',
    makePages(waa, (app, auth) => addRoutes(app, auth, complete)),
  );
  const wss = new WebSocketServer({ noServer: true });
  acceptUpgrades(server, wss, waa, { path: '/live' });
  wss.on('connection', (socket, request) => {
    application.opened.push(request.auth?.principal ?? 'nobody');
    socket.send(`for ${request.auth?.principal}`);
  });
  const close = async () => {
    for (const socket of wss.clients) socket.terminate();
    await Promise.all([stop(server), waa.close(), store.close()]);
  };
  return { ...application, close };
}

function makePages(waa: WAA, addRoutes: (app: express.Express, auth: Webauth) => void): express.Express {
  const auth = webauth(waa);
  const app = express().use(auth);
  app.get('/', auth.require(), (request, response) =>
    sendPage(response, 'Application', html`<h1>You are ${request.auth?.principal}</h1>`, {
      script: 'document.title = "with a script"',
      connect: [waa.origin.replace('http', 'ws')],
    }),
  );
  app.get('/nobody', auth.require({ principals: ['nobody'] }), (_, response) => response.send('never'));
  addRoutes(app, auth);
  return app.use(auth.failurePage);
}

/** Serves pages of somebody else's on another port of localhost: the same site, to browsers. */
export async function startNeighbour(answer: RequestListener): Promise<Running> {
  const server = createServer(answer);
  return { url: await listen(server, 'localhost'), close: () => stop(server) };
}

/** Tries, in the page, to open a socket: resolves to its first message, or to the code with which it closed. */
export function openSocket(page: Page, url: string): Promise<string | number> {
  return page.evaluate(`new Promise((resolve) => {
    const socket = new WebSocket(${JSON.stringify(url.replace(/^http/, 'ws'))});
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => resolve(code);
  })`);
}

async function listen(server: Server, host: string): Promise<string> {
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return `http://${host}:${(server.address() as AddressInfo).port}`;
}

export async function stop(server: Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}
