import { createHash, randomBytes } from 'node:crypto';
import { SessionError } from '../errors.js';
import type { Session } from './session.js';
import type { Store } from './store.js';

/** How long a ticket can be used: seconds. */
export const TICKET_LIFE = 30;
const MAX_LIVE = 16;

/** Single-use stand-ins for a session cookie, where a cookie cannot be sent. The store keeps their hashes only. */
export class Tickets {
  readonly #store: Store;
  readonly #now: () => Date;
  /** When the tickets of each session made here end: milliseconds, in order. */
  readonly #live = new Map<string, number[]>();
  #pruned = 0;

  constructor(store: Store, now: () => Date) {
    this.#store = store;
    this.#now = now;
  }

  /** @throws SessionError ERR_LIMIT_REACHED if the session has as many as it can have. */
  async make(session: Session): Promise<{ readonly ticket: string; readonly expires: Date }> {
    const expires = new Date(this.#now().getTime() + TICKET_LIFE * 1000);
    this.#count(session.id, expires.getTime());
    const ticket = randomBytes(32).toString('base64url');
    await this.#store.put(keyOf(ticket), JSON.stringify(session), expires);
    return { ticket, expires };
  }

  /** Uses a ticket up. @throws SessionError ERR_TOKEN_INVALID if it is none, or was used, or is too old. */
  async take(ticket: string): Promise<Session> {
    const kept = await this.#store.take(keyOf(ticket));
    if (kept !== undefined) {
      const session = JSON.parse(kept) as Session;
      this.#live.get(session.id)?.shift();
      return session;
    }
    throw new SessionError('ERR_TOKEN_INVALID', `this is no ticket, or it was used, or is over ${TICKET_LIFE} s old`);
  }

  #count(id: string, expires: number): void {
    const now = this.#now().getTime();
    this.#prune(now);
    const live = (this.#live.get(id) ?? []).filter((end) => end > now);
    if (live.length >= MAX_LIVE) {
      throw new SessionError('ERR_LIMIT_REACHED', `this session has ${MAX_LIVE} tickets that nobody used yet`);
    }
    this.#live.set(id, [...live, expires]);
  }

  /** Forgets, each half minute at most, the sessions whose tickets are over. */
  #prune(now: number): void {
    if (Math.abs(now - this.#pruned) < TICKET_LIFE * 1000) return;
    this.#pruned = now;
    for (const [id, ends] of this.#live) if ((ends.at(-1) ?? 0) <= now) this.#live.delete(id);
  }
}

function keyOf(ticket: string): string {
  return `ticket:${createHash('sha256').update(ticket).digest('base64url')}`;
}
