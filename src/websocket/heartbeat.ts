import type { Socket } from './refusal.js';

/** Among how many moments of the time between two pings the sockets are spread. */
const SLOTS = 16;

/** Pings each socket now and then, and ends those that did not answer the last time. One timer serves all. */
export class Heartbeat {
  readonly #every: number;
  readonly #slots = Array.from({ length: SLOTS }, () => new Set<Socket>());
  /** Those that have not answered yet. */
  readonly #silent = new Set<Socket>();
  readonly #answered: (this: Socket) => void;
  #count = 0;
  #added = 0;
  #beaten = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param seconds from one ping of a socket to the next; with 0 there are none. */
  constructor(seconds: number) {
    this.#every = (seconds * 1000) / SLOTS;
    const silent = this.#silent;
    this.#answered = function (this: Socket) {
      silent.delete(this);
    };
  }

  /** Pings it until it is removed. */
  add(ws: Socket): void {
    if (this.#every === 0) return;
    this.#added = (this.#added + 1) % SLOTS;
    this.#slots[this.#added]?.add(ws);
    this.#count += 1;
    ws.on('pong', this.#answered);
    this.#timer ??= setInterval(() => this.#beat(), this.#every).unref();
  }

  remove(ws: Socket): void {
    this.#silent.delete(ws);
    if (!this.#slots.some((slot) => slot.delete(ws))) return;
    this.#count -= 1;
    if (this.#count > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #beat(): void {
    this.#beaten = (this.#beaten + 1) % SLOTS;
    for (const ws of this.#slots[this.#beaten] ?? []) {
      // Of a socket that the application does not read just now, the answer may be there unread.
      if (ws.isPaused) this.#silent.delete(ws);
      else if (this.#silent.has(ws)) ws.terminate();
      else this.#ping(ws);
    }
  }

  #ping(ws: Socket): void {
    this.#silent.add(ws);
    ws.ping();
  }
}
