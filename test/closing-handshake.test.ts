import { once } from 'node:events';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { SessionError } from '../src/errors.js';
import { refuseUpgrade } from '../src/websocket/index.js';
import { frame, socketSite } from './sockets.js';

const site = socketSite();
const CLOSE = 8;
const PING = 9;

/** Close frame of a client, with the server's code. */
const peerClose = frame('\x11\x31', { opcode: CLOSE, encoding: 'latin1' });

/** Frame whose length takes eight bytes. */
function longFrame(size: number): Buffer {
  const header = Buffer.alloc(14);
  header.set([0x82, 0xff]);
  header.writeBigUInt64BE(BigInt(size), 2);
  return Buffer.concat([header, Buffer.alloc(size, 0x88)]);
}

/** Client whose socket is rejected or revoked. */
interface Client {
  readonly socket: Socket;
  /** Whether the server has sent FIN. */
  hasEnded: boolean;
}

/** Connects, and waits for the server's close frame. @param more frames that the client sends with the handshake. */
async function closing(path: string, lines: string[] = [], more: readonly Buffer[] = []): Promise<Client> {
  const socket = site.connect([`Origin: ${site.origin}`, ...lines], { path, more });
  const client = { socket, hasEnded: false };
  socket.on('end', () => {
    client.hasEnded = true;
  });
  await new Promise<void>((resolve) => {
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (text.includes('ERR_')) resolve();
    });
  });
  return client;
}

/** Waits until the server has served another connection from its beginning to its end. */
async function roundTrip(): Promise<void> {
  expect(await site.raw([], undefined, '/unknown')).toContain('404');
}

function acceptAll(): void {
  site.accept({ path: '/closing', rejection: 'close' });
  site.accept({ path: '/late', credentials: ['firstMessage'] });
  site.accept({ path: '/open' });
}

const rejections: [name: string, reject: (more?: readonly Buffer[]) => Promise<Client>][] = [
  ['a rejected handshake', (more) => closing('/closing', [], more)],
  ['a rejected first message', (more = []) => closing('/late', [], [frame('no ticket'), ...more])],
  ['a first message that is too long', (more = []) => closing('/late', [], [frame('x'.repeat(2000)), ...more])],
  [
    'a revoked session',
    async (more) => {
      const { auth, cookie } = await site.logIn();
      const connection = once(site.wss, 'connection');
      const closed = closing('/open', [`Cookie: webauth-session=${cookie}`], more);
      await connection;
      await site.waa.endSession(auth);
      return closed;
    },
  ],
];

describe.each(rejections)('the closing handshake after %s', (_name, reject) => {
  it("sends FIN after the peer's close frame, and not before", async () => {
    acceptAll();
    const { socket, ...client } = await reject();
    await roundTrip();
    expect([client.hasEnded, socket.readableEnded]).toEqual([false, false]);
    const ended = once(socket, 'end');
    socket.write(peerClose);
    await ended;
    socket.destroy();
  });

  it('finds the close frame behind other frames', async () => {
    acceptAll();
    const { socket } = await reject([frame('y'.repeat(300)), frame('', { opcode: PING })]);
    await roundTrip();
    expect(socket.readableEnded).toBe(false);
    const ended = once(socket, 'end');
    socket.write(Buffer.concat([longFrame(70_000), frame('a', { isFinal: false }), frame('b', { opcode: 0 })]));
    await roundTrip();
    expect(socket.readableEnded).toBe(false);
    socket.write(Buffer.concat([frame('z'.repeat(200)), peerClose]));
    await ended;
    socket.destroy();
  });

  it('ends the connection of a peer that never closes', async () => {
    acceptAll();
    const { socket } = await reject();
    await once(socket, 'close');
  });

  it('ends the connection of a peer that sends FIN instead', async () => {
    acceptAll();
    const { socket } = await reject();
    const ended = once(socket, 'end');
    socket.end();
    await ended;
  });
});

describe("a rejected socket's peer", () => {
  it('may send its close frame byte by byte', async () => {
    acceptAll();
    const { socket } = await closing('/closing');
    socket.setNoDelay();
    const ended = once(socket, 'end');
    for (const byte of Buffer.concat([frame('x'.repeat(200)), longFrame(3), peerClose])) {
      expect(socket.readableEnded).toBe(false);
      await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve));
    }
    await ended;
    socket.destroy();
  });

  it('loses the connection at once for a frame without mask', async () => {
    acceptAll();
    const { socket } = await closing('/closing');
    const ended = once(socket, 'end');
    socket.write(Buffer.from([0x81, 0x01, 0x61]));
    await ended;
    socket.destroy();
  });

  it.each([
    ['before', []],
    ['after', [peerClose]],
  ])('loses the connection for more than a megabyte %s its close frame', async (_, before) => {
    acceptAll();
    const [server, { socket }] = (await Promise.all([once(site.server, 'connection'), closing('/closing')])) as [
      [Socket],
      Client,
    ];
    // It may be reset, which is an error too.
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(Buffer.concat([...before, longFrame(2_000_000)]));
    await closed;
    expect(server[0].bytesRead).toBeLessThan(1_500_000);
  });
});

describe('rejected connections', () => {
  it('are at most 1,000 that wait for their peers: beyond it, the oldest are destroyed', () => {
    const sockets = Array.from({ length: 1500 }, () => {
      return new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
    });
    for (const socket of sockets) refuseUpgrade(socket, new SessionError('ERR_SESSION_MISSING', 'no credential'));
    const destroyed = sockets.map((socket) => socket.destroyed);
    expect(destroyed).toEqual([...Array(500).fill(true), ...Array(1000).fill(false)]);
    for (const socket of sockets) socket.destroy();
  });
});
