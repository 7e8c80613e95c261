import type { ServerResponse } from 'node:http';
import { addHeader, isHttp2 } from '../http.js';

/** A cookie that is set when the head of a response is written. */
interface LateCookie {
  readonly line: string;
  /** Whether the cookie is still to be set by then. */
  readonly isDue: () => boolean;
}

/** What this library sets on a response before its head is written. */
interface Head {
  /** Headers that were set already, by name in lower case. */
  readonly own: Map<string, unknown>;
  readonly late: LateCookie[];
  /** Whether the late cookies have been set. */
  isSet: boolean;
}

const HEAD = Symbol('ucam-webauth head');

/**
 * Sets a cookie when the head of the answer is written, unless a shared cache may store that.
 * @param stands whether the cookie is still to be set by then.
 */
export function setLate(response: ServerResponse, cookie: string, stands: () => boolean = () => true): void {
  headOf(response).late.push({ line: cookie, isDue: () => stands() && isPrivate(response) });
}

/** Sets a cookie in such a way that no `Set-Cookie` replaces it that an error handler gives to `writeHead`. */
export function setCookie(response: ServerResponse, cookie: string): void {
  headOf(response).late.push({ line: cookie, isDue: () => true });
}

/** Sets a header in such a way that no header is lost that the handler gives to `writeHead` later. */
export function setEarly(response: ServerResponse, name: string, value: string): void {
  response.setHeader(name, value);
  headOf(response).own.set(name.toLowerCase(), value);
}

/** Adds a header to those of its name, as {@link setEarly}. */
export function appendEarly(response: ServerResponse, name: string, value: string): void {
  if (!response.hasHeader(name)) return setEarly(response, name, value);
  headOf(response);
  addHeader(response, name, value);
}

/** What is behind a guard is for this person only, unless the handler says otherwise. */
export function keepPrivate(response: ServerResponse): void {
  if (!response.hasHeader('Cache-Control')) setEarly(response, 'Cache-Control', 'private, no-cache');
  const vary = String(response.getHeader('Vary') ?? '');
  if (!/(?:^|[,\s])(?:cookie|\*)(?:$|[,\s])/i.test(vary)) appendEarly(response, 'Vary', 'Cookie');
}

/**
 * Returns what this library sets on a response. The first call replaces `writeHead`, once for all of it. Node's own
 * `writeHead` takes pairs only where no header was set before, and on Node 20 keeps one line of each name of a flat list
 * there. Cookies that it is given replace those that were set.
 */
function headOf(response: ServerResponse): Head {
  const known = (response as { [HEAD]?: Head })[HEAD];
  if (known) return known;
  const head: Head = { own: new Map(), late: [], isSet: false };
  (response as { [HEAD]?: Head })[HEAD] = head;
  if (Object.hasOwn(response, 'writeHead')) watchHeaders(response, head);
  const { writeHead } = response;
  // It stays: where the arguments are wrong, Node throws, and an error handler writes another head.
  response.writeHead = (...given: unknown[]) => {
    const write = writeHead as (...args: unknown[]) => ServerResponse;
    if (response.headersSent) return write.apply(response, given);
    const { rest, undo } = setGiven(response, given, head);
    setLateCookies(response, head);
    try {
      return write.apply(response, rest);
    } catch (error) {
      if (!response.headersSent) undo();
      throw error;
    }
  };
  return head;
}

function setLateCookies(response: ServerResponse, head: Head): void {
  for (const { line, isDue } of head.late) {
    if (!isDue()) continue;
    const set = [response.getHeader('Set-Cookie')].flat();
    if (!set.includes(line)) addHeader(response, 'Set-Cookie', line);
  }
  head.isSet = true;
}

/**
 * Removes late cookies that are not due any more when a header changes. Middleware that replaced `writeHead` earlier than
 * this library (`on-headers`) runs after it, and may let shared caches store the answer.
 */
function watchHeaders(response: ServerResponse, head: Head): void {
  for (const method of ['setHeader', 'appendHeader', 'removeHeader'] as const) {
    const change = response[method] as ((...given: unknown[]) => unknown) | undefined;
    // Responses that tests make up may lack one.
    if (change === undefined) continue;
    const watched = (...given: unknown[]) => {
      const result = change.apply(response, given);
      if (head.isSet && String(given[0]).toLowerCase() !== 'set-cookie') removeUndue(response, head);
      return result;
    };
    Object.assign(response, { [method]: watched });
  }
}

function removeUndue(response: ServerResponse, { late }: Head): void {
  const undue = late.filter(({ isDue }) => !isDue()).map(({ line }) => line);
  const set = [response.getHeader('Set-Cookie') ?? []].flat().map(String);
  const left = set.filter((line) => !undue.includes(line));
  if (left.length < set.length) response.setHeader('Set-Cookie', left);
}

/**
 * Sets the headers that `writeHead` is given, with the result that it would have if this library had set none.
 * @returns the other arguments; all of them if they are wrong, so that Node says so. And what removes the headers again
 * if Node throws for another reason, where Node would have kept none.
 */
function setGiven(response: ServerResponse, given: unknown[], head: Head): { rest: unknown[]; undo: () => void } {
  const hasReason = typeof given[1] === 'string';
  const headers = hasReason ? given[2] : (given[2] ?? given[1]);
  if (typeof headers !== 'object' || headers === null || isOdd(headers) || !isStatus(given[0])) {
    return { rest: given, undo: () => {} };
  }
  const isList = Array.isArray(headers);
  const untouched = isUntouched(response, head);
  const undo = setAll(response, grouped(isList ? pairs(headers) : Object.entries(headers), isList || untouched));
  return { rest: given.slice(0, hasReason ? 2 : 1), undo: untouched ? undo : () => {} };
}

/** Sets all of these headers, or none: `setHeader` throws where one is malformed. @returns what undoes it. */
function setAll(response: ServerResponse, headers: Iterable<[name: string, values: unknown[]]>): () => void {
  const before = new Map<string, ReturnType<ServerResponse['getHeader']>>();
  const undo = () => {
    for (const [name, value] of before) {
      if (value === undefined) response.removeHeader(name);
      else response.setHeader(name, value);
    }
  };
  try {
    for (const [name, values] of headers) {
      const value = values.length === 1 ? values[0] : values.flat();
      const replaced = response.getHeader(name);
      response.setHeader(name, value as string | string[]);
      before.set(name, replaced);
    }
  } catch (error) {
    undo();
    throw error;
  }
  return undo;
}

/** Whether Node takes a status (it drops what comes after the point). */
function isStatus(status: unknown): boolean {
  const code = Math.trunc(Number(status));
  return code >= 100 && code <= 999;
}

/** A flat list without a value for its last name. */
function isOdd(headers: object): boolean {
  return Array.isArray(headers) && !isPairs(headers) && headers.length % 2 !== 0;
}

/**
 * Whether no header was set but by this library. Then Node would have written all that an object holds, also names that
 * differ in case only, and else the last of these. In HTTP/2 it keeps the last.
 */
function isUntouched(response: ServerResponse, { own }: Head): boolean {
  const others = Object.entries(response.getHeaders()).filter(([name, value]) => own.get(name) !== value);
  return others.length === 0 && !isHttp2(response);
}

/** Values by name, as the name was first written. Of cookies all are kept. */
function grouped(lines: Iterable<[unknown, unknown]>, keepAll: boolean): Iterable<[string, unknown[]]> {
  const groups = new Map<string, [name: string, values: unknown[]]>();
  for (const [name, value] of lines) {
    const key = String(name).toLowerCase();
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [name as string, [value]]);
    else if (keepAll || key === 'set-cookie') group[1].push(value);
    else groups.set(key, [name as string, [value]]);
  }
  return groups.values();
}

/**
 * Whether no shared cache may store the answer. Where the handler does not mention caches, or lets none reuse the answer
 * unasked, adds that: a shared cache that revalidates would reuse the stored cookie.
 */
function isPrivate(response: ServerResponse): boolean {
  const lines = linesOf(response);
  if ([...lines].some(([name, values]) => addressesSharedCache(name, values))) return false;
  const control = lines.get('cache-control');
  if (control === undefined) {
    if (hasFuture(lines.get('expires'))) return false;
    keepPrivate(response);
    return true;
  }
  const directives = directivesOf(control);
  if (directives.every((one) => revalidations.has(one))) {
    response.setHeader('Cache-Control', ['private', ...control].join(', '));
    return true;
  }
  const isOpen = directives.some((one) => /^(?:public|s-maxage)\b/.test(one));
  return !isOpen && directives.some((one) => one === 'private' || one === 'no-store');
}

/** Directives of `Cache-Control` with which a cache asks before each reuse, if there are no others. */
const revalidations: ReadonlySet<string> = new Set(['no-cache', 'max-age=0', 'must-revalidate', 'proxy-revalidate']);

/**
 * Whether a header is for the shared caches on the way, which obey it in place of `Cache-Control`: `CDN-Cache-Control`
 * (RFC 9213) and the like of each vendor, `Surrogate-Control`, Akamai's `Edge-Control`, nginx's `X-Accel-Expires`, and
 * the `X-…-TTL` of Varnish. Of their values only nginx's `0` and a `no-store` that nothing contradicts store nothing; a
 * cache that does not know these goes by `Cache-Control`. The package `nocache` sends `Surrogate-Control: no-store`.
 */
function addressesSharedCache(name: string, values: readonly string[]): boolean {
  if (name === 'x-accel-expires') return values.some((value) => value.trim() !== '0');
  if (/^x-(?:.+-)?ttl$/.test(name)) return true;
  return /^(?:.+-cache-control|surrogate-control|edge-control)$/.test(name) && !forbidsStoring(directivesOf(values));
}

function forbidsStoring(directives: readonly string[]): boolean {
  const isStrict = directives.every((one) => /^(?:no-store|no-cache|private|(?:must|proxy)-revalidate)$/.test(one));
  return isStrict && directives.includes('no-store');
}

/** Directives of `Cache-Control` in lower case, without what is quoted: `private="set-cookie"` is for one header. */
function directivesOf(lines: readonly string[]): string[] {
  const unquoted = lines.join(',').replace(/"(?:[^"\\]|\\.)*"/g, '""');
  return unquoted.split(',').map((directive) => directive.trim().toLowerCase());
}

/** Whether an `Expires` makes an answer storable; one that is no date means that it has expired (RFC 9111, 5.3). */
function hasFuture(lines: readonly string[] = []): boolean {
  return lines.some((line) => Date.parse(line) > Date.now());
}

/** All headers of an answer, by name in lower case. */
function linesOf(response: ServerResponse): Map<string, string[]> {
  const lines = Object.entries(response.getHeaders());
  return new Map(lines.map(([name, value]) => [name.toLowerCase(), [value].flat().map(String)]));
}

/** Headers as a list of names and values in turn, or of pairs. */
function pairs(list: unknown[]): [unknown, unknown][] {
  if (isPairs(list)) return list;
  return list.flatMap((name, i) => (i % 2 === 0 ? [[name, list[i + 1]] as [unknown, unknown]] : []));
}

function isPairs(given: unknown): given is [unknown, unknown][] {
  return Array.isArray(given) && Array.isArray(given[0]);
}
