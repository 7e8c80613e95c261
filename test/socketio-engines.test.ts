import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { Server as SocketIO } from 'socket.io';
import { describe, expect, it } from 'vitest';
import { createWAA } from '../src/waa.js';
import { acceptConnections, type ConnectionOptions } from '../src/websocket/socketio.js';
import { secret, wls } from './site.js';
import { codeOf, connected, originOf, rejected, sidOf, socketIOSite } from './socketio-site.js';

const site = socketIOSite();

type Engine = typeof site.io.engine;

/** An engine of the application's own, which is attached by itself. */
function makeEngine(path: string): Engine {
  const Made = site.io.engine.constructor as new (options: object) => Engine;
  return new Made({ path });
}

/** Notes the requests that reach middleware of the application, which it registers by `io.engine.use`. */
function noteRequests(io = site.io): string[] {
  const seen: string[] = [];
  io.engine.use((request: IncomingMessage, _response: unknown, next: () => void) => {
    seen.push(request.url as string);
    next();
  });
  return seen;
}

describe('acceptConnections()', () => {
  it('comes before engine middleware that the application registered before', async () => {
    const [first, second] = [noteRequests(), noteRequests()];
    acceptConnections(site.io, site.waa, { credentials: ['query', 'cookie'] });
    const last = noteRequests();
    const ticket = await site.ticket();
    for (const answer of [await site.ask('transport=polling'), await site.upgrade('ticket=x')]) {
      expect(answer.status).toBeGreaterThanOrEqual(400);
    }
    expect([first, second, last]).toEqual([[], [], []]);
    await site.upgrade(`ticket=${ticket}`);
    for (const seen of [first, second, last]) expect(seen).toEqual(['/socket.io/?EIO=4&transport=websocket']);
  });

  it('comes before middleware that would answer by itself', async () => {
    site.io.engine.use((_request: unknown, response: { end(text: string): void }) => response.end('private'));
    acceptConnections(site.io, site.waa);
    expect(codeOf(await site.ask('transport=polling'))).toBe('ERR_SESSION_MISSING');
  });

  it('leaves preflight requests to the CORS option, and lets other origins read rejections', async () => {
    const page = 'http://live.localhost:1';
    const server = await site.listen();
    const io = new SocketIO(server, { serveClient: false, cors: { origin: page, credentials: true } });
    const seen = noteRequests(io);
    acceptConnections(io, site.waa, { origins: [page] });
    const own = { origin: originOf(server) };
    const asked = { origin: page, 'access-control-request-method': 'GET' };
    const preflight = await site.ask('transport=polling', asked, { ...own, method: 'OPTIONS' });
    const refused = await site.ask('transport=polling', { origin: page }, own);
    for (const { headers } of [preflight, refused]) expect(headers['access-control-allow-origin']).toBe(page);
    expect([preflight.status, codeOf(refused), seen]).toEqual([204, 'ERR_SESSION_MISSING', []]);
    await io.close();
  });

  it('asks allowRequest only about authenticated requests', async () => {
    const server = await site.listen();
    const asked: unknown[] = [];
    const allowRequest = (request: IncomingMessage, decide: (error: null, allow: boolean) => void): void => {
      asked.push(request.url);
      decide(null, asked.length > 1);
    };
    const io = new SocketIO(server, { serveClient: false, allowRequest });
    acceptConnections(io, site.waa, { maxPerPrincipal: 1 });
    const own = { origin: originOf(server) };
    const headers = site.headers(await site.logIn());
    await site.ask('transport=polling', { origin: site.origin }, own);
    expect(asked).toEqual([]);
    // What it rejects takes no place of the user.
    expect((await site.ask('transport=polling', headers, own)).status).toBe(403);
    expect((await site.ask('transport=polling', headers, own)).status).toBe(200);
    await io.close();
  });

  it('comes first in namespaces of a pattern, whatever is called afterwards', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['firstMessage'] });
    site.io.adapter(site.io.adapter() as never);
    const seen: unknown[] = [];
    site.io.of(/^\/room-\d+$/).use(({ data }, next) => {
      seen.push(data['auth']?.principal);
      next();
    });
    site.io.of('/room-1');
    const options = { transports: ['websocket'] };
    await rejected(site.client({ ...options, auth: { ticket: 'x' } }, `${site.origin}/room-1`));
    await connected(site.client({ ...options, auth: { ticket: await site.ticket() } }, `${site.origin}/room-1`));
    expect(seen).toEqual(['test0001']);
  });
});

describe('acceptConnections(), for an engine that is made later', () => {
  const ways: [string, (port: Awaited<ReturnType<typeof site.listen>>) => unknown][] = [
    ['io.attach', (server) => site.io.attach(server)],
    ['io.listen', (server) => site.io.listen(server)],
    [
      'io.bind',
      (server) => {
        const engine = makeEngine('/socket.io');
        engine.use((_request: unknown, _response: unknown, next: () => void) => next());
        engine.attach(server, { path: '/socket.io' });
        return site.io.bind(engine);
      },
    ],
  ];

  it.each(ways)('guards each request that comes by %s', async (_, attach) => {
    acceptConnections(site.io, site.waa, { maxPerPrincipal: 2 });
    const server = await site.listen();
    const first = site.io.engine;
    attach(server);
    const own = { origin: originOf(server) };
    const cookie = await site.logIn();
    expect(codeOf(await site.ask('transport=polling', { origin: site.origin }, own))).toBe('ERR_SESSION_MISSING');
    expect(codeOf(await site.ask('transport=polling', { ...site.headers(cookie), origin: 'null' }, own))).toBe(
      'ERR_ORIGIN_REFUSED',
    );
    expect((await site.upgrade('', { origin: site.origin }, own.origin)).status).toBe(403);
    const connection = once(site.io, 'connection');
    const options = { transports: ['websocket'], extraHeaders: site.headers(cookie) };
    const client = await connected(site.client(options, own.origin));
    const [{ data }] = await connection;
    expect(data.auth.principal).toBe('test0001');
    // A stolen sid is held to the session, there too.
    const sid = sidOf(await site.ask('transport=polling', site.headers(cookie), own));
    expect(codeOf(await site.ask(`transport=polling&sid=${sid}`, {}, own))).toBe('ERR_SESSION_MISSING');
    // The first engine goes on, and both share the limits.
    expect(codeOf(await site.ask('transport=polling', site.headers(cookie)))).toBe('ERR_LIMIT_REACHED');
    const gone = once(client as never, 'disconnect');
    await site.waa.endSession(data.auth);
    expect(await gone).toContain('io server disconnect');
    first.close();
  });

  it('keeps the connections of two engines apart, though they generate the same sid', async () => {
    acceptConnections(site.io, site.waa);
    const server = await site.listen();
    site.io.engine.generateId = () => 'same';
    site.io.attach(server);
    site.io.engine.generateId = () => 'same';
    const own = { origin: originOf(server) };
    const [mine, others] = [site.headers(await site.logIn()), site.headers(await site.logIn())];
    await site.ask('transport=polling', mine);
    await site.ask('transport=polling', others, own);
    expect(codeOf(await site.ask('transport=polling&sid=same', others))).toBe('ERR_SESSION_INVALID');
    expect(codeOf(await site.ask('transport=polling&sid=same', mine, own))).toBe('ERR_SESSION_INVALID');
  });

  it('guards an engine once that is bound again', async () => {
    acceptConnections(site.io, site.waa);
    const { length } = (site.io.engine as unknown as { middlewares: unknown[] }).middlewares;
    site.io.bind(site.io.engine);
    expect((site.io.engine as unknown as { middlewares: unknown[] }).middlewares).toHaveLength(length);
  });

  it('rejects a path that the cookie never reaches, before anything is attached', async () => {
    await site.io.close();
    const waa = createWAA({ baseUrl: `${site.origin}/app`, secret, wls: wls.profile, cookiePath: '/app' });
    const [first, second] = [await site.listen(), await site.listen()];
    const io = new SocketIO({ serveClient: false });
    io.attach(first, { path: '/app/sockets' });
    acceptConnections(io, waa);
    const [engine, listeners] = [io.engine, second.listenerCount('upgrade')];
    for (const attach of [
      () => io.attach(second),
      () => io.attach(second, { path: '/elsewhere' }),
      () => io.listen(second),
      () => io.bind(makeEngine('/elsewhere')),
    ]) {
      expect(attach).toThrow(TypeError);
      expect(attach).toThrow(/never to \/(socket\.io|elsewhere)/);
    }
    expect([io.engine, second.listenerCount('upgrade')]).toEqual([engine, listeners]);
    io.attach(second, { path: '/app/sockets' });
    await io.close();
    await waa.close();
  });

  it('checks the path of the first engine, and not the default of the server', async () => {
    const waa = createWAA({ baseUrl: `${site.origin}/app`, secret, wls: wls.profile, cookiePath: '/app' });
    const io = new SocketIO({ serveClient: false });
    io.path('/app/sockets').attach(await site.listen(), { path: '/elsewhere' });
    expect(() => acceptConnections(io, waa)).toThrow('never to /elsewhere');
    await io.close();
    await waa.close();
  });

  it.each<[string, () => unknown]>([
    ['an app of µWebSockets.js', () => site.io.attachApp({} as never)],
    ['an engine of another kind', () => site.io.bind({ on: () => {}, use: () => {}, middlewares: [] } as never)],
    ['no engine', () => site.io.bind(undefined as never)],
  ])('rejects %s with a TypeError, before anything is attached', (_, attach) => {
    acceptConnections(site.io, site.waa);
    const { engine } = site.io;
    expect(attach).toThrow(TypeError);
    expect(attach).toThrow('engines of node:http only');
    expect(site.io.engine).toBe(engine);
  });

  it('rejects an engine that another server guards', async () => {
    const other = new SocketIO(await site.listen(), { serveClient: false });
    for (const io of [site.io, other]) acceptConnections(io, site.waa, {} satisfies ConnectionOptions);
    expect(() => site.io.bind(other.engine)).toThrow('already');
    await other.close();
  });
});
