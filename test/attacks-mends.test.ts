import { type RequestListener, type Server, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { runNode } from './processes.js';
import { Browser, clock, frameworks, Site } from './site.js';
import { handshake } from './sockets.js';
import { readAll, startUpgrades } from './upgrade-application.js';

/** @param before registers listeners before those of the library. */
function start(serve: RequestListener, before: (server: Server) => void = () => {}, secure = false) {
  return startUpgrades({ serve: () => serve, before, secure });
}

const page = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n';
const h2c = 'GET /h2c HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n';
const socketRequest = handshake(['Host: localhost'], '/live');

describe('acceptUpgrades(): an upgrade request that another listener serves with a response of its own', () => {
  it('is left to that listener, which assigned the response to the socket before', async () => {
    const application = await start(
      () => {},
      (server) =>
        // As @fastify/websocket does, to send the request through its routes.
        server.on('upgrade', (request, socket: Socket) => {
          const response = new ServerResponse(request);
          response.assignSocket(socket);
          setImmediate(() => response.setHeader('Connection', 'close').end('route', () => socket.end()));
        }),
    );
    const client = connect(application.port, '127.0.0.1');
    client.write(handshake(['Host: localhost'], '/other'));
    expect(await readAll(client)).toMatch(/^HTTP\/1\.1 200 OK\r\n.*route$/s);
  });
});

describe('acceptUpgrades(): an upgrade request behind a response on a kept connection', () => {
  it('is answered after a response that is complete but not flushed yet', async () => {
    const application = await start((_, response) => void response.end('page'));
    const client = connect(application.port, '127.0.0.1');
    client.write(page + socketRequest);
    expect(await readAll(client)).toMatch(/^HTTP\/1\.1 200 OK\r\n.*page.*HTTP\/1\.1 40\d /s);
  });

  it('is closed behind two complete responses, also beside another listener', async () => {
    const application = await start(
      (_, response) => void response.end('page'),
      (server) => server.on('upgrade', () => {}),
    );
    const client = connect(application.port, '127.0.0.1');
    client.write(page + page + socketRequest);
    expect((await readAll(client)).match(/page/g)).toHaveLength(2);
  });

  it('is answered over TLS if the client sent it after the whole response', async () => {
    const busy = new SharedArrayBuffer(4);
    const application = await start(
      (_, response) =>
        // Node reports the end of a write over TLS one round of the event loop later.
        void setImmediate(() => {
          response.end('page');
          Atomics.wait(new Int32Array(busy), 0, 0, 200);
        }),
      undefined,
      true,
    );
    const client = `
      const [page, upgrade] = ${JSON.stringify([page, socketRequest])};
      const to = { port: ${application.port}, host: '127.0.0.1', rejectUnauthorized: false };
      const socket = require('node:tls').connect(to).setEncoding('latin1');
      socket.write(page);
      let text = '';
      socket.on('data', (data) => {
        if (text.length === 0) socket.write(upgrade);
        text += data;
      });
      socket.on('end', () => process.stdout.write(text));
    `;
    // In a process of its own, since the server blocks this one.
    const { stdout } = await runNode(['-e', client]);
    expect(stdout).toMatch(/page.*HTTP\/1\.1 40\d /s);
  });

  it('loses no response to a limit on idle connections if it is served without the upgrade', async () => {
    const application = await start((request, response) => {
      if (request.url === '/') return void response.end('page');
      response.end(`limit ${request.socket.timeout}`);
    });
    const client = connect(application.port, '127.0.0.1');
    client.write(page + h2c);
    expect(await readAll(client)).toMatch(/limit 0$/);
    client.destroy();
  });

  it('ends the earlier requests, whose handlers learn that the client left', async () => {
    const heard = vi.fn();
    const application = await start((request, response) => {
      request.on('close', () => heard(request.url));
      response.write('first event');
    });
    const client = connect(application.port, '127.0.0.1');
    client.write(page + socketRequest);
    await readAll(client);
    await vi.waitFor(() => expect(heard.mock.calls.flat()).toEqual(['/']));
  });
});

describe.each(frameworks)('%s: a late cookie', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());

  it('is sent where writeHead() is given an empty list of cookies', async () => {
    clock.reset();
    site.serve(
      (app, auth) => {
        app.get('/private', auth.require(), (_request, response) => void response.send('text'));
        app.get('/empty', (_request, response) => void response.writeHead(200, { 'Set-Cookie': [] }).end());
      },
      { inactiveTimeout: 600 },
    );
    const browser = new Browser(site.address);
    await browser.logIn();
    clock.pass(300);
    const { set } = await browser.get('/empty');
    expect(set).toEqual([expect.stringMatching(/^webauth-session=/)]);
  });
});
