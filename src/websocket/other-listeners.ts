import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { refuseNotFound } from './refusal.js';

/** Number of upgrade requests that may wait for another listener. Beyond it, the oldest is answered. */
const MAX_WAITING = 1000;
/** Milliseconds. */
const SWEEP_EVERY = 250;

/** An upgrade request that another listener may still answer. */
interface Waiting {
  readonly listeners: OtherListeners;
  /** Time of `performance.now()` at which it is rejected: milliseconds. */
  readonly due: number;
  /** Called before it is rejected. */
  readonly onReject: () => void;
}

const waiting = new Map<Duplex, Waiting>();
let timer: NodeJS.Timeout | undefined;

/** The upgrade listeners of one server that do not belong to this package. */
export class OtherListeners {
  readonly #server: EventEmitter;
  readonly #own: number;
  /** Bytes written to a socket before its upgrade request: a kept-alive connection carried earlier responses. */
  readonly #writtenBefore = new WeakMap<Duplex, number>();

  /** @param own number of the server's upgrade listeners that belong to this package. */
  constructor(server: EventEmitter, own: number) {
    this.#server = server;
    this.#own = own;
  }

  get exist(): boolean {
    return this.#server.listenerCount('upgrade') > this.#own;
  }

  /** Registers the arrival of an upgrade request. Call it before any other listener runs. */
  noteArrival(socket: Duplex): void {
    if (this.exist) this.#writtenBefore.set(socket, bytesWritten(socket));
  }

  /** Whether another listener answered the upgrade request, or ended its socket. */
  haveAnswered(socket: Duplex): boolean {
    const before = this.#writtenBefore.get(socket);
    return before !== undefined && (socket.destroyed || socket.writableEnded || bytesWritten(socket) > before);
  }

  /** Calls `serve` at once if no other listener receives the request; otherwise after them, unless one has answered. */
  serveUnlessAnswered(socket: Duplex, serve: () => void): void {
    if (!this.#writtenBefore.has(socket)) return serve();
    process.nextTick(() => {
      if (!this.haveAnswered(socket)) serve();
    });
  }

  /**
   * Leaves an upgrade request to the other listeners. It is answered with 404 after `timeout`, or when the client sends
   * FIN, unless one of them answers before. One timer serves all sockets.
   *
   * @param timeout seconds.
   * @param onReject called before the 404.
   */
  leaveToThem(socket: Duplex, timeout: number, onReject: () => void): void {
    waiting.set(socket, { listeners: this, due: performance.now() + timeout * 1000, onReject });
    if (socket.destroyed || socket.readableEnded) return this.reject(socket);
    socket.once('end', rejectSocket).once('close', forgetSocket);
    timer ??= setInterval(sweep, SWEEP_EVERY).unref();
    if (waiting.size > MAX_WAITING) rejectOldest();
  }

  reject(socket: Duplex): void {
    const { onReject } = waiting.get(socket) ?? {};
    forget(socket);
    if (this.haveAnswered(socket)) return;
    onReject?.();
    refuseNotFound(socket);
  }
}

function sweep(): void {
  const now = performance.now();
  for (const [socket, { listeners, due }] of waiting) {
    if (listeners.haveAnswered(socket)) forget(socket);
    else if (due <= now) listeners.reject(socket);
  }
}

function rejectOldest(): void {
  for (const [socket, { listeners }] of waiting) return listeners.reject(socket);
}

function forget(socket: Duplex): void {
  waiting.delete(socket);
  socket.off('end', rejectSocket).off('close', forgetSocket);
  if (waiting.size > 0) return;
  clearInterval(timer);
  timer = undefined;
}

function rejectSocket(this: Duplex): void {
  waiting.get(this)?.listeners.reject(this);
}

function forgetSocket(this: Duplex): void {
  forget(this);
}

function bytesWritten(socket: Duplex): number {
  return (socket as { readonly bytesWritten?: number }).bytesWritten ?? 0;
}
