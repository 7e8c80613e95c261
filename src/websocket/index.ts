import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { checkArgument, checkOptions, checkWAA, object, type Rule, required } from '../options.js';
import type { Auth } from '../session/session.js';
import type { WAA } from '../waa.js';
import { protocolsOf, TOKEN_PROTOCOL } from './credentials.js';
import { type AcceptOptions, Door, type SocketServer } from './door.js';
import { addEndpoint } from './endpoints.js';
import { Gate, type Taken, type UpgradeOptions } from './gate.js';
import type { Socket } from './refusal.js';
import { acceptRules, checkReach, checkUse, upgradeRules } from './rules.js';

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
  if (wss.options?.noServer !== true) {
    throw new TypeError('make the WebSocketServer with { noServer: true }: otherwise it lets everybody in by itself');
  }
  checkOptions('acceptUpgrades', options, acceptRules);
  checkUse('acceptUpgrades()', waa, options);
  const { path, credentials, unclaimedTimeout = 10 } = options;
  if (path !== undefined) checkReach(waa, path, options);
  if (credentials?.includes('subprotocol') && !wss.listeners('headers').includes(selectTokenProtocol)) {
    wss.on('headers', selectTokenProtocol);
  }
  const logUnknownPath = waa.isDevelopment ? (message: string) => waa.log('warn', 'refused', message) : undefined;
  return addEndpoint(server, { path, upgrade: new Door(wss, waa, options).knock, unclaimedTimeout, logUnknownPath });
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
  checkArgument('authenticateUpgrade()', 'request', request, upgradeRequest);
  const taken = gate.conceal(request, isWebSocket(request));
  const decided = options.credentials?.includes('firstMessage')
    ? decideLate(gate, request, taken, ticket)
    : gate.decide(request, taken);
  return decided instanceof Promise ? gate.withinDeadline(decided) : decided;
}

/** Whether a request asks for a WebSocket, and not for another protocol of the application's own. */
function isWebSocket({ headers }: IncomingMessage): boolean {
  return /websocket/i.test(headers.upgrade ?? '');
}

function decideLate(gate: Gate, request: IncomingMessage, taken: Taken, ticket: string | undefined): Promise<Auth> {
  if (ticket === undefined) throw new TypeError('with firstMessage, call this when the first message is there');
  gate.expect(request, taken);
  return gate.decideMessage(ticket, request);
}

const byCookie: UpgradeOptions = {};
const gates = new WeakMap<WAA, WeakMap<UpgradeOptions, Gate>>();

/** One for all handshakes with the same options. */
function gateOf(waa: WAA, options: UpgradeOptions): Gate {
  const known = gates.get(waa)?.get(options);
  if (known) return known;
  checkWAA('authenticateUpgrade()', waa);
  checkOptions('authenticateUpgrade', options, upgradeRules);
  checkUse('authenticateUpgrade()', waa, options);
  const gate = new Gate(waa, options);
  gates.set(waa, (gates.get(waa) ?? new WeakMap()).set(options, gate));
  return gate;
}

/** Of what has no types: the likeliest mistakes, which would show at the first handshake only. */
function checkArguments(server: unknown, wss: unknown, waa: unknown): void {
  checkArgument('acceptUpgrades(server, …)', 'server', server, httpServer);
  checkArgument('acceptUpgrades(server, wss, …)', 'wss', wss, webSocketServer);
  checkWAA('acceptUpgrades()', waa);
}

const httpServer: Rule = required([
  (value) => value instanceof EventEmitter,
  'is one of Node, which app.listen() returns; not the app itself',
]);
const webSocketServer: Rule = required([
  (value) =>
    value instanceof EventEmitter && typeof (value as Partial<SocketServer<Socket>>).handleUpgrade === 'function',
  'is a WebSocketServer of the package ws',
]);
const upgradeRequest: Rule = required([
  (value) => object[0]((value as IncomingMessage).headers) && object[0]((value as IncomingMessage).socket),
  "is the request of the server's upgrade event",
]);

/** Where the application's own `handleProtocols` knows none of the client's, browsers want one all the same. */
function selectTokenProtocol(lines: string[], request: IncomingMessage): void {
  const isSelected = lines.some((line) => /^sec-websocket-protocol:/i.test(line));
  // It is left among the client's only together with an accepted token.
  if (!isSelected && protocolsOf(request).includes(TOKEN_PROTOCOL)) {
    lines.push(`Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}`);
  }
}
