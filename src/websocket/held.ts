import type { Duplex } from 'node:stream';
import { SessionError } from '../errors.js';
import { tooLate } from './gate.js';

/** Bytes that are kept of what a client sends before it was answered; it has no reason to. */
const MOST = 16_384;

/**
 * A connection of which it is being decided whose it is to be. It is read meanwhile, so that its end is noticed; but not
 * before something else has had its turn, since most decisions are there by then, and nothing can have come.
 */
export class Held {
  isReleased = false;
  readonly #socket: Duplex;
  readonly #head: Buffer;
  readonly #chunks: Buffer[] = [];
  readonly #start: NodeJS.Immediate;
  readonly #deadline: number;
  #timer: NodeJS.Timeout | undefined;
  #length = 0;
  #isRead = false;
  readonly #onLost: (error: SessionError) => void;

  /**
   * @param deadline how long it may take: seconds.
   * @param onLost called when it takes too long, or the client goes away, before it was released.
   */
  constructor(socket: Duplex, head: Buffer, deadline: number, onLost: (error: SessionError) => void) {
    this.#socket = socket;
    this.#head = head;
    this.#deadline = deadline;
    this.#onLost = onLost;
    this.#start = setImmediate(this.#read);
  }

  /** Lets go of the connection. @returns what came meanwhile. */
  release(): Buffer {
    this.isReleased = true;
    clearImmediate(this.#start);
    clearTimeout(this.#timer);
    if (!this.#isRead) return this.#head;
    this.#socket.off('data', this.#keep).off('end', this.#leave).off('close', this.#leave).pause();
    return Buffer.concat([this.#head, ...this.#chunks]);
  }

  readonly #read = (): void => {
    this.#isRead = true;
    this.#timer = setTimeout(() => this.#onLost(tooLate(this.#deadline)), this.#deadline * 1000);
    if (this.#socket.closed) return this.#leave();
    this.#socket.on('data', this.#keep).once('end', this.#leave).once('close', this.#leave);
  };

  readonly #leave = (): void =>
    this.#onLost(new SessionError('ERR_DEADLINE', 'the client went away before it was answered'));

  readonly #keep = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length > MOST) this.#socket.pause();
  };
}
