import type { Duplex } from 'node:stream';
import { SessionError } from '../errors.js';

/** Bytes that are kept of what a client sends before it was answered; it has no reason to. */
const MOST = 16_384;

/** A connection of which it is being decided whose it is to be. It is read meanwhile, so that its end is noticed. */
export class Held {
  /** Rejects when the client goes away. */
  readonly gone: Promise<never>;
  readonly #socket: Duplex;
  readonly #chunks: Buffer[];
  #length = 0;
  #leave = (): void => {};

  constructor(socket: Duplex, head: Buffer) {
    this.#socket = socket;
    this.#chunks = [head];
    this.gone = new Promise((_, reject) => {
      this.#leave = () => reject(new SessionError('ERR_DEADLINE', 'the client went away before it was answered'));
    });
    // Somebody may look at it only when it is over.
    this.gone.catch(() => {});
    socket.on('data', this.#keep).once('end', this.#leave).once('close', this.#leave);
  }

  /** Lets go of the connection. @returns what came meanwhile. */
  release(): Buffer {
    this.#socket.off('data', this.#keep).off('end', this.#leave).off('close', this.#leave).pause();
    return Buffer.concat(this.#chunks);
  }

  readonly #keep = (chunk: Buffer): void => {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length > MOST) this.#socket.pause();
  };
}
