import type { ServerResponse } from 'node:http';

/**
 * Sets a cookie when the answer is known, and only on one that no cache keeps for others.
 * @param stands whether it is still to be set by then.
 */
export function setLate(response: ServerResponse, cookie: string, stands: () => boolean = () => true): void {
  const { writeHead } = response;
  response.writeHead = (...given: unknown[]) => {
    response.writeHead = writeHead;
    if (stands() && isPrivate(response, given.at(-1))) {
      response.appendHeader('Set-Cookie', cookie);
      // Node takes a list of pairs only where there is no other header.
      if (isPairs(given.at(-1))) given.push((given.pop() as unknown[]).flat());
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
 * Whether an answer is for this person only; if nothing is said of it, that is said.
 * @param given headers that are given to `writeHead`, if any are.
 */
function isPrivate(response: ServerResponse, given: unknown): boolean {
  const more = Array.isArray(given) ? pairs(given) : Object.entries(typeof given === 'object' && given ? given : {});
  const said = (name: string) => {
    const lines = more.filter(([one]) => String(one).toLowerCase() === name).map(([, value]) => String(value));
    return lines.length > 0 ? lines : [response.getHeader(name) ?? []].flat().map(String);
  };
  // Those are for caches that do not heed the usual one (RFC 9213).
  if (said('cdn-cache-control').length > 0 || said('surrogate-control').length > 0) return false;
  const control = said('cache-control');
  if (control.length === 0) keepPrivate(response);
  return control.every((line) => /\b(?:private\b(?!\s*=)|no-store\b)/i.test(line));
}

/** Headers as a list of names and values in turn, or of pairs. */
function pairs(list: unknown[]): [unknown, unknown][] {
  if (isPairs(list)) return list;
  return list.flatMap((name, i) => (i % 2 === 0 ? [[name, list[i + 1]] as [unknown, unknown]] : []));
}

function isPairs(given: unknown): given is [unknown, unknown][] {
  return Array.isArray(given) && given.every(Array.isArray);
}
