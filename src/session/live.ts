import { digest } from '../digest.js';
import { SessionError } from '../errors.js';
import type { Auth } from './session.js';
import type { Entry, Store } from './store.js';

/** Of a session that was ended; and of a person all of whose logins below a number were. */
const SESSION = 'revoked:';
const PERSON = 'cut:';

/** What is looked at to tell whether a session was ended. */
type Handle = Pick<Auth, 'sessionId' | 'wls' | 'principal' | 'login'>;

/** Logins below a number are ended. Instants are seconds. */
interface Cut {
  readonly below: number;
  readonly ends: number;
}

/** Called once, with why the session is over. */
export type OnEnd = (error: SessionError) => void;

interface Watch {
  readonly handle: Handle;
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
  readonly #cuts = new Map<string, Cut>();
  /** Above it, no login was ever cut. */
  #highest = 0;
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
    for (const prefix of [SESSION, PERSON]) {
      for (const entry of await this.#store.list(prefix)) this.#learn(entry);
    }
  }

  /** How many revocations it knows just now. */
  get size(): number {
    return this.#revoked.size + this.#cuts.size;
  }

  isRevoked(handle: Handle): boolean {
    return (
      (this.#revoked.size > 0 && this.#revoked.has(handle.sessionId)) ||
      // Most sessions are younger than all cuts.
      (handle.login < this.#highest &&
        handle.login < (this.#cuts.get(personKey(handle.wls, handle.principal))?.below ?? 0))
    );
  }

  /** Ends a session everywhere. It is remembered until the session would have ended by itself. */
  async revoke(id: string, ends: Date): Promise<void> {
    await this.#tell(SESSION + id, ends);
  }

  /** Ends all sessions of a person, whenever and wherever they began. @param ends when the last of them would end. */
  async revokeAll(wls: string, principal: string, ends: Date): Promise<void> {
    const below = await this.#store.next();
    // A key for each cut: of two at a time, the earlier must not replace the later.
    await this.#tell(`${PERSON}${personKey(wls, principal)}:${below}`, ends);
  }

  /** Calls back once when the session ends, by revocation or by the clock. Returns a function that stops watching. */
  watch(handle: Handle, ends: Date, onEnd: OnEnd): () => void {
    const over = this.isRevoked(handle) ? revoked() : ends <= this.#now() ? expired() : undefined;
    if (over !== undefined) {
      onEnd(over);
      return () => {};
    }
    const watch = { handle, ends: Math.ceil(ends.getTime() / 1000), onEnd };
    add(this.#watches, handle.sessionId, watch);
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

  /** Known here at once, whenever the store gets to telling everybody, and whether it can. */
  async #tell(key: string, expires: Date): Promise<void> {
    this.#learn({ key, value: '', expires });
    await this.#store.put(key, '', expires);
  }

  #learn({ key, expires }: Entry): void {
    const ends = Math.ceil(expires.getTime() / 1000);
    const [, person = '', below] = key.split(':');
    if (key.startsWith(SESSION)) this.#learnSession(key.slice(SESSION.length), ends);
    else if (key.startsWith(PERSON)) this.#learnCut(person, { below: Number(below), ends });
  }

  #learnSession(id: string, ends: number): void {
    this.#prune();
    this.#revoked.set(id, ends);
    for (const watch of this.#watches.get(id) ?? []) this.#end(watch, revoked());
  }

  /** Looks at all watches: it is rare, and an index would cost each socket. */
  #learnCut(person: string, cut: Cut): void {
    this.#prune();
    // Two may arrive in the wrong order, and of applications whose sessions last longer or shorter.
    const known = this.#cuts.get(person) ?? { below: 0, ends: 0 };
    const below = Math.max(cut.below, known.below);
    this.#highest = Math.max(this.#highest, below);
    this.#cuts.set(person, { below, ends: Math.max(cut.ends, known.ends) });
    for (const watches of this.#watches.values()) {
      for (const watch of watches) if (this.isRevoked(watch.handle)) this.#end(watch, revoked());
    }
  }

  /** Forgets, once a minute at most, revocations of sessions that are over anyway. */
  #prune(): void {
    const now = this.#second();
    if (Math.abs(now - this.#pruned) < 60) return;
    this.#pruned = now;
    for (const [id, ends] of this.#revoked) if (ends <= now) this.#revoked.delete(id);
    for (const [person, { ends }] of this.#cuts) if (ends <= now) this.#cuts.delete(person);
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
    remove(this.#watches, watch.handle.sessionId, watch);
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

export function revoked(why?: string): SessionError {
  return new SessionError('ERR_SESSION_REVOKED', `the session was ended${why === undefined ? '' : `: ${why}`}`);
}

export function expired(): SessionError {
  return new SessionError('ERR_SESSION_EXPIRED', 'the session is over: log in again');
}

/** Hashed, so that the store does not say who was logged out. */
function personKey(wls: string, principal: string): string {
  return digest(JSON.stringify([wls, principal]));
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
