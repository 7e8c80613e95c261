import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LmdbStore } from '../../src/session/lmdb.js';
import { RedisStore } from '../../src/session/redis.js';
import type { Store } from '../../src/session/store.js';
import { type Result, type RunOptions, root, runNode } from '../processes.js';
import { findRedis, RedisServer } from './redis-server.js';

const home = mkdtempSync(join(tmpdir(), 'store-copies-'));
afterAll(() => rmSync(home, { recursive: true }));

let path: string;
let count = 0;
beforeEach(() => {
  path = join(home, String(++count));
});

const opened: Store[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
});
const openLmdb = () => keep(new LmdbStore({ path }));
const openRedis = (url: string, prefix?: string) =>
  keep(new RedisStore({ url, ...(prefix !== undefined && { prefix }) }));
function keep<S extends Store>(store: S): S {
  opened.push(store);
  return store;
}

const soon = () => new Date(Date.now() + 600_000);
const patiently = { timeout: 15_000, interval: 50 };
const data = () => join(path, 'data.mdb');

/** Opens an LMDB store for one piece of work, as a process that starts and ends. */
async function once<T>(work: (store: LmdbStore) => Promise<T>): Promise<T> {
  const store = new LmdbStore({ path });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}
const generation = () => once((store) => store.mark());
const revoke = () => once((store) => store.put('ended:a', '', soon()));

/** Runs an application's part of a store: it learns the generation whenever changes may have been missed. */
async function follow(store: Store): Promise<string[]> {
  const generations: string[] = [];
  const missed = async () => void generations.push(await store.mark(generations.at(-1)));
  await store.subscribe('ended', { changed: () => {}, missed });
  return generations;
}

describe('LmdbStore opened on a copy', () => {
  it('keeps its generation over restarts, also after a process was killed', async () => {
    const before = await generation();
    const program = fileURLToPath(new URL('lmdb-process.ts', import.meta.url));
    const { stdout } = await runNode(['--import', 'tsx', program, path, 'survive', 'ended:a']);
    expect(stdout).toBe('answered');
    await revoke();
    expect(await generation()).toBe(before);
  });

  it('starts a new generation when a backup was copied over the data file, which keeps its inode', async () => {
    const before = await generation();
    cpSync(data(), join(home, 'backup'));
    await revoke();
    const { ino } = statSync(data());
    writeFileSync(data(), readFileSync(join(home, 'backup')));
    expect(statSync(data()).ino).toBe(ino);
    const after = await generation();
    expect(after).not.toBe(before);
    expect(await generation()).toBe(after);
  });

  it('starts a new generation when all files of the folder were copied over, which keeps all inodes', async () => {
    const before = await generation();
    cpSync(path, `${path}-backup`, { recursive: true });
    await revoke();
    for (const name of readdirSync(`${path}-backup`)) {
      writeFileSync(join(path, name), readFileSync(join(`${path}-backup`, name)));
    }
    expect(await generation()).not.toBe(before);
    expect(readdirSync(path).filter((name) => name.startsWith('changes-'))).toHaveLength(1);
  });

  it('starts a new generation when only the data file was put back', async () => {
    const before = await generation();
    for (const name of readdirSync(path)) if (name !== 'data.mdb') unlinkSync(join(path, name));
    expect(await generation()).not.toBe(before);
  });

  it('starts a new generation when the data file was replaced by one with the same inode, and so another birth', async () => {
    const before = await generation();
    await revoke();
    const { birthtimeMs, ctimeMs } = statSync(data());
    // Some file systems know no birth.
    if (birthtimeMs === ctimeMs || birthtimeMs === 0) return;
    // The inode is used again by many file systems; where it is not, the inode alone tells.
    const content = readFileSync(data());
    unlinkSync(data());
    writeFileSync(data(), content, { mode: 0o600 });
    expect(await generation()).not.toBe(before);
  });

  it('keeps the generation of files that earlier versions made', async () => {
    const before = await generation();
    const { open } = await import('lmdb');
    const files = open({ path, overlappingSync: false });
    files.putSync('inode', statSync(data()).ino);
    await files.close();
    for (const name of readdirSync(path)) if (name.startsWith('changes-')) unlinkSync(join(path, name));
    expect(await generation()).toBe(before);
    expect(await generation()).toBe(before);
  });

  it('starts a new generation in a running process when its counter of changes goes back', async () => {
    const store = openLmdb();
    const generations = await follow(store);
    await store.put('ended:a', '', soon());
    const { open } = await import('lmdb');
    const files = open({ path, overlappingSync: false });
    files.putSync('changes', 0);
    await files.close();
    await expect.poll(() => generations.length).toBe(2);
    expect(generations[1]).not.toBe(generations[0]);
    await expect.poll(() => store.lag()).toBe(0);
  });
});

describe.skipIf(!findRedis())('RedisStore on a replica', () => {
  const aof = ['appendonly yes', 'appendfsync always'];
  const markField = (server: RedisServer, field: string) => server.ask('HGET', 'ucam-webauth:mark', field);

  it('starts a new generation when a replica that missed a logout is restarted as a primary', async () => {
    const [primary, replica] = [await RedisServer.start(aof), await RedisServer.start(aof)];
    const store = openRedis(primary.url);
    const [before] = await follow(store);
    await replica.ask('REPLICAOF', '127.0.0.1', String(primary.port));
    await expect.poll(() => markField(replica, 'durable'), patiently).toBe('0');
    await replica.stop();
    await store.put('ended:a', '', soon());
    await store.close();
    await primary.remove();
    await replica.start(aof);
    const promoted = openRedis(replica.url);
    expect(await promoted.get('ended:a')).toBeUndefined();
    expect(await promoted.mark()).not.toBe(before);
    await promoted.close();
    await replica.remove();
  });

  it('takes the generation of a running process, which knows the logout, when a replica is restarted as a primary', async () => {
    const [primary, replica] = [await RedisServer.start(aof), await RedisServer.start(aof)];
    await replica.ask('REPLICAOF', '127.0.0.1', String(primary.port));
    await expect.poll(() => replica.ask('ROLE').then((role) => (role as string[])[3]), patiently).toBe('connected');
    const store = openRedis(primary.url);
    const before = await store.mark();
    await expect.poll(() => markField(replica, 'durable'), patiently).toBe('0');
    await store.close();
    await primary.remove();
    await replica.stop();
    await replica.start(aof);
    expect(await openRedis(replica.url).mark(before)).toBe(before);
    await opened.pop()?.close();
    await replica.remove();
  });
});

const main = join(root, 'dist/cli/main.js');
const invalidate = (args: readonly string[], options: RunOptions = {}): Promise<Result> =>
  runNode([main, 'store', 'invalidate', ...args], {
    ...options,
    env: { UCAM_WEBAUTH_STORE: undefined, ...options.env },
  });

/** Expects one sentence on standard error, and nothing on standard output. */
function expectFailure({ status, stdout, stderr }: Result, expected: number, sentence: RegExp): void {
  expect(stderr).toMatch(sentence);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect([status, stdout]).toEqual([expected, '']);
}

describe('ucam-webauth store invalidate', () => {
  it('starts a new generation of an LMDB folder, keeps its entries, and reports it, when no application runs', async () => {
    const before = await generation();
    await revoke();
    const result = await invalidate([path]);
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(result.stdout).toContain(`Started a new generation of the store in ${path}.\n`);
    const after = await generation();
    expect(after).not.toBe(before);
    expect(await generation()).toBe(after);
    expect(await once((store) => store.get('ended:a'))).toBe('');
  });

  it('starts a new generation of an LMDB folder that an application has open, which notices', async () => {
    const store = openLmdb();
    const generations = await follow(store);
    expect((await invalidate([], { env: { UCAM_WEBAUTH_STORE: path } })).status).toBe(0);
    await expect.poll(() => generations.length, patiently).toBe(2);
    expect(generations[1]).not.toBe(generations[0]);
    await expect.poll(() => store.lag()).toBe(0);
  });

  it('fails, and makes nothing, when the folder holds no store', async () => {
    expectFailure(await invalidate([path]), 1, /is no folder of a store: it has no file data\.mdb/);
    expect(existsSync(path)).toBe(false);
    mkdirSync(path, { mode: 0o700 });
    writeFileSync(data(), 'not a store '.repeat(100));
    expectFailure(await invalidate([path]), 1, /was not made by it/);
  });

  it.each<[string[], RegExp]>([
    [[], /give a folder or a Redis URL, or set the environment variable UCAM_WEBAUTH_STORE/],
    [['/srv/a', '/srv/b'], /store takes two things/],
    [['/srv/a', '--prefix', 'x'], /--prefix is for Redis only/],
    [['http://:sesame@127.0.0.1'], /the store is neither a folder nor a redis: URL/],
  ])('rejects the arguments %j as wrong usage', async (args, sentence) => {
    const result = await invalidate(args);
    expectFailure(result, 64, sentence);
    expect(result.stderr).not.toContain('sesame');
    expectFailure(await runNode([main, 'store']), 64, /store takes a step/);
  });

  describe.skipIf(!findRedis())('on Redis', () => {
    it('starts a new generation, and prints no password, when no application runs', async () => {
      const server = await RedisServer.start([
        'user someone on >sesame ~* &* +@all',
        'user default on nopass ~* &* +@all',
      ]);
      const url = server.url.replace('//', '//someone:sesame@');
      const before = await openRedis(url).mark();
      await openRedis(url).put('ended:a', '', soon());
      await Promise.all(opened.splice(0).map((store) => store.close()));
      const result = await invalidate([], { env: { UCAM_WEBAUTH_STORE: url } });
      expect(result).toMatchObject({ status: 0, stderr: '' });
      expect(result.stdout).toContain(`the store in Redis at 127.0.0.1:${server.port}.`);
      expect(result.stdout).not.toContain('sesame');
      const store = openRedis(url);
      // A process that knew the generation before does not bring it back.
      expect(await store.mark(before)).not.toBe(before);
      expect(await store.get('ended:a')).toBe('');
      const wrong = await invalidate([url.replace('sesame', 'open-sesame')]);
      expectFailure(wrong, 1, /Redis cannot be used: WRONGPASS/);
      expect(wrong.stderr).not.toContain('sesame');
      await store.close();
      await server.remove();
    });

    it('starts a new generation of one prefix, which a running application notices, and not of another', async () => {
      const server = await RedisServer.start();
      const [ours, other] = [openRedis(server.url, 'ours:'), openRedis(server.url)];
      const [generations, others] = [await follow(ours), await follow(other)];
      expect((await invalidate([server.url, '--prefix', 'ours:'])).status).toBe(0);
      await expect.poll(() => generations.length, patiently).toBe(2);
      expect(generations[1]).not.toBe(generations[0]);
      expect(others).toHaveLength(1);
      expectFailure(await invalidate([server.url, '--prefix', 'none:']), 1, /has no store with the prefix "none:"/);
      await Promise.all([ours.close(), other.close()]);
      await server.remove();
    });

    it('fails when Redis cannot be reached', async () => {
      const server = await RedisServer.start();
      await server.remove();
      expectFailure(await invalidate([server.url]), 1, /Redis cannot be used just now: connect ECONNREFUSED/);
    });
  });
});

/** An account that is neither root nor the owner of anything here. */
const stranger = 65534;
const isRoot = process.getuid?.() === 0;

describe.runIf(isRoot)('LmdbStore as root', () => {
  const victim = () => join(home, 'victim');
  beforeEach(() => {
    chmodSync(home, 0o755);
    writeFileSync(victim(), 'precious');
  });
  const message = () => {
    try {
      openLmdb();
      return 'it opened';
    } catch (error) {
      return (error as Error).message;
    }
  };

  it.each(['lock.mdb', 'data.mdb', 'changes-7'])(
    'rejects a planted link at %s, and leaves its target alone',
    (name) => {
      mkdirSync(path, { mode: 0o700 });
      symlinkSync(victim(), join(path, name));
      expect(message()).toContain(
        `${join(path, name)} is not safe to use, since it is a symbolic link: remove it with rm`,
      );
      expect(readFileSync(victim(), 'utf8')).toBe('precious');
    },
  );

  it('advises store invalidate to run as the user that the folder belongs to', async () => {
    await new LmdbStore({ path }).close();
    chownSync(path, stranger, stranger);
    const result = await runNode([main, 'store', 'invalidate', path]);
    expectFailure(result, 1, /belongs to another user \(65534\)\. Run this command as that user/);
  });

  it('rejects a folder, a parent, a link or a file of another user, and a folder that others can write to', () => {
    mkdirSync(path, { mode: 0o700 });
    const own = path;
    chownSync(own, stranger, stranger);
    expect(message()).toContain(
      `${own} is not safe to use, since it belongs to another user (65534): run chown -h 0 ${own}`,
    );
    path = join(own, 'below');
    expect(message()).toContain(`${own} is not safe to use`);
    expect(existsSync(path)).toBe(false);
    chownSync(own, 0, 0);
    const link = `${own}-link`;
    mkdirSync(path, { mode: 0o700 });
    symlinkSync(path, link);
    path = link;
    expect(message()).toBe('it opened');
    lchownSync(link, stranger, stranger);
    expect(message()).toContain(`${link} is not safe to use, since it belongs to another user`);
    path = own;
    for (const mode of [0o770, 0o777, 0o1777]) {
      chmodSync(own, mode);
      expect(message()).toContain(`run chmod go-w ${own}`);
    }
    chmodSync(own, 0o700);
    writeFileSync(join(own, 'lock.mdb'), '');
    chownSync(join(own, 'lock.mdb'), stranger, stranger);
    expect(message()).toContain(`lock.mdb is not safe to use, since it belongs to another user`);
  });

  it('opens a folder below one that all can write to and that is sticky, as /tmp is, and rejects it otherwise', () => {
    mkdirSync(path);
    const parent = path;
    path = join(parent, 'store');
    chmodSync(parent, 0o1777);
    expect(message()).toBe('it opened');
    chmodSync(parent, 0o777);
    expect(message()).toContain(`run chmod go-w ${parent}`);
  });

  it('opens its own folder, below folders of root, as another user', async () => {
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, stranger, stranger);
    const source = JSON.stringify(join(root, 'dist/session/lmdb.js'));
    const script = `process.setgroups([]); process.setgid(${stranger}); process.setuid(${stranger});
      const { LmdbStore } = await import(${source});
      const open = async (path) => { const store = new LmdbStore({ path }); await store.mark(); await store.close(); };
      await open(${JSON.stringify(path)});
      console.log('opened');
      await open(${JSON.stringify(home)}).catch(({ message }) => console.log(message));`;
    const { stdout, stderr } = await runNode(['--input-type=module', '--eval', script]);
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^opened\n.*cannot be opened: EACCES|^opened\n/);
    expect(statSync(data()).uid).toBe(stranger);
  });

  it('makes no secret file in a folder that a link of another user leads to', async () => {
    const target = `${path}-target`;
    mkdirSync(target, { mode: 0o700 });
    mkdirSync(`${target}/of-stranger`);
    chownSync(`${target}/of-stranger`, stranger, stranger);
    symlinkSync(`${target}/of-stranger`, path);
    const { cookieSecret } = await import('../../src/session/secret.js');
    expect(() => cookieSecret({ file: join(path, 'secret') })).toThrow(
      /cannot be made safely: other users can change .*of-stranger/,
    );
    const result = await runNode([main, 'secret', join(path, 'secret')]);
    expectFailure(result, 1, /of-stranger can be changed by others than root/);
    expect(readdirSync(`${target}/of-stranger`)).toEqual([]);
    symlinkSync(target, `${path}-other`);
    lchownSync(`${path}-other`, stranger, stranger);
    expectFailure(
      await runNode([main, 'secret', join(`${path}-other`, 'secret')]),
      1,
      /-other can be changed by others/,
    );
    expect(readdirSync(target)).toEqual(['of-stranger']);
  });
});
