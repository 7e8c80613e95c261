import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { Duplex } from 'node:stream';
import fc from 'fast-check';
import { Server } from 'socket.io';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type PerMessageDeflateOptions, WebSocketServer } from 'ws';
import { WebauthError } from '../src/errors.js';
import { findHandshakeError } from '../src/websocket/handshake-grammar.js';
import { type AcceptOptions, authenticateUpgrade, refuseUpgrade } from '../src/websocket/index.js';
import { acceptConnections } from '../src/websocket/socketio.js';
import { handshakeHeaders, handshakeParts, socketSite } from './sockets.js';

const site = socketSite();
const KEY = handshakeHeaders['sec-websocket-key'];
const JUPYTER = 'v1.token.websocket.jupyter.org';

/** Parts of a handshake on the wire. Several values of a field are several lines. */
interface Handshake {
  readonly method?: string;
  readonly http?: string;
  readonly upgrade?: readonly string[];
  readonly key?: readonly string[];
  readonly version?: readonly string[];
  readonly protocols?: readonly string[];
  readonly extensions?: readonly string[];
  readonly more?: readonly string[];
}

function bytesOf(path: string, handshake: Handshake): string {
  const { method = 'GET', http = '1.1', upgrade = ['websocket'], key = [KEY], version = ['13'] } = handshake;
  const { protocols = [], extensions = [], more = [] } = handshake;
  const lines = (name: string, values: readonly string[]) => values.map((value) => `${name}: ${value}`);
  const head = [
    `${method} ${path} HTTP/${http}`,
    'Host: 127.0.0.1',
    'Connection: Upgrade',
    ...lines('Upgrade', upgrade),
    ...lines('Sec-WebSocket-Key', key),
    ...lines('Sec-WebSocket-Version', version),
    ...lines('Sec-WebSocket-Protocol', protocols),
    ...lines('Sec-WebSocket-Extensions', extensions),
    ...more,
  ];
  return `${head.join('\r\n')}\r\n\r\n`;
}

/** Sends a handshake. @returns the answer, to the end of its head if that is 101. */
async function send(port: number, path: string, handshake: Handshake): Promise<string> {
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  socket.write(Buffer.from(bytesOf(path, handshake), 'latin1'));
  let text = '';
  for await (const chunk of socket) {
    text += chunk;
    if (text.startsWith('HTTP/1.1 101') && text.includes('\r\n\r\n')) break;
  }
  return text;
}

async function makeTicket(): Promise<string> {
  const { cookie } = await site.logIn();
  return (await site.waa.makeTicket(cookie)).ticket;
}

const malformed: readonly [string, Handshake, number, string][] = [
  ['the method is POST', { method: 'POST' }, 405, 'ERR_HANDSHAKE_METHOD'],
  ['the method is OPTIONS', { method: 'OPTIONS' }, 405, 'ERR_HANDSHAKE_METHOD'],
  ['the protocol is HTTP/1.0', { http: '1.0' }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['Upgrade has two protocols', { upgrade: ['websocket, foo'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['Upgrade is doubled', { upgrade: ['websocket', 'websocket'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the key is missing', { key: [] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the key is too short', { key: ['dGhlIHNhbXBsZQ=='] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the key is doubled', { key: [KEY, KEY] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the version is missing', { version: [] }, 426, 'ERR_HANDSHAKE_VERSION'],
  ['the version is 12', { version: ['12'] }, 426, 'ERR_HANDSHAKE_VERSION'],
  ['the version is 8', { version: ['8'] }, 426, 'ERR_HANDSHAKE_VERSION'],
  [
    'the version is 8, and its Origin that of another site',
    { version: ['8'], more: ['Sec-WebSocket-Origin: https://evil.cam.ac.uk'] },
    426,
    'ERR_HANDSHAKE_VERSION',
  ],
  ['the version is doubled', { version: ['13', '13'] }, 426, 'ERR_HANDSHAKE_VERSION'],
  ['the version is 13 in another notation', { version: ['0xd'] }, 426, 'ERR_HANDSHAKE_VERSION'],
  ['a subprotocol is doubled', { protocols: ['chat, chat'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['a subprotocol is doubled by two lines', { protocols: ['chat', 'chat'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['a subprotocol is empty', { protocols: ['chat,,other'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['a subprotocol is no token', { protocols: ['chat(x)'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the list of subprotocols is empty', { protocols: [''] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['an extension is no token', { extensions: ['"x"'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['a parameter of an extension is empty', { extensions: ['x;'] }, 400, 'ERR_HANDSHAKE_INVALID'],
  ['the list of extensions ends in a comma', { extensions: ['x,'] }, 400, 'ERR_HANDSHAKE_INVALID'],
];

/** Endpoints that take a ticket in the query, and how often the application was asked. */
const endpoints: Readonly<Record<string, (options: AcceptOptions) => void>> = {
  'acceptUpgrades()': (options) => void site.accept({ path: '/live', ...options }),
  'acceptUpgrades() with rejection: close': (options) =>
    void site.accept({ path: '/live', rejection: 'close', ...options }),
  'authenticateUpgrade()': ({ credentials = [], authorise = () => true }) => {
    const options = { credentials, authorise };
    const handler = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      authenticateUpgrade(site.waa, request, options).then(
        () => site.wss.handleUpgrade(request, socket, head, () => {}),
        (error) => refuseUpgrade(socket, error),
      );
    };
    site.server.on('upgrade', handler);
    site.afterwards(() => site.server.off('upgrade', handler));
  },
};

describe.each(Object.keys(endpoints))('%s', (name) => {
  it.each(malformed)('rejects by HTTP, before the ticket is consumed, when %s', async (_, handshake, status, code) => {
    const authorise = vi.fn(() => true);
    endpoints[name]?.({ credentials: ['query'], authorise });
    const ticket = await makeTicket();
    const answer = await send(site.port, `/live?ticket=${ticket}`, handshake);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} .*"${code}"`, 's'));
    expect(/^Sec-WebSocket-Version: 13\r$/m.test(answer)).toBe(status === 426);
    expect(/^Allow: GET\r$/m.test(answer)).toBe(status === 405);
    expect(authorise).not.toHaveBeenCalled();
    // Not consumed, and good for a well-formed handshake.
    expect(await send(site.port, `/live?ticket=${ticket}`, {})).toMatch(/^HTTP\/1\.1 101 /);
  });

  it('rejects a malformed list of subprotocols before the ticket in it is consumed', async () => {
    endpoints[name]?.({ credentials: ['subprotocol'] });
    const ticket = await makeTicket();
    const token = `${JUPYTER}.${ticket}`;
    // The last one has a no-break space, which JavaScript trims.
    for (const list of [`${token},`, `,${token}`, `chat,,${token}`, `chat, chat, ${token}`, `${token}\xa0, chat`]) {
      const answer = await send(site.port, '/live', { protocols: [list] });
      expect(answer, list).toMatch(/^HTTP\/1\.1 400 .*"ERR_HANDSHAKE_INVALID"/s);
      expect(answer).not.toContain(ticket);
    }
    expect(await send(site.port, '/live', { protocols: [token] })).toMatch(/^HTTP\/1\.1 101 /);
  });

  it('rejects a malformed handshake before its Origin', async () => {
    endpoints[name]?.({ credentials: ['cookie'] });
    const answer = await send(site.port, '/live', { key: ['x'], more: ['Origin: https://evil.cam.ac.uk'] });
    expect(answer).toContain('"ERR_HANDSHAKE_INVALID"');
  });
});

describe('acceptUpgrades()', () => {
  it.each(malformed)(
    'rejects with firstMessage, before the socket is open, when %s',
    async (_, handshake, status, code) => {
      site.accept({ path: '/live', credentials: ['firstMessage'], rejection: 'close' });
      expect(await send(site.port, '/live', handshake)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} .*"${code}"`, 's'));
    },
  );

  it('rejects an unacceptable offer of compression before the ticket is consumed, where the server compresses', async () => {
    const perMessageDeflate = { serverNoContextTakeover: false, serverMaxWindowBits: 12, clientMaxWindowBits: 11 };
    const to = new WebSocketServer({ noServer: true, perMessageDeflate });
    site.accept({ path: '/live', credentials: ['query'] }, to);
    const ticket = await makeTicket();
    const offers = [
      'permessage-deflate',
      'permessage-deflate; client_max_window_bits=10',
      'permessage-deflate; client_max_window_bits; server_max_window_bits=11',
      'permessage-deflate; client_max_window_bits; server_no_context_takeover',
      'permessage-deflate; client_max_window_bits=16',
      'permessage-deflate; client_max_window_bits; client_max_window_bits',
      'permessage-deflate; client_max_window_bits; other',
    ];
    for (const offer of offers) {
      const answer = await send(site.port, `/live?ticket=${ticket}`, { extensions: [offer] });
      expect(answer, offer).toContain('"ERR_HANDSHAKE_INVALID"');
    }
    const extensions = [...offers, 'permessage-deflate; client_max_window_bits'].slice(-1);
    expect(await send(site.port, `/live?ticket=${ticket}`, { extensions })).toMatch(/^HTTP\/1\.1 101 /);
    for (const socket of to.clients) socket.terminate();
  });

  it('accepts an offer that only a server with compression would reject, where the server has none', async () => {
    site.accept({ path: '/live', credentials: ['query'] });
    const extensions = ['permessage-deflate; other'];
    expect(await send(site.port, `/live?ticket=${await makeTicket()}`, { extensions })).toMatch(/^HTTP\/1\.1 101 /);
  });

  it('rejects an address that the WebSocketServer does not handle, before the ticket is consumed', async () => {
    const to = new WebSocketServer({ noServer: true, path: '/other' });
    site.accept({ credentials: ['query'] }, to);
    const ticket = await makeTicket();
    expect(await send(site.port, `/live?ticket=${ticket}`, {})).toMatch(/^HTTP\/1\.1 400 .*"ERR_HANDSHAKE_INVALID"/s);
    expect(await send(site.port, `/other?ticket=${ticket}`, {})).toMatch(/^HTTP\/1\.1 101 /);
    for (const socket of to.clients) socket.terminate();
  });
});

describe('authenticateUpgrade()', () => {
  it('rejects a malformed handshake in front of the first message, and leaves the ticket usable', async () => {
    const headers = { ...handshakeHeaders, 'sec-websocket-version': '8' };
    const request = { ...handshakeParts, headers, headersDistinct: {}, socket: {}, url: '/' } as never;
    const ticket = await makeTicket();
    const decided = authenticateUpgrade(site.waa, request, { credentials: ['firstMessage'] }, ticket);
    await expect(decided).rejects.toMatchObject({ code: 'ERR_HANDSHAKE_VERSION', status: 426 });
    await expect(site.waa.takeTicket(ticket)).resolves.toMatchObject({ principal: 'test0001' });
  });

  it('authenticates an upgrade to another protocol, which the rules of WebSockets do not concern', async () => {
    const headers = { upgrade: 'hello', connection: 'Upgrade' };
    const url = `/?ticket=${await makeTicket()}`;
    const request = { ...handshakeParts, method: 'POST', headers, headersDistinct: {}, socket: {}, url } as never;
    const decided = authenticateUpgrade(site.waa, request, { credentials: ['query'] });
    await expect(decided).resolves.toMatchObject({ principal: 'test0001' });
  });

  it('leaves no token in the request of a malformed handshake', async () => {
    const headers = { ...handshakeHeaders, 'sec-websocket-protocol': `${JUPYTER}.secret,` };
    const url = '/?ticket=secret&a=1';
    const request = { ...handshakeParts, headers, headersDistinct: {}, socket: {}, url };
    const decided = authenticateUpgrade(site.waa, request as never, { credentials: ['query'] });
    await expect(decided).rejects.toBeInstanceOf(WebauthError);
    expect(JSON.stringify(request)).not.toContain('secret');
    expect(request.url).toBe('/?a=1');
  });
});

describe('acceptConnections()', () => {
  it.each(malformed)(
    'rejects a WebSocket, before the ticket is consumed, when %s',
    async (_, handshake, status, code) => {
      const server = createServer();
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const { port } = server.address() as AddressInfo;
      const io = new Server(server, { serveClient: false });
      site.afterwards(() => void io.close());
      acceptConnections(io, site.waa, { credentials: ['query'] });
      const ticket = await makeTicket();
      const path = `/socket.io/?EIO=4&transport=websocket&ticket=${ticket}`;
      expect(await send(port, path, handshake)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} .*"${code}"`, 's'));
      await expect(site.waa.takeTicket(ticket)).resolves.toMatchObject({ principal: 'test0001' });
      await io.close();
    },
  );
});

// What browsers and common clients send, and what was changed in it.
const often = <T>(usual: T, ...others: T[]) =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, fc.constantFrom(...others));
const key = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('base64'));
const keys = fc.oneof(
  { weight: 12, arbitrary: key.map((one) => [one]) },
  fc.constantFrom([], ['x'], [KEY, KEY], [`${KEY}=`], [KEY.slice(1)], [`${KEY},`], [KEY.replace('d', '-')], ['']),
);
const joined = (pieces: readonly string[], maxLength = 8) =>
  fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength }).map((parts) => parts.join(''));
const lines = (value: fc.Arbitrary<string>) => fc.array(value, { minLength: 1, maxLength: 2 });
const names = fc.uniqueArray(fc.constantFrom('a', 'b', JUPYTER, 'chat.v2', "!#$%&'*+-.^_`|~"), { minLength: 1 });
const protocols = fc.oneof(
  { weight: 3, arbitrary: fc.constant([]) },
  { weight: 3, arbitrary: fc.tuple(names, fc.constantFrom(',', ', ', ' ,\t')).map(([list, by]) => [list.join(by)]) },
  lines(joined(['a', 'b', JUPYTER, ',', ', ', ' ', '\t', '(', '"', '\xe9', ';', '', '/'], 5)),
);
const parameter = fc.constantFrom(
  ...['client_max_window_bits', 'client_max_window_bits=10', 'client_max_window_bits="1\\2"', 'x="a\\b"'],
  ...['server_max_window_bits=11', 'server_max_window_bits=9', 'server_max_window_bits', 'x', 'x=y'],
  ...['client_no_context_takeover', 'server_no_context_takeover', 'server_no_context_takeover=1'],
  ...['client_max_window_bits=16', 'client_max_window_bits=09', 'client_max_window_bits=1e1', 'x=""', 'x = y', ''],
);
const offer = fc
  .tuple(often('permessage-deflate', 'x', 'PerMessage-Deflate', ''), fc.array(parameter, { maxLength: 3 }))
  .map(([name, parameters]) => [name, ...parameters].join('; '));
const extensions = fc.oneof(
  { weight: 2, arbitrary: fc.constant([]) },
  { weight: 2, arbitrary: fc.constant(['permessage-deflate; client_max_window_bits']) },
  { weight: 5, arbitrary: lines(fc.array(offer, { minLength: 1, maxLength: 3 }).map((list) => list.join(', '))) },
  {
    weight: 3,
    arbitrary: lines(
      joined(['permessage-deflate', 'x', ';', ', ', '=', '"', '\\', ' ', '\t', 'client_max_window_bits', '9']),
    ),
  },
);
const handshakes: fc.Arbitrary<Handshake> = fc.record({
  method: often('GET', 'POST', 'HEAD', 'OPTIONS', 'DELETE'),
  http: often('1.1', '1.0'),
  upgrade: often(['websocket'], ['WebSocket'], ['websocket, x'], ['x'], ['websocket', 'websocket'], ['websocket/13']),
  key: keys,
  version: often(['13'], ['8'], ['12'], [], ['13', '13'], ['13, 13'], ['013'], ['13.0'], ['0xd'], ['+13'], ['']),
  protocols,
  extensions,
});

const compressions: [string, boolean | PerMessageDeflateOptions][] = [
  ['no compression', false],
  ['compression', true],
  ['restricted compression', { serverNoContextTakeover: false, serverMaxWindowBits: 10, clientMaxWindowBits: 10 }],
  ['compression without window sizes', { serverMaxWindowBits: false as never, clientMaxWindowBits: false as never }],
];

describe('findHandshakeError()', () => {
  it.each(compressions)('accepts nothing that ws rejects, with %s', (_, perMessageDeflate) => {
    const wss = new WebSocketServer({ noServer: true, perMessageDeflate });
    const counts = { both: 0, none: 0 };
    fc.assert(
      fc.property(handshakes, (handshake) => {
        const request = requestOf(handshake);
        const error = findHandshakeError(request, perMessageDeflate);
        const unknown = findHandshakeError(request);
        const isAccepted = acceptsAlone(wss, request);
        if (!isAccepted) expect(error).toBeInstanceOf(WebauthError);
        counts[isAccepted && error === undefined ? 'both' : 'none'] += 1;
        // Where nothing is known of the server, everything is rejected that one without restrictions would reject.
        if (perMessageDeflate === true && !isAccepted) expect(unknown).toBeInstanceOf(WebauthError);
      }),
      { seed: 20130704, numRuns: 3000 },
    );
    expect(Math.min(counts.both, counts.none)).toBeGreaterThan(300);
  });

  it('rejects nothing that ws accepts, apart from other versions and malformed extensions that ws does not read', () => {
    const wss = new WebSocketServer({ noServer: true });
    fc.assert(
      fc.property(handshakes, ({ version: _, http: __, ...rest }) => {
        const request = requestOf(rest);
        const isWellFormed = findHandshakeError(request, false) === undefined;
        // Without compression ws reads no extensions.
        fc.pre(rest.extensions?.length === 0);
        expect(isWellFormed).toBe(acceptsAlone(wss, request));
      }),
      { seed: 20130704, numRuns: 1500 },
    );
  });
});

/** A request as Node makes it of those lines: several of one name are joined, blanks around values are gone. */
function requestOf(handshake: Handshake): IncomingMessage {
  const { method = 'GET', http = '1.1', upgrade = ['websocket'], key: keyLines = [KEY], version = ['13'] } = handshake;
  const { protocols: protocolLines = [], extensions: extensionLines = [] } = handshake;
  const fields = {
    upgrade,
    'sec-websocket-key': keyLines,
    'sec-websocket-version': version,
    'sec-websocket-protocol': protocolLines,
    'sec-websocket-extensions': extensionLines,
  };
  const headers: Record<string, string> = {};
  for (const [name, values] of Object.entries(fields)) {
    if (values.length > 0) headers[name] = values.map((one) => one.replace(/^[ \t]+|[ \t]+$/g, '')).join(', ');
  }
  return { method, httpVersion: http, headers, url: '/', rawHeaders: [], headersDistinct: {}, socket: {} } as never;
}

/** Whether ws accepts the handshake by itself. */
function acceptsAlone(wss: WebSocketServer, request: IncomingMessage): boolean {
  let isAccepted = false;
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  wss.handleUpgrade(request, Object.assign(socket, { setTimeout() {}, setNoDelay() {} }), Buffer.alloc(0), (ws) => {
    isAccepted = true;
    ws.terminate();
  });
  socket.destroy();
  return isAccepted;
}

describe('a handshake that ws rejects', () => {
  const bare = createServer((_, response) => response.writeHead(204, { Connection: 'close' }).end());
  const servers = compressions.map(
    ([, perMessageDeflate]) => new WebSocketServer({ noServer: true, perMessageDeflate }),
  );
  beforeAll(async () => {
    bare.on('upgrade', (request, socket, head) => {
      const place = Number(new URLSearchParams(request.url?.split('?')[1]).get('place'));
      servers[place]?.handleUpgrade(request, socket, head, () => {});
    });
    await once(bare.listen(0, '127.0.0.1'), 'listening');
  });
  afterAll(() => {
    bare.close();
    bare.closeAllConnections();
  });

  it.each(compressions.map(([name], place) => [name, place] as const))(
    'is rejected before its ticket is consumed and before the application is asked, with %s',
    async (_, place) => {
      const asked = vi.fn(() => true);
      const answer = (
        _request: unknown,
        response: { writeHead: (status: number, headers: object) => { end(): void } },
      ) => response.writeHead(204, { Connection: 'close' }).end();
      site.server.on('request', answer);
      site.afterwards(() => site.server.off('request', answer));
      site.accept({ path: '/live', credentials: ['query'], authorise: asked }, servers[place] as WebSocketServer);
      const { cookie } = await site.logIn();
      const { port } = bare.address() as AddressInfo;
      let opened = 0;
      await fc.assert(
        fc.asyncProperty(handshakes, async (handshake) => {
          asked.mockClear();
          const { ticket } = await site.waa.makeTicket(cookie);
          const [alone, guarded] = await Promise.all([
            send(port, `/live?place=${place}`, handshake),
            send(site.port, `/live?ticket=${ticket}`, handshake),
          ]);
          if (guarded.startsWith('HTTP/1.1 101 ')) {
            opened += 1;
            expect(alone).toMatch(/^HTTP\/1\.1 101 /);
            return;
          }
          expect(guarded).toMatch(/^HTTP\/1\.1 (204|400|405|426) /);
          expect(asked).not.toHaveBeenCalled();
          // The ticket is good still.
          await site.waa.takeTicket(ticket);
        }),
        { seed: 20130704, numRuns: 120 },
      );
      expect(opened).toBeGreaterThan(10);
      for (const socket of servers[place]?.clients ?? []) socket.terminate();
    },
    60_000,
  );
});
