import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { KeySet } from '../src/keys.js';
import { RedisStore } from '../src/session/redis.js';
import { createWAA, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';
import { Machine, type Settings } from './machines-process.js';
import { Browser, type Page } from './processes.js';
import { secret } from './site.js';
import { type Mode, TcpProxy } from './stores/proxy.js';
import { expectNothingUnhandled, findRedis, RedisServer } from './stores/redis-server.js';

const baseUrl = 'http://localhost:3000';
const wls = createWLS({ key: wlsKey.privateKey });
const [kid] = wls.profile.keys.kids as [string];
const keys = { [kid]: wlsKey.pem };
const profile = { ...wls.profile, name: 'test', keys: KeySet.from(keys), requirePtags: [] };

/** For how long the machines go on when they hear nothing: seconds. */
const staleAfter = 3;
const patiently = { timeout: 12_000, interval: 50 };
const aof = ['appendonly yes', 'appendfsync always'];

expectNothingUnhandled();

const started: Machine[] = [];
afterEach(async () => {
  const all = started.splice(0);
  await Promise.all(all.map((machine) => machine.kill()));
  for (const { output } of all) expect(output).not.toContain('nobody caught');
});

async function start(redis: string, config: Partial<Config> = {}, more: Partial<Settings> = {}): Promise<Machine> {
  const store = { redis };
  const all = { staleAfter, ...config };
  const machine = await Machine.start({ baseUrl, secret, store, authUrl: profile.authUrl, keys, config: all, ...more });
  started.push(machine);
  return machine;
}

async function logIn(principal: string, machine: Machine): Promise<Browser> {
  const browser = new Browser();
  expect((await comeBack(principal, machine, browser)).status).toBe(303);
  return browser;
}

/** Goes to the login service and back, if the application sends the browser there. */
async function comeBack(principal: string, machine: Machine, browser = new Browser()): Promise<Page> {
  const begun = await machine.ask(browser, '/');
  if (begun.headers.location === undefined) return begun;
  const answer = encodeURIComponent(wls.respond(begun.headers.location, { principal }));
  return machine.ask(browser, `/webauth/callback?WLS-Response=${answer}`);
}

async function logOut(browser: Browser, machine: Machine, query = ''): Promise<Page> {
  return machine.ask(browser, `/webauth/logout${query}`, { method: 'POST' });
}

/** A copy of what a browser has: it hears nothing of what becomes of that. */
function thief({ cookieHeader }: Browser): Browser {
  return Object.defineProperty(new Browser(), 'cookieHeader', { value: cookieHeader });
}

/** Asks until the machine answers so; resolves to how long that took, in milliseconds. */
async function until(machine: Machine, browser: Browser, wanted: number | readonly number[]): Promise<number> {
  const began = performance.now();
  await expect
    .poll(async () => [wanted].flat().includes(await machine.status(browser)), { ...patiently, interval: 10 })
    .toBe(true);
  return performance.now() - began;
}

async function untilEnded(machines: readonly Machine[], browsers: readonly Browser[]): Promise<void> {
  for (const machine of machines) for (const browser of browsers) await until(machine, browser, 401);
}

describe.skipIf(!findRedis())('without its Redis, an application', () => {
  let redis: RedisServer;
  beforeEach(async () => {
    redis = await RedisServer.start();
    return () => redis.remove();
  });

  /** A process of the application, as far as the store can tell. */
  const open = (): WAA => {
    const store = new RedisStore({ url: redis.url });
    const waa = createWAA({ baseUrl, secret, store, wls: profile });
    const close = async () => {
      await waa.close();
      await store.close();
    };
    closing.push(close);
    return waa;
  };
  const closing: (() => Promise<void>)[] = [];
  const closeAll = async () => void (await Promise.all(closing.splice(0).map((close) => close())));
  afterEach(closeAll);

  const logInAt = async (waa: WAA, principal: string): Promise<string> => {
    const { location, nonce } = waa.startLogin('/');
    return (await waa.finishLogin(wls.respond(location, { principal }), nonce)).cookie as string;
  };
  /** The code with which a session is refused; its person if it is not. */
  const saysOf = (waa: WAA, cookie: string): string => {
    try {
      return waa.openSession(cookie).principal;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  const saysOfToken = async (waa: WAA, token: string): Promise<string> => {
    try {
      return (await waa.openToken(token)).principal;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it('goes on up to the bound and refuses past it, revives nobody, and recovers by itself', {
    timeout: 90_000,
  }, async () => {
    const [a, b, lax] = await Promise.all([
      start(redis.url),
      start(redis.url),
      start(redis.url, { dangerouslyAllowStaleSessions: true }),
    ]);
    const stays = await logIn('test0001', a);
    const early = await logIn('test0002', a);
    const spared = await logIn('test0002', b);
    const late = await logIn('test0002', b);
    const all = await logIn('test0003', a);
    const elsewhere = await logIn('test0003', b);
    const blocked = await logIn('test0004', b);
    const before = await logIn('test0005', a);
    const ending = [early, late, all, elsewhere, blocked].map(thief);
    const gone = thief(before);
    expect((await logOut(before, a)).status).toBe(303);
    const [socket, laxSocket] = [await b.connect(stays), await lax.connect(stays)];
    expect([socket.status, laxSocket.status]).toEqual([101, 101]);
    const onTheWay = new Browser();
    const { headers: asked } = await b.ask(onTheWay, '/');

    await redis.stop('SIGKILL');
    const killed = performance.now();
    expect(await a.status(stays)).toBe(200);
    expectHalfDone(await logOut(early, a));
    expect(await a.status(ending[0] as Browser)).toBe(401);
    const went = await until(b, stays, 503);
    console.info(`requests went on for ${went.toFixed(0)} ms after Redis was killed, of ${staleAfter} s`);
    // Up to a second had passed since it was heard last.
    expect(performance.now() - killed).toBeGreaterThan(staleAfter * 1000 - 2_000);
    expect(went).toBeLessThan(staleAfter * 1000 + 2_000);
    await until(a, stays, 503);

    await expectRefusals(b, stays);
    expect(await socket.closed).toBe(1013);
    const answer = encodeURIComponent(wls.respond(asked.location ?? '', { principal: 'test0006' }));
    const returned = await b.ask(onTheWay, `/webauth/callback?WLS-Response=${answer}`);
    // A user without a session is told before the login service asks for a password.
    const newcomer = await b.ask(new Browser(), '/');
    for (const page of [returned, newcomer]) expect([page.status, page.headers.location]).toEqual([503, undefined]);
    expect(newcomer.body).toContain('action="/webauth/login?return=%2F"');

    expectHalfDone(await logOut(late, a));
    expectHalfDone(await logOut(all, b, '?everywhere=yes'));
    await expect(b.operate(new Browser(), 'block', 'test0004')).rejects.toThrow('ERR_STORE_UNAVAILABLE');
    // That was asked for by name: who was logged out elsewhere meanwhile is let in.
    for (const browser of [stays, ...ending]) expect(await lax.status(browser)).toBe(200);
    expect(await lax.status(gone)).toBe(401);
    expect(await Promise.race([laxSocket.closed, 'open'])).toBe('open');
    expect(lax.output).toMatch(/^warn: dangerouslyAllowStaleSessions is on/m);
    expect(lax.output).toMatch(/^error: nothing was heard of the store for 3 s: sessions are trusted all the same$/m);
    expect(b.output).toMatch(/^error: nothing was heard of the store for 3 s: sessions are refused/m);

    const used = await b.heap(new Browser());
    expect(await flood(b, 10_000, stays, ending[1] as Browser)).toEqual(new Set([503]));
    const more = ((await b.heap(new Browser())) - used) / 2 ** 20;
    console.info(`10,000 requests meanwhile: ${more.toFixed(1)} MB more in memory`);
    expect(more).toBeLessThan(4);

    await redis.start();
    const healed = await Promise.all([a, b, lax].map((machine) => until(machine, stays, 200)));
    console.info(`in use again ${Math.max(...healed).toFixed(0)} ms after Redis was back, which was empty`);
    const fresh = await start(redis.url);
    await untilEnded([a, b, lax, fresh], [gone, ...ending]);
    for (const machine of [a, b, lax, fresh]) {
      // One session was ended, though thousands of times.
      expect([await machine.status(stays), await machine.status(spared)]).toEqual([200, 200]);
    }
    expect((await comeBack('test0004', fresh)).status).toBe(403);
    expect((await comeBack('test0006', b)).status).toBe(303);
  });

  /** The page says what is not known yet, and the cookie stays so that a retry can revoke. */
  const expectHalfDone = ({ status, headers, body }: Page) => {
    expect(status).toBe(503);
    expect(body).toContain('other machines may not know');
    expect(body).toContain('Remove it from this browser only');
    expect(headers['set-cookie']).toEqual(['webauth-done=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax']);
  };

  /** Programs, people and sockets are told to come again, and nobody is sent anywhere. */
  const expectRefusals = async (machine: Machine, browser: Browser) => {
    const forPrograms = await machine.ask(browser, '/', { headers: { Accept: 'application/json' } });
    expect(forPrograms).toMatchObject({ status: 503, headers: { 'retry-after': '5', 'cache-control': 'no-store' } });
    expect(JSON.parse(forPrograms.body)).toMatchObject({ error: { code: 'ERR_STORE_UNAVAILABLE' } });
    const forPeople = await machine.ask(browser, '/');
    expect(forPeople).toMatchObject({ status: 503, headers: { 'retry-after': '5', 'cache-control': 'no-store' } });
    expect(forPeople.headers['content-type']).toContain('text/html');
    expect(forPeople.headers['set-cookie']).toBeUndefined();
    expect(forPeople.body).toContain('Please try again in a moment');
    expect(await machine.connect(browser)).toMatchObject({ status: 503, headers: { 'retry-after': '5' } });
    const login = await machine.ask(browser, '/webauth/login?return=%2F');
    const ticket = await machine.ask(browser, '/webauth/ticket', { method: 'POST' });
    for (const page of [login, ticket]) expect([page.status, page.headers.location]).toEqual([503, undefined]);
  };

  it('that starts meanwhile answers 503, and works once Redis is there', async () => {
    const network = await TcpProxy.to(redis.port, 'silent');
    await redis.stop();
    const machines = await Promise.all([start(redis.url), start(network.url)]);
    for (const machine of machines) {
      expect(machine.output).toMatch(/^ready$/m);
      // Each once, and not at each attempt.
      const reasons = machine.output.match(/^error: the store .*$/gm) ?? [];
      expect(reasons[0]).toMatch(/^error: the store cannot be reached: Redis cannot be used just now: /);
      expect(reasons).toEqual([...new Set(reasons)]);
      expect((await comeBack('test0001', machine)).status).toBe(503);
    }
    await Promise.all([redis.start(), network.set('pass')]);
    const [first, second] = machines;
    await expect.poll(async () => (await comeBack('test0001', first)).status, patiently).toBe(303);
    const browser = await logIn('test0002', first);
    await until(second, browser, 200);
  });

  it('is not used with another eviction policy, whenever it comes, and the log says what to do', async () => {
    const running = await start(redis.url);
    const stays = await logIn('test0001', running);
    const ended = await logIn('test0002', running);
    const copy = thief(ended);
    await logOut(ended, running);
    await redis.stop('SIGKILL');
    await redis.start(['maxmemory-policy allkeys-lru']);
    const todo = /policy is allkeys-lru.*CONFIG SET maxmemory-policy noeviction/;
    const refused = open().ready;
    await expect(refused).rejects.toThrow(TypeError);
    await expect(refused).rejects.toThrow(todo);
    // Another one does not ask whether it is ready.
    const careless = await start(redis.url, {}, { awaits: false });
    await Promise.all([careless.printed(todo), until(running, stays, 503)]);
    await running.printed(todo);
    for (const machine of [running, careless]) {
      expect(await machine.status(stays)).toBe(503);
      expect((await machine.connect(stays)).status).toBe(503);
      expect((await comeBack('test0003', machine)).status).toBe(503);
    }
    await redis.ask('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    await until(running, stays, 200);
    expect(await running.status(copy)).toBe(401);
  });

  /** Logs out, which is over there at once; with which status that is answered. */
  const leave = async (browser: Browser, machine: Machine): Promise<number> => {
    const copy = thief(browser);
    const { status } = await logOut(browser, machine);
    expect([401, 503]).toContain(await machine.status(copy));
    return status;
  };

  const broken: [string, Mode][] = [
    ['takes ten seconds', { delay: 10_000 }],
    ['takes what it is sent and never answers', 'silent'],
    ['holds back what is told', 'deaf'],
  ];
  it('behind a network that is broken lets in nobody past the bound whom others have logged out', async () => {
    const a = await start(redis.url);
    const wires = await Promise.all(broken.map(async ([name]) => ({ name, proxy: await TcpProxy.to(redis.port) })));
    const behind = await Promise.all(wires.map(({ proxy }) => start(proxy.url)));
    const stays = await logIn('test0001', a);
    const leaves = await logIn('test0002', a);
    const copy = thief(leaves);
    const own = await Promise.all(behind.map((_, i) => logIn(`own${i}`, a)));
    const ownCopies = own.map(thief);
    const sockets = await Promise.all(behind.map((machine) => machine.connect(copy)));
    await Promise.all(behind.map((machine) => until(machine, copy, 200)));

    await Promise.all(wires.map(({ proxy }, i) => proxy.set((broken[i] as [string, Mode])[1])));
    expect((await logOut(leaves, a)).status).toBe(303);
    const answered = performance.now();
    expect(await a.status(copy)).toBe(401);
    // Nobody waits for ever, whatever the network does, and here it is over.
    const leaving = Promise.all(behind.map((machine, i) => leave(own[i] as Browser, machine)));
    const times = await Promise.all(behind.map((machine) => until(machine, copy, [401, 503])));
    const closed = await Promise.all(sockets.map((socket) => socket.closed));
    expect(performance.now() - answered).toBeLessThan(staleAfter * 1000 + 2_500);
    expect([4401, 1013]).toEqual(expect.arrayContaining(closed));
    for (const [i, time] of times.entries()) {
      console.info(`a network that ${wires[i]?.name}: refused ${time.toFixed(0)} ms after the logout elsewhere`);
      expect(time).toBeLessThan(staleAfter * 1000 + 2_000);
    }
    // What the last one says of it comes through.
    expect(await leaving).toEqual([503, 503, 303]);
    // And from then on: it is not let in again between two attempts to get through.
    for (let i = 0; i < 20; i++) {
      for (const machine of behind) expect([401, 503]).toContain(await machine.status(copy));
    }
    await Promise.all(wires.map(({ proxy }) => proxy.set('pass')));
    for (const machine of behind) {
      await until(machine, stays, 200);
      expect(await machine.status(copy)).toBe(401);
      expect((await machine.connect(stays)).status).toBe(101);
    }
    await untilEnded([a, ...behind], ownCopies);
  });

  describe('of which it has another than before', () => {
    /** People who log in; some of them log out, before what is kept of Redis was written and after it. */
    const live = async (snapshot: boolean) => {
      const [a, b] = [open(), open()];
      const makeToken = (name: string) => a.tokens.create({ principal: 'machine', name, ttl: 600 });
      const [good, bad] = [await makeToken('good'), await makeToken('bad')];
      const stays = await logInAt(a, 'stays');
      const ended = await Promise.all(['first', 'then', 'all', 'blocked'].map((who) => logInAt(b, who)));
      await a.endSession(a.openSession(ended[0]));
      if (snapshot) await redis.ask('SAVE');
      await b.endSession(b.openSession(ended[1]));
      await b.endSessions('all');
      await a.block('blocked');
      expect(await b.tokens.revoke('machine', bad.handle)).toBe(true);
      return { a, b, stays, good, bad, ended };
    };
    type Lived = Awaited<ReturnType<typeof live>>;

    const expectEnded = async (waa: WAA, { ended, bad }: Lived) => {
      for (const cookie of ended) expect(saysOf(waa, cookie)).toBe('ERR_SESSION_REVOKED');
      expect(await saysOfToken(waa, bad.token)).toBe('ERR_TOKEN_INVALID');
    };

    it.each<[string, readonly string[], boolean, string]>([
      ['empty', [], false, 'ERR_TOKEN_INVALID'],
      ['as it was a while ago', [], true, 'machine'],
      ['with all that it had', aof, false, 'machine'],
    ])(
      '%s: what was ended stays so, on those that lived on and on one that starts then',
      async (_, config, older, token) => {
        await redis.stop();
        await redis.start(config);
        const lived = await live(older);
        const { a, b, stays, good } = lived;
        await redis.stop('SIGKILL');
        await redis.start(config);
        const again = async () =>
          saysOfToken(a, '').then(async () => [await a.tokens.list('x'), await b.tokens.list('x')]);
        await expect.poll(() => again().catch(() => 'away'), patiently).toEqual([[], []]);
        await expect.poll(async () => (await redis.ask('EXISTS', 'ucam-webauth:mark')) === 1, patiently).toBe(true);
        const fresh = open();
        await fresh.ready;
        for (const waa of [a, b, fresh]) {
          await expectEnded(waa, lived);
          expect(saysOf(waa, stays)).toBe('stays');
          await expect.poll(() => saysOfToken(waa, good.token), patiently).toBe(token);
          await expect(logInAt(waa, 'blocked')).rejects.toMatchObject({ code: 'ERR_PRINCIPAL_REFUSED' });
          expect(saysOf(waa, await logInAt(waa, 'new'))).toBe('new');
        }
      },
    );

    it.each<[string, readonly string[], boolean, string]>([
      ['empty', [], false, 'ERR_SESSION_REVOKED'],
      ['as it was a while ago', [], true, 'ERR_SESSION_REVOKED'],
      ['with all that it had', aof, false, 'stays'],
    ])('%s, and no process has lived on: what was ended stays so', async (_, config, older, becomes) => {
      await redis.stop();
      await redis.start(config);
      const lived = await live(older);
      await Promise.all([closeAll(), redis.stop('SIGKILL')]);
      await redis.start(config);
      const [first, second] = [open(), open()];
      await Promise.all([first.ready, second.ready]);
      for (const waa of [first, second]) {
        await expectEnded(waa, lived);
        expect(saysOf(waa, lived.stays)).toBe(becomes);
        expect(saysOf(waa, await logInAt(waa, 'new'))).toBe('new');
      }
    });
  });
});

/** Many requests, some at a time: with a session, with a token, and to log out; the statuses of the answers. */
async function flood(machine: Machine, count: number, browser: Browser, leaving: Browser): Promise<Set<number>> {
  const { host, hostname, port } = new URL(machine.url);
  const kinds = [
    ['GET /', `Cookie: ${browser.cookieHeader}`],
    ['GET /api', `Authorization: Bearer ucwa_${'a'.repeat(43)}`],
    ['POST /webauth/logout', `Cookie: ${leaving.cookieHeader}\r\nOrigin: ${baseUrl}\r\nContent-Length: 0`],
  ].map(([line, headers]) => `${line} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n\r\n`);
  const statuses = new Set<number>();
  const work = async () => {
    const socket = connect(Number(port), hostname).setEncoding('latin1');
    for (let done = 0; done < count / 10; done += 50) {
      socket.write(Array.from({ length: 50 }, (_, i) => kinds[i % kinds.length]).join(''));
      let heard = '';
      for (let found = 0; found < 50; found = heard.match(answerShape)?.length ?? 0) {
        heard += (await once(socket, 'data', { signal: AbortSignal.timeout(5_000) }))[0];
      }
      for (const [, status] of heard.matchAll(answerShape)) statuses.add(Number(status));
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: 10 }, work));
  return statuses;
}

const answerShape = /HTTP\/1\.1 (\d{3}) .*\r\n(?:.+\r\n)*\r\n/g;
