import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { open, type RootDatabase } from 'lmdb';
import { checkOptions, clock, isText, type Rules, restriction } from '../options.js';
import { Pace } from './pace.js';
import { findUnsafeFile, findUnsafeFolder, findUnsafeParent, type UnsafePath } from './safe-path.js';
import { type Entry, folderOf, type Store, type Subscriber } from './store.js';

// Milliseconds.
const POLL_EVERY = 250;
const ASK_AGAIN_AFTER = 1000;
const CHECK_READERS_EVERY = 60_000;
/** How many records that have expired each write takes away: more than it adds. */
const SWEPT_BY_WRITE = 10;

export interface LmdbStoreOptions {
  /** A folder for the files of the store; made if it is missing. Its processes name the same one. */
  readonly path: string;
  /** The clock; the system's by default. */
  readonly now?: () => Date;
}

const rules: Rules<LmdbStoreOptions> = {
  path: restriction([(value) => isText(value) && /^[^\0]+$/.test(value), 'is the path of a folder']),
  now: clock,
};

/** The name of a record: of an entry with its folder, or of a key that was spent. */
type Name = ['entry', string | false, string] | ['spent', string];

/** What is kept of an entry; `change` is the number under which it is listed as changed. */
type Kept = [value: string, expires: number, change: number];

interface Subscription {
  readonly folder: string;
  readonly subscriber: Subscriber;
}

/** A change that waits for the next transaction. */
interface Write {
  readonly run: () => unknown;
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The store of the processes of one machine, in files on a local disk: not on a network file system, and not shared by
 * containers that number their processes apart. What was answered is on the disk, so it survives a crash.
 *
 * Beside the entries and the spent keys there are two indexes: of entries by the number of their last change, from which
 * the others learn what is new, and of everything by when it expires.
 */
export class LmdbStore implements Store {
  readonly #path: string;
  readonly #now: () => Date;
  readonly #db: RootDatabase;
  readonly #subscriptions = new Set<Subscription>();
  #writes: Write[] = [];
  /** The number of the last change that subscribers were told. */
  #seen = 0;
  /** How many subscribers have not learnt yet what there was before. */
  #learning = 0;
  /** How many subscribers have not caught up with a new generation yet, and since when (`performance.now()`). */
  #behind = 0;
  #behindSince = 0;
  readonly #checking = new Pace(CHECK_READERS_EVERY);
  readonly #inode: number;
  readonly #progress: ProgressFile;
  /** Store generation that subscribers were told. */
  #generation: unknown;
  #moved = false;
  #timer: NodeJS.Timeout | undefined;
  #closed: Promise<void> | undefined;

  /**
   * @throws TypeError for wrong options.
   * @throws Error if the files cannot be opened.
   */
  constructor(options: LmdbStoreOptions) {
    checkOptions('new LmdbStore', options, rules);
    const { path, now = () => new Date() } = options;
    if (path === undefined) throw new TypeError('path is missing: give a folder on a local disk for the files');
    this.#path = resolve(path);
    this.#now = now;
    try {
      this.#progress = new ProgressFile(this.#path);
      this.#db = openFiles(this.#path, this.#progress);
      this.#inode = inodeOf(this.#path);
      this.#generation = this.#db.get('mark');
    } catch (error) {
      throw this.#failure(error, 'cannot be opened', adviceOn(error));
    }
  }

  async mark(): Promise<string> {
    return this.#read(() => String(this.#db.get('mark')));
  }

  /**
   * Starts a new store generation: all users log in again, and blocks and revoked tokens stay. Processes that have the
   * store open notice within a quarter of a second.
   */
  async invalidate(): Promise<void> {
    return this.#write(() => this.#renew(this.#seen));
  }

  async next(seen = 0): Promise<number> {
    // The time in microseconds at least, which has gone on where an old copy of the files was put in place.
    return this.#write(() => this.#count('count', Math.max(seen, this.#now().getTime() * 1000)));
  }

  async spend(key: string, expires: Date): Promise<boolean> {
    return this.#write(() => {
      const name: Name = ['spent', key];
      const before = this.#db.get(name) as number | undefined;
      if (before !== undefined && before > this.#now().getTime()) return false;
      this.#forget(name);
      this.#keep(name, expires.getTime(), expires.getTime());
      return true;
    });
  }

  async put(key: string, value: string, expires: Date): Promise<void> {
    return this.#write(() => {
      const name = nameOf(key);
      this.#forget(name);
      const change = this.#count('changes');
      const kept: Kept = [value, expires.getTime(), change];
      this.#keep(name, kept, expires.getTime());
      this.#db.put(['change', change], key);
    });
  }

  async get(key: string): Promise<string | undefined> {
    return this.#read(() => this.#live(key));
  }

  async take(key: string): Promise<string | undefined> {
    return this.#write(() => {
      const value = this.#live(key);
      this.#forget(nameOf(key));
      return value;
    });
  }

  async delete(key: string): Promise<void> {
    return this.#write(() => this.#forget(nameOf(key)));
  }

  async list(folder: string): Promise<Entry[]> {
    return this.#read(() => {
      // No text has such a byte, so no name of the folder comes after it.
      const end = ['entry', folder, Buffer.of(0xff)];
      const found = Array.from(this.#db.getRange({ start: ['entry', folder], end }));
      const now = this.#now();
      return found.map(({ key, value }) => entryOf((key as Name).at(-1) as string, value)).filter(isLive(now));
    });
  }

  async subscribe(folder: string, subscriber: Subscriber): Promise<() => void> {
    // What changes from here on is told: twice, if it is listed too.
    this.#read(() => this.#tell());
    const subscription = { folder, subscriber };
    this.#subscriptions.add(subscription);
    this.#timer ??= setInterval(() => this.#poll(), POLL_EVERY).unref();
    this.#learning += 1;
    await this.#teach(subscriber);
    this.#learning -= 1;
    return () => this.#subscriptions.delete(subscription);
  }

  lag(): number {
    if (this.#moved) return Number.POSITIVE_INFINITY;
    try {
      this.#read(() => this.#tell());
      if (this.#learning > 0) return Number.POSITIVE_INFINITY;
      // Within the moment that this takes, subscribers go on with what they know: no request fails for it.
      return this.#behind === 0 ? 0 : performance.now() - this.#behindSince;
    } catch {
      return Number.POSITIVE_INFINITY;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return this.#closed;
    this.#commit();
    this.#record();
    clearInterval(this.#timer);
    this.#subscriptions.clear();
    this.#closed = this.#db.close();
    return this.#closed;
  }

  #poll(): void {
    // What others write to files that took the place of ours is not heard here.
    this.#moved = inodeOf(this.#path) !== this.#inode;
    this.lag();
    this.#record();
  }

  /** Records the number of the last change outside of the files that a backup would replace. */
  #record(): void {
    if (!this.#moved) this.#progress.record(this.#seen);
  }

  /** Starts a new generation, within a transaction. @param seen number of the last change that is known. */
  #renew(seen: number): void {
    this.#db.put('mark', newGeneration());
    // The number has no entry: processes look at the generation whenever the counter moves.
    this.#count('changes', seen);
  }

  /** The number after the last one of a counter. */
  #count(counter: 'count' | 'changes', least = 0): number {
    const number = Math.max(this.#db.get(counter) ?? 0, least) + 1;
    this.#db.put(counter, number);
    return number;
  }

  #live(key: string): string | undefined {
    const kept = this.#db.get(nameOf(key)) as Kept | undefined;
    return kept && kept[1] > this.#now().getTime() ? kept[0] : undefined;
  }

  #keep(name: Name, what: Kept | number, expires: number): void {
    this.#db.put(name, what);
    this.#db.put(['expiry', expires, ...name], true);
  }

  /** Takes a record away, and what the indexes have of it. */
  #forget(name: Name): void {
    const kept = this.#db.get(name) as Kept | number | undefined;
    if (kept === undefined) return;
    const [expires, change] = typeof kept === 'number' ? [kept] : [kept[1], kept[2]];
    this.#db.remove(name);
    this.#db.remove(['expiry', expires, ...name]);
    if (change !== undefined) this.#db.remove(['change', change]);
  }

  #sweep(limit: number): void {
    const end = ['expiry', this.#now().getTime() + 1];
    const due = Array.from(this.#db.getKeys({ start: ['expiry'], end, limit }));
    for (const key of due) this.#forget((key as unknown[]).slice(2) as Name);
  }

  #read<T>(look: () => T): T {
    if (this.#closed) throw this.#failure(new Error('it was closed'));
    try {
      return look();
    } catch (error) {
      throw this.#failure(error);
    } finally {
      // The next look has to see what other processes wrote meanwhile.
      this.#db.resetReadTxn();
    }
  }

  /** What comes at the same time shares a transaction, since waiting for the disk takes longest. */
  async #write<T>(run: () => T): Promise<T> {
    if (this.#closed) throw this.#failure(new Error('it was closed'));
    return new Promise<T>((resolve, reject) => {
      this.#writes.push({ run, resolve, reject });
      if (this.#writes.length === 1) setImmediate(() => this.#commit());
    });
  }

  #commit(): void {
    const writes = this.#writes;
    this.#writes = [];
    if (writes.length === 0) return;
    this.#transact(writes);
    // Before anybody hears that it is done. Who cannot be told now is told by the timer.
    this.lag();
  }

  /** Synchronously: where the disk is full, the asynchronous transactions of the package reject what nobody can catch. */
  #transact(writes: readonly Write[]): void {
    try {
      this.#checkReaders();
      const results = this.#db.transactionSync(() => {
        this.#sweep(SWEPT_BY_WRITE * writes.length);
        return writes.map(({ run }) => run());
      });
      for (const [i, { resolve }] of writes.entries()) resolve(results[i] as never);
    } catch (error) {
      // One that cannot be done must not take the others with it.
      if (writes.length > 1) for (const write of writes) this.#transact([write]);
      else writes[0]?.reject(this.#failure(error));
    }
  }

  /** Without this, a process that was killed while it read would keep the files from using space again. */
  #checkReaders(): void {
    if (this.#checking.isDue(this.#now().getTime())) this.#db.readerCheck();
  }

  /** Tells subscribers what was changed, by whichever process, since they were last told. */
  #tell(): void {
    const last = this.#db.get('changes') ?? 0;
    if (last === this.#seen) return;
    // Numbers only grow, unless an older copy was put in place of the data.
    if (last < this.#seen) this.#renewRestored();
    this.#checkGeneration();
    const changed = this.#subscriptions.size === 0 ? [] : this.#changes(this.#seen + 1);
    this.#seen = last;
    for (const entry of changed) {
      const folder = folderOf(entry.key);
      for (const { folder: watched, subscriber } of this.#subscriptions)
        if (watched === folder) subscriber.changed(entry);
    }
  }

  #renewRestored(): void {
    this.#db.transactionSync(() => {
      if ((this.#db.get('changes') ?? 0) < this.#seen) this.#renew(this.#seen);
    });
    this.#db.resetReadTxn();
  }

  /** Has all subscribers catch up where another process, or this one, has started a new generation. */
  #checkGeneration(): void {
    const generation = this.#db.get('mark');
    if (generation === this.#generation) return;
    this.#generation = generation;
    if (this.#behind === 0) this.#behindSince = performance.now();
    for (const { subscriber } of this.#subscriptions) {
      this.#behind += 1;
      this.#teach(subscriber).then(
        () => {
          this.#behind -= 1;
        },
        // The store was closed: its lag is infinite in any case.
        () => {},
      );
    }
  }

  #changes(from: number): Entry[] {
    const range = { start: ['change', from], end: ['change', Number.POSITIVE_INFINITY] };
    const keys = Array.from(this.#db.getRange(range), ({ value }) => value as string);
    return keys.map((key) => entryOf(key, this.#db.get(nameOf(key))));
  }

  async #teach(subscriber: Subscriber): Promise<void> {
    for (;;) {
      try {
        return await subscriber.missed();
      } catch (error) {
        if (this.#closed) throw error;
        await delay(ASK_AGAIN_AFTER, undefined, { ref: false });
      }
    }
  }

  #failure(cause: unknown, what = 'failed', advice = ''): Error {
    return new Error(`the store in ${this.#path} ${what}: ${(cause as Error).message}${advice}`, { cause });
  }
}

function nameOf(key: string): Name {
  return ['entry', folderOf(key) ?? false, key];
}

function entryOf(key: string, [value, expires]: Kept): Entry {
  return { key, value, expires: new Date(expires) };
}

function isLive(now: Date): (entry: Entry) => boolean {
  return ({ expires }) => expires > now;
}

function openFiles(path: string, progress: ProgressFile): RootDatabase {
  const mode = 0o600;
  // Judged before it is made, too: the folder must not be made through a link of another user.
  checkSafe(findUnsafeParent(path));
  makeFolder(path);
  checkSafe(findUnsafeFolder(path));
  const files = ['data.mdb', 'lock.mdb'].map((name) => join(path, name));
  for (const file of [...files, ...progress.paths()]) checkSafe(findUnsafeFile(file));
  checkRoom(join(path, `room-${randomBytes(8).toString('hex')}`));
  checkHead(join(path, 'data.mdb'));
  const db: RootDatabase = open({ path, noSubdir: false, overlappingSync: false, ...{ permissionsMode: mode } });
  for (const file of files) chmodSync(file, mode);
  progress.restrict(mode);
  const changes = db.transactionSync(() => recognize(db, path, progress));
  progress.record(changes);
  return db;
}

/**
 * Makes a folder and its parents. The recursive `mkdirSync` of Node never returns where the system says of a folder that
 * exists that nothing can be made in it since it does not exist, as below /proc.
 */
function makeFolder(path: string): void {
  if (isFolder(path)) return;
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another process has made it meanwhile.
    if (isFolder(path)) return;
    const parent = dirname(path);
    if (codeOf(error) !== 'ENOENT' || existsSync(parent)) throw error;
    makeFolder(parent);
    makeFolder(path);
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** What to do about an error of the system, to follow its message. */
const advice: { readonly [code: string]: string } = {
  EEXIST: 'it is a file, or a link that leads nowhere. Give the path of a folder',
  ENOTDIR: 'a part of the path is a file. Give the path of a folder',
  ENOENT: 'no folder can be made there. Give the path of a folder on a local disk',
  EACCES: 'the user of this process lacks a permission. Run it as a user who may write there, or give another path',
  EPERM: 'the user of this process lacks a permission. Run it as a user who may write there, or give another path',
  EROFS: 'the file system is read-only. Mount it for writing, or give another path',
  ELOOP: 'its symbolic links lead in a circle. Give the path of a folder',
  ENAMETOOLONG: 'the path is too long. Give a shorter one',
  ERR_ACCESS_DENIED:
    'allow the folder to Node by --allow-fs-read and --allow-fs-write, and the package lmdb by --allow-addons',
};

function adviceOn(error: unknown): string {
  const known = advice[String(codeOf(error))];
  return known === undefined ? '' : `: ${known}`;
}

function codeOf(error: unknown): unknown {
  return (error as NodeJS.ErrnoException).code;
}

/** Identity of the data file: its inode, and when it was born (milliseconds; 0 where that is not known). */
type Identity = readonly [inode: number, born: number];

/**
 * Starts a new generation where the files are a copy, such as one that was restored: a copy lacks later revocations.
 * @returns the number of the last change.
 */
function recognize(db: RootDatabase, path: string, progress: ProgressFile): number {
  const known = db.get('inode') as Identity | number | undefined;
  const identity = identityOf(statSync(join(path, 'data.mdb')));
  const changes = (db.get('changes') as number | undefined) ?? 0;
  const recorded = progress.read();
  // Files of earlier versions have a number alone, and no record beside them.
  const isSame = typeof known === 'number' ? known === identity[0] : known !== undefined && isSameFile(known, identity);
  const isComplete = recorded === undefined ? !Array.isArray(known) : recorded <= changes;
  // Made within the transaction: another process that opens the files must not miss it.
  if (recorded === undefined) progress.create(changes);
  if (!isSame || String(known) !== String(identity)) db.put('inode', identity);
  if (isSame && isComplete) return changes;
  db.put('mark', newGeneration());
  const last = Math.max(changes, recorded ?? 0) + 1;
  db.put('changes', last);
  return last;
}

/** The device is left out: its number may change when the machine restarts. */
function identityOf({ ino, birthtimeMs, ctimeMs }: Stats): Identity {
  // A file system without birth times may report the time of the last change instead.
  return [ino, birthtimeMs === ctimeMs ? 0 : birthtimeMs];
}

function isSameFile([inode, born]: Identity, [otherInode, otherBorn]: Identity): boolean {
  return inode === otherInode && (born === otherBorn || born === 0 || otherBorn === 0);
}

/**
 * The number of the last change, in the name of an empty file beside the data: a copy of the data that is put back is behind
 * it, also where all files of the folder are put back, since the name of today is not replaced.
 */
class ProgressFile {
  readonly #folder: string;
  #last: number | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Returns the largest number, and removes the files of smaller ones; undefined if there is none. */
  read(): number | undefined {
    // Listed twice: a file that is renamed meanwhile may be missing from one list.
    const [last, ...others] = [this.#list(), this.#list()].flat().sort((a, b) => b - a);
    for (const number of others) if (number !== last) rmSync(this.#path(number), { force: true });
    this.#last = last;
    return last;
  }

  /** Lists the files that there are: more than one where a backup of the folder was put back. */
  paths(): string[] {
    return this.#list().map((number) => this.#path(number));
  }

  /** Sets the mode of the file, unless another process renames it meanwhile: the file is empty in any case. */
  restrict(mode: number): void {
    for (const path of this.paths()) {
      try {
        chmodSync(path, mode);
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') throw error;
      }
    }
  }

  /** Makes the file; exclusively, so that a link in its place is not followed. */
  create(number: number): void {
    writeFileSync(this.#path(number), '', { flag: 'wx', mode: 0o600 });
    this.#last = number;
  }

  /** Renames the file. Behind the data by some changes, it detects less; so a failure is left to the next call. */
  record(number: number): void {
    if (number <= (this.#last ?? number)) return;
    try {
      renameSync(this.#path(this.#last as number), this.#path(number));
      this.#last = number;
    } catch {
      // Another process has renamed it meanwhile.
      this.#reread();
    }
  }

  #reread(): void {
    try {
      this.read();
    } catch {
      // The folder is gone, which the store notices by itself.
    }
  }

  #list(): number[] {
    const digits = readdirSync(this.#folder).map((name) => /^changes-(\d{1,15})$/.exec(name)?.[1]);
    return digits.filter((one) => one !== undefined).map(Number);
  }

  #path(number: number): string {
    return join(this.#folder, `changes-${number}`);
  }
}

function newGeneration(): string {
  return randomBytes(12).toString('base64url');
}

function checkSafe(unsafe: UnsafePath | undefined): void {
  if (unsafe !== undefined) throw new Error(`${unsafe.path} is not safe to use, since ${unsafe.reason}`);
}

/** Which file it is; another one, where it was restored or replaced. */
function inodeOf(path: string): number {
  return statSync(join(path, 'data.mdb'), { throwIfNoEntry: false })?.ino ?? 0;
}

/** The package maps a file into memory before it has room on the disk: where there is none, the process would be killed. */
function checkRoom(file: string): void {
  try {
    writeFileSync(file, new Uint8Array(65_536), { flag: 'wx' });
  } finally {
    rmSync(file, { force: true });
  }
}

/** The package crashes, and its process with it, when it is to open what is no file of its own. */
function checkHead(file: string): void {
  if (!existsSync(file)) return;
  const head = Buffer.alloc(32);
  const descriptor = openSync(file, 'r');
  const length = readSync(descriptor, head);
  closeSync(descriptor);
  // A file that was only just made has nothing in it yet. Otherwise: LMDB's number for its files, and their version.
  if (length === 0 || head.subarray(24).equals(Buffer.from('dec0efbe02000000', 'hex'))) return;
  throw new Error(`${file} was not made by it: name a folder of its own`);
}
