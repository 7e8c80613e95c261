import { describe, expect, it } from 'vitest';
import { digest } from '../src/digest.js';
import { MemoryStore } from '../src/session/memory.js';
import { Renewals } from '../src/session/renewals.js';
import { Sealer } from '../src/session/seal.js';
import { clock } from './site.js';

describe('Renewals', () => {
  it('counts a use in the future, by a process whose clock is ahead, as one of now', async () => {
    clock.reset();
    const store = new MemoryStore({ now: clock.now });
    const sealer = new Sealer([Buffer.alloc(32, 1)], 'renewal');
    const used: [string, number][] = [];
    const make = (ahead: number) =>
      new Renewals({
        ...{ store, sealer, application: 'here', inactiveTimeout: 600 },
        now: () => new Date(clock.time + ahead),
        ask: (work) => work(),
        onUse: (name, seen) => void (ahead === 0 && used.push([name, seen])),
      });
    const here = make(0);
    const fast = make(3600_000);
    await Promise.all([here.start(), fast.start()]);
    const later = new Date(clock.time + 7200_000);
    fast.publish('a', clock.time + 3600_000, later);
    expect(used).toEqual([[digest('session', 'a'), clock.time]]);
    expect(here.lastSeen('a')).toBe(clock.time);
    // Also of what a process finds when it starts.
    const again = make(0);
    await again.start();
    expect(again.lastSeen('a')).toBe(clock.time);
    for (const one of [here, fast, again]) one.stop();
  });
});
