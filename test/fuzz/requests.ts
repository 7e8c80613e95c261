import { Dice } from './dice.js';
import { mutateResponse } from './mutations.js';
import { returns } from './returns.js';
import { pages } from './site.js';
import { type Draft, encodeAll, encodeQuery, stockOf, twists, utf8 } from './twists.js';
import type { Genuine, World } from './world.js';

/** A request to be sent, and what its author knows of it. */
export interface Shot {
  readonly index: number;
  readonly kind: Kind;
  readonly bytes: Buffer;
  /** Whether it is a HEAD, whose answer has no body. */
  readonly head: boolean;
  /** Its body may be shorter than it says. */
  readonly partial: boolean;
  /** It may end its connection, or be cut differently by the server: it gets a connection of its own. */
  readonly alone: boolean;
  /** Nothing is wrong with it, so what it asks for has to happen. */
  readonly sound: boolean;
}

/** A request: always the same for the same seed and index, but for the secrets in it. */
export function makeShot(seed: number, index: number, world: World): Shot {
  const dice = new Dice(seed, index);
  const kind = dice.weighted(kinds);
  const draft = bases[kind](dice, world);
  draft.headers.unshift(['Host', new URL(world.site.origin).host]);
  const times = dice.weighted(twistTimes);
  for (let i = 0; i < times; i++) dice.weighted(twists)(draft, dice, world);
  const text = write(draft);
  return {
    index,
    kind,
    bytes: Buffer.from(text, 'latin1'),
    head: /^\s*HEAD /.test(text),
    partial: isPartial(draft),
    alone: isRisky(draft, text),
    sound: times === 0 && !kind.startsWith('forged'),
  };
}

type Kind = keyof typeof bases;

/** Mostly one thing is wrong: it should have to get past all checks but one. */
const twistTimes: readonly (readonly [number, number])[] = [
  [0, 8],
  [1, 54],
  [2, 22],
  [3, 10],
  [6, 6],
];

/** What a request is before it is twisted. The forged ones are wrong already, and bring somebody's live session. */
const bases = {
  login: (_dice, world) => callback(world.fresh(), world),
  'login again': (dice, world) => callback(dice.pick(world.spares), world),
  'forged login': forgeLogin,
  begin: (dice, { site }) => visit(`${site.routes.login}?return=${site.path}/any${dice.pick(demands)}`, []),
  'begin again': (dice, world) =>
    visit(`${world.site.routes.login}?return=${world.site.path}/any${dice.pick(demands)}`, [session(dice, world)]),
  'begin elsewhere': beginElsewhere,
  page: (dice, world) => visit(anyPage(dice, world), [session(dice, world)]),
  'forged page': (dice, world) => visit(anyPage(dice, world), [deadSession(dice, world)]),
  'page for nobody': (dice, world) => visit(anyPage(dice, world), []),
  data: (dice, world) => draft('GET', anyPage(dice, world), [['Accept', 'application/json']], [session(dice, world)]),
  post: (dice, world) => change(anyPage(dice, world), session(dice, world), world.site.origin),
  'forged post': (dice, world) => change(anyPage(dice, world), session(dice, world), dice.pick(strangers)),
  home: (dice, world) => visit(world.site.routes.home, [session(dice, world)]),
  question: (dice, world) => visit(world.site.routes.logout, [session(dice, world)]),
  logout: (dice, world) => logout(dice, world, guest(dice, world), world.site.origin),
  'forged logout': (dice, world) => logout(dice, world, session(dice, world), dice.pick(strangers)),
  ticket: (dice, world) => change(world.site.routes.ticket, session(dice, world), world.site.origin),
  'forged ticket': (dice, world) => change(world.site.routes.ticket, session(dice, world), dice.pick(strangers)),
  'used ticket': (dice, { site, tickets }) => visit(`${site.path}/take?ticket=${dice.pick(tickets).text}`, []),
  socket: (dice, world) => handshake(world, session(dice, world), world.site.origin),
  'forged socket': (dice, world) => handshake(world, session(dice, world), dice.pick(strangers)),
} as const satisfies Record<string, (dice: Dice, world: World) => Draft>;

const kinds: readonly (readonly [Kind, number])[] = [
  ['login', 4],
  ['login again', 14],
  ['forged login', 10],
  ['begin', 6],
  ['begin again', 4],
  ['begin elsewhere', 4],
  ['page', 16],
  ['forged page', 4],
  ['page for nobody', 4],
  ['data', 4],
  ['post', 4],
  ['forged post', 3],
  ['home', 3],
  ['question', 2],
  ['logout', 5],
  ['forged logout', 6],
  ['ticket', 4],
  ['forged ticket', 3],
  ['used ticket', 4],
  ['socket', 6],
  ['forged socket', 3],
];

const demands = ['', '&iact=yes', '&iact=no', '&aauth=pwd', '&iact=yes&aauth=x-card', '&maxAge=60'];

const strangers = [
  'https://evil.example',
  'https://evil.cam.ac.uk',
  'null',
  '',
  'http://localhost',
  'http://localhost:1',
];

/** As a browser asks that goes to a page. */
function visit(target: string, cookies: readonly string[]): Draft {
  const headers: [string, string][] = [
    ['Accept', 'text/html,application/xhtml+xml,*/*;q=0.8'],
    ['Sec-Fetch-Mode', 'navigate'],
    ['Sec-Fetch-Site', 'same-site'],
  ];
  return draft('GET', target, headers, cookies);
}

function draft(method: string, target: string, more: readonly [string, string][], cookies: readonly string[]): Draft {
  const cookie: [string, string][] = cookies.length === 0 ? [] : [['Cookie', cookies.join('; ')]];
  return { method, target, version: 'HTTP/1.1', headers: [...more, ...cookie], body: '', edits: [] };
}

function anyPage(dice: Dice, { site }: World): string {
  return site.path + dice.pick(Object.keys(pages));
}

/** Somebody's live session. */
function session(dice: Dice, world: World): string {
  return world.cookieOf(dice.pick(world.victims));
}

/** A session that is over, or belongs to another site or another browser. */
function deadSession(dice: Dice, world: World): string {
  const { site, gone, expired, foreign, victims } = world;
  const theirs = dice.pick(foreign).victims;
  const [victim, other] = [dice.pick(victims), dice.pick(victims)];
  if (site.cookies.anchor !== undefined && dice.percent(40)) return world.cookieOf(victim, other);
  return world.cookieOf(dice.pick([...gone, ...expired, ...theirs]), dice.percent(50) ? victim : undefined);
}

/** The session of somebody who may be made to leave. */
function guest(dice: Dice, world: World): string {
  return world.cookieOf(dice.pick(world.guests));
}

/** Somebody is to be led away, at once or after a login. */
function beginElsewhere(dice: Dice, world: World): Draft {
  const back = dice.pick([encodeQuery, encodeQuery, encodeAll, utf8])(dice.pick(returns));
  const more = dice.percent(50) ? dice.pick(demands) : '';
  return visit(`${world.site.routes.login}?return=${back}${more}`, dice.percent(60) ? [session(dice, world)] : []);
}

function callback({ encoded, attempt }: Genuine, { site }: World): Draft {
  const target = `${site.routes.callback}?WLS-Response=${encodeQuery(encoded)}`;
  return visit(target, [`${site.cookies.login}=${attempt.nonce}`]);
}

/** Somebody has a session and a login under way, and is sent back with what does not belong to it. */
function forgeLogin(dice: Dice, world: World): Draft {
  const { encoded, attempt } = dice.pick(world.spares);
  const mutated = dice.percent(70);
  const nonce = mutated
    ? attempt.nonce
    : dice.pick(['', 'x'.repeat(22), dice.pick(world.foreign).attempts[0]?.nonce ?? '']);
  const text = mutated ? mutateResponse(encoded, dice, stockOf(world)) : encoded;
  const { routes, cookies } = world.site;
  const theirs = [`${cookies.login}=${nonce}`, session(dice, world)];
  return visit(`${routes.callback}?WLS-Response=${encodeQuery(text)}`, theirs);
}

/** A form of that origin. */
function change(target: string, cookie: string, origin: string): Draft {
  const headers: [string, string][] = [
    ['Accept', 'text/html'],
    ['Content-Type', 'application/x-www-form-urlencoded'],
    ['Content-Length', '0'],
    ...(origin === '' ? [] : [['Origin', origin] as [string, string]]),
  ];
  return draft('POST', target, headers, [cookie]);
}

function logout(dice: Dice, { site }: World, cookie: string, origin: string): Draft {
  return change(site.routes.logout + (dice.percent(30) ? '?everywhere=yes' : ''), cookie, origin);
}

function handshake({ site }: World, cookie: string, origin: string): Draft {
  const headers: [string, string][] = [
    ['Connection', 'Upgrade'],
    ['Upgrade', 'websocket'],
    ['Sec-WebSocket-Version', '13'],
    ['Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='],
    ...(origin === '' ? [] : [['Origin', origin] as [string, string]]),
  ];
  return draft('GET', `${site.path}/live`, headers, [cookie]);
}

function write({ method, target, version, headers, body, edits }: Draft): string {
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`);
  const text = `${method} ${target} ${version}\r\n${lines.join('')}\r\n${body}`;
  return edits.reduce((bytes, edit) => edit(bytes), text);
}

// What Node's parser surely takes, and what leaves no doubt about where a request ends.
const plainMethod = /^(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE|PROPFIND|M-SEARCH|PURGE)$/;
const plainTarget = /^\/[\x21-\x7e]*$/;
const plainName = /^[\w-]+$/;
const plainValue = /^[\t\x20-\x7e\x80-\xff]*$/;
const framing = /^(?:connection|upgrade|transfer-encoding|expect)$/i;

function isPartial({ headers, body, edits }: Draft): boolean {
  const lengths = headers.filter(([name]) => /^content-length$/i.test(name)).map(([, value]) => Number(value));
  const isChunked = headers.some(([name]) => /^transfer-encoding$/i.test(name));
  return edits.length > 0 || isChunked || lengths.some((length) => length > body.length);
}

function isRisky({ method, target, version, headers, body, edits }: Draft, text: string): boolean {
  return (
    edits.length > 0 ||
    body.length > 0 ||
    text.length > 15_000 ||
    headers.length > 900 ||
    version !== 'HTTP/1.1' ||
    !plainMethod.test(method) ||
    !plainTarget.test(target) ||
    headers.some(([name, value]) => framing.test(name) || !plainName.test(name) || !plainValue.test(value)) ||
    headers.every(([name]) => name.toLowerCase() !== 'host') ||
    headers.filter(([name]) => name.toLowerCase() === 'content-length').length > 1
  );
}
