import type { Dice } from './dice.js';
import { mutateResponse, type Stock } from './mutations.js';
import { returns } from './returns.js';
import { friend } from './site.js';
import type { World } from './world.js';

/** A request before it is sent. All texts hold bytes, one character each. */
export interface Draft {
  method: string;
  target: string;
  version: string;
  headers: [name: string, value: string][];
  body: string;
  /** Changes of the bytes that all this makes. */
  readonly edits: ((bytes: string) => string)[];
}

export type Twist = (draft: Draft, dice: Dice, world: World) => void;

/** What goes wrong in a request, or is tried in it. */
export const twists: readonly (readonly [Twist, number])[] = [
  [twistMethod, 6],
  [twistPath, 10],
  [twistQuery, 22],
  [twistResponse, 12],
  [twistHeader, 26],
  [twistCookie, 24],
  [twistBody, 5],
  [twistVersion, 1],
  [twistBytes, 4],
];

export function utf8(text: string): string {
  return Buffer.from(text).toString('latin1');
}

/** The query that a browser makes of the text: each byte percent-encoded that has to be. */
export function encodeQuery(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

export function encodeAll(text: string): string {
  return [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}

const methods = [
  ...['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', 'PROPFIND', 'M-SEARCH', 'PURGE', 'QUERY'],
  ...['get', 'Post', 'FROB', 'CONNECT', '', 'G\0ET', 'GET\tX', 'POST POST', '\xff'],
];

function twistMethod(draft: Draft, dice: Dice): void {
  draft.method = dice.pick(methods);
}

/** Other spellings of a path, and of other addresses. */
const paths: readonly ((path: string, world: World, dice: Dice) => string)[] = [
  (path) => `${path}/`,
  (path) => `/${path}`,
  (path) => `//evil.example${path}`,
  (path) => `/\\evil.example${path}`,
  (path) => `http://evil.example${path}`,
  (path, { site }) => site.origin + path,
  (path, { site }) => site.origin.toUpperCase() + path,
  (path, _world, dice) => at(path, dice, encodeAll),
  (path, _world, dice) => at(path, dice, (letter) => letter.toUpperCase()),
  (path) => `/x/..${path}`,
  (path) => `/.${path}`,
  (path) => `/%2e%2e${path}`,
  (path) => `${path};a=b`,
  (path) => `${path}%00`,
  (path) => `${path}%2f`,
  (path) => `${path}/%`,
  (path) => `${path}/%c0%af`,
  (path) => `${path}\\`,
  (path) => `${path}#x`,
  (path) => `${path}\xff\xfe`,
  (path) => `${path}\xc3\xa9`,
  (path) => `${path}\x01`,
  (path) => `${path} `,
  (path) => path.slice(1),
  (_path, { site }) => `${site.path}/any/%e0%a4%a`,
  (_path, { site }) => `${site.path}/any/__proto__`,
  (_path, { site }) => `${site.path}/below/../private`,
  (_path, { site }, dice) => dice.pick(Object.values(site.routes)),
  (path, _world, dice) => `${path}/${'a'.repeat(dice.below(14_000))}`,
  (_path, _world, dice) => dice.pick(['*', '', '/', '//', '/__proto__', 'javascript:alert(1)', '?', '/?', 'evil:80']),
];

function twistPath(draft: Draft, dice: Dice, world: World): void {
  const { path, query } = split(draft.target);
  draft.target = join(dice.pick(paths)(path, world, dice), query);
}

function at(text: string, dice: Dice, by: (letter: string) => string): string {
  const place = dice.below(text.length);
  return text.slice(0, place) + by(text.charAt(place)) + text.slice(place + 1);
}

function split(target: string): { path: string; query: string | undefined } {
  const mark = target.indexOf('?');
  return mark < 0 ? { path: target, query: undefined } : { path: target.slice(0, mark), query: target.slice(mark + 1) };
}

function join(path: string, query: string | undefined): string {
  return query === undefined ? path : `${path}?${query}`;
}

const values = [
  ...['', 'yes', 'no', 'YES', '1', '0', 'true', 'null', 'undefined', '[object Object]', '-1', '300', '1e9', '0x10'],
  ...[
    'NaN',
    'Infinity',
    '1.5',
    ' 5',
    '٣',
    '99999999999999999999',
    'pwd',
    'pwd,',
    ',',
    'x-card',
    'pwd,x-card',
    '__proto__',
  ],
  ...['%', '%zz', '%00', '%ff%fe', '%c0%af', '%ed%a0%80', '+', '\xe9', '"', '<b>', '{}', '[]', '../../etc/passwd'],
];

/** Spellings of a parameter's name. */
const spellings: readonly ((name: string) => string)[] = [
  (name) => name,
  (name) => name,
  (name) => name,
  (name) => `${name}[]`,
  (name) => `${name}[0]`,
  (name) => `${name}[a][b]`,
  (name) => `${name}.a`,
  (name) => name.toLowerCase(),
  (name) => name.toUpperCase(),
  (name) => encodeAll(name),
  (name) => name.replace('-', '%2d'),
  (name) => `${name}%00`,
  (name) => `${name} `,
  (name) => `+${name}`,
];

const queryNames = [
  'return',
  'iact',
  'aauth',
  'maxAge',
  'everywhere',
  'moved',
  'ticket',
  '__proto__',
  'constructor',
  '',
];

function makePair(dice: Dice, world: World): string {
  const name = dice.percent(40) ? 'WLS-Response' : dice.pick(queryNames);
  const value = makeValue(name, dice, world);
  const encode = dice.pick([encodeQuery, encodeQuery, utf8, encodeAll]);
  return `${dice.pick(spellings)(name)}=${encode(value)}`;
}

function makeValue(name: string, dice: Dice, world: World): string {
  if (name === 'WLS-Response') return anyResponse(dice, world);
  if (name === 'ticket') return dice.pick([dice.pick(world.tickets), dice.pick(dice.pick(world.foreign).tickets)]).text;
  return dice.pick(name === 'return' ? returns : values);
}

/** A response that is no answer to an attempt here, or not any more, or is none at all. */
function anyResponse(dice: Dice, world: World): string {
  const theirs = dice.pick(world.foreign).spares;
  const genuine = dice.pick([dice.pick(world.spares), dice.pick(world.spent), dice.pick(theirs)]);
  if (dice.percent(60)) return mutateResponse(genuine.encoded, dice, stockOf(world));
  return dice.percent(60) ? genuine.encoded : dice.pick(['', 'x', '3!200', '!'.repeat(5000), '3'.repeat(9000)]);
}

export function stockOf({ spares, keys }: World): Stock {
  return { others: spares.map(({ encoded }) => encoded), keys };
}

const queries: readonly ((pairs: string[], dice: Dice, world: World) => string[])[] = [
  (pairs, dice, world) => [...pairs, makePair(dice, world)],
  (pairs, dice, world) => [makePair(dice, world), ...pairs],
  (pairs, dice, world) => [...pairs, makePair(dice, world), makePair(dice, world), makePair(dice, world)],
  (_pairs, dice, world) => [makePair(dice, world)],
  (pairs, dice) => [...pairs, dice.pick(pairs)],
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replace(/^[^=]*/, dice.pick(spellings))),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replace(/=.*/s, `=${dice.pick([...values, ...returns])}`)),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replaceAll('%', '%25')),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replace(/%../, '%')),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => at(`${pair} `, dice, encodeAll).trimEnd()),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => at(`${pair}x`, dice, () => dice.pick(values))),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.slice(0, dice.below(pair.length + 1))),
  (pairs) => [pairs.join(';')],
  (pairs) => [pairs.join('&&&'), '', ''],
  (pairs) => [`?${pairs.join('&')}`],
  (pairs, dice) => [...pairs, ...Array<string>(dice.below(800)).fill('a=b')],
  (pairs, dice) => [...pairs, `a=${'b'.repeat(dice.below(14_000))}`],
  (pairs, dice) => [...pairs, `${'a['.repeat(dice.below(2000))}=b`],
];

function twistQuery(draft: Draft, dice: Dice, world: World): void {
  const { path, query = '' } = split(draft.target);
  draft.target = join(path, dice.pick(queries)(query.split('&'), dice, world).map(utf8OrBytes).join('&'));
}

/** What is text becomes bytes; what is bytes already stays as it is. */
function utf8OrBytes(text: string): string {
  return /[^\0-\xff]/.test(text) ? utf8(text) : text;
}

function replaceOne(pairs: string[], dice: Dice, by: (pair: string) => string): string[] {
  const place = dice.below(pairs.length);
  return pairs.map((pair, i) => (i === place ? by(pair) : pair));
}

/** Changes the response in the query: what it says, or how that is written. */
function twistResponse(draft: Draft, dice: Dice, world: World): void {
  draft.target = draft.target.replace(/(?<=WLS-Response=)[^&]*/, (raw) => {
    const encoded = decode(raw);
    const mutated = dice.percent(85) ? mutateResponse(encoded, dice, stockOf(world)) : encoded;
    return dice.pick([encodeQuery, encodeQuery, encodeQuery, encodeAll, utf8])(mutated);
  });
}

function decode(raw: string): string {
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}

function hostOf({ site }: World): string {
  return new URL(site.origin).host;
}

/** Spellings of our origin, and of others. */
const origins: readonly ((own: string) => string)[] = [
  (own) => own,
  () => 'null',
  () => friend,
  () => '',
  () => 'https://evil.example',
  () => 'https://evil.cam.ac.uk',
  (own) => `${own}/`,
  (own) => own.toUpperCase(),
  (own) => `${own}:443`,
  (own) => `${own}.evil.example`,
  (own) => own.replace('://', '://evil.example@'),
  (own) => own.replace('://', '://evil.'),
  (own) => `${own}, ${own}`,
  (own) => `${own} https://evil.example`,
  (own) => `null, ${own}`,
  (own) => own.replace(/^https?/, (scheme) => (scheme === 'https' ? 'http' : 'https')),
  (own) => own.replace(/^https?:/, ''),
  (own) => `${own}\x00`,
  (own) => `${own}\xe9`,
  () => 'file://',
  () => 'undefined',
];

const referers: readonly ((own: string, dice: Dice, world: World) => string)[] = [
  (own) => `${own}/private?a=b`,
  (own) => `${own}//evil.example/`,
  (own) => `${own}/\\evil.example/`,
  (own, dice, world) => `${own}/webauth/callback?WLS-Response=${encodeQuery(dice.pick(world.spares).encoded)}`,
  (own) => `${own.replace('://', '://user:pass@')}/private`,
  (own) => `${own}:99999/`,
  (own) => `${own}/${'a'.repeat(3000)}`,
  (own) => `${own}/\xe9`,
  () => 'https://evil.example/',
  () => 'about:blank',
  () => 'http://[',
  () => '//',
  () => '',
];

const pages = ['text/html', '*/*', '', 'application/json', 'TEXT/HTML', 'text/html;q=0', ',,,text/html,,,', '\xff'];
const fetchMetadata = [
  'none',
  'same-origin',
  'same-site',
  'cross-site',
  'navigate',
  'cors',
  '',
  '?1',
  'NAVIGATE',
  'a, b',
];

/** Headers by name, and what they may say. */
const headers: readonly (readonly [string, (dice: Dice, world: World) => string])[] = [
  ['Origin', (dice, { site }) => dice.pick(origins)(site.origin)],
  ['Origin', (dice, { site }) => dice.pick(origins)(site.origin)],
  ['Host', (dice, world) => dice.pick(['evil.example', '', 'localhost', `user@${hostOf(world)}`, `${hostOf(world)}.`])],
  [
    'Host',
    (dice, world) => dice.pick([hostOf(world).toUpperCase(), `${hostOf(world)}:1`, '[::1]', 'a b', '\xe9', '"']),
  ],
  ['Sec-Fetch-Site', (dice) => dice.pick(fetchMetadata)],
  ['Sec-Fetch-Mode', (dice) => dice.pick(fetchMetadata)],
  ['Sec-Fetch-User', (dice) => dice.pick(fetchMetadata)],
  ['Sec-Fetch-Dest', (dice) => dice.pick(['document', 'iframe', 'empty', 'websocket'])],
  ['Accept', (dice) => dice.pick(pages)],
  ['Accept', (dice) => 'text/html,'.repeat(dice.below(900))],
  ['X-Requested-With', (dice) => dice.pick(['XMLHttpRequest', ''])],
  ['Referer', (dice, world) => dice.pick(referers)(world.site.origin, dice, world)],
  ['X-Forwarded-Host', () => 'evil.example'],
  ['X-Forwarded-Proto', (dice) => dice.pick(['https', 'http', 'javascript'])],
  ['X-Forwarded-For', () => '127.0.0.1'],
  ['Forwarded', () => 'host=evil.example;proto=https'],
  ['X-Original-URL', (dice, { site }) => dice.pick([site.routes.logout, '/private'])],
  ['X-HTTP-Method-Override', (dice) => dice.pick(['POST', 'GET'])],
  ['Authorization', (dice) => dice.pick(['Basic YTpi', 'Bearer x', 'Bearer', '\xff'])],
  ['Connection', (dice) => dice.pick(['close', 'Upgrade', 'keep-alive', 'x', 'keep-alive, Upgrade', 'cookie'])],
  ['Upgrade', (dice) => dice.pick(['websocket', 'h2c', 'WebSocket, h2c', '', 'TLS/1.0'])],
  ['Sec-WebSocket-Protocol', (dice) => dice.pick(['a', 'a, a', ',', 'v1.token.websocket.jupyter.org', '('])],
  ['Sec-WebSocket-Version', (dice) => dice.pick(['13', '8', '0', ''])],
  ['Sec-WebSocket-Key', (dice) => dice.pick(['', 'x', 'dGhlIHNhbXBsZSBub25jZQ=='])],
  ['Sec-WebSocket-Extensions', (dice) => dice.pick(['permessage-deflate', 'x;;', ','])],
  ['Expect', (dice) => dice.pick(['100-continue', '200-ok', ''])],
  ['Range', () => 'bytes=0-1'],
  ['If-None-Match', () => '*'],
  ['If-Modified-Since', () => 'Sun, 01 Mar 2099 12:00:00 GMT'],
  ['Accept-Encoding', () => 'gzip, br, *;q=0'],
  ['Content-Type', (dice) => dice.pick(['application/json', 'multipart/form-data', 'x', ''])],
  ['Cookie2', () => '$Version=1'],
  ['__proto__', () => 'x'],
  ['constructor', () => 'x'],
  ['X-A', (dice) => 'b'.repeat(dice.below(15_500))],
  ['X-B', (dice) => dice.pick(['\xff\xfe', 'a\tb', 'a\0b', 'a\rb', 'a\r\n b', 'a\x7f'])],
  ['X C', () => 'x'],
  ['', () => 'x'],
];

const headerOperations: readonly (readonly [Twist, number])[] = [
  [setHeader, 8],
  [(draft, dice, world) => draft.headers.push(makeHeader(dice, world)), 3],
  [(draft, dice) => draft.headers.splice(dice.below(draft.headers.length), 1), 2],
  [(draft, dice) => draft.headers.push([...(dice.pick(draft.headers) ?? ['X', ''])]), 2],
  [(draft, dice) => respellName(draft, dice), 1],
  [(draft, dice) => fill(draft, dice.below(400)), 1],
];

function twistHeader(draft: Draft, dice: Dice, world: World): void {
  dice.weighted(headerOperations)(draft, dice, world);
}

function makeHeader(dice: Dice, world: World): [string, string] {
  const [name, value] = dice.pick(headers);
  return [name, utf8OrBytes(value(dice, world))];
}

function setHeader(draft: Draft, dice: Dice, world: World): void {
  const header = makeHeader(dice, world);
  draft.headers = [...draft.headers.filter(([name]) => name !== header[0]), header];
}

function respellName(draft: Draft, dice: Dice): void {
  const header = dice.pick(draft.headers);
  if (header) header[0] = dice.pick([header[0].toUpperCase(), header[0].toLowerCase(), `${header[0]} `]);
}

function fill(draft: Draft, count: number): void {
  for (let i = 0; i < count; i++) draft.headers.push([`X-${i}`, 'a']);
}

/** The pairs of the Cookie header, changed. */
const cookieOperations: readonly ((pairs: string[], dice: Dice, world: World) => string[])[] = [
  (pairs, dice) => [...pairs, dice.pick(pairs)],
  (pairs, dice) => [...pairs, dice.pick(pairs).replace('=', '\t =')],
  (pairs, dice) => [...pairs, dice.pick(pairs).replace(/=.*/s, '=planted')],
  (pairs, dice) => [dice.pick(pairs).replace(/=.*/s, '=planted'), ...pairs],
  (pairs, dice) => replaceOne(pairs, dice, (pair) => at(pair, dice, (letter) => flipCase(letter))),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => at(pair, dice, (letter) => next(letter))),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.slice(0, -1 - dice.below(40))),
  (pairs, dice) =>
    replaceOne(pairs, dice, (pair) => pair + dice.pick(['A', '=', '==', '.', ' x', '%00', '\xff', ';', '"'])),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replace('=', '="').concat('"')),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.replace(/=(.)/, (_, letter) => `=${encodeAll(letter)}`)),
  (pairs, dice) =>
    replaceOne(pairs, dice, (pair) => pair.replace('=', dice.pick(['=j:', '=s:', '= ', '', '==', ' = ']))),
  (pairs, dice) => replaceOne(pairs, dice, (pair) => pair.toUpperCase()),
  (pairs, dice) =>
    replaceOne(pairs, dice, (pair) => pair.replace(/^(?:__Host-)?/, dice.pick(['__Secure-', '__host-', '']))),
  (pairs, dice, world) => replaceOne(pairs, dice, (pair) => pair.replace(/=.*/s, `=${cookieValue(dice, world)}`)),
  (pairs, dice, world) => [...pairs, `${cookieName(dice, world)}=${cookieValue(dice, world)}`],
  (pairs, dice, world) => [`${cookieName(dice, world)}=${cookieValue(dice, world)}`, ...pairs],
  (_pairs, dice, world) => [`${cookieName(dice, world)}=${cookieValue(dice, world)}`],
  (pairs, dice) => [...Array.from({ length: dice.below(2200) }, (_, i) => `a${i}=b`), ...pairs],
  (pairs, dice) => [...pairs, ...Array<string>(dice.below(5000)).fill('a')],
  (pairs, dice) => [...pairs, ' \t'.repeat(dice.below(7000))],
  (pairs, dice, { site }) => [...pairs, `${site.cookies.session}${'\t'.repeat(dice.below(14_000))}x`],
  (pairs) => [pairs.join(', ')],
  (pairs) => pairs.toReversed(),
  () => [],
];

function twistCookie(draft: Draft, dice: Dice, world: World): void {
  const place = draft.headers.findIndex(([name]) => name === 'Cookie');
  const pairs = (draft.headers[place]?.[1] ?? 'a=b').split('; ');
  const changed = dice.pick(cookieOperations)(pairs, dice, world).map(utf8OrBytes);
  const separator = dice.weighted([
    ['; ', 12],
    [';', 1],
    [';;', 1],
  ]);
  draft.headers = draft.headers.filter(([name]) => name !== 'Cookie');
  if (dice.percent(8)) draft.headers.push(...changed.slice(0, 40).map((pair): [string, string] => ['Cookie', pair]));
  else draft.headers.push(['Cookie', changed.join(separator)]);
}

function flipCase(letter: string): string {
  return letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase();
}

function next(letter: string): string {
  return String.fromCharCode((letter.charCodeAt(0) + 1) & 0x7f);
}

function cookieName(dice: Dice, { site: { cookies } }: World): string {
  const { session, anchor = session, login, done } = cookies;
  const others = ['__proto__', 'constructor', 'hasOwnProperty', 'toString', '', ' ', `x${session}`, `${session}2`];
  return dice.percent(80) ? dice.pick([session, anchor, login, done]) : dice.pick(others);
}

const cookieValues = [
  ...[
    '',
    '1',
    'j:{"principal":"person-00"}',
    'j:["a"]',
    'j:null',
    'j:{"__proto__":{"auth":1}}',
    's:a.b',
    '"',
    '""',
    '%',
  ],
  ...[
    '%E0%A4%A',
    '\xff\xfe',
    '=',
    'A'.repeat(46),
    'A'.repeat(9000),
    'A'.repeat(15_000),
    '__proto__',
    '[object Object]',
    'null',
    'deleted',
    '<b>',
  ],
];

/** Something that is secret somewhere, but perhaps not here; or nothing of the kind. */
function cookieValue(dice: Dice, world: World): string {
  const theirs = dice.pick(world.foreign);
  const secrets = [
    ...[dice.pick(world.victims), dice.pick(world.gone), dice.pick(theirs.victims)].map(({ cookie }) => cookie),
    ...[dice.pick(world.attempts), dice.pick(theirs.attempts)].map(({ nonce }) => nonce),
    dice.pick(world.victims).anchor ?? '',
    new URL(dice.pick(world.attempts).location).searchParams.get('params') ?? '',
    encodeQuery(dice.pick(world.spares).encoded),
    dice.pick(world.tickets).text,
  ];
  return dice.percent(60) ? dice.pick(secrets) : dice.pick(cookieValues);
}

const bodies: readonly ((body: string, dice: Dice) => { headers: [string, string][]; body: string })[] = [
  (body) => sized(body),
  (_body, dice) => sized('a'.repeat(dice.below(20_000))),
  (body) => ({
    headers: [['Transfer-Encoding', 'chunked']],
    body: `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
  }),
  (body) => ({ headers: [['Transfer-Encoding', 'chunked']], body: `zz\r\n${body}` }),
  (body) => ({ headers: [['Transfer-Encoding', 'gzip']], body }),
  (body) => ({ headers: [['Content-Length', String(body.length + 10)]], body }),
  (body) => ({ headers: [['Content-Length', String(body.length - 3)]], body }),
  (body, dice) => ({
    headers: [['Content-Length', dice.pick(['-1', 'x', '1e3', '0x10', '', '99999999999999999999'])]],
    body,
  }),
  (body) => ({ headers: [...sized(body).headers, ['Content-Length', '1']], body }),
  (body) => ({ headers: [...sized(body).headers, ['Transfer-Encoding', 'chunked']], body: `0\r\n\r\n${body}` }),
];

function sized(body: string): { headers: [string, string][]; body: string } {
  return { headers: [['Content-Length', String(body.length)]], body };
}

const forms = [
  'everywhere=yes',
  '{"everywhere":"yes"}',
  '{"__proto__":{"auth":1}}',
  '\0\xff',
  'GET / HTTP/1.1\r\n\r\n',
];

function twistBody(draft: Draft, dice: Dice): void {
  const { headers: framing, body } = dice.pick(bodies)(dice.pick(forms), dice);
  draft.headers = [
    ...draft.headers.filter(([name]) => !/^(?:content-length|transfer-encoding)$/i.test(name)),
    ...framing,
  ];
  draft.body = body;
  if (dice.percent(60)) draft.method = 'POST';
}

function twistVersion(draft: Draft, dice: Dice): void {
  draft.version = dice.pick(['HTTP/1.0', 'HTTP/1.2', 'HTTP/0.9', 'HTTP/2.0', 'http/1.1', '', 'HTTP/1.1 x']);
}

/** The bytes anywhere, once all is put together. */
function twistBytes(draft: Draft, dice: Dice): void {
  const [place, length, operation] = [dice.below(1 << 20), 1 + dice.below(8), dice.below(4)];
  const inserted = dice.pick(['\r\n', '\n', '\0', ' ', ':', '%', '\xff', '\r\n\r\n', 'GET / HTTP/1.1\r\n']);
  draft.edits.push((bytes) => {
    const from = place % bytes.length;
    const piece = bytes.slice(from, from + length);
    const [by, to] = [[inserted, '', piece + piece, next(piece)][operation], operation === 0 ? from : from + length];
    // Ended once more, since the end itself may be gone: the server would wait for it.
    return `${bytes.slice(0, from)}${by}${bytes.slice(to)}\r\n\r\n`;
  });
}
