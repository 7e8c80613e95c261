import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { Demands } from './demands.js';
import { digest } from './digest.js';
import { VerificationError } from './errors.js';
import type { Sealer } from './session/seal.js';

/** How long a login may take, and so how long its cookie is kept: seconds. */
export const LOGIN_TIME = 30 * 60;

/** What a login was begun for. */
export interface Purpose {
  /** The path to come back to. */
  readonly returnTo: string;
  readonly demands: Demands;
  /** Who has to come back, where somebody is logged in already. */
  readonly principal?: string | undefined;
}

/** What the token in `params` says of the login that it was made for. */
export interface Attempt extends Purpose {
  readonly time: number;
  readonly nonceHash: string;
}

/**
 * Logins that were begun here. Each has a token, which travels in `params` and comes back signed, and belongs to the
 * browser whose login cookie holds the nonce.
 */
export class Attempts {
  readonly #sealer: Sealer;
  readonly #now: () => Date;

  constructor(sealer: Sealer, now: () => Date) {
    this.#sealer = sealer;
    this.#now = now;
  }

  /** @param nonce what the login cookie holds already: tabs share it. */
  begin(
    { returnTo, demands, principal }: Purpose,
    nonce?: string,
  ): { readonly params: string; readonly nonce: string } {
    const kept = keptOrNew(nonce);
    const attempt: Attempt = {
      returnTo,
      demands,
      principal,
      time: this.#now().getTime(),
      nonceHash: digest('login nonce', kept),
    };
    return { params: this.#sealer.seal(JSON.stringify(attempt)), nonce: kept };
  }

  /** @throws VerificationError if the token is not one of ours. */
  open(params: string, nonce: string | undefined): Attempt {
    const opened = this.#sealer.open(params);
    if (typeof opened === 'string') throw nonce === undefined ? cookiesBlocked() : notOurState(opened);
    return JSON.parse(opened.text) as Attempt;
  }

  /** Returns the login that a token was made for; `undefined` if it is not one of ours, or began too long ago. */
  find(params: string): Attempt | undefined {
    const opened = this.#sealer.open(params);
    if (typeof opened === 'string') return undefined;
    const attempt = JSON.parse(opened.text) as Attempt;
    return this.#now().getTime() - attempt.time > LOGIN_TIME * 1000 ? undefined : attempt;
  }

  /**
   * Whether the browser that began it is the one that comes back, in time.
   * @param live whether somebody is logged in there: then another tab may have finished, and used the nonce up.
   */
  checkBrowser({ time, nonceHash }: Attempt, nonce: string | undefined, live: boolean): void {
    if (nonce === undefined && !live) throw cookiesBlocked();
    if (nonce !== undefined && !timingSafeEqual(Buffer.from(digest('login nonce', nonce)), Buffer.from(nonceHash)))
      throw notThisBrowser();
    if (this.#now().getTime() - time > LOGIN_TIME * 1000) throw cookiesBlocked();
  }
}

/** The random value that a cookie holds already, or a new one. */
export function keptOrNew(value: string | undefined): string {
  return value !== undefined && nonceShape.test(value) ? value : randomBytes(16).toString('base64url');
}

export function cookiesBlocked(): VerificationError {
  return new VerificationError(
    'ERR_COOKIES_BLOCKED',
    'the browser did not bring back the cookie of this login: cookies are blocked, or the login was finished in another tab, or it took over half an hour',
  );
}

// 128 bits in base64url.
const nonceShape = /^[\w-]{22}$/;

/** The state was not sealed by a secret that this process has, or not for this application. */
function notOurState(why: 'unknown' | 'invalid'): VerificationError {
  const found =
    why === 'unknown' ? 'it was sealed with another secret, or for another baseUrl' : 'it is not as it was sealed';
  return new VerificationError(
    'ERR_PARAMS_MISMATCH',
    `the response answers no login that was started here: no secret of this process opens its state (${found}). If this happens to everyone, give all processes the same secret and baseUrl, and keep the secret across restarts; otherwise log in again`,
  );
}

/** The state is ours, and names another browser. */
function notThisBrowser(): VerificationError {
  return new VerificationError(
    'ERR_PARAMS_MISMATCH',
    'the response answers a login that another browser started: its state opens, and the login cookie of this browser is another. Log in again in this browser; do not copy or share the address of a login',
  );
}
