import type { IncomingMessage } from 'node:http';
import { AuthorisationError, SessionError } from '../errors.js';
import {
  describeMissingOrigin,
  isOwnRead,
  loginChallenge,
  offersScheme,
  readBasic,
  readScheme,
  readSession,
  requestTarget,
} from '../http.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import type { SocketFrame } from './frame.js';

/**
 * How a handshake shows who it is for. `bearer`, `basic` and `subprotocol` take a ticket or an API token, `query` and
 * `firstMessage` a ticket, `cookie` a session's cookie. docs/websockets.md helps to choose.
 */
export type Credential = 'bearer' | 'basic' | 'subprotocol' | 'query' | 'cookie' | 'firstMessage';

/** What a handshake shows. */
export interface Shown {
  readonly waa: WAA;
  readonly request: IncomingMessage;
  readonly taken: Taken;
  /** Whose cookies are taken too. */
  readonly frame: SocketFrame | undefined;
  /** Whose ticket it is. */
  readonly take: TakeTicket;
}

/** @throws SessionError if it is none, or not good any more. */
export type TakeTicket = (ticket: string) => Auth | Promise<Auth>;

/** What was taken out of a request, so that neither the application nor a log sees it. */
export interface Taken {
  readonly tickets: readonly string[];
  /** What stands for tokens among the subprotocols, as it was written. */
  readonly tokens: readonly string[];
}

/** One way of showing who one is. */
export interface Method {
  readonly name: Exclude<Credential, 'firstMessage'>;
  /** Whose socket it is; undefined where nothing is offered in this way. @throws WebauthError if that is wrong, or twice. */
  readonly open: (shown: Shown) => Auth | Promise<Auth> | undefined;
  /** What `WWW-Authenticate` says where it was wrong; without it the answer is 403. */
  readonly challenge?: (origin: string) => string;
  /** What it says to who has offered nothing in any way. */
  readonly invitation?: (origin: string) => string;
}

/** The subprotocol that goes along with a token (Jupyter's JEP 121). It is no secret, and may be selected. */
export const TOKEN_PROTOCOL = 'v1.token.websocket.jupyter.org';

const basicChallenge = (origin: string) => `Basic realm="${origin}", charset="UTF-8"`;

/** In the order in which they are looked for. */
export const methods: readonly Method[] = [
  {
    name: 'bearer',
    open: (shown) =>
      offersScheme(shown.request, 'bearer') ? openEither(shown, readScheme(shown.request, 'bearer')) : undefined,
    challenge: () => 'Bearer error="invalid_token"',
    invitation: () => 'Bearer',
  },
  {
    name: 'basic',
    open: (shown) => (offersScheme(shown.request, 'basic') ? openBasic(shown) : undefined),
    challenge: basicChallenge,
    invitation: basicChallenge,
  },
  { name: 'subprotocol', open: (shown) => openOnly(shown.taken.tokens, (token) => openEither(shown, decode(token))) },
  {
    name: 'query',
    open: ({ take, taken }) => openOnly(taken.tickets, take),
    challenge: loginChallenge,
  },
  { name: 'cookie', open: openCookie },
];

/** Takes what is secret out of the request: the token of a subprotocol always, and tickets where they are looked for. */
export function takeOut(request: IncomingMessage, ofQuery: boolean): Taken {
  return { tickets: ofQuery ? takeTickets(request) : [], tokens: takeTokens(request) };
}

/** Takes the token's subprotocol out of what the client offers: without an accepted token it must not be selected. */
export function withholdTokenProtocol(request: IncomingMessage): void {
  const offered = protocolsOf(request);
  if (offered.includes(TOKEN_PROTOCOL))
    setProtocols(
      request,
      offered.filter((one) => one !== TOKEN_PROTOCOL),
    );
}

/** The subprotocols that a client offers, in its order. */
export function protocolsOf({ headers }: IncomingMessage): string[] {
  return headers['sec-websocket-protocol']?.split(',').map((one) => one.trim()) ?? [];
}

/** Exactly one of what was offered; nothing where nothing was. */
function openOnly(offered: readonly string[], open: TakeTicket): Auth | Promise<Auth> | undefined {
  const [only, second] = offered;
  if (only === undefined) return undefined;
  if (second !== undefined) throw new SessionError('ERR_TOKEN_INVALID', 'more than one ticket or token was sent');
  return open(only);
}

function openEither({ waa, take }: Shown, text: string): Auth | Promise<Auth> {
  return text.startsWith('ucwa_') ? waa.openToken(text) : take(text);
}

/** The password is the ticket or token, and the user its principal, or `token`. */
async function openBasic(shown: Shown): Promise<Auth> {
  const given = readBasic(shown.request);
  if (given === undefined) {
    throw new SessionError(
      'ERR_TOKEN_INVALID',
      'Authorization: Basic is malformed. Expected the base64 of user:password (RFC 7617), and nothing after it.',
    );
  }
  const { user, password } = given;
  const auth = await openEither(shown, password);
  if (user === 'token' || user === auth.principal) return auth;
  throw new SessionError('ERR_TOKEN_INVALID', 'the user is not whose ticket or token it is');
}

function openCookie({ waa, request, frame }: Shown): Auth | undefined {
  const [cookie, anchor] = readSession(request, waa.cookies);
  const isOfFrame = cookie === undefined;
  const auth = isOfFrame ? frame?.read(request) : waa.openSession(cookie, anchor);
  // Browsers send cookies by themselves, and with them the Origin or, where the session's own goes, that the page is ours.
  if (auth === undefined || request.headers.origin !== undefined || (!isOfFrame && isOwnRead(request))) return auth;
  throw new AuthorisationError('ERR_ORIGIN_REFUSED', `the request has a cookie, and ${describeMissingOrigin(request)}`);
}

/** What is no percent-encoding stays as it is, and is no token. */
function decode(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

function takeTickets(request: IncomingMessage): string[] {
  const { path, query } = requestTarget(request);
  if (query === '') return [];
  const tickets: string[] = [];
  const others = query.split('&').filter((pair) => {
    // There may be very many, and only few can have that name.
    if (!mayBeTicket(pair)) return true;
    // By the name as whoever reads the address would understand it.
    const ticket = new URLSearchParams(pair).get('ticket');
    if (ticket !== null) tickets.push(ticket);
    return ticket === null;
  });
  if (tickets.length > 0) setTarget(request, others.length === 0 ? path : `${path}?${others.join('&')}`);
  return tickets;
}

/** Whether the name of a pair can be `ticket`: each of its characters takes up to three, and a `?` before it is skipped. */
function mayBeTicket(pair: string): boolean {
  return /^\??(?:%[0-9a-f]{2}|[ticke]){6}(?:=|$)/i.test(pair);
}

function setTarget(request: IncomingMessage, target: string): void {
  request.url = target;
  const routed = request as { originalUrl?: string };
  if (routed.originalUrl !== undefined) routed.originalUrl = target;
}

function takeTokens(request: IncomingMessage): string[] {
  const before = `${TOKEN_PROTOCOL}.`;
  if (request.headers['sec-websocket-protocol']?.includes(before) !== true) return [];
  const offered = protocolsOf(request);
  // Also out of a list that is put together wrongly; there it is no good one.
  const tokens: string[] = [];
  const others: string[] = [];
  // One pass: a list may have very many members.
  for (const one of offered) (one.includes(before) ? tokens : others).push(one);
  setProtocols(request, others);
  return tokens.map((one) => (one.startsWith(before) ? one.slice(before.length) : ''));
}

/** In all forms in which Node has them. Those of several lines are in the first; the others stay, empty. */
function setProtocols(request: IncomingMessage, protocols: readonly string[]): void {
  const { headers, rawHeaders } = request;
  let value = protocols.join(', ');
  if (value === '') delete headers[NAME];
  else headers[NAME] = value;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string;
    if (name.length !== NAME.length || name.toLowerCase() !== NAME) continue;
    rawHeaders[i + 1] = value;
    value = '';
  }
  // Node makes it anew, from what is there then. (By its types it cannot be undefined.)
  (request as { headersDistinct: unknown }).headersDistinct = undefined;
}

const NAME = 'sec-websocket-protocol';
