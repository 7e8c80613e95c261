import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type ClientRequest, createServer, request as httpRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config, LogEvent } from '../src/config.js';
import { SessionError } from '../src/errors.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type FrameOptions, type SocketFrame, socketFrame } from '../src/websocket/index.js';
import { expectRefused } from './helpers.js';
import { type Answer, Browser, clock, frameworks, Site, secret, wls } from './site.js';

const live = 'https://live.cam.ac.uk';
const name = '__Host-webauth-socket';
const path = '/webauth/frame';

/** The application, with its pages; and beside it the server of its sockets, which browsers find at `live`. */
const site = new Site(express);
const server = createServer();
let address: string;
let store: MemoryStore;
let waa: WAA;
let frame: SocketFrame;
let events: LogEvent[];
/** One person's browser, at the one and at the other. */
let page: Browser;
let visitor: Browser;

beforeAll(async () => {
  await site.listen();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  site.close();
  server.close();
  server.closeAllConnections();
});
beforeEach(async () => {
  clock.reset();
  await serve();
});
afterEach(async () => {
  vi.unstubAllEnvs();
  vi.useRealTimers();
  await Promise.all([site.waa.close(), waa.close(), store.close()]);
});

/** Starts both anew, and logs somebody in. */
async function serve(config: Partial<Config> = {}, options: Partial<FrameOptions> = {}): Promise<void> {
  store = new MemoryStore({ now: clock.now });
  site.serve(
    (app, auth) => {
      app.get('/private', auth.require(), ({ auth: who }, response) => void response.json(who));
      app.get('/fresh', auth.require({ maxAge: 60 }), ({ auth: who }, response) => void response.json(who));
    },
    { store, ...config },
  );
  page = new Browser(site.address);
  await page.logIn();
  waa = makeWAA(config);
  await waa.ready;
  frame = socketFrame(waa, { origin: live, ...options });
  server.removeAllListeners('request').on('request', frame);
  visitor = new Browser(address, live);
}

function makeWAA(config: Partial<Config> = {}): WAA {
  events = [];
  const log = (event: LogEvent) => void events.push(event);
  return createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store, log, ...config });
}

async function makeTicket(): Promise<string> {
  return JSON.parse((await page.post('/webauth/ticket')).text).ticket;
}

/** Posts as the script of the frame does. */
function spend(ticket: string, headers: Record<string, string | string[]> = {}, query = '?cross-site') {
  return visitor.post(path + query, headers, ticket);
}

/** The value of the cookie that the frame gets for a new ticket. */
async function makeCookie(): Promise<string> {
  expect((await spend(await makeTicket())).status).toBe(200);
  return visitor.cookie(name) as string;
}

/** Whose handshake it is that has these cookies. */
function read(cookie: string | undefined, of = frame): Auth | undefined {
  return of.read({ headers: { cookie } } as IncomingMessage);
}

/** The session, as the page's application knows it. */
async function whoami(): Promise<unknown> {
  return JSON.parse((await page.fetch('/private')).text);
}

/** A refusal as the script of the frame reads it, of which nothing is kept. */
function expectRefusal({ status, headers, text, set }: Answer, wanted: number, code: string): void {
  expect({ status, set, body: JSON.parse(text) }).toEqual({
    status: wanted,
    set: [],
    body: { error: { code, message: expect.any(String) } },
  });
  expect([headers.get('cache-control'), headers.get('content-type')]).toEqual(['no-store', 'application/json']);
  expect(events.at(-1)).toMatchObject({ event: 'refused', code });
}

describe('the page of the frame', () => {
  it('may be in the frames of these pages, and runs its one script, which talks to its own origin', async () => {
    await serve({}, { pages: ['https://other.example.org:8443'] });
    const { status, headers, text, set } = await visitor.get(path);
    expect([status, set]).toEqual([200, []]);
    const [, data, script] = /<script data-pages="(.*?)" .*?>(.*)<\/script>/s.exec(text) as unknown as string[];
    const pages = `${site.address} https://other.example.org:8443`;
    expect([data, ...frame.pages]).toEqual([pages, ...pages.split(' ')]);
    const hash = createHash('sha256')
      .update(script as string)
      .digest('base64');
    expect(headers.get('content-security-policy')?.split('; ')).toEqual([
      "default-src 'none'",
      `script-src 'sha256-${hash}'`,
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      `frame-ancestors ${pages}`,
    ]);
    expect(headers.get('x-frame-options')).toBeNull();
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(headers.get('referrer-policy')).toBe('same-origin');
    expect(script).not.toContain("'*'");
  });

  it.each([
    ['same-site', 'same-site'],
    ['cross-site', 'cross-site'],
    ['same-origin', 'cross-site'],
    ['none', 'cross-site'],
    [undefined, 'cross-site'],
  ])('knows of %s that the page around it is %s', async (sent, known) => {
    const { text } = await visitor.get(path, sent === undefined ? {} : { 'sec-fetch-site': sent });
    expect(text).toContain(`data-site="${known}"`);
  });
});

describe('a ticket', () => {
  it.each([
    ['?cross-site', 'SameSite=None; Partitioned'],
    ['', 'SameSite=None; Partitioned'],
    ['?same-site', 'SameSite=Lax'],
  ])('gets, with "%s", a cookie that is %s, and says who it is for', async (query, attributes) => {
    const { status, set, headers, text } = await spend(await makeTicket(), {}, query);
    expect([status, JSON.parse(text), headers.get('cache-control')]).toEqual([200, { ok: true }, 'no-store']);
    const value = visitor.cookie(name) as string;
    expect(set).toEqual([`${name}=${value}; Path=/; HttpOnly; ${attributes}; Secure`]);
    expect(JSON.parse(JSON.stringify(read(`a=b; ${name}=${value}`)))).toEqual(await whoami());
    expect(read('a=b')).toBeUndefined();
    expect(read(undefined)).toBeUndefined();
  });

  it('gets one of another name on plain http', async () => {
    const origin = 'http://localhost:3001';
    await serve({ cookieName: 'mine' }, { origin });
    const { set } = await spend(await makeTicket(), { origin });
    expect(set).toEqual([expect.stringMatching(/^mine-socket=[\w-]+; Path=\/; HttpOnly; SameSite=Lax$/)]);
  });

  it('is good once, and for half a minute', async () => {
    const ticket = await makeTicket();
    const late = await makeTicket();
    expect((await spend(ticket)).status).toBe(200);
    expectRefusal(await spend(ticket), 401, 'ERR_TOKEN_INVALID');
    clock.pass(30);
    expectRefusal(await spend(late), 401, 'ERR_TOKEN_INVALID');
    expectRefusal(await spend('no ticket'), 401, 'ERR_TOKEN_INVALID');
  });

  it('of a session that has ended gets nothing', async () => {
    const ticket = await makeTicket();
    await page.post('/webauth/logout');
    expectRefusal(await spend(ticket), 401, 'ERR_SESSION_REVOKED');
  });

  it.each([
    ['no origin', []],
    ['the page', 'page'],
    ['null', 'null'],
    ['a sibling', 'https://evil.cam.ac.uk'],
    ['plain http', 'http://live.cam.ac.uk'],
    ['another port', `${live}:8443`],
    ['a longer name', `${live}.example.org`],
    ['two origins', [live, live]],
  ])('is not taken from %s', async (_, origin) => {
    const ticket = await makeTicket();
    const sent = { origin: origin === 'page' ? site.address : origin };
    expectRefusal(await spend(ticket, sent), 403, 'ERR_ORIGIN_REFUSED');
    expectRefusal(await spend('', sent), 403, 'ERR_ORIGIN_REFUSED');
    expect((await spend(ticket)).status).toBe(200);
  });

  it('that is over 1 KB is none, of which no more is kept, though there be no end', async () => {
    expectRefusal(await spend('x'.repeat(1025)), 401, 'ERR_TOKEN_INVALID');
    const { status, headers } = await answerTo(post({ 'transfer-encoding': 'chunked' }, 'x'.repeat(2000)));
    expect([status, headers.connection]).toEqual([401, 'close']);
  });

  it('has five seconds to arrive', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const begun = post({ 'content-length': '43' }, 'x'.repeat(42));
    await once(server, 'request');
    const answer = answerTo(begun);
    await vi.advanceTimersByTimeAsync(4999);
    expect(vi.getTimerCount()).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    const { status, headers } = await answer;
    expect([status, headers.connection]).toEqual([408, 'close']);
    expect(events.at(-1)).toMatchObject({ code: 'ERR_DEADLINE' });
  });

  it('that breaks off is waited for no longer', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const begun = post({ 'content-length': '43' }, 'x').on('error', () => {});
    const [, response] = await once(server, 'request');
    begun.destroy();
    await once(response, 'close');
    await vi.waitFor(() => expect(events.at(-1)).toMatchObject({ code: 'ERR_TOKEN_INVALID' }));
    expect(vi.getTimerCount()).toBe(0);
  });
});

/** Begins to post. */
function post(headers: Record<string, string>, body: string): ClientRequest {
  const request = httpRequest(address + path, { method: 'POST', headers: { origin: live, ...headers }, agent: false });
  request.write(body);
  return request;
}

async function answerTo(request: ClientRequest) {
  const [{ statusCode, headers }] = (await once(request, 'response')) as [IncomingMessage];
  request.destroy();
  return { status: statusCode, headers };
}

/** Has the person authenticate again, which takes the session's place. */
async function stepUp(): Promise<void> {
  clock.pass(100);
  await page.logIn('/fresh');
}

describe('the cookie', () => {
  it('was kept, or the browser blocks it', async () => {
    expectRefusal(await spend(''), 400, 'ERR_COOKIES_BLOCKED');
    await makeCookie();
    expect((await spend('')).status).toBe(200);
    const value = visitor.cookie(name);
    visitor.plant(name, `${value}; ${name}=${value}`);
    expectRefusal(await spend(''), 401, 'ERR_SESSION_INVALID');
    visitor.plant(name, '');
    expectRefusal(await spend(''), 401, 'ERR_SESSION_INVALID');
  });

  it('is refused if it was sent twice, or changed, or is another thing of ours', async () => {
    const value = await makeCookie();
    const session = page.cookie('webauth-session') as string;
    const ticket = await makeTicket();
    const wrong = [`${value}; ${name}=${value}`, `${value.slice(0, -2)}AA`, `${value}A`, '', 'j:{}', session, ticket];
    for (const one of wrong) expectRefused(() => read(`${name}=${one}`), SessionError, 'ERR_SESSION_INVALID');
  });

  it('is of one origin, one application and one name', async () => {
    const value = await makeCookie();
    const elsewhere = (config: Partial<Config>, origin = live) => {
      const other = makeWAA(config);
      return { other, frame: socketFrame(other, { origin }) };
    };
    for (const { other, frame: another } of [
      elsewhere({}, 'https://live2.cam.ac.uk'),
      elsewhere({ baseUrl: `${site.address}/app` }),
      elsewhere({ baseUrl: 'https://app.example.org' }),
      elsewhere({ cookieName: 'other' }),
      elsewhere({ secret: 'b2'.repeat(32) }),
    ]) {
      await other.ready;
      const { name: its } = other.socketCookie(live);
      expectRefused(() => read(`${its}=${value}`, another), SessionError, 'ERR_SESSION_INVALID');
      await other.close();
    }
  });

  it.each<[string, string, () => unknown]>([
    ['logging out', 'ERR_SESSION_REVOKED', () => page.post('/webauth/logout')],
    ['another login in its place', 'ERR_SESSION_REVOKED', stepUp],
    ['the end of all sessions', 'ERR_SESSION_REVOKED', () => site.waa.endSessions('test0001')],
    ['a block', 'ERR_SESSION_REVOKED', () => site.waa.block('test0001')],
    ['its life', 'ERR_SESSION_EXPIRED', () => clock.pass(7200)],
  ])('ends with its session: by %s', async (_, code, end) => {
    const value = await makeCookie();
    expect(read(`${name}=${value}`)?.principal).toBe('test0001');
    await end();
    expectRefused(() => read(`${name}=${value}`), SessionError, code as 'ERR_SESSION_REVOKED');
    expectRefusal(await spend(''), 401, code);
  });

  it('ends with the browser where applications log out together, and needs nothing beside it until then', async () => {
    await serve({ coordinatedLogout: true });
    const value = await makeCookie();
    expect(read(`${name}=${value}`)?.group).not.toBe('');
    const other = makeWAA({ cookieName: 'other', coordinatedLogout: true });
    await other.endSession(read(`${name}=${value}`) as Auth);
    expectRefused(() => read(`${name}=${value}`), SessionError, 'ERR_SESSION_REVOKED');
    await other.close();
  });

  it('is good for as long as the session is in use, and no longer', async () => {
    await serve({ inactiveTimeout: 600 });
    const value = await makeCookie();
    clock.pass(400);
    await page.get('/private');
    clock.pass(500);
    expect(read(`${name}=${value}`)?.expires).toEqual(new Date(clock.time + 100_000));
    clock.pass(100);
    expectRefused(() => read(`${name}=${value}`), SessionError, 'ERR_SESSION_IDLE');
  });

  it('is of no use to a process that cannot hear who has logged out', async () => {
    const value = await makeCookie();
    vi.spyOn(store, 'lag').mockReturnValue(11_000);
    expectRefused(() => read(`${name}=${value}`), SessionError, 'ERR_STORE_UNAVAILABLE');
    const answer = await spend('');
    expectRefusal(answer, 503, 'ERR_STORE_UNAVAILABLE');
    expect(answer.headers.get('retry-after')).toBe('5');
  });

  it('opens no page and makes no ticket, whatever it is called', async () => {
    const value = await makeCookie();
    const thief = new Browser(site.address);
    for (const own of [name, 'webauth-session', '__Host-webauth-session']) thief.plant(own, value);
    expect((await thief.fetch('/private')).status).toBe(401);
    expect((await thief.post('/webauth/ticket')).status).toBe(401);
    thief.plant('webauth-session', page.cookie('webauth-session'));
    expect((await thief.fetch('/private')).status).toBe(200);
  });
});

describe('what serves it', () => {
  it('takes GET and POST at one path, and answers everything itself where nothing comes after it', async () => {
    for (const method of ['HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
      const { status, headers } = await visitor.send(method, path);
      expect([status, headers.get('allow')]).toEqual([405, 'GET, POST']);
    }
    for (const other of ['/', `${path}/`, '/webauth/login', '//webauth/frame']) {
      expect((await visitor.get(other)).status).toBe(404);
    }
  });

  it.each(frameworks)('is middleware of %s', async (_, framework) => {
    const app = framework().use(frame);
    app.get('/', (_request, response) => void response.send('another page'));
    server.removeAllListeners('request').on('request', app);
    expect((await visitor.get(path)).text).toContain('<script data-pages=');
    expect((await visitor.get('/')).text).toBe('another page');
    const value = await makeCookie();
    expect(read(`${name}=${value}`)?.principal).toBe('test0001');
    expectRefusal(await spend('no ticket'), 401, 'ERR_TOKEN_INVALID');
  });

  it('says so where something before it has read the ticket', async () => {
    const app = express().use(express.text(), frame);
    app.use((error: Error, _: unknown, response: express.Response, _next: unknown) => response.send(error.message));
    server.removeAllListeners('request').on('request', app);
    const { text } = await spend(await makeTicket(), { 'content-type': 'text/plain' });
    expect(text).toBe('socketFrame() has to come before what reads bodies of requests');
    // Nobody is told, where nobody asks.
    server.removeAllListeners('request').on('request', (...at) => express.text()(...at, () => frame(...at)));
    const answer = await spend(await makeTicket(), { 'content-type': 'text/plain' });
    expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([500, 'ERR_INTERNAL']);
  });
});

describe('its options', () => {
  it.each<[unknown, RegExp]>([
    [undefined, /takes an object/],
    [{}, /needs the option origin/],
    [{ origin: live, page: [] }, /has no option page/],
    [{ origin: undefined }, /the option origin is an origin such as/],
    [{ origin: 'live.cam.ac.uk' }, /the option origin/],
    [{ origin: `${live}/` }, /the option origin/],
    [{ origin: 'https://LIVE.cam.ac.uk' }, /the option origin/],
    [{ origin: `${live}:443` }, /the option origin/],
    [{ origin: 'wss://live.cam.ac.uk' }, /the option origin/],
    [{ origin: 'http://live.cam.ac.uk' }, /http:\/\/live\.cam\.ac\.uk is plain http, .*give its https origin/],
    [{ origin: live, pages: 'https://a.example.org' }, /the option pages is a list/],
    [{ origin: live, pages: ['https://*.cam.ac.uk'] }, /the option pages/],
    [{ origin: live, pages: ['https://a.example.org;'] }, /the option pages/],
    [{ origin: live, pages: ["'self'"] }, /the option pages/],
    [{ origin: live, pages: ['null'] }, /the option pages/],
    [{ origin: live, pages: ['http://a.example.org'] }, /http:\/\/a\.example\.org is plain http/],
    [{ origin: live, pages: [live] }, /need no frame/],
  ])('are not %j', (options, message) => {
    const make = () => socketFrame(waa, options as FrameOptions);
    expect(make).toThrow(TypeError);
    expect(make).toThrow(message);
  });

  it('name another origin than that of the pages', () => {
    expect(() => socketFrame(waa, { origin: site.address })).toThrow(/pages at http:\S+ need no frame/);
  });

  it('are https in production, unless it is told to act otherwise', async () => {
    vi.stubEnv('NODE_ENV', 'production');
    const [strict, told] = [false, true].map((dangerouslyActAsDevelopment) =>
      makeWAA({
        baseUrl: 'https://app.cam.ac.uk',
        secret: randomBytes(32).toString('hex'),
        wls: undefined,
        dangerouslyActAsDevelopment,
      }),
    ) as [WAA, WAA];
    const local = { origin: 'http://localhost:3001', pages: ['http://localhost:3000'] };
    expect(() => socketFrame(strict, { origin: live })).not.toThrow();
    expect(() => socketFrame(strict, { origin: local.origin })).toThrow(/set NODE_ENV=development/);
    expect(() => socketFrame(strict, { origin: live, pages: local.pages })).toThrow(/set NODE_ENV=development/);
    expect(() => socketFrame(told, local)).not.toThrow();
    await Promise.all([strict.close(), told.close()]);
  });
});
