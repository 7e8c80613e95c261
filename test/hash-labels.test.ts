import { beforeEach, describe, expect, it } from 'vitest';
import { digest, type Hashed } from '../src/digest.js';
import { MemoryStore } from '../src/session/memory.js';
import { createWAA, type Login, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

const kinds: Hashed[] = [
  'application',
  'binding',
  'handshake ticket',
  'login nonce',
  'owner',
  'person',
  'requirements',
  'response',
  'session',
  'ticket',
  'token',
  'token handle',
];

describe('digest()', () => {
  it('returns another hash of the same text for each kind', () => {
    expect(new Set(kinds.map((kind) => digest(kind, 'text'))).size).toBe(kinds.length);
  });

  it('returns another hash when the kind goes on in the text', () => {
    expect(digest('token', ' handle:text')).not.toBe(digest('token handle', 'text'));
    for (const kind of kinds) expect(kind).not.toContain(':');
  });
});

describe('applications that share a store', () => {
  let store: MemoryStore;
  let one: WAA;
  let two: WAA;
  beforeEach(async () => {
    clock.reset();
    store = new MemoryStore({ now: clock.now });
    const make = (name: string, coordinatedLogout: boolean) =>
      createWAA({
        ...{ baseUrl: `https://example.org/${name}`, cookieName: name, coordinatedLogout },
        ...{ secret, wls: wls.profile, now: clock.now, store },
      });
    one = make('one', true);
    two = make('two', false);
    await Promise.all([one.ready, two.ready]);
  });

  async function logIn(waa: WAA, principal: string, anchor?: string): Promise<Login> {
    const { location, nonce } = waa.startLogin('/');
    return waa.finishLogin(wls.respond(location, { principal }), nonce, undefined, anchor);
  }

  it('keep a session of another user when a browser that logs out has its id as binding cookie', async () => {
    const victim = await logIn(two, 'victim');
    const { auth } = await logIn(one, 'attacker', victim.auth.sessionId);
    await one.endSession(auth);
    expect(two.openSession(victim.cookie).principal).toBe('victim');
  });

  it('keep a token of another user when a browser that logs out has its handle as binding cookie', async () => {
    const made = await two.tokens.create({ principal: 'victim', name: 'x', ttl: 600 });
    // Of the shape of a binding cookie, as far as a handle can be.
    const { auth } = await logIn(one, 'attacker', made.handle.slice(0, 22));
    await one.endSession({ ...auth, group: made.handle }).catch(() => {});
    await one.endSession(auth);
    expect((await two.openToken(made.token)).principal).toBe('victim');
  });

  it('keep what a session of the same id as a binding cookie stands for, in each folder of the store', async () => {
    const { auth, anchor } = await logIn(one, 'test0001');
    await one.endSession(auth);
    const keys = (await store.list('ended')).map(({ key }) => key);
    expect(keys).toContain(`ended:binding.${digest('binding', anchor as string)}`);
    expect(keys.filter((key) => key.startsWith('ended:session.'))).toEqual([]);
  });
});
