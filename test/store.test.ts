import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore } from '../src/session/memory.js';
import type { Entry, Store } from '../src/session/store.js';

/** What every store has to do, whatever it is made of. */
function storeSuite(name: string, open: (now: () => Date) => Store): void {
  describe(name, () => {
    let time = Date.parse('2026-03-01T12:00:00Z');
    const later = (seconds: number) => new Date(time + seconds * 1000);
    let store: Store;
    beforeEach(() => {
      store = open(() => new Date(time));
    });

    it('has one mark for its whole life, and another store has another', async () => {
      const mark = await store.mark();
      expect(mark).toMatch(/^[\w-]{16,}$/);
      expect(await store.mark()).toBe(mark);
      expect(await open(() => new Date(time)).mark()).not.toBe(mark);
    });

    it('counts up', async () => {
      const [a, b, c] = [await store.next(), await store.next(), await store.next()];
      expect(a < b && b < c).toBe(true);
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

    it('remembers what was put until it expires or is deleted', async () => {
      await store.put('a', 'one', later(10));
      await store.put('b', 'two', later(20));
      expect([await store.get('a'), await store.get('b'), await store.get('c')]).toEqual(['one', 'two', undefined]);
      await store.delete('b');
      expect(await store.get('b')).toBeUndefined();
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

    it('lists live entries by the beginning of their keys', async () => {
      await store.put('x:1', 'one', later(10));
      await store.put('x:2', 'two', later(20));
      await store.put('y:1', 'three', later(20));
      const keys = async () => (await store.list('x:')).map(({ key }) => key).sort();
      expect(await keys()).toEqual(['x:1', 'x:2']);
      time += 10_000;
      expect(await keys()).toEqual(['x:2']);
      expect((await store.list('x:'))[0]).toEqual({ key: 'x:2', value: 'two', expires: later(10) });
    });

    it('tells subscribers of each put, until they have enough', async () => {
      const heard: Entry[] = [];
      const stop = await store.subscribe((entry) => heard.push(entry));
      await store.put('a', 'one', later(10));
      stop();
      await store.put('b', 'two', later(10));
      expect(heard).toEqual([{ key: 'a', value: 'one', expires: later(10) }]);
    });
  });
}

storeSuite('MemoryStore', (now) => new MemoryStore({ now }));

describe('MemoryStore', () => {
  it('keeps nothing that has expired: 100,000 spent keys and entries leave no trace', async () => {
    let time = 0;
    const store = new MemoryStore({ now: () => new Date(time) });
    for (let i = 0; i < 100_000; i++) {
      time += 1_000;
      await store.spend(`spent ${i}`, new Date(time + 60_000));
      await store.put(`entry ${i}`, '', new Date(time + 60_000));
    }
    // Those of the last minute, and those that the next sweep is due to find.
    expect((await store.list('entry ')).length).toBeLessThanOrEqual(60);
    expect(store.size).toBeLessThanOrEqual(2 * 121);
  });
});
