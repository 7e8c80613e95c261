import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { AuthorisationError } from '../errors.js';
import type { Auth } from '../session/session.js';
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
    this.#principals.check(auth.principal);
    this.#sessions.check(auth.sessionId);
    this.#principals.add(auth.principal);
    this.#sessions.add(auth.sessionId);
    connection.once('close', () => {
      this.#principals.remove(auth.principal);
      this.#sessions.remove(auth.sessionId);
    });
  }

  /** Has a socket live as long as its session. @returns whether it is open still. */
  open(ws: Socket, auth: Auth, request: IncomingMessage): boolean {
    ws.on('error', endBroken);
    const watch = () =>
      this.#waa.watch(
        auth,
        (error) => closeSocket(ws, error),
        (end) => void Object.assign(auth, end),
      );
    let stop = watch();
    // The session may have ended while the handshake was on its way.
    if (ws.readyState !== OPEN) return false;
    const slot = this.#heartbeat.add(ws);
    ws.once('close', () => {
      stop();
      this.#heartbeat.remove(ws, slot);
    });
    const renew = async (ticket: string) => {
      const fresh = await this.#checkRenewal(auth, ticket);
      if (ws.readyState !== OPEN) return;
      stop();
      this.#adopt(auth, fresh);
      stop = watch();
    };
    // Not listed among what it says, since it is nothing to be written to a log or sent.
    request.auth = Object.defineProperty(auth, 'renew', { value: renew });
    return true;
  }

  async #checkRenewal(auth: Auth, ticket: string): Promise<Auth> {
    const fresh = await this.#waa.takeTicket(ticket);
    if (fresh.principal !== auth.principal) {
      throw new AuthorisationError('ERR_PRINCIPAL_REFUSED', 'the ticket is of somebody else than the socket');
    }
    this.#waa.authorise(fresh, this.#who);
    if (fresh.sessionId !== auth.sessionId) this.#sessions.check(fresh.sessionId);
    return fresh;
  }

  #adopt(auth: Auth, fresh: Auth): void {
    this.#sessions.remove(auth.sessionId);
    this.#sessions.add(fresh.sessionId);
    this.#waa.adopt(auth, fresh);
  }
}

/** A broken frame is an `error`, upon which ws closes; without a listener it would end the process. */
export function endBroken(this: Socket): void {
  cutOff(this);
}
