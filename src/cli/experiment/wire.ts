import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Server } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Line, Wire } from './types.js';

/** Tries whose wires are kept, connections of each, and lines of each of those. */
const MOST = { tries: 500, wires: 12, lines: 24 };

interface Try {
  readonly owner: string;
  /** What is to be learnt from it. */
  readonly lesson: string;
  readonly wires: readonly Wire[];
}

type Noted = { -readonly [name in keyof Wire]: Wire[name] } & { lines: Line[] };

/** Notes what goes over the wire, at the server, as it comes and goes. Of credentials it keeps no more than a mask. */
export class Wires {
  readonly #tries = new Map<string, Try & { readonly wires: Noted[] }>();
  readonly #byRequest = new WeakMap<IncomingMessage, Noted>();

  /** A try of somebody's, whose connections have its name in their address. */
  begin(owner: string, lesson = ''): string {
    const id = randomBytes(12).toString('base64url');
    this.#tries.set(id, { owner, lesson, wires: [] });
    if (this.#tries.size > MOST.tries) this.#tries.delete(this.#tries.keys().next().value as string);
    return id;
  }

  /** Undefined if this person has made none of that name, or not lately. */
  of(id: string, owner: string): Try | undefined {
    const found = this.#tries.get(id);
    return found?.owner === owner ? found : undefined;
  }

  /** Call it before anything else listens: handshakes are noted before something is taken out of them. */
  listen(server: Server): void {
    server.prependListener('upgrade', (request: IncomingMessage, socket: Duplex) => {
      const wire = this.#open(request, request.url);
      if (wire) hear(socket, new Reader(wire));
    });
    server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
      // The frame's own script says in no address which try it is of; its page's address does.
      const wire = request.method === 'POST' ? this.#open(request, request.headers.referer) : undefined;
      if (wire) notePost(wire, request, response);
    });
  }

  /** What a client said first, where that is a credential. */
  noteMessage(request: IncomingMessage, text: string): void {
    const wire = this.#byRequest.get(request);
    if (wire) note(wire, 'client', `message: ${mask(text)}`);
  }

  noteOwner(request: IncomingMessage, who: string): void {
    const wire = this.#byRequest.get(request);
    if (wire) wire.who = who;
  }

  #open(request: IncomingMessage, address = ''): Noted | undefined {
    const wires = this.#tries.get(idIn(address) ?? '')?.wires;
    if (wires === undefined) return undefined;
    const wire = { lines: [] };
    noteRequest(wire, request);
    this.#byRequest.set(request, wire);
    wires.push(wire);
    if (wires.length > MOST.wires) wires.shift();
    return wire;
  }
}

/** The name of the try that an address belongs to. */
export function idIn(address: string): string | undefined {
  return /(?:\/|[?&]try=)([\w-]{16})(?![\w-])/.exec(address)?.[1];
}

function mask(secret: string): string {
  return `${secret.slice(0, 4)}… (${secret.length} characters)`;
}

/** Whatever else is as long as a secret is taken for one. */
function note(wire: Noted, from: Line['from'], text: string): void {
  const safe = text.slice(0, 1000).replace(/[\w-]{32,}/g, mask);
  if (wire.lines.length < MOST.lines) wire.lines.push({ from, text: safe });
}

/** The request line, and the headers that matter here. */
function noteRequest(wire: Noted, { method, url = '', httpVersion, rawHeaders }: IncomingMessage): void {
  const target = url.replace(/([?&]ticket=)([^&]*)/g, (_, name, ticket) => name + mask(ticket));
  note(wire, 'client', `${method} ${target} HTTP/${httpVersion}`);
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name, value] = [rawHeaders[i] as string, rawHeaders[i + 1] as string];
    const show = requestHeaders[name.toLowerCase()];
    if (show) note(wire, 'client', `${name}: ${show(value)}`);
  }
}

const requestHeaders: { readonly [name: string]: (value: string) => string } = {
  host: (value) => value,
  origin: (value) => value,
  cookie: maskCookies,
  authorization: (value) =>
    value.replace(/^((?:bearer|basic) +)?(.*)$/i, (_, scheme = '', secret) => scheme + mask(secret)),
  'sec-websocket-protocol': (value) =>
    value.replace(/(v1\.token\.websocket\.jupyter\.org\.)([^,\s]+)/g, (_, before, token) => before + mask(token)),
};

/** Others' cookies are none of ours to show. */
function maskCookies(value: string): string {
  const ours = value
    .split('; ')
    .filter((pair) => /^(?:__Host-)?webauth-(?:session|socket)=/.test(pair))
    .map((pair) => pair.replace(/=(.*)$/, (_, secret) => `=${mask(secret)}`));
  return ours.join('; ') || '(none of ours)';
}

/** A ticket that is spent for a cookie, and that cookie. */
function notePost(wire: Noted, request: IncomingMessage, response: ServerResponse): void {
  let body = '';
  request.on('data', (chunk: Buffer) => {
    if (body.length < 1024) body += chunk;
  });
  request.on('end', () => note(wire, 'client', body === '' ? '(no body: is the cookie there?)' : mask(body)));
  response.on('finish', () => {
    const cookies = [response.getHeader('Set-Cookie') ?? []].flat().map(String);
    note(wire, 'server', `HTTP/1.1 ${response.statusCode} ${response.statusMessage}`);
    for (const cookie of cookies) {
      note(wire, 'server', `Set-Cookie: ${cookie.replace(/=([^;]*)/, (_, secret) => `=${mask(secret)}`)}`);
    }
  });
}

/** Hears what is written to a socket; it is written all the same. */
function hear(socket: Duplex, reader: Reader): void {
  for (const name of ['write', 'end'] as const) {
    const original = socket[name] as (...given: unknown[]) => unknown;
    Object.assign(socket, {
      [name]: (...given: unknown[]) => {
        const [chunk] = given;
        if (typeof chunk === 'string' || Buffer.isBuffer(chunk)) reader.read(Buffer.from(chunk as string));
        return original.apply(socket, given);
      },
    });
  }
}

const CLOSE = 8;
const TEXT = 1;
const answerHeaders = /^(?:www-authenticate|sec-websocket-protocol|retry-after):/i;

/** Reads what a server writes: an answer of HTTP, and then its body, or frames. */
class Reader {
  readonly #wire: Noted;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(wire: Noted) {
    this.#wire = wire;
  }

  read(chunk: Buffer): void {
    if (this.#bytes.length > 16_384) return;
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (this.#wire.status === undefined) this.#readHead();
    if (this.#wire.status === 101) while (this.#readFrame());
    else if (this.#wire.status !== undefined) this.#readBody();
  }

  #readHead(): void {
    const end = this.#bytes.indexOf('\r\n\r\n');
    if (end < 0) return;
    const [line = '', ...headers] = this.#bytes.toString('latin1', 0, end).split('\r\n');
    this.#bytes = this.#bytes.subarray(end + 4);
    this.#wire.status = Number(line.split(' ')[1]);
    for (const text of [line, ...headers.filter((one) => answerHeaders.test(one))]) note(this.#wire, 'server', text);
  }

  #readBody(): void {
    const text = String(this.#bytes);
    const error = this.#wire.error ? undefined : parseError(text);
    if (error === undefined) return;
    this.#wire.error = error;
    note(this.#wire, 'server', text);
  }

  /** RFC 6455, 5.2; those of a server are not masked, and ours are short. */
  #readFrame(): boolean {
    const bytes = this.#bytes;
    if (bytes.length < 4) return false;
    const short = (bytes[1] as number) & 0x7f;
    const [begin, length] = short < 126 ? [2, short] : [4, bytes.readUInt16BE(2)];
    if (bytes.length < begin + length) return false;
    this.#bytes = bytes.subarray(begin + length);
    this.#note((bytes[0] as number) & 0x0f, bytes.subarray(begin, begin + length));
    return true;
  }

  #note(opcode: number, payload: Buffer): void {
    if (opcode === TEXT) note(this.#wire, 'server', `message: ${payload}`);
    if (opcode !== CLOSE || payload.length < 2) return;
    const [code, reason] = [payload.readUInt16BE(0), payload.toString('utf8', 2)];
    this.#wire.closed = { code, reason };
    const [, name, message = ''] = /^(ERR_\w+)(?:: (.*))?$/s.exec(reason) ?? [];
    if (name) this.#wire.error = { code: name, message };
    note(this.#wire, 'server', `close: ${code} ${reason}`.trim());
  }
}

/** What a refusal says; undefined of a body that is no refusal of ours, or not all of it. */
function parseError(body: string): Wire['error'] {
  try {
    return JSON.parse(body).error;
  } catch {
    return undefined;
  }
}
