import type { EventEmitter } from 'node:events';
import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebauthError } from '../errors.js';
import { checkOrigin, readSession, requestTarget, retryAfter, withOwn } from '../http.js';
import { checkOptions, originList, type Rule, type Rules, restriction, texts } from '../options.js';
import type { Auth } from '../session/session.js';
import type { Requirements, WAA } from '../waa.js';

/** Who may open a socket. */
export interface UpgradeOptions extends Requirements {
  /** Origins of pages that may open sockets, beside the application's own: as browsers write them, `https://host`. */
  readonly origins?: readonly string[];
}

/** Where `ws` accepts sockets, and whose. */
export interface AcceptOptions extends UpgradeOptions {
  /** The path of these sockets, without a query; every path, if absent. */
  readonly path?: string;
}

/** What is needed of a `WebSocketServer` of the package `ws`. */
export interface SocketServer<S extends Socket> {
  readonly options: { readonly noServer?: boolean | undefined };
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, callback: (ws: S) => void): void;
  emit(event: 'connection', ws: S, request: IncomingMessage): boolean;
}

/** What is needed of a socket of the package `ws`. */
export interface Socket {
  readonly readyState: number;
  close(code: number, reason: string): void;
  terminate(): void;
  once(event: 'close', listener: () => void): unknown;
  on(event: 'error', listener: () => void): unknown;
  removeAllListeners(event: 'message'): unknown;
}

/**
 * Lets only people who are logged in open sockets on `wss`, which has to be made with `noServer: true`. `request.auth`
 * of its `connection` event says who. A socket is closed with 4401 when its session ends.
 * @param server an HTTP or HTTPS server of Node.
 * @returns a function that stops accepting.
 */
export function acceptUpgrades<S extends Socket>(
  server: EventEmitter,
  wss: SocketServer<S>,
  waa: WAA,
  options: AcceptOptions = {},
): () => void {
  if (wss.options.noServer !== true) {
    throw new TypeError('make the WebSocketServer with { noServer: true }: otherwise it lets everybody in by itself');
  }
  checkOptions('acceptUpgrades', options, { ...upgradeRules, path: pathRule });
  if (options.path !== undefined && !waa.reaches(options.path)) {
    throw new TypeError(`browsers send the session to ${waa.cookies.path} only, and so never to ${options.path}`);
  }
  const origins = withOwn(waa.origins, options.origins);
  return addEndpoint(server, options.path, (request, socket, head) => {
    try {
      request.auth = decide(waa, request, options, origins);
    } catch (error) {
      return refuseUpgrade(socket, error);
    }
    wss.handleUpgrade(request, socket, head, (ws) => open(wss, ws, waa, request));
  });
}

/**
 * The same decision for any other handler of upgrades: who wants to open this socket.
 * @throws WebauthError, which {@link refuseUpgrade} answers with.
 */
export async function authenticateUpgrade(
  waa: WAA,
  request: IncomingMessage,
  options: UpgradeOptions = {},
): Promise<Auth> {
  checkOptions('authenticateUpgrade', options, upgradeRules);
  return decide(waa, request, options, withOwn(waa.origins, options.origins));
}

/** Answers an upgrade with a complete HTTP refusal, and closes the connection in order. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
  const { status, code, message } = describe(error);
  const body = JSON.stringify({ error: { code, message } });
  const wait = retryAfter(status);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'Connection: close',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    ...(wait === undefined ? [] : [`Retry-After: ${wait}`]),
  ];
  answer(socket, `${head.join('\r\n')}\r\n\r\n${body}`);
}

/** How long a peer may take to end the connection, once it was told to: milliseconds. */
const LINGER = 2000;

function answer(socket: Duplex, text: string): void {
  socket.on('error', () => {});
  socket.end(text);
  // What the client still sends is read and dropped: closing with unread bytes would reset the connection, and the
  // answer with it.
  socket.resume();
  const cut = setTimeout(() => socket.destroy(), LINGER).unref();
  socket.once('close', () => clearTimeout(cut));
}

/** The decision at the handshake, in order: Origin, credential, authorisation. */
function decide(waa: WAA, request: IncomingMessage, who: Requirements, origins: ReadonlySet<string>): Auth {
  let auth: Auth | undefined;
  try {
    checkOrigin(request, origins);
    auth = waa.openSession(...readSession(request, waa.cookies));
    waa.authorise(auth, who);
    return auth;
  } catch (error) {
    if (error instanceof WebauthError) waa.refused(error, auth);
    throw error;
  }
}

function open<S extends Socket>(wss: SocketServer<S>, ws: S, waa: WAA, request: IncomingMessage): void {
  // A broken frame is an `error`, upon which ws closes; without a listener it would end the process.
  ws.on('error', () => cutOff(ws));
  const stop = waa.watch(request.auth as Auth, (error) => closeSocket(ws, error));
  // The session may have ended while the handshake was on its way.
  if (ws.readyState !== OPEN) return;
  ws.once('close', stop);
  wss.emit('connection', ws, request);
}

const OPEN = 1;

function closeSocket(ws: Socket, error: WebauthError): void {
  // What arrives before the peer has closed too is not from somebody who is logged in.
  ws.removeAllListeners('message');
  // A reason is at most 123 bytes; ours are short and plain ASCII.
  ws.close(error.closeCode, `${error.code}: ${error.message}`.slice(0, 123));
  cutOff(ws);
}

/** Ends the connection if the peer does not: ws would wait for half a minute. */
function cutOff(ws: Socket): void {
  const cut = setTimeout(() => ws.terminate(), LINGER).unref();
  ws.once('close', () => clearTimeout(cut));
}

function describe(error: unknown): { status: number; code: string; message: string } {
  if (!(error instanceof WebauthError)) return { status: 500, code: 'ERR_INTERNAL', message: 'something went wrong' };
  const { status, code, message } = error;
  // 401 would have to name a scheme of HTTP authentication; a cookie is none, so what it lacks is permission.
  return { status: status === 401 ? 403 : status, code, message };
}

const upgradeRules: Rules<UpgradeOptions> = {
  principals: restriction(texts),
  ptags: restriction(texts),
  scopes: restriction(texts),
  origins: originList,
};
const pathRule: Rule = [
  (value) => typeof value === 'string' && /^\/[^?#]*$/.test(value),
  'begins with / and has no query',
];

type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

interface Endpoint {
  readonly path: string | undefined;
  readonly upgrade: Upgrade;
}

/** One listener a server, so that several endpoints share it and what nobody takes is answered. */
const endpoints = new WeakMap<EventEmitter, Set<Endpoint>>();

function addEndpoint(server: EventEmitter, path: string | undefined, upgrade: Upgrade): () => void {
  const known = endpoints.get(server) ?? listen(server);
  const endpoint = { path, upgrade };
  known.add(endpoint);
  return () => known.delete(endpoint);
}

function listen(server: EventEmitter): Set<Endpoint> {
  const known = new Set<Endpoint>();
  endpoints.set(server, known);
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => {});
    const { path } = requestTarget(request);
    const endpoint = [...known].find((candidate) => candidate.path === undefined || candidate.path === path);
    if (endpoint) endpoint.upgrade(request, socket, head);
    // Somebody else's listener may know the path.
    else if (server.listenerCount('upgrade') === 1) refuseNotFound(socket);
  });
  return known;
}

function refuseNotFound(socket: Duplex): void {
  answer(socket, 'HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
}
