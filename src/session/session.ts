import { randomBytes } from 'node:crypto';
import { SessionError } from '../errors.js';
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
  /** When it ends, and why, as was settled at the login. */
  readonly expires: number;
  readonly because: EndsBecause;
  /** The mark of the store that knows of the session. */
  readonly mark: string;
  /** Hash of the browser's anchor; empty where others cannot plant the session cookie itself. */
  readonly anchor: string;
}

/** Why a session ends when it does: its longest life here, or the life of the user's session at the login service. */
export type EndsBecause = 'maxLife' | 'life';

export interface Lifetimes {
  /** Seconds. */
  readonly maxLife: number;
  readonly useWlsLife: boolean;
}

/** Who is logged in. */
export interface Auth {
  readonly principal: string;
  readonly ptags: readonly string[];
  /** Name of the login service that says so: the same principal of another one is another person. */
  readonly wls: string;
  /** Names the session in logs and tables. It is not a credential. */
  readonly sessionId: string;
  /** The kind of credential that was shown. */
  readonly via: 'cookie' | 'ticket';
  readonly loggedInAt: Date;
  /** Larger than the number of every login before. */
  readonly login: number;
  readonly expires: Date;
  readonly expiresBecause: EndsBecause;
  /** How the user authenticated for this login; empty if the login service relied on `sso`. */
  readonly auth: string;
  readonly sso: readonly string[];
  /** When the user authenticated for this login, if they did and the login service did not rely on `sso`. */
  readonly interactiveAt: Date | undefined;
}

/** What the application is told of a session. @param maxLife seconds, as configured now. */
export function describe(session: Session, maxLife: number, via: Auth['via'] = 'cookie'): Auth {
  const { principal, ptags, wls, id, login, issue, loggedIn, auth, sso, expires, because } = session;
  // A shorter life than at the login holds at once. A longer one does not revive what was forgotten as over.
  const longest = issue + maxLife * 1000;
  const shortened = longest < expires;
  return {
    principal,
    ptags,
    wls,
    sessionId: id,
    via,
    loggedInAt: new Date(loggedIn),
    login,
    expires: new Date(shortened ? longest : expires),
    expiresBecause: shortened ? 'maxLife' : because,
    auth,
    sso,
    interactiveAt: auth === '' ? undefined : new Date(issue),
  };
}

export function newSessionId(): string {
  return randomBytes(16).toString('base64url');
}

/** The earliest end, and what sets it. @param life seconds from `issue`, if the login service said. */
export function sessionEnd(
  issue: number,
  life: number | undefined,
  { maxLife, useWlsLife }: Lifetimes,
): Pick<Session, 'expires' | 'because'> {
  if (useWlsLife && life !== undefined && life < maxLife) return { expires: issue + life * 1000, because: 'life' };
  return { expires: issue + maxLife * 1000, because: 'maxLife' };
}

export function sealSession(sealer: Sealer, session: Session): string {
  const { id, principal, ptags, auth, sso, wls, login, issue, loggedIn, expires, because, mark, anchor } = session;
  const values = [id, principal, ptags, auth, sso, wls, login, issue, loggedIn, expires, because, mark, anchor];
  return sealer.seal(JSON.stringify(values));
}

/** @throws SessionError ERR_SESSION_INVALID for what we did not make; ERR_SESSION_MISSING for a secret we do not have. */
export function openSession(sealer: Sealer, sealed: string): Session {
  const opened = sealer.open(sealed);
  if (opened === 'invalid') throw new SessionError('ERR_SESSION_INVALID', 'the session cookie is not one of ours');
  if (opened === 'unknown') {
    throw new SessionError(
      'ERR_SESSION_MISSING',
      'the session cookie was not made here: another application on this host uses its name too, or the secret changed',
    );
  }
  // Whatever opens was sealed by us, so it has this form.
  const [id, principal, ptags, auth, sso, wls, login, issue, loggedIn, expires, because, mark, anchor] = JSON.parse(
    opened.text,
  );
  return { id, principal, ptags, auth, sso, wls, login, issue, loggedIn, expires, because, mark, anchor };
}
