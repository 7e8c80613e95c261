import { randomBytes } from 'node:crypto';
import { digest } from '../digest.js';
import { AuthorisationError, SessionError } from '../errors.js';
import { isSeconds, isText, type Rules, required, tags, texts } from '../options.js';
import { type DeskOptions, ownerOf } from './list.js';
import { OwnAuth } from './own-auth.js';
import { Minutely } from './pace.js';
import { Recent } from './recent.js';
import type { Auth } from './session.js';

/** What an API token is made of. */
export interface NewToken {
  /** Who acts by it. */
  readonly principal: string;
  /** What people know it by. */
  readonly name: string;
  /** How long it lasts: seconds, at most those of a year. */
  readonly ttl: number;
  /** What it is good for, where routes ask for scopes: nothing, by default. */
  readonly scopes?: readonly string[];
  /** The principal's ptags, as they are known now: none, by default. They stay as they are. */
  readonly ptags?: readonly string[];
}

/** An API token, as it can be shown. */
export interface Token {
  /** Names the token; not a credential. */
  readonly handle: string;
  readonly principal: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly ptags: readonly string[];
  readonly created: Date;
  readonly expires: Date;
  /** To the minute; undefined if it was never used. */
  readonly lastUsed: Date | undefined;
}

/** What is kept of one. Instants are milliseconds. */
interface Kept extends Omit<Token, 'created' | 'expires' | 'lastUsed'> {
  readonly wls: string;
  readonly created: number;
  readonly expires: number;
  readonly lastUsed: number | undefined;
  /** The store's, when it was made: of another one nobody can say whether the token was revoked. */
  readonly mark: string;
}

export interface TokensOptions extends DeskOptions {
  /** Resolves once the store was heard, or not for some seconds. */
  readonly heard: () => Promise<void>;
}

/** So that those who search for secrets in the wrong places recognise one. */
const PREFIX = 'ucwa_';
/** How often it is written when a token was last used: milliseconds. */
const USED_EVERY = 60_000;
/** How many a person can have. */
const MAX_TOKENS = 1000;

/** API tokens, for programs. The store has their hashes, and what they stand for sealed. */
export class Tokens {
  readonly #options: TokensOptions;
  /** What a token stands behind where its hash is made. */
  readonly #before: string;
  readonly #written = new Minutely();
  /** What some of those in the store stand for, by handle. The store is asked each time all the same. */
  readonly #opened = new Recent<{ readonly sealed: string; readonly kept: Kept }>();

  constructor(options: TokensOptions) {
    this.#options = options;
    this.#before = `${JSON.stringify([options.place]).slice(0, -1)},`;
  }

  /**
   * Makes a token. It is shown this once, and kept nowhere.
   * @param asked passes `newTokenRules`.
   * @throws SessionError ERR_LIMIT_REACHED if the person has too many.
   */
  async create(asked: NewToken): Promise<Token & { readonly token: string }> {
    const { principal, name, ttl, scopes = [], ptags = [] } = asked;
    const { now, wls, store, live, heard, ask } = this.#options;
    await heard();
    const mark = live.mark();
    const token = PREFIX + randomBytes(32).toString('base64url');
    const handle = this.#handle(token);
    const created = now().getTime();
    const expires = created + ttl * 1000;
    const kept = { handle, principal, name, scopes, ptags, wls, created, expires, lastUsed: undefined, mark };
    await ask(async () => {
      await this.#checkCount(principal);
      await this.#keep(kept);
      await store.put(`${this.#folder(principal)}:${handle}`, '', new Date(expires));
    });
    return { ...show(kept), token };
  }

  /** The live tokens of a person, the oldest first. */
  async list(principal: string): Promise<Token[]> {
    const { store, live, wls, now, heard, ask } = this.#options;
    await heard();
    const mark = live.mark();
    const found = await ask(async () => {
      const entries = await store.list(this.#folder(principal));
      return Promise.all(entries.map(({ key }) => this.#read(key.slice(key.lastIndexOf(':') + 1))));
    });
    const time = now().getTime();
    const there = found
      .filter((kept) => kept !== undefined)
      // A writer of the store may have put another user's token there, or an expired one.
      .filter((kept) => kept.principal === principal && kept.wls === wls && kept.expires > time)
      .filter((kept) => kept.mark === mark && !live.isTokenEnded(kept.handle));
    return there.map(show).sort((a, b) => a.created.getTime() - b.created.getTime());
  }

  /** Ends a token everywhere. @returns whether the person has one of that handle. */
  async revoke(principal: string, handle: string): Promise<boolean> {
    const { store, live, wls, ask } = this.#options;
    const token = (await this.list(principal)).find((one) => one.handle === handle);
    if (token === undefined) return false;
    await ask(async () => {
      // First what every process hears of: its last use may be being written just now.
      await live.end({ sessionId: handle, group: '', wls, principal, login: Number.POSITIVE_INFINITY }, token.expires);
      // In the folder it stays: it is remembered, and so it counts.
      await store.delete(`token.${handle}`);
    });
    return true;
  }

  /** Whose token it is. @throws SessionError, or AuthorisationError if that person is blocked. */
  async open(token: string): Promise<Auth> {
    const { live, wls, now, ask } = this.#options;
    live.mark();
    const handle = typeof token === 'string' && tokenShape.test(token) ? this.#handle(token) : '';
    const kept = handle === '' ? undefined : await ask(() => this.#read(handle));
    if (
      kept === undefined ||
      kept.wls !== wls ||
      !live.isOf(kept.mark) ||
      kept.expires <= now().getTime() ||
      live.isTokenEnded(handle)
    ) {
      throw new SessionError('ERR_TOKEN_INVALID', 'this is no token, or it was revoked, or it is over');
    }
    if (live.isBlocked(wls, kept.principal)) throw blocked(kept.principal);
    this.#noteUse(kept);
    return describe(kept);
  }

  /** Also of those that were revoked: each of them has to be remembered until it would have ended. */
  async #checkCount(principal: string): Promise<void> {
    const made = await this.#options.store.list(this.#folder(principal));
    if (made.length < MAX_TOKENS) return;
    throw new SessionError('ERR_LIMIT_REACHED', `this person has had ${MAX_TOKENS} tokens that would not be over yet`);
  }

  /** At most once a minute, and nobody waits for it. */
  #noteUse(kept: Kept): void {
    const now = this.#options.now().getTime();
    if (kept.lastUsed !== undefined && Math.abs(now - kept.lastUsed) < USED_EVERY) return;
    // Of several uses at a time, one is written.
    if (!this.#written.isDue(kept.handle, now)) return;
    this.#options.ask(() => this.#keep({ ...kept, lastUsed: now })).catch(() => {});
  }

  async #keep(kept: Kept): Promise<void> {
    const sealed = this.#options.sealer.seal(JSON.stringify(kept));
    await this.#options.store.put(`token.${kept.handle}`, sealed, new Date(kept.expires));
  }

  async #read(handle: string): Promise<Kept | undefined> {
    const sealed = await this.#options.store.get(`token.${handle}`);
    if (sealed === undefined) return undefined;
    const known = this.#opened.get(handle);
    // Opened before, to the letter: to open it takes longer than all else.
    if (known?.sealed === sealed) return known.kept;
    const kept = this.#open(handle, sealed);
    if (kept) this.#opened.set(handle, { sealed, kept });
    return kept;
  }

  #open(handle: string, sealed: string): Kept | undefined {
    const opened = this.#options.sealer.open(sealed);
    if (typeof opened === 'string') return undefined;
    const kept = JSON.parse(opened.text) as Kept;
    // It is kept, and the application is given them.
    for (const list of [kept.ptags, kept.scopes]) Object.freeze(list);
    // A writer of the store may have put the facts of another token there.
    return kept.handle === handle ? kept : undefined;
  }

  #handle(token: string): string {
    // As JSON has it, of a token that needs no escapes.
    return digest('token', `${this.#before}"${token}"]`);
  }

  #folder(principal: string): string {
    return `tokens.${ownerOf(this.#options, principal)}`;
  }
}

export function blocked(principal: string): AuthorisationError {
  return new AuthorisationError('ERR_PRINCIPAL_REFUSED', `${principal} is blocked here`);
}

// 256 bits in base64url.
const tokenShape = /^ucwa_[\w-]{43}$/;

export const newTokenRules: Rules<NewToken> = {
  principal: required([(value) => isText(value) && value !== '', 'is a principal, such as abc12']),
  name: required([
    (value) => isText(value) && value !== '' && value.length <= 100,
    'is a text of at most 100 characters',
  ]),
  ttl: required([
    (value) => isSeconds(value) && value > 0,
    'is a number of seconds, at most those of a year; it has no default',
  ]),
  scopes: [
    (value) => texts[0](value) && (value as string[]).every((scope) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)),
    'is a list of scopes, such as ["read"]; a scope has no blanks, quotes or backslashes',
  ],
  ptags: tags,
};

function show({ handle, principal, name, scopes, ptags, created, expires, lastUsed }: Kept): Token {
  const used = lastUsed === undefined ? undefined : new Date(lastUsed);
  const times = { created: new Date(created), expires: new Date(expires), lastUsed: used };
  return { handle, principal, name, scopes, ptags, ...times };
}

function describe({ handle, principal, ptags, scopes, wls, created, expires, mark }: Kept): Auth {
  return new OwnAuth({
    mark,
    principal,
    ptags,
    wls,
    sessionId: handle,
    via: 'token',
    scopes,
    loggedInAt: new Date(created),
    login: Number.POSITIVE_INFINITY,
    group: '',
    expires: new Date(expires),
    expiresBecause: 'ttl',
    // Nobody authenticated just now, in whatever way.
    auth: '',
    sso: [],
    interactiveAt: undefined,
  });
}
