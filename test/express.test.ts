import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import cookieParser from 'cookie-parser';
import express from 'express';
import express4 from 'express4';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config, LogEvent } from '../src/config.js';
import { SessionError } from '../src/errors.js';
import { webauth } from '../src/express/index.js';
import type { AuthResponse } from '../src/response.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';

const secret = 'a1'.repeat(32);
const start = Date.parse('2026-03-01T12:00:00Z');
let time = start;
const now = () => new Date(time);
const wls = createWLS({ key: wlsKey.privateKey, now });
beforeEach(() => {
  time = start;
});

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly location: string;
}

/** A browser, as far as it matters here: it keeps cookies, and follows nothing by itself. */
class Browser {
  readonly cookies = new Map<string, string>();
  readonly base: string;
  constructor(base: string) {
    this.base = base;
  }

  async get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('GET', path, { accept: 'text/html', ...headers });
  }

  async send(method: string, path: string, headers: Record<string, string | string[]> = {}): Promise<Answer> {
    const cookie = [...this.cookies].map((pair) => pair.join('=')).join('; ');
    // Not fetch: it would repair the path, and forbids some headers.
    const { hostname, port } = new URL(this.base);
    const request = httpRequest({
      hostname,
      port,
      method,
      path,
      headers: { ...(cookie && { cookie }), ...headers },
      agent: false,
    });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response) text += chunk;
    const answer = new Headers();
    for (let i = 0; i < response.rawHeaders.length; i += 2) {
      answer.append(response.rawHeaders[i] as string, response.rawHeaders[i + 1] as string);
    }
    this.#keep(answer.getSetCookie());
    return { status: response.statusCode as number, headers: answer, text, location: answer.get('location') ?? '' };
  }

  /** Goes to a guarded page, has the login service answer, and comes back; the answer is that of the callback. */
  async logIn(path = '/private', overrides: Partial<AuthResponse> = {}): Promise<Answer> {
    const { location } = await this.get(path);
    return this.get(this.callback(location, overrides));
  }

  /** The path at which the login service's answer arrives. */
  callback(location: string, overrides: Partial<AuthResponse> = {}): string {
    return `/webauth/callback?WLS-Response=${encodeURIComponent(wls.respond(location, overrides))}`;
  }

  #keep(lines: string[]): void {
    for (const line of lines) {
      const [name, value] = (line.split(';')[0] as string).split('=') as [string, string];
      if (/Max-Age=0/.test(line)) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
  }
}

describe.each([
  ['Express 5', express],
  ['Express 4', express4],
])('%s', (_, framework) => {
  let base: string;
  let waa: WAA;
  let events: LogEvent[];
  let browser: Browser;
  const server = createServer();

  beforeAll(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.close();
    server.closeAllConnections();
  });
  beforeEach(() => serve());
  afterEach(() => vi.unstubAllEnvs());

  /** A new application behind the same server. */
  function serve(config: Partial<Config> = {}): void {
    events = [];
    waa = createWAA({ baseUrl: base, secret, wls: wls.profile, now, log: (event) => events.push(event), ...config });
    const auth = webauth(waa);
    const app = framework();
    app.use(auth);
    app.get('/', (request, response) => void response.send(request.auth?.principal ?? 'nobody'));
    app.get(
      '/private',
      auth.require(),
      (request, response) => void response.send(`private to ${request.auth?.principal}`),
    );
    app.get('/one', auth.require({ principals: ['test0002'] }), (_request, response) => void response.send('one'));
    app.get('/any', auth.require({ ptags: [] }), (_request, response) => void response.send('any'));
    app.get(
      '/cached',
      auth.require(),
      (_request, response) => void response.set('Cache-Control', 'private, max-age=5').send('x'),
    );
    app.post('/private', auth.require(), (_request, response) => void response.send('posted'));
    const open = auth.require({ origins: ['https://pages.cam.ac.uk'] });
    app.all('/shared', open, (_request, response) => void response.send('shared'));
    app.get('/broken', () => {
      throw new Error('not ours');
    });
    app.use('/sub', auth.require(), (request, response) => void response.send(request.url));
    app.use(auth.failurePage);
    app.use((error: Error, _request: unknown, response: ServerResponse, _next: unknown) => {
      response.statusCode = 599;
      response.end(error.message);
    });
    server.removeAllListeners('request');
    server.on('request', app);
    browser = new Browser(base);
  }

  describe('[login 1] a page without a session', () => {
    it('leads to the login service, and keeps a nonce for half an hour', async () => {
      const { status, location, headers } = await browser.get('/private?a=1');
      expect(status).toBe(303);
      expect(location.startsWith(`${wls.profile.authUrl}?ver=3&url=`)).toBe(true);
      expect(new URL(location).searchParams.get('url')).toBe(`${base}/webauth/callback`);
      expect(headers.get('cache-control')).toBe('no-store');
      expect(headers.getSetCookie()).toEqual([
        expect.stringMatching(/^webauth-login=[\w-]{22}; Path=\/; Max-Age=1800; HttpOnly; SameSite=Lax$/),
      ]);
    });

    it('shares its nonce with other tabs', async () => {
      await browser.get('/private');
      const nonce = browser.cookies.get('webauth-login');
      await browser.get('/private');
      expect(browser.cookies.get('webauth-login')).toBe(nonce);
    });

    it('that was asked for under another name of the host begins at the configured one', async () => {
      const { status, location, headers } = await browser.get('/private?a=1', { host: 'alias.example' });
      expect(status).toBe(303);
      expect(location).toBe(`${base}/webauth/login?return=%2Fprivate%3Fa%3D1&moved=%2F`);
      expect(headers.getSetCookie()).toEqual([]);
      const next = await browser.get(location.slice(base.length));
      expect(next.location.startsWith(wls.profile.authUrl)).toBe(true);
    });

    it('does not go round and round where a proxy rewrites Host', async () => {
      const { location } = await browser.get('/private', { host: 'inside:8080' });
      const next = await browser.get(location.slice(base.length), { host: 'inside:8080' });
      expect(next.location.startsWith(wls.profile.authUrl)).toBe(true);
      const direct = await browser.get('/webauth/login?return=/private', { host: 'inside:8080' });
      expect(direct.location).toBe(`${base}/webauth/login?return=%2Fprivate&moved=%2F`);
    });

    it.each(['x-forwarded-host', 'forwarded', 'x-original-host'])('[X2] does not believe %s', async (name) => {
      const { location } = await browser.get('/private', { [name]: 'evil.example' });
      expect(location).not.toContain('evil');
    });

    it('is 401 with a loginUrl for a program, without redirect or nonce', async () => {
      const programs = [
        { accept: 'application/json' },
        { accept: '*/*' },
        { accept: 'text/html', 'sec-fetch-mode': 'cors' },
        { accept: 'text/html', 'x-requested-with': 'XMLHttpRequest' },
      ];
      for (const headers of programs) {
        const { status, headers: answer, text } = await browser.send('GET', '/private?secret=1', headers);
        expect(status).toBe(401);
        expect(JSON.parse(text)).toEqual({
          error: { code: 'ERR_SESSION_MISSING', message: 'nobody is logged in', loginUrl: '/webauth/login?return=%2F' },
        });
        expect(answer.get('www-authenticate')).toBe(`Ucam-WebAuth realm="${base}"`);
        expect(answer.get('cache-control')).toBe('no-store');
        expect(answer.getSetCookie()).toEqual([]);
      }
    });

    it('comes back to the page of ours that a program was on', async () => {
      const path = async (referer: string) => {
        const { text } = await browser.send('GET', '/private', { accept: 'application/json', referer });
        return new URL(JSON.parse(text).error.loginUrl, base).searchParams.get('return');
      };
      expect(await path(`${base}/app?tab=2`)).toBe('/app?tab=2');
      for (const referer of ['https://evil.example/app', 'nonsense', `${base}.evil.example/`])
        expect(await path(referer)).toBe('/');
    });

    it('[X15] says of a form that nothing was saved', async () => {
      const { status, text } = await browser.send('POST', '/private', { accept: 'text/html', referer: `${base}/form` });
      expect(status).toBe(401);
      expect(text).toContain('What you sent was not saved.');
      expect(text).toContain('action="/webauth/login?return=%2Fform" target="_blank" rel="noopener"');
    });
  });

  describe('[login 2] the callback', () => {
    it('starts a session and goes to the page that was asked for', async () => {
      const { status, location, headers } = await browser.logIn('/private?a=1&a=%C3%A9');
      expect([status, location]).toEqual([303, `${base}/private?a=1&a=%C3%A9`]);
      expect(headers.get('cache-control')).toBe('no-store');
      expect(headers.getSetCookie()).toEqual([
        expect.stringMatching(/^webauth-session=[\w-]{100,900}; Path=\/; HttpOnly; SameSite=Lax$/),
        'webauth-login=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax',
        expect.stringMatching(/^webauth-done=[\w-]{8}; Path=\/; Max-Age=10; HttpOnly; SameSite=Lax$/),
      ]);
      expect((await browser.get('/private')).text).toBe('private to test0001');
      expect((await browser.get('/')).text).toBe('test0001');
      expect((await browser.get('/sub/path?x=1')).text).toBe('/path?x=1');
    });

    it('takes GET only', async () => {
      const { location } = await browser.get('/private');
      const path = browser.callback(location);
      for (const method of ['HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
        const { status, headers } = await browser.send(method, path);
        expect([method, status, headers.get('allow')]).toEqual([method, 405, 'GET']);
        expect(headers.getSetCookie()).toEqual([]);
      }
      expect((await browser.get(path)).status).toBe(303);
    });

    it('replaces the session that was there, whose cookie opens nothing any more', async () => {
      await browser.logIn();
      const old = browser.cookies.get('webauth-session') as string;
      const { location } = await browser.get('/webauth/login?return=/');
      expect(location).toBe(`${base}/`);
      const other = new Browser(base);
      const begun = await other.get('/private');
      browser.cookies.set('webauth-login', other.cookies.get('webauth-login') as string);
      await browser.get(browser.callback(begun.location, { principal: 'test0002' }));
      expect((await browser.get('/')).text).toBe('test0002');
      other.cookies.set('webauth-session', old);
      expect((await other.get('/')).text).toBe('nobody');
    });

    it('refuses a response that was used, and the session made from it stays', async () => {
      const { location } = await browser.get('/private');
      const nonce = browser.cookies.get('webauth-login') as string;
      const path = browser.callback(location);
      expect((await browser.get(path)).status).toBe(303);
      browser.cookies.set('webauth-login', nonce);
      const again = await browser.get(path);
      expect(again.status).toBe(400);
      expect(again.text).toContain('ERR_RESPONSE_REPLAYED');
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('[F6] [V10] [X14] tells of blocked cookies, and does not try again by itself', async () => {
      const { location } = await browser.get('/private');
      browser.cookies.clear();
      const { status, text, headers } = await browser.get(browser.callback(location));
      expect(status).toBe(400);
      expect(text).toContain('Allow cookies for this site');
      expect(text).toContain('another tab');
      expect(text).toContain('half an hour');
      expect(headers.getSetCookie()).toEqual([]);
    });

    it('[login 3] sends a second tab of the same person on, and changes nothing', async () => {
      const { location } = await browser.get('/private?tab=2');
      await browser.logIn();
      const session = browser.cookies.get('webauth-session');
      const done = await browser.get(browser.callback(location));
      expect([done.status, done.location]).toEqual([303, `${base}/private?tab=2`]);
      expect(done.headers.getSetCookie()).toEqual([]);
      expect(browser.cookies.get('webauth-session')).toBe(session);
      expect((await browser.get('/')).text).toBe('test0001');
      const other = await browser.get(browser.callback(location, { principal: 'test0002' }));
      expect([other.status, other.text.includes('ERR_COOKIES_BLOCKED')]).toEqual([400, true]);
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('[X5] looks at the url field, not at the address that the browser came to', async () => {
      // Goose writes the query of the address anew; what counts is signed.
      const { location } = await browser.get('/private');
      const path = browser.callback(location).replace('?', '?blank&extra=+x&');
      expect((await browser.get(path)).status).toBe(303);
    });
  });

  describe('[login 4] a failure', () => {
    it.each([
      [410, 'Login cancelled'],
      [510, 'not available'],
      [530, 'does not understand'],
      [540, 'log in yourself'],
      [560, 'may not use the login service'],
      [570, 'declined'],
    ] as const)('[X16] with status %i is a page in plain words', async (status, words) => {
      const { status: http, text, headers } = await browser.logIn('/private?x=1', { status, msg: '<b>because</b>' });
      expect(http).toBe(401);
      expect(text).toContain(words);
      expect(text).toContain('&#60;b&#62;because&#60;/b&#62;');
      expect(text).toContain('action="/webauth/login?return=%2Fprivate%3Fx%3D1"');
      expect(text).not.toMatch(/\bat .*\.(ts|js):\d/);
      expect(headers.get('cache-control')).toBe('no-store');
    });

    it('with status 520, in version 1, is a page too', async () => {
      const { status, text } = await browser.logIn('/private', { ver: 1, status: 520 });
      expect([status, text.includes('ERR_WLS_VERSION')]).toEqual([401, true]);
    });

    it('[F5] [X11] leaves the present session alone, signed or not', async () => {
      await browser.logIn();
      const session = browser.cookies.get('webauth-session');
      const other = new Browser(base);
      const { location } = await other.get('/private');
      browser.cookies.set('webauth-login', other.cookies.get('webauth-login') as string);
      for (const overrides of [{}, { kid: '', sig: undefined }] as Partial<AuthResponse>[]) {
        const { status, headers } = await browser.get(browser.callback(location, { status: 410, ...overrides }));
        expect(status).toBe(401);
        expect(headers.getSetCookie()).toEqual([]);
      }
      expect(browser.cookies.get('webauth-session')).toBe(session);
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('is JSON for programs', async () => {
      const { status, text } = await browser.send('GET', '/webauth/callback', { accept: 'application/json' });
      expect(status).toBe(400);
      expect(JSON.parse(text)).toEqual({
        error: { code: 'ERR_RESPONSE_MALFORMED', message: 'the query holds no WLS-Response' },
      });
    });

    it('shows nothing of our pages in frames, and runs no scripts', async () => {
      for (const path of ['/webauth/callback', '/webauth/logout']) {
        const { headers } = await browser.get(path);
        const policy = headers.get('content-security-policy') ?? '';
        expect(policy).toContain("default-src 'none'");
        expect(policy).toContain("script-src 'none'");
        expect(policy).toContain("frame-ancestors 'none'");
        expect(headers.get('x-frame-options')).toBe('DENY');
        expect(headers.get('referrer-policy')).toBe('same-origin');
        expect(headers.get('cache-control')).toBe('no-store');
      }
    });

    it('of somebody else goes to the next error handler', async () => {
      expect(await browser.get('/broken')).toMatchObject({ status: 599, text: 'not ours' });
    });

    it('without our page is still a sensible answer of Express', async () => {
      const app = framework();
      app.set('env', 'test');
      app.use(webauth(waa));
      server.removeAllListeners('request');
      server.on('request', app);
      expect((await browser.get('/webauth/callback')).status).toBe(400);
    });
  });

  describe('[login 5] never a loop', () => {
    it('where the browser loses the session: one visit to the login service, then a page that says so', async () => {
      await browser.logIn();
      browser.cookies.delete('webauth-session');
      const { status, text } = await browser.get('/private?x=1');
      expect(status).toBe(400);
      expect(text).toContain('ERR_COOKIES_BLOCKED');
      expect(text).toContain('action="/webauth/login?return=%2Fprivate%3Fx%3D1"');
      // A person may try again, though; and logging out is no such loss.
      const pressed = await browser.send('POST', '/webauth/login?return=/private', { origin: base });
      expect(pressed.location.startsWith(wls.profile.authUrl)).toBe(true);
      // A script may not, again and again.
      for (const user of [{}, { 'sec-fetch-user': '?1' }] as const) {
        const sent = { 'sec-fetch-mode': 'navigate', ...user };
        const assigned = await browser.get('/webauth/login?return=/private', sent);
        expect([assigned.status, assigned.text.includes('ERR_COOKIES_BLOCKED')]).toEqual([400, true]);
      }
      await browser.send('POST', '/webauth/logout', { origin: base });
      expect((await browser.get('/private')).status).toBe(303);
    });

    it('where another process, with a store of its own, gets every other request', async () => {
      await browser.logIn();
      serveAgain();
      expect((await browser.get('/private')).status).toBe(400);
    });

    it('by way of another name of the host', async () => {
      await browser.logIn();
      browser.cookies.delete('webauth-session');
      const done = browser.cookies.get('webauth-done') as string;
      browser.cookies.clear();
      const { location } = await browser.get('/private', { host: 'alias.example' });
      browser.cookies.set('webauth-done', done);
      expect((await browser.get(location.slice(base.length))).status).toBe(400);
    });

    function serveAgain(): void {
      const { cookies } = browser;
      serve();
      for (const [name, value] of cookies) browser.cookies.set(name, value);
    }
  });

  describe('[login 5] never a loop of step-ups', () => {
    const ask = (demands: string) => browser.get(`/webauth/login?return=%2F${demands}`);
    const sso = { auth: '', sso: ['pwd'] };

    it('lets a person who has just logged in go on to a page that asks for more, or for something else', async () => {
      await browser.logIn('/private', sso);
      await browser.get(browser.callback((await ask('&aauth=x-card')).location, { auth: '', sso: ['x-card'] }));
      expect((await ask('&iact=yes')).location).toContain(wls.url);
    });

    it('where two pages in turn ask for what the other one does not get', async () => {
      await browser.logIn('/private', sso);
      const visits: string[] = [];
      for (const type of ['x-one', 'x-two', 'x-one']) {
        const answer = await ask(`&aauth=${type}`);
        visits.push(answer.status === 303 ? type : (/ERR_\w+/.exec(answer.text)?.[0] ?? ''));
        if (answer.status === 303) await browser.get(browser.callback(answer.location, { auth: '', sso: [type] }));
      }
      expect(visits).toEqual(['x-one', 'x-two', 'ERR_IACT_UNSATISFIED']);
    });
  });

  describe('[login 5] never a loop behind a proxy that rewrites Host', () => {
    const elsewhere = { accept: 'text/html', host: 'inside.example', 'sec-fetch-user': '?1' };

    /** Follows redirects as a browser does; the login service answers by itself. Counts its visits. */
    async function follow(path: string, lose: string[]): Promise<{ readonly answer: Answer; readonly visits: number }> {
      let answer = await browser.send('GET', path, elsewhere);
      let visits = 0;
      for (let hops = 0; answer.status === 303; hops++) {
        expect(hops).toBeLessThan(12);
        for (const name of lose) browser.cookies.delete(name);
        const atService = answer.location.startsWith(wls.url);
        visits += atService ? 1 : 0;
        const { pathname, search } = new URL(answer.location);
        const sso = { auth: '', sso: ['pwd'] };
        const next = atService ? browser.callback(answer.location, sso) : pathname + search;
        answer = await browser.send('GET', next, elsewhere);
      }
      return { answer, visits };
    }

    it('where the session is lost, though a click began it', async () => {
      const { answer, visits } = await follow('/webauth/login?return=%2Fprivate', ['webauth-session']);
      expect([answer.status, visits]).toEqual([400, 1]);
      expect(answer.text).toContain('ERR_COOKIES_BLOCKED');
    });

    it('where the process that serves the page does not know the sessions of the one that serves the login', async () => {
      await browser.logIn();
      browser.cookies.delete('webauth-done');
      const knows = waa.openSession.bind(waa);
      // Another process, with a store of its own, has every page but the login route.
      vi.spyOn(waa, 'openSession').mockImplementation((cookie) => {
        if (asked.at(-1)?.startsWith('/private'))
          throw new SessionError('ERR_SESSION_REVOKED', 'the session was ended');
        return knows(cookie);
      });
      const asked: string[] = [];
      server.prependListener('request', ({ url = '' }: IncomingMessage) => void asked.push(url));
      const { answer, visits } = await follow('/private', []);
      expect([answer.status, visits]).toEqual([400, 0]);
      expect(answer.text).toContain('ERR_COOKIES_BLOCKED');
    });
  });

  describe('what somebody else sends people to', () => {
    const nonsense = 'Your account was suspended. Ring 01223 000000';

    it('is no failure in words of theirs: not with a token that anybody can have made', async () => {
      const { location } = await new Browser(base).get('/private');
      await browser.logIn();
      const forged = browser.callback(location, { status: 570, msg: nonsense, kid: '', sig: undefined as never });
      const answer = await browser.get(forged);
      expect([answer.status, answer.text]).toEqual([400, expect.stringContaining('ERR_COOKIES_BLOCKED')]);
      expect(answer.text).not.toContain('01223');
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('is not shown either where it answers a login of this browser, unless the login service signed it', async () => {
      const { location } = await browser.get('/private');
      const unsigned = browser.callback(location, { status: 570, msg: nonsense, kid: '', sig: undefined as never });
      const answer = await browser.get(unsigned);
      expect([answer.status, answer.text]).toEqual([401, expect.stringContaining('ERR_WLS_DECLINED')]);
      expect(answer.text).not.toContain('01223');
      const signed = await browser.get(browser.callback(location, { status: 570, msg: 'Ask the help desk.' }));
      expect(signed.text).toContain('Ask the help desk.');
    });
  });

  describe('next to other things', () => {
    it('leaves cookies to the application’s own parser', async () => {
      const auth = webauth(waa);
      const app = framework();
      app.use(auth);
      app.use(cookieParser('a secret of the application'));
      app.get('/private', auth.require(), (request, response) => void response.json({ ...request.signedCookies }));
      server.removeAllListeners('request');
      server.on('request', app);
      await browser.logIn();
      const value = `s:1.${createHmac('sha256', 'a secret of the application').update('1').digest('base64').replace(/=+$/, '')}`;
      browser.cookies.set('theirs', encodeURIComponent(value));
      expect(JSON.parse((await browser.get('/private')).text)).toEqual({ theirs: '1' });
    });

    it('survives an application that answered first', async () => {
      let release = () => {};
      const answered = new Promise<void>((resolve) => {
        release = resolve;
      });
      serve({ onLogin: () => answered });
      const [handler] = server.listeners('request') as ((request: IncomingMessage, response: ServerResponse) => void)[];
      const errors: unknown[] = [];
      process.on('unhandledRejection', (error) => errors.push(error));
      server.removeAllListeners('request');
      server.on('request', (request, response) => {
        if (request.url?.includes('callback')) setImmediate(() => response.writeHead(503).end('too slow'));
        handler?.(request, response);
      });
      expect((await browser.logIn()).status).toBe(503);
      release();
      await new Promise((resolve) => setImmediate(resolve));
      expect(errors).toEqual([]);
    });

    it('logs out as far as it can where the store is away, and says so', async () => {
      await browser.logIn();
      serveWithoutStore();
      const { status, headers, text } = await browser.send('POST', '/webauth/logout', { origin: base });
      expect([status, headers.get('retry-after')]).toEqual([503, '5']);
      expect(JSON.parse(text).error.code).toBe('ERR_STORE_UNAVAILABLE');
      // It stays, so that the next attempt can revoke the session.
      expect(headers.getSetCookie()).toEqual(['webauth-done=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax']);
    });

    function serveWithoutStore(): void {
      const { cookies } = browser;
      const away = () => Promise.reject(new Error('no route'));
      serve({ store: Object.assign(new MemoryStore({ now }), { mark: away, put: away, list: away }) });
      for (const [name, value] of cookies) browser.cookies.set(name, value);
    }
  });

  describe('require', () => {
    it.each([
      ['/private', {}, 200],
      ['/private', { principal: 'test0401', ptags: [] }, 403],
      ['/any', { principal: 'test0401', ptags: [] }, 200],
      ['/one', {}, 403],
      ['/one', { principal: 'test0002' }, 200],
    ])('%s for %j is %i, and never a redirect once logged in', async (path, overrides, status) => {
      expect((await browser.logIn('/any', overrides)).status).toBe(303);
      const answer = await browser.get(path);
      expect(answer.status).toBe(status);
      if (status === 403) {
        expect(answer.text).toContain('You may not enter here');
        expect(answer.headers.get('cache-control')).toBe('no-store');
        expect((await browser.send('GET', path, { accept: 'application/json' })).text).toMatch(
          /ERR_(PRINCIPAL|PTAGS)_REFUSED/,
        );
      }
    });

    it('has what it guards kept out of shared caches, unless the handler says otherwise', async () => {
      await browser.logIn();
      const { headers } = await browser.get('/private');
      expect([headers.get('cache-control'), headers.get('vary')]).toEqual(['private, no-cache', 'Cookie']);
      expect((await browser.get('/cached')).headers.get('cache-control')).toBe('private, max-age=5');
    });

    it('sets no cookie, on any page, where nothing changes', async () => {
      expect((await browser.get('/')).headers.getSetCookie()).toEqual([]);
      await browser.logIn();
      for (const path of ['/', '/private', '/one', '/webauth/logout'])
        expect((await browser.get(path)).headers.getSetCookie()).toEqual([]);
    });

    it.each([
      ['POST', {}, 403],
      ['POST', { origin: 'https://evil.cam.ac.uk' }, 403],
      ['POST', { origin: 'null' }, 403],
      ['POST', { origin: 'null', 'sec-fetch-site': 'same-site' }, 403],
      ['POST', { origin: 'https://pages.cam.ac.uk' }, 403],
      ['PUT', { origin: 'https://evil.cam.ac.uk' }, 403],
      ['DELETE', { origin: 'https://evil.cam.ac.uk' }, 403],
      ['PATCH', { origin: 'https://evil.cam.ac.uk' }, 403],
      ['POST', { origin: 'OURS' }, 200],
      ['POST', { origin: 'null', 'sec-fetch-site': 'same-origin' }, 200],
    ])('takes what changes something from our own pages only: %s %j is %i', async (method, headers, status) => {
      await browser.logIn();
      const sent = Object.entries(headers).map(([name, value]) => [name, value.replace('OURS', base)]);
      // A route for all methods would take PUT too.
      const path = method === 'POST' ? '/private' : '/shared';
      const answer = await browser.send(method, path, Object.fromEntries(sent));
      expect(answer.status).toBe(status);
      if (status === 403) expect(JSON.parse(answer.text).error.code).toBe('ERR_ORIGIN_REFUSED');
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('takes it from pages of other origins that the route names, and reads from anywhere', async () => {
      await browser.logIn();
      const from = (origin: string) => ({ origin });
      expect((await browser.send('POST', '/shared', from('https://pages.cam.ac.uk'))).text).toBe('shared');
      expect((await browser.send('POST', '/shared', from('https://evil.cam.ac.uk'))).status).toBe(403);
      expect((await browser.send('GET', '/shared', from('https://evil.cam.ac.uk'))).text).toBe('shared');
      expect(() => webauth(waa).require({ origins: ['https://pages.cam.ac.uk/'] })).toThrow('a list of origins');
    });

    it('of a session that has just ended asks for a login, and not for the same person', async () => {
      await browser.logIn();
      const auth = webauth(waa);
      const app = framework().use(auth);
      app.use((request, _response, next) => {
        if (request.auth && request.path === '/private') waa.endSession(request.auth).then(() => next());
        else next();
      });
      app.get('/private', auth.require(), (_request, response) => void response.send('done'));
      app.use(auth.failurePage);
      server.removeAllListeners('request');
      server.on('request', app);
      browser.cookies.delete('webauth-done');
      const { location } = await browser.get('/private');
      const back = await browser.get(browser.callback(location, { principal: 'test0002' }));
      expect([back.status, back.location]).toEqual([303, `${base}/private`]);
    });

    it('looks again when it is reached: what is sent slowly can arrive after the session has ended', async () => {
      await browser.logIn();
      let ended: Promise<void> | undefined;
      const auth = webauth(waa);
      const app = framework().use(auth);
      // As a parser of bodies takes its time.
      app.use((request, _response, next) => {
        ended = waa.endSession(request.auth as Auth);
        ended.then(() => next());
      });
      app.post('/private', auth.require(), (_request, response) => void response.send('done'));
      app.use(auth.failurePage);
      server.removeAllListeners('request');
      server.on('request', app);
      const answer = await browser.send('POST', '/private', { origin: base });
      expect(ended).toBeDefined();
      expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([401, 'ERR_SESSION_REVOKED']);
    });

    it('without the middleware is a mistake that says so, and not a login that cannot end', async () => {
      const app = framework();
      app.get('/private', webauth(makeAnother()).require(), (_request, response) => void response.send('x'));
      app.use((error: Error, _request: unknown, response: ServerResponse, _next: unknown) => {
        response.statusCode = 599;
        response.end(error.message);
      });
      server.removeAllListeners('request');
      server.on('request', app);
      const { status, text } = await browser.get('/private');
      expect([status, text.includes('app.use(webauth(waa))')]).toEqual([599, true]);
    });

    it('goes with the middleware of the same application, made elsewhere', async () => {
      const app = framework();
      app.use(webauth(waa));
      app.get('/private', webauth(waa).require(), (_request, response) => void response.send('x'));
      server.removeAllListeners('request');
      server.on('request', app);
      await browser.logIn();
      expect((await browser.get('/private')).text).toBe('x');
    });

    function makeAnother(): WAA {
      return createWAA({ baseUrl: base, secret, wls: wls.profile, now });
    }

    it('refuses options that it does not know, at once', () => {
      const { require } = webauth(waa);
      for (const options of [
        { principal: ['x'] },
        { ptags: 'current' },
        { principals: 'test0001' },
        { ptags: [1] },
        // What a mistake elsewhere makes of them would let in more people than was meant.
        { principals: undefined },
        { maxAge: undefined },
        { maxAge: 0 },
        { maxAge: 0.5 },
        { maxAge: 60, iact: false },
        { aauth: [] },
        { aauth: ['a,b'] },
        new Map([['principals', ['test0002']]]),
        'current',
        null,
      ]) {
        expect(() => require(options as never), JSON.stringify(options)).toThrow(TypeError);
      }
    });

    it('sends somebody whose session is over to log in again', async () => {
      await browser.logIn('/private', { life: 60 });
      time += 60_000;
      browser.cookies.delete('webauth-done');
      const { status, location } = await browser.get('/private');
      expect([status, location.startsWith(wls.profile.authUrl)]).toEqual([303, true]);
      expect((await browser.send('GET', '/private', { accept: 'application/json' })).text).toContain(
        'ERR_SESSION_EXPIRED',
      );
    });
  });

  describe('[login 9] logging out', () => {
    it('asks first, ends the session, and says what remains', async () => {
      await browser.logIn();
      const old = browser.cookies.get('webauth-session') as string;
      const question = await browser.get('/webauth/logout');
      expect(question.text).toContain('<form method="post" action="/webauth/logout"');
      expect((await browser.get('/')).text).toBe('test0001');
      const done = await browser.send('POST', '/webauth/logout', { origin: base });
      expect([done.status, done.location]).toEqual([303, `${base}/webauth/logout`]);
      expect(browser.cookies.has('webauth-session')).toBe(false);
      const page = await browser.get('/webauth/logout');
      expect(page.text).toContain('You may still be logged in at the login service');
      expect(page.text).toContain(`href="${wls.profile.logoutUrl}"`);
      // A copy of the cookie, kept by a thief.
      browser.cookies.set('webauth-session', old);
      expect((await browser.get('/')).text).toBe('nobody');
      expect((await browser.send('GET', '/private', { accept: 'application/json' })).text).toContain(
        'ERR_SESSION_REVOKED',
      );
    });

    it.each([
      ['no Origin', {}],
      ['a sibling', { origin: 'https://evil.cam.ac.uk' }],
      ['another port', { origin: 'http://127.0.0.1:1' }],
      ['null', { origin: 'null' }],
      ['null from a sibling', { origin: 'null', 'sec-fetch-site': 'same-site' }],
      ['ours with a slash', { origin: 'OURS/' }],
      ['ours in capitals', { origin: 'HTTP://127.0.0.1:PORT' }],
      ['ours twice', { origin: ['OURS', 'OURS'] }],
    ])('is refused from %s, and the session lives', async (_name, headers) => {
      await browser.logIn();
      const fill = (text: string) => text.replace('OURS', base).replace('PORT', new URL(base).port);
      const sent = Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.map(fill) : fill(value)]),
      );
      const { status, text } = await browser.send('POST', '/webauth/logout', sent);
      expect([status, JSON.parse(text).error.code]).toEqual([403, 'ERR_ORIGIN_REFUSED']);
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('works under a strict referrer policy, where the browser vouches for the page', async () => {
      await browser.logIn();
      const { status } = await browser.send('POST', '/webauth/logout', {
        origin: 'null',
        'sec-fetch-site': 'same-origin',
      });
      expect(status).toBe(303);
      expect((await browser.get('/')).text).toBe('nobody');
    });

    it('everywhere, without a session, says that the other sessions go on', async () => {
      const other = new Browser(base);
      await other.logIn();
      const answer = await browser.send('POST', '/webauth/logout?everywhere=yes', { origin: base });
      expect([answer.status, JSON.parse(answer.text).error]).toMatchObject([
        401,
        { code: 'ERR_SESSION_MISSING', loginUrl: '/webauth/login?return=%2Fwebauth%2Flogout' },
      ]);
      expect((await other.get('/')).text).toBe('test0001');
    });

    it('without a session is no error', async () => {
      expect((await browser.send('POST', '/webauth/logout', { origin: base })).status).toBe(303);
      expect((await browser.get('/webauth/logout')).text).toContain('You are logged out');
    });
  });

  describe('bad input', () => {
    const good = () => wls.respond(waa.startLogin('/').location);
    it.each<[string, (encoded: string) => string, number, string]>([
      ['no response', () => '', 400, 'ERR_RESPONSE_MALFORMED'],
      ['an empty one', () => 'WLS-Response=', 400, 'ERR_RESPONSE_MALFORMED'],
      ['a malformed one', () => 'WLS-Response=3!200!x', 400, 'ERR_RESPONSE_MALFORMED'],
      ['an unknown version', () => 'WLS-Response=4!200!x', 400, 'ERR_RESPONSE_VERSION'],
      ['two', (r) => `WLS-Response=${r}&WLS-Response=${r}`, 400, 'ERR_RESPONSE_DUPLICATED'],
      ['two, one in another spelling', (r) => `WLS-Response=${r}&WLS%2dResponse=${r}`, 400, 'ERR_RESPONSE_DUPLICATED'],
      ['a list', (r) => `WLS-Response[]=${r}`, 400, 'ERR_RESPONSE_MALFORMED'],
      ['an object', (r) => `WLS-Response[a]=${r}`, 400, 'ERR_RESPONSE_MALFORMED'],
      ['a list and one', (r) => `WLS-Response[0]=${r}&WLS-Response=${r}`, 400, 'ERR_RESPONSE_DUPLICATED'],
      ['broken percent-encoding', () => 'WLS-Response=%', 400, 'ERR_RESPONSE_MALFORMED'],
      ['bytes that are not UTF-8', () => 'WLS-Response=%ff%fe', 400, 'ERR_RESPONSE_MALFORMED'],
      ['an overlong encoding', () => 'WLS-Response=%c0%af', 400, 'ERR_RESPONSE_MALFORMED'],
      ['over 8 KB', () => `WLS-Response=${'3'.repeat(8193)}`, 400, 'ERR_RESPONSE_MALFORMED'],
    ])('in the response: %s', async (_name, query, status, code) => {
      await browser.logIn();
      events.length = 0;
      const encoded = encodeURIComponent(good());
      const answer = await browser.get(`/webauth/callback?${query(encoded)}`);
      expect([answer.status, answer.text.includes(code)]).toEqual([status, true]);
      expect(answer.headers.getSetCookie()).toEqual([]);
      expect(events.filter(({ event }) => event === 'refused')).toEqual([
        expect.objectContaining({ level: 'warn', code }),
      ]);
      expect(JSON.stringify(events)).not.toContain(encoded.slice(-30));
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it.each<[string, (cookie: string) => string, string]>([
      ['sent twice', (c) => `webauth-session=${c}; webauth-session=${c}`, 'ERR_SESSION_INVALID'],
      ['sent twice with a blank', (c) => `webauth-session=${c};webauth-session =x`, 'ERR_SESSION_INVALID'],
      ['planted before ours', (c) => `webauth-session=planted; a=b; webauth-session=${c}`, 'ERR_SESSION_INVALID'],
      ['not base64url', () => 'webauth-session=<script>', 'ERR_SESSION_INVALID'],
      ['empty', () => 'webauth-session=', 'ERR_SESSION_INVALID'],
      ['broken percent-encoding', () => 'webauth-session=%E0%A4%A', 'ERR_SESSION_INVALID'],
      ['bytes that are not UTF-8', () => 'webauth-session=\u00ff\u00fe', 'ERR_SESSION_INVALID'],
      ['JSON that becomes an object', () => 'webauth-session=j:{"principal":"test0001"}', 'ERR_SESSION_INVALID'],
      ['JSON that becomes a list', () => 'webauth-session=j:["a"]', 'ERR_SESSION_INVALID'],
      ['over 8 KB', () => `webauth-session=${'A'.repeat(8200)}`, 'ERR_SESSION_INVALID'],
      [
        'changed',
        (c) => `webauth-session=${c.slice(0, 80)}${c[80] === 'A' ? 'B' : 'A'}${c.slice(81)}`,
        'ERR_SESSION_INVALID',
      ],
      ['cut', (c) => `webauth-session=${c.slice(0, -3)}`, 'ERR_SESSION_INVALID'],
      [
        'of a secret not in use',
        (c) => `webauth-session=${c.slice(0, 4)}${c[4] === 'A' ? 'B' : 'A'}${c.slice(5)}`,
        'ERR_SESSION_INVALID',
      ],
    ])('in the session cookie: %s', async (name, cookie, code) => {
      await browser.logIn();
      events.length = 0;
      const value = browser.cookies.get('webauth-session') as string;
      const sent = { cookie: cookie(value), accept: 'application/json' };
      const answer = await new Browser(base).send('GET', '/private', sent);
      expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([401, code]);
      // A bad one is cleared; but not where another machine may have a newer secret, or there is a good one beside it.
      const another = name === 'of a secret not in use';
      const kept = another || /twice|planted|JSON/.test(name);
      const cleared = 'webauth-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax';
      expect(answer.headers.getSetCookie()).toEqual(kept ? [] : [cleared]);
      expect(events.filter(({ event }) => event === 'refused')).toEqual([
        expect.objectContaining({ level: 'warn', code }),
      ]);
      expect(JSON.stringify(events)).not.toContain(value.slice(20, 60));
      expect((await new Browser(base).send('GET', '/', sent)).text).toBe('nobody');
      // A person is told too, rather than sent round; with no session, they are sent to log in.
      const page = await new Browser(base).get('/private', sent.cookie ? { cookie: sent.cookie } : {});
      expect(page.status).toBe(another ? 303 : 401);
      // Nothing happened to the session itself.
      expect((await browser.get('/')).text).toBe('test0001');
    });

    it('in the login cookie, sent twice, is refused', async () => {
      const { location } = await browser.get('/private');
      const nonce = browser.cookies.get('webauth-login');
      const cookie = `webauth-login=${nonce}; webauth-login=${nonce}`;
      const answer = await new Browser(base).get(browser.callback(location), { cookie });
      expect([answer.status, answer.text.includes('ERR_SESSION_INVALID')]).toEqual([401, true]);
    });

    it('a cookie whose name only ends or begins like ours is not ours', async () => {
      await browser.logIn();
      const value = browser.cookies.get('webauth-session');
      const cookie = `xwebauth-session=a; webauth-session=${value}; webauth-session2=b; y=webauth-session=`;
      expect((await new Browser(base).send('GET', '/', { cookie })).text).toBe('test0001');
    });

    it.each([
      '//evil.example/private',
      '/\\evil.example',
      'http://evil.example/private',
      '*',
      '/private?\u0001',
      '/%',
      '/private/../%2e%2e',
    ])('a request for %j is answered without a 5xx, and leads nowhere else', async (target) => {
      const answer = await raw(
        `GET ${target} HTTP/1.1\r\nHost: ${new URL(base).host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n`,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 [234]/);
      expect(answer.match(/^Location: (.*)$/im)?.[1] ?? wls.profile.authUrl).toMatch(/^http:\/\/(localhost|127)/);
    });

    it('of any kind gives no 5xx, no session, and no hang', async () => {
      const { location } = await browser.get('/private');
      const pieces = [
        'WLS-Response',
        '=',
        '&',
        '%',
        '!',
        '200',
        '3',
        '[',
        ']',
        '\u00e9',
        '%21',
        ...good().split('!'),
        new URL(location).search,
      ];
      const query = fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string({ unit: 'grapheme-ascii' })), {
        maxLength: 20,
      });
      const cookie = fc.array(
        fc.oneof(
          fc.constantFrom(
            'webauth-session',
            'webauth-login',
            '=',
            ';',
            ' ',
            'j:',
            '%',
            '"',
            ...browser.cookies.values(),
          ),
          fc.string(),
        ),
        { maxLength: 9 },
      );
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom('GET', 'POST', 'HEAD', 'PUT'),
          fc.constantFrom('/webauth/callback', '/webauth/login', '/webauth/logout', '/private', '/'),
          query,
          cookie,
          async (method, path, queryParts, cookieParts) => {
            const line = `${path}?${queryParts.join('')}`.replace(/[^\x21-\x7e]/g, '');
            const header = cookieParts.join('').replace(/[^\x20-\x7e]/g, '');
            const { status, headers } = await new Browser(base).send(method, line, {
              cookie: header,
              accept: 'text/html',
            });
            expect(status).toBeLessThan(500);
            expect(
              headers.getSetCookie().filter((set) => /^webauth-session=./.test(set) && !/Max-Age=0/.test(set)),
            ).toEqual([]);
          },
        ),
        { numRuns: 400, seed: 7 },
      );
    });
  });

  describe('under a path', () => {
    it('serves its routes below it, and comes back to it', async () => {
      serve({ baseUrl: `${base}/private` });
      const { location } = await browser.get('/private');
      expect(new URL(location).searchParams.get('url')).toBe(`${base}/private/webauth/callback`);
      const done = await browser.get(`/private${browser.callback(location)}`);
      expect([done.status, done.location]).toEqual([303, `${base}/private`]);
      expect((await browser.get('/private')).text).toBe('private to test0001');
      // What is no path leads to the application, and not to what else is on the host.
      expect((await browser.get('/private/webauth/login?return=//x')).location).toBe(`${base}/private/`);
    });
  });

  describe('https, behind a proxy', () => {
    it('has cookies that neighbours cannot plant', async () => {
      serve({ baseUrl: 'https://example.cam.ac.uk' });
      const host = { host: 'example.cam.ac.uk' };
      const { headers, location } = await browser.get('/private', host);
      expect(headers.getSetCookie()[0]).toMatch(
        /^__Host-webauth-login=[\w-]{22}; Path=\/; Max-Age=1800; HttpOnly; SameSite=Lax; Secure$/,
      );
      const done = await browser.get(browser.callback(location), host);
      expect(done.location).toBe('https://example.cam.ac.uk/private');
      expect(done.headers.getSetCookie()[0]).toMatch(
        /^__Host-webauth-session=[\w-]+; Path=\/; HttpOnly; SameSite=Lax; Secure$/,
      );
      const value = browser.cookies.get('__Host-webauth-session') as string;
      expect((await browser.get('/')).text).toBe('test0001');
      // Without the prefix it is not ours, whoever set it.
      expect((await new Browser(base).send('GET', '/', { cookie: `webauth-session=${value}` })).text).toBe('nobody');
    });
  });

  /** Sends bytes as they are, and reads to the end. */
  async function raw(bytes: string): Promise<string> {
    const { hostname, port } = new URL(base);
    const socket = connect(Number(port), hostname);
    socket.end(Buffer.from(bytes, 'latin1'));
    let text = '';
    for await (const chunk of socket) text += chunk;
    return text;
  }
});
