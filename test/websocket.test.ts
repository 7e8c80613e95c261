import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import express from 'express';
import { describe, expect, it, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { WebauthError } from '../src/errors.js';
import { webauth } from '../src/express/index.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA } from '../src/waa.js';
import { acceptUpgrades, authenticateUpgrade, refuseUpgrade } from '../src/websocket/index.js';
import { clock, wls } from './site.js';
import { frame, handshake, socketSite } from './sockets.js';

const site = socketSite();

describe('acceptUpgrades', () => {
  it('opens a socket for somebody who is logged in, and says who it is', async () => {
    site.accept({ path: '/live' });
    const { auth, cookie } = await site.logIn();
    const { client, socket, request } = await site.open('/live?x=1', site.headers(cookie));
    expect(request.auth).toEqual(auth);
    expect(request.url).toBe('/live?x=1');
    socket.send('hello');
    const [data] = await once(client, 'message');
    expect(String(data)).toBe('hello');
  });

  it.each<[string, (cookie: string) => Record<string, string>, number, string]>([
    ['nobody is logged in', () => site.headers(undefined), 403, 'ERR_SESSION_MISSING'],
    ['the cookie is not ours', () => site.headers('<>'), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is empty', () => site.headers(''), 403, 'ERR_SESSION_INVALID'],
    ['the cookie was sent twice', (c) => site.headers(`${c}; webauth-session=${c}`), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is an object', () => site.headers('j:{}'), 403, 'ERR_SESSION_INVALID'],
    ['the cookie is over 8 KB', () => site.headers('A'.repeat(8200)), 403, 'ERR_SESSION_INVALID'],
    ['the cookie has a broken escape', () => site.headers('%E0%A4%A'), 403, 'ERR_SESSION_INVALID'],
    ['there is no Origin', (c) => ({ cookie: `webauth-session=${c}` }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is empty', (c) => site.headers(c, { origin: '' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin is null', (c) => site.headers(c, { origin: 'null' }), 403, 'ERR_ORIGIN_REFUSED'],
    [
      'the Origin is a sibling',
      (c) => site.headers(c, { origin: 'https://evil.cam.ac.uk' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Origin is https',
      (c) => site.headers(c, { origin: site.origin.replace('http', 'https') }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Origin has another port',
      (c) => site.headers(c, { origin: 'http://127.0.0.1:1' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    ['the Origin has no port', (c) => site.headers(c, { origin: 'http://127.0.0.1' }), 403, 'ERR_ORIGIN_REFUSED'],
    ['the Origin ends in a slash', (c) => site.headers(c, { origin: `${site.origin}/` }), 403, 'ERR_ORIGIN_REFUSED'],
    [
      'the Origin is in capitals',
      (c) => site.headers(c, { origin: site.origin.toUpperCase() }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Origin has user information',
      (c) => site.headers(c, { origin: site.origin.replace('//', '//me@') }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Origin is a list',
      (c) => site.headers(c, { origin: `${site.origin}, ${site.origin}` }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Origin only begins like ours',
      (c) => site.headers(c, { origin: `${site.origin}.evil.example` }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    [
      'the Host agrees with a foreign Origin',
      (c) => site.headers(c, { origin: 'http://evil.example', host: 'evil.example' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
  ])('refuses with a complete answer and a log entry: %s', async (_, sent, status, code) => {
    site.accept();
    const { cookie } = await site.logIn();
    site.events.length = 0;
    const answer = await site.refused('/', sent(cookie));
    expect(answer).toMatchObject({ status, code });
    expect(site.events).toEqual([expect.objectContaining({ event: 'refused', code })]);
    for (const text of [answer.text, JSON.stringify(site.events)]) expect(text).not.toContain(cookie.slice(20, 60));
    expect(site.wss.clients.size).toBe(0);
  });

  it('looks at the Origin before the cookie', async () => {
    site.accept();
    expect(await site.refused('/', site.headers('<>', { origin: 'null' }))).toMatchObject({
      code: 'ERR_ORIGIN_REFUSED',
    });
  });

  it('counts Origin lines, which Node would join', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const answer = await site.raw([
      `Origin: ${site.origin}`,
      `Origin: ${site.origin}`,
      `Cookie: webauth-session=${cookie}`,
    ]);
    expect(answer).toContain('ERR_ORIGIN_REFUSED');
  });

  it('does not need a Host, and does not believe one', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const answer = await site.raw([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`], 'HTTP/1.1 101');
    expect(answer).toContain('HTTP/1.1 101');
  });

  it('takes further origins that are configured', async () => {
    site.accept({ origins: ['https://page.example.org'] });
    const { cookie } = await site.logIn();
    await site.open('/', site.headers(cookie, { origin: 'https://page.example.org' }));
    await site.open('/', site.headers(cookie));
    expect(await site.refused('/', site.headers(cookie, { origin: 'https://example.org' }))).toMatchObject({
      code: 'ERR_ORIGIN_REFUSED',
    });
  });

  it('asks for ptags and principals as routes do', async () => {
    site.accept({ path: '/members' });
    site.accept({ path: '/any', ptags: [] });
    site.accept({ path: '/one', principals: ['test0002'] });
    const leaver = site.headers((await site.logIn({ principal: 'test0401', ptags: [] })).cookie);
    expect(await site.refused('/members', leaver)).toMatchObject({ status: 403, code: 'ERR_PTAGS_REFUSED' });
    expect(await site.refused('/one', leaver)).toMatchObject({ status: 403, code: 'ERR_PRINCIPAL_REFUSED' });
    await site.open('/any', leaver);
    await site.open('/members', site.headers((await site.logIn()).cookie));
    await site.open('/one', site.headers((await site.logIn({ principal: 'test0002' })).cookie));
  });

  it('keeps several endpoints on one server apart, and answers 404 where nobody listens', async () => {
    const other = new WebSocketServer({ noServer: true });
    site.accept({ path: '/a' });
    site.accept({ path: '/b' }, other);
    const { cookie } = await site.logIn();
    const [, both] = await Promise.all([
      site.open('/a', site.headers(cookie)),
      once(other, 'connection').then(() => true),
      connected('/b', cookie),
    ]);
    expect(both).toBe(true);
    for (const path of ['/', '/c', '/a/', '/a/b', '/A', '//a', '/a%2f']) {
      const client = new WebSocket(site.origin.replace('http', 'ws') + path, { headers: site.headers(cookie) });
      const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
      expect([path, response.statusCode]).toEqual([path, 404]);
    }
    for (const socket of other.clients) socket.terminate();
  });

  it('leaves other paths to other handlers', async () => {
    site.accept({ path: '/a' });
    const handler = vi.fn((_request: IncomingMessage, socket: Socket) =>
      socket.end('HTTP/1.1 418 Mine\r\nConnection: close\r\n\r\n'),
    );
    site.server.on('upgrade', (request, socket) => request.url === '/mine' && handler(request, socket as Socket));
    const client = new WebSocket(`${site.origin.replace('http', 'ws')}/mine`);
    const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(418);
    expect(handler).toHaveBeenCalledTimes(1);
    site.server.removeListener('upgrade', site.server.listeners('upgrade').at(-1) as () => void);
  });

  it('gives the application no socket whose session ended while the handshake was on its way', async () => {
    const slow = new WebSocketServer({
      noServer: true,
      verifyClient: (_info: unknown, done: (fine: boolean) => void) =>
        void site.waa.endSession(login.auth).then(() => done(true)),
    });
    site.accept({}, slow);
    const login = await site.logIn();
    const connected = vi.fn();
    slow.on('connection', connected);
    const client = new WebSocket(site.origin.replace('http', 'ws'), { headers: site.headers(login.cookie) });
    expect((await once(client, 'close'))[0]).toBe(4401);
    expect(connected).not.toHaveBeenCalled();
  });

  it('answers 503 while the store is away', async () => {
    const { cookie } = await site.logIn();
    site.waa = site.makeWAA({
      store: Object.assign(new MemoryStore({ now: clock.now }), { mark: () => Promise.reject(new Error('no route')) }),
    });
    site.accept();
    expect(await site.refused('/', site.headers(cookie))).toMatchObject({ status: 503, code: 'ERR_STORE_UNAVAILABLE' });
  });

  it('stops when told to', async () => {
    const stop = site.accept({ path: '/a' });
    const { cookie } = await site.logIn();
    await site.open('/a', site.headers(cookie));
    stop();
    const client = new WebSocket(`${site.origin.replace('http', 'ws')}/a`, { headers: site.headers(cookie) });
    const [, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(response.statusCode).toBe(404);
  });

  it('refuses at once what it cannot serve safely, or does not know', () => {
    const [server2, ownServer] = [createServer(), createServer()];
    const onPath = createWAA({ baseUrl: 'http://localhost:1/app', cookiePath: '/app', wls: wls.profile });
    const noServer = new WebSocketServer({ noServer: true });
    expect(() => acceptUpgrades(server2, noServer, onPath, { path: '/live' })).toThrow('never to /live');
    acceptUpgrades(createServer(), noServer, onPath, { path: '/app/live' });
    expect(() => acceptUpgrades(server2, new WebSocketServer({ server: ownServer }), site.waa)).toThrow(
      'noServer: true',
    );
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
      expect(() => acceptUpgrades(server2, site.wss, site.waa, options as never), JSON.stringify(options)).toThrow(
        TypeError,
      );
    }
    expect(server2.listenerCount('upgrade')).toBe(0);
  });

  it('says which of its arguments is another thing', () => {
    const { server, wss, waa } = site;
    const mistakes: [unknown, unknown, unknown, string][] = [
      [express(), wss, waa, 'not the app itself'],
      [undefined, wss, waa, 'not the app itself'],
      [server, undefined, waa, 'a WebSocketServer'],
      [server, waa, wss, 'a WebSocketServer'],
      [server, wss, undefined, 'that createWAA() returned'],
      [server, wss, Promise.resolve(waa), 'that createWAA() returned'],
      [server, wss, webauth(waa), 'that createWAA() returned'],
    ];
    for (const [first, second, third, sentence] of mistakes) {
      const mistaken = () => acceptUpgrades(first as never, second as never, third as never);
      expect(mistaken).toThrow(TypeError);
      expect(mistaken).toThrow(sentence);
    }
    expect(() => waa.watch(authenticateUpgrade(waa, {} as never).catch(() => {}) as never, () => {})).toThrow('await');
  });

  it('gives a path to one endpoint at a time', () => {
    for (const options of [{ path: '/one' }, {}]) {
      const stop = site.accept(options);
      expect(() => site.accept(options)).toThrow('a path of their own');
      stop();
      site.accept(options);
    }
  });

  it('survives clients that break off, at any point', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const head = `GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: webauth-session=${cookie}\r\n`;
    for (const tail of [
      '',
      '\r\n',
      `Origin: ${site.origin}\r\n\r\n`,
      `Origin: ${site.origin}\r\n\r\n${'\u0000'.repeat(50_000)}`,
    ]) {
      const socket = connect(site.port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write(head + tail);
      socket.resetAndDestroy();
      await once(socket, 'close');
    }
    await site.open('/', site.headers(cookie));
  });

  it('cuts off a client that keeps the connection after a refusal, also after a 404', async () => {
    site.accept({ path: '/live' });
    for (const path of ['/live', '/nothing']) {
      const connection = once(site.server, 'connection');
      const peer = connect({
        port: site.port,
        host: '127.0.0.1',
        allowHalfOpen: true,
      });
      peer.on('error', () => {}).resume();
      const [held] = (await connection) as [Socket];
      const closed = once(held, 'close');
      peer.write(handshake([], path));
      await closed;
      peer.destroy();
    }
  });

  it('answers in full a client that is still sending', async () => {
    site.accept();
    const socket = connect(site.port, '127.0.0.1');
    socket.write(handshake(['Host: x', 'Origin: null']));
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
    site.accept();
    const [a, b] = [await site.logIn(), await site.logIn()];
    const [mine, second, other] = [
      await site.open('/', site.headers(a.cookie)),
      await site.open('/', site.headers(a.cookie)),
      await site.open('/', site.headers(b.cookie)),
    ];
    const closing = [once(mine.client, 'close'), once(second.client, 'close')];
    await site.waa.endSession(a.auth);
    for (const [code, reason] of await Promise.all(closing)) {
      expect([code, String(reason)]).toEqual([4401, 'ERR_SESSION_REVOKED: the session was ended']);
    }
    expect(other.client.readyState).toBe(WebSocket.OPEN);
    expect(await site.refused('/', site.headers(a.cookie))).toMatchObject({ status: 403, code: 'ERR_SESSION_REVOKED' });
  });

  it('ends with 4401 when its session has come to its end', async () => {
    site.accept();
    const { cookie } = await site.logIn({ life: 60 });
    const { client } = await site.open('/', site.headers(cookie));
    clock.pass(60);
    const [code, reason] = await once(client, 'close');
    expect([code, String(reason)]).toEqual([4401, 'ERR_SESSION_EXPIRED: the session is over: log in again']);
    expect(await site.refused('/', site.headers(cookie))).toMatchObject({ status: 403, code: 'ERR_SESSION_EXPIRED' });
  });

  it('ends also if the peer never answers the close', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { client, socket } = await site.open('/', site.headers(cookie));
    client.pause();
    const closed = once(socket, 'close');
    await site.waa.endSession(auth);
    await closed;
    client.terminate();
  });

  it('hears nothing any more from a peer that ignores the close', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const connection = once(site.wss, 'connection');
    const peer = site.connect([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`]);
    const [socket] = (await connection) as [WebSocket];
    const heard: string[] = [];
    socket.on('message', (data) => heard.push(String(data)));
    const first = once(socket, 'message');
    peer.write(frame('a'));
    await first;
    await site.waa.endSession(auth);
    const closed = once(socket, 'close');
    peer.write(frame('b'));
    await closed;
    expect(heard).toEqual(['a']);
    peer.destroy();
  });

  it('ends, and nothing else does, when its peer sends a broken frame', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const connection = once(site.wss, 'connection');
    const peer = site.connect([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`]);
    // As in the README: nobody listens for errors.
    const [socket] = (await connection) as [WebSocket];
    const closed = new Promise((resolve) => socket.once('close', resolve));
    peer.write(Buffer.from([0xff, 0x00]));
    expect(await closed).toBe(1006);
    peer.destroy();
    await site.open('/', site.headers(cookie));
  });

  it('ends with the login that replaces it', async () => {
    site.accept();
    const first = await site.logIn();
    const { client } = await site.open('/', site.headers(first.cookie));
    const { location, nonce } = site.waa.startLogin('/');
    const closed = once(client, 'close');
    const second = await site.waa.finishLogin(wls.respond(location), nonce, first.auth);
    expect((await closed)[0]).toBe(4401);
    await site.open('/', site.headers(second.cookie));
  });

  it('leaves nothing behind: a socket that was closed is not watched any more', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { client, socket } = await site.open('/', site.headers(cookie));
    client.close();
    await once(socket, 'close');
    const close = vi.spyOn(socket, 'close');
    await site.waa.endSession(auth);
    expect(close).not.toHaveBeenCalled();
  });
});

describe('authenticateUpgrade and refuseUpgrade', () => {
  it('serve an upgrade handler of one’s own', async () => {
    const handler = async (request: IncomingMessage, socket: Socket) => {
      try {
        const { principal } = await authenticateUpgrade(site.waa, request, { ptags: [] });
        socket.end(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n${principal}`);
      } catch (error) {
        expect(error).toBeInstanceOf(WebauthError);
        refuseUpgrade(socket, error);
      }
    };
    site.server.on('upgrade', handler as never);
    try {
      const { cookie } = await site.logIn({ principal: 'test0401', ptags: [] });
      expect(await site.raw([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`])).toMatch(
        /\r\n\r\ntest0401$/,
      );
      expect(await site.raw([`Origin: ${site.origin}`])).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n.*ERR_SESSION_MISSING/s);
      expect(await site.raw([`Cookie: webauth-session=${cookie}`])).toMatch(
        /^HTTP\/1\.1 403 Forbidden\r\n.*ERR_ORIGIN_REFUSED/s,
      );
    } finally {
      site.server.removeListener('upgrade', handler as never);
    }
    await expect(authenticateUpgrade(site.waa, {} as never, { origins: ['x'] })).rejects.toThrow(TypeError);
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
      site.server.on('upgrade', handler as never);
      answers.push(await site.raw([]));
      site.server.removeListener('upgrade', handler as never);
    }
    expect(answers[0]).toMatch(/^HTTP\/1\.1 503 Service Unavailable\r\n.*Retry-After: 5\r\n/s);
    expect(answers[1]).toMatch(/^HTTP\/1\.1 500 Internal Server Error\r\n/);
    expect(answers[1]).not.toContain('inner detail');
  });
});

/** Opens a socket without waiting for the server's side. */
async function connected(path: string, cookie: string): Promise<void> {
  await once(site.client(path, { headers: site.headers(cookie) }), 'open');
}
