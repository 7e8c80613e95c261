import type { Duplex } from 'node:stream';
import { SessionError } from '../errors.js';
import type { Socket } from './refusal.js';

/** Bytes that are taken of a client before it was said whose socket it is. */
const MOST = 1024;

type Reader = (this: Duplex, chunk: Buffer) => void;

/**
 * What a client sends first. Its first frame has to be a ticket, whole. It is all that ws gets to see until it is known
 * whose socket this is: what comes after it waits where it is, unread.
 */
export class FirstMessage {
  /** @throws SessionError if it is none, or the client goes away. */
  readonly ticket: Promise<string>;
  readonly #ws: Socket;
  readonly #connection: Duplex;
  /** Those of ws. */
  readonly #readers: Reader[];
  #bytes: Buffer = Buffer.alloc(0);
  #give = (_ticket: string): void => {};
  #fail = (_message: string): void => {};

  constructor(ws: Socket, connection: Duplex) {
    this.#ws = ws;
    this.#connection = connection;
    this.ticket = new Promise((resolve, reject) => {
      this.#give = resolve;
      this.#fail = (message) => reject(new SessionError('ERR_TOKEN_INVALID', message));
    });
    this.#readers = connection.listeners('data') as Reader[];
    connection.removeAllListeners('data').on('data', this.#read);
    ws.on('message', this.#take).once('close', this.#leave);
  }

  /** Lets the client go on. Whoever listens to the socket at the end of this turn misses nothing. */
  release(): void {
    this.forget();
    this.#ws.resume();
  }

  /** Looks at nothing more. */
  forget(): void {
    this.#connection.off('data', this.#read);
    this.#ws.off('message', this.#take).off('close', this.#leave);
  }

  readonly #read = (chunk: Buffer): void => {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const length = frameLength(this.#bytes);
    if (length > MOST) return this.#fail(notTicket);
    if (this.#bytes.length >= length) this.#hand(this.#bytes.subarray(0, length), this.#bytes.subarray(length));
  };

  #hand(frame: Buffer, rest: Buffer): void {
    const connection = this.#connection.off('data', this.#read);
    this.#ws.pause();
    if (rest.length > 0) connection.unshift(rest);
    for (const reader of this.#readers) connection.on('data', reader);
    for (const reader of this.#readers) reader.call(connection, frame);
  }

  readonly #take = (data: Buffer): void => {
    // It may have been packed.
    if (data.length > MOST) this.#fail(notTicket);
    else this.#give(String(data));
  };

  readonly #leave = (): void => this.#fail('the client went away without a ticket');
}

const notTicket = 'the first message has to be a ticket, in one frame';

/**
 * The length of a client's frame, header and mask included, as far as its beginning says (RFC 6455, 5.2): at least so
 * much. Infinite, if it is no whole message.
 */
function frameLength(start: Buffer): number {
  const [first, second] = start;
  if (first === undefined || second === undefined) return 2;
  const [isFinal, opcode, length] = [(first & 0x80) !== 0, first & 0x0f, second & 0x7f];
  // With a frame of this kind it goes away.
  if (opcode === CLOSE) return 6 + length;
  if (!isFinal || (opcode !== TEXT && opcode !== BINARY) || length === 127) return Number.POSITIVE_INFINITY;
  if (length < 126) return 6 + length;
  return start.length < 4 ? 4 : 8 + start.readUInt16BE(2);
}

const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
