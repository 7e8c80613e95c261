import { setTimeout as delay } from 'node:timers/promises';
import { digest } from '../digest.js';
import { SessionError, WebauthError } from '../errors.js';
import type { Handle } from './ended.js';
import { SessionList } from './list.js';
import { type LiveOptions, LiveSessions } from './live.js';
import { expired, forgotten, revoked, storeAway } from './over.js';
import { OwnAuth } from './own-auth.js';
import { Recent } from './recent.js';
import { Renewals } from './renewals.js';
import type { Sealer } from './seal.js';
import {
  type Auth,
  describe,
  earliestEnd,
  isRenewable,
  type Lifetimes,
  newSessionId,
  openSession,
  type Session,
  sealSession,
  sessionEnd,
} from './session.js';
import type { Store } from './store.js';
import { Tickets } from './tickets.js';
import { blocked, Tokens } from './tokens.js';
import type { End, OnEnd, OnRenew } from './watches.js';

// Milliseconds.
const RETRY_AFTER = 1000;
const START_DEADLINE = 5000;

/** What sessions are made from. */
export interface SessionsOptions {
  /** What seals things of that kind, bound to more if that is given, under a key that is for nothing else. */
  readonly sealerOf: (purpose: string, ...bound: string[]) => Sealer;
  readonly store: Store;
  readonly lifetimes: Lifetimes;
  /** Name of the login service. */
  readonly wls: string;
  /** Origin and path of the application. */
  readonly place: string;
  /** Name of its session cookie. */
  readonly cookie: string;
  readonly now: () => Date;
  /** How old what this process knows of ended sessions may be: milliseconds; and whether to go on when it is older. */
  readonly staleAfter: number;
  readonly allowStale: boolean;
  /** Whether to keep a list of people's sessions. */
  readonly listed: boolean;
  /** Is told what fails in the store, since nobody else is. */
  readonly complain: LiveOptions['complain'];
}

/** What opens sockets at another origin, and nothing else. */
export interface SocketCookies {
  /** The cookie of the session that a ticket stands for, which uses that up. @throws SessionError as `takeTicket`. */
  take(ticket: string): Promise<string>;
  /** Whose it is. @throws SessionError if there is no live session in it. */
  open(cookie: string): Auth;
}

/** What a session is begun with. */
export interface Beginning extends Pick<Session, 'principal' | 'ptags' | 'auth' | 'sso'> {
  readonly issue: Date;
  /** Seconds. */
  readonly life: number | undefined;
}

/** The sessions of one application. Each is in its cookie; what has to be remembered beside that is in the store. */
export class Sessions {
  readonly tokens: Tokens;
  /** Where people's sessions are listed. */
  readonly list: SessionList | undefined;
  readonly #options: SessionsOptions;
  readonly #sealer: Sealer;
  /** What cookies hold that came lately: a browser sends the same one again and again. Whether it is live is another question. */
  readonly #recent = new Recent<Session>();
  readonly #live: LiveSessions;
  readonly #tickets: Tickets;
  /** Of those that may end before what was settled at the login, all that their cookies say. */
  readonly #whole = new WeakMap<Handle, Session>();
  /** What keeps sockets open while their sessions are in use; undefined where no session ends by not being used. */
  readonly #renewals: Renewals | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  /**
   * Resolves once the store has been heard, or not for some seconds; until it is, nobody has a session. Rejects if the
   * store cannot be used as it is configured.
   */
  readonly ready: Promise<void>;

  constructor(options: SessionsOptions) {
    const { sealerOf, store, now, place, cookie, wls, staleAfter, allowStale, complain } = options;
    const application = digest('application', JSON.stringify([place, cookie]));
    this.#options = options;
    this.#sealer = sealerOf('session');
    const { maxLife, inactiveTimeout } = options.lifetimes;
    this.#live = new LiveSessions({ store, application, maxLife, now, staleAfter, allowStale, complain });
    this.#tickets = new Tickets(store, now, sealerOf('ticket'), place);
    const ask = <T>(work: () => Promise<T>) => this.#ask(work);
    const shared = { store, live: this.#live, now, place, wls, ask };
    const heard = () => this.ready.catch(() => {});
    this.tokens = new Tokens({ ...shared, sealer: sealerOf('token'), heard });
    this.list = options.listed ? new SessionList({ ...shared, sealer: sealerOf('list'), inactiveTimeout }) : undefined;
    const onUse = (name: string, seen: number) => this.#live.postpone(name, (auth) => this.#endAfter(auth, seen));
    this.#renewals =
      inactiveTimeout === undefined
        ? undefined
        : new Renewals({ store, sealer: sealerOf('renewal'), application, inactiveTimeout, now, ask, onUse });
    this.ready = this.#start();
    // Who waits for it hears of it; the log does anyway.
    this.ready.catch(() => {});
  }

  /**
   * @param anchor what the browser's anchor cookie will hold, where there is one.
   * @throws SessionError if the store cannot be reached; AuthorisationError if the person is blocked.
   */
  async begin({ principal, ptags, auth, sso, issue, life }: Beginning, anchor?: string): Promise<Session> {
    await this.ready.catch(() => {});
    const { wls, lifetimes, now } = this.#options;
    const mark = this.#live.mark();
    if (this.#live.isBlocked(wls, principal)) throw blocked(principal);
    if (this.#live.isFull) throw tooMuchEnded();
    const who = { id: newSessionId(), principal, ptags, auth, sso, wls };
    const begun = now().getTime();
    const times = { issue: issue.getTime(), loggedIn: begun, lastSeen: begun };
    const end = sessionEnd(times.issue, life, lifetimes);
    const login = await this.#ask(() => this.#live.next());
    const session = { ...who, login, ...times, ...end, mark, anchor: anchorOf(anchor) };
    if (anchor !== undefined) await this.#join(session, anchor);
    return session;
  }

  seal(session: Session): string {
    return sealSession(this.#sealer, session);
  }

  describe(session: Session, via: Auth['via'] = 'cookie'): Auth {
    const auth = describe(session, this.#options.lifetimes, via);
    if (auth.expires.getTime() < session.expires) this.#whole.set(auth, session);
    return auth;
  }

  /** @throws SessionError if there is no live session in the cookie. */
  open(cookie: string | undefined, anchor?: string): Auth {
    return this.#check(this.#read(cookie), 'cookie', anchorOf(anchor));
  }

  /**
   * Opens a session cookie to revoke its session, which may have expired, have been revoked, have lost its binding
   * cookie or have begun with another login service. The store is not needed.
   * @throws SessionError if no secret of this application sealed the cookie.
   */
  peek(cookie: string): Auth {
    return this.describe(openSession(this.#sealer, cookie));
  }

  /** Whether a peeked session is bound to that binding cookie. */
  isBound(auth: Auth, anchor: string | undefined): boolean {
    return auth.group === anchorOf(anchor);
  }

  /** Whether a peeked session passes every check of `open` but that the store was heard of late. */
  isTrusted(auth: Auth, anchor: string | undefined): boolean {
    const isHere = auth.wls === this.#options.wls && this.isBound(auth, anchor);
    return isHere && this.#isKnown(auth) && !this.#live.isEnded(auth) && auth.expires > this.#options.now();
  }

  /** Whether a peeked session is known to be revoked, or to be none that the store knows. */
  isRevoked(auth: Auth): boolean {
    return this.#live.isEnded(auth) || this.#isForgotten(auth);
  }

  /** Whether a user or the application revoked a peeked session. */
  isEnded(auth: Auth): boolean {
    return this.#live.isEnded(auth);
  }

  /** Whether a peeked session with that binding cookie was revoked together with all earlier ones of its user. */
  isEndedWithOthers(auth: Auth, anchor: string | undefined): boolean {
    return auth.wls === this.#options.wls && this.isBound(auth, anchor) && this.#live.isCut(auth);
  }

  /** As `isRevoked`, once the store has been told of every revocation that this process made. */
  async isRevokedEverywhere(auth: Auth): Promise<boolean> {
    return this.isRevoked(auth) && !(await this.#live.hasUntold());
  }

  /** Makes what was said of one session be what is said of another. */
  adopt(auth: Auth, fresh: Auth): void {
    const whole = this.#whole.get(fresh);
    OwnAuth.replace(auth, fresh);
    if (whole) this.#whole.set(auth, whole);
    else this.#whole.delete(auth);
  }

  /**
   * The same session as just used, and the cookie that says so; undefined where that need not be said. Its sockets hear
   * of it, on whichever process.
   */
  renew(auth: Auth): { readonly auth: Auth; readonly cookie: string } | undefined {
    const { lifetimes, now: clock } = this.#options;
    const session = lifetimes.inactiveTimeout === undefined ? undefined : this.#whole.get(auth);
    const now = clock().getTime();
    if (session === undefined || !isRenewable(session, lifetimes, now)) return undefined;
    const renewed = { ...session, lastSeen: now };
    const fresh = this.describe(renewed, auth.via);
    this.#renewals?.publish(fresh.sessionId, now, fresh.expires);
    return { auth: fresh, cookie: this.seal(renewed) };
  }

  async makeTicket(
    cookie: string | undefined,
    anchor?: string,
  ): Promise<{ readonly ticket: string; readonly expires: Date }> {
    const session = this.#read(cookie);
    this.#check(session, 'cookie', anchorOf(anchor));
    // A request for a ticket is a use of the session.
    const lastSeen = this.#options.now().getTime();
    return this.#ask(() => this.#tickets.make({ ...session, lastSeen }));
  }

  async takeTicket(ticket: string): Promise<Auth> {
    return (await this.#take(ticket)).auth;
  }

  /** They open without the anchor, as tickets do: it is for cookies that a neighbour can plant. */
  socketCookies(name: string, origin: string): SocketCookies {
    const [sealer, recent] = [this.#options.sealerOf('socket', name, origin), new Recent<Session>()];
    return {
      take: async (ticket) => sealSession(sealer, (await this.#take(ticket)).session),
      open: (cookie) => {
        const session = this.#read(cookie, sealer, recent);
        // That is made once; the session's own cookie goes on saying when it was used.
        const lastSeen = Math.max(session.lastSeen, this.#renewals?.lastSeen(session.id) ?? 0);
        return this.#check({ ...session, lastSeen }, 'cookie', session.anchor);
      },
    };
  }

  /** @throws SessionError if the session, which was open before, has ended meanwhile. */
  recheck(auth: Auth): void {
    this.#live.mark();
    this.#checkKnown(auth);
    if (auth.expires > this.#options.now()) return;
    // Other requests may have kept the session in use while this one was slow.
    this.#checkTime(this.#endAfter(auth, this.#renewals?.lastSeen(auth.sessionId)) ?? auth);
  }

  /** Uses a key up: true the first time. */
  async spend(key: string, expires: Date): Promise<boolean> {
    return this.#ask(() => this.#options.store.spend(key, expires));
  }

  /** Ends one session, and no other of the browser's. */
  async revoke(auth: Auth): Promise<void> {
    await this.#ask(() => this.#live.end(auth, this.endOf(auth)));
    this.list?.forget(auth);
  }

  /**
   * Ends a session, and those of other applications that share the browser's anchor with it.
   * @throws SessionError if the store cannot be told: it is, as soon as it can be.
   */
  async logOut(auth: Auth): Promise<void> {
    try {
      await this.#ask(() => (auth.group === '' ? this.#live.end(auth, this.endOf(auth)) : this.#live.endGroup(auth)));
    } catch {
      throw endedHere();
    }
    this.list?.forget(auth);
  }

  /**
   * As `logOut`, for a session that may be revoked already: then the store is told no second time, since anyone with an
   * old cookie could have that repeated while the store is away. Returns whether there was something to revoke.
   */
  async logOutPeeked(auth: Auth): Promise<boolean> {
    if (!this.#live.isEnded(auth)) {
      await this.logOut(auth);
      return true;
    }
    // Another request may have revoked it, or all of its binding cookie or user, and the store has yet to answer.
    if (await this.#live.hasUntold()) throw endedHere();
    return false;
  }

  /** Ends all sessions of a person. */
  async revokeAll(principal: string): Promise<void> {
    await this.#ask(() => this.#live.endAll(this.#options.wls, principal));
  }

  async block(principal: string): Promise<void> {
    await this.#ask(() => this.#live.block(this.#options.wls, principal));
  }

  async unblock(principal: string): Promise<void> {
    await this.#ask(() => this.#live.unblock(this.#options.wls, principal));
  }

  /** Whether a browser's anchor was ended, by logging out: then it may not be bound to again. */
  isSpent(anchor: string): boolean {
    return this.#live.isGroupEnded(anchorOf(anchor));
  }

  /** When a session ends however it is used: what its `expires` said at the login. */
  endOf(auth: Auth): Date {
    const session = this.#whole.get(auth);
    return session === undefined ? auth.expires : new Date(session.expires);
  }

  watch(auth: Auth, onEnd: OnEnd, onRenew?: OnRenew): () => void {
    // It may have been used since that was read.
    const { expires, expiresBecause } = this.#endAfter(auth, this.#renewals?.lastSeen(auth.sessionId)) ?? auth;
    if (expires > auth.expires) onRenew?.({ expires, expiresBecause });
    if (!this.#isKnown(auth)) {
      onEnd(forgotten());
      return () => {};
    }
    // No more than is needed, and of our own: there may be many watches, and `auth` is the application's.
    const { sessionId, group, principal, login } = auth;
    const handle = { sessionId, group, wls: this.#options.wls, principal, login };
    const whole = this.#whole.get(auth);
    if (whole) this.#whole.set(handle, whole);
    return this.#live.watch(handle, expires, expiresBecause, onEnd, this.#renewals && onRenew);
  }

  /** @throws SessionError if the store has not been reached for `staleAfter`. */
  checkStore(): void {
    this.#live.mark();
  }

  stop(): void {
    this.#closed = true;
    this.#live.stop();
    this.#renewals?.stop();
    clearTimeout(this.#retry);
  }

  async #start(): Promise<void> {
    const deadline = new AbortController();
    const late = delay(START_DEADLINE, 'late', { ref: false, signal: deadline.signal }).catch(() => {});
    const first = await Promise.race([this.#hear(), late]).finally(() => deadline.abort());
    if (first === 'late' && !this.#closed && !this.#live.complaints.haveReason)
      this.#complainAway(new Error('it has not answered yet'));
  }

  /** @throws TypeError if the store cannot be used as it is configured. */
  async #hear(): Promise<void> {
    try {
      await this.#live.start();
      await this.#renewals?.start();
    } catch (error) {
      if (error instanceof TypeError) {
        this.#options.complain(`the store cannot be used: ${error.message}`);
        throw Object.assign(error, { code: 'ERR_STORE_UNAVAILABLE' });
      }
      if (this.#closed) return;
      this.#complainAway(error as Error);
      this.#retry = setTimeout(() => this.#hear().catch(() => {}), RETRY_AFTER).unref();
    }
  }

  /** When a session ends that was used then; undefined of a copy, which nobody knows how long to keep in use. */
  #endAfter(auth: Handle, seen = 0): End | undefined {
    const session = this.#whole.get(auth);
    if (session === undefined) return undefined;
    return earliestEnd({ ...session, lastSeen: Math.max(seen, session.lastSeen) }, this.#options.lifetimes);
  }

  #complainAway(why: Error): void {
    this.#live.complaints.add('the store cannot be reached', why);
  }

  async #take(ticket: string): Promise<{ readonly session: Session; readonly auth: Auth }> {
    this.#live.mark();
    const made = await this.#ask(() => this.#tickets.take(ticket));
    // The session may have been used since.
    const lastSeen = Math.max(made.lastSeen, this.#renewals?.lastSeen(made.id) ?? 0);
    const session = { ...made, lastSeen };
    return { session, auth: this.#check(session, 'ticket', session.anchor) };
  }

  #read(cookie: string | undefined, sealer = this.#sealer, recent = this.#recent): Session {
    if (cookie === undefined) throw new SessionError('ERR_SESSION_MISSING', 'nobody is logged in');
    // Without the store nothing can be said of any session.
    this.#live.mark();
    const known = recent.get(cookie);
    if (known) return known;
    const session = openSession(sealer, cookie);
    recent.set(cookie, session);
    return session;
  }

  /** Whether the session or token belongs to the store's present generation. */
  #isKnown(auth: Auth): boolean {
    const mark = OwnAuth.markOf(auth);
    return mark !== undefined && this.#live.isOf(mark);
  }

  #isForgotten(auth: Auth): boolean {
    try {
      this.#live.mark();
    } catch {
      return false;
    }
    return !this.#isKnown(auth);
  }

  #checkKnown(auth: Auth): void {
    if (!this.#isKnown(auth)) throw forgotten();
    if (this.#live.isEnded(auth)) throw revoked();
  }

  #checkTime({ expires, expiresBecause }: End): void {
    if (expires.getTime() <= this.#options.now().getTime()) throw expired(expiresBecause);
  }

  #check(session: Session, via: Auth['via'], anchor: string): Auth {
    if (session.wls !== this.#options.wls) throw revoked(`it was begun with another login service, ${session.wls}`);
    if (!this.#live.isOf(session.mark)) {
      throw revoked('the application was restarted, or its processes share no store, or the store was invalidated');
    }
    const auth = this.describe(session, via);
    this.#checkKnown(auth);
    this.#checkTime(auth);
    if (session.anchor !== anchor) throw unbound(anchor);
    return auth;
  }

  async #join(session: Session, anchor: string): Promise<void> {
    const { id: sessionId, anchor: group, wls, principal, login, expires } = session;
    const handle = { sessionId, group, wls, principal, login };
    await this.#ask(() => this.#live.join(group, handle, new Date(expires)));
    // Afterwards: who logs the browser out meanwhile either knows of this session, or is known of here.
    if (this.isSpent(anchor)) throw revoked('the browser has logged out meanwhile');
  }

  /** Whatever fails in a store is told to the log, and to nobody else. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof WebauthError) throw error;
      this.#options.complain(`the store failed: ${(error as Error).message}`);
      throw storeAway();
    }
  }
}

function anchorOf(held: string | undefined): string {
  return typeof held === 'string' ? digest('binding', held) : '';
}

/** Without it the browser has logged out elsewhere, or it is not this browser's session; with another, it is not ours. */
function unbound(anchor: string): SessionError {
  if (anchor === '')
    return new SessionError('ERR_SESSION_MISSING', 'the session belongs to a cookie that is not there');
  const error = new SessionError('ERR_SESSION_INVALID', 'the session cookie was made for another browser');
  error.cookie = 'broken';
  return error;
}

function endedHere(): SessionError {
  return storeAway('the session is ended here, and other machines may not know it yet');
}

function tooMuchEnded(): SessionError {
  return new SessionError(
    'ERR_LIMIT_REACHED',
    'so many sessions were ended lately that no more can begin: try again later',
  );
}
