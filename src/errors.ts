/** What one error code means outside the process. */
interface Row {
  readonly class: 'ResponseError' | 'VerificationError' | 'StatusError' | 'SessionError' | 'AuthorisationError';
  /** HTTP status of the answer. */
  readonly status: number;
  /** WebSocket close code. */
  readonly close: number;
  /** Exit status of the command line. */
  readonly exit: number;
}

const response = { class: 'ResponseError', status: 400, close: 4400, exit: 2 } as const;
const verification = { class: 'VerificationError', status: 400, close: 4400, exit: 3 } as const;
const status = { class: 'StatusError', status: 401, close: 4401, exit: 4 } as const;
const session = { class: 'SessionError', status: 401, close: 4401, exit: 5 } as const;
const authorisation = { class: 'AuthorisationError', status: 403, close: 4403, exit: 6 } as const;

/** Every code of this library: its class, HTTP status, WebSocket close code and exit status. */
export const errorTable = {
  ERR_RESPONSE_MALFORMED: response,
  ERR_RESPONSE_VERSION: response,
  ERR_RESPONSE_DUPLICATED: response,

  ERR_KEY_UNKNOWN: verification,
  ERR_SIGNATURE_MISSING: verification,
  ERR_SIGNATURE_INVALID: verification,
  ERR_URL_MISMATCH: verification,
  ERR_PARAMS_MISMATCH: verification,
  ERR_ISSUE_STALE: verification,
  ERR_ISSUE_FUTURE: verification,
  ERR_AUTH_UNACCEPTABLE: verification,
  ERR_IACT_UNSATISFIED: verification,
  ERR_RESPONSE_REPLAYED: verification,
  ERR_COOKIES_BLOCKED: verification,
  ERR_PATH_MISMATCH: verification,

  ERR_WLS_CANCELLED: status,
  ERR_WLS_NO_ATYPES: status,
  ERR_WLS_VERSION: status,
  ERR_WLS_REQUEST: status,
  ERR_WLS_INTERACTION: status,
  ERR_WLS_UNAUTHORISED: status,
  ERR_WLS_DECLINED: status,

  ERR_SESSION_MISSING: session,
  ERR_SESSION_INVALID: session,
  ERR_SESSION_EXPIRED: session,
  ERR_SESSION_IDLE: session,
  ERR_SESSION_REVOKED: session,
  ERR_STEP_UP_REQUIRED: session,
  ERR_TOKEN_INVALID: session,
  ERR_DEADLINE: { ...session, status: 408, close: 4408 },
  ERR_LIMIT_REACHED: { ...session, status: 429, close: 4429 },
  ERR_STORE_UNAVAILABLE: { ...session, status: 503, close: 1013 },
  ERR_LOGOUT_INCOMPLETE: { ...session, status: 503, close: 1013 },
  ERR_SOCKET_CLOSED: session,
  ERR_HANDSHAKE_INVALID: { ...session, status: 400, close: 4400 },
  ERR_HANDSHAKE_METHOD: { ...session, status: 405, close: 4400 },
  ERR_HANDSHAKE_VERSION: { ...session, status: 426, close: 4400 },

  ERR_PRINCIPAL_REFUSED: authorisation,
  ERR_PTAGS_REFUSED: authorisation,
  ERR_SCOPE_REFUSED: authorisation,
  ERR_ORIGIN_REFUSED: authorisation,
  ERR_PLAIN_REFUSED: authorisation,
  ERR_NAVIGATION_REQUIRED: authorisation,
  ERR_PREFETCH_REFUSED: { ...authorisation, status: 503, close: 1013 },
} as const satisfies Record<string, Row>;

/** Longest message: characters. */
const MAX_MESSAGE = 1000;
const unprintable = /[\p{Cc}\u2028\u2029]/gu;

/**
 * Returns a message as one line of bounded length. Some of it may come from a request or from a login service, whose
 * control characters would forge lines of a log (CWE-117).
 */
export function singleLine(message: string): string {
  const short = message.length > MAX_MESSAGE ? `${message.slice(0, MAX_MESSAGE)}…` : message;
  return short.replace(unprintable, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** A stable name for what went wrong. */
export type ErrorCode = keyof typeof errorTable;

type CodeOf<C extends Row['class']> = {
  [K in ErrorCode]: (typeof errorTable)[K]['class'] extends C ? K : never;
}[ErrorCode];

/** How a WebSocket handshake is refused. */
export interface Handshake {
  /** What `WWW-Authenticate` says: 401 takes at least one, and without any is answered as 403. */
  readonly challenges: readonly string[];
  /** Whether the answer is one of HTTP in any case: nobody is to take the socket for accepted, not even for a moment. */
  readonly always: boolean;
}

/**
 * Lets `instanceof` recognize instances that another copy of this package made: workspaces, test runners and bundles load
 * several. Data from outside carries no symbol, and an error grants nothing.
 */
function recognizeAcrossCopies(errorClass: { readonly prototype: object }, name: string): void {
  const brand = Symbol.for(`ucam-webauth.${name}`);
  Object.defineProperty(errorClass.prototype, brand, { value: true });
  Object.defineProperty(errorClass, Symbol.hasInstance, {
    value(this: object, value: unknown): boolean {
      // A class that extends this one inherits the method, and has no brand of its own.
      if (this !== errorClass) return Function.prototype[Symbol.hasInstance].call(this, value);
      return typeof value === 'object' && value !== null && brand in value;
    },
  });
}

/** What every error of this library has. Its message holds no secret, signature or token, and may be shown. */
export abstract class WebauthError extends Error {
  static {
    recognizeAcrossCopies(WebauthError, 'WebauthError');
  }

  readonly code: ErrorCode;
  /** HTTP status of the answer. */
  readonly status: number;
  /** Equals `status`: NestJS, Fastify and others read this name. */
  readonly statusCode: number;
  /** WebSocket close code. */
  readonly closeCode: number;
  /** The message may be shown to the person; error handlers of Express read this. */
  readonly expose = true;
  /** Where a person can log in (again): a path of this application, where one is known. */
  loginUrl?: string;
  /** How a WebSocket handshake is refused with it, where its status alone does not say. */
  handshake?: Handshake;

  constructor(code: ErrorCode, message: string) {
    if (typeof code !== 'string' || !Object.hasOwn(errorTable, code))
      throw new TypeError('the code of an error is one of the error table');
    if (typeof message !== 'string') throw new TypeError('the message of an error is a text');
    // These errors answer what came in from outside. Their place in the code tells nobody anything, and capturing
    // it would cost more than the refusal does.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(singleLine(message));
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
    this.status = errorTable[code].status;
    this.statusCode = this.status;
    this.closeCode = errorTable[code].close;
    this.name = errorTable[code].class;
  }
}

/** The response does not have the form that the protocol gives it. */
export class ResponseError extends WebauthError {
  static {
    recognizeAcrossCopies(ResponseError, 'ResponseError');
  }

  constructor(code: CodeOf<'ResponseError'>, message: string) {
    super(code, message);
  }
}

/** The response is well formed, and is not an acceptable answer to this login attempt. */
export class VerificationError extends WebauthError {
  static {
    recognizeAcrossCopies(VerificationError, 'VerificationError');
  }

  constructor(code: CodeOf<'VerificationError'>, message: string) {
    super(code, message);
  }
}

/** The login service answered that this attempt did not log in. `R` is the response that said so. */
export class StatusError<R = unknown> extends WebauthError {
  static {
    recognizeAcrossCopies(StatusError, 'StatusError');
  }

  readonly response: R;
  constructor(code: CodeOf<'StatusError'>, message: string, response: R) {
    super(code, message);
    this.response = response;
  }
}

/** There is no session, or it is over. */
export class SessionError extends WebauthError {
  static {
    recognizeAcrossCopies(SessionError, 'SessionError');
  }

  /**
   * Of a session cookie that does not open: nobody's, and so to be cleared, or perhaps another machine's that has a newer
   * secret, and so to be left alone.
   */
  cookie: 'broken' | 'foreign' | undefined;

  constructor(code: CodeOf<'SessionError'>, message: string) {
    super(code, message);
  }
}

/** The person is known, and may not. */
export class AuthorisationError extends WebauthError {
  static {
    recognizeAcrossCopies(AuthorisationError, 'AuthorisationError');
  }

  constructor(code: CodeOf<'AuthorisationError'>, message: string) {
    super(code, message);
  }
}
