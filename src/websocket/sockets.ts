import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { AuthorisationError, SessionError } from '../errors.js';
import type { Auth } from '../session/session.js';
import type { OnEnd, OnRenew } from '../session/watches.js';
import type { Requirements, WAA } from '../waa.js';
import { Heartbeat } from './heartbeat.js';
import { Limit } from './limits.js';
import { closeSocket, cutOff, type Socket } from './refusal.js';

/** How many sockets there may be at one endpoint of one process, and how they are kept. */
export interface SocketOptions extends Requirements {
  /** The most open sockets of one person: no limit, by default. */
  readonly maxPerPrincipal?: number;
  /** The most open sockets of one session, or token: no limit, by default. */
  readonly maxPerSession?: number;
  /** How often each socket is pinged, and ended if it did not answer the last time: seconds, 30 by default; 0 for never. */
  readonly heartbeat?: number;
}

const OPEN = 1;

/** An open socket, and what ends the watch of its session. */
interface Watched {
  readonly ws: Socket;
  stop: () => void;
}

/** The open sockets of one endpoint. Each lives as long as its session. */
export class Sockets {
  readonly #waa: WAA;
  readonly #who: Requirements;
  readonly #principals: Limit;
  readonly #sessions: Limit;
  readonly #heartbeat: Heartbeat;

  constructor(waa: WAA, options: SocketOptions) {
    this.#waa = waa;
    this.#who = options;
    this.#principals = new Limit('this person', options.maxPerPrincipal);
    this.#sessions = new Limit('this session', options.maxPerSession);
    this.#heartbeat = new Heartbeat(options.heartbeat ?? 30);
  }

  /** Counts a connection until it is closed. @throws SessionError ERR_LIMIT_REACHED */
  count(auth: Auth, connection: Duplex): void {
    if (!this.#principals.isSet && !this.#sessions.isSet) return;
    // Its end was told already.
    if (connection.destroyed) throw new SessionError('ERR_DEADLINE', 'the client went away before it was let in');
    const { principal } = auth;
    this.#principals.check(principal);
    this.#sessions.check(auth.sessionId);
    this.#principals.add(principal);
    this.#sessions.add(auth.sessionId);
    connection.once('close', () => {
      this.#principals.remove(principal);
      this.#sessions.remove(auth.sessionId);
    });
  }

  /** Has a socket live as long as its session. @returns whether it is open still. */
  open(ws: Socket, auth: Auth, request: IncomingMessage): boolean {
    ws.on('error', endBroken);
    const watched = { ws, stop: this.#watch(ws, auth) };
    // The session may have ended while the handshake was on its way.
    if (ws.readyState !== OPEN) {
      watched.stop();
      return false;
    }
    this.#leaveAtClose(watched);
    // Not listed among what it says, since it is nothing to be written to a log or sent.
    const renew = (ticket: string) => this.#renew(watched, auth, ticket);
    request.auth = Object.defineProperty(auth, 'renew', { value: renew });
    return true;
  }

  // Functions that last as long as the socket are each made where nothing else is in scope: what is, they keep in memory.

  #watch(ws: Socket, auth: Auth): () => void {
    return this.#waa.watch(auth, closer(ws), extender(auth));
  }

  #leaveAtClose(watched: Watched): void {
    const slot = this.#heartbeat.add(watched.ws);
    watched.ws.on('close', () => {
      watched.stop();
      this.#heartbeat.remove(watched.ws, slot);
    });
  }

  async #renew(watched: Watched, auth: Auth, ticket: string): Promise<void> {
    const fresh = await this.#waa.takeTicket(ticket);
    if (watched.ws.readyState !== OPEN) return;
    this.#checkRenewal(auth, fresh);
    watched.stop();
    this.#adopt(auth, fresh);
    watched.stop = this.#watch(watched.ws, auth);
  }

  #checkRenewal(auth: Auth, fresh: Auth): void {
    if (fresh.principal !== auth.principal) {
      throw new AuthorisationError('ERR_PRINCIPAL_REFUSED', 'the ticket is of somebody else than the socket');
    }
    this.#waa.authorise(fresh, this.#who);
    if (fresh.sessionId !== auth.sessionId) this.#sessions.check(fresh.sessionId);
  }

  #adopt(auth: Auth, fresh: Auth): void {
    this.#sessions.remove(auth.sessionId);
    this.#sessions.add(fresh.sessionId);
    this.#waa.adopt(auth, fresh);
  }
}

function closer(ws: Socket): OnEnd {
  return (error) => closeSocket(ws, error);
}

function extender(auth: Auth): OnRenew {
  return (end) => void Object.assign(auth, end);
}

/** A broken frame is an `error`, upon which ws closes; without a listener it would end the process. */
export function endBroken(this: Socket): void {
  cutOff(this);
}
