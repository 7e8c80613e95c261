import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Config, checkConfig, type LogEvent } from '../src/config.js';
import { type Demands, formatDemands, parseDemands } from '../src/demands.js';
import { AuthorisationError, ResponseError, SessionError, StatusError } from '../src/errors.js';
import { KeySet } from '../src/keys.js';
import { goose, isDemoKey, type Profile, raven, ravenDemo } from '../src/profiles.js';
import type { AuthResponse } from '../src/response.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth } from '../src/session/session.js';
import type { VerifiedResponse } from '../src/verify.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';

// As random as production asks for.
const secret = '91b0c5a8ccd34270d5a8c0f7e5b35ae3d02bc75efb6003d6cbc4baa692804156';
const start = Date.parse('2026-03-01T12:00:00Z');

let time: number;
const now = () => new Date(time);
const wls = createWLS({ key: wlsKey.privateKey, now });
beforeEach(() => {
  time = start;
});
afterEach(() => vi.unstubAllEnvs());

function makeWAA(config: Partial<Config> = {}): WAA {
  return createWAA({ baseUrl: 'http://localhost:3000', secret, wls: wls.profile, now, ...config });
}

/** Begins a login, has the login service answer, and finishes it. */
async function logIn(waa: WAA, overrides: Partial<AuthResponse> = {}, returnTo = '/') {
  const { location, nonce } = waa.startLogin(returnTo);
  const { auth, cookie, ...rest } = await waa.finishLogin(wls.respond(location, overrides), nonce);
  return { ...rest, auth, cookie: cookie as string };
}

async function refusal(promise: Promise<unknown>): Promise<{ code: string; loginUrl?: string }> {
  return promise.then(
    () => expect.fail('nothing was refused'),
    (error) => error,
  );
}

describe('configuration', () => {
  const good: Config = { baseUrl: 'https://example.cam.ac.uk', secret };
  const production = (config: unknown) => () => {
    vi.stubEnv('NODE_ENV', undefined);
    checkConfig(config as Config);
  };

  it.each([
    [{}],
    [{ baseUrl: 'https://example.cam.ac.uk/' }],
    [{ baseUrl: 'https://example.cam.ac.uk/app/two' }],
    [{ baseUrl: 'https://example.cam.ac.uk:8443/app/' }],
    [{ secret: [secret, 'C81A1E3505E4EB00EFB121FA7F72376004B98878DA4945384BA719A3964B61C4'] }],
    [{ maxLife: 60, useWlsLife: false, requirePtags: [], callbackPath: '/done' }],
    [{ wls: goose({ keys: raven.keys }) }],
  ])('takes %j, in production too', (config) => {
    expect(production({ ...good, ...config })).not.toThrow();
  });

  it.each([
    [undefined, 'createWAA takes an object of options'],
    [{ ...good, baseUrl: undefined }, 'baseUrl is missing'],
    [{ ...good, baseUrl: 'example.cam.ac.uk' }, 'is not absolute'],
    [{ ...good, baseUrl: '/app' }, 'is not absolute'],
    [{ ...good, baseUrl: 'localhost:3000' }, 'neither https nor http'],
    [{ ...good, secret: '' }, '64 hex digits'],
    [{ ...good, baseUrl: 'ftp://example.cam.ac.uk' }, 'neither https nor http'],
    [{ ...good, baseUrl: 'https://example.cam.ac.uk/?a=1' }, 'without user, query or fragment'],
    [{ ...good, baseUrl: 'https://example.cam.ac.uk/#' }, 'without user, query or fragment'],
    [{ ...good, baseUrl: 'https://me@example.cam.ac.uk/' }, 'without user, query or fragment'],
    [{ ...good, baseUrl: 'https://example.cam.ac.uk/%0a' }, 'the path of baseUrl'],
    [{ ...good, baseUrl: 'http://example.cam.ac.uk' }, 'plain http'],
    [{ ...good, baseUrl: 'http://localhost:3000' }, 'set NODE_ENV=development'],
    [{ ...good, secret: undefined }, 'openssl rand -hex 32'],
    [{ ...good, secret: undefined }, 'If it is read from an environment variable, that variable is not set.'],
    [{ ...good, secret: [] }, 'openssl rand -hex 32'],
    [{ ...good, secret: 'short' }, '64 hex digits'],
    [{ ...good, secret: [secret, 'x'.repeat(64)] }, '64 hex digits'],
    [{ ...good, maxlife: 3 }, 'has no option maxlife; it has: baseUrl, secret,'],
    [{ ...good, maxLife: '7200' }, 'the option maxLife is a number of seconds'],
    [{ ...good, maxLife: -1 }, 'the option maxLife is a number of seconds'],
    [{ ...good, requirePrincipals: 'spqr1' }, 'is a list of texts'],
    // Undefined by a mistake, it would let everybody in.
    [{ ...good, requirePrincipals: undefined }, 'the option requirePrincipals is a list of texts'],
    [{ ...good, requirePtags: undefined }, 'the option requirePtags is a list of texts'],
    [new Map(Object.entries(good)), 'createWAA takes an object of options'],
    [[good], 'createWAA takes an object of options'],
    [{ ...good, callbackPath: 'done' }, 'the option callbackPath is a path'],
    [{ ...good, callbackPath: '/a/../b' }, 'the option callbackPath is a path'],
    [{ ...good, callbackPath: '//evil.example' }, 'the option callbackPath is a path'],
    [{ ...good, callbackPath: '/webauth/login' }, 'not one of our other routes'],
    [{ ...good, callbackPath: '/webauth/ticket' }, 'not one of our other routes'],
    [{ ...good, cookieName: '__Host-x' }, 'begins with a letter'],
    [{ ...good, cookieName: 'a=b' }, 'at most 32 letters'],
    [{ ...good, cookiePath: 'app' }, 'the option cookiePath is / or a path'],
    [{ ...good, cookiePath: '/app; Domain=cam.ac.uk' }, 'the option cookiePath is / or a path'],
    [{ ...good, cookiePath: '/app' }, 'the route / lies outside of cookiePath, /app'],
    [
      { ...good, baseUrl: 'https://example.cam.ac.uk/app', cookiePath: '/ap' },
      'the route /app/ lies outside of cookiePath, /ap,',
    ],
    [
      { ...good, baseUrl: 'https://example.cam.ac.uk/app', cookiePath: '/app/inner' },
      'the route /app/ lies outside of cookiePath',
    ],
    [{ ...good, maxLife: 1e15 }, 'at most those of a year'],
    [{ ...good, wls: { ...raven, logoutUrl: '/logout' } }, 'must be https'],
    [{ ...good, wls: {} }, 'the option wls is a login service'],
    [{ ...good, wls: { ...raven, requirePtags: undefined } }, 'the option wls is a login service'],
    [{ ...good, wls: { ...raven, requirePtags: 'current' } }, 'the option wls is a login service'],
    [{ ...good, wls: { ...raven, oldVersionPtags: [1] } }, 'the option wls is a login service'],
    [{ ...good, desc: 'a\nb' }, 'desc holds a control character'],
    [{ ...good, store: {} }, 'has the methods of a Store'],
    [{ ...good, wls: { ...raven, authUrl: 'http://raven.cam.ac.uk/' } }, 'must be https'],
    [{ ...good, wls: wls.profile }, 'the login service is on this machine'],
    [{ ...good, wls: ravenDemo }, "Raven's demonstration service"],
    [{ ...good, wls: { ...raven, keys: demoKeyAs('2') } }, "Raven's demonstration service"],
  ])('refuses %j and says what to do', (config, sentence) => {
    expect(production(config)).toThrow(TypeError);
    expect(production(config)).toThrow(sentence);
  });

  it('never shows a secret in what it says', () => {
    const wrong = 'cafe'.repeat(15);
    for (const config of [
      { ...good, secret: wrong },
      { ...good, secret: [secret, wrong] },
    ]) {
      expect(production(config)).toThrow(expect.not.objectContaining({ message: expect.stringContaining('cafe') }));
    }
  });

  it('[X13] counts NODE_ENV as production unless it says development or test', () => {
    for (const [env, fine] of [
      ['development', true],
      ['test', true],
      ['production', false],
      ['', false],
      ['dev', false],
    ] as const) {
      vi.stubEnv('NODE_ENV', env);
      const check = () => checkConfig({ baseUrl: 'http://localhost:3000', wls: ravenDemo });
      if (fine) expect(check, env).not.toThrow();
      else expect(check, env).toThrow(TypeError);
    }
  });

  it('accepts what is for development in production only by name, and warns', () => {
    vi.stubEnv('NODE_ENV', undefined);
    const log = vi.fn();
    makeWAA({ dangerouslyActAsDevelopment: true, log });
    expect(log).toHaveBeenCalledWith(expect.objectContaining({ level: 'warn', event: 'start' }));
    expect(() => createWAA({ baseUrl: 'http://example.org', secret, dangerouslyActAsDevelopment: true })).toThrow(
      'plain http',
    );
  });

  it('makes up a secret in development, and warns', () => {
    const log = vi.fn();
    createWAA({ baseUrl: 'http://localhost:3000', log });
    expect(log).toHaveBeenCalledWith(
      expect.objectContaining({ level: 'warn', message: expect.stringContaining('no secret') }),
    );
  });

  it('says at the start that memory does not survive a restart, where nothing else was configured', () => {
    const log = vi.fn();
    makeWAA({ log });
    expect(log).toHaveBeenCalledWith(
      expect.objectContaining({ level: 'info', message: expect.stringContaining('restart') }),
    );
    log.mockClear();
    makeWAA({ log, store: new MemoryStore() });
    expect(log).not.toHaveBeenCalled();
  });
});

describe('a login', () => {
  it('ends in a session, which its cookie opens', async () => {
    const waa = makeWAA();
    const { auth, cookie, returnTo } = await logIn(waa, { life: 3600 }, '/page?a=1&a=%C3%A9');
    expect(returnTo).toBe('/page?a=1&a=%C3%A9');
    expect(auth).toMatchObject({ principal: 'test0001', ptags: ['current'], via: 'cookie', auth: 'pwd', sso: [] });
    expect(auth.expires).toEqual(new Date(start + 3600_000));
    expect(auth.expiresBecause).toBe('life');
    expect(waa.openSession(cookie)).toEqual(auth);
  });

  it('asks for the configured address, and nothing of the browser is in the address but a sealed token', async () => {
    const { location, nonce } = makeWAA({ baseUrl: 'http://localhost:3000/app', desc: 'A & B' }).startLogin(
      '/secret-path',
    );
    const query = new URL(location).searchParams;
    expect(query.get('url')).toBe('http://localhost:3000/app/webauth/callback');
    expect(query.get('desc')).toBe('A &amp; B');
    expect([...query.keys()]).toEqual(['ver', 'url', 'desc', 'params', 'date']);
    expect(nonce).toMatch(/^[\w-]{22}$/);
    expect(location).not.toContain(nonce);
    expect(Buffer.from(query.get('params') as string, 'base64url').includes('secret-path')).toBe(false);
  });

  it('keeps the nonce of a browser that has one, and makes another of what is not one', () => {
    const waa = makeWAA();
    const { nonce } = waa.startLogin('/');
    expect(waa.startLogin('/', nonce).nonce).toBe(nonce);
    for (const odd of ['', 'x', `${nonce}x`, `${nonce.slice(1)};`])
      expect(waa.startLogin('/', odd).nonce).not.toBe(odd);
  });

  const strays = [
    '//evil.example',
    '/\\evil.example',
    'https://evil.example/',
    'evil',
    '',
    '\\',
    '/a b',
    '/a\tb',
    '/a\r\nLocation: x',
    '/é',
    'javascript:alert(1)',
    `/${'a'.repeat(2048)}`,
    '/\t/evil.example',
    ' /a',
  ];
  it.each(strays)('[X12] comes back to / rather than to %j', async (path) => {
    const waa = makeWAA();
    expect((await logIn(waa, {}, path)).returnTo).toBe('/');
    expect(waa.loginUrl(path)).toBe('/webauth/login?return=%2F');
  });

  it('comes back to a path of 2 KB, byte for byte', async () => {
    const path = `/a/../b//c?x=1&x=%C3%A9&y[]=%00&z=${'q'.repeat(2000)}`.slice(0, 2048);
    expect((await logIn(makeWAA(), {}, path)).returnTo).toBe(path);
  });

  it('[V8] takes a response once', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    const encoded = wls.respond(location);
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => waa.finishLogin(encoded, nonce)));
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const one of tries) {
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'ERR_RESPONSE_REPLAYED', status: 400 });
    }
  });

  it('[V8] remembers a used response for over an hour, past what another machine with another clock lets pass', async () => {
    const spend = vi.fn(async () => true);
    const store = Object.assign(new MemoryStore({ now }), { spend });
    await logIn(makeWAA({ store }));
    expect(spend).toHaveBeenCalledWith(expect.stringMatching(/^[\w-]{43}$/), new Date(start + 4_200_000));
    // And where responses may be older than that, for twice as long.
    await logIn(makeWAA({ store, responseTimeout: 3600 }));
    expect(spend).toHaveBeenLastCalledWith(expect.any(String), new Date(start + 2 * 3_605_000));
  });

  it('is not spent by a response that does not verify', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    const good = wls.respond(location);
    const bad = good.replace(/.(?=.$)/, (char) => (char === 'A' ? 'Q' : 'A'));
    await expect(waa.finishLogin(bad, nonce)).rejects.toBeInstanceOf(Error);
    await expect(waa.finishLogin(good, nonce)).resolves.toMatchObject({ auth: { principal: 'test0001' } });
  });

  it('[V10] belongs to the browser that began it', async () => {
    const waa = makeWAA();
    const [mine, theirs] = [waa.startLogin('/'), waa.startLogin('/')];
    const encoded = wls.respond(theirs.location);
    expect(await refusal(waa.finishLogin(encoded, mine.nonce))).toMatchObject({
      code: 'ERR_PARAMS_MISMATCH',
      status: 400,
    });
    expect(await refusal(waa.finishLogin(encoded, undefined))).toMatchObject({
      code: 'ERR_COOKIES_BLOCKED',
      status: 400,
    });
    expect(await refusal(waa.finishLogin(encoded, ''))).toMatchObject({ code: 'ERR_PARAMS_MISMATCH' });
  });

  it('[V4] has a token that nobody else can make', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    const other = createWAA({ baseUrl: 'http://localhost:3000', secret: 'b2'.repeat(32), wls: wls.profile, now });
    const foreign = other.startLogin('/', nonce).location;
    for (const params of ['', 'x', nonce, new URL(foreign).searchParams.get('params') as string]) {
      expect(await refusal(waa.finishLogin(wls.respond(location, { params }), nonce))).toMatchObject({
        code: 'ERR_PARAMS_MISMATCH',
      });
    }
    // Nor is a session cookie such a token, or the token a session.
    const { cookie } = await logIn(waa);
    expect(await refusal(waa.finishLogin(wls.respond(location, { params: cookie }), nonce))).toMatchObject({
      code: 'ERR_PARAMS_MISMATCH',
    });
    expect(() => waa.openSession(new URL(location).searchParams.get('params') as string)).toThrow(SessionError);
  });

  it('can share its nonce with other tabs, and they finish in any order', async () => {
    const waa = makeWAA();
    const first = waa.startLogin('/one');
    const second = waa.startLogin('/two', first.nonce);
    const answers = [second, first].map(({ location }) => wls.respond(location));
    const [two, one] = [
      await waa.finishLogin(answers[0] as string, first.nonce),
      await waa.finishLogin(answers[1] as string, first.nonce),
    ];
    expect([one.returnTo, two.returnTo]).toEqual(['/one', '/two']);
  });

  describe('[login 3] in a second tab, after the first has finished and the login cookie is gone', () => {
    async function secondTab(overrides: Partial<AuthResponse> = {}, waits = 0) {
      const waa = makeWAA();
      const { location } = waa.startLogin('/two');
      const first = await logIn(waa);
      time += waits;
      const encoded = wls.respond(location, overrides);
      return { waa, first, encoded, second: waa.finishLogin(encoded, undefined, first.auth) };
    }

    it('goes to its page with the session that there is; nothing is made, replaced or used up', async () => {
      const { waa, first, encoded, second } = await secondTab();
      expect(await second).toEqual({
        auth: first.auth,
        cookie: undefined,
        demands: {},
        returnTo: '/two',
      });
      expect(waa.openSession(first.cookie)).toEqual(first.auth);
      expect(await waa.finishLogin(encoded, undefined, first.auth)).toMatchObject({ cookie: undefined });
    });

    it('is refused for another person, and the session goes on', async () => {
      const { waa, first, second } = await secondTab({ principal: 'test0002' });
      expect(await refusal(second)).toMatchObject({
        code: 'ERR_COOKIES_BLOCKED',
        loginUrl: '/webauth/login?return=%2Ftwo',
      });
      expect(waa.openSession(first.cookie)).toEqual(first.auth);
    });

    it.each<[string, Partial<AuthResponse>, string]>([
      ['url', { url: 'http://localhost:4000/webauth/callback' }, 'ERR_URL_MISMATCH'],
      ['issue', { issue: new Date(start - 31_000) }, 'ERR_ISSUE_STALE'],
      ['sig', { sig: Buffer.alloc(128) }, 'ERR_SIGNATURE_INVALID'],
      // What nobody but the one who comes back could have had made is not believed to be their failure.
      ['status', { status: 410 }, 'ERR_COOKIES_BLOCKED'],
      ['params', { params: 'other' }, 'ERR_COOKIES_BLOCKED'],
    ])('passes every other check: %s', async (_, overrides, code) => {
      expect(await refusal((await secondTab(overrides)).second)).toMatchObject({ code });
    });

    it('came within half an hour', async () => {
      expect(await refusal((await secondTab({}, 1_800_001)).second)).toMatchObject({ code: 'ERR_COOKIES_BLOCKED' });
    });

    it('without a session, says what may have happened, and still knows the page that was asked for', async () => {
      const waa = makeWAA();
      const { location } = waa.startLogin('/two');
      expect(await refusal(waa.finishLogin(wls.respond(location), undefined))).toMatchObject({
        code: 'ERR_COOKIES_BLOCKED',
        message: expect.stringMatching(/blocked.*another tab.*half an hour/),
        loginUrl: '/webauth/login?return=%2Ftwo',
      });
    });
  });

  it('may take half an hour at the login service, and no longer', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    time += 1_800_000;
    const answer = wls.respond(location);
    await expect(waa.finishLogin(answer, nonce)).resolves.toBeDefined();
    time += 1;
    const late = wls.respond(location);
    expect(await refusal(waa.finishLogin(late, nonce))).toMatchObject({ code: 'ERR_COOKIES_BLOCKED' });
  });

  it('[X1] was made for this application: one for another address is refused though its params and cookie match', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    const encoded = wls.respond(location, { url: 'http://localhost:4000/webauth/callback' });
    expect(await refusal(waa.finishLogin(encoded, nonce))).toMatchObject({
      code: 'ERR_URL_MISMATCH',
      loginUrl: '/webauth/login?return=%2F',
    });
  });

  it('holds the response to version 3: a user cannot ask for an older one and gain its ptags', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/');
    const encoded = wls.respond(location.replace('ver=3', 'ver=1'), { principal: 'test0401' });
    const error = await refusal(waa.finishLogin(encoded, nonce));
    expect(error).toBeInstanceOf(ResponseError);
    expect(error).toMatchObject({ code: 'ERR_RESPONSE_VERSION' });
  });

  it('[F1] that failed says why, and where to try again', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/page');
    const error = await refusal(waa.finishLogin(wls.respond(location, { ver: 1, status: 410 }), nonce));
    expect(error).toBeInstanceOf(StatusError);
    expect(error).toMatchObject({ code: 'ERR_WLS_CANCELLED', status: 401, loginUrl: '/webauth/login?return=%2Fpage' });
  });

  it('with a session that would be over at once is an error, and not a session', async () => {
    for (const [config, overrides] of [
      [{}, { life: 0 }],
      [{}, { life: 9 }],
      [{ maxLife: 0 }, {}],
      [{ maxLife: 9 }, {}],
    ] as const) {
      const message = expect.stringContaining('maxLife' in config ? 'maxLife is too short' : 'log out of the login');
      expect(await refusal(logIn(makeWAA(config), overrides))).toMatchObject({ code: 'ERR_SESSION_EXPIRED', message });
    }
    await expect(logIn(makeWAA(), { life: 10 })).resolves.toBeDefined();
    await expect(logIn(makeWAA({ useWlsLife: false }), { life: 0 })).resolves.toBeDefined();
  });

  it('starts a new session and ends the one that it replaces', async () => {
    const waa = makeWAA();
    const first = await logIn(waa);
    const { location, nonce } = waa.startLogin('/');
    const second = await waa.finishLogin(wls.respond(location), nonce, first.auth);
    expect(second.auth.sessionId).not.toBe(first.auth.sessionId);
    expect(() => waa.openSession(first.cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    expect(waa.openSession(second.cookie as string).principal).toBe('test0001');
  });

  it('leaves the present session alone if it fails', async () => {
    const waa = makeWAA();
    const first = await logIn(waa);
    const { location, nonce } = waa.startLogin('/');
    await refusal(waa.finishLogin(wls.respond(location, { status: 410 }), nonce, first.auth));
    await refusal(waa.finishLogin(wls.respond(location, { url: 'http://x/' }), nonce, first.auth));
    expect(waa.openSession(first.cookie)).toEqual(first.auth);
  });

  it('is told to onLogin, which can refuse it', async () => {
    const seen: [Auth, VerifiedResponse][] = [];
    const { auth } = await logIn(makeWAA({ onLogin: (...both) => void seen.push(both) }));
    expect(seen).toEqual([
      [auth, expect.objectContaining({ status: 200, principal: 'test0001', id: expect.any(String) })],
    ]);
    const refuse = async () => {
      throw new AuthorisationError('ERR_PRINCIPAL_REFUSED', 'not today');
    };
    expect(await refusal(logIn(makeWAA({ onLogin: refuse })))).toMatchObject({ code: 'ERR_PRINCIPAL_REFUSED' });
    // The session that would have been replaced goes on.
    let fine = true;
    const waa = makeWAA({ onLogin: () => (fine ? undefined : refuse()) });
    const first = await logIn(waa);
    fine = false;
    const { location, nonce } = waa.startLogin('/');
    await refusal(waa.finishLogin(wls.respond(location), nonce, first.auth));
    expect(waa.openSession(first.cookie)).toEqual(first.auth);
  });

  it('with the demonstration key is refused in production, under any kid, if it was added while running', async () => {
    vi.stubEnv('NODE_ENV', 'production');
    const keys = KeySet.from({ 7: wlsKey.pem });
    const profile: Profile = { ...raven, keys };
    const waa = createWAA({ baseUrl: 'https://example.cam.ac.uk', secret, wls: profile, now });
    keys.add('8', demoKeyAs('8').get('8')?.key.export({ type: 'spki', format: 'pem' }) as string);
    const key = keys.get('8');
    expect(key && isDemoKey(key)).toBe(true);
    const { location, nonce } = waa.startLogin('/');
    // Nobody here has the private half; what counts is that the key is turned away before its signature is looked at.
    const encoded = wls.respond(location, { kid: '8' });
    expect(await refusal(waa.finishLogin(encoded, nonce))).toMatchObject({
      code: 'ERR_KEY_UNKNOWN',
      message: expect.stringContaining('demonstration'),
    });
  });

  it('is logged without token, nonce, cookie, signature or query', async () => {
    const events: LogEvent[] = [];
    const waa = makeWAA({ log: (event) => events.push(event) });
    events.length = 0;
    const { location, nonce } = waa.startLogin('/private?x=1');
    const encoded = wls.respond(location);
    const { cookie, auth } = await waa.finishLogin(encoded, nonce);
    await waa.endSession(auth);
    expect(events.map(({ event, principal }) => [event, principal])).toEqual([
      ['login started', undefined],
      ['login', 'test0001'],
      ['logout', 'test0001'],
    ]);
    const text = JSON.stringify(events);
    for (const part of [
      nonce,
      cookie,
      encoded.slice(-40),
      new URL(location).searchParams.get('params') as string,
      'private',
    ]) {
      expect(text).not.toContain(part);
    }
  });
});

describe('a session', () => {
  it('is refused with what is wrong', async () => {
    const waa = makeWAA();
    const { cookie } = await logIn(waa, { life: 60 });
    const code = (open: () => unknown) => {
      try {
        open();
      } catch (error) {
        expect(error).toBeInstanceOf(SessionError);
        return (error as SessionError).code;
      }
      return 'none';
    };
    expect(code(() => waa.openSession(undefined))).toBe('ERR_SESSION_MISSING');
    expect(code(() => waa.openSession('%'))).toBe('ERR_SESSION_INVALID');
    time += 59_999;
    expect(code(() => waa.openSession(cookie))).toBe('none');
    time += 1;
    expect(code(() => waa.openSession(cookie))).toBe('ERR_SESSION_EXPIRED');
  });

  it('is not opened by another application, login service, secret or cookie name', async () => {
    const store = new MemoryStore({ now });
    const { cookie } = await logIn(makeWAA({ store }));
    const others: Partial<Config>[] = [
      { baseUrl: 'http://localhost:3001' },
      { baseUrl: 'http://localhost:3000/app' },
      { baseUrl: 'https://localhost:3000' },
      { secret: 'b2'.repeat(32) },
      { wls: { ...wls.profile, name: 'other' } },
    ];
    for (const config of others) {
      const other = makeWAA({ store, ...config });
      await other.ready;
      expect(() => other.openSession(cookie), JSON.stringify(config.baseUrl)).toThrow(SessionError);
    }
    const same = makeWAA({ store, secret: ['b2'.repeat(32), secret] });
    await same.ready;
    expect(same.openSession(cookie).principal).toBe('test0001');
  });

  it('that was ended stays ended, and so does one of a store that is gone', async () => {
    const waa = makeWAA();
    const { cookie, auth } = await logIn(waa);
    await waa.endSession(auth);
    expect(() => waa.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    const restarted = makeWAA();
    await restarted.ready;
    expect(() => restarted.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
  });

  it('is opened, renewed and looked at again without asking the store anything: it is told of the renewal', async () => {
    const store = new MemoryStore({ now });
    const waa = makeWAA({ store, inactiveTimeout: 600 });
    const { cookie } = await logIn(waa);
    const methods = ['mark', 'next', 'spend', 'get', 'take', 'delete', 'list', 'subscribe'] as const;
    const asked = methods.map((method) => vi.spyOn(store, method));
    const put = vi.spyOn(store, 'put');
    time += 301_000;
    const auth = waa.openSession(cookie);
    expect(waa.renew(auth)).toBeDefined();
    waa.recheck(auth);
    waa.note(auth, 'a browser');
    waa.authorise(auth);
    for (const one of asked) expect(one).not.toHaveBeenCalled();
    expect(put.mock.calls.map(([key]) => key)).toEqual([expect.stringMatching(/^seen\./)]);
    await waa.endSession(auth);
    expect(put).toHaveBeenCalledTimes(2);
  });

  it('is not looked for before the store has been reached: 503, and a log entry if it cannot be', async () => {
    const log = vi.fn();
    const failing = Object.assign(new MemoryStore({ now }), { mark: () => Promise.reject(new Error('no route')) });
    const waa = makeWAA({ store: failing, log });
    await waa.ready;
    expect(() => waa.openSession('x'.repeat(60))).toThrow(
      expect.objectContaining({ code: 'ERR_STORE_UNAVAILABLE', status: 503 }),
    );
    expect(log).toHaveBeenCalledWith(
      expect.objectContaining({ level: 'error', message: expect.stringContaining('no route') }),
    );
  });

  it('is found again once the store can be reached', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const store = new MemoryStore({ now });
      const list = vi.spyOn(store, 'list').mockRejectedValueOnce(new Error('no route'));
      const waa = makeWAA({ store });
      expect(await refusal(logIn(waa))).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE', status: 503 });
      await vi.advanceTimersByTimeAsync(1000);
      const { cookie, auth } = await logIn(waa);
      expect(waa.openSession(cookie)).toEqual(auth);
      // In vain once.
      expect(list).toHaveBeenCalledTimes(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it('is ERR_STORE_UNAVAILABLE wherever the store fails later, and only the log hears why', async () => {
    const events: LogEvent[] = [];
    const store = new MemoryStore({ now });
    const waa = makeWAA({ store, log: (event) => events.push(event) });
    const first = await logIn(waa);
    const away = () => Promise.reject(new Error('ECONNREFUSED with a password'));
    const put = vi.spyOn(store, 'put').mockImplementation(away);
    expect(await refusal(waa.endSession(first.auth))).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE', status: 503 });
    const again = waa.startLogin('/');
    const replacing = waa.finishLogin(wls.respond(again.location), again.nonce, first.auth);
    expect(await refusal(replacing)).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
    put.mockRestore();
    vi.spyOn(store, 'spend').mockImplementation(away);
    const error = await refusal(logIn(waa));
    expect(error).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
    expect(String(error)).not.toContain('password');
    const told = events.filter(({ level }) => level === 'error');
    expect(told).toHaveLength(3);
    for (const event of told)
      expect(event).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE', message: expect.stringContaining('ECONNREFUSED') });
  });

  it('of a WAA that was closed while it started is not listened for', async () => {
    const store = new MemoryStore({ now });
    const stopped = vi.fn();
    vi.spyOn(store, 'subscribe').mockImplementation(async () => stopped);
    const waa = makeWAA({ store });
    await waa.close();
    await waa.ready;
    expect(stopped).toHaveBeenCalled();
  });

  it('is not tried again after close()', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const store = new MemoryStore({ now });
      const mark = vi.spyOn(store, 'mark').mockRejectedValue(new Error('no route'));
      const [before, during] = [makeWAA({ store }), makeWAA({ store })];
      await during.close();
      await Promise.all([before.ready, during.ready]);
      await before.close();
      mark.mockClear();
      await vi.advanceTimersByTimeAsync(5000);
      expect(mark).not.toHaveBeenCalled();
    } finally {
      vi.useRealTimers();
    }
  });

  it('that was ended does not come back with a longer maxLife', async () => {
    const store = new MemoryStore({ now });
    const short = makeWAA({ store, maxLife: 600 });
    const { cookie, auth } = await logIn(short);
    await short.endSession(auth);
    time += 601_000;
    const long = makeWAA({ store, maxLife: 7200 });
    await long.ready;
    expect(() => long.openSession(cookie)).toThrow(SessionError);
  });

  it('of another application goes on when one is closed that shares the store', async () => {
    const store = new MemoryStore({ now });
    const [one, two] = [makeWAA({ store }), makeWAA({ store })];
    await two.ready;
    const { cookie, auth } = await logIn(two);
    await one.close();
    await two.endSession(auth);
    expect(() => two.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
  });

  it('that was ended stays ended where maxLife is shorter for a while', async () => {
    const store = new MemoryStore({ now });
    const { cookie } = await logIn(makeWAA({ store }));
    const short = makeWAA({ store, maxLife: 60 });
    await short.ready;
    await short.endSession(short.openSession(cookie));
    time += 61_000;
    const long = makeWAA({ store });
    await long.ready;
    expect(() => long.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
  });

  it('that is ended is over here at once, whenever the store tells of it, and though it cannot', async () => {
    const store = new MemoryStore({ now });
    vi.spyOn(store, 'subscribe').mockImplementation(async (_, { missed }) => {
      await missed();
      return () => {};
    });
    const waa = makeWAA({ store });
    const [one, two, three] = [await logIn(waa), await logIn(waa), await logIn(waa)];
    await waa.endSession(one.auth);
    expect(() => waa.openSession(one.cookie)).toThrow('was ended');
    vi.spyOn(store, 'put').mockRejectedValue(new Error('no route'));
    expect(await refusal(waa.endSession(two.auth))).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
    expect(() => waa.openSession(two.cookie)).toThrow('was ended');
    await refusal(waa.endSessions('test0001'));
    expect(() => waa.openSession(three.cookie)).toThrow('was ended');
  });

  it('is not opened any more by a WAA that was closed, which hears of no revocations', async () => {
    const waa = makeWAA();
    const { cookie } = await logIn(waa);
    await waa.close();
    expect(() => waa.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_STORE_UNAVAILABLE' }));
  });

  it('is ended and watched by the WAA that began it, and not by that of another login service', async () => {
    const { auth } = await logIn(makeWAA());
    const other = makeWAA({ wls: { ...wls.profile, name: 'other' } });
    await expect(other.endSession(auth)).rejects.toThrow(TypeError);
    expect(() => other.watch(auth, () => {})).toThrow(TypeError);
  });

  it('does not depend on a log that works in time', async () => {
    const unhandled = vi.fn();
    process.once('unhandledRejection', unhandled);
    const log = async () => {
      throw new Error('disk full');
    };
    const waa = makeWAA({ log });
    expect(waa.openSession((await logIn(waa)).cookie).principal).toBe('test0001');
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
  });

  it('does not depend on a log that works', async () => {
    const waa = makeWAA({
      log: () => {
        throw new Error('disk full');
      },
    });
    const { cookie, auth } = await logIn(waa);
    expect(waa.openSession(cookie)).toEqual(auth);
  });

  it('ends for those who watch it', async () => {
    const waa = makeWAA();
    const { auth } = await logIn(waa);
    const ended = vi.fn();
    waa.watch(auth, ended);
    await waa.endSession(auth);
    expect(ended).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ code: 'ERR_SESSION_REVOKED', closeCode: 4401 }),
    );
    await waa.close();
  });
});

describe('[login 7] a step-up', () => {
  /** Somebody who is logged in without having typed a password just now. */
  async function loggedIn(config: Partial<Config> = {}) {
    const waa = makeWAA(config);
    const { auth, cookie } = await logIn(waa, { auth: '', sso: ['pwd'] });
    return { waa, auth, cookie };
  }

  it.each<[string, Partial<AuthResponse>, Demands, boolean]>([
    ['nothing', { auth: '', sso: ['pwd'] }, {}, true],
    ['interaction, after single sign-on', { auth: '', sso: ['pwd'] }, { iact: true }, false],
    ['interaction, after a password', {}, { iact: true }, true],
    ['no interaction', {}, { iact: false }, true],
    ['a way that was used', {}, { aauth: ['x-card', 'pwd'] }, true],
    ['a way that was used before', { auth: '', sso: ['pwd'] }, { aauth: ['pwd'] }, true],
    [
      'a way that was used before, and interaction',
      { auth: 'x-card', sso: ['pwd'] },
      { aauth: ['pwd'], iact: true },
      false,
    ],
    ['a way that was not used', {}, { aauth: ['x-card'] }, false],
    ['a part of the name of a way', { auth: 'pw', sso: [] }, { aauth: ['pwd'] }, false],
    ['a recent password', {}, { iact: true, maxAge: 60 }, true],
    ['a recent password, after single sign-on', { auth: '', sso: ['pwd'] }, { iact: true, maxAge: 60 }, false],
  ])('is needed or not where a page asks for %s', async (_, answer, demands, met) => {
    const waa = makeWAA();
    const { auth } = await logIn(waa, answer);
    expect(waa.unmet(auth, demands)?.code).toBe(met ? undefined : 'ERR_STEP_UP_REQUIRED');
  });

  it('is needed once maxAge has passed since the answer was made, inclusive at its end', async () => {
    const waa = makeWAA();
    const { auth } = await logIn(waa);
    expect(auth.interactiveAt).toEqual(new Date(start));
    time = start + 60_000;
    expect(waa.unmet(auth, { iact: true, maxAge: 60 })).toBeUndefined();
    time += 1;
    expect(waa.unmet(auth, { iact: true, maxAge: 60 })?.message).toContain('of the last 60 s');
  });

  it('asks the login service for it, holds the answer to it, and replaces the session', async () => {
    const events: LogEvent[] = [];
    const { waa, auth, cookie } = await loggedIn({ log: (event) => events.push(event) });
    const { location, nonce } = waa.startLogin('/staff', undefined, { iact: true, aauth: ['pwd'] }, auth);
    expect(Object.fromEntries(new URL(location).searchParams)).toMatchObject({ iact: 'yes', aauth: 'pwd' });
    const login = await waa.finishLogin(wls.respond(location), nonce, auth);
    expect(login).toMatchObject({
      returnTo: '/staff',
      demands: { iact: true },
      auth: { principal: 'test0001', auth: 'pwd' },
    });
    expect(login.auth.login).toBeGreaterThan(auth.login);
    expect(() => waa.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    const told = events.filter(({ level }) => level === 'info').slice(-2);
    expect(told).toMatchObject([
      { event: 'revoked', principal: 'test0001', sessionId: auth.sessionId },
      { event: 'step-up', principal: 'test0001', sessionId: login.auth.sessionId },
    ]);
  });

  it.each<[string, Demands, Partial<AuthResponse>, string]>([
    ['iact', { iact: true }, { auth: '', sso: ['pwd'] }, 'ERR_IACT_UNSATISFIED'],
    ['iact=no', { iact: false }, { auth: 'pwd' }, 'ERR_IACT_UNSATISFIED'],
    ['aauth', { aauth: ['x-card'] }, { auth: 'pwd' }, 'ERR_AUTH_UNACCEPTABLE'],
  ])('[V7] that the user weakened on the way is refused: %s', async (_, demands, answer, code) => {
    const { waa, auth, cookie } = await loggedIn();
    const { location, nonce } = waa.startLogin('/staff', undefined, demands, auth);
    const weakened = location.replace(/&(?:iact|aauth)=[^&]*/g, '');
    expect(weakened).not.toBe(location);
    const refused = waa.finishLogin(wls.respond(weakened, answer), nonce, auth);
    expect(await refusal(refused)).toMatchObject({ code });
    expect(waa.openSession(cookie)).toEqual(auth);
  });

  it('is for the same principal only; the session of the first goes on, and the answer is not used up', async () => {
    const { waa, auth, cookie } = await loggedIn();
    const { location, nonce } = waa.startLogin('/staff', undefined, { iact: true }, auth);
    const encoded = wls.respond(location, { principal: 'test0002' });
    const error = await refusal(waa.finishLogin(encoded, nonce, auth));
    expect(error).toMatchObject({ code: 'ERR_PRINCIPAL_REFUSED', status: 403 });
    expect(waa.openSession(cookie)).toEqual(auth);
    // Also where the first session has ended meanwhile.
    expect(await refusal(waa.finishLogin(encoded, nonce))).toMatchObject({ code: 'ERR_PRINCIPAL_REFUSED' });
  });

  it('[login 5] whose maxAge is over when it arrives is an error, not a session', async () => {
    const { waa, auth, cookie } = await loggedIn();
    const { location, nonce } = waa.startLogin('/staff', undefined, { iact: true, maxAge: 1 }, auth);
    const encoded = wls.respond(location);
    time += 1001;
    expect(await refusal(waa.finishLogin(encoded, nonce, auth))).toMatchObject({
      code: 'ERR_IACT_UNSATISFIED',
      message: expect.stringContaining('of the last 1 s'),
      loginUrl: '/webauth/login?return=%2Fstaff&iact=yes&maxAge=1',
    });
    expect(waa.openSession(cookie)).toEqual(auth);
  });

  it('without interaction that is not possible offers one with it', async () => {
    const waa = makeWAA();
    const { location, nonce } = waa.startLogin('/staff', undefined, { iact: false, aauth: ['pwd'] });
    const error = await refusal(waa.finishLogin(wls.respond(location, { status: 540 }), nonce));
    expect(error).toMatchObject({ code: 'ERR_WLS_INTERACTION', loginUrl: '/webauth/login?return=%2Fstaff&aauth=pwd' });
  });

  it('[login 3] is nothing that a second tab does: it goes on with a session that is enough already, or not at all', async () => {
    const waa = makeWAA();
    const { location } = waa.startLogin('/two', undefined, { iact: true });
    const encoded = wls.respond(location);
    const weak = await logIn(waa, { auth: '', sso: ['pwd'] });
    // Sent on, it would have to step up at once, and where no login cookie is kept, for ever.
    expect(await refusal(waa.finishLogin(encoded, undefined, weak.auth))).toMatchObject({
      code: 'ERR_COOKIES_BLOCKED',
    });
    const strong = await logIn(waa);
    const second = await waa.finishLogin(encoded, undefined, strong.auth);
    expect([second.cookie, second.auth]).toEqual([undefined, strong.auth]);
  });
});

describe('demands in an address', () => {
  const read = (query: string) => parseDemands(new URLSearchParams(query));
  it.each<[Demands, string]>([
    [{ iact: true }, '&iact=yes'],
    [{ iact: false, aauth: ['pwd'] }, '&iact=no&aauth=pwd'],
    [{ iact: true, aauth: ['pwd', 'x-&=%!+'], maxAge: 300 }, '&iact=yes&aauth=pwd%2Cx-%26%3D%25!%2B&maxAge=300'],
  ])('%j is written and read', (demands, text) => {
    expect(formatDemands(demands)).toBe(text);
    expect(read(text)).toEqual({ iact: undefined, aauth: undefined, maxAge: undefined, ...demands });
  });

  it.each([
    '',
    'iact=',
    'iact=YES',
    'iact=true',
    'iact=constructor',
    'aauth=',
    'aauth=,',
    'aauth=a,,b',
    'aauth=a%20b',
    `aauth=${'a'.repeat(257)}`,
    'maxAge=',
    'maxAge=0',
    'maxAge=-1',
    'maxAge=x',
    'maxAge=1e99',
    'maxAge=NaN',
    'maxAge=0.5',
  ])('%j asks for nothing', (query) => {
    expect(read(query)).toBeUndefined();
  });

  it('maxAge asks for interaction, whatever iact says', () => {
    expect(read('iact=no&maxAge=5')).toMatchObject({ iact: true, maxAge: 5 });
  });
});

describe('[login 9] ending all sessions of a person', () => {
  it('ends those that there are, on every process that shares the store, and none that begin later', async () => {
    const store = new MemoryStore({ now });
    const events: LogEvent[] = [];
    const [waa, other] = [makeWAA({ store, log: (event) => events.push(event) }), makeWAA({ store })];
    await Promise.all([waa.ready, other.ready]);
    const [one, two, stranger] = [await logIn(waa), await logIn(other), await logIn(waa, { principal: 'test0002' })];
    const ended: string[] = [];
    other.watch(one.auth, ({ code }) => ended.push(code));
    other.watch(stranger.auth, () => ended.push('stranger'));
    await waa.endSessions('test0001');
    expect(ended).toEqual(['ERR_SESSION_REVOKED']);
    for (const { cookie } of [one, two]) {
      for (const process of [waa, other]) {
        expect(() => process.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
      }
    }
    expect(waa.openSession(stranger.cookie).principal).toBe('test0002');
    expect(waa.openSession((await logIn(waa)).cookie).principal).toBe('test0001');
    expect(events.filter(({ event }) => event === 'revoked')).toMatchObject([{ principal: 'test0001' }]);
    // A process that starts later knows it too.
    const late = makeWAA({ store });
    await late.ready;
    expect(() => late.openSession(one.cookie)).toThrow('was ended');
    await Promise.all([waa, other, late].map((each) => each.close()));
  });

  it('needs no clocks: whoever began a login before and finishes it after is logged in', async () => {
    const waa = makeWAA();
    const before = waa.startLogin('/');
    await waa.endSessions('test0001');
    const { cookie } = await waa.finishLogin(wls.respond(before.location), before.nonce);
    time -= 3_000;
    expect(waa.openSession(cookie as string).principal).toBe('test0001');
  });

  it('takes a principal, and no mistake for one', async () => {
    for (const mistake of [undefined, '', ['test0001']]) {
      await expect(makeWAA().endSessions(mistake as string)).rejects.toThrow(TypeError);
    }
  });

  it('lasts as long as the longest sessions, where applications of other lifetimes share the store', async () => {
    const store = new MemoryStore({ now });
    const [long, short] = [makeWAA({ store, maxLife: 86_400 }), makeWAA({ store, maxLife: 60 })];
    await Promise.all([long.ready, short.ready]);
    const { cookie } = await logIn(long);
    await long.endSessions('test0001');
    await short.endSessions('test0001');
    time += 120_000;
    await long.endSessions('test0002');
    expect(() => long.openSession(cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
  });

  it('is of one login service: the same name at another is another person', async () => {
    const store = new MemoryStore({ now });
    const waa = makeWAA({ store });
    const other = makeWAA({ store, wls: { ...wls.profile, name: 'other' } });
    const { cookie } = await logIn(other);
    await waa.endSessions('test0001');
    expect(other.openSession(cookie)).toMatchObject({ principal: 'test0001', wls: 'other' });
  });
});

describe('a ticket', () => {
  async function withTicket(config: Partial<Config> = {}) {
    const waa = makeWAA(config);
    const login = await logIn(waa);
    return { waa, ...login, ...(await waa.makeTicket(login.cookie)) };
  }

  it('stands for its session, once', async () => {
    const { waa, auth, ticket, expires } = await withTicket();
    expect(expires).toEqual(new Date(start + 30_000));
    expect(await waa.takeTicket(ticket)).toEqual({ ...auth, via: 'ticket' });
    expect(await refusal(waa.takeTicket(ticket))).toMatchObject({ code: 'ERR_TOKEN_INVALID', status: 401 });
  });

  it('is good for half a minute', async () => {
    const { waa, ticket } = await withTicket();
    time += 30_000;
    expect(await refusal(waa.takeTicket(ticket))).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
  });

  it('ends with its session', async () => {
    const { waa, auth, ticket } = await withTicket();
    await waa.endSession(auth);
    expect(await refusal(waa.takeTicket(ticket))).toMatchObject({ code: 'ERR_SESSION_REVOKED' });
  });

  it('is of one application, though others share its store', async () => {
    const store = new MemoryStore({ now });
    const { ticket } = await withTicket({ store });
    const other = makeWAA({ store, baseUrl: 'http://localhost:4000' });
    await other.ready;
    expect(await refusal(other.takeTicket(ticket))).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
  });

  it.each([undefined, null, '', ['a', 'b'], { length: 43 }, 'x'.repeat(42), 'x'.repeat(1e6), '__proto__'])(
    'is not %j, and the store is not asked',
    async (ticket) => {
      const store = new MemoryStore({ now });
      const events: LogEvent[] = [];
      const waa = makeWAA({ store, log: (event) => events.push(event) });
      await waa.ready;
      const take = vi.spyOn(store, 'take');
      expect(await refusal(waa.takeTicket(ticket as string))).toMatchObject({ code: 'ERR_TOKEN_INVALID', status: 401 });
      expect(take).not.toHaveBeenCalled();
      expect(events.filter(({ level }) => level === 'error')).toEqual([]);
    },
  );

  it('is not a session cookie, nor the other way round', async () => {
    const { waa, cookie, ticket } = await withTicket();
    expect(() => waa.openSession(ticket)).toThrow(SessionError);
    expect(await refusal(waa.takeTicket(cookie))).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
  });

  it('is nothing that who can write to the store can make, or who can read it can see', async () => {
    const store = new MemoryStore({ now });
    const put = vi.spyOn(store, 'put');
    const { waa, ticket, auth } = await withTicket({ store });
    const made = put.mock.calls.find(([key]) => key.startsWith('ticket.'));
    const [key = '', value = '', expires = new Date()] = made ?? [];
    expect(value).not.toContain(auth.principal);
    await store.put(key, value.slice(0, -4), expires);
    expect(await refusal(waa.takeTicket(ticket))).toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    // Nor is it a session cookie.
    expect(() => waa.openSession(value)).toThrow(SessionError);
  });

  it('is kept as a hash only', async () => {
    const store = new MemoryStore({ now });
    const put = vi.spyOn(store, 'put');
    const { ticket, cookie } = await withTicket({ store });
    expect(put.mock.calls.filter(([key]) => key.startsWith('ticket.'))).toHaveLength(1);
    expect(JSON.stringify(put.mock.calls)).not.toContain(ticket);
    expect(JSON.stringify(put.mock.calls)).not.toContain(cookie);
  });

  it('is one of at most sixteen of a session that are not used yet', async () => {
    const { waa, cookie, ticket } = await withTicket();
    for (let i = 1; i < 16; i++) await waa.makeTicket(cookie);
    expect(await refusal(waa.makeTicket(cookie))).toMatchObject({ code: 'ERR_LIMIT_REACHED', status: 429 });
    expect((await waa.makeTicket((await logIn(waa)).cookie)).ticket).not.toBe(ticket);
    await waa.takeTicket(ticket);
    await waa.makeTicket(cookie);
    time += 30_000;
    for (let i = 0; i < 16; i++) await waa.makeTicket(cookie);
  });

  it('is not made without a live session', async () => {
    const { waa, auth, cookie } = await withTicket();
    await waa.endSession(auth);
    expect(await refusal(waa.makeTicket(cookie))).toMatchObject({ code: 'ERR_SESSION_REVOKED' });
    expect(await refusal(waa.makeTicket(undefined))).toMatchObject({ code: 'ERR_SESSION_MISSING' });
  });
});

it('a login does not wait for ever for a store that never answers', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const store = new MemoryStore({ now });
    vi.spyOn(store, 'subscribe').mockReturnValue(new Promise(() => {}));
    const login = refusal(logIn(makeWAA({ store })));
    await vi.advanceTimersByTimeAsync(5000);
    expect(await login).toMatchObject({ code: 'ERR_STORE_UNAVAILABLE' });
  } finally {
    vi.useRealTimers();
  }
});

it('[login 5] the token of a login opens for the cookie that it was begun with only', async () => {
  const [one, two] = [makeWAA(), makeWAA({ cookieName: 'other' })];
  const first = await logIn(two);
  const { location, nonce } = one.startLogin('/');
  expect(await refusal(two.finishLogin(wls.respond(location), nonce, first.auth))).toMatchObject({
    code: 'ERR_PARAMS_MISMATCH',
  });
});

describe('a session whose cookie has a path', () => {
  const path = { baseUrl: 'http://localhost:3000/app', cookiePath: '/app' };

  async function anchored(waa: WAA, held?: string) {
    const { location, nonce } = waa.startLogin('/app/');
    return waa.finishLogin(wls.respond(location), nonce, undefined, held);
  }

  it('opens only beside the cookie that it is anchored to, which no neighbour can set', async () => {
    const waa = makeWAA(path);
    expect(waa.cookies.anchor).toBe('webauth-session-id');
    const [mine, theirs] = [await anchored(waa), await anchored(waa)];
    expect(waa.openSession(mine.cookie, mine.anchor).principal).toBe('test0001');
    for (const [anchor, code] of [
      // Without any the browser has logged out elsewhere, and may log in again.
      [undefined, 'ERR_SESSION_MISSING'],
      ['', 'ERR_SESSION_INVALID'],
      [theirs.anchor, 'ERR_SESSION_INVALID'],
      [`${mine.anchor}x`, 'ERR_SESSION_INVALID'],
    ] as const) {
      expect(() => waa.openSession(mine.cookie, anchor)).toThrow(expect.objectContaining({ code }));
      expect(await refusal(waa.makeTicket(mine.cookie, anchor))).toMatchObject({ code });
    }
    expect((await waa.makeTicket(mine.cookie, mine.anchor)).ticket).toMatch(/^[\w-]{43}$/);
  });

  it('keeps the anchor that the browser has, which other applications use too, if it is one', async () => {
    const waa = makeWAA(path);
    const { anchor } = await anchored(waa);
    expect(anchor).toMatch(/^[\w-]{22}$/);
    expect((await anchored(waa, anchor)).anchor).toBe(anchor);
    expect((await anchored(waa, 'x; Path=/')).anchor).toMatch(/^[\w-]{22}$/);
  });

  it('has no anchor where the cookie itself is out of their reach', async () => {
    const waa = makeWAA();
    expect([waa.cookies.anchor, (await anchored(waa)).anchor]).toEqual([undefined, undefined]);
  });
});

it('[login 5] a session that no browser would keep is an error, not a session', async () => {
  const ptags = Array.from({ length: 400 }, (_, i) => `tag-number-${i}`);
  const error = await refusal(logIn(makeWAA(), { ptags }));
  expect(error).toMatchObject({
    code: 'ERR_COOKIES_BLOCKED',
    message: expect.stringContaining('no browser would keep'),
  });
});

describe('[V9] authorisation', () => {
  const auth = { principal: 'test0001', ptags: ['current', 'staff'] } as unknown as Auth;
  const leaver = { principal: 'test0401', ptags: [] } as unknown as Auth;
  const code = (waa: WAA, who: Auth, route = {}) => {
    try {
      waa.authorise(who, route);
    } catch (error) {
      expect(error).toBeInstanceOf(AuthorisationError);
      return (error as AuthorisationError).code;
    }
    return 'enters';
  };

  it.each([
    ['the profile of Raven asks for current', {}, {}, 'enters', 'ERR_PTAGS_REFUSED'],
    ['a profile may ask for none', { wls: goose({ keys: raven.keys }) }, {}, 'enters', 'enters'],
    ['a route may ask for none', {}, { ptags: [] }, 'enters', 'enters'],
    ['a route may ask for others', {}, { ptags: ['staff', 'x'] }, 'enters', 'ERR_PTAGS_REFUSED'],
    ['exactly: upper and lower case differ', {}, { ptags: ['Current'] }, 'ERR_PTAGS_REFUSED', 'ERR_PTAGS_REFUSED'],
    ['people by name need the ptags too', {}, { principals: ['test0001', 'test0401'] }, 'enters', 'ERR_PTAGS_REFUSED'],
    ['unless none are asked for', {}, { principals: ['test0401'], ptags: [] }, 'ERR_PRINCIPAL_REFUSED', 'enters'],
    [
      'an empty list of people lets in nobody',
      {},
      { principals: [] },
      'ERR_PRINCIPAL_REFUSED',
      'ERR_PRINCIPAL_REFUSED',
    ],
    [
      'an empty list of people lets in nobody, configured or not',
      { requirePrincipals: [] },
      { ptags: [] },
      'ERR_PRINCIPAL_REFUSED',
      'ERR_PRINCIPAL_REFUSED',
    ],
    [
      'the configuration may ask for people',
      { requirePrincipals: ['test0401'], requirePtags: [] },
      {},
      'ERR_PRINCIPAL_REFUSED',
      'enters',
    ],
    [
      'which a route replaces',
      { requirePrincipals: ['x'] },
      { principals: ['test0001'] },
      'enters',
      'ERR_PRINCIPAL_REFUSED',
    ],
    [
      'undefined is as if it were not there',
      {},
      { ptags: undefined, principals: undefined },
      'enters',
      'ERR_PTAGS_REFUSED',
    ],
    [
      'a part of a name is no name',
      {},
      { principals: ['test0001x'] },
      'ERR_PRINCIPAL_REFUSED',
      'ERR_PRINCIPAL_REFUSED',
    ],
  ])('%s', (_, config, route, current, left) => {
    const waa = makeWAA(config as Partial<Config>);
    expect([code(waa, auth, route), code(waa, leaver, route)]).toEqual([current, left]);
  });
});

function demoKeyAs(kid: string): KeySet {
  return KeySet.from({ [kid]: ravenDemo.keys.get('901')?.key.export({ type: 'spki', format: 'pem' }) as string });
}
