import {
  decodeBase64,
  decodeField,
  decodeForm,
  encodeBase64,
  encodeField,
  formatDate,
  isList,
  malformed,
  parseDate,
  parseList,
  queryPairs,
} from './codec.js';
import { type ErrorCode, ResponseError } from './errors.js';
import { isText, kindOf } from './options.js';

/** Protocol versions. */
export type Version = 1 | 2 | 3;

/** The status codes of the protocol that say that nobody was logged in, each with its error. */
export const failures = {
  410: ['ERR_WLS_CANCELLED', 'the login was cancelled'],
  510: ['ERR_WLS_NO_ATYPES', 'the login service offers none of the ways to authenticate that were asked for'],
  520: ['ERR_WLS_VERSION', 'the login service does not speak the version of the protocol that was used'],
  530: ['ERR_WLS_REQUEST', 'the login service found a mistake in the request'],
  540: ['ERR_WLS_INTERACTION', 'the login service would have had to ask the user, and was told not to'],
  560: ['ERR_WLS_UNAUTHORISED', 'the login service does not serve this application'],
  570: ['ERR_WLS_DECLINED', 'the login service declined to log the user in'],
} as const satisfies Record<number, readonly [ErrorCode, string]>;

/** The seven statuses of {@link failures}. */
export type FailureStatus = keyof typeof failures;

/** What the login service says, in the words of the wire. Untrusted until `verifyResponse` has returned it. */
export interface AuthResponse {
  readonly ver: Version;
  /** 200 is a success; every other one says why nobody was logged in. */
  readonly status: 200 | FailureStatus;
  /** Text for the user, or empty. Plain text: escape it like any other. */
  readonly msg: string;
  /** When the response was made, to the second. */
  readonly issue: Date;
  /** Unique together with `issue`; not a secret. */
  readonly id: string;
  /** The address that the login was asked for. */
  readonly url: string;
  /** Who logged in (a CRSid, for Raven); empty on failure. */
  readonly principal: string;
  /** What the login service says of the principal, such as `current`. */
  readonly ptags: readonly string[];
  /** How the user authenticated just now; empty if they did not. */
  readonly auth: string;
  /** The earlier authentications relied on. */
  readonly sso: readonly string[];
  /** Seconds left of the user's session at the login service, if it says. */
  readonly life: number | undefined;
  /** The request's `params`, unaltered; empty if there were none. */
  readonly params: string;
  /** Names the signing key; empty on an unsigned failure. */
  readonly kid: string;
  /** The signature's bytes; undefined on an unsigned failure. */
  readonly sig: Buffer | undefined;
}

/** The longest response that is looked at, in characters, encoded or not. */
export const MAX_RESPONSE = 8192;

/**
 * Parses an encoded response string (the decoded value of `WLS-Response`) and holds it to every rule on its form.
 * Says nothing about whether it is genuine: that is `verifyResponse`.
 * @throws ResponseError with the rule that does not hold.
 */
export function parseResponse(encoded: string): AuthResponse {
  if (!isText(encoded)) {
    throw new TypeError(`encoded is the response as it was sent, a text; here it is ${kindOf(encoded)}`);
  }
  if (encoded.length > MAX_RESPONSE) throw malformed(`the response is longer than ${MAX_RESPONSE} characters`);
  const fields = splitFields(encoded);
  checkFields(fields);
  if (!encoded.isWellFormed()) bad('the response is not well-formed Unicode');
  return readFields(fields);
}

/** Writes a response; the reverse of {@link parseResponse}. It writes what it is given, right or wrong. */
export function formatResponse(response: AuthResponse): string {
  const sig = response.sig === undefined ? '' : encodeBase64(response.sig);
  return `${formatSigned(response)}!${response.kid}!${sig}`;
}

/** The part of a response that its signature covers. */
export function formatSigned(response: Omit<AuthResponse, 'kid' | 'sig'>): string {
  const { ver, status, msg, issue, id, url, principal, ptags, auth, sso, life, params } = response;
  const tags = ver === 3 ? [ptags.join(',')] : [];
  const fields = [msg, formatDate(issue), id, url, principal, ...tags, auth, sso.join(','), `${life ?? ''}`, params];
  return [ver, status, ...fields.map(encodeField)].join('!');
}

/** The part of an encoded response that its signature covers: all before the last two fields, undecoded. */
export function signedPart(encoded: string): string {
  return encoded.slice(0, encoded.lastIndexOf('!', encoded.lastIndexOf('!') - 1));
}

/**
 * Takes the response out of the raw query of the request that came back from the login service.
 * @throws ResponseError if there is none, more than one, or one that does not decode.
 */
export function responseFromQuery(rawQuery: string): string {
  const [first, second] = queryPairs(rawQuery).filter(([name]) => isOurs(name));
  if (second) throw new ResponseError('ERR_RESPONSE_DUPLICATED', 'the query holds WLS-Response more than once');
  if (!first?.[1]) throw malformed('the query holds no WLS-Response');
  const [name, raw] = first;
  if (name.length !== 'WLS-Response'.length) throw malformed('WLS-Response is spelt as a list, or encoded');
  if (raw.length > MAX_RESPONSE) throw malformed(`WLS-Response is longer than ${MAX_RESPONSE} characters`);
  return decodeForm(raw);
}

/** The address that takes a response back to the application. */
export function responseUrl(url: string, ver: Version, encoded: string): string {
  // Version 1 replaces the query; later versions add to it.
  const base = ver === 1 ? url.replace(/\?.*$/s, '') : url;
  return `${base}${base.includes('?') ? '&' : '?'}WLS-Response=${encodeURIComponent(encoded)}`;
}

/** Names are compared decoded, so that no spelling hides a second response. One that does not decode is not ours. */
function isOurs(raw: string): boolean {
  // Decoding makes nothing longer.
  if (raw.length < 'WLS-Response'.length) return false;
  try {
    return /^WLS-Response(?:\[|$)/.test(decodeForm(raw));
  } catch {
    return false;
  }
}

/** The fields as they stand on the wire; `ptags` is empty in versions 1 and 2. */
type Fields = Readonly<Record<keyof AuthResponse, string>>;

type InOrder = [
  ver: string,
  status: string,
  msg: string,
  issue: string,
  id: string,
  url: string,
  principal: string,
  ptags: string,
  auth: string,
  sso: string,
  life: string,
  params: string,
  kid: string,
  sig: string,
];

function splitFields(encoded: string): Fields {
  const fields = split(encoded);
  const count = countFields(fields[0]);
  if (fields.length !== count) {
    bad(`version ${fields[0]} has ${count} fields, and this response ${fields.length > 14 ? 'more' : fields.length}`);
  }
  if (count === 13) fields.splice(7, 0, '');
  const [ver, status, msg, issue, id, url, principal, ptags, auth, sso, life, params, kid, sig] = fields as InOrder;
  return { ver, status, msg, issue, id, url, principal, ptags, auth, sso, life, params, kid, sig };
}

/** At `!`, into one more than there can be, so that a heap of them costs nothing. (Of some texts `split` is slow.) */
function split(encoded: string): string[] {
  const fields: string[] = [];
  let start = 0;
  for (let end = encoded.indexOf('!'); end >= 0 && fields.length < 14; end = encoded.indexOf('!', start)) {
    fields.push(encoded.slice(start, end));
    start = end + 1;
  }
  fields.push(encoded.slice(start));
  return fields;
}

function countFields(ver: string | undefined): number {
  if (ver === '3') return 14;
  if (ver === '1' || ver === '2') return 13;
  throw new ResponseError('ERR_RESPONSE_VERSION', 'the version of the response is not 1, 2 or 3');
}

const statuses: ReadonlySet<string> = new Set(['200', ...Object.keys(failures)]);

// Fifteen digits: thirty million years, and still an exact number.
const lifeShape = /^\d{0,15}$/;

// A kid is a number of at most eight digits that does not begin with 0; no kid is the empty string.
const kidShape = /^(?:[1-9]\d{0,7})?$/;

/** Base64 of 2048 bytes: no key that OpenSSL verifies with is longer. */
const MAX_SIG = 2732;

/** What can be told before anything is decoded, and of that what is short first: to refuse costs little. */
function checkFields(fields: Fields): void {
  const { ver, status, id, url, life, kid, sig } = fields;
  if (!statuses.has(status)) bad('status is not a code of the protocol');
  if (status === '520' && ver !== '1') bad('status 520 is only ever sent in version 1');
  if (id === '') bad('id is missing');
  if (url === '') bad('url is missing');
  if (!lifeShape.test(life)) bad('life is not a number of seconds');
  if (!kidShape.test(kid)) bad('kid is not a number of one to eight digits without a leading zero');
  if (sig !== '' && kid === '') bad('there is a signature, and no kid to say whose');
  if (sig.length > MAX_SIG) bad('sig is longer than that of any key');
  if (status === '200') checkSuccess(fields);
  else checkFailure(fields);
}

function checkSuccess({ principal, ptags, auth, sso }: Fields): void {
  if (principal === '') bad('a success names no principal');
  if (auth === '' && sso === '') bad('a success says neither in auth nor in sso how the user authenticated');
  if (!isList(ptags)) bad('ptags has an empty item');
  if (!isList(sso)) bad('sso has an empty item');
}

function checkFailure({ principal, ptags, auth, sso }: Fields): void {
  if (principal !== '') bad('a failure names a principal');
  if (ptags !== '') bad('a failure has ptags');
  if (auth !== '') bad('a failure has auth');
  if (sso !== '') bad('a failure has sso');
}

function readFields(fields: Fields): AuthResponse {
  // What can still be wrong comes first, before anything long is decoded.
  const issue = parseDate(fields.issue) ?? bad('issue is not a date of the form YYYYMMDDTHHMMSSZ');
  const sig = decodeBase64(fields.sig) ?? bad('sig is not canonical base64 of the alphabet A-Za-z0-9-._');
  return {
    ver: Number(fields.ver) as Version,
    status: Number(fields.status) as AuthResponse['status'],
    msg: decodeField(fields.msg),
    issue,
    id: decodeField(fields.id),
    url: decodeField(fields.url),
    principal: decodeField(fields.principal),
    ptags: readList(fields.ptags),
    auth: decodeField(fields.auth),
    sso: readList(fields.sso),
    life: fields.life === '' ? undefined : Number(fields.life),
    params: decodeField(fields.params),
    kid: fields.kid,
    sig: fields.sig === '' ? undefined : sig,
  };
}

/** Escapes stand for no commas. */
function readList(text: string): string[] {
  return parseList(decodeField(text)) as string[];
}

function bad(message: string): never {
  throw malformed(message);
}
