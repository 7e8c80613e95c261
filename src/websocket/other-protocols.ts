import type { EventEmitter } from 'node:events';
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { OtherListeners } from './other-listeners.js';
import { cutOff, refuseMissingHost, refuseOtherProtocol } from './refusal.js';

/** Whether the `Upgrade` header offers the WebSocket protocol (RFC 6455, 4.2.1). */
export function offersWebSocket({ headers }: IncomingMessage): boolean {
  const offered = headers.upgrade ?? '';
  return offered === 'websocket' || offered.split(',').some((one) => one.trim().toLowerCase() === 'websocket');
}

/**
 * Has Node itself serve requests that offer another protocol as ordinary ones, where it can (from 22.21 and 24.9 on) and
 * no other upgrade listener may want them.
 */
export function declineOtherProtocols(server: EventEmitter, others: OtherListeners): void {
  const upgradable = server as { shouldUpgradeCallback?: (request: IncomingMessage) => boolean };
  const { shouldUpgradeCallback: before } = upgradable;
  if (before === undefined) return;
  upgradable.shouldUpgradeCallback = function (this: unknown, request) {
    const isOrdinary = !offersWebSocket(request) && !others.exist && server.listenerCount('request') > 0;
    return !isOrdinary && before.call(this, request);
  };
}

/**
 * Serves an upgrade request that offers another protocol, such as `h2c`, as if it offered none (RFC 9110, 7.8). The
 * connection closes after the response. A request with a body is rejected with 426, since Node does not parse the body.
 */
export function serveWithoutUpgrade(server: EventEmitter, request: IncomingMessage, socket: Socket): void {
  // Another listener, such as that of a second copy of this package, serves the request.
  if (responseOn(socket)) return;
  const { requireHostHeader = true, httpAllowHalfOpen } = server as Settings;
  if (hasBody(request) || server.listenerCount('request') === 0) return refuseOtherProtocol(socket);
  if (requireHostHeader && request.httpVersion === '1.1' && request.headers.host === undefined) {
    return refuseMissingHost(socket);
  }
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => {
    request.resume();
    endInOrder(socket);
  });
  abortWith(socket, request);
  // Node removed its own listeners for these too.
  socket
    .on('drain', () => response.emit('drain'))
    .on('end', () => httpAllowHalfOpen || socket.end())
    .on('timeout', () => {
      const isHandled = [response.emit('timeout', socket), server.emit('timeout', socket)];
      if (!isHandled.includes(true)) socket.destroy();
    });
  // Node's own getter stays `true` after this first 'drain', and every later pipe would wait for another.
  Object.defineProperty(response, 'writableNeedDrain', { get: () => socket.writableNeedDrain });
  socket.resume();
  server.emit('request', request, response);
}

/**
 * Whether another upgrade listener, such as that of `acceptUpgrades`, serves a request for another protocol or has ended
 * its connection. Resolves after all listeners have received the request.
 */
export async function isServedElsewhere(request: IncomingMessage): Promise<boolean> {
  const { socket } = request;
  await new Promise(setImmediate);
  return socket.writableEnded || responseOn(socket)?.req === request;
}

/** Returns the response that the connection carries: to an earlier request (pipelining), or to this one. */
export function responseOn(socket: Duplex): ServerResponse | undefined {
  // Private in Node, which removes a response from there when it was sent.
  return (socket as { readonly _httpMessage?: ServerResponse | null })._httpMessage ?? undefined;
}

/**
 * Destroys the request when its connection closes, as Node does. Node removed its own listener when it emitted the upgrade;
 * without it, no handler learns from the request that its client left.
 */
export function abortWith(socket: Duplex, request: IncomingMessage): void {
  socket.on('close', () => request.destroy(aborted()));
}

/** Settings of a server of Node that hold for ordinary requests. */
interface Settings {
  readonly requireHostHeader?: boolean;
  readonly httpAllowHalfOpen?: boolean;
}

/** Error of a request whose connection closes before the response is complete, as Node makes it. */
function aborted(): Error {
  return Object.assign(new Error('aborted'), { code: 'ECONNRESET' });
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) !== 0;
}

function endInOrder(socket: Socket): void {
  socket.end();
  if (!socket.closed) cutOff(socket);
}
