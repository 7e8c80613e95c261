import { once } from 'node:events';
import type express from 'express';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { AuthorisationError } from '../src/errors.js';
import { type AuthResponse, type FailureStatus, failures } from '../src/response.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA } from '../src/waa.js';
import { acceptUpgrades } from '../src/websocket/index.js';
import { type Answer, answerTo, Browser, bySingleSignOn, clock, frameworks, type Routes, Site, wls } from './site.js';

const { authUrl, logoutUrl } = wls.profile;

/** Pages that say who sees them, each behind another guard. */
const pages: Routes = (app, auth) => {
  const show: express.RequestHandler = ({ auth: who, originalUrl }, response) =>
    void response.send(`${originalUrl} for ${who?.principal ?? 'nobody'}`);
  app.get('/', show);
  app.get('/private', auth.require(), show);
  app.use('/any', auth.require({ ptags: [] }), show);
  app.use('/staff', auth.require({ iact: true, aauth: ['pwd'] }), show);
  app.use('/fresh', auth.require({ maxAge: 60 }), show);
  app.get('/instant', auth.require({ maxAge: 1 }), show);
  app.get('/card', auth.require({ aauth: ['x-card'] }), show);
  app.get('/quiet', auth.require({ iact: false }), show);
  app.get('/one', auth.require({ principals: ['test0002'], iact: true }), show);
};

const isProgram = { 'sec-fetch-mode': 'cors' };
const clicked = { 'sec-fetch-user': '?1', 'sec-fetch-mode': 'navigate' };

/** What was asked of the login service. */
function asked({ location }: Answer): Record<string, string> {
  expect(location.startsWith(`${authUrl}?`), `a visit to the login service, not to ${location}`).toBe(true);
  return Object.fromEntries(new URL(location).searchParams);
}

function heading({ text }: Answer): string | undefined {
  return /<h1>(.*)<\/h1>/.exec(text)?.[1];
}

/** Where the page's main button leads: a link, or a form that begins a login. */
function button({ text }: Answer): string | undefined {
  const found = /<a class="button main" href="([^"]*)"|<form method="post" action="([^"]*)"[^>]*><button class="main">/;
  const [, link, action] = found.exec(text) ?? [];
  return (link ?? action)?.replaceAll('&#38;', '&');
}

function expectRefused(answer: Answer, status: number, code: string): void {
  expect([answer.status, answer.text.match(/ERR_\w+/)?.[0]]).toEqual([status, code]);
  expect([answer.location, answer.headers.get('refresh'), answer.set]).toEqual(['', null, []]);
  expect(answer.text).not.toMatch(/http-equiv|<script|\bat .*\.[tj]s:\d/);
}

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let browser: Browser;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    serve();
  });

  function serve(...config: Parameters<Site['serve']> extends [unknown, ...infer Rest] ? Rest : never): void {
    site.serve(pages, ...config);
    browser = new Browser(site.address);
  }

  /** Somebody whom the login service let in without asking for a password. */
  async function loggedIn(principal = 'test0001', from = site.address): Promise<Browser> {
    const person = new Browser(site.address, from);
    await person.logIn('/private', { principal, auth: '', sso: ['pwd'] });
    clock.pass(11);
    return person;
  }

  describe('[login 1] where the login service sends people back to', () => {
    it('is the callbackPath that is configured, below the path of baseUrl, whatever was asked for', async () => {
      serve({ baseUrl: `${site.address}/any`, callbackPath: '/back/here' });
      const begun = await browser.get('/any/thing?x=1');
      expect(asked(begun)['url']).toBe(`${site.address}/any/back/here`);
      expect((await browser.get(answerTo(begun.location))).location).toBe(`${site.address}/any/thing?x=1`);
      expect((await new Browser(site.address).get('/any/webauth/callback')).location).toContain(authUrl);
    });

    it('finds the login cookie there after a failure too: another tab can finish', async () => {
      const [one, two] = [await browser.get('/private?1'), await browser.get('/private?2')];
      expectRefused(await browser.get(answerTo(one.location, { status: 410 })), 401, 'ERR_WLS_CANCELLED');
      expect((await browser.get(answerTo(two.location))).location).toBe(`${site.address}/private?2`);
      expect(browser.cookie('webauth-login')).toBeUndefined();
    });

    it('is under the name of baseUrl, to which a step-up moves with all that is demanded', async () => {
      const person = await loggedIn();
      const moved = await person.get('/staff?x=1', { host: 'alias.example' });
      expect(moved.location).toBe(`${site.address}/webauth/login?return=%2Fstaff%3Fx%3D1&iact=yes&aauth=pwd&moved=%2F`);
      expect(moved.set).toEqual([]);
      expect(asked(await person.get(moved.location))).toMatchObject({ iact: 'yes', aauth: 'pwd' });
    });
  });

  describe('[login 1] [login 2] a path is come back to byte for byte', () => {
    const paths = [
      '/any',
      '/any/?',
      '/any/a%20b/%C3%A9t%c3%a9/%E2%82%AC',
      '/any/%2F%2f/%5C/a%2Fb/;v=1/c//d',
      '/any?a=1&a=2&a=&a&&=&b[]=1&b[0]=2&c[d]=3',
      '/any?q=a+b%20c%2Bd&r=%26%3D%25%23&s=%2525',
      '/any?next=https://example.org/?x=1&y=//z\\w',
      "/any?!$'()*,-./:;@_~^`{|}<>",
      '/any?WLS-Response=3!200!!x&return=/private',
      `/any?${'x'.repeat(2043)}`,
    ];

    it.each(paths)('%s, from its page', async (path) => {
      const { status, location } = await browser.logIn(path);
      expect([status, location]).toEqual([303, site.address + path]);
      expect((await browser.get(path)).text).toBe(`${path} for test0001`);
    });

    it.each(paths)('%s, from a link', async (path) => {
      const link = `/webauth/login?return=${encodeURIComponent(path)}`;
      expect((await browser.logIn(link)).location).toBe(site.address + path);
      // Somebody who is logged in goes there at once.
      const at = await browser.get(link);
      expect([at.status, at.location, at.set]).toEqual([303, site.address + path, []]);
    });

    it.each([
      ['at the root', '', '/'],
      ['under a path', '/any', '/any/'],
    ])('of at most 2 KB; otherwise the application is, %s', async (_name, path, home) => {
      for (const length of [2048, 2049]) {
        serve({ baseUrl: site.address + path });
        const long = `/any?${'x'.repeat(length - 5)}`;
        const back = site.address + (length === 2048 ? long : home);
        expect((await browser.logIn(long)).location).toBe(back);
        expect((await browser.get(`${path}/webauth/login?return=${encodeURIComponent(long)}`)).location).toBe(back);
      }
    });
  });

  describe('[login 2] a success', () => {
    it('makes another session than the one that was there, also for the same person', async () => {
      const person = await loggedIn();
      const before = person.cookie('webauth-session') as string;
      await person.logIn('/staff');
      const after = person.cookie('webauth-session') as string;
      const ids = site.events.filter(({ event }) => /^(login|step-up)$/.test(event)).map(({ sessionId }) => sessionId);
      expect(new Set([...ids, before, after]).size).toBe(4);
      person.plant('webauth-session', before);
      expect((await person.fetch('/private')).text).toContain('ERR_SESSION_REVOKED');
    });

    it('is held to what this attempt asked for, and not to what the user made of it', async () => {
      const person = await loggedIn();
      const { location } = await person.get('/staff');
      const weakened = location.replace(/&(?:iact|aauth)=[^&]*/g, '');
      expectRefused(await person.get(answerTo(weakened, { auth: '', sso: ['pwd'] })), 400, 'ERR_IACT_UNSATISFIED');
      expectRefused(await person.get(answerTo(weakened, { auth: 'x-card' })), 400, 'ERR_AUTH_UNACCEPTABLE');
      // It was not used up by that.
      expect((await person.get(answerTo(location))).location).toBe(`${site.address}/staff`);
    });
  });

  describe('[login 2] the sockets of a session that is replaced', () => {
    let wss: WebSocketServer;
    let stop = () => {};
    beforeEach(() => {
      wss = new WebSocketServer({ noServer: true });
      stop = acceptUpgrades(site.server, wss, site.waa, { path: '/live' });
    });
    afterEach(() => {
      stop();
      for (const socket of wss.clients) socket.terminate();
    });

    async function connect(person: Browser): Promise<WebSocket> {
      const cookie = `webauth-session=${person.cookie('webauth-session')}`;
      const client = new WebSocket(`${site.address.replace('http', 'ws')}/live`, {
        headers: { cookie, origin: site.address },
      });
      await once(client, 'open');
      return client;
    }

    it('close with 4401, and the new cookie opens others', async () => {
      const [person, stranger] = [await loggedIn(), await loggedIn('test0002')];
      const [socket, theirs] = [await connect(person), await connect(stranger)];
      const closed = once(socket, 'close');
      await person.logIn('/staff');
      const [code, reason] = (await closed) as [number, Buffer];
      expect([code, String(reason)]).toEqual([4401, 'ERR_SESSION_REVOKED: the session was ended']);
      expect(theirs.readyState).toBe(WebSocket.OPEN);
      expect((await connect(person)).readyState).toBe(WebSocket.OPEN);
    });

    it('[login 9] and those of all a person’s sessions, where all are ended', async () => {
      const [here, there, stranger] = [await loggedIn(), await loggedIn(), await loggedIn('test0002')];
      const sockets = [await connect(here), await connect(there)];
      const theirs = await connect(stranger);
      const closed = Promise.all(sockets.map((socket) => once(socket, 'close')));
      await here.post('/webauth/logout?everywhere=yes');
      expect((await closed).map(([code]) => code)).toEqual([4401, 4401]);
      expect(theirs.readyState).toBe(WebSocket.OPEN);
    });
  });

  describe('[login 3] three tabs, one of which asks for a password', () => {
    it('all end at their pages, in every order of beginning and finishing', async () => {
      // The first two are alike. No time passes, so that the marker of a login is always there.
      const orders = [...interleavings([0, 0, 1, 1, 2, 2])].filter((order) => order.indexOf(0) < order.indexOf(1));
      expect(orders.length).toBe(45);
      for (const order of orders) {
        const tabs = new Tabs(new Browser(site.address), site.address);
        for (const tab of order) await tabs.step(tab);
        await tabs.expectAllIn();
      }
    });
  });

  describe('[login 3] a tab that comes back late', () => {
    it('goes on with the session that there is: nothing is made, prolonged or used up', async () => {
      const late = await browser.get('/any?late');
      await browser.logIn('/private', { life: 60 });
      const path = answerTo(late.location, { life: 5000 });
      for (let i = 0; i < 2; i++) {
        const { status, location, set } = await browser.get(path);
        expect([status, location, set]).toEqual([303, `${site.address}/any?late`, []]);
      }
      clock.pass(60);
      expect((await browser.fetch('/private')).text).toContain('ERR_SESSION_EXPIRED');
    });

    it('does not step up', async () => {
      const late = await browser.get('/staff');
      await browser.logIn('/private', { auth: '', sso: ['pwd'] });
      const answer = await browser.get(answerTo(late.location));
      expectRefused(answer, 400, 'ERR_COOKIES_BLOCKED');
      expect(button(answer)).toBe('/webauth/login?return=%2Fstaff&iact=yes&aauth=pwd');
      expect(asked(await browser.get('/staff'))['iact']).toBe('yes');
    });

    it('as somebody else, or after everybody has logged out, is told what may have happened', async () => {
      const late = await browser.get('/private?late');
      await browser.logIn();
      for (const step of [async () => {}, () => browser.post('/webauth/logout')]) {
        await step();
        const answer = await browser.get(answerTo(late.location, { principal: 'test0002' }));
        expectRefused(answer, 400, 'ERR_COOKIES_BLOCKED');
        expect(answer.text).toMatch(/Allow cookies.*another tab.*half an hour/);
        expect(button(answer)).toBe('/webauth/login?return=%2Fprivate%3Flate');
      }
    });
  });

  describe('[login 4] a login that the login service refused', () => {
    const words: Record<FailureStatus, readonly [heading: string, advice: string]> = {
      410: ['Login cancelled', 'Nothing has changed. You can try again whenever you like.'],
      510: ['That way of logging in is not available', 'Please tell whoever runs this site.'],
      520: ['The login service does not understand this site', 'Please tell whoever runs this site.'],
      530: ['The login service does not understand this site', 'Please tell whoever runs this site.'],
      540: ['You need to log in yourself', 'Try again, and the login service will ask you who you are.'],
      560: ['This site may not use the login service', 'Please tell whoever runs this site.'],
      570: ['The login service declined', 'Your account may not be allowed to log in; its help desk can say why.'],
    };
    const statuses = Object.keys(words).map((status) => Number(status) as FailureStatus);

    it.each(statuses)('with %i is a page in plain words, with a way to try again', async (status) => {
      const ver = status === 520 ? 1 : 3;
      const answer = await browser.logIn('/private?x=1', { ver, status, msg: '<script>alert("&")</script>' });
      expectRefused(answer, 401, failures[status][0]);
      expect([heading(answer), answer.text]).toEqual([words[status][0], expect.stringContaining(words[status][1])]);
      expect(answer.text).toContain(
        'The login service says: “&#60;script&#62;alert(&#34;&#38;&#34;)&#60;/script&#62;”',
      );
      expect(button(answer)).toBe('/webauth/login?return=%2Fprivate%3Fx%3D1');
      expect(asked(await browser.press(button(answer) as string))['ver']).toBe('3');
    });

    it.each(statuses)('with %i is JSON for a program', async (status) => {
      const { location } = await browser.get('/private?x=1');
      const answer = await browser.fetch(answerTo(location, { status, msg: 'because' }));
      const [code, message] = failures[status];
      const loginUrl = '/webauth/login?return=%2Fprivate%3Fx%3D1';
      expect([answer.status, JSON.parse(answer.text)]).toEqual([401, { error: { code, message, loginUrl } }]);
      expect(answer.headers.get('content-type')).toBe('application/json');
      expect(answer.set).toEqual([]);
    });

    it.each(statuses)('with %i does not say the same twice', async (status) => {
      const [, message] = failures[status];
      for (const msg of ['', message]) {
        const { text } = await browser.logIn('/private', { status, msg });
        expect(text.toLowerCase().split(message).length).toBe(2);
        expect(text).not.toContain('The login service says');
      }
    });

    it('goes to the application’s own handler, if it has one, with all that it needs', async () => {
      const known: unknown[] = [];
      site.serve((app) => {
        app.get('/private', (_request, response) => void response.send('open'));
        app.use(((error, _request, response, _next) => {
          const { status, code, expose, name, response: said } = error;
          known.push({ status, code, expose, name, msg: said.msg });
          response.status(status).send('ours');
        }) satisfies express.ErrorRequestHandler);
      });
      const { text } = await browser.logIn('/webauth/login', { status: 570, msg: 'no' });
      expect(text).toBe('ours');
      expect(known).toEqual([{ status: 401, code: 'ERR_WLS_DECLINED', expose: true, name: 'StatusError', msg: 'no' }]);
    });

    it('and that asked for no interaction can be tried again with it', async () => {
      const begun = await browser.get('/quiet');
      expect(asked(begun)['iact']).toBe('no');
      const answer = await browser.get(answerTo(begun.location, { status: 540 }));
      expect(button(answer)).toBe('/webauth/login?return=%2Fquiet');
      const again = await browser.press(button(answer) as string);
      expect(asked(again)['iact']).toBeUndefined();
      await browser.get(answerTo(again.location));
      expect((await browser.get('/quiet')).text).toBe('/quiet for test0001');
    });
  });

  describe('[login 5] a session that would be of no use', () => {
    it.each<[string, string, Partial<AuthResponse>, number, string]>([
      ['is over at once', '/private', { life: 0 }, 401, 'ERR_SESSION_EXPIRED'],
      [
        'has a password that is too old',
        '/instant',
        { issue: new Date(clock.time - 2000) },
        400,
        'ERR_IACT_UNSATISFIED',
      ],
      ['is of somebody who is blocked', '/private', { principal: 'blocked' }, 403, 'ERR_PRINCIPAL_REFUSED'],
    ])('since it %s, is an error', async (_name, path, overrides, status, code) => {
      const onLogin = ({ principal }: { principal: string }) => {
        if (principal === 'blocked') throw new AuthorisationError('ERR_PRINCIPAL_REFUSED', 'you are blocked');
      };
      serve({ onLogin });
      expectRefused(await browser.logIn(path, overrides), status, code);
      expect(site.events.filter(({ event }) => event === 'login')).toEqual([]);
    });

    it('is not made where the store is away either: the person is asked to wait', async () => {
      const store = new MemoryStore({ now: clock.now });
      serve({ store });
      const { location } = await browser.get('/private');
      store.next = () => Promise.reject(new Error('gone'));
      const answer = await browser.get(answerTo(location));
      expectRefused(answer, 503, 'ERR_STORE_UNAVAILABLE');
      expect(answer.headers.get('retry-after')).toBe('5');
    });
  });

  describe('[login 5] for ten seconds after a login', () => {
    it('another one is a loop, and an error that says so', async () => {
      await browser.logIn();
      browser.plant('webauth-session');
      clock.pass(9.999);
      const answer = await browser.get('/private?x=1');
      expectRefused(answer, 400, 'ERR_COOKIES_BLOCKED');
      expect(answer.text).toContain('A login has just succeeded, and it was in vain: the browser did not keep its');
      expect(button(answer)).toBe('/webauth/login?return=%2Fprivate%3Fx%3D1');
      // By itself, that way leads round and round too.
      expectRefused(await browser.get(button(answer) as string), 400, 'ERR_COOKIES_BLOCKED');
      expectRefused(await browser.get(button(answer) as string, clicked), 400, 'ERR_COOKIES_BLOCKED');
      expect(asked(await browser.press(button(answer) as string))['ver']).toBe('3');
      clock.pass(0.001);
      expect(asked(await browser.get('/private?x=1'))['ver']).toBe('3');
    });

    it('a page that asks for more than the last one did is none', async () => {
      await browser.logIn('/private', { auth: '', sso: ['pwd'] });
      const begun = await browser.get('/staff');
      expect(asked(begun)).toMatchObject({ iact: 'yes', aauth: 'pwd' });
      await browser.get(answerTo(begun.location));
      expect((await browser.get('/staff')).text).toBe('/staff for test0001');
    });

    it('a step-up that did not help is one', async () => {
      await browser.logIn('/instant');
      clock.pass(1.001);
      const answer = await browser.get('/instant');
      expectRefused(answer, 400, 'ERR_IACT_UNSATISFIED');
      expect(heading(answer)).toBe('That login is not what this page asks for');
      expect(answer.text).toContain('it was in vain: this asks for an authentication of');
      expect(button(answer)).toBe('/webauth/login?return=%2Finstant&iact=yes&maxAge=1');
      expectRefused(await browser.get(button(answer) as string), 400, 'ERR_IACT_UNSATISFIED');
      expectRefused(await browser.get(button(answer) as string, clicked), 400, 'ERR_IACT_UNSATISFIED');
      expect(asked(await browser.press(button(answer) as string))['iact']).toBe('yes');
      // A click elsewhere does not say that somebody wants to log in again.
      expectRefused(await browser.get('/instant', clicked), 400, 'ERR_IACT_UNSATISFIED');
      // Other pages ask for what they ask.
      expect((await browser.get('/private')).status).toBe(200);
      expect(asked(await browser.get('/card'))['aauth']).toBe('x-card');
      clock.pass(9);
      expect(asked(await browser.get('/instant'))['iact']).toBe('yes');
    });

    it('which every session outlives: one that would not is an error', async () => {
      const { location } = await browser.get('/private');
      expectRefused(await browser.get(answerTo(location, { life: 9 })), 401, 'ERR_SESSION_EXPIRED');
      expect((await browser.get(answerTo(location, { life: 10 }))).status).toBe(303);
    });
  });

  describe('[login 5] a cookie for a path', () => {
    const origin = 'https://example.cam.ac.uk';

    it('is sent there only, and has another prefix', async () => {
      serve({ baseUrl: `${origin}/any`, cookiePath: '/any' });
      const person = new Browser(site.address, origin);
      const begun = await person.get('/any/x');
      expect(begun.set).toEqual([expect.stringMatching(/^__Host-webauth-login=[\w-]{22}; Path=\/; .*; Secure$/)]);
      const { set } = await person.get(answerTo(begun.location));
      expect(set).toEqual([
        expect.stringMatching(/^__Host-webauth-session-id=[\w-]{22}; Path=\/; HttpOnly; SameSite=Lax; Secure$/),
        expect.stringMatching(/^__Secure-webauth-session=[\w-]+; Path=\/any; HttpOnly; SameSite=Lax; Secure$/),
        '__Host-webauth-login=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure',
        expect.stringMatching(/^__Host-webauth-done=[\w-]{8}; Path=\/; Max-Age=10; HttpOnly; SameSite=Lax; Secure$/),
      ]);
      expect((await person.get('/any/x')).text).toBe('/any/x for test0001');
      expect((await person.get('/')).text).toBe('/ for nobody');
      await person.post('/any/webauth/logout');
      expect(person.cookie('__Secure-webauth-session')).toBeUndefined();
    });

    it('is worth nothing without the cookie that no neighbour can plant, which all applications of a host share', async () => {
      serve({ baseUrl: `${origin}/any`, cookiePath: '/any' });
      const [person, thief] = [new Browser(site.address, origin), new Browser(site.address, origin)];
      await person.logIn('/any');
      await thief.logIn('/any', { principal: 'test0002' });
      const session = person.cookie('__Secure-webauth-session') as string;
      // As a neighbour does, who has the visitor take part in the session of another.
      thief.plant('__Secure-webauth-session', session);
      expect((await thief.fetch('/any')).text).toContain('ERR_SESSION_INVALID');
      const anchor = person.cookie('__Host-webauth-session-id');
      serve({ baseUrl: `${origin}/any`, cookiePath: '/any', cookieName: 'other' });
      clock.pass(11);
      await person.logIn('/any');
      expect([person.cookie('__Host-webauth-session-id'), (await person.get('/any')).status]).toEqual([anchor, 200]);
    });

    it.each(['/any', '/any/'])(
      '%s does not reach a guard elsewhere, which says so instead of a login',
      async (cookiePath) => {
        serve({ baseUrl: `${site.address}/any`, cookiePath });
        for (const path of ['/private?x=1', '/staff', ...(cookiePath === '/any' ? [] : ['/any'])]) {
          const answer = await browser.get(path);
          expectRefused(answer, 400, 'ERR_COOKIES_BLOCKED');
          expect(answer.text).toContain(`browsers send the session to ${cookiePath} only`);
          expectRefused(await browser.get(path, isProgram), 400, 'ERR_COOKIES_BLOCKED');
        }
        expect(asked(await browser.get('/any/x'))['url']).toBe(`${site.address}/any/webauth/callback`);
      },
    );

    it.each([
      ['', '/any'],
      ['/any', '/any/webauth'],
      ['/anything', '/any'],
    ])('that misses our own routes, under %j for %j, is refused at the start', (path, cookiePath) => {
      expect(() => createWAA({ baseUrl: origin + path, cookiePath, secret: 'a1'.repeat(32) })).toThrow(
        /route .* lies outside of cookiePath/,
      );
    });
  });

  it('[login 1] all our cookies are called as cookieName says', async () => {
    serve({ cookieName: 'Wiki_2' });
    await browser.get('/private');
    expect(browser.cookie('Wiki_2-login')).toMatch(/^[\w-]{22}$/);
    const { set } = await browser.logIn();
    expect(set.map((line) => line.split('=', 1)[0])).toEqual(['Wiki_2-session', 'Wiki_2-login', 'Wiki_2-done']);
    expect((await browser.get('/')).text).toBe('/ for test0001');
    const { set: unset } = await browser.post('/webauth/logout');
    expect(unset.map((line) => line.split('=', 1)[0])).toEqual(['Wiki_2-session', 'Wiki_2-done']);
    // Under its usual name it is somebody else's.
    const stranger = new Browser(site.address);
    await stranger.logIn();
    stranger.plant('webauth-session', stranger.cookie('Wiki_2-session'));
    stranger.plant('Wiki_2-session');
    expect((await stranger.get('/')).text).toBe('/ for nobody');
  });

  describe('[login 7] a page that asks for more than being logged in', () => {
    it.each([
      ['/staff', { iact: 'yes', aauth: 'pwd' }],
      ['/fresh', { iact: 'yes', aauth: undefined }],
      ['/card', { iact: undefined, aauth: 'x-card' }],
    ])('%s leads to the login service, which is asked for %j', async (path, demands) => {
      for (const person of [browser, await loggedIn()]) {
        for (const method of ['GET', 'HEAD']) {
          const begun = await person.send(method, `${path}?x=1`, { accept: 'text/html' });
          const { iact, aauth } = asked(begun);
          expect([begun.status, { iact, aauth }]).toEqual([303, demands]);
          // How old it may be is no business of the login service's.
          expect(begun.location).not.toContain('maxAge');
        }
        const auth = demands.aauth ?? 'pwd';
        expect((await person.logIn(`${path}?x=1`, { auth })).location).toBe(`${site.address}${path}?x=1`);
        expect((await person.get(path)).status).toBe(200);
      }
    });

    it('asks again once the last time is too long ago', async () => {
      await browser.logIn('/fresh');
      clock.pass(60);
      expect((await browser.get('/fresh')).status).toBe(200);
      clock.pass(0.001);
      expect(asked(await browser.get('/fresh'))['iact']).toBe('yes');
      expect((await browser.get('/private')).status).toBe(200);
    });

    it('but only without asking, asks nothing of those who are logged in', async () => {
      await browser.logIn('/private');
      expect((await browser.get('/quiet')).text).toBe('/quiet for test0001');
    });

    it.each([
      ['/staff', '&iact=yes&aauth=pwd'],
      ['/fresh', '&iact=yes&maxAge=60'],
      ['/card', '&aauth=x-card'],
    ])('[login 6] %s tells a program where it can be had', async (path, demands) => {
      const person = await loggedIn();
      const answer = await person.get(path, { ...isProgram, referer: `${site.address}/any?tab=2` });
      const { code, loginUrl } = JSON.parse(answer.text).error;
      expect([answer.status, code]).toEqual([401, 'ERR_STEP_UP_REQUIRED']);
      expect(answer.headers.get('www-authenticate')).toBe(`Ucam-WebAuth realm="${site.address}"`);
      expect([answer.location, answer.set]).toEqual(['', []]);
      expect(loginUrl).toBe(`/webauth/login?return=%2Fany%3Ftab%3D2${demands}`);
      const begun = await person.get(loginUrl);
      const auth = asked(begun)['aauth'] ?? 'pwd';
      expect((await person.get(answerTo(begun.location, { auth }))).location).toBe(`${site.address}/any?tab=2`);
      expect((await person.get(path, isProgram)).status).toBe(200);
      // Now there is nothing more to be had there.
      expect((await person.get(loginUrl)).location).toBe(`${site.address}/any?tab=2`);
    });

    it('[login 6] does not take a form, and says that it was not saved', async () => {
      const person = await loggedIn();
      const answer = await person.post('/staff', { referer: `${site.address}/any?form` }, 'text=long');
      expectRefused(answer, 401, 'ERR_STEP_UP_REQUIRED');
      expect(heading(answer)).toBe('Please authenticate again');
      expect(answer.text).toContain(
        '<strong>What you sent was not saved.</strong> The button opens another tab: log in there, come back here,',
      );
      expect(button(answer)).toBe('/webauth/login?return=%2Fany%3Fform&iact=yes&aauth=pwd');
      await person.logIn(button(answer) as string);
      expect((await person.post('/staff', {}, 'text=long')).text).toBe('/staff for test0001');
    });

    it('wants the same person again', async () => {
      const person = await loggedIn();
      const session = person.cookie('webauth-session');
      const { location } = await person.get('/staff');
      const answer = await person.get(answerTo(location, { principal: 'test0002' }));
      expectRefused(answer, 403, 'ERR_PRINCIPAL_REFUSED');
      expect(answer.text).toContain('was to authenticate again, and not test0002: to change accounts, log out first');
      expect(person.cookie('webauth-session')).toBe(session);
      expect((await person.get('/private')).text).toBe('/private for test0001');
      expect((await person.get(answerTo(location))).location).toBe(`${site.address}/staff`);
    });

    it('wants the same person again also where the session has ended meanwhile', async () => {
      const person = await loggedIn();
      const { location } = await person.get('/staff');
      await person.post('/webauth/logout');
      expectRefused(await person.get(answerTo(location, { principal: 'test0002' })), 403, 'ERR_PRINCIPAL_REFUSED');
      expect((await person.get(answerTo(location))).location).toBe(`${site.address}/staff`);
    });

    it('is 403, and no step-up, for those who may not enter anyway', async () => {
      const person = await loggedIn();
      expectRefused(await person.get('/one'), 403, 'ERR_PRINCIPAL_REFUSED');
      expectRefused(await person.get('/one', isProgram), 403, 'ERR_PRINCIPAL_REFUSED');
      const leaver = new Browser(site.address);
      await leaver.logIn('/any', { principal: 'test0401', ptags: [], auth: '', sso: ['pwd'] });
      expectRefused(await leaver.get('/staff'), 403, 'ERR_PTAGS_REFUSED');
      expect(asked(await (await loggedIn('test0002')).get('/one'))['iact']).toBe('yes');
    });
  });

  describe('[login 8] no answer of ours is stored', () => {
    const json = { accept: 'application/json' };
    const post =
      (path: string, headers = {}) =>
      (person: Browser) =>
        person.post(path, headers);
    const get =
      (path: string, headers = {}) =>
      (person: Browser) =>
        person.get(path, headers);
    const soon = async (person: Browser, path: string) => {
      await person.logIn();
      person.plant('webauth-session');
      return person.get(path);
    };

    it.each<[string, number, (person: Browser, stranger: Browser) => Promise<Answer>]>([
      ['the way to the login service', 303, (_, stranger) => stranger.get('/private')],
      ['the same from a link', 303, (_, stranger) => stranger.get('/webauth/login?return=/')],
      ['the same for HEAD', 303, (_, stranger) => stranger.send('HEAD', '/private', { accept: 'text/html' })],
      ['the way to a step-up', 303, get('/staff')],
      ['the way to our own name', 303, (_, stranger) => stranger.get('/private', { host: 'alias.example' })],
      ['a link to log in, once logged in', 303, get('/webauth/login?return=/')],
      ['the way back', 303, (_, stranger) => stranger.logIn()],
      [
        'the way back of a second tab',
        303,
        async (person) => {
          const late = new Browser(site.address);
          const { location } = await late.get('/private');
          return person.get(answerTo(location));
        },
      ],
      ['401 for a program', 401, (_, stranger) => stranger.fetch('/private')],
      ['401 for a form', 401, (_, stranger) => stranger.post('/staff')],
      ['a step-up, for a program', 401, get('/staff', json)],
      ['a step-up, for a form', 401, post('/staff')],
      ['403', 403, get('/one')],
      ['403 for a program', 403, get('/one', json)],
      ['a failure', 401, (_, stranger) => stranger.logIn('/private', { status: 410 })],
      ['a failure, for a program', 400, get('/webauth/callback', json)],
      ['a mistake', 400, get('/webauth/callback')],
      ['a loop', 400, (_, stranger) => soon(stranger, '/private')],
      ['another method', 405, (person) => person.send('PUT', '/webauth/login')],
      ['the button of a login', 303, post('/webauth/login')],
      ['the button of a login, for a stranger', 200, (_, stranger) => stranger.post('/webauth/login')],
      ['the button of a login, for a neighbour', 403, post('/webauth/login', { origin: 'https://evil.cam.ac.uk' })],
      ['another method for the callback', 405, post('/webauth/callback')],
      ['another method for the ticket', 405, get('/webauth/ticket')],
      ['another method for the logout', 405, (person) => person.send('PUT', '/webauth/logout')],
      ['the question whether to log out', 200, get('/webauth/logout')],
      ['logging out', 303, post('/webauth/logout')],
      ['logging out everywhere', 303, post('/webauth/logout?everywhere=yes')],
      ['logging out for a neighbour', 403, post('/webauth/logout', { origin: 'https://evil.cam.ac.uk' })],
      ['that one is logged out', 200, (_, stranger) => stranger.get('/webauth/logout')],
      ['a ticket', 200, post('/webauth/ticket')],
      [
        'one ticket too many',
        429,
        async (person) => {
          for (let i = 0; i < 16; i++) await person.post('/webauth/ticket');
          return person.post('/webauth/ticket');
        },
      ],
      ['no ticket', 401, (_, stranger) => stranger.post('/webauth/ticket', json)],
      ['no ticket for a neighbour', 403, post('/webauth/ticket', { origin: 'https://evil.cam.ac.uk' })],
    ])('%s', async (_name, status, answer) => {
      // Also where the application has its own ideas.
      const headers = { 'Cache-Control': 'public, max-age=600', 'Referrer-Policy': 'unsafe-url' };
      serve(
        {},
        (app) =>
          void app.use((_request, response, next) => {
            response.set(headers);
            next();
          }),
      );
      const { status: found, headers: sent, text } = await answer(await loggedIn(), browser);
      expect([found, sent.get('cache-control')]).toEqual([status, 'no-store']);
      const isPage = text.includes('<!doctype html>');
      if (status === 303 || isPage) expect(sent.get('referrer-policy')).toBe('same-origin');
      if (isPage) {
        expect(sent.get('content-security-policy')).toContain("frame-ancestors 'none'");
        expect(sent.get('x-frame-options')).toBe('DENY');
      }
    });

    it('that the store is away', async () => {
      const away = () => Promise.reject(new Error('gone'));
      serve({ store: Object.assign(new MemoryStore({ now: clock.now }), { mark: away }) });
      await site.waa.ready;
      browser.plant('webauth-session', 'x');
      for (const answer of [await browser.get('/private'), await browser.fetch('/private')]) {
        expect([answer.status, answer.headers.get('cache-control')]).toEqual([503, 'no-store']);
      }
    });

    it('a failure that Express itself answers', async () => {
      site.serve((app, auth) => {
        app.get('/one', auth.require({ principals: [] }), () => {});
        app.use(((error, _request, _response, next) =>
          next({ ...error, status: error.status })) satisfies express.ErrorRequestHandler);
      });
      const person = await loggedInAnywhere();
      const { status, headers } = await person.get('/one');
      expect([status, headers.get('cache-control')]).toEqual([403, 'no-store']);
    });

    async function loggedInAnywhere(): Promise<Browser> {
      await browser.logIn('/webauth/login');
      return browser;
    }
  });

  describe('[login 8] a page behind a guard', () => {
    /** Serves a page of the application's, and gives its headers. */
    async function headersOf(before: Record<string, string>, after: Record<string, string>) {
      site.serve(
        (app, auth) => {
          app.get('/page', auth.require(), (_request, response) => void response.set(after).send('page'));
        },
        {},
        (app) =>
          void app.use((_request, response, next) => {
            response.set(before);
            next();
          }),
      );
      await browser.logIn('/page');
      const { headers, set } = await browser.get('/page');
      return { cache: headers.get('cache-control'), vary: headers.get('vary'), set };
    }

    it.each<[string, Record<string, string>, Record<string, string>, string, string]>([
      ['is private', {}, {}, 'private, no-cache', 'Cookie'],
      ['keeps what was said before', { 'Cache-Control': 'private, max-age=9' }, {}, 'private, max-age=9', 'Cookie'],
      ['keeps what its handler says', {}, { 'Cache-Control': 'no-store' }, 'no-store', 'Cookie'],
      ['can be public', {}, { 'Cache-Control': 'public, max-age=9' }, 'public, max-age=9', 'Cookie'],
      ['adds to Vary', { Vary: 'Accept, X-Cookie' }, {}, 'private, no-cache', 'Accept, X-Cookie, Cookie'],
      ['adds nothing to everything', { Vary: '*' }, {}, 'private, no-cache', '*'],
      ['adds nothing that is there', { Vary: 'Accept,cookie' }, {}, 'private, no-cache', 'Accept,cookie'],
      ['leaves Vary to its handler', {}, { Vary: '*' }, 'private, no-cache', '*'],
    ])('%s', async (_name, before, after, cache, vary) => {
      expect(await headersOf(before, after)).toEqual({ cache, vary, set: [] });
    });

    it('sets no cookie where it is public, at any time of the session', async () => {
      site.serve((app, auth) => {
        app.get('/page', auth.require(), (_request, response) => {
          response.set('Cache-Control', 'public, max-age=60').send('page');
        });
      });
      await browser.logIn('/page', { life: 600 });
      for (const pause of [0, 11, 288, 300]) {
        clock.pass(pause);
        const { status, headers, set } = await browser.get('/page');
        expect([status, headers.get('cache-control'), set]).toEqual([200, 'public, max-age=60', []]);
      }
    });

    it('keeps what an application says of Vary together with its own', async () => {
      site.serve((app, auth) => {
        app.get('/page', auth.require(), (_request, response) => void response.vary('Accept').send('page'));
      });
      await browser.logIn('/page');
      expect((await browser.get('/page')).headers.get('vary')).toBe('Cookie, Accept');
    });
  });

  describe('[login 9] our pages', () => {
    function policy({ headers }: Answer): Record<string, string> {
      const parts = (headers.get('content-security-policy') ?? '').split('; ');
      return Object.fromEntries(parts.map((part) => [part.split(' ', 1)[0], part.slice(part.indexOf(' ') + 1)]));
    }

    it('of the logout may lead to the login service, and nowhere else', async () => {
      const strict = {
        'default-src': "'none'",
        'script-src': "'none'",
        'frame-ancestors': "'none'",
        'base-uri': "'none'",
        'form-action': `'self' ${new URL(authUrl).origin}`,
      };
      for (const person of [browser, await loggedIn()]) {
        expect(policy(await person.get('/webauth/logout'))).toMatchObject(strict);
      }
      expect(policy(await browser.get('/webauth/callback'))).toMatchObject({ ...strict, 'form-action': "'self'" });
    });

    it('say nothing of a logout that the login service does not have', async () => {
      const { logoutUrl: _none, ...profile } = wls.profile;
      serve({ wls: profile });
      const answer = await browser.get('/webauth/logout');
      expect([heading(answer), policy(answer)['form-action']]).toEqual(['You are logged out of this site', "'self'"]);
      expect(answer.text).not.toContain('login service');
    });
  });

  describe('[login 9] logging out', () => {
    it('has a button for here, and one for everywhere', async () => {
      const person = await loggedIn();
      const { text } = await person.get('/webauth/logout');
      expect(text).toContain('You are logged in as <strong>test0001</strong>');
      expect(text).toMatch(/<form method="post" action="\/webauth\/logout" [^>]*><button[^>]*>Log out<\/button>/);
      expect(text).toContain('<button formaction="/webauth/logout?everywhere=yes">Log out on all my devices</button>');
    });

    it.each([
      ['/webauth/logout', 'one'],
      ['/webauth/logout?everywhere=no', 'one'],
      ['/webauth/logout?noteverywhere=yes', 'one'],
      ['/webauth/logout?everywhere=yes', 'all'],
      ['/webauth/logout?x=1&everywhere=yes&y', 'all'],
    ])('at %s ends %s of the person’s sessions, and nobody else’s', async (path, which) => {
      const [here, there, stranger] = [await loggedIn(), await loggedIn(), await loggedIn('test0002')];
      const copy = here.cookie('webauth-session');
      const done = await here.post(path);
      expect([done.status, done.location]).toEqual([303, `${site.address}/webauth/logout`]);
      const page = await here.get(done.location);
      expect([heading(page), button(page)]).toEqual(['You are logged out of this site', logoutUrl]);
      here.plant('webauth-session', copy);
      expect((await here.get('/')).text).toBe('/ for nobody');
      expect((await there.get('/')).text).toBe(which === 'all' ? '/ for nobody' : '/ for test0001');
      expect((await stranger.get('/')).text).toBe('/ for test0002');
    });

    it('is no end of logging in', async () => {
      const person = await loggedIn();
      await person.post('/webauth/logout?everywhere=yes');
      await person.logIn();
      expect((await person.get('/private')).text).toBe('/private for test0001');
    });

    it.each([
      ['a link', (person: Browser) => person.get('/webauth/logout?everywhere=yes')],
      [
        'a neighbour',
        (person: Browser) => person.post('/webauth/logout?everywhere=yes', { origin: 'https://evil.cam.ac.uk' }),
      ],
      ['a sandbox', (person: Browser) => person.post('/webauth/logout?everywhere=yes', { origin: 'null' })],
    ])('everywhere is not done by %s', async (_name, attempt) => {
      const [here, there] = [await loggedIn(), await loggedIn()];
      expect((await attempt(here)).set).toEqual([]);
      for (const person of [here, there]) expect((await person.get('/')).text).toBe('/ for test0001');
    });

    it('everywhere is not said to be done by a browser whose own session is over', async () => {
      const here = await loggedIn();
      clock.pass(7200);
      const there = await loggedIn();
      const { status, location } = await here.post('/webauth/logout?everywhere=yes');
      expect((await there.get('/')).text).toBe('/ for test0001');
      expect([status, location]).toEqual([401, '']);
    });
  });

  describe('[login 9] a ticket', () => {
    it('stands for the session once, for whoever is logged in', async () => {
      const person = await loggedIn();
      const { status, headers, text, set } = await person.post('/webauth/ticket', isProgram);
      expect([status, headers.get('content-type'), headers.get('cache-control')]).toEqual([
        200,
        'application/json',
        'no-store',
      ]);
      expect(set).toEqual([]);
      const { ticket, expires, ...rest } = JSON.parse(text);
      expect([rest, new Date(expires).getTime()]).toEqual([{}, clock.time + 30_000]);
      expect(ticket).toMatch(/^[\w-]{43}$/);
      const session = site.events.find(({ event }) => event === 'login')?.sessionId;
      expect(await site.waa.takeTicket(ticket)).toMatchObject({
        principal: 'test0001',
        sessionId: session,
        via: 'ticket',
      });
      await expect(site.waa.takeTicket(ticket)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    });

    it.each<[string, Record<string, string | string[]>, number]>([
      ['our own page', { origin: 'OURS' }, 200],
      ['our own page under a strict referrer policy', { origin: 'null', 'sec-fetch-site': 'same-origin' }, 200],
      ['a sandbox', { origin: 'null' }, 403],
      ['a neighbour under a strict referrer policy', { origin: 'null', 'sec-fetch-site': 'same-site' }, 403],
      ['a neighbour', { origin: 'https://evil.cam.ac.uk', 'sec-fetch-site': 'same-site' }, 403],
      ['a neighbour that says it is us', { origin: 'https://evil.cam.ac.uk', 'sec-fetch-site': 'same-origin' }, 403],
      ['nobody', {}, 403],
      ['two at once', { origin: ['OURS', 'OURS'] }, 403],
    ])('for %s', async (_name, headers, status) => {
      const person = await loggedIn();
      const ours = (text: string) => text.replace('OURS', site.address);
      const sent = Object.entries(headers).map(([name, value]) => [name, [value].flat().map(ours)]);
      const answer = await person.send('POST', '/webauth/ticket', { ...Object.fromEntries(sent), accept: '*/*' });
      expect(answer.status).toBe(status);
      if (status === 403) expect(JSON.parse(answer.text).error.code).toBe('ERR_ORIGIN_REFUSED');
    });

    it.each(['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'])('is not to be had by %s', async (method) => {
      const { status, headers } = await (await loggedIn()).send(method, '/webauth/ticket', { origin: site.address });
      expect([status, headers.get('allow')]).toEqual([405, 'POST']);
    });

    it('is not to be had by nobody, who is told where to log in', async () => {
      const answer = await browser.post('/webauth/ticket', { ...isProgram, referer: `${site.address}/any?x` });
      const { code, loginUrl } = JSON.parse(answer.text).error;
      expect([answer.status, code, loginUrl]).toEqual([401, 'ERR_SESSION_MISSING', '/webauth/login?return=%2Fany%3Fx']);
      expect(answer.headers.get('www-authenticate')).toBe(`Ucam-WebAuth realm="${site.address}"`);
      expect([answer.location, answer.set]).toEqual(['', []]);
    });

    it('is one of sixteen in half a minute', async () => {
      const person = await loggedIn();
      for (let i = 0; i < 16; i++) expect((await person.post('/webauth/ticket', isProgram)).status).toBe(200);
      const { status, headers, text } = await person.post('/webauth/ticket', isProgram);
      expect([status, JSON.parse(text).error.code, headers.get('retry-after')]).toEqual([
        429,
        'ERR_LIMIT_REACHED',
        '30',
      ]);
      expect((await (await loggedIn('test0002')).post('/webauth/ticket', isProgram)).status).toBe(200);
      clock.pass(30);
      expect((await person.post('/webauth/ticket', isProgram)).status).toBe(200);
    });
  });

  describe('the log', () => {
    it('holds of each event what it is about, and nothing else', async () => {
      serve({ secret: undefined });
      const at = clock.now();
      const entry = (level: string, event: string, message: string, about = {}) => ({
        time: at,
        level,
        event,
        message: expect.stringContaining(message),
        ...about,
      });
      const told = () => site.events.splice(0);
      expect(told()).toEqual([
        entry('warn', 'start', 'no secret is configured'),
        entry('info', 'start', 'a restart logs everyone out'),
      ]);

      const begun = await browser.get('/private?x=1');
      expect(told()).toEqual([entry('debug', 'login started', 'to log in')]);
      await browser.get(answerTo(begun.location, { auth: '', sso: ['pwd'] }));
      const one = { principal: 'test0001', sessionId: expect.stringMatching(/^[\w-]{22}$/) };
      const [login, ...more] = told();
      expect([login, more]).toEqual([entry('info', 'login', 'somebody logged in', one), []]);
      const first = { principal: 'test0001', sessionId: login?.sessionId };

      await browser.fetch('/staff');
      expect(told()).toEqual([
        entry('debug', 'refused', 'asks for a login', { code: 'ERR_STEP_UP_REQUIRED', ...first }),
      ]);
      await browser.get('/one');
      expect(told()).toEqual([entry('warn', 'refused', 'some people', { code: 'ERR_PRINCIPAL_REFUSED', ...first })]);

      const again = await browser.get('/staff?x=1');
      expect(told()).toEqual([entry('debug', 'login started', 'to authenticate again', first)]);
      await browser.get(answerTo(again.location));
      const [replaced, stepUp, ...rest] = told();
      expect([replaced, stepUp, rest]).toEqual([
        entry('info', 'revoked', 'replaced', first),
        entry('info', 'step-up', 'authenticated again', one),
        [],
      ]);
      expect(stepUp?.sessionId).not.toBe(first.sessionId);
      const second = { principal: 'test0001', sessionId: stepUp?.sessionId };

      await browser.post('/webauth/logout?everywhere=yes');
      expect(told()).toEqual([
        entry('info', 'logout', 'a session was ended', second),
        entry('info', 'revoked', 'all sessions of a person', { principal: 'test0001' }),
      ]);
      await browser.get('/webauth/callback?WLS-Response=x');
      expect(told()).toEqual([entry('warn', 'refused', '', { code: 'ERR_RESPONSE_VERSION' })]);
      await browser.get('/private', { host: 'alias.example' });
      expect(told()).toEqual([entry('info', 'login started', 'another name')]);
      await site.waa.endSessions('test0003');
      expect(told()).toEqual([entry('info', 'revoked', 'all sessions', { principal: 'test0003' })]);
    });

    it('has no secret, no query and nobody unverified in it, after all that can happen', async () => {
      const store = new MemoryStore({ now: clock.now });
      serve({ store });
      const witness = new Witness(browser);
      const start = await witness.get('/private?hidden-query=1');
      // Nobody is verified by what is forged, stale, made for somewhere else, malformed, or refused.
      const bad: Partial<AuthResponse>[] = [
        { sig: Buffer.alloc(128, 1) },
        { issue: new Date(clock.time - 60_000) },
        { issue: new Date(clock.time + 60_000) },
        { url: 'https://evil.example/?hidden-query' },
        { kid: '99' },
        { ver: 2, ptags: [] },
        { params: 'hidden-query' },
      ];
      for (const overrides of bad) await witness.get(witness.answer(start, { principal: 'intruder', ...overrides }));
      await witness.get('/webauth/callback?hidden-query&WLS-Response=3!200!intruder');
      await witness.get(witness.answer(start, { status: 570, msg: 'hidden-query' }));
      await witness.get(witness.answer(start, { life: 0 }));

      // Somebody logs in, and again with the same response; another tab comes back as somebody else.
      const used = witness.answer(start, { auth: '', sso: ['pwd'] });
      const nonce = browser.cookie('webauth-login');
      await witness.get(used);
      browser.plant('webauth-login', nonce);
      await witness.get(used);
      browser.plant('webauth-login');
      await witness.get(witness.answer(start, { principal: 'intruder' }));

      // Tickets, refusals, a step-up.
      for (let i = 0; i < 17; i++) await witness.post('/webauth/ticket?hidden-query');
      await site.waa.takeTicket(witness.ticket);
      await expect(site.waa.takeTicket(witness.ticket)).rejects.toThrow();
      await witness.post('/webauth/ticket', { origin: 'https://elsewhere.example' });
      await witness.get('/private?hidden-query', { host: 'alias.example' });
      await witness.get('/one?hidden-query');
      await witness.post('/staff?hidden-query');
      const stepUp = await witness.get('/staff?hidden-query');
      await witness.get(witness.answer(stepUp, { auth: '', sso: ['pwd'] }));
      await witness.get(witness.answer(stepUp));
      await witness.get('/card?hidden-query');

      // Cookies that are doubled, broken, lost, or ended; and a store that fails.
      const cookie = browser.cookie('webauth-session') as string;
      for (const planted of [`${cookie}; webauth-session=${cookie}`, `j:["${cookie}"]`, cookie.slice(0, -3), 'x']) {
        await witness.get('/private?hidden-query', { cookie: `webauth-session=${planted}` });
      }
      // What is broken was cleared.
      browser.plant('webauth-session', cookie);
      await witness.get('/private?hidden-query', { cookie: 'webauth-done=1' });
      await witness.post('/webauth/logout?everywhere=yes&hidden-query');
      await browser.fetch('/private?hidden-query', { cookie: `webauth-session=${cookie}` });
      const last = witness.answer(await witness.get('/private?hidden-query'));
      store.next = () => Promise.reject(new Error('gone'));
      await witness.get(last);

      witness.expectAbsentFrom(JSON.stringify(site.events));
      expect(new Set(site.events.map(({ principal }) => principal))).toEqual(new Set([undefined, 'test0001']));
      const told = (name: 'event' | 'code') => new Set(site.events.map((event) => event[name]).filter(Boolean));
      // So much was there to be found.
      expect([...told('event')].sort()).toEqual([
        'login',
        'login started',
        'logout',
        'refused',
        'revoked',
        'step-up',
        'store',
      ]);
      expect([...told('code')].sort()).toEqual([
        'ERR_COOKIES_BLOCKED',
        'ERR_IACT_UNSATISFIED',
        'ERR_ISSUE_FUTURE',
        'ERR_ISSUE_STALE',
        'ERR_KEY_UNKNOWN',
        'ERR_LIMIT_REACHED',
        'ERR_ORIGIN_REFUSED',
        'ERR_PARAMS_MISMATCH',
        'ERR_PRINCIPAL_REFUSED',
        'ERR_RESPONSE_MALFORMED',
        'ERR_RESPONSE_REPLAYED',
        'ERR_RESPONSE_VERSION',
        'ERR_SESSION_EXPIRED',
        'ERR_SESSION_INVALID',
        'ERR_SESSION_REVOKED',
        'ERR_SIGNATURE_INVALID',
        'ERR_STEP_UP_REQUIRED',
        'ERR_STORE_UNAVAILABLE',
        'ERR_URL_MISMATCH',
        'ERR_WLS_DECLINED',
      ]);
    });
  });
});

/** Sees every secret that passes between a browser, the application and the login service. */
class Witness {
  readonly #browser: Browser;
  readonly #seen = new Set<string>(['hidden-query', 'intruder']);
  ticket = '';

  constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** Goes somewhere, and gives where that leads. */
  async get(path: string, headers: Record<string, string> = {}): Promise<string> {
    const answer = await this.#browser.get(path, headers);
    this.#note(answer);
    if (answer.location.startsWith(authUrl)) this.#seen.add(asked(answer)['params'] as string);
    return answer.location;
  }

  async post(path: string, headers: Record<string, string> = {}): Promise<void> {
    const answer = await this.#browser.post(path, headers);
    this.#note(answer);
    if (!answer.text.startsWith('{"ticket"')) return;
    this.ticket = JSON.parse(answer.text).ticket;
    this.#seen.add(this.ticket);
  }

  /** The address of an answer of the login service, whose signature is a secret until it is used. */
  answer(location: string, overrides: Partial<AuthResponse> = {}): string {
    const path = answerTo(location, overrides);
    const encoded = decodeURIComponent(path.slice(path.indexOf('=') + 1));
    this.#seen.add(encoded).add(encoded.slice(encoded.lastIndexOf('!') + 1));
    return path;
  }

  expectAbsentFrom(text: string): void {
    expect(this.#seen.size).toBeGreaterThan(50);
    for (const secret of this.#seen) {
      expect(secret.length).toBeGreaterThan(7);
      for (const form of [secret, encodeURIComponent(secret), secret.slice(-20)]) expect(text).not.toContain(form);
    }
  }

  /** All cookies but the marker, which is the same for everybody. */
  #note({ set }: Answer): void {
    for (const line of set) {
      const [name, value] = line.split(/[=;]/, 2) as [string, string];
      if (value !== '' && !name.endsWith('-done')) this.#seen.add(value);
    }
  }
}

/** What a browser with three tabs has to do, in the few words of which everything follows. */
class Tabs {
  readonly #browser: Browser;
  readonly #origin: string;
  readonly #tabs = [
    { path: '/private?tab=1', typed: false },
    { path: '/any?tab=2', typed: false },
    { path: '/staff?tab=3', typed: true },
  ].map((tab) => ({ ...tab, begun: false, location: '', nonce: 0 }));
  #session: 'none' | 'sso' | 'typed' = 'none';
  #nonces = 0;
  /** Which of the nonces the login cookie holds; none, after a success. */
  #cookie = 0;

  constructor(browser: Browser, origin: string) {
    this.#browser = browser;
    this.#origin = origin;
  }

  /** A tab does what is its turn. */
  async step(index: number): Promise<void> {
    const tab = this.#tab(index);
    await (tab.begun ? this.#finish(index) : this.#begin(index));
    tab.begun = true;
  }

  /** Each page is shown now, without another visit. */
  async expectAllIn(): Promise<void> {
    for (const index of this.#tabs.keys()) {
      await this.#begin(index);
      expect(this.#tab(index).location).toBe('');
    }
  }

  /** Goes to the tab's page: it is shown, or the tab is at the login service. */
  async #begin(index: number): Promise<void> {
    const tab = this.#tab(index);
    const answer = await this.#browser.get(tab.path);
    if (this.#isEnough(tab)) {
      expect([answer.status, answer.text]).toEqual([200, `${tab.path} for test0001`]);
      tab.location = '';
      return;
    }
    expect(asked(answer)['iact']).toBe(tab.typed ? 'yes' : undefined);
    if (this.#cookie === 0) this.#cookie = ++this.#nonces;
    Object.assign(tab, { location: answer.location, nonce: this.#cookie });
  }

  /** The login service sends the tab back, if it was there, and it goes on to its page. */
  async #finish(index: number): Promise<void> {
    const tab = this.#tab(index);
    if (tab.location === '') return;
    const before = this.#browser.cookie('webauth-session');
    const answer = await this.#browser.get(answerTo(tab.location, bySingleSignOn(tab.location)));
    const mine = this.#cookie === tab.nonce;
    if (mine || (this.#cookie === 0 && this.#isEnough(tab))) {
      expect([answer.status, answer.location]).toEqual([303, this.#origin + tab.path]);
    } else this.#expectRefused(tab, answer);
    expect(this.#browser.cookie('webauth-session') !== before).toBe(mine);
    if (mine) this.#session = tab.typed ? 'typed' : 'sso';
    if (mine) this.#cookie = 0;
    await this.#goOn(index);
  }

  #isEnough({ typed }: { readonly typed: boolean }): boolean {
    return this.#session === 'typed' || (this.#session === 'sso' && !typed);
  }

  /**
   * Another tab has finished meanwhile, and the session is not enough for this one, or a third has begun. That is an
   * error, whose link leads on.
   */
  #expectRefused({ path, typed }: { readonly path: string; readonly typed: boolean }, answer: Answer): void {
    expectRefused(answer, 400, this.#cookie === 0 ? 'ERR_COOKIES_BLOCKED' : 'ERR_PARAMS_MISMATCH');
    const demands = typed ? '&iact=yes&aauth=pwd' : '';
    expect(button(answer)).toBe(`/webauth/login?return=${encodeURIComponent(path)}${demands}`);
  }

  async #goOn(index: number): Promise<void> {
    await this.#begin(index);
    if (this.#tab(index).location !== '') await this.#finish(index);
  }

  #tab(index: number) {
    return this.#tabs[index] ?? expect.fail(`there is no tab ${index}`);
  }
}

/** All orders of the items, each once. */
function* interleavings(items: readonly number[]): Generator<number[]> {
  if (items.length === 0) yield [];
  for (const first of new Set(items)) {
    const at = items.indexOf(first);
    for (const rest of interleavings(items.toSpliced(at, 1))) yield [first, ...rest];
  }
}
