import { fileURLToPath } from 'node:url';
import type express from 'express';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { MemoryStore } from '../src/session/memory.js';
import type { Auth, EndsBecause } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const HOUR = 3600;
const here = fileURLToPath(import.meta.url);

type Handler = express.RequestHandler;

/** Answers that are for nobody but who asked, or that say nothing about caching. */
const own: Record<string, Handler> = {
  text: (_, response) => void response.send('text'),
  json: (_, response) => void response.json({}),
  empty: (_, response) => void response.status(204).end(),
  redirect: (_, response) => response.redirect('/elsewhere'),
  error: (_, response) => void response.status(500).send('no'),
  written: (_, response) => void response.writeHead(200, { 'Content-Type': 'text/plain' }).end('text'),
  worded: (_, response) => void response.writeHead(200, 'Fine', { 'Content-Type': 'text/plain' }).end('text'),
  listed: (_, response) => void response.writeHead(200, ['Content-Type', 'text/plain']).end('text'),
  paired: (_, response) => void response.writeHead(200, [['Content-Type', 'text/plain']] as never).end('text'),
  streamed: async (_, response) => {
    response.write('one ');
    await new Promise(setImmediate);
    response.end('two');
  },
  flushed: (_, response) => {
    response.flushHeaders();
    response.end('text');
  },
  private: (_, response) => void response.set('Cache-Control', 'private, max-age=60').send('text'),
  secret: (_, response) => void response.writeHead(200, { 'cache-control': 'no-store' }).end('text'),
  privately: (_, response) =>
    void response.set('Cache-Control', 'public').writeHead(200, { 'Cache-Control': 'private' }).end('text'),
  'paired-private': (_, response) =>
    void response.writeHead(200, [['Cache-Control', 'Private'] as never] as never).end('text'),
};

/** Answers that the handler lets caches keep for others, or does not say that they are for one person. */
const shared: Record<string, Handler> = {
  setHeader: (_, response) => {
    response.setHeader('Cache-Control', 'public, max-age=60');
    response.end('text');
  },
  set: (_, response) => void response.set('cache-control', 's-maxage=60').send('text'),
  aged: (_, response) => void response.set('Cache-Control', 'max-age=60').json({}),
  object: (_, response) => void response.writeHead(200, { 'CACHE-control': 'public' }).end('text'),
  worded: (_, response) => void response.writeHead(200, 'Fine', { 'Cache-Control': 'PUBLIC' }).end('text'),
  list: (_, response) => void response.writeHead(200, ['X-A', 'private', 'Cache-Control', 'public']).end('text'),
  pairs: (_, response) =>
    void response
      .writeHead(200, [
        ['X-A', 'private'],
        ['Cache-Control', 'public'],
      ] as never)
      .end('text'),
  publicly: (_, response) =>
    void response.set('Cache-Control', 'private').writeHead(200, { 'Cache-Control': 's-maxage=9' }).end('text'),
  streamed: async (_, response) => {
    response.set('Cache-Control', 'public').write('one ');
    await new Promise(setImmediate);
    response.end('two');
  },
  file: (_, response) => response.sendFile(here),
};

/** Whoever waits, and what they wait for. */
const slow = { arrived: () => {}, answer: Promise.resolve() };

const routes: Routes = (app, auth) => {
  app.get('/who', ({ auth: who }, response) => void response.json(who ?? null));
  app.get('/private', auth.require(), ({ auth: who }, response) => void response.json(who));
  app.get('/fresh', auth.require({ maxAge: 60 }), (_, response) => void response.send('fresh'));
  app.get('/slow', auth.require(), async (_, response) => {
    slow.arrived();
    await slow.answer;
    response.send('at last');
  });
  app.get('/file', auth.require(), (_, response) => response.sendFile(here));
  for (const [name, handler] of Object.entries(own)) app.get(`/own/${name}`, handler);
  for (const [name, handler] of Object.entries(shared)) app.get(`/shared/${name}`, handler);
};

/** The error that a program is told, if it is one. */
function code({ text }: Answer): string | undefined {
  return /ERR_\w+/.exec(text)?.[0];
}

/** Options without those that are undefined. */
function given(config: { readonly [name in keyof Config]?: Config[name] | undefined }): Partial<Config> {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}

function sessions({ set }: Answer): string[] {
  return set.filter((line) => line.startsWith('webauth-session='));
}

describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let browser: Browser;
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    serve({ inactiveTimeout: 600 });
  });

  /** Without `X-Powered-By` there may be no header before `writeHead`, for which Node has ways of its own. */
  function serve(config: Partial<Config>): void {
    site.serve(routes, config, (app) => void app.disable('x-powered-by'));
    browser = new Browser(site.address);
  }

  async function logIn(life?: number): Promise<string> {
    await browser.logIn('/private', { life });
    return browser.cookie('webauth-session') as string;
  }

  /** What a request with just that cookie gets. */
  async function open(cookie: string, path = '/private'): Promise<Answer> {
    return new Browser(site.address).fetch(path, { cookie: `webauth-session=${cookie}` });
  }

  async function opened(cookie: string): Promise<number | string | undefined> {
    const answer = await open(cookie);
    return answer.status === 200 ? 200 : code(answer);
  }

  describe('a session ends at the earliest of its ends', () => {
    const lengths = [undefined, 600, 1200, 1800];
    const rows = lengths.flatMap((maxLife) =>
      [undefined, true, false].flatMap((useWlsLife) =>
        lengths.flatMap((life) => lengths.map((inactiveTimeout) => ({ maxLife, useWlsLife, life, inactiveTimeout }))),
      ),
    );

    /** Of two that are equal, the one named first sets it. */
    function earliest({ maxLife = 7200, useWlsLife = true, life, inactiveTimeout }: (typeof rows)[number]) {
      const ends: [EndsBecause, number | undefined][] = [
        ['maxLife', maxLife],
        ['life', useWlsLife ? life : undefined],
        ['inactiveTimeout', inactiveTimeout],
      ];
      return ends.filter((end): end is [EndsBecause, number] => end[1] !== undefined).sort((a, b) => a[1] - b[1])[0];
    }

    it('of maxLife, the life at the login service and inactiveTimeout, in all their combinations', async () => {
      expect(rows).toHaveLength(192);
      for (const row of rows) {
        const { life, ...config } = row;
        clock.reset();
        serve(given(config));
        const cookie = await logIn(life);
        const [because, seconds] = earliest(row) as [EndsBecause, number];
        const ends = clock.time + seconds * 1000;
        const told = JSON.parse((await open(cookie)).text);
        expect([told.expiresBecause, Date.parse(told.expires)], JSON.stringify(row)).toEqual([because, ends]);
        clock.time = ends - 1;
        expect(await opened(cookie), JSON.stringify(row)).toBe(200);
        clock.time = ends;
        const refusal = because === 'inactiveTimeout' ? 'ERR_SESSION_IDLE' : 'ERR_SESSION_EXPIRED';
        expect(await opened(cookie), JSON.stringify(row)).toBe(refusal);
        expect((await open(cookie, '/who')).text, JSON.stringify(row)).toBe('null');
      }
    });

    it('counted from when the login service answered, though it arrived later', async () => {
      serve({ maxLife: 600 });
      const answer = answerTo((await browser.get('/private')).location);
      clock.pass(25);
      await browser.get(answer);
      clock.pass(574.999);
      const cookie = browser.cookie('webauth-session') as string;
      expect(await opened(cookie)).toBe(200);
      clock.pass(0.001);
      expect(await opened(cookie)).toBe('ERR_SESSION_EXPIRED');
    });
  });

  describe('a sliding session', () => {
    it('has its cookie set anew from half of inactiveTimeout on, and not before', async () => {
      await logIn();
      clock.pass(299.999);
      expect(sessions(await browser.get('/private'))).toEqual([]);
      clock.pass(0.001);
      expect(sessions(await browser.get('/private'))).toHaveLength(1);
      let count = 0;
      for (let i = 0; i < 300; i++) {
        clock.pass(10);
        count += sessions(await browser.get('/private')).length;
      }
      expect(count).toBe(10);
    });

    it('never has it set without inactiveTimeout, nor where another end comes first', async () => {
      for (const config of [{}, { inactiveTimeout: 600, maxLife: 600 }]) {
        serve(config);
        await logIn();
        for (let i = 0; i < 50; i++) {
          clock.pass(11);
          expect(sessions(await browser.get('/private'))).toEqual([]);
        }
      }
    });

    it.each(Object.keys(own))('has it set, with the answer kept private: %s', async (name) => {
      const plain = await browser.get(`/own/${name}`);
      await logIn();
      clock.pass(300);
      const before = browser.cookie('webauth-session');
      const answer = await browser.get(`/own/${name}`);
      expect([answer.status, answer.text]).toEqual([plain.status, plain.text]);
      expect(sessions(answer)).toEqual([
        expect.stringMatching(/^webauth-session=[\w-]+; Path=\/; HttpOnly; SameSite=Lax$/),
      ]);
      const said = plain.headers.get('cache-control');
      expect(answer.headers.get('cache-control')).toBe(said ?? 'private, no-cache');
      if (said === null) expect(answer.headers.get('vary')).toMatch(/\bCookie$/);
      expect(browser.cookie('webauth-session')).not.toBe(before);
      clock.pass(301);
      expect((await browser.fetch('/private')).status).toBe(200);
    });

    it.each(Object.keys(shared))('never has it set on what caches may keep: %s', async (name) => {
      const plain = await browser.get(`/shared/${name}`);
      await logIn();
      clock.pass(300);
      const answer = await browser.get(`/shared/${name}`);
      expect([answer.status, answer.text, answer.set]).toEqual([200, plain.text, []]);
      expect(answer.headers.get('cache-control')).toBe(plain.headers.get('cache-control'));
      expect(answer.headers.get('cache-control')).toMatch(/public|max-?age/i);
      // The next answer does.
      expect(sessions(await browser.get('/own/text'))).toHaveLength(1);
    });

    it('has it set on a 304, on a HEAD, and on a file behind a guard', async () => {
      await logIn();
      const etag = (await browser.get('/own/text')).headers.get('etag') as string;
      clock.pass(300);
      const same = await browser.get('/own/text', { 'if-none-match': etag });
      expect([same.status, sessions(same).length]).toEqual([304, 1]);
      clock.pass(300);
      const head = await browser.send('HEAD', '/private', { accept: 'text/html' });
      expect([head.status, head.text, sessions(head).length]).toEqual([200, '', 1]);
      clock.pass(300);
      const file = await browser.get('/file');
      expect([file.status, file.headers.get('cache-control')]).toEqual([200, 'private, no-cache']);
      expect(sessions(file)).toHaveLength(1);
    });

    it.each<[string, Partial<Config>, number | undefined]>([
      ['maxLife', { inactiveTimeout: 600, maxLife: 3600 }, undefined],
      ['life', { inactiveTimeout: 600 }, 3600],
    ])('in use to the last moment ends with %s all the same', async (because, config, life) => {
      serve(config);
      const first = await logIn(life);
      const ends = clock.time + 3600_000;
      let told: Record<string, unknown> = {};
      while (clock.time < ends - 30_000) {
        clock.pass(29);
        const answer = await browser.fetch('/private');
        expect(answer.status).toBe(200);
        told = JSON.parse(answer.text);
        expect(Date.parse(told['expires'] as string)).toBeLessThanOrEqual(ends);
      }
      expect(told['expiresBecause']).toBe(because);
      clock.time = ends - 1;
      expect((await browser.fetch('/private')).status).toBe(200);
      clock.time = ends;
      expect(code(await browser.fetch('/private'))).toBe('ERR_SESSION_EXPIRED');
      expect(await opened(first)).toMatch(/IDLE|EXPIRED/);
    });

    it('that is not used for all of inactiveTimeout is over, also by a cookie that was renewed before', async () => {
      const first = await logIn();
      clock.pass(300);
      await browser.get('/private');
      clock.pass(300);
      expect([await opened(first), (await browser.fetch('/private')).status]).toEqual(['ERR_SESSION_IDLE', 200]);
      clock.pass(599.999);
      const renewed = browser.cookie('webauth-session') as string;
      expect(await opened(renewed)).toBe(200);
      clock.pass(0.001);
      expect(await opened(renewed)).toBe('ERR_SESSION_IDLE');
    });

    it('of which two requests at a time renew the cookie has two good ones, that end together', async () => {
      await logIn();
      clock.pass(300);
      const answers = await Promise.all([browser.get('/private'), browser.get('/who'), browser.get('/private')]);
      const cookies = answers.map((answer) => (sessions(answer)[0] as string).split(/[=;]/)[1] as string);
      expect(new Set(cookies).size).toBe(3);
      for (const cookie of cookies) expect(await opened(cookie)).toBe(200);
      await browser.post('/webauth/logout');
      for (const cookie of cookies) expect(await opened(cookie)).toBe('ERR_SESSION_REVOKED');
    });

    it('is renewed by our own routes, but has nothing set beside what callback and logout set', async () => {
      await logIn();
      clock.pass(400);
      expect(sessions(await browser.get('/webauth/callback'))).toEqual([]);
      for (const path of ['/webauth/login?return=/', '/webauth/logout']) {
        expect(sessions(await browser.get(path)), path).toHaveLength(1);
        expect(sessions(await browser.get(path)), path).toEqual([]);
        clock.pass(400);
      }
      expect(sessions(await browser.post('/webauth/ticket'))).toHaveLength(1);
      expect(sessions(await browser.post('/webauth/ticket'))).toEqual([]);
      clock.pass(400);
      const back = await browser.logIn('/fresh');
      expect([back.status, sessions(back).length]).toEqual([303, 1]);
      clock.pass(400);
      const out = await browser.post('/webauth/logout');
      expect(sessions(out)).toEqual(['webauth-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax']);
    });
  });

  describe('a request that is still being answered', () => {
    /** Begins a slow request at the half, does something meanwhile, and lets it end. */
    async function meanwhile(work: () => Promise<unknown>): Promise<Answer> {
      await logIn();
      clock.pass(300);
      let finish = () => {};
      const arrived = new Promise<void>((resolve) => {
        slow.arrived = resolve;
      });
      slow.answer = new Promise((resolve) => {
        finish = resolve;
      });
      const answer = browser.get('/slow');
      await arrived;
      await work();
      finish();
      return answer;
    }

    it('while its session is ended elsewhere brings no cookie back', async () => {
      let cookie = '';
      const answer = await meanwhile(async () => {
        cookie = browser.cookie('webauth-session') as string;
        await browser.post('/webauth/logout');
      });
      expect([answer.text, sessions(answer)]).toEqual(['at last', []]);
      expect(browser.cookie('webauth-session')).toBeUndefined();
      expect(await opened(cookie)).toBe('ERR_SESSION_REVOKED');
    });

    it('while another tab authenticates again does not put the old session in the place of the new one', async () => {
      const answer = await meanwhile(() => browser.logIn('/fresh'));
      expect(sessions(answer)).toEqual([]);
      expect((await browser.get('/fresh')).text).toBe('fresh');
    });

    it('otherwise has the cookie set anew, with the time at which it came', async () => {
      const answer = await meanwhile(async () => clock.pass(100));
      expect(sessions(answer)).toHaveLength(1);
      clock.pass(499.999);
      expect(await opened(browser.cookie('webauth-session') as string)).toBe(200);
      clock.pass(0.001);
      expect(await opened(browser.cookie('webauth-session') as string)).toBe('ERR_SESSION_IDLE');
    });
  });

  describe('when the clock is put by an hour', () => {
    it('after a login: forward, the session has an hour less; back, an hour more, and no longer', async () => {
      serve({ maxLife: 2 * HOUR });
      const cookie = await logIn();
      clock.pass(HOUR);
      expect(await opened(cookie)).toBe(200);
      clock.pass(HOUR);
      expect(await opened(cookie)).toBe('ERR_SESSION_EXPIRED');
      const another = await logIn();
      clock.pass(-HOUR);
      clock.pass(3 * HOUR - 0.001);
      expect(await opened(another)).toBe(200);
      clock.pass(0.001);
      expect(await opened(another)).toBe('ERR_SESSION_EXPIRED');
    });

    it('after a renewal: forward, the session is over; back, it is renewed at once, and goes on from there', async () => {
      await logIn();
      clock.pass(300);
      await browser.get('/private');
      const copy = browser.cookie('webauth-session') as string;
      clock.pass(HOUR);
      expect(await opened(copy)).toBe('ERR_SESSION_IDLE');
      clock.pass(-2 * HOUR);
      expect(sessions(await browser.get('/private'))).toHaveLength(1);
      expect(sessions(await browser.get('/private'))).toEqual([]);
      clock.pass(600);
      expect(await opened(browser.cookie('webauth-session') as string)).toBe('ERR_SESSION_IDLE');
      // What was not used since lasts for its time and the jump.
      clock.pass(HOUR - 0.001);
      expect(await opened(copy)).toBe(200);
      clock.pass(0.001);
      expect(await opened(copy)).toBe('ERR_SESSION_IDLE');
    });

    it.each([[[-HOUR]], [[HOUR]], [[HOUR, -HOUR]], [[HOUR + 3500, -HOUR]], [[3500, HOUR, -HOUR]]])(
      'after a logout: what was ended does not open again, by %j seconds',
      async (jumps) => {
        serve({ maxLife: 2 * HOUR, inactiveTimeout: 2 * HOUR - 1 });
        const first = await logIn();
        const ends = clock.time + 2 * HOUR * 1000;
        clock.pass(HOUR);
        await browser.get('/private');
        const renewed = browser.cookie('webauth-session') as string;
        expect(renewed).not.toBe(first);
        await browser.post('/webauth/logout');
        for (const jump of jumps) {
          clock.pass(jump);
          // Others come and go, so that what is over is forgotten.
          const other = new Browser(site.address);
          await other.logIn('/private', { principal: 'test0002' });
          await other.post('/webauth/logout');
          const why = clock.time < ends - 1000 ? /REVOKED/ : /REVOKED|EXPIRED|IDLE/;
          for (const cookie of [first, renewed]) expect(await opened(cookie)).toMatch(why);
        }
      },
    );

    it.each([[[-HOUR]], [[HOUR]], [[HOUR, -HOUR]], [[30, HOUR, -HOUR]], [[29 * 60, HOUR, -HOUR]]])(
      'after a response was used: it is not taken again, by %j seconds',
      async (jumps) => {
        const { location } = await browser.get('/private');
        const nonce = browser.cookie('webauth-login') as string;
        const address = answerTo(location);
        expect((await browser.get(address)).status).toBe(303);
        for (const jump of jumps) {
          clock.pass(jump);
          await new Browser(site.address).logIn('/private', { principal: 'test0002' });
          const again = await new Browser(site.address).get(address, { cookie: `webauth-login=${nonce}` });
          expect([again.status, again.set]).toEqual([400, []]);
          expect(code(again)).toMatch(/ERR_(?:ISSUE_(?:STALE|FUTURE)|RESPONSE_REPLAYED|COOKIES_BLOCKED)/);
        }
      },
    );

    it('while a ticket is out: forward, it is over; back, it is good once, for its time and the jump', async () => {
      serve({});
      const cookie = await logIn();
      const make = async () => (await site.waa.makeTicket(cookie)).ticket;
      const late = await make();
      clock.pass(HOUR);
      await expect(site.waa.takeTicket(late)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      clock.pass(-HOUR);
      await expect(site.waa.takeTicket(late)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      const [one, two] = [await make(), await make()];
      clock.pass(-HOUR);
      clock.pass(HOUR + 29.999);
      expect((await site.waa.takeTicket(one)).principal).toBe('test0001');
      clock.pass(-HOUR);
      await expect(site.waa.takeTicket(one)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
      clock.pass(HOUR + 0.001);
      await expect(site.waa.takeTicket(two)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
    });
  });
});

/** A session, all cookies that it ever had, and what has to become of it. */
interface Known {
  readonly principal: string;
  readonly auth: Auth;
  readonly settled: number;
  readonly cookies: { readonly value: string; readonly seen: number }[];
  ended: boolean;
}

interface Lengths {
  readonly maxLife: number;
  readonly inactiveTimeout: number | undefined;
}

type Step =
  | { readonly does: 'log in'; readonly who: string; readonly life: number | undefined }
  | { readonly does: 'use'; readonly which: number; readonly old: number }
  | { readonly does: 'step up' | 'end'; readonly which: number }
  | { readonly does: 'wait'; readonly seconds: number }
  | { readonly does: 'jump'; readonly seconds: number }
  | { readonly does: 'end all' | 'block'; readonly who: string };

/** An application, and what has to be true of its sessions, worked out in another way. */
class World {
  readonly #lengths: Lengths;
  readonly #waa: WAA;
  readonly #known: Known[] = [];
  #latest: number;
  opens = 0;
  refusals = 0;

  constructor(lengths: Lengths) {
    clock.reset();
    this.#latest = clock.time;
    this.#lengths = lengths;
    this.#waa = createWAA({
      baseUrl: 'https://example.org',
      secret,
      wls: wls.profile,
      now: clock.now,
      ...given(lengths),
    });
  }

  async take(step: Step): Promise<void> {
    if (step.does === 'wait') clock.pass(step.seconds);
    // By no more than an hour in all: so long beyond its time what was ended is remembered.
    else if (step.does === 'jump') clock.time = Math.max(clock.time + step.seconds * 1000, this.#latest - HOUR * 1000);
    else if (step.does === 'log in') await this.#logIn(step.who, step.life);
    else if ('which' in step) await this.#touch(this.#known[step.which % this.#known.length], step);
    else await this.#endAll(step.who, step.does);
    this.#latest = Math.max(this.#latest, clock.time);
  }

  /** @throws Error where a cookie opens that must not, or the other way round. */
  check(): void {
    for (const session of this.#known) for (const cookie of session.cookies) this.#checkOne(session, cookie);
  }

  #checkOne(session: Known, { value, seen }: Known['cookies'][number]): void {
    const found = this.#open(value);
    if ((found === undefined) !== this.#isOver(session, seen)) throw new Error(found ? 'it opens' : 'it is refused');
    if (found && found.expires.getTime() > session.settled) throw new Error('it is said to last longer');
    if (found) this.opens += 1;
    else this.refusals += 1;
  }

  #open(cookie: string): Auth | undefined {
    try {
      return this.#waa.openSession(cookie);
    } catch {
      return undefined;
    }
  }

  #isOver({ ended, settled }: Known, seen: number): boolean {
    const { inactiveTimeout = Number.POSITIVE_INFINITY } = this.#lengths;
    return ended || clock.time >= Math.min(settled, seen + inactiveTimeout * 1000);
  }

  async #logIn(principal: string, life?: number, live?: Auth): Promise<void> {
    const { location, nonce } = this.#waa.startLogin('/', undefined, {}, live);
    const encoded = wls.respond(location, { principal, life });
    const { auth, cookie } = await this.#waa.finishLogin(encoded, nonce, live);
    const settled = clock.time + Math.min(this.#lengths.maxLife, life ?? Number.POSITIVE_INFINITY) * 1000;
    const cookies = [{ value: cookie as string, seen: clock.time }];
    this.#known.push({ principal, auth, settled, cookies, ended: false });
  }

  async #endAll(principal: string, how: 'end all' | 'block'): Promise<void> {
    if (how === 'end all') await this.#waa.endSessions(principal);
    else await this.#waa.block(principal);
    await this.#waa.unblock(principal);
    for (const session of this.#known) if (session.principal === principal) session.ended = true;
  }

  async #touch(session: Known | undefined, step: Step): Promise<void> {
    if (session === undefined) return;
    if (step.does === 'end') {
      await this.#waa.endSession(session.auth);
      session.ended = true;
      return;
    }
    const old = step.does === 'use' ? step.old % session.cookies.length : 0;
    const live = this.#open(session.cookies.at(-1 - old)?.value as string);
    if (live === undefined) return;
    if (step.does === 'use') {
      const renewed = this.#waa.renew(live);
      if (renewed) session.cookies.push({ value: renewed.cookie, seen: clock.time });
    } else {
      await this.#logIn(session.principal, undefined, live);
      session.ended = true;
    }
  }
}

describe('whatever happens, in whatever order', () => {
  const who = fc.constantFrom('test0001', 'test0002');
  const which = fc.nat(20);
  const does = <D extends Step['does']>(...what: D[]) => fc.constantFrom(...what);
  const life = fc.option(fc.integer({ min: 60, max: 4000 }), { nil: undefined });
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({ does: does('log in'), who, life }),
    { weight: 2, arbitrary: fc.record({ does: does('use'), which, old: fc.constantFrom(0, 0, 0, 1, 2) }) },
    fc.record({ does: does('wait'), seconds: fc.integer({ min: 1, max: 900 }) }),
    fc.record({ does: does('jump'), seconds: fc.constantFrom(-HOUR, HOUR, -600, 600) }),
    fc.record({ does: does('end', 'step up'), which }),
    fc.record({ does: does('end all', 'block'), who }),
  );
  const lengths: fc.Arbitrary<Lengths> = fc.record({
    maxLife: fc.integer({ min: 60, max: 7200 }),
    inactiveTimeout: fc.option(fc.integer({ min: 30, max: 3000 }), { nil: undefined }),
  });

  it('an ended session never opens again, and a live one opens to its settled end and not beyond', async () => {
    const seen = { opens: 0, refusals: 0 };
    await fc.assert(
      fc.asyncProperty(lengths, fc.array(step, { minLength: 15, maxLength: 50 }), async (config, steps) => {
        const world = new World(config);
        for (const step of steps) {
          await world.take(step);
          world.check();
        }
        seen.opens += world.opens;
        seen.refusals += world.refusals;
      }),
      { seed: 20130704, numRuns: 300 },
    );
    expect(Math.min(seen.opens, seen.refusals)).toBeGreaterThan(3_000);
  });

  it('a socket is told of the end of its session once, by the clock or before', async () => {
    const store = new MemoryStore({ now: clock.now });
    clock.reset();
    const waa = createWAA({ baseUrl: 'https://example.org', secret, wls: wls.profile, now: clock.now, store });
    const { location, nonce } = waa.startLogin('/');
    const { auth } = await waa.finishLogin(wls.respond(location), nonce);
    const told: string[] = [];
    const ends = new Promise<void>((resolve) => {
      waa.watch(auth, ({ code }) => {
        told.push(code);
        resolve();
      });
    });
    clock.pass(7200);
    await ends;
    await waa.endSession(auth);
    expect(told).toEqual(['ERR_SESSION_EXPIRED']);
    await waa.close();
  });
});
