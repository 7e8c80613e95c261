import { randomBytes } from 'node:crypto';
import type { Entry, Store } from './store.js';

const SWEEP_EVERY = 60_000;

/** The store of one process. It forgets all with the process, so a restart logs everyone out. */
export class MemoryStore implements Store {
  readonly #mark = randomBytes(12).toString('base64url');
  readonly #entries = new Map<string, Entry>();
  readonly #spent = new Map<string, number>();
  readonly #listeners = new Set<(entry: Entry) => void>();
  readonly #now: () => Date;
  #swept: number;
  #count = 0;

  /** @param options.now the clock; the system's by default. */
  constructor({ now = () => new Date() }: { readonly now?: () => Date } = {}) {
    this.#now = now;
    this.#swept = now().getTime();
  }

  /** How much it remembers just now. */
  get size(): number {
    return this.#entries.size + this.#spent.size;
  }

  async mark(): Promise<string> {
    return this.#mark;
  }

  async next(): Promise<number> {
    this.#count += 1;
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
    this.#entries.set(key, entry);
    for (const listener of this.#listeners) listener(entry);
  }

  async get(key: string): Promise<string | undefined> {
    const entry = this.#entries.get(key);
    return entry && entry.expires > this.#now() ? entry.value : undefined;
  }

  async take(key: string): Promise<string | undefined> {
    const value = this.get(key);
    this.#entries.delete(key);
    return value;
  }

  async delete(key: string): Promise<void> {
    this.#entries.delete(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    const now = this.#now();
    return [...this.#entries.values()].filter(({ key, expires }) => key.startsWith(prefix) && expires > now);
  }

  async subscribe(onChange: (entry: Entry) => void): Promise<() => void> {
    this.#listeners.add(onChange);
    return () => this.#listeners.delete(onChange);
  }

  async close(): Promise<void> {
    this.#listeners.clear();
  }

  /** Forgets what has expired, now and then, as part of other work: no timer keeps the process alive. */
  #sweep(): number {
    const now = this.#now().getTime();
    if (now - this.#swept < SWEEP_EVERY && now >= this.#swept) return now;
    this.#swept = now;
    for (const [key, expires] of this.#spent) if (expires <= now) this.#spent.delete(key);
    for (const [key, { expires }] of this.#entries) if (expires.getTime() <= now) this.#entries.delete(key);
    return now;
  }
}
