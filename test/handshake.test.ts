import { EventEmitter, once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { AuthorisationError, WebauthError } from '../src/errors.js';
import { MemoryStore } from '../src/session/memory.js';
import { newSecret } from '../src/session/secret.js';
import type { Auth } from '../src/session/session.js';
import type { Subscriber } from '../src/session/store.js';
import { acceptUpgrades, authenticateUpgrade } from '../src/websocket/index.js';
import { clock, wls } from './site.js';
import { frame, socketSite } from './sockets.js';

// What holds for handshakes whatever their credential: the Origin, waiting, limits, and how refusals are said.
const site = socketSite();

describe('Origin', () => {
  it('is compared as a whole, with the configured ones, also for hosts written in other ways', async () => {
    const origins = ['http://[::1]:3000', 'https://xn--bcher-kva.example', 'https://app.cam.ac.uk'];
    site.accept({ origins, ptags: [] });
    const { cookie } = await site.logIn();
    for (const origin of origins) (await site.open('/', site.headers(cookie, { origin }))).client.terminate();
    const foreign = [
      'http://[::1]',
      'http://[::1]:3001',
      'http://[0:0:0:0:0:0:0:1]:3000',
      'http://::1:3000',
      'https://[::1]:3000',
      'https://app.cam.ac.uk.',
      'https://app.cam.ac.uk:443',
      'https://APP.cam.ac.uk',
      'https://app.cam.ac.uk@evil.cam.ac.uk',
      'https://me@app.cam.ac.uk',
      'https://evil.app.cam.ac.uk',
      'https://cam.ac.uk',
      'https://evilapp.cam.ac.uk',
      'http://app.cam.ac.uk',
      'https://app.cam.ac.uk/',
      'https://app.cam.ac.uk, https://app.cam.ac.uk',
      'wss://app.cam.ac.uk',
      'app.cam.ac.uk',
      'null',
    ];
    for (const origin of foreign) {
      const answer = await site.refused('/', site.headers(cookie, { origin }));
      expect([origin, answer.status, answer.code]).toEqual([origin, 403, 'ERR_ORIGIN_REFUSED']);
    }
  });

  it('is refused by HTTP, and quietly, also where refusals close and for every credential', async () => {
    site.accept({ credentials: ['bearer', 'basic', 'subprotocol', 'query', 'cookie'], rejection: 'close' });
    site.events = [];
    for (const origin of ['null', 'https://evil.cam.ac.uk']) {
      expect(await site.refused('/', { origin })).toMatchObject({ status: 403, code: 'ERR_ORIGIN_REFUSED' });
    }
    expect(site.events.map(({ level, code }) => [level, code])).toEqual(Array(2).fill(['debug', 'ERR_ORIGIN_REFUSED']));
  });
});

describe('authorise', () => {
  it('has the last word, and is asked after all else', async () => {
    const asked: unknown[] = [];
    const authorise = (auth: Auth, { url }: IncomingMessage) => asked.push([auth.principal, url]) === 1;
    site.accept({ authorise, ptags: ['current'] });
    const left = await site.logIn({ principal: 'test0401', ptags: [] });
    expect((await site.refused('/', site.headers(left.cookie))).code).toBe('ERR_PTAGS_REFUSED');
    const { cookie } = await site.logIn();
    await site.open('/a?b', site.headers(cookie));
    expect(asked).toEqual([['test0001', '/a?b']]);
    expect(await site.refused('/', site.headers(cookie))).toMatchObject({ status: 403, code: 'ERR_PRINCIPAL_REFUSED' });
  });

  it.each<[string, () => unknown, number, string]>([
    ['false', () => false, 403, 'ERR_PRINCIPAL_REFUSED'],
    ['nothing', () => undefined, 403, 'ERR_PRINCIPAL_REFUSED'],
    ['something that is merely like true', () => 1, 403, 'ERR_PRINCIPAL_REFUSED'],
    ['a promise of false', async () => false, 403, 'ERR_PRINCIPAL_REFUSED'],
    ['a mistake', () => Promise.reject(new Error('inner detail')), 500, 'ERR_INTERNAL'],
    [
      'a mistake, thrown',
      () => {
        throw new Error('inner detail');
      },
      500,
      'ERR_INTERNAL',
    ],
  ])('lets in for true alone: %s', async (_, authorise, status, code) => {
    site.accept({ authorise: authorise as () => boolean });
    const { cookie } = await site.logIn();
    const answer = await site.refused('/', site.headers(cookie));
    expect(answer).toMatchObject({ status, code });
    expect(answer.text).not.toContain('inner detail');
    expect(site.events.at(-1)?.level).toBe(status === 500 ? 'error' : 'debug');
  });

  it('is answered in vain for a session that has ended meanwhile', async () => {
    const { auth, cookie } = await site.logIn();
    site.accept({ authorise: async () => site.waa.endSession(auth).then(() => true) });
    expect((await site.refused('/', site.headers(cookie))).code).toBe('ERR_SESSION_REVOKED');
  });

  it('has a deadline, and what it says later is not heard', async () => {
    const asked = new EventEmitter();
    const authorise = () => new Promise<boolean>((resolve) => asked.emit('asked', resolve));
    site.accept({ authorise, deadline: 0.1 });
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const question = once(asked, 'asked');
    const { cookie } = await site.logIn();
    const answer = await site.refused('/', site.headers(cookie));
    expect(answer).toMatchObject({ status: 408, code: 'ERR_DEADLINE' });
    const [allow] = (await question) as [(answer: boolean) => void];
    allow(true);
    await site.logIn();
    expect(connected).not.toHaveBeenCalled();
  });

  it('has the same deadline for other handlers of upgrades', async () => {
    const { cookie } = await site.logIn();
    const headers = { cookie: `webauth-session=${cookie}`, origin: site.origin };
    const request = { headers, headersDistinct: { origin: [site.origin] }, socket: {}, url: '/' } as never;
    const options = { authorise: () => new Promise<boolean>(() => {}), deadline: 0.05 };
    await expect(authenticateUpgrade(site.waa, request, options)).rejects.toMatchObject({ code: 'ERR_DEADLINE' });
  });
});

describe('handshakes under way', () => {
  /** Has everybody wait for the application's word, until `answer` is emitted. */
  function undecided(options = {}): EventEmitter {
    const word = new EventEmitter().setMaxListeners(0);
    const authorise = () => {
      word.emit('asked');
      return new Promise<boolean>((resolve) => word.once('answer', resolve));
    };
    site.accept({ authorise, ...options });
    return word;
  }

  it('are bounded, and the next one gets 429 by HTTP at once', async () => {
    const word = undecided({ maxPending: 2, rejection: 'close' });
    const { cookie } = await site.logIn();
    const waiting = [site.open('/', site.headers(cookie)), site.open('/', site.headers(cookie))];
    await Promise.all([once(word, 'asked').then(() => once(word, 'asked')), Promise.resolve()]);
    expect(await site.refused('/', site.headers(cookie))).toMatchObject({ status: 429, code: 'ERR_LIMIT_REACHED' });
    word.emit('answer', true);
    await Promise.all(waiting);
    const next = site.open('/', site.headers(cookie));
    await once(word, 'asked');
    word.emit('answer', true);
    await next;
  });

  it.each<[string, (client: Socket) => void]>([
    ['ends the connection', (client) => client.end()],
    ['breaks it off', (client) => client.resetAndDestroy()],
    [
      'breaks it off after it has sent more',
      (client) => client.write('x'.repeat(1000), () => client.resetAndDestroy()),
    ],
  ])('are released when the client %s', async (_, leave) => {
    const word = undecided({ maxPending: 1, deadline: 100 });
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const { cookie } = await site.logIn();
    const connection = once(site.server, 'connection');
    const question = once(word, 'asked');
    const client = site.connect([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`]);
    const [held] = (await connection) as [Socket];
    await question;
    // It may break as well.
    const closed = new Promise((resolve) => held.once('close', resolve));
    leave(client);
    client.resume();
    await closed;
    word.emit('answer', true);
    const next = site.open('/', site.headers(cookie));
    await once(word, 'asked');
    word.emit('answer', true);
    await next;
    expect(connected).toHaveBeenCalledTimes(1);
  });

  it('lose nothing of what a client sends before it is answered, and keep no more than a little of it', async () => {
    const word = undecided();
    const { cookie } = await site.logIn();
    const question = once(word, 'asked');
    const lines = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    const frames = Array.from({ length: 500 }, (_, i) => frame(`${i}`.padEnd(120)));
    const client = site.connect(lines, { more: frames.slice(0, 1) });
    client.write(Buffer.concat(frames.slice(1)));
    await question;
    const heard: string[] = [];
    site.wss.on('connection', (socket) => socket.on('message', (data) => heard.push(String(data).trim())));
    word.emit('answer', true);
    await vi.waitFor(() => expect(heard).toHaveLength(500));
    expect(heard).toEqual(frames.map((_, i) => `${i}`));
    client.destroy();
  });

  it('are not decided late: who waits for a store that does not answer gets an answer', async () => {
    class Silent extends MemoryStore {
      override take(): Promise<string | undefined> {
        return new Promise(() => {});
      }
    }
    await site.waa.close();
    site.waa = site.makeWAA({ store: new Silent({ now: clock.now }) });
    site.accept({ credentials: ['query'], deadline: 0.1 });
    const answer = await site.refused(`/?ticket=${'x'.repeat(43)}`, {});
    expect(answer).toMatchObject({ status: 408, code: 'ERR_DEADLINE' });
  });
});

describe('rejection: close', () => {
  it.each<[string, () => Promise<[Record<string, string>, string?]>, number, string]>([
    ['nobody', async () => [site.headers(undefined)], 4401, 'ERR_SESSION_MISSING'],
    ['a cookie that nobody made', async () => [site.headers('x')], 4401, 'ERR_SESSION_INVALID'],
    ['a session that has ended', async () => [site.headers(await ended())], 4401, 'ERR_SESSION_REVOKED'],
    ['a wrong ticket', async () => [{}, '/?ticket=x'], 4401, 'ERR_TOKEN_INVALID'],
    ['a wrong token', async () => [{ authorization: 'Bearer x' }], 4401, 'ERR_TOKEN_INVALID'],
    ['somebody who may not enter', async () => [site.headers((await left()).cookie)], 4403, 'ERR_PTAGS_REFUSED'],
  ])('accepts and closes with a code and a reason: %s', async (_, make, code, reason) => {
    const connected = vi.fn();
    site.wss.on('connection', connected);
    site.accept({ rejection: 'close', credentials: ['bearer', 'query', 'cookie'] });
    const [headers, path = '/'] = await make();
    const client = site.client(path, { headers });
    const [closeCode, why] = await once(client, 'close');
    expect([closeCode, String(why)]).toEqual([code, expect.stringMatching(new RegExp(`^${reason}: `))]);
    expect(why.length).toBeLessThanOrEqual(123);
    expect(connected).not.toHaveBeenCalled();
    expect(site.wss.clients.size).toBe(0);
  });

  it('says also that it took too long, that there are too many, and that the store is away', async () => {
    site.accept({ path: '/slow', rejection: 'close', deadline: 0.1, authorise: () => new Promise(() => {}) });
    site.accept({ path: '/one', rejection: 'close', maxPerSession: 1 });
    const { cookie } = await site.logIn();
    await site.open('/one', site.headers(cookie));
    expect(await closing('/slow', cookie)).toBe(4408);
    expect(await closing('/one', cookie)).toBe(4429);
    await site.waa.close();
    expect(await closing('/one', cookie)).toBe(1013);
  });

  it('cuts a long reason between characters', async () => {
    site.accept({ rejection: 'close', principals: ['nobody'] });
    const { cookie } = await site.logIn({ principal: 'é'.repeat(100) });
    const [code, reason] = await once(site.client('/', { headers: site.headers(cookie) }), 'close');
    expect([code, reason.length <= 123, String(reason).includes('\uFFFD')]).toEqual([4403, true, false]);
  });

  it('asks by HTTP for what only HTTP asks for, since browsers send no password before', async () => {
    site.accept({ path: '/basic', rejection: 'close', credentials: ['basic'] });
    site.accept({ path: '/both', rejection: 'close', credentials: ['basic', 'cookie'] });
    const { status, challenges } = await site.refused('/basic', site.headers(undefined));
    expect([status, challenges]).toEqual([401, [expect.stringMatching(/^Basic /)]]);
    const [code] = await once(site.client('/both', { headers: site.headers(undefined) }), 'close');
    expect(code).toBe(4401);
  });

  it('answers by HTTP what is no handshake of a WebSocket', async () => {
    site.accept({ rejection: 'close' });
    const socket = site.connect([]);
    expect(socket).toBeDefined();
    socket.destroy();
    const answer = await site.raw(['Sec-WebSocket-Key: x']);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });
});

describe('a mistake of the application’s own listener', () => {
  it('is left to it, and is no refusal of the socket, which is open', async () => {
    const mistake = new AuthorisationError('ERR_PTAGS_REFUSED', 'thrown by the application');
    const [server, thrown]: [EventEmitter, unknown[]] = [new EventEmitter(), []];
    const pass = (...upgrade: unknown[]) => {
      try {
        server.emit('upgrade', ...upgrade);
      } catch (error) {
        thrown.push(error);
      }
    };
    site.server.on('upgrade', pass);
    site.afterwards(() => site.server.off('upgrade', pass));
    for (const rejection of ['http', 'close'] as const) {
      site.afterwards(acceptUpgrades(server, site.wss, site.waa, { path: `/${rejection}`, rejection }));
    }
    site.wss.on('connection', (socket: WebSocket) => {
      socket.on('message', (data) => socket.send(`${data}`));
      throw mistake;
    });
    const { cookie } = await site.logIn();
    for (const path of ['/http', '/close']) {
      const client = site.client(path, { headers: site.headers(cookie) });
      await once(client, 'open');
      client.send('still here');
      expect(String((await once(client, 'message'))[0])).toBe('still here');
      expect(thrown.splice(0)).toEqual([mistake]);
    }
  });
});

describe('what the application throws while somebody is let in later', () => {
  it('is an error that nobody catches, as any other', async () => {
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    site.afterwards(() => {
      process.removeAllListeners('uncaughtException');
      for (const listener of before) process.on('uncaughtException', listener);
    });
    site.accept({ path: '/asked', authorise: () => true });
    site.accept({ path: '/late', credentials: ['firstMessage'] });
    const mistake = new Error('of the application');
    site.wss.on('connection', () => {
      throw mistake;
    });
    const { cookie } = await site.logIn();
    const thrown = once(process, 'uncaughtException');
    const asked = site.client('/asked', { headers: site.headers(cookie) });
    expect((await thrown)[0]).toBe(mistake);
    const again = once(process, 'uncaughtException');
    const late = site.client('/late');
    await once(late, 'open');
    late.send((await site.waa.makeTicket(cookie)).ticket);
    expect((await again)[0]).toBe(mistake);
    for (const client of [asked, late]) client.terminate();
  });
});

describe('a session that is over', () => {
  it('is heard no more by whoever listens anew', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const connection = once(site.wss, 'connection');
    const client = site.connect([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`]);
    const [socket] = (await connection) as [WebSocket];
    const heard: string[] = [];
    const listen = () => {
      socket.once('message', (data) => {
        heard.push(String(data));
        listen();
      });
    };
    listen();
    client.write(frame('before'));
    await vi.waitFor(() => expect(heard).toEqual(['before']));
    await site.waa.endSession(auth);
    const closed = once(socket, 'close');
    listen();
    client.write(frame('after'));
    await closed;
    expect(heard).toEqual(['before']);
    client.destroy();
  });

  it('is closed in order also where the application does not read it just now', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { socket } = await site.open('/', site.headers(cookie));
    socket.pause();
    const closed = once(socket, 'close');
    const cutOff = vi.spyOn(socket, 'terminate');
    await site.waa.endSession(auth);
    expect((await closed)[0]).toBe(4401);
    expect(cutOff).not.toHaveBeenCalled();
  });

  it('since the store has lost its memory is not let in, whoever is being asked meanwhile, nor watched', async () => {
    const store = new Forgetful({ now: clock.now });
    await site.waa.close();
    site.waa = site.makeWAA({ store });
    site.accept({ authorise: async () => store.forget().then(() => true) });
    const { cookie } = await site.logIn();
    const auth = site.waa.openSession(cookie);
    expect(await site.refused('/', site.headers(cookie))).toMatchObject({ status: 403, code: 'ERR_SESSION_REVOKED' });
    const ended = vi.fn();
    site.waa.watch(auth, ended);
    expect(ended.mock.calls.map(([{ code }]) => code)).toEqual(['ERR_SESSION_REVOKED']);
  });

  it.each(['bearer', 'query'] as const)(
    'because the store forgot it while it was asked opens none: %s',
    async (kind) => {
      const store = new Forgetful({ now: clock.now });
      await site.waa.close();
      site.waa = site.makeWAA({ store });
      const opened = vi.fn();
      const own = new WebSocketServer({
        noServer: true,
        verifyClient: (_: unknown, done: (fine: boolean) => void) => void store.forget().then(() => done(true)),
      });
      own.on('connection', opened);
      site.accept({ credentials: [kind], ptags: [] }, own);
      const { cookie } = await site.logIn();
      const { token } = await site.waa.tokens.create({ principal: 'test0001', name: 'a test', ttl: 60 });
      const { ticket } = await site.waa.makeTicket(cookie);
      const client = site.client(`/?ticket=${ticket}`, { headers: { authorization: `Bearer ${token}` } });
      expect((await once(client, 'close'))[0]).toBe(4401);
      expect(opened).not.toHaveBeenCalled();
    },
  );
});

describe('somebody who was refused', () => {
  it('is read no more by ws, which would keep and unpack what comes', async () => {
    site.accept({ rejection: 'close', path: '/close' });
    site.accept({ credentials: ['firstMessage'], path: '/late' });
    for (const path of ['/close', '/late']) {
      const connection = once(site.server, 'connection');
      const client = site.connect([`Origin: ${site.origin}`], { path, more: [frame('no ticket')] });
      const [held] = (await connection) as [Socket];
      let text = '';
      for await (const chunk of client) {
        text += chunk;
        if (text.includes('ERR_')) break;
      }
      // The bytes are discarded, and searched for the peer's close frame alone.
      expect([path, held.listeners('data').map(({ name }) => name)]).toEqual([path, ['discard']]);
      client.destroy();
    }
  });
});

describe('a connection that is closed before anybody looks at it', () => {
  it('takes no place', async () => {
    const later = new EventEmitter();
    site.afterwards(acceptUpgrades(later, site.wss, site.waa, { credentials: ['firstMessage'], maxPending: 1 }));
    const pass = (...upgrade: unknown[]) => void later.emit('upgrade', ...upgrade);
    site.server.on('upgrade', pass);
    site.afterwards(() => site.server.off('upgrade', pass));
    const gone = new PassThrough().destroy();
    await new Promise((resolve) => gone.once('close', resolve));
    const request = { headers: {}, headersDistinct: {}, rawHeaders: [], socket: gone, url: '/', method: 'GET' };
    for (let i = 0; i < 3; i++) later.emit('upgrade', request, gone, Buffer.alloc(0));
    const client = site.client('/');
    await once(client, 'open');
    client.terminate();
  });
});

describe('limits', () => {
  it('hold for each session and each person, until a socket is closed', async () => {
    site.accept({ maxPerSession: 2, maxPerPrincipal: 3 });
    const [one, other, third] = [await site.logIn(), await site.logIn(), await site.logIn({ principal: 'test0002' })];
    const first = await site.open('/', site.headers(one.cookie));
    await site.open('/', site.headers(one.cookie));
    const full = { status: 429, code: 'ERR_LIMIT_REACHED' };
    expect(await site.refused('/', site.headers(one.cookie))).toMatchObject(full);
    await site.open('/', site.headers(other.cookie));
    expect(await site.refused('/', site.headers(other.cookie))).toMatchObject(full);
    await site.open('/', site.headers(third.cookie));
    first.client.terminate();
    await once(first.socket, 'close');
    await site.open('/', site.headers(other.cookie));
    expect(await site.refused('/', site.headers(other.cookie))).toMatchObject(full);
  });

  it.each(['/late', '/asked'])('do not count a client that went away while it was looked at: %s', async (path) => {
    const word = new EventEmitter();
    const authorise = () => {
      word.emit('asked');
      return new Promise<boolean>((resolve) => word.once('answer', resolve));
    };
    site.accept({ path: '/late', credentials: ['firstMessage'], maxPerPrincipal: 1, authorise });
    site.accept({ path: '/asked', maxPerPrincipal: 1, authorise });
    const { cookie } = await site.logIn();
    /** Resolves once the application is asked; says when the connection is closed. */
    const knock = async () => {
      const [connection, question] = [once(site.server, 'connection'), once(word, 'asked')];
      const client = site.client(path, { headers: site.headers(cookie) }).on('error', () => {});
      const [held] = (await connection) as [Socket];
      const closed = new Promise((resolve) => held.once('close', resolve));
      if (path === '/late') {
        await once(client, 'open');
        client.send((await site.waa.makeTicket(cookie)).ticket);
      }
      await question;
      return { client, closed };
    };
    for (let i = 0; i < 2; i++) {
      const { client, closed } = await knock();
      client.terminate();
      await closed;
      word.emit('answer', true);
    }
    await knock();
    const opened = once(site.wss, 'connection');
    word.emit('answer', true);
    await opened;
    expect(site.wss.clients.size).toBe(1);
  });

  it('give back the place of a handshake that ws itself refuses', async () => {
    site.accept({ maxPerSession: 1 });
    const { cookie } = await site.logIn();
    const lines = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    for (let i = 0; i < 3; i++) expect(await site.raw([...lines, 'Sec-WebSocket-Key: x'])).toMatch(/^HTTP\/1\.1 400 /);
    await site.open('/', site.headers(cookie));
  });

  it('hold for tokens, of which each is a session of its own', async () => {
    site.accept({ credentials: ['bearer'], maxPerSession: 1, maxPerPrincipal: 2, ptags: [] });
    const make = () => site.waa.tokens.create({ principal: 'test0001', name: 'a test', ttl: 60 });
    const [one, other, third] = [await make(), await make(), await make()];
    const of = ({ token }: { token: string }) => ({ authorization: `Bearer ${token}` });
    await site.open('/', of(one));
    expect((await site.refused('/', of(one))).status).toBe(429);
    await site.open('/', of(other));
    expect((await site.refused('/', of(third))).status).toBe(429);
  });
});

describe('the heartbeat', () => {
  it('ends a socket whose peer is dead, and leaves those that answer', async () => {
    site.accept({ heartbeat: 0.1 });
    const { cookie } = await site.logIn();
    const alive = await site.open('/', site.headers(cookie));
    const connection = once(site.wss, 'connection');
    const dead = site.connect([`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`]);
    const [socket] = (await connection) as [WebSocket];
    expect((await once(socket, 'close'))[0]).toBe(1006);
    for (let pings = 0; pings < 3; pings++) await once(alive.client, 'ping');
    expect(alive.client.readyState).toBe(WebSocket.OPEN);
    dead.destroy();
  });

  it('does not end a socket that the application does not read just now', async () => {
    site.accept({ heartbeat: 0.05 });
    const { cookie } = await site.logIn();
    const { client, socket } = await site.open('/', site.headers(cookie));
    socket.pause();
    const timer = await site.open('/', site.headers(cookie));
    for (let pings = 0; pings < 5; pings++) await once(timer.client, 'ping');
    expect(client.readyState).toBe(WebSocket.OPEN);
    socket.resume();
    for (let pings = 0; pings < 2; pings++) await once(client, 'ping');
    expect(client.readyState).toBe(WebSocket.OPEN);
  });
});

describe('renew', () => {
  const ticketOf = async (who = {}) => (await site.waa.makeTicket((await site.logIn(who)).cookie)).ticket;

  it('lets a socket go on by another session of the same person, in all that is said of it', async () => {
    site.accept();
    const first = await site.logIn({ life: 60 });
    const { client, socket, request } = await site.open('/', site.headers(first.cookie));
    const auth = request.auth as Auth;
    clock.pass(50);
    await auth.renew?.(await ticketOf({ life: 600 }));
    expect(request.auth).toBe(auth);
    expect(auth).toMatchObject({ via: 'ticket', expires: new Date(clock.time + 600_000) });
    expect(auth.sessionId).not.toBe(first.auth.sessionId);
    // Neither the end of the first session, by the clock or otherwise, nor anything of it ends the socket now.
    clock.pass(20);
    await site.waa.endSession(first.auth);
    expect(socket.readyState).toBe(WebSocket.OPEN);
    const closed = once(client, 'close');
    await site.waa.endSession(auth);
    expect((await closed)[0]).toBe(4401);
  });

  it.each<[string, () => Promise<string>, string]>([
    ['of somebody else', () => ticketOf({ principal: 'test0002' }), 'ERR_PRINCIPAL_REFUSED'],
    [
      'that was used',
      async () => {
        const one = await ticketOf();
        await site.waa.takeTicket(one);
        return one;
      },
      'ERR_TOKEN_INVALID',
    ],
    ['that is none', async () => 'x', 'ERR_TOKEN_INVALID'],
    ['that is no text', async () => ({ toString: 1 }) as never, 'ERR_TOKEN_INVALID'],
    ['of somebody who may not enter any more', () => ticketOf({ ptags: [] }), 'ERR_PTAGS_REFUSED'],
  ])('changes nothing by a ticket %s', async (_, make, code) => {
    site.accept();
    const { auth: before, cookie } = await site.logIn();
    const { client, request } = await site.open('/', site.headers(cookie));
    await expect(request.auth?.renew?.(await make())).rejects.toMatchObject({ code });
    expect(request.auth).toEqual(before);
    const closed = once(client, 'close');
    await site.waa.endSession(before);
    expect((await closed)[0]).toBe(4401);
  });

  it('counts the socket where it is now', async () => {
    site.accept({ maxPerSession: 1 });
    const [one, other] = [await site.logIn(), await site.logIn()];
    const { request } = await site.open('/', site.headers(one.cookie));
    const full = await site.open('/', site.headers(other.cookie));
    const ticket = async () => (await site.waa.makeTicket(other.cookie)).ticket;
    await expect(request.auth?.renew?.(await ticket())).rejects.toMatchObject({ code: 'ERR_LIMIT_REACHED' });
    full.client.terminate();
    await once(full.socket, 'close');
    await request.auth?.renew?.(await ticket());
    await site.open('/', site.headers(one.cookie));
    expect((await site.refused('/', site.headers(other.cookie))).status).toBe(429);
  });

  it('counts sockets that are renewed at the same time', async () => {
    site.accept({ maxPerSession: 2 });
    const [one, other] = [await site.logIn(), await site.logIn()];
    const sockets = [await site.open('/', site.headers(one.cookie)), await site.open('/', site.headers(one.cookie))];
    await site.open('/', site.headers(other.cookie));
    const tickets = [await site.waa.makeTicket(other.cookie), await site.waa.makeTicket(other.cookie)];
    const renewals = sockets.map(({ request }, i) => request.auth?.renew?.(tickets[i]?.ticket as string));
    const [first, second] = await Promise.allSettled(renewals);
    expect([first?.status, second?.status]).toEqual(['fulfilled', 'rejected']);
  });

  it('leaves nothing behind of a token', async () => {
    site.accept({ credentials: ['bearer'] });
    const made = { principal: 'test0001', name: 'a test', ttl: 60, scopes: ['live'], ptags: ['current'] };
    const { token } = await site.waa.tokens.create(made);
    const { request } = await site.open('/', { authorization: `Bearer ${token}` });
    await request.auth?.renew?.(await ticketOf());
    expect(request.auth).toMatchObject({ via: 'ticket', expiresBecause: 'maxLife' });
    expect(request.auth?.scopes).toBeUndefined();
  });

  it('is not needed where requests keep the session in use: its sockets go on with it', async () => {
    await site.waa.close();
    site.waa = site.makeWAA({ inactiveTimeout: 60 });
    site.accept();
    const [busy, idle] = [await site.logIn(), await site.logIn()];
    const [used, unused] = [
      await site.open('/', site.headers(busy.cookie)),
      await site.open('/', site.headers(idle.cookie)),
    ];
    clock.pass(40);
    expect(site.waa.renew(site.waa.openSession(busy.cookie))).toBeDefined();
    expect(used.request.auth?.expires).toEqual(new Date(clock.time + 60_000));
    const closed = once(unused.client, 'close');
    clock.pass(40);
    expect((await closed)[1].toString()).toMatch(/^ERR_SESSION_IDLE: /);
    expect(used.socket.readyState).toBe(WebSocket.OPEN);
    const end = once(used.client, 'close');
    clock.pass(40);
    expect((await end)[1].toString()).toMatch(/^ERR_SESSION_IDLE: /);
  });

  it('is not written to logs or sent along', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { request } = await site.open('/', site.headers(cookie));
    expect(JSON.parse(JSON.stringify(request.auth))).toEqual(JSON.parse(JSON.stringify(auth)));
  });

  it('comes too late for a socket that is closed', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { socket, request } = await site.open('/', site.headers(cookie));
    const ticket = await ticketOf();
    await site.waa.endSession(auth);
    await expect(request.auth?.renew?.(ticket)).rejects.toMatchObject({ code: 'ERR_SOCKET_CLOSED' });
    expect(socket.readyState).not.toBe(WebSocket.OPEN);
    expect(request.auth?.sessionId).toBe(auth.sessionId);
  });
});

/** Random, unlike that of the other tests: in production a secret that repeats a few bytes is rejected. */
const productionSecret = newSecret();

describe('connections that are not encrypted', () => {
  const { NODE_ENV } = process.env;
  afterEach(() => {
    process.env['NODE_ENV'] = NODE_ENV;
  });

  it.each<[string, object, object, boolean]>([
    ['from another machine', { localAddress: '192.0.2.1' }, {}, false],
    ['from another machine, by its newer name', { localAddress: '::ffff:192.0.2.1' }, {}, false],
    ['from another machine, of IPv6', { localAddress: '2001:db8::1' }, {}, false],
    ['from another machine that ends TLS', { localAddress: '192.0.2.1' }, { behindProxy: true }, true],
    ['from another machine, encrypted', { localAddress: '192.0.2.1', encrypted: true }, {}, true],
    ['from this machine', { localAddress: '127.0.0.1' }, {}, true],
    ['from this machine, by its newer name', { localAddress: '::ffff:127.0.0.1' }, {}, true],
    ['from this machine, of IPv6', { localAddress: '::1' }, {}, true],
    ['by the file system', {}, {}, true],
  ])('are let in or not, in production: %s', async (_, socket, options, isIn) => {
    process.env['NODE_ENV'] = 'production';
    const baseUrl = 'https://app.cam.ac.uk';
    const waa = site.makeWAA({
      baseUrl,
      secret: productionSecret,
      wls: { ...wls.profile, authUrl: 'https://login.cam.ac.uk/', logoutUrl: 'https://login.cam.ac.uk/' },
    });
    const { location, nonce } = waa.startLogin('/');
    const { cookie } = await waa.finishLogin(wls.respond(location), nonce);
    const headers = { cookie: `__Host-webauth-session=${cookie}`, origin: baseUrl };
    const request = { headers, headersDistinct: { origin: [baseUrl] }, socket, url: '/' } as never;
    const decided = authenticateUpgrade(waa, request, options);
    if (isIn) expect(await decided).toMatchObject({ principal: 'test0001' });
    else await expect(decided).rejects.toMatchObject({ code: 'ERR_PLAIN_REFUSED', status: 403 });
    expect(site.events.filter(({ level, event }) => level === 'warn' && event === 'refused')).toHaveLength(
      isIn ? 0 : 1,
    );
    await waa.close();
  });

  it('are no matter in development, and no pages of theirs may open sockets in production', async () => {
    const request = { headers: {}, headersDistinct: {}, socket: { localAddress: '192.0.2.1' }, url: '/' } as never;
    await expect(authenticateUpgrade(site.waa, request, {})).rejects.toMatchObject({ code: 'ERR_SESSION_MISSING' });
    process.env['NODE_ENV'] = 'production';
    const waa = site.makeWAA({
      baseUrl: 'https://app.cam.ac.uk',
      secret: productionSecret,
      wls: { ...wls.profile, authUrl: 'https://login.cam.ac.uk/', logoutUrl: 'https://login.cam.ac.uk/' },
    });
    const error = await authenticateUpgrade(waa, request, { origins: ['http://page.example.org'] }).catch((e) => e);
    expect(error).toBeInstanceOf(TypeError);
    expect(error).not.toBeInstanceOf(WebauthError);
    await waa.close();
  });
});

describe('options', () => {
  it.each([
    { credentials: [] },
    { credentials: 'cookie' },
    { credentials: ['cookies'] },
    { credentials: undefined },
    { credentials: ['bearer'], frame: () => {} },
    { authorise: true },
    { authorise: undefined },
    { deadline: 0 },
    { deadline: 4000 },
    { maxPending: 0 },
    { maxPending: 1.5 },
    { maxPerSession: undefined },
    { maxPerPrincipal: -1 },
    { heartbeat: '30' },
    { rejection: 'HTTP' },
    { scopes: undefined },
  ])('are refused at once where they are none: %j', (options) => {
    expect(() => site.accept(options as never)).toThrow(TypeError);
  });
});

async function ended(): Promise<string> {
  const { auth, cookie } = await site.logIn();
  await site.waa.endSession(auth);
  return cookie;
}

const left = () => site.logIn({ principal: 'test0401', ptags: [] });

async function closing(path: string, cookie: string): Promise<number> {
  const [code] = await once(site.client(path, { headers: site.headers(cookie) }), 'close');
  return code;
}

/** A store that loses its memory when it is told to. */
class Forgetful extends MemoryStore {
  readonly subscribers: Subscriber[] = [];
  #mark: string | undefined;
  override async mark(): Promise<string> {
    return this.#mark ?? super.mark();
  }
  override async subscribe(folder: string, subscriber: Subscriber): Promise<() => void> {
    this.subscribers.push(subscriber);
    return super.subscribe(folder, subscriber);
  }
  async forget(): Promise<void> {
    this.#mark = 'another';
    for (const subscriber of this.subscribers) await subscriber.missed();
  }
}
