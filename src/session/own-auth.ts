import type { Auth, EndsBecause } from './session.js';

/** Public fields of an `Auth`, and the store generation that its session or token belongs to. */
type Fields = Omit<Auth, 'renew'> & { readonly mark: string };

/**
 * An `Auth` that this package made. A copy of it (JSON, spread, `structuredClone`) has the public fields but not the
 * private one, so it can be told apart: a copy misses what later renews or replaces the original.
 */
export class OwnAuth implements Auth {
  readonly principal: string;
  readonly ptags: readonly string[];
  readonly wls: string;
  readonly sessionId: string;
  readonly via: Auth['via'];
  declare readonly scopes?: readonly string[];
  readonly loggedInAt: Date;
  readonly login: number;
  readonly group: string;
  readonly expires: Date;
  readonly expiresBecause: EndsBecause;
  readonly auth: string;
  readonly sso: readonly string[];
  readonly interactiveAt: Date | undefined;
  #mark: string;

  constructor(fields: Fields) {
    this.principal = fields.principal;
    this.ptags = fields.ptags;
    this.wls = fields.wls;
    this.sessionId = fields.sessionId;
    this.via = fields.via;
    if (fields.scopes) this.scopes = fields.scopes;
    this.loggedInAt = fields.loggedInAt;
    this.login = fields.login;
    this.group = fields.group;
    this.expires = fields.expires;
    this.expiresBecause = fields.expiresBecause;
    this.auth = fields.auth;
    this.sso = fields.sso;
    this.interactiveAt = fields.interactiveAt;
    this.#mark = fields.mark;
  }

  /** Returns the store generation of an `Auth`; `undefined` if this package did not make it. */
  static markOf(auth: unknown): string | undefined {
    return isOwn(auth) ? auth.#mark : undefined;
  }

  /** Replaces all that `auth` says by what `fresh` says. Both have to be of this package. */
  static replace(auth: Auth, fresh: Auth): void {
    // Only a token has scopes.
    Object.assign(auth, { scopes: undefined }, fresh);
    if (#mark in auth && #mark in fresh) auth.#mark = fresh.#mark;
  }

  static isOwn(auth: unknown): auth is OwnAuth {
    return typeof auth === 'object' && auth !== null && #mark in auth;
  }
}

const { isOwn } = OwnAuth;

/**
 * @param method name of the called method, for the message.
 * @throws TypeError unless this package made the object.
 */
export function checkOwnAuth(method: string, auth: unknown): void {
  if (isOwn(auth)) return;
  throw new TypeError(
    `${method} takes the Auth object that a guard, an open socket or takeTicket() gave: not a copy of it (JSON, spread, structuredClone), nor a promise of it (a missing await). ${adviceFor(method, auth)}`,
  );
}

/** Returns what to do without the object. */
function adviceFor(method: string, auth: unknown): string {
  if (method === 'watch()') return 'Call it where that object is at hand: request.auth of a handler or a socket.';
  if (viaOf(auth) === 'token') {
    return 'To revoke an API token without that object, call waa.tokens.revoke(principal, handle) with a handle of waa.tokens.list().';
  }
  return 'To revoke a session without that object, call waa.sessions.revoke(principal, handle) with a handle of waa.sessions.list(), which needs listSessions: true, or waa.endSessions(principal).';
}

/** Returns the kind of credential that a copy names, if it can be read: a Proxy may throw. */
function viaOf(auth: unknown): unknown {
  try {
    return (auth as Partial<Auth> | null | undefined)?.via;
  } catch {
    return undefined;
  }
}
