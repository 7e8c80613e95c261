import { once } from 'node:events';
import type { Socket } from 'node:net';
import { constants, deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import * as ws from 'ws';
import { type PerMessageDeflateOptions, type WebSocket, WebSocketServer } from 'ws';
import { readHeader, unmaskPayload } from '../src/websocket/client-frame.js';
import { frame, socketSite } from './sockets.js';

const site = socketSite();
const credentials = ['firstMessage'] as const;

/** Writes frames; the types of ws leave it out. */
const { Sender } = ws as unknown as { Sender: { frame(data: Buffer, options: object): Buffer[] } };

const PING = 9;
const PONG = 10;
const CLOSE = 8;

/** Bytes of a compressed message, without the end that clients leave out. */
function pack(data: Buffer | string, finishFlush = constants.Z_SYNC_FLUSH): Buffer {
  const packed = deflateRawSync(data, { finishFlush });
  return finishFlush === constants.Z_SYNC_FLUSH ? packed.subarray(0, -4) : packed;
}

const packedFrame = (data: Buffer, more: Parameters<typeof frame>[1] = {}): Buffer =>
  frame(data.toString('latin1'), { encoding: 'latin1', packed: true, ...more });

async function ticket(): Promise<string> {
  const { cookie } = await site.logIn();
  return (await site.waa.makeTicket(cookie)).ticket;
}

/** Accepts with a compressing server, and notes what ws unpacks of unauthenticated clients. */
function acceptCompressed(options: boolean | PerMessageDeflateOptions = { threshold: 0 }) {
  const wss = new WebSocketServer({ noServer: true, perMessageDeflate: options });
  const unpacked: number[] = [];
  const handleUpgrade = wss.handleUpgrade.bind(wss);
  wss.handleUpgrade = (request, socket, head, callback) =>
    handleUpgrade(request, socket, head, (ws, own) => {
      ws.on('message', (data: Buffer) => unpacked.push(data.length));
      callback(ws, own);
    });
  site.accept({ credentials }, wss);
  return { wss, unpacked };
}

const compression = ['Sec-WebSocket-Extensions: permessage-deflate'];

/** A client that sends bytes of its own; with the code of the frame that closes its socket. */
async function peer(lines: string[] = []): Promise<{ socket: Socket; closed: Promise<number> }> {
  const socket = site.connect(lines);
  const [head] = (await once(socket, 'data')) as [Buffer];
  expect(String(head)).toMatch(/^HTTP\/1\.1 101 .*\r\n\r\n$/s);
  const closed = new Promise<number>((resolve) => {
    let bytes = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      const close = bytes.indexOf(0x88);
      if (close < 0 || bytes.length < close + 4) return;
      resolve(bytes.readUInt16BE(close + 2));
      socket.destroy();
    });
  });
  return { socket, closed };
}

async function opened(perMessageDeflate: boolean | PerMessageDeflateOptions = false): Promise<WebSocket> {
  const client = site.client('/', { perMessageDeflate, headers: { origin: site.origin } });
  await once(client, 'open');
  return client;
}

/** Waits for the authenticated socket. */
async function authenticated(wss: WebSocketServer): Promise<WebSocket> {
  const [socket, request] = await once(wss, 'connection');
  expect(request.auth).toMatchObject({ principal: 'test0001', via: 'ticket' });
  return socket;
}

describe('firstMessage, by control frames before the ticket', () => {
  it('answers pings at once, and accepts the ticket afterwards', async () => {
    site.accept({ credentials });
    const client = await opened();
    for (const text of ['one', 'two']) {
      const pong = once(client, 'pong');
      client.ping(text);
      expect(String((await pong)[0])).toBe(text);
    }
    client.pong('unsolicited');
    const socket = authenticated(site.wss);
    client.send(await ticket());
    expect((await socket).readyState).toBe(1);
  });

  it('answers a ping between the fragments of the ticket', async () => {
    site.accept({ credentials });
    const client = await opened();
    const text = await ticket();
    client.send(text.slice(0, 10), { fin: false });
    const pong = once(client, 'pong');
    client.ping('between');
    expect(String((await pong)[0])).toBe('between');
    const socket = authenticated(site.wss);
    client.send(text.slice(10));
    await socket;
  });

  it.each([
    ['1,000 pongs', PONG, 1000, ''],
    ['40 pings of 125 bytes', PING, 40, 'x'.repeat(125)],
  ])('closes with 4401 for %s, however they are cut', async (_, opcode, count, text) => {
    site.accept({ credentials });
    const bytes = Buffer.concat(Array(count).fill(frame(text, { opcode })));
    for (const pieces of [[bytes], [bytes.subarray(0, 3001), bytes.subarray(3001)]]) {
      const { socket, closed } = await peer();
      for (const piece of pieces) if (socket.writable) socket.write(piece);
      expect(await closed).toBe(4401);
    }
  });

  it('closes with 4401 for 1,000 pings that wait for their answers', async () => {
    site.accept({ credentials });
    const client = await opened();
    const closed = once(client, 'close');
    let answered = 0;
    client.on('pong', () => {
      answered += 1;
      if (answered < 1000) client.ping();
    });
    client.ping();
    expect([(await closed)[0], answered]).toEqual([4401, Math.floor(4096 / 6)]);
  });

  it('ends a connection for 1,000 pings at once', async () => {
    site.accept({ credentials });
    const { socket } = await peer();
    const ended = once(socket, 'close');
    socket.write(Buffer.concat(Array(1000).fill(frame('', { opcode: PING }))));
    await ended;
    expect(site.events.at(-1)).toMatchObject({ event: 'refused', code: 'ERR_TOKEN_INVALID' });
  });

  it('accepts a ticket after as many pongs as are allowed', async () => {
    site.accept({ credentials });
    const { socket } = await peer();
    const there = authenticated(site.wss);
    socket.write(Buffer.concat([...Array(4096 / 8).fill(frame('ab', { opcode: PONG })), frame(await ticket())]));
    await there;
    socket.destroy();
  });

  it.each([
    ['at once', []],
    ['after a part of a message', [frame('a', { isFinal: false })]],
    ['after a ping', [frame('a', { opcode: PING })]],
  ])('takes a close frame %s for the end', async (_, before) => {
    site.accept({ credentials });
    const { socket, closed } = await peer();
    const close = frame('\x03\xe8', { opcode: CLOSE, encoding: 'latin1' });
    socket.write(Buffer.concat([...before, close, frame(await ticket())]));
    expect(await closed).toBe(1000);
    await vi.waitFor(() =>
      expect(site.events.at(-1)).toMatchObject({ event: 'refused', message: expect.stringContaining('went away') }),
    );
  });
});

describe('firstMessage, by a fragmented ticket', () => {
  it.each([1, 7, 42])('accepts fragments of %i bytes, and passes what follows', async (size) => {
    site.accept({ credentials });
    const client = await opened();
    const text = await ticket();
    const there = authenticated(site.wss);
    for (let at = 0; at < text.length; at += size)
      client.send(text.slice(at, at + size), { fin: at + size >= text.length });
    const heard = once(await there, 'message');
    client.send('next');
    expect(String((await heard)[0])).toBe('next');
  });

  it('accepts frames that arrive byte by byte', async () => {
    site.accept({ credentials });
    const { socket } = await peer();
    const text = await ticket();
    const there = authenticated(site.wss);
    const bytes = Buffer.concat([
      frame(text.slice(0, 20), { isFinal: false }),
      frame('', { opcode: PING }),
      frame('', { opcode: 0, isFinal: false }),
      frame(text.slice(20), { opcode: 0 }),
    ]);
    socket.setNoDelay();
    for (const byte of bytes) {
      await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve));
    }
    await there;
    socket.destroy();
  });

  it.each<[string, Buffer]>([
    [
      'many tiny fragments',
      Buffer.concat([frame('', { isFinal: false }), ...Array(200).fill(frame('', { opcode: 0, isFinal: false }))]),
    ],
    [
      'fragments that are longer than a ticket in all',
      Buffer.concat([frame('x'.repeat(600), { isFinal: false }), frame('x'.repeat(600), { opcode: 0 })]),
    ],
    ['a compressed message without compression', packedFrame(pack('x'))],
    ['a reserved bit', Buffer.from([0xa1, 0x80, 0, 0, 0, 0])],
    ['the other reserved bit', Buffer.from([0x91, 0x80, 0, 0, 0, 0])],
    ['a frame without mask', Buffer.from([0x81, 0x01, 0x61])],
    ['a length in a longer form than needed', Buffer.from([0x81, 0xfe, 0, 1, 0, 0, 0, 0, 0x61])],
    ['a long ping', frame('x'.repeat(126), { opcode: PING })],
    ['a close frame in parts', frame('', { opcode: CLOSE, isFinal: false })],
    ['a control frame that there is not', frame('', { opcode: 11 })],
  ])('closes at once with 4401 for %s', async (_, bytes) => {
    site.accept({ credentials });
    const { socket, closed } = await peer();
    socket.write(bytes);
    expect(await closed).toBe(4401);
  });
});

describe('firstMessage, by a compressed ticket', () => {
  it.each<[string, PerMessageDeflateOptions]>([
    ['with context takeover', {}],
    ['without context takeover', { clientNoContextTakeover: true, serverNoContextTakeover: true }],
    ['with a small window', { clientMaxWindowBits: 9, serverMaxWindowBits: 9 }],
  ])('accepts it %s, and unpacks what follows', async (_, options) => {
    const { wss } = acceptCompressed({ threshold: 0, ...options });
    const client = await opened({ threshold: 0, ...options });
    expect(client.extensions).toContain('permessage-deflate');
    const text = await ticket();
    const there = authenticated(wss);
    client.send(text);
    const socket = await there;
    // With context takeover, this refers to what the ticket left in the window.
    for (const message of [text, text + text]) {
      const heard = once(socket, 'message');
      client.send(message);
      expect(String((await heard)[0])).toBe(message);
    }
  });

  it('accepts it in fragments, with a ping between', async () => {
    const { wss } = acceptCompressed();
    const { socket } = await peer(compression);
    const there = authenticated(wss);
    const packed = pack(await ticket());
    socket.write(packedFrame(packed.subarray(0, 9), { isFinal: false }));
    socket.write(frame('', { opcode: PING }));
    socket.write(packedFrame(packed.subarray(9), { opcode: 0, packed: false }));
    await there;
    socket.destroy();
  });

  it('accepts stored blocks, and messages that are not compressed', async () => {
    const { wss } = acceptCompressed();
    for (const make of [
      (text: string) =>
        packedFrame(deflateRawSync(text, { level: 0, finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4)),
      (text: string) => frame(text),
    ]) {
      const { socket } = await peer(compression);
      const there = authenticated(wss);
      socket.write(make(await ticket()));
      await there;
      socket.destroy();
    }
  });

  const zeros = (size: number) => Buffer.alloc(size);
  const sync = pack(zeros(500_000));
  const final = pack(zeros(500_000), constants.Z_FINISH);
  const short = pack('x', constants.Z_FINISH);

  it.each<[string, Buffer[]]>([
    ['a message that unpacks to half a megabyte', [packedFrame(sync)]],
    [
      'the same in fragments',
      [
        packedFrame(sync.subarray(0, 200), { isFinal: false }),
        packedFrame(sync.subarray(200), { opcode: 0, packed: false }),
      ],
    ],
    ['one byte more than a ticket may have', [packedFrame(pack(zeros(1025)))]],
    ['a final block', [packedFrame(final)]],
    // ws begins a new stream with each fragment behind a final block.
    [
      'a bomb in the fragment behind a final block',
      [packedFrame(short, { isFinal: false }), packedFrame(sync, { opcode: 0, packed: false })],
    ],
    ['a bomb behind a final block', [packedFrame(Buffer.concat([short, sync]))]],
    ['what is no compressed data', [packedFrame(Buffer.alloc(10, 0xff))]],
    ['a compressed continuation', [packedFrame(pack('x'), { isFinal: false }), packedFrame(pack('x'), { opcode: 0 })]],
    ['a compressed ping', [frame('', { opcode: PING, packed: true })]],
  ])('closes with 4401 for %s, before ws unpacks it', async (_, frames) => {
    const { unpacked } = acceptCompressed();
    const { socket, closed } = await peer(compression);
    expect(Buffer.concat(frames).length).toBeLessThan(1024);
    socket.write(Buffer.concat(frames));
    expect(await closed).toBe(4401);
    expect(unpacked).toEqual([]);
  });

  it.each<[string, Buffer]>([
    ['an empty block', Buffer.from([0])],
    ['nothing', Buffer.alloc(0)],
    ['a kilobyte', pack('x'.repeat(1024))],
  ])('closes with 4401 for %s, which is no ticket', async (_, data) => {
    const { unpacked } = acceptCompressed();
    const { socket, closed } = await peer(compression);
    socket.write(packedFrame(data));
    expect(await closed).toBe(4401);
    expect(unpacked.every((length) => length <= 1024)).toBe(true);
  });
});

describe('readHeader()', () => {
  it('reads what ws writes, as a client', () => {
    const payloads = fc.tuple(fc.uint8Array({ maxLength: 2000 }), fc.boolean(), fc.boolean(), fc.constantFrom(0, 1, 2));
    fc.assert(
      fc.property(payloads, ([data, isFinal, isCompressed, opcode]) => {
        const options = { fin: isFinal, rsv1: isCompressed, opcode, mask: true, readOnly: true };
        const bytes = Buffer.concat(Sender.frame(Buffer.from(data), options));
        const header = readHeader(bytes);
        expect(header).toMatchObject({ isFinal, isCompressed, opcode, length: bytes.length });
        expect(header && unmaskPayload(bytes, header)).toEqual(Buffer.from(data));
      }),
    );
  });

  it.each([
    ['a length of 1 in two bytes', [0x81, 0xfe, 0, 1]],
    ['a length of 125 in two bytes', [0x81, 0xfe, 0, 125]],
    ['a length in eight bytes', [0x81, 0xff]],
    ['no mask', [0x81, 0x01]],
    ['a long ping', [0x89, 0xfe, 0, 126]],
  ])('throws for %s', (_, bytes) => {
    expect(() => readHeader(Buffer.from(bytes))).toThrow(RangeError);
  });

  it('waits for the bytes of the length', () => {
    for (const length of [0, 1]) expect(readHeader(frame('x').subarray(0, length))).toBeUndefined();
    for (const length of [2, 3]) expect(readHeader(frame('x'.repeat(200)).subarray(0, length))).toBeUndefined();
    expect(readHeader(frame('x'.repeat(200)).subarray(0, 4))).toMatchObject({ length: 208, offset: 8 });
  });
});
