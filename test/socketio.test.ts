import { EventEmitter, once } from 'node:events';
import { createServer, type Server as HttpServer, type IncomingMessage, request as send } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { Server, type ServerOptions, type Socket as ServerSocket } from 'socket.io';
import { type Socket as Client, io as connectClient, type ManagerOptions, type SocketOptions } from 'socket.io-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { Config, LogEvent } from '../src/config.js';
import type { AuthResponse } from '../src/response.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { socketFrame } from '../src/websocket/index.js';
import { acceptConnections, type ConnectionOptions } from '../src/websocket/socketio.js';
import { clock, secret, wls } from './site.js';
import { handshake } from './sockets.js';

const jupyter = 'v1.token.websocket.jupyter.org';

let server: HttpServer;
let io: Server;
let waa: WAA;
let origin: string;
let events: LogEvent[];
let entered: ServerSocket[];
let heard: unknown[];
/** What is connected to the server, in the order in which it came. */
let connections: Set<Socket>;
const clients: Client[] = [];

beforeEach(async () => {
  clock.reset();
  server = createServer((_, response) => response.end('page'));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  [events, entered, heard, connections] = [[], [], [], new Set()];
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
  });
  waa = makeWAA();
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.disconnect();
  await io.close();
  server.closeAllConnections();
  await waa.close();
});

function makeWAA(config: Partial<Config> = {}): WAA {
  const log = (event: LogEvent) => void events.push(event);
  return createWAA({ baseUrl: origin, secret, wls: wls.profile, now: clock.now, log, ...config });
}

/** Serves an application that notes who is there and what it hears. */
function serve(options: ConnectionOptions = {}, more: Partial<ServerOptions> = {}): void {
  io = new Server(server, { serveClient: false, ...more });
  acceptConnections(io, waa, options);
  io.on('connection', note);
}

function note(socket: ServerSocket): void {
  entered.push(socket);
  socket.onAny((...given) => heard.push(given));
  socket.on('ask', (text: string, answer: (text: string) => void) => answer(`${socket.data.auth.principal}: ${text}`));
}

async function logIn(overrides: Partial<AuthResponse> = {}): Promise<{ auth: Auth; cookie: string }> {
  const { location, nonce } = waa.startLogin('/');
  const { auth, cookie } = await waa.finishLogin(wls.respond(location, overrides), nonce);
  return { auth, cookie: cookie as string };
}

/** The headers of a page of ours whose visitor has that session. */
const headersOf = (cookie: string, more: Record<string, string> = {}): Record<string, string> => ({
  origin,
  cookie: `webauth-session=${cookie}`,
  ...more,
});

const ticketOf = async (cookie: string): Promise<string> => (await waa.makeTicket(cookie)).ticket;

type Options = Partial<ManagerOptions & SocketOptions>;

function client(options: Options = {}, namespace = ''): Client {
  const made = connectClient(origin + namespace, { forceNew: true, reconnection: false, ...options });
  clients.push(made);
  return made;
}

async function connected(options: Options = {}, namespace = ''): Promise<Client> {
  const made = client(options, namespace);
  await new Promise<void>((resolve, reject) => made.once('connect', resolve).once('connect_error', reject));
  return made;
}

/** Once it has gone over to the transport that it stays with. */
async function settled({ io: { engine } }: Client, { transports }: Options = {}): Promise<void> {
  if (transports === undefined && engine.transport.name === 'polling') await once(engine as never, 'upgrade');
}

const last = (): Socket => [...connections].at(-1) as Socket;

const failed = (made: Client): Promise<Error & { data?: unknown; context?: { status?: number } }> =>
  new Promise((resolve, reject) =>
    made.once('connect_error', resolve).once('connect', () => reject(new Error('it was let in'))),
  );

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: IncomingMessage['headers'];
}

/** One request for the engine, as anybody can send it. */
async function ask(
  query: string,
  headers: Record<string, string> = {},
  { method = 'GET', body = '' } = {},
): Promise<Answer> {
  const request = send(`${origin}/socket.io/?EIO=4&${query}`, { method, headers, agent: false }).end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode as number, text, headers: response.headers };
}

/** The same as an upgrade: the answer, or the first message. */
async function upgrade(
  query: string,
  headers: Record<string, string> = {},
  protocols: string[] = [],
): Promise<Answer & { readonly protocol?: string }> {
  const url = `${origin.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&${query}`;
  const socket = new WebSocket(url, protocols, { headers }).on('error', () => {});
  const refused = once(socket, 'unexpected-response').then(async ([, response]) => {
    let text = '';
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode, text, headers: response.headers };
  });
  const opened = Promise.all([once(socket, 'upgrade'), once(socket, 'message')]).then(([[response], [data]]) => {
    socket.terminate();
    return { status: 101, text: String(data), headers: response.headers, protocol: socket.protocol };
  });
  const closed = once(socket, 'close').then(([code]) => ({ status: code, text: '', headers: {} }));
  return Promise.race([refused, opened, closed]);
}

/** An application's word that is given when the test says so. */
function undecided() {
  const asked = new EventEmitter();
  const waiting: ((says: boolean) => void)[] = [];
  const authorise = () =>
    new Promise<boolean>((resolve) => {
      waiting.push(resolve);
      asked.emit('asked');
    });
  return { authorise, asked, decide: (says: boolean) => waiting.pop()?.(says) };
}

/** Three clients, each of which is let in as far as the engine itself before the first one has gone on. */
async function atOnce(come: () => Promise<unknown>): Promise<void> {
  const begun = new EventEmitter();
  const goOn: ((id: string) => void)[] = [];
  io.engine.generateId = () =>
    new Promise<string>((resolve) => {
      goOn.push(resolve);
      begun.emit('begun');
    }) as never;
  const answers: Promise<unknown>[] = [];
  for (let i = 0; i < 3; i++) {
    const next = once(begun, 'begun');
    answers.push(come());
    await next;
  }
  for (const [i, give] of goOn.entries()) give(`id${i}`);
  await Promise.all(answers);
}

const codeOf = ({ text }: Answer): string => JSON.parse(text).error.code;
const sidOf = ({ text }: Pick<Answer, 'text'>): string => JSON.parse(text.slice(1)).sid;

/** Begins a connection over requests, and goes into the main namespace. */
async function begin(headers: Record<string, string>): Promise<string> {
  const sid = sidOf(await ask('transport=polling', headers));
  const there = once(io, 'connection');
  expect(await ask(`transport=polling&sid=${sid}`, headers, { method: 'POST', body: '40' })).toMatchObject({
    status: 200,
  });
  await there;
  await ask(`transport=polling&sid=${sid}`, headers);
  return sid;
}

const ways: [string, Options][] = [
  ['polling', { transports: ['polling'] }],
  ['websocket', { transports: ['websocket'] }],
  ['polling and then websocket', {}],
];

describe.each(ways)('a client by %s', (_, transports) => {
  it('is let in by the session cookie, and the application knows who it is', async () => {
    serve();
    const { cookie, auth } = await logIn();
    const made = await connected({ ...transports, extraHeaders: headersOf(cookie) });
    await settled(made, transports);
    expect(await made.emitWithAck('ask', 'hello')).toBe('test0001: hello');
    const [{ data, request }] = entered as [ServerSocket & { request: IncomingMessage }];
    expect(data.auth).toMatchObject({ principal: 'test0001', sessionId: auth.sessionId, via: 'cookie' });
    expect(request.auth).toBe(data.auth);
    expect(made.io.engine.transport.name).toBe(transports.transports?.[0] ?? 'websocket');
  });

  it.each([
    ['no session', () => ({ origin }), 'ERR_SESSION_MISSING'],
    ['a wrong cookie', () => headersOf('wrong'), 'ERR_SESSION_INVALID'],
    [
      'a foreign origin',
      (cookie: string) => headersOf(cookie, { origin: 'https://other.cam.ac.uk' }),
      'ERR_ORIGIN_REFUSED',
    ],
    ['no page at all', (cookie: string) => headersOf(cookie, { origin: 'null' }), 'ERR_ORIGIN_REFUSED'],
  ])('is refused with %s, and nothing reaches the application', async (_name, headers, code) => {
    serve();
    const { cookie } = await logIn();
    await failed(client({ ...transports, extraHeaders: headers(cookie) }));
    expect(entered).toEqual([]);
    expect(events.filter(({ event }) => event === 'refused')).toMatchObject([{ code, level: 'debug' }]);
  });

  it('is disconnected from all namespaces when its session ends, and hears nothing more', async () => {
    serve();
    io.of('/other').on('connection', note);
    const { cookie, auth } = await logIn();
    const extraHeaders = headersOf(cookie);
    const made = await connected({ ...transports, extraHeaders });
    await settled(made, transports);
    const second = made.io.socket('/other');
    await once(second as never, 'connect');
    const ended = Promise.all([made, second].map((one) => once(one as never, 'disconnect')));
    const gone = entered.map((socket) => once(socket, 'disconnect'));
    await waa.endSession(auth);
    expect((await Promise.all(gone)).map(([why]) => why)).toEqual(Array(2).fill('server namespace disconnect'));
    // Requests are refused at once, and with them what would fetch the news.
    const told = transports.transports?.[0] === 'polling' ? /^io server disconnect|transport error$/ : /^io server/;
    for (const [why] of await ended) expect(why).toMatch(told);
    expect(io.of('/').sockets.size + io.of('/other').sockets.size).toBe(0);
    await failed(client({ ...transports, extraHeaders }));
  });

  it('is let in by an API token with the scopes, until that is revoked', async () => {
    serve({ credentials: ['bearer'], scopes: ['chat'], ptags: [] });
    const make = async (scopes: string[]) => {
      const made = await waa.tokens.create({ principal: 'test0002', name: 'robot', ttl: 600, scopes });
      return { ...made, headers: { authorization: `Bearer ${made.token}` } };
    };
    const [good, weak] = [await make(['chat']), await make([])];
    const made = await connected({ ...transports, extraHeaders: good.headers });
    expect(await made.emitWithAck('ask', 'hello')).toBe('test0002: hello');
    await failed(client({ ...transports, extraHeaders: weak.headers }));
    const gone = once(made as never, 'disconnect');
    await waa.tokens.revoke('test0002', good.handle);
    expect(await gone).toContain('io server disconnect');
    await failed(client({ ...transports, extraHeaders: good.headers }));
  });
});

describe('a ticket in the address', () => {
  it('has a ticket used up once, which the application does not see', async () => {
    serve({ credentials: ['query'] });
    const { cookie } = await logIn();
    const ticket = await ticketOf(cookie);
    const made = await connected({ transports: ['websocket'], query: { ticket, room: 'a' } });
    expect(await made.emitWithAck('ask', 'hello')).toBe('test0001: hello');
    const [{ handshake, request }] = entered as [ServerSocket];
    expect(handshake.query).toMatchObject({ room: 'a' });
    expect(JSON.stringify([handshake, request.url, (request as unknown as { _query: object })._query])).not.toContain(
      ticket,
    );
    await failed(client({ transports: ['websocket'], query: { ticket } }));
    expect(events.at(-1)).toMatchObject({ event: 'refused', code: 'ERR_TOKEN_INVALID' });
  });
});

describe('each request of a connection', () => {
  const hello = { method: 'POST', body: '42["say","hello"]' };

  it.each<[string, (mine: string, others: string) => Record<string, string>, number, string]>([
    ['without the cookie', () => ({ origin }), 403, 'ERR_SESSION_MISSING'],
    ['without anything', () => ({}), 403, 'ERR_SESSION_MISSING'],
    [
      "of a foreign page, with the person's cookie",
      (mine) => headersOf(mine, { origin: 'https://other.cam.ac.uk' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    ['of a sandboxed page', (mine) => headersOf(mine, { origin: 'null' }), 403, 'ERR_ORIGIN_REFUSED'],
    [
      'without an Origin, that posts',
      (mine) => ({ cookie: headersOf(mine)['cookie'] as string, 'sec-fetch-site': 'same-site' }),
      403,
      'ERR_ORIGIN_REFUSED',
    ],
    ['with the session of somebody else', (_, others) => headersOf(others), 403, 'ERR_SESSION_INVALID'],
    ['with a cookie that is wrong', () => headersOf('wrong'), 403, 'ERR_SESSION_INVALID'],
    [
      'with two cookies',
      (mine) => headersOf(mine, { cookie: `webauth-session=${mine}; webauth-session=${mine}` }),
      403,
      'ERR_SESSION_INVALID',
    ],
  ])('%s gets nothing by a stolen sid', async (_, headers, status, code) => {
    serve();
    const [mine, others] = [await logIn(), await logIn({ principal: 'test0003' })];
    const sid = await begin(headersOf(mine.cookie));
    const stolen = headers(mine.cookie, others.cookie);
    const query = `transport=polling&sid=${sid}`;
    const answers = [await ask(query, stolen, hello), await ask(query, stolen), await upgrade(`sid=${sid}`, stolen)];
    expect(answers.map((answer) => [answer.status, codeOf(answer)])).toEqual(Array(3).fill([status, code]));
    expect(heard).toEqual([]);
    // Its owner has not noticed.
    expect((await ask(query, headersOf(mine.cookie), hello)).status).toBe(200);
    expect(heard).toEqual([['say', 'hello']]);
    // And once that has left, it is good for nothing.
    const closed = once((entered[0] as ServerSocket).conn, 'close');
    await ask(query, headersOf(mine.cookie), { method: 'POST', body: '1' });
    await closed;
    expect((await ask(query, headersOf(mine.cookie))).text).toContain('no connection here has this sid');
  });

  it.each([
    ['without it', [], 401, 'ERR_SESSION_MISSING'],
    ['with another', ['OTHER'], 401, 'ERR_TOKEN_INVALID'],
    ['with two', ['MINE', 'MINE'], 401, 'ERR_TOKEN_INVALID'],
  ])('has to show the ticket that the first one had: %s it gets nothing', async (_, shown, status, code) => {
    serve({ credentials: ['bearer'] });
    const { cookie } = await logIn();
    const [ticket, other] = [await ticketOf(cookie), await ticketOf(cookie)];
    const own = { authorization: `Bearer ${ticket}` };
    const sid = await begin(own);
    const lines = shown.map((one) => `Bearer ${one === 'MINE' ? ticket : other}`);
    const headers = lines.length > 0 ? { authorization: lines as never } : {};
    const answer = await ask(`transport=polling&sid=${sid}`, headers, hello);
    expect([answer.status, codeOf(answer)]).toEqual([status, code]);
    expect(heard).toEqual([]);
    // The other one was not used up for that.
    expect(await waa.takeTicket(other)).toMatchObject({ principal: 'test0001' });
    expect((await ask(`transport=polling&sid=${sid}`, own, hello)).status).toBe(200);
  });

  it('uses up no ticket where there is no such connection', async () => {
    serve({ credentials: ['bearer'] });
    const { cookie } = await logIn();
    const ticket = await ticketOf(cookie);
    const headers = { authorization: `Bearer ${ticket}` };
    for (const sid of ['nothing', '__proto__', 'constructor']) {
      const query = `sid=${sid}`;
      for (const answer of [await ask(`transport=polling&${query}`, headers), await upgrade(query, headers)]) {
        expect([answer.status, answer.text]).toEqual([403, expect.stringContaining('sticky sessions')]);
      }
    }
    expect(codeOf(await ask('transport=polling&sid=nothing', { origin: 'null' }))).toBe('ERR_ORIGIN_REFUSED');
    expect(await waa.takeTicket(ticket)).toMatchObject({ principal: 'test0001' });
  });

  it.each(['cookie', 'bearer'] as const)('is refused once the session is over: by %s', async (by) => {
    serve({ credentials: [by] });
    const { auth, cookie } = await logIn();
    const shown = async () =>
      by === 'cookie' ? headersOf(cookie) : { authorization: `Bearer ${await ticketOf(cookie)}` };
    const [polling, websocket] = [await shown(), await shown()];
    const sid = await begin(polling);
    const url = `${origin.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
    const socket = new WebSocket(url, { headers: websocket });
    const [data] = await once(socket, 'message');
    // It does not see the end, and does not answer.
    socket.pause();
    await waa.endSession(auth);
    for (const answer of [
      await ask(`transport=polling&sid=${sid}`, polling, hello),
      await upgrade(`sid=${sidOf({ text: String(data) })}`, websocket),
    ]) {
      expect([answer.status, answer.text]).toEqual([403, expect.stringContaining('no connection here has this sid')]);
    }
    expect(heard).toEqual([]);
    socket.terminate();
  });

  it('may come without an Origin from a page of ours, which reads, if its browser says so', async () => {
    serve();
    const { cookie } = await logIn();
    const { cookie: own } = headersOf(cookie) as { cookie: string };
    const fetched = { cookie: own, 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' };
    const from = (site: string) => ask('transport=polling', { ...fetched, 'sec-fetch-site': site });
    expect((await from('same-origin')).status).toBe(200);
    for (const site of ['same-site', 'cross-site', 'none']) expect(codeOf(await from(site))).toBe('ERR_ORIGIN_REFUSED');
    expect(codeOf(await upgrade('', { ...fetched, 'sec-fetch-site': 'same-origin' }))).toBe('ERR_ORIGIN_REFUSED');
    const posted = await ask('transport=polling', { ...fetched, 'sec-fetch-site': 'same-origin' }, { method: 'POST' });
    expect(codeOf(posted)).toBe('ERR_ORIGIN_REFUSED');
  });

  it('goes on with a cookie that was set anew', async () => {
    waa = makeWAA({ inactiveTimeout: 600 });
    serve();
    const { cookie } = await logIn();
    const sid = await begin(headersOf(cookie));
    const { expires } = (entered[0] as ServerSocket).data.auth as Auth;
    clock.pass(400);
    const renewed = waa.renew(waa.openSession(cookie));
    expect(renewed?.cookie).toBeDefined();
    const answer = await ask(`transport=polling&sid=${sid}`, headersOf(renewed?.cookie as string), hello);
    expect([answer.status, heard]).toEqual([200, [['say', 'hello']]]);
    expect(entered[0]?.data.auth.expires.getTime()).toBeGreaterThan(expires.getTime());
  });

  it('is not read to its end where it is refused', async () => {
    serve();
    const options = { method: 'POST', headers: { 'content-length': '1000000', connection: 'keep-alive' } };
    const request = send(`${origin}/socket.io/?EIO=4&transport=polling`, options).on('error', () => {});
    request.flushHeaders();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect([response.statusCode, response.headers.connection]).toEqual([403, 'close']);
    await once(response.resume(), 'end');
    request.destroy();
  });

  it('refusals are complete answers that say why, and go on to say nothing of the credential', async () => {
    serve({ credentials: ['bearer', 'query'] });
    const wrong = 'x'.repeat(43);
    const [none, bearer, query] = [
      await ask('transport=polling'),
      await ask('transport=polling', { authorization: `Bearer ${wrong}` }),
      await upgrade(`ticket=${wrong}`),
    ] as const;
    expect([none, bearer, query].map(({ status, headers }) => [status, headers['www-authenticate']])).toEqual([
      [401, 'Bearer'],
      [401, 'Bearer error="invalid_token"'],
      [401, `Ucam-WebAuth realm="${origin}"`],
    ]);
    for (const { headers, text } of [none, bearer, query]) {
      expect(headers).toMatchObject({ 'cache-control': 'no-store', 'content-type': 'application/json' });
      expect(text + JSON.stringify(events)).not.toContain(wrong);
    }
  });
});

describe('a token among the subprotocols', () => {
  it('is never sent back; the bare protocol is, with an accepted one only', async () => {
    serve({ credentials: ['subprotocol', 'cookie'] });
    const { cookie } = await logIn();
    const ticket = await ticketOf(cookie);
    const good = await upgrade('', {}, [jupyter, `${jupyter}.${ticket}`]);
    expect([good.status, good.protocol]).toEqual([101, jupyter]);
    const own = await upgrade('', {}, ['chat', jupyter, `${jupyter}.${await ticketOf(cookie)}`]);
    expect([own.status, own.protocol]).toEqual([101, 'chat']);
    const wrong = await upgrade('', headersOf(cookie), [jupyter, `${jupyter}.${ticket}`]);
    expect([wrong.status, codeOf(wrong), wrong.text + JSON.stringify(wrong.headers)]).toEqual([
      403,
      'ERR_TOKEN_INVALID',
      expect.not.stringContaining(ticket),
    ]);
  });

  it('is out of sight where it is not looked for', async () => {
    serve();
    const { cookie } = await logIn();
    const made = await connected({
      transports: ['websocket'],
      extraHeaders: headersOf(cookie),
      protocols: ['chat', jupyter, `${jupyter}.secret`],
    });
    expect(made.connected).toBe(true);
    const [{ handshake }] = entered as [ServerSocket];
    expect(handshake.headers['sec-websocket-protocol']).toBe('chat');
  });
});

describe('a ticket in the auth payload', () => {
  const websocket = { transports: ['websocket'] };

  it('lets in, once, and is not seen by the application', async () => {
    serve({ credentials: ['firstMessage'] });
    io.of('/other').on('connection', note);
    const { cookie, auth } = await logIn();
    const ticket = await ticketOf(cookie);
    const made = client({ ...websocket, auth: { ticket, name: 'x' } });
    const second = made.io.socket('/other', { auth: { ticket } });
    await Promise.all([once(made as never, 'connect'), once(second as never, 'connect')]);
    expect(await made.emitWithAck('ask', 'hello')).toBe('test0001: hello');
    expect(entered.map(({ data }) => data.auth.principal)).toEqual(['test0001', 'test0001']);
    expect(entered.find(({ nsp }) => nsp.name === '/')?.handshake.auth).toEqual({ name: 'x' });
    const again = await failed(client({ ...websocket, auth: { ticket } }));
    expect([again.data, again.message]).toEqual([
      { code: 'ERR_TOKEN_INVALID', message: again.message },
      expect.stringContaining('no ticket'),
    ]);
    const gone = once(made as never, 'disconnect');
    await waa.endSession(auth);
    expect(await gone).toContain('io server disconnect');
  });

  it.each<[string, object | undefined]>([
    ['none', undefined],
    ['nothing of that name', { token: 'x' }],
    ['a number', { ticket: 7 }],
    ['an object', { ticket: { toString: 'x' } }],
    ['a wrong one', { ticket: 'x'.repeat(43) }],
  ])('%s is refused by connect_error, and the connection is closed', async (_, auth) => {
    serve({ credentials: ['firstMessage'] });
    const engine = once(io.engine, 'connection');
    const refused = failed(client({ ...websocket, ...(auth && { auth }) }));
    const [connection] = await engine;
    const closed = once(connection, 'close');
    expect((await refused).data).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    await closed;
    expect(entered).toEqual([]);
  });

  it('is asked of namespaces too that were there before', async () => {
    io = new Server(server, { serveClient: false });
    io.of('/before').on('connection', note);
    acceptConnections(io, waa, { credentials: ['firstMessage'] });
    expect((await failed(client(websocket, '/before'))).data).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    const { cookie } = await logIn();
    await connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } }, '/before');
    expect(entered.map(({ data, nsp }) => [nsp.name, data.auth.principal])).toEqual([['/before', 'test0001']]);
  });

  it('has none made for who has shown none yet', async () => {
    serve({ credentials: ['firstMessage'] });
    io.of(/^\/made-\d+$/).on('connection', note);
    const { cookie } = await logIn();
    const { engine } = client({ ...websocket, auth: { ticket: await ticketOf(cookie) } }, '/made-1').io;
    await once(engine as never, 'close');
    expect([io._nsps.has('/made-1'), events.at(-1)?.code]).toEqual([false, 'ERR_TOKEN_INVALID']);
    const made = await connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
    // Another one is not used up here, and not to be seen.
    const second = made.io.socket('/made-2', { auth: { ticket: await ticketOf(cookie), name: 'x' } });
    await once(second as never, 'connect');
    expect(entered.map(({ data, nsp }) => [nsp.name, data.auth.principal])).toEqual([
      ['/', 'test0001'],
      ['/made-2', 'test0001'],
    ]);
    expect(entered[1]?.handshake.auth).toEqual({ name: 'x' });
  });

  it.each<[string, (string | Buffer)[]]>([
    ['an event', ['2["say"]']],
    ['an event with something to come', ['451-["say",{"_placeholder":true,"num":0}]', Buffer.alloc(10)]],
    ['bytes', [Buffer.alloc(10)]],
    ['more than a ticket takes', [`0{"ticket":"${'x'.repeat(1024)}"}`]],
    ['a namespace that is not there', ['0/nowhere,{"ticket":"x"}']],
    ['many namespaces', Array.from({ length: 17 }, () => '0{"ticket":"x"}')],
  ])('has to come before %s', async (_, messages) => {
    // It takes a while to be decided.
    serve({ credentials: ['firstMessage'], authorise: () => new Promise(() => {}) });
    const [socket] = (await wait(1)) as [WebSocket];
    for (const message of messages) socket.send(typeof message === 'string' ? `4${message}` : message);
    await once(socket, 'close');
    expect(events.filter(({ event }) => event === 'refused')[0]).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    expect(heard).toEqual([]);
  });

  it('leaves no place taken where the client goes away before it is decided', async () => {
    const { authorise, asked, decide } = undecided();
    serve({ credentials: ['firstMessage'], maxPerPrincipal: 1, authorise });
    const { cookie } = await logIn();
    for (let i = 0; i < 2; i++) {
      const begun = once(asked, 'asked');
      const leaving = client({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
      await begun;
      const gone = once(last(), 'close');
      leaving.disconnect();
      await gone;
      decide(true);
    }
    const begun = once(asked, 'asked');
    const made = connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
    await begun;
    decide(true);
    expect((await made).connected).toBe(true);
  });

  it('comes before what middleware of a pattern is asked, though its namespace is there', async () => {
    serve({ credentials: ['firstMessage'] });
    const asked: unknown[] = [];
    io.of(/^\/made-\d+$/).use(({ data, handshake }, next) => {
      asked.push([data.auth.principal, handshake.auth]);
      next();
    });
    const { cookie } = await logIn();
    const made = await connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
    await once(made.io.socket('/made-1') as never, 'connect');
    const refused = await failed(client({ ...websocket, auth: { ticket: 'x' } }, '/made-1'));
    expect(refused.data).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    expect(asked).toEqual([['test0001', {}]]);
  });

  it('is not waited for where the connection is closed already', async () => {
    io = new Server(server, { serveClient: false });
    io.engine.once('connection', (connection) => connection.close(true));
    acceptConnections(io, waa, { credentials: ['firstMessage'], maxPending: 1 });
    await upgrade('');
    expect((await upgrade('')).status).toBe(101);
  });

  it('is waited for on a wire of its own, and not from what only looks like an upgrade', async () => {
    serve({ credentials: ['firstMessage'], maxPending: 1 });
    for (let i = 0; i < 3; i++) {
      const answer = await ask('transport=polling', { upgrade: 'x' });
      expect([answer.status, codeOf(answer)]).toEqual([403, 'ERR_SESSION_MISSING']);
    }
    expect(io.engine.clientsCount).toBe(0);
  });

  it('is waited for from so many, though they come at the same moment', async () => {
    serve({ credentials: ['firstMessage'], maxPending: 1 });
    await atOnce(() => upgrade(''));
    expect(io.engine.clientsCount).toBeLessThanOrEqual(1);
  });

  it('is cut off in two seconds, where the client does not follow', async () => {
    serve({ credentials: ['firstMessage'] });
    const [socket] = (await wait(1)) as [WebSocket];
    const connection = last();
    socket.pause();
    socket.send('4nonsense');
    const began = performance.now();
    await once(connection, 'close');
    expect(performance.now() - began).toBeLessThan(5_000);
    socket.terminate();
  });

  it('comes over a connection of its own: requests, and what they begin, are refused', async () => {
    serve({ credentials: ['firstMessage'] });
    const { cookie } = await logIn();
    const polled = await ask('transport=polling', headersOf(cookie));
    expect([polled.status, polled.text]).toEqual([403, expect.stringContaining("transports: ['websocket']")]);
    expect(codeOf(await upgrade('', { origin: 'https://other.cam.ac.uk' }))).toBe('ERR_ORIGIN_REFUSED');
    const made = await connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
    const sid = made.io.engine.id;
    for (const answer of [
      await ask(`transport=polling&sid=${sid}`, {}, { method: 'POST', body: '42["say"]' }),
      await upgrade(`sid=${sid}`),
    ]) {
      expect(answer.status).toBe(403);
    }
    expect(heard).toEqual([]);
  });

  /** Connections that say nothing. */
  async function wait(count: number): Promise<WebSocket[]> {
    const url = `${origin.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;
    const waiting = Array.from({ length: count }, () => new WebSocket(url));
    await Promise.all(waiting.map((socket) => once(socket, 'message')));
    return waiting;
  }

  it('is waited for until the deadline', async () => {
    serve({ credentials: ['firstMessage'], deadline: 0.2 });
    const [socket] = (await wait(1)) as [WebSocket];
    await once(socket, 'close');
    expect(events.at(-1)).toMatchObject({ event: 'refused', code: 'ERR_DEADLINE' });
  });

  it('is waited for from so many at once', async () => {
    serve({ credentials: ['firstMessage'], maxPending: 2 });
    const [first] = (await wait(2)) as [WebSocket];
    const third = await upgrade('');
    expect([third.status, codeOf(third)]).toEqual([429, 'ERR_LIMIT_REACHED']);
    first.terminate();
    while ((await upgrade('')).status !== 101);
    const { cookie } = await logIn();
    // Who was let in is not waited for any more.
    for (let i = 0; i < 3; i++) await connected({ ...websocket, auth: { ticket: await ticketOf(cookie) } });
  });

  it('is a new one for each connection that the client makes by itself', async () => {
    serve({ credentials: ['firstMessage'] });
    const { cookie } = await logIn();
    const given: string[] = [];
    const auth = (give: (payload: object) => void): void => {
      void ticketOf(cookie).then((ticket) => give({ ticket: given[given.push(ticket) - 1] }));
    };
    const made = await connected({ ...websocket, auth, reconnection: true, reconnectionDelay: 1 });
    const again = once(made as never, 'connect');
    (entered[0] as ServerSocket).conn.close();
    await again;
    expect([given.length, new Set(given).size, entered.length]).toEqual([2, 2, 2]);
  });

  it('of somebody who may not enter is refused', async () => {
    serve({ credentials: ['firstMessage'], principals: ['test0003'], maxPerPrincipal: 1 });
    const [mine, others] = [await logIn(), await logIn({ principal: 'test0003' })];
    const refused = await failed(client({ ...websocket, auth: { ticket: await ticketOf(mine.cookie) } }));
    expect(refused.data).toMatchObject({ code: 'ERR_PRINCIPAL_REFUSED' });
    await connected({ ...websocket, auth: { ticket: await ticketOf(others.cookie) } });
    const second = await failed(client({ ...websocket, auth: { ticket: await ticketOf(others.cookie) } }));
    expect(second.data).toMatchObject({ code: 'ERR_LIMIT_REACHED' });
    expect(entered).toHaveLength(1);
  });
});

/** Somebody in two namespaces of one connection. */
async function inTwo(): Promise<{ made: Client; second: Client; auth: Auth }> {
  serve();
  io.of('/other').on('connection', note);
  const { cookie, auth } = await logIn();
  const made = await connected({ transports: ['websocket'], extraHeaders: headersOf(cookie) });
  const second = made.io.socket('/other');
  await once(second as never, 'connect');
  return { made, second, auth };
}

describe('the decision', () => {
  it('survives a connection that breaks while it is made', async () => {
    const asked = new EventEmitter();
    serve({
      authorise: () =>
        new Promise((resolve) => {
          asked.emit('asked');
          last().once('close', () => resolve(true));
        }),
    });
    const { cookie } = await logIn();
    const begun = once(asked, 'asked');
    const lines = Object.entries(headersOf(cookie)).map(([name, value]) => `${name}: ${value}`);
    const wire = connect((server.address() as AddressInfo).port, '127.0.0.1');
    wire.write(handshake(lines, '/socket.io/?EIO=4&transport=websocket'));
    await begun;
    const gone = new Promise((resolve) => last().once('close', resolve));
    wire.resetAndDestroy();
    await gone;
    expect((await ask('transport=polling')).status).toBe(403);
    expect(io.engine.clientsCount).toBe(0);
  });

  it('keeps out what a page of another origin reads with a password that its browser has kept', async () => {
    serve({ credentials: ['basic'] });
    const { cookie } = await logIn();
    const authorization = async () => `Basic ${Buffer.from(`token:${await ticketOf(cookie)}`).toString('base64')}`;
    for (const site of ['same-site', 'cross-site']) {
      const headers = { authorization: await authorization(), 'sec-fetch-site': site };
      expect(codeOf(await ask('transport=polling', headers))).toBe('ERR_ORIGIN_REFUSED');
    }
    for (const more of [{}, { 'sec-fetch-site': 'same-origin' }, { 'sec-fetch-site': 'none' }]) {
      expect((await ask('transport=polling', { authorization: await authorization(), ...more })).status).toBe(200);
    }
  });

  it('takes the cookie of a frame with an allowed Origin only', async () => {
    const live = 'http://live.localhost:1';
    const frame = socketFrame(waa, { origin: live });
    serve({ frame });
    const { cookie } = await logIn();
    const { name, take } = waa.socketCookie(live);
    const own = { cookie: `${name}=${await take(await ticketOf(cookie))}` };
    expect((await ask('transport=polling', { ...own, origin })).status).toBe(200);
    for (const more of [{}, { 'sec-fetch-site': 'same-origin' }, { origin: live }]) {
      expect(codeOf(await ask('transport=polling', { ...own, ...more }))).toBe('ERR_ORIGIN_REFUSED');
    }
  });

  it('has the place of who polled free at once when their session ends', async () => {
    serve({ maxPerPrincipal: 1 });
    const old = await logIn();
    await connected({ transports: ['polling'], extraHeaders: headersOf(old.cookie) });
    await waa.endSession(old.auth);
    const { cookie } = await logIn();
    expect((await ask('transport=polling', headersOf(cookie))).status).toBe(200);
  });

  it('sends nothing after the end of the session but that it is over', async () => {
    const { made, second, auth } = await inTwo();
    for (const socket of entered) {
      socket.on('disconnecting', () => socket.emit('farewell', 'to one'));
      socket.on('disconnect', () => io.of('/other').emit('farewell', 'to all'));
    }
    const said: unknown[] = [];
    for (const one of [made, second]) one.onAny((...given) => said.push(given));
    const gone = Promise.all([made, second].map((one) => once(one as never, 'disconnect')));
    await waa.endSession(auth);
    await gone;
    expect(said).toEqual([]);
  });

  it('asks the application once for each connection, and lets in for true only', async () => {
    const asked: string[] = [];
    serve({
      authorise: (auth, request) => {
        asked.push(`${auth.principal} ${request.url?.split('?')[0]}`);
        return auth.principal === 'test0001';
      },
    });
    const [mine, others] = [await logIn(), await logIn({ principal: 'test0003' })];
    const made = await connected({ extraHeaders: headersOf(mine.cookie) });
    await settled(made);
    expect(asked).toEqual(['test0001 /socket.io/']);
    await failed(client({ extraHeaders: headersOf(others.cookie) }));
    expect(entered).toHaveLength(1);
  });

  it('keeps to the limits of a person and of a session', async () => {
    serve({ maxPerPrincipal: 2, maxPerSession: 1 });
    const [one, two, three] = [await logIn(), await logIn(), await logIn()];
    const first = await connected({ extraHeaders: headersOf(one.cookie) });
    await failed(client({ extraHeaders: headersOf(one.cookie) }));
    await connected({ extraHeaders: headersOf(two.cookie) });
    const full = await ask('transport=polling', headersOf(three.cookie));
    expect([full.status, codeOf(full), full.headers['retry-after']]).toEqual([429, 'ERR_LIMIT_REACHED', '30']);
    const gone = once((entered[0] as ServerSocket).conn, 'close');
    first.disconnect();
    await gone;
    await connected({ extraHeaders: headersOf(three.cookie) });
  });

  it('keeps to them at the same moment too', async () => {
    serve({ maxPerSession: 1 });
    const { cookie } = await logIn();
    await atOnce(() => ask('transport=polling', headersOf(cookie)));
    expect(io.engine.clientsCount).toBe(1);
  });

  it('holds to the deadline', async () => {
    serve({ authorise: () => new Promise(() => {}), deadline: 0.2 });
    const { cookie } = await logIn();
    const late = await ask('transport=polling', headersOf(cookie));
    expect([late.status, codeOf(late)]).toEqual([408, 'ERR_DEADLINE']);
  });

  it('holds to how many may be pending', async () => {
    const { authorise, asked, decide } = undecided();
    serve({ authorise, maxPending: 1 });
    const { cookie } = await logIn();
    const begun = once(asked, 'asked');
    const first = ask('transport=polling', headersOf(cookie));
    await begun;
    const second = await ask('transport=polling', headersOf(cookie));
    expect([second.status, codeOf(second)]).toEqual([429, 'ERR_LIMIT_REACHED']);
    decide(true);
    expect((await first).status).toBe(200);
    const again = once(asked, 'asked');
    const third = ask('transport=polling', headersOf(cookie));
    await again;
    decide(false);
    expect(codeOf(await third)).toBe('ERR_PRINCIPAL_REFUSED');
  });

  it('lets a connection go on by another session of the same person', async () => {
    serve();
    const [old, fresh] = [await logIn(), await logIn()];
    const made = await connected({ transports: ['websocket'], extraHeaders: headersOf(old.cookie) });
    const { auth } = (entered[0] as ServerSocket).data as { auth: Auth };
    await auth.renew?.(await ticketOf(fresh.cookie));
    await waa.endSession(old.auth);
    expect(await made.emitWithAck('ask', 'still here')).toBe('test0001: still here');
    const gone = once(made as never, 'disconnect');
    await waa.endSession(fresh.auth);
    expect(await gone).toContain('io server disconnect');
  });

  it('ends all of a connection, though the application fails at the end of some of it', async () => {
    const { second, auth } = await inTwo();
    entered[0]?.on('disconnect', () => {
      throw new Error('a mistake of the application');
    });
    const mistakes: unknown[] = [];
    const [before] = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException').once('uncaughtException', (error) => mistakes.push(error));
    const gone = once(second as never, 'disconnect');
    await waa.endSession(auth);
    expect(await gone).toContain('io server disconnect');
    if (before) process.on('uncaughtException', before);
    expect(mistakes).toMatchObject([{ message: 'a mistake of the application' }]);
    expect(io.engine.clientsCount).toBe(0);
  });
});

describe('acceptConnections', () => {
  it('comes before middleware that was there before', async () => {
    io = new Server(server, { serveClient: false });
    const known: unknown[] = [];
    io.use(({ data }, next) => {
      known.push(data.auth.principal);
      next();
    });
    acceptConnections(io, waa);
    const { cookie } = await logIn();
    await connected({ extraHeaders: headersOf(cookie) });
    expect(known).toEqual(['test0001']);
  });

  it.each<[string, () => unknown, RegExp]>([
    ['a server without a server', () => acceptConnections(new Server() as never, waa), /new Server\(server\)/],
    ['no server', () => acceptConnections(undefined as never, waa), /new Server\(server\)/],
    ['no waa', () => acceptConnections(io, undefined as never), /createWAA/],
    ['an unknown option', () => acceptConnections(io, waa, { path: '/x' } as never), /path/],
    ['what is no credential', () => acceptConnections(io, waa, { credentials: ['header' as never] }), /credentials/],
    [
      'a first message and more',
      () => acceptConnections(io, waa, { credentials: ['firstMessage', 'cookie'] }),
      /no other/,
    ],
  ])('refuses %s', (_, call, message) => {
    io = new Server(server);
    expect(call).toThrow(TypeError);
    expect(call).toThrow(message);
  });

  it('refuses to be called twice for one server', () => {
    io = new Server(server);
    acceptConnections(io, waa);
    expect(() => acceptConnections(io, waa, { credentials: ['query'] })).toThrow('already');
  });

  it('lets in who comes to the same namespaces by another engine, by its session only', async () => {
    serve();
    const other = createServer();
    await once(other.listen(0, '127.0.0.1'), 'listening');
    io.attach(other);
    const { cookie } = await logIn();
    const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const stranger = connectClient(url, { extraHeaders: { origin }, reconnection: false, forceNew: true });
    clients.push(stranger);
    await failed(stranger);
    expect([entered, events.at(-1)?.code]).toEqual([[], 'ERR_SESSION_MISSING']);
    const made = connectClient(url, { extraHeaders: headersOf(cookie), reconnection: false, forceNew: true });
    clients.push(made);
    await once(made as never, 'connect');
    expect(entered.map(({ data }) => data.auth.principal)).toEqual(['test0001']);
    made.disconnect();
    other.close();
    other.closeAllConnections();
  });

  it('refuses to hand one connection what was meant for another', () => {
    io = new Server(server, { connectionStateRecovery: {} });
    expect(() => acceptConnections(io, waa)).toThrow(/connectionStateRecovery/);
  });

  it('refuses a path that the cookie never reaches', () => {
    waa = createWAA({ baseUrl: `${origin}/app`, secret, wls: wls.profile, cookiePath: '/app' });
    io = new Server(server);
    expect(() => acceptConnections(io, waa)).toThrow('never to /socket.io');
    acceptConnections(io, waa, { credentials: ['query'] });
  });
});
