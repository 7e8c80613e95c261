import { digest } from '../digest.js';
import type { LiveSessions } from './live.js';
import { Minutely } from './pace.js';
import type { Sealer } from './seal.js';
import type { Auth } from './session.js';
import type { Entry, Store } from './store.js';

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

/** Names a user of one application in the store. Usernames can be guessed, and so the name is no secret. */
export function ownerOf({ place, wls }: DeskOptions, principal: string): string {
  return digest('owner', JSON.stringify([place, wls, principal]));
}

export interface SessionListOptions extends DeskOptions {
  /** Seconds. */
  readonly inactiveTimeout: number | undefined;
}

/** For so long it may not be known that a session is in use: milliseconds. */
const UNSEEN = 60_000;
const MAX_AGENT = 200;
/** Number of sessions of one user in the list. A login beyond it ends the oldest session, so that none is hidden. */
const MAX_LISTED = 1000;

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
    const isNew = Math.abs(time - times.created) < UNSEEN;
    // Nobody waits for it; what fails is in the log.
    ask(async () => {
      await this.#keep(kept);
      if (isNew) await this.#trim(principal);
    }).catch(() => {});
  }

  /** Deletes the entry of a session that was ended. Nobody waits for it. */
  forget({ principal, sessionId }: Pick<Auth, 'principal' | 'sessionId'>): void {
    const { store, ask } = this.#options;
    ask(() => store.delete(this.#key(principal, handleOf(sessionId)))).catch(() => {});
  }

  /** The live sessions of a person, the one used last first. @param asking the session that asks. */
  async list(principal: string, asking?: Auth): Promise<ListedSession[]> {
    return (await this.#find(principal)).map((kept) => show(kept, asking));
  }

  /** Ends one of a person's sessions everywhere. @returns whether they have one of that handle. */
  async revoke(principal: string, handle: string): Promise<boolean> {
    const { store, live, wls, ask } = this.#options;
    const kept = (await this.#find(principal)).find(({ sessionId }) => handleOf(sessionId) === handle);
    if (kept === undefined) return false;
    await ask(async () => {
      await live.end({ ...kept, wls }, new Date(kept.expires));
      await store.delete(this.#key(principal, handle));
    });
    return true;
  }

  /** Finds the live sessions of a user, and deletes the entries of the others. */
  async #find(principal: string): Promise<Kept[]> {
    const { store, ask } = this.#options;
    const entries = await ask(() => store.list(this.#folder(principal)));
    const found = entries.map((entry) => this.#open(entry)).filter((kept) => kept !== undefined);
    const over = new Set(found.filter((kept) => this.#isOver(kept)));
    const deleted = [...over].map(({ sessionId }) => store.delete(this.#key(principal, handleOf(sessionId))));
    // An entry that cannot be deleted now is found again, and expires.
    await Promise.allSettled(deleted);
    return found.filter((kept) => !over.has(kept)).sort((a, b) => b.lastSeen - a.lastSeen);
  }

  /** Ends the oldest sessions of a user who has too many of them. */
  async #trim(principal: string): Promise<void> {
    const { store, live, wls } = this.#options;
    if ((await store.list(this.#folder(principal))).length <= MAX_LISTED) return;
    const found = (await this.#find(principal)).sort((a, b) => b.login - a.login);
    for (const kept of found.slice(MAX_LISTED)) {
      await live.end({ ...kept, wls }, new Date(kept.expires));
      await store.delete(this.#key(principal, handleOf(kept.sessionId)));
    }
  }

  async #keep(kept: Kept): Promise<void> {
    const { sealer, store } = this.#options;
    const key = this.#key(kept.principal, handleOf(kept.sessionId));
    // Sealed with its key: a writer of the store may put it in another place.
    await store.put(key, sealer.seal(JSON.stringify([key, kept])), new Date(kept.expires));
  }

  #open({ key, value }: Entry): Kept | undefined {
    const opened = this.#options.sealer.open(value);
    if (typeof opened === 'string') return undefined;
    const [its, kept] = JSON.parse(opened.text) as [string, Kept];
    return its === key ? kept : undefined;
  }

  #isOver(kept: Kept): boolean {
    const { live, wls, now } = this.#options;
    return kept.expires <= now().getTime() || live.isEnded({ ...kept, wls }) || this.#isIdle(kept);
  }

  #isIdle({ lastSeen }: Kept): boolean {
    const { inactiveTimeout = Number.POSITIVE_INFINITY, now } = this.#options;
    return now().getTime() - lastSeen > inactiveTimeout * 1000 + UNSEEN;
  }

  #key(principal: string, handle: string): string {
    return `${this.#folder(principal)}:${handle}`;
  }

  #folder(principal: string): string {
    return `sessions.${ownerOf(this.#options, principal)}`;
  }
}

function handleOf(sessionId: string): string {
  return digest('session', sessionId);
}

function show({ sessionId, created, lastSeen, expires, userAgent }: Kept, asking: Auth | undefined): ListedSession {
  return {
    handle: handleOf(sessionId),
    created: new Date(created),
    lastSeen: new Date(lastSeen),
    expires: new Date(expires),
    userAgent,
    current: asking?.sessionId === sessionId,
  };
}
