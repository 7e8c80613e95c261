import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config, LogEvent } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import type { Entry, Subscriber } from '../src/session/store.js';
import { createWAA, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

/** A store that can be away, or tell only when it is asked, as files do; and that says who has subscribed. */
class Watched extends MemoryStore {
  away = false;
  silent = false;
  readonly #held: Entry[] = [];
  readonly told: Entry[] = [];
  readonly subscribers = new Map<string, Subscriber[]>();
  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (this.away) throw new Error('no route');
    this.told.push({ key, value, expires });
    if (this.silent) return void this.#held.push({ key, value, expires });
    return super.put(key, value, expires);
  }
  override async subscribe(folder: string, subscriber: Subscriber): Promise<() => void> {
    const of = this.subscribers.get(folder) ?? [];
    this.subscribers.set(folder, of);
    const stop = await super.subscribe(folder, subscriber);
    of.push(subscriber);
    return () => {
      of.splice(of.indexOf(subscriber), 1);
      stop();
    };
  }
  override lag(): number {
    for (const entry of this.#held.splice(0)) for (const one of this.hearing) one.changed(entry);
    return 0;
  }
  get renewals(): Entry[] {
    return this.told.filter(({ key }) => key.startsWith('seen.'));
  }
  /** Who has subscribed to renewals. */
  get hearing(): Subscriber[] {
    return [...this.subscribers].flatMap(([folder, of]) => (folder.startsWith('seen.') ? of : []));
  }
}

let store: Watched;
let began: number;
let made: WAA[];
const events: LogEvent[] = [];
const complaints = () => events.filter(({ level }) => level === 'error').map(({ message }) => message);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] });
  clock.reset();
  began = clock.time;
  store = new Watched({ now: clock.now });
  made = [];
  events.length = 0;
});
afterEach(async () => {
  await Promise.all(made.map((waa) => waa.close()));
  vi.useRealTimers();
});

async function make(config: Partial<Config> = {}): Promise<WAA> {
  const log = (event: LogEvent) => void events.push(event);
  const where = { baseUrl: 'https://example.org', secret, wls: wls.profile };
  const waa = createWAA({ ...where, now: clock.now, store, log, inactiveTimeout: 600, ...config });
  made.push(waa);
  await waa.ready;
  return waa;
}

async function logIn(waa: WAA): Promise<{ readonly auth: Auth; readonly cookie: string }> {
  const { location, nonce } = waa.startLogin('/');
  const { auth, cookie } = await waa.finishLogin(wls.respond(location), nonce);
  return { auth, cookie: cookie as string };
}

/** What is told to whoever watches: when the session is to end from now on, in seconds since the beginning, and why it did. */
function watch(waa: WAA, auth: Auth): (string | number)[] {
  const told: (string | number)[] = [];
  waa.watch(
    auth,
    ({ code }) => told.push(code),
    ({ expires }) => told.push((expires.getTime() - began) / 1000),
  );
  return told;
}

/** A request with that cookie; the cookie that the browser has after it. */
function use(waa: WAA, cookie: string): string {
  return waa.renew(waa.openSession(cookie))?.cookie ?? cookie;
}

function pass(seconds: number): void {
  clock.pass(seconds);
  vi.advanceTimersByTime(500);
}

describe('a socket', () => {
  it('lasts while its session is in use on any process, and ends when it is not', async () => {
    const [here, there, late] = [await make(), await make(), await make()];
    const { auth, cookie } = await logIn(here);
    const told = [watch(here, auth), watch(there, there.openSession(cookie)), watch(late, late.openSession(cookie))];
    pass(300);
    const next = use(here, cookie);
    expect(told).toEqual(Array(3).fill([900]));
    pass(599);
    use(there, next);
    expect(told).toEqual(Array(3).fill([900, 1499]));
    pass(599);
    expect(told).toEqual(Array(3).fill([900, 1499]));
    pass(1);
    expect(told).toEqual(Array(3).fill([900, 1499, 'ERR_SESSION_IDLE']));
  });

  it('ends with its session however much that is used, and says then that it was not for want of use', async () => {
    const [here, there] = [await make({ maxLife: 1000 }), await make({ maxLife: 1000 })];
    const { cookie } = await logIn(here);
    const told = watch(there, there.openSession(cookie));
    pass(300);
    const next = use(here, cookie);
    pass(300);
    for (const seconds of [100, 100, 199]) {
      use(here, next);
      pass(seconds);
    }
    expect(told).toEqual([900, 1000]);
    pass(1);
    expect(told).toEqual([900, 1000, 'ERR_SESSION_EXPIRED']);
  });

  it('lasts also where the store tells only when it is asked: that comes before the clock', async () => {
    const [here, there] = [await make(), await make()];
    const { cookie } = await logIn(here);
    const told = watch(there, there.openSession(cookie));
    pass(300);
    store.silent = true;
    use(here, cookie);
    expect(told).toEqual([]);
    pass(300);
    expect(told).toEqual([900]);
  });

  it('where sessions last for a shorter time than elsewhere is no exception', async () => {
    const [here, short] = [await make(), await make({ maxLife: 700, inactiveTimeout: 500 })];
    const { cookie } = await logIn(here);
    const told = watch(short, short.openSession(cookie));
    pass(400);
    use(here, cookie);
    expect(told).toEqual([700]);
    pass(300);
    expect(told).toEqual([700, 'ERR_SESSION_EXPIRED']);
  });

  it('that is opened with an older cookie lasts as long, also on a process that started later', async () => {
    const [here, there] = [await make(), await make()];
    const { cookie } = await logIn(here);
    const [old, slow] = [there.openSession(cookie), there.openSession(cookie)];
    pass(300);
    use(here, cookie);
    const late = await make();
    const told = [watch(there, old), watch(late, late.openSession(cookie))];
    // One whose handshake took so long that by its cookie alone it would be over.
    pass(300);
    told.push(watch(there, slow));
    expect(told).toEqual(Array(3).fill([900]));
    pass(300);
    expect(told).toEqual(Array(3).fill([900, 'ERR_SESSION_IDLE']));
  });

  it('is not told when nobody cares any more, nor of other sessions', async () => {
    const waa = await make();
    const [one, two] = [await logIn(waa), await logIn(waa)];
    const told: string[] = [];
    const stop = waa.watch(
      one.auth,
      () => told.push('ended'),
      () => told.push('renewed'),
    );
    const other = watch(waa, two.auth);
    stop();
    pass(300);
    use(waa, one.cookie);
    pass(300);
    expect([told, other]).toEqual([[], ['ERR_SESSION_IDLE']]);
  });

  it('of a session that was ended is not revived by a renewal that arrives late', async () => {
    const [here, there] = [await make(), await make()];
    const { auth, cookie } = await logIn(here);
    const told = watch(there, there.openSession(cookie));
    pass(300);
    const [slow, opened] = [here.openSession(cookie), there.openSession(cookie)];
    await here.endSession(auth);
    here.renew(slow);
    told.push(...watch(there, opened));
    expect(told).toEqual(['ERR_SESSION_REVOKED', 900, 'ERR_SESSION_REVOKED']);
  });

  it('throws a TypeError for a copy of an Auth object, which nothing renews', async () => {
    const waa = await make();
    const { auth } = await logIn(waa);
    expect(() => watch(waa, { ...auth })).toThrow(TypeError);
  });

  it('is told though another one makes a mistake, which is reported', async () => {
    const waa = await make();
    const { auth, cookie } = await logIn(waa);
    const mistake = new Error('of the application');
    waa.watch(
      auth,
      () => {},
      () => {
        throw mistake;
      },
    );
    const told = watch(waa, auth);
    pass(300);
    const reported = vi.spyOn(globalThis, 'queueMicrotask').mockImplementation(() => {});
    use(waa, cookie);
    expect(told).toEqual([900]);
    expect(reported.mock.calls[0]?.[0]).toThrow(mistake);
    reported.mockRestore();
  });

  const lengths = fc.record({
    maxLife: fc.integer({ min: 300, max: 4000 }),
    inactiveTimeout: fc.integer({ min: 60, max: 1000 }),
  });
  /** After what part of the time that a session may rest, to which of two processes, and with how old a cookie. */
  const request = fc.tuple(fc.double({ min: 0.01, max: 0.7, noNaN: true }), fc.nat(1), fc.nat(2));

  it('ends when its session has rested for as long as it may, and never after the settled end', async () => {
    let renewals = 0;
    await fc.assert(
      fc.asyncProperty(lengths, fc.array(request, { minLength: 10, maxLength: 25 }), async (config, requests) => {
        const two = new Two([await make(config), await make(config)], await logIn(made.at(-1) as WAA));
        for (const [part, ...one] of requests) {
          two.waitUntil(clock.time + part * config.inactiveTimeout * 1000);
          if (two.ask(...one)) renewals += 1;
        }
        two.waitUntil(began + 10_000_000);
        const settled = two.began + config.maxLife * 1000;
        const idle = two.lastSeen + config.inactiveTimeout * 1000;
        const end = idle < settled ? `ERR_SESSION_IDLE ${idle}` : `ERR_SESSION_EXPIRED ${settled}`;
        expect(two.ended).toEqual([end, end]);
        await Promise.all(made.splice(0).map((waa) => waa.close()));
        clock.reset();
      }),
      { seed: 20130704, numRuns: 60 },
    );
    expect(renewals).toBeGreaterThan(100);
  });
});

/** A session of two processes, each with a socket. */
class Two {
  readonly began: number = clock.time;
  readonly ended: string[] = [];
  lastSeen: number = clock.time;
  readonly #processes: readonly WAA[];
  readonly #cookies: string[];

  constructor(processes: readonly WAA[], { cookie }: { readonly cookie: string }) {
    this.#processes = processes;
    this.#cookies = [cookie];
    const note = ({ code }: { readonly code: string }) => void this.ended.push(`${code} ${clock.time}`);
    for (const waa of processes) waa.watch(waa.openSession(cookie), note);
  }

  /** A request. @returns whether it has renewed the session. */
  ask(which: number, old: number): boolean {
    const cookie = this.#cookies.at(-1 - (old % this.#cookies.length)) as string;
    const renewed = this.#use(this.#processes[which] as WAA, cookie);
    if (renewed === undefined) return false;
    this.#cookies.push(renewed);
    this.lastSeen = clock.time;
    return true;
  }

  waitUntil(time: number): void {
    while (clock.time < time && this.ended.length < 2) pass(1);
  }

  #use(waa: WAA, cookie: string): string | undefined {
    try {
      return waa.renew(waa.openSession(cookie))?.cookie;
    } catch {
      return undefined;
    }
  }
}

describe('what is published', () => {
  it('is one entry, however many requests come with the cookie at that moment', async () => {
    const waa = await make();
    const { cookie } = await logIn(waa);
    for (let i = 0; i < 20; i++) use(waa, cookie);
    expect(store.renewals).toEqual([]);
    pass(300);
    for (let i = 0; i < 20; i++) use(waa, cookie);
    expect(store.renewals).toEqual([expect.objectContaining({ expires: new Date(began + 900_000) })]);
    pass(1);
    use(waa, cookie);
    expect(store.renewals).toHaveLength(2);
  });

  it('is nothing where sessions end at their settled end only', async () => {
    const waa = createWAA({ baseUrl: 'https://example.org', secret, wls: wls.profile, now: clock.now, store });
    made.push(waa);
    const { cookie } = await logIn(waa);
    pass(3000);
    use(waa, cookie);
    expect([store.renewals, store.hearing]).toEqual([[], []]);
  });

  it('moves nothing back, whatever arrives late', async () => {
    const [here, there] = [await make(), await make()];
    const { cookie } = await logIn(here);
    const opened = there.openSession(cookie);
    const told = watch(there, opened);
    pass(300);
    const next = use(here, cookie);
    pass(300);
    use(here, next);
    const [first, second] = store.renewals as [Entry, Entry];
    for (const { key, value, expires } of [first, second, first]) await store.put(key, value, expires);
    expect(told).toEqual([900, 1200]);
    expect(watch(there, opened)).toEqual([1200]);
    pass(599);
    expect(told).toEqual([900, 1200]);
    pass(1);
    expect(told).toEqual([900, 1200, 'ERR_SESSION_IDLE']);
  });

  it('helps nobody who can write to the store, be it copied from another session, sealed elsewhere or made up', async () => {
    const [waa, elsewhere] = [await make({ listSessions: true }), await make({ secret: 'b2'.repeat(32) })];
    const [mine, theirs, strange] = [await logIn(waa), await logIn(waa), await logIn(elsewhere)];
    const told = watch(waa, theirs.auth);
    pass(300);
    use(waa, theirs.cookie);
    const { key } = store.renewals[0] as Entry;
    pass(200);
    waa.note(mine.auth, 'a browser');
    use(waa, mine.cookie);
    use(elsewhere, strange.cookie);
    await waa.makeTicket(mine.cookie);
    expect(store.renewals).toHaveLength(3);
    const values = [...store.told.map(({ value }) => value), mine.cookie, '', '{}', JSON.stringify([key, clock.time])];
    for (const value of values) await store.put(key, value, new Date(clock.time + 3600_000));
    pass(399);
    expect(told).toEqual([900]);
    pass(1);
    expect(told).toEqual([900, 'ERR_SESSION_IDLE']);
    expect(complaints()).toEqual([]);
  });
});

describe('with a store that is away', () => {
  it('sockets of this process last all the same, the log hears of it, and others do when it is back', async () => {
    const [here, there] = [await make(), await make()];
    const { auth, cookie } = await logIn(here);
    const told = [watch(here, auth), watch(there, there.openSession(cookie))];
    const unhandled = vi.fn();
    process.on('unhandledRejection', unhandled);
    pass(300);
    store.away = true;
    use(here, cookie);
    await new Promise(setImmediate);
    expect(told).toEqual([[900], []]);
    expect(complaints()).toEqual(['the store failed: no route']);
    store.away = false;
    for (let i = 0; i < 2; i++) await Promise.all(store.hearing.map((one) => one.missed()));
    expect([told, store.renewals.length]).toEqual([[[900], [900]], 1]);
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('it is listened to as soon as it is there, once, and until close()', async () => {
    const list = vi.spyOn(store, 'list');
    list.mockImplementationOnce(async () => []).mockRejectedValueOnce(new Error('no route'));
    const waa = await make();
    expect(complaints()).toEqual(['the store cannot be reached: no route']);
    expect(store.hearing).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(1000);
    expect([...store.subscribers.values()].map((of) => of.length)).toEqual([1, 1]);
    await waa.close();
    expect([...store.subscribers.values()].map((of) => of.length)).toEqual([0, 0]);
  });

  it('nothing is listened for by what was closed while it started', async () => {
    const starting = createWAA({
      baseUrl: 'https://example.org',
      secret,
      wls: wls.profile,
      store,
      inactiveTimeout: 60,
    });
    await starting.close();
    await starting.ready;
    expect([...store.subscribers.values()].flat()).toEqual([]);
  });
});
