import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import type { Config, LogEvent } from '../src/config.js';
import { WebauthError } from '../src/errors.js';
import type { AuthResponse } from '../src/response.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type AcceptOptions, acceptUpgrades, authenticateUpgrade, refuseUpgrade } from '../src/websocket/index.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';

const start = Date.parse('2026-03-01T12:00:00Z');
let time = start;
const now = () => new Date(time);
const wls = createWLS({ key: wlsKey.privateKey, now });

let origin: string;
let waa: WAA;
let wss: WebSocketServer;
let events: LogEvent[];
const server = createServer();

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
});
beforeEach(() => {
  time = start;
  events = [];
  waa = makeWAA();
  wss = new WebSocketServer({ noServer: true });
});
const stops: (() => void)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) stop();
  for (const socket of wss.clients) socket.terminate();
  await waa.close();
});

function makeWAA(config: Partial<Config> = {}): WAA {
  return createWAA({
    baseUrl: origin,
    secret: 'a1'.repeat(32),
    wls: wls.profile,
    now,
    log: (event) => events.push(event),
    ...config,
  });
}

function accept(options: AcceptOptions = {}, to = wss): void {
  stops.push(acceptUpgrades(server, to, waa, options));
}

async function logIn(overrides: Partial<AuthResponse> = {}): Promise<{ auth: Auth; cookie: string }> {
  const { location, nonce } = waa.startLogin('/');
  const { auth, cookie } = await waa.finishLogin(wls.respond(location, overrides), nonce);
  return { auth, cookie: cookie as string };
}

/** The headers of a page of ours whose visitor has that session. */
function headers(cookie: string | undefined, more: Record<string, string> = {}): Record<string, string> {
  return { origin, ...(cookie !== undefined && { cookie: `webauth-session=${cookie}` }), ...more };
}

interface Opened {
  readonly client: WebSocket;
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
}

/** Opens a socket and waits until both sides have it. */
async function open(path: string, sent: Record<string, string>): Promise<Opened> {
  const client = new WebSocket(origin.replace('http', 'ws') + path, { headers: sent });
  const [[socket, request]] = (await Promise.all([once(wss, 'connection'), once(client, 'open')])) as unknown as [
    [WebSocket, IncomingMessage],
  ];
  return { client, socket, request };
}

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly text: string;
}

/** Tries to open a socket and gives the HTTP answer, to its end. */
async function refused(path: string, sent: Record<string, string>): Promise<Refusal> {
  const client = new WebSocket(origin.replace('http', 'ws') + path, { headers: sent });
  const [request, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
  expect(request).toBeDefined();
  let text = '';
  for await (const chunk of response) text += chunk;
  expect(response.headers['content-length']).toBe(`${Buffer.byteLength(text)}`);
  expect(response.headers.connection).toBe('close');
  return { status: response.statusCode as number, code: text === '' ? '' : JSON.parse(text).error.code, text };
}

describe('acceptUpgrades', () => {
  it('opens a socket for somebody who is logged in, and says who it is', async () => {
    accept({ path: '/live' });
    const { auth, cookie } = await logIn();
    const { client, socket, request } = await open('/live?x=1', headers(cookie));
    expect(request.auth).toEqual(auth);
    expect(request.url).toBe('/live?x=1');
    socket.send('hello');
    const [data] = await once(client, 'message');
    expect(String(data)).toBe('hello');
  });

  it.each<[string, (cookie: string) => Record<string, string>, number, string]>([
    ['nobody is logged in', () => headers(undefined), 403, 'ERR_SESSION_MISSING'],
    ['the cookie is not ours', () => headers('<>'), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is empty', () => headers(''), 403, 'ERR_SESSION_INVALID'],
    ['the cookie was sent twice', (c) => headers(`${c}; webauth-session=${c}`), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is an object', () => headers('j:{}'), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is over 8 KB', () => headers('A'.repeat(8200)), 403, 'ERR_SESSION_INVALID'],
    ['the cookie has a broken escape', () => headers('%E0%A4%A'), 403, 'ERR_SESSION_INVALID'],
    ['there is no Origin', (c) => ({ cookie: `webauth-session=${c}` }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is empty', (c) => headers(c, { origin: '' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is null', (c) => headers(c, { origin: 'null' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is a sibling', (c) => headers(c, { origin: 'https://evil.cam.ac.uk' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is https', (c) => headers(c, { origin: origin.replace('http', 'https') }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin has another port', (c) => headers(c, { origin: 'http://127.0.0.1:1' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin has no port', (c) => headers(c, { origin: 'http://127.0.0.1' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin ends in a slash', (c) => headers(c, { origin: `${origin}/` }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is in capitals', (c) => headers(c, { origin: origin.toUpperCase() }), 403, 'ERR_ORIGIN_REFUSED'],
    [
      'the Origin has user information',
      (c) => headers(c, { origin: origin.replace('//', '//me@') }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    ['the Origin is a list', (c) => headers(c, { origin: `${origin}, ${origin}` }), 403, 'ERR_ORIGIN_REFUSED'],
    [
      'the Origin only begins like ours',
      (c) => headers(c, { origin: `${origin}.evil.example` }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Host agrees with a foreign Origin',
      (c) => headers(c, { origin: 'http://evil.example', host: 'evil.example' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
  ])('refuses with a complete answer and a log entry: %s', async (_, sent, status, code) => {
    accept();
    const { cookie } = await logIn();
    events.length = 0;
    const answer = await refused('/', sent(cookie));
    expect(answer).toMatchObject({ status, code });
    expect(events).toEqual([expect.objectContaining({ event: 'refused', code })]);
    for (const text of [answer.text, JSON.stringify(events)]) expect(text).not.toContain(cookie.slice(20, 60));
    expect(wss.clients.size).toBe(0);
  });

  it('looks at the Origin before the cookie', async () => {
    accept();
    expect(await refused('/', headers('<>', { origin: 'null' }))).toMatchObject({ code: 'ERR_ORIGIN_REFUSED' });
  });

  it('counts Origin lines, which Node would join', async () => {
    accept();
    const { cookie } = await logIn();
    const answer = await raw([`Origin: ${origin}`, `Origin: ${origin}`, `Cookie: webauth-session=${cookie}`]);
    expect(answer).toContain('ERR_ORIGIN_REFUSED');
  });

  it('does not need a Host, and does not believe one', async () => {
    accept();
    const { cookie } = await logIn();
    const answer = await raw([`Origin: ${origin}`, `Cookie: webauth-session=${cookie}`], 'HTTP/1.1 101');
    expect(answer).toContain('HTTP/1.1 101');
  });

  it('takes further origins that are configured', async () => {
    accept({ origins: ['https://page.example.org'] });
    const { cookie } = await logIn();
    await open('/', headers(cookie, { origin: 'https://page.example.org' }));
    await open('/', headers(cookie));
    expect(await refused('/', headers(cookie, { origin: 'https://example.org' }))).toMatchObject({
      code: 'ERR_ORIGIN_REFUSED',
    });
  });

  it('asks for ptags and principals as routes do', async () => {
    accept({ path: '/members' });
    accept({ path: '/any', ptags: [] });
    accept({ path: '/one', principals: ['test0002'] });
    const leaver = headers((await logIn({ principal: 'test0401', ptags: [] })).cookie);
    expect(await refused('/members', leaver)).toMatchObject({ status: 403, code: 'ERR_PTAGS_REFUSED' });
    expect(await refused('/one', leaver)).toMatchObject({ status: 403, code: 'ERR_PRINCIPAL_REFUSED' });
    await open('/any', leaver);
    await open('/members', headers((await logIn()).cookie));
    await open('/one', headers((await logIn({ principal: 'test0002' })).cookie));
  });

  it('keeps several endpoints on one server apart, and answers 404 where nobody listens', async () => {
    const other = new WebSocketServer({ noServer: true });
    accept({ path: '/a' });
    accept({ path: '/b' }, other);
    const { cookie } = await logIn();
    const [, both] = await Promise.all([
      open('/a', headers(cookie)),
      once(other, 'connection').then(() => true),
      connected('/b', cookie),
    ]);
    expect(both).toBe(true);
    for (const path of ['/', '/c', '/a/', '/a/b', '/A', '//a', '/a%2f']) {
      const client = new WebSocket(origin.replace('http', 'ws') + path, { headers: headers(cookie) });
      const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
      expect([path, response.statusCode]).toEqual([path, 404]);
    }
    for (const socket of other.clients) socket.terminate();
  });

  it('leaves other paths to other handlers', async () => {
    accept({ path: '/a' });
    const handler = vi.fn((_request: IncomingMessage, socket: Socket) =>
      socket.end('HTTP/1.1 418 Mine\r\nConnection: close\r\n\r\n'),
    );
    server.on('upgrade', (request, socket) => request.url === '/mine' && handler(request, socket as Socket));
    const client = new WebSocket(`${origin.replace('http', 'ws')}/mine`);
    const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(418);
    expect(handler).toHaveBeenCalledTimes(1);
    server.removeListener('upgrade', server.listeners('upgrade').at(-1) as () => void);
  });

  it('gives the application no socket whose session ended while the handshake was on its way', async () => {
    const slow = new WebSocketServer({
      noServer: true,
      verifyClient: (_info: unknown, done: (fine: boolean) => void) =>
        void waa.endSession(login.auth).then(() => done(true)),
    });
    accept({}, slow);
    const login = await logIn();
    const connected = vi.fn();
    slow.on('connection', connected);
    const client = new WebSocket(origin.replace('http', 'ws'), { headers: headers(login.cookie) });
    expect((await once(client, 'close'))[0]).toBe(4401);
    expect(connected).not.toHaveBeenCalled();
  });

  it('answers 503 while the store is away', async () => {
    const { cookie } = await logIn();
    waa = makeWAA({
      store: Object.assign(new MemoryStore({ now }), { mark: () => Promise.reject(new Error('no route')) }),
    });
    accept();
    expect(await refused('/', headers(cookie))).toMatchObject({ status: 503, code: 'ERR_STORE_UNAVAILABLE' });
  });

  it('stops when told to', async () => {
    accept({ path: '/a' });
    const { cookie } = await logIn();
    await open('/a', headers(cookie));
    stops.pop()?.();
    const client = new WebSocket(`${origin.replace('http', 'ws')}/a`, { headers: headers(cookie) });
    const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(404);
  });

  it('refuses at once what it cannot serve safely, or does not know', () => {
    const [server2, ownServer] = [createServer(), createServer()];
    const onPath = createWAA({ baseUrl: 'http://localhost:1/app', cookiePath: '/app', wls: wls.profile });
    const noServer = new WebSocketServer({ noServer: true });
    expect(() => acceptUpgrades(server2, noServer, onPath, { path: '/live' })).toThrow('never to /live');
    acceptUpgrades(createServer(), noServer, onPath, { path: '/app/live' });
    expect(() => acceptUpgrades(server2, new WebSocketServer({ server: ownServer }), waa)).toThrow('noServer: true');
    for (const options of [
      { origin: [] },
      { origins: 'https://a.example' },
      { origins: ['https://a.example/'] },
      { origins: ['a.example'] },
      { origins: ['https://A.example'] },
      { path: 'live' },
      { path: '/live?x' },
      { ptags: 'current' },
      { principals: 'x' },
    ]) {
      expect(() => acceptUpgrades(server2, wss, waa, options as never), JSON.stringify(options)).toThrow(TypeError);
    }
    expect(server2.listenerCount('upgrade')).toBe(0);
  });

  it('survives clients that break off, at any point', async () => {
    accept();
    const { cookie } = await logIn();
    const head = `GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: webauth-session=${cookie}\r\n`;
    for (const tail of [
      '',
      '\r\n',
      `Origin: ${origin}\r\n\r\n`,
      `Origin: ${origin}\r\n\r\n${'\u0000'.repeat(50_000)}`,
    ]) {
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write(head + tail);
      socket.resetAndDestroy();
      await once(socket, 'close');
    }
    await open('/', headers(cookie));
  });

  it('cuts off a client that keeps the connection after a refusal, also after a 404', async () => {
    accept({ path: '/live' });
    for (const path of ['/live', '/nothing']) {
      const connection = once(server, 'connection');
      const peer = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true });
      peer.on('error', () => {}).resume();
      const [held] = (await connection) as [Socket];
      const closed = once(held, 'close');
      peer.write(handshake([], path));
      await closed;
      peer.destroy();
    }
  });

  it('answers in full a client that is still sending', async () => {
    accept();
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: null\r\n\r\n');
    socket.write(Buffer.alloc(1_000_000));
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    await once(socket, 'end');
    expect(text).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/);
    expect(text.endsWith('}}')).toBe(true);
    socket.destroy();
  });
});

describe('the life of a socket', () => {
  it('ends with 4401 when its session is ended, and only its own', async () => {
    accept();
    const [a, b] = [await logIn(), await logIn()];
    const [mine, second, other] = [
      await open('/', headers(a.cookie)),
      await open('/', headers(a.cookie)),
      await open('/', headers(b.cookie)),
    ];
    const closing = [once(mine.client, 'close'), once(second.client, 'close')];
    await waa.endSession(a.auth);
    for (const [code, reason] of await Promise.all(closing)) {
      expect([code, String(reason)]).toEqual([4401, 'ERR_SESSION_REVOKED: the session was ended']);
    }
    expect(other.client.readyState).toBe(WebSocket.OPEN);
    expect(await refused('/', headers(a.cookie))).toMatchObject({ status: 403, code: 'ERR_SESSION_REVOKED' });
  });

  it('ends with 4401 when its session has come to its end', async () => {
    accept();
    const { cookie } = await logIn({ life: 60 });
    const { client } = await open('/', headers(cookie));
    time += 60_000;
    const [code, reason] = await once(client, 'close');
    expect([code, String(reason)]).toEqual([4401, 'ERR_SESSION_EXPIRED: the session is over: log in again']);
    expect(await refused('/', headers(cookie))).toMatchObject({ status: 403, code: 'ERR_SESSION_EXPIRED' });
  });

  it('ends also if the peer never answers the close', async () => {
    accept();
    const { auth, cookie } = await logIn();
    const { client, socket } = await open('/', headers(cookie));
    client.pause();
    const closed = once(socket, 'close');
    await waa.endSession(auth);
    await closed;
    client.terminate();
  });

  it('hears nothing any more from a peer that ignores the close', async () => {
    accept();
    const { auth, cookie } = await logIn();
    const connection = once(wss, 'connection');
    const peer = connect((server.address() as AddressInfo).port, '127.0.0.1');
    peer.write(handshake([`Origin: ${origin}`, `Cookie: webauth-session=${cookie}`]));
    const [socket] = (await connection) as [WebSocket];
    const heard: string[] = [];
    socket.on('message', (data) => heard.push(String(data)));
    const frame = (letter: string) => Buffer.from([0x81, 0x81, 0, 0, 0, 0, letter.charCodeAt(0)]);
    const first = once(socket, 'message');
    peer.write(frame('a'));
    await first;
    await waa.endSession(auth);
    const closed = once(socket, 'close');
    peer.write(frame('b'));
    await closed;
    expect(heard).toEqual(['a']);
    peer.destroy();
  });

  it('ends, and nothing else does, when its peer sends a broken frame', async () => {
    accept();
    const { cookie } = await logIn();
    const connection = once(wss, 'connection');
    const peer = connect((server.address() as AddressInfo).port, '127.0.0.1');
    peer.write(handshake([`Origin: ${origin}`, `Cookie: webauth-session=${cookie}`]));
    // As in the README: nobody listens for errors.
    const [socket] = (await connection) as [WebSocket];
    const closed = new Promise((resolve) => socket.once('close', resolve));
    peer.write(Buffer.from([0xff, 0x00]));
    expect(await closed).toBe(1006);
    peer.destroy();
    await open('/', headers(cookie));
  });

  it('ends with the login that replaces it', async () => {
    accept();
    const first = await logIn();
    const { client } = await open('/', headers(first.cookie));
    const { location, nonce } = waa.startLogin('/');
    const closed = once(client, 'close');
    const second = await waa.finishLogin(wls.respond(location), nonce, first.auth);
    expect((await closed)[0]).toBe(4401);
    await open('/', headers(second.cookie));
  });

  it('leaves nothing behind: a socket that was closed is not watched any more', async () => {
    accept();
    const { auth, cookie } = await logIn();
    const { client, socket } = await open('/', headers(cookie));
    client.close();
    await once(socket, 'close');
    const close = vi.spyOn(socket, 'close');
    await waa.endSession(auth);
    expect(close).not.toHaveBeenCalled();
  });
});

describe('authenticateUpgrade and refuseUpgrade', () => {
  it('serve an upgrade handler of one’s own', async () => {
    const handler = async (request: IncomingMessage, socket: Socket) => {
      try {
        const { principal } = await authenticateUpgrade(waa, request, { ptags: [] });
        socket.end(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n${principal}`);
      } catch (error) {
        expect(error).toBeInstanceOf(WebauthError);
        refuseUpgrade(socket, error);
      }
    };
    server.on('upgrade', handler as never);
    try {
      const { cookie } = await logIn({ principal: 'test0401', ptags: [] });
      expect(await raw([`Origin: ${origin}`, `Cookie: webauth-session=${cookie}`])).toMatch(/\r\n\r\ntest0401$/);
      expect(await raw([`Origin: ${origin}`])).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n.*ERR_SESSION_MISSING/s);
      expect(await raw([`Cookie: webauth-session=${cookie}`])).toMatch(
        /^HTTP\/1\.1 403 Forbidden\r\n.*ERR_ORIGIN_REFUSED/s,
      );
    } finally {
      server.removeListener('upgrade', handler as never);
    }
    await expect(authenticateUpgrade(waa, {} as never, { origins: ['x'] })).rejects.toThrow(TypeError);
  });

  it('answer 503 with Retry-After while the store cannot be reached, and 500 without detail for what is not ours', async () => {
    const answers: string[] = [];
    for (const error of [
      Object.assign(Object.create(WebauthError.prototype), {
        status: 503,
        code: 'ERR_STORE_UNAVAILABLE',
        message: 'm',
      }),
      new Error('inner detail'),
    ]) {
      const handler = (_request: unknown, socket: Socket) => refuseUpgrade(socket, error);
      server.on('upgrade', handler as never);
      answers.push(await raw([]));
      server.removeListener('upgrade', handler as never);
    }
    expect(answers[0]).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n.*Retry-After: 5\r\n/s);
    expect(answers[1]).toMatch(/^HTTP\/1\.1 500 Internal Server Error\r\n/);
    expect(answers[1]).not.toContain('inner detail');
  });
});

/** Opens a socket without waiting for the server's side. */
async function connected(path: string, cookie: string): Promise<void> {
  const client = new WebSocket(origin.replace('http', 'ws') + path, { headers: headers(cookie) });
  await once(client, 'open');
}

/** Sends an upgrade of just these header lines, and reads to the end, or to the text that is waited for. */
async function raw(lines: string[], until?: string): Promise<string> {
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.write(handshake(lines));
  let text = '';
  for await (const chunk of socket) {
    text += chunk;
    if (until !== undefined && text.includes(until)) break;
  }
  return text;
}

/** The bytes of a handshake. Without a Host where there is none among the lines: Node lets upgrades pass without. */
function handshake(lines: string[], path = '/'): string {
  const fixed = [
    `GET ${path} HTTP/1.1`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];
  return `${[...fixed, ...lines].join('\r\n')}\r\n\r\n`;
}
