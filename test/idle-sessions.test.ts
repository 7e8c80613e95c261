import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import type { Config } from '../src/config.js';
import { webauth } from '../src/express/index.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { acceptUpgrades, type SocketFrame, socketFrame } from '../src/websocket/index.js';
import { Browser, clock, secret, wls } from './site.js';

const started: { readonly server: Server; readonly waa: WAA }[] = [];
let store: MemoryStore;
let began: number;

beforeEach(() => {
  clock.reset();
  began = clock.time;
  store = new MemoryStore({ now: clock.now });
});
afterEach(async () => {
  for (const { server, waa } of started.splice(0)) {
    server.close();
    server.closeAllConnections();
    await waa.close();
  }
});

/** Lets the clock show so many seconds since the beginning. */
function at(seconds: number): void {
  clock.time = began + seconds * 1000;
}

interface Process {
  readonly address: string;
  readonly waa: WAA;
  /** Resolves, for each request to `/slow`, with the function that lets it go on. */
  readonly slow: (() => void)[];
}

/** Starts a process of the application, with a page and one that is slow. */
async function start(config: Partial<Config> = {}, baseUrl?: string): Promise<Process> {
  const server = createServer();
  server.keepAliveTimeout = 0;
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const common = { secret, wls: wls.profile, now: clock.now, store, inactiveTimeout: 100 };
  const waa = createWAA({ baseUrl: baseUrl ?? address, ...common, ...config });
  await waa.ready;
  started.push({ server, waa });
  const auth = webauth(waa);
  const guard = auth.require();
  const slow: (() => void)[] = [];
  server.on('request', (request, response) => {
    const fail = (error: unknown) => auth.failurePage(error, request, response, () => response.destroy());
    const guarded = () =>
      guard(request, response, (error) => {
        if (error) return fail(error);
        response.end('in');
      });
    auth(request, response, (error) => {
      if (error) fail(error);
      else if (request.url === '/slow') slow.push(guarded);
      else guarded();
    });
  });
  return { address, waa, slow };
}

async function logIn({ address }: Process, origin?: string): Promise<Browser> {
  const browser = new Browser(address, origin);
  expect((await browser.logIn()).status).toBe(303);
  return browser;
}

async function ticketOf(browser: Browser): Promise<string> {
  const answer = await browser.post('/webauth/ticket', { accept: 'application/json' });
  expect(answer.status).toBe(200);
  return JSON.parse(answer.text).ticket;
}

const status = async (browser: Browser, path = '/private') => (await browser.fetch(path)).status;
const endOf = ({ expires }: { readonly expires: Date }) => (expires.getTime() - began) / 1000;

describe('POST /webauth/ticket', () => {
  it('counts as a use of the session, whose cookie it renews', async () => {
    const site = await start();
    const browser = await logIn(site);
    const before = browser.cookie('webauth-session');
    at(80);
    await ticketOf(browser);
    expect(browser.cookie('webauth-session')).not.toBe(before);
    at(179);
    expect(await status(browser)).toBe(200);
  });

  it('keeps open the sockets of the session', async () => {
    const site = await start();
    const browser = await logIn(site);
    const ends: number[] = [];
    site.waa.watch(
      site.waa.openSession(browser.cookie('webauth-session')),
      () => {},
      (end) => void ends.push(endOf(end)),
    );
    at(80);
    await ticketOf(browser);
    expect(ends).toEqual([180]);
  });

  it('counts for the ticket also where the cookie is not due to be renewed', async () => {
    const site = await start();
    const browser = await logIn(site);
    at(40);
    const before = browser.cookie('webauth-session');
    const ticket = await ticketOf(browser);
    expect(browser.cookie('webauth-session')).toBe(before);
    at(60);
    expect(endOf(await site.waa.takeTicket(ticket))).toBe(140);
  });

  it('does not count if the request has the Origin of another site', async () => {
    const site = await start();
    const browser = await logIn(site);
    at(80);
    const answer = await browser.post('/webauth/ticket', { origin: 'https://evil.cam.ac.uk' });
    expect([answer.status, answer.set]).toEqual([403, []]);
    at(101);
    expect(await status(browser)).toBe(401);
  });

  it('gives no second life to a session that is idle', async () => {
    const site = await start();
    const browser = await logIn(site);
    at(100);
    const answer = await browser.post('/webauth/ticket', { accept: 'application/json' });
    expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([401, 'ERR_SESSION_IDLE']);
  });
});

describe('takeTicket()', () => {
  it('accepts a ticket of a session that was used after the ticket was issued', async () => {
    const site = await start();
    const browser = await logIn(site);
    at(80);
    const ticket = await ticketOf(browser);
    at(85);
    expect(await status(browser)).toBe(200);
    at(105);
    expect((await site.waa.takeTicket(ticket)).principal).toBe('test0001');
  });

  it('accepts a ticket that is older than the last use, where that came on another process', async () => {
    const site = await start({ inactiveTimeout: 25 });
    const other = await start({ inactiveTimeout: 25 }, site.address);
    const browser = await logIn(site);
    const there = new Browser(other.address, site.address);
    there.plant('webauth-session', browser.cookie('webauth-session'));
    at(10);
    const ticket = await ticketOf(browser);
    at(20);
    expect(await status(there)).toBe(200);
    at(38);
    const auth = await site.waa.takeTicket(ticket);
    expect([auth.via, endOf(auth)]).toEqual(['ticket', 45]);
  });

  it('rejects a ticket of a session that was not used for so long, nor is used with it', async () => {
    const site = await start({ inactiveTimeout: 25 });
    const browser = await logIn(site);
    const ticket = await ticketOf(browser);
    at(25);
    await expect(site.waa.takeTicket(ticket)).rejects.toMatchObject({ code: 'ERR_SESSION_IDLE' });
  });

  it('accepts a ticket of a session with a binding cookie', async () => {
    const site = await start({ coordinatedLogout: true, inactiveTimeout: 25 });
    const browser = await logIn(site);
    at(10);
    const ticket = await ticketOf(browser);
    at(20);
    expect(await status(browser)).toBe(200);
    at(38);
    expect((await site.waa.takeTicket(ticket)).group).not.toBe('');
  });
});

/** Two processes that share a store, and a browser whose session the second one serves after 20 seconds. */
interface Shared {
  readonly site: Process;
  readonly browser: Browser;
  /** The browser, at the second process. */
  readonly there: Browser;
}

async function share(): Promise<Shared> {
  const site = await start({ inactiveTimeout: 25 });
  const other = await start({ inactiveTimeout: 25 }, site.address);
  const browser = await logIn(site);
  const there = new Browser(other.address, site.address);
  there.plant('webauth-session', browser.cookie('webauth-session'));
  return { site, browser, there };
}

describe('renew() of a socket', () => {
  /** Opens a socket with the session of the browser. @returns the session that the socket has. */
  async function open({ site, browser }: Shared): Promise<Auth> {
    const wss = new WebSocketServer({ noServer: true });
    const stop = acceptUpgrades(started[0]?.server as Server, wss, site.waa, { path: '/live' });
    const headers = { origin: site.address, cookie: `webauth-session=${browser.cookie('webauth-session')}` };
    const client = new WebSocket(`${site.address.replace('http', 'ws')}/live`, { headers });
    onTestFinished(() => {
      stop();
      client.terminate();
    });
    const [[, request]] = await Promise.all([once(wss, 'connection'), once(client, 'open')]);
    return (request as IncomingMessage).auth as Auth;
  }

  it('accepts a ticket that is older than the last use, where that came on another process', async () => {
    const shared = await share();
    const auth = await open(shared);
    at(10);
    const ticket = await ticketOf(shared.browser);
    at(20);
    expect(await status(shared.there)).toBe(200);
    at(38);
    await auth.renew?.(ticket);
    expect(endOf(auth)).toBe(45);
  });

  it('rejects a ticket of a session that was not used for so long', async () => {
    const shared = await share();
    const auth = await open(shared);
    const ticket = await ticketOf(shared.browser);
    at(25);
    await expect(auth.renew?.(ticket)).rejects.toMatchObject({ code: 'ERR_SESSION_IDLE' });
  });
});

describe('socketFrame() with inactiveTimeout', () => {
  const live = 'https://live.cam.ac.uk';

  /** Starts the server of the frame, and posts a ticket to it. */
  async function serveFrame({
    site,
  }: Shared): Promise<{ frame: SocketFrame; spend(ticket: string): Promise<Browser> }> {
    const frame = socketFrame(site.waa, { origin: live });
    const server = createServer(frame);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    const visitor = new Browser(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, live);
    const spend = async (ticket: string) => {
      await visitor.post('/webauth/frame?cross-site', {}, ticket);
      return visitor;
    };
    return { frame, spend };
  }

  const name = '__Host-webauth-socket';
  const read = (frame: SocketFrame, visitor: Browser) =>
    frame.read({ headers: { cookie: `${name}=${visitor.cookie(name)}` } } as IncomingMessage) as Auth;

  it('accepts a ticket that is older than the last use, where that came on another process', async () => {
    const shared = await share();
    const { frame, spend } = await serveFrame(shared);
    at(10);
    const ticket = await ticketOf(shared.browser);
    at(20);
    expect(await status(shared.there)).toBe(200);
    at(38);
    expect(endOf(read(frame, await spend(ticket)))).toBe(45);
  });

  it('accepts its cookie while the session is in use, and not after', async () => {
    const shared = await share();
    const { frame, spend } = await serveFrame(shared);
    at(10);
    const visitor = await spend(await ticketOf(shared.browser));
    at(20);
    expect(await status(shared.there)).toBe(200);
    at(38);
    expect(endOf(read(frame, visitor))).toBe(45);
    at(45);
    expect(() => read(frame, visitor)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_IDLE' }));
  });

  it('gives no cookie for a ticket of a session that was not used for so long', async () => {
    const shared = await share();
    const { spend } = await serveFrame(shared);
    const ticket = await ticketOf(shared.browser);
    at(25);
    expect((await spend(ticket)).cookie(name)).toBeUndefined();
  });
});

describe('webauth() with inactiveTimeout', () => {
  it.each([
    ['the logout page', '/webauth/logout'],
    ['the login route, which leads on', '/webauth/login?return=/private'],
  ])('counts %s as a use of the session', async (_, path) => {
    const site = await start();
    const browser = await logIn(site);
    at(85);
    await browser.get(path);
    at(105);
    expect(await status(browser)).toBe(200);
  });

  it('answers a request that was slow, if others kept its session in use', async () => {
    const site = await start();
    const browser = await logIn(site);
    const listening = started[0]?.server as Server;
    at(40);
    const arrived = once(listening, 'request');
    const answer = browser.fetch('/slow');
    await arrived;
    at(85);
    expect(await status(browser)).toBe(200);
    at(105);
    for (const goOn of site.slow) goOn();
    expect((await answer).status).toBe(200);
  });

  it('revokes a session elsewhere that an older copy of its cookie names', async () => {
    const site = await start();
    const browser = await logIn(site);
    const old = browser.cookie('webauth-session') as string;
    at(85);
    expect(await status(browser)).toBe(200);
    at(105);
    const copy = new Browser(site.address);
    copy.plant('webauth-session', old);
    expect((await copy.post('/webauth/logout')).status).toBe(303);
    expect([await status(browser), await status(copy)]).toEqual([401, 401]);
  });

  it('does not extend a session beyond its longest life', async () => {
    const site = await start({ maxLife: 160 });
    const browser = await logIn(site);
    at(80);
    await ticketOf(browser);
    at(150);
    const ticket = await ticketOf(browser);
    at(160);
    await expect(site.waa.takeTicket(ticket)).rejects.toMatchObject({ code: 'ERR_SESSION_EXPIRED' });
    expect(await status(browser)).toBe(401);
  });
});
