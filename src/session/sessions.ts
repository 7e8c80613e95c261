import { setTimeout as delay } from 'node:timers/promises';
import { digest } from '../digest.js';
import { SessionError } from '../errors.js';
import { expired, LiveSessions, type OnEnd, revoked } from './live.js';
import type { Sealer } from './seal.js';
import {
  type Auth,
  describe,
  type Lifetimes,
  newSessionId,
  openSession,
  type Session,
  sealSession,
  sessionEnd,
} from './session.js';
import type { Store } from './store.js';
import { Tickets } from './tickets.js';

// Milliseconds.
const RETRY_AFTER = 1000;
const START_DEADLINE = 5000;

/** What sessions are made from. */
export interface SessionsOptions {
  readonly sealer: Sealer;
  /** For what the store keeps of tickets. */
  readonly ticketSealer: Sealer;
  readonly store: Store;
  readonly lifetimes: Lifetimes;
  /** Name of the login service. */
  readonly wls: string;
  /** Origin and path of the application. */
  readonly place: string;
  readonly now: () => Date;
  /** Is told what fails in the store, since nobody else is. */
  readonly complain: (message: string) => void;
}

/** What a session is begun with. */
export interface Beginning extends Pick<Session, 'principal' | 'ptags' | 'auth' | 'sso'> {
  readonly issue: Date;
  /** Seconds. */
  readonly life: number | undefined;
}

/** The sessions of one application. Each is in its cookie; what has to be remembered beside that is in the store. */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #live: LiveSessions;
  readonly #tickets: Tickets;
  /** When sessions would have ended that end earlier because `maxLife` is shorter now: it may get longer again. */
  readonly #longer = new WeakMap<Auth, Date>();
  #mark: string | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  /** Resolves once the store has first been asked, whether or not it answered; until it does, nobody has a session. */
  readonly ready: Promise<void>;

  constructor(options: SessionsOptions) {
    this.#options = options;
    this.#live = new LiveSessions(options.store, options.now);
    this.#tickets = new Tickets(options.store, options.now, options.ticketSealer, options.place);
    this.ready = this.#start();
  }

  /**
   * @param anchor what the browser's anchor cookie will hold, where there is one.
   * @throws SessionError if the store cannot be reached.
   */
  async begin({ principal, ptags, auth, sso, issue, life }: Beginning, anchor?: string): Promise<Session> {
    await this.#settled();
    const { wls, store, lifetimes, now } = this.#options;
    const mark = this.#known();
    const who = { id: newSessionId(), principal, ptags, auth, sso, wls };
    const login = await this.#ask(() => store.next());
    const times = { issue: issue.getTime(), loggedIn: now().getTime() };
    return { ...who, login, ...times, ...sessionEnd(times.issue, life, lifetimes), mark, anchor: anchorOf(anchor) };
  }

  seal(session: Session): string {
    return sealSession(this.#options.sealer, session);
  }

  describe(session: Session, via: Auth['via'] = 'cookie'): Auth {
    return describe(session, this.#options.lifetimes.maxLife, via);
  }

  /** @throws SessionError if there is no live session in the cookie. */
  open(cookie: string | undefined, anchor?: string): Auth {
    return this.#check(this.#read(cookie, anchor), 'cookie');
  }

  async makeTicket(
    cookie: string | undefined,
    anchor?: string,
  ): Promise<{ readonly ticket: string; readonly expires: Date }> {
    const session = this.#read(cookie, anchor);
    this.#check(session, 'cookie');
    return this.#ask(() => this.#tickets.make(session));
  }

  async takeTicket(ticket: string): Promise<Auth> {
    this.#known();
    return this.#check(await this.#ask(() => this.#tickets.take(ticket)), 'ticket');
  }

  /** @throws SessionError if the session, which was open before, has ended meanwhile. */
  recheck(auth: Auth): void {
    if (this.#live.isRevoked(auth)) throw revoked();
    if (auth.expires.getTime() <= this.#options.now().getTime()) throw expired();
  }

  /** Uses a key up: true the first time. */
  async spend(key: string, expires: Date): Promise<boolean> {
    return this.#ask(() => this.#options.store.spend(key, expires));
  }

  async revoke(auth: Auth): Promise<void> {
    const ends = this.#longer.get(auth) ?? auth.expires;
    await this.#ask(() => this.#live.revoke(auth.sessionId, ends));
  }

  /** @param ends when the last session of the person would end by itself. */
  async revokeAll(principal: string, ends: Date): Promise<void> {
    await this.#ask(() => this.#live.revokeAll(this.#options.wls, principal, ends));
  }

  watch(auth: Auth, onEnd: OnEnd): () => void {
    return this.#live.watch(auth, auth.expires, onEnd);
  }

  stop(): void {
    this.#closed = true;
    // Who hears of no revocations must not let anybody in.
    this.#mark = undefined;
    this.#live.stop();
    clearTimeout(this.#retry);
  }

  async #start(): Promise<void> {
    try {
      await this.#live.start();
      const mark = await this.#options.store.mark();
      if (this.#closed) this.#live.stop();
      else this.#mark = mark;
    } catch (error) {
      this.#options.complain(`the store cannot be reached: ${(error as Error).message}`);
      if (!this.#closed) this.#retry = setTimeout(() => this.#start(), RETRY_AFTER).unref();
    }
  }

  /** Waits for the store, right after the start, but not for ever. */
  async #settled(): Promise<void> {
    if (this.#mark !== undefined) return;
    const deadline = new AbortController();
    const late = delay(START_DEADLINE, undefined, { ref: false, signal: deadline.signal }).catch(() => {});
    await Promise.race([this.ready, late]);
    deadline.abort();
  }

  #read(cookie: string | undefined, anchor: string | undefined): Session {
    if (cookie === undefined) throw new SessionError('ERR_SESSION_MISSING', 'nobody is logged in');
    this.#known();
    const session = openSession(this.#options.sealer, cookie);
    if (session.anchor === anchorOf(anchor)) return session;
    throw new SessionError('ERR_SESSION_INVALID', 'the session cookie was made for another browser');
  }

  #check(session: Session, via: Auth['via']): Auth {
    if (session.wls !== this.#options.wls) throw revoked('it was begun with another login service');
    if (session.mark !== this.#mark) throw revoked('the application was restarted, or its processes share no store');
    const auth = this.describe(session, via);
    this.recheck(auth);
    if (auth.expires.getTime() < session.expires) this.#longer.set(auth, new Date(session.expires));
    return auth;
  }

  /** The store's mark. Without it, nothing can be said of any session. */
  #known(): string {
    if (this.#mark === undefined) throw storeAway();
    return this.#mark;
  }

  /** Whatever fails in a store is told to the log, and to nobody else. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof SessionError) throw error;
      this.#options.complain(`the store failed: ${(error as Error).message}`);
      throw storeAway();
    }
  }
}

function anchorOf(held: string | undefined): string {
  return held === undefined ? '' : digest(held);
}

function storeAway(): SessionError {
  return new SessionError('ERR_STORE_UNAVAILABLE', 'the store of sessions cannot be reached: try again in a moment');
}
