import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../src/config.js';
import { formatRemovals } from '../src/http.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const newer = 'b2'.repeat(32);
const SESSION = 'webauth-session';
const BINDING = 'webauth-session-id';
/** Removal of the marker of a login, so that the next login is not taken for a loop. */
const markerRemoval = 'webauth-done=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax';

/** A store whose writes can fail, and which can fall silent. */
class Flaky extends MemoryStore {
  lagging = 0;
  override lag(): number {
    return this.lagging;
  }
}

describe.each(frameworks)('%s: POST /webauth/logout', (_, framework) => {
  const site = new Site(framework);
  let store: Flaky;
  let user: Browser;
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
    app.get('/app/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
  };
  const serve = (config: Partial<Config> = {}) => site.serve(routes, { store, ...config });
  /** Another machine of the application. */
  const machine = (config: Partial<Config> = {}): WAA =>
    createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store, ...config });
  /** A session cookie that a machine seals for a user. */
  async function sealedBy(waa: WAA, principal = 'test0001', binding?: string): Promise<string> {
    const { location, nonce } = waa.startLogin('/');
    return (await waa.finishLogin(wls.respond(location, { principal }), nonce, undefined, binding)).cookie as string;
  }
  const outcome = (waa: WAA, cookie: string, binding?: string): string => {
    try {
      return waa.openSession(cookie, binding).principal;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  const cookies = (...values: string[]) => values.map((value) => `${SESSION}=${value}`).join('; ');
  const post = (cookie: string, query = '', more = {}): Promise<Answer> =>
    new Browser(site.address).post(`/webauth/logout${query}`, { cookie, ...more });
  const logged = () => site.events.map(({ level, event, code }) => [level, event, code].filter(Boolean).join(' '));

  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Flaky({ now: clock.now });
    serve();
    user = new Browser(site.address);
  });

  describe('with a cookie that another machine may have sealed', () => {
    let cookie: string;
    let other: WAA;
    beforeEach(async () => {
      other = machine({ secret: [newer, secret] });
      cookie = await sealedBy(other);
      user.plant(SESSION, cookie);
    });

    it('answers 503, keeps the cookie and offers to remove it from this browser', async () => {
      const answer = await user.post('/webauth/logout');
      expect([answer.status, answer.set, answer.headers.get('cache-control')]).toEqual([503, [], 'no-store']);
      expect(answer.text).toContain('ERR_LOGOUT_INCOMPLETE');
      expect(answer.text).toContain('<form method="post" action="/webauth/logout">');
      expect(answer.text).toContain('formaction="/webauth/logout?here=yes"');
      expect(answer.text).not.toContain(cookie.slice(0, 12));
      expect(outcome(other, cookie)).toBe('test0001');
      expect(logged()).toContain('warn refused ERR_LOGOUT_INCOMPLETE');
    });

    it('answers an API client with JSON', async () => {
      const answer = await user.post('/webauth/logout', { accept: 'application/json' });
      expect([answer.status, JSON.parse(answer.text).error.code]).toEqual([503, 'ERR_LOGOUT_INCOMPLETE']);
      const removed = await user.post('/webauth/logout?here=yes', { accept: 'application/json' });
      expect([removed.status, JSON.parse(removed.text)]).toEqual([200, { removed: true, revoked: false }]);
      expect(user.cookie(SESSION)).toBeUndefined();
    });

    it('revokes the session when a retry reaches a machine that has the secret', async () => {
      await user.post('/webauth/logout');
      serve({ secret: [secret, newer] });
      expect((await user.post('/webauth/logout')).status).toBe(303);
      expect([user.cookie(SESSION), outcome(other, cookie)]).toEqual([undefined, 'ERR_SESSION_REVOKED']);
    });

    it('removes it at the second button, says that the session may live on, and logs that', async () => {
      const answer = await user.post('/webauth/logout?here=yes');
      expect([answer.status, user.cookie(SESSION)]).toEqual([200, undefined]);
      expect(answer.text).toContain('removed from this browser');
      expect(answer.text).toContain('It could not be ended everywhere');
      expect(answer.text).not.toContain('You are logged out of this site');
      expect(logged()).toContain('warn logout ERR_LOGOUT_INCOMPLETE');
    });

    it('is not removed by a sibling host, nor by a link', async () => {
      const forged = await user.post('/webauth/logout?here=yes', { origin: 'https://evil.cam.ac.uk' });
      const followed = await user.get('/webauth/logout?here=yes');
      expect([forged.status, forged.set, followed.status, followed.set]).toEqual([403, [], 200, []]);
      expect(user.cookie(SESSION)).toBe(cookie);
    });

    it('shows the logout form on the page, since there may be a session', async () => {
      expect((await user.get('/webauth/logout')).text).toContain('<button class="main">Log out</button>');
    });

    it('revokes a session of ours beside it all the same', async () => {
      const own = await sealedBy(site.waa);
      const answer = await post(cookies(cookie, own));
      expect([answer.status, answer.set]).toEqual([503, []]);
      expect(outcome(site.waa, own)).toBe('ERR_SESSION_REVOKED');
    });

    it('is reported to the log when a new login takes its place', async () => {
      const { location } = await user.get('/webauth/login?return=/private');
      site.events.length = 0;
      expect((await user.get(answerTo(location))).status).toBe(303);
      expect(logged()).toContain('warn login ERR_SESSION_INVALID');
    });
  });

  it('removes a malformed cookie, which holds no session, and logs it', async () => {
    for (const value of ['x', '<script>', 'j:{"a":1}', `AQ${'A'.repeat(60)}`, '']) {
      site.events.length = 0;
      const answer = await post(cookies(value));
      expect([answer.status, answer.set[0]], value).toEqual([
        303,
        expect.stringMatching(/^webauth-session=; .*Max-Age=0/),
      ]);
      expect(logged(), value).toContain('warn refused ERR_SESSION_INVALID');
    }
    expect((await new Browser(site.address).get('/webauth/logout', { cookie: cookies('x') })).text).toContain(
      'You are logged out of this site',
    );
  });

  describe('with a doubled session cookie', () => {
    it('revokes every session that opens, in whichever order, and clears the cookie everywhere', async () => {
      for (const order of [
        [0, 1],
        [1, 0],
      ] as const) {
        const pair = [await sealedBy(site.waa), await sealedBy(site.waa, 'test0002')] as const;
        const answer = await post(cookies(pair[order[0]], pair[order[1]]));
        expect([answer.status, answer.location]).toEqual([303, `${site.address}/webauth/logout`]);
        for (const cookie of pair) expect(outcome(site.waa, cookie)).toBe('ERR_SESSION_REVOKED');
        for (const path of ['/', '/webauth', '/webauth/', '/webauth/logout']) {
          expect(answer.set).toContain(`${SESSION}=; Path=${path}; Max-Age=0`);
        }
      }
      expect(logged().filter((line) => line === 'info logout')).toHaveLength(4);
    });

    it('revokes a session whose cookie comes twice once, and one beside garbage', async () => {
      const cookie = await sealedBy(site.waa);
      expect((await post(cookies(cookie, cookie, 'planted'))).status).toBe(303);
      expect(outcome(site.waa, cookie)).toBe('ERR_SESSION_REVOKED');
      expect(logged().filter((line) => line === 'info logout')).toHaveLength(1);
    });

    it('revokes neither user’s other sessions, and says that it did not', async () => {
      const [mine, theirs] = [await sealedBy(site.waa), await sealedBy(site.waa, 'test0002')];
      const elsewhere = [await sealedBy(site.waa), await sealedBy(site.waa, 'test0002')];
      const answer = await post(cookies(mine, theirs), '?everywhere=yes');
      expect([answer.status, answer.text.includes('Your other sessions were not ended')]).toEqual([401, true]);
      expect(elsewhere.map((cookie) => outcome(site.waa, cookie))).toEqual(['test0001', 'test0002']);
      expect([mine, theirs].map((cookie) => outcome(site.waa, cookie))).toEqual(Array(2).fill('ERR_SESSION_REVOKED'));
    });

    it('shows the logout form on the page', async () => {
      const cookie = cookies(await sealedBy(site.waa), 'planted');
      expect((await new Browser(site.address).get('/webauth/logout', { cookie })).text).toContain('Log out?');
    });

    it('leaves the cookies of another application on the host', async () => {
      const one = cookies(await sealedBy(site.waa), 'planted');
      const { set } = await post(`${one}; wiki-session=a; wiki-session-id=b`);
      expect(set.filter((line) => !/^webauth-(?:session|done)=/.test(line))).toEqual([]);
    });
  });

  describe('with a cookiePath', () => {
    const config = () => ({ baseUrl: `${site.address}/app`, cookiePath: '/app' });
    let cookie: string;
    let binding: string;
    beforeEach(async () => {
      serve(config());
      await user.logIn('/app/private');
      cookie = user.cookie(SESSION) as string;
      binding = user.cookie(BINDING) as string;
    });
    const logOut = (sent: string, query = '') =>
      new Browser(site.address).post(`/app/webauth/logout${query}`, { cookie: sent });

    it.each<[string, () => string, boolean]>([
      ['is missing', () => '', false],
      ['is another one', () => `; ${BINDING}=${'A'.repeat(22)}`, false],
      ['is doubled', () => `; ${BINDING}=x; ${BINDING}=${binding}`, true],
    ])('revokes the session when the binding cookie %s', async (_name, sent, cleared) => {
      const { status, set } = await logOut(cookies(cookie) + sent());
      expect(status).toBe(303);
      expect(outcome(site.waa, cookie, binding)).toBe('ERR_SESSION_REVOKED');
      expect(set[0]).toBe(`${SESSION}=; Path=/app; Max-Age=0; HttpOnly; SameSite=Lax`);
      expect(set.some((line) => line.startsWith(`${BINDING}=;`))).toBe(cleared);
    });

    it('revokes nothing of the user elsewhere without the binding cookie', async () => {
      const other = new Browser(site.address);
      await other.logIn('/app/private');
      expect((await logOut(cookies(cookie), '?everywhere=yes')).status).toBe(401);
      expect((await logOut(`${cookies(cookie)}; ${BINDING}=${'A'.repeat(22)}`, '?everywhere=yes')).status).toBe(401);
      expect((await other.get('/app/private')).text).toBe('test0001');
    });

    it('revokes nothing of the user elsewhere without the binding cookie while the store is away', async () => {
      const other = new Browser(site.address);
      await other.logIn('/app/private');
      store.lagging = Number.POSITIVE_INFINITY;
      const answer = await logOut(cookies(cookie), '?everywhere=yes');
      store.lagging = 0;
      expect([answer.status, answer.set]).toEqual([503, []]);
      expect((await other.get('/app/private')).text).toBe('test0001');
    });

    it('leaves the victim’s other sessions when an attacker plants a session of their own', async () => {
      const attacker = new Browser(site.address);
      await attacker.logIn('/app/private', { principal: 'test0002' });
      const elsewhere = new Browser(site.address);
      await elsewhere.logIn('/app/private');
      const planted = attacker.cookie(SESSION) as string;
      const { status } = await logOut(`${cookies(planted, cookie)}; ${BINDING}=${binding}`);
      expect(status).toBe(303);
      expect(outcome(site.waa, cookie, binding)).toBe('ERR_SESSION_REVOKED');
      expect((await attacker.fetch('/app/private')).status).toBe(401);
      expect((await elsewhere.get('/app/private')).text).toBe('test0001');
    });

    it('offers the logout when the binding cookie is missing', async () => {
      const page = await new Browser(site.address).get('/app/webauth/logout', { cookie: cookies(cookie) });
      expect(page.text).toContain('<form method="post" action="/app/webauth/logout"');
    });
  });

  describe('while the store is away', () => {
    beforeEach(() => user.logIn());

    it('answers 503 and keeps the cookie; a retry revokes the session and clears the cookie', async () => {
      const cookie = user.cookie(SESSION) as string;
      const other = machine();
      await other.ready;
      const put = vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      const answer = await user.post('/webauth/logout');
      expect([answer.status, answer.set]).toEqual([503, [markerRemoval]]);
      expect(answer.text).toContain('Remove it from this browser only');
      expect(logged()).toContain('warn refused ERR_STORE_UNAVAILABLE');
      expect([outcome(site.waa, cookie), outcome(other, cookie)]).toEqual(['ERR_SESSION_REVOKED', 'test0001']);
      put.mockRestore();
      // The first machine tells the store by itself; a retry at another one need not wait for that.
      const elsewhere = new Site(framework);
      await elsewhere.listen();
      elsewhere.serve(routes, { store, baseUrl: site.address });
      await elsewhere.waa.ready;
      const retry = await new Browser(elsewhere.address, site.address).post('/webauth/logout', {
        cookie: cookies(cookie),
      });
      elsewhere.close();
      expect([retry.status, retry.set[0]]).toEqual([303, expect.stringMatching(/^webauth-session=; .*Max-Age=0/)]);
      expect(outcome(other, cookie)).toBe('ERR_SESSION_REVOKED');
    });

    it('shows the logout button, and does not claim that the user is logged out, until the store was told', async () => {
      const put = vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      expect((await user.post('/webauth/logout')).status).toBe(503);
      const page = await user.get('/webauth/logout');
      expect([page.status, page.text]).toEqual([200, expect.not.stringContaining('You are logged out')]);
      expect(page.text).toContain('<form method="post"');
      put.mockRestore();
    });

    it('answers 503 to retries until the store was told, and then clears the cookie', async () => {
      const told: string[] = [];
      let isDown = true;
      const real = store.put.bind(store);
      let release = () => {};
      const known = new Promise<void>((resolve) => {
        release = resolve;
      });
      const put = vi.spyOn(store, 'put').mockImplementation(async (key, value, expires) => {
        told.push(key);
        if (isDown) throw new Error('no route');
        await real(key, value, expires);
        release();
      });
      for (let i = 0; i < 50; i++) expect((await user.post('/webauth/logout')).status).toBe(503);
      // Retries do not multiply what the store is told.
      expect(told.length).toBeLessThan(5);
      isDown = false;
      await known;
      await new Promise(setImmediate);
      const answer = await user.post('/webauth/logout');
      expect([answer.status, user.cookie(SESSION)]).toEqual([303, undefined]);
      put.mockRestore();
    });

    it('answers a second click like the first, whose answer the browser no longer awaits', async () => {
      let fail = () => {};
      const asked = new Promise<void>((resolve) => {
        vi.spyOn(store, 'put').mockImplementationOnce(
          () =>
            new Promise((_resolve, reject) => {
              fail = () => reject(new Error('no route'));
              resolve();
            }),
        );
      });
      const cookie = cookies(user.cookie(SESSION) as string);
      const clicks = [post(cookie)];
      await asked;
      const arrived = new Promise<void>((resolve) => {
        site.server.once('request', () => setImmediate(resolve));
      });
      clicks.push(post(cookie));
      await arrived;
      fail();
      expect((await Promise.all(clicks)).map(({ status, set }) => [status, set])).toEqual([
        [503, []],
        [503, []],
      ]);
      vi.restoreAllMocks();
    });

    it('does not call the user logged out at a retry that fails too', async () => {
      vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      for (let i = 0; i < 3; i++) expect((await user.post('/webauth/logout')).status).toBe(503);
      vi.restoreAllMocks();
    });

    it('removes the cookie at the second button, and tells the store later', async () => {
      const put = vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      const answer = await user.post('/webauth/logout?here=yes');
      expect([answer.status, user.cookie(SESSION)]).toEqual([200, undefined]);
      expect(logged()).toContain('warn logout ERR_STORE_UNAVAILABLE');
      put.mockRestore();
    });

    it('retries everywhere where everywhere was asked for', async () => {
      vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      const { text } = await user.post('/webauth/logout?everywhere=yes');
      expect(text).toContain('<form method="post" action="/webauth/logout?everywhere=yes"');
      vi.restoreAllMocks();
    });

    it('keeps the cookie where nothing is known of the store, and all sessions were to end', async () => {
      const silent = new Flaky({ now: clock.now });
      silent.lagging = Number.POSITIVE_INFINITY;
      serve({ store: silent });
      const answer = await user.post('/webauth/logout?everywhere=yes');
      expect([answer.status, answer.set]).toEqual([503, [markerRemoval]]);
    });
  });

  it('revokes a session that began with another login service', async () => {
    const named = createWLS({ key: wlsKey.privateKey, now: clock.now }).profile;
    const second = { wls: { ...named, name: 'second' } };
    const cookie = await sealedBy(machine(second));
    const elsewhere = await sealedBy(machine(second));
    user.plant(SESSION, cookie);
    expect((await user.get('/webauth/logout')).text).toContain('Log out?');
    expect((await user.post('/webauth/logout?everywhere=yes')).status).toBe(401);
    const other = machine(second);
    await other.ready;
    expect([outcome(other, cookie), outcome(other, elsewhere)]).toEqual(['ERR_SESSION_REVOKED', 'test0001']);
    user.plant(SESSION, elsewhere);
    expect((await user.post('/webauth/logout')).status).toBe(303);
    expect([user.cookie(SESSION), outcome(other, elsewhere)]).toEqual([undefined, 'ERR_SESSION_REVOKED']);
  });

  it('needs no second page at the second button when it can revoke the session after all', async () => {
    await user.logIn();
    const cookie = user.cookie(SESSION) as string;
    const answer = await user.post('/webauth/logout?here=yes');
    expect([answer.status, answer.location]).toEqual([303, `${site.address}/webauth/logout`]);
    expect(outcome(site.waa, cookie)).toBe('ERR_SESSION_REVOKED');
  });

  it.each(['HEAD', 'DELETE', 'PUT'])('takes no %s, which revokes and clears nothing', async (method) => {
    await user.logIn();
    const answer = await user.send(method, '/webauth/logout', { origin: site.address });
    expect([answer.status, answer.set]).toEqual([405, []]);
    expect((await user.get('/private')).text).toBe('test0001');
  });

  describe('before a new login', () => {
    it.each([
      ['in a doubled cookie', true],
      ['in a cookie that began with another login service', false],
    ])('the callback revokes sessions %s', async (_name, doubled) => {
      const second = machine({ wls: { ...wls.profile, name: 'second' } });
      const old = doubled ? [await sealedBy(site.waa), await sealedBy(site.waa)] : [await sealedBy(second)];
      const { location } = await user.get('/webauth/login?return=/private');
      const nonce = `webauth-login=${user.cookie('webauth-login')}`;
      const answer = await user.get(answerTo(location), { cookie: `${nonce}; ${cookies(...old)}` });
      expect(answer.status).toBe(303);
      for (const cookie of old) expect(site.waa.isRevoked(site.waa.peekSession(cookie))).toBe(true);
      const lines = answer.set.filter((line) => line.startsWith(`${SESSION}=`));
      // The new session is set last, so that nothing removes it.
      expect(lines.findIndex((line) => !line.startsWith(`${SESSION}=;`))).toBe(lines.length - 1);
      expect((await user.get('/private')).text).toBe('test0001');
    });

    it('fails when the session that it replaces cannot be revoked', async () => {
      const old = await sealedBy(site.waa);
      const { location } = await user.get('/webauth/login?return=/private');
      const nonce = `webauth-login=${user.cookie('webauth-login')}`;
      const put = vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      const answer = await user.get(answerTo(location), { cookie: `${nonce}; ${cookies(old, 'planted')}` });
      expect([answer.status, answer.set]).toEqual([503, []]);
      put.mockRestore();
    });
  });
});

describe('formatRemovals()', () => {
  const lines = (name: string, url: string) => formatRemovals(name, new URL(url));

  it('covers every path and domain from which a browser sends the cookie', () => {
    const found = lines('__Secure-app-session', 'https://app.cam.ac.uk/app/webauth/logout');
    for (const path of ['/', '/app', '/app/', '/app/webauth', '/app/webauth/', '/app/webauth/logout']) {
      for (const domain of ['', '; Domain=app.cam.ac.uk', '; Domain=cam.ac.uk']) {
        expect(found).toContain(`__Secure-app-session=; Path=${path}${domain}; Max-Age=0; Secure`);
      }
    }
  });

  it('returns none for a name that browsers accept in one place only', () => {
    expect(lines('__Host-webauth-session', 'https://app.cam.ac.uk/webauth/logout')).toEqual([]);
  });

  it.each(['http://127.0.0.1:3000/', 'http://[::1]:3000/', 'http://localhost/'])('names no domain at %s', (url) => {
    expect(lines('webauth-session', url)).toEqual(['webauth-session=; Path=/; Max-Age=0']);
  });

  it('returns at most 40 lines, since proxies bound the head of an answer', () => {
    const deep = `https://${'a.'.repeat(20)}cam.ac.uk/${'b/'.repeat(40)}logout`;
    expect(lines('webauth-session', deep).length).toBe(40);
  });
});
