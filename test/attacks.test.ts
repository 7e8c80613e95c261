import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../src/config.js';
import { digest } from '../src/digest.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Entry } from '../src/session/store.js';
import { createWAA } from '../src/waa.js';
import { Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

/** A store that somebody else can read and write, and put out of order. */
class Exposed extends MemoryStore {
  readonly puts = new Map<string, Entry>();
  lagging = 0;
  override async put(key: string, value: string, expires: Date): Promise<void> {
    this.puts.set(key, { key, value, expires });
    await super.put(key, value, expires);
  }
  override lag(): number {
    return this.lagging;
  }
  /** The entries under such keys. */
  under(prefix: string): Entry[] {
    return [...this.puts.values()].filter(({ key }) => key.startsWith(prefix));
  }
}

const later = (seconds: number) => new Date(clock.time + seconds * 1000);

describe.each(frameworks)('%s: somebody who', (_, framework) => {
  const site = new Site(framework);
  let store: Exposed;
  let person: Browser;
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
    app.get('/api', auth.require({ bearer: true, ptags: [] }), (_request, response) => void response.send('api'));
  };
  const serve = (config: Partial<Config> = {}) => site.serve(routes, { store, ...config });
  const code = async (browser: Browser) => /ERR_\w+/.exec((await browser.fetch('/private')).text)?.[0] ?? 'in';
  /** Another browser with the same cookies. */
  const copyOf = (browser: Browser, names = ['webauth-session', 'webauth-session-id']) => {
    const copy = new Browser(site.address);
    for (const name of names) if (browser.cookie(name)) copy.plant(name, browser.cookie(name));
    return copy;
  };
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Exposed({ now: clock.now });
    serve();
    person = new Browser(site.address);
  });

  describe('can write to the store', () => {
    it('makes no ticket of one that was used, under whatever key, and keeps none for longer', async () => {
      await person.logIn();
      const { ticket } = JSON.parse((await person.post('/webauth/ticket')).text) as { ticket: string };
      const [made] = store.under('ticket.') as [Entry];
      expect((await site.waa.takeTicket(ticket)).principal).toBe('test0001');
      const mine = 'A'.repeat(43);
      await store.put(`ticket.${digest('ticket', JSON.stringify([site.address, mine]))}`, made.value, later(3600));
      await expect(site.waa.takeTicket(mine)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      clock.pass(31);
      await store.put(made.key, made.value, later(3600));
      await expect(site.waa.takeTicket(ticket)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    });

    it('is shown nobody else in a list of sessions, and ends nobody else in it', async () => {
      serve({ listSessions: true });
      await person.logIn();
      const other = new Browser(site.address);
      await other.logIn('/private', { principal: 'test0002' });
      const [mine, theirs] = store.under('sessions.') as [Entry, Entry];
      const folder = theirs.key.split(':')[0];
      await store.put(`${folder}:${mine.key.split(':')[1]}`, mine.value, mine.expires);
      const listed = await site.waa.sessions.list('test0002');
      expect(listed.map(({ handle }) => handle)).toEqual([theirs.key.split(':')[1]]);
      expect(await site.waa.sessions.revoke('test0002', mine.key.split(':')[1] as string)).toBe(false);
      expect(await code(person)).toBe('in');
    });
  });

  describe('has a copy of a cookie', () => {
    it('is out when its person logs out, also where that one has gone idle meanwhile', async () => {
      serve({ inactiveTimeout: 600 });
      for (const leave of [
        (browser: Browser) => browser.post('/webauth/logout'),
        // Or logs in anew.
        (browser: Browser) => browser.logIn(),
      ]) {
        person = new Browser(site.address);
        await person.logIn();
        const thief = copyOf(person);
        for (let i = 0; i < 3; i++) {
          clock.pass(301);
          expect(await code(thief)).toBe('in');
        }
        expect(await code(person)).toBe('ERR_SESSION_IDLE');
        const page = await person.get('/webauth/logout');
        expect([page.status, page.text.includes('You may still be logged in here.')]).toEqual([200, true]);
        expect((await leave(person)).status).toBe(303);
        expect(await code(thief)).toBe('ERR_SESSION_REVOKED');
      }
    });

    it('logs nobody out everywhere with one that is over or was ended, though the store is away', async () => {
      await person.logIn();
      const over = copyOf(person);
      clock.pass(7200);
      await person.logIn();
      const ended = copyOf(person);
      await person.post('/webauth/logout');
      person = new Browser(site.address);
      await person.logIn();
      store.lagging = Number.POSITIVE_INFINITY;
      for (const thief of [ended, over]) {
        expect((await thief.post('/webauth/logout?everywhere=yes')).status).toBe(503);
      }
      store.lagging = 0;
      expect(await code(person)).toBe('in');
    });

    it('is out with all of the browser where its person logs out of what is over here', async () => {
      serve({ coordinatedLogout: true, maxLife: 600 });
      const long = createWAA({
        ...{ baseUrl: `${site.address}`, cookieName: 'other', coordinatedLogout: true, maxLife: 7 * 86_400 },
        ...{ secret, store, wls: wls.profile, now: clock.now, useWlsLife: false },
      });
      await person.logIn();
      const { location, nonce } = long.startLogin('/');
      const anchor = person.cookie('webauth-session-id');
      const { cookie } = await long.finishLogin(wls.respond(location), nonce, undefined, anchor);
      expect(long.openSession(cookie, anchor).principal).toBe('test0001');
      clock.pass(601);
      expect(await code(person)).toBe('ERR_SESSION_EXPIRED');
      await person.post('/webauth/logout');
      expect(person.cookie('webauth-session-id')).toBeUndefined();
      const isOut = () => expect(() => long.openSession(cookie, anchor)).toThrow('was ended');
      isOut();
      // And it stays so for as long as it would have lasted there, though what is over is forgotten at others' logouts.
      clock.pass(6.9 * 86_400);
      const other = new Browser(site.address);
      await other.logIn('/private', { principal: 'test0002' });
      await other.post('/webauth/logout');
      isOut();
    });

    it('is out for good though the store cannot be asked anything at the logout', async () => {
      serve({ coordinatedLogout: true });
      await person.logIn();
      const thief = copyOf(person);
      store.lagging = Number.POSITIVE_INFINITY;
      const put = vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
      const page = await person.get('/webauth/logout');
      expect([page.status, page.text.includes('<button class="main">Log out')]).toEqual([200, true]);
      const answer = await person.post('/webauth/logout');
      expect([answer.status, answer.text.includes('other machines may not know it yet')]).toEqual([503, true]);
      put.mockRestore();
      store.lagging = 0;
      expect(await code(thief)).toBe('ERR_SESSION_REVOKED');
    });

    it('sends a request slowly, and is not let in when too little is heard of the store by the time it is whole', async () => {
      const { waa } = site;
      await person.logIn();
      const auth = waa.openSession(person.cookie('webauth-session'));
      store.lagging = Number.POSITIVE_INFINITY;
      expect(() => waa.recheck(auth)).toThrow(expect.objectContaining({ code: 'ERR_STORE_UNAVAILABLE' }));
    });
  });

  describe('has an account', () => {
    it('has at most a thousand tokens, with those that were revoked: each has to be remembered', {
      timeout: 60_000,
    }, async () => {
      const asked = { principal: 'test0001', name: 'x', ttl: 60 };
      for (let i = 0; i < 1000; i++) {
        const { handle } = await site.waa.tokens.create(asked);
        if (i % 10 === 0) await site.waa.tokens.revoke('test0001', handle);
      }
      await expect(site.waa.tokens.create(asked)).rejects.toMatchObject({ code: 'ERR_LIMIT_REACHED', status: 429 });
      await expect(site.waa.tokens.create({ ...asked, principal: 'test0002' })).resolves.toBeDefined();
      clock.pass(60);
      await expect(site.waa.tokens.create(asked)).resolves.toBeDefined();
    });

    it('ends a token like a session, and no session by it', async () => {
      await person.logIn();
      const { token } = await site.waa.tokens.create({ principal: 'test0001', name: 'x', ttl: 600 });
      const auth = await site.waa.openToken(token);
      for (let i = 0; i < 70; i++) await site.waa.endSession(auth);
      await expect(site.waa.openToken(token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      expect(await code(person)).toBe('in');
      expect((await new Browser(site.address).logIn()).status).toBe(303);
    });
  });

  it('restores an old copy of the counter ends all the same what he ends', async () => {
    await person.logIn();
    const waa = createWAA({
      ...{ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store },
    });
    await waa.ready;
    const session = person.cookie('webauth-session');
    // The store counts from the beginning again, but for what it is told.
    const seen: (number | undefined)[] = [];
    store.next = async (least = 0) => {
      seen.push(least);
      return least + 1;
    };
    expect(waa.openSession(session).principal).toBe('test0001');
    await waa.endSessions('test0001');
    expect(() => waa.openSession(session)).toThrow('was ended');
    expect(seen[0]).toBeGreaterThan(0);
  });
});
