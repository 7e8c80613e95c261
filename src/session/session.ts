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
  /** When the login service made the response. */
  readonly issue: number;
  readonly loggedIn: number;
  /** When the user's session at the login service ends, if it said. */
  readonly lifeEnds: number | null;
  /** The mark of the store that knows of the session. */
  readonly mark: string;
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
  /** Names the session in logs and tables. It is not a credential. */
  readonly sessionId: string;
  /** The kind of credential that was shown. */
  readonly via: 'cookie';
  readonly loggedInAt: Date;
  readonly expires: Date;
  readonly expiresBecause: EndsBecause;
  /** How the user authenticated for this login; empty if the login service relied on `sso`. */
  readonly auth: string;
  readonly sso: readonly string[];
}

/** What the application is told of a session. */
export function describe(session: Session, lifetimes: Lifetimes): Auth {
  const { principal, ptags, id, loggedIn, auth, sso } = session;
  const { at, because } = sessionEnd(session, lifetimes);
  return {
    principal,
    ptags,
    sessionId: id,
    via: 'cookie',
    loggedInAt: new Date(loggedIn),
    expires: new Date(at),
    expiresBecause: because,
    auth,
    sso,
  };
}

export function newSessionId(): string {
  return randomBytes(16).toString('base64url');
}

/** The earliest end, in milliseconds, and what sets it. */
export function sessionEnd(session: Session, { maxLife, useWlsLife }: Lifetimes): { at: number; because: EndsBecause } {
  const longest = session.issue + maxLife * 1000;
  if (useWlsLife && session.lifeEnds !== null && session.lifeEnds < longest) {
    return { at: session.lifeEnds, because: 'life' };
  }
  return { at: longest, because: 'maxLife' };
}

export function sealSession(sealer: Sealer, session: Session): string {
  const { id, principal, ptags, auth, sso, wls, issue, loggedIn, lifeEnds, mark } = session;
  return sealer.seal(JSON.stringify([id, principal, ptags, auth, sso, wls, issue, loggedIn, lifeEnds, mark]));
}

/** @throws SessionError ERR_SESSION_INVALID for what we did not make; ERR_SESSION_MISSING for a secret we do not have. */
export function openSession(sealer: Sealer, sealed: string): Session {
  const opened = sealer.open(sealed);
  if (opened === 'invalid') throw new SessionError('ERR_SESSION_INVALID', 'the session cookie is not one of ours');
  if (opened === 'unknown') {
    throw new SessionError('ERR_SESSION_MISSING', 'the session was sealed with a secret that is not in use here');
  }
  // Whatever opens was sealed by us, so it has this form.
  const [id, principal, ptags, auth, sso, wls, issue, loggedIn, lifeEnds, mark] = JSON.parse(opened.text);
  return { id, principal, ptags, auth, sso, wls, issue, loggedIn, lifeEnds, mark };
}
