import { YEAR } from '../options.js';
import type { Entry } from './store.js';

/** Folder of the store that holds revocations. */
export const ENDED = 'ended';

// Seconds.
const DAY = 86_400;
const CENTURY = 100 * YEAR;

/** Person and login sequence number that a revocation belongs to; an empty person if it must not be folded. */
export interface Owner {
  readonly person: string;
  readonly login: number;
}

/** Owner of a revocation that no cutoff can stand for. */
export const unowned: Owner = { person: '', login: 0 };

/** Revocation of one session, of the sessions of one binding cookie, or of one token. `ends` is in seconds. */
export interface Revocation extends Owner {
  readonly kind: 'session' | 'binding' | 'token';
  /** Kind and hash: `session.<hash>`. */
  readonly name: string;
  readonly ends: number;
}

/** Content of an entry of the folder. Hashes are labeled by kind; `ends` and `life` are in seconds. */
export type Content =
  | Revocation
  | { readonly kind: 'all'; readonly person: string; readonly below: number; readonly ends: number }
  | {
      readonly kind: 'blocked';
      readonly person: string;
      readonly number: number;
      readonly blocked: boolean;
      readonly ends: number;
    }
  | { readonly kind: 'life'; readonly application: string; readonly life: number; readonly ends: number }
  | {
      readonly kind: 'member';
      readonly binding: string;
      readonly person: string;
      readonly login: number;
      readonly ends: number;
    };

/** @param name kind and hash. */
export function revocationEntry(name: string, { person, login }: Owner, expires: Date): Entry {
  const value = person === '' || !Number.isSafeInteger(login) || login < 1 ? '' : `${person}.${login}`;
  return { key: `${ENDED}:${name}`, value, expires };
}

// A key for each cutoff, block and lifetime: of two written at once, neither may replace the other.

export function cutEntry(person: string, below: number, expires: Date): Entry {
  return { key: `${ENDED}:all.${person}.${below}`, value: '', expires };
}

export function blockEntry(person: string, number: number, blocked: boolean, expires: Date): Entry {
  return { key: `${ENDED}:blocked.${person}.${number}`, value: blocked ? 'yes' : 'no', expires };
}

/** @param life seconds. */
export function lifeEntry(application: string, life: number, expires: Date): Entry {
  return { key: `${ENDED}:life.${application}.${Math.max(1, Math.ceil(life))}`, value: '', expires };
}

/** @param binding hash of a binding cookie. @param login highest number of the person's logins that are bound to it. */
export function memberEntry(binding: string, { person, login }: Owner, expires: Date): Entry {
  return { key: `${ENDED}:member.${binding}.${person}`, value: String(login), expires };
}

/**
 * Parses an entry of the folder.
 *
 * @param now seconds.
 * @returns `undefined` if this library cannot have written the entry: whoever can write to the store may have.
 */
export function parseEntry({ key, value, expires }: Entry, now: number): Content | undefined {
  const [, kind = '', about = '', rest] = keyShape.exec(String(key)) ?? [];
  const ends = expires instanceof Date ? Math.ceil(expires.getTime() / 1000) : Number.NaN;
  const longest = kind === 'blocked' ? CENTURY : YEAR;
  if (typeof value !== 'string' || !(ends <= now + longest + DAY)) return undefined;
  return parsers[kind]?.({ about, rest, value, ends, now });
}

/**
 * Whether a store can have given a login this number: at most the time in microseconds, and a day for clocks that differ.
 *
 * @param now seconds. Stores count by the time of the system, which is another one where an application injects its clock.
 */
export function isLoginNumber(number: number, now: number): boolean {
  const latest = (Math.max(now, Date.now() / 1000) + DAY) * 1e6;
  return Number.isSafeInteger(number) && number >= 1 && number <= latest;
}

interface Parts {
  readonly about: string;
  readonly rest: string | undefined;
  readonly value: string;
  readonly ends: number;
  readonly now: number;
}

// 256 bits in base64url: four of the last character's bits count.
const HASH = '[\\w-]{42}[AEIMQUYcgkosw048]';
const keyShape = new RegExp(
  `^${ENDED}:(session|binding|token|all|blocked|life|member)\\.(${HASH})(?:\\.(${HASH}|[1-9]\\d{0,15}))?$`,
);
const hashShape = new RegExp(`^${HASH}$`);

const parsers: Readonly<Record<string, (parts: Parts) => Content | undefined>> = {
  session: (parts) => parseRevocation('session', parts),
  binding: (parts) => parseRevocation('binding', parts),
  token: (parts) => (parts.value === '' ? parseRevocation('token', parts) : undefined),
  all: ({ about: person, rest, value, ends, now }) => {
    const below = parseNumber(rest, now);
    return below === undefined || value !== '' ? undefined : { kind: 'all', person, below, ends };
  },
  blocked: ({ about: person, rest, value, ends, now }) => {
    const number = parseNumber(rest, now);
    if (number === undefined || (value !== 'yes' && value !== 'no')) return undefined;
    return { kind: 'blocked', person, number, blocked: value === 'yes', ends };
  },
  life: ({ about: application, rest, value, ends, now }) => {
    const life = parseNumber(rest, now);
    return life === undefined || life > YEAR || value !== '' ? undefined : { kind: 'life', application, life, ends };
  },
  member: ({ about: binding, rest, value, ends, now }) => {
    const login = parseNumber(value, now);
    if (login === undefined || rest === undefined || !hashShape.test(rest)) return undefined;
    return { kind: 'member', binding, person: rest, login, ends };
  },
};

function parseRevocation(kind: Revocation['kind'], { about, rest, value, ends, now }: Parts): Revocation | undefined {
  const owner = parseOwner(value, now);
  if (owner === undefined || rest !== undefined) return undefined;
  // A concatenation would keep its parts, and `about` the whole key, for as long as the revocation is kept.
  return { kind, name: [kind, about].join('.'), ...owner, ends };
}

function parseOwner(value: string, now: number): Owner | undefined {
  if (value === '') return unowned;
  const [person = '', number, ...more] = value.split('.');
  const login = parseNumber(number, now);
  return login === undefined || more.length > 0 || !hashShape.test(person) ? undefined : { person, login };
}

/** Parses a whole number in canonical decimal that a login can have. */
function parseNumber(text: string | undefined, now: number): number | undefined {
  if (text === undefined || !/^[1-9]\d{0,15}$/.test(text)) return undefined;
  const number = Number(text);
  return isLoginNumber(number, now) ? number : undefined;
}
