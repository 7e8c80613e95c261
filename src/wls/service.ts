import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { decodeForm, queryPairs } from '../codec.js';
import { isLoopback } from '../environment.js';
import { type AuthRequest, parseRequest, RequestRefused } from '../request.js';
import {
  type AuthResponse,
  type FailureStatus,
  failures,
  formatResponse,
  responseUrl,
  type Version,
} from '../response.js';
import type { Account } from './accounts.js';
import { sendChoices, sendFailure, sendIndex, sendNote } from './pages.js';

/** What the pages and redirects are made from. */
export interface Service {
  readonly accounts: readonly Account[];
  /** Seconds. */
  readonly sessionLife: number;
  readonly beyondLoopback: boolean;
  now(): Date;
  /**
   * Parses the raw query of a request.
   *
   * @param report receives a sentence on each tolerated deviation from the protocol.
   * @throws RequestRefused
   */
  parse(rawQuery: string, report: (deviation: string) => void): AuthRequest;
  /** A signed answer: the fields, and for the rest what a failure has. */
  answer(asked: AuthRequest, fields: Partial<AuthResponse>): AuthResponse;
  log(answer: AuthResponse): void;
}

/** A handler for `node:http` that answers whatever comes in, and does not throw. */
export function createHandler(service: Service): (request: IncomingMessage, response: ServerResponse) => void {
  const sessions = new Sessions();
  return (request, response) => {
    serve({ service, sessions, request, response }).catch((error: Error) => {
      // Either the browser went away, and nobody reads this, or it is a mistake of ours.
      if (response.headersSent) response.destroy();
      else sendNote(response, 500, 'The login service stumbled', error.message);
    });
  };
}

interface Exchange {
  readonly service: Service;
  readonly sessions: Sessions;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

type Route = { readonly methods: readonly string[]; serve(exchange: Exchange, query: string): unknown };

const routes = new Map<string, Route>([
  ['/', { methods: ['GET'], serve: ({ response }) => sendIndex(response) }],
  ['/auth/authenticate.html', { methods: ['GET', 'POST'], serve: authenticate }],
  ['/auth/logout.html', { methods: ['GET'], serve: logOut }],
]);

async function serve(exchange: Exchange): Promise<void> {
  const { request, response } = exchange;
  const [, path, query] = /^([^?]*)\??(.*)$/s.exec(request.url ?? '') as unknown as [string, string, string];
  const route = routes.get(path);
  if (route === undefined) return sendNote(response, 404, 'Not found', 'There is no page at this address.');
  if (!route.methods.includes(request.method ?? '')) {
    response.setHeader('Allow', route.methods.join(', '));
    return sendNote(response, 405, 'Method not allowed', `This address takes ${route.methods.join(' and ')} only.`);
  }
  await route.serve(exchange, query);
}

async function authenticate(exchange: Exchange, query: string): Promise<void> {
  const posted = exchange.request.method === 'POST';
  if (posted && !isOwnForm(exchange)) {
    return sendNote(exchange.response, 403, 'Refused', 'This form was sent by a page of another origin.');
  }
  const deviations = new Set<string>();
  const asked = readRequest(exchange, query, (deviation) => {
    if (deviations.size < MAX_DEVIATIONS) deviations.add(deviation);
  });
  if (asked === undefined) return;
  const session = posted ? undefined : exchange.sessions.find(exchange);
  if (asked.aauth && !asked.aauth.includes('pwd')) return fail(exchange, asked, 510);
  if (session && asked.iact !== true) {
    return succeed(exchange, asked, session.account, { sso: ['pwd'], life: session.life });
  }
  if (asked.iact === false) return fail(exchange, asked, 540);
  if (posted) return choose(exchange, asked);
  sendChoices(exchange.response, asked, exchange.service.accounts, [...deviations]);
}

/** The page names no more deviations than these. */
const MAX_DEVIATIONS = 5;

/** What is asked; undefined if it could not be served, and was answered. */
function readRequest(exchange: Exchange, query: string, report: (deviation: string) => void): AuthRequest | undefined {
  try {
    return exchange.service.parse(query, report);
  } catch (error) {
    if (!(error instanceof RequestRefused)) throw error;
    const usable = salvage(query);
    if (usable) fail(exchange, usable, error.status, error.message);
    else sendFailure(exchange.response, error.status, error.message);
    return undefined;
  }
}

/** As much of a refused request as its answer needs; undefined if there is no one address to answer to. */
function salvage(query: string): AuthRequest | undefined {
  const pairs = queryPairs(query).map((pair) => pair.map(decode));
  const all = (name: string) => pairs.filter(([key]) => key === name).map(([, value]) => value);
  // Of two values, neither: the application and we might mean different ones.
  const only = (name: string) => (all(name).length === 1 ? all(name)[0] : undefined) ?? '';
  try {
    const { url } = parseRequest(`ver=1&url=${encodeURIComponent(only('url'))}`);
    const ver = /^[123]$/.test(only('ver')) ? (Number(only('ver')) as Version) : 1;
    return { ver, url, params: only('params'), fail: all('fail').includes('yes') };
  } catch {
    return undefined;
  }
}

function decode(raw: string): string | undefined {
  try {
    return decodeForm(raw);
  } catch {
    return undefined;
  }
}

/** The form came back with a choice: an account, or a status to fail with. */
async function choose(exchange: Exchange, asked: AuthRequest): Promise<void> {
  const { service, sessions, request, response } = exchange;
  const body = await readBody(request);
  if (body === undefined) return sendNote(response, 413, 'Too much', 'This is not what the form sends.');
  const [[name, value] = ['', ''], ...more] = new URLSearchParams(body);
  const account = service.accounts.find(({ principal }) => name === 'account' && principal === value);
  if (more.length === 0 && account) {
    sessions.start(exchange, account);
    return succeed(exchange, asked, account, { auth: 'pwd', life: service.sessionLife });
  }
  if (more.length === 0 && name === 'status' && Object.hasOwn(failures, value)) {
    return fail(exchange, asked, Number(value) as FailureStatus);
  }
  sendNote(response, 400, 'Not a choice', 'There is no such account or status. Go back and choose again.');
}

function succeed(exchange: Exchange, asked: AuthRequest, account: Account, how: Partial<AuthResponse>): void {
  const { principal, ptags } = account;
  // Versions 1 and 2 carry no ptags, and applications take their successes to mean "current".
  if (asked.ver === 3 || ptags.includes('current')) sendBack(exchange, asked, { principal, ptags, ...how });
  else fail(exchange, asked, 570, `${principal} is not current, which version ${asked.ver} cannot say`);
}

function fail(exchange: Exchange, asked: AuthRequest, status: FailureStatus, msg: string = failures[status][1]): void {
  if (asked.fail) sendFailure(exchange.response, status, msg);
  else sendBack(exchange, asked, { status, msg });
}

function sendBack({ service, response }: Exchange, asked: AuthRequest, fields: Partial<AuthResponse>): void {
  const answer = service.answer(asked, fields);
  service.log(answer);
  response.writeHead(303, {
    Location: responseUrl(asked.url, answer.ver, formatResponse(answer)),
    'Cache-Control': 'no-store',
    'Referrer-Policy': 'no-referrer',
    'Content-Length': 0,
  });
  response.end();
}

function logOut(exchange: Exchange): void {
  exchange.sessions.end(exchange);
  sendNote(exchange.response, 200, 'Logged out', 'You are logged out of the development login service.');
}

/** Whether our own page sent the form. A strict referrer policy, perhaps of a proxy, makes browsers say `null`. */
function isOwnForm({ request: { headers }, service }: Exchange): boolean {
  const { origin = '' } = headers;
  if (origin === 'null') return headers['sec-fetch-site'] === 'same-origin';
  if (!URL.canParse(origin)) return false;
  const { host, hostname } = new URL(origin);
  // A name of somebody else's can be made to lead here: its pages are not ours, though Host and Origin agree.
  return host === headers.host && (isLoopback(hostname) || service.beyondLoopback);
}

const MAX_BODY = 4096;

/** The body; undefined if it is too long. What is too long is read, so that the answer arrives, but not kept. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  let body = '';
  for await (const chunk of request) {
    if (body.length <= MAX_BODY) body += chunk;
  }
  return body.length <= MAX_BODY ? body : undefined;
}

const MAX_SESSIONS = 1000;

/** Who is logged in to the login service itself; forgotten with the process. */
class Sessions {
  readonly #live = new Map<string, { readonly account: Account; readonly ends: number }>();

  /** The session that the browser brings, if it lasts another second. */
  find({ request, service }: Exchange): { readonly account: Account; readonly life: number } | undefined {
    const session = readIds(request)
      .map((id) => this.#live.get(id))
      .find(Boolean);
    if (session === undefined) return undefined;
    const life = Math.floor((session.ends - service.now().getTime()) / 1000);
    return life >= 1 ? { account: session.account, life } : undefined;
  }

  /** Starts a new session in place of the one that the browser brings. */
  start(exchange: Exchange, account: Account): void {
    const { request, response, service } = exchange;
    this.end(exchange);
    // All last equally long, so that the oldest is the first to end.
    if (this.#live.size >= MAX_SESSIONS) this.#live.delete(this.#live.keys().next().value as string);
    const id = randomBytes(16).toString('base64url');
    this.#live.set(id, { account, ends: service.now().getTime() + service.sessionLife * 1000 });
    response.setHeader('Set-Cookie', `${cookieName(request)}=${id}; Path=/; HttpOnly; SameSite=Lax`);
  }

  end({ request, response }: Exchange): void {
    for (const id of readIds(request)) this.#live.delete(id);
    response.setHeader('Set-Cookie', `${cookieName(request)}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax`);
  }
}

/** Ports do not separate cookies: one login service's would take the place of another's. */
function cookieName(request: IncomingMessage): string {
  return `development-wls-${request.socket.localPort}`;
}

function readIds(request: IncomingMessage): string[] {
  const name = `${cookieName(request)}=`;
  const cookies = (request.headers.cookie ?? '').split(';').map((cookie) => cookie.trim());
  return cookies.filter((cookie) => cookie.startsWith(name)).map((cookie) => cookie.slice(name.length));
}
