import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SessionError } from '../src/errors.js';
import { Sealer } from '../src/session/seal.js';
import {
  describe as describeSession,
  type Lifetimes,
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
  lastSeen: Date.parse('2026-03-01T12:10:00Z'),
  expires: Date.parse('2026-03-01T13:00:00Z'),
  because: 'life',
  mark: 'a mark',
  anchor: '',
};

const lifetimes = (maxLife: number, inactiveTimeout?: number): Lifetimes => ({
  maxLife,
  useWlsLife: true,
  inactiveTimeout,
});

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
      // The first byte is the version, of which earlier ones are nobody's; the next five name the key, then none of ours.
      const unknown = bit < 48 && (changed[0] as number) >= (sealed[0] as number);
      expect(sealer.open(changed.toString('base64url')), `bit ${bit}`).toBe(unknown ? 'unknown' : 'invalid');
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

  it('that does not open is ERR_SESSION_INVALID, and may be of a secret or a version that is still to come', () => {
    const cookieOf = (sealed: string) => {
      const error = expectRefused(() => openSession(sealer, sealed), SessionError, 'ERR_SESSION_INVALID');
      return (error as SessionError).cookie;
    };
    expect(cookieOf('x'.repeat(100))).toBe('foreign');
    expect(cookieOf('<script>')).toBe('broken');
    expect(cookieOf(sealSession(new Sealer([randomBytes(32)], 'session'), session))).toBe('foreign');
    const bytes = Buffer.from(sealSession(sealer, session), 'base64url');
    const ofVersion = (version: number) => {
      bytes[0] = version;
      return cookieOf(bytes.toString('base64url'));
    };
    expect([0, 1, 2, 4].map(ofVersion)).toEqual(['broken', 'broken', 'broken', 'foreign']);
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
    expect(describeSession(session, lifetimes(7200))).toEqual({
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
      group: '',
      interactiveAt: undefined,
    });
  });
});

it('a shorter maxLife than at the login holds at once, and a longer one revives nothing', () => {
  const end = (maxLife: number) => describeSession(session, lifetimes(maxLife));
  expect(end(60)).toMatchObject({ expires: new Date(session.issue + 60_000), expiresBecause: 'maxLife' });
  expect(end(86_400)).toMatchObject({ expires: new Date(session.expires), expiresBecause: 'life' });
});
