import { SessionError } from '../errors.js';

/** Handshakes of which it is not decided yet whose they are. */
export class Pending {
  readonly #most: number;
  #count = 0;

  constructor(most = 1000) {
    this.#most = most;
  }

  get isFull(): boolean {
    return this.#count >= this.#most;
  }

  /** One more. @returns what takes it off again, once, however often it is called. */
  begin(): () => void {
    this.#count += 1;
    let isOver = false;
    return () => {
      if (!isOver) this.#count -= 1;
      isOver = true;
    };
  }
}

export function tooMany(): SessionError {
  return new SessionError('ERR_LIMIT_REACHED', 'too many handshakes are under way: try again in a moment');
}

/** How many sockets are open of each name, where there is a limit. */
export class Limit {
  readonly #most: number;
  readonly #of: string;
  readonly #counts = new Map<string, number>();

  /** @param of whose sockets they are, for the message. */
  constructor(of: string, most = Number.POSITIVE_INFINITY) {
    this.#of = of;
    this.#most = most;
  }

  get isSet(): boolean {
    return this.#most !== Number.POSITIVE_INFINITY;
  }

  /** @throws SessionError ERR_LIMIT_REACHED */
  check(name: string): void {
    if ((this.#counts.get(name) ?? 0) < this.#most) return;
    throw new SessionError('ERR_LIMIT_REACHED', `${this.#of} has as many sockets open here as it may: ${this.#most}`);
  }

  add(name: string): void {
    if (this.isSet) this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  remove(name: string): void {
    const left = (this.#counts.get(name) ?? 1) - 1;
    if (left > 0) this.#counts.set(name, left);
    else this.#counts.delete(name);
  }
}
