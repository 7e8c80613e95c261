import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA } from '../src/waa.js';
import { Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

/** A store that counts what is written to lists of sessions, and whose puts there can be held back. */
class Counting extends MemoryStore {
  written = 0;
  held: Promise<void> | undefined;
  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (!key.startsWith('sessions.')) return super.put(key, value, expires);
    this.written += 1;
    await this.held;
    return super.put(key, value, expires);
  }
}

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let store: Counting;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Counting({ now: clock.now });
    serve();
  });

  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), (_, response) => void response.send('in'));
    app.get('/fresh', auth.require({ maxAge: 60 }), (_, response) => void response.send('fresh'));
    app.get('/sessions', auth.require(), ({ auth: who }, response, next) => {
      site.waa.sessions.list(who?.principal as string, who).then((list) => response.json(list), next);
    });
    app.post('/end', auth.require(), ({ auth: who, query }, response, next) => {
      const done = site.waa.sessions.revoke(who?.principal as string, query['handle'] as string);
      done.then((found) => response.json(found), next);
    });
  };

  function serve(config: Partial<Config> = {}): void {
    site.serve(routes, { store, listSessions: true, ...config });
  }

  /** Logs in with a browser that says so much of itself. */
  async function logIn(agent?: string, principal = 'test0001'): Promise<Browser> {
    const browser = new Browser(site.address);
    const headers: Record<string, string> = agent === undefined ? {} : { 'user-agent': agent };
    const { send } = browser;
    browser.send = (method, target, more = {}, body = '') =>
      send.call(browser, method, target, { ...headers, ...more }, body);
    await browser.logIn('/private', { principal });
    clock.pass(11);
    return browser;
  }

  const list = (principal = 'test0001') => site.waa.sessions.list(principal);
  const agents = async (principal?: string) => (await list(principal)).map(({ userAgent }) => userAgent);
  const authOf = (browser: Browser) => site.waa.openSession(browser.cookie('webauth-session'));

  describe('a person’s sessions', () => {
    it('are listed with their beginning, their end, when they were used, and in which browser', async () => {
      const begun = clock.time;
      await logIn('Firefox');
      const browser = await logIn('Chrome');
      const sessions = JSON.parse((await browser.get('/sessions')).text);
      expect(sessions).toEqual([
        {
          handle: expect.stringMatching(/^[\w-]{43}$/),
          created: new Date(begun + 11_000).toISOString(),
          lastSeen: new Date(begun + 11_000).toISOString(),
          expires: new Date(begun + 11_000 + 7200_000).toISOString(),
          userAgent: 'Chrome',
          current: true,
        },
        expect.objectContaining({ userAgent: 'Firefox', created: new Date(begun).toISOString(), current: false }),
      ]);
      expect((await list()).map(({ current }) => current)).toEqual([false, false]);
      expect(JSON.stringify(sessions)).not.toContain(authOf(browser).sessionId);
      expect(await list('test0002')).toEqual([]);
    });

    it('are in the order of their last use, to the minute', async () => {
      const [first, second, third] = [await logIn('1'), await logIn('2'), await logIn('3')];
      expect(await agents()).toEqual(['3', '2', '1']);
      clock.pass(60);
      for (const browser of [second, third, first]) {
        clock.pass(1);
        await browser.get('/private');
      }
      expect(await agents()).toEqual(['1', '3', '2']);
      const [{ lastSeen } = { lastSeen: undefined }] = await list();
      expect(lastSeen).toEqual(clock.now());
      // Within the minute it is not said anew.
      clock.pass(57);
      await second.get('/private');
      expect((await agents())[0]).toBe('1');
      clock.pass(1);
      await second.get('/private');
      expect((await agents())[0]).toBe('2');
    });

    it('say of the browser what it says, whatever that is, and at most 200 characters', async () => {
      const bytes = Array.from({ length: 128 }, (_, i) => String.fromCharCode(128 + i)).join('');
      const told = [
        '',
        '"><script>alert(1)</script>',
        '{"a":1}',
        bytes,
        '%00%0a!,;=',
        'x'.repeat(200),
        'y'.repeat(4000),
      ];
      for (const agent of told) {
        await logIn(agent);
        expect((await agents())[0]).toBe(agent.slice(0, 200));
      }
      await logIn();
      expect((await agents())[0]).toBe('');
    });

    it('say of the browser what it says last', async () => {
      const browser = await logIn('before its update');
      clock.pass(60);
      await browser.get('/private', { 'user-agent': 'after it' });
      expect(await agents()).toEqual(['after it']);
    });

    it('are of one application each, though others share the store', async () => {
      await logIn('here');
      const others: Partial<Config>[] = [
        { baseUrl: `${site.address}/two` },
        { cookieName: 'two' },
        { secret: 'b2'.repeat(32) },
      ];
      for (const config of others) {
        const waa = createWAA({
          ...{ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store, listSessions: true },
          ...config,
        });
        await waa.ready;
        const [mine] = await list();
        expect(await waa.sessions.list('test0001')).toEqual([]);
        expect(await waa.sessions.revoke('test0001', mine?.handle as string)).toBe(false);
      }
      expect(await agents()).toEqual(['here']);
    });
  });

  describe('are not listed any more', () => {
    it('when they were ended, in whatever way', async () => {
      const ways: [string, (browser: Browser) => Promise<unknown>][] = [
        ['by their person', (browser) => browser.post('/webauth/logout')],
        ['by the program', (browser) => site.waa.endSession(authOf(browser))],
        ['all at once', () => site.waa.endSessions('test0001')],
        ['by a block', () => site.waa.block('test0001')],
      ];
      for (const [name, end] of ways) {
        const browser = await logIn(name);
        expect(await agents()).toEqual([name]);
        await end(browser);
        expect(await agents(), name).toEqual([]);
      }
    });

    it('when another login replaced them', async () => {
      const browser = await logIn('one');
      const [before] = await list();
      clock.pass(60);
      await browser.logIn('/fresh');
      const after = await list();
      expect(after).toHaveLength(1);
      expect(after[0]?.handle).not.toBe(before?.handle);
    });

    it('when they are over', async () => {
      await logIn('first');
      clock.pass(600);
      await logIn('second');
      clock.pass(7200 - 611 - 11 - 0.001);
      expect(await agents()).toEqual(['second', 'first']);
      clock.pass(0.001);
      expect(await agents()).toEqual(['second']);
    });

    it('when they were not used for all of inactiveTimeout, and a minute', async () => {
      serve({ inactiveTimeout: 600 });
      const used = await logIn('used');
      await logIn('left');
      for (let i = 0; i < 6; i++) {
        clock.pass(100);
        await used.get('/private');
        expect(await agents()).toHaveLength(2);
      }
      clock.pass(61);
      expect(await agents()).toEqual(['used']);
      // Though it slides, its end in the list is the settled one.
      const settled = authOf(used).loggedInAt.getTime() + 7200_000;
      expect((await list())[0]?.expires).toEqual(new Date(settled));
    });

    it('when the browser logged out of another application with which they log out', async () => {
      serve({ coordinatedLogout: true });
      const browser = await logIn('both');
      const other = createWAA({
        ...{ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store, cookieName: 'other' },
        coordinatedLogout: true,
      });
      const { location, nonce } = other.startLogin('/');
      const { auth } = await other.finishLogin(
        wls.respond(location),
        nonce,
        undefined,
        browser.cookie('webauth-session-id'),
      );
      expect(await agents()).toEqual(['both']);
      await other.endSession(auth);
      expect(await agents()).toEqual([]);
    });
  });

  describe('one of them can be ended', () => {
    it('by its handle, with its sockets, and no other', async () => {
      const [here, there, elsewhere] = [await logIn('here'), await logIn('there'), await logIn('elsewhere')];
      const closed: string[] = [];
      for (const [name, browser] of Object.entries({ here, there, elsewhere })) {
        site.waa.watch(authOf(browser), ({ code }) => closed.push(`${name} ${code}`));
      }
      const { handle } = (await list()).find(({ userAgent }) => userAgent === 'there') as { handle: string };
      expect((await here.post(`/end?handle=${handle}`)).text).toBe('true');
      expect(closed).toEqual(['there ERR_SESSION_REVOKED']);
      expect((await there.fetch('/private')).text).toContain('ERR_SESSION_REVOKED');
      for (const browser of [here, elsewhere]) expect((await browser.fetch('/private')).status).toBe(200);
      expect((await agents()).sort()).toEqual(['elsewhere', 'here']);
      expect((await here.post(`/end?handle=${handle}`)).text).toBe('false');
      // Also one's own.
      const [mine] = (await list()).filter(({ userAgent }) => userAgent === 'here');
      await here.post(`/end?handle=${mine?.handle}`);
      expect((await here.fetch('/private')).text).toContain('ERR_SESSION_REVOKED');
      await site.waa.close();
    });

    it('for as long as it would last, also by a cookie that was renewed after it was listed', async () => {
      serve({ inactiveTimeout: 1200, maxLife: 7200 });
      const [browser, other] = [await logIn('renewed'), await logIn('other')];
      clock.pass(600);
      await browser.get('/private');
      const [{ handle } = { handle: '' }] = await list();
      await other.post(`/end?handle=${handle}`);
      const cookie = `webauth-session=${browser.cookie('webauth-session')}`;
      for (let i = 0; i < 13; i++) {
        expect((await new Browser(site.address).fetch('/private', { cookie })).text).toMatch(
          /ERR_SESSION_(?:REVOKED|EXPIRED)/,
        );
        clock.pass(600);
      }
    });

    it('by nobody else’s name, and by no handle that is none', async () => {
      const [mine, theirs] = [await logIn('mine'), await logIn('theirs', 'test0002')];
      const [{ handle } = { handle: '' }] = await list('test0002');
      for (const one of [handle, '', authOf(mine).sessionId, '__proto__', '*']) {
        expect((await mine.post(`/end?handle=${encodeURIComponent(one)}`)).text).toBe('false');
      }
      for (const browser of [mine, theirs]) expect((await browser.fetch('/private')).status).toBe(200);
      expect(await agents('test0002')).toEqual(['theirs']);
    });

    it('and does not come back, though its use was being written just then', async () => {
      const [browser, other] = [await logIn('one'), await logIn('other')];
      const { handle } = (await list()).find(({ userAgent }) => userAgent === 'one') as { handle: string };
      let release = () => {};
      store.held = new Promise((resolve) => {
        release = resolve;
      });
      clock.pass(60);
      await browser.get('/private');
      await other.post(`/end?handle=${handle}`);
      release();
      await new Promise(setImmediate);
      expect(await agents()).toEqual(['other']);
      expect((await browser.fetch('/private')).text).toContain('ERR_SESSION_REVOKED');
    });
  });

  describe('to keep the list', () => {
    it('a session is written at most once a minute, however many requests it makes', async () => {
      const browser = await logIn('busy');
      expect(store.written).toBe(1);
      for (let i = 0; i < 48; i++) {
        clock.pass(1);
        await Promise.all([browser.get('/private'), browser.get('/'), browser.fetch('/private')]);
      }
      expect(store.written).toBe(1);
      clock.pass(1);
      await Promise.all([browser.get('/private'), browser.get('/private')]);
      expect(store.written).toBe(2);
      for (let i = 0; i < 100; i++) {
        clock.pass(6);
        await browser.get('/private');
      }
      expect(store.written).toBe(12);
      // A clock that was put back is no reason to write all the time.
      clock.pass(-3600);
      for (let i = 0; i < 20; i++) await browser.get('/private');
      expect(store.written).toBe(13);
    });

    it('nothing is written without a session', async () => {
      const browser = new Browser(site.address);
      for (let i = 0; i < 5; i++) await browser.get('/');
      browser.plant('webauth-session', 'x');
      await browser.get('/');
      expect(store.written).toBe(0);
    });

    it('no request waits for the store, nor fails with it', async () => {
      const browser = await logIn('here');
      const failing: (typeof store.put)[] = [
        () => new Promise<void>(() => {}),
        async () => Promise.reject(new Error('no route')),
        () => {
          throw new Error('at once');
        },
      ];
      for (const put of failing) {
        clock.pass(60);
        store.put = put;
        expect((await browser.get('/private')).text).toBe('in');
      }
      const told = site.events.filter(({ event }) => event === 'store');
      expect(told.map(({ message }) => message)).toEqual(['the store failed: no route', 'the store failed: at once']);
      store.list = async () => Promise.reject(new Error('no route'));
      await expect(list()).rejects.toMatchObject({ code: 'ERR_STORE_UNAVAILABLE', status: 503 });
    });
  });

  it('without listSessions nothing is written, and to ask for a list is a mistake that says so', async () => {
    serve({ listSessions: false });
    await logIn('here');
    expect(store.written).toBe(0);
    const mistake = new TypeError('no list of sessions is kept: set listSessions: true');
    await expect(site.waa.sessions.list('test0001')).rejects.toThrow(mistake);
    await expect(site.waa.sessions.revoke('test0001', 'x')).rejects.toThrow(mistake);
  });
});
