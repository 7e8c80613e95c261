import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { acceptUpgrades } from '../src/websocket/index.js';
import { handshake, socketSite } from './sockets.js';

const site = socketSite();

const messages = () => site.events.filter(({ level }) => level === 'warn').map(({ message }) => message);

describe('acceptUpgrades(), for a path without an endpoint', () => {
  it('logs the path and the endpoints in development, once for each path', async () => {
    site.accept({ path: '/live' });
    site.accept({ path: '/chat' });
    for (const path of ['/lvie', '/lvie?ticket=secret', '/']) {
      expect(await site.raw([], undefined, path)).toContain('404');
    }
    const known = 'no endpoint has that path. Endpoints of this server: /live, /chat.';
    expect(messages()).toEqual([
      `404 for a WebSocket handshake at "/lvie": ${known}`,
      `404 for a WebSocket handshake at "/": ${known}`,
    ]);
  });

  it('answers with a sentence as body', async () => {
    site.accept({ path: '/live' });
    const body = 'There is no WebSocket endpoint at this path.\n';
    const [head, text] = (await site.raw([], undefined, '/lvie')).split('\r\n\r\n');
    expect(text).toBe(body);
    expect(head).toContain(`\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\n`);
  });

  it('logs at most 20 paths, and at most 100 characters of each', async () => {
    site.accept({ path: '/live' });
    for (let i = 0; i < 25; i++) await site.raw([], undefined, `/${'x'.repeat(500)}${i}`);
    const logged = messages();
    // Other tests of this server may have used some of the 20.
    expect(logged.length).toBeGreaterThan(10);
    expect(logged.length).toBeLessThanOrEqual(20);
    for (const message of logged) expect(message.length).toBeLessThan(220);
  });
});

describe('acceptUpgrades(), for an Origin that is not allowed', () => {
  it('logs it as a warning with NODE_ENV=development, once for each Origin, and at debug otherwise', async () => {
    site.accept({ path: '/live' });
    const open = (origin: string) => site.raw([`Origin: ${origin}`], undefined, '/live');
    await open('http://dev.example:5173');
    expect(messages()).toEqual([]);
    vi.stubEnv('NODE_ENV', 'development');
    onTestFinished(() => void vi.unstubAllEnvs());
    for (const origin of ['http://dev.example:5173', 'http://dev.example:5173', 'http://dev.example:5174']) {
      expect(await open(origin)).toContain('403');
    }
    expect(messages()).toEqual(['5173', '5174'].map((port) => expect.stringContaining(`http://dev.example:${port}`)));
  });
});

describe('acceptUpgrades(), beside another upgrade listener', () => {
  it('logs the path when it is answered with 404, and nothing where the other listener answers', async () => {
    const server = createServer();
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    acceptUpgrades(server, site.wss, site.waa, { path: '/live', unclaimedTimeout: 0.001 });
    server.on('upgrade', ({ url }, socket: Duplex) => {
      if (url === '/theirs') socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    for (const [path, status] of [
      ['/theirs', '200'],
      ['/unknown', '404'],
    ] as const) {
      let text = '';
      for await (const chunk of connect((server.address() as AddressInfo).port, '127.0.0.1').end(handshake([], path))) {
        text += chunk;
      }
      expect(text).toContain(`HTTP/1.1 ${status}`);
    }
    expect(messages()).toEqual([expect.stringContaining('"/unknown"')]);
  });

  it('logs nothing outside of development', async () => {
    Object.defineProperty(site.waa, 'isDevelopment', { value: false });
    site.accept({ path: '/live', behindProxy: true });
    expect(await site.raw([], undefined, '/production')).toContain('404');
    expect(messages()).toEqual([]);
  });
});
