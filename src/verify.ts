import { timingSafeEqual } from 'node:crypto';
import { formatDate } from './codec.js';
import { ResponseError, StatusError, VerificationError, type WebauthError } from './errors.js';
import { KeySet } from './keys.js';
import {
  checkFields,
  date,
  flag,
  isDate,
  isTag,
  isText,
  isTextList,
  keySet,
  type Rule,
  type Rules,
  required,
  tags,
} from './options.js';
import { type AuthResponse, failures, parseResponse, signedPart, type Version } from './response.js';
import { verifySignature } from './signature.js';

/** What this login attempt asked for, and so what its response has to match. */
export interface Expectations {
  /** The keys of the login service that was asked. */
  readonly keys: KeySet;
  /** The `url` that was asked for, from configuration; never from a header of the request. */
  readonly url: string;
  /** The `params` of the request; null if it had none, and then the response must have none. */
  readonly params: string | null;
  /** The present time. */
  readonly now?: Date;
  /** How old a response may be: seconds, 30 by default. */
  readonly responseTimeout?: number;
  /** How far the login service's clock may be ahead of ours: seconds, 5 by default. */
  readonly clockSkew?: number;
  /** The `iact` of the request. */
  readonly iact?: boolean | undefined;
  /** The `aauth` of the request. */
  readonly aauth?: readonly string[] | undefined;
  /** The version that was asked for: 3 by default. */
  readonly ver?: Version;
  /** The ptags that a success of version 1 or 2 implies: none by default, `["current"]` for Raven. */
  readonly oldVersionPtags?: readonly string[];
}

declare const verified: unique symbol;

/** A success that passed every check. Nothing but {@link verifyResponse} makes one. */
export interface VerifiedResponse extends AuthResponse {
  readonly status: 200;
  readonly [verified]: true;
}

/**
 * Verifies an encoded response string: its form, and that it is the login service's fresh and genuine answer to this
 * login attempt. Four things are the caller's: that `params` belongs to this browser, that the response was not used
 * before, whether the person may enter, and that the keys are not those of the demonstration service in production.
 * @returns the response, if somebody logged in.
 * @throws StatusError, with the response, if it verifies and says that nobody did;
 *   ResponseError if its form is wrong; VerificationError if a check does not hold;
 *   TypeError if the expectations are not usable.
 */
export function verifyResponse(encoded: string, expected: Expectations): VerifiedResponse {
  checkExpectations(expected);
  return runChecks(encoded, parseResponse(encoded), expected);
}

/** The same for who has parsed it already. @param response what `parseResponse` made of this very `encoded`. */
export function verifyParsed(encoded: string, response: AuthResponse, expected: Expectations): VerifiedResponse {
  checkExpectations(expected);
  return runChecks(encoded, response, expected);
}

function runChecks(encoded: string, response: AuthResponse, expected: Expectations): VerifiedResponse {
  const facts = { encoded, response, expected, now: expected.now?.getTime() ?? Date.now() };
  for (const check of checks) {
    const error = check.run(facts);
    if (error !== undefined) throw error;
  }
  if (response.ver === 3) return response as VerifiedResponse;
  return { ...response, ptags: expected.oldVersionPtags ?? [] } as VerifiedResponse;
}

interface Facts {
  readonly encoded: string;
  readonly response: AuthResponse;
  readonly expected: Expectations;
  /** Milliseconds. */
  readonly now: number;
}

/** One thing that has to hold of a response whose form is right. */
export interface Check {
  readonly name: string;
  /** Condition that the response has to meet. */
  readonly requirement: string;
  run(facts: Facts): WebauthError | undefined;
}

/** Defaults of the expectations, in seconds. */
const RESPONSE_TIMEOUT = 30;
const CLOCK_SKEW = 5;

/** In the order in which they are made: cheap ones first. */
export const checks: readonly Check[] = [
  {
    name: 'version',
    requirement: 'the response must be in the version that was requested',
    run: checkVersion,
  },
  { name: 'kid', requirement: 'the key must belong to the login service', run: checkKid },
  { name: 'url', requirement: 'the response must be for the URL that was requested', run: checkUrl },
  { name: 'params', requirement: 'the response must carry the params of the request', run: checkParams },
  {
    name: 'issue',
    requirement: `the response must be at most ${RESPONSE_TIMEOUT} s old, and at most ${CLOCK_SKEW} s in the future`,
    run: checkIssue,
  },
  { name: 'sig', requirement: 'the login service must have signed the response', run: checkSignature },
  { name: 'status', requirement: 'a user must have logged in', run: checkStatus },
  {
    name: 'iact, aauth',
    requirement: 'the user must have authenticated as requested',
    run: checkAuthentication,
  },
];

/**
 * Checks the expectations of a caller.
 * @throws TypeError that names the field.
 */
function checkExpectations(expected: Expectations): void {
  if (isUsual(expected)) return;
  checkFields('verifyResponse(encoded, expected)', 'expected', expected, rules);
}

/** Whether expectations pass the rules above. The rules themselves take a tenth of the time of a verification. */
function isUsual(expected: Expectations): boolean {
  try {
    const { keys, url, params, now, responseTimeout, clockSkew, iact, aauth, ver, oldVersionPtags } = expected;
    return (
      keys instanceof KeySet &&
      typeof url === 'string' &&
      url !== '' &&
      (params === null || typeof params === 'string') &&
      (now === undefined || isDate(now)) &&
      (responseTimeout === undefined || isDuration(responseTimeout)) &&
      (clockSkew === undefined || isDuration(clockSkew)) &&
      (iact === undefined || typeof iact === 'boolean') &&
      (aauth === undefined || isTypes(aauth)) &&
      (ver === undefined || isVersion(ver)) &&
      (oldVersionPtags === undefined || isTextList(oldVersionPtags, isTag)) &&
      hasOnlyFields(expected)
    );
  } catch {
    return false;
  }
}

/** Whether an object has no field but those of `Expectations`. A `switch` takes a tenth of the time of a look-up. */
function hasOnlyFields(expected: Expectations): boolean {
  for (const name in expected) {
    switch (name as keyof Expectations) {
      case 'keys':
      case 'url':
      case 'params':
      case 'now':
      case 'responseTimeout':
      case 'clockSkew':
      case 'iact':
      case 'aauth':
      case 'ver':
      case 'oldVersionPtags':
        break;
      default:
        return false;
    }
  }
  return true;
}

// Comparisons with NaN are false: a check that compares with one would pass everything.
const isDuration = (value: unknown) => Number.isFinite(value) && (value as number) >= 0;
const isVersion = (value: unknown) => value === 1 || value === 2 || value === 3;
// A text would be searched for parts of itself.
const isTypes = (value: unknown) => isTextList(value) && value.length > 0;

const duration: Rule = [isDuration, 'is a number of seconds'];

const rules: Rules<Expectations> = {
  keys: required(keySet),
  url: required([(value) => isText(value) && value !== '', 'is the url of the request, a text']),
  params: required([
    (value) => value === null || isText(value),
    'is the params of the request, or null to say that it had none',
  ]),
  now: date,
  responseTimeout: duration,
  clockSkew: duration,
  iact: flag,
  aauth: [isTypes, 'is a list of at least one authentication type, such as ["pwd"]'],
  ver: [isVersion, 'is 1, 2 or 3'],
  oldVersionPtags: tags,
};

function checkVersion({ response: { ver, status }, expected }: Facts): WebauthError | undefined {
  const asked = expected.ver ?? 3;
  // A user can ask the login service for an older version, whose successes imply ptags: so exactly this one.
  if (status === 200 ? ver === asked : ver <= asked) return undefined;
  const rule = status === 200 ? 'a success carries exactly' : 'a failure carries at most';
  return new ResponseError('ERR_RESPONSE_VERSION', `${rule} the version asked for, ${asked}; this one has ${ver}`);
}

function checkKid({ response: { kid }, expected: { keys } }: Facts): WebauthError | undefined {
  if (kid === '' || keys.get(kid)) return undefined;
  const known = keys.kids.join(', ') || 'none';
  return new VerificationError('ERR_KEY_UNKNOWN', `key ${kid} is not one of this login service's (${known})`);
}

function checkUrl({ response, expected }: Facts): WebauthError | undefined {
  if (response.url === expected.url) return undefined;
  return new VerificationError(
    'ERR_URL_MISMATCH',
    `the response was made for another address than ${expected.url}, which the login has to be requested for`,
  );
}

function checkParams({ response, expected }: Facts): WebauthError | undefined {
  const { params } = expected;
  if (params === null ? response.params === '' : equal(response.params, params)) return undefined;
  return new VerificationError('ERR_PARAMS_MISMATCH', 'the response answers another login attempt than this one');
}

function checkIssue({ response, expected, now }: Facts): WebauthError | undefined {
  const { responseTimeout = RESPONSE_TIMEOUT, clockSkew = CLOCK_SKEW } = expected;
  const age = (now - response.issue.getTime()) / 1000;
  if (age <= responseTimeout && age >= -clockSkew) return undefined;
  const made = `the response was made at ${formatDate(response.issue)}`;
  if (age > responseTimeout) {
    const hint = "if this happens to everyone, check the clock of the application's machine";
    return new VerificationError('ERR_ISSUE_STALE', `${made}, more than ${responseTimeout} s ago; ${hint}`);
  }
  const hint = "the clock of the application's machine is probably slow";
  return new VerificationError('ERR_ISSUE_FUTURE', `${made}, more than ${clockSkew} s from now; ${hint}`);
}

function checkSignature({ response: { status, kid, sig }, encoded, expected }: Facts): WebauthError | undefined {
  if (sig === undefined) {
    if (status !== 200) return undefined;
    return new VerificationError('ERR_SIGNATURE_MISSING', 'a success is signed, and this one is not');
  }
  const key = expected.keys.get(kid);
  if (key && verifySignature(key, signedPart(encoded), sig)) return undefined;
  return new VerificationError('ERR_SIGNATURE_INVALID', `the signature is not that of key ${kid} on this response`);
}

function checkStatus({ response }: Facts): WebauthError | undefined {
  if (response.status === 200) return undefined;
  const [code, message] = failures[response.status];
  return new StatusError(code, message, response);
}

/** Whether somebody authenticated in the way that was asked for. */
export function checkAuthentication({
  response: { auth, sso },
  expected: { iact, aauth },
}: {
  readonly response: Pick<AuthResponse, 'auth' | 'sso'>;
  readonly expected: Pick<Expectations, 'iact' | 'aauth'>;
}): WebauthError | undefined {
  if (iact === true && auth === '') {
    return new VerificationError('ERR_IACT_UNSATISFIED', 'the user was to authenticate now, and did not');
  }
  if (iact === false && auth !== '') {
    return new VerificationError('ERR_IACT_UNSATISFIED', 'the user was not to be asked, and was');
  }
  if (aauth === undefined) return undefined;
  const now = auth !== '' && aauth.includes(auth);
  const before = iact !== true && sso.some((type) => aauth.includes(type));
  if (now || before) return undefined;
  return new VerificationError(
    'ERR_AUTH_UNACCEPTABLE',
    `the user did not authenticate in the way that was asked for: ${aauth.join(' or ')}`,
  );
}

/** In constant time, but for the length. */
function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
