/** How a page shows whose socket it is to be: docs/websockets.md helps to choose. */
export type Credential = 'cookie' | 'frame' | 'query' | 'subprotocol' | 'firstMessage';

/** How it is with the socket, for people to see. docs/client.md says what a page does about each. */
export type Status =
  | { readonly state: 'connecting' }
  | {
      /** Open: but a server that refuses by a close code only says so a moment later. */
      readonly state: 'open';
      /** The subprotocol that the server chose, or an empty text. */
      readonly protocol: string;
    }
  | {
      /** Out of reach. It is tried again by itself. */
      readonly state: 'down';
      readonly reason: string;
      /** When: milliseconds from now. */
      readonly retryIn: number;
    }
  | {
      /** Nobody is logged in any more. */
      readonly state: 'logged out';
      /** Where to go to log in, and come back to this page: an absolute address. */
      readonly loginUrl: string;
    }
  | {
      /** This person, or this page, may not. */
      readonly state: 'refused';
      /** Of the error table; absent where the server did not say. */
      readonly code?: string;
      readonly reason: string;
      /** Present where that is a guess, since the server did not say: then it is tried again, after so many milliseconds. */
      readonly retryIn?: number;
    }
  | {
      /** Over: the page or the application has closed it. */
      readonly state: 'closed';
      readonly code: number;
      readonly reason: string;
    };

/** What a message can be, in either direction. */
export type Data = string | Blob | ArrayBuffer | ArrayBufferView;

export interface ConnectOptions {
  /** What is sent to show whose socket it is: `cookie`, by default. */
  readonly credential?: Credential;
  /** The page's own subprotocols. */
  readonly protocols?: readonly string[];
  /** Where tickets are: `/webauth/ticket`, by default; below the path of `baseUrl`, if that has one. */
  readonly ticketUrl?: string;
  /** What messages of bytes are: `blob`, by default. */
  readonly binaryType?: 'blob' | 'arraybuffer';
  /** What it throws is an uncaught error of the page, and changes nothing here; so for `onStatus`. */
  readonly onMessage?: (data: string | Blob | ArrayBuffer) => void;
  /** First with `connecting`, once `connect` has returned. */
  readonly onStatus?: (status: Status) => void;
}

/** A socket that is opened anew whenever it is lost, until somebody has to do something. */
export interface Connection {
  readonly status: Status;
  /** @returns whether it was handed to an open socket; what was not is for the page to keep. */
  send(data: Data): boolean;
  /** Tries now: also after somebody has logged in again, or where the socket was closed. */
  open(): void;
  /**
   * Closes the socket, until `open()`.
   * @param code 1000, by default; or 3000 to 4999.
   * @param reason at most 123 bytes.
   */
  close(code?: number, reason?: string): void;
}

/** The ticket could not be had. */
export class TicketError extends Error {
  /** Another copy of this module, in a second bundle of the page, makes the same errors. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: subclasses inherit the method, and recognize their own instances only.
    return this === TicketError ? Object(value).name === 'TicketError' : super[Symbol.hasInstance](value);
  }

  override readonly name = 'TicketError';
  /** The status of the answer; 0 where there was none. */
  readonly status: number;
  /** Of the error table; `ERR_NETWORK` where this library did not answer. */
  readonly code: string;
  /** Where nobody is logged in (401): where to go to log in, and come back to this page. */
  readonly loginUrl: string | undefined;

  constructor(message: string, status = 0, code = 'ERR_NETWORK', loginUrl?: string) {
    check(isText(message), 'message', 'is a text');
    super(message);
    this.status = status;
    this.code = code;
    this.loginUrl = loginUrl;
  }
}

/**
 * Opens a socket, and keeps it open.
 * @param url a path of the page's own origin, or an address of `http:`, `https:`, `ws:` or `wss:`; http becomes ws.
 * @throws TypeError if that is no such address, or there is no such credential.
 */
export function connect(url: string, options: ConnectOptions = {}): Connection {
  return new Kept(url, options);
}

/**
 * Fetches a ticket, which opens one socket: for sockets that something else opens, such as Socket.IO.
 * @param ticketUrl `/webauth/ticket`, by default.
 * @param signal gives up; by default, after 20 seconds.
 * @throws TicketError
 */
export async function fetchTicket(
  ticketUrl = '/webauth/ticket',
  signal: AbortSignal = AbortSignal.timeout(PATIENCE),
): Promise<string> {
  check(isText(ticketUrl), 'ticketUrl', 'is a text');
  check(typeof signal?.aborted === 'boolean', 'signal', 'is an AbortSignal');
  const sent = { method: 'POST', credentials: 'same-origin', redirect: 'error', signal } as const;
  const response = await fetch(ticketUrl, sent).catch(() => {
    throw new TicketError('the ticket route is out of reach');
  });
  const { ticket, error } = (await response.json().catch(() => undefined)) ?? {};
  const { status, ok } = response;
  if (ok && typeof ticket === 'string') return ticket;
  const loginUrl = status === 401 ? loginHere(error?.loginUrl, response.url) : undefined;
  throw new TicketError(error?.message ?? `the ticket route answered ${status}`, status, error?.code, loginUrl);
}

/** Milliseconds that an attempt may take. */
const PATIENCE = 20_000;
/** Milliseconds after which an open socket is taken for one that was let in. */
const SETTLED = 5_000;
/** Milliseconds between two attempts, at most: at first, and in the end. */
const BASE = 1_000;
const CAP = 30_000;
/** Code of a handshake that failed, or a connection that was lost (RFC 6455, 7.4.1). */
const FAILED = 1006;
/** So many handshakes that fail in a row are no accident. */
const SUSPICIOUS = 3;

const JUPYTER = 'v1.token.websocket.jupyter.org';
const credentials: readonly Credential[] = ['cookie', 'frame', 'query', 'subprotocol', 'firstMessage'];

const guess =
  'The server is there, and opens no socket: a guess is that it refuses this one, or that a proxy passes none on. The log may say why.';

class Kept implements Connection {
  readonly #url: URL;
  readonly #options: ConnectOptions;
  readonly #credential: Credential;
  #status: Status = { state: 'connecting' };
  /** Of what is going on: an attempt and its socket, a pause, or nothing. Its end ends all that belongs to it. */
  #phase = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #socket: WebSocket | undefined;
  /** How often it went wrong since a socket stayed open. */
  #failures = 0;
  /** Whether the open socket is taken for one that was let in. */
  #isSettled = false;
  /** How many handshakes in a row failed without a word. */
  #shut = 0;
  /** Whether it takes more than the cookie that the browser sends by itself. */
  #inDoubt: boolean;

  constructor(url: string, options: ConnectOptions) {
    this.#url = socketUrl(url);
    checkOptions(options);
    this.#options = options;
    this.#credential = options.credential ?? 'cookie';
    this.#inDoubt = this.#credential === 'frame';
    const { signal } = this.#phase;
    // What is called back may use what connect() returns.
    queueMicrotask(() => signal.aborted || this.#attempt());
  }

  get status(): Status {
    return this.#status;
  }

  send(data: Data): boolean {
    check(isData(data), 'data', 'is a text, Blob, ArrayBuffer or view of one');
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(data as string);
    return true;
  }

  open(): void {
    const { state } = this.#status;
    if (state !== 'connecting' && state !== 'open') this.#attempt();
  }

  close(code = 1000, reason = ''): void {
    const isCode = code === 1000 || (Number.isInteger(code) && code >= 3000 && code <= 4999);
    check(isCode, 'code', 'is 1000, or 3000 to 4999');
    const isReason = isText(reason) && new TextEncoder().encode(reason).length <= 123;
    check(isReason, 'reason', 'is a text of at most 123 bytes');
    this.#socket?.close(code, reason);
    if (this.#status.state !== 'closed') this.#end({ state: 'closed', code, reason });
  }

  async #attempt(): Promise<void> {
    const signal = this.#begin();
    this.#later(PATIENCE, () => this.#retry('nothing answered in time'));
    this.#say({ state: 'connecting' });
    try {
      const ticket = await this.#prepare(signal);
      if (!signal.aborted) this.#dial(ticket, signal);
    } catch (error) {
      if (!signal.aborted) this.#fail(error as Error);
    }
  }

  /** The ticket to show; none where the browser sends a cookie, once that is known to be good. */
  async #prepare(signal: AbortSignal): Promise<string> {
    const credential = this.#credential;
    const byCookie = credential === 'cookie' || credential === 'frame';
    if (signal.aborted || (byCookie && !this.#inDoubt)) return '';
    const fetched = fetchTicket(this.#options.ticketUrl, signal);
    const ticket = credential === 'cookie' ? await fetched.catch(orSocketTells) : await fetched;
    if (credential === 'frame') await allowSockets(httpUrl(this.#url).origin, ticket, signal);
    return byCookie ? '' : ticket;
  }

  #dial(ticket: string, signal: AbortSignal): void {
    const { protocols = [], binaryType = 'blob', onMessage } = this.#options;
    const [url, offered] = show(this.#credential, ticket, this.#url, protocols);
    this.#inDoubt = true;
    this.#isSettled = false;
    const socket = new WebSocket(url, offered);
    this.#socket = socket;
    socket.binaryType = binaryType;
    signal.addEventListener('abort', () => socket.close());
    const opened = () => {
      if (this.#credential === 'firstMessage') socket.send(ticket);
      this.#inDoubt = false;
      this.#later(SETTLED, () => {
        this.#isSettled = true;
        this.#failures = 0;
      });
      this.#say({ state: 'open', protocol: socket.protocol });
    };
    socket.addEventListener('open', opened, { signal });
    const heard = ({ data }: MessageEvent) => {
      this.#isSettled = true;
      tell(onMessage, data);
    };
    socket.addEventListener('message', heard, { signal });
    socket.addEventListener('close', (event) => this.#lost(event, signal), { signal });
  }

  #lost({ code, reason }: CloseEvent, signal: AbortSignal): void {
    // Without an open socket there is a code all the same, where the server's close frame comes before the page has heard.
    if (code === FAILED && this.#status.state !== 'open') return void this.#shutOut(signal);
    if (code === 4403) return this.#end({ state: 'refused', ...parseReason(reason) });
    const isOver = code === 1000 || (code >= 3000 && ![4401, 4408, 4429].includes(code));
    if (isOver) return this.#end({ state: 'closed', code, reason });
    if (code === 4401) this.#inDoubt = true;
    // It was never let in: there is nothing to wait for.
    if (code === 4401 && !this.#isSettled && this.#failures === 0) {
      this.#failures = 1;
      return void this.#attempt();
    }
    // Where another login has taken its place, the new session's cookie may still be on its way.
    this.#retry(reason || `the socket was closed with ${code}`, code === 4401 ? BASE : 0);
  }

  /** Browsers do not say why a handshake failed. */
  async #shutOut(signal: AbortSignal): Promise<void> {
    this.#shut += 1;
    const isRefused = this.#shut >= SUSPICIOUS && (await answers(httpUrl(this.#url), signal));
    if (signal.aborted) return;
    if (!isRefused) return this.#pause({ state: 'down', reason: 'the socket could not be opened' });
    this.#failures = Number.POSITIVE_INFINITY;
    this.#pause({ state: 'refused', reason: guess });
  }

  #fail(error: Error): void {
    const { status, code, loginUrl } = error as Partial<TicketError>;
    if (loginUrl !== undefined) this.#end({ state: 'logged out', loginUrl });
    else if (status === 403) this.#end({ state: 'refused', ...parseReason(`${code}: ${error.message}`) });
    else this.#retry(error.message);
  }

  #retry(reason: string, atLeast = 0): void {
    this.#shut = 0;
    this.#pause({ state: 'down', reason }, atLeast);
  }

  #pause(said: { readonly state: 'down' | 'refused'; readonly reason: string }, atLeast = 0): void {
    const signal = this.#begin();
    const retryIn = atLeast + Math.round(Math.random() * Math.min(CAP, BASE * 2 ** this.#failures));
    this.#failures += 1;
    this.#later(retryIn, () => this.#attempt());
    addEventListener('online', () => this.#attempt(), { signal });
    this.#say({ ...said, retryIn });
  }

  #end(status: Status): void {
    this.#begin();
    this.#failures = this.#shut = 0;
    this.#say(status);
  }

  #begin(): AbortSignal {
    this.#phase.abort();
    clearTimeout(this.#timer);
    this.#phase = new AbortController();
    return this.#phase.signal;
  }

  #later(milliseconds: number, work: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(work, milliseconds);
  }

  /** Comes last in whatever it is said of: the page may open and close here. */
  #say(status: Status): void {
    this.#status = status;
    tell(this.#options.onStatus, status);
  }
}

const isText = (value: unknown): value is string => typeof value === 'string';
/** By its tag, since another frame's `Blob` is of another class. */
const isData = (value: unknown) =>
  isText(value) || ArrayBuffer.isView(value) || /(?:Blob|File|Buffer)]$/.test(Object.prototype.toString.call(value));
const isFunction = (value: unknown) => typeof value === 'function';

/** Test of each option, and the words for it. */
const rules: { readonly [name in keyof Required<ConnectOptions>]: readonly [(value: unknown) => boolean, string] } = {
  credential: [(value) => credentials.includes(value as Credential), `is one of ${credentials.join(', ')}`],
  protocols: [(value) => Array.isArray(value) && Array.from(value).every(isText), 'is a list of texts'],
  ticketUrl: [isText, 'is a text'],
  binaryType: [(value) => value === 'blob' || value === 'arraybuffer', "is 'blob' or 'arraybuffer'"],
  onMessage: [isFunction, 'is a function'],
  onStatus: [isFunction, 'is a function'],
};

/** @throws TypeError with the name of the option. Browsers would take most of these for a text, or for nothing. */
function checkOptions(options: ConnectOptions): void {
  check(typeof options === 'object' && !!options, 'options', 'is an object');
  for (const name of Object.keys(options)) {
    check(Object.hasOwn(rules, name), name, `is no option of: ${Object.keys(rules).join(', ')}`);
  }
  for (const [name, [test, needs]] of Object.entries(rules)) {
    const value = options[name as keyof ConnectOptions];
    check(value === undefined || test(value), name, needs);
  }
}

function check(isRight: boolean, name: string, needs: string): void {
  if (!isRight) throw new TypeError(`${name} ${needs}`);
}

function tell<T>(callback: ((said: T) => void) | undefined, said: T): void {
  try {
    callback?.(said);
  } catch (error) {
    reportError(error);
  }
}

/** Takes `ERR_…: sentence` apart, if it is that. */
function parseReason(text: string): { readonly code?: string; readonly reason: string } {
  const [, code, reason = text] = /^(ERR_\w+): (.*)/s.exec(text) ?? [];
  return code === undefined ? { reason } : { code, reason };
}

function socketUrl(text: string | URL): URL {
  const isAddress = (isText(text) || text instanceof URL) && URL.canParse(text, location.href);
  const url = new URL(isAddress ? text : 'none:', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  url.hash = '';
  check(/^wss?:$/.test(url.protocol), 'url', 'is a path of this origin, or an http or ws address');
  return url;
}

function httpUrl(url: URL): URL {
  return new URL(url.href.replace('ws', 'http'));
}

/** Address and subprotocols of the next socket. */
function show(credential: Credential, ticket: string, url: URL, protocols: readonly string[]): [URL, string[]] {
  const shown = new URL(url);
  // Not by searchParams, which spell the others anew.
  if (credential === 'query') shown.search += `${url.search && '&'}ticket=${encodeURIComponent(ticket)}`;
  if (credential !== 'subprotocol') return [shown, [...protocols]];
  // A header takes no parentheses, and encodeURIComponent leaves them.
  const encoded = encodeURIComponent(ticket).replace(/[()]/g, (char) => `%${char.charCodeAt(0).toString(16)}`);
  return [shown, [...protocols, JUPYTER, `${JUPYTER}.${encoded}`]];
}

/** A session that can have no more tickets just now lives; and where the route is not there, the socket has to tell. */
function orSocketTells(error: TicketError): string {
  const { status } = error;
  if (status === 0 || status === 401 || status === 403 || status >= 500) throw error;
  return '';
}

/** Where to log in and come back here: beside the ticket route, unless that names another place of its own origin. */
function loginHere(path: unknown, base: string): string {
  const beside = new URL('login', base);
  const named = typeof path === 'string' && URL.canParse(path, base) ? new URL(path, base) : beside;
  // Pages make a link of it: it is to run no script, and to tell nobody else where they are.
  const url = named.origin === beside.origin ? named : beside;
  url.searchParams.set('return', location.pathname + location.search + location.hash);
  return url.href;
}

/** Whether a server is there. That of the page is: it has just answered. */
async function answers(url: URL, signal: AbortSignal): Promise<boolean> {
  if (url.origin === location.origin) return true;
  const asked = fetch(url, { method: 'HEAD', mode: 'no-cors', credentials: 'omit', cache: 'no-store', signal });
  return asked.then(
    () => true,
    () => false,
  );
}

/** Spends the ticket in a hidden frame, so that the browser keeps a cookie which opens sockets of that origin. */
async function allowSockets(origin: string, ticket: string, signal: AbortSignal): Promise<void> {
  const frame = document.createElement('iframe');
  frame.hidden = true;
  frame.src = `${origin}/webauth/frame`;
  const stop = new AbortController();
  try {
    const { ok, code, message } = await new Promise<Answer>((resolve, reject) => {
      const hear = ({ source, origin: from, data }: MessageEvent) => {
        if (source !== frame.contentWindow || from !== origin) return;
        if (data?.ready) frame.contentWindow?.postMessage({ ticket }, origin);
        else resolve(data);
      };
      addEventListener('message', hear, { signal: stop.signal });
      signal.addEventListener('abort', reject, { signal: stop.signal });
      document.body.append(frame);
    });
    if (!ok) throw new TicketError(message, isFinal.test(code) ? 403 : 0, code);
  } finally {
    stop.abort();
    frame.remove();
  }
}

/** What the frame says in the end. */
interface Answer {
  readonly ok: boolean;
  readonly code: string;
  readonly message: string;
}

const isFinal = /_REFUSED$|^ERR_COOKIES_BLOCKED$/;
