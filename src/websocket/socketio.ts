import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { digest } from '../digest.js';
import { SessionError } from '../errors.js';
import { described } from '../http.js';
import { checkOptions } from '../options.js';
import { reporting } from '../session/live.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import type { TakeTicket } from './credentials.js';
import type { ConnectionOptions } from './door.js';
import { Gate, type Taken, tooLate } from './gate.js';
import { Pending, tooMany } from './limits.js';
import { cutOff, ignore, refuseRequest, refuseUpgrade, type Socket as Wire } from './refusal.js';
import { checkReach, checkUse, checkWAA, connectionRules } from './rules.js';
import { Sockets, wentAway } from './sockets.js';

export type { Credential } from './credentials.js';
export type { ConnectionOptions } from './door.js';

/** What is needed of a `Server` of the package `socket.io`. */
export interface ConnectionServer {
  readonly engine: Engine;
  /** All that there are so far, by their names. */
  readonly _nsps: ReadonlyMap<string, Namespace>;
  readonly _opts: { readonly connectionStateRecovery?: unknown };
  path(): string;
  on(event: 'new_namespace', listener: (namespace: Namespace) => void): unknown;
}

interface Engine {
  use(middleware: (request: unknown, response: unknown, next: () => void) => void): void;
  on(event: 'connection', listener: (connection: unknown) => void): unknown;
}

interface Namespace {
  use(middleware: (socket: unknown, next: Next) => void): unknown;
  on(event: 'connection', listener: (socket: unknown) => void): unknown;
}

/** A request of the engine's, which has its query apart. */
interface Request extends IncomingMessage {
  readonly _query: Record<string, string | undefined>;
}

/** The engine's stand-in for one, in an upgrade, sends nothing. */
type Response = ServerResponse | EventEmitter;

/** What the engine has of a client, over whichever transport. */
interface Connection extends EventEmitter {
  /** The sid. */
  readonly id: string;
  readonly readyState: string;
  readonly request: Request;
  /** With a socket of ws, unless the client polls. */
  readonly transport: { readonly socket?: Wire };
  /** To which all leads that is sent. */
  sendPacket(type: string, data: unknown, ...more: unknown[]): void;
  close(discard?: boolean): void;
}

/** What a client sends to the engine. */
interface Packet {
  readonly type: string;
  readonly data?: unknown;
}

/** What a namespace has of a client. */
interface Socket extends EventEmitter {
  readonly connected: boolean;
  readonly conn: Connection;
  readonly data: { auth?: Auth };
  readonly handshake: { readonly auth: { ticket?: unknown } };
  disconnect(): void;
}

/**
 * Lets only people who are logged in connect to a server of Socket.IO. Each request of a connection is held to Origin and
 * session. `socket.data.auth` says who it is; the connection ends when their session does.
 * @param io made with its HTTP server.
 * @throws TypeError if the options cannot be served safely.
 */
export function acceptConnections(io: ConnectionServer, waa: WAA, options: ConnectionOptions = {}): void {
  checkServer(io);
  checkWAA(waa);
  checkOptions('acceptConnections', options, connectionRules);
  checkUse(waa, options);
  checkReach(waa, io.path(), options);
  guarded.add(io.engine);
  const connections = new Connections(waa, options, (name) => io._nsps.has(name));
  const guard = (namespace: Namespace): void => {
    const middleware = middlewareOf(namespace);
    namespace.use((socket, next) => connections.enter(socket as Socket, next));
    // First, so that no other has to do with who is not known: one made for a pattern has that of the pattern already.
    middleware.unshift(middleware.pop());
    namespace.on('connection', (socket) => connections.join(socket as Socket));
  };
  io.engine.use((request, response, next) => connections.pass(request as Request, response as Response, next));
  io.engine.on('connection', (connection) => connections.open(connection as Connection));
  for (const namespace of io._nsps.values()) guard(namespace);
  io.on('new_namespace', guard);
}

const guarded = new WeakSet<Engine>();

/** In the order in which they are asked. No more than the names of these lists are private in Socket.IO 4. */
function middlewareOf(namespace: object): unknown[] {
  return (namespace as { readonly _fns: unknown[] })._fns;
}

/** Of what has no types, and what Socket.IO would do behind our back. */
function checkServer(io: Partial<ConnectionServer> | undefined): void {
  const main = io?._nsps?.get('/');
  if (typeof io?.engine?.use !== 'function' || !main || !Array.isArray(middlewareOf(main))) {
    throw new TypeError(
      'acceptConnections(io, …): io is a Server of socket.io 4 that has its server: new Server(server)',
    );
  }
  if (guarded.has(io.engine)) throw new TypeError('acceptConnections() was called for this server already');
  if (!io._opts?.connectionStateRecovery) return;
  throw new TypeError(
    'connectionStateRecovery hands what was meant for one connection to another, whose session nobody compares: leave it off',
  );
}

/** Whose a connection is. */
interface Known {
  readonly auth: Auth;
  /** What becomes of a ticket that a later request shows. */
  readonly take: TakeTicket;
  /** Those that are connected, of all namespaces. */
  readonly sockets: Set<Socket>;
}

/** A connection of which it is not known yet whose it is. */
interface Late {
  /** It is asked once, though several namespaces may be asked for. */
  deciding: Promise<Known> | undefined;
  readonly settle: () => void;
}

class Connections {
  readonly #waa: WAA;
  readonly #gate: Gate;
  readonly #sockets: Sockets<Connection>;
  readonly #isLate: boolean;
  readonly #pending: Pending;
  /** By the first request of each. */
  readonly #known = new WeakMap<IncomingMessage, Known>();
  /** By their sid. */
  readonly #open = new Map<string, Known>();
  readonly #late = new WeakMap<Connection, Late>();
  /** Whether there is a namespace of that name. */
  readonly #exists: (name: string) => boolean;

  constructor(waa: WAA, options: ConnectionOptions, exists: (name: string) => boolean) {
    this.#waa = waa;
    this.#exists = exists;
    this.#gate = new Gate(waa, options);
    this.#isLate = options.credentials?.includes('firstMessage') ?? false;
    this.#pending = new Pending(options.maxPending);
    this.#sockets = new Sockets(waa, { isOpen, end: (connection) => this.#end(connection) }, options);
  }

  /** Every request for the engine, before that looks at it. */
  async pass(request: Request, response: Response, next: () => void): Promise<void> {
    const isUpgrade = !('headersSent' in response);
    // Nobody else listens yet, and it may break meanwhile.
    if (isUpgrade) request.socket.on('error', ignore);
    try {
      await this.#decide(request, isUpgrade);
    } catch (error) {
      return isUpgrade ? refuseUpgrade(request.socket, error) : refuseRequest(response, error);
    }
    next();
  }

  /** A connection that the engine has made. */
  open(connection: Connection): void {
    const known = this.#known.get(connection.request);
    if (known === undefined && this.#isLate) return this.#expect(connection);
    try {
      if (known) return this.#keep(connection, known);
    } catch {
      // That was reported.
    }
    // Or it came by a way that does not lead past here.
    hangUp(connection);
  }

  /** A client that wants to be in a namespace. */
  enter(socket: Socket, next: Next): void {
    const known = this.#known.get(socket.conn.request);
    const found = known ? Promise.resolve(known) : this.#askFor(socket);
    if (this.#isLate) delete socket.handshake.auth.ticket;
    found.then(
      ({ auth }) => {
        socket.data.auth = auth;
        next();
      },
      (error) => refuse(socket, error, next),
    );
  }

  /** A client that is in a namespace. */
  join(socket: Socket): void {
    const sockets = this.#known.get(socket.conn.request)?.sockets;
    // The application may have sent it away already.
    if (!socket.connected || !sockets) return;
    sockets.add(socket);
    socket.on('disconnect', () => sockets.delete(socket));
  }

  async #decide(request: Request, isUpgrade: boolean): Promise<void> {
    const taken = this.#gate.conceal(request, isUpgrade);
    if (taken.tickets.length > 0) delete request._query['ticket'];
    const { sid } = request._query;
    if (this.#isLate) this.#checkLate(request, taken, isUpgrade && !sid);
    else if (sid) await this.#decideAgain(request, taken, sid);
    else await this.#decideFirst(request, taken);
  }

  async #decideFirst(request: Request, taken: Taken): Promise<void> {
    this.#checkPending();
    let shown: string | undefined;
    const decided = this.#gate.decide(request, taken, (ticket) => {
      shown = digest(ticket);
      return this.#waa.takeTicket(ticket);
    });
    const auth = decided instanceof Promise ? await this.#wait(decided) : decided;
    this.#gate.reporting(auth, () => this.#sockets.check(auth));
    this.#known.set(request, letIn(auth, shown));
  }

  /** As the first one: of a ticket, that it is the one that was used up then. */
  async #decideAgain(request: Request, taken: Taken, sid: string): Promise<void> {
    const known = this.#open.get(sid);
    if (known) return this.#gate.withinDeadline(this.#gate.decideAgain(request, taken, known.auth, known.take));
    this.#gate.expect(request, taken);
    throw this.#refusal('no connection here has this sid: it is over, or another process has it (use sticky sessions)');
  }

  /** Of one that has shown nothing yet, nothing but its own wire tells it from anybody else. */
  #checkLate(request: Request, taken: Taken, isOwnWire: boolean): void {
    this.#gate.expect(request, taken);
    this.#checkPending();
    if (isOwnWire) return;
    throw this.#refusal(
      "with firstMessage, connections begin as WebSockets: the client needs transports: ['websocket']",
    );
  }

  #checkPending(): void {
    if (this.#pending.isFull) throw this.#gate.report(tooMany());
  }

  #refusal(message: string): SessionError {
    return this.#gate.report(new SessionError('ERR_SESSION_MISSING', message));
  }

  async #wait(decided: Promise<Auth>): Promise<Auth> {
    return this.#gate.withinDeadline(decided).finally(this.#pending.begin());
  }

  /** Has a connection live as long as its session. @throws SessionError if it is closed, or one too many. */
  #keep(connection: Connection, known: Known): void {
    const { auth } = known;
    this.#gate.reporting(auth, () => {
      if (!isOpen(connection)) throw wentAway();
      this.#sockets.count(auth, connection);
    });
    if (!this.#sockets.open(connection, auth, connection.request)) return;
    this.#open.set(connection.id, known);
    connection.on('close', () => this.#open.delete(connection.id));
  }

  /** The ticket comes with the first namespace that the client asks for, and nothing before it. */
  #expect(connection: Connection): void {
    // Others may have come while the engine was at it, and somebody may have closed it.
    if (this.#pending.isFull || !isOpen(connection)) return hangUp(connection);
    const { deadline } = this.#gate;
    const refuse = (error: SessionError) => {
      this.#gate.report(error);
      hangUp(connection);
    };
    const timer = setTimeout(() => refuse(tooLate(deadline)), deadline * 1000);
    const hear = onlyAsking(this.#exists, () => refuse(notAsking()));
    const over = this.#pending.begin();
    const settle = (): void => {
      over();
      clearTimeout(timer);
    };
    this.#late.set(connection, { deciding: undefined, settle });
    connection.on('packet', (packet) => this.#known.has(connection.request) || hear(packet)).on('close', settle);
  }

  #askFor(socket: Socket): Promise<Known> {
    const late = this.#late.get(socket.conn);
    if (late === undefined) return Promise.reject(this.#refusal('nobody was let in here'));
    late.deciding ??= this.#readTicket(socket).finally(late.settle);
    return late.deciding;
  }

  async #readTicket({ conn, handshake }: Socket): Promise<Known> {
    const { ticket } = handshake.auth;
    const auth = await this.#gate.decideMessage(typeof ticket === 'string' ? ticket : '', conn.request);
    const known = letIn(auth);
    this.#keep(conn, known);
    this.#known.set(conn.request, known);
    return known;
  }

  #end(connection: Connection): void {
    const { sockets = [] } = this.#known.get(connection.request) ?? {};
    connection.sendPacket = farewell(connection.sendPacket);
    // Each tells the application, which may fail there.
    for (const socket of sockets) reporting(() => socket.disconnect());
    // Who polls is let in no more, and so never gets what is left to be sent.
    hangUp(connection, connection.transport.socket === undefined);
  }
}

type Next = (error?: Error) => void;

/** @param shown hash of the ticket that let it in, if it was one. */
function letIn(auth: Auth, shown?: string): Known {
  const take = (ticket: string): Auth => {
    if (digest(ticket) === shown) return auth;
    throw new SessionError('ERR_TOKEN_INVALID', 'the connection was opened with another ticket');
  };
  return { auth, take, sockets: new Set() };
}

function isOpen({ readyState }: Connection): boolean {
  return readyState === 'open';
}

/** How many namespaces a client may ask for at once, and how long it may be at it: characters. */
const MOST = { namespaces: 16, length: 1024 };

/**
 * Looks at what a client sends of which nobody knows yet whose it is. It may ask for namespaces that are there: to make
 * one for it would cost memory for good.
 */
function onlyAsking(exists: (name: string) => boolean, refuse: () => void): (packet: Packet) => void {
  let count = 0;
  return ({ type, data }) => {
    if (type !== 'message') return;
    count += 1;
    // A packet of the type CONNECT: its namespace, if that is not the main one, and what it shows (socket.io-parser).
    const asked = typeof data === 'string' && data.length <= MOST.length && /^0(\/[^,]*)?/.exec(data);
    if (!asked || !exists(asked[1] ?? '/') || count > MOST.namespaces) refuse();
  };
}

function notAsking(): SessionError {
  return new SessionError(
    'ERR_TOKEN_INVALID',
    'what comes first has to ask for a namespace that is there, with a ticket',
  );
}

/** Lets nothing through but that a namespace is left: what the application says at the end is for nobody any more. */
function farewell(send: Connection['sendPacket']): Connection['sendPacket'] {
  return function (this: Connection, type, data, ...more) {
    if (type === 'message' && typeof data === 'string' && data.startsWith('1')) send.call(this, type, data, ...more);
  };
}

/** The client gets a `connect_error`, and no second try on this connection. */
function refuse({ conn }: Socket, error: unknown, next: Next): void {
  const { code, message } = described(error);
  next(Object.assign(new Error(message), { data: { code, message } }));
  // That is sent at the end of this turn.
  setImmediate(() => hangUp(conn, false));
}

/** Closes a connection, and cuts it off if the client does not follow. @param atOnce and not after what it was sent. */
function hangUp(connection: Connection, atOnce = true): void {
  const { socket: wire } = connection.transport;
  connection.close(atOnce);
  if (wire) cutOff(wire);
}
