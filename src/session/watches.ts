import type { SessionError } from '../errors.js';
import type { Handle } from './ended.js';
import type { EndsBecause } from './session.js';

/** Called once, with why the session is over. */
export type OnEnd = (error: SessionError) => void;

/** Something that is to be told when a session ends, such as a socket. */
export interface Watch {
  readonly handle: Handle;
  /** By what names it may be ended. */
  readonly names: readonly string[];
  /** Seconds. */
  readonly ends: number;
  readonly because: EndsBecause;
  readonly onEnd: OnEnd;
}

/** Who is to be told when a session ends. No timer for each: they are kept by the second in which they are due. */
export class Watches {
  readonly #byName = new Map<string, Set<Watch>>();
  readonly #due = new Map<number, Set<Watch>>();
  #count = 0;

  get size(): number {
    return this.#count;
  }

  add(watch: Watch): void {
    this.#count += 1;
    for (const name of watch.names) add(this.#byName, name, watch);
    add(this.#due, watch.ends, watch);
  }

  /** Whether it was there. */
  forget(watch: Watch): boolean {
    if (!remove(this.#due, watch.ends, watch)) return false;
    this.#count -= 1;
    for (const name of watch.names) remove(this.#byName, name, watch);
    return true;
  }

  named(name: string): Watch[] {
    return [...(this.#byName.get(name) ?? [])];
  }

  all(): Watch[] {
    return [...this.#due.values()].flatMap((watches) => [...watches]);
  }

  /** Those due in these seconds; after a jump of the clock, whichever list is the shorter one to walk. */
  dueBetween(from: number, to: number): Watch[] {
    const walked = to - from > this.#due.size || to < from;
    const seconds = walked
      ? [...this.#due.keys()].filter((second) => second <= to)
      : Array.from({ length: to - from + 1 }, (_, i) => from + i);
    return seconds.flatMap((second) => [...(this.#due.get(second) ?? [])]);
  }
}

function add<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const set = sets.get(key);
  if (set) set.add(watch);
  else sets.set(key, new Set([watch]));
}

function remove<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): boolean {
  const set = sets.get(key);
  if (!set?.delete(watch)) return false;
  if (set.size === 0) sets.delete(key);
  return true;
}
