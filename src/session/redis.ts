import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { checkOptions, clock, isText, type Rules, required, text } from '../options.js';
import { hasReplicas, Link, type LinkOptions } from './redis-link.js';
import { addressOf, diagnose, Refusal } from './redis-reasons.js';
import { type Entry, folderOf, type Store, type Subscriber } from './store.js';

// Milliseconds.
const FIRST_RETRY = 100;
const LAST_RETRY = 2000;
/** Redis keeps what has expired for this long, since clocks differ. */
const GRACE = 60_000;

/** How many entries are listed by one question, about. */
const CHUNK = 1000;

export interface RedisStoreOptions extends LinkOptions {
  /** Such as `redis://localhost:6379`, or with `rediss:` over TLS. It may name a user, a password and a database. */
  readonly url: string;
  /** Those of the url by default. */
  readonly username?: string;
  readonly password?: string;
  /** What all keys and channels begin with: `ucam-webauth:` by default. Applications that share it share the store. */
  readonly prefix?: string;
  /** The clock; the system's by default. */
  readonly now?: () => Date;
}

/**
 * The store of many machines, in one Redis (6.2 or later) that never evicts. While it is away, questions are refused at
 * once, `lag()` grows, and it is looked for until `close()`.
 */
export class RedisStore implements Store {
  readonly #options: RedisStoreOptions;
  readonly #prefix: string;
  readonly #now: () => Date;
  readonly #subscriptions = new Set<Subscription>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;
  /** Resolves when the first link is there, or has failed. */
  #attempted: Promise<void> = Promise.resolve();
  #link: Link | undefined;
  #linkedBefore = false;
  #why = new Error('it was never looked for');
  #fresh = Number.NEGATIVE_INFINITY;
  #number = 0;
  readonly #address: ReturnType<typeof addressOf>;
  readonly #database: string;

  /** Connects only when it is used. @throws TypeError if the options cannot be right. */
  constructor(options: RedisStoreOptions) {
    checkOptions('new RedisStore', options, rules);
    checkCharacters(options.url);
    this.#address = addressOf(options);
    this.#database = this.#address.database;
    this.#options = options;
    this.#prefix = options.prefix ?? 'ucam-webauth:';
    this.#now = options.now ?? (() => new Date());
  }

  async mark(known = ''): Promise<string> {
    const link = await this.#use();
    const [run, durable, promoted] = await this.#describe(link);
    const mark = await link.run(scripts.mark, [this.#markKey], [run, known, newName(), durable, promoted]);
    // The first beacon is too late: a generation that began before it would go unnoticed.
    link.checkMark(mark);
    return mark as string;
  }

  /**
   * Starts a new store generation: all users log in again, and blocks and revoked tokens stay. Processes that use the store
   * notice within a few seconds.
   * @throws Error if Redis cannot be used, or has no store of this prefix.
   */
  async invalidate(): Promise<void> {
    const link = await this.#use();
    const [run, durable] = await this.#describe(link);
    const found = await link.run(scripts.invalidate, [this.#markKey], [newName(), run, durable]);
    if (found === 1) return;
    throw new Error(
      `database ${this.#database} of this Redis has no store with the prefix "${this.#prefix}". Give the prefix (--prefix) and the database (redis://HOST/NUMBER) of the application.`,
    );
  }

  /** Describes this run of Redis: its id, whether all it confirms is on its disk, and whether it was promoted. */
  async #describe(link: Link): Promise<[run: string, durable: string, promoted: string]> {
    const info = await link.info();
    const durable = info('aof_enabled') === '1' && (await link.writesAtOnce());
    // A replica that took over may have missed the last changes.
    return [info('run_id'), bit(durable), bit(info('second_repl_offset') !== '-1')];
  }

  async next(seen = 0): Promise<number> {
    const link = await this.#use();
    const least = Math.max(this.#number, seen);
    const number = Number(await link.run(scripts.next, [`${this.#prefix}number`], [least.toFixed(0)]));
    this.#number = Math.max(this.#number, number);
    return number;
  }

  async spend(key: string, expires: Date): Promise<boolean> {
    const link = await this.#use();
    const times = [this.#now().getTime(), expires.getTime(), this.#keepFor(expires)].map(String);
    return (await link.run(scripts.spend, [`${this.#prefix}spent:${key}`], times)) === 1;
  }

  async put(key: string, value: string, expires: Date): Promise<void> {
    const link = await this.#use();
    const folder = folderOf(key);
    const ends = expires.getTime();
    const args = [`${ends}:${value}`, String(this.#keepFor(expires)), key];
    if (folder !== undefined) args.push(this.#channel(folder), JSON.stringify([key, value, ends]));
    await link.run(scripts.put, this.#places(key), args);
  }

  async get(key: string): Promise<string | undefined> {
    const link = await this.#use();
    return this.#read(key, await link.ask((redis) => redis.get(this.#place(key))))?.value;
  }

  async take(key: string): Promise<string | undefined> {
    const link = await this.#use();
    return this.#read(key, (await link.run(scripts.take, this.#places(key), [key])) as string | null)?.value;
  }

  async delete(key: string): Promise<void> {
    await this.take(key);
  }

  async list(folder: string): Promise<Entry[]> {
    const link = await this.#use();
    // By key: what moves meanwhile may be met twice.
    const entries = new Map<string, Entry>();
    let cursor = '0';
    do {
      const at = cursor;
      const chunk = await link.ask((redis) => redis.zScan(this.#index(folder), at, { COUNT: CHUNK }));
      cursor = chunk.cursor;
      const keys = chunk.members.map(({ value }) => value);
      for (const entry of await this.#readAll(link, keys)) entries.set(entry.key, entry);
    } while (cursor !== '0');
    return [...entries.values()];
  }

  async subscribe(folder: string, subscriber: Subscriber): Promise<() => void> {
    if (this.#closing.signal.aborted) throw this.#away();
    return new Promise((told, reject) => {
      const resolve = () => told(() => this.#unsubscribe(subscription));
      const subscription = { folder, subscriber, resolve, reject };
      this.#subscriptions.add(subscription);
      const link = this.#link;
      // Otherwise it is told with the others, when a link catches up.
      if (link?.caughtUp) this.#tell(link, subscription).then(resolve, link.end);
      else this.#start();
    });
  }

  lag(): number {
    return performance.now() - this.#fresh;
  }

  async close(): Promise<void> {
    this.#why = new Error('the store is closed');
    this.#closing.abort();
    this.#giveUp(this.#why);
    await this.#running;
  }

  /** The link there is. Only the first one is waited for. */
  async #use(): Promise<Link> {
    this.#start();
    await this.#attempted;
    if (!this.#link) throw this.#away();
    return this.#link;
  }

  #start(): void {
    if (this.#running || this.#closing.signal.aborted) return;
    this.#attempted = new Promise((attempted) => {
      this.#running = this.#run(attempted);
    });
  }

  /** Makes a link, and another one whenever it ends. */
  async #run(attempted: () => void): Promise<void> {
    for (let pause = FIRST_RETRY; !this.#closing.signal.aborted; pause = Math.min(2 * pause, LAST_RETRY)) {
      const link = await this.#linkUp(attempted);
      if (link.caughtUp) pause = FIRST_RETRY;
      if (this.#why instanceof Refusal && !this.#linkedBefore) break;
      // Not all processes at the same time.
      await delay(pause * (0.5 + Math.random() / 2), undefined, { signal: this.#closing.signal }).catch(() => {});
    }
    this.#running = undefined;
    if (this.#why instanceof Refusal) this.#giveUp(this.#why);
  }

  /** Makes a link, and returns it when it has ended. */
  async #linkUp(attempted: () => void): Promise<Link> {
    const { signal } = this.#closing;
    const link = new Link(this.#options, `${this.#prefix}beacon:${newName()}`, this.#markKey);
    const stop = () => link.end(this.#why);
    signal.addEventListener('abort', stop);
    link
      .open((sent) => {
        if (link.caughtUp) this.#fresh = sent;
      })
      .then(() => this.#begin(link, attempted))
      .catch(link.end);
    this.#why = await link.ended;
    signal.removeEventListener('abort', stop);
    this.#link = undefined;
    attempted();
    return link;
  }

  async #begin(link: Link, attempted: () => void): Promise<void> {
    if (link.over) return;
    this.#link = link;
    attempted();
    const began = performance.now();
    // The one script that no subscriber runs: a permission that is missing shows now, and not at the first ticket.
    await link.run(scripts.take, this.#places('probe'), ['probe']);
    // Also those that come while this goes on.
    for (const subscription of this.#subscriptions) await this.#tell(link, subscription);
    if (link.over) return;
    this.#fresh = began;
    this.#linkedBefore = true;
    link.caughtUp = true;
    for (const { resolve } of this.#subscriptions) resolve();
  }

  async #tell(link: Link, { folder, subscriber }: Subscription): Promise<void> {
    await link.listen(this.#channel(folder), this.#hear);
    await subscriber.missed();
  }

  readonly #hear = (message: string): void => {
    const entry = parseChange(message);
    if (!entry) return;
    const folder = folderOf(entry.key);
    for (const one of this.#subscriptions) if (one.folder === folder) one.subscriber.changed(entry);
  };

  #unsubscribe(subscription: Subscription): void {
    const { folder } = subscription;
    this.#subscriptions.delete(subscription);
    const others = [...this.#subscriptions].some((other) => other.folder === folder);
    if (!others) this.#link?.leave(this.#channel(folder), this.#hear);
  }

  #away(): Error {
    return diagnose(this.#why, this.#address);
  }

  #giveUp(why: Error): void {
    for (const { reject } of this.#subscriptions) reject(why);
    this.#subscriptions.clear();
  }

  get #markKey(): string {
    return `${this.#prefix}mark`;
  }

  #channel(folder: string): string {
    // Redis keeps the keys of its databases apart, and not their channels.
    return `${this.#prefix}${this.#database}:changes:${folder}`;
  }

  #place(key: string): string {
    return `${this.#prefix}entry:${key}`;
  }

  #index(folder: string): string {
    return `${this.#prefix}folder:${folder}`;
  }

  /** Where a key is, and the index of its folder if it is in one. */
  #places(key: string): string[] {
    const folder = folderOf(key);
    return folder === undefined ? [this.#place(key)] : [this.#place(key), this.#index(folder)];
  }

  /** Our clock says what has expired; that of Redis only cleans up after it. */
  #keepFor(expires: Date): number {
    return Math.max(0, expires.getTime() - this.#now().getTime()) + GRACE;
  }

  #read(key: string, stored: string | null | undefined): Entry | undefined {
    if (typeof stored !== 'string') return undefined;
    const colon = stored.indexOf(':');
    const expires = new Date(Number(stored.slice(0, colon)));
    return expires > this.#now() ? { key, value: stored.slice(colon + 1), expires } : undefined;
  }

  async #readAll(link: Link, keys: string[]): Promise<Entry[]> {
    if (keys.length === 0) return [];
    const stored = await link.ask((redis) => redis.mGet(keys.map((key) => this.#place(key))));
    return keys.map((key, i) => this.#read(key, stored[i])).filter((entry) => entry !== undefined);
  }
}

/** Who is told of a folder, and whom to tell when that has begun, or never will. */
interface Subscription {
  readonly folder: string;
  readonly subscriber: Subscriber;
  readonly resolve: () => void;
  readonly reject: (why: Error) => void;
}

/** What is on a channel may be anybody's. */
function parseChange(message: string): Entry | undefined {
  try {
    const [key, value, time] = JSON.parse(message);
    const expires = new Date(time);
    const ours = isText(key) && isText(value) && typeof time === 'number' && !Number.isNaN(expires.getTime());
    return ours ? { key, value, expires } : undefined;
  } catch {
    return undefined;
  }
}

function newName(): string {
  return randomBytes(12).toString('base64url');
}

function bit(value: boolean): string {
  return value ? '1' : '0';
}

function isRedisUrl(value: unknown): boolean {
  try {
    const { protocol, hostname, pathname, username, password } = new URL(String(value));
    // Throws where the client would.
    decodeURIComponent(username + password);
    return isText(value) && /^rediss?:$/.test(protocol) && hostname !== '' && /^(?:\/\d*)?$/.test(pathname);
  } catch {
    return false;
  }
}

/** @throws TypeError if the URL ends early for the client, by a character of the user name or password. */
function checkCharacters(url: string): void {
  if (!hasRawCharacters(url)) return;
  throw new TypeError(
    'the option url is an address such as redis://:p%2Fw%23@localhost:6379: percent-encode / ? # and % in its user name and password (encodeURIComponent), or give the options username and password',
  );
}

function hasRawCharacters(value: unknown): boolean {
  return isText(value) && /^rediss?:\/\/(?:[^/?#]*[/?#].*@|[^/?#]*%(?![\da-f]{2})[^/?#]*@)/is.test(value);
}

const rules: Rules<RedisStoreOptions> = {
  url: required([
    (value) => isRedisUrl(value) || hasRawCharacters(value),
    'is an address such as redis://localhost:6379',
  ]),
  username: text,
  password: text,
  prefix: text,
  now: clock,
};

/** What Redis does at one go. */
const scripts = {
  // The same run of Redis has forgotten nothing. After a restart, its own mark holds if it cannot have forgotten
  // anything; else that of a process that has just put again what it knows; else a new one. Data that a replica may have
  // too says nothing, since a replica that is started as a primary looks like a primary that was restarted.
  mark: `
    local mark, run, durable = unpack(redis.call('HMGET', KEYS[1], 'mark', 'run', 'durable'))
    local remembers = mark and durable == '1' and ARGV[4] == '1' and ARGV[5] == '0'
    if run ~= ARGV[1] and not remembers then mark = ARGV[2] ~= '' and ARGV[2] or ARGV[3] end
    durable = ${hasReplicas} and '0' or ARGV[4]
    redis.call('HSET', KEYS[1], 'mark', mark, 'run', ARGV[1], 'durable', durable)
    return mark`,
  // Stores the run too, so that no process with the earlier mark can bring it back.
  invalidate: `
    if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
    local durable = ${hasReplicas} and '0' or ARGV[3]
    redis.call('HSET', KEYS[1], 'mark', ARGV[1], 'run', ARGV[2], 'durable', durable)
    return 1`,
  // The time in microseconds at least, which has gone on while a count was lost.
  next: `
    local time = redis.call('TIME')
    local last = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(ARGV[1]))
    local number = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
    redis.call('SET', KEYS[1], number)
    return number`,
  spend: `
    local ends = redis.call('GET', KEYS[1])
    if ends and tonumber(ends) > tonumber(ARGV[1]) then return 0 end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1`,
  // An entry leaves its folder when Redis drops it; a few at a time, so that no put takes long. The last one takes it along.
  put: `
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    if not KEYS[2] then return end
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2]), ARGV[3])
    local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)
    if #gone > 0 then redis.call('ZREM', KEYS[2], unpack(gone)) end
    if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
    redis.call('PUBLISH', ARGV[4], ARGV[5])`,
  take: `
    if KEYS[2] then redis.call('ZREM', KEYS[2], ARGV[1]) end
    return redis.call('GETDEL', KEYS[1])`,
};
