import { isUtf8 } from 'node:buffer';
import { decodeForm, formatDate, parseDate, parseList, queryPairs } from './codec.js';
import { isLoopback } from './environment.js';
import { checkFields, date, flag, isText, isTextList, kindOf, type Rule, type Rules, required } from './options.js';
import type { Version } from './response.js';

/** What an application asks of the login service, in the words of the wire. */
export interface AuthRequest {
  /** Version of the protocol, 3 unless said otherwise. */
  readonly ver?: Version;
  /** Absolute http(s) address that the response comes back to. */
  readonly url: string;
  /** What is asking: text for the user, or `{ encoded }` for text that is already encoded for the wire. */
  readonly desc?: string | Encoded;
  /** Why it asks; as `desc`. */
  readonly msg?: string | Encoded;
  /** Acceptable authentication types; not empty. Any, if absent. */
  readonly aauth?: readonly string[];
  /** true: the user must authenticate now; false: only without interaction; absent: either. */
  readonly iact?: boolean;
  /** Comes back unaltered and signed. Neither secret nor trustworthy on the way. */
  readonly params?: string;
  /** The present time, for the login service's debugging. */
  readonly date?: Date;
  /** true: on a failure the login service shows the error itself and never comes back. */
  readonly fail?: boolean;
}

/** Printable ASCII with character references, as it stands on the wire. */
export interface Encoded {
  readonly encoded: string;
}

/** A request that a login service must not serve, with the status and the message to answer it with. */
export class RequestRefused extends Error {
  readonly status: 520 | 530;
  constructor(status: 520 | 530, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * The address to send the browser to.
 * @param authUrl the login service's authenticate address: https, or http on loopback.
 * @throws TypeError where a value cannot be sent.
 */
export function formatRequest(authUrl: string, request: AuthRequest): string {
  const base = checkAuthUrl(authUrl);
  checkFields('formatRequest(authUrl, request)', 'request', request, rules);
  const query = Object.entries(writeFields(request))
    .filter((pair): pair is [string, string] => pair[1] !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return `${base}${base.includes('?') ? '&' : '?'}${query.join('&')}`;
}

/**
 * Parses the raw query of a request, as strictly as the protocol is written.
 *
 * @throws RequestRefused with the status and the sentence to answer.
 */
export function parseRequest(rawQuery: string): AuthRequest {
  const reject = (message: string) => {
    throw refused(message);
  };
  return readFields(readPairs(rawQuery, reject), reject);
}

/**
 * Parses the raw query of a request as a login service in use does: an empty optional parameter is absent, `skew` is
 * ignored, and deviations that change neither the answer nor its destination are reported instead of rejected. These
 * are unknown parameters, text outside of printable ASCII, a malformed `date` and `fail=no`.
 *
 * @param report receives a sentence on each tolerated deviation.
 * @throws RequestRefused with the status and the sentence to answer.
 */
export function parseRequestLeniently(rawQuery: string, report: (deviation: string) => void): AuthRequest {
  const fields = readPairs(rawQuery, report, ['skew']);
  for (const name of names) if (fields[name] === '' && !mandatory.has(name)) delete fields[name];
  return readFields(fields, report);
}

/** Handles a deviation that a lenient reading tolerates: throws, or returns to go on. */
type Handler = (deviation: string) => void;

function readFields(fields: Record<string, string>, tolerate: Handler): AuthRequest {
  const ver = fields['ver'];
  if (ver === undefined) throw refused('ver is missing');
  if (!/^[123]$/.test(ver)) throw new RequestRefused(520, 'ver is not 1, 2 or 3');
  return {
    ver: Number(ver) as Version,
    url: readUrl(fields['url']),
    ...optional('desc', readText(fields, 'desc', tolerate)),
    ...optional('aauth', readTypes(fields['aauth'])),
    ...optional('iact', readFlag(fields['iact'])),
    ...optional('msg', readText(fields, 'msg', tolerate)),
    ...optional('params', fields['params']),
    ...optional('date', readDate(fields['date'], tolerate)),
    ...optional('fail', readFail(fields['fail'], tolerate)),
  };
}

// In the order in which they are written.
const names = ['ver', 'url', 'desc', 'aauth', 'iact', 'msg', 'params', 'date', 'fail'] as const;
const mandatory: ReadonlySet<string> = new Set(['ver', 'url']);
type Fields = Partial<Record<(typeof names)[number], string | undefined>>;

function writeFields(request: AuthRequest): Fields {
  const { ver = 3, url, desc, aauth, iact, msg, params, date, fail } = request;
  return {
    ver: `${ver}`,
    url,
    desc: writeText('desc', desc),
    aauth: aauth?.join(','),
    iact: iact === undefined ? undefined : iact ? 'yes' : 'no',
    msg: writeText('msg', msg),
    params,
    date: date && formatDate(date),
    fail: fail ? 'yes' : undefined,
  };
}

const printable = /^[\x20-\x7e]*$/;

const encodable: Rule = [
  (value) => isText(value) || isText((value as Partial<Encoded>).encoded),
  'is a text, or { encoded } with a text that is encoded already',
];

const rules: Rules<AuthRequest> = {
  ver: [(value) => value === 1 || value === 2 || value === 3, 'is 1, 2 or 3'],
  url: required([
    (value) => isText(value) && isAbsolute(value),
    'is an absolute http or https address, without a fragment',
  ]),
  desc: encodable,
  msg: encodable,
  aauth: [
    (value) => isTypeList(value),
    'is a list of at least one authentication type, such as ["pwd"], in visible ASCII without commas',
  ],
  iact: flag,
  params: [(value) => isText(value) && value.isWellFormed(), 'is a text of well-formed Unicode'],
  date: date,
  fail: flag,
};

function writeText(name: string, text: string | Encoded | undefined): string | undefined {
  if (text === undefined) return undefined;
  const encoded = typeof text === 'string' ? encodeText(name, text) : text.encoded;
  if (!printable.test(encoded)) throw new TypeError(`${name}, encoded, is printable ASCII`);
  return encoded;
}

/** `&` as `&amp;`, and what is not ASCII as a decimal character reference. `<` and `>` are for the other side to escape. */
function encodeText(name: string, text: string): string {
  if (/\p{Cc}/u.test(text) || !text.isWellFormed()) {
    throw new TypeError(`${name} holds a control character, or half of a surrogate pair`);
  }
  return text.replaceAll('&', '&amp;').replace(notPrintable, reference);
}

const notPrintable = /[^\x20-\x7e]/gu;

function reference(char: string): string {
  return `&#${char.codePointAt(0)};`;
}

function checkAuthUrl(authUrl: string): string {
  const url = isText(authUrl) && isAbsolute(authUrl) ? new URL(authUrl) : undefined;
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname))) return authUrl;
  throw new TypeError(
    `authUrl, the address of the login service, must be https (http only on loopback); here it is ${kindOf(authUrl)}`,
  );
}

function isAbsolute(url: string): boolean {
  // Schemes are case-insensitive (RFC 3986, 3.1).
  return /^https?:\/\/[\x21-\x22\x24-\x7e]+$/i.test(url) && URL.canParse(url);
}

/** At least one type; a type is visible ASCII but the comma. */
export function isTypeList(types: unknown): types is readonly string[] {
  return isTextList(types, (type) => /^[\x21-\x2b\x2d-\x7e]+$/.test(type)) && types.length > 0;
}

function readPairs(rawQuery: string, tolerate: Handler, ignored: readonly string[] = []): Record<string, string> {
  const fields: Record<string, string> = Object.create(null);
  for (const [rawName, rawValue] of queryPairs(rawQuery)) {
    const name = decodeName(rawName, tolerate);
    if (name === undefined || ignored.includes(name)) continue;
    if (!(names as readonly string[]).includes(name)) {
      tolerate(`there is no parameter of the name ${quote(name)}`);
      continue;
    }
    if (name in fields) throw refused(`${name} is there more than once`);
    fields[name] = name === 'desc' || name === 'msg' ? decodeText(rawValue, name, tolerate) : decode(rawValue);
  }
  return fields;
}

function decode(raw: string): string {
  try {
    return decodeForm(raw);
  } catch (error) {
    throw refused((error as Error).message);
  }
}

/** Decodes a name; undefined for a tolerated name that does not decode, which is none of ours. */
function decodeName(raw: string, tolerate: Handler): string | undefined {
  try {
    return decodeForm(raw);
  } catch (error) {
    tolerate((error as Error).message);
    return undefined;
  }
}

/** Decodes a text that is only displayed. A tolerated text that is not UTF-8 is taken for Latin-1. */
function decodeText(raw: string, name: string, tolerate: Handler): string {
  try {
    return decodeForm(raw);
  } catch (error) {
    tolerate(`${name}: ${(error as Error).message}`);
    const unescaped = raw
      .replaceAll('+', ' ')
      .replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
    const bytes = Buffer.from(unescaped, 'latin1');
    return bytes.toString(isUtf8(bytes) ? 'utf8' : 'latin1');
  }
}

function readUrl(url: string | undefined): string {
  if (url === undefined) throw refused('url is missing');
  if (!isAbsolute(url)) throw refused('url is not an absolute http or https address without a fragment');
  return url;
}

function readText(fields: Record<string, string>, name: 'desc' | 'msg', tolerate: Handler): Encoded | undefined {
  const encoded = fields[name];
  if (encoded === undefined) return undefined;
  if (printable.test(encoded)) return { encoded };
  tolerate(`${name} is not printable ASCII`);
  return { encoded: encoded.replace(/\p{Cc}|\p{Cs}/gu, ' ').replace(notPrintable, reference) };
}

function readTypes(aauth: string | undefined): string[] | undefined {
  if (aauth === undefined) return undefined;
  const types = parseList(aauth) ?? [];
  if (!isTypeList(types)) throw refused('aauth is not a list of authentication types');
  return types;
}

function readFlag(iact: string | undefined): boolean | undefined {
  if (iact === undefined) return undefined;
  if (iact !== 'yes' && iact !== 'no') throw refused('iact is neither yes nor no');
  return iact === 'yes';
}

function readDate(date: string | undefined, tolerate: Handler): Date | undefined {
  if (date === undefined) return undefined;
  const instant = parseDate(date);
  if (instant === undefined) tolerate('date is not of the form YYYYMMDDTHHMMSSZ');
  return instant;
}

function readFail(fail: string | undefined, tolerate: Handler): boolean | undefined {
  if (fail === undefined) return undefined;
  if (fail === 'yes') return true;
  if (fail !== 'no') throw refused('fail can only be yes');
  tolerate('fail can only be yes');
  return undefined;
}

function optional<K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { [P in K]?: V };
}

function refused(message: string): RequestRefused {
  return new RequestRefused(530, message);
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
