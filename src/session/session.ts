import { randomBytes } from 'node:crypto';
import { SessionError } from '../errors.js';
import { OwnAuth } from './own-auth.js';
import type { Sealer } from './seal.js';

/** What a session cookie carries. Instants are milliseconds since 1970. */
export interface Session {
  /** A random handle; with it alone, nothing can be opened. */
  readonly id: string;
  readonly principal: string;
  readonly ptags: readonly string[];
  readonly auth: string;
  readonly sso: readonly string[];
  /** Name of the login service. */
  readonly wls: string;
  /** Its login's number: larger than those of all logins before. */
  readonly login: number;
  /** When the login service made the response. */
  readonly issue: number;
  readonly loggedIn: number;
  /** When it was last used, to half of the idle time. */
  readonly lastSeen: number;
  /** When it ends however it is used, and why, as was settled at the login. */
  readonly expires: number;
  readonly because: EndsBecause;
  /** The mark of the store that knows of the session. */
  readonly mark: string;
  /** Hash of the browser's anchor; empty where others cannot plant the session cookie itself. */
  readonly anchor: string;
}

/**
 * Why a session ends when it does: its longest life here, the life of the user's session at the login service, or that
 * it was not used for so long. A token ends with its `ttl`.
 */
export type EndsBecause = 'maxLife' | 'life' | 'inactiveTimeout' | 'ttl';

/** Durations are seconds. */
export interface Lifetimes {
  readonly maxLife: number;
  readonly useWlsLife: boolean;
  readonly inactiveTimeout: number | undefined;
}

/** Who is logged in. */
export interface Auth {
  readonly principal: string;
  readonly ptags: readonly string[];
  /** Name of the login service that says so: the same principal of another one is another person. */
  readonly wls: string;
  /** Names the session in logs and tables. It is neither a credential nor the handle in the list of sessions. */
  readonly sessionId: string;
  /** The kind of credential that was shown. */
  readonly via: 'cookie' | 'ticket' | 'token';
  /** What a token is good for; sessions are good for everything, and have none. */
  readonly scopes?: readonly string[];
  readonly loggedInAt: Date;
  /** Larger than the number of every login before; infinite for a token, which no login made. */
  readonly login: number;
  /** Names the sessions that end together with this one when the browser logs out; empty where it is alone. */
  readonly group: string;
  /** When it ends, unless it is used before. */
  readonly expires: Date;
  readonly expiresBecause: EndsBecause;
  /** How the user authenticated for this login; empty if the login service relied on `sso`. */
  readonly auth: string;
  readonly sso: readonly string[];
  /** When the user authenticated for this login, if they did and the login service did not rely on `sso`. */
  readonly interactiveAt: Date | undefined;
  /**
   * Of an open socket: lets it go on by a ticket of the same person, of whichever session; all else here changes with it.
   * @throws WebauthError if the ticket is not good for that; the socket goes on as it was.
   */
  readonly renew?: (ticket: string) => Promise<void>;
}

/** What the application is told of a session, by the lifetimes as they are configured now. */
export function describe(session: Session, lifetimes: Lifetimes, via: Auth['via'] = 'cookie'): Auth {
  const { principal, ptags, wls, id, login, issue, loggedIn, auth, sso, anchor, mark } = session;
  // Not spread into it: an object that is made by spreading takes more room.
  const { expires, expiresBecause } = earliestEnd(session, lifetimes);
  return new OwnAuth({
    mark,
    principal,
    ptags,
    wls,
    sessionId: id,
    via,
    loggedInAt: new Date(loggedIn),
    login,
    group: anchor,
    expires,
    expiresBecause,
    auth,
    sso,
    interactiveAt: auth === '' ? undefined : new Date(issue),
  });
}

/** A shorter life than at the login holds at once. A longer one does not revive what was forgotten as over. */
export function earliestEnd(
  { issue, expires, because, lastSeen }: Session,
  { maxLife, inactiveTimeout }: Lifetimes,
): Pick<Auth, 'expires' | 'expiresBecause'> {
  const longest = issue + maxLife * 1000;
  const idle = inactiveTimeout === undefined ? Number.POSITIVE_INFINITY : lastSeen + inactiveTimeout * 1000;
  if (idle < expires && idle < longest) return { expires: new Date(idle), expiresBecause: 'inactiveTimeout' };
  if (longest < expires) return { expires: new Date(longest), expiresBecause: 'maxLife' };
  return { expires: new Date(expires), expiresBecause: because };
}

/**
 * Whether the cookie is to say anew when it was last used: at half of the idle time, so that most requests set none. And
 * where it was used in the future, for then the clock was put back.
 */
export function isRenewable({ lastSeen }: Session, { inactiveTimeout }: Lifetimes, now: number): boolean {
  return inactiveTimeout !== undefined && Math.abs(now - lastSeen) >= inactiveTimeout * 500;
}

export function newSessionId(): string {
  return randomBytes(16).toString('base64url');
}

/** The earliest end, and what sets it. @param life seconds from `issue`, if the login service said. */
export function sessionEnd(
  issue: number,
  life: number | undefined,
  { maxLife, useWlsLife }: Omit<Lifetimes, 'inactiveTimeout'>,
): Pick<Session, 'expires' | 'because'> {
  if (useWlsLife && life !== undefined && life < maxLife) return { expires: issue + life * 1000, because: 'life' };
  return { expires: issue + maxLife * 1000, because: 'maxLife' };
}

export function sealSession(sealer: Sealer, session: Session): string {
  return sealer.seal(packSession(session));
}

/** @throws SessionError ERR_SESSION_INVALID for what we did not make, or with a secret that we do not have. */
export function openSession(sealer: Sealer, sealed: string): Session {
  const opened = sealer.open(sealed);
  if (opened === 'invalid') throw notOurs('is not one that was made here', 'broken');
  if (opened === 'unknown') {
    throw notOurs(
      'was not made here: the secret or baseUrl is another, or another application on this host uses its name too',
      'foreign',
    );
  }
  return unpackSession(opened.text);
}

export function packSession(session: Session): string {
  const { id, principal, ptags, auth, sso, wls, login, issue, loggedIn, lastSeen, expires, because, mark, anchor } =
    session;
  const times = [issue, loggedIn - issue, lastSeen - issue, expires - issue];
  return JSON.stringify([id, principal, ptags, auth, sso, wls, login, ...times, because, mark, anchor]);
}

/** Only of what was sealed by us, and so has this form. */
export function unpackSession(packed: string): Session {
  const [id, principal, ptags, auth, sso, wls, login, issue, loggedIn, lastSeen, expires, because, mark, anchor] =
    JSON.parse(packed);
  const times = { issue, loggedIn: issue + loggedIn, lastSeen: issue + lastSeen, expires: issue + expires };
  // It may be kept, and the application is given them.
  for (const list of [ptags, sso]) Object.freeze(list);
  return { id, principal, ptags, auth, sso, wls, login, ...times, because, mark, anchor };
}

function notOurs(what: string, cookie: SessionError['cookie']): SessionError {
  const error = new SessionError('ERR_SESSION_INVALID', `the session cookie ${what}`);
  error.cookie = cookie;
  return error;
}
