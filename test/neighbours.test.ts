import { once } from 'node:events';
import { createServer, request as forward, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type express from 'express';
import session from 'express-session';
import helmet from 'helmet';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Webauth, webauth } from '../src/express/index.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { makeKey } from './helpers.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const origin = 'https://example.cam.ac.uk';
const { authUrl } = wls.profile;

const show: express.RequestHandler = ({ auth, originalUrl }, response) =>
  void response.send(`${originalUrl} for ${auth?.principal ?? 'nobody'}`);

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => clock.reset());

  const pages: Routes = (app, auth) => {
    app.get('/', show);
    app.get(['/private', '/app/private'], auth.require(), show);
    app.get(['/staff', '/app/staff'], auth.require({ iact: true }), show);
    app.post('/private', auth.require(), ({ body }, response) => void response.json(body));
  };

  describe('behind a proxy that calls us by another name, and adds headers', () => {
    const proxy = createServer();
    let address: string;
    beforeAll(async () => {
      proxy.on(
        'request',
        reverse(() => site.address),
      );
      await once(proxy.listen(0, '127.0.0.1'), 'listening');
      address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    });
    afterAll(() => {
      proxy.close();
      proxy.closeAllConnections();
    });

    const lies = { forwarded: 'host=evil.example;proto=http', 'x-forwarded-proto': 'http', 'x-original-url': '/evil' };

    describe.each([
      ['at the root', ''],
      ['under a path', '/app'],
    ])('%s', (_name, path) => {
      it.each([
        ['says the truth', {}],
        ['passes on what a client says', { ...lies, 'x-forwarded-host': 'evil.example', 'x-rewrite-url': '/evil' }],
        ['and is called by another name itself', { host: 'alias.example' }],
      ])('people get in, and our cookies are for https: it %s', async (_name2, headers) => {
        for (const trusting of [false, true]) {
          site.serve(pages, { baseUrl: origin + path }, (app) => void app.set('trust proxy', trusting));
          const person = new Browser(address, origin);
          const first = await person.get(`${path}/private?x=1`, headers);
          expect(first.location).toBe(
            `${origin}${path}/webauth/login?return=${encodeURIComponent(path)}%2Fprivate%3Fx%3D1&moved=${encodeURIComponent(path)}%2F`,
          );
          const begun = await person.get(first.location, headers);
          expect(begun.location.startsWith(`${authUrl}?`)).toBe(true);
          expect(new URL(begun.location).searchParams.get('url')).toBe(`${origin}${path}/webauth/callback`);
          const done = await person.get(answerTo(begun.location), headers);
          expect(done.location).toBe(`${origin}${path}/private?x=1`);
          for (const line of [...begun.set, ...done.set]) expect(line).toMatch(/^__Host-webauth-.*; Secure$/);
          expect((await person.get(`${path}/private`, headers)).text).toBe(`${path}/private for test0001`);
        }
      });

      it('steps up, and logs out, by our own Origin', async () => {
        site.serve(pages, { baseUrl: origin + path });
        const person = new Browser(address, origin);
        await person.arrive(`${path}/private`);
        expect((await person.arrive(`${path}/staff`)).answer.text).toBe(`${path}/staff for test0001`);
        expect((await person.post(`${path}/webauth/ticket`)).status).toBe(200);
        const logout = `${path}/webauth/logout`;
        const { status } = await person.post(logout, { origin: site.address, 'x-forwarded-host': site.address });
        expect(status).toBe(403);
        expect((await person.post(logout)).location).toBe(origin + logout);
        expect((await person.get('/')).text).toBe('/ for nobody');
      });
    });
  });

  it('in a router below the path of baseUrl', async () => {
    const waa = createWAA({ baseUrl: `${site.address}/app`, secret, wls: wls.profile, now: clock.now });
    site.run((app) => {
      const auth = webauth(waa);
      const router = framework.Router();
      router.use(auth);
      router.get('/private', auth.require(), show);
      router.use(auth.failurePage);
      app.use('/app', router);
    });
    const person = new Browser(site.address);
    expect((await person.arrive('/app/private?x')).answer.text).toBe('/app/private?x for test0001');
    expect((await person.get('/app/webauth/callback')).status).toBe(400);
    expect((await person.get('/webauth/logout')).status).toBe(404);
  });

  describe('behind helmet', () => {
    const policy = ({ headers }: Answer) => headers.get('content-security-policy') ?? '';
    let person: Browser;
    beforeEach(async () => {
      site.serve(pages, {}, (app) => void app.use(helmet()));
      person = new Browser(site.address);
    });

    it('our pages keep their own policies, and get the rest', async () => {
      const logout = await person.get('/webauth/logout');
      await person.arrive('/private');
      for (const page of [logout, await person.get('/webauth/logout'), await person.get('/webauth/callback')]) {
        expect(policy(page)).toMatch(/^default-src 'none'; .*; script-src 'none'; .*; frame-ancestors 'none'; [^,]*$/);
        expect(page.headers.get('referrer-policy')).toBe('same-origin');
        expect(page.headers.get('x-frame-options')).toBe('DENY');
        expect(page.headers.get('cross-origin-opener-policy')).toBe('same-origin');
        expect(page.headers.get('strict-transport-security')).toMatch(/^max-age=/);
      }
      expect(policy(logout)).toContain(`form-action 'self' ${new URL(authUrl).origin};`);
    });

    it('the application’s pages keep theirs, and the way to the login service is as ever', async () => {
      const { answer, trail } = await person.arrive('/private');
      expect(trail.length).toBe(2);
      expect(answer.text).toBe('/private for test0001');
      expect(policy(answer)).toMatch(/^default-src 'self';/);
      expect(answer.headers.get('cache-control')).toBe('private, no-cache');
      // Its referrer policy makes browsers say null of its own pages.
      const left = await person.post('/webauth/logout', { origin: 'null', 'sec-fetch-site': 'same-origin' });
      expect([left.status, left.headers.get('referrer-policy')]).toEqual([303, 'same-origin']);
    });
  });

  describe('next to express-session', () => {
    const count: Routes = (app, auth) => {
      pages(app, auth);
      app.get('/count', (request, response) => {
        const kept = request.session as { count?: number };
        kept.count = (kept.count ?? 0) + 1;
        response.send(`${kept.count} for ${request.auth?.principal ?? 'nobody'}`);
      });
    };

    it.each([false, true])('both sessions live, with saveUninitialized %j', async (saveUninitialized) => {
      const theirs = session({ secret: 'a secret of the application', resave: false, saveUninitialized });
      site.serve(count, {}, (app) => void app.use(theirs));
      const person = new Browser(site.address);
      const see = async () => (await person.get('/count')).text;
      if (!saveUninitialized) expect(await see()).toBe('1 for nobody');
      const begun = await person.get('/private');
      // Both in one answer, where theirs begins with it.
      const names = begun.set.map((line) => line.split('=', 1)[0]);
      expect(names.sort()).toEqual(saveUninitialized ? ['connect.sid', 'webauth-login'] : ['webauth-login']);
      if (saveUninitialized) expect(await see()).toBe('1 for nobody');
      const id = person.cookie('connect.sid');
      await person.get(answerTo(begun.location));
      expect(await see()).toBe('2 for test0001');
      await person.arrive('/staff');
      expect(await see()).toBe('3 for test0001');
      await person.post('/webauth/logout?everywhere=yes');
      expect(await see()).toBe('4 for nobody');
      await person.arrive('/staff');
      expect(await see()).toBe('5 for test0001');
      expect([id, person.cookie('connect.sid')]).toEqual([expect.any(String), id]);
    });

    it('the end of theirs is none of ours', async () => {
      const theirs = session({ secret: 'a secret of the application', resave: false, saveUninitialized: true });
      const destroy: Routes = (app, auth) => {
        count(app, auth);
        app.get('/destroy', (request, response) => request.session.destroy(() => response.send('gone')));
      };
      site.serve(destroy, {}, (app) => void app.use(theirs));
      const person = new Browser(site.address);
      await person.arrive('/private');
      expect([(await person.get('/count')).text, (await person.get('/destroy')).text]).toEqual([
        '1 for test0001',
        'gone',
      ]);
      expect((await person.get('/count')).text).toBe('1 for test0001');
    });
  });

  describe('behind parsers of bodies', () => {
    const form = { 'content-type': 'application/x-www-form-urlencoded' };
    const json = { 'content-type': 'application/json' };
    let person: Browser;
    beforeEach(() => {
      site.serve(pages, {}, (app) => void app.use(framework.json(), framework.urlencoded({ extended: false })));
      person = new Browser(site.address);
    });

    it('our posts work, whatever is in them', async () => {
      await person.arrive('/private');
      expect((await person.post('/webauth/ticket', json, '{"a":1}')).status).toBe(200);
      expect((await person.post('/webauth/logout', form, 'everywhere=no&WLS-Response=x')).status).toBe(303);
      expect((await person.get('/')).text).toBe('/ for nobody');
    });

    it('a form of the application’s is not saved before the login, and arrives after it', async () => {
      const lost = await person.post('/private', { ...form, referer: `${site.address}/` }, 'text=long');
      expect([lost.status, lost.text.includes('What you sent was not saved')]).toEqual([401, true]);
      await person.arrive('/private');
      expect((await person.post('/private', form, 'text=long')).text).toBe('{"text":"long"}');
    });

    it('what they refuse is no failure of ours', async () => {
      await person.arrive('/private');
      const { status, text } = await person.post('/webauth/ticket', json, '{"a":');
      expect([status, text]).toEqual([400, expect.stringContaining('<title>Error</title>')]);
    });
  });

  describe('next to another copy, for another login service', () => {
    const goose = createWLS({ key: makeKey(1024, 'goose').privateKey, now: clock.now });
    const profiles = {
      raven: { ...wls.profile, name: 'raven' },
      goose: { ...goose.profile, name: 'goose', authUrl: 'http://localhost:8712/wls', requirePtags: [] },
    };
    const whole = (who: { auth?: { wls: string; principal: string } | undefined }) =>
      who.auth ? `${who.auth.principal} of ${who.auth.wls}` : 'nobody';
    const say: express.RequestHandler = (request, response) => void response.send(whole(request));
    let waas: { readonly raven: WAA; readonly goose: WAA };
    let person: Browser;

    beforeEach(() => {
      const common = { secret, store: new MemoryStore({ now: clock.now }), now: clock.now };
      waas = {
        raven: createWAA({ baseUrl: origin, wls: profiles.raven, ...common }),
        goose: createWAA({ baseUrl: `${origin}/goose`, wls: profiles.goose, cookieName: 'goose', ...common }),
      };
      person = new Browser(site.address, origin);
    });

    function serve(first: 'raven' | 'goose'): void {
      site.run((app) => {
        const auths = { raven: webauth(waas.raven), goose: webauth(waas.goose) };
        app.use(auths[first], auths[first === 'raven' ? 'goose' : 'raven']);
        app.get(['/', '/goose/open'], say);
        app.get('/members', auths.raven.require(), say);
        app.get(['/goose/members', '/also-goose'], auths.goose.require(), say);
        app.get('/goose/nobody', auths.goose.require({ principals: [] }), say);
        app.use('/goose', auths.goose.failurePage as express.ErrorRequestHandler);
        app.use(auths.raven.failurePage as Webauth['failurePage']);
      });
    }

    const see = async (path: string) => (await person.get(path)).text;
    const logInto = async (path: string) => (await person.arrive(path, path === '/members' ? wls : goose)).answer.text;

    describe.each(['raven', 'goose'] as const)('with the one for %s first', (first) => {
      beforeEach(() => serve(first));

      it('each guard sends people to its own login service, and knows only them', async () => {
        expect((await person.get('/members')).location.startsWith(`${profiles.raven.authUrl}?`)).toBe(true);
        expect(await logInto('/goose/members')).toBe('test0001 of goose');
        const other = await person.get('/members');
        expect(other.location.startsWith(`${profiles.raven.authUrl}?`)).toBe(true);
        expect((await person.fetch('/members')).status).toBe(401);
        expect(await see('/also-goose')).toBe('test0001 of goose');
      });

      it.each([
        ['/members', 'test0001 of raven'],
        ['/goose/members', 'test0001 of goose'],
      ])('an open page sees whoever came by way of %s', async (path, who) => {
        for (const open of ['/', '/goose/open']) expect(await see(open)).toBe('nobody');
        expect(await logInto(path)).toBe(who);
        for (const open of ['/', '/goose/open']) expect(await see(open)).toBe(who);
      });

      it('who is logged in by both is so by the last one on open pages, and by its own behind each guard', async () => {
        await logInto('/members');
        await logInto('/goose/members');
        expect(await see('/')).toBe(`test0001 of ${first === 'raven' ? 'goose' : 'raven'}`);
        expect([await see('/members'), await see('/goose/members')]).toEqual([
          'test0001 of raven',
          'test0001 of goose',
        ]);
      });

      it.each([
        ['/webauth/logout', '/members', '/goose/members', 'test0001 of goose'],
        ['/goose/webauth/logout', '/goose/members', '/members', 'test0001 of raven'],
      ])('logging out at %s leaves the other one, also everywhere', async (logout, ended, left, who) => {
        for (const query of ['', '?everywhere=yes']) {
          await logInto(ended);
          await logInto(left);
          expect((await person.post(logout + query)).location).toBe(origin + logout);
          expect([await see(left), await see('/')]).toEqual([who, who]);
          expect((await person.fetch(ended)).status).toBe(401);
          clock.pass(11);
        }
      });

      it('the answer of one login service is none of the other’s', async () => {
        const { location } = await person.get('/members');
        expect(await see(answerTo(location, {}, goose))).toContain('ERR_SIGNATURE_INVALID');
        const { location: theirs } = await person.get('/goose/members');
        const stray = answerTo(theirs, {}, goose).replace('/goose/webauth', '/webauth');
        // The one that comes first sees its own login at a path that is not its callback.
        expect(await see(stray)).toContain(first === 'goose' ? 'ERR_PATH_MISMATCH' : 'ERR_PARAMS_MISMATCH');
        expect(await see('/')).toBe('nobody');
      });

      it('the cookie of one is none of the other’s, though they share a secret and a store', async () => {
        await logInto('/goose/members');
        person.plant('__Host-webauth-session', person.cookie('__Host-goose-session'));
        person.plant('__Host-goose-session');
        expect(await see('/')).toBe('nobody');
        expect((await person.fetch('/members')).status).toBe(401);
      });

      it('a failure page leads to its own login and logout', async () => {
        await logInto('/goose/members');
        expect(await see('/goose/nobody')).toContain('href="/goose/webauth/logout"');
        expect(await see('/goose/webauth/callback')).toContain('action="/goose/webauth/login?return=%2Fgoose%2F"');
        expect(await see('/webauth/callback')).toContain('action="/webauth/login?return=%2F"');
      });
    });
  });
});

/** A reverse proxy, which rewrites Host and believes whoever says who they are. */
function reverse(target: () => string): RequestListener {
  return (request, response) => {
    const { method, url, headers } = request;
    const { hostname, port } = new URL(target());
    const added = {
      'x-forwarded-for': '192.0.2.1',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': headers.host,
      'x-forwarded-port': '443',
    };
    const path = url ?? '/';
    const sent = { ...added, ...headers, host: 'inside:8080' };
    const onward = forward({ hostname, port, method, path, headers: sent, agent: false }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  };
}
