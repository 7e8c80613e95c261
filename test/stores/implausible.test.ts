import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { digest } from '../../src/digest.js';
import { personOf } from '../../src/session/ended.js';
import { LiveSessions } from '../../src/session/live.js';
import type { Store } from '../../src/session/store.js';
import { engines } from './engines.js';

const SECOND = 1000;
const YEAR = 366 * 24 * 3600;
const name = () => randomBytes(32).toString('base64url');
const later = (seconds: number) => new Date(Date.now() + seconds * SECOND);
const handle = (login: number, sessionId = 'a', principal = 'test0001') => ({
  ...{ sessionId, group: '', wls: 'raven', principal, login },
});
const group = digest('binding', 'of a browser');

/** Numbers that no store gives a login now. */
const numbers = [
  '9007199254740993',
  '9007199254740992',
  '9007199254740991',
  '1e308',
  '1e13',
  'Infinity',
  'NaN',
  '-1',
  '0',
  '01',
  '1.5',
  '0x10',
  '',
  String((Date.now() + 3 * 24 * 3600 * SECOND) * 1000),
];

describe.each(engines())('live sessions on $name, of which something else has written to the store', (engine) => {
  const opened: { readonly store: Store; readonly live: LiveSessions }[] = [];
  let told: string[];
  beforeEach(async () => {
    told = [];
    await engine.empty();
  });
  afterEach(async () => {
    for (const { store, live } of opened.splice(0)) {
      live.stop();
      await store.close();
    }
  });

  /** A process with its own connection to the store. */
  async function start() {
    const store = await engine.open();
    const live = new LiveSessions({
      ...{ store, application: digest('application', 'here'), maxLife: 7200, now: () => new Date() },
      ...{ staleAfter: 10_000, allowStale: false, complain: (message) => void told.push(message) },
    });
    opened.push({ store, live });
    await live.start();
    return { store, live };
  }

  /** Waits until a process has heard all that was put. */
  async function heard({ live }: { readonly live: LiveSessions }, writer: Store): Promise<void> {
    const last = name();
    await writer.put(`ended:session.${digest('session', last)}`, '', later(60));
    await expect.poll(() => live.isEnded(handle(1, last, 'nobody'))).toBe(true);
  }

  /** Whether ending all of a person's sessions ends those before, and none after. */
  async function endsAll({ live }: { readonly live: LiveSessions }): Promise<boolean[]> {
    const before = await live.next();
    await live.endAll('raven', 'test0001');
    return [live.isEnded(handle(before)), live.isEnded(handle(await live.next()))];
  }

  it.each(['all', 'blocked'])(
    'end all sessions of a person after absurd numbers of %s, also after a restart',
    async (kind) => {
      const here = await start();
      const writer = await start();
      const first = await here.live.next();
      for (const person of [personOf('raven', 'test0001'), name()]) {
        for (const number of numbers) {
          await writer.store.put(`ended:${kind}.${person}.${number}`, kind === 'all' ? '' : 'yes', later(3600));
        }
      }
      await heard(here, writer.store);
      expect(await here.live.next()).toBeGreaterThan(first);
      expect(await endsAll(here)).toEqual([true, false]);
      expect(here.live.isBlocked('raven', 'test0001')).toBe(false);
      const again = await start();
      expect(await endsAll(again)).toEqual([true, false]);
      await again.live.block('raven', 'test0001');
      await again.live.unblock('raven', 'test0001');
      expect(again.live.isBlocked('raven', 'test0001')).toBe(false);
    },
  );

  it.skipIf(engine.publish === undefined)('ignore absurd numbers that are published and stored nowhere', async () => {
    const here = await start();
    for (const number of numbers) await engine.publish?.(`ended:all.${name()}.${number}`, '', later(3600));
    await heard(here, here.store);
    expect(told).toHaveLength(1);
    expect(await endsAll(here)).toEqual([true, false]);
    expect((await here.store.list('ended')).filter(({ key }) => key.startsWith('ended:all.'))).toHaveLength(1);
  });

  it('believe no absurd lifetime: a browser is logged out for as long as sessions last', async () => {
    const here = await start();
    const writer = await start();
    for (const life of ['1e13', '9007199254740991', String(YEAR + 1), '-5', 'NaN', '0', '']) {
      await writer.store.put(`ended:life.${name()}.${life}`, '', later(3600));
    }
    await heard(here, writer.store);
    await here.live.endGroup({ ...handle(await here.live.next()), group });
    const entry = (await here.store.list('ended')).find(({ key }) => key === `ended:binding.${group}`);
    expect(entry?.expires.getTime()).toBeLessThan(later(7200 + 3700).getTime());
    expect(entry?.expires.getTime()).toBeGreaterThan(later(7200 + 3500).getTime());
    const again = await start();
    expect(again.live.isEnded({ ...handle(1), group })).toBe(true);
  });

  it('keep nothing of names, values and ends that they would not write, and tell the log once', async () => {
    const here = await start();
    const writer = await start();
    const person = personOf('raven', 'test0001');
    const ok = later(3600);
    const century = later(101 * YEAR);
    const junk: [string, string, Date][] = [
      ['x', '', ok],
      [name(), '', ok],
      [`session.${name()}x`, '', ok],
      [`session.${name().slice(1)}`, '', ok],
      [`session.${'_'.repeat(43)}`, '', ok],
      [`session.${name()}`, 'x', ok],
      [`session.${name()}`, `${person}.1e3`, ok],
      [`session.${name()}`, `${person}.1.1`, ok],
      [`session.${name()}`, '', century],
      [`binding.${name()}`, '', century],
      [`token.${name()}`, `${person}.1`, ok],
      [`token.${name()}`, '', century],
      [`all.${person}.5`, `${name()} ${name()}`, ok],
      [`all.${person}.5`, '', century],
      [`blocked.${person}.5`, 'maybe', ok],
      [`blocked.${person}.5`, '', ok],
      [`blocked.${person}.5`, 'yes', later(102 * YEAR)],
      [`block.${person}.5`, 'yes', ok],
      [`life.${name()}.60`, 'x', ok],
      [`life.${name()}.60`, '', century],
      [`member.${name()}.${name()}`, '1e3', ok],
      [`member.${name()}.5`, '5', ok],
      [`__proto__.${name()}`, '', ok],
      [`constructor.${name()}.5`, '', ok],
    ];
    for (const [key, value, expires] of junk) await writer.store.put(`ended:${key}`, value, expires);
    for (let i = 0; i < 300; i++) await writer.store.put(`ended:junk.${i}`, '', ok);
    await heard(here, writer.store);
    expect(here.live.size).toBe(1);
    expect(here.live.isEnded(handle(1))).toBe(false);
    expect(here.live.isBlocked('raven', 'test0001')).toBe(false);
    const lines = told.filter((line) => line.includes('does not write'));
    expect(lines.length).toBeLessThanOrEqual(2);
    expect(lines.length).toBeGreaterThan(0);
    // A process that starts later neither believes it nor repeats it for each.
    told.length = 0;
    const again = await start();
    expect(again.live.size).toBe(1);
    expect(told.filter((line) => line.includes('does not write'))).toHaveLength(1);
  });

  it('revive no session of another user when a cutoff names it', async () => {
    const here = await start();
    const writer = await start();
    const victim = handle(await here.live.next(), 'of the victim', 'victim');
    await here.live.end(victim, later(3600));
    const key = `ended:session.${digest('session', victim.sessionId)}`;
    const accomplice = personOf('raven', 'accomplice');
    await writer.store.put(
      `ended:all.${accomplice}.${victim.login + 1}`,
      key.slice('ended:session.'.length),
      later(5 * 3600),
    );
    await writer.store.put(`ended:all.${accomplice}.${victim.login + 2}`, '', later(5 * 3600));
    // The same with a revocation that claims to be the accomplice's.
    await writer.store.put(key, `${accomplice}.1`, later(5 * 3600));
    await writer.store.put(`ended:all.${accomplice}.${victim.login + 3}`, '', later(5 * 3600));
    await writer.store.delete(key);
    await heard(here, writer.store);
    expect(here.live.isEnded(victim)).toBe(true);
  });

  it.skipIf(engine.setCounter === undefined).each([Number.MAX_SAFE_INTEGER, 2 ** 53 + 2, 1e300, 8e15])(
    'say that the login counter is broken when it stands at %d, and end the sessions here all the same',
    async (number) => {
      const here = await start();
      const login = await here.live.next();
      await engine.setCounter?.(number);
      const broken = /login counter .*"number".*"count".* gave .* after .*ucam-webauth store invalidate/;
      await expect(here.live.next()).rejects.toThrow(broken);
      await expect(here.live.unblock('raven', 'test0001')).rejects.toThrow(broken);
      await expect(here.live.endAll('raven', 'test0001')).rejects.toThrow(broken);
      expect(here.live.isEnded(handle(login))).toBe(true);
      await expect(here.live.block('raven', 'test0002')).rejects.toThrow(broken);
      expect(here.live.isBlocked('raven', 'test0002')).toBe(true);
    },
  );
});
