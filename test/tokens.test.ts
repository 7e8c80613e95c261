import type express from 'express';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import type { NewToken } from '../src/session/tokens.js';
import { createWAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';
import { type Answer, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const DAY = 24 * 3600;
const newer = 'b2'.repeat(32);

/** Whatever the guard, who comes through; also on POST. */
const routes: Routes = (app, auth) => {
  const show: express.RequestHandler = ({ auth: who, method }, response) =>
    void response.send(`${method} by ${who?.principal ?? 'nobody'}, ${who?.via ?? 'nothing'}`);
  app.use('/api', auth.require({ bearer: true }), show);
  app.use('/read', auth.require({ bearer: true, scopes: ['read'] }), show);
  app.use('/both', auth.require({ bearer: true, scopes: ['read', 'write'] }), show);
  app.use('/page', auth.require(), show);
  app.use('/off', auth.require({ bearer: false }), show);
  app.use('/fresh', auth.require({ bearer: true, maxAge: 60 }), show);
  app.use('/asked', auth.require({ bearer: true, iact: true }), show);
  app.use('/password', auth.require({ bearer: true, aauth: ['pwd'] }), show);
  app.use('/staff', auth.require({ bearer: true, ptags: ['staff'] }), show);
  app.use('/one', auth.require({ bearer: true, principals: ['test0002'] }), show);
  app.use('/', show);
};

/** A store that tells what was ever put in it, and whose puts of some keys can be held back. */
class Watched extends MemoryStore {
  readonly puts: string[] = [];
  held: Promise<void> | undefined;
  override async put(key: string, value: string, expires: Date): Promise<void> {
    this.puts.push(`${key} ${value}`);
    if (key.startsWith('token.')) await this.held;
    return super.put(key, value, expires);
  }

  /** How often what is known of a token was written. */
  get written(): number {
    return this.puts.filter((put) => put.startsWith('token.')).length;
  }
}

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let store: Watched;
  let client: Browser;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    store = new Watched({ now: clock.now });
    serve();
    client = new Browser(site.address);
  });

  function serve(config: Partial<Config> = {}): void {
    site.serve(routes, { store, ...config });
  }

  async function make(more: Partial<NewToken> = {}) {
    return site.waa.tokens.create({ principal: 'test0001', name: 'a script', ttl: DAY, ptags: ['current'], ...more });
  }

  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

  /** What a program gets that shows a token. */
  async function use(token: string, path = '/api', method = 'GET'): Promise<Answer> {
    return client.send(method, path, { accept: 'application/json', ...bearer(token) });
  }

  function told({ status, text }: Answer): [number, string | undefined] {
    return [status, /ERR_\w+/.exec(text)?.[0]];
  }

  const invalid = [401, 'ERR_TOKEN_INVALID'];

  describe('a token', () => {
    it('opens routes that take tokens, as the person it was made for', async () => {
      const { token } = await make();
      expect((await use(token)).text).toBe('GET by test0001, token');
      expect((await client.fetch('/api')).status).toBe(401);
    });

    it('is ucwa_ and 256 bits, another each time, and is shown once', async () => {
      const made = await Promise.all(Array.from({ length: 50 }, () => make()));
      for (const { token } of made) {
        expect(token).toMatch(/^ucwa_[\w-]{43}$/);
        expect(Buffer.from(token.slice(5), 'base64url')).toHaveLength(32);
        await use(token);
      }
      const tokens = made.map(({ token }) => token);
      expect(new Set(tokens).size).toBe(50);
      const listed = await site.waa.tokens.list('test0001');
      expect(listed.map((one) => Object.keys(one).sort())[0]).toEqual(
        ['created', 'expires', 'handle', 'lastUsed', 'name', 'principal', 'ptags', 'scopes'].sort(),
      );
      const seen = JSON.stringify([listed, site.events, store.puts]);
      for (const token of tokens) expect(seen).not.toContain(token.slice(5, 25));
      expect(store.puts.join()).not.toMatch(/test0001|a script/);
    });

    it.each<[string, unknown, RegExp]>([
      ['without ttl', { principal: 'test0001', name: 'x' }, /needs the option ttl/],
      ['of undefined ttl', { principal: 'test0001', name: 'x', ttl: undefined }, /ttl is a number of seconds/],
      ['of no ttl', { principal: 'test0001', name: 'x', ttl: 0 }, /ttl/],
      ['of a ttl of NaN', { principal: 'test0001', name: 'x', ttl: Number.NaN }, /ttl/],
      ['for ever', { principal: 'test0001', name: 'x', ttl: Number.POSITIVE_INFINITY }, /ttl/],
      ['for over a year', { principal: 'test0001', name: 'x', ttl: 367 * DAY }, /at most those of a year/],
      ['without name', { principal: 'test0001', ttl: 1 }, /needs the option name/],
      ['of an empty name', { principal: 'test0001', name: '', ttl: 1 }, /name is a text/],
      ['of a long name', { principal: 'test0001', name: 'x'.repeat(101), ttl: 1 }, /at most 100/],
      ['without principal', { name: 'x', ttl: 1 }, /needs the option principal/],
      ['for nobody', { principal: '', name: 'x', ttl: 1 }, /principal/],
      ['of scopes in one text', { principal: 'test0001', name: 'x', ttl: 1, scopes: 'read' }, /scopes is a list/],
      ['of a scope with a blank', { principal: 'test0001', name: 'x', ttl: 1, scopes: ['a b'] }, /scopes/],
      ['of an empty scope', { principal: 'test0001', name: 'x', ttl: 1, scopes: [''] }, /scopes/],
      ['of ptags in one text', { principal: 'test0001', name: 'x', ttl: 1, ptags: 'staff' }, /ptags is a list/],
      ['with an option that there is not', { principal: 'test0001', name: 'x', ttl: 1, scope: [] }, /no option scope/],
      ['of nothing', undefined, /takes an object/],
    ])('is not made %s', async (_name, asked, message) => {
      await expect(site.waa.tokens.create(asked as never)).rejects.toThrow(message);
      expect(store.puts.filter((key) => !key.startsWith('ended:life.'))).toEqual([]);
    });

    it('has no scope by default, and on a route that asks for some needs all of them', async () => {
      const [none, read, both] = [
        await make(),
        await make({ scopes: ['read'] }),
        await make({ scopes: ['read', 'write'] }),
      ];
      const refused = [403, 'ERR_SCOPE_REFUSED'];
      const rows = [
        [none.token, refused, refused],
        [read.token, [200, undefined], refused],
        [both.token, [200, undefined], [200, undefined]],
      ] as const;
      for (const [token, onRead, onBoth] of rows) {
        expect(told(await use(token, '/read'))).toEqual(onRead);
        expect(told(await use(token, '/both'))).toEqual(onBoth);
        expect((await use(token)).status).toBe(200);
      }
      // Sessions are good for everything.
      await client.logIn('/page');
      expect((await client.fetch('/both')).status).toBe(200);
    });

    it('is listed to its person, the oldest first, and to nobody else', async () => {
      for (const name of ['first', 'second', 'third']) {
        await make({ name, scopes: [name], ptags: ['staff'] });
        clock.pass(1);
      }
      await make({ principal: 'test0002' });
      const listed = await site.waa.tokens.list('test0001');
      expect(listed.map(({ name }) => name)).toEqual(['first', 'second', 'third']);
      expect(listed[0]).toMatchObject({ scopes: ['first'], ptags: ['staff'], lastUsed: undefined });
      expect([listed[0]?.created, listed[0]?.expires]).toEqual([
        new Date(clock.time - 3000),
        new Date(clock.time - 3000 + DAY * 1000),
      ]);
      expect(await site.waa.tokens.list('test0003')).toEqual([]);
    });

    it('works to the last moment of its ttl, and not at its end', async () => {
      const { token } = await make({ ttl: 60 });
      clock.pass(59.999);
      expect((await use(token)).status).toBe(200);
      expect(await site.waa.tokens.list('test0001')).toHaveLength(1);
      clock.pass(0.001);
      expect(told(await use(token))).toEqual(invalid);
      expect(await site.waa.tokens.list('test0001')).toEqual([]);
    });

    it('is as its principal and ptags are: routes ask the same of it as of a session', async () => {
      const [plain, staff] = [await make(), await make({ ptags: ['current', 'staff'] })];
      const other = await make({ principal: 'test0002' });
      const bare = await make({ ptags: undefined } as never);
      expect(told(await use(bare.token))).toEqual([403, 'ERR_PTAGS_REFUSED']);
      expect(told(await use(plain.token, '/staff'))).toEqual([403, 'ERR_PTAGS_REFUSED']);
      expect(told(await use(staff.token, '/staff'))).toEqual([200, undefined]);
      expect(told(await use(staff.token, '/one'))).toEqual([403, 'ERR_PRINCIPAL_REFUSED']);
      expect(told(await use(other.token, '/one'))).toEqual([200, undefined]);
      serve({ requirePtags: ['staff'], requirePrincipals: ['test0001'] });
      expect(told(await use(plain.token))).toEqual([403, 'ERR_PTAGS_REFUSED']);
      expect(told(await use(staff.token))).toEqual([200, undefined]);
      expect(told(await use(other.token))).toEqual([403, 'ERR_PRINCIPAL_REFUSED']);
    });

    it('is never an authentication: what asks for one is 401, whatever cookie comes with it', async () => {
      await client.logIn('/page');
      const { token } = await make();
      for (const path of ['/fresh', '/asked', '/password']) {
        expect(told(await use(token, path)), path).toEqual([401, 'ERR_STEP_UP_REQUIRED']);
        expect((await client.fetch(path)).status, path).toBe(200);
      }
    });
  });

  describe('a token that is not good', () => {
    it.each<[string, (token: string) => string | string[]]>([
      ['another', (token) => `Bearer ${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`],
      ['cut', (token) => `Bearer ${token.slice(0, -1)}`],
      ['longer', (token) => `Bearer ${token}A`],
      ['without its prefix', (token) => `Bearer ${token.slice(5)}`],
      ['in capitals', (token) => `Bearer ${token.toUpperCase()}`],
      ['in quotes', (token) => `Bearer "${token}"`],
      ['two in one', (token) => `Bearer ${token} ${token}`],
      ['two with a comma', (token) => `Bearer ${token}, Bearer ${token}`],
      ['two lines', (token) => [`Bearer ${token}`, `Bearer ${token}`]],
      ['beside Basic', (token) => [`Bearer ${token}`, 'Basic dTpw']],
      ['after Basic', (token) => ['Basic dTpw', `Bearer ${token}`]],
      ['nothing', () => 'Bearer'],
      ['blanks', () => 'Bearer   '],
      ['with a tab', (token) => `Bearer\t${token}`],
      ['with an equals sign', (token) => `Bearer=${token}`],
      ['huge', () => `Bearer ucwa_${'A'.repeat(12_000)}`],
      ['of a prototype', () => 'Bearer __proto__'],
      ['of bytes', () => 'Bearer \u00ff\u00fe'],
    ])('%s: 401, and never the session that came with it', async (_name, header) => {
      await client.logIn('/page');
      const { token } = await make();
      const headers = { accept: 'application/json', authorization: header(token) };
      for (const [method, path] of [
        ['GET', '/api'],
        ['GET', '/read'],
        ['POST', '/api'],
      ] as const) {
        const answer = await client.send(method, path, headers);
        expect([...told(answer), answer.headers.get('cache-control')]).toEqual([...invalid, 'no-store']);
      }
      // To a person too, who is not sent to log in.
      expect(
        (await client.get('/api', headers.authorization ? { authorization: headers.authorization } : {})).status,
      ).toBe(401);
      expect(JSON.stringify(site.events)).not.toContain(token.slice(5, 40));
      // The session and the token are as good as before.
      expect((await client.fetch('/api')).text).toBe('GET by test0001, cookie');
      expect((await use(token)).status).toBe(200);
    });

    it.each(['bearer', 'BEARER', 'bEaReR'])(
      'is not one for the word %s: the scheme may be written so',
      async (word) => {
        const { token } = await make();
        expect((await client.fetch('/api', { authorization: `${word} ${token}` })).status).toBe(200);
      },
    );

    it('is not what other schemes show: then the session counts', async () => {
      const { token } = await make();
      for (const authorization of ['Basic dTpw', `Basic ${token}`, `Token ${token}`, token, `Bearers ${token}`]) {
        expect(told(await client.fetch('/api', { authorization }))).toEqual([401, 'ERR_SESSION_MISSING']);
      }
      await client.logIn('/page');
      expect((await client.fetch('/api', { authorization: 'Basic dTpw' })).text).toBe('GET by test0001, cookie');
    });

    it('after it was revoked stays so, on this process and on others, and after a restart', async () => {
      const { token, handle } = await make();
      const other = createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store });
      await other.ready;
      expect((await other.openToken(token)).principal).toBe('test0001');
      expect(await site.waa.tokens.revoke('test0001', handle)).toBe(true);
      expect(told(await use(token))).toEqual(invalid);
      await expect(other.openToken(token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      expect(await site.waa.tokens.revoke('test0001', handle)).toBe(false);
      expect(await site.waa.tokens.list('test0001')).toEqual([]);
      serve();
      await site.waa.ready;
      expect(told(await use(token))).toEqual(invalid);
    });

    it('is that of another application, cookie name, login service or secret, on the same store', async () => {
      const { token } = await make();
      const another = createWLS({ key: wlsKey.privateKey, now: clock.now }).profile;
      const others: [string, Partial<Config>][] = [
        ['a path', { baseUrl: `${site.address}/api` }],
        ['another host', { baseUrl: 'https://other.cam.ac.uk' }],
        ['a cookie name', { cookieName: 'other' }],
        ['a login service', { wls: { ...another, name: 'another' } }],
        ['a secret', { secret: newer }],
        ['a store', { store: new MemoryStore({ now: clock.now }) }],
      ];
      for (const [name, config] of others) {
        const waa = createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store, ...config });
        await waa.ready;
        await expect(waa.openToken(token), name).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
        expect(await waa.tokens.list('test0001'), name).toEqual([]);
        const [mine] = await site.waa.tokens.list('test0001');
        expect(await waa.tokens.revoke('test0001', mine?.handle as string), name).toBe(false);
      }
      expect((await use(token)).status).toBe(200);
    });

    it('is not revoked by another person’s name, nor by a handle that is none', async () => {
      const { token, handle } = await make();
      await make({ principal: 'test0002' });
      for (const [principal, of] of [
        ['test0002', handle],
        ['test0001', ''],
        ['test0001', token],
        ['', handle],
      ] as const) {
        expect(await site.waa.tokens.revoke(principal, of)).toBe(false);
      }
      expect((await use(token)).status).toBe(200);
    });
  });

  describe('a token is nothing but a token', () => {
    it('and not taken where a route does not say that it takes them', async () => {
      const { token } = await make();
      for (const path of ['/page', '/off']) expect(told(await use(token, path))).toEqual([401, 'ERR_SESSION_MISSING']);
      expect((await use(token, '/')).text).toBe('GET by nobody, nothing');
      await client.logIn('/page');
      expect((await use(token, '/page')).text).toBe('GET by test0001, cookie');
    });

    it('and gives no ticket, no session and no other token', async () => {
      const { token } = await make();
      const headers = { ...bearer(token), origin: site.address, accept: 'application/json' };
      expect(told(await client.send('POST', '/webauth/ticket', headers))).toEqual([401, 'ERR_SESSION_MISSING']);
      const cookie = `webauth-session=${token}`;
      expect(told(await client.fetch('/page', { cookie }))).toEqual([401, 'ERR_SESSION_INVALID']);
      await expect(site.waa.takeTicket(token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      await expect(site.waa.takeTicket(token.slice(5))).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      await client.logIn('/page');
      const session = client.cookie('webauth-session') as string;
      const { ticket } = await site.waa.makeTicket(session);
      for (const other of [session, ticket, `ucwa_${ticket}`]) expect(told(await use(other))).toEqual(invalid);
    });

    it('and needs no Origin on POST, as a cookie does', async () => {
      const { token } = await make();
      const accept = 'application/json';
      expect((await use(token, '/api', 'POST')).text).toBe('POST by test0001, token');
      const foreign = { ...bearer(token), accept, origin: 'https://evil.example' };
      expect((await client.send('POST', '/api', foreign)).status).toBe(200);
      await client.logIn('/page');
      expect(told(await client.send('POST', '/api', { accept }))).toEqual([403, 'ERR_ORIGIN_REFUSED']);
      expect(told(await client.send('POST', '/api', { accept, origin: 'https://evil.example' }))).toEqual([
        403,
        'ERR_ORIGIN_REFUSED',
      ]);
      expect((await client.post('/api')).text).toBe('POST by test0001, cookie');
    });

    it('and its answers are kept out of shared caches', async () => {
      const { token } = await make();
      const { headers } = await use(token);
      expect(headers.get('cache-control')).toBe('private, no-cache');
    });
  });

  it('WWW-Authenticate says what would be taken, and what was wrong', async () => {
    const { token } = await make();
    const challenge = async (path: string, headers = {}) =>
      (await client.fetch(path, headers)).headers.get('www-authenticate');
    const ours = `Ucam-WebAuth realm="${site.address}"`;
    expect(await challenge('/page')).toBe(ours);
    expect(await challenge('/api')).toBe(`Bearer, ${ours}`);
    expect(await challenge('/api', bearer('wrong'))).toBe('Bearer error="invalid_token"');
    expect(await challenge('/read', bearer(token))).toBe('Bearer error="insufficient_scope"');
    // A person is sent to log in.
    const page = await client.get('/api');
    expect([page.status, page.headers.get('www-authenticate')]).toEqual([303, null]);
    expect(await challenge('/api', bearer(token))).toBeNull();
  });

  describe('when a token was last used', () => {
    it('is written at most once a minute', async () => {
      const { token, created } = await make();
      expect(store.written).toBe(1);
      const lastUsed = async () => (await site.waa.tokens.list('test0001'))[0]?.lastUsed;
      expect(await lastUsed()).toBeUndefined();
      await use(token);
      expect([store.written, await lastUsed()]).toEqual([2, created]);
      for (let i = 0; i < 59; i++) {
        clock.pass(1);
        await use(token);
      }
      expect([store.written, await lastUsed()]).toEqual([2, created]);
      clock.pass(1);
      await use(token);
      expect([store.written, await lastUsed()]).toEqual([3, clock.now()]);
      for (let i = 0; i < 100; i++) {
        clock.pass(6);
        await use(token);
      }
      expect(store.written).toBe(13);
    });

    it('is written once also by 50 uses at the same time', async () => {
      const { token } = await make();
      await Promise.all(Array.from({ length: 50 }, () => site.waa.openToken(token)));
      expect(store.written).toBe(2);
    });

    it('never brings a revoked token back, though it is written after that', async () => {
      const { token, handle } = await make();
      let release = () => {};
      store.held = new Promise((resolve) => {
        release = resolve;
      });
      expect((await use(token)).status).toBe(200);
      expect(await site.waa.tokens.revoke('test0001', handle)).toBe(true);
      release();
      await new Promise(setImmediate);
      expect(await store.get(`token.${handle}`)).toBeDefined();
      expect(told(await use(token))).toEqual(invalid);
      expect(await site.waa.tokens.list('test0001')).toEqual([]);
      const restarted = createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, store });
      await restarted.ready;
      await expect(restarted.openToken(token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      for (let hours = 0; hours < 26; hours++) {
        clock.pass(3600);
        // Others come and go, so that what is over is forgotten.
        const made = await make({ name: 'another', principal: 'test0002' });
        await site.waa.tokens.revoke('test0002', made.handle);
        expect(told(await use(token))).toEqual(invalid);
      }
    });

    it('is nothing to wait for, nor to fail for', async () => {
      const { token } = await make();
      const { put } = store;
      store.put = async () => Promise.reject(new Error('no route'));
      expect((await use(token)).status).toBe(200);
      expect(site.events.filter(({ event }) => event === 'store')).toHaveLength(1);
      store.put = put;
      expect((await use(token)).status).toBe(200);
    });
  });

  it('blocking a person refuses sessions (401), logins and tokens (403); unblocking lets tokens in, and no session', async () => {
    const { token } = await make();
    const stranger = await make({ principal: 'test0002' });
    const person = new Browser(site.address);
    await person.logIn('/page');
    clock.pass(11);
    await site.waa.block('test0001');
    expect(told(await person.fetch('/page'))).toEqual([401, 'ERR_SESSION_REVOKED']);
    const login = await person.logIn('/page');
    expect([...told(login), login.set]).toEqual([403, 'ERR_PRINCIPAL_REFUSED', []]);
    expect(told(await use(token))).toEqual([403, 'ERR_PRINCIPAL_REFUSED']);
    expect((await use(stranger.token)).status).toBe(200);
    await site.waa.unblock('test0001');
    expect((await use(token)).status).toBe(200);
    expect(told(await person.fetch('/page'))).toEqual([401, 'ERR_SESSION_REVOKED']);
    expect((await person.logIn('/page')).status).toBe(303);
    expect((await person.fetch('/page')).status).toBe(200);
  });

  it('ending all sessions of a person leaves their tokens', async () => {
    const { token } = await make();
    await client.logIn('/page');
    await client.post('/webauth/logout?everywhere=yes');
    expect((await use(token)).status).toBe(200);
  });

  it('a token that is used survives a rotation of the secret, and one that is not used ends with the old one', async () => {
    const [used, unused] = [await make({ name: 'used' }), await make({ name: 'unused' })];
    await use(used.token);
    clock.pass(3600);
    serve({ secret: [newer, secret] });
    await site.waa.ready;
    expect(await site.waa.tokens.list('test0001')).toHaveLength(2);
    expect((await use(used.token)).status).toBe(200);
    serve({ secret: newer });
    await site.waa.ready;
    expect((await use(used.token)).status).toBe(200);
    expect(told(await use(unused.token))).toEqual(invalid);
    expect((await site.waa.tokens.list('test0001')).map(({ name }) => name)).toEqual(['used']);
    expect(await site.waa.tokens.revoke('test0001', used.handle)).toBe(true);
    expect(told(await use(used.token))).toEqual(invalid);
  });

  it('with the store away a token is 503, and not refused for good', async () => {
    const { token } = await make();
    const { get } = store;
    store.get = async () => Promise.reject(new Error('no route'));
    const answer = await use(token);
    expect([...told(answer), answer.headers.get('retry-after')]).toEqual([503, 'ERR_STORE_UNAVAILABLE', '5']);
    store.get = get;
    expect((await use(token)).status).toBe(200);
  });
});
