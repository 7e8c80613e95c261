import type { IncomingMessage } from 'node:http';
import { isLoopback, logsToConsole } from '../environment.js';
import { AuthorisationError, type Handshake, SessionError, WebauthError } from '../errors.js';
import { authorizationLines, checkOrigin, isForeignRead, withOwn } from '../http.js';
import type { Auth } from '../session/session.js';
import type { Requirements, WAA } from '../waa.js';
import {
  type Credential,
  type Method,
  methods,
  type Shown,
  type Taken as TakenCredentials,
  type TakeTicket,
  takeOut,
  withholdTokenProtocol,
} from './credentials.js';
import type { SocketFrame } from './frame.js';
import { type Deflate, findHandshakeError } from './handshake-grammar.js';
import { checkConnected } from './sockets.js';

type Authorise = (auth: Auth, request: IncomingMessage) => boolean | Promise<boolean>;

/** Who may open a socket, and how they show who they are. */
export interface UpgradeOptions extends Requirements {
  /** What is taken to show who somebody is: `['cookie']`, by default. */
  readonly credentials?: readonly Credential[];
  /** Origins of pages that may open sockets, beside the application's own: as browsers write them, `https://host`. */
  readonly origins?: readonly string[];
  /** Whose WebSocket-only cookies are taken beside session cookies, and whose pages may open sockets. */
  readonly frame?: SocketFrame;
  /** The application's own word on somebody who may enter by all else: only `true` lets them in. */
  readonly authorise?: Authorise;
  /** How long a handshake may take, from its arrival to the end of the decision: seconds, 10 by default. */
  readonly deadline?: number;
  /**
   * Whether a proxy on another machine ends TLS: false. Without it, connections that came from another machine have to
   * be encrypted, outside of development.
   */
  readonly behindProxy?: boolean;
}

/** Credentials that were taken out of a request, and the error of its form. */
export interface Taken extends TakenCredentials {
  /** Error of a malformed WebSocket handshake. */
  readonly malformed: WebauthError | undefined;
}

/** Options of a WebSocket server that decide which handshakes it accepts. They are read at each handshake. */
export interface ServerOptions {
  readonly perMessageDeflate?: Deflate | undefined;
}

/** One way of showing who one is, and how it is refused. */
interface Way {
  readonly method: Method;
  readonly handshake: Handshake;
}

/** Whose socket it is to be, and how they showed it. */
interface Found {
  readonly way: Way;
  readonly auth: Auth | Promise<Auth>;
}

/** The decision at the handshake: Origin, credential, authorisation. It knows nothing of sockets. */
export class Gate {
  /** How long a handshake may take: seconds. */
  readonly deadline: number;
  readonly #waa: WAA;
  readonly #options: UpgradeOptions;
  readonly #server: ServerOptions | undefined;
  readonly #origins: ReadonlySet<string>;
  readonly #ways: readonly Way[];
  readonly #takesTickets: boolean;
  readonly #readsAuthorization: boolean;
  /** Of who shows nothing at all. */
  readonly #nothing: Handshake;

  /** @param server options of the WebSocket server, where it is known. */
  constructor(waa: WAA, options: UpgradeOptions, server?: ServerOptions) {
    this.#server = server;
    const { credentials = ['cookie'], origins = [], frame } = options;
    this.#waa = waa;
    this.#options = options;
    this.deadline = options.deadline ?? 10;
    this.#origins = withOwn(waa.origins, [...origins, ...(frame?.pages ?? [])]);
    const used = methods.filter(({ name }) => credentials.includes(name));
    this.#ways = used.map((method) => {
      const challenges = method.challenge ? [method.challenge(waa.origin)] : [];
      return { method, handshake: { challenges, always: method.name === 'subprotocol' } };
    });
    this.#takesTickets = credentials.includes('query');
    this.#readsAuthorization = credentials.includes('bearer') || credentials.includes('basic');
    const challenges = used.flatMap(({ invitation }) => invitation?.(waa.origin) ?? []);
    // Where nothing but HTTP's own schemes is taken: browsers send a password only to who has asked for it by HTTP.
    this.#nothing = { challenges, always: used.every(({ invitation }) => invitation !== undefined) };
  }

  /**
   * Takes credentials out of a request, so that neither the application nor a log has them. Checks the form of a
   * WebSocket handshake before it does.
   * @param isHandshake whether the request is a WebSocket handshake; a polling request of Socket.IO is none.
   */
  conceal(request: IncomingMessage, isHandshake = true): Taken {
    const malformed = isHandshake ? findHandshakeError(request, this.#deflate) : undefined;
    const { tickets, tokens } = takeOut(request, this.#takesTickets);
    return { tickets, tokens, malformed };
  }

  get #deflate(): Deflate {
    return this.#server === undefined ? true : (this.#server.perMessageDeflate ?? false);
  }

  /**
   * Whose socket it is to be, if they may have it. Not a promise where nobody has to be asked.
   * @param taken what was concealed of the request.
   * @param take what is done with a ticket: it is used up, by default.
   * @throws WebauthError, reported already.
   */
  decide(request: IncomingMessage, taken: Taken, take: TakeTicket = this.#take): Auth | Promise<Auth> {
    let found: Found | undefined;
    try {
      this.#checkRequest(request, taken);
      found = this.#find(request, taken, take);
      if (found.auth instanceof Promise || this.#options.authorise) return this.#decideLater(found, request);
      return this.#admit(found.auth, request);
    } catch (error) {
      throw this.#refuse(error, found?.way);
    }
  }

  /**
   * Holds a later request of a connection to what the first one was let in by: the same session.
   * @param auth whose connection it is.
   * @throws WebauthError, reported already.
   */
  async decideAgain(request: IncomingMessage, taken: Taken, auth: Auth, take: TakeTicket): Promise<void> {
    let found: Found | undefined;
    try {
      this.#checkRequest(request, taken);
      found = this.#find(request, taken, take);
      const shown = await found.auth;
      if (shown.sessionId !== auth.sessionId) {
        throw new SessionError('ERR_SESSION_INVALID', 'the connection is one of another session');
      }
    } catch (error) {
      throw this.#refuse(error, found?.way);
    }
  }

  /** Holds to the rules a handshake whose ticket comes later. @throws WebauthError, reported already. */
  expect(request: IncomingMessage, taken: Taken): void {
    withholdTokenProtocol(request);
    try {
      this.#checkRequest(request, taken);
    } catch (error) {
      throw this.#refuse(error);
    }
  }

  /** Whose ticket it is that came later, if they may have the socket. @throws WebauthError, reported already. */
  async decideMessage(ticket: string | Promise<string>, request: IncomingMessage): Promise<Auth> {
    try {
      const text = await ticket;
      checkConnected(request);
      return await this.#admitLater(await this.#take(text), request);
    } catch (error) {
      throw this.#refuse(error);
    }
  }

  /** Waits for work as long as a handshake may take. @throws SessionError ERR_DEADLINE, reported already. */
  async withinDeadline<T>(work: Promise<T>): Promise<T> {
    const { deadline } = this;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(this.report(tooLate(deadline))), deadline * 1000);
    });
    return Promise.race([work, late]).finally(() => clearTimeout(timer));
  }

  /** Reports a refusal: quietly, since anybody can cause them, but for what the application's own set-up causes. */
  report<E extends WebauthError>(error: E, auth?: Auth): E {
    const isConfiguration = error.code === 'ERR_PLAIN_REFUSED' || this.#isNewOrigin(error);
    this.#waa.refused(error, auth, isConfiguration ? 'warn' : 'debug');
    return error;
  }

  /** Whether to warn a developer of a rejected Origin: of each once. A proxy in development may change it. */
  #isNewOrigin({ code, message }: WebauthError): boolean {
    if (code !== 'ERR_ORIGIN_REFUSED' || !logsToConsole()) return false;
    if (warnedOf.size >= MAX_WARNINGS || warnedOf.has(message)) return false;
    warnedOf.add(message);
    return true;
  }

  /** Reports what a check refuses to somebody. */
  reporting(auth: Auth, check: () => void): void {
    try {
      check();
    } catch (error) {
      throw this.report(error as WebauthError, auth);
    }
  }

  #checkRequest(request: IncomingMessage, { malformed }: Taken): void {
    checkConnected(request);
    if (malformed) throw malformed;
    if (!this.#options.behindProxy && !this.#waa.isDevelopment && !isPrivate(request)) {
      throw new AuthorisationError(
        'ERR_PLAIN_REFUSED',
        'the connection is not encrypted: use wss; or, if a proxy on another machine ends TLS, set behindProxy: true',
      );
    }
    // Programs need not send one; browsers do, but for what a page reads otherwise, such as a script.
    if (request.headers.origin !== undefined || isForeignRead(request)) checkOrigin(request, this.#origins);
  }

  readonly #take: TakeTicket = (ticket) => this.#waa.takeTicket(ticket);

  #find(request: IncomingMessage, taken: Taken, take: TakeTicket): Found {
    if (this.#readsAuthorization && authorizationLines(request).length > 1) {
      throw refusedAs(this.#nothing, 'ERR_TOKEN_INVALID', 'the request has more than one Authorization');
    }
    const shown = { waa: this.#waa, request, taken, frame: this.#options.frame, take };
    for (const way of this.#ways) {
      const auth = this.#open(way, shown);
      if (auth === undefined) continue;
      if (way.method.name !== 'subprotocol') withholdTokenProtocol(request);
      return { way, auth };
    }
    const names = this.#ways
      .map(({ method }) => (method.name === 'query' ? 'query (?ticket=…)' : method.name))
      .join(', ');
    throw refusedAs(this.#nothing, 'ERR_SESSION_MISSING', `no credential; this endpoint accepts: ${names}`);
  }

  #open({ method, handshake }: Way, shown: Shown): Auth | Promise<Auth> | undefined {
    try {
      return method.open(shown);
    } catch (error) {
      if (error instanceof WebauthError) error.handshake = handshake;
      throw error;
    }
  }

  async #decideLater({ way, auth }: Found, request: IncomingMessage): Promise<Auth> {
    try {
      return await this.#admitLater(await auth, request);
    } catch (error) {
      throw this.#refuse(error, way);
    }
  }

  /** Authorizes the owner of a ticket. The client may have disconnected while the ticket was redeemed. */
  #admitLater(auth: Auth, request: IncomingMessage): Auth | Promise<Auth> {
    checkConnected(request);
    return this.#admit(auth, request);
  }

  #admit(auth: Auth, request: IncomingMessage): Auth | Promise<Auth> {
    const { authorise } = this.#options;
    try {
      this.#waa.authorise(auth, this.#options);
    } catch (error) {
      throw refusedTo(auth, error);
    }
    return authorise ? this.#ask(authorise, auth, request) : auth;
  }

  async #ask(authorise: Authorise, auth: Auth, request: IncomingMessage): Promise<Auth> {
    try {
      const says: unknown = await authorise(auth, request);
      // The session may have ended meanwhile.
      this.#waa.recheck(auth);
      checkConnected(request);
      if (says === true) return auth;
      if (says !== false) this.#waa.log('error', 'refused', 'authorise() said neither true nor false');
      throw new AuthorisationError('ERR_PRINCIPAL_REFUSED', `the application does not let ${auth.principal} in here`);
    } catch (error) {
      throw refusedTo(auth, error);
    }
  }

  #refuse(error: unknown, way?: Way): unknown {
    if (!(error instanceof WebauthError)) {
      this.#waa.log('error', 'refused', `a handshake could not be decided: ${(error as Error | undefined)?.message}`);
      return error;
    }
    if (way) error.handshake ??= way.handshake;
    return this.report(error, whose.get(error));
  }
}

/** Most warnings of rejected Origins in a process. */
const MAX_WARNINGS = 20;
const warnedOf = new Set<string>();

/** Of somebody who is known, and may not enter. */
const whose = new WeakMap<WebauthError, Auth>();

function refusedTo(auth: Auth, error: unknown): unknown {
  if (error instanceof WebauthError) whose.set(error, auth);
  return error;
}

/** Encrypted, or from this very machine, where a proxy may end TLS. */
function isPrivate({ socket }: IncomingMessage): boolean {
  if ((socket as { encrypted?: boolean }).encrypted) return true;
  const { localAddress } = socket;
  // A socket of the file system has no address.
  return localAddress === undefined || isLoopback(localAddress.replace(/^::ffff:/, ''));
}

export function tooLate(deadline: number): SessionError {
  return new SessionError('ERR_DEADLINE', `it took over ${deadline} s to find out whose socket this is to be`);
}

function refusedAs(handshake: Handshake, code: 'ERR_TOKEN_INVALID' | 'ERR_SESSION_MISSING', message: string) {
  return Object.assign(new SessionError(code, message), { handshake });
}
