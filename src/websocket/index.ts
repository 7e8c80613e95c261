import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import {
  callable,
  checkOptions,
  flag,
  isSeconds,
  originList,
  type Rule,
  type Rules,
  restriction,
  seconds,
  texts,
} from '../options.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import { type Credential, methods, protocolsOf, TOKEN_PROTOCOL } from './credentials.js';
import { type AcceptOptions, Door, type SocketServer } from './door.js';
import { addEndpoint } from './endpoints.js';
import { Gate, type UpgradeOptions } from './gate.js';
import type { Socket } from './refusal.js';

export type { Credential } from './credentials.js';
export type { AcceptOptions, SocketServer } from './door.js';
export { type FrameOptions, type SocketFrame, socketFrame } from './frame.js';
export type { UpgradeOptions } from './gate.js';
export { refuseUpgrade, type Socket } from './refusal.js';

/**
 * Lets only people who are logged in open sockets on `wss`, which has to be made with `noServer: true`. `request.auth`
 * of its `connection` event says who. A socket is closed with 4401 when its session ends.
 * @param server an HTTP or HTTPS server of Node.
 * @returns a function that stops accepting; handshakes that are under way are still decided.
 * @throws TypeError if the options cannot be served safely.
 */
export function acceptUpgrades<S extends Socket>(
  server: EventEmitter,
  wss: SocketServer<S>,
  waa: WAA,
  options: AcceptOptions = {},
): () => void {
  checkArguments(server, wss, waa);
  if (wss.options.noServer !== true) {
    throw new TypeError('make the WebSocketServer with { noServer: true }: otherwise it lets everybody in by itself');
  }
  checkOptions('acceptUpgrades', options, acceptRules);
  checkUse(waa, options);
  const { path, credentials = ['cookie'] } = options;
  if (path !== undefined && credentials.includes('cookie') && !options.frame && !waa.reaches(path)) {
    throw new TypeError(`browsers send the session to ${waa.cookies.path} only, and so never to ${path}`);
  }
  if (credentials.includes('subprotocol') && !wss.listeners('headers').includes(selectTokenProtocol)) {
    wss.on('headers', selectTokenProtocol);
  }
  return addEndpoint(server, path, new Door(wss, waa, options).knock);
}

/**
 * The same decision for any other handler of upgrades: who wants to open this socket. Keep the options in one object.
 * @param ticket the first message, where that is the credential: the socket is open by then.
 * @throws WebauthError, which {@link refuseUpgrade} answers with.
 */
export async function authenticateUpgrade(
  waa: WAA,
  request: IncomingMessage,
  options: UpgradeOptions = byCookie,
  ticket?: string,
): Promise<Auth> {
  const gate = gateOf(waa, options);
  const taken = gate.conceal(request);
  const decided = options.credentials?.includes('firstMessage')
    ? decideLate(gate, request, ticket)
    : gate.decide(request, taken);
  return decided instanceof Promise ? gate.withinDeadline(decided) : decided;
}

function decideLate(gate: Gate, request: IncomingMessage, ticket: string | undefined): Promise<Auth> {
  if (ticket === undefined) throw new TypeError('with firstMessage, call this when the first message is there');
  gate.expect(request);
  return gate.decideMessage(ticket, request);
}

const byCookie: UpgradeOptions = {};
const gates = new WeakMap<WAA, WeakMap<UpgradeOptions, Gate>>();

/** One for all handshakes with the same options. */
function gateOf(waa: WAA, options: UpgradeOptions): Gate {
  const known = gates.get(waa)?.get(options);
  if (known) return known;
  checkWAA(waa);
  checkOptions('authenticateUpgrade', options, upgradeRules);
  checkUse(waa, options);
  const gate = new Gate(waa, options);
  gates.set(waa, (gates.get(waa) ?? new WeakMap()).set(options, gate));
  return gate;
}

/** Of what has no types: the likeliest mistakes, which would show at the first handshake only. */
function checkArguments(server: unknown, wss: unknown, waa: unknown): void {
  if (!(server instanceof EventEmitter)) {
    throw new TypeError(
      'acceptUpgrades(server, …): server is one of Node, which app.listen() returns; not the app itself',
    );
  }
  if (typeof (wss as Partial<SocketServer<Socket>> | undefined)?.handleUpgrade !== 'function') {
    throw new TypeError('acceptUpgrades(server, wss, …): wss is a WebSocketServer of the package ws');
  }
  checkWAA(waa);
}

function checkWAA(waa: unknown): void {
  if (typeof (waa as Partial<WAA> | undefined)?.openSession !== 'function')
    throw new TypeError('the sockets need the waa that createWAA() returned, and not a promise or middleware of it');
}

/** What each option can be, and what only together. */
function checkUse(waa: WAA, { credentials = ['cookie'], origins = [], frame }: UpgradeOptions): void {
  if (credentials.includes('firstMessage') && credentials.length > 1) {
    throw new TypeError('firstMessage goes with no other credential: give it a path of its own');
  }
  if (frame && !credentials.includes('cookie')) throw new TypeError('a frame makes cookies: credentials needs cookie');
  const plain = origins.find((origin) => !origin.startsWith('https:'));
  if (plain === undefined || waa.isDevelopment) return;
  throw new TypeError(`pages of ${plain} are not encrypted on their way, which is for development only: use https`);
}

/** Where the application's own `handleProtocols` knows none of the client's, browsers want one all the same. */
function selectTokenProtocol(lines: string[], request: IncomingMessage): void {
  const isSelected = lines.some((line) => /^sec-websocket-protocol:/i.test(line));
  // It is left among the client's only together with an accepted token.
  if (!isSelected && protocolsOf(request).includes(TOKEN_PROTOCOL)) {
    lines.push(`Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}`);
  }
}

const credentialNames: readonly string[] = [...methods.map(({ name }) => name), 'firstMessage'] satisfies Credential[];

const positive: Rule = [
  (value) => isSeconds(value) && value > 0 && value <= 3600,
  'is a number of seconds, at most an hour',
];

const upgradeRules: Rules<UpgradeOptions> = {
  principals: restriction(texts),
  ptags: restriction(texts),
  scopes: restriction(texts),
  credentials: restriction([
    (value) => texts[0](value) && (value as string[]).length > 0 && (value as string[]).every(isCredential),
    `is a list of some of: ${credentialNames.join(', ')}`,
  ]),
  origins: originList,
  frame: restriction([(value) => typeof value === 'function' && 'read' in value, 'is made by socketFrame()']),
  authorise: restriction(callable),
  deadline: positive,
  behindProxy: flag,
};

const count: Rule = [(value) => Number.isInteger(value) && (value as number) > 0, 'is a whole number, at least 1'];

const acceptRules: Rules<AcceptOptions> = {
  ...upgradeRules,
  path: [(value) => typeof value === 'string' && /^\/[^?#]*$/.test(value), 'begins with / and has no query'],
  rejection: [(value) => value === 'http' || value === 'close', "is 'http' or 'close'"],
  maxPending: count,
  maxPerPrincipal: restriction(count),
  maxPerSession: restriction(count),
  heartbeat: seconds,
};

function isCredential(name: string): boolean {
  return credentialNames.includes(name);
}
