import type { Auth } from '../../session/session.js';
import type { Login, WAA } from '../../waa.js';
import type { WLS } from '../../wls/index.js';
import type { Case } from './types.js';

/** What a credential is, whichever way it is sent. */
export type Kind = 'session' | 'socket' | 'ticket' | 'token';

/** A credential, and what ends it. */
interface Made {
  readonly text: string;
  readonly end: () => Promise<unknown>;
}

/** The application's own side of the login, at a machine whose clock is late. */
export interface Clock {
  readonly waa: WAA;
  /** Seconds. */
  readonly lateness: number;
}

export interface Clocks {
  readonly right: Clock;
  /** A session that was to last for 11 seconds there is over here; a ticket is not. */
  readonly late: Clock;
  /** So is a ticket, and a token that was to last for 30 seconds. */
  readonly later: Clock;
}

/**
 * Makes credentials to experiment with: of sessions that the server begins by itself, for the same person. The one of the
 * person's browser is left alone.
 */
export class Credentials {
  readonly #clocks: Clocks;
  readonly #wls: WLS;

  constructor(clocks: Clocks, wls: WLS) {
    this.#clocks = clocks;
    this.#wls = wls;
  }

  /** @param socketOrigin where the sockets are that a cookie of that kind opens. */
  async make(kind: Kind, which: Case, auth: Auth, socketOrigin: string): Promise<string> {
    const { text, end } = await this.#make(kind, which === 'expired', auth, socketOrigin);
    if (which === 'ended') await end();
    return which === 'wrong' ? spoil(text) : text;
  }

  /** A ticket of a session that was begun for it. */
  async ticket(auth: Auth): Promise<{ readonly ticket: string; readonly expires: Date }> {
    const { right } = this.#clocks;
    const { cookie } = await this.#logIn(right, auth, 600);
    return right.waa.makeTicket(cookie);
  }

  async #make(kind: Kind, expired: boolean, auth: Auth, socketOrigin: string): Promise<Made> {
    const { right, late, later } = this.#clocks;
    if (kind === 'token') return makeToken((expired ? later : right).waa, auth.principal);
    if (kind === 'ticket') return this.#makeTicket(expired ? later : right, auth);
    const clock = expired ? late : right;
    const login = await this.#logIn(clock, auth, expired ? 11 : 600);
    const end = () => right.waa.endSession(login.auth);
    if (kind === 'session') return { text: login.cookie as string, end };
    const { ticket } = await clock.waa.makeTicket(login.cookie);
    return { text: await clock.waa.socketCookie(socketOrigin).take(ticket), end };
  }

  async #makeTicket(clock: Clock, auth: Auth): Promise<Made> {
    const login = await this.#logIn(clock, auth, 600);
    const { ticket } = await clock.waa.makeTicket(login.cookie);
    return { text: ticket, end: () => this.#clocks.right.waa.endSession(login.auth) };
  }

  /** As the browser would, by way of the login service. @param life of the session: seconds. */
  async #logIn({ waa, lateness }: Clock, { principal, ptags }: Auth, life: number): Promise<Login> {
    const { location, nonce } = waa.startLogin('/');
    const issue = new Date(Date.now() - lateness * 1000);
    const answer = this.#wls.respond(location, { principal, ptags: [...ptags], issue, life });
    return waa.finishLogin(answer, nonce);
  }
}

async function makeToken(waa: WAA, principal: string): Promise<Made> {
  const { token, handle } = await waa.tokens.create({ principal, name: 'an experiment', ttl: 30, scopes: ['read'] });
  return { text: token, end: () => waa.tokens.revoke(principal, handle) };
}

/** With one character changed, in the middle: some bits of the last one may stand for nothing. */
function spoil(text: string): string {
  const at = text.length >> 1;
  return `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;
}
