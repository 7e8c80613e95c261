import { once } from 'node:events';
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type Server, request as send } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server as SocketIO } from 'socket.io';
import { type Socket as Client, io as connectClient, type ManagerOptions, type SocketOptions } from 'socket.io-client';
import { afterEach, beforeEach } from 'vitest';
import { WebSocket } from 'ws';
import type { LogEvent } from '../src/config.js';
import { createWAA, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: IncomingMessage['headers'];
}

/** An HTTP server, an application and a server of Socket.IO that is not guarded yet: new ones for each test. */
export class SocketIOSite {
  server!: Server;
  io!: SocketIO;
  waa!: WAA;
  origin = '';
  events: LogEvent[] = [];
  readonly #clients: Client[] = [];
  readonly #servers: Server[] = [];

  async begin(): Promise<void> {
    clock.reset();
    this.events = [];
    this.server = await this.listen();
    this.origin = originOf(this.server);
    const log = (event: LogEvent) => void this.events.push(event);
    this.waa = createWAA({ baseUrl: this.origin, secret, wls: wls.profile, now: clock.now, log });
    this.io = new SocketIO(this.server, { serveClient: false });
  }

  async end(): Promise<void> {
    for (const client of this.#clients.splice(0)) client.disconnect();
    // A browser may keep a connection that it has sent nothing on, for which close() waits.
    const closed = this.io.close();
    for (const server of this.#servers.splice(0)) {
      server.close();
      server.closeAllConnections();
    }
    await closed;
    await this.waa.close();
  }

  /** One more HTTP server, which is closed after the test. */
  async listen(): Promise<Server> {
    const server = createServer((_, response) => response.end('page'));
    this.#servers.push(server);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return server;
  }

  async logIn(): Promise<string> {
    const { location, nonce } = this.waa.startLogin('/');
    const { cookie } = await this.waa.finishLogin(wls.respond(location), nonce);
    return cookie as string;
  }

  async ticket(cookie?: string): Promise<string> {
    return (await this.waa.makeTicket(cookie ?? (await this.logIn()))).ticket;
  }

  /** The headers of a page of the application. */
  headers(cookie: string): { origin: string; cookie: string } {
    return { origin: this.origin, cookie: `webauth-session=${cookie}` };
  }

  client(options: Partial<ManagerOptions & SocketOptions>, origin = this.origin): Client {
    const client = connectClient(origin, { forceNew: true, reconnection: false, ...options });
    this.#clients.push(client);
    return client;
  }

  /** One request for the engine. */
  async ask(
    query: string,
    headers: OutgoingHttpHeaders = {},
    { method = 'GET', body = '', origin = this.origin, path = '/socket.io/' } = {},
  ): Promise<Answer> {
    const request = send(`${origin}${path}?EIO=4&${query}`, { method, headers, agent: false }).end(body);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    return { status: response.statusCode as number, text: await textOf(response), headers: response.headers };
  }

  /** One upgrade: the rejection, or status 101 with the first message. */
  async upgrade(query: string, headers: Record<string, string> = {}, origin = this.origin): Promise<Answer> {
    const url = `${origin.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&${query}`;
    const socket = new WebSocket(url, { headers }).on('error', () => {});
    const rejected = once(socket, 'unexpected-response').then(async ([, response]) => {
      return { status: response.statusCode, text: await textOf(response), headers: response.headers };
    });
    const opened = once(socket, 'message').then(([data]) => {
      socket.terminate();
      return { status: 101, text: String(data), headers: {} };
    });
    return Promise.race([rejected, opened]);
  }
}

/** A site that is new for each test of a file. */
export function socketIOSite(): SocketIOSite {
  const site = new SocketIOSite();
  beforeEach(() => site.begin());
  afterEach(() => site.end());
  return site;
}

export function originOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export const codeOf = ({ text }: Answer): string => JSON.parse(text).error.code;
export const sidOf = ({ text }: Answer): string => JSON.parse(text.slice(1)).sid;

export async function connected(client: Client): Promise<Client> {
  await new Promise<void>((resolve, reject) => client.once('connect', resolve).once('connect_error', reject));
  return client;
}

export function rejected(client: Client): Promise<Error & { context?: { status?: number; responseText?: string } }> {
  return new Promise((resolve, reject) =>
    client.once('connect_error', resolve).once('connect', () => reject(new Error('it was connected'))),
  );
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += chunk;
  return text;
}
