import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { SessionError } from '../src/errors.js';
import { LiveSessions } from '../src/session/live.js';
import { MemoryStore } from '../src/session/memory.js';
import { Sealer } from '../src/session/seal.js';
import {
  describe as describeSession,
  openSession,
  type Session,
  sealSession,
  sessionEnd,
} from '../src/session/session.js';
import { expectRefused } from './helpers.js';

const secret = randomBytes(32);
const session: Session = {
  id: 'a handle',
  principal: 'test0001',
  ptags: ['current'],
  auth: '',
  sso: ['pwd'],
  wls: 'raven',
  login: 3,
  issue: Date.parse('2026-03-01T12:00:00Z'),
  loggedIn: Date.parse('2026-03-01T12:00:02.500Z'),
  expires: Date.parse('2026-03-01T13:00:00Z'),
  because: 'life',
  mark: 'a mark',
  anchor: '',
};

describe('sealing', () => {
  const sealer = new Sealer([secret], 'test', 'https://example.org', '/');

  it('opens what it sealed, whatever the text', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }).filter((text) => text.isWellFormed()),
        (text) => {
          expect(sealer.open(sealer.seal(text))).toEqual({ text });
        },
      ),
      { numRuns: 500, seed: 1 },
    );
  });

  it('never seals twice in the same way, and writes plain base64url', () => {
    const [a, b] = [sealer.seal('text'), sealer.seal('text')];
    expect(a).not.toBe(b);
    expect(a).toMatch(/^[\w-]+$/);
  });

  it('refuses each change of a single bit: of version, key id, nonce, content and tag', () => {
    const sealed = Buffer.from(sealer.seal('some text'), 'base64url');
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Buffer.from(sealed);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      // The first six bytes name the key: changed, they name none of ours.
      expect(sealer.open(changed.toString('base64url')), `bit ${bit}`).toBe(bit < 48 ? 'unknown' : 'invalid');
    }
  });

  it('refuses what is cut, extended, not base64url, too short or too long', () => {
    const sealed = sealer.seal('some text');
    for (const text of [
      '',
      'x',
      sealed.slice(0, -1),
      `${sealed}A`,
      `${sealed}=`,
      `${sealed} `,
      ` ${sealed}`,
      `${sealed}\n`,
    ]) {
      expect(sealer.open(text)).toBe('invalid');
    }
    expect(sealer.open(sealed.slice(0, 45))).toBe('invalid');
    expect(sealer.open(sealed + 'A'.repeat(8192))).toBe('invalid');
  });

  it('does not open what was sealed for another purpose or place, with the same secret', () => {
    const sealed = sealer.seal('some text');
    for (const bound of [
      ['other', 'https://example.org', '/'],
      ['test', 'https://other.example.org', '/'],
      ['test', 'https://example.org', '/a'],
    ]) {
      const [purpose, ...place] = bound as [string, ...string[]];
      expect(new Sealer([secret], purpose, ...place).open(sealed)).toBe('unknown');
    }
    // Nor where the parts only look alike when joined.
    expect(new Sealer([secret], 'test', 'https://example.org/').open(sealed)).toBe('unknown');
  });

  it('seals with the first secret and opens with all, in whatever order they stand', () => {
    const [old, fresh] = [randomBytes(32), randomBytes(32)];
    const sealed = new Sealer([old], 'test').seal('text');
    expect(new Sealer([fresh, old], 'test').open(sealed)).toEqual({ text: 'text' });
    expect(new Sealer([old, fresh], 'test').open(sealed)).toEqual({ text: 'text' });
    expect(new Sealer([fresh], 'test').open(sealed)).toBe('unknown');
    expect(new Sealer([fresh], 'test').open(new Sealer([fresh, old], 'test').seal('text'))).toEqual({ text: 'text' });
    expect(() => new Sealer([], 'test')).toThrow(TypeError);
  });
});

describe('the session cookie', () => {
  const sealer = new Sealer([secret], 'session');

  it('brings back the session as it was', () => {
    expect(openSession(sealer, sealSession(sealer, session))).toEqual(session);
  });

  it('is well under 1 KB', () => {
    expect(sealSession(sealer, session).length).toBeLessThan(400);
  });

  it('that we did not make is ERR_SESSION_INVALID; one of a secret that is not in use is merely no session', () => {
    expectRefused(() => openSession(sealer, 'x'.repeat(100)), SessionError, 'ERR_SESSION_MISSING');
    expectRefused(() => openSession(sealer, '<script>'), SessionError, 'ERR_SESSION_INVALID');
    const other = sealSession(new Sealer([randomBytes(32)], 'session'), session);
    expectRefused(() => openSession(sealer, other), SessionError, 'ERR_SESSION_MISSING');
    const sealed = sealSession(sealer, session);
    const last = sealed.endsWith('A') ? 'Q' : 'A';
    const changed = sealed.slice(0, 60) + (sealed[60] === 'A' ? 'B' : 'A') + sealed.slice(61, -1) + last;
    expectRefused(() => openSession(sealer, changed), SessionError, 'ERR_SESSION_INVALID');
  });

  const { issue } = session;
  const at = (seconds: number) => issue + seconds * 1000;
  it.each([
    ['maxLife alone', 7200, true, null, 7200, 'maxLife'],
    ['a longer life', 7200, true, 7201, 7200, 'maxLife'],
    ['a life as long', 7200, true, 7200, 7200, 'maxLife'],
    ['a shorter life', 7200, true, 7199, 7199, 'life'],
    ['a shorter life that is not used', 7200, false, 7199, 7200, 'maxLife'],
    ['a life of 0', 7200, true, 0, 0, 'life'],
    ['a maxLife of 0', 0, true, 100, 0, 'maxLife'],
  ] as const)('ends at the earliest of both lives: %s', (_, maxLife, useWlsLife, life, end, because) => {
    expect(sessionEnd(issue, life ?? undefined, { maxLife, useWlsLife })).toEqual({ expires: at(end), because });
  });

  it('is told to the application without what it need not know', () => {
    expect(describeSession(session, 7200)).toEqual({
      principal: 'test0001',
      ptags: ['current'],
      sessionId: 'a handle',
      via: 'cookie',
      loggedInAt: new Date('2026-03-01T12:00:02.500Z'),
      expires: new Date('2026-03-01T13:00:00Z'),
      expiresBecause: 'life',
      auth: '',
      sso: ['pwd'],
      wls: 'raven',
      login: 3,
      interactiveAt: undefined,
    });
  });
});

it('a shorter maxLife than at the login holds at once, and a longer one revives nothing', () => {
  const end = (maxLife: number) => describeSession(session, maxLife);
  expect(end(60)).toMatchObject({ expires: new Date(session.issue + 60_000), expiresBecause: 'maxLife' });
  expect(end(86_400)).toMatchObject({ expires: new Date(session.expires), expiresBecause: 'life' });
});

describe('live sessions', () => {
  const handle = (sessionId: string, login = 1) => ({ sessionId, wls: 'raven', principal: 'test0001', login });

  function setUp() {
    const clock = { time: Date.parse('2026-03-01T12:00:00Z') };
    const now = () => new Date(clock.time);
    const store = new MemoryStore({ now });
    const live = new LiveSessions(store, now);
    const ended: string[] = [];
    const watch = (id: string, seconds: number) =>
      live.watch(handle(id), new Date(clock.time + seconds * 1000), ({ code }) => ended.push(`${id} ${code}`));
    return { clock, now, store, live, ended, watch };
  }

  it('learn what the store knew before, and what it hears later', async () => {
    const { live, store, clock, now } = setUp();
    const ends = new Date(clock.time + 10_000);
    await store.put('revoked:before', '', ends);
    await live.start();
    const other = new LiveSessions(store, now);
    await other.start();
    await other.revoke('later', ends);
    expect(['before', 'later', 'never'].map((id) => live.isRevoked(handle(id)))).toEqual([true, true, false]);
  });

  it('tell each watcher of a session once that it was revoked, and no others', async () => {
    const { live, watch, ended, clock } = setUp();
    await live.start();
    watch('a', 100);
    watch('a', 100);
    watch('b', 100);
    watch('a', 100)();
    await live.revoke('a', new Date(clock.time + 100_000));
    await live.revoke('a', new Date(clock.time + 100_000));
    expect(ended).toEqual(['a ERR_SESSION_REVOKED', 'a ERR_SESSION_REVOKED']);
    live.stop();
  });

  it('tell a watcher that comes too late at once', async () => {
    const { live, watch, ended, clock } = setUp();
    await live.start();
    await live.revoke('a', new Date(clock.time + 100_000));
    watch('a', 100);
    expect(ended).toEqual(['a ERR_SESSION_REVOKED']);
  });

  it('tell a watcher that comes after the end at once', () => {
    const { watch, ended } = setUp();
    watch('a', 0);
    watch('b', -3600);
    expect(ended).toEqual(['a ERR_SESSION_EXPIRED', 'b ERR_SESSION_EXPIRED']);
  });

  it('tell every watcher, also after one that throws, whose mistake is reported', async () => {
    const { live, watch, ended, clock } = setUp();
    await live.start();
    const ends = new Date(clock.time + 100_000);
    const mistake = new Error('of the application');
    live.watch(handle('a'), ends, () => {
      throw mistake;
    });
    watch('a', 100);
    const later = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
    await live.revoke('a', ends);
    expect(ended).toEqual(['a ERR_SESSION_REVOKED']);
    expect(later.mock.calls[0]?.[0]).toThrow(mistake);
    later.mockRestore();
    live.stop();
  });

  it('forget revocations of sessions that are over anyway', async () => {
    const { live, clock } = setUp();
    await live.start();
    for (let i = 0; i < 1000; i++) {
      clock.time += 1_000;
      await live.revoke(`session ${i}`, new Date(clock.time + 60_000));
    }
    expect(live.size).toBeLessThanOrEqual(121);
    expect(live.isRevoked(handle('session 999'))).toBe(true);
  });

  it('forget that all of a person were ended, once the last of them would be over', async () => {
    const { live, clock } = setUp();
    await live.start();
    await live.revokeAll('raven', 'test0001', new Date(clock.time + 60_000));
    expect(live.isRevoked(handle('a', 0))).toBe(true);
    clock.time += 120_000;
    await live.revoke('another', new Date(clock.time + 60_000));
    expect(live.size).toBe(1);
  });

  it('know the later of two ends of all, whichever they hear of first', async () => {
    const { live, store, clock } = setUp();
    await live.start();
    const put = store.put.bind(store);
    const kept: Parameters<typeof put>[] = [];
    const held = vi.spyOn(store, 'put').mockImplementation(async (...entry) => void kept.push(entry));
    const ends = new Date(clock.time + 60_000);
    await live.revokeAll('raven', 'test0001', ends);
    await store.next();
    await live.revokeAll('raven', 'test0001', ends);
    held.mockRestore();
    for (const entry of kept.reverse()) await put(...entry);
    // Number 2 was a login between the two.
    expect([1, 2, 3].map((login) => live.isRevoked(handle('a', login)))).toEqual([true, true, false]);
    const later = new LiveSessions(store, () => new Date(clock.time));
    await later.start();
    expect(later.isRevoked(handle('a', 2))).toBe(true);
  });

  it('listen once, however often they start', async () => {
    const { live, store } = setUp();
    const stopped = vi.fn();
    vi.spyOn(store, 'subscribe').mockResolvedValue(stopped);
    await live.start();
    await live.start();
    expect(stopped).toHaveBeenCalledTimes(1);
    live.stop();
    expect(stopped).toHaveBeenCalledTimes(2);
  });

  it('tell when the clock has come to the end, to the second', () => {
    const { live, watch, ended, clock } = setUp();
    watch('a', 10);
    watch('b', 10.5);
    watch('c', 3600);
    clock.time += 9_999;
    live.sweep();
    expect(ended).toEqual([]);
    clock.time += 1;
    live.sweep();
    expect(ended).toEqual(['a ERR_SESSION_EXPIRED']);
    clock.time += 1_000;
    live.sweep();
    expect(ended).toEqual(['a ERR_SESSION_EXPIRED', 'b ERR_SESSION_EXPIRED']);
    live.stop();
  });

  it('tell in time after the clock was put back or forward', () => {
    const { live, watch, ended, clock } = setUp();
    clock.time -= 3_600_000;
    live.sweep();
    watch('early', 10);
    clock.time += 11_000;
    live.sweep();
    expect(ended).toEqual(['early ERR_SESSION_EXPIRED']);
    watch('late', 86_400);
    clock.time += 86_400_000;
    live.sweep();
    expect(ended).toEqual(['early ERR_SESSION_EXPIRED', 'late ERR_SESSION_EXPIRED']);
    live.stop();
  });
});
