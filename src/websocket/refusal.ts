import type { EventEmitter } from 'node:events';
import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebauthError } from '../errors.js';
import { closeUnread, described, retryAfter, sendData } from '../http.js';
import { checkArgument, type Rule, required } from '../options.js';
import { completeClosing } from './closing-handshake.js';

/** What is needed of a socket of the package `ws`. */
export interface Socket extends EventEmitter {
  readonly readyState: number;
  /** The extensions that were negotiated. */
  readonly extensions: string;
  close(code: number, reason: string): void;
  terminate(): void;
  ping(): void;
  pause(): void;
  resume(): void;
  readonly isPaused: boolean;
}

/** Answers an upgrade with a complete HTTP refusal, and closes the connection in order. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
  checkArgument('refuseUpgrade()', 'socket', socket, connection);
  const { status, code, message, challenges } = describe(error);
  const body = JSON.stringify({ error: { code, message } });
  const wait = retryAfter(status);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    `Connection: ${status === 426 ? 'close, Upgrade' : 'close'}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Cache-Control: no-store',
    ...challenges.map((challenge) => `WWW-Authenticate: ${challenge}`),
    ...(wait === undefined ? [] : [`Retry-After: ${wait}`]),
    ...(expectedFor[status] ?? []),
  ];
  answer(socket, `${head.join('\r\n')}\r\n\r\n${body}`);
}

const connection: Rule = required([
  (value) => ['on', 'end', 'resume'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function'),
  "is the socket of the server's upgrade event",
]);

/** Header lines that name what is expected, where the status requires them (RFC 9110, 15.5.6 and 15.5.22; RFC 6455, 4.4). */
const expectedFor: Readonly<Record<number, readonly string[]>> = {
  405: ['Allow: GET'],
  426: ['Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
};

/** The same for a request that is no upgrade. */
export function refuseRequest(response: ServerResponse, error: unknown): void {
  const { status, code, message, challenges } = describe(error);
  const wait = retryAfter(status);
  if (challenges.length > 0) response.setHeader('WWW-Authenticate', challenges);
  if (wait !== undefined) response.setHeader('Retry-After', wait);
  closeUnread(response);
  sendData(response, status, { error: { code, message } });
}

/** Answers an upgrade request for a path without an endpoint. */
export function refuseNotFound(socket: Duplex): void {
  answerText(socket, ['HTTP/1.1 404 Not Found', 'Connection: close'], 'There is no WebSocket endpoint at this path.\n');
}

/** Rejects a request without a Host header (RFC 9112, 3.2). */
export function refuseMissingHost(socket: Duplex): void {
  answerText(
    socket,
    ['HTTP/1.1 400 Bad Request', 'Connection: close'],
    'An HTTP/1.1 request must have a Host header.\n',
  );
}

/** Closes a connection in order, without an answer. */
export function endConnection(socket: Duplex): void {
  answer(socket, '');
}

/** Rejects a request that offers another protocol than WebSocket and cannot be served without it (RFC 9110, 15.5.22). */
export function refuseOtherProtocol(socket: Duplex): void {
  const head = ['HTTP/1.1 426 Upgrade Required', 'Connection: Upgrade, close', 'Upgrade: websocket'];
  answerText(
    socket,
    head,
    'This server switches to no protocol but websocket. Send the request without the Upgrade header.\n',
  );
}

/** @param body in ASCII. */
function answerText(socket: Duplex, head: readonly string[], body: string): void {
  const lines = [...head, 'Content-Type: text/plain', `Content-Length: ${body.length}`, 'Cache-Control: no-store'];
  answer(socket, `${lines.join('\r\n')}\r\n\r\n${body}`);
}

/** Whether to say it by HTTP, however refusals are said otherwise: nobody is to take such a socket for accepted. */
export function isForHttp({ code, handshake }: WebauthError): boolean {
  return code === 'ERR_ORIGIN_REFUSED' || code === 'ERR_PLAIN_REFUSED' || handshake?.always === true;
}

/** Closes a socket whose session has ended, with why. */
export function closeSocket(ws: Socket, error: unknown): void {
  const { closeCode, code, message } = error instanceof WebauthError ? error : { ...describe(error), closeCode: 1011 };
  // What arrives before the peer has closed too is not from somebody who is logged in, whoever listens when.
  ws.emit = emitNoMessage;
  // A reason is at most 123 bytes; ours are plain ASCII, but for what principals may hold.
  ws.close(closeCode, cut(`${code}: ${message}`, 123));
  // Where nothing was read just now: the peer's own close is.
  ws.resume();
  cutOff(ws);
}

/**
 * Closes a socket that the application was not given, with the reason. Frames of its peer are discarded unread, up to the
 * peer's close frame.
 *
 * @param unread bytes of the peer that were read before, from the beginning of a frame.
 */
export function closeRejected(ws: Socket, connection: Duplex, error: unknown, unread: Buffer = Buffer.alloc(0)): void {
  closeSocket(ws, error);
  limitRejected(connection);
  completeClosing(connection, unread);
}

function emitNoMessage(this: Socket, name: string | symbol, ...given: unknown[]): boolean {
  return name !== 'message' && Object.getPrototypeOf(this).emit.call(this, name, ...given);
}

/** How long a peer may take to end the connection, once it was told to: milliseconds. */
const LINGER = 2000;

/** Connections that were told to end, and when they are cut off: in order, since each may take as long. */
const ending = new Map<Socket | Duplex, number>();
let isTimed = false;

/** Ends the connection if the peer does not, soon: ws would wait for half a minute. One timer serves all. */
export function cutOff(connection: Socket | Duplex): void {
  if (ending.has(connection)) return;
  ending.set(connection, performance.now() + LINGER);
  connection.on('close', forget);
  if (!isTimed) cutAfter(LINGER);
}

function forget(this: Socket | Duplex): void {
  ending.delete(this);
}

function cutAfter(milliseconds: number): void {
  isTimed = true;
  setTimeout(cutDue, milliseconds).unref();
}

function cutDue(): void {
  isTimed = false;
  const now = performance.now();
  for (const [connection, due] of ending) {
    if (due > now) return cutAfter(due - now);
    ending.delete(connection);
    if ('terminate' in connection) connection.terminate();
    else connection.destroy();
  }
}

/** Most rejected connections that wait for their peers at a time. Beyond it, the oldest is destroyed. */
const MAX_REJECTED = 1000;

const rejected = new Set<Duplex>();

function limitRejected(connection: Duplex): void {
  if (connection.closed) return;
  rejected.add(connection);
  connection.once('close', forgetRejected);
  if (rejected.size <= MAX_REJECTED) return;
  const oldest = rejected.values().next().value as Duplex;
  rejected.delete(oldest);
  oldest.destroy();
}

function forgetRejected(this: Duplex): void {
  rejected.delete(this);
}

function answer(socket: Duplex, text: string): void {
  socket.on('error', ignore);
  socket.end(text);
  // What the client still sends is read and dropped: closing with unread bytes would reset the connection, and the
  // answer with it.
  socket.resume();
  if (!socket.closed) cutOff(socket);
  limitRejected(socket);
}

/** A connection that breaks is closed, and needs nobody else's care. */
export function ignore(): void {}

function cut(text: string, bytes: number): string {
  if (Buffer.byteLength(text) <= bytes) return text;
  const encoded = Buffer.from(text);
  // A character that was cut in two is left out.
  return encoded
    .subarray(0, bytes)
    .toString()
    .replace(/\uFFFD$/, '');
}

interface Description {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly challenges: readonly string[];
}

function describe(error: unknown): Description {
  const { status, code, message } = described(error);
  const handshake = error instanceof WebauthError ? error.handshake : undefined;
  const challenges = status === 401 ? (handshake?.challenges ?? []) : [];
  // 401 has to name a scheme of HTTP authentication. A cookie is none, so what it lacks is permission.
  return { status: status === 401 && challenges.length === 0 ? 403 : status, code, message, challenges };
}
