import { SessionError } from '../errors.js';
import type { Entry, Store } from './store.js';

const PREFIX = 'revoked:';

/** Called once, with why the session is over. */
export type OnEnd = (error: SessionError) => void;

interface Watch {
  readonly id: string;
  readonly ends: number;
  readonly onEnd: OnEnd;
}

/**
 * Which sessions were ended before their time, and what is to be told when one ends. This process keeps a copy of what
 * the store knows, so that a request asks nobody.
 */
export class LiveSessions {
  readonly #store: Store;
  readonly #now: () => Date;
  readonly #revoked = new Map<string, number>();
  readonly #watches = new Map<string, Set<Watch>>();
  /** Watches by the second in which they end, so that the clock looks only at those that are due. */
  readonly #due = new Map<number, Set<Watch>>();
  #swept: number;
  #pruned: number;
  #timer: NodeJS.Timeout | undefined;
  #unsubscribe = (): void => {};

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
    this.#swept = this.#second();
    this.#pruned = this.#swept;
  }

  /** Learns what the store knows. Subscribed first: what happens in between comes twice rather than never. */
  async start(): Promise<void> {
    this.#unsubscribe();
    this.#unsubscribe = await this.#store.subscribe((entry) => this.#learn(entry));
    for (const entry of await this.#store.list(PREFIX)) this.#learn(entry);
  }

  /** How many revocations it knows just now. */
  get size(): number {
    return this.#revoked.size;
  }

  isRevoked(id: string): boolean {
    return this.#revoked.size > 0 && this.#revoked.has(id);
  }

  /** Ends a session everywhere. It is remembered until the session would have ended by itself. */
  async revoke(id: string, ends: Date): Promise<void> {
    await this.#store.put(PREFIX + id, '', ends);
  }

  /** Calls back once when the session ends, by revocation or by the clock. Returns a function that stops watching. */
  watch(id: string, ends: Date, onEnd: OnEnd): () => void {
    const over = this.isRevoked(id) ? revoked() : ends <= this.#now() ? expired() : undefined;
    if (over !== undefined) {
      onEnd(over);
      return () => {};
    }
    const watch = { id, ends: Math.ceil(ends.getTime() / 1000), onEnd };
    add(this.#watches, id, watch);
    add(this.#due, watch.ends, watch);
    this.#timer ??= setInterval(() => this.sweep(), 500).unref();
    return () => this.#forget(watch);
  }

  /** Ends what is due by the clock. */
  sweep(): void {
    const now = this.#second();
    for (const second of this.#dueBetween(this.#swept, now)) {
      for (const watch of this.#due.get(second) ?? []) this.#end(watch, expired());
    }
    this.#swept = now;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#unsubscribe();
  }

  #learn({ key, expires }: Entry): void {
    if (!key.startsWith(PREFIX)) return;
    const id = key.slice(PREFIX.length);
    this.#prune();
    this.#revoked.set(id, Math.ceil(expires.getTime() / 1000));
    for (const watch of this.#watches.get(id) ?? []) this.#end(watch, revoked());
  }

  /** Forgets, once a minute at most, revocations of sessions that are over anyway. */
  #prune(): void {
    const now = this.#second();
    if (Math.abs(now - this.#pruned) < 60) return;
    this.#pruned = now;
    for (const [id, ends] of this.#revoked) if (ends <= now) this.#revoked.delete(id);
  }

  #end(watch: Watch, error: SessionError): void {
    this.#forget(watch);
    try {
      watch.onEnd(error);
    } catch (mistake) {
      // Reported as any error that nobody catches, but only after the others were told.
      queueMicrotask(() => {
        throw mistake;
      });
    }
  }

  #forget(watch: Watch): void {
    remove(this.#watches, watch.id, watch);
    remove(this.#due, watch.ends, watch);
    if (this.#watches.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The seconds in which something is due; after a jump of the clock, whichever list is the shorter one to walk. */
  #dueBetween(from: number, to: number): number[] {
    if (to - from > this.#due.size || to < from) return [...this.#due.keys()].filter((second) => second <= to);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  }

  #second(): number {
    return Math.floor(this.#now().getTime() / 1000);
  }
}

export function revoked(): SessionError {
  return new SessionError('ERR_SESSION_REVOKED', 'the session was ended');
}

export function expired(): SessionError {
  return new SessionError('ERR_SESSION_EXPIRED', 'the session is over: log in again');
}

function add<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const set = sets.get(key);
  if (set) set.add(watch);
  else sets.set(key, new Set([watch]));
}

function remove<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const set = sets.get(key);
  if (set?.delete(watch) && set.size === 0) sets.delete(key);
}
