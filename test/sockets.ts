import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws';
import type { Config, LogEvent } from '../src/config.js';
import type { AuthResponse } from '../src/response.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type AcceptOptions, acceptUpgrades } from '../src/websocket/index.js';
import { clock, secret, wls } from './site.js';

export interface Opened {
  readonly client: WebSocket;
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
}

export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly text: string;
  readonly challenges: readonly string[];
}

/** A server of sockets, on an origin of its own; a new application and `WebSocketServer` for each test. */
export class SocketSite {
  readonly server = createServer();
  waa!: WAA;
  wss!: WebSocketServer;
  events: LogEvent[] = [];
  /** Where it listens. */
  origin = '';
  #stops: (() => void)[] = [];

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  makeWAA(config: Partial<Config> = {}): WAA {
    const log = (event: LogEvent) => void this.events.push(event);
    return createWAA({ baseUrl: this.origin, secret, wls: wls.profile, now: clock.now, log, ...config });
  }

  /** The function that stops it is called after the test anyway. */
  accept(options: AcceptOptions = {}, to = this.wss): () => void {
    const stop = acceptUpgrades(this.server, to, this.waa, options);
    this.afterwards(stop);
    return stop;
  }

  /** What is to be done at the end of the test. */
  afterwards(work: () => void): void {
    this.#stops.push(work);
  }

  async begin(): Promise<void> {
    clock.reset();
    this.events = [];
    this.waa = this.makeWAA();
    this.wss = new WebSocketServer({ noServer: true });
  }

  async end(): Promise<void> {
    for (const stop of this.#stops.splice(0)) stop();
    for (const socket of this.wss.clients) socket.terminate();
    await this.waa.close();
  }

  async logIn(overrides: Partial<AuthResponse> = {}): Promise<{ auth: Auth; cookie: string }> {
    const { location, nonce } = this.waa.startLogin('/');
    const { auth, cookie } = await this.waa.finishLogin(wls.respond(location, overrides), nonce);
    return { auth, cookie: cookie as string };
  }

  /** The headers of a page of ours whose visitor has that session. */
  headers(cookie: string | undefined, more: Record<string, string> = {}): Record<string, string> {
    return { origin: this.origin, ...(cookie !== undefined && { cookie: `webauth-session=${cookie}` }), ...more };
  }

  client(path: string, options: ClientOptions = {}, protocols: string[] = []): WebSocket {
    return new WebSocket(this.origin.replace('http', 'ws') + path, protocols, options);
  }

  /** Opens a socket and waits until both sides have it. */
  async open(path: string, headers: Record<string, string>, protocols: string[] = []): Promise<Opened> {
    const client = this.client(path, { headers }, protocols);
    const both = await Promise.all([once(this.wss, 'connection'), once(client, 'open')]);
    const [[socket, request]] = both as unknown as [[WebSocket, IncomingMessage]];
    return { client, socket, request };
  }

  /** Tries to open a socket and gives the HTTP answer, to its end. */
  async refused(path: string, headers: Record<string, string | string[]>, protocols: string[] = []): Promise<Refusal> {
    const client = this.client(path, { headers: headers as Record<string, string> }, protocols);
    const [request, response] = (await once(client, 'unexpected-response')) as [unknown, IncomingMessage];
    expect(request).toBeDefined();
    let text = '';
    for await (const chunk of response) text += chunk;
    expect(response.headers['content-length']).toBe(`${Buffer.byteLength(text)}`);
    expect(response.headers.connection).toBe('close');
    const code = text === '' ? '' : JSON.parse(text).error.code;
    const challenges = response.headersDistinct['www-authenticate'] ?? [];
    return { status: response.statusCode as number, code, text, challenges };
  }

  /** A bare connection, which sends a handshake of these header lines and perhaps more. */
  connect(lines: string[], { path = '/', more = [] }: { path?: string; more?: readonly Buffer[] } = {}): Socket {
    const socket = connect(this.port, '127.0.0.1').on('error', () => {});
    socket.write(Buffer.concat([Buffer.from(handshake(lines, path)), ...more]));
    return socket;
  }

  /** Sends an upgrade of just these header lines, and reads to the end, or to the text that is waited for. */
  async raw(lines: string[], until?: string, path = '/'): Promise<string> {
    let text = '';
    for await (const chunk of this.connect(lines, { path })) {
      text += chunk;
      if (until !== undefined && text.includes(until)) break;
    }
    return text;
  }
}

/** A site that lasts for the tests of a file. */
export function socketSite(): SocketSite {
  const site = new SocketSite();
  beforeAll(async () => {
    await once(site.server.listen(0, '127.0.0.1'), 'listening');
    site.origin = `http://127.0.0.1:${site.port}`;
  });
  afterAll(() => {
    site.server.close();
    site.server.closeAllConnections();
  });
  beforeEach(() => site.begin());
  afterEach(() => site.end());
  return site;
}

/** The bytes of a handshake. Without a Host where there is none among the lines: Node lets upgrades pass without. */
export function handshake(lines: string[], path = '/'): string {
  const fixed = [
    `GET ${path} HTTP/1.1`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];
  return `${[...fixed, ...lines].join('\r\n')}\r\n\r\n`;
}

/** Parts of a request that make it a WebSocket handshake, for requests that no connection brings. */
export const handshakeParts = { method: 'GET', httpVersion: '1.1', rawHeaders: [] };

/** Header fields that every WebSocket handshake has. */
export const handshakeHeaders = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};

interface FrameOptions {
  readonly opcode?: number;
  readonly isFinal?: boolean;
  /** Whether it says of itself that it is compressed. */
  readonly packed?: boolean;
  readonly encoding?: BufferEncoding;
}

/** A frame as clients send them, with a mask that changes nothing. */
export function frame(text: string, options: FrameOptions = {}): Buffer {
  const { opcode = 1, isFinal = true, packed = false, encoding = 'utf8' } = options;
  const data = Buffer.from(text, encoding);
  const length = data.length < 126 ? [data.length | 0x80] : [126 | 0x80, data.length >> 8, data.length & 0xff];
  return Buffer.concat([
    Buffer.from([opcode | (isFinal ? 0x80 : 0) | (packed ? 0x40 : 0), ...length, 0, 0, 0, 0]),
    data,
  ]);
}
