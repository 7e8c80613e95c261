import type { Duplex } from 'node:stream';
import { CLOSE } from './client-frame.js';

/** Most bytes that are read from the peer of a rejected socket: a page may send before it receives the close frame. */
const MAX_DISCARDED = 1_048_576;

const closings = new WeakMap<Duplex, CloseFrameScanner>();

/**
 * Completes the closing handshake of a rejected socket, once its close frame is written (RFC 6455, 5.5.1 and 7.1.1): reads
 * and discards the frames of its peer, and ends the connection after the peer's close frame. A connection that ends before
 * is a failed one to some browsers, which then report no close code.
 *
 * @param unread bytes of the peer that were read before, from the beginning of a frame.
 */
export function completeClosing(connection: Duplex, unread: Buffer): void {
  if (connection.readableEnded) return void connection.end();
  closings.set(connection, new CloseFrameScanner());
  connection.removeAllListeners('data').on('data', discard);
  if (unread.length > 0) discard.call(connection, unread);
  connection.resume();
}

function discard(this: Duplex, chunk: Buffer): void {
  const scanner = closings.get(this) as CloseFrameScanner;
  scanner.scan(chunk);
  if (scanner.length > MAX_DISCARDED) this.destroy();
  else if (scanner.isDone) this.end();
}

/** Finds the close frame among the frames of a client. Keeps no payload. */
class CloseFrameScanner {
  /** Whether a whole close frame was there, or the bytes are no frames of a client. */
  isDone = false;
  /** Number of bytes that were there so far. */
  length = 0;
  /** Bytes of a header that is not complete. */
  #header: Buffer = Buffer.alloc(0);
  /** Number of bytes of the frame that are still to come. */
  #rest = 0;
  #isClose = false;

  scan(chunk: Buffer): void {
    this.length += chunk.length;
    let bytes = this.#header.length === 0 ? chunk : Buffer.concat([this.#header, chunk]);
    while (!this.isDone) {
      const skipped = Math.min(this.#rest, bytes.length);
      bytes = bytes.subarray(skipped);
      this.#rest -= skipped;
      if (this.#rest > 0) break;
      if (this.#isClose || !this.#begin(bytes)) break;
    }
    this.isDone ||= this.#isClose && this.#rest === 0;
    this.#header = this.#rest > 0 || this.isDone ? Buffer.alloc(0) : Buffer.from(bytes);
  }

  /** Begins the next frame. @returns whether its header is complete. */
  #begin(bytes: Buffer): boolean {
    const [first, second] = bytes;
    if (first === undefined || second === undefined) return false;
    // Clients mask every frame (RFC 6455, 5.1).
    if ((second & 0x80) === 0) {
      this.isDone = true;
      return false;
    }
    const length = frameLength(bytes, second & 0x7f);
    if (length === undefined) return false;
    this.#rest = length;
    this.#isClose = (first & 0x0f) === CLOSE;
    return true;
  }
}

/** Returns the length of a masked frame with its header, or `undefined` if the bytes end before (RFC 6455, 5.2). */
function frameLength(bytes: Buffer, short: number): number | undefined {
  if (short < 126) return 6 + short;
  if (short === 126) return bytes.length < 4 ? undefined : 8 + bytes.readUInt16BE(2);
  return bytes.length < 10 ? undefined : 14 + Number(bytes.readBigUInt64BE(2));
}
