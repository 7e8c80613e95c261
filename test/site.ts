import { once } from 'node:events';
import { Agent, createServer, request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import express4 from 'express4';
import type { Config, LogEvent } from '../src/config.js';
import { type Webauth, webauth } from '../src/express/index.js';
import type { AuthResponse } from '../src/response.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS, type WLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';

export const secret: string = 'a1'.repeat(32);

/** Everybody's clock: the application's, the login service's and the browsers'. */
export const clock = {
  time: 0,
  now: (): Date => new Date(clock.time),
  reset: (): void => {
    clock.time = Date.parse('2026-03-01T12:00:00Z');
  },
  pass: (seconds: number): void => {
    clock.time += seconds * 1000;
  },
};
clock.reset();

export const wls: WLS = createWLS({ key: wlsKey.privateKey, now: clock.now });

export type Framework = typeof express;
export const frameworks: [string, Framework][] = [
  ['Express 5', express],
  ['Express 4', express4],
];

export type App = ReturnType<Framework>;
export type Routes = (app: App, auth: Webauth) => void;

/** A server, and the application that it serves just now. */
export class Site {
  readonly server = createServer();
  readonly #framework: Framework;
  /** Where it listens. */
  address = '';
  waa!: WAA;
  events: LogEvent[] = [];

  constructor(framework: Framework) {
    this.#framework = framework;
  }

  async listen(): Promise<void> {
    this.server.keepAliveTimeout = 0;
    await once(this.server.listen(0, '127.0.0.1'), 'listening');
    this.address = `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  /** @param before what the application has in front of us. */
  serve(routes: Routes, config: Partial<Config> = {}, before: (app: App) => void = () => {}): void {
    const events: LogEvent[] = [];
    const log = (event: LogEvent) => void events.push(event);
    this.events = events;
    this.waa = createWAA({ baseUrl: this.address, secret, wls: wls.profile, now: clock.now, log, ...config });
    this.run((app) => {
      const auth = webauth(this.waa);
      before(app);
      app.use(auth);
      routes(app, auth);
      app.use(auth.failurePage);
    });
  }

  /** Serves any application at all. */
  run(build: (app: App) => void): void {
    const app = this.#framework();
    app.set('env', 'test');
    build(app);
    this.server.removeAllListeners('request').on('request', app);
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly location: string;
  /** Its `Set-Cookie` lines. */
  readonly set: string[];
}

interface Cookie {
  readonly value: string;
  readonly path: string;
  readonly ends: number;
}

// Connections are kept, and the server never closes an idle one, so that no request meets one that is just closing.
const agent = new Agent({ keepAlive: true });

type Sent = Record<string, string | string[]>;

/** A browser, as far as it matters here: it keeps cookies as browsers do, and follows nothing by itself. */
export class Browser {
  readonly #address: string;
  readonly #origin: string;
  readonly #cookies = new Map<string, Cookie>();

  /** @param origin what people call the server that listens at the address. */
  constructor(address: string, origin = address) {
    this.#address = address;
    this.#origin = origin;
  }

  /** What is kept under a name. */
  cookie(name: string): string | undefined {
    return this.#find(name)?.[1].value;
  }

  /** Keeps another value under a name, or none at all. */
  plant(name: string, value?: string): void {
    const [key, kept] = this.#find(name) ?? [`${name};/`, { path: '/', ends: Number.POSITIVE_INFINITY }];
    if (value === undefined) this.#cookies.delete(key);
    else this.#cookies.set(key, { ...kept, value });
  }

  /** Goes to a page, as a path or as an address of this origin. */
  async get(target: string, headers: Sent = {}): Promise<Answer> {
    return this.send('GET', target, { accept: 'text/html', ...headers });
  }

  async fetch(target: string, headers: Sent = {}): Promise<Answer> {
    return this.send('GET', target, { accept: 'application/json', ...headers });
  }

  /** Sends a form or the like of it, as a page of this origin does. */
  async post(target: string, headers: Sent = {}, body = ''): Promise<Answer> {
    return this.send('POST', target, { accept: 'text/html', origin: this.#origin, ...headers }, body);
  }

  /** Presses a button that begins a login. `location` is where the answer leads, by a redirect or as a page does. */
  async press(target: string, headers: Sent = {}): Promise<Answer> {
    const answer = await this.post(target, headers);
    const refresh = /<meta http-equiv="refresh" content="0; url=([^"]*)">/.exec(answer.text)?.[1];
    return { ...answer, location: answer.location || (refresh ?? '').replaceAll('&#38;', '&') };
  }

  async send(method: string, target: string, headers: Sent = {}, body = ''): Promise<Answer> {
    const path = target.startsWith(`${this.#origin}/`) ? target.slice(this.#origin.length) : target;
    const sent: OutgoingHttpHeaders = { host: new URL(this.#origin).host, ...this.#cookiesFor(path), ...headers };
    // Not fetch: it would repair the path, and forbids some headers.
    const { hostname, port } = new URL(this.#address);
    const request = httpRequest({ hostname, port, method, path, headers: sent, agent });
    request.end(body);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const answer = await read(response);
    for (const line of answer.set) this.#keep(line);
    return answer;
  }

  /** Goes to a page, has the login service answer, and comes back; the answer is that of the callback. */
  async logIn(path = '/private', overrides: Partial<AuthResponse> = {}): Promise<Answer> {
    return this.get(answerTo((await this.get(path)).location, overrides));
  }

  /** Goes to a page and wherever that leads, by way of the login service if need be. */
  async arrive(target: string, service: WLS = wls): Promise<{ readonly answer: Answer; readonly trail: string[] }> {
    const trail: string[] = [];
    let answer = await this.get(target);
    while (answer.location !== '') {
      const { location } = answer;
      if (trail.push(location) > 9) throw new Error(`round and round: ${trail.join(' ')}`);
      answer = await this.get(location.startsWith(this.#origin) ? location : answerTo(location, {}, service));
    }
    return { answer, trail };
  }

  #find(name: string): [key: string, Cookie] | undefined {
    return [...this.#cookies].find(([key]) => key.startsWith(`${name};`));
  }

  #cookiesFor(target: string): { cookie?: string } {
    const [path] = target.split('?', 1) as [string];
    const sent = [...this.#cookies].filter(
      ([, { ends, path: of }]) =>
        ends > clock.time && (path === of || path.startsWith(of.endsWith('/') ? of : `${of}/`)),
    );
    const cookie = sent.map(([key, { value }]) => `${key.split(';', 1)}=${value}`).join('; ');
    return cookie === '' ? {} : { cookie };
  }

  #keep(line: string): void {
    const [name, value] = (line.split(';', 1)[0] as string).split('=') as [string, string];
    const path = /; Path=([^;]*)/.exec(line)?.[1] ?? '/';
    const age = /; Max-Age=(\d+)/.exec(line)?.[1];
    // What the prefixes promise, browsers hold.
    if (/^__(?:Host|Secure)-/.test(name) && !line.endsWith('; Secure')) return;
    if (name.startsWith('__Host-') && path !== '/') return;
    const ends = age === undefined ? Number.POSITIVE_INFINITY : clock.time + Number(age) * 1000;
    if (ends > clock.time) this.#cookies.set(`${name};${path}`, { value, path, ends });
    else this.#cookies.delete(`${name};${path}`);
  }
}

/** The address at which the login service's answer arrives. */
export function answerTo(location: string, overrides: Partial<AuthResponse> = {}, service: WLS = wls): string {
  const callback = new URL(location).searchParams.get('url');
  return `${callback}?WLS-Response=${encodeURIComponent(service.respond(location, overrides))}`;
}

/** What a login service says whose user is logged in there: a password only where it was to be asked for. */
export function bySingleSignOn(location: string): Partial<AuthResponse> {
  const asked = new URL(location).searchParams.get('iact') === 'yes';
  return asked ? { auth: 'pwd' } : { auth: '', sso: ['pwd'] };
}

async function read(response: IncomingMessage): Promise<Answer> {
  let text = '';
  for await (const chunk of response) text += chunk;
  const headers = new Headers();
  for (let i = 0; i < response.rawHeaders.length; i += 2) {
    headers.append(response.rawHeaders[i] as string, response.rawHeaders[i + 1] as string);
  }
  const status = response.statusCode as number;
  return { status, headers, text, location: headers.get('location') ?? '', set: headers.getSetCookie() };
}
