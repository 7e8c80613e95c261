import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'socket.io';
import { describe, expect, it } from 'vitest';
import { acceptConnections } from '../src/websocket/socketio.js';
import { codeOf, connected, rejected, sidOf, socketIOSite } from './socketio-site.js';

// Logs on the way keep addresses: nothing in an address may authorize a later request.
const site = socketIOSite();
const post = { method: 'POST', body: '42["say","stolen"]' };

describe('acceptConnections() with the query credential', () => {
  it('connects a client that begins as a WebSocket, and consumes its ticket', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['query'] });
    const ticket = await site.ticket();
    const connection = once(site.io, 'connection');
    await connected(site.client({ transports: ['websocket'], query: { ticket } }));
    const [{ data }] = await connection;
    expect(data.auth).toMatchObject({ principal: 'test0001', via: 'ticket' });
    await expect(site.waa.takeTicket(ticket)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
  });

  it.each([
    ['polls', ['polling']],
    ['polls first', ['polling', 'websocket']],
  ])('rejects a client that %s with the transport to use, and does not consume its ticket', async (_, transports) => {
    acceptConnections(site.io, site.waa, { credentials: ['query', 'cookie'] });
    const ticket = await site.ticket();
    const error = await rejected(site.client({ transports, query: { ticket } }));
    expect(error.context?.status).toBe(403);
    expect(await site.waa.takeTicket(ticket)).toMatchObject({ principal: 'test0001' });
    expect(site.events.filter(({ event }) => event === 'refused')).toMatchObject([
      { code: 'ERR_SESSION_MISSING', message: expect.stringContaining("transports: ['websocket']") },
    ]);
  });

  it('rejects a ticket in the address of a polling request beside a good cookie or token', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['query', 'cookie', 'bearer'] });
    const cookie = await site.logIn();
    const [ticket, other] = [await site.ticket(cookie), await site.ticket(cookie)];
    for (const headers of [site.headers(cookie), { authorization: `Bearer ${other}` }]) {
      expect(codeOf(await site.ask(`transport=polling&ticket=${ticket}`, headers))).toBe('ERR_SESSION_MISSING');
    }
    for (const one of [ticket, other]) expect(await site.waa.takeTicket(one)).toMatchObject({ via: 'ticket' });
  });

  it('checks the Origin before it names the transport', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['query'] });
    const query = `transport=polling&ticket=${await site.ticket()}`;
    expect(codeOf(await site.ask(query, { origin: 'https://evil.cam.ac.uk' }))).toBe('ERR_ORIGIN_REFUSED');
  });

  it.each(['address', 'header'])(
    'rejects later requests that show the ticket of the address again: in the %s',
    async (where) => {
      acceptConnections(site.io, site.waa, { credentials: ['query', 'bearer'] });
      const heard: unknown[] = [];
      site.io.on('connection', (socket: Socket) => socket.onAny((...given) => heard.push(given)));
      const ticket = await site.ticket();
      const client = await connected(site.client({ transports: ['websocket'], query: { ticket } }));
      const { id } = client.io.engine;
      const shown = where === 'address' ? `&ticket=${ticket}` : '';
      const headers: Record<string, string> = where === 'header' ? { authorization: `Bearer ${ticket}` } : {};
      for (const answer of [
        await site.ask(`transport=polling&sid=${id}${shown}`, headers, post),
        await site.ask(`transport=polling&sid=${id}${shown}`, headers),
        await site.upgrade(`sid=${id}${shown}`, headers),
      ]) {
        expect([answer.status, codeOf(answer)]).toEqual(
          where === 'address' ? [403, 'ERR_SESSION_MISSING'] : [401, 'ERR_TOKEN_INVALID'],
        );
      }
      expect(heard).toEqual([]);
      expect(client.connected).toBe(true);
    },
  );

  it('rejects a new ticket in the address of a later request, for a connection that polls by another credential', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['query', 'bearer'] });
    const cookie = await site.logIn();
    const own = { authorization: `Bearer ${await site.ticket(cookie)}` };
    const sid = sidOf(await site.ask('transport=polling', own));
    const fresh = await site.ticket(cookie);
    for (const headers of [{}, own]) {
      const answers = [
        await site.ask(`transport=polling&sid=${sid}&ticket=${fresh}`, headers, post),
        await site.upgrade(`sid=${sid}&ticket=${fresh}`, headers as Record<string, string>),
      ];
      expect(answers.map(codeOf)).toEqual(Array(2).fill('ERR_SESSION_MISSING'));
    }
    expect(await site.waa.takeTicket(fresh)).toMatchObject({ principal: 'test0001' });
    expect((await site.ask(`transport=polling&sid=${sid}`, own, { method: 'POST', body: '40' })).status).toBe(200);
  });

  it('rejects a later request with the sid alone', async () => {
    acceptConnections(site.io, site.waa, { credentials: ['query'] });
    const client = await connected(site.client({ transports: ['websocket'], query: { ticket: await site.ticket() } }));
    const { id } = client.io.engine;
    for (const answer of [await site.ask(`transport=polling&sid=${id}`), await site.upgrade(`sid=${id}`)]) {
      expect(codeOf(answer)).toBe('ERR_SESSION_MISSING');
    }
  });

  it.each([
    ['encoded', (ticket: string) => `%74icke%74=${ticket}`],
    ['plain', (ticket: string) => `ticket=${ticket}`],
  ])('shows the ticket of an address, %s, to no listener, in accepted and rejected requests', async (_, write) => {
    acceptConnections(site.io, site.waa, { credentials: ['query'] });
    const seen: unknown[] = [];
    const note = ({ url, headers, rawHeaders, _query }: IncomingMessage & { _query?: object }) =>
      void seen.push([url, headers, rawHeaders, _query]);
    site.io.engine.use((request: IncomingMessage, _response: unknown, next: () => void) => {
      note(request);
      next();
    });
    site.io.engine.on('connection_error', ({ req }) => note(req));
    site.io.engine.on('initial_headers', (_headers, request) => note(request as never));
    site.io.on('connection', ({ handshake, request }) => {
      seen.push(handshake);
      note(request as never);
    });
    const ticket = await site.ticket();
    await site.ask(`transport=polling&${write(ticket)}`);
    await site.upgrade(write(ticket));
    // One that the engine itself rejects, once it was decided.
    const second = await site.ticket();
    expect((await site.upgrade(`transport=none&${write(second)}`)).status).toBe(400);
    expect(seen).not.toEqual([]);
    for (const one of [ticket, second]) expect(JSON.stringify([seen, site.events])).not.toContain(one);
  });
});
