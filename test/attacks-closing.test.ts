import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import { acceptUpgrades } from '../src/websocket/index.js';
import { acceptConnections } from '../src/websocket/socketio.js';
import { socketIOSite } from './socketio-site.js';
import { socketSite } from './sockets.js';
import { readAll } from './upgrade-application.js';

describe('acceptConnections(): a request that offers h2c', () => {
  const site = socketIOSite();

  /** Sends an ordinary request of Socket.IO that also offers HTTP/2. */
  async function offer(query: string, cookie: string): Promise<string> {
    const { port } = new URL(site.origin);
    const socket = connect(Number(port), '127.0.0.1').on('error', () => {});
    const lines = [
      `GET /socket.io/?EIO=4&${query} HTTP/1.1`,
      'Host: localhost',
      'Connection: Upgrade, HTTP2-Settings',
      'Upgrade: h2c',
      `Origin: ${site.origin}`,
      `Cookie: webauth-session=${cookie}`,
    ];
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    return readAll(socket);
  }

  it.each(['before', 'after'])('is served once where acceptUpgrades() listens %s Socket.IO', async (order) => {
    const engines = site.server.listeners('upgrade') as ((...given: unknown[]) => void)[];
    if (order === 'before') site.server.removeAllListeners('upgrade');
    acceptUpgrades(site.server, new WebSocketServer({ noServer: true }), site.waa, { path: '/live' });
    if (order === 'before') for (const engine of engines) site.server.on('upgrade', engine);
    acceptConnections(site.io, site.waa);
    const connected = vi.fn();
    site.io.engine.on('connection', connected);
    const text = await offer('transport=polling', await site.logIn());
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200']);
    expect(connected).toHaveBeenCalledTimes(1);
    expect(site.events.filter(({ event }) => event === 'refused')).toEqual([]);
  });

  it('is rejected once where Socket.IO listens alone', async () => {
    acceptConnections(site.io, site.waa);
    const text = await offer('transport=polling', await site.logIn());
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual([expect.stringMatching(/ 4\d\d$/)]);
    expect(site.io.engine.clientsCount).toBe(0);
  });
});

describe('acceptUpgrades(), for a path without an endpoint', () => {
  const site = socketSite();

  it.each(['/live%3Fticket=', '/live;ticket=', '/live/'])('logs no ticket that follows %s', async (path) => {
    site.accept({ path: '/live' });
    const { cookie } = await site.logIn();
    const { ticket } = await site.waa.makeTicket(cookie);
    expect(await site.raw([], undefined, path + ticket)).toContain('404');
    expect(site.events.at(-1)?.message).toContain(`at "${path}…": no endpoint has that path`);
    expect(JSON.stringify(site.events)).not.toContain(ticket);
  });
});

describe('a rejected socket', () => {
  const site = socketSite();

  it.each([
    ['a message of 2^63 bytes', 0x82, '8000000000000000'],
    ['a message of 2^64 - 1 bytes', 0x82, 'ffffffffffffffff'],
    ['a close frame of 2^63 bytes', 0x88, '8000000000000000'],
    ['a continuation of 2^63 - 1 bytes', 0x00, '7fffffffffffffff'],
  ])('is destroyed after a megabyte of %s', async (_, first, length) => {
    site.accept({ path: '/closing', rejection: 'close' });
    const connection = once(site.server, 'connection') as Promise<[Socket]>;
    const header = Buffer.concat([Buffer.from([first, 0xff]), Buffer.from(length, 'hex'), Buffer.alloc(4)]);
    const more = [header, Buffer.alloc(2_000_000)];
    const client = site.connect([`Origin: ${site.origin}`], { path: '/closing', more }).resume();
    const [server] = await connection;
    // It may be reset, which is an error too.
    await new Promise((resolve) => client.once('close', resolve));
    expect(server.destroyed).toBe(true);
    expect(server.bytesRead).toBeLessThan(1_500_000);
    expect(site.wss.clients.size).toBe(0);
  });
});
