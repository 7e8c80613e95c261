import type { IncomingMessage, ServerResponse } from 'node:http';
import { checkEncrypted } from '../config.js';
import { type Handshake, SessionError, VerificationError, WebauthError } from '../errors.js';
import { Html, hash, html } from '../html.js';
import {
  checkOrigin,
  closeUnread,
  formatCookie,
  loginChallenge,
  readCookie,
  refuseMethod,
  requestTarget,
  sendData,
  withOwn,
} from '../http.js';
import { checkOptions, checkWAA, origin, originList, type Rules, required } from '../options.js';
import type { Auth } from '../session/session.js';
import type { SocketCookie, WAA } from '../waa.js';
import { refuseRequest } from './refusal.js';
import { checkConnected } from './sockets.js';

/** Where sockets are that pages of other origins open. */
export interface FrameOptions {
  /** Origin at which browsers reach this server's sockets, such as `https://live.example.cam.ac.uk`. */
  readonly origin: string;
  /** Origins of pages that may use it, beside the application's own. */
  readonly pages?: readonly string[];
}

type Next = (error?: unknown) => void;

/** Middleware, or a whole request handler: serves `GET` and `POST /webauth/frame`. */
export interface SocketFrame {
  (request: IncomingMessage, response: ServerResponse, next?: Next): void;
  /** Origins of pages that may use it. */
  readonly pages: ReadonlySet<string>;
  /**
   * Whose WebSocket-only cookie a handshake has; undefined if it has none.
   * @throws SessionError if it is not ours, or was sent twice, or its session is over.
   */
  read(request: IncomingMessage): Auth | undefined;
}

/**
 * For sockets at another origin than the pages. A page puts `/webauth/frame` of the sockets' origin into a hidden frame,
 * and posts a ticket to it; the frame spends that here, and so gets a cookie that opens these sockets, and nothing else.
 * @param waa has the `baseUrl`, the secret and the store of the application whose pages they are.
 * @throws TypeError if the options cannot be used safely.
 */
export function socketFrame(waa: WAA, options: FrameOptions): SocketFrame {
  checkWAA('socketFrame()', waa);
  checkOptions('socketFrame', options, rules);
  const pages = withOwn(waa.origins, options.pages);
  for (const one of [options.origin, ...pages]) checkEncrypted(one, one, 'give its https origin', waa.isDevelopment);
  if (pages.has(options.origin)) {
    throw new TypeError(`pages at ${options.origin} need no frame: browsers send the session there with the handshake`);
  }
  const frame = new Frame(waa, options.origin, pages);
  return Object.assign(
    (request: IncomingMessage, response: ServerResponse, next?: Next) => frame.serve(request, response, next),
    { pages, read: (request: IncomingMessage) => frame.read(request) },
  );
}

const PATH = '/webauth/frame';
/** Bytes: many times as long as a ticket. */
const MAX_BODY = 1024;
/** Milliseconds. */
const DEADLINE = 5000;

const rules: Rules<FrameOptions> = { origin: required(origin), pages: originList };

class Frame {
  readonly #waa: WAA;
  readonly #cookie: SocketCookie;
  readonly #origins: ReadonlySet<string>;
  readonly #pages: string;
  readonly #handshake: Handshake;

  constructor(waa: WAA, origin: string, pages: ReadonlySet<string>) {
    this.#waa = waa;
    this.#cookie = waa.socketCookie(origin);
    this.#origins = new Set([origin]);
    this.#pages = [...pages].join(' ');
    this.#handshake = { challenges: [loginChallenge(waa.origin)], always: false };
  }

  serve(request: IncomingMessage, response: ServerResponse, next?: Next): void {
    if (requestTarget(request).path !== PATH) return next ? next() : sendNotFound(response);
    if (request.method === 'GET') return sendFrame(response, this.#pages, isSameSite(request));
    if (request.method !== 'POST') return refuseMethod(response, ['GET', 'POST']);
    const done = this.#post(request, response);
    done.catch((error) => this.#fail(error, response, next)).catch(next);
  }

  read(request: IncomingMessage): Auth | undefined {
    const value = readCookie(request, this.#cookie.name);
    return value === undefined ? undefined : this.#cookie.open(value);
  }

  /** Spends the ticket, or, where nothing is posted, says whether the browser has kept what it got for one. */
  async #post(request: IncomingMessage, response: ServerResponse): Promise<void> {
    checkOrigin(request, this.#origins);
    const ticket = await readTicket(request);
    checkConnected(request);
    if (ticket !== '') {
      const value = await this.#cookie.take(ticket);
      response.setHeader('Set-Cookie', this.#formatCookie(value, requestTarget(request).query === 'same-site'));
    } else if (this.read(request) === undefined) {
      throw new VerificationError(
        'ERR_COOKIES_BLOCKED',
        `the browser keeps no cookies of ${[...this.#origins]} in this page`,
      );
    }
    sendData(response, 200, { ok: true });
  }

  /** In pages of the same site browsers keep it as any other, also those that know no partitions. */
  #formatCookie(value: string, sameSite: boolean): string {
    const { name, secure } = this.#cookie;
    // Without Secure there are no partitions.
    return formatCookie(name, value, { secure, partitioned: secure && !sameSite });
  }

  #fail(error: unknown, response: ServerResponse, next?: Next): void {
    if (error instanceof WebauthError) {
      this.#waa.refused(error);
      error.handshake = this.#handshake;
    } else if (next) {
      closeUnread(response);
      return next(error);
    }
    refuseRequest(response, error);
  }
}

/** Whether the frame is in a page of the same site; where the browser does not say, it may be another. */
function isSameSite({ headers }: IncomingMessage): boolean {
  return headers['sec-fetch-site'] === 'same-site';
}

/** What was posted. @throws SessionError if it is longer than any ticket, or too slow. */
async function readTicket(request: IncomingMessage): Promise<string> {
  if (request.readableEnded) throw new TypeError('socketFrame() has to come before what reads bodies of requests');
  let slow: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    slow = setTimeout(() => reject(new SessionError('ERR_DEADLINE', 'the ticket did not arrive in time')), DEADLINE);
  });
  return Promise.race([readBody(request), deadline]).finally(() => clearTimeout(slow));
}

/** What is too long is read, so that the answer arrives, but not kept. */
function readBody(request: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const refuse = () => reject(new SessionError('ERR_TOKEN_INVALID', 'what was sent is no ticket'));
    let body = '';
    request.on('data', (chunk: Buffer) => {
      if (body.length <= MAX_BODY) body += chunk.toString('latin1', 0, MAX_BODY + 1);
      if (body.length > MAX_BODY) refuse();
    });
    request.on('end', () => resolve(body)).on('error', refuse);
  });
}

function sendNotFound(response: ServerResponse): void {
  response.writeHead(404, { 'Content-Length': 0 }).end();
}

/** The page of the frame: nothing to see, and a script that only pages of these origins can talk to. */
function sendFrame(response: ServerResponse, pages: string, sameSite: boolean): void {
  const site = sameSite ? 'same-site' : 'cross-site';
  const { text } = html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Sockets</title>
<script data-pages="${pages}" data-site="${site}">${new Html(script)}</script>
`;
  response.writeHead(200, {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    'Content-Security-Policy': `${policy}; frame-ancestors ${pages}`,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
  });
  response.end(text);
}

// Messages: { ready: true } to the page; { ticket } from it; { ok: true } or { ok: false, code, message } to it.
const script = `
const { pages, site } = document.currentScript.dataset;
const allowed = pages.split(' ');
async function post(body) {
  const { ok, error } = await (await fetch('?' + site, { method: 'POST', body })).json();
  if (!ok) throw error;
}
async function spend(ticket) {
  try {
    if (typeof ticket !== 'string') throw { code: 'ERR_TOKEN_INVALID', message: 'the page has posted no ticket' };
    await post(ticket);
    await post('');
    return { ok: true };
  } catch ({ code = 'ERR_INTERNAL', message }) {
    return { ok: false, code, message };
  }
}
addEventListener('message', async ({ source, origin, data }) => {
  // Pages post other things too, to all frames that they have.
  if (source !== parent || !allowed.includes(origin) || typeof data !== 'object' || !('ticket' in (data ?? {}))) return;
  parent.postMessage(await spend(data.ticket), origin);
});
for (const origin of allowed) parent.postMessage({ ready: true }, origin);
`;

const policy = `default-src 'none'; script-src ${hash(script)}; connect-src 'self'; base-uri 'none'; form-action 'none'`;
