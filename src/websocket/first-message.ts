import type { Duplex } from 'node:stream';
import { constants, inflateRawSync } from 'node:zlib';
import { SessionError } from '../errors.js';
import { CLOSE, CONTINUATION, type FrameHeader, isControl, readHeader, unmaskPayload } from './client-frame.js';
import type { Socket } from './refusal.js';

/** Most bytes of the message, before authentication: its frames with their headers, and also what it unpacks to. */
const MOST = 1024;
/** Most bytes of all pings and pongs before the message: each ping is answered. */
const MOST_CONTROL = 4096;

type Reader = (this: Duplex, chunk: Buffer) => void;

/**
 * First message of a client, which has to be a ticket. It may be fragmented or compressed. Until it is whole, ws gets the
 * control frames only, which it answers. What comes after the message waits unread until the client is authenticated.
 */
export class FirstMessage {
  /** @throws SessionError if it is none, or the client goes away. */
  readonly ticket: Promise<string>;
  readonly #ws: Socket;
  readonly #connection: Duplex;
  /** Those of ws. */
  readonly #readers: Reader[];
  /** Bytes that are not a whole frame yet. */
  #bytes: Buffer = Buffer.alloc(0);
  readonly #message: PartialMessage;
  #controlLength = 0;
  #give = (_ticket: string): void => {};
  #fail = (_message: string): void => {};

  constructor(ws: Socket, connection: Duplex) {
    this.#ws = ws;
    this.#connection = connection;
    this.#message = new PartialMessage(ws.extensions.includes('permessage-deflate'));
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

  /** Looks at nothing more. @returns the bytes that were read, and not passed on, from the beginning of a frame. */
  forget(): Buffer {
    this.#connection.off('data', this.#read);
    this.#ws.off('message', this.#take).off('close', this.#leave);
    return this.#bytes;
  }

  readonly #read = (chunk: Buffer): void => {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    try {
      while (this.#takeFrame());
    } catch {
      this.#fail(notTicket);
    }
  };

  /** @returns whether there may be another frame to take. @throws RangeError if the frame is not allowed here. */
  #takeFrame(): boolean {
    const header = readHeader(this.#bytes);
    if (header === undefined) return false;
    // Judged by the header alone: the rest of a frame that is too long is not awaited.
    if (isControl(header)) this.#checkControl(header);
    else this.#message.check(header);
    if (this.#bytes.length < header.length) return false;
    const frame = this.#bytes.subarray(0, header.length);
    this.#bytes = this.#bytes.subarray(header.length);
    if (header.opcode === CLOSE) return this.#finish(frame);
    if (isControl(header)) return this.#answer(frame);
    this.#message.add(frame, header);
    return header.isFinal ? this.#finish(this.#message.frames()) : true;
  }

  #checkControl({ length }: FrameHeader): void {
    if (this.#controlLength + length > MOST_CONTROL) throw new RangeError();
  }

  /** Passes a ping or pong to ws, which answers it. */
  #answer(frame: Buffer): true {
    this.#controlLength += frame.length;
    this.#pass(frame);
    return true;
  }

  /** Passes the message, or the frame that closes the socket, to ws, which reads by itself from then on. */
  #finish(frames: Buffer): false {
    const connection = this.#connection.off('data', this.#read);
    this.#ws.pause();
    if (this.#bytes.length > 0) connection.unshift(this.#bytes);
    this.#bytes = Buffer.alloc(0);
    for (const reader of this.#readers) connection.on('data', reader);
    this.#pass(frames);
    return false;
  }

  #pass(frames: Buffer): void {
    for (const reader of this.#readers) reader.call(this.#connection, frames);
  }

  /** ws has unpacked the message too: its decompressor needs it for those that follow. */
  readonly #take = (data: Buffer): void => this.#give(String(data));

  readonly #leave = (): void => this.#fail('the client went away without a ticket');
}

const notTicket = `the first message has to be a ticket: at most ${MOST} bytes, in valid frames, with few pings before`;

/** Frames of one message that are there so far. */
class PartialMessage {
  readonly #mayBeCompressed: boolean;
  readonly #frames: Buffer[] = [];
  readonly #payloads: Buffer[] = [];
  #length = 0;
  #isCompressed = false;

  constructor(mayBeCompressed: boolean) {
    this.#mayBeCompressed = mayBeCompressed;
  }

  /** @throws RangeError if a frame with that header cannot come next (RFC 6455, 5.4; RFC 7692, 6.1), or is too long. */
  check({ opcode, isCompressed, length }: FrameHeader): void {
    const isFirst = this.#frames.length === 0;
    if (isFirst === (opcode === CONTINUATION)) throw new RangeError();
    if (isCompressed && !(isFirst && this.#mayBeCompressed)) throw new RangeError();
    if (this.#length + length > MOST) throw new RangeError();
  }

  add(frame: Buffer, header: FrameHeader): void {
    this.#isCompressed ||= header.isCompressed;
    this.#length += frame.length;
    this.#frames.push(frame);
    // A copy: ws takes the mask off in place.
    this.#payloads.push(unmaskPayload(frame, header));
  }

  /** Returns the bytes of the whole message. @throws RangeError if it would unpack to too much. */
  frames(): Buffer {
    if (this.#isCompressed) checkUnpacked(Buffer.concat([...this.#payloads, TAIL]));
    return Buffer.concat(this.#frames);
  }
}

/** End of each compressed message, which clients leave out (RFC 7692, 7.2.1). */
const TAIL = Buffer.from([0, 0, 0xff, 0xff]);

/** @throws RangeError if the data unpacks to more than a ticket, or is not compressed as browsers and ws do. */
function checkUnpacked(packed: Buffer): void {
  const limits = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: MOST, chunkSize: MOST, info: true };
  const { engine } = inflateRawSync(packed, limits) as unknown as { engine: { bytesWritten: number } };
  // After a final block (RFC 1951, 3.2.3) ws starts a new inflater with the next frame, and would unpack unchecked data.
  if (engine.bytesWritten !== packed.length) throw new RangeError();
}
