import { randomBytes } from 'node:crypto';
import { digest } from '../digest.js';
import { SessionError } from '../errors.js';
import { Pace } from './pace.js';
import { Recent } from './recent.js';
import type { Sealer } from './seal.js';
import { packSession, type Session, unpackSession } from './session.js';
import type { Store } from './store.js';

/** How long a ticket can be used: seconds. */
const TICKET_LIFE = 30;
const MAX_LIVE = 16;

/** What a ticket is, as the store keeps it. `expires` is in milliseconds. */
interface Made {
  readonly key: string;
  readonly expires: number;
  readonly session: Session;
}

/**
 * Single-use stand-ins for a session cookie, where a cookie cannot be sent. The store keeps their hashes, and what they
 * stand for sealed, so that it need not be trusted.
 */
export class Tickets {
  readonly #store: Store;
  readonly #now: () => Date;
  readonly #sealer: Sealer;
  readonly #place: string;
  /** When the tickets of each session made here end: milliseconds, in order. */
  readonly #live = new Map<string, number[]>();
  readonly #pruning = new Pace(TICKET_LIFE * 1000);
  /** What was sealed here lately need not be opened: in the store it is the same to the letter. */
  readonly #made = new Recent<Made>();

  /** @param place whose tickets they are: one of another application is none here, though it may share the store. */
  constructor(store: Store, now: () => Date, sealer: Sealer, place: string) {
    this.#sealer = sealer;
    this.#place = place;
    this.#store = store;
    this.#now = now;
  }

  /** @throws SessionError ERR_LIMIT_REACHED if the session has as many as it can have. */
  async make(session: Session): Promise<{ readonly ticket: string; readonly expires: Date }> {
    const expires = new Date(this.#now().getTime() + TICKET_LIFE * 1000);
    this.#count(session.id, expires.getTime());
    const ticket = randomBytes(32).toString('base64url');
    const key = this.#key(ticket);
    // With its key and its end: who can write to the store may put it in another place, or keep it for longer.
    const sealed = this.#sealer.seal(JSON.stringify([key, expires.getTime(), packSession(session)]));
    this.#made.set(sealed, { key, expires: expires.getTime(), session });
    await this.#store.put(key, sealed, expires);
    return { ticket, expires };
  }

  /** Uses a ticket up. @throws SessionError ERR_TOKEN_INVALID if it is none, or was used, or is too old. */
  async take(ticket: string): Promise<Session> {
    const key = typeof ticket === 'string' && ticketShape.test(ticket) ? this.#key(ticket) : undefined;
    const kept = key === undefined ? undefined : await this.#store.take(key);
    const session = kept === undefined ? undefined : this.#open(kept, key);
    if (session === undefined) {
      throw new SessionError(
        'ERR_TOKEN_INVALID',
        `this is no ticket (an API token begins with ucwa_), or it was used, or is over ${TICKET_LIFE} s old`,
      );
    }
    this.#live.get(session.id)?.shift();
    return session;
  }

  #open(kept: string, key: string | undefined): Session | undefined {
    const made = this.#made.get(kept) ?? this.#unseal(kept);
    const isGood = made !== undefined && made.key === key && made.expires > this.#now().getTime();
    return isGood ? made.session : undefined;
  }

  #unseal(kept: string): Made | undefined {
    const opened = this.#sealer.open(kept);
    // Whatever is in the store, we did not seal it as a ticket.
    if (typeof opened === 'string') return undefined;
    const [key, expires, packed] = JSON.parse(opened.text);
    return { key, expires, session: unpackSession(packed) };
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

  #key(ticket: string): string {
    return `ticket.${digest('ticket', JSON.stringify([this.#place, ticket]))}`;
  }

  /** Forgets, each half minute at most, the sessions whose tickets are over. */
  #prune(now: number): void {
    if (!this.#pruning.isDue(now)) return;
    for (const [id, ends] of this.#live) if ((ends.at(-1) ?? 0) <= now) this.#live.delete(id);
  }
}

// 256 bits in base64url. Whatever else comes in, of whatever type, is no ticket.
const ticketShape = /^[\w-]{43}$/;
