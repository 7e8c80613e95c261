import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { RedisStore, type RedisStoreOptions } from '../../src/session/redis.js';
import type { Entry, Store } from '../../src/session/store.js';
import { root, runNode } from '../processes.js';
import { type Mode, TcpProxy } from './proxy.js';
import { expectNothingUnhandled, findRedis, RedisServer } from './redis-server.js';
import { sharedStoreSuite, storeSuite } from './suite.js';

expectNothingUnhandled();

const opened: Store[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
});

const open = (url: string, options: Partial<RedisStoreOptions> = {}): RedisStore => {
  const store = new RedisStore({ url, ...options });
  opened.push(store);
  return store;
};

/** A store, and what it told the subscriber of the folder x. */
interface Told {
  readonly store: RedisStore;
  readonly heard: string[];
  /** How often something may have been missed. */
  readonly missed: () => number;
}

/** As a process uses it: whatever was missed, it puts again what it knows. */
async function openTold(url: string, known: readonly string[] = []): Promise<Told> {
  const store = open(url);
  const heard: string[] = [];
  let missed = 0;
  const subscriber = {
    changed: ({ key }: Entry) => void heard.push(key),
    missed: async () => {
      for (const key of known) await store.put(key, 'known', soon());
      missed += 1;
    },
  };
  await store.subscribe('x', subscriber);
  return { store, heard, missed: () => missed };
}

const soon = () => new Date(Date.now() + 60_000);
const keys = async (store: Store) => (await store.list('x')).map(({ key }) => key).sort();
const away = /^Error: Redis cannot be used just now: /;
const patiently = { timeout: 15_000, interval: 50 };

/** For how long a call went on, in milliseconds, and with which message it failed. */
async function failing(call: Promise<unknown>): Promise<{ readonly message: string; readonly took: number }> {
  const began = performance.now();
  const message = await call.then(
    (value) => `it gave ${value}`,
    (error: Error) => `${error.name}: ${error.message}`,
  );
  return { message, took: performance.now() - began };
}

describe('the options of a RedisStore', () => {
  it.each<[Record<string, unknown>, RegExp]>([
    [{}, /needs the option url/],
    [{ url: undefined }, /the option url is an address/],
    [{ url: 6379 }, /the option url is an address/],
    [{ url: 'http://localhost:6379' }, /the option url is an address/],
    [{ url: 'redis://' }, /the option url is an address/],
    [{ url: 'redis://:secret@localhost/people' }, /the option url is an address such as [^ ]*; here it is a text$/],
    [{ url: 'redis://:%zz@localhost' }, /the option url is an address/],
    [{ url: 'redis://localhost', prefix: 1 }, /the option prefix/],
    [{ url: 'redis://localhost', now: new Date() }, /the option now/],
    [{ url: 'redis://localhost', tls: true }, /no option tls/],
  ])('are not %j', (options, message) => {
    expect(() => new RedisStore(options as unknown as RedisStoreOptions)).toThrow(TypeError);
    expect(() => new RedisStore(options as unknown as RedisStoreOptions)).toThrow(message);
  });
});

describe.skipIf(!findRedis())('RedisStore', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await RedisServer.start();
  });
  const engine = {
    open: (now: () => Date) => new RedisStore({ url: redis.url, now }),
    empty: async () => void (await redis.ask('FLUSHALL')),
  };
  storeSuite('a RedisStore', engine);
  sharedStoreSuite('RedisStores', engine);

  it('goes on counting upwards after Redis has lost its data', async () => {
    const store = open(redis.url);
    const before = [await store.next(), await store.next()];
    await redis.ask('FLUSHALL');
    const after = [await open(redis.url).next(), await store.next()];
    const all = [...before, ...after];
    expect(all).toEqual([...new Set(all)].sort((a, b) => a - b));
  });

  it('is caught up with anew where somebody has emptied Redis, though another process has begun there since', async () => {
    for (const another of [false, true]) {
      const { store, missed } = await openTold(redis.url);
      const mark = await store.mark();
      const seen = missed();
      let [beacons, last] = [0, store.lag()];
      const heardBeacons = () => {
        const lag = store.lag();
        if (lag < last) beacons += 1;
        last = lag;
        return beacons;
      };
      // With which it looks at the mark.
      await expect.poll(heardBeacons, patiently).toBe(2);
      expect(missed()).toBe(seen);
      await redis.ask('FLUSHALL');
      const others = another ? await open(redis.url).mark() : undefined;
      await expect.poll(missed, patiently).toBe(seen + 1);
      expect(await store.mark(mark)).toBe(others ?? mark);
    }
  });

  it('keeps stores of different prefixes and databases apart', async () => {
    await redis.ask('FLUSHALL');
    const heard: string[] = [];
    const subscriber = { changed: ({ key }: Entry) => void heard.push(key), missed: async () => {} };
    const [one, ...others] = [open(redis.url), open(redis.url, { prefix: 'other:' }), open(`${redis.url}/3`)];
    for (const store of [one, ...others]) await store?.subscribe('x', subscriber);
    await one?.put('x:1', 'one', soon());
    await expect.poll(() => heard).toEqual(['x:1']);
    for (const other of others) expect([await other.get('x:1'), await keys(other)]).toEqual([undefined, []]);
    expect(new Set(await Promise.all([one, ...others].map((store) => store?.mark()))).size).toBe(3);
  });

  it('cleans up: Redis forgets on its own what has expired, and folders what is in none any more', async () => {
    await redis.ask('FLUSHALL');
    const store = open(redis.url);
    await store.put('x:1', 'one', soon());
    expect(Number(await redis.ask('PTTL', 'ucam-webauth:entry:x:1'))).toBeGreaterThan(100_000);
    expect(Number(await redis.ask('PTTL', 'ucam-webauth:entry:x:1'))).toBeLessThan(121_000);
    const lasts = Number(await redis.ask('PTTL', 'ucam-webauth:folder:x'));
    expect(lasts).toBeGreaterThan(100_000);
    await store.put('x:short', '', new Date());
    expect(Number(await redis.ask('PTTL', 'ucam-webauth:folder:x'))).toBeGreaterThan(100_000);
    await store.delete('x:short');
    await redis.ask('ZADD', 'ucam-webauth:folder:x', String(Date.now() - 1), 'x:gone');
    expect(await redis.ask('ZCARD', 'ucam-webauth:folder:x')).toBe(2);
    await store.put('x:2', 'two', soon());
    expect(await redis.ask('ZRANGE', 'ucam-webauth:folder:x', '0', '-1')).toEqual(['x:1', 'x:2']);
  });

  it('heeds nothing on its channels that is none of its own', async () => {
    const { store, heard, missed } = await openTold(redis.url);
    const channels = (await redis.ask('PUBSUB', 'CHANNELS', 'ucam-webauth:*')) as string[];
    expect(channels.map((name) => name.replace(/[\w-]{16}$/, '')).sort()).toEqual([
      'ucam-webauth:0:changes:x',
      'ucam-webauth:beacon:',
    ]);
    const time = Date.now();
    const junk = ['', '{', 'null', '7', '[]', '["x:1"]', '["x:1","",null]', '["x:1","","5"]', '["x:1","",1e300]'];
    for (const message of [...junk, '[1,"",5]', `["y:1","",${time}]`, `["x","",${time}]`, 'a'.repeat(1_000_000)]) {
      for (const channel of channels) await redis.ask('PUBLISH', channel, message);
    }
    await store.put('x:2', 'two', soon());
    await expect.poll(() => heard).toEqual(['x:2']);
    expect(missed()).toBe(1);
    expect(store.lag()).toBeLessThan(5_000);
  });

  it('logs in to Redis, with the url or with options', async () => {
    const guarded = await RedisServer.start(['requirepass "p@ss/word"', 'user raven on >other ~* &* +@all']);
    const { port, url } = guarded;
    expect(await open(url, { password: 'p@ss/word' }).mark()).toMatch(/^[\w-]{16}$/);
    expect(await open(url, { username: 'raven', password: 'other' }).mark()).toMatch(/^[\w-]{16}$/);
    expect(await open(`redis://raven:other@127.0.0.1:${port}`).mark()).toMatch(/^[\w-]{16}$/);
    expect((await failing(open(url).mark())).message).toMatch(/^TypeError: Redis cannot be used: NOAUTH/);
    const wrong = await failing(open(url, { password: 'not it' }).mark());
    expect(wrong.message).toMatch(/^TypeError: Redis cannot be used: WRONGPASS/);
    await guarded.remove();
  });

  describe('with an eviction policy that forgets', () => {
    it('is refused at the start, until the policy is set right', async () => {
      const evicting = await RedisServer.start(['maxmemory-policy allkeys-lru']);
      const store = open(evicting.url);
      const subscriber = { changed: () => {}, missed: async () => {} };
      const refusal = await failing(store.subscribe('x', subscriber));
      expect(refusal.message).toMatch(/^TypeError: .*policy is allkeys-lru.*CONFIG SET maxmemory-policy noeviction/);
      expect((await failing(store.mark())).message).toMatch(/^TypeError: .*noeviction/);
      expect(store.lag()).toBe(Infinity);
      await evicting.ask('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
      await store.subscribe('x', subscriber);
      expect(store.lag()).toBeLessThan(1_000);
      expect(await store.mark()).toBe(await store.mark());
      await evicting.remove();
    });

    it('is not used when it comes later, until the policy is set right', async () => {
      const server = await RedisServer.start();
      const { store, missed } = await openTold(server.url);
      await server.stop();
      await server.start(['maxmemory-policy volatile-lru']);
      await expect
        .poll(async () => (await failing(store.get('a'))).message, patiently)
        .toMatch(/policy is volatile-lru/);
      await expect.poll(() => store.lag(), patiently).toBeGreaterThan(1_200);
      expect(missed()).toBe(1);
      await server.ask('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
      await expect.poll(() => store.lag(), patiently).toBeLessThan(1_000);
      expect(missed()).toBe(2);
      await server.remove();
    });
  });

  describe('after Redis was killed and is there again', () => {
    /** Kills it, and waits until the store has noticed, and has it back. */
    const crash = async (server: RedisServer, { store, missed }: Told, config: readonly string[] = []) => {
      const before = missed();
      await server.stop('SIGKILL');
      await expect.poll(async () => (await failing(store.get('a'))).message, patiently).toMatch(away);
      await server.start(config);
      await expect.poll(() => missed(), patiently).toBeGreaterThan(before);
    };
    const aof = ['appendonly yes', 'appendfsync always'];

    it('takes the mark and the entries of a process that lives, where it has lost its own', async () => {
      const server = await RedisServer.start();
      const told = await openTold(server.url, ['x:known']);
      const mark = await told.store.mark();
      await told.store.put('x:lost', '', soon());
      await crash(server, told);
      expect(await told.store.mark(mark)).toBe(mark);
      // It is vouched for now, to those who know nothing too.
      const fresh = open(server.url);
      expect(await fresh.mark()).toBe(mark);
      expect(await keys(fresh)).toEqual(['x:known']);
      await fresh.put('x:new', '', soon());
      await expect.poll(() => told.heard).toContain('x:new');
      await server.remove();
    });

    it('has a new mark for all, where a process asks first that knows none', async () => {
      const server = await RedisServer.start();
      const told = await openTold(server.url);
      const mark = await told.store.mark();
      await crash(server, told);
      const another = await open(server.url).mark();
      expect(another).not.toBe(mark);
      expect(await told.store.mark(mark)).toBe(another);
      await server.remove();
    });

    it('has its own mark, where it wrote all to the disk before it said so', async () => {
      const server = await RedisServer.start(aof);
      const told = await openTold(server.url);
      const mark = await told.store.mark();
      await told.store.put('x:kept', '', soon());
      await crash(server, told, aof);
      const fresh = open(server.url);
      expect(await fresh.mark()).toBe(mark);
      expect(await keys(fresh)).toEqual(['x:kept']);
      // Also against one who knows another: this Redis forgets nothing.
      await crash(server, told, aof);
      expect(await open(server.url).mark('another')).toBe(mark);
      await server.remove();
    });

    it.each<[string, readonly string[], readonly string[]]>([
      ['has snapshots', ['save 3600 1000000'], ['save 3600 1000000']],
      ['writes each second', ['appendonly yes', 'appendfsync everysec'], aof],
      ['spares the disk while it rewrites', [...aof, 'no-appendfsync-on-rewrite yes'], aof],
      ['wrote at once before, and does no longer', aof, ['appendonly yes', 'appendfsync everysec']],
      ['did not let us ask', [...aof, 'user default on nopass ~* &* +@all -config'], aof],
    ])('keeps the mark only for one who knows it, where it %s', async (_, before, after) => {
      for (const vouch of [true, false]) {
        const server = await RedisServer.start(before);
        const told = await openTold(server.url);
        const mark = await told.store.mark();
        await told.store.put('x:kept', '', soon());
        await server.ask('SAVE');
        await crash(server, told, after);
        const fresh = open(server.url);
        expect(await keys(fresh)).toEqual(['x:kept']);
        if (vouch) expect(await told.store.mark(mark)).toBe(mark);
        expect((await fresh.mark()) === mark).toBe(vouch);
        expect(await told.store.mark(mark)).toBe(await fresh.mark());
        await server.remove();
      }
    });

    it('is not taken for the one before, if it was a copy that may have missed something', async () => {
      const [server, copy] = [await RedisServer.start(aof), await RedisServer.start(aof)];
      const mark = await open(server.url).mark();
      await copy.ask('REPLICAOF', '127.0.0.1', String(server.port));
      await expect.poll(() => copy.ask('HGET', 'ucam-webauth:mark', 'mark'), patiently).toBe(mark);
      expect((await failing(open(copy.url).mark())).message).toMatch(/just now: it is a replica/);
      await server.remove();
      await copy.ask('REPLICAOF', 'NO', 'ONE');
      expect(await open(copy.url).mark()).not.toBe(mark);
      await copy.remove();
    });

    it('has one mark, where all ask at the same time, whatever they know', async () => {
      await redis.ask('FLUSHALL');
      const stores = Array.from({ length: 9 }, () => open(redis.url));
      const known = (i: number) => [undefined, 'A'.repeat(16), 'B'.repeat(16)][i % 3];
      expect(new Set(await Promise.all(stores.map((store, i) => store.mark(known(i))))).size).toBe(1);
    });
  });

  it('is left when it was made a replica, and used again when it is one no more', async () => {
    const server = await RedisServer.start();
    const { store, heard, missed } = await openTold(server.url);
    await server.ask('REPLICAOF', '127.0.0.1', '1');
    expect((await failing(store.put('x:1', '', soon()))).message).toMatch(/READONLY/);
    await expect.poll(async () => (await failing(store.get('a'))).message, patiently).toMatch(/it is a replica/);
    await server.ask('REPLICAOF', 'NO', 'ONE');
    await expect.poll(() => missed(), patiently).toBe(2);
    await store.put('x:2', '', soon());
    await expect.poll(() => heard).toEqual(['x:2']);
    await server.remove();
  });

  it('asks a subscriber again who could not learn what was missed', async () => {
    const store = open(redis.url);
    let asked = 0;
    const missed = async () => {
      asked += 1;
      expect(store.lag()).toBe(Infinity);
      if (asked < 3) throw new Error('not yet');
    };
    await store.subscribe('x', { changed: () => {}, missed });
    expect(asked).toBe(3);
    await expect.poll(() => store.lag(), patiently).toBeLessThan(1_000);
  });

  describe('behind a network that', () => {
    const broken: [string, Mode][] = [
      ['takes 10 s for everything', { delay: 10_000 }],
      ['accepts connections and never answers', 'silent'],
      ['refuses connections', 'refuse'],
    ];

    it.each(broken)('%s at the start: is waited for, refuses questions, and can be closed', async (_, mode) => {
      const proxy = await TcpProxy.to(redis.port, mode);
      const store = open(proxy.url);
      let begun = 'not yet';
      const first = store.subscribe('x', { changed: () => {}, missed: async () => {} });
      const noted = first.then(() => {
        begun = 'yes';
      });
      const answers = await Promise.all([failing(store.mark()), failing(store.spend('a', soon()))]);
      for (const { message, took } of answers) {
        expect(message).toMatch(away);
        expect(took).toBeLessThan(2_500);
      }
      expect([begun, store.lag()]).toEqual(['not yet', Infinity]);
      await proxy.set('pass');
      await noted;
      expect(store.lag()).toBeLessThan(1_000);

      await proxy.set(mode);
      const other = open(proxy.url);
      const second = failing(other.subscribe('x', { changed: () => {}, missed: async () => {} }));
      const ended = await failing(other.close());
      expect(ended.took).toBeLessThan(500);
      expect((await second).message).toMatch(/the store is closed/);
      expect((await failing(other.get('a'))).message).toMatch(/the store is closed/);
    });

    it.each(broken)(
      '%s later: leaves nothing open or queued, says how old its news is, and recovers',
      async (_, mode) => {
        await redis.ask('FLUSHALL');
        const proxy = await TcpProxy.to(redis.port);
        const { store, heard, missed } = await openTold(proxy.url);
        const others = await Promise.all(Array.from({ length: 8 }, () => openTold(proxy.url)));
        await proxy.set(mode);
        if (mode === 'refuse') proxy.cut();
        const calls = Array.from({ length: 10_000 }, (_, i) => failing(store.put(`x:${i}`, '', soon())));
        const answers = await Promise.all(calls);
        expect(answers.filter(({ message }) => !/^Error: /.test(message))).toEqual([]);
        expect(Math.max(...answers.map(({ took }) => took))).toBeLessThan(3_000);
        const more = await Promise.all(Array.from({ length: 10_000 }, () => failing(store.get('a'))));
        expect(Math.max(...more.map(({ took }) => took))).toBeLessThan(1_000);
        await expect.poll(() => store.lag(), patiently).toBeGreaterThan(1_500);
        const closed = await Promise.all(others.map((other) => failing(other.store.close())));
        expect(Math.max(...closed.map(({ took }) => took))).toBeLessThan(250);

        proxy.cut();
        await proxy.set('pass');
        await expect.poll(() => store.lag(), patiently).toBeLessThan(1_000);
        expect(missed()).toBe(2);
        // What was refused is not made up for later.
        await store.put('x:late', '', soon());
        await expect.poll(() => heard).toEqual(['x:late']);
        expect(await keys(store)).toEqual(['x:late']);
      },
    );

    it('holds back what is told, and nothing else: is noticed, and listened to anew', async () => {
      const proxy = await TcpProxy.to(redis.port);
      const { store, heard, missed } = await openTold(proxy.url);
      await proxy.set('deaf');
      const began = performance.now();
      // All that is asked is answered.
      await store.put('x:unheard', '', soon());
      await expect.poll(() => store.lag(), patiently).toBeGreaterThan(2_500);
      expect(await store.get('x:unheard')).toBe('');
      await expect.poll(() => store.lag(), patiently).toBeGreaterThan(5_000);
      expect(performance.now() - began).toBeLessThan(6_500);
      // It tries anew now and then, and answers for the moment in which it does not know yet that it hears nothing.
      await expect.poll(async () => (await failing(store.get('x:unheard'))).message, patiently).toMatch(away);
      await proxy.set('pass');
      await expect.poll(() => store.lag(), patiently).toBeLessThan(1_000);
      expect(missed()).toBe(2);
      await store.put('x:heard', '', soon());
      await expect.poll(() => heard.at(-1)).toBe('x:heard');
    });

    it('is cut again and again: leaves nobody out of date who does not say so', async () => {
      const proxy = await TcpProxy.to(redis.port);
      const [store, writer] = [open(proxy.url), open(redis.url)];
      const known = new Set<string>();
      const missed = async () => {
        for (const key of await keys(store)) known.add(key);
      };
      await store.subscribe('x', { changed: ({ key }) => known.add(key), missed });
      for (let times = 0; times < 6; times++) {
        if (times % 2 === 0) proxy.cut();
        await writer.put(`x:${times}`, '', soon());
        const put = performance.now();
        await expect.poll(() => store.lag() < performance.now() - put, patiently).toBe(true);
        expect(known).toContain(`x:${times}`);
      }
    });

    it('is cut while it is asked: settles what it was asked', async () => {
      const proxy = await TcpProxy.to(redis.port);
      const { store } = await openTold(proxy.url);
      await proxy.set({ delay: 300 });
      const calls = Array.from({ length: 100 }, () => failing(store.next()));
      await expect.poll(() => proxy.delayed).toBeGreaterThan(0);
      proxy.cut();
      for (const { message, took } of await Promise.all(calls)) {
        expect(message).toMatch(away);
        expect(took).toBeLessThan(1_000);
      }
    });
  });

  it('ends a connection that comes after it was closed', async () => {
    const proxy = await TcpProxy.to(redis.port);
    const store = open(proxy.url);
    const begun = failing(store.subscribe('x', { changed: () => {}, missed: async () => {} }));
    await store.close();
    expect((await begun).message).toMatch(/the store is closed/);
    await expect.poll(() => proxy.accepted, patiently).toBe(2);
    await expect.poll(() => proxy.open, patiently).toBe(0);
  });

  it('lets the process end once it is closed, also while it connects', async () => {
    const proxy = await TcpProxy.to(redis.port, 'silent');
    const program = `
      const { RedisStore } = await import(${JSON.stringify(`${root}/src/session/redis.ts`)});
      const subscriber = { changed: () => {}, missed: async () => {} };
      const [used, lost] = process.argv.slice(1).map((url) => new RedisStore({ url }));
      await used.subscribe('x', subscriber);
      const pending = lost.subscribe('x', subscriber).catch(() => 'refused');
      const asked = lost.get('a').catch(() => 'refused');
      await new Promise((later) => setTimeout(later, 100));
      await Promise.all([used.close(), lost.close()]);
      const closed = performance.now();
      process.on('exit', () => console.log(JSON.stringify({ took: performance.now() - closed, refused })));
      const refused = await Promise.all([pending, asked]);`;
    const args = ['--import', 'tsx', '--input-type=module', '-e', program, redis.url, proxy.url];
    const { status, stdout, stderr } = await runNode(args);
    expect([status, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({ refused: ['refused', 'refused'] });
    expect(JSON.parse(stdout).took).toBeLessThan(500);
  });
});
