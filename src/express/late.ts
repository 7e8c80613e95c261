import type { ServerResponse } from 'node:http';

/**
 * Sets a cookie when the head of the answer is written, unless a shared cache may store that.
 * @param stands whether the cookie is still to be set by then.
 */
export function setLate(response: ServerResponse, cookie: string, stands: () => boolean = () => true): void {
  const { writeHead } = response;
  response.writeHead = (...given: unknown[]) => {
    response.writeHead = writeHead;
    const at = indexOfHeaders(given);
    if (stands() && isPrivate(response, given[at])) {
      given[at] = moveCookies(response, given[at]);
      response.appendHeader('Set-Cookie', cookie);
    }
    return (writeHead as (...args: unknown[]) => ServerResponse).apply(response, given);
  };
}

/** What is behind a guard is for this person only, unless the handler says otherwise. */
export function keepPrivate(response: ServerResponse): void {
  if (!response.hasHeader('Cache-Control')) response.setHeader('Cache-Control', 'private, no-cache');
  const vary = String(response.getHeader('Vary') ?? '');
  if (!/(?:^|[,\s])(?:cookie|\*)(?:$|[,\s])/i.test(vary)) response.appendHeader('Vary', 'Cookie');
}

/**
 * Whether no shared cache may store the answer. Where the handler says nothing of caches, adds that.
 * @param given headers that `writeHead` is given, if any.
 */
function isPrivate(response: ServerResponse, given: unknown): boolean {
  const lines = linesOf(response, given);
  if ([...lines].some(([name, values]) => addressesSharedCache(name, values))) return false;
  const control = lines.get('cache-control');
  if (control === undefined) {
    if (hasFuture(lines.get('expires'))) return false;
    keepPrivate(response);
    return true;
  }
  const directives = directivesOf(control);
  const isOpen = directives.some((one) => /^(?:public|s-maxage)\b/.test(one));
  return !isOpen && directives.some((one) => one === 'private' || one === 'no-store');
}

/**
 * Whether a header is for the shared caches on the way, which obey it in place of `Cache-Control`: `CDN-Cache-Control`
 * (RFC 9213) and the like of each vendor, `Surrogate-Control`, Akamai's `Edge-Control`, nginx's `X-Accel-Expires`, and
 * the `X-…-TTL` of Varnish. Of their values only nginx's `0` is certain to store nothing.
 */
function addressesSharedCache(name: string, values: readonly string[]): boolean {
  if (name === 'x-accel-expires') return values.some((value) => value.trim() !== '0');
  return /^(?:.+-cache-control|surrogate-control|edge-control|x-(?:.+-)?ttl)$/.test(name);
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

/**
 * Sets the cookies that `writeHead` is given, as Node does: they replace those that were set, and would replace a late one.
 * @returns the other headers; none of a list of pairs, which Node takes only where there is no other header.
 */
function moveCookies(response: ServerResponse, given: unknown): unknown {
  const flat = isPairs(given) ? given.flat() : given;
  const lines = Array.isArray(flat) ? pairs(flat) : Object.entries(flat ?? {});
  const isCookie = ([name]: [unknown, unknown]) => String(name).toLowerCase() === 'set-cookie';
  const cookies = lines.filter(isCookie);
  if (cookies.length === 0) return flat;
  // An empty list replaces those that were set, too.
  response.setHeader(
    'Set-Cookie',
    cookies.flatMap(([, value]) => value as string | string[]),
  );
  const others = lines.filter((line) => !isCookie(line));
  return Array.isArray(flat) ? others.flat() : Object.fromEntries(others);
}

/** All headers of an answer, by name in lower case. Those that `writeHead` is given replace those that were set. */
function linesOf(response: ServerResponse, given: unknown): Map<string, string[]> {
  const lines = new Map<string, string[]>();
  const more = Array.isArray(given) ? pairs(given) : Object.entries(given ?? {});
  for (const [name, value] of more) {
    const key = String(name).toLowerCase();
    lines.set(key, [...(lines.get(key) ?? []), ...[value].flat().map(String)]);
  }
  for (const [name, value] of Object.entries(response.getHeaders())) {
    if (!lines.has(name)) lines.set(name, [value].flat().map(String));
  }
  return lines;
}

/** Place of the headers among the arguments of `writeHead`: the last, with or without a reason phrase before. */
function indexOfHeaders(given: readonly unknown[]): number {
  return typeof given[2] === 'object' && given[2] !== null ? 2 : typeof given[1] === 'object' ? 1 : 2;
}

/** Headers as a list of names and values in turn, or of pairs. */
function pairs(list: unknown[]): [unknown, unknown][] {
  if (isPairs(list)) return list;
  return list.flatMap((name, i) => (i % 2 === 0 ? [[name, list[i + 1]] as [unknown, unknown]] : []));
}

function isPairs(given: unknown): given is [unknown, unknown][] {
  return Array.isArray(given) && given.every(Array.isArray);
}
