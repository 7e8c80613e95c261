import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { makeCertificate } from '../src/cli/certificate.js';
import { createWLS } from '../src/wls/index.js';
import { runApplication } from './browser/helpers.js';
import { Browser, findPrograms, freePorts, Program } from './processes.js';

const certificate = makeCertificate(['localhost']);
const wls = createWLS();
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-proxied-'));
  for (const [name, pem] of Object.entries(certificate)) writeFileSync(join(folder, `${name}.pem`), pem);
  await wls.listen(0);
});
afterAll(async () => {
  await wls.close();
  rmSync(folder, { recursive: true });
});

/** Starts an application that is known by the address of the nginx in front of it. @param host what nginx calls it. */
async function start(host: string) {
  const [port] = (await freePorts(1)) as [number];
  const server = createServer();
  const asked: IncomingHttpHeaders[] = [];
  const connections: Socket[] = [];
  server.on('upgrade', ({ headers }) => asked.push(headers)).on('connection', (socket) => connections.push(socket));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const origin = `https://localhost:${port}`;
  const { opened, close } = runApplication(server, { baseUrl: origin, wls: wls.profile });
  onTestFinished(close);
  writeFileSync(join(folder, 'nginx.conf'), configure(port, (server.address() as AddressInfo).port, host));
  const nginx = await startNginx();
  const browser = new Browser(certificate.cert);
  expect((await browser.logIn(`${origin}/`)).body).toContain('You are test0001');
  return { origin, live: `wss://localhost:${port}/live`, nginx, browser, asked, connections, opened };
}

async function startNginx(): Promise<Program> {
  const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;'];
  const nginx = new Program(args, {}, 'nginx');
  // Killed, it would leave its worker behind.
  onTestFinished(async () => void (await nginx.stop()));
  await nginx.printed(/start worker process /);
  return nginx;
}

/** Ends TLS, and tells the application nothing of it. */
function configure(port: number, upstream: number, host: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
    pid ${folder}/nginx.pid;
    error_log stderr notice;
    # Otherwise it waits for the sockets to be closed by somebody else.
    worker_shutdown_timeout 100ms;
    events {}
    http {
      access_log off;
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
      map $http_upgrade $upgrade_or_close { default upgrade; '' close; }
      upstream application { server 127.0.0.1:${upstream}; }
      server {
        listen 127.0.0.1:${port} ssl;
        ssl_certificate ${folder}/cert.pem;
        ssl_certificate_key ${folder}/key.pem;
        location / {
          proxy_pass http://application;
          proxy_http_version 1.1;
          proxy_set_header Host ${host};
          proxy_set_header Upgrade $http_upgrade;
          proxy_set_header Connection $upgrade_or_close;
        }
      }
    }`;
}

/** What comes instead of a socket: the status, and the code in a body that arrived to its end. */
async function refusal(browser: Browser, url: string, headers: Readonly<Record<string, string>>) {
  const socket = browser.open(url, headers);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    socket.once('unexpected-response', (_, answer) => resolve(answer));
    socket.once('open', () => reject(new Error('it opened'))).once('error', reject);
  });
  const body = await text(response);
  expect(response.headers['content-length']).toBe(`${Buffer.byteLength(body)}`);
  return [response.statusCode, JSON.parse(body).error.code];
}

/** The headers of the answer that leads to the login service: where the Host is not ours, by a detour to our own name. */
async function beginLogin(origin: string, headers: Record<string, string>): Promise<IncomingHttpHeaders> {
  const browser = new Browser(certificate.cert);
  const first = await browser.ask(`${origin}/`, { headers });
  const { location = '' } = first.headers;
  return location.startsWith(`${origin}/`) ? (await browser.ask(location, { headers })).headers : first.headers;
}

const refused = [403, 'ERR_ORIGIN_REFUSED'];
const evil = 'evil.example';

describe.skipIf(!findPrograms(['nginx']))('behind an nginx that ends TLS', () => {
  describe.each([
    ['its own name for us', '$proxy_host', 'application', {}],
    ['our public name', 'localhost:$server_port', undefined, {}],
    ['a name of somebody else', evil, evil, {}],
    ['whatever the client said', '$http_host', evil, { Host: evil }],
  ])('and passes on as the Host %s', (_, host, fixed, sent) => {
    it('opens a socket for the configured origin, and for no other', async () => {
      const { origin, live, browser, asked, opened } = await start(host);
      const { host: name, port } = new URL(origin);
      const passed = fixed ?? name;
      expect((await browser.connect(live, origin, sent)).said).toBe('for test0001');
      const others = [
        `http://${name}`,
        `wss://${name}`,
        'https://localhost',
        'https://localhost:1',
        `https://evil.localhost:${port}`,
        'https://evil.cam.ac.uk',
        `https://localhost.:${port}`,
        origin.toUpperCase(),
        `https://LOCALHOST:${port}`,
        `https://me@${name}`,
        `${origin}/`,
        'null',
        '',
        ...['http', 'https'].flatMap((scheme) => [`${scheme}://${passed}`, `${scheme}://${passed}:${port}`]),
      ].filter((one) => one !== origin);
      for (const other of others) {
        expect([other, await refusal(browser, live, { ...sent, Origin: other })]).toEqual([other, refused]);
      }
      expect(new Set(asked.map((headers) => headers.host))).toEqual(new Set([passed]));
      expect([asked.length, opened]).toEqual([1 + others.length, ['test0001']]);
    });

    it('takes nothing from headers that are said to come from a proxy', async () => {
      const { origin, live, browser, asked, opened } = await start(host);
      const claim = (protocol: string, name: string) => ({
        ...sent,
        'X-Forwarded-Host': name,
        'X-Forwarded-Proto': protocol,
        'X-Forwarded-Origin': `${protocol}://${name}`,
        Forwarded: `host="${name}";proto=${protocol}`,
      });
      const lies = claim('http', evil);
      const flattery = claim('https', new URL(origin).host);
      expect((await browser.connect(live, origin, lies)).said).toBe('for test0001');
      expect(asked[0]).toMatchObject({ 'x-forwarded-host': evil, 'x-forwarded-proto': 'http' });
      for (const Origin of [`http://${evil}`, `https://${evil}`, origin.replace('https', 'http')]) {
        expect(await refusal(browser, live, { ...lies, Origin })).toEqual(refused);
        expect(await refusal(browser, live, { ...flattery, Origin })).toEqual(refused);
      }
      expect(await refusal(browser, live, flattery)).toEqual(refused);
      expect(opened).toEqual(['test0001']);

      // Over TLS the client's own Host has to be that of the certificate.
      const { Host: _host, ...headers } = lies as Record<string, string>;
      const login = await beginLogin(origin, headers);
      const asks = new URL(login.location as string).searchParams;
      expect(asks.get('url')).toBe(`${origin}/webauth/callback`);
      expect(login['set-cookie']).toEqual([expect.stringMatching(/^__Host-webauth-login=.*; Secure$/)]);
    });
  });

  it('closes the socket of somebody who logs out, and opens none any more', async () => {
    const { origin, live, browser } = await start(evil);
    const { socket } = await browser.connect(live, origin);
    const closed = once(socket, 'close');
    const Cookie = browser.cookieHeader;
    await browser.submit(`${origin}/webauth/logout`, {});
    const [code, reason] = await closed;
    expect([code, String(reason)]).toEqual([4401, expect.stringContaining('ERR_SESSION_REVOKED')]);
    expect(await refusal(browser, live, { Origin: origin, Cookie })).toEqual([403, 'ERR_SESSION_REVOKED']);
  });

  it.each(['SIGTERM', 'SIGQUIT'] as const)(
    'keeps no connection of an nginx that %s ended, and serves the next',
    async (signal) => {
      const { origin, live, nginx, browser, connections, opened } = await start(evil);
      const sockets = [];
      for (let i = 0; i < 3; i++) sockets.push((await browser.connect(live, origin)).socket);
      const closed = sockets.map((socket) => once(socket, 'close'));
      expect(connections.filter(({ closed }) => !closed).length).toBeGreaterThanOrEqual(3);
      expect(await nginx.stop(signal)).toBe(0);
      expect((await Promise.all(closed)).map(([code]) => code)).toEqual([1006, 1006, 1006]);
      await Promise.all(connections.map((socket) => socket.closed || once(socket, 'close')));

      await startNginx();
      expect((await browser.connect(live, origin)).said).toBe('for test0001');
      expect(opened).toHaveLength(4);
    },
  );
});
