import { describe, expect, it, vi } from 'vitest';
import { digest } from '../src/digest.js';
import { LiveSessions } from '../src/session/live.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Entry, Store } from '../src/session/store.js';

const start = Date.parse('2026-03-01T12:00:00Z');
const HOUR = 3600_000;
const handle = (sessionId: string, login = 1) => ({ sessionId, group: '', wls: 'raven', principal: 'test0001', login });
const token = (sessionId: string) => handle(sessionId, Number.POSITIVE_INFINITY);

function setUp(given?: Store) {
  const clock = { time: start };
  const now = () => new Date(clock.time);
  const store = given ?? new MemoryStore({ now });
  const told: string[] = [];
  const make = (more = {}) => {
    const complain = (message: string, level = 'error') =>
      void told.push(level === 'error' ? message : `${level}: ${message}`);
    const here = { application: digest('application', 'here'), maxLife: 7200 };
    return new LiveSessions({ ...here, store, now, staleAfter: 10_000, allowStale: false, complain, ...more });
  };
  const live = make();
  const ended: string[] = [];
  const watch = (id: string, seconds: number, of = live) =>
    of.watch(handle(id), later(seconds), 'maxLife', ({ code }) => ended.push(`${id} ${code}`));
  const later = (seconds: number) => new Date(clock.time + seconds * 1000);
  return { clock, now, store, live, make, ended, watch, later, told };
}

/** What was ended, beside what the applications say of themselves. */
async function kept(store: Store): Promise<Entry[]> {
  return (await store.list('ended')).filter(({ key }) => !key.startsWith('ended:life.'));
}

/** A store whose freshness and answers a test decides on. */
function moody() {
  const store = new MemoryStore({ now: () => new Date(start) });
  const mood = { lag: 0, away: false };
  const put = store.put.bind(store);
  const next = store.next.bind(store);
  store.lag = () => mood.lag;
  store.put = async (...entry) => (mood.away ? Promise.reject(new Error('no route')) : put(...entry));
  store.next = async (seen) => (mood.away ? Promise.reject(new Error('no route')) : next(seen));
  return { store, mood };
}

describe('live sessions', () => {
  it('learn what the store knew before, and what it hears later', async () => {
    const { live, make, store, later } = setUp();
    await store.put(`ended:session.${digest('session', 'before')}`, '', later(10));
    await live.start();
    const other = make();
    await other.start();
    await other.end(handle('later'), later(10));
    expect(['before', 'later', 'never'].map((id) => live.isEnded(handle(id)))).toEqual([true, true, false]);
  });

  it('tell each watcher of a session once that it was ended, and no others', async () => {
    const { live, watch, ended, later } = setUp();
    await live.start();
    watch('a', 100);
    watch('a', 100);
    watch('b', 100);
    watch('a', 100)();
    await live.end(handle('a'), later(100));
    await live.end(handle('a'), later(100));
    expect(ended).toEqual(['a ERR_SESSION_REVOKED', 'a ERR_SESSION_REVOKED']);
    live.stop();
  });

  it('tell a watcher that comes too late at once', async () => {
    const { live, watch, ended, later } = setUp();
    await live.start();
    await live.end(handle('a'), later(100));
    watch('a', 100);
    watch('b', 0);
    watch('c', -3600);
    expect(ended).toEqual(['a ERR_SESSION_REVOKED', 'b ERR_SESSION_EXPIRED', 'c ERR_SESSION_EXPIRED']);
  });

  it('tell every watcher, also after one that throws, whose mistake is reported', async () => {
    const { live, watch, ended, later } = setUp();
    await live.start();
    const mistake = new Error('of the application');
    live.watch(handle('a'), later(100), 'maxLife', () => {
      throw mistake;
    });
    watch('a', 100);
    const reported = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
    await live.end(handle('a'), later(100));
    expect(ended).toEqual(['a ERR_SESSION_REVOKED']);
    expect(reported.mock.calls[0]?.[0]).toThrow(mistake);
    reported.mockRestore();
    live.stop();
  });

  it('forget what would be over by itself, but not before an hour has passed: the clock may be put back', async () => {
    const { live, clock, later } = setUp();
    await live.start();
    for (let i = 0; i < 1000; i++) {
      clock.time += 1_000;
      await live.end({ ...handle(`session ${i}`), principal: `person ${i}` }, later(60));
    }
    expect(live.size).toBe(1000);
    clock.time += HOUR - 1;
    await live.end(handle('another'), later(60));
    expect(live.isEnded(handle('session 999'))).toBe(true);
    clock.time += 122_000;
    await live.end(handle('another'), later(60));
    expect(live.size).toBe(1);
  });

  it('end all of a person without comparing clocks, and remember it longer than any session lasts', async () => {
    const { live, make, clock } = setUp();
    await live.start();
    await live.endAll('raven', 'test0001');
    expect([0, 1].map((login) => live.isEnded(handle('a', login)))).toEqual([true, false]);
    expect(live.isEnded({ ...handle('a', 0), principal: 'test0002' })).toBe(false);
    expect(live.isEnded({ ...handle('a', 0), wls: 'other' })).toBe(false);
    // Of another application on the store, sessions may last for a year.
    clock.time += 366 * 24 * HOUR;
    const other = make();
    await other.start();
    expect([live, other].map((one) => one.isEnded(handle('a', 0)))).toEqual([true, true]);
    expect(live.isEnded(token('t'))).toBe(false);
  });

  it('know the later of two ends of all, whichever they hear of first, and keep one in the store', async () => {
    const { live, make, store } = setUp();
    await live.start();
    const other = make();
    await other.start();
    await live.endAll('raven', 'test0001');
    await store.next();
    const [late] = await kept(store);
    await other.endAll('raven', 'test0001');
    expect(await kept(store)).toHaveLength(1);
    if (late) await store.put(late.key, late.value, late.expires);
    // Number 2 was a login between the two.
    expect([1, 2, 3].map((login) => live.isEnded(handle('a', login)))).toEqual([true, true, false]);
  });

  it('block a person: sessions end for good, tokens for as long', async () => {
    const { live, make, watch, ended } = setUp();
    await live.start();
    const other = make();
    await other.start();
    watch('a', 100, other);
    await live.block('raven', 'test0001');
    expect(ended).toEqual(['a ERR_SESSION_REVOKED']);
    for (const one of [live, other]) {
      expect([one.isBlocked('raven', 'test0001'), one.isBlocked('raven', 'test0002')]).toEqual([true, false]);
      expect([handle('a', 0), handle('a', 9), token('t')].map((of) => one.isEnded(of))).toEqual([true, true, true]);
    }
    await other.unblock('raven', 'test0001');
    expect(live.isBlocked('raven', 'test0001')).toBe(false);
    // Also what had begun elsewhere before everybody had heard of the block.
    const next = await live.next();
    const after = [handle('a', 0), handle('a', next - 2), handle('a', next), token('t')];
    expect(after.map((of) => live.isEnded(of))).toEqual([true, true, false, false]);
    await live.block('raven', 'test0001');
    expect(other.isBlocked('raven', 'test0001')).toBe(true);
  });

  it('end 64 sessions of a person one by one, and from then on all of theirs by one entry', async () => {
    const { live, make, store, later } = setUp();
    await live.start();
    const other = make();
    await other.start();
    for (let i = 0; i < 64; i++) await live.end(handle(`session ${i}`, await store.next()), later(100));
    expect([live.size, other.size]).toEqual([64, 64]);
    const elsewhere = handle('on another device', await store.next());
    expect(live.isEnded(elsewhere)).toBe(false);
    const last = handle('last', await store.next());
    // One that begins in place of the last is not ended with it.
    const next = handle('next', await store.next());
    await live.end(last, later(100));
    expect([live.size, other.size, (await kept(store)).length]).toEqual([0, 0, 1]);
    for (const one of [live, other]) {
      expect(one.isEnded(handle('session 3', 4))).toBe(true);
      expect(one.isEnded(handle('last', 66))).toBe(true);
      expect([elsewhere, next].map((of) => one.isEnded(of))).toEqual([true, false]);
    }
  });

  it('are full when they remember as much as they may, and forget nothing for it', async () => {
    const { make, later } = setUp();
    const live = make({ most: 3 });
    await live.start();
    for (const id of ['a', 'b', 'c']) {
      expect(live.isFull).toBe(false);
      await live.end({ ...handle(id), principal: id }, later(100));
    }
    expect(live.isFull).toBe(true);
    await live.end({ ...handle('d'), principal: 'd' }, later(100));
    expect(['a', 'b', 'c', 'd'].map((id) => live.isEnded(handle(id)))).toEqual([true, true, true, true]);
  });

  it('tell when the clock has come to the end, to the second, and why', () => {
    const { live, watch, ended, clock, later } = setUp();
    watch('a', 10);
    watch('b', 10.5);
    watch('c', 3600);
    live.watch(handle('idle'), later(11), 'inactiveTimeout', ({ code }) => ended.push(`idle ${code}`));
    clock.time += 9_999;
    live.sweep();
    expect(ended).toEqual([]);
    clock.time += 1;
    live.sweep();
    expect(ended).toEqual(['a ERR_SESSION_EXPIRED']);
    clock.time += 1_000;
    live.sweep();
    expect(ended).toEqual(['a ERR_SESSION_EXPIRED', 'b ERR_SESSION_EXPIRED', 'idle ERR_SESSION_IDLE']);
    live.stop();
  });

  it('tell in time after the clock was put back or forward', () => {
    const { live, watch, ended, clock } = setUp();
    clock.time -= HOUR;
    live.sweep();
    watch('early', 10);
    clock.time += 11_000;
    live.sweep();
    expect(ended).toEqual(['early ERR_SESSION_EXPIRED']);
    watch('late', 86_400);
    clock.time += 24 * HOUR;
    live.sweep();
    expect(ended).toEqual(['early ERR_SESSION_EXPIRED', 'late ERR_SESSION_EXPIRED']);
    live.stop();
  });
});

describe('with a store that is out of hearing', () => {
  it('nothing is said of any session past the bound, and the log hears of it once', async () => {
    const { store, mood } = moody();
    const { live, told } = setUp(store);
    expect(() => live.mark()).toThrow(expect.objectContaining({ code: 'ERR_STORE_UNAVAILABLE' }));
    await live.start();
    expect(live.mark()).toBe(await store.mark());
    mood.lag = 10_000;
    expect(live.mark()).toBe(await store.mark());
    mood.lag = 10_001;
    for (let i = 0; i < 3; i++) {
      expect(() => live.mark()).toThrow(expect.objectContaining({ status: 503, closeCode: 1013 }));
    }
    expect(told).toEqual(['nothing was heard of the store for 10 s: sessions are refused until it is heard again']);
    mood.lag = 0;
    expect(live.mark()).toBe(await store.mark());
    expect(told[1]).toBe('info: the store is heard again');
  });

  it('sockets are closed with 1013', async () => {
    const { store, mood } = moody();
    const { live, watch, ended } = setUp(store);
    await live.start();
    watch('a', 100);
    mood.lag = 10_001;
    live.sweep();
    expect(ended).toEqual(['a ERR_STORE_UNAVAILABLE']);
  });

  it('what it knew holds all the same where that was asked for by name, once it has known anything', async () => {
    const { store, mood } = moody();
    const { make, watch, ended } = setUp(store);
    const live = make({ allowStale: true });
    expect(() => live.mark()).toThrow('cannot be reached');
    await live.start();
    watch('a', 100, live);
    mood.lag = Number.POSITIVE_INFINITY;
    live.sweep();
    expect([live.mark(), ended]).toEqual([await store.mark(), []]);
    live.stop();
  });

  it('what ends here ends at once, and the store is told as soon as it can be', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { store, mood } = moody();
      const { live, make, later } = setUp(store);
      const other = make();
      await Promise.all([live.start(), other.start()]);
      mood.away = true;
      await expect(live.end(handle('a'), later(100))).rejects.toThrow('no route');
      await expect(live.endAll('raven', 'test0001')).rejects.toThrow('no route');
      await expect(live.block('raven', 'test0002')).rejects.toThrow('no route');
      const second = { ...handle('b', 5), principal: 'test0002' };
      const seen = (of: LiveSessions) => [of.isEnded(handle('a')), of.isEnded(handle('x', 7)), of.isEnded(second)];
      expect([seen(live), live.isBlocked('raven', 'test0002')]).toEqual([[true, true, true], true]);
      expect(live.isEnded(token('t'))).toBe(false);
      await vi.advanceTimersByTimeAsync(5_000);
      expect(seen(other)).toEqual([false, false, false]);
      mood.away = false;
      await vi.advanceTimersByTimeAsync(1_000);
      expect([seen(other), other.isBlocked('raven', 'test0002')]).toEqual([[true, true, true], true]);
      // A login after that is not ended.
      expect(live.isEnded(handle('new', await store.next()))).toBe(false);
    } finally {
      vi.useRealTimers();
    }
  });

  it('an unblock that it could not be told is not said later, when somebody may have blocked the person anew', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { store, mood } = moody();
      const { live, make } = setUp(store);
      const other = make();
      await Promise.all([live.start(), other.start()]);
      const blocked = () => [live, other].map((one) => one.isBlocked('raven', 'test0001'));
      await other.block('raven', 'test0001');
      mood.away = true;
      await expect(live.unblock('raven', 'test0001')).rejects.toThrow('no route');
      mood.away = false;
      await vi.advanceTimersByTimeAsync(5_000);
      expect(blocked()).toEqual([true, true]);
      // Nor does a block come back that was taken back before it could be told.
      await live.unblock('raven', 'test0001');
      mood.away = true;
      await expect(live.block('raven', 'test0001')).rejects.toThrow('no route');
      expect(blocked()).toEqual([true, false]);
      mood.away = false;
      await live.unblock('raven', 'test0001');
      await vi.advanceTimersByTimeAsync(5_000);
      expect(blocked()).toEqual([false, false]);
      // What was ended by it stays ended.
      expect(live.isEnded(handle('a', 1))).toBe(true);
    } finally {
      vi.useRealTimers();
    }
  });

  it('of two that end all of a person, the one that is told first leaves the other one in force', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { store, mood } = moody();
      const { live } = setUp(store);
      await live.start();
      mood.away = true;
      const both = await Promise.allSettled([live.endAll('raven', 'test0001'), live.endAll('raven', 'test0001')]);
      expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      expect(live.isEnded(handle('a', 7))).toBe(true);
      mood.away = false;
      await vi.advanceTimersByTimeAsync(2_000);
      const next = await live.next();
      expect([live.isEnded(handle('a', next - 2)), live.isEnded(handle('new', next))]).toEqual([true, false]);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('with a store that has lost its memory', () => {
  /** Stands for a server that comes back with other contents than it had. */
  class Replaceable extends MemoryStore {
    inner = new MemoryStore({ now: () => new Date(start) });
    again = async () => {};
    override mark = async () => this.inner.mark();
    override next = async () => this.inner.next();
    override put: MemoryStore['put'] = async (...entry) => this.inner.put(...entry);
    override list: MemoryStore['list'] = async (folder) => this.inner.list(folder);
    override subscribe: MemoryStore['subscribe'] = async (_, subscriber) => {
      this.again = () => subscriber.missed();
      await this.again();
      return () => {};
    };
  }

  it('it is told all that is known here, before it is asked for its mark', async () => {
    const store = new Replaceable();
    const { live, later } = setUp(store);
    await live.start();
    const ends = [handle('a'), handle('b')];
    for (const one of ends) await live.end(one, later(100));
    await live.endAll('raven', 'test0002');
    await live.block('raven', 'test0003');
    const before = await store.list('ended');
    const mark = live.mark();
    store.inner = new MemoryStore({ now: () => new Date(start) });
    const asked = vi.spyOn(store.inner, 'mark').mockImplementation(async (known?: string) => {
      expect((await store.list('ended')).map(({ key }) => key).sort()).toEqual(before.map(({ key }) => key).sort());
      return known ?? 'new';
    });
    store.mark = (async (known?: string) =>
      (asked as (known?: string) => Promise<string>)(known)) as () => Promise<string>;
    await store.again();
    expect(asked).toHaveBeenCalledWith(mark);
    expect(live.mark()).toBe(mark);
    live.stop();
  });

  it('what it knows is merged, and nothing known here is forgotten; sessions of another mark end', async () => {
    const store = new Replaceable();
    const { live, watch, ended, later } = setUp(store);
    await live.start();
    await live.end(handle('a'), later(100));
    watch('b', 100);
    watch('c', 100);
    store.inner = new MemoryStore({ now: () => new Date(start) });
    await store.put(`ended:session.${digest('session', 'b')}`, '', later(100));
    await store.again();
    expect(live.isEnded(handle('a'))).toBe(true);
    expect(ended).toEqual(['b ERR_SESSION_REVOKED', 'c ERR_SESSION_REVOKED']);
  });
});
