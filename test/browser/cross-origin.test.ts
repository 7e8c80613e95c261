import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium, firefox, type LaunchOptions, type Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import type { Config } from '../../src/config.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades, socketFrame } from '../../src/websocket/index.js';
import { type InstalledBrowser, installedBrowsers } from './browsers.js';
import { type Arrival, clientScript, openSocket, type Routes } from './helpers.js';
import { app, type Domain, inBrowser, logIn, sessionCookie, sibling, startDomain } from './https.js';

/** Where the application's sockets are: on its own site, and on another. And a third site, which has nothing to do with it. */
const near = 'https://sockets.cam.ac.uk';
const far = 'https://sockets.example.org';
const stranger = 'https://www.example.net';

const socketCookie = '__Host-webauth-socket';
const path = '/webauth/frame';

/** What came to a server of sockets, and whether it is one that knows no partitions. */
class Sockets {
  readonly arrived: Arrival[] = [];
  withoutPartitions = false;
  readonly #wss = new WebSocketServer({ noServer: true });
  readonly #waa: WAA;

  constructor(server: Server, origin: string, config: Config) {
    this.#waa = createWAA(config);
    const frame = socketFrame(this.#waa, { origin });
    server.on('upgrade', (request) => this.#note(request));
    server.on('request', (request, response) => {
      this.#note(request);
      if (this.withoutPartitions) removePartitions(response);
      frame(request, response);
    });
    acceptUpgrades(server, this.#wss, this.#waa, { path: '/live', credentials: ['cookie'], frame });
    acceptUpgrades(server, this.#wss, this.#waa, { path: '/once', credentials: ['query'] });
    acceptUpgrades(server, this.#wss, this.#waa, { path: '/nobody', credentials: ['query'], principals: ['nobody'] });
    this.#wss.on('connection', (socket, { auth }) => socket.send(`for ${auth?.principal}`));
  }

  reset(): void {
    this.arrived.length = 0;
    this.withoutPartitions = false;
  }

  /** Cuts all connections that sockets have. */
  cut(): void {
    for (const socket of this.#wss.clients) socket.terminate();
  }

  async close(): Promise<void> {
    this.cut();
    await this.#waa.close();
  }

  #note({ method, url, headers }: IncomingMessage): void {
    this.arrived.push({ line: `${method} ${url}`, cookie: headers.cookie ?? '', origin: headers.origin });
  }
}

function removePartitions(response: ServerResponse): void {
  const set = response.setHeader.bind(response);
  response.setHeader = (name, value) => set(name, String(value).replace('; Partitioned', ''));
}

interface Kind {
  readonly browser: InstalledBrowser['name'];
  readonly what: string;
  /** Setting of the browser for third-party cookies. */
  readonly setting: number;
  /** Whether it takes the cookie of the frame on another site, which is partitioned. */
  readonly takesPartitioned: boolean;
  /** Outcome where the server forgets the partition. */
  readonly unpartitioned: 'ERR_COOKIES_BLOCKED' | 'for test0001';
  /** Whether it then sends the cookie in the pages of every site. */
  readonly sendsToAll: boolean;
}

const blocked = { unpartitioned: 'ERR_COOKIES_BLOCKED', sendsToAll: false } as const;
const allowed = { takesPartitioned: true, unpartitioned: 'for test0001' } as const;
const settings: readonly Kind[] = [
  { browser: 'Chromium', what: 'blocks third-party cookies', setting: 1, takesPartitioned: true, ...blocked },
  { browser: 'Chromium', what: 'allows third-party cookies', setting: 0, sendsToAll: true, ...allowed },
  { browser: 'Firefox', what: 'blocks all third-party cookies', setting: 1, takesPartitioned: false, ...blocked },
  { browser: 'Firefox', what: 'partitions cookies, its default', setting: 5, sendsToAll: false, ...allowed },
  { browser: 'Firefox', what: 'allows third-party cookies', setting: 0, sendsToAll: true, ...allowed },
];
const kinds = installedBrowsers().flatMap(({ name, executablePath }) =>
  settings.filter(({ browser }) => browser === name).map((kind) => ({ ...kind, executablePath })),
);

describe.each(kinds)('$browser that $what', (kind) => {
  const { executablePath, setting } = kind;
  const isChromium = kind.browser === 'Chromium';
  let domain: Domain;
  let config: Config;
  let folder: string;
  const servers = new Map<string, Sockets>();
  const at = (origin: string) => servers.get(origin) as Sockets;
  const linesAt = (origin: string) => at(origin).arrived.map(({ line }) => line.split('?')[0]);
  const routes: Routes = (server, _auth, complete) => {
    config = complete;
    server.get('/page', (_, response) => response.set('Content-Security-Policy', policy).send(html));
    server.get('/client.js', (_, response) => response.type('js').send(clientScript));
  };
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ucam-webauth-'));
    const launch = (options: LaunchOptions) =>
      isChromium
        ? launchWith(folder, { cookie_controls_mode: setting }, options)
        : firefox.launch({
            ...options,
            firefoxUserPrefs: { ...options.firefoxUserPrefs, 'network.cookie.cookieBehavior': setting },
          });
    domain = await startDomain(executablePath, answer, routes, [near, far, stranger], launch);
    for (const origin of [near, far]) {
      servers.set(origin, new Sockets(domain.further.get(origin) as Server, origin, config));
    }
    domain.further.get(stranger)?.on('request', answer);
  });
  afterAll(async () => {
    await Promise.all([...servers.values()].map((one) => one.close()));
    await domain?.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  beforeEach(() => {
    for (const one of servers.values()) one.reset();
  });

  /** A test with somebody who is logged in as test0001, and on the application's page. */
  function visit(test: (page: Page) => Promise<void>) {
    return async () => {
      const value = await logIn(domain, 'test0001');
      await inBrowser(domain, { [sessionCookie]: value }, async (page) => {
        await page.goto(`${app}/page`);
        await test(page);
      });
    };
  }

  /** Returns the cookie of the frame as browsers send it. */
  async function expectFrameCookie(page: Page, sockets: string): Promise<string> {
    const [kept, ...others] = await page.context().cookies(sockets);
    expect(others).toEqual([]);
    const common = { name: socketCookie, path: '/', expires: -1, httpOnly: true, secure: true };
    expect(kept).toMatchObject({ ...common, sameSite: sockets === far ? 'None' : 'Lax' });
    // Playwright does not learn of partitions in Firefox.
    if (isChromium) expect(kept?.partitionKey).toBe(sockets === far ? 'https://cam.ac.uk' : undefined);
    return `${socketCookie}=${kept?.value}`;
  }

  for (const [where, sockets] of [
    ['on the same site', near],
    ['on another site', far],
  ] as const) {
    describe(`with sockets ${where}`, () => {
      it(
        'opens as many as it likes with the cookie of the frame, until it logs out',
        visit(async (page) => {
          expect(await openSocket(page, `${sockets}/live`)).toBe(1006);
          const isTaken = sockets === near || kind.takesPartitioned;
          expect(await useSockets(page, sockets)).toBe(isTaken ? 'for test0001' : 'ERR_COOKIES_BLOCKED');
          if (!isTaken) return;
          const cookie = await expectFrameCookie(page, sockets);

          await page.reload();
          at(sockets).reset();
          expect(await openSocket(page, `${sockets}/live`)).toBe('for test0001');
          expect(at(sockets).arrived).toEqual([{ line: 'GET /live', cookie, origin: app }]);
          const closing = closeOf(page, `${sockets}/live`);
          await closing.opened;
          await page.evaluate(`fetch('/webauth/logout', { method: 'POST' })`);
          expect(await closing.code).toBe(4401);
          expect(await openSocket(page, `${sockets}/live`)).toBe(1006);
        }),
      );

      // The rest does not depend on it.
      if (setting !== (isChromium ? 0 : 5)) return;

      it(
        'opens one with a ticket in its address',
        visit(async (page) => {
          const { ticket } = await makeTicket(page);
          expect(await openSocket(page, `${sockets}/once?ticket=${ticket}`)).toBe('for test0001');
          expect(await openSocket(page, `${sockets}/once?ticket=${ticket}`)).toBe(1006);
        }),
      );

      // Playwright removes no partitioned cookie of Firefox.
      it.skipIf(!isChromium && sockets === far)(
        'opens the next one by itself, and has a new cookie once that fails',
        visit(async (page) => {
          await page.evaluate('Math.random = () => 0');
          expect(await useSockets(page, sockets)).toBe('for test0001');
          expect(await page.evaluate('document.querySelector("iframe")')).toBe(null);
          at(sockets).reset();
          at(sockets).cut();
          await expect.poll(() => page.evaluate('said.join()')).toBe('connecting,open,down,connecting,open');
          expect(linesAt(sockets)).toEqual(['GET /live']);
          await page.context().clearCookies({ name: socketCookie });
          at(sockets).cut();
          await expect.poll(() => page.evaluate('said.slice(5).join()')).toBe('down,connecting,down,connecting,open');
          const framed = [`GET ${path}`, `POST ${path}`, `POST ${path}`];
          expect(linesAt(sockets).slice(1)).toEqual(['GET /live', ...framed, 'GET /live']);
        }),
      );

      it(
        'guesses that it is refused, where the server is there',
        visit(async (page) => {
          await page.evaluate('Math.random = () => 0');
          expect(await connectWith(page, `${sockets}/nobody`, 'query')).toBe('a guess');
          await page.evaluate('connection.close()');
          const knocked = Array(3).fill('GET /nobody');
          expect(linesAt(sockets).slice(0, 4)).toEqual([...knocked, 'HEAD /nobody']);
        }),
      );

      it(
        'is told what was wrong',
        visit(async (page) => {
          const refusal = { ok: false, code: 'ERR_TOKEN_INVALID', message: expect.stringContaining('no ticket') };
          await page.evaluate(`(${addFrame})('${sockets}${path}')`);
          expect(await page.evaluate(`(${useFrame})('${sockets}', 'no ticket')`)).toEqual(refusal);
        }),
      );

      it(
        'shows no other page the frame, and lets none use its cookie',
        visit(async (page) => {
          expect(await useSockets(page, sockets)).toBe('for test0001');
          for (const other of [sibling, stranger]) {
            await page.goto(other);
            at(sockets).reset();
            await page.setContent(`<iframe src="${sockets}${path}"></iframe>`);
            await expect
              .poll(() => page.frames().at(-1)?.url())
              .toMatch(/^(?:chrome-error:|about:neterror\?e=cspBlocked)/);
            expect(await openSocket(page, `${sockets}/live`)).toBe(1006);
            // Of the same site, Origin alone keeps it out; in pages of another, the cookie is not even sent.
            const cookie = other === sibling ? expect.stringContaining(`${socketCookie}=`) : '';
            expect(at(sockets).arrived.at(-1)).toEqual({ line: 'GET /live', cookie, origin: other });
            expect(at(sockets).arrived).toHaveLength(2);
          }
        }),
      );

      it(
        'takes no ticket from a sibling, though that has its window',
        visit(async (page) => {
          await page.goto(sibling);
          const opening = page.evaluate(`void (globalThis.opened = open('${app}/page'))`);
          const [victim] = await Promise.all([page.waitForEvent('popup'), opening]);
          await victim.waitForLoadState();
          await victim.evaluate(`(${addFrame})('${sockets}${path}')`);
          const { ticket } = await makeTicket(victim);
          at(sockets).reset();
          // The frame's own listener hears of it before this one does.
          const frame = victim.frames().at(-1);
          await frame?.evaluate(hear);
          await page.evaluate(`opened.frames[0].postMessage({ ticket: '${ticket}' }, '${sockets}')`);
          await frame?.evaluate('heard');
          expect(await openSocket(victim, `${sockets}/live`)).toBe(1006);
          expect(await victim.evaluate(`(${useFrame})('${sockets}', '${ticket}')`)).toEqual({ ok: true });
          const posts = at(sockets).arrived.filter(({ line }) => line.startsWith('POST'));
          expect(posts.map(({ origin }) => origin)).toEqual([sockets, sockets]);
        }),
      );

      it(
        'takes no ticket in a window of its own',
        visit(async (page) => {
          const { ticket } = await makeTicket(page);
          const opening = page.evaluate(`void (globalThis.opened = open('${sockets}${path}'))`);
          const [window] = await Promise.all([page.waitForEvent('popup'), opening]);
          await window.waitForLoadState();
          await window.evaluate(hear);
          await page.evaluate(`opened.postMessage({ ticket: '${ticket}' }, '${sockets}')`);
          await window.evaluate('heard');
          expect(await openSocket(page, `${sockets}/once?ticket=${ticket}`)).toBe('for test0001');
          expect(at(sockets).arrived.map(({ line }) => line.split('?')[0])).toEqual([`GET ${path}`, 'GET /once']);
        }),
      );
    });
  }

  it(
    'without partitions, either says that the cookie is blocked, or sends it in all pages',
    visit(async (page) => {
      at(far).withoutPartitions = true;
      expect(await useSockets(page, far)).toBe(kind.unpartitioned);
      await page.goto(stranger);
      expect(await openSocket(page, `${far}/live`)).toBe(1006);
      const cookie = kind.sendsToAll ? expect.stringContaining(`${socketCookie}=`) : '';
      expect(at(far).arrived.at(-1)).toEqual({ line: 'GET /live', cookie, origin: stranger });
    }),
  );
});

/** With such a profile. Those of its contexts are like it. */
async function launchWith(folder: string, profile: object, options: LaunchOptions): Promise<Browser> {
  await mkdir(join(folder, 'Default'));
  await writeFile(join(folder, 'Default', 'Preferences'), JSON.stringify({ profile }));
  const context = await chromium.launchPersistentContext(folder, options);
  return context.browser() as Browser;
}

/** What a sibling and a stranger serve. */
function answer(_: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>Somebody else</title>');
}

async function makeTicket(page: Page): Promise<{ readonly ticket: string }> {
  return page.evaluate(`fetch('/webauth/ticket', { method: 'POST' }).then((response) => response.json())`);
}

/** Puts the frame into a page, and resolves once it is ready. */
const addFrame = `(address) => new Promise((resolve) => {
  const frame = Object.assign(document.createElement('iframe'), { src: address, hidden: true });
  addEventListener('message', ({ source, origin, data }) => {
    if (source === frame.contentWindow && address.startsWith(origin + '/') && data.ready) resolve();
  });
  document.body.append(frame);
})`;

/** Remembers, as a promise, that a message comes. */
const hear = `void (globalThis.heard = new Promise((resolve) => addEventListener('message', () => resolve())))`;

/** Posts a ticket to the frame in a page: its answer. */
const useFrame = `(origin, ticket) => new Promise((resolve) => {
  addEventListener('message', (event) => { if (event.origin === origin) resolve(event.data); }, { once: true });
  frames[0].postMessage({ ticket }, origin);
})`;

const both = `${near} ${far}`;
/** What the documentation asks of a policy; and the tests' own scripts are let in. */
const policy = [
  `default-src 'none'; script-src 'self' 'unsafe-eval'; img-src data:`,
  `frame-src ${both}; connect-src 'self' ${both} ${both.replaceAll('https', 'wss')}`,
].join('; ');

const html = '<!doctype html><link rel="icon" href="data:,"><title>Page</title>';

/** Has the client open a socket by the frame's cookie: what it hears first, or why it is refused. */
function useSockets(page: Page, origin: string): Promise<unknown> {
  return connectWith(page, `${origin}/live`, 'frame');
}

function connectWith(page: Page, url: string, credential: string): Promise<unknown> {
  return page.evaluate(`import('/client.js').then(({ connect }) => new Promise((resolve) => {
    globalThis.said = [];
    const onStatus = (status) => said.push(status.state) && status.state === 'refused' && resolve(status.code ?? 'a guess');
    globalThis.connection = connect('${url}', { credential: '${credential}', onMessage: resolve, onStatus });
  }))`);
}

/** Opens a socket, and says with which code it is closed. */
function closeOf(page: Page, url: string): { readonly opened: Promise<unknown>; readonly code: Promise<number> } {
  const opened = page.evaluate(`new Promise((resolve) => {
    const socket = new WebSocket('${url.replace('https', 'wss')}');
    globalThis.closing = new Promise((close) => { socket.onclose = ({ code }) => close(code); });
    socket.onopen = () => resolve();
  })`);
  return { opened, code: opened.then(() => page.evaluate('closing')) };
}
