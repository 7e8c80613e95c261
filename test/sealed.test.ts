import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { SessionError } from '../src/errors.js';
import { createWAA, type WAA } from '../src/waa.js';
import { seededNumbers } from './helpers.js';
import { type Answer, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const baseUrl = 'https://example.cam.ac.uk';
const newer = 'b2'.repeat(32);

function make(config: Partial<Config> = {}): WAA {
  return createWAA({ baseUrl, secret, wls: wls.profile, now: clock.now, ...config });
}

/** The cookie of somebody who has just logged in. */
async function sealedBy(waa: WAA, principal = 'test0001', ptags: string[] = ['current']): Promise<string> {
  const { location, nonce } = waa.startLogin('/');
  const { cookie } = await waa.finishLogin(wls.respond(location, { principal, ptags }), nonce);
  return cookie as string;
}

/** Why a cookie does not open; undefined if it does. */
function refusal(waa: WAA, cookie: string): SessionError | undefined {
  try {
    waa.openSession(cookie);
    return undefined;
  } catch (error) {
    if (error instanceof SessionError) return error;
    throw error;
  }
}

type Dice = (below: number) => number;
type Mutation = (cookie: string, dice: Dice, others: readonly string[]) => string;

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
/** What is no base64url, or looks like it: other alphabets, padding, blanks, letters of other planes. */
const strays = [...'+/=%!~;, "\t\n\0\u00ff\u00c1\u0141\u0391\uff21\u{1d400}', '%41', '==', '\r\n'];
// In characters: version and key id, nonce, and the tag at the end.
const parts = [0, 8, 24];

const pick = <T>(list: readonly T[], dice: Dice) => list[dice(list.length)] as T;
const putIn = (text: string, at: number, what: string, instead = 0) =>
  text.slice(0, at) + what + text.slice(at + instead);

const mutations: Record<string, Mutation> = {
  'a bit flipped': (cookie, dice) => {
    const bytes = Buffer.from(cookie, 'base64url');
    const at = dice(bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << dice(8));
    return bytes.toString('base64url');
  },
  'a character changed': (cookie, dice) => putIn(cookie, dice(cookie.length), pick([...alphabet], dice), 1),
  'the last character changed': (cookie, dice) => cookie.slice(0, -1) + pick([...alphabet], dice),
  'cut at the end': (cookie, dice) => cookie.slice(0, dice(cookie.length)),
  'cut at the beginning': (cookie, dice) => cookie.slice(1 + dice(cookie.length)),
  'cut out': (cookie, dice) => {
    const at = dice(cookie.length);
    return putIn(cookie, at, '', 1 + dice(cookie.length - at));
  },
  inserted: (cookie, dice) => putIn(cookie, dice(cookie.length + 1), pick([...alphabet], dice)),
  'a stray inserted': (cookie, dice) => putIn(cookie, dice(cookie.length + 1), pick(strays, dice)),
  'a stray in place of a character': (cookie, dice) => putIn(cookie, dice(cookie.length), pick(strays, dice), 1),
  'a character of the same low byte': (cookie, dice) => {
    const at = dice(cookie.length);
    return putIn(cookie, at, String.fromCharCode(cookie.charCodeAt(at) + 256 * (1 + dice(200))), 1);
  },
  'parts of two': (cookie, dice, others) => {
    const other = pick(others, dice);
    const at = pick([...parts, cookie.length - 22, dice(cookie.length)], dice);
    return cookie.slice(0, at) + other.slice(at);
  },
  'a part of another': (cookie, dice, others) => {
    const [from, to] = pick(
      [
        [0, 8],
        [8, 24],
        [24, 60],
        [-22, undefined],
      ] as const,
      dice,
    );
    const other = pick(others, dice).slice(from, to);
    return from < 0 ? cookie.slice(0, from) + other : putIn(cookie, from, other, other.length);
  },
  'the other alphabet': (cookie) => cookie.replaceAll('-', '+').replaceAll('_', '/'),
  'padded base64': (cookie) => Buffer.from(cookie, 'base64url').toString('base64'),
  hex: (cookie) => Buffer.from(cookie, 'base64url').toString('hex'),
  'sealed twice': (cookie) => Buffer.from(cookie).toString('base64url'),
  'of one case': (cookie, dice) => (dice(2) === 0 ? cookie.toLowerCase() : cookie.toUpperCase()),
  'of another case at one place': (cookie, dice) => {
    const at = dice(cookie.length);
    const letter = cookie[at] as string;
    return putIn(cookie, at, letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(), 1);
  },
  appended: (cookie, dice) => cookie + pick([...strays, ...alphabet, 'AAAA', cookie.slice(0, 4)], dice),
  'put before': (cookie, dice) => pick([...strays, 'AAAA'], dice) + cookie,
  doubled: (cookie, dice) => cookie + pick(['', '.', ';', ' ', '='], dice) + cookie,
  reversed: (cookie) => [...cookie].reverse().join(''),
  'of another version': (cookie, dice) => {
    const bytes = Buffer.from(cookie, 'base64url');
    bytes[0] = dice(256);
    return bytes.toString('base64url');
  },
  'of another key id': (cookie, dice) => {
    const bytes = Buffer.from(cookie, 'base64url');
    for (let i = 1; i < 6; i++) bytes[i] = dice(256);
    return bytes.toString('base64url');
  },
};

describe('what is sealed', () => {
  beforeEach(() => clock.reset());

  it('opens as it was sealed, byte for byte, and after none of 100,000 changes', async () => {
    const waa = make({ secret: [secret, newer] });
    const others = make({ secret: newer });
    const path = { baseUrl: `${baseUrl}/one` };
    // Several lengths, so that all ways in which base64url ends are among them; and some of other keys and places.
    const ours = await Promise.all(Array.from({ length: 6 }, (_, i) => sealedBy(waa, `test000${i}${'x'.repeat(i)}`)));
    const foreign = await Promise.all([
      sealedBy(others),
      sealedBy(make(path)),
      sealedBy(make({ cookieName: 'other' })),
    ]);
    expect(new Set(ours.map((cookie) => cookie.length % 4)).size).toBe(3);
    for (const cookie of ours) expect(refusal(waa, cookie)?.code).not.toBe('ERR_SESSION_INVALID');
    const dice = seededNumbers(20130704);
    const kinds = Object.entries(mutations);
    const tried = new Map<string, number>();
    const opened: string[] = [];
    let same = 0;
    for (let i = 0; i < 100_000; i++) {
      const [name, mutate] = kinds[i % kinds.length] as [string, Mutation];
      const changed = mutate(pick(ours, dice), dice, [...ours, ...foreign]);
      // What is the same again, or another one as a whole, is no change.
      if (ours.includes(changed) || changed === foreign[0]) {
        same += 1;
        continue;
      }
      tried.set(name, (tried.get(name) ?? 0) + 1);
      if (refusal(waa, changed)?.code !== 'ERR_SESSION_INVALID') opened.push(`${name}: ${changed}`);
    }
    expect(opened.slice(0, 3)).toEqual([]);
    expect(same).toBeLessThan(6_000);
    for (const [name] of kinds) expect(tried.get(name), name).toBeGreaterThan(2_000);
  });

  it('has no second spelling: the bits that base64url leaves over are held too', async () => {
    const waa = make();
    for (let i = 0; i < 6; i++) {
      const cookie = await sealedBy(waa, `test${'x'.repeat(i)}`);
      const spelled = [...alphabet].map((last) => cookie.slice(0, -1) + last);
      expect(spelled.filter((one) => refusal(waa, one) === undefined)).toEqual([cookie]);
    }
  });

  it('is under 400 bytes for a usual person with two ptags', async () => {
    const cookie = await sealedBy(make(), 'spqr2', ['current', 'member']);
    console.info(`A sealed session of a usual person has ${cookie.length} bytes.`);
    expect(cookie.length).toBeLessThan(400);
    const anchored = await sealedWith({ coordinatedLogout: true });
    expect(anchored.length).toBeLessThan(400);
  });

  async function sealedWith(config: Partial<Config>): Promise<string> {
    const waa = make(config);
    const { location, nonce } = waa.startLogin('/');
    const answer = wls.respond(location, { principal: 'spqr2', ptags: ['current', 'member'] });
    return (await waa.finishLogin(answer, nonce, undefined, undefined)).cookie as string;
  }

  it('of another name, place, path or secret does not open, whatever else is the same', async () => {
    const waa = make();
    const others: [string, Partial<Config>, 'foreign' | 'broken'][] = [
      ['a name', { cookieName: 'other' }, 'foreign'],
      ['a place', { baseUrl: `${baseUrl}/one` }, 'foreign'],
      ['a host', { baseUrl: 'https://other.cam.ac.uk' }, 'foreign'],
      ['a path', { baseUrl: `${baseUrl}/one`, cookiePath: '/one' }, 'foreign'],
      ['a secret', { secret: newer }, 'foreign'],
    ];
    for (const [name, config, cookie] of others) {
      const error = refusal(waa, await sealedBy(make(config)));
      expect([error?.code, error?.cookie], name).toEqual(['ERR_SESSION_INVALID', cookie]);
    }
  });
});

const routes: Routes = (app, auth) => {
  app.get('/guarded', auth.require(), (_, response) => void response.send('in'));
  app.get('/any', ({ auth: who }, response) => void response.send(who?.principal ?? 'nobody'));
  app.get('/public', ({ auth: who }, response) => {
    response.set('Cache-Control', 'public, max-age=60').send(who?.principal ?? 'nobody');
  });
  app.get('/shared', ({ auth: who }, response) => {
    response.writeHead(200, { 'Cache-Control': 's-maxage=60' }).end(who?.principal ?? 'nobody');
  });
};

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let value: string;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(async () => {
    clock.reset();
    site.serve(routes);
    value = await sealedBy(site.waa);
    site.events.length = 0;
  });

  /** Of the same application, but with other options. */
  const elsewhere = (config: Partial<Config>) => sealedBy(make({ baseUrl: site.address, ...config }));

  const named = async (cookie: string | Promise<string>) => `webauth-session=${await cookie}`;
  const flip = (at: number) => {
    const bytes = Buffer.from(value, 'base64url');
    bytes[at < 0 ? bytes.length + at : at] = (bytes.at(at) as number) ^ 1;
    return bytes.toString('base64url');
  };

  const rows: [name: string, cookie: () => Promise<string>, cleared: boolean][] = [
    ['cut', () => named(value.slice(0, -4)), true],
    ['cut to its head', () => named(value.slice(0, 8)), true],
    ['of a flipped bit in the nonce', () => named(flip(7)), true],
    ['of a flipped bit in the text', () => named(flip(30)), true],
    ['of a flipped bit in the tag', () => named(flip(-1)), true],
    ['of an old version', () => named(`AQ${value.slice(2)}`), true],
    ['of a later version', () => named(`_w${value.slice(2)}`), false],
    ['of a key id that is unknown', () => named(flip(3)), false],
    ['of a secret that we do not have', () => named(elsewhere({ secret: newer })), false],
    ['of another name', () => named(elsewhere({ cookieName: 'other' })), false],
    ['too large', () => named(value + 'A'.repeat(8200)), true],
    ['with text after it', () => named(`${value}.x`), true],
    ['in the other alphabet', () => named(`${value.slice(0, 20)}+${value.slice(21)}`), true],
    ['doubled', async () => `${await named(value)}; ${await named(value)}`, false],
    ['doubled, the other one empty', async () => `webauth-session=; ${await named(value)}`, false],
    ['doubled, in one value', () => named(value + value), true],
  ];

  it.each(rows)(
    'a session cookie %s is ERR_SESSION_INVALID behind a guard, and nobody elsewhere',
    async (_name, make, cleared) => {
      const cookie = await make();
      const clears = cleared ? ['webauth-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax'] : [];
      const send = (path: string): Promise<Answer> => new Browser(site.address).fetch(path, { cookie });
      const guarded = await send('/guarded');
      expect([guarded.status, JSON.parse(guarded.text).error.code]).toEqual([401, 'ERR_SESSION_INVALID']);
      expect([guarded.set, guarded.headers.get('cache-control')]).toEqual([clears, 'no-store']);
      const any = await send('/any');
      expect([any.status, any.text, any.set]).toEqual([200, 'nobody', clears]);
      // On what caches may keep for others, no cookie is set, and none is cleared.
      for (const path of ['/public', '/shared']) {
        const kept = await send(path);
        expect([kept.status, kept.text, kept.set]).toEqual([200, 'nobody', []]);
      }
      const refused = site.events.filter(({ event }) => event === 'refused');
      expect(refused.map(({ level, code }) => [level, code])).toEqual(Array(4).fill(['warn', 'ERR_SESSION_INVALID']));
      const logged = JSON.stringify(site.events);
      for (const at of [0, 20, 60]) expect(logged).not.toContain(cookie.slice(16 + at, 16 + at + 12) || 'nothing');
      expect(guarded.text).not.toContain(value.slice(20, 40));
      // The good one is as good as before.
      expect((await new Browser(site.address).fetch('/guarded', { cookie: await named(value) })).text).toBe('in');
    },
  );

  it('a session cookie of an older secret of ours opens, and one of a secret that we dropped does not', async () => {
    site.serve(routes, { secret: [newer, secret], store: undefined } as never);
    const [old, recent] = [await elsewhere({}), await elsewhere({ secret: newer })];
    const code = async (cookie: string) =>
      /ERR_\w+/.exec((await new Browser(site.address).fetch('/guarded', { cookie: await named(cookie) })).text)?.[0];
    // They open, and are of another process, which shares no store with this one.
    expect([await code(old), await code(recent)]).toEqual(['ERR_SESSION_REVOKED', 'ERR_SESSION_REVOKED']);
    site.serve(routes, { secret: newer });
    expect([await code(old), await code(recent)]).toEqual(['ERR_SESSION_INVALID', 'ERR_SESSION_REVOKED']);
  });
});
