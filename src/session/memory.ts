import { randomBytes } from 'node:crypto';
import { checkOptions, clock, type Rules } from '../options.js';
import { Pace } from './pace.js';
import { type Entry, folderOf, type Store, type Subscriber } from './store.js';

const SWEEP_EVERY = 60_000;

export interface MemoryStoreOptions {
  /** The clock; the system's by default. */
  readonly now?: () => Date;
}

const rules: Rules<MemoryStoreOptions> = { now: clock };

/** The store of one process. It forgets all with the process, so a restart logs everyone out. */
export class MemoryStore implements Store {
  readonly #mark = randomBytes(12).toString('base64url');
  /** By folder, then by key. */
  readonly #folders = new Map<string | undefined, Map<string, Entry>>();
  readonly #spent = new Map<string, number>();
  readonly #subscribers = new Set<{ readonly folder: string; readonly subscriber: Subscriber }>();
  readonly #now: () => Date;
  readonly #sweeping = new Pace(SWEEP_EVERY);
  #count = 0;

  /** @throws TypeError for wrong options. */
  constructor(options: MemoryStoreOptions = {}) {
    checkOptions('new MemoryStore', options, rules);
    this.#now = options.now ?? (() => new Date());
  }

  /** How much it remembers just now. */
  get size(): number {
    return [...this.#folders.values()].reduce((sum, { size }) => sum + size, this.#spent.size);
  }

  async mark(): Promise<string> {
    return this.#mark;
  }

  async next(seen = 0): Promise<number> {
    this.#count = Math.max(this.#count, seen) + 1;
    return this.#count;
  }

  async spend(key: string, expires: Date): Promise<boolean> {
    const now = this.#sweep();
    if ((this.#spent.get(key) ?? Number.NEGATIVE_INFINITY) > now) return false;
    this.#spent.set(key, expires.getTime());
    return true;
  }

  async put(key: string, value: string, expires: Date): Promise<void> {
    this.#sweep();
    const entry = { key, value, expires };
    const name = folderOf(key);
    const folder = this.#folders.get(name) ?? new Map<string, Entry>();
    this.#folders.set(name, folder.set(key, entry));
    for (const { folder: watched, subscriber } of this.#subscribers) if (watched === name) subscriber.changed(entry);
  }

  async get(key: string): Promise<string | undefined> {
    const entry = this.#folders.get(folderOf(key))?.get(key);
    return entry && entry.expires > this.#now() ? entry.value : undefined;
  }

  async take(key: string): Promise<string | undefined> {
    const value = this.get(key);
    this.#forget(key);
    return value;
  }

  async delete(key: string): Promise<void> {
    this.#forget(key);
  }

  async list(folder: string): Promise<Entry[]> {
    const now = this.#now();
    return [...(this.#folders.get(folder)?.values() ?? [])].filter(({ expires }) => expires > now);
  }

  async subscribe(folder: string, subscriber: Subscriber): Promise<() => void> {
    const subscription = { folder, subscriber };
    const stop = () => void this.#subscribers.delete(subscription);
    this.#subscribers.add(subscription);
    await subscriber.missed().catch((error) => {
      stop();
      throw error;
    });
    return stop;
  }

  lag(): number {
    return 0;
  }

  async close(): Promise<void> {
    this.#subscribers.clear();
  }

  #forget(key: string): void {
    const name = folderOf(key);
    const folder = this.#folders.get(name);
    if (folder?.delete(key) && folder.size === 0) this.#folders.delete(name);
  }

  /** Forgets what has expired, now and then, as part of other work: no timer keeps the process alive. */
  #sweep(): number {
    const now = this.#now().getTime();
    if (!this.#sweeping.isDue(now)) return now;
    for (const [key, expires] of this.#spent) if (expires <= now) this.#spent.delete(key);
    for (const folder of this.#folders.values()) {
      for (const [key, { expires }] of folder) if (expires.getTime() <= now) this.#forget(key);
    }
    return now;
  }
}
