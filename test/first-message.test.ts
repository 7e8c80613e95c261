import { EventEmitter, once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { constants, deflateRawSync } from 'node:zlib';
import { describe, expect, it, vi } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import type { LogEvent } from '../src/config.js';
import { authenticateUpgrade } from '../src/websocket/index.js';
import { clock } from './site.js';
import { frame, socketSite } from './sockets.js';

// The credential that comes when the socket is open already: nothing of it, and nothing before it, reaches the application.
const site = socketSite();
const credentials = ['firstMessage'] as const;

describe('firstMessage', () => {
  it('opens the socket for a ticket, and not before', async () => {
    site.accept({ credentials });
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const client = await opened();
    expect(connected).not.toHaveBeenCalled();
    // What is sent to all clients of a server is not for them yet.
    expect(site.wss.clients.size).toBe(0);
    const { socket, request } = await send(client, await ticket());
    expect(request.auth).toMatchObject({ principal: 'test0001', via: 'ticket' });
    expect([...site.wss.clients]).toEqual([socket]);
    socket.send('hello');
    expect(String((await once(client, 'message'))[0])).toBe('hello');
  });

  it('takes a ticket as bytes, too', async () => {
    site.accept({ credentials });
    await send(await opened(), Buffer.from(await ticket()));
  });

  it.each<[string, () => Promise<string>]>([
    ['no ticket', async () => 'hello'],
    ['an empty message', async () => ''],
    [
      'an API token',
      async () => (await site.waa.tokens.create({ principal: 'test0001', name: 'a test', ttl: 600 })).token,
    ],
    ['a session cookie', async () => (await site.logIn()).cookie],
    ['a ticket with something behind it', async () => `${await ticket()} `],
    ['two tickets', async () => `${await ticket()}${await ticket()}`],
    [
      'a ticket that was used',
      async () => {
        const one = await ticket();
        await site.waa.takeTicket(one);
        return one;
      },
    ],
    [
      'a ticket that is too old',
      async () => {
        const one = await ticket();
        clock.pass(31);
        return one;
      },
    ],
  ])('closes with 4401 for %s', async (_, make) => {
    site.accept({ credentials });
    const client = await opened();
    client.send(await make());
    expect(await ending(client)).toEqual([4401, expect.stringMatching(/^ERR_TOKEN_INVALID: /)]);
    expect(site.events.at(-1)).toMatchObject({ level: 'debug', event: 'refused', code: 'ERR_TOKEN_INVALID' });
  });

  it('closes with 4401 for the ticket of a session that has ended', async () => {
    site.accept({ credentials });
    const { auth, cookie } = await site.logIn();
    const { ticket } = await site.waa.makeTicket(cookie);
    await site.waa.endSession(auth);
    const client = await opened();
    client.send(ticket);
    expect(await ending(client)).toEqual([4401, 'ERR_SESSION_REVOKED: the session was ended']);
  });

  it('closes with 4403 where the person may not enter', async () => {
    site.accept({ credentials, principals: ['test0002'] });
    const client = await opened();
    client.send(await ticket());
    expect(await ending(client)).toEqual([4403, expect.stringMatching(/^ERR_PRINCIPAL_REFUSED: /)]);
  });

  it('takes one try', async () => {
    site.accept({ credentials });
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const [client, good] = [await opened(), await ticket()];
    client.send('wrong');
    client.send(good);
    expect((await ending(client))[0]).toBe(4401);
    expect(connected).not.toHaveBeenCalled();
    await send(await opened(), good);
  });

  it('uses a ticket up once, of many that come at a time', async () => {
    site.accept({ credentials });
    const [one, clients] = [await ticket(), await Promise.all(Array.from({ length: 10 }, opened))];
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const ended: unknown[] = [];
    for (const client of clients) {
      client.once('close', (code) => ended.push(code));
      client.send(one);
    }
    await vi.waitFor(() => expect(ended).toHaveLength(9));
    expect(ended).toEqual(Array(9).fill(4401));
    expect(connected).toHaveBeenCalledTimes(1);
  });

  it('has an absolute deadline, which traffic does not extend', async () => {
    site.accept({ credentials, deadline: 0.3 });
    const [silent, slow] = [await opened(), await peer()];
    slow.socket.write(frame('x'.repeat(200)).subarray(0, 8));
    const drip = setInterval(() => slow.socket.write(Buffer.from([0])), 20);
    const [end, code] = await Promise.all([ending(silent), slow.closed]);
    clearInterval(drip);
    expect(end).toEqual([4408, expect.stringMatching(/^ERR_DEADLINE: /)]);
    expect(code).toBe(4408);
  });

  it('reports a client that stays silent, or goes away, once', async () => {
    site.accept({ credentials, deadline: 0.1 });
    await site.logIn();
    site.events = [];
    const [silent, gone] = [await opened(), await opened()];
    gone.terminate();
    await ending(silent);
    await vi.waitFor(() => expect(site.events).toHaveLength(2));
    // And nothing more by the time that the next one is through.
    await send(await opened(), await ticket());
    const codes = site.events.filter(({ event }) => event === 'refused').map(({ code }) => code);
    expect(codes.sort()).toEqual(['ERR_DEADLINE', 'ERR_TOKEN_INVALID']);
  });

  it.each<[string, Buffer]>([
    ['a frame of more than 1 KB', frame('x'.repeat(1017))],
    ['a frame that says that it is long, and is not', Buffer.from([0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0])],
    ['a frame of 64 KB', Buffer.from([0x81, 0xfe, 0xff, 0xff])],
    ['a part of a message', frame('a', { isFinal: false })],
    ['the rest of a message', frame('a', { opcode: 0 })],
    ['a ping', frame('', { opcode: 9 })],
    ['a kind of frame that there is not', frame('', { opcode: 3 })],
  ])('closes at once with 4401 for %s', async (_, bytes) => {
    site.accept({ credentials });
    const apart = [...bytes.subarray(0, 10)].map((byte) => Buffer.from([byte]));
    for (const pieces of [[bytes], [...apart, bytes.subarray(10)]]) {
      const { socket, closed } = await peer();
      for (const piece of pieces) if (socket.writable) socket.write(piece);
      expect(await closed).toBe(4401);
    }
  });

  it('is not flooded: nothing is read behind a ticket before it has looked at that', async () => {
    let read = 0;
    const held: Socket[] = [];
    await site.waa.close();
    const log = ({ code }: LogEvent) => {
      if (code === 'ERR_DEADLINE') read = held[0]?.bytesRead ?? 0;
    };
    site.waa = site.makeWAA({ log });
    site.accept({ credentials, deadline: 0.5, authorise: () => new Promise(() => {}) });
    const client = await peer();
    held.push(client.held);
    client.socket.write(Buffer.concat([frame(await ticket()), ...Array(50_000).fill(frame('x'.repeat(100)))]));
    expect(await client.closed).toBe(4408);
    expect(read).toBeGreaterThan(43);
    expect(read).toBeLessThan(500_000);
  });

  it.each([false, true])(
    'loses nothing of what is sent along, and delivers it in order (compressed: %s)',
    async (perMessageDeflate) => {
      const own = new WebSocketServer({ noServer: true, perMessageDeflate: perMessageDeflate && { threshold: 0 } });
      const asked = new EventEmitter();
      const authorise = () => new Promise<boolean>((resolve) => asked.emit('asked', resolve));
      site.accept({ credentials, authorise }, own);
      const heard: string[] = [];
      own.on('connection', (socket) => {
        socket.on('message', (data, isBinary) => heard.push(`${data} ${isBinary ? 'as bytes' : 'as text'}`));
      });
      const client = site.client('/', { perMessageDeflate: perMessageDeflate && { threshold: 0 } });
      await once(client, 'open');
      const question = once(asked, 'asked');
      const sent = Array.from({ length: 2000 }, (_, i) => `${i} ${'x'.repeat(i % 97)}`);
      for (const text of [await ticket(), ...sent.slice(0, 1000)]) client.send(text);
      client.send(Buffer.from('bytes'));
      const [allow] = (await question) as [(answer: boolean) => void];
      const connection = once(own, 'connection');
      allow(true);
      await connection;
      for (const text of sent.slice(1000)) client.send(text);
      await vi.waitFor(() => expect(heard).toHaveLength(2001), 5000);
      const asText = sent.map((text) => `${text} as text`);
      expect(heard).toEqual([...asText.slice(0, 1000), 'bytes as bytes', ...asText.slice(1000)]);
      client.terminate();
    },
  );

  it('does not unpack what comes behind the ticket, nor break by it', async () => {
    const own = new WebSocketServer({ noServer: true, perMessageDeflate: true });
    const asked = new EventEmitter();
    const authorise = () => new Promise<boolean>((resolve) => asked.emit('asked', resolve));
    site.accept({ credentials, authorise, maxPending: 1 }, own);
    const broken = Buffer.concat([deflateRawSync(Buffer.alloc(1_000_000)), Buffer.alloc(100, 0xff)]);
    const packed = frame(broken.toString('latin1'), { encoding: 'latin1', packed: true });
    for (let i = 0; i < 3; i++) {
      const question = once(asked, 'asked');
      const client = await peer(['Sec-WebSocket-Extensions: permessage-deflate']);
      client.socket.write(Buffer.concat([frame(await ticket()), packed]));
      const [allow] = (await question) as [(answer: boolean) => void];
      const closed = new Promise((resolve) => client.held.once('close', resolve));
      client.socket.resetAndDestroy();
      await closed;
      allow(true);
    }
    expect(own.clients.size).toBe(0);
  });

  it('takes no more for a ticket than a kilobyte, also unpacked', async () => {
    const own = new WebSocketServer({ noServer: true, perMessageDeflate: true });
    const take = vi.spyOn(site.waa, 'takeTicket');
    site.accept({ credentials }, own);
    const { socket, closed } = await peer(['Sec-WebSocket-Extensions: permessage-deflate']);
    const packed = deflateRawSync(Buffer.alloc(500_000, 'x'), { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);
    socket.write(frame(packed.toString('latin1'), { encoding: 'latin1', packed: true }));
    expect(await closed).toBe(4401);
    expect(take).not.toHaveBeenCalled();
  });

  it('refuses foreign origins by HTTP, whatever comes later, and lets in who says none', async () => {
    site.accept({ credentials });
    for (const origin of ['null', 'https://evil.cam.ac.uk']) {
      expect(await site.refused('/', { origin })).toMatchObject({ status: 403, code: 'ERR_ORIGIN_REFUSED' });
    }
    const client = site.client('/');
    await once(client, 'open');
    await send(client, await ticket());
  });

  it('gives the application no socket once it has closed the server of those', async () => {
    site.accept({ credentials });
    const connected = vi.fn();
    site.wss.on('connection', connected);
    const client = await opened();
    const closed = once(site.wss, 'close');
    site.wss.close();
    await closed;
    client.send(await ticket());
    expect((await once(client, 'close'))[0]).toBe(1006);
    expect(connected).not.toHaveBeenCalled();
  });

  it('forgets a client that goes away', async () => {
    site.accept({ credentials, maxPending: 1 });
    for (const leave of [(client: WebSocket) => client.close(), (client: WebSocket) => client.terminate()]) {
      const client = await opened();
      leave(client);
      await vi.waitFor(async () => (await opened()).terminate());
    }
    await vi.waitFor(async () => send(await opened(), await ticket()));
  });

  it('goes with no other credential', () => {
    expect(() => site.accept({ credentials: ['firstMessage', 'cookie'] })).toThrow('a path of its own');
    expect(() => site.accept({ credentials: ['firstMessage', 'firstMessage'] })).toThrow(TypeError);
  });

  it('is decided for other stacks, which hand over their first message', async () => {
    const options = { credentials };
    const request = { headers: {}, headersDistinct: {}, socket: {}, url: '/' } as unknown as IncomingMessage;
    expect(await authenticateUpgrade(site.waa, request, options, await ticket())).toMatchObject({ via: 'ticket' });
    await expect(authenticateUpgrade(site.waa, request, options, 'x')).rejects.toMatchObject({
      code: 'ERR_TOKEN_INVALID',
    });
    await expect(authenticateUpgrade(site.waa, request, options)).rejects.toThrow(TypeError);
  });
});

async function ticket(): Promise<string> {
  const { cookie } = await site.logIn();
  return (await site.waa.makeTicket(cookie)).ticket;
}

/** A client whose socket is open, though nobody knows yet whose it is. */
async function opened(): Promise<WebSocket> {
  const client = site.client('/', { headers: { origin: site.origin } });
  await once(client, 'open');
  return client;
}

/** Sends a ticket, and waits until the application has the socket. */
async function send(
  client: WebSocket,
  ticket: string | Buffer,
): Promise<{ socket: WebSocket; request: IncomingMessage }> {
  const connection = once(site.wss, 'connection');
  client.send(ticket);
  const [socket, request] = (await connection) as [WebSocket, IncomingMessage];
  return { socket, request };
}

async function ending(client: WebSocket): Promise<[code: number, reason: string]> {
  const [code, reason] = await once(client, 'close');
  return [code, String(reason)];
}

/** A client that sends bytes of its own; with the server's side of it, and the code of the frame that closes it. */
async function peer(lines: string[] = []): Promise<{ socket: Socket; held: Socket; closed: Promise<number> }> {
  const connection = once(site.server, 'connection');
  const socket = site.connect(lines);
  const [held] = (await connection) as [Socket];
  const [head] = (await once(socket, 'data')) as [Buffer];
  expect(String(head)).toMatch(/^HTTP\/1\.1 101 .*\r\n\r\n$/s);
  const closed = new Promise<number>((resolve) => {
    socket.on('data', (bytes: Buffer) => {
      // An answer to a ping may come before.
      const close = bytes.indexOf(0x88);
      if (close < 0) return;
      resolve(bytes.readUInt16BE(close + 2));
      socket.destroy();
    });
  });
  return { socket, held, closed };
}
