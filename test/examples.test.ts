import { on, once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type IncomingMessage, request as send } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { io } from 'socket.io-client';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { refuseUpgrade } from '../src/websocket/index.js';
import { Browser, findPrograms, freePorts, type Page, Program, root, runNode } from './processes.js';

const files = readdirSync(join(root, 'examples'), { recursive: true, encoding: 'utf8' });
const programs = files.filter((name) => name.endsWith('.ts'));
const examples = programs.filter((name) => dirname(name) === '.');

/** Each example, and how it is used. */
const uses: Readonly<Record<string, (start: Start) => Promise<void>>> = {
  'express.ts': useExpress,
  'websocket.ts': useWebSocket,
  'staff.ts': useStaff,
  'spa.ts': useSpa,
  'logging.ts': useLogging,
  'machines.ts': useMachines,
  'crossws.ts': useCrossws,
  'chat.ts': useChat,
  'socketio.ts': useSocketio,
  'feed.ts': useFeed,
  'two-origins.ts': useTwoOrigins,
  'offline.ts': useOffline,
  'verify.ts': useVerify,
};

/** Runs the example in development, on free ports. */
type Start = (args?: readonly string[], env?: Readonly<Record<string, string>>) => Promise<Started>;

interface Started {
  readonly program: Program;
  readonly port: number;
  /** Of those that have sockets elsewhere than their pages. */
  readonly socketsPort: number;
  readonly url: string;
}

async function useExpress(start: Start): Promise<void> {
  const { program, url } = await start();
  const [member, other, leaver] = [new Browser(), new Browser(), new Browser()];
  expect((await member.visit(url)).body).toContain('Hello. <a href="/members">');
  expect((await member.logIn(`${url}members`)).body).toContain('such as test0001');
  expect((await member.visit(url)).body).toBe('Hello, test0001.');
  expect((await member.visit(`${url}committee`)).body).toBe('Only these two people see this.');

  const refused = await other.logIn(`${url}committee`, 'test0003');
  expect([refused.status, refused.body]).toEqual([403, expect.stringContaining('ERR_PRINCIPAL_REFUSED')]);
  expect((await other.visit(`${url}members`)).status).toBe(200);

  expect((await leaver.logIn(`${url}anybody`, 'test0401')).body).toContain('left');
  const gone = await leaver.visit(`${url}members`);
  expect([gone.status, gone.body]).toEqual([403, expect.stringContaining('ERR_PTAGS_REFUSED')]);

  const script = await new Browser().ask(`${url}members`, { headers: { Accept: 'application/json' } });
  expect([script.status, JSON.parse(script.body).error.code]).toEqual([401, 'ERR_SESSION_MISSING']);
  await member.submit(`${url}webauth/logout`, {});
  expect((await member.visit(url)).body).toContain('Hello. ');
  for (const secret of [...member.secrets, ...leaver.secrets])
    expect(program.output).not.toContain(secret.slice(0, 16));
}

async function useWebSocket(start: Start): Promise<void> {
  const { url, port } = await start();
  const origin = new URL(url).origin;
  const browser = new Browser();
  const page = await browser.logIn(url);
  expect([page.status, page.body]).toEqual([200, expect.stringContaining('new WebSocket')]);
  const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, origin);
  expect(said).toBe('Hello, test0001.');
  const closed = new Promise<number>((done) => socket.once('close', done));
  await expect(new Browser().connect(`ws://localhost:${port}/live`, origin)).rejects.toThrow('403');
  await expect(browser.connect(`ws://localhost:${port}/live`, 'https://example.org')).rejects.toThrow('403');

  const upgrade = { Connection: 'Upgrade', Upgrade: 'hello', Origin: origin };
  const answer = await browser.ask(`${url}by-hand`, { headers: { ...upgrade, Origin: 'https://example.org' } });
  expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([403, 'ERR_ORIGIN_REFUSED']);
  expect(await talk(`${url}by-hand`, { ...upgrade, Cookie: browser.cookieHeader })).toBe('Hello, test0001.\n');

  await browser.submit(`${url}webauth/logout`, {});
  expect(await closed).toBe(4401);
}

/** What the other side says once it has switched protocols. */
async function talk(url: string, headers: Record<string, string>): Promise<string> {
  return new Promise((done, reject) => {
    const request = send(url, { headers, agent: false });
    request.once('upgrade', (_, socket, head) => {
      let said = head.toString();
      socket.setEncoding('utf8').on('data', (chunk: string) => {
        said += chunk;
      });
      socket.once('end', () => done(said));
    });
    request.once('response', ({ statusCode }) => reject(new Error(`status ${statusCode}`)));
    request.once('error', reject).end();
  });
}

async function useStaff(start: Start): Promise<void> {
  const clock = new Clock();
  const { url } = await start(clock.args, clock.env);
  const [member, teacher] = [new Browser(), new Browser()];
  const { origin } = new URL(url);
  const list = async () => (await member.visit(url)).body;
  expect((await member.logIn(url)).body).not.toContain('href="/new"');
  for (const answer of [await member.visit(`${url}new`), await member.submit(`${url}new`, { text: 'I was here' })]) {
    expect([answer.status, answer.body]).toEqual([403, expect.stringContaining('ERR_PRINCIPAL_REFUSED')]);
  }

  expect((await teacher.logIn(url, 'test0003')).body).toContain('href="/new"');
  const form = await teacher.visit(`${url}new`);
  expect(form.headers['content-security-policy']).toContain("frame-ancestors 'none'");
  expect(form.body).toMatch(/<form method="post">.*<label for="text">.*<input id="text" name="text"/s);
  const added = await teacher.submit(`${url}new`, { text: '<b title="x">Tea</b> & cake' });
  expect([added.url, added.status]).toEqual([url, 200]);
  expect(await list()).toContain('<li>&#60;b title=&#34;x&#34;&#62;Tea&#60;/b&#62; &#38; cake (test0003)</li>');

  const post = async (text: string, headers: Record<string, string>) => {
    const type = { 'Content-Type': 'application/x-www-form-urlencoded' };
    return teacher.ask(`${url}new`, { method: 'POST', headers: { ...type, ...headers }, body: `text=${text}` });
  };
  for (const headers of [{ Origin: 'http://localhost:1' }, { Origin: 'null' }, {}] as Record<string, string>[]) {
    const answer = await post('planted', headers);
    expect([answer.status, answer.body]).toEqual([403, expect.stringContaining('ERR_ORIGIN_REFUSED')]);
  }

  clock.pass(121);
  expect((await teacher.visit(`${url}new`)).body).toContain('It wants you to authenticate again');
  expect((await teacher.submit(`${url}new`, { text: 'Filled in slowly' })).body).toContain('Filled in slowly');
  clock.pass(180);
  const late = await post('Too+late', { Origin: origin, Referer: `${url}new` });
  expect([late.status, late.body]).toEqual([401, expect.stringContaining('What you sent was not saved.')]);
  expect(await list()).not.toMatch(/planted|Too late/);

  const [, again = ''] = /action="(\/webauth\/login[^"]*)"[^>]*><button class="main">Log in</.exec(late.body) ?? [];
  const wrong = await teacher.logIn(new URL(again.replaceAll('&#38;', '&'), url).href, 'test0004');
  expect([wrong.status, wrong.body]).toEqual([403, expect.stringMatching(/test0004.*ERR_PRINCIPAL_REFUSED/)]);
  const right = await teacher.logIn(`${url}new`, 'test0003');
  expect([right.url, right.status]).toEqual([`${url}new`, 200]);
  expect((await teacher.submit(right.url, { text: 'In time' })).body).toContain('<li>In time (test0003)</li>');
}

/** The clock of a program that is started with it. */
class Clock {
  readonly #file = join(mkdtempSync(join(tmpdir(), 'ucam-webauth-clock-')), 'milliseconds');
  readonly #module = `
    import { readFileSync } from 'node:fs';
    globalThis.Date = class extends Date {
      constructor(...parts) {
        super(...(parts.length === 0 ? [new.target.now()] : parts));
      }
      static now() {
        return super.now() + Number(readFileSync(process.env.CLOCK, 'utf8'));
      }
    };`;
  readonly args = ['--import', `data:text/javascript,${encodeURIComponent(this.#module)}`];
  readonly env = { CLOCK: this.#file };
  #ahead = 0;

  constructor() {
    this.pass(0);
    onTestFinished(() => rmSync(dirname(this.#file), { recursive: true }));
  }

  /** Puts it forward. */
  pass(seconds: number): void {
    this.#ahead += seconds * 1000;
    writeFileSync(this.#file, `${this.#ahead}`);
  }
}

/** What its pages do is in test/browser/spa.test.ts. */
async function useSpa(start: Start): Promise<void> {
  const { url } = await start();
  const { origin } = new URL(url);
  const [member, other, leaver, stranger] = [new Browser(), new Browser(), new Browser(), new Browser()];
  const shell = await stranger.visit(url);
  expect([shell.status, shell.body]).toEqual([200, expect.stringContaining('src="app.js"')]);
  for (const path of ['', 'app.js', 'style.css']) {
    const { status, headers } = await stranger.visit(url + path);
    expect([status, headers['content-security-policy']]).toEqual([200, expect.stringMatching(/^default-src 'none'; /)]);
  }

  const json = { 'Sec-Fetch-Mode': 'cors', Accept: '*/*' };
  const get = async (who: Browser, path: string) => parse(await who.ask(`${url}api/${path}`, { headers: json }));
  const post = async (who: Browser, path: string, body: unknown, headers: Record<string, string> = {}) => {
    const sent = { ...json, 'Content-Type': 'application/json', Origin: origin, ...headers };
    return parse(await who.ask(`${url}api/${path}`, { method: 'POST', headers: sent, body: JSON.stringify(body) }));
  };
  for (const path of ['me', 'notes', 'committee']) {
    expect(await get(stranger, path)).toMatchObject([401, { error: { code: 'ERR_SESSION_MISSING' } }]);
  }
  await member.logIn(`${url}webauth/login?return=/`);
  await other.logIn(`${url}webauth/login?return=/`, 'test0003');
  await leaver.logIn(`${url}webauth/login?return=/`, 'test0401');
  const [status, me] = (await get(member, 'me')) as [number, { principal: string; secondsLeft: number }];
  expect([status, me.principal, Math.ceil(me.secondsLeft / 60)]).toEqual([200, 'test0001', 120]);
  expect(await get(leaver, 'me')).toMatchObject([200, { principal: 'test0401' }]);
  expect(await get(leaver, 'notes')).toMatchObject([403, { error: { code: 'ERR_PTAGS_REFUSED' } }]);
  for (const answer of [await get(other, 'committee'), await post(other, 'committee', { text: 'hi' })]) {
    expect(answer).toMatchObject([403, { error: { code: 'ERR_PRINCIPAL_REFUSED' } }]);
  }

  expect(await post(stranger, 'notes', { text: 'hi' })).toMatchObject([
    401,
    { error: { code: 'ERR_SESSION_MISSING' } },
  ]);
  for (const elsewhere of ['http://localhost:1', 'null']) {
    const refused = [403, { error: { code: 'ERR_ORIGIN_REFUSED' } }];
    expect(await post(member, 'notes', { text: 'planted' }, { Origin: elsewhere })).toMatchObject(refused);
  }
  expect((await post(member, 'notes', { text: 'planted' }, { 'Content-Type': 'text/plain' }))[0]).toBe(400);
  for (const text of ['', ' ', 'w'.repeat(201), 7, ['a'], undefined]) {
    expect((await post(member, 'notes', { text }))[0]).toBe(400);
  }
  expect(await post(member, 'notes', { text: '<b>' })).toEqual([201, {}]);
  expect(await get(other, 'notes')).toEqual([200, [{ text: '<b>', by: 'test0001' }]]);
  expect(await get(member, 'committee')).toEqual([200, []]);
}

function parse({ status, body }: Page): [number, unknown] {
  return [status, JSON.parse(body)];
}

async function useLogging(start: Start): Promise<void> {
  const { program, url } = await start([], { LOG_LEVEL: 'debug' });
  const [member, leaver] = [new Browser(), new Browser()];
  expect((await member.logIn(url)).body).toContain('Hello, test0001.');
  expect((await leaver.logIn(url, 'test0401')).status).toBe(403);
  await member.submit(`${url}webauth/logout`, {});
  await program.printed(/"event":"logout"/);

  const lines = program.output.trim().split('\n');
  const events: Record<string, unknown>[] = lines.map((line) => JSON.parse(line));
  const { sessionId } = events.find(({ event }) => event === 'login') ?? {};
  const left = events.find(({ event, principal }) => event === 'login' && principal === 'test0401')?.['sessionId'];
  const about = (level: number, event: string, more = {}) => expect.objectContaining({ level, event, ...more });
  expect(events).toEqual([
    about(40, 'start'),
    about(30, 'start'),
    expect.objectContaining({ level: 30, msg: `Listening on ${url}` }),
    about(20, 'login started'),
    about(30, 'login', { principal: 'test0001', sessionId }),
    about(30, 'hello', { principal: 'test0001', sessionId }),
    about(20, 'login started'),
    about(30, 'login', { principal: 'test0401', sessionId: left }),
    about(40, 'refused', { principal: 'test0401', sessionId: left, code: 'ERR_PTAGS_REFUSED' }),
    about(30, 'logout', { principal: 'test0001', sessionId }),
  ]);
  expect([sessionId, left, sessionId === left]).toEqual([expect.any(String), expect.any(String), false]);
  for (const line of lines)
    expect(line.match(/"(?:time|level|msg|message)":/g)).toEqual(['"level":', '"time":', '"msg":']);
  for (const secret of [...member.secrets, ...leaver.secrets])
    expect(program.output).not.toContain(secret.slice(0, 16));
}

async function useMachines(start: Start): Promise<void> {
  const { program, url, port } = await start();
  // What it has started ends with it, if it is asked to.
  onTestFinished(async () => void (await program.stop()));
  const [browser, other] = [new Browser(), new Browser()];
  const origin = new URL(url).origin;
  expect((await browser.logIn(url)).body).toContain('you are test0001');
  await other.logIn(url);
  const answered = new Set<string | undefined>();
  for (let i = 0; i < 3; i++) {
    const { body } = await browser.visit(url);
    expect(body).toContain('you are test0001, in 2 session(s)');
    answered.add(/Process \d/.exec(body)?.[0]);
  }
  expect([...answered].sort()).toEqual(['Process 1', 'Process 2', 'Process 3']);

  const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, origin);
  expect(said).toMatch(/^Process \d has the socket of test0001\.$/);
  const closed = new Promise<number>((done) => socket.once('close', done));
  const cookie = browser.cookieHeader;
  await browser.submit(`${url}webauth/logout`, {});
  expect(await closed).toBe(4401);
  for (let i = 0; i < 3; i++) {
    const { status, body } = await browser.ask(url, { headers: { Accept: 'application/json', Cookie: cookie } });
    expect([status, JSON.parse(body).error.code]).toEqual([401, 'ERR_SESSION_REVOKED']);
  }
  expect((await other.visit(url)).body).toContain('in 1 session(s)');
  for (const secret of browser.secrets) expect(program.output).not.toContain(secret.slice(0, 16));
  expect(await program.stop()).toBe(0);
}

async function useCrossws(start: Start): Promise<void> {
  const { program, url, port } = await start();
  const live = `ws://localhost:${port}/live`;
  const { origin } = new URL(url);
  const [browser, other, stranger] = [new Browser(), new Browser(), new Browser()];
  expect((await browser.logIn(url)).body).toBe('Hello, test0001.');
  await other.logIn(url, 'test0002');
  const { said, socket } = await browser.connect(live, origin);
  expect(said).toBe('Hello, test0001.');

  const from = (page: string) => ({ Origin: page });
  expect(await refusal(stranger.open(live, from(origin)))).toEqual([401, 'ERR_SESSION_MISSING']);
  expect(await refusal(browser.open(live, from('https://example.org')))).toEqual([403, 'ERR_ORIGIN_REFUSED']);
  expect(await refusal(browser.open(live, {}))).toEqual([403, 'ERR_ORIGIN_REFUSED']);
  expect(await refusal(browser.open(`${live}?ticket=wrong`, from(origin)))).toEqual([401, 'ERR_TOKEN_INVALID']);
  for (const path of ['/', '/live/', '/other']) {
    expect(await refusal(browser.open(`ws://localhost:${port}${path}`, from(origin)))).toEqual([404, undefined]);
  }

  await Promise.all(Array.from({ length: 20 }, () => goAway(port)));

  const { ticket } = JSON.parse((await browser.post(`${url}webauth/ticket`, {})).body) as { ticket: string };
  const byTicket = await stranger.connect(`${live}?ticket=${ticket}`, origin);
  expect(byTicket.said).toBe('Hello, test0001.');
  expect(await refusal(stranger.open(`${live}?ticket=${ticket}`, from(origin)))).toEqual([401, 'ERR_TOKEN_INVALID']);

  const token = (await other.post(`${url}token`, {})).body;
  const authorization = `Bearer ${token}`;
  const byToken = await stranger.connect(live, origin, { authorization });
  expect(byToken.said).toBe('Hello, test0002.');
  const wrong = { authorization: `${authorization}x` };
  expect(await refusal(stranger.open(live, wrong))).toEqual([401, 'ERR_TOKEN_INVALID']);
  await expectNoEcho(live, token, origin);

  // What somebody sends who was told to go reaches nobody.
  const closed = new Promise((done) => socket.once('close', (code, reason) => done([code, String(reason)])));
  const ended = new Promise<number>((done) => byTicket.socket.once('close', done));
  const heard = on(byToken.socket, 'message');
  socket.pause();
  await browser.submit(`${url}webauth/logout`, {});
  expect(await ended).toBe(4401);
  socket.send('too late');
  socket.resume();
  expect(await closed).toEqual([4401, 'ERR_SESSION_REVOKED']);
  byToken.socket.send('in time');
  expect(String((await heard.next()).value[0])).toBe('test0002: in time');
  byToken.socket.terminate();
  for (const secret of [token, ticket]) expect(program.output).not.toContain(secret);
}

/** How a handshake was refused: by a complete answer, after which the server hangs up. */
async function refusal(socket: WebSocket): Promise<unknown[]> {
  const response = await new Promise<IncomingMessage>((done, reject) => {
    socket.once('unexpected-response', (_, answer: IncomingMessage) => done(answer));
    socket.once('open', () => reject(new Error('it was let in')));
  });
  const body = await text(response);
  expect([response.complete, Number(response.headers['content-length'])]).toEqual([true, Buffer.byteLength(body)]);
  return [response.statusCode, body === '' ? undefined : JSON.parse(body).error.code];
}

/** Asks for a socket, and breaks the connection at once. */
async function goAway(port: number): Promise<void> {
  const connection = connect(port, '127.0.0.1');
  await once(connection, 'connect');
  const handshake = 'GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  await new Promise((done) => connection.write(handshake, done));
  connection.resetAndDestroy();
}

/** A token among the subprotocols opens the socket, and is not in the answer. */
async function expectNoEcho(url: string, token: string, origin: string): Promise<void> {
  const jupyter = 'v1.token.websocket.jupyter.org';
  const socket = new WebSocket(url, [`${jupyter}.${token}`, jupyter], { origin });
  const answered = new Promise<IncomingMessage>((done) => socket.once('upgrade', done));
  await new Promise((open, reject) => socket.once('open', open).once('error', reject));
  expect(socket.protocol).toBe(jupyter);
  expect((await answered).rawHeaders.join()).not.toContain(token);
  socket.terminate();
}

/** What its page does is in test/browser/examples.test.ts. */
async function useChat(start: Start): Promise<void> {
  const { url, port } = await start();
  const chat = `ws://localhost:${port}/chat`;
  const { origin } = new URL(url);
  const [one, other, stranger] = [new Browser(), new Browser(), new Browser()];
  for (const path of ['', 'chat.js', 'style.css']) {
    const { status, headers } = await stranger.visit(url + path);
    expect([status, headers['content-security-policy']]).toEqual([200, expect.stringMatching(/^default-src 'none'; /)]);
  }
  expect((await stranger.visit(`${url}client/index.js`)).body).toContain('export function connect(');
  const turnedAway = stranger.open(chat, { Origin: origin });
  expect(await new Promise((done) => turnedAway.once('close', done))).toBe(4401);

  await one.logIn(`${url}webauth/login?return=/`);
  await other.logIn(`${url}webauth/login?return=/`, 'test0002');
  const first = new Heard(one.open(chat, { Origin: origin }));
  expect([await first.next(), await first.next()]).toEqual([{ you: 'test0001' }, { here: ['test0001'] }]);
  const second = new Heard(other.open(chat, { Origin: origin }));
  expect(await second.next()).toEqual({ you: 'test0002' });
  for (const each of [first, second]) expect(await each.next()).toEqual({ here: ['test0001', 'test0002'] });

  const lie = JSON.stringify({ by: 'test0001', text: '<b>' });
  second.socket.send(lie);
  for (const each of [first, second]) expect(await each.next()).toEqual({ by: 'test0002', text: lie });
  for (const text of [' ', 'w'.repeat(501)]) {
    second.socket.send(text);
    expect(await second.next()).toEqual({ sorry: expect.stringContaining('1 to 500'), text });
  }
  // However many sockets they have. The count may begin anew meanwhile, and not twice.
  const third = new Heard(other.open(chat, { Origin: origin }));
  for (let i = 0; i < 2; i++) await third.next();
  for (let i = 0; i < 21; i++) third.socket.send(`${i}`);
  const answers = [];
  while (answers.length < 21) answers.push(await third.next());
  expect(answers).toContainEqual({ sorry: expect.stringContaining('Not so fast'), text: expect.any(String) });

  third.socket.send('w'.repeat(5000));
  expect(await third.closed).toBe(1009);
  await other.submit(`${url}webauth/logout`, {});
  expect(await second.closed).toBe(4401);
  let heard: unknown;
  do heard = await first.next();
  while (JSON.stringify(heard) !== '{"here":["test0001"]}');
  first.socket.terminate();
}

/** What comes through a socket, one after the other. */
class Heard {
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
  readonly #messages: AsyncIterator<unknown[]>;

  constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((done) => socket.once('close', done));
    this.#messages = on(socket, 'message');
  }

  async next(): Promise<unknown> {
    const { value } = await this.#messages.next();
    return JSON.parse(String(value[0]));
  }
}

const client = ['--import', 'tsx', join('examples', 'feed', 'client.ts')];

async function useSocketio(start: Start): Promise<void> {
  const { url } = await start();
  const { origin } = new URL(url);
  const [one, other] = [new Browser(), new Browser()];
  for (const path of ['', 'chat.js', 'style.css', 'client/index.js', 'socket.io/socket.io.esm.min.js']) {
    expect([path, (await one.visit(url + path)).status]).toEqual([path, 200]);
  }
  const join = (browser: Browser) =>
    io(url, {
      extraHeaders: { Origin: origin, Cookie: browser.cookieHeader },
      transports: ['websocket'],
      forceNew: true,
      reconnection: false,
    });
  const next = (socket: ReturnType<typeof io>, event: string): Promise<unknown[]> => once(socket as never, event);
  const stranger = join(one);
  await next(stranger, 'connect_error');

  await one.logIn(`${url}webauth/login?return=/`);
  await other.logIn(`${url}webauth/login?return=/`, 'test0002');
  const first = join(one);
  expect(await next(first, 'here')).toEqual([['test0001']]);
  const both = next(first, 'here');
  const second = join(other);
  expect(await both).toEqual([['test0001', 'test0002']]);
  for (const text of [' ', 'w'.repeat(501), { by: 'test0001' }]) {
    const sorry = next(second, 'sorry');
    second.emit('say', text);
    expect(await sorry).toEqual([expect.stringContaining('1 to 500'), text]);
  }
  const said = next(first, 'said');
  second.emit('say', '<b>');
  expect(await said).toEqual(['test0002', '<b>']);
  // The count may begin anew meanwhile, and not twice.
  const tooFast = next(second, 'sorry');
  for (let i = 0; i < 21; i++) second.emit('say', `${i}`);
  expect(await tooFast).toEqual([expect.stringContaining('Not so fast'), expect.any(String)]);

  const gone = next(second, 'disconnect');
  const left = next(first, 'here');
  await other.submit(`${url}webauth/logout`, {});
  expect(await gone).toContain('io server disconnect');
  expect(await left).toEqual([['test0001']]);
  first.disconnect();
}

async function useFeed(start: Start): Promise<void> {
  const { program, url, port } = await start();
  const browser = new Browser();
  expect((await browser.logIn(url)).body).toContain('Make a token');
  const foreign = { method: 'POST', headers: { Origin: 'http://localhost:1' } };
  expect((await browser.ask(`${url}tokens`, foreign)).status).toBe(403);
  const token = (await browser.post(`${url}tokens`, {})).body.trim();
  expect(token).toMatch(/^ucwa_/);
  const byToken = { method: 'POST', headers: { Authorization: `Bearer ${token}`, Cookie: '' } };
  expect((await browser.ask(`${url}tokens`, byToken)).status).toBe(401);
  const folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-feed-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, `${token}\n`);

  const env = { FEED_URL: `ws://localhost:${port}/feed`, FEED_TOKEN_FILE: file };
  const following = new Program(client, { env });
  const without = runNode(client, { env: { FEED_URL: env.FEED_URL } });
  const unencrypted = runNode(client, { env: { ...env, FEED_URL: 'ws://localhost:1@example.org/feed' } });
  const wrong = runNode(client, { env: { FEED_URL: env.FEED_URL, FEED_TOKEN: `${token.slice(0, -4)}AAAA` } });
  await following.printed(/This is the feed of test0001\.\n/);
  expect(await without).toEqual({ status: 1, stdout: '', stderr: expect.stringContaining('no token') });
  expect(await unencrypted).toEqual({ status: 1, stdout: '', stderr: expect.stringContaining('use wss') });
  const refused = expect.stringMatching(/^The token was refused \(401\): .*ERR_TOKEN_INVALID/);
  expect(await wrong).toEqual({ status: 1, stdout: '', stderr: refused });

  await browser.submit(`${url}revoke`, {});
  await following.printed(/The token was revoked/);
  expect(await following.ended).toBe(1);
  for (const { output } of [program, following]) expect(output).not.toContain(token);
}

/** Its own pages are in test/browser/examples.test.ts. */
async function useTwoOrigins(start: Start): Promise<void> {
  const { url, socketsPort } = await start();
  const { origin } = new URL(url);
  const sockets = `http://localhost:${socketsPort}`;
  const [browser, stranger] = [new Browser(), new Browser()];
  const page = await browser.logIn(url);
  expect(page.headers['content-security-policy']).toContain(`frame-src ${sockets}`);
  const { ticket } = JSON.parse((await browser.post(`${url}webauth/ticket`, {})).body) as { ticket: string };
  const byTicket = `ws://localhost:${socketsPort}/by-ticket?ticket=${ticket}`;
  expect((await stranger.connect(byTicket, origin)).said).toBe('Hello, test0001.');
  const again = stranger.open(byTicket, { Origin: origin });
  expect(await new Promise((done) => again.once('close', done))).toBe(4401);
  expect((await stranger.visit(`${sockets}/webauth/frame`)).headers['content-security-policy']).toContain(
    `frame-ancestors ${origin}`,
  );
  expect((await browser.visit(sockets)).status).toBe(404);
}

/** Its worker is in test/browser/offline.test.ts. */
async function useOffline(start: Start): Promise<void> {
  const { url } = await start();
  const [user, stranger] = [new Browser(), new Browser()];
  for (const path of ['', 'offline.html', 'page.js', 'worker.js', 'style.css']) {
    const { status, headers } = await stranger.visit(url + path);
    expect([path, status, headers['cache-control']]).toEqual([path, 200, expect.stringMatching(/^public\b/)]);
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; /);
  }
  const data = await stranger.ask(`${url}api/loans`, { headers: { 'Sec-Fetch-Mode': 'cors', Accept: '*/*' } });
  expect(parse(data)).toMatchObject([401, { error: { code: 'ERR_SESSION_MISSING' } }]);
  expect((await user.logIn(`${url}loans`)).body).toContain('Loans of test0001');
  for (const path of ['loans', 'api/loans']) {
    const { status, headers } = await user.visit(url + path);
    expect([path, status, headers['cache-control']]).toEqual([path, 200, 'no-store']);
  }
}

async function useVerify(): Promise<void> {
  const { status, stdout, stderr } = await runNode(['--import', 'tsx', join('examples', 'verify.ts')]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const [address = '', ...said] = stdout.trim().split('\n');
  expect(Object.fromEntries(new URL(address).searchParams)).toMatchObject({ ver: '3', desc: 'Example' });
  expect(said).toEqual([
    'genuine, and nobody logged in: ERR_WLS_REQUEST',
    expect.stringMatching(/^not acceptable: ERR_ISSUE_STALE, /),
  ]);
}

describe('examples', () => {
  it('are all used here', () => {
    expect(Object.keys(uses).sort()).toEqual([...examples].sort());
  });

  it.each(programs)('%s imports the package by its name, as a copy of it would', (name) => {
    const text = readFileSync(join(root, 'examples', name), 'utf8');
    const specifiers = [...text.matchAll(/^(?:import|\}).*?from '([^']+)';$|\bimport\('([^']+)'\)/gm)].map(
      (match) => match[1] ?? match[2],
    );
    expect(specifiers.length).toBe(text.match(/(?<!-)\bimport\b(?!\.meta)/g)?.length);
    // A program that comes with a token needs none of it.
    const needsUs = name !== join('feed', 'client.ts');
    expect(specifiers.some((specifier) => specifier?.startsWith('ucam-webauth'))).toBe(needsUs);
    for (const specifier of specifiers) {
      expect(specifier).toMatch(
        /^(?:node:[\w/]+|crossws(?:\/adapters\/node)?|express|pino|socket\.io|ws|ucam-webauth(?:\/(?:express|redis|socket\.io|websocket|wls))?)$/,
      );
    }
  });

  it.each(Object.entries(uses))('%s does what it says', async (name, use) => {
    if (name === 'machines.ts' && !findPrograms(['redis-server', 'nginx'])) return;
    await use(async (args = [], env = {}) => {
      const [port, wlsPort, socketsPort] = (await freePorts(3)) as [number, number, number];
      const ports = { PORT: `${port}`, WLS_PORT: `${wlsPort}`, SOCKETS_PORT: `${socketsPort}` };
      const inDevelopment = { NODE_ENV: 'development', ...ports, ...env };
      const program = new Program([...args, '--import', 'tsx', join('examples', name)], { env: inDevelopment });
      await program.printed(/\bListening on /);
      return { program, port, socketsPort, url: `http://localhost:${port}/` };
    });
  });

  it('feed/client.ts comes back to a server that was busy or restarted, and stops when its token is over', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const wss = new WebSocketServer({ noServer: true });
    const came: (string | undefined)[] = [];
    server.on('upgrade', (request, socket, head) => {
      if (came.push(request.headers.authorization) === 1) return refuseUpgrade(socket, new Error('busy'));
      wss.handleUpgrade(request, socket, head, (ws) => {
        ws.send(`time ${came.length}`, () => ws.close(came.length === 2 ? 1012 : 4401));
      });
    });
    const { port } = server.address() as AddressInfo;
    const env = { FEED_URL: `ws://localhost:${port}/feed`, FEED_TOKEN: 'ucwa_token' };
    const { status, stdout, stderr } = await runNode(client, { env });
    expect([status, stdout]).toEqual([1, 'time 2\ntime 3\n']);
    expect(stderr).toMatch(/^Not now \(500\): .*\nThe token was revoked, or is over: make a new one\.\n$/);
    expect(came).toEqual(Array(3).fill('Bearer ucwa_token'));
  });

  it('refuse to run in production without what that takes', async () => {
    const { status, stderr } = await runNode(['--import', 'tsx', join('examples', 'express.ts')]);
    expect(status).not.toBe(0);
    expect(stderr).toContain('set NODE_ENV=development');
  });
});

describe('docs/other-servers.md', () => {
  it('has the whole of an example, which is run above', () => {
    const [program = '', ...others] = codeBlocks('docs/other-servers.md', 'ts');
    expect(others).toEqual([]);
    const example = readFileSync(join(root, 'examples/crossws.ts'), 'utf8');
    expect(program).toBe(example.replace(/^(?:\/\/.*\n)+/, ''));
  });
});

/** One that somebody has, without any of ours. */
const anApplication = `
import express from 'express';
const app = express();
app.get('/', (_request, response) => void response.send('As before'));
const server = app.listen(3000, '127.0.0.1', () => console.log('Listening'));
`;

/** The imports, which come first wherever the rest is put, and the rest. */
function splitImports(code: string): [string, string] {
  const lines = code.split('\n');
  const isImport = (line: string) => line.startsWith('import ');
  return [`${lines.filter(isImport).join('\n')}\n`, lines.filter((line) => !isImport(line)).join('\n')];
}

/** The blocks of code of a document, in order. */
function codeBlocks(document: string, language: string): string[] {
  const text = readFileSync(join(root, document), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, code]) => code as string);
}

describe("the README's code", () => {
  const blocks = codeBlocks('README.md', 'ts');
  // The third declares `request.auth` beside another package: test/package/request-auth.test.ts compiles it.
  const [quickStart = '', ownService = '', , added = '', byYourself = '', inTests = ''] = blocks;
  let folder: string;

  // An application of somebody else's, in which the package is installed.
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-readme-'));
    const packages = join(folder, 'node_modules');
    mkdirSync(join(packages, '@types'), { recursive: true });
    for (const name of ['express', 'ws', '@types/node', '@types/express', '@types/ws']) {
      symlinkSync(join(root, 'node_modules', name), join(packages, name), 'junction');
    }
    symlinkSync(root, join(packages, 'ucam-webauth'), 'junction');
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const compilerOptions = {
      module: 'nodenext',
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      types: ['node'],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  it('is six blocks; the quick start is at most fifteen lines, and what is added to an application ten', () => {
    expect(blocks).toHaveLength(6);
    const count = (code: string) => code.split('\n').filter((line) => line.trim() !== '').length;
    expect(count(quickStart)).toBeLessThanOrEqual(15);
    expect(count(added)).toBeLessThanOrEqual(10);
  });

  it('type-checks as it stands', { timeout: 120_000 }, async () => {
    writeFileSync(join(folder, 'quick-start.ts'), quickStart);
    writeFileSync(join(folder, 'own-service.ts'), `import { createWAA } from 'ucam-webauth';\n${ownService}`);
    const [imports = '', rest = ''] = splitImports(added);
    writeFileSync(join(folder, 'added.ts'), imports + anApplication + rest);
    writeFileSync(
      join(folder, 'by-yourself.ts'),
      `declare const token: string, encoded: string;\n${byYourself}console.log(location, principal);`,
    );
    writeFileSync(
      join(folder, 'in-tests.ts'),
      `import { createWLS } from 'ucam-webauth/wls';\nconst wls = createWLS();\n${inTests}console.log(page);`,
    );
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    expect(await runNode([tsc, '-p', folder])).toEqual({ status: 0, stdout: '', stderr: '' });
    // It would have found a mistake.
    writeFileSync(join(folder, 'mistake.ts'), quickStart.replace('request.auth?.principal', 'request.auth?.principle'));
    expect((await runNode([tsc, '-p', folder])).stdout).toMatch(/^\S*mistake\.ts.*'principle'/m);
    rmSync(join(folder, 'mistake.ts'));
  });

  it('is added to an application, which goes on as before', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const [imports = '', rest = ''] = splitImports(added);
    const [service = '', made = ''] = ownService.split('\n\n');
    const program = service + imports + anApplication + rest.replace(/^const waa = .*\n/m, made);
    const file = join(folder, 'added-running.ts');
    writeFileSync(file, program.replaceAll('3000', `${port}`).replaceAll('8711', `${wlsPort}`));
    const running = new Program(['--import', 'tsx', file], { env: { NODE_ENV: 'development' } });
    await running.printed(/Listening/);
    const [url, live] = [`http://localhost:${port}`, `ws://localhost:${port}/live`];
    const browser = new Browser();
    await expect(browser.connect(live, url)).rejects.toThrow('403');
    expect((await browser.logIn(`${url}/webauth/login?return=/`)).body).toBe('As before');
    const { said, socket } = await browser.connect(live, url);
    expect(said).toBe('Hello, test0001.');
    const closed = once(socket, 'close');
    await browser.submit(`${url}/webauth/logout`, {});
    expect((await closed)[0]).toBe(4401);
  });

  /** The quick start with the login service of its own. */
  function withOwnService(port: number, wlsPort: number, more = ''): string {
    const [imported = '', made = ''] = ownService.split('\n\n');
    return (imported + quickStart + more)
      .replace(/^const waa = .*\n/m, made)
      .replaceAll('3000', `${port}`)
      .replaceAll('8711', `${wlsPort}`);
  }

  it('tests an application as it says', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const file = join(folder, 'tested.ts');
    const whenListening = "await new Promise((resolve) => server.once('listening', resolve));\n";
    const end = 'console.log(await page.text());\nprocess.exit();\n';
    writeFileSync(file, withOwnService(port, wlsPort, whenListening + inTests + end));
    const { stdout, stderr } = await runNode(['--import', 'tsx', file], { env: { NODE_ENV: 'test' } });
    expect([stdout, stderr]).toEqual(['Hello, abc12.\n', '']);
  });

  it('runs, with the login service of its own that it describes', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const program = withOwnService(port, wlsPort);
    expect(program).toContain(`baseUrl: 'http://localhost:${port}', wls: wls.profile`);
    const file = join(folder, 'running.ts');
    writeFileSync(file, `${program}\nserver.once('listening', () => console.log('Listening'));\n`);
    const running = new Program(['--import', 'tsx', file], { env: { NODE_ENV: 'development' } });
    await running.printed(/Listening/);
    const browser = new Browser();
    const page = await browser.logIn(`http://localhost:${port}/`);
    expect([page.status, page.body]).toEqual([200, 'Hello, test0001.']);
    const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, `http://localhost:${port}`);
    socket.terminate();
    expect(said).toBe('Hello, test0001.');
  });

  it('refuses to start as it stands where there is no secret', async () => {
    const file = join(folder, 'no-secret.ts');
    writeFileSync(file, quickStart);
    const { status, stderr } = await runNode(['--import', 'tsx', file], { env: { UCAM_WEBAUTH_SECRET: undefined } });
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/TypeError: secret is missing.*openssl rand -hex 32/);
  });
});

describe('the commands that the README names', () => {
  const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts as Record<string, string>;

  it('are scripts of package.json', () => {
    const named = [
      ...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/\bnpm (?:run (\w+)|(start|test))\b/g),
    ].map((match) => match[1] ?? match[2]);
    expect(named.length).toBeGreaterThan(3);
    expect([...new Set(named)].filter((name) => !scripts[name as string])).toEqual([]);
  });

  it('say of the genuine response of 2005 what the README says', async () => {
    const [code = ''] = codeBlocks('README.md', 'sh').filter((block) => block.includes('real-responses'));
    const [, expression = '', args = ''] = /^node -p '(.+)' \| npx ucam-webauth (.+)$/m.exec(code) ?? [];
    const printed = await runNode(['-p', expression]);
    const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { bin: Record<string, string> };
    const { status, stdout } = await runNode([bin['ucam-webauth'] as string, ...args.split(' ')], {
      input: printed.stdout,
    });
    expect(status).toBe(4);
    expect(stdout).toMatch(/holds +sig: .*\n/);
    expect(stdout).toContain("Raven's own");
  });
});

const documents = ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'keys/README.md'];
const inDocs = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'));

describe.each([...documents, ...inDocs.map((name) => `docs/${name}`)])('%s', (document) => {
  const text = readFileSync(join(root, document), 'utf8');

  it('links to files and headings that exist', () => {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link as string);
    const broken = links
      .filter((link) => !/^https:\/\//.test(link))
      .filter((link) => {
        const [path = '', heading] = link.split('#');
        const file = path === '' ? join(root, document) : resolve(root, dirname(document), path);
        return !existsSync(file) || (heading !== undefined && !headings(file).includes(heading));
      });
    expect(broken).toEqual([]);
  });

  it('names files that exist', () => {
    // A name in code, with an ending of ours. What a user makes or fetches is not ours, nor what a page has addresses of.
    const served = ['/client.js', '/client/index.js'];
    const inTesting = ['app.ts', './app.js', './app.ts', 'server.mjs', 'app.test.ts', 'jest.config.cjs', 'server.cjs'];
    const theirs = [
      'pubkey2.crt',
      'pubkey901.crt',
      'server.ts',
      'server.js',
      './users.js',
      'private.pem',
      ...inTesting,
      ...served,
    ];
    const code = [...text.matchAll(/`([^`\n]+)`/g), ...text.matchAll(/^```\w*\n(.*?)^```$/gms)].map(
      ([, inner]) => inner as string,
    );
    const names = code.flatMap(
      (inner) =>
        inner.match(/(?<![\w./:-])\.{0,2}\/?(?:[\w-]+\/)*[\w-]+\.(?:[cm]?ts|[cm]?js|json|md|pem|crt)\b(?![.(])/g) ?? [],
    );
    const places = [dirname(document), '.'];
    expect(
      names.filter((name) => !theirs.includes(name) && !places.some((place) => existsSync(resolve(root, place, name)))),
    ).toEqual([]);
  });
});

/** The anchors of a document's headings. */
function headings(file: string): string[] {
  const titles = [...readFileSync(file, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, title]) => title as string);
  return titles.map((title) =>
    title
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}
