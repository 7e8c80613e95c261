import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA } from '../src/waa.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, wls } from './site.js';

const SESSION = 'webauth-session';
const MARKER = 'webauth-done';
const image = '<img src="/webauth/cleared" alt="" hidden>';
const code = ({ text }: Answer) => /ERR_\w+/.exec(text)?.[0];

/** A store whose writes can fail. */
class Flaky extends MemoryStore {
  #isDown = false;
  #onPut = () => {};

  goDown(): void {
    this.#isDown = true;
  }

  /** Resolves when the next write has succeeded. */
  async comeBack(): Promise<void> {
    this.#isDown = false;
    await new Promise<void>((resolve) => {
      this.#onPut = resolve;
    });
    await new Promise(setImmediate);
  }

  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (this.#isDown) throw new Error('no route');
    await super.put(key, value, expires);
    this.#onPut();
  }
}

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let store: Flaky;
  let user: Browser;
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
    app.get('/app/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
  };
  const serve = (config: Partial<Config> = {}) => site.serve(routes, { store, ...config });
  const everywhere = '/webauth/logout?everywhere=yes';

  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Flaky({ now: clock.now });
    serve();
    user = new Browser(site.address);
  });

  async function loggedIn(principal = 'test0001'): Promise<Browser> {
    const browser = new Browser(site.address);
    await browser.logIn('/private', { principal });
    return browser;
  }

  describe('POST /webauth/logout?everywhere=yes', () => {
    const together = 'Your sessions on other devices were ended together with this one.';
    const notEnded = 'Your other sessions were not ended';

    it('says at the retry of a failed logout that other sessions were ended', async () => {
      const elsewhere = await loggedIn();
      await user.logIn();
      store.goDown();
      expect((await user.post(everywhere)).status).toBe(503);
      expect((await user.post(everywhere)).status).toBe(503);
      await store.comeBack();
      const retry = await user.post(everywhere);
      expect([retry.status, retry.text]).toEqual([200, expect.stringContaining(together)]);
      expect(retry.text).toContain('You are logged out of this site');
      expect([user.cookie(SESSION), (await elsewhere.fetch('/private')).status]).toEqual([undefined, 401]);
    });

    it('says so at a second click, whose cookie was sent before the answer to the first', async () => {
      await user.logIn();
      const cookie = `${SESSION}=${user.cookie(SESSION)}`;
      expect((await user.post(everywhere)).status).toBe(303);
      const second = await new Browser(site.address).post(everywhere, { cookie });
      expect([second.status, second.text]).toEqual([200, expect.stringContaining(together)]);
      const client = await new Browser(site.address).post(everywhere, { cookie, accept: '*/*' });
      expect([client.status, client.location]).toEqual([303, `${site.address}/webauth/logout`]);
    });

    it('says so at another process that learned of the logout from the store', async () => {
      await user.logIn();
      const cookie = `${SESSION}=${user.cookie(SESSION)}`;
      await user.post(everywhere);
      const other = new Site(framework);
      await other.listen();
      other.serve(routes, { store, baseUrl: site.address });
      await other.waa.ready;
      const retry = await new Browser(other.address, site.address).post(everywhere, { cookie });
      other.close();
      expect([retry.status, retry.text]).toEqual([200, expect.stringContaining(together)]);
    });

    it('says so after the application ended all sessions of the user', async () => {
      await user.logIn();
      await site.waa.endSessions('test0001');
      expect((await user.post(everywhere)).text).toContain(together);
    });

    it('leaves sessions that began since, and says that they go on', async () => {
      await user.logIn();
      const cookie = `${SESSION}=${user.cookie(SESSION)}`;
      await user.post(everywhere);
      const since = await loggedIn();
      const retry = await new Browser(site.address).post(everywhere, { cookie });
      expect(retry.text).toMatch(/Where you have logged in\s+since then, you are still logged in\./);
      expect((await since.get('/private')).text).toBe('test0001');
    });

    it('says that other sessions were not ended where this one was ended alone', async () => {
      const elsewhere = await loggedIn();
      await user.logIn();
      const cookie = `${SESSION}=${user.cookie(SESSION)}`;
      await user.post('/webauth/logout');
      const answer = await new Browser(site.address).post(everywhere, { cookie });
      expect([answer.status, answer.text]).toEqual([401, expect.stringContaining(notEnded)]);
      expect((await elsewhere.get('/private')).text).toBe('test0001');
    });

    it('says so for a doubled cookie, and for one that is not bound to the browser', async () => {
      const dead = await loggedIn();
      const cookie = `${SESSION}=${dead.cookie(SESSION)}`;
      await dead.post(everywhere);
      const doubled = await new Browser(site.address).post(everywhere, { cookie: `${cookie}; ${cookie}` });
      expect([doubled.status, doubled.text]).toEqual([401, expect.stringContaining(notEnded)]);

      serve({ baseUrl: `${site.address}/app`, cookiePath: '/app' });
      const planted = new Browser(site.address);
      await planted.logIn('/app/private');
      const alone = `${SESSION}=${planted.cookie(SESSION)}`;
      await planted.post(`/app${everywhere}`);
      const answer = await new Browser(site.address).post(`/app${everywhere}`, { cookie: alone });
      expect([answer.status, answer.text]).toEqual([401, expect.stringContaining(notEnded)]);
    });
  });

  describe('a guard within ten seconds of a login', () => {
    it('redirects to a login after a logout that failed, for want of the store or of the secret', async () => {
      await user.logIn();
      store.goDown();
      expect((await user.post('/webauth/logout')).status).toBe(503);
      expect(user.cookie(MARKER)).toBeUndefined();
      expect((await user.get('/private')).location.startsWith(wls.profile.authUrl)).toBe(true);
      await store.comeBack();

      const stranger = new Browser(site.address);
      await stranger.logIn();
      serve({ secret: 'b2'.repeat(32) });
      expect((await stranger.post('/webauth/logout')).status).toBe(503);
      expect((await stranger.get('/private')).location.startsWith(wls.profile.authUrl)).toBe(true);
    });

    it.each<[string, (browser: Browser) => Promise<unknown>]>([
      ['the application ended the session', async () => site.waa.endSessions('test0001')],
      [
        'the user ended the session on another device',
        async () => site.waa.sessions.revoke('test0001', (await site.waa.sessions.list('test0001'))[0]?.handle ?? ''),
      ],
      ['the user logged out everywhere on another device', async () => (await loggedIn()).post(everywhere)],
    ])('says that the session was ended, and begins no login, where %s', async (_name, end) => {
      serve({ listSessions: true });
      await user.logIn();
      await end(user);
      const answer = await user.get('/private');
      expect([answer.status, code(answer), answer.location]).toEqual([401, 'ERR_SESSION_REVOKED', '']);
      expect(answer.text).toContain('<h1>Please log in again</h1>');
      expect(answer.text).not.toContain('ookies');
      const { location } = await user.press('/webauth/login?return=%2Fprivate');
      await user.get(answerTo(location));
      expect((await user.get('/private')).text).toBe('test0001');
    });

    it('says that cookies are blocked where the session is none that the store knows', async () => {
      await user.logIn();
      serve({ store: new MemoryStore({ now: clock.now }) });
      const answer = await user.get('/private');
      expect([answer.status, code(answer)]).toEqual([400, 'ERR_COOKIES_BLOCKED']);
    });
  });

  describe('GET /webauth/cleared', () => {
    const imageOf = (answer: Answer) => [answer.text.includes(image), answer.headers.get('content-security-policy')];
    const withImage = [true, expect.stringContaining("img-src data: 'self';")];
    const withoutImage = [false, expect.stringContaining('img-src data:;')];

    /** The pages that a user sees after a press of a logout button. */
    async function pagesAfterLogout(): Promise<Answer[]> {
      await user.logIn();
      const session = `${SESSION}=${user.cookie(SESSION)}`;
      const pages = [await user.get((await user.post('/webauth/logout')).location)];
      pages.push(await new Browser(site.address).post(everywhere, { cookie: session }));
      const other = await loggedIn();
      store.goDown();
      pages.push(await other.post('/webauth/logout'), await other.post(everywhere));
      pages.push(await other.post('/webauth/logout?here=yes'));
      await store.comeBack();
      const last = await loggedIn();
      const ended = `${SESSION}=${last.cookie(SESSION)}`;
      await last.post(everywhere);
      pages.push(await new Browser(site.address).post(everywhere, { cookie: ended }));
      return pages;
    }

    it('is requested by every page after a logout', async () => {
      const pages = await pagesAfterLogout();
      expect(pages.map(({ status }) => status)).toEqual([200, 401, 503, 503, 200, 200]);
      for (const page of pages) expect(imageOf(page)).toEqual(withImage);
    });

    it('clears the cache and nothing else, for an image of a page of this origin', async () => {
      const sent = { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' };
      for (const headers of [sent, {}]) {
        const answer = await user.send('GET', '/webauth/cleared', { accept: 'image/*', ...headers });
        expect([answer.status, answer.headers.get('clear-site-data'), answer.set]).toEqual([200, '"cache"', []]);
        expect(answer.headers.get('cache-control')).toBe('no-store');
        expect(answer.headers.get('content-type')).toBe('image/svg+xml');
      }
    });

    it.each(['same-site', 'cross-site', 'none'])('clears nothing for Sec-Fetch-Site: %s', async (from) => {
      const answer = await user.get('/webauth/cleared', { 'sec-fetch-site': from });
      expect([answer.status, answer.headers.get('clear-site-data')]).toEqual([200, null]);
    });

    it('ends no session', async () => {
      await user.logIn();
      await user.get('/webauth/cleared');
      expect((await user.get('/private')).text).toBe('test0001');
      expect((await user.post('/webauth/cleared')).status).toBe(405);
    });

    it('is not requested by the page that offers a logout, nor by other pages', async () => {
      const cancelled = answerTo((await user.get('/private')).location, { status: 410 });
      expect(imageOf(await user.get(cancelled))).toEqual(withoutImage);
      await user.logIn();
      expect(imageOf(await user.get('/webauth/logout'))).toEqual(withoutImage);
    });

    it('is at the path of the application', async () => {
      serve({ baseUrl: `${site.address}/app` });
      expect((await user.get('/app/webauth/logout')).text).toContain('<img src="/app/webauth/cleared" alt="" hidden>');
      expect((await user.get('/app/webauth/cleared')).headers.get('clear-site-data')).toBe('"cache"');
    });

    it('is absent with clearCacheOnLogout: false', async () => {
      serve({ clearCacheOnLogout: false });
      const pages = await pagesAfterLogout();
      for (const page of pages) expect(imageOf(page)).toEqual(withoutImage);
      expect((await user.get('/webauth/cleared')).status).toBe(404);
    });
  });
});

describe('createWAA()', () => {
  const good = { baseUrl: 'https://example.org', secret: 'a1'.repeat(32) };

  it('rejects a clearCacheOnLogout that is no boolean, and a callbackPath that is the route of the cache', () => {
    expect(() => createWAA({ ...good, clearCacheOnLogout: 'no' as never })).toThrow(TypeError);
    expect(() => createWAA({ ...good, callbackPath: '/webauth/cleared' })).toThrow('the option callbackPath is a path');
  });
});
