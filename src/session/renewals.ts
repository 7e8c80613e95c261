import { digest } from '../digest.js';
import { inTurns, Pace } from './pace.js';
import type { Sealer } from './seal.js';
import type { Entry, Store } from './store.js';

// Milliseconds.
/** One session is published no more often, however many requests come with a cookie that is due to be renewed. */
const PUBLISH_EVERY = 1000;
const PRUNE_EVERY = 60_000;

export interface RenewalsOptions {
  readonly store: Store;
  readonly sealer: Sealer;
  /** Names the application on the store. */
  readonly application: string;
  /** Seconds. */
  readonly inactiveTimeout: number;
  readonly now: () => Date;
  /** Does what asks the store, and says so where that fails. */
  readonly ask: <T>(work: () => Promise<T>) => Promise<T>;
  /** Is told the hash of a session's id, and when the session was used: milliseconds. */
  readonly onUse: (name: string, seen: number) => void;
}

/**
 * When sessions were used last, by whichever process, so that a socket lasts as long as its session. Entries are
 * `seen.<application>:<hash of the session's id>`, sealed with their key: who can write to the store keeps no socket open.
 */
export class Renewals {
  readonly #options: RenewalsOptions;
  readonly #folder: string;
  /** By the hash of the session's id: milliseconds. */
  readonly #seen = new Map<string, number>();
  /** What the store has not confirmed yet, by key. */
  readonly #untold = new Map<string, Entry>();
  readonly #pruning = new Pace(PRUNE_EVERY);
  #unsubscribe: (() => void) | undefined;
  #closed = false;

  constructor(options: RenewalsOptions) {
    this.#options = options;
    this.#folder = `seen.${options.application}`;
  }

  /** Learns what was renewed, now and from now on. @throws what the store does. */
  async start(): Promise<void> {
    if (this.#unsubscribe) return;
    const stop = await this.#options.store.subscribe(this.#folder, {
      changed: (entry) => this.#learn(entry),
      missed: () => this.#catchUp(),
    });
    if (this.#closed) stop();
    else this.#unsubscribe = stop;
  }

  /** When a session was used last, in milliseconds, as far as was heard; 0 if it was not renewed lately. */
  lastSeen(sessionId: string): number {
    // Most are never renewed where nobody opens sockets, and hashing takes longest.
    return this.#seen.size === 0 ? 0 : (this.#seen.get(digest('session', sessionId)) ?? 0);
  }

  /** Says that a session was used. @param seen milliseconds. @param expires when it ends, unless it is used again. */
  publish(sessionId: string, seen: number, expires: Date): void {
    const name = digest('session', sessionId);
    if (this.#closed || seen < (this.#seen.get(name) ?? 0) + PUBLISH_EVERY) return;
    this.#note(name, seen);
    const key = `${this.#folder}:${name}`;
    this.#tell({ key, value: this.#options.sealer.seal(JSON.stringify([key, seen])), expires });
  }

  stop(): void {
    this.#closed = true;
    this.#unsubscribe?.();
  }

  /** Nobody waits for it. What fails is in the log, and is said again when the store is heard again. */
  #tell(entry: Entry): void {
    const { store, ask } = this.#options;
    const { key, value, expires } = entry;
    this.#untold.set(key, entry);
    const told = () => this.#untold.get(key) === entry && this.#untold.delete(key);
    ask(() => store.put(key, value, expires)).then(told, () => {});
  }

  async #catchUp(): Promise<void> {
    await inTurns(await this.#options.store.list(this.#folder), (entry) => this.#learn(entry));
    for (const entry of this.#untold.values()) this.#tell(entry);
  }

  #learn({ key, value }: Entry): void {
    const opened = this.#options.sealer.open(value);
    // Whatever is in the store, we did not seal it as this.
    if (typeof opened === 'string') return;
    const [its, seen] = JSON.parse(opened.text);
    // From a process whose clock is ahead: it must not keep a session in use until then.
    const used = Math.min(seen, this.#options.now().getTime());
    if (its === key) this.#note(key.slice(this.#folder.length + 1), used);
  }

  /** Two may arrive in the wrong order, and our own comes back to us. */
  #note(name: string, seen: number): void {
    this.#prune();
    if (seen <= (this.#seen.get(name) ?? 0)) return;
    this.#seen.set(name, seen);
    this.#options.onUse(name, seen);
  }

  #prune(): void {
    const { now, inactiveTimeout } = this.#options;
    const time = now().getTime();
    if (!this.#pruning.isDue(time)) return;
    for (const [name, seen] of this.#seen) if (seen + inactiveTimeout * 1000 <= time) this.#seen.delete(name);
    for (const [key, { expires }] of this.#untold) if (expires.getTime() <= time) this.#untold.delete(key);
  }
}
