/** The process of the applications: it is told the time, and says how it is. What it answers, it answers on its ports. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type Response } from 'express';
import express4 from 'express4';
import { WebSocketServer } from 'ws';
import type { Config, LogEvent } from '../../src/config.js';
import { webauth } from '../../src/express/index.js';
import { MemoryStore } from '../../src/session/memory.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades } from '../../src/websocket/index.js';
import { createWLS } from '../../src/wls/index.js';
import { now as start, wlsKey } from '../helpers.js';
import { type Order, pages, type ServerReport, type Site } from './site.js';

let time = start.getTime();
const now = () => new Date(time);
// With an account that is no CRSid, principals of any form may be required.
const accounts = [{ principal: 'person-00', ptags: ['current'] }];
const { profile } = createWLS({ key: wlsKey.privateKey, accounts });
const problems: string[] = [];
let reached = 0;
let watched = 0;

/** Says how often it was changed. */
class CountingStore extends MemoryStore {
  spent = 0;
  revoked = 0;

  override async spend(key: string, expires: Date): Promise<boolean> {
    const first = await super.spend(key, expires);
    if (first) this.spent += 1;
    return first;
  }

  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (/^ended:(?!life\.|member\.)/.test(key)) this.revoked += 1;
    return super.put(key, value, expires);
  }
}

const stores: CountingStore[] = [];

/** One application: all that the library has for Express, in one of its versions. */
async function serve(name: string, framework: typeof express, config: Config): Promise<Site> {
  const store = new CountingStore({ now });
  stores.push(store);
  const waa = createWAA({ ...config, secret: 'a1'.repeat(32), wls: profile, now, store, log, maxLife: 600 });
  countWatches(waa);
  const path = new URL(config.baseUrl).pathname.replace(/\/$/, '');
  const server = createServer({ keepAliveTimeout: 0 }, makeApplication(framework, waa, path));
  const wss = new WebSocketServer({ noServer: true });
  acceptUpgrades(server, wss, waa, { path: `${path}/live` });
  wss.on('connection', (socket, { auth }) => socket.send(`opened /live for ${auth?.principal}`));
  countArrivals(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { name, port, origin: waa.origin, path, cookies: waa.cookies, routes: waa.routes };
}

function makeApplication(framework: typeof express, waa: WAA, path: string): express.Express {
  const auth = webauth(waa);
  const show = (page: string) => (request: IncomingMessage, response: Response) => {
    response.type('text/plain').send(`opened ${page} for ${request.auth?.principal}`);
  };
  const site = framework.Router();
  site.get('/', (request, response) => void response.send(request.auth?.principal ?? 'nobody'));
  site.get('/take', (request, response, next) => {
    const { ticket } = request.query;
    response.set('Cache-Control', 'no-store');
    waa.takeTicket(String(ticket)).then(({ principal }) => response.send(`took a ticket of ${principal}`), next);
  });
  for (const [page, { asks }] of Object.entries(pages)) site.all(page, auth.require(asks), show(page));
  // Express decodes the name by itself, or cannot.
  site.all('/any/:name', auth.require({ ptags: [] }), show('/any'));
  site.use('/below', auth.require(), show('/private'));
  const application = framework();
  application.use(auth);
  application.use(path || '/', site);
  // Without it, Express answers in its own way: so does the site without https.
  if (waa.cookies.secure) application.use(auth.failurePage);
  return application;
}

/** Not by listeners: of these, the library counts those of upgrades. */
function countArrivals(server: Server): void {
  const emit = server.emit.bind(server);
  server.emit = (event: string, ...args: unknown[]) => {
    if (event === 'request' || event === 'upgrade') reached += 1;
    return emit(event, ...args);
  };
}

function countWatches(waa: WAA): void {
  const watch = waa.watch.bind(waa);
  waa.watch = (auth, onEnd) => {
    watched += 1;
    let over = false;
    const leave = () => {
      if (!over) watched -= 1;
      over = true;
    };
    const stop = watch(auth, (error) => {
      leave();
      onEnd(error);
    });
    return () => {
      leave();
      stop();
    };
  };
}

/** No event holds a token, a cookie or a signature: all of them are long, and without a blank. */
function log(event: LogEvent): void {
  if (/[\w.-]{40}/.test(event.message)) problems.push(`a log event holds a long word: ${event.message}`);
}

process.on('warning', (warning) => {
  // Express 4 and 5 parse whatever they are asked for with `url.parse`, which disapproves of some of it.
  if (!('code' in warning && warning.code === 'DEP0170')) problems.push(`a warning: ${warning.stack}`);
});
function show(error: unknown): string {
  return (error instanceof Error && error.stack) || String(error);
}

async function report(collect: boolean): Promise<ServerReport> {
  // What a first collection frees may hold what a second one does.
  for (let i = 0; collect && i < 3; i++) {
    globalThis.gc?.();
    await new Promise(setImmediate);
  }
  return {
    reached,
    spent: stores.map(({ spent }) => spent),
    revoked: stores.map(({ revoked }) => revoked),
    remembered: stores.reduce((sum, { size }) => sum + size, 0),
    watched,
    heap: process.memoryUsage().heapUsed,
    resident: process.memoryUsage.rss(),
    problems: problems.splice(0, 20),
  };
}

process.on('message', async (order: Order) => {
  time = order.time;
  process.send?.(await report(order.collect));
});
process.once('disconnect', () => process.exit());

const sites: Site[] = [];
for (const [name, framework] of [
  ['Express 5', express],
  ['Express 4', express4],
] as const) {
  sites.push(await serve(`${name} at the root`, framework, { baseUrl: 'https://fuzz.example.org' }));
}
const below = { baseUrl: 'https://fuzz.example.org/app', cookiePath: '/app' };
sites.push(await serve('Express 4 below a path', express4, below));
sites.push(
  await serve('Express 5 without https', express, { baseUrl: 'http://localhost:8080/app', cookieName: 'fuzz' }),
);
// Only now: what fails before ends the process.
process.on('unhandledRejection', (reason) => problems.push(`a rejection that nobody handled: ${show(reason)}`));
process.on('uncaughtException', (error) => problems.push(`an exception that nobody caught: ${show(error)}`));
process.send?.(sites);
