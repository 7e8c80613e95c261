import type { IncomingMessage } from 'node:http';
import { SessionError } from '../errors.js';

/** Options of `ws` that decide which offers of permessage-deflate a server accepts (RFC 7692). */
interface DeflateOptions {
  readonly serverNoContextTakeover?: boolean | undefined;
  readonly serverMaxWindowBits?: boolean | number | null | undefined;
  readonly clientMaxWindowBits?: boolean | number | null | undefined;
}

/** Whether a server compresses messages, and how. `false`: it reads no offers, so that only their syntax matters. */
export type Deflate = boolean | DeflateOptions;

type HandshakeCode = 'ERR_HANDSHAKE_INVALID' | 'ERR_HANDSHAKE_METHOD' | 'ERR_HANDSHAKE_VERSION';

/**
 * Checks what a WebSocket server checks before it accepts a handshake (RFC 6455, 4.2.1), at least as strictly as `ws`.
 *
 * A handshake that `ws` would reject must not consume a ticket, and `ws` looks at it only afterwards.
 * @param deflate `true` where the server is not known: any offer of permessage-deflate must be valid then.
 * @returns the error; `undefined` if the handshake is well formed.
 */
export function findHandshakeError(request: IncomingMessage, deflate: Deflate = true): SessionError | undefined {
  const { headers } = request;
  if (request.method !== 'GET') return malformed('ERR_HANDSHAKE_METHOD', 'Its method is not GET.');
  if (request.httpVersion !== '1.1') return invalid('It does not use HTTP/1.1.');
  if (headers.upgrade?.toLowerCase() !== 'websocket') return invalid('Its Upgrade is not websocket.');
  if (!keyShape.test(headers['sec-websocket-key'] ?? '')) {
    return invalid('Sec-WebSocket-Key is missing, doubled or not 16 bytes in base64.');
  }
  // Version 8, which ws accepts too, has its Origin in Sec-WebSocket-Origin, which is compared nowhere.
  if (headers['sec-websocket-version'] !== '13') {
    return malformed('ERR_HANDSHAKE_VERSION', 'Sec-WebSocket-Version is missing, doubled or not 13.');
  }
  if (!isProtocolList(headers['sec-websocket-protocol'])) {
    return invalid('Sec-WebSocket-Protocol is not a list of different tokens.');
  }
  if (isExtensionList(headers['sec-websocket-extensions'], deflate)) return undefined;
  return invalid('Sec-WebSocket-Extensions is malformed, or has an unacceptable offer of permessage-deflate.');
}

/** Error of a handshake that the options of the application's own `WebSocketServer` reject. */
export function unhandledError(): SessionError {
  return invalid('The WebSocketServer does not handle this address: compare its `path` with that of acceptUpgrades().');
}

function invalid(problem: string): SessionError {
  return malformed('ERR_HANDSHAKE_INVALID', problem);
}

function malformed(code: HandshakeCode, problem: string): SessionError {
  const message = `The WebSocket handshake is malformed. ${problem} Use a WebSocket client of RFC 6455.`;
  return Object.assign(new SessionError(code, message), { handshake: byHttp });
}

/** A malformed handshake cannot be accepted in order to be closed. */
const byHttp = { challenges: [], always: true };

const keyShape = /^[+/0-9A-Za-z]{22}==$/;

// Each expression below is anchored, and its neighboring parts have no character in common: the time is linear.
const tchar = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]";
const tokenShape = new RegExp(`^[ \\t]*(${tchar}+)[ \\t]*$`);
const parameterShape = new RegExp(`^[ \\t]*(${tchar}+)(?:=(?:(${tchar}+)|"((?:\\\\?${tchar})+)"))?[ \\t]*$`);

/** Whether ws takes a list: it has no blank at its ends, which Node removes anyway, and no empty member. */
function isTrimmed(list: string): boolean {
  return !/^[ \t]|[ \t]$/.test(list);
}

function isProtocolList(list: string | undefined): boolean {
  if (list === undefined) return true;
  const members = list.split(',');
  const names = new Set<string>();
  for (const member of members) {
    const name = tokenShape.exec(member)?.[1];
    if (name === undefined) return false;
    names.add(name);
  }
  return names.size === members.length && isTrimmed(list);
}

/** Parameters of one offer. A parameter without a value has the value ''. */
type Offer = ReadonlyMap<string, string>;

function isExtensionList(list: string | undefined, deflate: Deflate): boolean {
  if (list === undefined) return true;
  if (!isTrimmed(list)) return false;
  const offers: Offer[] = [];
  for (const extension of list.split(',')) {
    const [name = '', ...parameters] = extension.split(';');
    const extensionName = tokenShape.exec(name)?.[1];
    if (extensionName === undefined || !parameters.every((one) => parameterShape.test(one))) return false;
    if (extensionName !== 'permessage-deflate' || deflate === false) continue;
    const offer = readOffer(parameters);
    if (offer === undefined) return false;
    offers.push(offer);
  }
  return (
    offers.length === 0 ||
    offers.some((offer) => isAcceptable(offer, deflate === true ? {} : (deflate as DeflateOptions)))
  );
}

/** Reads an offer of permessage-deflate. @returns `undefined` if a parameter is unknown, doubled or invalid (RFC 7692, 7.1). */
function readOffer(parameters: readonly string[]): Offer | undefined {
  const offer = new Map<string, string>();
  for (const parameter of parameters) {
    const [, name = '', token, quoted] = parameterShape.exec(parameter) ?? [];
    const value = token ?? quoted?.replaceAll('\\', '') ?? '';
    if (offer.has(name) || valueShapes.get(name)?.test(value) !== true) return undefined;
    offer.set(name, value);
  }
  return offer;
}

const valueShapes: ReadonlyMap<string, RegExp> = new Map([
  ['client_max_window_bits', /^(?:[89]|1[0-5])?$/],
  ['server_max_window_bits', /^(?:[89]|1[0-5])$/],
  ['client_no_context_takeover', /^$/],
  ['server_no_context_takeover', /^$/],
]);

/** Whether a server with these options accepts the offer. */
function isAcceptable(offer: Offer, options: DeflateOptions): boolean {
  const { serverNoContextTakeover, serverMaxWindowBits, clientMaxWindowBits } = options;
  if (serverNoContextTakeover === false && offer.has('server_no_context_takeover')) return false;
  const serverBits = offer.get('server_max_window_bits');
  if (
    serverBits !== undefined &&
    (serverMaxWindowBits === false || Number(serverBits) < Number(serverMaxWindowBits ?? 0))
  )
    return false;
  if (typeof clientMaxWindowBits !== 'number') return true;
  const clientBits = offer.get('client_max_window_bits');
  return clientBits !== undefined && (clientBits === '' || Number(clientBits) >= clientMaxWindowBits);
}
