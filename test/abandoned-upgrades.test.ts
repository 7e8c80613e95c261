import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectSecurely } from 'node:tls';
import { Server as SocketIO } from 'socket.io';
import { createServer as createVite } from 'vite';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { type AcceptOptions, acceptUpgrades } from '../src/websocket/index.js';
import { wls } from './site.js';
import { handshake } from './sockets.js';
import {
  certificate,
  readAll,
  startUpgrades,
  type UpgradeApplication,
  type UpgradeSetup,
} from './upgrade-application.js';

/** Sends a handshake over a connection of its own, and returns the connection. */
function open({ port }: UpgradeApplication, path: string, lines: string[] = []): Socket {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {});
  socket.write(handshake([`Host: localhost:${port}`, ...lines], path));
  return socket;
}

async function sessionOf({ waa, origin }: UpgradeApplication): Promise<Record<string, string>> {
  const { location, nonce } = waa.startLogin('/');
  const { cookie } = await waa.finishLogin(wls.respond(location), nonce);
  return { origin, cookie: `${waa.cookies.session}=${cookie}` };
}

const count = () => {};
/** Nothing but FIN releases an abandoned upgrade within a test. */
const onlyFin: AcceptOptions = { path: '/live', unclaimedTimeout: 3600 };

describe('acceptUpgrades(): an upgrade request for a path without an endpoint', () => {
  it('is answered with 404 at once if there is no other listener', async () => {
    const application = await startUpgrades();
    expect(await readAll(open(application, '/other'))).toMatch(/^HTTP\/1\.1 404 /);
  });

  it.each<[string, UpgradeSetup]>([
    ['after', { after: (server) => server.on('upgrade', count) }],
    ['before', { before: (server) => server.on('upgrade', count) }],
    ['in front of all', { after: (server) => server.prependListener('upgrade', count) }],
  ])('is answered with 404 after unclaimedTimeout beside a counting listener registered %s', async (_, setup) => {
    const application = await startUpgrades({ ...setup, accept: { path: '/live', unclaimedTimeout: 0.3 } });
    expect(await readAll(open(application, '/other'))).toMatch(/^HTTP\/1\.1 404 /);
    // The client has its answer and leaves.
    await vi.waitFor(() => expect(application.connections.size).toBe(0), 5000);
  });

  it('is answered beside a listener that reads the socket and never answers', async () => {
    const application = await startUpgrades({
      accept: { path: '/live', unclaimedTimeout: 0.3 },
      before: (server) => server.on('upgrade', (_, socket) => socket.on('data', count)),
    });
    expect(await readAll(open(application, '/other'))).toMatch(/^HTTP\/1\.1 404 /);
  });

  it('releases its descriptor when the client sends FIN and leaves, for 200 clients', async () => {
    const application = await startUpgrades({ accept: onlyFin, after: (server) => server.on('upgrade', count) });
    const clients = Array.from({ length: 200 }, () => open(application, '/other'));
    for (const client of clients) client.end();
    const answers = await Promise.all(clients.map(readAll));
    for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 404 /);
    await vi.waitFor(() => expect(application.connections.size).toBe(0), 5000);
  });

  it('releases its descriptor over TLS, too', async () => {
    const application = await startUpgrades({
      accept: onlyFin,
      secure: true,
      after: (server) => server.on('upgrade', count),
    });
    const client = await connectTo(application, true);
    client.end(handshake([`Host: localhost:${application.port}`], '/other'));
    expect(await readAll(client)).toMatch(/^HTTP\/1\.1 404 /);
    await vi.waitFor(() => expect(application.connections.size).toBe(0), 5000);
  });

  it.each(['reset', 'data and FIN', 'FIN within the same packet'])('releases its descriptor after %s', async (how) => {
    const application = await startUpgrades({
      accept: { path: '/live', unclaimedTimeout: 0.5 },
      after: (server) => server.on('upgrade', count),
    });
    const arrived = once(application.server, 'upgrade');
    const client = open(application, '/other');
    if (how === 'FIN within the same packet') client.end();
    await arrived;
    if (how === 'reset') client.resetAndDestroy();
    else if (how === 'data and FIN') client.end('data');
    client.resume();
    await vi.waitFor(() => expect(application.connections.size).toBe(0), 5000);
  });

  it('is released after the stop function was called, too', async () => {
    const application = await startUpgrades({ accept: onlyFin, before: (server) => server.on('upgrade', count) });
    const other = new WebSocketServer({ noServer: true });
    acceptUpgrades(application.server, other, application.waa, { path: '/second' })();
    const client = open(application, '/second');
    client.end();
    expect(await readAll(client)).toMatch(/^HTTP\/1\.1 404 /);
  });

  it('answers the oldest first if over a thousand wait', async () => {
    const application = await startUpgrades({ after: (server) => server.on('upgrade', count) });
    const arrivals = vi.fn();
    application.server.on('upgrade', arrivals);
    const oldest = open(application, '/other');
    await vi.waitFor(() => expect(arrivals).toHaveBeenCalledTimes(1));
    const others = Array.from({ length: 1000 }, () => open(application, '/other'));
    expect(await readAll(oldest)).toMatch(/^HTTP\/1\.1 404 /);
    expect(arrivals.mock.calls.length).toBeLessThanOrEqual(1001);
    for (const client of others) client.destroy();
  });
});

describe('acceptUpgrades(): an upgrade request that another listener answers', () => {
  it('reaches a proxy whose upstream answers after 5 s, on a path without an endpoint', async () => {
    const upstream = createServer().on('upgrade', (_, socket: Socket) => {
      setTimeout(
        () => socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'),
        5000,
      );
      socket.on('data', (chunk) => socket.write(`echo ${chunk}`)).on('error', count);
    });
    await once(upstream.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => void upstream.close().closeAllConnections());
    const application = await startUpgrades({ after: (server) => server.on('upgrade', proxyTo(upstream)) });
    const client = open(application, '/proxied');
    const [head] = await once(client, 'data');
    expect(String(head)).toMatch(/^HTTP\/1\.1 101 /);
    client.write('hello');
    expect(String((await once(client, 'data'))[0])).toBe('echo hello');
    client.destroy();
  }, 15_000);

  it.each<[AcceptOptions]>([[{ path: '/live' }], [{}], [{ path: '/' }]])(
    'opens the HMR socket of Vite, and our own with a session, with the options %j',
    async (accept) => {
      const application = await startUpgrades({ accept: { ...accept, unclaimedTimeout: 0.3 } });
      const vite = await createVite({
        configFile: false,
        root: import.meta.dirname,
        logLevel: 'silent',
        optimizeDeps: { noDiscovery: true },
        server: { middlewareMode: true, watch: null, hmr: { server: application.server } },
        appType: 'custom',
      });
      onTestFinished(() => vite.close());
      const errors = vi.fn();
      const token = vite.config.webSocketToken;
      const hmr = new WebSocket(`ws://localhost:${application.port}/?token=${token}`, 'vite-hmr', {
        headers: { origin: application.origin },
      });
      hmr.on('error', errors);
      const [message] = await once(hmr, 'message');
      expect(JSON.parse(String(message))).toEqual({ type: 'connected' });
      // Longer than unclaimedTimeout and its sweep: nothing of ours arrives in the open socket.
      const closed = vi.fn();
      hmr.on('close', closed);
      const path = accept.path ?? '/any';
      const own = new WebSocket(`ws://localhost:${application.port}${path}`, { headers: await sessionOf(application) });
      await once(own, 'open');
      const stray = open(application, path === '/live' ? '/other' : path);
      expect(await readAll(stray)).toMatch(/^HTTP\/1\.1 40[34] /);
      hmr.ping();
      await once(hmr, 'pong');
      expect([errors.mock.calls, closed.mock.calls]).toEqual([[], []]);
      hmr.terminate();
      own.terminate();
    },
  );

  it.each<[string, boolean]>([
    ['http', false],
    ['https', true],
  ])('is left alone on a kept-alive %s connection that carried a response before', async (_, secure) => {
    const answer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
    const application = await startUpgrades({
      secure,
      serve: () => (_, response) => void response.end('page'),
      after: (server) => server.on('upgrade', (_, socket: Socket) => void socket.write(answer)),
    });
    const client = await connectTo(application, secure);
    client.write(`GET / HTTP/1.1\r\nHost: localhost:${application.port}\r\n\r\n`);
    expect(String((await once(client, 'data'))[0])).toContain('page');
    client.write(handshake([`Host: localhost:${application.port}`]));
    expect(String((await once(client, 'data'))[0])).toBe(answer);
    // The next answer of this server comes later than one to that handshake would.
    const more = vi.fn();
    client.on('data', more);
    const page = await fetchPage(application, secure);
    expect(page).toContain('page');
    expect(more).not.toHaveBeenCalled();
    client.destroy();
  });

  it('is left alone where the other listener answers while a ticket is redeemed', async () => {
    const answer = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n';
    let admit: (fine: boolean) => void = count;
    const authorise = () => new Promise<boolean>((done) => (admit = done));
    const answerLate = async (_: IncomingMessage, socket: Duplex) => {
      await vi.waitFor(() => expect(admit).not.toBe(count));
      socket.write(answer);
      admit(true);
      await new Promise((done) => setTimeout(done, 100));
      socket.end('and no more');
    };
    const application = await startUpgrades({
      accept: { credentials: ['query'], authorise },
      after: (server) => server.on('upgrade', answerLate),
    });
    const { cookie } = await sessionOf(application);
    const { ticket } = await application.waa.makeTicket(cookie?.split('=')[1]);
    const client = open(application, `/?ticket=${ticket}`, [`Origin: ${application.origin}`]);
    expect(await readAll(client)).toBe(`${answer}and no more`);
    expect(application.wss.clients.size).toBe(0);
  });

  it('is left to Socket.IO with destroyUpgrade: false, and abandoned ones are answered', async () => {
    const application = await startUpgrades({ accept: { path: '/live', unclaimedTimeout: 0.3 } });
    const io = new SocketIO(application.server, { destroyUpgrade: false, serveClient: false });
    onTestFinished(() => void io.close());
    const engine = open(application, '/socket.io/?EIO=4&transport=websocket');
    expect(String((await once(engine, 'data'))[0])).toMatch(/^HTTP\/1\.1 101 /);
    expect(await readAll(open(application, '/other'))).toMatch(/^HTTP\/1\.1 404 /);
    expect(engine.destroyed).toBe(false);
    engine.destroy();
  });
});

async function connectTo({ port }: UpgradeApplication, secure: boolean): Promise<Socket> {
  const client = secure
    ? connectSecurely({ port, host: '127.0.0.1', ca: certificate.cert, servername: 'localhost' })
    : connect({ port, host: '127.0.0.1' });
  await once(client, secure ? 'secureConnect' : 'connect');
  return client;
}

async function fetchPage(application: UpgradeApplication, secure: boolean): Promise<string> {
  const client = await connectTo(application, secure);
  client.write(`GET / HTTP/1.1\r\nHost: localhost:${application.port}\r\nConnection: close\r\n\r\n`);
  return readAll(client);
}

/** A proxy as small as can be: waits for the upstream's response before it touches the client's socket. */
function proxyTo(upstream: Server) {
  return ({ url, headers }: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (url !== '/proxied') return;
    const { port } = upstream.address() as AddressInfo;
    const forward = httpRequest({ port, host: '127.0.0.1', path: url, headers }).end();
    forward.on('upgrade', ({ statusCode }, wire) => {
      socket.write(`HTTP/1.1 ${statusCode} Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
      wire.write(head);
      wire.pipe(socket).pipe(wire).on('error', count);
    });
  };
}
