import { SessionError } from '../errors.js';

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
