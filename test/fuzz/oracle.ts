import { type Answer, headerOf } from './connection.js';
import type { Shot } from './requests.js';
import { friend, opened, pages, taken } from './site.js';
import { cookieSet, type Genuine, type Member, type Ticket, type World } from './world.js';

/** What a request says, read in another way than the library's, and what it may therefore do. */
export interface View {
  readonly shot: Shot;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Whose live session it brings, and nothing else under that name. */
  readonly member: Member | undefined;
  /** Live sessions of all cookies under that name, whatever else is there: a logout revokes them, and a login too. */
  readonly carried: readonly Member[];
  /** The good response, not used yet, that it brings to the callback together with the cookie of its attempt. */
  readonly response: Genuine | undefined;
  /** The tickets of live sessions, not used yet, that it brings. */
  readonly tickets: readonly Ticket[];
  /** Whether a page of our own may have sent it. */
  readonly isOwn: boolean;
  /** Other sessions of this person, if it asks to end them too; undefined if it does not. */
  readonly companions: readonly Member[] | undefined;
}

/** Reads a request just before it is sent. */
export function view(shot: Shot, world: World): View {
  const said = read(shot.bytes.toString('latin1'));
  const member = findMember(said, world);
  return {
    shot,
    ...said,
    member,
    carried: findCarried(said, world),
    response: findResponse(said, world),
    tickets: findTickets(said, world),
    isOwn: isOwn(said.headers, world.site.origin),
    companions: member && asksEverywhere(said) ? findCompanions(member, world) : undefined,
  };
}

function asksEverywhere({ query }: Said): boolean {
  return query.split('&').includes('everywhere=yes');
}

function findCompanions(member: Member, { members }: World): Member[] {
  return [...members.values()].filter((other) => other !== member && other.principal === member.principal);
}

type Said = Pick<View, 'method' | 'path' | 'query' | 'headers'>;

function read(text: string): Said {
  // Node forgives line ends before a request.
  const start = /^[\r\n]*/.exec(text)?.[0].length ?? 0;
  const [line = '', ...lines] = text.slice(start, text.indexOf('\r\n\r\n', start)).split('\r\n');
  const [method = '', target = ''] = line.split(' ');
  const mark = `${target}?`.indexOf('?');
  const headers = lines.map((each): [string, string] => {
    const colon = `${each}:`.indexOf(':');
    return [
      each.slice(0, colon).toLowerCase(),
      each
        .slice(colon + 1)
        .replace(/^[ \t]+/, '')
        .trimEnd(),
    ];
  });
  return { method, path: target.slice(0, mark), query: target.slice(mark + 1), headers };
}

function valuesOf(headers: Said['headers'], name: string): string[] {
  return headers.filter(([key]) => key === name).map(([, value]) => value);
}

/** The values of all cookies of that name, decoded as far as parsers do. */
function cookies(headers: Said['headers'], name: string): string[] {
  const pairs = valuesOf(headers, 'cookie').join('; ').split(';');
  return pairs
    .map((pair) => pair.split('='))
    .filter(([key = '', ...values]) => key.trim() === name && values.length > 0)
    .map(([, ...values]) => decodeCookie(values.join('=').trim()));
}

function decodeCookie(raw: string): string {
  const value = attempt(() => decodeURIComponent(unquote(raw))) ?? unquote(raw);
  if (!value.startsWith('j:')) return value;
  // cookie-parser's own: what is behind it is JSON, and can be a text.
  const parsed: unknown = attempt(() => JSON.parse(value.slice(2)));
  return typeof parsed === 'string' ? parsed : value;
}

function unquote(raw: string): string {
  return /^"(.*)"$/s.exec(raw)?.[1] ?? raw;
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

function only<T>(values: readonly string[], from: ReadonlyMap<string, T>): T | undefined {
  return values.length === 1 ? from.get(values[0] as string) : undefined;
}

function findMember({ headers }: Said, { site, members }: World): Member | undefined {
  const member = only(cookies(headers, site.cookies.session), members);
  const anchors = site.cookies.anchor === undefined ? [] : cookies(headers, site.cookies.anchor);
  const isBound = site.cookies.anchor === undefined || (anchors.length === 1 && anchors[0] === member?.anchor);
  return isBound && !member?.ended ? member : undefined;
}

function findCarried({ headers }: Said, { site, members }: World): Member[] {
  const found = cookies(headers, site.cookies.session).map((value) => members.get(value));
  return [...new Set(found)].filter((member): member is Member => member !== undefined && !member.ended);
}

/** Whether a logout may have met a session cookie that another machine made. */
function bringsForeign(seen: View, world: World): boolean {
  const { site, members } = world;
  return isLogout(seen, world) && cookies(seen.headers, site.cookies.session).some((value) => !members.has(value));
}

function findResponse({ method, path, query, headers }: Said, { site, responses }: World): Genuine | undefined {
  if (method !== 'GET' || path !== site.routes.callback) return undefined;
  const pairs = query.split('&').map((pair) => pair.split('='));
  const values = pairs.filter(([name = '']) => /^WLS-Response(?:\[|$)/.test(decodeBytes(name)));
  const response = only(
    values.map(([, ...value]) => decodeBytes(value.join('='))),
    responses,
  );
  const nonces = cookies(headers, site.cookies.login);
  const isTheirs = nonces.length === 1 && nonces[0] === response?.attempt.nonce;
  return isTheirs && !response?.used ? response : undefined;
}

/** Each byte of the form encoding; what is not one stays. */
function decodeBytes(raw: string): string {
  return raw
    .replaceAll('+', ' ')
    .replace(/%([\da-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function findTickets({ query }: Said, { tickets }: World): Ticket[] {
  const said = decodeBytes(query);
  return tickets.filter(({ text, taken, member }) => said.includes(text) && !taken && !member.ended);
}

function isOwn(headers: Said['headers'], origin: string): boolean {
  const origins = valuesOf(headers, 'origin');
  const isVouchedFor = origins[0] === 'null' && valuesOf(headers, 'sec-fetch-site').includes('same-origin');
  return origins.length === 1 && (origins[0] === origin || isVouchedFor);
}

/** Whether it asks for a logout, and may. */
export function isLogout({ method, path, isOwn }: View, { site }: World): boolean {
  return method === 'POST' && path === site.routes.logout && isOwn;
}

/** What is wrong with an answer, if anything is. */
export function findFault(seen: View, answer: Answer, world: World): string | undefined {
  return faults.find(([, isThere]) => isThere(seen, answer, world))?.[0];
}

type Fault = (seen: View, answer: Answer, world: World) => boolean;

const faults: readonly (readonly [string, Fault])[] = [
  ['it is a 5xx', (seen, { status }, world) => status >= 500 && !(status === 503 && bringsForeign(seen, world))],
  ['it sets a cookie of another form than ours', setsStrangeCookie],
  ['it begins a session without a verified response', beginsSession],
  ['it ends a session without a logout from our own origin', endsSession],
  ['it sets the nonce of a login without beginning one', setsNonce],
  ['it leads somewhere else', leadsAway],
  ['it asks the login service for something else than a login here', asksElse],
  ['it opens a page without the live session of somebody who may enter', opensPage],
  ['it makes a ticket without a live session and our origin', makesTicket],
  ['it takes what is no ticket, or not any more', takesTicket],
  ['it names somebody who is not logged in', namesSomebody],
  ['it opens a socket without a live session and our origin', opensSocket],
  ['its body holds a secret', holdsSecret],
  ['it may be kept by caches', mayBeCached],
  ['nothing was wrong with the request, and it was refused', refusesSound],
];

function cookieLines({ headers }: Answer): string[] {
  return valuesOf(headers, 'set-cookie');
}

function setsStrangeCookie(seen: View, answer: Answer, { site }: World): boolean {
  const { session, anchor, login, done, secure, path } = site.cookies;
  const paths = new Map([[session, path], ...[anchor, login, done].map((name) => [name, '/'] as const)]);
  const shape = /^([\w-]+)=([\w.-]*); Path=([^;]*)(; Max-Age=\d+)?; HttpOnly; SameSite=Lax(; Secure)?$/;
  return cookieLines(answer).some((line) => {
    if (removesDoubled(seen, line, site.cookies)) return false;
    const [, name = '', , where, , marked] = shape.exec(line) ?? [];
    return where === undefined || paths.get(name) !== where || (marked !== undefined) !== secure;
  });
}

/** Whether it removes, from another path, a cookie that the request brought twice. */
function removesDoubled(
  { headers }: View,
  line: string,
  { session, anchor, secure }: World['site']['cookies'],
): boolean {
  const [, name = '', marked] = /^([\w-]+)=; Path=\/[^;]*(?:; Domain=[^;]*)?; Max-Age=0(; Secure)?$/.exec(line) ?? [];
  const isOurs = name === session || name === anchor;
  return (
    isOurs && !name.startsWith('__Host-') && (marked !== undefined) === secure && cookies(headers, name).length > 1
  );
}

function beginsSession({ response }: View, answer: Answer, { site: { cookies } }: World): boolean {
  // Used by another request in the meantime, perhaps.
  return (
    Boolean(cookieSet(answer, cookies.session)) && (response === undefined || response.used || answer.status !== 303)
  );
}

function endsSession(seen: View, answer: Answer, world: World): boolean {
  const isCleared = cookieSet(answer, world.site.cookies.session) === '';
  return isCleared && !isLogout(seen, world) && !bringsBroken(seen, world);
}

/** A cookie of which none of ours is beside it, and that is none of ours, or not with the anchor that it came with. */
function bringsBroken({ headers, member }: View, { site, members }: World): boolean {
  const values = cookies(headers, site.cookies.session);
  const isKnown = only(values, members) !== undefined;
  return values.length === 1 && (!isKnown || (member === undefined && site.cookies.anchor !== undefined));
}

function setsNonce(_seen: View, answer: Answer, { site }: World): boolean {
  const nonce = cookieSet(answer, site.cookies.login);
  return Boolean(nonce) && !isRequest(target(answer) ?? '');
}

/** Where an answer leads: by a redirect, or as the page does that answers the button of a login. */
function target(answer: Answer): string | undefined {
  const refresh = /<meta http-equiv="refresh" content="0; url=([^"]*)">/.exec(answer.body)?.[1];
  return headerOf(answer, 'location') ?? refresh?.replaceAll('&#38;', '&');
}

function isRequest(location: string): boolean {
  return location.startsWith('http://localhost:8711/auth/authenticate.html?');
}

function leadsAway(_seen: View, answer: Answer, { site }: World): boolean {
  const location = target(answer);
  if (location === undefined) return answer.status > 300 && answer.status < 304;
  const ours = location.startsWith(site.origin) && /^\/(?![/\\])[\x21-\x7e]*$/.test(location.slice(site.origin.length));
  return !ours && !isRequest(location);
}

function asksElse(_seen: View, answer: Answer, { site }: World): boolean {
  const location = target(answer) ?? '';
  if (!isRequest(location)) return false;
  const query = new URL(location).searchParams;
  const urls = query.getAll('url');
  return urls.length !== 1 || urls[0] !== site.origin + site.routes.callback || query.getAll('params').length !== 1;
}

function opensPage(seen: View, { body }: Answer, { now }: World): boolean {
  const [, page = '', principal] = opened.exec(body) ?? [];
  if (principal === undefined) return false;
  const { member } = seen;
  return member?.principal !== principal || !pages[page]?.admits(member, now) || !mayChange(seen, page);
}

/** Other pages cannot make somebody's browser change anything. */
function mayChange({ method, headers, isOwn }: View, page: string): boolean {
  const befriended = page === '/shared' && valuesOf(headers, 'origin').join() === friend;
  return /^(?:GET|HEAD|OPTIONS)$/.test(method) || isOwn || befriended;
}

function makesTicket({ method, path, member, isOwn }: View, { body }: Answer, { site }: World): boolean {
  if (!body.startsWith('{"ticket":')) return false;
  return method !== 'POST' || path !== site.routes.ticket || !member || !isOwn;
}

function takesTicket(seen: View, answer: Answer): boolean {
  // Taken by another request in the meantime, perhaps.
  return taken.test(answer.body) && takenBy(seen, answer).every((ticket) => ticket.taken);
}

/** Which of the tickets that it brings was taken: each is another person's. */
export function takenBy({ tickets }: View, { body }: Answer): Ticket[] {
  const principal = taken.exec(body)?.[1];
  return tickets.filter(({ member }) => member.principal === principal);
}

/**
 * Tickets of which the answer does not say whether they were consumed: Express runs GET handlers for HEAD too, and answers
 * 304 to `If-None-Match: *`, and neither answer has a body.
 */
export function hiddenTickets({ tickets, method }: View, { status }: Answer): readonly Ticket[] {
  return method === 'HEAD' || status === 304 ? tickets : [];
}

function namesSomebody({ member }: View, { status, body }: Answer): boolean {
  if (status !== 200) return false;
  const name = /^[\w-]+$/.exec(body)?.[0] ?? /<strong>([\w-]+)<\/strong>/.exec(body)?.[1] ?? 'nobody';
  return name !== 'nobody' && name !== member?.principal;
}

function opensSocket({ member, headers }: View, { status }: Answer, { site, now }: World): boolean {
  if (status !== 101) return false;
  const origins = valuesOf(headers, 'origin');
  return origins.length !== 1 || origins[0] !== site.origin || !member || !pages['/private']?.admits(member, now);
}

/** What came as the address of a page may come back in it, as the address to return to or that was not found. */
function holdsSecret({ path, query, headers }: View, { body }: Answer, world: World): boolean {
  const addresses = [path, query, ...valuesOf(headers, 'referer')].join();
  return body !== '' && world.secrets.some((secret) => body.includes(secret) && !addresses.includes(secret));
}

function mayBeCached(_seen: View, answer: Answer): boolean {
  const { status, body } = answer;
  const control = headerOf(answer, 'cache-control');
  if (opened.test(body)) return control !== 'private, no-cache' || !/\bcookie\b/i.test(headerOf(answer, 'vary') ?? '');
  return (status === 303 || status === 401 || status === 403 || body.includes('ERR_')) && control !== 'no-store';
}

function refusesSound(seen: View, answer: Answer, world: World): boolean {
  return seen.shot.sound && seen.shot.kind in expected && !isAsExpected(seen, answer, world);
}

/** What comes of a request with which nothing is wrong. (Whether a session opens pages is looked at later.) */
const expected: Readonly<Record<string, (answer: Answer, world: World) => boolean>> = {
  login: (answer, { site }) => Boolean(cookieSet(answer, site.cookies.session)),
  begin: (answer, { site }) => answer.status === 303 && Boolean(cookieSet(answer, site.cookies.login)),
  'page for nobody': ({ status }) => status === 303,
  logout: (answer, { site }) => cookieSet(answer, site.cookies.session) === '',
};

function isAsExpected({ shot }: View, answer: Answer, world: World): boolean {
  return expected[shot.kind]?.(answer, world) ?? true;
}
