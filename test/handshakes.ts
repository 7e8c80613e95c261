import fc from 'fast-check';

/** Handshakes as anybody may write them, and what is to be said of each: made from good ones by changing them. */

export const TOKEN_PROTOCOL = 'v1.token.websocket.jupyter.org';

const kinds = ['cookie', 'bearer', 'basic', 'subprotocol', 'query', 'firstMessage'] as const;
export type Kind = (typeof kinds)[number];

/** Good credentials of one person: each for one place only, so that it is known where one was seen. */
export interface Secrets {
  readonly origin: string;
  readonly user: string;
  readonly cookie: string;
  /** For Authorization. */
  readonly token: string;
  /** For the subprotocol. */
  readonly protocolToken: string;
  /** For the address, or the first message. */
  readonly ticket: string;
}

/** One character is one byte. */
export interface Handshake {
  method: string;
  target: string;
  version: string;
  lines: string[];
  /** What is sent behind it at once. */
  behind: string;
  /** What is sent when the socket is open. */
  first: string | undefined;
}

/** How one is made and sent, without the secrets. */
export interface Plan {
  readonly kind: Kind;
  readonly word: string;
  readonly changes: readonly Change[];
  /** Where it is cut in pieces: parts of a thousand. */
  readonly cuts: readonly number[];
  /** What the client does before, or when, it has sent all. */
  readonly leave: 'stays' | 'ends' | 'resets';
  readonly leaveAt: number;
}

interface Change {
  readonly name: keyof typeof changes;
  readonly at: number;
  readonly to: number;
  readonly odd: string;
}

type Apply = (handshake: Handshake, change: Change, secrets: Secrets) => void;

const change = (name: Change['name']) =>
  fc.record({
    name: fc.constant(name),
    at: fc.nat(999),
    to: fc.nat(999),
    odd: fc.constantFrom(...oddTexts),
  });

/** Plans of which most are good, or nearly. @param taken what is taken where they are sent. */
export function plans(taken: readonly Kind[]): fc.Arbitrary<Plan> {
  const few = fc.array(fc.constantFrom(...(Object.keys(changes) as Change['name'][])).chain(change), { maxLength: 3 });
  const harmless = fc.array(fc.constantFrom(...harmlessNames).chain(change), { maxLength: 3 });
  return fc.record({
    kind: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...taken) }, fc.constantFrom(...kinds)),
    word: fc.oneof(
      { weight: 60, arbitrary: fc.constant('yes') },
      { weight: 5, arbitrary: fc.constantFrom('no', 'throw') },
      fc.constant('never'),
    ),
    changes: fc.oneof({ weight: 3, arbitrary: few }, harmless),
    cuts: fc.array(fc.nat(1000), { maxLength: 4 }),
    leave: fc.oneof(
      { weight: 8, arbitrary: fc.constant('stays' as const) },
      fc.constantFrom('ends' as const, 'resets' as const),
    ),
    leaveAt: fc.nat(1200),
  });
}

/** Whether nothing was done to it by which it may not be understood. */
export function isHarmless({ changes: made }: Plan): boolean {
  return made.every(({ name }) => harmlessNames.includes(name));
}

/** Writes the handshake of a plan. */
export function write({ kind, word, changes: made }: Plan, secrets: Secrets): Handshake {
  const handshake: Handshake = {
    method: 'GET',
    target: kind === 'query' ? `/live?a=1&ticket=${secrets.ticket}&b` : '/live',
    version: 'HTTP/1.1',
    lines: [
      'Host: 127.0.0.1',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      `X-Word: ${word}`,
      ...linesOf(kind, secrets),
    ],
    behind: '',
    first: kind === 'firstMessage' ? secrets.ticket : 'hello',
  };
  for (const one of made) changes[one.name](handshake, one, secrets);
  return handshake;
}

export function bytesOf({ method, target, version, lines, behind }: Handshake): Buffer {
  return Buffer.from(`${[`${method} ${target} ${version}`, ...lines].join('\r\n')}\r\n\r\n${behind}`, 'latin1');
}

function linesOf(kind: Kind, { origin, user, cookie, token, protocolToken }: Secrets): string[] {
  const basic = Buffer.from(`${user}:${token}`).toString('base64');
  return {
    cookie: [`Origin: ${origin}`, `Cookie: a=1; webauth-session=${cookie}; b`],
    bearer: [`Authorization: Bearer ${token}`],
    basic: [`Origin: ${origin}`, `Authorization: Basic ${basic}`],
    subprotocol: [`Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}, ${TOKEN_PROTOCOL}.${protocolToken}, chat`],
    query: [`Origin: ${origin}`],
    firstMessage: [`Origin: ${origin}`],
  }[kind];
}

const oddTexts = [
  ...[
    '\0',
    '\t',
    ' ',
    '\x7f',
    '\xe9',
    '\xff',
    '\n',
    '\r',
    '\r\n',
    '\r\n ',
    ':',
    ',',
    ';',
    '=',
    '"',
    '\\',
    '(',
    '&',
    '?',
  ],
  ...['%', '%zz', '%2', '%00', '%c3', '%E2%82%AC', '%2C', '%0d%0a', '#', '+', '/', '//', '.', '..', ', ', 'null', 'x'],
];

/** What must not change whether somebody is let in. */
const harmlessNames: readonly Change['name'][] = ['move', 'case of a name', 'blanks', 'another line', 'behind'];

const changes = {
  move: ({ lines }, { at, to }) => {
    const [line] = lines.splice(at % lines.length, 1);
    lines.splice(to % (lines.length + 1), 0, line ?? '');
  },
  'case of a name': edit((line, { to }) =>
    line.replace(/^[^:]*/, (name) => (to % 2 ? name.toUpperCase() : name.toLowerCase())),
  ),
  blanks: edit((line, { to }) => line.replace(': ', ':'.padEnd(to % 5, to % 2 ? ' ' : '\t')) + ' '.repeat(to % 3)),
  'another line': ({ lines }, { at, to }) => void lines.splice(at % lines.length, 0, `X-Other: ${'x'.repeat(to * 4)}`),
  behind: (handshake) => {
    handshake.behind += MASKED;
  },
  drop: ({ lines }, { at }) => void lines.splice(at % lines.length, 1),
  double: ({ lines }, { at, to }) => void lines.splice(to % lines.length, 0, lines[at % lines.length] ?? ''),
  'case of a line': edit((line, { to }) => (to % 2 ? line.toUpperCase() : line.toLowerCase())),
  'odd text': edit((line, { to, odd }) => {
    const place = to % (line.length + 1);
    return line.slice(0, place) + odd + line.slice(place);
  }),
  'other character': edit((line, { to, odd }) => {
    const place = to % (line.length + 1);
    return line.slice(0, place) + odd.slice(0, 1) + line.slice(place + 1);
  }),
  'last character': edit((line, { odd }) => line.slice(0, -1) + odd),
  'encoded character': edit((line, { to }) => encodeAt(line, to)),
  short: edit((line, { to }) => line.slice(0, to % (line.length + 1))),
  long: edit((line, { to, odd }) => line + odd.repeat(to * 8)),
  'other value': edit((line, { odd }) => line.replace(/:.*/s, `: ${odd}`)),
  'odd list': edit((line, { odd }) => line.replaceAll(/[,;] /g, odd)),
  huge: ({ lines }, { at, to }) => void lines.splice(at % lines.length, 0, `X-Other: ${'x'.repeat(to * 17)}`),
  'more lines': ({ lines }, { at, to }) => void lines.splice(at % lines.length, 0, pick(moreLines, to)),
  'more credentials': ({ lines }, { at, to }, secrets) => {
    const more = linesOf(pick(kinds, to), secrets).filter((line) => !lines.includes(line));
    lines.splice(at % lines.length, 0, ...more);
  },
  target: (handshake, { to }) => {
    handshake.target = pick(targets, to).replace('QUERY', /\?(.*)/.exec(handshake.target)?.[1] ?? '');
  },
  'odd target': (handshake, { to, odd }) => {
    const place = to % (handshake.target.length + 1);
    handshake.target = handshake.target.slice(0, place) + odd + handshake.target.slice(place);
  },
  'encoded target': (handshake, { to }) => {
    handshake.target = encodeAt(handshake.target, to);
  },
  method: (handshake, { to }) => {
    handshake.method = pick(['POST', 'HEAD', 'PUT', 'OPTIONS', 'CONNECT', 'get', 'GET ', 'PRI', 'M-SEARCH', ''], to);
  },
  version: (handshake, { to }) => {
    handshake.version = pick(['HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTTP/1.10', 'http/1.1', 'HTTPS/1.1', ''], to);
  },
  'odd behind': (handshake, { to, odd }) => {
    handshake.behind += pick(
      [odd.repeat(to * 20), 'GET / HTTP/1.1\r\n\r\n', '\x81\xff', '\x88\x80\0\0\0\0', '0\r\n\r\n'],
      to,
    );
  },
  'first message': (handshake, { to, odd }) => {
    const { first = '' } = handshake;
    handshake.first = pick(
      [first + odd, odd + first, first.slice(1), first.toUpperCase(), odd, 'x'.repeat(to * 9)],
      to,
    );
  },
  silence: (handshake, { to }) => {
    if (to % 10 === 0) handshake.first = undefined;
  },
} as const satisfies Record<string, Apply>;

/** A frame that says hello. */
const MASKED = '\x81\x85\0\0\0\0hello';

const moreLines = [
  'Origin: https://evil.cam.ac.uk',
  'Origin: null',
  'Origin:',
  'Cookie: webauth-session=x',
  'Cookie: a=1; webauth-session=; b=2',
  'Authorization: Bearer x',
  'Authorization: Basic x',
  'Authorization: Digest x',
  'Sec-WebSocket-Protocol: chat',
  `Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}`,
  `Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}.x`,
  `Sec-WebSocket-Protocol: ${TOKEN_PROTOCOL}., ,`,
  'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99',
  'Sec-WebSocket-Version: 8',
  'Content-Length: 5',
  'Content-Length: 5, 6',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: x, chunked',
  'Connection: close',
  'Upgrade: h2c',
  'HTTP2-Settings: AAMAAABkAAQAAP__',
  ' folded',
  ':',
  'no colon',
];

const targets = [
  '/live?QUERY&QUERY',
  '/live??QUERY',
  '/live?;QUERY',
  '/live?x;QUERY',
  '/live?&&QUERY&&',
  '/live?QUERY#QUERY',
  '/live#?QUERY',
  '/live?%74icket=x&QUERY',
  '/live?ticke%74=&QUERY',
  '/live?TICKET=x&QUERY',
  '/live?ticket[]=x&QUERY',
  '/live?ticket',
  '/live?ticket=%zz',
  '/live/?QUERY',
  '//live?QUERY',
  '/./live?QUERY',
  '/%6cive?QUERY',
  '/live%3fQUERY',
  'http://127.0.0.1/live?QUERY',
  'http://evil.cam.ac.uk/live?QUERY',
  'live?QUERY',
  '?QUERY',
  '*',
  '',
];

function edit(work: (line: string, change: Change) => string): Apply {
  return ({ lines }, one) => {
    const place = one.at % lines.length;
    if (lines.length > 0) lines[place] = work(lines[place] ?? '', one);
  };
}

function encodeAt(text: string, to: number): string {
  const place = to % Math.max(1, text.length);
  const encoded = `%${text.charCodeAt(place).toString(16).padStart(2, '0')}`;
  return text === '' ? '' : text.slice(0, place) + encoded + text.slice(place + 1);
}

function pick<T>(list: readonly T[], at: number): T {
  return list[at % list.length] as T;
}

/** The lines of a handshake as they are sent, and what comes behind them. */
export function read(handshake: Handshake): { readonly lines: readonly string[]; readonly behind: string } {
  const [head = '', ...rest] = bytesOf(handshake).toString('latin1').split('\r\n\r\n');
  return { lines: head.split(/\r\n|\n/).slice(1), behind: rest.join('\r\n\r\n') };
}

/** The values of a header, by lines. */
export function valuesOf(lines: readonly string[], name: string): string[] {
  return lines.flatMap((line) => {
    const [, value] = new RegExp(`^${name}:(.*)$`, 'is').exec(line) ?? [];
    return value === undefined ? [] : [value.replace(/^[ \t]+|[ \t]+$/g, '')];
  });
}

/** What stands where tickets and tokens are taken from, other than Authorization: decoded or not, wrong or good. */
export function shownSecretly(handshake: Handshake): { tickets: string[]; tokens: string[] } {
  const { target } = handshake;
  const query = target.includes('?') ? target.slice(target.indexOf('?') + 1) : '';
  const tickets = query.split('&').flatMap((pair) => new URLSearchParams(pair).get('ticket') ?? []);
  const offered = valuesOf(read(handshake).lines, 'Sec-WebSocket-Protocol').flatMap((value) => value.split(','));
  const before = `${TOKEN_PROTOCOL}.`;
  const tokens = offered.filter((one) => one.includes(before)).map((one) => one.slice(one.indexOf(before)));
  return { tickets, tokens: tokens.map((one) => one.slice(before.length).trim()) };
}

/** Whose handshake it is by the rules, written anew: the first kind that is offered has to be good, and the only one. */
export function isGood(handshake: Handshake, taken: readonly Kind[], secrets: Secrets): boolean {
  const { lines, behind } = read(handshake);
  const origins = valuesOf(lines, 'Origin');
  if (handshake.method.trim() !== 'GET' || origins.length > 1 || origins.some((one) => one !== secrets.origin))
    return false;
  if (taken.includes('firstMessage')) return behind === '' && handshake.first === secrets.ticket;
  const { tickets, tokens } = shownSecretly(handshake);
  const authorization = valuesOf(lines, 'Authorization');
  const [scheme = '', shown = ''] = (authorization[0] ?? '').split(/ +/);
  const cookies = valuesOf(lines, 'Cookie').flatMap((value) => value.split(';'));
  const sessions = cookies.filter((one) => /^[ \t]*webauth-session[ \t]*=/.test(one));
  const offers: [Kind, string[], (one: string) => boolean][] = [
    ['bearer', /^bearer\b/i.test(scheme) ? authorization : [], () => shown === secrets.token],
    ['basic', /^basic\b/i.test(scheme) ? authorization : [], () => isUser(shown, secrets)],
    ['subprotocol', tokens, (one) => unquoted(one) === secrets.protocolToken],
    ['query', tickets, (one) => one === secrets.ticket],
    ['cookie', sessions, (one) => unquoted(afterEquals(one)) === secrets.cookie && origins.length === 1],
  ];
  const [first] = offers.filter(([kind, offered]) => taken.includes(kind) && offered.length > 0);
  return first !== undefined && first[1].length === 1 && first[2](first[1][0] ?? '');
}

function isUser(encoded: string, { user, token }: Secrets): boolean {
  const text = Buffer.from(encoded, 'base64').toString();
  return [`${user}:${token}`, `token:${token}`].includes(text);
}

function afterEquals(pair: string): string {
  return pair
    .slice(pair.indexOf('=') + 1)
    .trim()
    .replace(/^"(.*)"$/, '$1');
}

function unquoted(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}
