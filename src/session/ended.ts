import { digest } from '../digest.js';
import {
  blockEntry,
  type Content,
  cutEntry,
  isLoginNumber,
  lifeEntry,
  memberEntry,
  type Owner,
  parseEntry,
  type Revocation,
  revocationEntry,
  unowned,
} from './entries.js';
import { Pace } from './pace.js';
import type { Auth } from './session.js';
import type { Entry } from './store.js';

/** What is looked at to tell whether a session was ended. */
export type Handle = Pick<Auth, 'sessionId' | 'group' | 'wls' | 'principal' | 'login'>;

/** Person that a store knows by a hash, and the names by which watchers of sessions are found. */
export interface Learned {
  readonly name?: string;
  readonly person?: string;
}

/** Revocation of one session, of the sessions of a binding cookie, or of a token. `ends` is in seconds. */
type Revoked = Owner & { readonly ends: number };

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

/** Highest number of a person's logins that are bound to a cookie. `ends` is in seconds. */
interface Member {
  readonly login: number;
  readonly ends: number;
}

/**
 * Revocations that this process knows of: so a request needs no round trip. In the store, a session is
 * `ended:session.<hash>`, the sessions of a binding cookie `ended:binding.<hash>`, a token `ended:token.<hash>`, a cutoff
 * `ended:all.<person>.<number>`, a block `ended:blocked.<person>.<number>`. `ended:member.<binding>.<person>` says who has
 * logged in with a binding cookie, and `ended:life.<application>.<seconds>` how long sessions last in an application.
 *
 * A cutoff stands for the revocations of its person that it covers. Each process decides by its own knowledge which these
 * are: if the cutoff named them, a writer of the store could revive sessions of other users.
 */
export class Ended {
  /** Revocations by kind and hash. */
  readonly #revoked = new Map<string, Revoked>();
  readonly #byPerson = new Map<string, Set<string>>();
  /** Persons who have logged in with a binding cookie, by the name of its revocation. */
  readonly #members = new Map<string, Map<string, Member>>();
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

  /** Number of revocations of single sessions, binding cookies and tokens. */
  get size(): number {
    return this.#revoked.size;
  }

  /** Number of all that grows with users, their logins and their logouts. */
  get total(): number {
    return this.#revoked.size + this.#members.size + this.#cuts.size + this.#blocks.size;
  }

  /** Highest login sequence number that the store must have given already: of a login, a cutoff or a block. */
  get latest(): number {
    return this.#latest;
  }

  /** How long the longest sessions last of any application on the store: seconds. */
  get longestLife(): number {
    let longest = 0;
    for (const { life } of this.#lives.values()) longest = Math.max(longest, life);
    return longest;
  }

  has({ sessionId, group, wls, principal, login }: Handle): boolean {
    const isToken = login === Number.POSITIVE_INFINITY;
    if (isToken ? this.hasToken(sessionId) : this.#hasSession(sessionId, group)) return true;
    // The time of the system bounds it: an application may have made the number up.
    if (!isToken && login > this.#latest && isLoginNumber(login, 0)) this.#latest = login;
    // Most sessions are younger than all cuts, and most people are not blocked.
    if (login >= this.#highest && this.#held.cut.size === 0 && !this.#anyBlocked) return false;
    const person = personOf(wls, principal);
    if (login < (this.#cuts.get(person)?.below ?? 0) || this.#isBlocked(person)) return true;
    return this.#held.cut.has(person) && !isToken;
  }

  /** Whether a cutoff covers a session, or one that has yet to be stored. */
  isCut({ wls, principal, login }: Handle): boolean {
    const person = personOf(wls, principal);
    return login < (this.#cuts.get(person)?.below ?? 0) || this.#held.cut.has(person);
  }

  hasToken(handle: string): boolean {
    return this.#revoked.size > 0 && this.#revoked.has(tokenName(handle));
  }

  /** @param group hash of a binding cookie. */
  hasGroup(group: string): boolean {
    return this.#revoked.has(bindingName(group));
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

  /**
   * Returns the person of all sessions of a binding cookie, if it is one person, with the highest number of their logins.
   *
   * @param known person and login of one of the sessions.
   */
  ownerOfGroup(group: string, known: Owner): Owner {
    const name = bindingName(group);
    const others = this.#revoked.get(name) ?? this.#members.get(name)?.get(known.person);
    if (others === undefined || !this.#hasOnly(name, known.person)) return unowned;
    return { person: known.person, login: Math.max(others.login, known.login) };
  }

  /** Returns the revocations of a person, by name, that a cutoff could stand for. */
  foldable(person: string, now: number): Map<string, Owner & { readonly ends: number }> {
    const found = new Map<string, Revoked>();
    for (const name of this.#byPerson.get(person) ?? []) {
      const revoked = this.#revoked.get(name);
      if (revoked && revoked.ends > now && this.#hasOnly(name, person)) found.set(name, revoked);
    }
    return found;
  }

  /** Returns the names of the revocations that a cutoff would cover. */
  coveredBy(person: string, below: number, expires: Date): string[] {
    const ends = expires.getTime() / 1000;
    return [...(this.#byPerson.get(person) ?? [])].filter((name) => {
      const revoked = this.#revoked.get(name);
      return revoked !== undefined && this.#isCovered(name, revoked, { below, ends });
    });
  }

  /**
   * Adds an entry of the store.
   *
   * @param now seconds.
   * @returns the names of the sessions that it revokes, if that is news; `undefined` if the entry is implausible.
   */
  learn(entry: Entry, now: number): Learned | undefined {
    this.#prune(now);
    const content = parseEntry(entry, now);
    return content && this.#learn(content);
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

  /** All of it, as a store keeps it, without what the store has already. @param there what the store has, by key. */
  *missingFrom(there: ReadonlyMap<string, Entry>): Generator<Entry> {
    for (const entry of this.#all()) {
      const known = there.get(entry.key);
      if (known === undefined || known.expires < entry.expires || known.value !== entry.value) yield entry;
    }
  }

  *#all(): Generator<Entry> {
    for (const [name, { ends, ...owner }] of this.#revoked) yield revocationEntry(name, owner, dateOf(ends));
    for (const [name, members] of this.#members) {
      for (const [person, { login, ends }] of members) yield memberEntry(hashOf(name), { person, login }, dateOf(ends));
    }
    for (const [person, { below, ends }] of this.#cuts) yield cutEntry(person, below, dateOf(ends));
    for (const [person, { number, blocked, ends }] of this.#blocks) {
      yield blockEntry(person, number, blocked, dateOf(ends));
    }
    for (const [application, { life, ends }] of this.#lives) yield lifeEntry(application, life, dateOf(ends));
  }

  #hasSession(sessionId: string, group: string): boolean {
    if (this.#revoked.size === 0) return false;
    return this.#revoked.has(sessionName(sessionId)) || (group !== '' && this.hasGroup(group));
  }

  get #anyBlocked(): boolean {
    return this.#blocks.size > 0 || this.#held.block.size > 0;
  }

  #isBlocked(person: string): boolean {
    return this.#blocks.get(person)?.blocked === true || this.#held.block.has(person);
  }

  #learn(content: Content): Learned {
    if (content.kind === 'all') return this.#learnCut(content.person, content);
    if (content.kind === 'blocked') return this.#learnBlock(content.person, content);
    if (content.kind === 'life') return this.#learnLife(content);
    if (content.kind === 'member') return this.#learnMember(content);
    return this.#learnRevocation(content);
  }

  /** Keeps the later end of two. Entries with different owners can no longer be folded: one of them is forged. */
  #learnRevocation({ name, person, login, ends }: Revocation): Learned {
    const known = this.#revoked.get(name) ?? { person, login, ends };
    const owner = known.person === person ? { person, login: Math.max(known.login, login) } : unowned;
    // Without a spread, with which V8 keeps twice as many bytes for each revocation.
    const revoked = { person: owner.person, login: owner.login, ends: Math.max(known.ends, ends) };
    // All sessions of the cookie are this person's: what is known of them is in the revocation now.
    if (this.#members.get(name)?.size === 1) this.#dropMember(name, owner);
    const cut = this.#cuts.get(owner.person);
    if (cut !== undefined && this.#isCovered(name, revoked, cut)) this.#forget(name);
    else this.#remember(name, revoked);
    return { name };
  }

  #dropMember(name: string, { person, login }: Owner): void {
    const member = this.#members.get(name)?.get(person);
    if (member !== undefined && member.login <= login) this.#members.delete(name);
  }

  /** Keeps the place of one that is known: a catch-up walks along them while the store repeats what it is told. */
  #remember(name: string, revoked: Revoked): void {
    const { person } = revoked;
    if (this.#revoked.get(name)?.person !== person) this.#forgetOwner(name);
    this.#revoked.set(name, revoked);
    if (person !== '') this.#byPerson.set(person, (this.#byPerson.get(person) ?? new Set()).add(name));
  }

  #forget(name: string): void {
    this.#forgetOwner(name);
    this.#revoked.delete(name);
  }

  #forgetOwner(name: string): void {
    const { person = '' } = this.#revoked.get(name) ?? {};
    const names = this.#byPerson.get(person);
    if (names?.delete(name) && names.size === 0) this.#byPerson.delete(person);
  }

  /** Whether every session that a revocation ends is ended by a cutoff of its owner too, for as long. */
  #isCovered(name: string, { person, login, ends }: Revoked, cut: Cut): boolean {
    if (person === '' || login >= cut.below || ends > cut.ends) return false;
    const later = this.#members.get(name)?.get(person);
    return this.#hasOnly(name, person) && (later === undefined || later.login < cut.below);
  }

  /** Whether nobody else has logged in with the binding cookie. */
  #hasOnly(name: string, person: string): boolean {
    const members = this.#members.get(name);
    return members === undefined || (members.size === 1 && members.has(person));
  }

  #learnMember({ binding, person, login, ends }: Content & { readonly kind: 'member' }): Learned {
    const name = bindingName(binding);
    const revoked = this.#revoked.get(name);
    // As in the revocation already: the entry comes late.
    if (revoked?.person === person && revoked.login >= login) return {};
    const members = this.#members.get(name) ?? new Map<string, Member>();
    const known = members.get(person) ?? { login, ends };
    const member = { login: Math.max(login, known.login), ends: Math.max(ends, known.ends) };
    this.#members.set(name, members.set(person, member));
    return {};
  }

  /** Keeps the higher of two cutoffs, which may arrive in either order. */
  #learnCut(person: string, cut: Cut): Learned {
    const known = this.#cuts.get(person) ?? { below: 0, ends: 0 };
    const below = Math.max(cut.below, known.below);
    const ends = Math.max(cut.ends, known.ends);
    this.#highest = Math.max(this.#highest, below);
    // The login below it, since a login may have the number itself.
    this.#latest = Math.max(this.#latest, below - 1);
    this.#cuts.set(person, { below, ends });
    for (const name of this.coveredBy(person, below, dateOf(ends))) this.#forget(name);
    return below > known.below ? { person } : {};
  }

  #learnBlock(person: string, { number, blocked, ends }: Block): Learned {
    this.#latest = Math.max(this.#latest, number);
    if (number <= (this.#blocks.get(person)?.number ?? 0)) return {};
    this.#blocks.set(person, { number, blocked, ends });
    return blocked ? { person } : {};
  }

  #learnLife({ application, life, ends }: Content & { readonly kind: 'life' }): Learned {
    if (life >= this.lifeOf(application)) this.#lives.set(application, { life, ends });
    return {};
  }

  /** Forgets, once a minute at most, what is over anyway. */
  #prune(now: number): void {
    if (!this.#pruning.isDue(now)) return;
    for (const [name, { ends }] of this.#revoked) if (ends <= now) this.#forget(name);
    for (const [name, members] of this.#members) {
      forgetOver(members, now);
      if (members.size === 0) this.#members.delete(name);
    }
    forgetOver(this.#cuts, now);
    forgetOver(this.#blocks, now);
    forgetOver(this.#lives, now);
  }
}

/** Names a user in the store. Usernames can be guessed, and so the name is no secret. */
export function personOf(wls: string, principal: string): string {
  return digest('person', JSON.stringify([wls, principal]));
}

export function sessionName(sessionId: string): string {
  return `session.${digest('session', sessionId)}`;
}

/** @param group hash of a binding cookie. */
export function bindingName(group: string): string {
  return `binding.${group}`;
}

export function tokenName(handle: string): string {
  return `token.${digest('token handle', handle)}`;
}

function hashOf(name: string): string {
  return name.slice(name.indexOf('.') + 1);
}

function dateOf(second: number): Date {
  return new Date(second * 1000);
}

function forgetOver(known: Map<string, { readonly ends: number }>, now: number): void {
  for (const [name, { ends }] of known) if (ends <= now) known.delete(name);
}
