import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { webauth } from '../src/express/index.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type Answer, answerTo, Browser, clock, frameworks, Site, secret, wls } from './site.js';

const ANCHOR = 'webauth-session-id';
const HOUR = 3600;
const names = ['one', 'two', 'three'];

/** The error that a program is told, if it is one. */
function code({ status, text }: Answer): number | string | undefined {
  return status === 200 ? 200 : /ERR_\w+/.exec(text)?.[0];
}

/** A store that can be slow. */
class Slow extends MemoryStore {
  hold: { [method in 'next' | 'list']?: Promise<void> } = {};
  asked = (): void => {};
  override async next(): Promise<number> {
    this.asked();
    await this.hold.next;
    return super.next();
  }
  override async list(folder: string): ReturnType<MemoryStore['list']> {
    await this.hold.list;
    return super.list(folder);
  }
}

function held(): { readonly until: Promise<void>; readonly release: () => void } {
  let release = () => {};
  const until = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { until, release };
}

describe.each(frameworks)('%s: three applications on one origin that log out together', (_, framework) => {
  const site = new Site(framework);
  let store: Slow;
  let waas: Record<string, WAA>;
  let person: Browser;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Slow({ now: clock.now });
    serve();
    person = new Browser(site.address);
  });

  /** @param more what is different of an application; one more of them, if it has another name. */
  function serve(more: Record<string, Partial<Config>> = {}): void {
    const paths: Record<string, string> = { two: '/two', three: '/three' };
    const made = [...new Set([...names, ...Object.keys(more)])].map((name) => {
      const waa = createWAA({
        baseUrl: `${site.address}/${name}`,
        cookieName: name,
        cookiePath: paths[name] ?? '/',
        coordinatedLogout: true,
        secret,
        store,
        wls: wls.profile,
        now: clock.now,
        ...more[name],
      });
      const auth = webauth(waa);
      const app = framework();
      app.set('env', 'test');
      app.use(auth);
      app.get(`/${name}`, auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
      app.get(`/${name}/fresh`, auth.require({ maxAge: 60 }), (_, response) => void response.send('fresh'));
      app.get(`/${name}/any`, ({ auth: who }, response) => void response.send(who?.principal ?? 'nobody'));
      app.use(auth.failurePage);
      return { name, waa, app };
    });
    waas = Object.fromEntries(made.map(({ name, waa }) => [name, waa]));
    const apps = Object.fromEntries(made.map(({ name, app }) => [name, app]));
    site.server.removeAllListeners('request').on('request', (request, response) => {
      apps[request.url?.split(/[/?]/)[1] ?? '']?.(request, response);
    });
  }

  const of = (name: string) => waas[name] as WAA;

  async function logInto(browser: Browser, principal = 'test0001', into: readonly string[] = names): Promise<Browser> {
    for (const name of into) expect((await browser.logIn(`/${name}`, { principal })).status).toBe(303);
    clock.pass(11);
    return browser;
  }

  async function seen(browser: Browser, of = names): Promise<unknown[]> {
    return Promise.all(of.map(async (name) => code(await browser.fetch(`/${name}`))));
  }

  /** Somebody who has all cookies of a browser, as they are now. */
  function copyOf(browser: Browser): Browser {
    const copy = new Browser(site.address);
    for (const name of [ANCHOR, ...Object.keys(waas).map((one) => `${one}-session`)]) {
      copy.plant(name, browser.cookie(name));
    }
    return copy;
  }

  /** The session of a browser, as its application knows it. */
  function authOf(browser: Browser, name: string): Auth {
    const { session, anchor } = of(name).cookies;
    return of(name).openSession(browser.cookie(session), anchor && browser.cookie(anchor));
  }

  const open = [200, 200, 200];
  const ended = ['ERR_SESSION_REVOKED', 'ERR_SESSION_REVOKED', 'ERR_SESSION_REVOKED'];

  it('share one anchor cookie, and each has a session of its own', async () => {
    const anchors = new Set<string | undefined>();
    for (const name of names) {
      const { set } = await person.logIn(`/${name}`);
      anchors.add(person.cookie(ANCHOR));
      const path = name === 'one' ? '/' : `/${name}`;
      expect(set.slice(0, 2)).toEqual([
        expect.stringMatching(/^webauth-session-id=[\w-]{22}; Path=\/; HttpOnly; SameSite=Lax$/),
        expect.stringMatching(new RegExp(`^${name}-session=[\\w-]+; Path=${path}; HttpOnly; SameSite=Lax$`)),
      ]);
    }
    expect(anchors.size).toBe(1);
    expect(await seen(person)).toEqual(open);
    const [one, two, three] = names.map((name) => authOf(person, name));
    expect(new Set([one?.sessionId, two?.sessionId, three?.sessionId]).size).toBe(3);
    expect(new Set([one?.group, two?.group, three?.group]).size).toBe(1);
  });

  it.each(names)('a session of %s is refused without the anchor, and with that of another browser', async (name) => {
    await logInto(person);
    const other = await logInto(new Browser(site.address), 'test0002');
    const thief = new Browser(site.address);
    thief.plant(`${name}-session`, person.cookie(`${name}-session`));
    expect(code(await thief.fetch(`/${name}`))).toBe('ERR_SESSION_MISSING');
    expect((await thief.get(`/${name}/any`)).text).toBe('nobody');
    thief.plant(ANCHOR, other.cookie(ANCHOR));
    expect(code(await thief.fetch(`/${name}`))).toBe('ERR_SESSION_INVALID');
    // That may have cleared it.
    thief.plant(`${name}-session`, person.cookie(`${name}-session`));
    thief.plant(ANCHOR, '');
    expect(code(await thief.fetch(`/${name}`))).toBe('ERR_SESSION_INVALID');
    const twice = `${name}-session=${person.cookie(`${name}-session`)}; ${ANCHOR}=x; ${ANCHOR}=${person.cookie(ANCHOR)}`;
    expect(code(await thief.fetch(`/${name}`, { cookie: twice }))).toBe('ERR_SESSION_INVALID');
    expect(code(await person.fetch(`/${name}`))).toBe(200);
  });

  it.each(names)('logging out of %s ends all at once, for a thief of all cookies too', async (name) => {
    await logInto(person);
    const thief = copyOf(person);
    expect(await seen(thief)).toEqual(open);
    const { set } = await person.post(`/${name}/webauth/logout`);
    expect(set).toContain(`${ANCHOR}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax`);
    expect(await seen(thief)).toEqual(ended);
    const gone = names.map((one) => (one === name ? 'ERR_SESSION_MISSING' : 'ERR_SESSION_REVOKED'));
    // What it has no cookie for it has to say of all; those that it has are of sessions that were ended.
    expect(await seen(person)).toEqual(gone);
    for (let hours = 0; hours < 30; hours++) {
      clock.pass(HOUR / 2);
      for (const answer of await seen(thief)) expect(answer).toMatch(/^ERR_SESSION_(?:REVOKED|EXPIRED)$/);
    }
  });

  it('logging out of one closes the sockets of all, and of no other browser', async () => {
    await logInto(person);
    const other = await logInto(new Browser(site.address));
    const closed: string[] = [];
    for (const name of names) {
      of(name).watch(authOf(person, name), ({ code }) => closed.push(`${name} ${code}`));
      of(name).watch(authOf(other, name), () => closed.push('of another browser'));
    }
    await person.post('/two/webauth/logout');
    expect(closed.sort()).toEqual(names.map((name) => `${name} ERR_SESSION_REVOKED`).sort());
    expect(await seen(other)).toEqual(open);
    for (const name of names) of(name).close();
  });

  it('logging out everywhere ends those of other browsers too, in all applications', async () => {
    await logInto(person);
    const other = await logInto(new Browser(site.address));
    const stranger = await logInto(new Browser(site.address), 'test0002');
    await person.post('/three/webauth/logout?everywhere=yes');
    expect(await seen(other)).toEqual(ended);
    expect(await seen(stranger)).toEqual(open);
    await logInto(other);
    expect(await seen(other)).toEqual(open);
  });

  it('a login after that gets another anchor, also where the old one was restored', async () => {
    await logInto(person);
    const old = person.cookie(ANCHOR) as string;
    const thief = copyOf(person);
    await person.post('/one/webauth/logout');
    expect(person.cookie(ANCHOR)).toBeUndefined();
    for (const restored of [undefined, old]) {
      person.plant(ANCHOR, restored);
      await logInto(person, 'test0001', ['two']);
      expect(person.cookie(ANCHOR)).toMatch(/^[\w-]{22}$/);
      expect(person.cookie(ANCHOR)).not.toBe(old);
      expect(code(await person.fetch('/two'))).toBe(200);
      await person.post('/two/webauth/logout');
    }
    expect(await seen(thief)).toEqual(ended);
  });

  it('an anchor of another form, which somebody planted, is not taken', async () => {
    for (const planted of ['', 'x', 'A'.repeat(23), 'A'.repeat(21)]) {
      person.plant(ANCHOR, planted);
      person.plant('one-session');
      await logInto(person, 'test0001', ['one']);
      expect(person.cookie(ANCHOR)).toMatch(/^[\w-]{22}$/);
    }
  });

  it.each(['/two/fresh', '/two'])(
    'another login in one, at %s, ends only the session that it replaces',
    async (path) => {
      await logInto(person);
      const before = copyOf(person);
      clock.pass(60);
      const login = await person.get(`/two/webauth/login?return=${path}&iact=yes&maxAge=30`);
      expect((await person.get(answerTo(login.location))).location).toBe(site.address + path);
      expect(await seen(person)).toEqual(open);
      expect(person.cookie(ANCHOR)).toBe(before.cookie(ANCHOR));
      expect(await seen(before)).toEqual([200, 'ERR_SESSION_REVOKED', 200]);
      await person.post('/one/webauth/logout');
      for (const browser of [before, copyOf(person)]) {
        browser.plant(ANCHOR, before.cookie(ANCHOR));
        for (const answer of await seen(browser)) expect(answer).toMatch(/^ERR_SESSION_(?:REVOKED|MISSING)$/);
      }
    },
  );

  it('another person’s login in one application does not take over the sessions of the first in the others', async () => {
    await logInto(person);
    person.plant('two-session');
    await person.logIn('/two', { principal: 'test0002' });
    const told = await Promise.all(names.map(async (name) => (await person.get(`/${name}/any`)).text));
    expect(told).toEqual(['test0001', 'test0002', 'test0001']);
    await person.post('/one/webauth/logout');
    expect((await seen(copyOf(person))).includes(200)).toBe(false);
  });

  it('no old cookie brings anything back: of all that there ever were, only what is live opens', async () => {
    const sessions = new Map<string, Set<string>>(names.map((name) => [name, new Set()]));
    const anchors = new Set<string | undefined>([undefined]);
    const note = () => {
      anchors.add(person.cookie(ANCHOR));
      for (const name of names) {
        const cookie = person.cookie(`${name}-session`);
        if (cookie !== undefined) sessions.get(name)?.add(cookie);
      }
    };
    const opening = () =>
      names.flatMap((name) =>
        [...(sessions.get(name) as Set<string>)].flatMap((cookie) =>
          [...anchors]
            .filter((anchor) => {
              try {
                return of(name).openSession(cookie, anchor);
              } catch {
                return false;
              }
            })
            .map((anchor) => [name, cookie, anchor]),
        ),
      );
    const live = (...of: string[]) => of.map((name) => [name, person.cookie(`${name}-session`), person.cookie(ANCHOR)]);
    for (let round = 0; round < 3; round++) {
      await logInto(person);
      note();
      expect(opening()).toEqual(live(...names));
      clock.pass(60);
      await person.logIn('/three/fresh');
      clock.pass(11);
      note();
      expect(opening()).toEqual(live(...names));
      const anchor = person.cookie(ANCHOR);
      await person.post('/one/webauth/logout');
      expect(opening()).toEqual([]);
      // The next login finds the cookies of the last one restored.
      if (round > 0) person.plant(ANCHOR, anchor);
    }
    await logInto(person);
    note();
    expect(opening()).toHaveLength(3);
    store = new Slow({ now: clock.now });
    serve();
    await of('one').ready;
    expect(opening()).toEqual([]);
    await logInto(person);
    note();
    expect(opening()).toEqual(live(...names));
  });

  it('an application that does not log out with them is not affected, nor they by it', async () => {
    serve({ alone: { coordinatedLogout: false } });
    const all = [...names, 'alone'];
    await logInto(person, 'test0001', all);
    expect(authOf(person, 'alone').group).toBe('');
    const { set } = await person.post('/alone/webauth/logout');
    expect(set.join()).not.toContain(ANCHOR);
    expect(await seen(person, all)).toEqual([...open, 'ERR_SESSION_MISSING']);
    await logInto(person, 'test0001', ['alone']);
    await person.post('/one/webauth/logout');
    expect(await seen(person, ['alone', 'two'])).toEqual([200, 'ERR_SESSION_REVOKED']);
  });

  it('each may have a secret of its own', async () => {
    serve({ two: { secret: 'b2'.repeat(32) }, three: { secret: ['c3'.repeat(32), secret] } });
    await logInto(person);
    const thief = copyOf(person);
    expect(await seen(person)).toEqual(open);
    for (const name of ['one', 'three']) thief.plant(`${name}-session`, person.cookie('two-session'));
    expect(await seen(thief)).toEqual(['ERR_SESSION_INVALID', 200, 'ERR_SESSION_INVALID']);
    await person.post('/two/webauth/logout');
    expect(await seen(copyOf(person))).toEqual(['ERR_SESSION_REVOKED', 'ERR_SESSION_MISSING', 'ERR_SESSION_REVOKED']);
  });

  it('the end is remembered for as long as the longest of the sessions would last, and an hour', async () => {
    serve({ one: { maxLife: 600 }, two: { maxLife: 7 * 24 * HOUR, useWlsLife: false } });
    await logInto(person);
    const thief = copyOf(person);
    await person.post('/one/webauth/logout');
    const told = async (days: number) => {
      clock.pass(days * 24 * HOUR);
      // Others' logouts, so that what is over is forgotten.
      const other = await logInto(new Browser(site.address), 'test0002');
      await other.post('/one/webauth/logout');
      return code(await thief.fetch('/two'));
    };
    for (const days of [1, 2, 3, 0.99, 0.05]) expect(await told(days), `${days}`).toBe('ERR_SESSION_REVOKED');
    expect(await told(1)).toBe('ERR_SESSION_EXPIRED');
  });

  it('all end here at once, however long the store takes to answer', async () => {
    await logInto(person);
    const thief = copyOf(person);
    const { until, release } = held();
    store.hold = { list: until };
    const out = person.post('/one/webauth/logout');
    while ((await seen(thief))[0] === 200) await new Promise(setImmediate);
    expect(await seen(thief)).toEqual(ended);
    release();
    expect((await out).status).toBe(303);
  });

  it('a login that was going on while the browser logged out is none that opens some day', async () => {
    serve({ two: { maxLife: 7 * 24 * HOUR, useWlsLife: false } });
    await logInto(person, 'test0001', ['one']);
    const begun = await person.get('/two');
    const anchor = person.cookie(ANCHOR);
    const { until, release } = held();
    store.hold = { next: until };
    const asked = new Promise<void>((resolve) => {
      store.asked = resolve;
    });
    const login = person.get(answerTo(begun.location));
    await asked;
    await person.post('/one/webauth/logout');
    release();
    const answer = await login;
    const value = /two-session=([\w-]+)/.exec(answer.set.join())?.[1];
    expect([answer.status, code(answer), value]).toEqual([401, 'ERR_SESSION_REVOKED', undefined]);
    expect(person.cookie(ANCHOR)).toBeUndefined();
    expect(anchor).toBeDefined();
  });
});

describe('under https', () => {
  const make = (config: Partial<Config>) =>
    createWAA({ baseUrl: 'https://example.cam.ac.uk', secret, wls: wls.profile, now: clock.now, ...config }).cookies;

  it('the anchor has the __Host- prefix, whatever the path of the session', () => {
    expect(make({ cookieName: 'one', coordinatedLogout: true })).toMatchObject({
      session: '__Host-one-session',
      anchor: '__Host-webauth-session-id',
    });
    const two = { baseUrl: 'https://example.cam.ac.uk/two', cookieName: 'two', cookiePath: '/two' };
    expect(make({ ...two, coordinatedLogout: true })).toMatchObject({
      session: '__Secure-two-session',
      anchor: '__Host-webauth-session-id',
      path: '/two',
    });
  });

  it('there is none where it was not asked for', () => {
    expect(make({ cookieName: 'one' }).anchor).toBeUndefined();
    expect(make({ cookieName: 'one', coordinatedLogout: false }).anchor).toBeUndefined();
  });
});
