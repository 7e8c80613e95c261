import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import type { Config } from '../../src/config.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades } from '../../src/websocket/index.js';
import { findPrograms, freePorts, Program } from '../processes.js';
import { installedBrowsers, launchBrowser } from './browsers.js';
import { inFresh } from './helpers.js';
import { app, type Servers, startServers } from './https.js';

const attempts = 8;
/** Host of the proxy. */
const front = 'front.cam.ac.uk';

/** Opens sockets one after the other. Each is closed by the server; the page's own close would hide a lost code. */
const openSockets = (host: string, path: string, first: string) => `(async () => {
  const closed = [];
  for (let i = 0; i < ${attempts}; i++) {
    const socket = new WebSocket('wss://${host}${path}');
    closed.push(await new Promise((resolve) => {
      let hasOpened = false;
      socket.onopen = () => {
        hasOpened = true;
        ${first}
      };
      socket.onclose = ({ code, reason }) => resolve({ hasOpened, code, reason: reason.split(':')[0] });
    }));
  }
  return closed;
})()`;

const rejections = [
  ['a handshake', '/closing', '', 'ERR_SESSION_MISSING'],
  ['a handshake, while the page sends much', '/closing', "socket.send('x'.repeat(200_000));", 'ERR_SESSION_MISSING'],
  ['a first message', '/late', "socket.send('no ticket');", 'ERR_TOKEN_INVALID'],
  ['a first message that is too long', '/late', "socket.send('x'.repeat(200_000));", 'ERR_TOKEN_INVALID'],
] as const;

describe.each(installedBrowsers(true))("rejection: 'close' in $name", ({ executablePath }) => {
  let servers: Servers;
  let waa: WAA;
  let browser: Browser;
  let folder: string;
  let port: number;
  const wss = new WebSocketServer({ noServer: true });

  beforeAll(async () => {
    let config!: Config;
    servers = await startServers(
      (_, response) => response.end(),
      (server, _auth, complete) => {
        config = complete;
        server.get('/page', (_, response) => void response.send('<!doctype html><title>Page</title>'));
      },
    );
    waa = createWAA(config);
    const origins = [`https://${front}`];
    acceptUpgrades(servers.application.server, wss, waa, { path: '/closing', origins, rejection: 'close' });
    acceptUpgrades(servers.application.server, wss, waa, { path: '/late', origins, credentials: ['firstMessage'] });
    [port] = (await freePorts(1)) as [number];
    const names = new Map([...servers.names, [`${front}:443`, port]] as const);
    browser = await launchBrowser(executablePath, servers.certificate, names);
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-close-codes-'));
  });
  afterAll(async () => {
    await browser?.close();
    await Promise.all([waa?.close(), servers?.close()]);
    rmSync(folder, { recursive: true });
  });

  /** Expects each page to see each code. */
  async function expectCodes(host: string): Promise<void> {
    await inFresh(browser, {}, async (page) => {
      // Chromium opens a socket over HTTP/2 only where it has such a connection.
      await page.goto(`https://${host}/page`);
      for (const [what, path, first, reason] of rejections) {
        const seen = await page.evaluate(openSockets(host, path, first));
        const expected = { hasOpened: true, code: 4401, reason };
        expect({ what, seen }).toEqual({ what, seen: Array(attempts).fill(expected) });
      }
    });
  }

  it('shows the page each code', () => expectCodes(new URL(app).host));

  it.skipIf(!findPrograms(['haproxy']))('shows the page each code behind HAProxy with HTTP/2', async () => {
    writeFileSync(join(folder, 'pair.pem'), servers.certificate + servers.key);
    writeFileSync(join(folder, 'haproxy.cfg'), configure(port, servers.port, join(folder, 'pair.pem')));
    const proxy = new Program(['-W', '-db', '-f', join(folder, 'haproxy.cfg')], {}, 'haproxy');
    await proxy.printed(/Loading success/);
    const versions: string[] = [];
    servers.application.server.on('upgrade', ({ headers }) => versions.push(String(headers['x-version'])));
    await expectCodes(front);
    expect(new Set(versions)).toEqual(new Set(['2.0']));
    await proxy.stop();
  });
});

function configure(port: number, upstream: number, pair: string): string {
  return `
    defaults
      mode http
      timeout connect 5s
      timeout client 30s
      timeout server 30s
      timeout tunnel 30s
    frontend front
      bind 127.0.0.1:${port} ssl crt ${pair} alpn h2,http/1.1
      http-request set-header X-Version %[req.ver]
      default_backend application
    backend application
      server one 127.0.0.1:${upstream} ssl verify none alpn http/1.1
`;
}
