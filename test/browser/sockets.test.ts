import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { BrowserContext, Frame, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import type { Config } from '../../src/config.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades, type Credential } from '../../src/websocket/index.js';
import { installedBrowsers } from './browsers.js';
import { Complaints, type Routes } from './helpers.js';
import { app, type Domain, directly, inBrowser, logIn, sessionCookie, sibling, startDomain } from './https.js';

const principal = 'test0001';
const jupyter = 'v1.token.websocket.jupyter.org';
const host = app.replace('https', 'wss');

/** What the documentation tells pages to do by hand: with a ticket in the address, in the first message, in a subprotocol. */
const [, inAddress, inMessage, inProtocol] = snippets('In a page');

/** What stands for somebody: a session's cookie, a ticket of it, or an API token. */
type Kind = 'session' | 'ticket' | 'token';

/** One way in which a page can say whose socket it is to be. */
interface Way {
  readonly credential: Credential;
  readonly kind: Kind;
  /** A function of the page, which makes a socket of an address and a secret. */
  readonly open: string;
  /** The same, where it gets what it needs by itself. */
  readonly openOwn?: string;
  /** What the socket says that it speaks. */
  readonly protocol?: string;
}

const withPassword = `(url, secret) => new WebSocket(url.replace('wss://', 'wss://${principal}:' + secret + '@'))`;

const ways: readonly Way[] = [
  { credential: 'cookie', kind: 'session', open: '(url) => new WebSocket(url)' },
  {
    credential: 'query',
    kind: 'ticket',
    open: `(url, ticket) => new WebSocket(url + '?ticket=' + ticket)`,
    openOwn: `(url) => { ${inAddress} return openWithTicket(url); }`,
  },
  { credential: 'firstMessage', kind: 'ticket', open: `(url, ticket) => { ${inMessage} return socket; }` },
  {
    credential: 'subprotocol',
    kind: 'ticket',
    open: `(url, ticket) => { ${inProtocol} return socket; }`,
    protocol: 'chat.example',
  },
  {
    credential: 'subprotocol',
    kind: 'token',
    open: `(url, token) => new WebSocket(url, ['${jupyter}', '${jupyter}.' + token])`,
    protocol: jupyter,
  },
  { credential: 'basic', kind: 'ticket', open: withPassword },
  { credential: 'basic', kind: 'token', open: withPassword },
];

/** Message of a browser's console for a handshake that is rejected by HTTP. */
const rejectedHandshake = /Unexpected response code: 403|can’t establish a connection/;

/** In Firefox, the ways that its pages use most. */
function waysIn(browser: string): readonly Way[] {
  const frequent: readonly Credential[] = ['cookie', 'query', 'firstMessage'];
  return browser === 'Firefox' ? ways.filter(({ credential }) => frequent.includes(credential)) : ways;
}

const rejections = ['http', 'close'] as const;

/** What a page hears first: a message, or that the socket is closed. */
type Heard =
  | { readonly said: string; readonly protocol: string }
  | { readonly code: number; readonly reason: string; readonly protocol: string };

/** What a page sees of an answer that is no socket. */
const nothing: Heard = { code: 1006, reason: '', protocol: '' };

interface Arrived {
  readonly origin: string | undefined;
  readonly hasCookie: boolean;
  readonly authorization: string | undefined;
}

/** Sockets for each credential, refusing in each way, and what comes to them. */
class Sockets {
  readonly waa: WAA;
  readonly arrived: Arrived[] = [];
  /** Whose sockets the application was given. */
  readonly opened: (string | undefined)[] = [];
  readonly #domain: Domain;
  /** The same application, with a clock that is hours behind. */
  readonly #past: WAA;
  readonly #wss = new WebSocketServer({ noServer: true });

  constructor(domain: Domain, config: Config) {
    this.#domain = domain;
    this.waa = createWAA(config);
    this.#past = createWAA({ ...config, now: longAgo });
    const { server } = domain.application;
    server.prependListener('upgrade', ({ headers: { origin, cookie, authorization } }: IncomingMessage) => {
      this.arrived.push({ origin, hasCookie: cookie?.includes(`${sessionCookie}=`) === true, authorization });
    });
    for (const credential of new Set(ways.map((way) => way.credential))) {
      for (const rejection of rejections) {
        const options = { path: `/${credential}/${rejection}`, credentials: [credential], rejection };
        acceptUpgrades(server, this.#wss, this.waa, options);
      }
    }
    this.#wss.on('connection', (socket, request) => {
      this.opened.push(request.auth?.principal);
      socket.send(`for ${request.auth?.principal}`);
      socket.on('message', async (data) => socket.send(await renew(request, JSON.parse(`${data}`).ticket)));
    });
  }

  reset(): void {
    this.arrived.length = 0;
    this.opened.length = 0;
  }

  /** Something good, of somebody who has that session. */
  async give(kind: Kind, session: string): Promise<{ readonly secret: string; readonly end: () => Promise<unknown> }> {
    if (kind === 'token') {
      const { token, handle } = await this.waa.tokens.create(aToken);
      return { secret: token, end: () => this.waa.tokens.revoke(principal, handle) };
    }
    const secret = kind === 'session' ? session : (await this.waa.makeTicket(session)).ticket;
    return { secret, end: () => this.waa.endSession(this.waa.openSession(session)) };
  }

  /** Something that was good once, hours ago. */
  async giveOld(kind: Kind, session: string): Promise<string> {
    if (kind === 'ticket') return (await this.#past.makeTicket(session)).ticket;
    if (kind === 'token') return (await this.#past.tokens.create(aToken)).token;
    const { location, nonce } = this.#past.startLogin('/');
    const encoded = this.#domain.wls.respond(location, { principal, issue: longAgo() });
    return (await this.#past.finishLogin(encoded, nonce)).cookie as string;
  }

  async close(): Promise<void> {
    for (const socket of this.#wss.clients) socket.terminate();
    await Promise.all([this.waa.close(), this.#past.close()]);
  }
}

const aToken = { principal, name: 'a test', ttl: 600, ptags: ['current'] };

/** What is wrong, what was used up or ended, and what is too old: how each is refused, as far as a page is told. */
const codes: Record<Kind, readonly string[]> = {
  session: ['ERR_SESSION_INVALID', 'ERR_SESSION_REVOKED', 'ERR_SESSION_EXPIRED'],
  ticket: Array(3).fill('ERR_TOKEN_INVALID'),
  token: Array(3).fill('ERR_TOKEN_INVALID'),
};

const nonsense: Record<Kind, string> = {
  session: 'x'.repeat(100),
  ticket: 'x'.repeat(43),
  token: `ucwa_${'x'.repeat(43)}`,
};

describe.each(installedBrowsers())('sockets of pages under cam.ac.uk, in $name', ({ name, executablePath }) => {
  let domain: Domain;
  let sockets: Sockets;
  let config: Config;
  const routes: Routes = (server, _auth, complete) => {
    config = complete;
    server.get('/page', answer);
  };
  beforeAll(async () => {
    domain = await startDomain(executablePath, answer, routes);
    sockets = new Sockets(domain, config);
  });
  afterAll(async () => {
    await sockets?.close();
    await domain?.close();
  });

  /** A test with somebody who is logged in, and on the application's page, or on another. */
  function visit(test: (page: Page, session: string, context: BrowserContext) => Promise<void>, to = `${app}/page`) {
    return async () => {
      const session = await logIn(domain, principal);
      await inBrowser(domain, { [sessionCookie]: session }, async (page, context) => {
        sockets.reset();
        await page.goto(to);
        await test(page, session, context);
      });
    };
  }

  /** What was refused, and why. */
  function refusals(): (string | undefined)[] {
    return domain.application.events.filter(({ event }) => event === 'refused').map(({ code }) => code);
  }

  for (const way of waysIn(name)) {
    const { credential, kind, open, protocol = '' } = way;
    const path = (rejection: (typeof rejections)[number]) => `/${credential}/${rejection}`;
    const welcome: Heard = { said: `for ${principal}`, protocol };

    describe(`${credential}, with a ${kind}`, () => {
      it(
        "opens for the application's own page, until it is ended, and for nothing that is wrong, over or too old",
        visit(async (page, _session, context) => {
          for (const rejection of rejections) {
            const session = await logIn(domain, principal);
            await setSession(context, session);
            const { secret, end } = await sockets.give(kind, session);
            const spoilt = [nonsense[kind], secret, await sockets.giveOld(kind, session)];
            expect(await listen(page, ownOf(way), path(rejection), secret)).toEqual(welcome);
            // If that was a ticket of its own, this uses up the other.
            expect(await listen(page, open, path(rejection), secret)).toEqual(welcome);
            await end();
            const reason = 'ERR_SESSION_REVOKED: the session was ended';
            expect(await page.evaluate('ended')).toEqual({ code: 4401, reason, protocol });

            const heard: Heard[] = [];
            for (const bad of spoilt) {
              if (kind === 'session') await setSession(context, bad);
              heard.push(await listen(page, open, path(rejection), bad));
            }
            expect(heard).toEqual(codes[kind].map((code) => refusalOf(credential, rejection, code)));
          }
          // Chromium sends no password before it is asked for one.
          const refused = refusals().filter((code) => code !== 'ERR_SESSION_MISSING');
          expect(refused).toEqual([...codes[kind], ...codes[kind]]);
          expect(sockets.opened).toEqual(Array(4).fill(principal));
        }),
      );

      it(
        'opens for no page of a sibling and in no sandbox, which all that is stolen does not help',
        visit(async (page, session, context) => {
          const complaints = new Complaints(context);
          const { secret } = await sockets.give(kind, session);
          const expectRefused = async (place: Page | Frame, origin: string) => {
            for (const rejection of rejections) {
              expect(await listen(place, open, path(rejection), secret)).toEqual(nothing);
            }
            // Its visitor's cookies come by themselves from a sibling; a password is not even asked for.
            const arrived = { origin, hasCookie: origin === sibling, authorization: undefined };
            expect(sockets.arrived.splice(0)).toEqual([arrived, arrived]);
          };
          await expectRefused(page, sibling);
          await expectRefused(await sandboxIn(page), 'null');
          await page.goto(`${app}/page`);
          await expectRefused(await sandboxIn(page), 'null');
          expect(refusals()).toEqual(Array(6).fill('ERR_ORIGIN_REFUSED'));
          complaints.expect(rejectedHandshake);
          complaints.expectNone();
          expect(sockets.opened).toEqual([]);
          // It was good, and nobody used it up.
          expect(await listen(page, open, path('http'), secret)).toEqual(welcome);
        }, sibling),
      );

      // Those two come in as cookies and tokens do.
      if (credential === 'query' || credential === 'basic') return;
      it(
        'goes on by a ticket of another session when the first is over',
        visit(async (page, session, context) => {
          const { secret, end } = await sockets.give(kind, session);
          expect(await listen(page, open, path('http'), secret)).toEqual(welcome);
          const ending = await context.newPage();
          await ending.goto(`${app}/page`);
          const other = await sockets.give(kind, session);
          expect(await listen(ending, open, path('http'), kind === 'ticket' ? other.secret : secret)).toEqual(welcome);

          const someone = await sockets.waa.makeTicket(await logIn(domain, 'test0002'));
          expect(await ask(page, someone.ticket)).toBe('ERR_PRINCIPAL_REFUSED');
          expect(await ask(page, someone.ticket)).toBe('ERR_TOKEN_INVALID');
          const next = await logIn(domain, principal);
          await setSession(context, next);
          expect(await page.evaluate(`(${fetchTicket})().then((ticket) => (${say})(ticket))`)).toBe('renewed');
          await end();
          expect(await ending.evaluate('ended')).toMatchObject({ code: 4401 });
          expect(await ask(page, 'x')).toBe('ERR_TOKEN_INVALID');
          await sockets.waa.endSession(sockets.waa.openSession(next));
          expect(await page.evaluate('ended')).toMatchObject({ code: 4401 });
        }),
      );
    });
  }

  describe.skipIf(name !== 'Firefox')('a second password in an address', () => {
    it(
      'is not sent by Firefox, which sends the first one instead',
      visit(async (page, session) => {
        const tickets = [await sockets.give('ticket', session), await sockets.give('ticket', session)];
        const [first, second] = tickets.map(({ secret }) => secret) as [string, string];
        expect(await listen(page, withPassword, '/basic/http', first)).toMatchObject({ said: `for ${principal}` });
        expect(await listen(page, withPassword, '/basic/http', second)).toMatchObject({ code: 1006 });
        const sent = sockets.arrived.map(({ authorization }) => authorization);
        const encoded = Buffer.from(`${principal}:${first}`).toString('base64');
        expect(new Set(sent)).toEqual(new Set([undefined, `Basic ${encoded}`]));
        expect((await sockets.waa.takeTicket(second)).principal).toBe(principal);
      }),
    );
  });

  // Firefox sends the password that it has cached in place of that of the address.
  describe.skipIf(name === 'Firefox')('a password that the browser keeps', () => {
    const plain = '(url) => new WebSocket(url)';

    it(
      'is sent from the pages of a sibling, too, where it opens nothing',
      visit(async (page, session, context) => {
        const { secret } = await sockets.give('token', session);
        const authorization = `Basic ${Buffer.from(`${principal}:${secret}`).toString('base64')}`;
        const own = { origin: app, hasCookie: true };
        expect(await listen(page, withPassword, '/basic/http', secret)).toMatchObject({ said: `for ${principal}` });
        expect(sockets.arrived.splice(0)).toEqual([
          { ...own, authorization: undefined },
          { ...own, authorization },
        ]);
        domain.application.events.length = sockets.opened.length = 0;

        const complaints = new Complaints(context);
        await page.goto(sibling);
        for (const rejection of rejections) {
          expect(await listen(page, plain, `/basic/${rejection}`)).toEqual(nothing);
          expect(sockets.arrived.splice(0)).toEqual([{ origin: sibling, hasCookie: true, authorization }]);
        }
        const sandbox = await sandboxIn(page);
        expect(await listen(sandbox, plain, '/basic/http')).toEqual(nothing);
        expect(sockets.arrived.splice(0)).toEqual([{ origin: 'null', hasCookie: false, authorization: undefined }]);
        expect(refusals()).toEqual(Array(3).fill('ERR_ORIGIN_REFUSED'));
        expect(sockets.opened).toEqual([]);
        complaints.expect(/Unexpected response code: 403/);
        complaints.expectNone();

        // The password was not to blame.
        await page.goto(`${app}/page`);
        expect(await listen(page, plain, '/basic/http')).toMatchObject({ said: `for ${principal}` });
        expect(sockets.arrived).toEqual([{ ...own, authorization }]);
      }),
    );

    it(
      'is not asked for where a stranger knocks',
      visit(async (page, _session, context) => {
        for (const rejection of rejections) {
          const path = `/basic/${rejection}`;
          const [asked, refused] = [new Complaints(context), new Complaints(context)];
          await page.goto(`${app}/page`);
          expect(await listen(page, plain, path)).toEqual(nothing);
          asked.expect(/HTTP Authentication failed/);
          await page.goto(sibling);
          expect(await listen(page, plain, path)).toEqual(nothing);
          refused.expect(/Unexpected response code: 403/);
          const challenge = `Basic realm="${app}", charset="UTF-8"`;
          expect(await knock(domain, path, app)).toEqual([401, challenge]);
          expect(await knock(domain, path, sibling)).toEqual([403, undefined]);
        }
        expect(sockets.opened).toEqual([]);
      }),
    );
  });
});

/** What a page is told of a refusal: why, or nothing. */
function refusalOf(credential: Credential, rejection: string, code: string | undefined): Heard {
  const tells = credential === 'firstMessage' || (rejection === 'close' && credential !== 'subprotocol');
  return tells ? { code: 4401, reason: expect.stringMatching(`^${code}: `), protocol: '' } : nothing;
}

/** A page of the application's, and all that a sibling serves. */
function answer(_: IncomingMessage, response: ServerResponse): void {
  const page = '<!doctype html><link rel="icon" href="data:,"><title>Page</title>';
  response.writeHead(200, { 'Content-Type': 'text/html' }).end(page);
}

function longAgo(): Date {
  return new Date(Date.now() - 3 * 3600 * 1000);
}

/** The programs for browsers in a section of the documentation. */
function snippets(section: string): string[] {
  const text = readFileSync(new URL('../../docs/websockets.md', import.meta.url), 'utf8');
  const [own = ''] = text.split(`## ${section}\n`)[1]?.split('\n## ') ?? [];
  return [...own.matchAll(/```js\n(.*?)```/gs)].map(([, program]) => program as string);
}

/** Passes on what a page sends: what became of it. */
async function renew({ auth }: IncomingMessage, ticket: string): Promise<string> {
  try {
    await auth?.renew?.(ticket);
    return 'renewed';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const fetchTicket = `async () => (await (await fetch('/webauth/ticket', { method: 'POST' })).json()).ticket`;

/** Sends something through the page's socket: what is said to it, or how it was closed. */
const say = `(ticket) => new Promise((resolve) => {
  ended.then(resolve);
  socket.onmessage = ({ data }) => resolve(data);
  socket.send(JSON.stringify({ ticket }));
})`;

function ask(page: Page, ticket: string): Promise<unknown> {
  return page.evaluate(`(${say})('${ticket}')`);
}

/** What a page does that fetches its ticket by itself. It has to be given everything else. */
function ownOf({ kind, open, openOwn = open }: Way): string {
  if (kind !== 'ticket' || openOwn !== open) return openOwn;
  return `async (url) => (${open})(url, await (${fetchTicket})())`;
}

/** Opens a socket of the application in a page: what that hears first. */
function listen(page: Page | Frame, open: string, path: string, secret = ''): Promise<Heard> {
  return page.evaluate(`(async () => {
    const socket = globalThis.socket = await (${open})('${host}${path}', '${secret}');
    const { promise: said, resolve } = Promise.withResolvers();
    socket.onmessage = ({ data }) => resolve({ said: data, protocol: socket.protocol });
    globalThis.ended = new Promise((resolve) => {
      socket.onclose = ({ code, reason }) => resolve({ code, reason, protocol: socket.protocol });
    });
    return Promise.race([said, ended]);
  })()`);
}

/** Puts a frame into a page, of no origin. */
async function sandboxIn(page: Page): Promise<Frame> {
  await page.setContent('<iframe sandbox="allow-scripts" srcdoc="<title>Sandbox</title>"></iframe>');
  return page.frames().at(-1) as Frame;
}

async function setSession(context: BrowserContext, value: string): Promise<void> {
  await context.addCookies([{ name: sessionCookie, value, url: app, secure: true, httpOnly: true, sameSite: 'Lax' }]);
}

/** Knocks as a page of that origin does, without anything: the status of the answer, and what it asks for. */
function knock({ port, certificate }: Domain, path: string, origin: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://127.0.0.1:${port}${path}`, { ...directly(certificate), headers: { origin } });
    socket.once('unexpected-response', (_, response: IncomingMessage) => {
      resolve([response.statusCode, response.headers['www-authenticate']]);
      response.destroy();
    });
    socket.once('open', () => reject(new Error('it was let in')));
    socket.once('error', reject);
  });
}
