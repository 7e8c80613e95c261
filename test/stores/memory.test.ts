import { describe, expect, it } from 'vitest';
import { MemoryStore } from '../../src/session/memory.js';
import { storeSuite } from './suite.js';

storeSuite('MemoryStore', { open: (now) => new MemoryStore({ now }), empty: async () => {} });

describe('MemoryStore', () => {
  it('keeps nothing that has expired: 100,000 spent keys and entries leave no trace', async () => {
    let time = 0;
    const store = new MemoryStore({ now: () => new Date(time) });
    for (let i = 0; i < 100_000; i++) {
      time += 1_000;
      await store.spend(`spent ${i}`, new Date(time + 60_000));
      await store.put(`entry:${i}`, '', new Date(time + 60_000));
      await store.put(`folder of its own ${i}:entry`, '', new Date(time + 60_000));
    }
    // Those of the last minute, and those that the next sweep is due to find.
    expect((await store.list('entry')).length).toBeLessThanOrEqual(60);
    expect(store.size).toBeLessThanOrEqual(3 * 121);
  });
});
