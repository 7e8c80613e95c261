import { digest } from '../digest.js';
import type { Auth } from './session.js';
import type { Entry } from './store.js';

/** The folder in which stores keep what was ended before its time. */
export const ENDED = 'ended';

/** What is looked at to tell whether a session was ended. */
export type Handle = Pick<Auth, 'sessionId' | 'group' | 'wls' | 'principal' | 'login'>;

/** Logins below a number are ended. Instants are seconds. */
interface Cut {
  readonly below: number;
  readonly ends: number;
}

/** Whether a person is kept out; of two words on it, that of the higher number holds. */
interface Block {
  readonly number: number;
  readonly blocked: boolean;
  readonly ends: number;
}

/**
 * Which sessions were ended before their time, as far as this process has heard: so a request asks nobody. Entries are
 * `ended:<hash of the session's id, or of the anchor>`, `ended:all.<person>.<number>` and `ended:block.<person>`.
 */
export class Ended {
  /** When each can be forgotten: seconds. */
  readonly #sessions = new Map<string, number>();
  readonly #cuts = new Map<string, Cut>();
  readonly #blocks = new Map<string, Block>();
  /** People whose sessions were just ended here, or who were blocked, while the store gave no number for it yet. */
  readonly #held = { cut: new Set<string>(), block: new Set<string>() };
  /** Above it, no login was ever cut. */
  #highest = 0;
  #pruned = Number.NEGATIVE_INFINITY;

  /** How much it knows just now. */
  get size(): number {
    return this.#sessions.size + this.#cuts.size + this.#blocks.size;
  }

  has({ sessionId, group, wls, principal, login }: Handle): boolean {
    if (this.#sessions.size > 0) {
      if (this.#sessions.has(digest(sessionId)) || (group !== '' && this.#sessions.has(group))) return true;
    }
    // Most sessions are younger than all cuts, and most people are not blocked.
    if (login >= this.#highest && this.#held.cut.size === 0 && !this.#anyBlocked) return false;
    const person = personOf(wls, principal);
    if (login < (this.#cuts.get(person)?.below ?? 0) || this.#isBlocked(person)) return true;
    return this.#held.cut.has(person) && login < Number.POSITIVE_INFINITY;
  }

  /** @param name the hash of a session's id, or of an anchor. */
  hasNamed(name: string): boolean {
    return this.#sessions.has(name);
  }

  isBlocked(wls: string, principal: string): boolean {
    return this.#anyBlocked && this.#isBlocked(personOf(wls, principal));
  }

  /** Below which number all logins of a person are known to be ended. */
  cutOf(person: string): number | undefined {
    return this.#cuts.get(person)?.below;
  }

  /** @param now seconds. @returns whom it ends something of; nothing if that was known. */
  learn({ key, value, expires }: Entry, now: number): { readonly name?: string; readonly person?: string } {
    this.#prune(now);
    const ends = Math.ceil(expires.getTime() / 1000);
    const name = key.slice(ENDED.length + 1);
    const [kind, person = '', number] = name.split('.');
    if (kind === 'all') return this.#learnCut(person, { below: Number(number), ends }, value) ? { person } : {};
    if (kind === 'block') return this.#learnBlock(person, value, ends) ? { person } : {};
    this.#sessions.set(name, ends);
    return { name };
  }

  /** Ends what a person has, or keeps them out too, until the store has a number for it. */
  hold(person: string, what: 'cut' | 'block'): void {
    this.#held[what].add(person);
  }

  release(person: string, what: 'cut' | 'block'): void {
    this.#held[what].delete(person);
  }

  /** All of it, as a store keeps it, without what the store has already. */
  *missingFrom(entries: readonly Entry[]): Generator<Entry> {
    const there = new Map(entries.map(({ key, value }) => [key, value]));
    for (const entry of this.#all()) {
      const known = there.get(entry.key);
      if (known === undefined || numberOf(known) < numberOf(entry.value)) yield entry;
    }
  }

  *#all(): Generator<Entry> {
    for (const [name, ends] of this.#sessions) yield sessionEntry(name, new Date(ends * 1000));
    for (const [person, { below, ends }] of this.#cuts) yield cutEntry(person, below, new Date(ends * 1000));
    for (const [person, { number, blocked, ends }] of this.#blocks) {
      yield blockEntry(person, number, blocked, new Date(ends * 1000));
    }
  }

  get #anyBlocked(): boolean {
    return this.#blocks.size > 0 || this.#held.block.size > 0;
  }

  #isBlocked(person: string): boolean {
    return this.#blocks.get(person)?.blocked === true || this.#held.block.has(person);
  }

  /** Two may arrive in the wrong order. @param replaced names of sessions that are covered by it. */
  #learnCut(person: string, cut: Cut, replaced: string): boolean {
    const known = this.#cuts.get(person) ?? { below: 0, ends: 0 };
    const below = Math.max(cut.below, known.below);
    this.#highest = Math.max(this.#highest, below);
    this.#cuts.set(person, { below, ends: Math.max(cut.ends, known.ends) });
    if (replaced !== '') for (const name of replaced.split(' ')) this.#sessions.delete(name);
    return below > known.below;
  }

  #learnBlock(person: string, value: string, ends: number): boolean {
    const number = numberOf(value);
    if (number <= (this.#blocks.get(person)?.number ?? 0)) return false;
    const blocked = value.endsWith('yes');
    this.#blocks.set(person, { number, blocked, ends });
    return blocked;
  }

  /** Forgets, once a minute at most, what is over anyway. */
  #prune(now: number): void {
    if (Math.abs(now - this.#pruned) < 60) return;
    this.#pruned = now;
    for (const [name, ends] of this.#sessions) if (ends <= now) this.#sessions.delete(name);
    for (const [person, { ends }] of this.#cuts) if (ends <= now) this.#cuts.delete(person);
    for (const [person, { ends }] of this.#blocks) if (ends <= now) this.#blocks.delete(person);
  }
}

/** Hashed, so that the store does not say who was logged out. */
export function personOf(wls: string, principal: string): string {
  return digest(JSON.stringify([wls, principal]));
}

export function sessionEntry(name: string, expires: Date): Entry {
  return { key: `${ENDED}:${name}`, value: '', expires };
}

/**
 * A key for each cut: of two at a time, the earlier must not replace the later.
 * @param replaced names of sessions that need no entry of their own any more.
 */
export function cutEntry(person: string, below: number, expires: Date, replaced: readonly string[] = []): Entry {
  return { key: `${ENDED}:all.${person}.${below}`, value: replaced.join(' '), expires };
}

export function blockEntry(person: string, number: number, blocked: boolean, expires: Date): Entry {
  return { key: `${ENDED}:block.${person}`, value: `${number} ${blocked ? 'yes' : 'no'}`, expires };
}

/** The number of what is said of a block; 0 of what else is kept. */
function numberOf(value: string): number {
  return Number(/^(\d+) (?:yes|no)$/.exec(value)?.[1] ?? 0);
}
