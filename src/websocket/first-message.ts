import type { Duplex } from 'node:stream';
import { SessionError } from '../errors.js';
import type { Socket } from './refusal.js';

/** Bytes that a client may send before it was said whose socket it is. */
const MOST = 1024;
/** The longest header of a frame of that length, with its mask. */
const HEADER = 8;

/** What a client sends first. Its first frame has to be a ticket, whole; what comes after it waits. */
export class FirstMessage {
  /** @throws SessionError if it is none, or the client goes away. */
  readonly ticket: Promise<string>;
  readonly #ws: Socket;
  readonly #connection: Duplex;
  readonly #later: [data: unknown, isBinary: boolean][] = [];
  #start: Buffer = Buffer.alloc(0);
  #received = 0;
  #came = false;
  #give = (_ticket: string): void => {};
  #fail = (_message: string): void => {};

  constructor(ws: Socket, connection: Duplex) {
    this.#ws = ws;
    this.#connection = connection;
    this.ticket = new Promise((resolve, reject) => {
      this.#give = resolve;
      this.#fail = (message) => reject(new SessionError('ERR_TOKEN_INVALID', message));
    });
    // Before ws, which has begun to listen already, and would read a frame of any length.
    connection.prependListener('data', this.#look);
    ws.on('message', this.#take).once('close', this.#leave);
  }

  /** Lets the client go on. Whoever listens to the socket at the end of this turn misses nothing. */
  release(): void {
    this.#connection.off('data', this.#look);
    this.#ws.off('message', this.#take).off('close', this.#leave);
    this.#ws.resume();
  }

  /** Gives what came after the ticket to those who listen now. */
  replay(): void {
    for (const [data, isBinary] of this.#later) this.#ws.emit('message', data, isBinary);
  }

  /** Looks at the bytes of the first frame, as they come. */
  readonly #look = (chunk: Buffer): void => {
    this.#received += chunk.length;
    if (this.#start.length < HEADER) {
      this.#start = Buffer.concat([this.#start, chunk.subarray(0, HEADER - this.#start.length)]);
    }
    const length = frameLength(this.#start);
    if (length > MOST) this.#fail('the first message has to be a ticket, in one frame');
    else if (this.#received < length) return;
    // Nothing more is read until it is known whose this is.
    this.#connection.off('data', this.#look);
    this.#ws.pause();
  };

  readonly #take = (data: unknown, isBinary: boolean): void => {
    if (this.#came) this.#later.push([data, isBinary]);
    else this.#give(String(data));
    this.#came = true;
  };

  readonly #leave = (): void => this.#fail('the client went away without a ticket');
}

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
