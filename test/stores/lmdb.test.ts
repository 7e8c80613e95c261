import { spawnSync } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open as openFiles } from 'lmdb';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { LmdbStore } from '../../src/session/lmdb.js';
import type { Entry } from '../../src/session/store.js';
import { Program, run, runNode } from '../processes.js';
import { type Engine, sharedStoreSuite, storeSuite } from './suite.js';

const home = await mkdtemp(join(tmpdir(), 'lmdb-store-'));
afterAll(() => rm(home, { recursive: true }));
let folders = 0;
const newFolder = () => join(home, String(++folders));

let path = newFolder();
const engine: Engine = {
  open: (now) => new LmdbStore({ path, now }),
  empty: async () => {
    path = newFolder();
  },
};
storeSuite('LmdbStore', engine);
sharedStoreSuite('LmdbStore', engine);

const opened: LmdbStore[] = [];
const open = (options: Partial<ConstructorParameters<typeof LmdbStore>[0]> = {}) => {
  const store = new LmdbStore({ path, ...options });
  opened.push(store);
  return store;
};
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
  path = newFolder();
});

const later = (seconds: number) => new Date(Date.now() + seconds * 1000);
const program = fileURLToPath(new URL('lmdb-process.ts', import.meta.url));
const child = (what: string, word = '') => ['--import', 'tsx', program, path, what, word];

describe('LmdbStore among processes', () => {
  it('lets a key be spent, and an entry be taken, by one of 200 in four processes', async () => {
    const store = open();
    await store.put('x:a', 'one', later(60));
    const racers = Array.from({ length: 4 }, () => new Program(child('race')));
    await Promise.all(racers.map((racer) => racer.printed(/ready/)));
    await store.put('go', '', later(60));
    const wins = await Promise.all(racers.map((racer) => racer.printed(/spent (\d+), took (\d+)/)));
    expect(wins.reduce((sum, [, spent]) => sum + Number(spent), 0)).toBe(1);
    expect(wins.reduce((sum, [, , taken]) => sum + Number(taken), 0)).toBe(1);
  });

  it('keeps what was answered, also when the process is killed right after', async () => {
    const names = Array.from({ length: 16 }, (_, i) => `x:${i}`);
    for (let at = 0; at < names.length; at += 4) {
      const ends = await Promise.all(names.slice(at, at + 4).map((name) => runNode(child('survive', name))));
      expect(ends).toEqual(ends.map(() => ({ status: null, stdout: 'answered', stderr: '' })));
    }
    expect((await open().list('x')).map(({ key }) => key).sort()).toEqual([...names].sort());
  });

  it('tells the subscribers of another process soon, though nobody asks there', async () => {
    const listener = new Program(child('hear'));
    await listener.printed(/listening/);
    await open().put('x:a', String(Date.now()), later(60));
    const [said, after] = await listener.printed(/heard after (\d+) ms/);
    console.info(said);
    expect(Number(after)).toBeLessThan(1_000);
  });

  it('tells at once when asked for its lag', async () => {
    const store = open();
    const heard: Entry[] = [];
    await store.subscribe('x', { changed: (entry) => heard.push(entry), missed: async () => {} });
    // Holds up this process, and so its timers.
    expect(spawnSync(process.execPath, child('put', 'x:a')).status).toBe(0);
    expect(heard).toEqual([]);
    expect(store.lag()).toBe(0);
    expect(heard.map(({ key }) => key)).toEqual(['x:a']);
    store.lag();
    expect(heard).toHaveLength(1);
  });

  it('goes on when a process was killed within a write', async () => {
    expect((await runNode(child('dieWriting'))).status).toBeNull();
    const store = open();
    const other = new LmdbStore({ path });
    await store.put('x:a', 'one', later(60));
    const dying = runNode(child('dieWriting'));
    expect((await dying).status).toBeNull();
    await store.put('x:b', 'two', later(60));
    expect((await other.list('x')).map(({ key }) => key)).toEqual(['x:a', 'x:b']);
    await other.close();
  });

  it('uses its space again when a process was killed within a read', async () => {
    let time = Date.now();
    const store = open({ now: () => new Date(time) });
    const overwrite = async () => {
      for (let i = 0; i < 100; i++) await store.put('x:a', 'x'.repeat(20_000), later(1e6));
      return (await stat(join(path, 'data.mdb'))).size;
    };
    await overwrite();
    expect((await runNode(child('dieReading'))).status).toBeNull();
    await overwrite();
    time += 61_000;
    const before = await overwrite();
    expect(await overwrite()).toBe(before);
  });
});

describe('LmdbStore and its files', () => {
  it('keeps its mark and counter, and never gives a number twice, over restarts', async () => {
    const first = open();
    const [mark, number] = [await first.mark(), await first.next()];
    await first.close();
    const { status } = await runNode(child('put', 'x:a'));
    expect(status).toBe(0);
    const second = open();
    expect(await second.mark()).toBe(mark);
    expect(await second.next()).toBeGreaterThan(number);
    expect(await second.get('x:a')).toMatch(/^\d+$/);
  });

  it('are another store where they were restored from a copy, and a process whose files were replaced notices', async () => {
    const store = open();
    const [mark, number] = [await store.mark(), await store.next()];
    await store.subscribe('x', { changed: () => {}, missed: async () => {} });
    await store.put('x:a', 'one', later(60));
    await cp(path, `${path}-copy`, { recursive: true });
    const copy = open({ path: `${path}-copy` });
    expect(await copy.mark()).not.toBe(mark);
    expect(await copy.get('x:a')).toBe('one');
    expect(await copy.next()).toBeGreaterThan(number);
    expect(store.lag()).toBe(0);
    await rename(path, `${path}-away`);
    await cp(`${path}-away`, path, { recursive: true });
    await expect.poll(() => store.lag()).toBe(Number.POSITIVE_INFINITY);
    expect(await open().mark()).not.toBe(mark);
  });

  it('are for nobody else to read', async () => {
    const mask = process.umask(0o022);
    try {
      open();
      expect((await stat(path)).mode & 0o777).toBe(0o700);
      const files = await readdir(path);
      expect(files.sort()).toEqual(['changes-1', 'data.mdb', 'lock.mdb']);
      for (const file of files) expect((await stat(join(path, file))).mode & 0o777).toBe(0o600);
    } finally {
      process.umask(mask);
    }
  });

  it('are for nobody else to read, also where others may list the folder, or could read them before', async () => {
    await open().close();
    await chmod(path, 0o755);
    for (const file of await readdir(path)) await chmod(join(path, file), 0o644);
    open();
    for (const file of await readdir(path)) expect((await stat(join(path, file))).mode & 0o777).toBe(0o600);
    expect((await stat(path)).mode & 0o777).toBe(0o755);
  });

  it('may be in a folder whose name looks like that of a file', async () => {
    path = `${path}/made/for-us.d`;
    open();
    expect((await readdir(path)).sort()).toEqual(['changes-1', 'data.mdb', 'lock.mdb']);
  });

  it('says clearly when it cannot be opened', async () => {
    await mkdir(path);
    await writeFile(join(path, 'data.mdb'), 'not a store '.repeat(1000));
    expect(() => open()).toThrow(`the store in ${path} cannot be opened: ${join(path, 'data.mdb')} was not made by it`);
    await writeFile(join(path, 'file'), '');
    expect(() => open({ path: join(path, 'file') })).toThrow('cannot be opened: EEXIST');
  });

  const onSmallDisk = [
    'unshare',
    '-rm',
    'sh',
    '-c',
    'mkdir -p "$0" && mount -t tmpfs -o size=2m,mode=700 tmpfs "$0" && exec "$@"',
  ];
  const able = spawnSync('env', [...onSmallDisk, newFolder(), 'true']).status === 0;
  it.skipIf(!able)('says clearly when the disk is full, and goes on when it no longer is', async () => {
    const result = await run('env', [...onSmallDisk, path, process.execPath, ...child('fill')]);
    const failed = `the store in ${path} failed: No space left on device: `;
    expect(result.stdout.split('\n')).toEqual([
      expect.stringContaining(`put: ${failed}`),
      expect.stringContaining(`spend: ${failed}`),
      'get: kept undefined 1',
      `open: the store in ${join(path, 'another')} cannot be opened: ENOSPC: no space left on device, write`,
      'then: 300000 true',
      '',
    ]);
    expect(result.status).toBe(0);
  });

  it('keep nothing that has expired: 100,000 spent keys and entries leave no trace', async () => {
    let time = Date.parse('2026-03-01T12:00:00Z');
    const store = open({ now: () => new Date(time) });
    for (let i = 0; i < 100_000; i += 500) {
      time += 60_000;
      const expires = new Date(time + 60_000);
      const some = Array.from({ length: 500 }, (_, j) => i + j);
      await Promise.all(some.flatMap((n) => [store.spend(`${n}`, expires), store.put(`x${n % 7}:${n}`, '', expires)]));
    }
    const { size } = await stat(join(path, 'data.mdb'));
    expect(size).toBeLessThan(4e6);
    time += 120_000;
    await Promise.all(Array.from({ length: 250 }, () => store.next()));
    const files = openFiles({ path, overlappingSync: false });
    expect(Array.from(files.getKeys())).toEqual(['changes', 'count', 'inode', 'mark']);
    await files.close();
  });
});

describe('LmdbStore', () => {
  it('refuses wrong options at once', () => {
    const make = (options: unknown) => () => new LmdbStore(options as { path: string });
    expect(make({})).toThrow(new TypeError('path is missing: give a folder on a local disk for the files'));
    expect(make({ path: undefined })).toThrow(
      new TypeError('the option path is the path of a folder; here it is undefined'),
    );
    expect(make({ path: '' })).toThrow(
      new TypeError('the option path is the path of a folder; here it is an empty text'),
    );
    expect(make({ path, now: 1 })).toThrow(
      new TypeError('the option now is a function that returns a Date, such as () => new Date(); here it is 1'),
    );
    expect(make({ path, paht: 1 })).toThrow(
      new TypeError('new LmdbStore has no option paht; it has: path, now. Perhaps path was meant'),
    );
    expect(make(path)).toThrow(TypeError);
  });

  it('writes what it was asked to before it closes, then rejects everything', async () => {
    const store = open();
    await store.subscribe('x', { changed: () => {}, missed: async () => {} });
    const put = store.put('x:a', 'one', later(60));
    await Promise.all([store.close(), store.close()]);
    await put;
    const closed = `the store in ${path} failed: it was closed`;
    for (const use of [
      () => store.mark(),
      () => store.next(),
      () => store.spend('a', later(1)),
      () => store.put('x:b', '', later(1)),
      () => store.get('x:a'),
      () => store.take('x:a'),
      () => store.delete('x:a'),
      () => store.list('x'),
      () => store.subscribe('x', { changed: () => {}, missed: async () => {} }),
    ])
      await expect(use()).rejects.toThrow(closed);
    expect(store.lag()).toBe(Number.POSITIVE_INFINITY);
    expect(await open().get('x:a')).toBe('one');
  });

  it('does what it can of what comes together', async () => {
    const store = open();
    const tries = [
      store.put('x:a', 'one', later(60)),
      store.put('x'.repeat(5000), 'two', later(60)),
      store.spend('a', later(60)),
    ];
    expect((await Promise.allSettled(tries)).map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
    expect(await store.get('x:a')).toBe('one');
    expect(await store.spend('a', later(60))).toBe(false);
  });

  it('tells folders apart by their whole names, also long ones', async () => {
    const store = open();
    const folders = ['', 'x', 'x:x', 'xx', 'x'.repeat(63), 'x'.repeat(64), 'x'.repeat(65), 'ß', '\u{1f600}', '\uffff'];
    for (const folder of folders) {
      for (const name of ['', 'x', '\u{10ffff}', 'y'.repeat(100)]) await store.put(`${folder}:${name}`, '', later(60));
      await store.put(folder, '', later(60));
    }
    for (const folder of folders) {
      const keys = (await store.list(folder)).map(({ key }) => key);
      const names = ['', 'x', 'y'.repeat(100), '\u{10ffff}'];
      expect(keys).toEqual(names.map((name) => `${folder}:${name}`));
    }
  });

  it('asks a subscriber again who could not learn what there was, and is behind until then', async () => {
    const store = open();
    let asked = 0;
    const missed = async () => {
      expect(store.lag()).toBe(Number.POSITIVE_INFINITY);
      if (++asked === 1) throw new Error('not now');
    };
    await store.subscribe('x', { changed: () => {}, missed });
    expect(asked).toBe(2);
    expect(store.lag()).toBe(0);
  });

  it('costs little', async () => {
    const store = open();
    await store.subscribe('x', { changed: () => {}, missed: async () => {} });
    const time = async (times: number, work: () => unknown) => {
      const start = performance.now();
      for (let i = 0; i < times; i++) await work();
      return ((performance.now() - start) / times) * 1000;
    };
    const hash = () => `x:${crypto.randomUUID()}${crypto.randomUUID()}`.slice(0, 45);
    const lag = await time(20_000, () => store.lag());
    const put = await time(200, () => store.put(hash(), '', later(60)));
    const empty = (await stat(join(path, 'data.mdb'))).size;
    for (let i = 0; i < 20; i++)
      await Promise.all(Array.from({ length: 500 }, () => store.put(hash(), '', later(i + 60))));
    const entry = ((await stat(join(path, 'data.mdb'))).size - empty) / 10_000;
    console.info(`lag ${lag.toFixed(2)} µs, put ${put.toFixed(0)} µs, ${entry.toFixed(0)} bytes for an entry`);
    expect(lag).toBeLessThan(100);
    expect(entry).toBeLessThan(2_000);
  });
});
