import { beforeAll, describe, expect, it } from 'vitest';
import type { LogEvent } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type Login, type WAA } from '../src/waa.js';
import { seededNumbers } from './helpers.js';
import { clock, secret, wls } from './site.js';

/** A store that remembers all that it was ever told, also what it forgets. */
class Recording extends MemoryStore {
  readonly records = new Set<string>();
  readonly values = new Set<string>();
  override async put(key: string, value: string, expires: Date): Promise<void> {
    this.records.add(`${key} ${value}`);
    this.values.add(value);
    return super.put(key, value, expires);
  }
  override async spend(key: string, expires: Date): Promise<boolean> {
    this.records.add(key);
    return super.spend(key, expires);
  }
  override async get(key: string): Promise<string | undefined> {
    this.records.add(key);
    return super.get(key);
  }
  override async take(key: string): Promise<string | undefined> {
    this.records.add(key);
    return super.take(key);
  }
  override async delete(key: string): Promise<void> {
    this.records.add(key);
    return super.delete(key);
  }
  override async list(folder: string): ReturnType<MemoryStore['list']> {
    this.records.add(folder);
    return super.list(folder);
  }
}

/** What nobody is to find, by what it is. */
class Secrets {
  readonly all = new Map<string, Set<string>>();
  add(kind: string, text: string | undefined): void {
    if (text === undefined) return;
    this.all.set(kind, (this.all.get(kind) ?? new Set()).add(text));
  }
  count(kind: string): number {
    return this.all.get(kind)?.size ?? 0;
  }
}

/** How bytes may have been written: hex, and base64 wherever they begin in a group of three. */
function writtenAs(bytes: Buffer): string[] {
  const hex = bytes.toString('hex');
  const groups = [0, 1, 2].map((before) => {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64url');
    // Without the characters that say something of the neighbours too.
    return whole.slice(before === 0 ? 0 : before + 1, whole.length - ((before + bytes.length) % 3 === 0 ? 0 : 1));
  });
  return [hex, hex.toUpperCase(), ...groups, ...groups.map((text) => text.replaceAll('-', '+').replaceAll('_', '/'))];
}

/** A text as it is, its bytes, and, where it is base64url, the bytes that it stands for. */
function formsOf(text: string): string[] {
  const plain = text.replace(/^ucwa_/, '');
  const stands = /^[\w-]{16,}$/.test(plain) ? writtenAs(Buffer.from(plain, 'base64url')) : [];
  return [...new Set([plain, ...writtenAs(Buffer.from(plain)), ...stands])];
}

const WINDOW = 8;

/** What is found of the secrets, in whatever form. */
function search(records: Iterable<string>, secrets: Secrets): string[] {
  const haystack = [...records].join('\n');
  const windows = new Set<string>();
  for (let i = 0; i + WINDOW <= haystack.length; i++) windows.add(haystack.slice(i, i + WINDOW));
  const isThere = (needle: string) => windows.has(needle.slice(0, WINDOW)) && haystack.includes(needle);
  return [...secrets.all].flatMap(([kind, texts]) =>
    [...texts].filter((text) => formsOf(text).some(isThere)).map((text) => `${kind} ${text}`),
  );
}

interface Person {
  readonly principal: string;
  readonly agent: string;
  /** By application: the cookies of a browser. */
  readonly browsers: { anchor: string | undefined; readonly logins: Map<WAA, Login> }[];
  readonly tokens: string[];
}

/** An hour of some hundred people in two applications that log out together; all that happens is in the records. */
async function busyHour(seed: number) {
  clock.reset();
  const store = new Recording({ now: clock.now });
  const events: LogEvent[] = [];
  const log = (event: LogEvent) => void events.push(event);
  const [one, two] = ['one', 'two'].map((name) =>
    createWAA({
      ...{ baseUrl: `https://example.org/${name}`, cookieName: name, coordinatedLogout: true, listSessions: true },
      ...{ inactiveTimeout: 1800, secret, wls: wls.profile, now: clock.now, store, log },
    }),
  ) as [WAA, WAA];
  await Promise.all([one.ready, two.ready]);
  const dice = seededNumbers(seed);
  const secrets = new Secrets();
  const did = new Map<string, number>();
  const people: Person[] = Array.from({ length: 240 }, (_, i) => {
    const principal = `person${String(i).padStart(4, '0')}`;
    const agent = `Browser/${i} (of ${principal.toUpperCase()})`;
    secrets.add('principal', principal);
    secrets.add('user agent', agent);
    return { principal, agent, tokens: [], browsers: [0, 1].map(() => ({ anchor: undefined, logins: new Map() })) };
  });

  const logIn = async (person: Person, waa: WAA, of: Person['browsers'][number], live?: Auth) => {
    const { location, nonce } = waa.startLogin('/', undefined, live ? { iact: true } : {}, live);
    secrets.add('nonce', nonce);
    secrets.add('params', new URL(location).searchParams.get('params') as string);
    const encoded = wls.respond(location, { principal: person.principal, ptags: ['current'] });
    const login = await waa.finishLogin(encoded, nonce, live, of.anchor);
    of.anchor = login.anchor;
    of.logins.set(waa, login);
    waa.note(login.auth, person.agent);
    secrets.add('session id', login.auth.sessionId);
    secrets.add('session cookie', login.cookie);
    secrets.add('anchor', login.anchor);
  };

  const doings: Record<
    string,
    (person: Person, waa: WAA, of: Person['browsers'][number], live: Auth) => Promise<unknown>
  > = {
    use: async (person, waa, of, live) => {
      waa.note(live, person.agent);
      const renewed = waa.renew(live);
      if (renewed === undefined) return;
      secrets.add('session cookie', renewed.cookie);
      of.logins.set(waa, { ...(of.logins.get(waa) as Login), ...renewed });
    },
    'step up': (person, waa, of, live) => logIn(person, waa, of, live),
    ticket: async (_, waa, of) => {
      const { ticket } = await waa.makeTicket(of.logins.get(waa)?.cookie, of.anchor);
      secrets.add('ticket', ticket);
      if (dice(4) > 0) await waa.takeTicket(ticket);
    },
    token: async (person, waa) => {
      const made = await waa.tokens.create({ principal: person.principal, name: `of ${person.principal}`, ttl: 3600 });
      secrets.add('token', made.token);
      person.tokens.push(made.token);
      await waa.openToken(made.token);
      if (dice(3) === 0) await waa.tokens.revoke(person.principal, made.handle);
    },
    'log out': (_, waa, __, live) => waa.endSession(live),
    everywhere: (person, waa) => waa.endSessions(person.principal),
    block: async (person, waa) => {
      await waa.block(person.principal);
      await waa.unblock(person.principal);
    },
    list: async (person, waa, _, live) => {
      const list = await waa.sessions.list(person.principal, live);
      if (dice(3) === 0) await waa.sessions.revoke(person.principal, list.at(-1)?.handle as string);
    },
  };
  const often: Record<string, number> = { use: 12, ticket: 4, token: 2, 'log out': 2, 'step up': 2, list: 2 };
  const bag = Object.keys(doings).flatMap((name) => Array(often[name] ?? 1).fill(name) as string[]);

  for (let i = 0; i < 4800; i++) {
    clock.pass(0.75);
    const person = people[dice(people.length)] as Person;
    const waa = dice(3) === 0 ? two : one;
    const of = person.browsers[dice(2)] as Person['browsers'][number];
    let live: Auth | undefined;
    try {
      live = waa.openSession(of.logins.get(waa)?.cookie, of.anchor);
    } catch {}
    const does = live === undefined ? 'log in' : (bag[dice(bag.length)] as string);
    did.set(does, (did.get(does) ?? 0) + 1);
    if (live === undefined) await logIn(person, waa, of);
    else await doings[does]?.(person, waa, of, live);
  }
  return { store, one, two, secrets, did, events, people };
}

/** Somebody's cookies that open a session just now. */
function liveSession(
  people: readonly Person[],
  waa: WAA,
): { readonly cookie: string; readonly anchor: string | undefined } {
  const all = people.flatMap(({ browsers }) => browsers);
  const found = all.map(({ anchor, logins }) => ({ anchor, cookie: logins.get(waa)?.cookie ?? '' }));
  const isLive = ({ anchor, cookie }: (typeof found)[number]) => {
    try {
      return waa.openSession(cookie, anchor) !== undefined;
    } catch {
      return false;
    }
  };
  return found.find(isLive) ?? expect.fail('nobody is logged in');
}

describe('what is stored gives nobody a session', () => {
  let hour: Awaited<ReturnType<typeof busyHour>>;
  beforeAll(async () => {
    hour = await busyHour(20130704);
  });

  it('the hour was a busy one', () => {
    const { did, secrets, store } = hour;
    for (const name of ['log in', 'use', 'step up', 'ticket', 'token', 'log out', 'everywhere', 'block', 'list']) {
      expect(did.get(name), name).toBeGreaterThan(50);
    }
    for (const kind of [
      'session id',
      'session cookie',
      'anchor',
      'nonce',
      'ticket',
      'token',
      'principal',
      'user agent',
    ]) {
      expect(secrets.count(kind), kind).toBeGreaterThan(200);
    }
    expect(store.records.size).toBeGreaterThan(8_000);
  });

  it('nothing in it is a session, a ticket, a token, a nonce, an anchor, a principal or a browser, in any form', () => {
    expect(search(hour.store.records, hour.secrets)).toEqual([]);
  });

  it('(and the search finds each of them, in each form, if it is there)', () => {
    for (const [kind, texts] of hour.secrets.all) {
      const [text] = texts as Set<string> & Iterable<string>;
      const only = new Secrets();
      only.add(kind, text);
      for (const form of formsOf(text as string)) {
        expect(search([`ended:${form}`], only), kind).toEqual([`${kind} ${text}`]);
        expect(search([`a ${form} b`, 'c'], only), kind).toEqual([`${kind} ${text}`]);
      }
      // In the midst of other bytes too.
      for (const before of ['', 'x', 'xy']) {
        const bytes = Buffer.concat([Buffer.from(before), Buffer.from(text as string), Buffer.from('z')]);
        for (const written of ['base64', 'base64url', 'hex', 'latin1'] as const) {
          expect(search([bytes.toString(written)], only), `${kind} ${written}`).toEqual([`${kind} ${text}`]);
        }
      }
      expect(search(['something else'], only)).toEqual([]);
    }
  });

  it('nor is the log any more telling than it says: no credential, and principals only as such', () => {
    const { events, secrets } = hour;
    const credentials = new Secrets();
    for (const kind of ['session cookie', 'anchor', 'nonce', 'ticket', 'token', 'params', 'user agent']) {
      for (const text of secrets.all.get(kind) ?? []) credentials.add(kind, text);
    }
    expect(events.length).toBeGreaterThan(3_000);
    expect(
      search(
        events.map((event) => JSON.stringify(event)),
        credentials,
      ),
    ).toEqual([]);
    for (const { message } of events) expect(message).not.toMatch(/session id|ucwa_/);
  });

  it('no value opens as a session, a ticket or a token, nor does any part of a key', async () => {
    const { store, one, two, people } = hour;
    const keys = [...store.records].map((record) => record.split(' ')[0] as string).flatMap((key) => key.split(/[.:]/));
    const texts = new Set([...store.values, ...keys, ...[...keys].map((part) => `ucwa_${part}`)]);
    const anchors = [undefined, ...people.slice(0, 1).map(({ browsers }) => browsers[0]?.anchor)];
    expect(texts.size).toBeGreaterThan(8_000);
    let opened = 0;
    const tries = async (work: () => unknown) => {
      try {
        await work();
        opened += 1;
      } catch {}
    };
    for (const text of texts) {
      for (const waa of [one, two]) {
        for (const anchor of anchors) await tries(() => waa.openSession(text, anchor));
        await tries(() => waa.peekSession(text));
        await tries(() => waa.takeTicket(text));
        await tries(() => waa.openToken(text));
      }
    }
    expect(opened).toBe(0);
    // It would have shown: a live session opens in its own application, and in no other.
    const { cookie } = liveSession(hour.people, one);
    for (const waa of [one, two]) await tries(() => waa.peekSession(cookie));
    expect(opened).toBe(1);
  });

  it('nor do facts that somebody moved: of one token under the handle of another, of a ticket as a token', async () => {
    const { store, one } = hour;
    const create = (principal: string) => one.tokens.create({ principal, name: 'x', ttl: 600 });
    const [mine, theirs] = [await create('test0001'), await create('test0002')];
    const own = await store.get(`token.${mine.handle}`);
    const facts = (await store.get(`token.${theirs.handle}`)) as string;
    await store.put(`token.${mine.handle}`, facts, theirs.expires);
    await expect(one.openToken(mine.token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    expect((await one.openToken(theirs.token)).principal).toBe('test0002');
    for (const value of [...store.values].slice(-200).filter((one) => one !== own)) {
      await store.put(`token.${mine.handle}`, value, theirs.expires);
      await expect(one.openToken(mine.token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    }
  });
});
