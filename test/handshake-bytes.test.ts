import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setImmediate as later } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { WebSocket } from 'ws';
import type { Auth } from '../src/session/session.js';
import type { AcceptOptions } from '../src/websocket/index.js';
import {
  bytesOf,
  type Handshake,
  isGood,
  isHarmless,
  type Kind,
  type Plan,
  plans,
  read,
  type Secrets,
  shownSecretly,
  TOKEN_PROTOCOL,
  valuesOf,
  write,
} from './handshakes.js';
import { wls } from './site.js';
import { frame, socketSite } from './sockets.js';

// Whatever bytes come in: nothing breaks, hangs, leaks or stays, and nobody is let in who has not shown who they are.
const site = socketSite();
/** As many as come at a time. */
const MOST = 8;
/** How long a connection may last: milliseconds. Endpoints give up much sooner. */
const PATIENCE = 5000;
/** Of several bytes a character, so that a reason can be too long. */
const principal = 'é'.repeat(60);

/** What became of one handshake. */
interface Outcome {
  readonly text: string;
  readonly end: 'greeted' | 'closed' | 'ended' | 'broken' | 'late';
  readonly port: number;
}

/** One handshake, and what the application saw of it. */
interface Case {
  readonly plan: Plan;
  readonly handshake: Handshake;
  readonly secrets: Secrets;
  readonly outcome: Outcome;
}

const all = ['bearer', 'basic', 'subprotocol', 'query', 'cookie'] as const;
const endpoints: [string, AcceptOptions, isAsking: boolean][] = [
  ['cookie', { credentials: ['cookie'] }, false],
  ['cookie, refused by closing, decided by the application', { rejection: 'close' }, true],
  ['all credentials of the handshake, one at a time', { credentials: all, maxPending: 1 }, false],
  ['all credentials of the handshake, decided by the application', { credentials: all }, true],
  ['all, refused by closing, decided by the application', { credentials: all, rejection: 'close' }, true],
  ['firstMessage', { credentials: ['firstMessage'] }, false],
  ['firstMessage, decided by the application', { credentials: ['firstMessage'], rejection: 'close' }, true],
];

describe.each(endpoints)('any bytes at an endpoint for %s', (_, options, isAsking) => {
  it('get an answer, and open a socket for nobody but who may have it', async () => {
    const taken: readonly Kind[] = options.credentials ?? ['cookie'];
    const world = await World.make(taken, { maxPending: MOST, ...options }, isAsking);
    await fc.assert(
      fc.asyncProperty(fc.array(plans(taken), { minLength: MOST / 2, maxLength: MOST }), (batch) => world.check(batch)),
      { seed: 20130704, numRuns: 40, interruptAfterTimeLimit: 20_000, markInterruptAsFailure: true },
    );
    await world.checkNothingLeft();
    expect(world.opened).toBeGreaterThan(40);
    expect(world.refused).toBeGreaterThan(40);
  }, 60_000);
});

/** An endpoint, and the one person who may use it. */
class World {
  opened = 0;
  refused = 0;
  readonly #taken: readonly Kind[];
  readonly #isAsking: boolean;
  #cookie = '';
  #token = '';
  #protocolToken = '';
  /** By the port of the client. */
  readonly #connected = new Set<number>();
  /** Those whom the application has let in. */
  readonly #allowed = new Set<number>();
  /** What the application saw. */
  #seen: string[] = [];
  readonly #open = new Set<Socket>();
  #waiting: (() => void)[] = [];
  #told = 0;

  static async make(taken: readonly Kind[], options: AcceptOptions, isAsking: boolean): Promise<World> {
    const world = new World(taken, isAsking);
    const asking = { authorise: (_: Auth, request: IncomingMessage) => world.#decide(request) };
    await site.waa.close();
    const { principalPattern: _, ...anyPrincipal } = wls.profile;
    site.waa = site.makeWAA({ wls: anyPrincipal });
    site.accept({ path: '/live', ptags: [], deadline: 0.2, ...options, ...(isAsking && asking) });
    await world.#begin();
    return world;
  }

  private constructor(taken: readonly Kind[], isAsking: boolean) {
    this.#taken = taken;
    this.#isAsking = isAsking;
  }

  async check(batch: readonly Plan[]): Promise<void> {
    site.events = [];
    this.#seen = [];
    const cases = await Promise.all(batch.map((plan) => this.#try(plan)));
    await this.#gone();
    for (const one of cases) this.#judge(one);
  }

  /** All places are free again, and nobody waits for the end of a session. */
  async checkNothingLeft(): Promise<void> {
    const plan: Plan = {
      kind: this.#taken.at(-1) as Kind,
      word: 'together',
      changes: [],
      cuts: [],
      leave: 'stays',
      leaveAt: 0,
    };
    const cases = await Promise.all(
      Array(this.#isAsking ? MOST : 1)
        .fill(plan)
        .map((one) => this.#try(one)),
    );
    expect(cases.map(({ outcome }) => outcome.end)).toEqual(cases.map(() => 'greeted'));
    await this.#gone();
    expect(site.wss.clients.size).toBe(0);
    expect(this.#told).toBe(0);
    await site.waa.endSessions(principal);
    for (const { handle } of await site.waa.tokens.list(principal)) await site.waa.tokens.revoke(principal, handle);
    expect(this.#told).toBe(0);
  }

  async #begin(): Promise<void> {
    const create = async () => (await site.waa.tokens.create({ principal, name: 'a test', ttl: 600 })).token;
    this.#cookie = (await site.logIn({ principal })).cookie;
    [this.#token, this.#protocolToken] = [await create(), await create()];
    const watch = site.waa.watch.bind(site.waa);
    site.waa.watch = (auth, onEnd, onRenew) => {
      const told: typeof onEnd = (error) => {
        this.#told += 1;
        onEnd(error);
      };
      return watch(auth, told, onRenew);
    };
    const track = (socket: Socket) => {
      this.#open.add(socket);
      socket.once('close', () => this.#open.delete(socket));
    };
    // What is no upgrade gets an answer that has no body, whatever the method.
    const answer = (_: unknown, response: ServerResponse) =>
      void response.writeHead(204, { Connection: 'close' }).end();
    site.server.on('connection', track).on('request', answer);
    site.afterwards(() => site.server.off('connection', track).off('request', answer));
    site.wss.on('connection', (socket: WebSocket, request: IncomingMessage) => {
      this.#see(request);
      this.#connected.add(request.socket.remotePort as number);
      socket.send('hello');
    });
  }

  async #try(plan: Plan): Promise<Case> {
    const { ticket } = await site.waa.makeTicket(this.#cookie);
    const secrets: Secrets = {
      origin: site.origin,
      user: principal,
      cookie: this.#cookie,
      token: this.#token,
      protocolToken: this.#protocolToken,
      ticket,
    };
    const handshake = write(plan, secrets);
    const outcome = await send(handshake, plan);
    // Nobody has more than a few that were not used.
    await site.waa.takeTicket(ticket).catch(() => {});
    return { plan, handshake, secrets, outcome };
  }

  /** Waits until the server has nothing to do with anybody any more. */
  async #gone(): Promise<void> {
    await Promise.all([...this.#open].map((socket) => new Promise((resolve) => socket.once('close', resolve))));
  }

  async #decide(request: IncomingMessage): Promise<boolean> {
    this.#see(request);
    await later();
    const word = request.headers['x-word'];
    if (word === 'never') return new Promise(() => {});
    if (word === 'throw') throw new Error('a mistake of the application');
    if (word === 'together') await this.#together();
    if (word !== 'no') this.#allowed.add(request.socket.remotePort as number);
    return word !== 'no';
  }

  /** Waits until as many are undecided as may be. */
  async #together(): Promise<void> {
    const all = new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#waiting.length === MOST) for (const resolve of this.#waiting) resolve();
    return all;
  }

  #see({ url, headers, headersDistinct, rawHeaders }: IncomingMessage): void {
    this.#seen.push(JSON.stringify([url, headers, headersDistinct, rawHeaders]));
  }

  #judge({ plan, handshake, secrets, outcome }: Case): void {
    const { text, end, port } = outcome;
    const isIn = this.#connected.delete(port);
    const isAllowed = this.#allowed.delete(port) || !this.#isAsking;
    const good = isGood(handshake, this.#taken, secrets);
    if (isIn) expect([good, isAllowed]).toEqual([true, true]);
    expect(end).not.toBe('late');
    if (isIn) this.opened += 1;
    else this.refused += 1;
    if (good && isHarmless(plan) && plan.leave === 'stays' && plan.word === 'yes' && !text.includes('ERR_DEADLINE')) {
      expect([end, isIn]).toEqual(['greeted', true]);
    }
    if (text !== '') checkAnswer(handshake, text, good);
    else if (plan.leave === 'stays') expect(mayLoseAnswer(plan, handshake, end), `no answer (${end})`).toBe(true);
    this.#checkSecrets(handshake, secrets, text);
  }

  #checkSecrets(handshake: Handshake, secrets: Secrets, text: string): void {
    const { tickets, tokens } = shownSecretly(handshake);
    const bytes = bytesOf(handshake).toString('latin1');
    const shown = [...(this.#taken.includes('query') ? tickets : []), ...tokens];
    const isOnlyThere = (one: string) => bytes.split(one).length - 1 === shown.filter((other) => other === one).length;
    const hidden = shown.filter((one) => one.length >= 20 && isOnlyThere(one));
    const log = JSON.stringify(site.events);
    for (const secret of hidden) expect([text, log, ...this.#seen].join()).not.toContain(secret);
    for (const secret of Object.values(secrets).slice(2)) expect(log).not.toContain(secret);
  }
}

/** Of what is no handshake at all: Node hangs up on who takes it for a proxy, or resets while more is written. */
function mayLoseAnswer(plan: Plan, { method }: Handshake, end: Outcome['end']): boolean {
  return method === 'CONNECT' || (end === 'broken' && !isHarmless(plan));
}

/** Sends a handshake in pieces, and reads what comes to the end, or to the first message. */
async function send(handshake: Handshake, { cuts, leave, leaveAt }: Plan): Promise<Outcome> {
  const socket = connect({ port: site.port, host: '127.0.0.1', noDelay: true });
  await once(socket, 'connect');
  const { localPort: port = 0 } = socket;
  const reading = readAll(socket, handshake);
  const bytes = bytesOf(handshake);
  const places = [...cuts, ...(leave === 'stays' ? [] : [leaveAt])].sort((a, b) => a - b);
  let sent = 0;
  for (const place of places) {
    const to = Math.ceil((bytes.length * place) / 1000);
    if (socket.writable && to > sent) socket.write(bytes.subarray(sent, to));
    sent = Math.max(sent, to);
    await later();
    if (place === leaveAt && leave === 'resets') socket.resetAndDestroy();
    if (place === leaveAt && leave === 'ends') socket.end();
  }
  if (socket.writable) socket.write(bytes.subarray(sent));
  // A server has to wait for the rest of what is not whole.
  if (!bytes.includes('\r\n\r\n')) socket.end();
  return { ...(await reading), port };
}

async function readAll(socket: Socket, { first }: Handshake): Promise<Omit<Outcome, 'port'>> {
  let text = '';
  let end: Outcome['end'] = 'ended';
  let isOpen = false;
  const late = setTimeout(() => {
    end = 'late';
    socket.destroy();
  }, PATIENCE);
  socket.on('error', () => {
    end = 'broken';
  });
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
    if (!/^HTTP\/1\.1 101 .*\r\n\r\n/s.test(text)) return;
    if (!isOpen && first !== undefined && socket.writable) socket.write(frame(first));
    isOpen = true;
    const frames = text.slice(text.indexOf('\r\n\r\n') + 4);
    if (frames.startsWith(GREETING)) end = 'greeted';
    else if (isWhole(frames)) end = 'closed';
    if (end !== 'ended') socket.destroy();
  });
  await new Promise((resolve) => socket.once('close', resolve));
  clearTimeout(late);
  return { text, end };
}

/** What the application says to everybody who is let in. */
const GREETING = '\x81\x05hello';

/** Whether it is a frame, to its end. */
function isWhole(frames: string): boolean {
  return frames.length >= 2 && frames.length >= 2 + (frames.charCodeAt(1) & 0x7f);
}

/** Node's own answers to what is no HTTP, or too long, or has no Host. */
const ofNode = /^HTTP\/1\.1 4(?:00|31) [\w ]+\r\nConnection: close\r\n(?:Date: .+\r\nTransfer-Encoding: .+)?\r\n/;

function checkAnswer(handshake: Handshake, text: string, isGood: boolean): void {
  if (ofNode.test(text) || text.startsWith('HTTP/1.1 204 ')) return;
  const end = text.indexOf('\r\n\r\n');
  const [status = '', ...lines] = text.slice(0, end).split('\r\n');
  const rest = text.slice(end + 4);
  if (status.startsWith('HTTP/1.1 101 ')) return checkOpen(handshake, lines, rest, isGood);
  expect(status).toMatch(/^HTTP\/1\.1 4\d\d \w|^HTTP\/1\.1 500 Internal Server Error$/);
  expect(valuesOf(lines, 'Connection')).toEqual([status.startsWith('HTTP/1.1 426 ') ? 'close, Upgrade' : 'close']);
  expect(valuesOf(lines, 'Content-Length')).toEqual([`${rest.length}`]);
}

function checkOpen(handshake: Handshake, lines: readonly string[], frames: string, isGood: boolean): void {
  const asked = read(handshake).lines;
  const [key = ''] = valuesOf(asked, 'Sec-WebSocket-Key');
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  expect(valuesOf(lines, 'Sec-WebSocket-Accept')).toEqual([accept]);
  expect(valuesOf(lines, 'Upgrade').concat(valuesOf(lines, 'Connection'))).toEqual(['websocket', 'Upgrade']);
  const offered = valuesOf(asked, 'Sec-WebSocket-Protocol').flatMap((value) => value.split(','));
  const selected = valuesOf(lines, 'Sec-WebSocket-Protocol');
  expect(selected.length).toBeLessThan(2);
  for (const one of selected) expect(offered.map((other) => other.trim())).toContain(one);
  // It says that the token was accepted.
  if (selected.includes(TOKEN_PROTOCOL)) expect([isGood, shownSecretly(handshake).tokens.length]).toEqual([true, 1]);
  if (frames.startsWith('\x88')) checkClose(Buffer.from(frames, 'latin1'));
}

function checkClose(bytes: Buffer): void {
  // It may be the echo of one that says nothing.
  if (bytes[1] === 0) return;
  expect(bytes[1]).toBeLessThanOrEqual(125);
  const body = bytes.subarray(2, 2 + (bytes[1] as number));
  expect(body.readUInt16BE(0).toString()).toMatch(/^(1002|1003|1007|1009|1011|44\d\d)$/);
  expect(() => new TextDecoder('utf-8', { fatal: true }).decode(body.subarray(2))).not.toThrow();
}
