import { isUtf8 } from 'node:buffer';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import cookieParser from 'cookie-parser';
import { AuthorisationError, SessionError, WebauthError } from './errors.js';

/** What a request is for, as it came. */
export function rawTarget(request: IncomingMessage): string {
  // Express keeps the whole target there when it hands a request to a router below a path.
  return (request as { originalUrl?: string }).originalUrl ?? request.url ?? '/';
}

/** The path and the raw query that a request is for, without decoding anything. */
export function requestTarget(request: IncomingMessage): { readonly path: string; readonly query: string } {
  const target = rawTarget(request);
  const mark = target.indexOf('?');
  return mark < 0 ? { path: target, query: '' } : { path: target.slice(0, mark), query: target.slice(mark + 1) };
}

const parseCookies = cookieParser();

/**
 * The value of a cookie, as cookie-parser reads it; undefined if it was not sent. Of a pair that is longer than browsers
 * keep, the whole pair, which opens nothing.
 * @throws SessionError if it was sent twice, or as something other than a text.
 */
export function readCookie(request: IncomingMessage, name: string): string | undefined {
  // A sibling host can add a second cookie of this name (cookie tossing). Parsers keep the first; both are rejected here.
  const [pair, second] = pairsNamed(request, name);
  if (pair === undefined) return undefined;
  if (second !== undefined) throw new SessionError('ERR_SESSION_INVALID', `the cookie ${name} was sent twice`);
  const value = parsePair(pair, name);
  if (value === undefined || typeof value === 'string') return value;
  throw new SessionError('ERR_SESSION_INVALID', `the cookie ${name} is not a plain text`);
}

/** All values of a cookie, in the order in which they were sent; an empty one stands for a value that is no text. */
export function readCookies(request: IncomingMessage, name: string): string[] {
  return pairsNamed(request, name).map((pair) => {
    const value = parsePair(pair, name);
    return typeof value === 'string' ? value : '';
  });
}

function pairsNamed({ headers: { cookie = '' } }: IncomingMessage, name: string): string[] {
  return cookie.includes(name) ? cookie.split(';').filter((one) => isNamed(one, name)) : [];
}

/** The parser gets one pair at a time: other cookies can be made to take it long. */
function parsePair(cookie: string, name: string): unknown {
  // None of this library's cookies is as long. The parser would look for JSON in it, which takes milliseconds.
  if (cookie.length > MAX_PAIR) return cookie;
  // On an object of its own, since it does its work once a request: the application's parser may know secrets.
  const parsed: { headers: { cookie: string }; cookies?: Record<string, unknown> } = { headers: { cookie } };
  parseCookies(parsed as never, {} as never, () => {});
  return parsed.cookies?.[name];
}
/** Longest pair of name and value that is parsed: characters. Browsers keep up to 4 KB. */
const MAX_PAIR = 8192;

/** The cookies that make a session: its own, and the anchor if there is one. @throws SessionError as readCookie. */
export function readSession(
  request: IncomingMessage,
  { session, anchor }: { readonly session: string; readonly anchor: string | undefined },
): [cookie: string | undefined, anchor: string | undefined] {
  return [readCookie(request, session), anchor === undefined ? undefined : readCookie(request, anchor)];
}

/** The schemes of HTTP authentication that are read here: RFC 6750, 2.1, and RFC 7617, 2. Both take one token68. */
const schemes = {
  bearer: { offered: /^bearer\b/i, whole: /^bearer +([-A-Za-z0-9._~+/]+=*)$/i },
  basic: { offered: /^basic\b/i, whole: /^basic +([-A-Za-z0-9._~+/]+=*)$/i },
};

/** The lines of Authorization, as they came: Node's `headers` keep the first. */
export function authorizationLines(request: IncomingMessage): string[] {
  return headerLines(request, 'authorization');
}

/**
 * The lines of a header, as they came. Node's `headers` join or drop some, and HTTP/2 has no `headersDistinct`.
 * @param name in lower case.
 */
function headerLines({ headers, rawHeaders }: IncomingMessage, name: string): string[] {
  if (headers[name] === undefined) return [];
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name);
}

/** Host that a request is for: in HTTP/2 a pseudo-header (RFC 9113, 8.3.1), which no header of HTTP/1.1 can be named. */
export function hostOf({ headers }: IncomingMessage): string | undefined {
  return (headers[':authority'] as string | undefined) ?? headers.host;
}

/** Whether something is offered under that scheme, in whatever form. */
export function offersScheme(request: IncomingMessage, scheme: keyof typeof schemes): boolean {
  return authorizationLines(request).some((line) => schemes[scheme].offered.test(line));
}

/** What is offered; empty where it has another form. @throws SessionError if there is more than one Authorization. */
export function readScheme(request: IncomingMessage, scheme: keyof typeof schemes): string {
  const given = authorizationLines(request);
  if (given.length === 1) return schemes[scheme].whole.exec(given[0] as string)?.[1] ?? '';
  throw new SessionError('ERR_TOKEN_INVALID', 'the request has more than one Authorization');
}

/** User and password of the scheme Basic. */
export interface UserPassword {
  readonly user: string;
  readonly password: string;
}

/**
 * Reads what the scheme Basic carries (RFC 7617, 2).
 * @returns `undefined` if it is not the one base64 encoding of UTF-8 text with a colon and without control characters.
 */
export function readBasic(request: IncomingMessage): UserPassword | undefined {
  const encoded = readScheme(request, 'basic');
  const bytes = Buffer.from(encoded, 'base64');
  if (bytes.toString('base64') !== encoded || !isUtf8(bytes)) return undefined;
  const text = bytes.toString();
  const colon = text.indexOf(':');
  if (colon < 0 || /\p{Cc}/u.test(text)) return undefined;
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** What a `Set-Cookie` says beside name and value. */
export interface CookieOptions {
  readonly secure: boolean;
  readonly path?: string;
  /** Seconds; until the browser is closed, by default. */
  readonly maxAge?: number;
  /** Whether it is for a frame in pages of another site, and is sent in that site's pages alone: false. */
  readonly partitioned?: boolean;
}

/** A `Set-Cookie`: not readable by scripts, not sent along by other sites' forms and frames. */
export function formatCookie(name: string, value: string, options: CookieOptions): string {
  const { secure, path = '/', maxAge, partitioned = false } = options;
  const age = maxAge === undefined ? '' : `; Max-Age=${maxAge}`;
  const site = partitioned ? '; SameSite=None; Partitioned' : '; SameSite=Lax';
  return `${name}=${value}; Path=${path}${age}; HttpOnly${site}${secure ? '; Secure' : ''}`;
}

/** Most `Set-Cookie` lines that remove stray cookies: proxies bound the size of a response's head. */
const MAX_REMOVALS = 40;

/**
 * `Set-Cookie` lines that remove a cookie from every path and domain from which a browser sends it to an address:
 * there a sibling host (cookie tossing) or another configuration may have set it. None for the prefix `__Host-`, which
 * browsers accept in one place only.
 */
export function formatRemovals(name: string, { protocol, hostname, pathname }: URL): string[] {
  if (name.startsWith('__Host-')) return [];
  const secure = protocol === 'https:' ? '; Secure' : '';
  const domains = ['', ...parentDomains(hostname).map((domain) => `; Domain=${domain}`)];
  const lines = parentPaths(pathname).flatMap((path) =>
    domains.map((domain) => `${name}=; Path=${path}${domain}; Max-Age=0${secure}`),
  );
  return lines.slice(0, MAX_REMOVALS);
}

/** A host name and its parents, without the top level; none for an IP address. */
function parentDomains(hostname: string): string[] {
  if (/^[\d.]+$|:/.test(hostname)) return [];
  const labels = hostname.split('.');
  return labels.slice(0, -1).map((_, i) => labels.slice(i).join('.'));
}

/** The cookie paths that match a path (RFC 6265, 5.1.4), the shortest first. */
function parentPaths(pathname: string): string[] {
  const ends = [...pathname.matchAll(/\//g)].map(({ index }) => index);
  const paths = ends.flatMap((end) => [pathname.slice(0, end), pathname.slice(0, end + 1)]);
  return [...new Set([...paths, pathname])].filter((path) => path !== '');
}

/** The application's own origins, and others that were named beside them. */
export function withOwn(own: ReadonlySet<string>, others: readonly string[] = []): ReadonlySet<string> {
  return others.length === 0 ? own : new Set([...own, ...others]);
}

/**
 * Holds the request's Origin to a set of allowed ones, as whole strings.
 * @throws AuthorisationError if it is another one, `null`, doubled, or missing.
 */
export function checkOrigin(request: IncomingMessage, allowed: ReadonlySet<string>): void {
  // Node joins several lines by commas, which no origin has.
  if (allowed.has(request.headers.origin ?? '')) return;
  throw new AuthorisationError('ERR_ORIGIN_REFUSED', describeOrigin(request, allowed));
}

/** Says which Origin a request has, which are allowed, and what to do. */
function describeOrigin(request: IncomingMessage, allowed: ReadonlySet<string>): string {
  const [origin, second] = headerLines(request, 'origin');
  const list = `allowed: ${[...allowed].join(', ')}`;
  if (second !== undefined) return `the request has more than one Origin; ${list}`;
  if (origin === undefined) return `the request has ${describeMissingOrigin(request)}; ${list}`;
  return `the request has another Origin, ${quoteHeader(origin)}; ${list}. The origin in the address bar of the page has to be that of baseUrl, or be listed in the option origins`;
}

/** Says that a request has no Origin, and why not, as far as the browser says. */
export function describeMissingOrigin(request: IncomingMessage): string {
  const { headers } = request;
  if (headers['sec-fetch-site'] === undefined) return 'no Origin, which browsers send and a test has to send itself';
  if (headers['sec-fetch-site'] !== 'same-origin' || isElementRead(request)) return 'no Origin';
  return 'no Origin, but Sec-Fetch-Site: same-origin, so that the browser has sent one: a proxy in front of the application removes the header Origin, and has to pass it on';
}

/** The value of a header in a message, cut to 100 characters. */
export function quoteHeader(value: string): string {
  return JSON.stringify(value.slice(0, 100));
}

/**
 * The same for a form of our own page, with what browsers send under a strict referrer policy: `null`, and the
 * browser's own word that the page is ours.
 */
export function checkFormOrigin(request: IncomingMessage, allowed: ReadonlySet<string>): void {
  const own = request.headers['sec-fetch-site'] === 'same-origin';
  if (own && headerLines(request, 'origin').join() === 'null') return;
  checkOrigin(request, allowed);
}

/**
 * Whether the browser declares that a script of our own page reads something by `fetch` or `XMLHttpRequest`. Browsers
 * send no Origin with such a request. A WebSocket handshake always has one.
 */
export function isOwnRead(request: IncomingMessage): boolean {
  const { method, headers } = request;
  if (method !== 'GET' || headers.upgrade !== undefined || headers['sec-fetch-site'] !== 'same-origin') return false;
  const isDeclared = headers['sec-fetch-dest'] !== undefined && headers['sec-fetch-mode'] !== undefined;
  return isDeclared && !isElementRead(request);
}

/**
 * Whether the browser declares that an element of a page (image, script, frame), a navigation or a prefetch sent a GET
 * request, and not a script of the page. An attacker can plant an element where no script runs. `false` if the client
 * sends no Fetch Metadata (https://www.w3.org/TR/fetch-metadata/).
 */
export function isElementRead({ method, headers }: IncomingMessage): boolean {
  if (method !== 'GET') return false;
  const { 'sec-fetch-dest': destination = 'empty', 'sec-fetch-mode': mode = 'cors' } = headers;
  if (destination !== 'empty' || (mode !== 'cors' && mode !== 'same-origin')) return true;
  return isPrefetch(headers) || isPassedThrough(headers);
}

/**
 * Whether a service worker of Firefox passes a navigation through. Firefox declares it as a `fetch()` of the worker, with
 * the mode `same-origin`, but keeps the header `Upgrade-Insecure-Requests`, which browsers send with navigations only.
 */
function isPassedThrough(headers: IncomingHttpHeaders): boolean {
  return headers['sec-fetch-mode'] === 'same-origin' && headers['upgrade-insecure-requests'] === '1';
}

/** Whether the browser declares a navigation that a login can begin with, once a service worker passed it through. */
function isPassedPage(headers: IncomingHttpHeaders): boolean {
  const { 'sec-fetch-site': site, 'sec-fetch-dest': destination } = headers;
  return isPassedThrough(headers) && site === 'same-origin' && destination === 'empty' && acceptsHtml(headers.accept);
}

/** Whether the browser declares a prefetch. Before Sec-Purpose, Firefox sent X-Moz, and Chromium and Safari Purpose. */
function isPrefetch(headers: IncomingHttpHeaders): boolean {
  return ['sec-purpose', 'purpose', 'x-moz'].some((name) => /\bprefetch\b/i.test(String(headers[name])));
}

/** Whether a page of another origin reads something, as far as its browser says. */
export function isForeignRead({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  return site === 'same-site' || site === 'cross-site';
}

/** Whether the method is one that changes nothing (RFC 9110, 9.2.1), so that anybody may make a browser send it. */
export function isSafe({ method }: IncomingMessage): boolean {
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS';
}

/** Whether a response is one of Node's compatibility API of HTTP/2. */
export function isHttp2(response: ServerResponse): boolean {
  return 'stream' in response;
}

/**
 * Adds a header to those of its name. Node's `appendHeader` changes the list that a handler gave to `setHeader`: one that
 * answers share would collect the cookies of all users.
 */
export function addHeader(response: ServerResponse, name: string, value: string): void {
  const set = response.getHeader(name);
  response.setHeader(name, set === undefined ? value : [set, value].flat().map(String));
}

/** What was not read yet of the request is not waited for. */
export function closeUnread(response: ServerResponse): void {
  // HTTP/2 ends streams, not connections, and forbids the header (RFC 9113, 8.2.2).
  if (!response.req.complete && !isHttp2(response)) response.setHeader('Connection', 'close');
}

/** Answers with JSON that nobody may store. */
export function sendData(response: ServerResponse, status: number, data: object): void {
  const body = JSON.stringify(data);
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(body);
}

/** Answers a request whose method is none of those that its address takes. */
export function refuseMethod(response: ServerResponse, allowed: readonly string[]): void {
  const text = `This address takes ${allowed.join(' and ')} only.\n`;
  response.writeHead(405, { Allow: allowed.join(', '), 'Cache-Control': 'no-store', 'Content-Type': 'text/plain' });
  response.end(text);
}

/** What `WWW-Authenticate` says where a login is what is missing (RFC 9110, 11.6.1: 401 has to name something). */
export function loginChallenge(origin: string): string {
  return `Ucam-WebAuth realm="${origin}"`;
}

/** What an answer says of an error: nothing of one that is not ours. */
export function described(error: unknown): {
  readonly status: number;
  readonly code: string;
  readonly message: string;
} {
  return error instanceof WebauthError ? error : { status: 500, code: 'ERR_INTERNAL', message: 'something went wrong' };
}

/** When to come back after an answer of that status, if it says: seconds. */
export function retryAfter(status: number): string | undefined {
  return { 429: '30', 503: '5' }[status];
}

/** Whether a browser navigates to a page, so that it can be redirected to a login. */
export function isNavigation(request: IncomingMessage): boolean {
  return (request.method === 'GET' || request.method === 'HEAD') && wantsPage(request);
}

/** Destinations (Fetch, 2.2.5) of pages inside of another page. */
const frames: ReadonlySet<string> = new Set(['iframe', 'frame', 'object', 'embed', 'fencedframe']);

/**
 * Purpose of a request according to its browser: a page of a window, a page inside of another page, part of a page, or
 * a copy in case the user goes there. A request without these headers counts as a page of a window.
 */
export function purposeOf({ headers }: IncomingMessage): 'window' | 'frame' | 'part' | 'prefetch' {
  if (isPrefetch(headers)) return 'prefetch';
  const mode = headers['sec-fetch-mode'];
  // Every browser that sends the one sends the other; fetch() of Node sends the mode alone, and is no page's doing.
  if (mode === undefined || headers['sec-fetch-site'] === undefined) return 'window';
  if (isPassedPage(headers)) return 'window';
  if (mode !== 'navigate') return 'part';
  // A service worker that passes a navigation through sends `empty`.
  const destination = String(headers['sec-fetch-dest'] ?? 'document');
  if (destination === 'document' || destination === 'empty') return 'window';
  return frames.has(destination) ? 'frame' : 'part';
}

/**
 * Whether the response is for a person to read: whether the browser declares a navigation (Fetch Metadata) or, without
 * that header, the client accepts HTML by name and no script of a page declares the request. Android WebViews send the
 * name of their application as `X-Requested-With`, with navigations too.
 */
export function wantsPage({ headers }: IncomingMessage): boolean {
  const mode = headers['sec-fetch-mode'];
  if (mode !== undefined) return mode === 'navigate' || isPassedPage(headers);
  return acceptsHtml(headers.accept) && !isScripted(headers['x-requested-with']);
}

/** Whether a range of `Accept` is `text/html`, with a weight above 0 (RFC 9110, 12.4.2 and 12.5.1). */
function acceptsHtml(accept = ''): boolean {
  return accept.split(',').some((range) => {
    const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    return type === 'text/html' && !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter));
  });
}

/** Whether `X-Requested-With` names XMLHttpRequest. A WebView may add the name of its application. */
function isScripted(requestedWith: string | string[] = ''): boolean {
  const values = String(requestedWith).split(',');
  return values.some((value) => value.trim().toLowerCase() === 'xmlhttprequest');
}

/** Names compared as cookie-parser splits them: at `;`, up to the first `=`, without blanks and tabs around. */
function isNamed(pair: string, name: string): boolean {
  const equals = pair.indexOf('=');
  const at = pair.indexOf(name);
  return at >= 0 && equals >= at + name.length && isBlank(pair, 0, at) && isBlank(pair, at + name.length, equals);
}

// Anchored at its beginning: to trim with an expression for the end takes quadratic time over a run of blanks.
function isBlank(text: string, from: number, to: number): boolean {
  return /^[ \t]*$/.test(text.slice(from, to));
}
