import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Response } from 'express';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Config } from '../../src/config.js';
import { MemoryStore } from '../../src/session/memory.js';
import type { Auth } from '../../src/session/session.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades } from '../../src/websocket/index.js';
import { installedBrowsers } from './browsers.js';
import { type Application, clientScript, inFresh, type Routes, runApplication, stop } from './helpers.js';
import { type Domain, sessionCookie, startDomain } from './https.js';

const origin = 'https://chat.cam.ac.uk';
const here = `${origin}/page?a=b#c`;
/** Takes connections, and says nothing. */
const silent = 'https://silent.cam.ac.uk';
const credentials = ['cookie', 'query', 'subprotocol', 'firstMessage'] as const;
const jupyter = 'v1.token.websocket.jupyter.org';

/** A page that has the client, and notes what it is told. */
const html = `<!doctype html><link rel="icon" href="data:,"><title>Page</title><script type="module">
import * as client from '/client.js';
globalThis.client = client;
globalThis.said = [];
globalThis.heard = [];
globalThis.start = (url, { first, ...options } = {}) => {
  const onStatus = (status) => {
    said.push(status);
    if (status.state === 'open' && first) connection.send(first);
  };
  const onMessage = (message) => heard.push(message);
  said.length = heard.length = 0;
  globalThis.connection = client.connect(url, { onStatus, onMessage, ...options });
};
</script>`;

/** An application that can be stopped, and started anew with its secret and its store. */
class Site {
  /** Addresses of the handshakes that arrived. */
  readonly handshakes: string[] = [];
  readonly protocols: (string | undefined)[] = [];
  /** Those who asked for a ticket where none comes. */
  readonly late: Response[] = [];
  /** How many tickets were asked for. */
  tickets = 0;
  readonly #domain: Domain;
  readonly #front: Server;
  readonly #port: number;
  /** It outlasts the application, as one of several processes does. */
  readonly #store = new MemoryStore();
  /** What the front passes everything on to. */
  #server!: Server;
  #wss!: WebSocketServer;
  #waa!: WAA;
  #application!: Application;

  constructor(domain: Domain) {
    this.#domain = domain;
    this.#front = domain.further.get(origin) as Server;
    this.#port = (this.#front.address() as AddressInfo).port;
    for (const event of ['request', 'upgrade']) this.#front.on(event, (...given) => this.#server.emit(event, ...given));
    this.#run();
  }

  async stop(): Promise<void> {
    this.cut();
    await Promise.all([stop(this.#front), this.#application.close(), this.#waa.close()]);
  }

  async start(): Promise<void> {
    await once(this.#front.listen(this.#port, '127.0.0.1'), 'listening');
    this.#run();
  }

  reset(): void {
    this.handshakes.length = this.protocols.length = this.late.length = this.tickets = 0;
  }

  /** Cuts all connections that sockets have. */
  cut(): void {
    for (const socket of this.#wss.clients) socket.terminate();
  }

  /** Has a browser be logged in. */
  async logIn(context: BrowserContext): Promise<void> {
    await setSession(context, await this.#makeSession());
  }

  /** What the same browser does: it ends the session that there was, and has a new one a moment later. */
  async replaceSession(context: BrowserContext, between: () => Promise<unknown>): Promise<void> {
    const [old] = (await context.cookies(origin)).filter(({ name }) => name === sessionCookie);
    const cookie = await this.#makeSession(this.#waa.openSession(old?.value as string));
    await between();
    await setSession(context, cookie);
  }

  async #makeSession(before?: Auth): Promise<string> {
    const { location, nonce } = this.#waa.startLogin('/');
    const encoded = this.#domain.wls.respond(location, { principal: 'test0001' });
    return (await this.#waa.finishLogin(encoded, nonce, before)).cookie as string;
  }

  #run(): void {
    const store = this.#store;
    const { profile } = this.#domain.wls;
    const wls = { ...profile, authUrl: 'https://login.cam.ac.uk/auth/authenticate.html' };
    let config!: Config;
    this.#server = createServer();
    const routes: Routes = (app, _, complete) => {
      config = complete;
      app.get('/page', (_, response) => response.send(html));
      app.get('/client.js', (_, response) => response.type('js').send(clientScript));
      app.post('/late', (_, response) => this.late.push(response));
    };
    this.#server.on('request', (request) => this.#note(request)).on('upgrade', (request) => this.#noteSocket(request));
    this.#application = runApplication(this.#server, { baseUrl: origin, secret: 'b2'.repeat(32), wls, store }, routes);
    this.#waa = createWAA(config);
    this.#wss = new WebSocketServer({ noServer: true });
    this.#wss.on('connection', (socket, { auth }) => serve(socket, auth?.principal));
    for (const credential of credentials) {
      this.#accept({ path: `/${credential}`, credentials: [credential] });
      this.#accept({ path: `/${credential}/told`, credentials: [credential], principals: ['x'], rejection: 'close' });
    }
    this.#accept({ path: '/shut', principals: ['nobody'] });
  }

  #accept(options: Parameters<typeof acceptUpgrades>[3]): void {
    acceptUpgrades(this.#server, this.#wss, this.#waa, options);
  }

  #note({ url, method }: IncomingMessage): void {
    if (method === 'POST' && url === '/webauth/ticket') this.tickets += 1;
  }

  #noteSocket({ url = '', headers }: IncomingMessage): void {
    this.handshakes.push(url);
    this.protocols.push(headers['sec-websocket-protocol']);
  }
}

/** Greets, says everything again, and closes as it is told to. */
function serve(socket: WebSocket, principal: string | undefined): void {
  socket.on('error', () => {});
  socket.send(`for ${principal}`);
  socket.on('message', (data, isBinary) => {
    const [order, code, reason] = String(data).split(' ');
    if (order === 'close') socket.close(code ? Number(code) : undefined, reason);
    else socket.send(data, { binary: isBinary });
  });
}

describe.each(installedBrowsers(true))('the client, in $name', ({ name, executablePath }) => {
  /** Defines a test of what the client does over time, which no browser changes: one browser is enough. */
  const inChromium = name === 'Chromium' ? it : it.skip;
  let domain: Domain;
  let site: Site;
  /** Who waits for the silent one. */
  const waiting = new Set<Duplex>();
  beforeAll(async () => {
    domain = await startDomain(executablePath, (_, response) => response.end(), undefined, [origin, silent]);
    site = new Site(domain);
    domain.further.get(silent)?.on('upgrade', (_, socket) => {
      waiting.add(socket);
      socket.on('close', () => waiting.delete(socket)).on('error', () => {});
      socket.resume().on('end', () => socket.destroy());
    });
  });
  afterAll(async () => {
    await site?.stop();
    await domain?.close();
  });
  beforeEach(() => site.reset());

  /** A test in a page of somebody who is logged in. Its clock stands still, and its dice fall as high as they can. */
  function visit(test: (page: Page, context: BrowserContext) => Promise<void>, provoked: readonly RegExp[] = []) {
    return () =>
      inFresh(domain.browser, { provoked }, async (page, context) => {
        await site.logIn(context);
        await page.clock.install({ time: 0 });
        await page.clock.pauseAt(1000);
        await page.addInitScript('Math.random = () => 1');
        await page.goto(here);
        await test(page, context);
      });
  }

  describe.each(credentials)('with %s', (credential) => {
    it(
      'opens, carries messages both ways, and keeps no ticket anywhere',
      visit(async (page, context) => {
        const printed: string[] = [];
        context.on('console', (message) => printed.push(message.text()));
        await page.evaluate(keepTickets);
        // Nothing gets there before the ticket.
        const options = { credential, protocols: ['chat.example'], binaryType: 'arraybuffer', first: 'a wish' };
        await start(page, `/${credential}?room=a%20b&x`, options);
        await reach(page, { state: 'open', protocol: 'chat.example' });
        expect(await states(page)).toEqual(['connecting', 'open']);
        expect(await page.evaluate(`connection.send('hello') && connection.send(new Blob(['bytes']))`)).toBe(true);
        await expect.poll(() => heard(page), { timeout: 10_000 }).toEqual(['for test0001', 'a wish', 'hello', 'bytes']);
        expect(await page.evaluate('heard[3] instanceof ArrayBuffer')).toBe(true);

        const tickets = await ticketsOf(page);
        expect(tickets).toHaveLength(credential === 'cookie' ? 0 : 1);
        const [ticket] = tickets;
        const query = credential === 'query' ? `&ticket=${ticket}` : '';
        expect(site.handshakes).toEqual([`/${credential}?room=a%20b&x${query}`]);
        const token = credential === 'subprotocol' ? `,${jupyter},${jupyter}.${ticket}` : '';
        expect(site.protocols.join().replaceAll(' ', '')).toBe(`chat.example${token}`);

        await page.evaluate('connection.close()');
        const kept: string = await page.evaluate(everythingKept);
        expect(kept).toContain('"state":"closed"');
        expect(kept.includes('/webauth/ticket')).toBe(credential !== 'cookie');
        for (const one of tickets) expect(kept + JSON.stringify(await context.cookies())).not.toContain(one);
        expect(printed).toEqual([]);
      }),
    );

    // That is refused by HTTP in any case.
    if (credential === 'subprotocol') return;
    it(
      'is told why, where the server can close with a code',
      visit(async (page) => {
        await start(page, `/${credential}/told`, { credential });
        const refused = {
          state: 'refused',
          code: 'ERR_PRINCIPAL_REFUSED',
          reason: expect.stringContaining('test0001'),
        };
        expect(await reach(page, { state: 'refused' })).toEqual(refused);
        // A browser opens such a socket first.
        expect(await states(page)).toEqual(['connecting', 'open', 'refused']);
        await page.clock.runFor(100_000);
        expect(await said(page)).toHaveLength(3);
        expect(site.handshakes).toHaveLength(1);
      }),
    );
  });

  inChromium.each(['cookie', 'query'])(
    'comes back, with what is fresh, when the server is started again: %s',
    (credential) =>
      visit(
        async (page) => {
          await page.evaluate(keepTickets);
          await start(page, `/${credential}`, { credential });
          await reach(page, { state: 'open' });
          await page.clock.runFor(5000);
          await site.stop();
          await reach(page, { state: 'down', retryIn: 1000 });
          await page.clock.runFor(1000);
          await reach(page, { state: 'down', retryIn: 2000 });
          await site.start();
          await page.clock.runFor(2000);
          await reach(page, { state: 'open' });
          await expect.poll(() => heard(page)).toEqual(['for test0001', 'for test0001']);
          expect(await states(page)).toEqual('connecting open down connecting down connecting open'.split(' '));
          // By cookie, one: to see that there is still a session.
          const count = credential === 'cookie' ? 1 : 2;
          expect([site.tickets, new Set(await ticketsOf(page)).size]).toEqual([count, count]);
        },
        [/ERR_CONNECTION_REFUSED/],
      )(),
  );

  it.each(['cookie', 'query'])(
    'says that somebody has logged out, and where to log in and come back: %s',
    (credential) =>
      visit(async (page) => {
        await start(page, `/${credential}`, { credential });
        await reach(page, { state: 'open' });
        await page.evaluate(`void fetch('/webauth/logout', { method: 'POST' })`);
        await reach(page, { state: 'down', reason: 'ERR_SESSION_REVOKED: the session was ended' });
        await page.clock.runFor(2000);
        const { loginUrl } = (await reach(page, { state: 'logged out' })) as { loginUrl: string };
        const { length } = await said(page);
        await page.clock.runFor(100_000);
        await page.evaluate(`dispatchEvent(new Event('online'))`);
        expect(await said(page)).toHaveLength(length);

        await page.goto(loginUrl);
        await page.getByRole('button', { name: 'test0001' }).click();
        await page.waitForURL(here);
        await start(page, `/${credential}`, { credential });
        await reach(page, { state: 'open' });
      })(),
  );

  inChromium(
    'learns that nobody is logged in from a handshake that fails, and opens once somebody is',
    visit(
      async (page, context) => {
        await context.clearCookies();
        await start(page, '/cookie');
        await reach(page, { state: 'down' });
        await page.clock.runFor(1000);
        await reach(page, { state: 'logged out' });
        await site.logIn(context);
        await page.evaluate('connection.open()');
        await reach(page, { state: 'open' });
      },
      [/Unexpected response code: 403/],
    ),
  );

  inChromium(
    'guesses that it is refused, where three handshakes have failed without a word, and goes on',
    visit(
      async (page) => {
        await start(page, '/shut');
        await reach(page, { state: 'down', reason: 'the socket could not be opened', retryIn: 1000 });
        await page.clock.runFor(1000);
        await reach(page, { state: 'down', retryIn: 2000 });
        await page.clock.runFor(2000);
        const guess = { state: 'refused', reason: expect.stringContaining('guess'), retryIn: 30_000 };
        expect(await reach(page, { state: 'refused' })).toEqual(guess);
        expect([site.handshakes.length, site.tickets]).toEqual([3, 2]);
        await page.clock.runFor(30_000);
        await expect.poll(() => site.handshakes.length).toBe(4);
        expect(await reach(page, { state: 'refused' })).toEqual(guess);
        // Of a server that is away, it guesses no more.
        await site.stop();
        await page.clock.runFor(30_000);
        await reach(page, { state: 'down' });
        await site.start();
        await page.clock.runFor(30_000);
        await reach(page, { state: 'down', reason: 'the socket could not be opened' });
      },
      [/Unexpected response code: 403/, /ERR_CONNECTION_REFUSED/],
    ),
  );

  inChromium(
    'waits twice as long after each failure, up to half a minute, and as the dice fall',
    visit(
      async (page) => {
        await start(page, '/cookie');
        await reach(page, { state: 'open' });
        await page.clock.runFor(5000);
        await site.stop();
        try {
          for (const retryIn of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
            await reach(page, { state: 'down', retryIn });
            const { length } = await said(page);
            await page.clock.runFor(retryIn - 1);
            expect(await said(page)).toHaveLength(length);
            await page.clock.runFor(1);
            await expect.poll(() => said(page)).toHaveLength(length + 2);
          }
          await page.evaluate('Math.random = () => 0.25');
          await page.clock.runFor(30_000);
          await reach(page, { state: 'down', retryIn: 7500 });
        } finally {
          await site.start();
        }
      },
      [/ERR_CONNECTION_REFUSED/],
    ),
  );

  inChromium(
    'does not begin anew with the shortest wait before a socket has stayed open for five seconds',
    visit(async (page) => {
      await start(page, '/cookie');
      for (const retryIn of [1000, 2000, 4000]) {
        await reach(page, { state: 'open' });
        await page.clock.runFor(4999);
        await page.evaluate(`connection.send('close 1011')`);
        await reach(page, { state: 'down', retryIn });
        await page.clock.runFor(retryIn);
      }
      await reach(page, { state: 'open' });
      await page.clock.runFor(5000);
      await page.evaluate(`connection.send('close 1011')`);
      await reach(page, { state: 'down', reason: 'the socket was closed with 1011', retryIn: 1000 });
    }),
  );

  inChromium(
    'is down by what may pass, and closed by what the application means',
    visit(async (page) => {
      await start(page, '/cookie');
      const seen: unknown[] = [];
      for (const order of ['', ' 1001', ' 1012 restart', ' 1013', ' 4408', ' 4429', ' 1000', ' 4000 enough', ' 3000']) {
        await reach(page, { state: 'open' });
        await page.evaluate(`connection.send('close${order}')`);
        await expect.poll(() => states(page).then((all) => all.at(-1))).not.toBe('open');
        seen.push((await said(page)).at(-1));
        await page.evaluate('connection.open()');
      }
      const down = (code: number) => ({ state: 'down', reason: `the socket was closed with ${code}` });
      const closed = (code: number, reason = '') => ({ state: 'closed', code, reason });
      const restart = { state: 'down', reason: 'restart' };
      expect(seen.slice(0, 6)).toMatchObject([down(1005), down(1001), restart, ...[1013, 4408, 4429].map(down)]);
      expect(seen.slice(6)).toEqual([closed(1000), closed(4000, 'enough'), closed(3000)]);
    }),
  );

  inChromium(
    'tries at once when the network is back',
    visit(
      async (page, context) => {
        await start(page, '/query', { credential: 'query' });
        await reach(page, { state: 'open' });
        await context.setOffline(true);
        site.cut();
        await reach(page, { state: 'down' });
        await page.clock.runFor(1000);
        await reach(page, { state: 'down', reason: 'the ticket route is out of reach', retryIn: 2000 });
        await context.setOffline(false);
        await reach(page, { state: 'open' });
        expect(site.handshakes).toHaveLength(2);
        // What waited is gone.
        await page.clock.runFor(100_000);
        expect(site.handshakes).toHaveLength(2);
      },
      [/ERR_INTERNET_DISCONNECTED/],
    ),
  );

  inChromium(
    'asks at once whether somebody is logged in where it was told so instead of being let in, and again only later',
    visit(
      async (page, context) => {
        await context.clearCookies();
        await start(page, '/cookie/told');
        await reach(page, { state: 'logged out' });
        expect(await states(page)).toEqual(['connecting', 'open', 'connecting', 'logged out']);
        await page.route('**/webauth/ticket', (route) => route.fulfill({ status: 429 }));
        await start(page, '/cookie/told');
        await reach(page, { state: 'down', retryIn: 3000 });
        expect(await states(page)).toEqual(['connecting', 'open', 'connecting', 'open', 'down']);
      },
      [/Failed to load resource/],
    ),
  );

  inChromium(
    'goes on with the session of another login in the same browser, though there may be no ticket',
    visit(
      async (page, context) => {
        await start(page, '/cookie');
        await reach(page, { state: 'open' });
        for (const status of [200, 429, 404]) {
          await page.route('**/webauth/ticket', (route) =>
            status === 200 ? route.continue() : route.fulfill({ status }),
          );
          await page.clock.runFor(5000);
          await site.replaceSession(context, () =>
            reach(page, { state: 'down', reason: expect.stringContaining('ERR_SESSION_REVOKED'), retryIn: 2000 }),
          );
          // The new cookie may need a moment to get there.
          await page.clock.runFor(1000);
          expect((await states(page)).at(-1)).toBe('down');
          await page.clock.runFor(1000);
          await reach(page, { state: 'open' });
        }
        expect([site.tickets, site.handshakes.length]).toEqual([1, 4]);
      },
      [/Failed to load resource/],
    ),
  );

  inChromium(
    'gives up on what never answers',
    visit(async (page) => {
      for (const [url, options] of [
        [silent, {}],
        ['/query', { credential: 'query', ticketUrl: '/late' }],
      ] as const) {
        await start(page, url, options);
        await reach(page, { state: 'connecting' });
        await expect.poll(() => waiting.size + site.late.length).toBe(1);
        await page.clock.runFor(19_999);
        expect(await states(page)).toEqual(['connecting']);
        await page.clock.runFor(1);
        expect(await said(page)).toMatchObject([{}, { state: 'down', reason: 'nothing answered in time' }]);
        await expect.poll(() => waiting.size).toBe(0);
        await page.evaluate('connection.close()');
      }
    }),
  );

  inChromium(
    'leaves nothing behind when it is closed, whatever it was at',
    visit(async (page) => {
      const [connecting, closed] = [{ state: 'connecting' }, { state: 'closed', code: 1000, reason: '' }];
      // At once; while it says that it begins; while it waits for a ticket; while it knocks.
      await page.evaluate(`(start('/cookie'), connection.close())`);
      expect(await said(page)).toEqual([closed]);
      await page.evaluate(`start('/cookie', {
        onStatus(status) { said.push(status); if (status.state === 'connecting') connection.close(); },
      })`);
      expect(await said(page)).toEqual([connecting, closed]);
      await start(page, '/query', { credential: 'query', ticketUrl: '/late' });
      await expect.poll(() => site.late).toHaveLength(1);
      await page.evaluate('connection.close()');
      await start(page, silent);
      await expect.poll(() => states(page)).toEqual(['connecting']);
      await page.evaluate(`connection.close(4001, 'enough')`);
      expect(await said(page)).toEqual([connecting, { state: 'closed', code: 4001, reason: 'enough' }]);
      expect(await page.evaluate(`connection.send('hello')`)).toBe(false);
      for (const response of site.late) response.json({ ticket: 'too late' });

      await start(page, '/cookie');
      await reach(page, { state: 'open' });
      site.cut();
      await reach(page, { state: 'down' });
      await page.evaluate('connection.close()');
      await page.clock.runFor(100_000);
      await page.evaluate(`dispatchEvent(new Event('online'))`);
      expect(await states(page)).toEqual(['connecting', 'open', 'down', 'closed']);
      await page.evaluate('(connection.open(), connection.open())');
      await reach(page, { state: 'open' });
      expect(await states(page)).toHaveLength(6);
      expect(site.handshakes).toEqual(['/cookie', '/cookie']);
    }),
  );

  inChromium(
    'is not disturbed by what a page throws',
    visit(
      async (page) => {
        await page.evaluate(`start('/cookie', {
          onStatus(status) { said.push(status); throw new Error('thrown at ' + status.state); },
          onMessage(message) { heard.push(message); throw new Error('thrown at a message'); },
        })`);
        await reach(page, { state: 'open' });
        await page.evaluate(`connection.send('hello')`);
        await expect.poll(() => heard(page)).toEqual(['for test0001', 'hello']);
        site.cut();
        await reach(page, { state: 'down' });
        await page.clock.runFor(1000);
        await reach(page, { state: 'open' });
      },
      [/uncaught: thrown at connecting/, /thrown at open/, /thrown at down/, /thrown at a message/],
    ),
  );

  inChromium(
    'understands what a ticket route answers',
    visit(
      async (page) => {
        const error = { code: 'ERR_ORIGIN_REFUSED', message: 'not from there' };
        const slowly = { code: 'ERR_LIMIT_REACHED', message: 'slowly' };
        // Those lead nowhere from here.
        const loginUrls = [
          'javascript:alert(1)//',
          'https://other.cam.ac.uk/login',
          '//other.cam.ac.uk',
          'http://[',
          7,
        ];
        const answers = [
          { status: 403, json: { error } },
          { status: 429, json: { error: slowly } },
          { status: 502, body: '<h1>Bad gateway</h1>' },
          { status: 200, body: '<h1>Welcome</h1>' },
          { status: 200, body: 'null' },
          { status: 302, headers: { location: '/webauth/ticket' } },
          { status: 401, body: 'null' },
          ...loginUrls.map((loginUrl) => ({ status: 401, json: { error: { message: 'elsewhere', loginUrl } } })),
        ];
        const [seen, became]: unknown[][] = [[], []];
        for (const answer of answers) {
          await page.unroute('**/webauth/ticket');
          await page.route('**/webauth/ticket', (route) => route.fulfill(answer));
          seen?.push(await page.evaluate(failureOfTicket));
          await start(page, '/query', { credential: 'query' });
          became?.push(await reach(page, { state: expect.not.stringContaining('connecting') }));
          await page.evaluate('connection.close()');
        }
        const none = { status: 0, code: 'ERR_NETWORK', message: 'the ticket route is out of reach' };
        const other = (status: number) => ({ ...none, status, message: `the ticket route answered ${status}` });
        const loginUrl = `${origin}/webauth/login?return=%2Fpage%3Fa%3Db%23c`;
        const failures = [
          { status: 403, ...error },
          { status: 429, ...slowly },
          other(502),
          other(200),
          other(200),
          none,
        ];
        const elsewhere = loginUrls.map(() => ({ ...other(401), message: 'elsewhere', loginUrl }));
        expect(seen).toEqual([...failures, { ...other(401), loginUrl }, ...elsewhere]);
        const down = failures.slice(1).map(({ message }) => ({ state: 'down', reason: message, retryIn: 1000 }));
        const refused = { state: 'refused', code: error.code, reason: error.message };
        const loggedOut = { state: 'logged out', loginUrl };
        expect(became).toEqual([refused, ...down, loggedOut, ...loginUrls.map(() => loggedOut)]);
        expect(site.tickets).toBe(0);
      },
      [/Failed to load resource/],
    ),
  );

  inChromium(
    'says at once that it cannot open what is no socket',
    visit(async (page) => {
      for (const [url, options] of [
        ['ftp://chat.cam.ac.uk/', {}],
        ['https://', {}],
        ['/cookie', { credential: 'basic' }],
      ] as const) {
        await expect(start(page, url, options)).rejects.toThrow('TypeError');
      }
      expect(await said(page)).toEqual([]);
    }),
  );
});

function start(page: Page, url: string, options: object = {}): Promise<void> {
  return page.evaluate(`start('${url}', ${JSON.stringify(options)})`);
}

async function said(page: Page): Promise<readonly object[]> {
  return page.evaluate('said');
}

function states(page: Page): Promise<readonly string[]> {
  return page.evaluate('said.map(({ state }) => state)');
}

/** The messages, as text. */
function heard(page: Page): Promise<readonly string[]> {
  return page.evaluate('Promise.all(heard.map((message) => new Response(message).text()))');
}

/** Waits until the client says that. */
async function reach(page: Page, status: object): Promise<object> {
  await expect.poll(async () => (await said(page)).at(-1), { timeout: 10_000 }).toMatchObject(status);
  return (await said(page)).at(-1) as object;
}

function ticketsOf(page: Page): Promise<readonly string[]> {
  return page.evaluate('tickets');
}

async function setSession(context: BrowserContext, value: string): Promise<void> {
  await context.addCookies([{ name: sessionCookie, value, url: origin, secure: true, httpOnly: true }]);
}

/** Has the page note the tickets that it is given. */
const keepTickets = `{
  globalThis.tickets = [];
  const { fetch } = globalThis;
  globalThis.fetch = async (...asked) => {
    const response = await fetch(...asked);
    if (response.ok) tickets.push((await response.clone().json()).ticket);
    return response;
  };
}`;

/** All that a page can find again: what browsers store, what they remember of it, and what a connection shows. */
const everythingKept = `(async () => {
  const found = new Set();
  const search = (value) => {
    if (found.has(value) || value === Object.prototype || value === Function.prototype) return;
    found.add(value);
    if (Object(value) !== value) return;
    for (const name of Reflect.ownKeys(value)) {
      try { search(value[name]); } catch {}
    }
    search(Object.getPrototypeOf(value));
  };
  search(connection);
  const shown = [...found].map((value) => (typeof value === 'object' ? JSON.stringify(value) : String(value)));
  // The clock of these tests has taken the place of performance.
  const requests = await new Promise((resolve) => {
    new PerformanceObserver((list) => resolve(list.getEntries())).observe({ type: 'resource', buffered: true });
  });
  const places = [localStorage, sessionStorage, await indexedDB.databases(), await caches.keys(), document.cookie];
  const traces = [history.state, location.href, requests, document.documentElement.outerHTML, said];
  return JSON.stringify([shown, places, traces]);
})()`;

/** What a ticket that cannot be had is like, to a page. */
const failureOfTicket = `client.fetchTicket().catch((error) => {
  if (!(error instanceof client.TicketError)) throw error;
  const { status, code, message, loginUrl } = error;
  return { status, code, message, ...(loginUrl === undefined ? {} : { loginUrl }) };
})`;
