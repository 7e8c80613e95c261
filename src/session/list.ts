import { digest } from '../digest.js';
import type { LiveSessions } from './live.js';
import { Minutely } from './pace.js';
import type { Sealer } from './seal.js';
import type { Auth } from './session.js';
import type { Store } from './store.js';

/** A session, as its person can be shown it. */
export interface ListedSession {
  /** Names the session; a hash, and not a credential. */
  readonly handle: string;
  readonly created: Date;
  /** To the minute. */
  readonly lastSeen: Date;
  readonly expires: Date;
  /** What the browser says that it is: at most 200 characters, and anything at all. */
  readonly userAgent: string;
  /** Whether it is the one that asks. */
  readonly current: boolean;
}

/** What is kept of one. Instants are milliseconds. */
interface Kept extends Pick<Auth, 'sessionId' | 'group' | 'login' | 'principal'> {
  readonly created: number;
  readonly lastSeen: number;
  readonly expires: number;
  readonly userAgent: string;
}

/** What is kept in a store for the people of one application. */
export interface DeskOptions {
  readonly store: Store;
  readonly live: LiveSessions;
  readonly sealer: Sealer;
  readonly now: () => Date;
  /** Whose it is: what is another application's is none here, though it may share the store. */
  readonly place: string;
  readonly wls: string;
  /** Does what asks the store, and says so where that fails. */
  readonly ask: <T>(work: () => Promise<T>) => Promise<T>;
}

/** Names a person of one application, hashed, so that the store does not say who it is. */
export function ownerOf({ place, wls }: DeskOptions, principal: string): string {
  return digest(JSON.stringify([place, wls, principal]));
}

export interface SessionListOptions extends DeskOptions {
  /** Seconds. */
  readonly inactiveTimeout: number | undefined;
}

/** For so long it may not be known that a session is in use: milliseconds. */
const UNSEEN = 60_000;
const MAX_AGENT = 200;

/** People's sessions, as they may see and end them. The store has what is known of them sealed. */
export class SessionList {
  readonly #options: SessionListOptions;
  readonly #written = new Minutely();

  constructor(options: SessionListOptions) {
    this.#options = options;
  }

  /** @param ends when the session ends however it is used. @param userAgent the browser's own word for itself. */
  note(auth: Auth, ends: Date, userAgent = ''): void {
    const { now, ask } = this.#options;
    const time = now().getTime();
    if (!this.#written.isDue(auth.sessionId, time)) return;
    const { sessionId, group, login, principal } = auth;
    const times = { created: auth.loggedInAt.getTime(), lastSeen: time, expires: ends.getTime() };
    const kept = { sessionId, group, login, principal, ...times, userAgent: userAgent.slice(0, MAX_AGENT) };
    // Nobody waits for it; what fails is in the log.
    ask(() => this.#keep(kept)).catch(() => {});
  }

  /** The live sessions of a person, the one used last first. @param asking the session that asks. */
  async list(principal: string, asking?: Auth): Promise<ListedSession[]> {
    return (await this.#find(principal)).map((kept) => show(kept, asking));
  }

  /** Ends one of a person's sessions everywhere. @returns whether they have one of that handle. */
  async revoke(principal: string, handle: string): Promise<boolean> {
    const { store, live, wls, ask } = this.#options;
    const kept = (await this.#find(principal)).find(({ sessionId }) => digest(sessionId) === handle);
    if (kept === undefined) return false;
    await ask(async () => {
      await live.end({ ...kept, wls }, new Date(kept.expires));
      await store.delete(`${this.#folder(principal)}:${handle}`);
    });
    return true;
  }

  async #find(principal: string): Promise<Kept[]> {
    const { store, live, wls, ask } = this.#options;
    const entries = await ask(() => store.list(this.#folder(principal)));
    return (
      entries
        .map(({ value }) => this.#open(value))
        .filter((kept) => kept !== undefined)
        // Who can write to the store may have put another person's there.
        .filter((kept) => kept.principal === principal && !live.isEnded({ ...kept, wls }) && !this.#isIdle(kept))
        .sort((a, b) => b.lastSeen - a.lastSeen)
    );
  }

  async #keep(kept: Kept): Promise<void> {
    const { sealer, store } = this.#options;
    const key = `${this.#folder(kept.principal)}:${digest(kept.sessionId)}`;
    await store.put(key, sealer.seal(JSON.stringify(kept)), new Date(kept.expires));
  }

  #open(sealed: string): Kept | undefined {
    const opened = this.#options.sealer.open(sealed);
    return typeof opened === 'string' ? undefined : (JSON.parse(opened.text) as Kept);
  }

  #isIdle({ lastSeen }: Kept): boolean {
    const { inactiveTimeout = Number.POSITIVE_INFINITY, now } = this.#options;
    return now().getTime() - lastSeen > inactiveTimeout * 1000 + UNSEEN;
  }

  #folder(principal: string): string {
    return `sessions.${ownerOf(this.#options, principal)}`;
  }
}

function show({ sessionId, created, lastSeen, expires, userAgent }: Kept, asking: Auth | undefined): ListedSession {
  return {
    handle: digest(sessionId),
    created: new Date(created),
    lastSeen: new Date(lastSeen),
    expires: new Date(expires),
    userAgent,
    current: asking?.sessionId === sessionId,
  };
}
