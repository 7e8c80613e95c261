import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import { Server, type Socket } from 'socket.io';
import { io as connectClient } from 'socket.io-client';
import { describe, expect, it, vi } from 'vitest';
import { WebSocket } from 'ws';
import { authenticateUpgrade, socketFrame } from '../src/websocket/index.js';
import { acceptConnections } from '../src/websocket/socketio.js';
import { frame, handshakeHeaders, handshakeParts, socketSite } from './sockets.js';

// A ticket is not consumed for a client that has gone, and nothing that was consumed is granted to one.
const site = socketSite();

async function makeTicket(): Promise<string> {
  const { cookie } = await site.logIn();
  return (await site.waa.makeTicket(cookie)).ticket;
}

const isUsable = async (ticket: string): Promise<boolean> =>
  site.waa.takeTicket(ticket).then(
    () => true,
    () => false,
  );

/** Has the next ticket wait, once it is consumed, for work that is done meanwhile. */
function whileRedeemed(work: () => unknown): void {
  const take = site.waa.takeTicket.bind(site.waa);
  vi.spyOn(site.waa, 'takeTicket').mockImplementationOnce(async (ticket) => {
    const auth = await take(ticket);
    await work();
    return auth;
  });
}

describe('renew()', () => {
  const closed = { code: 'ERR_SOCKET_CLOSED', status: 401 };

  it('rejects, and consumes no ticket, when the socket is closed', async () => {
    site.accept();
    const { client, socket, request } = await site.open('/', site.headers((await site.logIn()).cookie));
    client.terminate();
    await once(socket, 'close');
    const ticket = await makeTicket();
    await expect(request.auth?.renew?.(ticket)).rejects.toMatchObject(closed);
    expect(await isUsable(ticket)).toBe(true);
  });

  it('rejects, and consumes no ticket, when the socket is closing', async () => {
    site.accept();
    const { client, socket, request } = await site.open('/', site.headers((await site.logIn()).cookie));
    client.pause();
    socket.close();
    const ticket = await makeTicket();
    await expect(request.auth?.renew?.(ticket)).rejects.toMatchObject(closed);
    expect(socket.readyState).toBe(WebSocket.CLOSING);
    expect(await isUsable(ticket)).toBe(true);
    client.terminate();
  });

  it('rejects, and consumes no ticket, when the session was revoked', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { request } = await site.open('/', site.headers(cookie));
    await site.waa.endSession(auth);
    const ticket = await makeTicket();
    await expect(request.auth?.renew?.(ticket)).rejects.toMatchObject(closed);
    expect(await isUsable(ticket)).toBe(true);
  });

  it('rejects, and watches no session, when the socket closes while the ticket is redeemed', async () => {
    site.accept();
    const { auth, cookie } = await site.logIn();
    const { socket, request } = await site.open('/', site.headers(cookie));
    const ticket = await makeTicket();
    const watch = vi.spyOn(site.waa, 'watch');
    whileRedeemed(() => socket.terminate());
    await expect(request.auth?.renew?.(ticket)).rejects.toMatchObject(closed);
    expect(watch).not.toHaveBeenCalled();
    expect(request.auth?.sessionId).toBe(auth.sessionId);
  });

  it('rejects, and consumes no ticket, when the connection of Socket.IO is closed', async () => {
    const { made, connection } = await connectSocketIO();
    const { auth } = connection.data;
    const gone = once(connection, 'disconnect');
    made.disconnect();
    await gone;
    const ticket = await makeTicket();
    await expect(auth.renew(ticket)).rejects.toMatchObject(closed);
    expect(await isUsable(ticket)).toBe(true);
  });

  it('rejects when the connection of Socket.IO closes while the ticket is redeemed', async () => {
    const { connection } = await connectSocketIO();
    const ticket = await makeTicket();
    whileRedeemed(() => connection.conn.close(true));
    await expect(connection.data.auth.renew(ticket)).rejects.toMatchObject(closed);
  });
});

async function connectSocketIO() {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const io = new Server(server, { serveClient: false });
  acceptConnections(io, site.waa);
  const extraHeaders = site.headers((await site.logIn()).cookie);
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const connecting = once(io, 'connection');
  const made = connectClient(address, { reconnection: false, transports: ['websocket'], extraHeaders });
  site.afterwards(() => {
    made.disconnect();
    void io.close();
  });
  return { made, connection: (await connecting)[0] as Socket };
}

describe('authenticateUpgrade()', () => {
  const away = { code: 'ERR_DEADLINE' };
  const requestOf = (socket: PassThrough, ticket = '') =>
    ({
      ...handshakeParts,
      headers: handshakeHeaders,
      headersDistinct: {},
      socket,
      url: ticket && `/?ticket=${ticket}`,
    }) as unknown as IncomingMessage;

  it.each<[string, (socket: PassThrough) => unknown]>([
    ['destroyed', (socket) => socket.destroy()],
    ['ended', (socket) => socket.end()],
  ])('rejects, and consumes no ticket, when the socket is %s', async (_, leave) => {
    const socket = new PassThrough();
    leave(socket);
    const ticket = await makeTicket();
    const query = authenticateUpgrade(site.waa, requestOf(socket, ticket), { credentials: ['query'] });
    await expect(query).rejects.toMatchObject(away);
    const first = authenticateUpgrade(site.waa, requestOf(socket), { credentials: ['firstMessage'] }, ticket);
    await expect(first).rejects.toMatchObject(away);
    expect(await isUsable(ticket)).toBe(true);
  });

  it.each(['query', 'firstMessage'] as const)(
    'rejects, and does not call authorise(), when the socket closes while the ticket is redeemed: %s',
    async (credential) => {
      const authorise = vi.fn(() => true);
      const socket = new PassThrough();
      const ticket = await makeTicket();
      whileRedeemed(() => socket.destroy());
      const request = requestOf(socket, credential === 'query' ? ticket : '');
      const given = credential === 'query' ? undefined : ticket;
      const decided = authenticateUpgrade(site.waa, request, { credentials: [credential], authorise }, given);
      await expect(decided).rejects.toMatchObject(away);
      expect(authorise).not.toHaveBeenCalled();
    },
  );

  it('rejects when the socket closes while authorise() decides', async () => {
    const socket = new PassThrough();
    const authorise = () => {
      socket.destroy();
      return true;
    };
    const request = requestOf(socket, await makeTicket());
    await expect(authenticateUpgrade(site.waa, request, { credentials: ['query'], authorise })).rejects.toMatchObject(
      away,
    );
  });
});

describe('acceptUpgrades() with firstMessage', () => {
  it('consumes no ticket when the connection is destroyed as the ticket arrives', async () => {
    site.accept({ credentials: ['firstMessage'] });
    const ticket = await makeTicket();
    const taken = vi.spyOn(site.waa, 'takeTicket');
    const connecting = once(site.server, 'connection');
    const client = site.connect([]);
    const [connection] = await connecting;
    await once(client, 'data');
    // After the library has read the ticket, and before it goes on.
    connection.on('data', () => connection.destroy());
    const closed = once(connection, 'close');
    client.write(frame(ticket));
    await closed;
    expect(taken).not.toHaveBeenCalled();
    expect(await isUsable(ticket)).toBe(true);
  });
});

describe('socketFrame()', () => {
  it('consumes no ticket when the client has gone', async () => {
    const live = 'https://live.example.org';
    const serve = socketFrame(site.waa, { origin: live });
    const ticket = await makeTicket();
    const request = Object.assign(Readable.from([Buffer.from(ticket)]), {
      method: 'POST',
      url: '/webauth/frame',
      headers: { origin: live },
      headersDistinct: { origin: [live] },
      complete: true,
      socket: { destroyed: true },
    });
    const status = await new Promise((resolve) => {
      const response = { req: request, setHeader() {}, end() {}, writeHead: (value: number) => resolve(value) };
      serve(request as never, response as never);
    });
    expect(status).toBe(408);
    expect(await isUsable(ticket)).toBe(true);
  });
});
