import type { SessionError } from '../errors.js';
import type { Handle } from './ended.js';
import type { Auth, EndsBecause } from './session.js';

/** Called once, with why the session is over. */
export type OnEnd = (error: SessionError) => void;

/** When a session ends, and why then. */
export type End = Pick<Auth, 'expires' | 'expiresBecause'>;

/** Called whenever the session was renewed, with when it ends now. */
export type OnRenew = (end: End) => void;

/** Something that is to be told when a session ends, such as a socket. */
export interface Watch {
  readonly handle: Handle;
  /** Name of the revocation that ends the session, with its kind. */
  readonly name: string;
  /** Name of the revocation of its binding cookie; empty if it has none. */
  readonly group: string;
  readonly onEnd: OnEnd;
  readonly onRenew: OnRenew | undefined;
  /** Seconds. */
  ends: number;
  because: EndsBecause;
}

/** Who is to be told when a session ends. No timer for each: they are kept by the second in which they are due. */
export class Watches {
  readonly #byName = new Index<string>();
  readonly #due = new Index<number>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  add(watch: Watch): void {
    const { name, group, ends } = watch;
    this.#count += 1;
    this.#byName.add(name, watch);
    if (group !== '') this.#byName.add(group, watch);
    this.#due.add(ends, watch);
  }

  /** Whether it was there. */
  forget(watch: Watch): boolean {
    const { name, group, ends } = watch;
    if (!this.#due.remove(ends, watch)) return false;
    this.#count -= 1;
    this.#byName.remove(name, watch);
    if (group !== '') this.#byName.remove(group, watch);
    return true;
  }

  /** Lets it end later. Whether it does: one that ends later anyway stays as it is. */
  postpone(watch: Watch, { expires, expiresBecause }: End): boolean {
    const ends = Math.ceil(expires.getTime() / 1000);
    if (ends <= watch.ends || !this.#due.remove(watch.ends, watch)) return false;
    watch.ends = ends;
    watch.because = expiresBecause;
    this.#due.add(ends, watch);
    return true;
  }

  named(name: string): readonly Watch[] {
    return this.#byName.get(name);
  }

  all(): Watch[] {
    return [...this.#due.keys()].flatMap((second) => this.#due.get(second));
  }

  /** Those due in these seconds; after a jump of the clock, whichever list is the shorter one to walk. */
  dueBetween(from: number, to: number): Watch[] {
    const walked = to - from > this.#due.size || to < from;
    const seconds = walked
      ? [...this.#due.keys()].filter((second) => second <= to)
      : Array.from({ length: to - from + 1 }, (_, i) => from + i);
    return seconds.flatMap((second) => this.#due.get(second));
  }
}

const none: readonly Watch[] = [];

/** The watches of each key. Mostly it is one, and a set of one would take more room than the watch. */
class Index<K> {
  readonly #all = new Map<K, Watch | Set<Watch>>();

  get size(): number {
    return this.#all.size;
  }

  keys(): Iterable<K> {
    return this.#all.keys();
  }

  /** As they are now, whatever becomes of them while somebody walks along. */
  get(key: K): readonly Watch[] {
    const found = this.#all.get(key);
    if (found === undefined) return none;
    return found instanceof Set ? [...found] : [found];
  }

  add(key: K, watch: Watch): void {
    const there = this.#all.get(key);
    if (there === undefined) this.#all.set(key, watch);
    else if (there instanceof Set) there.add(watch);
    else this.#all.set(key, new Set([there, watch]));
  }

  /** Whether it was there. */
  remove(key: K, watch: Watch): boolean {
    const there = this.#all.get(key);
    if (there === watch) return this.#all.delete(key);
    if (!(there instanceof Set) || !there.delete(watch)) return false;
    if (there.size === 0) this.#all.delete(key);
    return true;
  }
}
