import { beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Entry } from '../src/session/store.js';
import { createWAA, type Login, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

/** A store that shows the lists of sessions. */
class Listing extends MemoryStore {
  readonly folders = new Set<string>();
  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (key.startsWith('sessions.')) this.folders.add(key.slice(0, key.indexOf(':')));
    return super.put(key, value, expires);
  }
  async listed(): Promise<Entry[]> {
    return (await Promise.all([...this.folders].map((folder) => this.list(folder)))).flat();
  }
}

describe('waa.sessions', () => {
  let store: Listing;
  let waa: WAA;
  beforeEach(async () => {
    clock.reset();
    store = new Listing({ now: clock.now });
    waa = await start();
  });

  async function start(config: Partial<Config> = {}): Promise<WAA> {
    const made = createWAA({
      ...{ baseUrl: 'https://example.org', secret, wls: wls.profile, now: clock.now, store, listSessions: true },
      ...config,
    });
    await made.ready;
    return made;
  }

  async function logIn(principal = 'test0001', live?: Login): Promise<Login> {
    const { location, nonce } = waa.startLogin('/');
    const login = await waa.finishLogin(wls.respond(location, { principal }), nonce, live?.auth, live?.anchor);
    waa.note(login.auth, 'Browser');
    await settled();
    return login;
  }

  /** Lets everything end that a MemoryStore does, which waits for nothing. */
  const settled = () => new Promise(setImmediate);

  it('deletes the entry of a session that logs out, is replaced, or is revoked by its handle', async () => {
    const first = await logIn();
    const second = await logIn('test0001', first);
    expect(await store.listed()).toHaveLength(1);
    await waa.endSession(second.auth);
    await settled();
    expect(await store.listed()).toEqual([]);
    await logIn();
    const [{ handle } = { handle: '' }] = await waa.sessions.list('test0001');
    expect(await waa.sessions.revoke('test0001', handle)).toBe(true);
    expect(await store.listed()).toEqual([]);
  });

  it('deletes the entries of sessions that it finds revoked', async () => {
    await logIn();
    await logIn();
    await waa.endSessions('test0001');
    const live = await logIn();
    expect(await store.listed()).toHaveLength(3);
    expect(await waa.sessions.list('test0001', live.auth)).toEqual([expect.objectContaining({ current: true })]);
    expect(await store.listed()).toHaveLength(1);
  });

  it('deletes the entries of sessions that it finds idle', async () => {
    waa = await start({ inactiveTimeout: 600 });
    await logIn();
    clock.pass(661);
    await logIn();
    expect(await store.listed()).toHaveLength(2);
    expect(await waa.sessions.list('test0001')).toHaveLength(1);
    expect(await store.listed()).toHaveLength(1);
  });

  it('lists all live sessions of a user, at most a thousand: one more login ends the oldest', async () => {
    const logins: Login[] = [];
    for (let i = 0; i < 1003; i++) logins.push(await logIn());
    const listed = await waa.sessions.list('test0001');
    expect(listed).toHaveLength(1000);
    const isLive = ({ cookie, anchor }: Login) => {
      try {
        return waa.openSession(cookie, anchor).principal === 'test0001';
      } catch {
        return false;
      }
    };
    expect(logins.map(isLive)).toEqual(logins.map((_, i) => i >= 3));
    expect(await store.listed()).toHaveLength(1000);
  });

  it('shows no session twice, and none of another login service, when entries are copied to other keys', async () => {
    await logIn();
    await logIn('test0002');
    const [mine, theirs] = (await store.listed()) as [Entry, Entry];
    await store.put(`${mine.key.slice(0, -1)}x`, mine.value, mine.expires);
    await store.put(`${mine.key.slice(0, mine.key.indexOf(':'))}:${'A'.repeat(43)}`, theirs.value, theirs.expires);
    expect(await waa.sessions.list('test0001')).toHaveLength(1);
    await store.put(mine.key, theirs.value, mine.expires);
    expect(await waa.sessions.list('test0001')).toEqual([]);
  });
});

describe('waa.tokens', () => {
  it("lists and revokes no other user's token when its key is copied to a user's folder", async () => {
    clock.reset();
    const keys: string[] = [];
    class Noting extends MemoryStore {
      override async put(key: string, value: string, expires: Date): Promise<void> {
        keys.push(key);
        return super.put(key, value, expires);
      }
    }
    const store = new Noting({ now: clock.now });
    const waa = createWAA({ baseUrl: 'https://example.org', secret, wls: wls.profile, now: clock.now, store });
    await waa.ready;
    const [, theirs] = [
      await waa.tokens.create({ principal: 'mine', name: 'x', ttl: 600 }),
      await waa.tokens.create({ principal: 'theirs', name: 'x', ttl: 600 }),
    ];
    const folder = keys.find((key) => key.startsWith('tokens.'))?.split(':')[0] as string;
    await store.put(`${folder}:${theirs.handle}`, '', new Date(clock.time + 600_000));
    expect(await waa.tokens.list('mine')).toHaveLength(1);
    expect(await waa.tokens.revoke('mine', theirs.handle)).toBe(false);
    expect((await waa.openToken(theirs.token)).principal).toBe('theirs');
  });
});
