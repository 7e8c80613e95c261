import type { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebauthError } from '../errors.js';
import { reporting } from '../session/live.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import { withholdTokenProtocol } from './credentials.js';
import { FirstMessage } from './first-message.js';
import { Gate, type ServerOptions, type Taken, type UpgradeOptions } from './gate.js';
import { unhandledError } from './handshake-grammar.js';
import { Heartbeat } from './heartbeat.js';
import { Held } from './held.js';
import { Pending, tooMany } from './limits.js';
import type { OtherListeners } from './other-listeners.js';
import { closeRejected, closeSocket, cutOff, isForHttp, refuseUpgrade, type Socket } from './refusal.js';
import { type SocketLimits, Sockets } from './sockets.js';

/** Whose connections are accepted, and how many of them. */
export interface ConnectionOptions extends UpgradeOptions, SocketLimits {
  /** The most handshakes of which it is not decided yet whose they are: 1000 by default. */
  readonly maxPending?: number;
}

/** Where `ws` accepts sockets, and whose. */
export interface AcceptOptions extends ConnectionOptions {
  /** The path of these sockets, without a query; every path, if absent. */
  readonly path?: string;
  /**
   * How somebody is refused: by an answer of HTTP, `'http'`, by default; or, since browsers show pages nothing of that, by
   * accepting the socket and closing it at once with a code and a reason, `'close'`. Foreign origins and wrong
   * subprotocols get an answer of HTTP in any case; so does who shows nothing where only `bearer` or `basic` are taken.
   */
  readonly rejection?: 'http' | 'close';
  /** How often each socket is pinged, and ended if it did not answer the last time: seconds, 30 by default; 0 for never. */
  readonly heartbeat?: number;
  /**
   * Time that an upgrade request for a path without an endpoint may wait for another upgrade listener of the server,
   * before it is answered with 404: seconds, 10 by default. The longest of a server's endpoints applies. Without another
   * listener the answer is immediate.
   */
  readonly unclaimedTimeout?: number;
}

/** What is needed of a `WebSocketServer` of the package `ws`. */
export interface SocketServer<S extends Socket> extends EventEmitter {
  readonly options: ServerOptions & { readonly noServer?: boolean | undefined };
  /** Absent, if it was told not to keep them. */
  readonly clients?: Set<S>;
  /** Whether it accepts handshakes of that address: with its own `path`, it does not accept all. */
  shouldHandle?(request: IncomingMessage): boolean | Promise<boolean>;
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, callback: (ws: S) => void): void;
}

/** Where handshakes arrive: lets people in, or tells them why not. */
export class Door<S extends Socket> {
  readonly #wss: SocketServer<S>;
  readonly #gate: Gate;
  readonly #sockets: Sockets<Socket>;
  readonly #heartbeat: Heartbeat;
  readonly #options: AcceptOptions;
  readonly #pending: Pending;
  #isClosed = false;

  constructor(wss: SocketServer<S>, waa: WAA, options: AcceptOptions) {
    this.#wss = wss;
    this.#gate = new Gate(waa, options, wss.options);
    const heartbeat = new Heartbeat(options.heartbeat ?? 30);
    this.#heartbeat = heartbeat;
    this.#sockets = new Sockets<Socket>(waa, { isOpen, end: closeSocket, left: (ws) => heartbeat.remove(ws) }, options);
    this.#options = options;
    this.#pending = new Pending(options.maxPending);
    wss.once('close', () => {
      this.#isClosed = true;
    });
  }

  /** What comes in at the endpoint. */
  readonly knock = (request: IncomingMessage, socket: Duplex, head: Buffer, others: OtherListeners): void => {
    // Whoever passed it on may have taken their time.
    if (socket.destroyed) return;
    const taken = this.#gate.conceal(request);
    others.serveUnlessAnswered(socket, () => this.#decide(taken, others, request, socket, head));
  };

  #decide(taken: Taken, others: OtherListeners, request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { credentials } = this.#options;
    if (this.#pending.isFull) return refuseUpgrade(socket, this.#gate.report(tooMany()));
    let decided: Auth | Promise<Auth> | undefined;
    try {
      if (this.#wss.shouldHandle?.(request) === false) throw this.#gate.report(unhandledError());
      if (credentials?.includes('firstMessage')) this.#gate.expect(request, taken);
      else decided = this.#gate.decide(request, taken);
    } catch (error) {
      return this.#refuse(error, request, socket, head);
    }
    if (decided === undefined) this.#awaitTicket(request, socket, head);
    else if (decided instanceof Promise) this.#wait(decided, others, request, socket, head);
    else this.#admit(decided, request, socket, head);
  }

  #wait(decided: Promise<Auth>, others: OtherListeners, request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const over = this.#pending.begin();
    const settle = (then: (rest: Buffer) => void): void => {
      if (held.isReleased) return;
      over();
      const rest = held.release();
      // Another listener may have answered in the meantime: two answers on one socket would break its protocol.
      if (!others.haveAnswered(socket)) then(rest);
    };
    const refuse = (error: unknown) => settle((rest) => this.#refuse(error, request, socket, rest));
    const held = new Held(socket, head, this.#gate.deadline, (error) => refuse(this.#gate.report(error)));
    decided.then((auth) => settle((rest) => reporting(() => this.#admit(auth, request, socket, rest))), refuse);
  }

  #admit(auth: Auth, request: IncomingMessage, socket: Duplex, head: Buffer): void {
    try {
      this.#count(auth, socket);
    } catch (error) {
      return this.#refuse(error, request, socket, head);
    }
    this.#wss.handleUpgrade(request, socket, head, (ws) => {
      // It may have been read before, and that was ended.
      if (socket.isPaused()) socket.resume();
      if (this.#open(ws, auth, request)) this.#wss.emit('connection', ws, request);
    });
  }

  #refuse(error: unknown, request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const closes = this.#options.rejection === 'close' && error instanceof WebauthError && !isForHttp(error);
    if (!closes) return refuseUpgrade(socket, error);
    withholdTokenProtocol(request);
    this.#wss.handleUpgrade(request, socket, head, (ws) => {
      this.#hide(ws);
      closeRejected(ws, socket, error);
    });
  }

  #awaitTicket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const settle = this.#pending.begin();
    socket.once('close', settle);
    this.#wss.handleUpgrade(request, socket, head, (ws) => {
      this.#hide(ws);
      this.#takeTicket(new FirstMessage(ws, socket), ws, request, socket).finally(settle);
    });
  }

  async #takeTicket(first: FirstMessage, ws: S, request: IncomingMessage, socket: Duplex): Promise<void> {
    try {
      const auth = await this.#gate.withinDeadline(this.#gate.decideMessage(first.ticket, request));
      if (this.#isClosed) return ws.terminate();
      this.#count(auth, socket);
      first.release();
      if (!this.#open(ws, auth, request)) return;
    } catch (error) {
      return closeRejected(ws, socket, error, first.forget());
    }
    this.#wss.clients?.add(ws);
    reporting(() => this.#wss.emit('connection', ws, request));
  }

  #open(ws: S, auth: Auth, request: IncomingMessage): boolean {
    ws.on('error', endBroken);
    if (!this.#sockets.open(ws, auth, request)) return false;
    this.#heartbeat.add(ws);
    return true;
  }

  #count(auth: Auth, socket: Duplex): void {
    this.#gate.reporting(auth, () => this.#sockets.count(auth, socket));
  }

  /** From those who send something to all of the server's clients. */
  #hide(ws: S): void {
    ws.on('error', endBroken);
    this.#wss.clients?.delete(ws);
  }
}

const OPEN = 1;

function isOpen({ readyState }: Socket): boolean {
  return readyState === OPEN;
}

/** A broken frame is an `error`, upon which ws closes; without a listener it would end the process. */
function endBroken(this: Socket): void {
  cutOff(this);
}
