import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Entry, Store } from '../../src/session/store.js';

/** How a suite gets at the stores of one engine. */
export interface Engine {
  /** Another view of the same store, as another process has it. */
  readonly open: (now: () => Date) => Store;
  /** Gives all stores that are opened from now on nothing to remember. */
  readonly empty: () => Promise<void>;
}

/** What every store has to do, whatever it is made of. */
export function storeSuite(name: string, engine: Engine): void {
  describe(name, () => {
    let time = 0;
    const now = () => new Date(time);
    const later = (seconds: number) => new Date(time + seconds * 1000);
    const opened: Store[] = [];
    /** Opens it, and waits until it can be used. */
    const open = async () => {
      const store = engine.open(now);
      opened.push(store);
      await store.subscribe('unused', { changed: () => {}, missed: async () => {} });
      return store;
    };
    let store: Store;
    beforeEach(async () => {
      time = Date.parse('2026-03-01T12:00:00Z');
      await engine.empty();
      store = await open();
    });
    afterEach(async () => {
      await Promise.all(opened.splice(0).map((one) => one.close()));
    });

    it('has one mark for its whole life, and another store has another', async () => {
      const mark = await store.mark();
      expect(mark).toMatch(/^[\w-]{16,}$/);
      expect(await store.mark()).toBe(mark);
      expect(await store.mark('known')).toBe(mark);
      await engine.empty();
      expect(await (await open()).mark()).not.toBe(mark);
    });

    it('counts up', async () => {
      const [a, b, c] = [await store.next(), await store.next(), await store.next()];
      expect(a < b && b < c).toBe(true);
      expect([a, b, c].every(Number.isSafeInteger)).toBe(true);
      const many = await Promise.all(Array.from({ length: 50 }, () => store.next()));
      expect(new Set(many).size).toBe(50);
    });

    it('lets a key be spent once, also by 200 at the same time, until it expires', async () => {
      const uses = await Promise.all(Array.from({ length: 200 }, () => store.spend('a', later(10))));
      expect(uses.filter(Boolean)).toHaveLength(1);
      expect(await store.spend('b', later(10))).toBe(true);
      time += 9_999;
      expect(await store.spend('a', later(10))).toBe(false);
      time += 1;
      expect(await store.spend('a', later(10))).toBe(true);
    });

    it('keeps what is spent apart from what is put', async () => {
      await store.put('a', 'one', later(10));
      expect(await store.spend('a', later(10))).toBe(true);
      expect(await store.get('a')).toBe('one');
    });

    it('remembers what was put until it expires or is deleted', async () => {
      await store.put('a', 'one', later(10));
      await store.put('x:b', 'two: ünd "more"\n', later(20));
      await store.put('empty', '', later(20));
      expect([await store.get('a'), await store.get('x:b'), await store.get('c')]).toEqual([
        'one',
        'two: ünd "more"\n',
        undefined,
      ]);
      expect(await store.get('empty')).toBe('');
      await store.put('a', 'another', later(10));
      expect(await store.get('a')).toBe('another');
      await store.delete('x:b');
      await store.delete('never there');
      expect(await store.get('x:b')).toBeUndefined();
      time += 10_000;
      expect(await store.get('a')).toBeUndefined();
    });

    it('gives an entry to one taker of many', async () => {
      await store.put('a', 'one', later(10));
      const taken = await Promise.all(Array.from({ length: 50 }, () => store.take('a')));
      expect(taken.filter((value) => value === 'one')).toHaveLength(1);
      expect(taken.filter((value) => value === undefined)).toHaveLength(49);
      await store.put('b', 'two', later(10));
      time += 10_000;
      expect(await store.take('b')).toBeUndefined();
    });

    it('lists the live entries of a folder, and of no other', async () => {
      await store.put('x:1', 'one', later(10));
      await store.put('x:2', 'two', later(20));
      await store.put('x:y:1', 'three', later(20));
      await store.put('xy:1', 'four', later(20));
      await store.put('x', 'five', later(20));
      const keys = async (folder: string) => (await store.list(folder)).map(({ key }) => key).sort();
      expect(await keys('x')).toEqual(['x:1', 'x:2']);
      expect(await keys('x:y')).toEqual(['x:y:1']);
      expect(await keys('z')).toEqual([]);
      await store.put('x:1', 'longer', later(30));
      await store.delete('x:y:1');
      expect(await keys('x:y')).toEqual([]);
      time += 20_000;
      expect(await store.list('x')).toEqual([{ key: 'x:1', value: 'longer', expires: later(10) }]);
      expect(await store.take('x:1')).toBe('longer');
      expect(await keys('x')).toEqual([]);
    });

    it('lists a folder of 12,000', async () => {
      const all = Array.from({ length: 12_000 }, (_, i) => `many:${i}`);
      for (let at = 0; at < all.length; at += 500) {
        await Promise.all(all.slice(at, at + 500).map((key) => store.put(key, '', later(10))));
      }
      expect((await store.list('many')).map(({ key }) => key).sort()).toEqual(all.sort());
    });

    it('tells subscribers of a folder of each put in it, until they have enough', async () => {
      const heard: Entry[] = [];
      let missed = 0;
      const stop = await store.subscribe('x', {
        changed: (entry) => heard.push(entry),
        missed: async () => {
          missed += 1;
        },
      });
      expect(missed).toBe(1);
      await store.put('x:1', 'one', later(10));
      await store.put('y:1', 'other', later(10));
      await store.put('x:2', 'two', later(20));
      await store.put('x:1', 'one again', later(30));
      await expect.poll(() => heardOf(store, heard).length).toBe(3);
      expect(heard).toEqual([
        { key: 'x:1', value: 'one', expires: later(10) },
        { key: 'x:2', value: 'two', expires: later(20) },
        { key: 'x:1', value: 'one again', expires: later(30) },
      ]);
      stop();
      await store.put('x:3', 'three', later(10));
      await store.put('x:4', 'four', later(10));
      store.lag();
      expect(heard).toHaveLength(3);
    });

    it('says that what it tells may be old by no more than a few seconds', () => {
      expect(store.lag()).toBeLessThan(5_000);
    });
  });
}

/** What stores that several processes share have to do beside that. */
export function sharedStoreSuite(name: string, engine: Engine): void {
  describe(`${name}, shared`, () => {
    let time = 0;
    const now = () => new Date(time);
    const later = (seconds: number) => new Date(time + seconds * 1000);
    let [a, b]: Store[] = [];
    beforeEach(async () => {
      time = Date.parse('2026-03-01T12:00:00Z');
      await engine.empty();
      [a, b] = [engine.open(now), engine.open(now)];
      for (const store of [a, b]) await store.subscribe('unused', { changed: () => {}, missed: async () => {} });
    });
    afterEach(async () => {
      await Promise.all([a?.close(), b?.close()]);
    });

    it('has one mark and one counter', async () => {
      expect(await a?.mark()).toBe(await b?.mark());
      const [one, two, three] = [await a?.next(), await b?.next(), await a?.next()] as [number, number, number];
      expect(one < two && two < three).toBe(true);
    });

    it('lets a key be spent, or taken, by one of both', async () => {
      await a?.put('x:t', 'ticket', later(10));
      const both = Array.from({ length: 100 }, (_, i) => (i % 2 ? a : b) as Store);
      const uses = await Promise.all(both.map((store) => store.spend('s', later(10))));
      expect(uses.filter(Boolean)).toHaveLength(1);
      const taken = await Promise.all(both.map((store) => store.take('x:t')));
      expect(taken.filter((value) => value === 'ticket')).toHaveLength(1);
    });

    it('tells one of what the other put, before it says that it knows everything', async () => {
      const heard: string[] = [];
      await b?.subscribe('x', { changed: ({ key }) => heard.push(key), missed: async () => {} });
      await a?.put('x:1', 'one', later(10));
      await expect.poll(() => heardOf(b as Store, heard)).toEqual(['x:1']);
      expect(await b?.get('x:1')).toBe('one');
      expect(await b?.list('x')).toEqual([{ key: 'x:1', value: 'one', expires: later(10) }]);
    });
  });
}

/** What was heard, after the store had an occasion to tell. */
function heardOf<T>(store: Store, heard: T[]): T[] {
  store.lag();
  return heard;
}
