import { digest } from '../digest.js';
import { Pace } from './pace.js';
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
 * `ended:<hash of the session's id, or of the anchor>`, `ended:token.<hash>`, `ended:all.<person>.<number>`,
 * `ended:block.<person>.<number>`, and `ended:life.<application>.<seconds>`, which says how long sessions last there.
 */
export class Ended {
  /** When each can be forgotten: seconds. */
  readonly #sessions = new Map<string, number>();
  readonly #tokens = new Map<string, number>();
  readonly #cuts = new Map<string, Cut>();
  readonly #blocks = new Map<string, Block>();
  /** People whose sessions were just ended here, or who were blocked, while the store gave no number for it yet. */
  readonly #held = { cut: new Map<string, Set<symbol>>(), block: new Map<string, Set<symbol>>() };
  /** Above it, no login was ever cut. */
  #highest = 0;
  #latest = 0;
  /** How long sessions last in each application on the store: seconds; and until when that is to be remembered. */
  readonly #lives = new Map<string, { readonly life: number; readonly ends: number }>();
  readonly #pruning = new Pace(60);

  /** How many sessions it knows to have been ended one by one. */
  get size(): number {
    return this.#sessions.size;
  }

  /** The highest number that it has seen: of a login, a cut or a block. */
  get latest(): number {
    return this.#latest;
  }

  /** How long the longest sessions last of any application on the store: seconds. */
  get longestLife(): number {
    return Math.max(0, ...[...this.#lives.values()].map(({ life }) => life));
  }

  has({ sessionId, group, wls, principal, login }: Handle): boolean {
    const isToken = login === Number.POSITIVE_INFINITY;
    if (isToken ? this.hasToken(sessionId) : this.#hasSession(sessionId, group)) return true;
    if (!isToken && login > this.#latest) this.#latest = login;
    // Most sessions are younger than all cuts, and most people are not blocked.
    if (login >= this.#highest && this.#held.cut.size === 0 && !this.#anyBlocked) return false;
    const person = personOf(wls, principal);
    if (login < (this.#cuts.get(person)?.below ?? 0) || this.#isBlocked(person)) return true;
    return this.#held.cut.has(person) && !isToken;
  }

  hasToken(handle: string): boolean {
    return this.#tokens.size > 0 && this.#tokens.has(digest(handle));
  }

  /** @param name the hash of an anchor. */
  hasGroup(name: string): boolean {
    return this.#sessions.has(name);
  }

  isBlocked(wls: string, principal: string): boolean {
    return this.#anyBlocked && this.#isBlocked(personOf(wls, principal));
  }

  /** Below which number all logins of a person are known to be ended. */
  cutOf(person: string): number | undefined {
    return this.#cuts.get(person)?.below;
  }

  /** The number of the last word on whether a person is blocked. */
  blockOf(person: string): number | undefined {
    return this.#blocks.get(person)?.number;
  }

  lifeOf(application: string): number {
    return this.#lives.get(application)?.life ?? 0;
  }

  /** @param now seconds. @returns whom it ends something of; nothing if that was known. */
  learn({ key, value, expires }: Entry, now: number): { readonly name?: string; readonly person?: string } {
    this.#prune(now);
    const ends = Math.ceil(expires.getTime() / 1000);
    const name = key.slice(ENDED.length + 1);
    const [kind, about = '', number] = name.split('.');
    if (kind === 'all') return this.#learnCut(about, { below: Number(number), ends }, value) ? { person: about } : {};
    if (kind === 'block') return this.#learnBlock(about, Number(number), value, ends) ? { person: about } : {};
    if (kind === 'life') return this.#learnLife(about, Number(number), ends);
    if (kind === 'token') return { name: later(this.#tokens, about, ends) };
    return { name: later(this.#sessions, name, ends) };
  }

  /** Ends what a person has, or keeps them out too, until the store has a number for it. @returns what releases it. */
  hold(person: string, what: 'cut' | 'block'): () => void {
    const held = this.#held[what];
    const mine = Symbol();
    const all = held.get(person) ?? new Set();
    held.set(person, all.add(mine));
    return () => {
      all.delete(mine);
      if (all.size === 0 && held.get(person) === all) held.delete(person);
    };
  }

  /** All of it, as a store keeps it, without what the store has already. @param there when what it has expires, by key. */
  *missingFrom(there: ReadonlyMap<string, number>): Generator<Entry> {
    for (const entry of this.#all()) if ((there.get(entry.key) ?? 0) < entry.expires.getTime()) yield entry;
  }

  *#all(): Generator<Entry> {
    for (const [name, ends] of this.#sessions) yield sessionEntry(name, dateOf(ends));
    for (const [name, ends] of this.#tokens) yield tokenEntry(name, dateOf(ends));
    for (const [person, { below, ends }] of this.#cuts) yield cutEntry(person, below, dateOf(ends));
    for (const [person, { number, blocked, ends }] of this.#blocks) {
      yield blockEntry(person, number, blocked, dateOf(ends));
    }
    for (const [application, { life, ends }] of this.#lives) yield lifeEntry(application, life, dateOf(ends));
  }

  #hasSession(sessionId: string, group: string): boolean {
    if (this.#sessions.size === 0) return false;
    return this.#sessions.has(digest(sessionId)) || (group !== '' && this.#sessions.has(group));
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
    this.#latest = Math.max(this.#latest, below);
    this.#cuts.set(person, { below, ends: Math.max(cut.ends, known.ends) });
    if (replaced !== '') for (const name of replaced.split(' ')) this.#sessions.delete(name);
    return below > known.below;
  }

  #learnBlock(person: string, number: number, value: string, ends: number): boolean {
    this.#latest = Math.max(this.#latest, number);
    if (number <= (this.#blocks.get(person)?.number ?? 0)) return false;
    const blocked = value === 'yes';
    this.#blocks.set(person, { number, blocked, ends });
    return blocked;
  }

  #learnLife(application: string, life: number, ends: number): Record<string, never> {
    if (life >= this.lifeOf(application)) this.#lives.set(application, { life, ends });
    return {};
  }

  /** Forgets, once a minute at most, what is over anyway. */
  #prune(now: number): void {
    if (!this.#pruning.isDue(now)) return;
    for (const names of [this.#sessions, this.#tokens]) forgetOver(names, (ends) => ends <= now);
    for (const more of [this.#cuts, this.#blocks, this.#lives]) {
      forgetOver(more as Map<string, { readonly ends: number }>, ({ ends }) => ends <= now);
    }
  }
}

/** Hashed, so that the store does not say who was logged out. */
export function personOf(wls: string, principal: string): string {
  return digest(JSON.stringify([wls, principal]));
}

export function sessionEntry(name: string, expires: Date): Entry {
  return { key: `${ENDED}:${name}`, value: '', expires };
}

export function tokenEntry(name: string, expires: Date): Entry {
  return { key: `${ENDED}:token.${name}`, value: '', expires };
}

// A key for each cut, block and life: of two at a time, the one must not replace the other.

/** @param replaced names of sessions that need no entry of their own any more. */
export function cutEntry(person: string, below: number, expires: Date, replaced: readonly string[] = []): Entry {
  return { key: `${ENDED}:all.${person}.${below}`, value: replaced.join(' '), expires };
}

export function blockEntry(person: string, number: number, blocked: boolean, expires: Date): Entry {
  return { key: `${ENDED}:block.${person}.${number}`, value: blocked ? 'yes' : 'no', expires };
}

/** @param life seconds. */
export function lifeEntry(application: string, life: number, expires: Date): Entry {
  return { key: `${ENDED}:life.${application}.${life}`, value: '', expires };
}

function dateOf(second: number): Date {
  return new Date(second * 1000);
}

function forgetOver<T>(known: Map<string, T>, isOver: (one: T) => boolean): void {
  for (const [name, one] of known) if (isOver(one)) known.delete(name);
}

/** What is said twice is remembered until the later end. */
function later(names: Map<string, number>, name: string, ends: number): string {
  names.set(name, Math.max(ends, names.get(name) ?? 0));
  return name;
}
