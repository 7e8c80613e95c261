import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { digest } from '../digest.js';
import { AuthorisationError, SessionError } from '../errors.js';
import { described, isElementRead } from '../http.js';
import { checkArgument, checkOptions, checkWAA, type Rule, required } from '../options.js';
import { reporting } from '../session/live.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import type { TakeTicket } from './credentials.js';
import type { ConnectionOptions } from './door.js';
import { Gate, type Taken, tooLate } from './gate.js';
import { Pending, tooMany } from './limits.js';
import { isServedElsewhere, offersWebSocket } from './other-protocols.js';
import { cutOff, ignore, refuseRequest, refuseUpgrade, type Socket as Wire } from './refusal.js';
import { checkReach, checkUse, connectionRules } from './rules.js';
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
  /** Includes the path, if the engine was made with one. */
  readonly opts?: { readonly path?: string; readonly cors?: unknown };
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
 * session. `socket.data.auth` says who it is; the connection ends when their session does. Covers every HTTP server that
 * `io` is attached to, now and later.
 * @param io made with its HTTP server.
 * @throws TypeError if the options cannot be served safely.
 */
export function acceptConnections(io: ConnectionServer, waa: WAA, options: ConnectionOptions = {}): void {
  checkServer(io);
  checkWAA('acceptConnections()', waa);
  checkOptions('acceptConnections', options, connectionRules);
  checkUse('acceptConnections()', waa, options);
  checkReach(waa, pathOf(io.engine, io), options);
  const connections = new Connections(waa, options, (name) => io._nsps.has(name));
  const guard = (namespace: Namespace): void => {
    const middleware = middlewareOf(namespace);
    namespace.use((socket, next) => connections.enter(socket as Socket, next));
    // First, so that no other has to do with who is not known: one made for a pattern has that of the pattern already.
    middleware.unshift(middleware.pop());
    namespace.on('connection', (socket) => connections.join(socket as Socket));
  };
  guardEngine(io.engine, connections);
  guardLaterEngines(io as unknown as Attachable, connections, (path) => checkReach(waa, path, options));
  for (const namespace of io._nsps.values()) guard(namespace);
  io.on('new_namespace', guard);
}

/** The guarded engines, each with the connections that it is guarded by. */
const guarded = new WeakMap<Engine, Connections>();

/**
 * Puts the guard before all middleware that the application registered: that sees no unauthenticated request. Only the
 * engine's own CORS middleware, which the engine registers first, stays before: it answers preflight requests, which
 * carry no credentials, and lets pages of another origin read rejections.
 */
function guardEngine(engine: Engine, connections: Connections): void {
  guarded.set(engine, connections);
  connections.guard(engine);
  const middleware = engineMiddlewareOf(engine) as unknown[];
  middleware.splice(engine.opts?.cors ? 1 : 0, 0, middleware.pop());
}

/** The methods of a `Server` of `socket.io` that make or bind an engine. `listen` calls `attach`; all call `bind`. */
interface Attachable extends ConnectionServer {
  readonly _opts: ConnectionServer['_opts'] & { readonly path?: string };
  attach: (server: unknown, options?: { readonly path?: string }) => unknown;
  attachApp?: (app: unknown, options?: object) => unknown;
  bind: (engine: Engine) => unknown;
}

/** Guards each engine that the server binds later, and throws before anything is attached that cannot be guarded. */
function guardLaterEngines(io: Attachable, connections: Connections, checkPath: (path: string) => void): void {
  const { attach, bind } = io;
  io.attach = (server, options) => {
    // In this order Socket.IO itself chooses the path.
    checkPath(io._opts.path || options?.path || io.path());
    return attach.call(io, server, options);
  };
  io.attachApp = () => {
    throw notEngine();
  };
  io.bind = (engine) => {
    checkEngine(engine);
    checkPath(pathOf(engine, io));
    const guard = guarded.get(engine);
    if (guard !== undefined && guard !== connections) throw alreadyGuarded();
    // Socket.IO listens for connections before the guard does, as in the first engine.
    const bound = bind.call(io, engine);
    if (guard === undefined) guardEngine(engine, connections);
    return bound;
  };
}

function pathOf(engine: Engine, io: ConnectionServer): string {
  return engine.opts?.path || io.path();
}

/** Private lists of Socket.IO 4, in call order: nothing else is private. */
function middlewareOf(namespace: object): unknown[] {
  return (namespace as { readonly _fns: unknown[] })._fns;
}

function engineMiddlewareOf(engine: object): unknown {
  return (engine as { readonly middlewares?: unknown }).middlewares;
}

/** Of what has no types, and what Socket.IO would do behind our back. */
function checkServer(io: ConnectionServer): void {
  checkArgument('acceptConnections(io, …)', 'io', io, socketIoServer);
  checkEngine(io.engine);
  if (guarded.has(io.engine)) throw alreadyGuarded();
  if (!io._opts?.connectionStateRecovery) return;
  throw new TypeError(
    'connectionStateRecovery hands what was meant for one connection to another, whose session nobody compares: leave it off',
  );
}

const socketIoServer: Rule = required([
  (value) => {
    const { engine, _nsps } = value as ConnectionServer;
    const main = _nsps.get('/');
    return typeof engine.use === 'function' && main !== undefined && Array.isArray(middlewareOf(main));
  },
  'is a Server of socket.io 4 that has its server: new Server(server)',
]);

/** Accepts the engine of `node:http` only: those of µWebSockets.js and Bun have requests of another kind. */
function checkEngine(engine: object | undefined): void {
  if (Array.isArray(engineMiddlewareOf(engine ?? {})) && 'onWebSocket' in (engine as object)) return;
  throw notEngine();
}

function notEngine(): TypeError {
  return new TypeError(
    'acceptConnections() guards engines of node:http only: attach io to a server of http or https, by new Server(server) or io.attach(server)',
  );
}

function alreadyGuarded(): TypeError {
  return new TypeError('acceptConnections() was called for this server already');
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

/** The open connections of one engine, by their sid. Another engine may generate the same one. */
type OpenConnections = Map<string, Known>;

class Connections {
  readonly #waa: WAA;
  readonly #gate: Gate;
  readonly #sockets: Sockets<Connection>;
  readonly #isLate: boolean;
  readonly #pending: Pending;
  /** By the first request of each. */
  readonly #known = new WeakMap<IncomingMessage, Known>();
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

  /** Decides each request for an engine, and each connection that it makes. */
  guard(engine: Engine): void {
    const open: OpenConnections = new Map();
    engine.use((request, response, next) => this.#pass(request as Request, response as Response, next, open));
    engine.on('connection', (connection) => this.#accept(connection as Connection, open));
  }

  /** Every request for the engine, before that looks at it. */
  async #pass(request: Request, response: Response, next: () => void, open: OpenConnections): Promise<void> {
    const isUpgrade = !('headersSent' in response);
    // Nobody else listens yet, and it may break meanwhile.
    if (isUpgrade) request.socket.on('error', ignore);
    if (isUpgrade && !offersWebSocket(request) && (await isServedElsewhere(request))) return;
    try {
      await this.#decide(request, isUpgrade, open);
    } catch (error) {
      return isUpgrade ? refuseUpgrade(request.socket, error) : refuseRequest(response, error);
    }
    next();
  }

  /** A connection that the engine has made. */
  #accept(connection: Connection, open: OpenConnections): void {
    const known = this.#known.get(connection.request);
    if (known === undefined && this.#isLate) return this.#expect(connection);
    try {
      if (known) return this.#remember(connection, known, open);
    } catch {
      // That was reported.
    }
    // Or it came by a way that does not lead past here.
    hangUp(connection);
  }

  #remember(connection: Connection, known: Known, open: OpenConnections): void {
    if (!this.#keep(connection, known)) return;
    open.set(connection.id, known);
    connection.on('close', () => open.delete(connection.id));
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

  async #decide(request: Request, isUpgrade: boolean, open: OpenConnections): Promise<void> {
    const taken = this.#gate.conceal(request, isUpgrade);
    if (taken.tickets.length > 0) delete request._query['ticket'];
    if (!isUpgrade && isElementRead(request)) throw this.#gate.report(notScript());
    const { sid } = request._query;
    if (!isUpgrade || sid) this.#checkNoTicket(request, taken);
    if (this.#isLate) this.#checkLate(request, taken, isUpgrade && !sid);
    else if (sid) await this.#decideAgain(request, taken, open.get(sid));
    else await this.#decideFirst(request, taken);
  }

  /**
   * Rejects a ticket in an address where more than one request carries that address: logs on the way would show to their
   * readers what authorizes the next request. Only a WebSocket is one request. Consumes nothing.
   */
  #checkNoTicket(request: Request, taken: Taken): void {
    if (taken.tickets.length === 0) return;
    this.#gate.expect(request, taken);
    throw this.#refusal(
      "a ticket in the address opens a WebSocket only, and no later request: the client needs transports: ['websocket']",
    );
  }

  async #decideFirst(request: Request, taken: Taken): Promise<void> {
    this.#checkPending();
    let shown: string | undefined;
    const decided = this.#gate.decide(request, taken, (ticket) => {
      // A ticket that was in an address authorizes no later request, in a header either.
      if (!taken.tickets.includes(ticket)) shown = digest('handshake ticket', ticket);
      return this.#waa.takeTicket(ticket);
    });
    const auth = decided instanceof Promise ? await this.#wait(decided) : decided;
    this.#gate.reporting(auth, () => this.#sockets.check(auth));
    this.#known.set(request, letIn(auth, shown));
  }

  /** As the first one: of a ticket, that it is the one that was used up then. */
  async #decideAgain(request: Request, taken: Taken, known: Known | undefined): Promise<void> {
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

  /**
   * Has a connection live as long as its session.
   * @returns whether it is open still.
   * @throws SessionError if it is closed, or one too many.
   */
  #keep(connection: Connection, { auth }: Known): boolean {
    this.#gate.reporting(auth, () => {
      if (!isOpen(connection)) throw wentAway();
      this.#sockets.count(auth, connection);
    });
    return this.#sockets.open(connection, auth, connection.request);
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
    const shown = typeof ticket === 'string' ? ticket : Promise.reject(noTicket());
    const auth = await this.#gate.decideMessage(shown, conn.request);
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
    if (digest('handshake ticket', ticket) === shown) return auth;
    throw new SessionError('ERR_TOKEN_INVALID', 'the connection was opened with another ticket');
  };
  return { auth, take, sockets: new Set() };
}

function notScript(): AuthorisationError {
  return new AuthorisationError(
    'ERR_ORIGIN_REFUSED',
    'an element of a page, a navigation or a prefetch sent the request: only scripts connect, by fetch, XMLHttpRequest or WebSocket',
  );
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

function noTicket(): SessionError {
  return new SessionError(
    'ERR_TOKEN_INVALID',
    'no credential; this endpoint accepts: firstMessage (a ticket as auth.ticket of the client)',
  );
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
