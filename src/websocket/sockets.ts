import type { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { AuthorisationError, SessionError } from '../errors.js';
import type { Auth } from '../session/session.js';
import type { OnEnd, OnRenew } from '../session/watches.js';
import type { Requirements, WAA } from '../waa.js';
import { Limit } from './limits.js';

/** How many sockets there may be at one endpoint of one process. */
export interface SocketLimits {
  /** The most open sockets of one person: no limit, by default. */
  readonly maxPerPrincipal?: number;
  /** The most open sockets of one session, or token: no limit, by default. */
  readonly maxPerSession?: number;
}

/** What an open socket is here, and how it is closed. */
export interface Kind<S> {
  isOpen(socket: S): boolean;
  end(socket: S, error: SessionError): void;
  /** Told when it is closed: a further listener on each socket would cost memory. */
  left?(socket: S): void;
}

/** An open socket, and what ends the watch of its session. */
interface Watched<S> {
  readonly socket: S;
  stop: () => void;
}

/** The open sockets of one endpoint. Each lives as long as its session. */
export class Sockets<S extends EventEmitter> {
  readonly #waa: WAA;
  readonly #kind: Kind<S>;
  readonly #who: Requirements;
  readonly #principals: Limit;
  readonly #sessions: Limit;

  constructor(waa: WAA, kind: Kind<S>, options: Requirements & SocketLimits) {
    this.#waa = waa;
    this.#kind = kind;
    this.#who = options;
    this.#principals = new Limit('this person', options.maxPerPrincipal);
    this.#sessions = new Limit('this session', options.maxPerSession);
  }

  /** Whether there may be one more. @throws SessionError ERR_LIMIT_REACHED */
  check({ principal, sessionId }: Auth): void {
    this.#principals.check(principal);
    this.#sessions.check(sessionId);
  }

  /** Counts a connection until it is closed. @throws SessionError ERR_LIMIT_REACHED */
  count(auth: Auth, connection: EventEmitter & { readonly destroyed?: boolean }): void {
    if (!this.#principals.isSet && !this.#sessions.isSet) return;
    // Its end was told already.
    if (connection.destroyed) throw wentAway();
    this.check(auth);
    const { principal } = auth;
    this.#principals.add(principal);
    this.#sessions.add(auth.sessionId);
    connection.once('close', () => {
      this.#principals.remove(principal);
      this.#sessions.remove(auth.sessionId);
    });
  }

  /** Has a socket live as long as its session. @returns whether it is open still. */
  open(socket: S, auth: Auth, request: IncomingMessage): boolean {
    const watched = { socket, stop: this.#watch(socket, auth) };
    // The session may have ended while the handshake was on its way.
    if (!this.#kind.isOpen(socket)) {
      watched.stop();
      return false;
    }
    stopAtClose(this.#kind, watched);
    // Not listed among what it says, since it is nothing to be written to a log or sent.
    const renew = (ticket: string) => this.#renew(watched, auth, ticket);
    request.auth = Object.defineProperty(auth, 'renew', { value: renew });
    return true;
  }

  // Functions that last as long as the socket are each made where nothing else is in scope: what is, they keep in memory.

  #watch(socket: S, auth: Auth): () => void {
    return this.#waa.watch(auth, closer(this.#kind, socket), extender(auth));
  }

  async #renew(watched: Watched<S>, auth: Auth, ticket: string): Promise<void> {
    // A ticket for a closed socket stays usable.
    this.#checkOpen(watched);
    const fresh = await this.#waa.takeTicket(ticket);
    this.#checkOpen(watched);
    this.#checkRenewal(auth, fresh);
    watched.stop();
    this.#adopt(auth, fresh);
    watched.stop = this.#watch(watched.socket, auth);
  }

  #checkOpen({ socket }: Watched<S>): void {
    if (this.#kind.isOpen(socket)) return;
    throw new SessionError(
      'ERR_SOCKET_CLOSED',
      'The socket is closed or closing, so its session cannot be renewed. Open a new socket with a new ticket.',
    );
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

/**
 * Checks that the client of a request has not disconnected: neither a ticket nor the application's decision is for it.
 * @throws SessionError ERR_DEADLINE
 */
export function checkConnected({ socket }: IncomingMessage): void {
  // `ws` destroys a connection that it can no longer write to.
  if (socket.destroyed || socket.writable === false) throw wentAway();
}

export function wentAway(): SessionError {
  return new SessionError('ERR_DEADLINE', 'the client went away before it was let in');
}

function closer<S>(kind: Kind<S>, socket: S): OnEnd {
  return (error) => kind.end(socket, error);
}

function extender(auth: Auth): OnRenew {
  return (end) => void Object.assign(auth, end);
}

function stopAtClose<S extends EventEmitter>(kind: Kind<S>, watched: Watched<S>): void {
  watched.socket.on('close', () => {
    watched.stop();
    kind.left?.(watched.socket);
  });
}
