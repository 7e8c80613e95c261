import { once } from 'node:events';
import type { RequestListener, Server, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { describe, expect, it, vi } from 'vitest';
import { handshake } from './sockets.js';
import { readAll, startUpgrades, type UpgradeApplication } from './upgrade-application.js';

function start(serve: RequestListener, after: (server: Server) => void = () => {}): Promise<UpgradeApplication> {
  return startUpgrades({ serve: () => serve, after });
}

const withoutOthers = (): void => {};
const besideAnother = (server: Server): void => void server.on('upgrade', () => {});
const listeners: [string, (server: Server) => void][] = [
  ['as the only listener', withoutOthers],
  ['beside another listener', besideAnother],
];

const page = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n';
const h2c = 'GET /h2c HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n';

function send({ port }: UpgradeApplication, text: string): Socket {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {});
  socket.write(text);
  return socket;
}

/** Parts of a response that fill all buffers of a connection. */
function* parts(): Generator<Buffer> {
  for (let i = 0; i < 256; i++) yield Buffer.alloc(64 * 1024, 'x');
}

describe.each(listeners)(
  'acceptUpgrades() %s: a pipelined upgrade request behind an unanswered request',
  (_, listen) => {
    it.each([
      ['another protocol', h2c],
      ['a path without an endpoint', handshake(['Host: localhost'], '/other')],
      ['an endpoint', handshake(['Host: localhost'], '/live')],
    ])('is not answered out of order, and the server goes on: %s', async (_, upgrade) => {
      const responses: ServerResponse[] = [];
      const application = await start((_, response) => {
        responses.push(response);
        // Where Node itself serves other protocols as ordinary requests, it answers both in order.
        if (responses.length > 1) for (const one of responses) one.end('late');
      }, listen);
      const client = send(application, page + upgrade);
      expect(await readAll(client)).not.toMatch(/^HTTP\/1\.1 (?:101|4\d\d)/);
      client.end();
      await vi.waitFor(() => expect(application.connections.size).toBe(0));
      const next = page.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n');
      expect(await readAll(send(application, next))).toMatch(/late$/);
    });

    it('leaves the earlier response whole if it was written at once', async () => {
      const application = await start((_, response) => void response.end('page'), listen);
      const client = send(application, page + h2c);
      const [answer] = await once(client, 'data');
      expect(String(answer)).toMatch(/^HTTP\/1\.1 200 OK\r\n.*\r\n\r\npage/s);
      client.destroy();
    });
  },
);

describe.each(listeners)('acceptUpgrades() %s: the handler of a request that offers another protocol', (_, listen) => {
  it('learns from the request that the client left', async () => {
    const heard = vi.fn();
    const application = await start((request, response) => {
      for (const event of ['aborted', 'close']) request.on(event, () => heard(event));
      request.on('error', ({ message }) => heard(message));
      response.write('first event');
    }, listen);
    const client = send(application, h2c);
    await once(client, 'data');
    client.destroy();
    await vi.waitFor(() => expect(heard.mock.calls.flat().sort()).toEqual(['aborted', 'aborted', 'close']));
  });

  it('learns that the request is complete after the response', async () => {
    const heard = vi.fn();
    const application = await start((request, response) => {
      for (const event of ['aborted', 'close', 'end']) request.on(event, () => heard(event));
      response.setHeader('Connection', 'close').end('page');
    }, listen);
    const client = send(application, h2c);
    expect(await readAll(client)).toMatch(/page$/);
    client.end();
    await vi.waitFor(() => expect(heard.mock.calls.flat()).toEqual(['end', 'close']));
  });

  it('writes several streams one after another to a client that reads slowly', async () => {
    const application = await start(async (_, response) => {
      response.setHeader('Connection', 'close');
      for (let i = 0; i < 3; i++) await pipeline(Readable.from(parts()), response, { end: false });
      response.end('the end');
    }, listen);
    const client = send(application, h2c);
    await once(client, 'readable');
    expect(await readAll(client)).toMatch(/the end\r\n0\r\n\r\n$/);
  });

  it('is told of the timeout of its response', async () => {
    const application = await start((_, response) => {
      response.setTimeout(50, () => response.setHeader('Connection', 'close').end('too late'));
    }, listen);
    expect(await readAll(send(application, h2c))).toMatch(/too late$/);
  });

  it('loses its connection after the timeout of the server, unless a listener keeps it', async () => {
    const application = await start(
      () => {},
      (server) => {
        listen(server);
        server.timeout = 50;
      },
    );
    expect(await readAll(send(application, h2c))).toBe('');
    const kept = vi.fn();
    application.server.on('timeout', kept);
    const client = send(application, h2c);
    await vi.waitFor(() => expect(kept).toHaveBeenCalled());
    expect(application.connections.size).toBe(1);
    client.destroy();
  });

  it('is not called for a request without a Host, unless the server allows it', async () => {
    const served = vi.fn();
    const application = await start((_, response) => {
      served();
      response.setHeader('Connection', 'close').end('page');
    }, listen);
    const withoutHost = h2c.replace('Host: localhost\r\n', '');
    const answer = await readAll(send(application, withoutHost));
    expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/);
    expect(answer).toMatch(/\r\n\r\nAn HTTP\/1\.1 request must have a Host header\.\n$/);
    expect(served).not.toHaveBeenCalled();
    (application.server as { requireHostHeader?: boolean }).requireHostHeader = false;
    expect(await readAll(send(application, withoutHost))).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });
});
