import type { SessionError } from '../errors.js';
import { YEAR } from '../options.js';
import { Complaints } from './complaints.js';
import { bindingName, Ended, type Handle, personOf, sessionName, tokenName } from './ended.js';
import {
  blockEntry,
  cutEntry,
  ENDED,
  isLoginNumber,
  lifeEntry,
  memberEntry,
  type Owner,
  revocationEntry,
  unowned,
} from './entries.js';
import { expired, forgotten, revoked, storeAway } from './over.js';
import { inTurns, Pace } from './pace.js';
import type { EndsBecause } from './session.js';
import type { Entry, Store } from './store.js';
import { type End, type OnEnd, type OnRenew, type Watch, Watches } from './watches.js';

// Seconds.
/** So much longer everything is remembered than it could matter: clocks may be put back. */
const SLACK = 3600;
// Milliseconds.
const SWEEP_EVERY = 500;
const RETRY_AFTER = 1000;
const ASK_WHY_EVERY = 5000;
const EXPLAIN_EVERY = 1000;
/** How many sessions a person ends one by one, before all of theirs are ended by one entry. */
const MAX_EACH = 64;
const MAX_ALL = 1_000_000;
/** How many entries are told to the store at a time. */
const CHUNK = 500;
/** Longest part of an implausible key that the log shows. */
const MAX_SHOWN = 80;

export interface LiveOptions {
  readonly store: Store;
  /** Names the application on the store. */
  readonly application: string;
  /** How long a session can last here: seconds. */
  readonly maxLife: number;
  readonly now: () => Date;
  /** How old what this process knows may be: milliseconds. */
  readonly staleAfter: number;
  /** Whether to go on by what it knew, when that is older. */
  readonly allowStale: boolean;
  /** Is told what fails in the store, since nobody else is. */
  readonly complain: (message: string, level?: 'error' | 'info') => void;
  /** How many ended sessions are remembered, before nobody can log in any more. */
  readonly most?: number;
}

/** What the store could not be told, and what no longer has to hold here alone once it was. */
interface Untold {
  readonly job: () => Promise<void>;
  readonly release: () => void;
}

/**
 * Which sessions are still live, and what is to be told when one ends. This process keeps a copy of what the store knows
 * to have ended, so that a request asks nobody; what it knows, the store is told again whenever it may have forgotten.
 */
export class LiveSessions {
  /** Reports why the store cannot be used. */
  readonly complaints: Complaints;
  readonly #options: LiveOptions;
  readonly #store: Store;
  readonly #ended = new Ended();
  readonly #watches = new Watches();
  /** Writes that the store has not answered yet. */
  readonly #telling = new Set<Promise<void>>();
  /** What the store could not be told yet, by what it is about. */
  readonly #untold = new Map<string, Untold>();
  /** Throttles the log: a store may be full of junk. */
  readonly #reporting = new Pace(60);
  /** Number of implausible entries since the log was last told. */
  #implausible = 0;
  #mark: string | undefined;
  #stale = false;
  #askedWhy = Number.NEGATIVE_INFINITY;
  #swept: number;
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #unsubscribe: (() => void) | undefined;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.complaints = new Complaints(options.complain);
    this.#store = options.store;
    this.#swept = this.#second();
  }

  /** Learns what the store knows, now and from now on. @throws what the store does. */
  async start(): Promise<void> {
    if (this.#unsubscribe) return;
    const waiting = this.#explainWaiting();
    try {
      const stop = await this.#store.subscribe(ENDED, {
        changed: (entry) => this.#learn(entry),
        missed: () => this.#catchUp(),
      });
      this.complaints.clear();
      if (this.#closed) stop();
      else this.#unsubscribe = stop;
    } finally {
      clearInterval(waiting);
    }
  }

  /** Says why a store is waited for, and anew where the reason changes. What it throws in the end is not said here. */
  #explainWaiting(): NodeJS.Timeout {
    const explain = () => {
      if (this.#closed || this.#unsubscribe) return;
      this.#reasonOf((error) => {
        if (!(error instanceof TypeError)) this.complaints.add('the store cannot be reached', error);
      });
    };
    explain();
    return setInterval(explain, EXPLAIN_EVERY).unref();
  }

  /** The store's mark. @throws SessionError where nothing can be said of any session, since too little was heard. */
  mark(): string {
    if (this.#mark === undefined || !this.#hearsEnough()) throw storeAway();
    return this.#mark;
  }

  isOf(mark: string): boolean {
    return mark === this.#mark;
  }

  /** How many sessions it knows to have been ended one by one. */
  get size(): number {
    return this.#ended.size;
  }

  /** Whether so much was ended that no more sessions may begin. What was ended is never forgotten before its time. */
  get isFull(): boolean {
    return this.#ended.total >= (this.#options.most ?? MAX_ALL);
  }

  /** Whether the store has yet to be told of a revocation, after it has answered what it is being told. */
  async hasUntold(): Promise<boolean> {
    await Promise.allSettled(this.#telling);
    return this.#untold.size > 0;
  }

  isEnded(handle: Handle): boolean {
    return this.#ended.has(handle);
  }

  /** Whether a session was revoked together with all earlier ones of its user. */
  isCut(handle: Handle): boolean {
    return this.#ended.isCut(handle);
  }

  isTokenEnded(handle: string): boolean {
    return this.#ended.hasToken(handle);
  }

  /** @param group hash of a binding cookie. */
  isGroupEnded(group: string): boolean {
    return this.#ended.hasGroup(group);
  }

  /**
   * Returns the next login sequence number, which is larger than any that was seen here.
   *
   * @throws Error if the counter of the store does not grow: then no cutoff and no unblocking would have an effect.
   */
  async next(): Promise<number> {
    const seen = this.#ended.latest;
    const number = await this.#store.next(seen);
    if (number > seen && isLoginNumber(number, this.#second())) return number;
    throw new Error(
      `its login counter (in Redis the key "number" after the prefix, in LMDB the record "count") gave ${number} after ${seen}, and the number has to grow and to be at most the time in microseconds: something else has written to the counter, or the clocks differ by more than a day. Set the clocks right, then run ucam-webauth store invalidate`,
    );
  }

  isBlocked(wls: string, principal: string): boolean {
    return this.#ended.isBlocked(wls, principal);
  }

  /** Ends a session, or a token, everywhere. It is remembered until it would have ended by itself. */
  async end(handle: Handle, ends: Date): Promise<void> {
    const expires = this.#withSlack(ends);
    if (handle.login === Number.POSITIVE_INFINITY) {
      return this.#put(revocationEntry(tokenName(handle.sessionId), unowned, expires));
    }
    const owner = ownerOf(handle);
    const name = sessionName(handle.sessionId);
    const others = this.#foldable(owner.person, name);
    if (others.length >= MAX_EACH) return this.#fold(owner.person, [...others, owner]);
    await this.#put(revocationEntry(name, owner, expires));
  }

  /**
   * Notes that a person has logged in with a binding cookie, so that a cutoff stands for its revocation only where it ends
   * all of its sessions.
   */
  async join(group: string, handle: Handle, ends: Date): Promise<void> {
    const entry = memberEntry(group, ownerOf(handle), this.#withSlack(ends));
    this.#learn(entry);
    await this.#store.put(entry.key, entry.value, entry.expires);
  }

  /**
   * Ends all sessions that are bound to a cookie, in whichever applications.
   *
   * @param handle one of these sessions.
   */
  async endGroup(handle: Handle): Promise<void> {
    const { group } = handle;
    const name = bindingName(group);
    const owner = this.#ended.ownerOfGroup(group, ownerOf(handle));
    const others = this.#foldable(owner.person, name);
    await this.#put(revocationEntry(name, owner, this.#after(this.#ended.longestLife + SLACK)));
    if (owner.person === '') return;
    // The revocation says it now. What cannot be deleted expires.
    await this.#store.delete(memberEntry(group, owner, new Date(0)).key).catch(() => {});
    // Not this one itself: a login of the browser may be under way, and finds the binding cookie revoked.
    if (others.length >= MAX_EACH) await this.#fold(owner.person, others);
  }

  /** Ends all sessions of a person, whenever and wherever they began. */
  async endAll(wls: string, principal: string): Promise<void> {
    const person = personOf(wls, principal);
    const cut = async () => this.#cut(person, await this.next());
    await this.#tell(`all ${person}`, cut, this.#hold(person, 'cut'));
  }

  /** Keeps a person out, and ends all that they have. */
  async block(wls: string, principal: string): Promise<void> {
    const person = personOf(wls, principal);
    await this.#tell(`block ${person}`, () => this.#setBlocked(person, true), this.#hold(person, 'block'));
  }

  /** Lets a person in again; not later, if the store cannot be told now: somebody may have blocked them anew by then. */
  async unblock(wls: string, principal: string): Promise<void> {
    const person = personOf(wls, principal);
    await this.#setBlocked(person, false);
    this.#untold.get(`block ${person}`)?.release();
    this.#untold.delete(`block ${person}`);
  }

  /**
   * Calls back once when the session ends, by revocation or by the clock, and before that whenever it is to end later.
   * Returns a function that stops watching.
   */
  watch(handle: Handle, ends: Date, because: EndsBecause, onEnd: OnEnd, onRenew?: OnRenew): () => void {
    const over = this.isEnded(handle) ? revoked() : ends <= this.#options.now() ? expired(because) : undefined;
    if (over !== undefined) {
      onEnd(over);
      return () => {};
    }
    const isToken = handle.login === Number.POSITIVE_INFINITY;
    const name = isToken ? tokenName(handle.sessionId) : sessionName(handle.sessionId);
    const group = handle.group === '' ? '' : bindingName(handle.group);
    const watch = { handle, name, group, onEnd, onRenew, ends: Math.ceil(ends.getTime() / 1000), because };
    this.#watches.add(watch);
    this.#timer ??= setInterval(() => this.sweep(), SWEEP_EVERY).unref();
    return () => this.#forget(watch);
  }

  /** Lets a session's watches go on until another end, if that is later. */
  postpone(sessionHash: string, endOf: (handle: Handle) => End | undefined): void {
    for (const watch of this.#watches.named(`session.${sessionHash}`)) {
      const end = endOf(watch.handle);
      if (end && this.#watches.postpone(watch, end)) reporting(() => watch.onRenew?.(end));
    }
  }

  /** Ends what is due by the clock, and everything if too little is heard of what was ended. */
  sweep(): void {
    // First: the store may just tell that something was renewed.
    const hears = this.#watches.size === 0 || this.#hearsEnough();
    const now = this.#second();
    for (const watch of this.#watches.dueBetween(this.#swept, now)) this.#end(watch, expired(watch.because));
    this.#swept = now;
    if (!hears) {
      for (const watch of this.#watches.all()) this.#end(watch, storeAway());
    }
  }

  stop(): void {
    this.#closed = true;
    // Who hears of no revocations must not let anybody in.
    this.#mark = undefined;
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#timer = undefined;
    this.#unsubscribe?.();
  }

  /**
   * Merges what the store knows into what is known here, and never replaces it; and tells the store what it lacks, before
   * the mark says that it lacks nothing. So a store that came back empty, or as it was a while ago, revives nobody.
   */
  async #catchUp(): Promise<void> {
    const { application, maxLife, now } = this.#options;
    const entries = await this.#store.list(ENDED);
    const there = new Map<string, Entry>();
    await inTurns(membersFirst(entries), (entry) => {
      if (this.#learn(entry)) there.set(entry.key, entry);
    });
    const longest = Math.max(maxLife, this.#ended.lifeOf(application));
    this.#learn(lifeEntry(application, longest, this.#after(YEAR + SLACK)));
    const chunk: Promise<void>[] = [];
    for (const { key, value, expires } of this.#ended.missingFrom(there)) {
      if (expires > now()) chunk.push(this.#store.put(key, value, expires));
      if (chunk.length === CHUNK) await Promise.all(chunk.splice(0));
    }
    await Promise.all(chunk);
    this.#setMark(await this.#store.mark(this.#mark));
  }

  #setMark(mark: string): void {
    if (this.#closed) return;
    const before = this.#mark;
    this.#mark = mark;
    if (before === undefined || before === mark) return;
    for (const watch of this.#watches.all()) this.#end(watch, forgotten());
  }

  #hearsEnough(): boolean {
    const lag = this.#store.lag();
    const stale = lag > this.#options.staleAfter;
    if (stale !== this.#stale) this.#announce(stale);
    if (stale) this.#askWhy();
    return !stale || this.#options.allowStale;
  }

  #announce(stale: boolean): void {
    this.#stale = stale;
    const { complain, allowStale, staleAfter } = this.#options;
    const then = allowStale ? 'sessions are trusted all the same' : 'sessions are refused until it is heard again';
    if (stale) complain(`nothing was heard of the store for ${staleAfter / 1000} s: ${then}`);
    else complain('the store is heard again', 'info');
    this.complaints.clear();
  }

  /** Says why, once for each reason: a store says what is wrong with it only where it is asked something. */
  #askWhy(): void {
    const now = performance.now();
    if (now - this.#askedWhy < ASK_WHY_EVERY) return;
    this.#askedWhy = now;
    this.#reasonOf((error) => this.complaints.add('the store failed', error));
  }

  /** Asks the store for a key that nothing has: where the store cannot be used, it throws the reason. */
  #reasonOf(report: (error: Error) => void): void {
    this.#store.get(ENDED).catch((error: Error) => {
      if (!this.#closed) report(error);
    });
  }

  async #setBlocked(person: string, blocked: boolean): Promise<void> {
    const superseded = this.#ended.blockOf(person);
    const number = await this.next();
    // Also what has begun while the word of it was on its way.
    await this.#cut(person, number);
    const entry = blockEntry(person, number, blocked, this.#after(YEAR * 100));
    await this.#store.put(entry.key, entry.value, entry.expires);
    this.#learn(entry);
    if (superseded !== undefined) await this.#store.delete(blockEntry(person, superseded, false, new Date(0)).key);
  }

  /** Ends by one entry what a person has ended one by one, and whatever else of theirs began before the last of that. */
  async #fold(person: string, each: readonly Owner[]): Promise<void> {
    const below = Math.max(...each.map(({ login }) => login)) + 1;
    const covered = this.#ended.coveredBy(person, below, this.#cutExpires());
    await this.#tell(`together ${person}`, () => this.#cut(person, below, covered));
  }

  /** @param covered names of revocations that the cutoff stands for, beside those that are known now. */
  async #cut(person: string, below: number, covered: readonly string[] = []): Promise<void> {
    const superseded = this.#ended.cutOf(person) ?? below;
    const expires = this.#cutExpires();
    const names = new Set([...covered, ...this.#ended.coveredBy(person, below, expires)]);
    const entry = cutEntry(person, below, expires);
    this.#learn(entry);
    await this.#store.put(entry.key, entry.value, entry.expires);
    const needless = [...names].map((name) => `${ENDED}:${name}`);
    if (superseded < below) needless.push(cutEntry(person, superseded, new Date(0)).key);
    await Promise.all(needless.map((key) => this.#store.delete(key)));
  }

  /** Returns the owners of a person's revocations that a cutoff could stand for, of sessions that could live still. */
  #foldable(person: string, except: string): readonly Owner[] {
    const found = this.#ended.foldable(person, this.#second() + SLACK);
    // One that is ended again, which anybody can with an old cookie while the store is away, counts once.
    found.delete(except);
    return [...found.values()];
  }

  #cutExpires(): Date {
    return this.#after(YEAR + SLACK);
  }

  /** Holds here at once, whenever the store gets to giving it a number. */
  #hold(person: string, what: 'cut' | 'block'): () => void {
    const release = this.#ended.hold(person, what);
    this.#endPerson();
    return release;
  }

  async #put(entry: Entry): Promise<void> {
    if (!this.#learn(entry)) throw new Error('the session cannot be ended: it was not made here');
    await this.#tell(entry.key, () => this.#store.put(entry.key, entry.value, entry.expires));
  }

  /**
   * Tells the store; where that fails, again and again until it has heard.
   * @param about what is said; it takes the place of what was to be said of that before.
   * @throws what the store does the first time.
   */
  async #tell(about: string, job: () => Promise<void>, done?: () => void): Promise<void> {
    const telling = this.#tellOnce(about, job, done);
    this.#telling.add(telling);
    return telling.finally(() => this.#telling.delete(telling));
  }

  async #tellOnce(about: string, job: () => Promise<void>, done = () => {}): Promise<void> {
    const before = this.#untold.get(about);
    this.#untold.delete(about);
    const release = () => {
      before?.release();
      done();
    };
    try {
      await job();
      release();
    } catch (error) {
      this.#queue(about, { job, release });
      throw error;
    }
  }

  #queue(about: string, { job, release }: Untold): void {
    // Another one about the same may have failed meanwhile: this one says it for both.
    const other = this.#untold.get(about);
    const both = () => {
      other?.release();
      release();
    };
    this.#untold.set(about, { job, release: both });
    this.#retryLater();
  }

  #retryLater(): void {
    if (this.#closed) return;
    this.#retry ??= setTimeout(() => this.#tellAgain(), RETRY_AFTER).unref();
  }

  async #tellAgain(): Promise<void> {
    for (const [about, untold] of this.#untold) {
      try {
        await untold.job();
      } catch {
        // The last in turn from now on: what fails for a reason of its own must not hold up the others.
        if (this.#untold.get(about) === untold && this.#untold.delete(about)) this.#untold.set(about, untold);
        break;
      }
      untold.release();
      if (this.#untold.get(about) === untold) this.#untold.delete(about);
    }
    this.#retry = undefined;
    if (this.#untold.size > 0) this.#retryLater();
  }

  /** Returns whether the entry is plausible. */
  #learn(entry: Entry): boolean {
    const learned = this.#ended.learn(entry, this.#second());
    if (learned === undefined) {
      this.#reject(entry);
      return false;
    }
    const { name, person } = learned;
    if (name !== undefined) for (const watch of this.#watches.named(name)) this.#end(watch, revoked());
    if (person !== undefined) this.#endPerson();
    return true;
  }

  #reject({ key }: Entry): void {
    this.#implausible += 1;
    if (!this.#reporting.isDue(this.#second())) return;
    const shown = JSON.stringify(String(key).slice(0, MAX_SHOWN));
    const which = this.#implausible === 1 ? shown : `${this.#implausible} entries, the last one ${shown}`;
    this.#options.complain(
      `the store holds what this version of ucam-webauth does not write, and it was ignored: ${which}. An earlier version, a clock that is wrong by more than a day, or something else that writes to the store has put it there`,
    );
    this.#implausible = 0;
  }

  /** Looks at all watches: it is rare, and an index would cost each socket. */
  #endPerson(): void {
    for (const watch of this.#watches.all()) if (this.#ended.has(watch.handle)) this.#end(watch, revoked());
  }

  #end(watch: Watch, error: SessionError): void {
    if (this.#forget(watch)) reporting(() => watch.onEnd(error));
  }

  #forget(watch: Watch): boolean {
    const was = this.#watches.forget(watch);
    if (this.#watches.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
    return was;
  }

  /** In whole seconds, in which this process remembers it: so that it is the same in the store. */
  #withSlack(ends: Date): Date {
    const latest = this.#after(YEAR + SLACK);
    const end = new Date(Math.ceil(ends.getTime() / 1000 + SLACK) * 1000);
    return end < latest ? end : latest;
  }

  #after(seconds: number): Date {
    return new Date((this.#second() + 1 + seconds) * 1000);
  }

  #second(): number {
    return Math.floor(this.#options.now().getTime() / 1000);
  }
}

/** Calls the application. A mistake there is reported as any that nobody catches, but only after others were told. */
export function reporting(call: () => void): void {
  try {
    call();
  } catch (mistake) {
    queueMicrotask(() => {
      throw mistake;
    });
  }
}

function ownerOf({ wls, principal, login }: Handle): Owner {
  return { person: personOf(wls, principal), login };
}

/** Sorts memberships first: a cutoff stands for the revocation of a binding cookie only if its users are known. */
function membersFirst(entries: readonly Entry[]): readonly Entry[] {
  const isMember = ({ key }: Entry) => String(key).startsWith(`${ENDED}:member.`);
  return [...entries.filter(isMember), ...entries.filter((entry) => !isMember(entry))];
}
