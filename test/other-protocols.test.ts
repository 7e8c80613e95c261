import { once } from 'node:events';
import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import express from 'express';
import { describe, expect, it, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import { webauth } from '../src/express/index.js';
import type { WAA } from '../src/waa.js';
import { wls } from './site.js';
import { readAll, startUpgrades, type UpgradeApplication } from './upgrade-application.js';

type Serve = (waa: WAA) => RequestListener;

function start(serve?: Serve, after: (server: Server) => void = () => {}): Promise<UpgradeApplication> {
  return startUpgrades({ ...(serve && { serve }), after });
}

/** An application with a public page, a guarded page and an echo of the request. */
function pages(waa: WAA): RequestListener {
  const app = express();
  const auth = webauth(waa);
  app.use(auth);
  app.get('/', (_, response) => void response.send('public'));
  app.get('/private', auth.require(), ({ auth: user }, response) => void response.send(`for ${user?.principal}`));
  app.get('/large', (_, response) => void Readable.from(large()).pipe(response));
  app.post('/form', (request, response) => void request.pipe(response));
  app.use(auth.failurePage);
  return app;
}

/** More than any buffer on the way holds. */
const LARGE = 64 * 1024 * 1024;
function* large(): Generator<Buffer> {
  const chunk = Buffer.alloc(64 * 1024, 'x');
  for (let sent = 0; sent < LARGE; sent += chunk.length) yield chunk;
}

const h2c = [
  'Connection: Upgrade, HTTP2-Settings',
  'Upgrade: h2c',
  'HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA',
];

function send({ port }: UpgradeApplication, line: string, lines: readonly string[], body = ''): Socket {
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  socket.write(`${line} HTTP/1.1\r\nHost: localhost:${port}\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
  return socket;
}

function answerTo(...given: Parameters<typeof send>): Promise<string> {
  return readAll(send(...given));
}

describe.each<[string, (server: Server) => void]>([
  ['as the only listener', () => {}],
  ['beside another listener', (server) => server.on('upgrade', () => {})],
])('acceptUpgrades() %s: a request that offers another protocol', (_, listen) => {
  it.each([
    ['h2c', h2c],
    ['TLS (RFC 2817)', ['Connection: Upgrade', 'Upgrade: TLS/1.0']],
    ['several', ['Connection: upgrade', 'Upgrade: h2c, IRC/6.9']],
    ['an empty name', ['Connection: Upgrade', 'Upgrade: ,']],
  ])('is served as an ordinary request: %s', async (_, lines) => {
    const application = await start(pages, listen);
    const answer = await answerTo(application, 'GET /', [...lines, 'Connection: close']);
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n(.*\r\n)*Connection: close\r\n(.*\r\n)*\r\npublic$/);
    await vi.waitFor(() => expect(application.connections.size).toBe(0), 5000);
  });

  it('passes the guards of the application like any other', async () => {
    const application = await start(pages, listen);
    const refused = await answerTo(application, 'GET /private', [...h2c, 'Connection: close']);
    expect(refused).toMatch(/^HTTP\/1\.1 401 /);
    const { location, nonce } = application.waa.startLogin('/');
    const { cookie } = await application.waa.finishLogin(wls.respond(location), nonce);
    const session = `Cookie: ${application.waa.cookies.session}=${cookie}`;
    const answer = await answerTo(application, 'GET /private', [...h2c, session, 'Connection: close']);
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n.*\r\n\r\nfor test0001$/s);
  });

  it('gets the headers alone for HEAD', async () => {
    const application = await start(pages, listen);
    const answer = await answerTo(application, 'HEAD /', [...h2c, 'Connection: close']);
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n.*\r\n\r\n$/s);
  });

  it('receives a response larger than all buffers, read slowly', async () => {
    const application = await start(pages, listen);
    const client = send(application, 'GET /large', [...h2c, 'Connection: close']);
    await once(client, 'readable');
    let length = 0;
    for await (const chunk of client) length += chunk.length;
    expect(length).toBeGreaterThan(LARGE);
  });

  it('releases the connection of a client that leaves before the response', async () => {
    const closed = vi.fn();
    const application = await start(() => (_, response) => void response.on('close', closed), listen);
    const arrived = once(application.server, 'request');
    const client = send(application, 'GET /', h2c);
    await arrived;
    client.end();
    await vi.waitFor(() => expect([application.connections.size, closed.mock.calls.length]).toEqual([0, 1]), 5000);
  });
});

describe('acceptUpgrades(): a request with a body that offers another protocol', () => {
  const isNative = 'shouldUpgradeCallback' in createServer();

  it.each([
    ['Content-Length', 'Content-Length: 4', 'body'],
    ['chunks', 'Transfer-Encoding: chunked', '4\r\nbody\r\n0\r\n\r\n'],
  ])('is served where Node can parse it, and rejected with 426 elsewhere: %s', async (_, line, body) => {
    const application = await start(pages);
    const answer = await answerTo(application, 'POST /form', [...h2c, line, 'Connection: close'], body);
    if (isNative) expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n.*body/s);
    else
      expect(answer).toMatch(
        /^HTTP\/1\.1 426 Upgrade Required\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n/,
      );
  });

  it('does not take the body for another request', async () => {
    const requests = vi.fn();
    const application = await start(() => (request, response) => {
      requests(request.url);
      response.end();
    });
    const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
    const lines = [...h2c, `Content-Length: ${smuggled.length}`, 'Connection: close'];
    await answerTo(application, 'POST /form', lines, smuggled);
    await answerTo(application, 'GET /next', [...h2c, 'Connection: close'], smuggled);
    expect(requests.mock.calls.flat()).not.toContain('/smuggled');
  });
});

describe('acceptUpgrades(): a request that offers another protocol', () => {
  it('is left to a listener that answers it', async () => {
    const serve = vi.fn();
    const application = await start(
      () => serve,
      (server) =>
        server.on('upgrade', (_, socket) => socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n\r\n')),
    );
    expect(await answerTo(application, 'GET /', ['Connection: Upgrade', 'Upgrade: tcp'])).toMatch(/^HTTP\/1\.1 101 /);
    expect(serve).not.toHaveBeenCalled();
  });

  it('is served once where two copies of the package listen', async () => {
    const served = vi.fn();
    const serve = () => (request: unknown, response: ServerResponse) => {
      served(request);
      setImmediate(() => response.end('page'));
    };
    const application = await start(serve);
    vi.resetModules();
    const copy = (await import('../src/websocket/index.js')).acceptUpgrades;
    copy(application.server, new WebSocketServer({ noServer: true }), application.waa, { path: '/other' });
    expect(await answerTo(application, 'GET /', [...h2c, 'Connection: close'])).toMatch(/^HTTP\/1\.1 200 .*page$/s);
    expect(served).toHaveBeenCalledTimes(1);
  });

  it('is rejected where the server has no request listener', async () => {
    const application = await start();
    const answer = await answerTo(application, 'GET /', [...h2c]);
    expect(answer).toMatch(/^HTTP\/1\.1 426 /);
  });
});
