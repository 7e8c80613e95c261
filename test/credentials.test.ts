import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import { authenticateUpgrade, type Credential, refuseUpgrade, type UpgradeOptions } from '../src/websocket/index.js';
import { clock } from './site.js';
import { socketSite } from './sockets.js';

// The table of credentials: what each one is on the wire, what is taken, and how what is not is refused.
const site = socketSite();
const JUPYTER = 'v1.token.websocket.jupyter.org';

/** Header lines, or a query, that carry a ticket or token. */
interface Sent {
  readonly lines?: readonly string[];
  readonly query?: string;
}

interface Row {
  readonly credential: Exclude<Credential, 'firstMessage'>;
  readonly send: (secret: string) => Sent;
  readonly twice: (secret: string, other: string) => Sent;
  /** The answer to what is wrong. */
  readonly refusal: { readonly status: number; readonly challenges: readonly string[] };
  /** The answer to nothing at all. */
  readonly nothing: { readonly status: number; readonly challenges: readonly string[] };
  readonly takesTokens: boolean;
}

const authorization = (...values: string[]) => ({ lines: values.map((value) => `Authorization: ${value}`) });
const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const protocols = (...list: string[]) => ({ lines: [`Sec-WebSocket-Protocol: ${list.join(', ')}`] });
const forbidden = { status: 403, challenges: [] };
const basicChallenge = () => `Basic realm="${site.origin}", charset="UTF-8"`;

const rows: readonly Row[] = [
  {
    credential: 'bearer',
    send: (secret) => authorization(`Bearer ${secret}`),
    twice: (secret, other) => authorization(`Bearer ${secret}`, `Bearer ${other}`),
    refusal: { status: 401, challenges: ['Bearer error="invalid_token"'] },
    nothing: { status: 401, challenges: ['Bearer'] },
    takesTokens: true,
  },
  {
    credential: 'basic',
    send: (secret) => authorization(basic('test0001', secret)),
    twice: (secret, other) => authorization(basic('test0001', secret), basic('token', other)),
    get refusal() {
      return { status: 401, challenges: [basicChallenge()] };
    },
    get nothing() {
      return { status: 401, challenges: [basicChallenge()] };
    },
    takesTokens: true,
  },
  {
    credential: 'subprotocol',
    send: (secret) => protocols(JUPYTER, `${JUPYTER}.${secret}`),
    twice: (secret, other) => protocols(JUPYTER, `${JUPYTER}.${secret}`, `${JUPYTER}.${other}`),
    refusal: forbidden,
    nothing: forbidden,
    takesTokens: true,
  },
  {
    credential: 'query',
    send: (secret) => ({ query: `?ticket=${secret}` }),
    twice: (secret, other) => ({ query: `?ticket=${secret}&ticket=${other}` }),
    get refusal() {
      return { status: 401, challenges: [`Ucam-WebAuth realm="${site.origin}"`] };
    },
    nothing: forbidden,
    takesTokens: false,
  },
];

const gates = {
  acceptUpgrades: (options: UpgradeOptions) => void site.accept(options),
  authenticateUpgrade: (options: UpgradeOptions) => {
    const handler = async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      try {
        request.auth = await authenticateUpgrade(site.waa, request, options);
        site.wss.handleUpgrade(request, socket, head, (ws) => site.wss.emit('connection', ws, request));
      } catch (error) {
        refuseUpgrade(socket, error);
      }
    };
    site.server.prependListener('upgrade', handler);
    site.afterwards(() => site.server.removeListener('upgrade', handler));
  },
};

for (const [name, gate] of Object.entries(gates)) {
  describe.each(rows)(`${name}: $credential`, (row) => {
    const { credential, send, twice, takesTokens } = row;

    it('opens a socket for a ticket', async () => {
      gate({ credentials: [credential] });
      const { status, auth } = await knock(send(await ticket()));
      expect(status).toBe(101);
      expect(auth).toMatchObject({ principal: 'test0001', via: 'ticket' });
    });

    it(`${takesTokens ? 'opens' : 'opens no'} socket for an API token`, async () => {
      gate({ credentials: [credential] });
      const { token } = await apiToken();
      const answer = await knock(send(token));
      if (takesTokens) expect(answer.auth).toMatchObject({ principal: 'test0001', via: 'token', scopes: ['live'] });
      else expect(answer).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
    });

    it('refuses what is wrong, and falls through to nothing else', async () => {
      gate({ credentials: [credential, 'cookie'] });
      const { cookie } = await site.logIn();
      for (const wrong of ['x'.repeat(43), `ucwa_${'x'.repeat(43)}`, 'x', '%', '%28']) {
        const answer = await knock(send(wrong), [`Cookie: webauth-session=${cookie}`]);
        expect(answer, wrong).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
        expect(answer.text).not.toContain(wrong.repeat(2));
      }
    });

    it('refuses who shows nothing', async () => {
      gate({ credentials: [credential] });
      const { cookie } = await site.logIn();
      expect(await knock({})).toMatchObject({ ...row.nothing, code: 'ERR_SESSION_MISSING' });
      const withCookie = await knock({}, [`Cookie: webauth-session=${cookie}`]);
      expect(withCookie).toMatchObject({ ...row.nothing, code: 'ERR_SESSION_MISSING' });
    });

    it('refuses an empty one', async () => {
      gate({ credentials: [credential] });
      expect(await knock(send(''))).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
    });

    it('refuses what is too old', async () => {
      gate({ credentials: [credential] });
      const [old, { token }] = [await ticket(), await apiToken(20)];
      clock.pass(31);
      expect(await knock(send(old))).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
      expect(await knock(send(token))).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
    });

    it('refuses a ticket that was used, a token that was revoked, and both of somebody who is blocked', async () => {
      gate({ credentials: [credential] });
      const [used, other, { token, handle }, second] = [
        await ticket(),
        await ticket(),
        await apiToken(),
        await apiToken(),
      ];
      expect((await knock(send(used))).status).toBe(101);
      expect(await knock(send(used))).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
      await site.waa.tokens.revoke('test0001', handle);
      expect(await knock(send(token))).toMatchObject({ ...row.refusal, code: 'ERR_TOKEN_INVALID' });
      await site.waa.block('test0001');
      expect((await knock(send(other))).status).toBe(row.refusal.status);
      const blocked = takesTokens ? { status: 403, code: 'ERR_PRINCIPAL_REFUSED' } : { ...row.refusal };
      expect(await knock(send(second.token))).toMatchObject(blocked);
    });

    it('refuses two, though both are good, and uses neither up', async () => {
      gate({ credentials: [credential] });
      const [one, other] = [await ticket(), await ticket()];
      const answer = await knock(twice(one, other));
      expect(answer).toMatchObject({ status: row.refusal.status, code: 'ERR_TOKEN_INVALID' });
      expect((await knock(send(one))).status).toBe(101);
      expect((await knock(send(other))).status).toBe(101);
    });

    it('is not looked at where it is not switched on', async () => {
      gate({ credentials: ['cookie'] });
      const { cookie } = await site.logIn();
      expect(await knock(send(await ticket()))).toMatchObject({ ...forbidden, code: 'ERR_SESSION_MISSING' });
      const own = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
      const { status, auth } = await knock(send('wrong'), own);
      expect([status, auth?.via]).toEqual([101, 'cookie']);
    });

    it('comes after a foreign Origin, and does without any', async () => {
      gate({ credentials: [credential] });
      const one = await ticket();
      for (const origin of ['null', 'https://evil.cam.ac.uk', '']) {
        const { lines = [], query } = send(one);
        const answer = await knock({ lines: [`Origin: ${origin}`, ...lines], ...(query && { query }) });
        expect(answer).toMatchObject({ ...forbidden, code: 'ERR_ORIGIN_REFUSED' });
      }
      expect((await knock(send(one))).status).toBe(101);
    });

    it('is held to scopes, principals and ptags', async () => {
      gate({ credentials: [credential], scopes: ['live', 'more'] });
      if (takesTokens) {
        const { token } = await apiToken();
        expect(await knock(send(token))).toMatchObject({ ...forbidden, code: 'ERR_SCOPE_REFUSED' });
      }
      expect((await knock(send(await ticket()))).status).toBe(101);
      const left = await ticket({ principal: 'test0401', ptags: [] });
      const user = credential === 'basic' ? authorization(basic('test0401', left)) : send(left);
      expect(await knock(user)).toMatchObject({ ...forbidden, code: 'ERR_PTAGS_REFUSED' });
    });
  });
}

describe('cookie', () => {
  it('is taken from pages, which always say where they are from, and from nobody else', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const sent = [`Cookie: webauth-session=${cookie}`];
    expect((await knock({}, [`Origin: ${site.origin}`, ...sent])).auth).toMatchObject({ via: 'cookie' });
    expect(await knock({}, [`Origin: ${site.origin}`])).toMatchObject({ ...forbidden, code: 'ERR_SESSION_MISSING' });
    expect(await knock({ lines: sent }, [])).toMatchObject({ ...forbidden, code: 'ERR_ORIGIN_REFUSED' });
  });
});

describe('several credentials', () => {
  const all = ['bearer', 'basic', 'subprotocol', 'query', 'cookie'] as const;

  it('are looked for in the order of the table, in whatever order they are named', async () => {
    site.accept({ credentials: [...all].reverse() });
    const { cookie } = await site.logIn({ principal: 'test0004' });
    const ofQuery = await ticket({ principal: 'test0003' });
    const ofProtocol = await ticket({ principal: 'test0002' });
    const lines = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    const everything = [`Sec-WebSocket-Protocol: ${JUPYTER}, ${JUPYTER}.${ofProtocol}`, ...lines];
    const { token } = await apiToken();
    const first = await knock({ lines: [`Authorization: Bearer ${token}`], query: `?ticket=${ofQuery}` }, everything);
    expect(first.auth?.principal).toBe('test0001');
    const second = await knock({ query: `?ticket=${ofQuery}` }, everything);
    expect(second.auth?.principal).toBe('test0002');
    const third = await knock({ query: `?ticket=${ofQuery}` }, lines);
    expect(third.auth?.principal).toBe('test0003');
    expect((await knock({}, lines)).auth?.principal).toBe('test0004');
  });

  it('invite to each scheme of HTTP authentication that is taken, where nothing is offered', async () => {
    site.accept({ credentials: all });
    const { status, challenges } = await knock({});
    expect([status, challenges]).toEqual([401, ['Bearer', basicChallenge()]]);
  });

  it('are wrong with two Authorization lines, of which Node shows the first, whatever they are', async () => {
    site.accept({ credentials: all });
    const { token } = await apiToken();
    const doubled = [
      [`Bearer ${token}`, basic('test0001', token)],
      [basic('test0001', token), `Bearer ${token}`],
      [`Bearer ${token}`, `Bearer ${token}`],
      [`Bearer ${token}`, 'Digest x'],
      ['Digest x', `Bearer ${token}`],
    ];
    for (const lines of doubled) {
      expect(await knock(authorization(...lines))).toMatchObject({ status: 401, code: 'ERR_TOKEN_INVALID' });
    }
  });

  it('take no other scheme of Authorization for one of theirs', async () => {
    site.accept({ credentials: ['bearer', 'basic', 'cookie'] });
    const { cookie } = await site.logIn();
    const sent = { lines: ['Authorization: Negotiate abc', `Cookie: webauth-session=${cookie}`] };
    expect((await knock(sent, [`Origin: ${site.origin}`])).auth?.via).toBe('cookie');
  });
});

describe('basic', () => {
  it.each<[string, (token: string) => string, number]>([
    ['the principal as user', (token) => basic('test0001', token), 101],
    ['`token` as user, as in ws://token:<token>@…', (token) => basic('token', token), 101],
    ['another principal as user', (token) => basic('test0002', token), 401],
    ['no user', (token) => basic('', token), 401],
    ['the token as user', (token) => basic(token, ''), 401],
    ['no colon', (token) => `Basic ${Buffer.from(token).toString('base64')}`, 401],
    ['something behind the token', (token) => basic('token', `${token}:x`), 401],
    ['the scheme in capitals', (token) => basic('token', token).replace('Basic', 'BASIC'), 101],
    ['no scheme', (token) => basic('token', token).slice(6), 401],
    ['something that is not base64', () => 'Basic ====', 401],
  ])('takes or leaves: %s', async (_, value, status) => {
    site.accept({ credentials: ['basic'] });
    const { token } = await apiToken();
    expect((await knock(authorization(value(token)))).status).toBe(status);
  });
});

describe('query', () => {
  it.each([
    ['?ticket=TICKET', '/live'],
    ['?a=1&ticket=TICKET', '/live?a=1'],
    ['?ticket=TICKET&b=%20+2', '/live?b=%20+2'],
    ['?a&ticket=TICKET&&b', '/live?a&&b'],
    ['?t%69cket=TICKET&a=ticket', '/live?a=ticket'],
    ['??ticket=TICKET', '/live'],
  ])('is out of the address before anybody sees it: %s', async (query, left) => {
    const seen: (string | undefined)[] = [];
    site.accept({ credentials: ['query'], authorise: (_, { url }) => Boolean(seen.push(url)) });
    const { status, request } = await knock({ query: query.replace('TICKET', await ticket()) }, [], '/live');
    expect([status, request?.url, seen]).toEqual([101, left, [left]]);
  });

  it('is out of the address of what is refused, too', async () => {
    site.accept({ credentials: ['query'] });
    const seen: (string | undefined)[] = [];
    const log = ({ url }: IncomingMessage) => void seen.push(url);
    site.server.on('upgrade', log);
    await knock({ query: '?ticket=secret&a=1' }, ['Origin: null'], '/live');
    site.server.removeListener('upgrade', log);
    expect(seen).toEqual(['/live?a=1']);
  });

  it('is the application’s own where tickets are not taken', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const own = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    expect((await knock({ query: '?ticket=mine' }, own)).request?.url).toBe('/?ticket=mine');
  });
});

describe('subprotocol (JEP 121)', () => {
  const good = async () => `${JUPYTER}.${(await apiToken()).token}`;

  it.each<[string, string[], string | undefined]>([
    ['the bare one where there is no other', [JUPYTER, 'TOKEN'], JUPYTER],
    ['the bare one, wherever the token is', ['TOKEN', JUPYTER], JUPYTER],
    ['the application’s own, which comes first', ['chat', JUPYTER, 'TOKEN'], 'chat'],
    ['the application’s own, behind the token', ['TOKEN', 'chat', JUPYTER], 'chat'],
    ['the first that is supported', [JUPYTER, 'chat', 'TOKEN'], JUPYTER],
    ['none where the token is alone', ['TOKEN'], undefined],
  ])('selects %s', async (_, offered, selected) => {
    site.accept({ credentials: ['subprotocol'] });
    const token = await good();
    const { status, text, request } = await knock(protocols(...offered.map((one) => one.replace('TOKEN', token))));
    expect([status, selectedIn(text)]).toEqual([101, selected]);
    expect(text).not.toContain('ucwa_');
    expect(JSON.stringify([request?.headers, request?.rawHeaders, request?.headersDistinct])).not.toContain('ucwa_');
  });

  it('selects what the application’s handleProtocols does, and the bare one where that knows none', async () => {
    const own = new WebSocketServer({ noServer: true, handleProtocols: (offered) => offered.has('chat') && 'chat' });
    site.accept({ credentials: ['subprotocol', 'cookie'] }, own);
    const token = await good();
    expect(selectedIn((await knock(protocols(JUPYTER, token, 'chat'))).text)).toBe('chat');
    expect(selectedIn((await knock(protocols(JUPYTER, token))).text)).toBe(JUPYTER);
    expect(selectedIn((await knock(protocols(token, 'other'))).text)).toBeUndefined();
    for (const socket of own.clients) socket.terminate();
  });

  it('does not accept the bare one without an accepted token', async () => {
    const { cookie } = await site.logIn();
    const own = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    site.accept({ path: '/with', credentials: ['subprotocol', 'cookie'] });
    site.accept({ path: '/without' });
    for (const path of ['/with', '/without']) {
      expect(selectedIn((await knock(protocols(JUPYTER), own, path)).text)).toBeUndefined();
      expect(selectedIn((await knock(protocols(JUPYTER, 'chat'), own, path)).text)).toBe('chat');
    }
  });

  it('shows and selects no token where none is taken', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const own = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
    const { text, request } = await knock(protocols(`${JUPYTER}.secret`, JUPYTER), own);
    expect(selectedIn(text)).toBeUndefined();
    expect(request?.headers).not.toHaveProperty('sec-websocket-protocol');
  });

  it.each<[separator: string, refusal: object, asked: number]>([
    [' ', { status: 400, code: 'ERR_HANDSHAKE_INVALID' }, 0],
    [';', { status: 400, code: 'ERR_HANDSHAKE_INVALID' }, 0],
    ['.', { status: 403, code: 'ERR_TOKEN_INVALID' }, 2],
    ['"', { status: 400, code: 'ERR_HANDSHAKE_INVALID' }, 0],
    ['\t', { status: 400, code: 'ERR_HANDSHAKE_INVALID' }, 0],
  ])(
    'shows no token of a list whose separator is %j, and takes it for a wrong one',
    async (separator, refusal, asked) => {
      const seen: unknown[] = [];
      const authorise = (_: unknown, { headers, rawHeaders }: IncomingMessage) => seen.push(headers, rawHeaders) > 0;
      site.accept({ path: '/with', credentials: ['subprotocol', 'cookie'], authorise });
      site.accept({ path: '/without', authorise });
      const { cookie } = await site.logIn();
      const own = [`Origin: ${site.origin}`, `Cookie: webauth-session=${cookie}`];
      const list = protocols([JUPYTER, await good()].join(separator));
      expect(await knock(list, own, '/with')).toMatchObject(refusal);
      expect((await knock(list, own, '/without')).text).not.toContain('ucwa_');
      expect(seen).toHaveLength(asked);
      expect(JSON.stringify(seen)).not.toContain('ucwa_');
    },
  );

  it('leaves the application’s own protocols as they are', async () => {
    site.accept();
    const { cookie } = await site.logIn();
    const { client } = await site.open('/', site.headers(cookie), ['first', 'second']);
    expect(client.protocol).toBe('first');
  });

  it('decodes percent-encoding, parentheses included', async () => {
    site.accept({ credentials: ['subprotocol'] });
    const { token } = await apiToken();
    const encoded = [...token].map((char) => `%${char.charCodeAt(0).toString(16)}`).join('');
    expect((await knock(protocols(JUPYTER, `${JUPYTER}.${encoded}`))).status).toBe(101);
    // What encodeURIComponent leaves as it is, and a header must not hold: wrong, and answered.
    expect((await knock(protocols(JUPYTER, `${JUPYTER}.a(b)`))).status).toBe(400);
    expect((await knock(protocols(JUPYTER, `${JUPYTER}.a%28b%29`))).status).toBe(403);
  });

  it('is refused by HTTP, however others are, also where the token is good and may not enter', async () => {
    site.accept({ credentials: ['subprotocol'], rejection: 'close', scopes: ['other'] });
    const { token } = await apiToken();
    expect(await knock(protocols(JUPYTER, `${JUPYTER}.x`))).toMatchObject({ status: 403, code: 'ERR_TOKEN_INVALID' });
    const mayNot = await knock(protocols(JUPYTER, `${JUPYTER}.${token}`));
    expect(mayNot).toMatchObject({ status: 403, code: 'ERR_SCOPE_REFUSED' });
  });

  it('reads several header lines as one list', async () => {
    site.accept({ credentials: ['subprotocol'] });
    const lines = ['chat', JUPYTER, await good()].map((one) => `Sec-WebSocket-Protocol: ${one}`);
    expect(selectedIn((await knock({ lines })).text)).toBe('chat');
  });
});

async function ticket(who = {}): Promise<string> {
  const { cookie } = await site.logIn(who);
  return (await site.waa.makeTicket(cookie)).ticket;
}

async function apiToken(ttl = 600): Promise<{ token: string; handle: string }> {
  return site.waa.tokens.create({ principal: 'test0001', name: 'a test', ttl, scopes: ['live'], ptags: ['current'] });
}

/** The answer to a handshake of these lines, and whose socket it made. */
async function knock({ lines = [], query = '' }: Sent, more: readonly string[] = [], path = '/') {
  const socket = site.connect([...more, ...lines], { path: path + query });
  let request: IncomingMessage | undefined;
  const opened = (_: unknown, of: IncomingMessage) => {
    request = of;
  };
  site.wss.once('connection', opened);
  let text = '';
  for await (const chunk of socket) {
    text += chunk;
    if (text.startsWith('HTTP/1.1 101') && text.includes('\r\n\r\n')) break;
  }
  site.wss.off('connection', opened);
  const [head = '', body = ''] = text.split('\r\n\r\n');
  const challenges = [...head.matchAll(/^WWW-Authenticate: (.*)$/gm)].map(([, value]) => value);
  const code = body.startsWith('{') ? JSON.parse(body).error.code : undefined;
  return { status: Number(text.slice(9, 12)), challenges, code, text, request, auth: request?.auth };
}

function selectedIn(text: string): string | undefined {
  return /^Sec-WebSocket-Protocol: (.*)$/m.exec(text)?.[1];
}
