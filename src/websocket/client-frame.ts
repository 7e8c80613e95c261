/** Header of a client's frame (RFC 6455, 5.2). */
export interface FrameHeader {
  /** Whether it is the last frame of its message. */
  readonly isFinal: boolean;
  /** Whether RSV1 is set, which marks a compressed message (RFC 7692, 6). */
  readonly isCompressed: boolean;
  readonly opcode: number;
  /** Bytes before the payload, the masking key included. */
  readonly offset: number;
  /** Bytes of the whole frame. */
  readonly length: number;
}

export const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
export const CLOSE = 8;
const PING = 9;
const PONG = 10;

const opcodes: ReadonlySet<number> = new Set([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]);

export function isControl({ opcode }: FrameHeader): boolean {
  return opcode >= CLOSE;
}

/**
 * Reads the header of the frame that the bytes begin with.
 *
 * @returns `undefined` if the bytes end before the length of the payload.
 * @throws RangeError if a client must not send it (RFC 6455, 5.2 to 5.5), or if the payload is longer than 65,535 bytes.
 */
export function readHeader(bytes: Buffer): FrameHeader | undefined {
  const [first, second] = bytes;
  if (first === undefined || second === undefined) return undefined;
  const short = second & 0x7f;
  const header = { isFinal: (first & 0x80) !== 0, isCompressed: (first & 0x40) !== 0, opcode: first & 0x0f };
  const isMasked = (second & 0x80) !== 0;
  if ((first & 0x30) !== 0 || !opcodes.has(header.opcode) || !isMasked || short === 127) throw new RangeError();
  if (short < 126) return checkControl({ ...header, offset: 6, length: 6 + short });
  if (bytes.length < 4) return undefined;
  const long = bytes.readUInt16BE(2);
  // The shortest form of the length is required.
  if (long < 126) throw new RangeError();
  return checkControl({ ...header, offset: 8, length: 8 + long });
}

/** Checks RFC 6455, 5.5, and RFC 7692, 6.1: a control frame is short, whole and not compressed. */
function checkControl(header: FrameHeader): FrameHeader {
  if (isControl(header) && (!header.isFinal || header.isCompressed || header.offset !== 6)) throw new RangeError();
  return header;
}

/** Returns a copy of the payload of a whole frame, without its mask. */
export function unmaskPayload(frame: Buffer, { offset }: FrameHeader): Buffer {
  const payload = Buffer.from(frame.subarray(offset));
  for (let i = 0; i < payload.length; i++)
    payload[i] = (payload[i] as number) ^ (frame[offset - 4 + (i & 3)] as number);
  return payload;
}
