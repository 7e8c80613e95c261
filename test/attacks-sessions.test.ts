import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { digest } from '../src/digest.js';
import { LiveSessions } from '../src/session/live.js';
import { LmdbStore } from '../src/session/lmdb.js';
import { MemoryStore } from '../src/session/memory.js';
import { RedisStore } from '../src/session/redis.js';
import { findUnsafeParent } from '../src/session/safe-path.js';
import { createWAA, type WAA } from '../src/waa.js';
import { root, runNode } from './processes.js';
import { Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';
import { findRedis, RedisServer } from './stores/redis-server.js';

const isRoot = process.getuid?.() === 0;
/** An account that is neither root nor the owner of anything here. */
const stranger = 65534;

const home = mkdtempSync(join(tmpdir(), 'attacks-sessions-'));
afterAll(() => rmSync(home, { recursive: true }));
let count = 0;
const newPath = () => join(home, String(++count));

/** A store whose writes wait until the test lets them succeed or fail. */
class Held extends MemoryStore {
  readonly writes: { readonly key: string; readonly settle: (error?: Error) => void }[] = [];
  isHeld = false;
  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (this.isHeld) {
      await new Promise<void>((resolve, reject) => {
        this.writes.push({ key, settle: (error) => (error ? reject(error) : resolve()) });
      });
    }
    return super.put(key, value, expires);
  }
  override async next(seen?: number): Promise<number> {
    if (this.isHeld) {
      await new Promise<void>((resolve, reject) => {
        this.writes.push({ key: 'next', settle: (error) => (error ? reject(error) : resolve()) });
      });
    }
    return super.next(seen);
  }
}

describe('WAA.endPeeked() while the store answers another logout', () => {
  let store: Held;
  let waa: WAA;
  beforeEach(() => {
    clock.reset();
    store = new Held({ now: clock.now });
  });
  afterEach(() => waa.close());
  const start = (coordinatedLogout = false) => {
    const baseUrl = 'https://app.example.cam.ac.uk';
    waa = createWAA({ baseUrl, secret, wls: wls.profile, now: clock.now, store, coordinatedLogout });
  };
  async function logIn(binding?: string) {
    const { location, nonce } = waa.startLogin('/');
    const { cookie, anchor } = await waa.finishLogin(wls.respond(location), nonce, undefined, binding);
    return { auth: waa.peekSession(cookie as string), binding: anchor };
  }
  const codeOf = (promise: Promise<unknown>) =>
    promise.then(
      () => 'done',
      (error: { code: string }) => error.code,
    );

  it.each(['failed', 'succeeded'])(
    'reports for a session of the same binding cookie that the write %s',
    async (how) => {
      start(true);
      const one = await logIn();
      const other = await logIn(one.binding);
      expect(other.binding).toBe(one.binding);
      store.isHeld = true;
      const answers = [codeOf(waa.endPeeked(one.auth)), codeOf(waa.endPeeked(other.auth))];
      expect(store.writes).toHaveLength(1);
      store.writes[0]?.settle(how === 'failed' ? new Error('the disk is full') : undefined);
      const expected = how === 'failed' ? 'ERR_STORE_UNAVAILABLE' : 'done';
      expect(await Promise.all(answers)).toEqual([expected, expected]);
    },
  );

  it('reports that the write failed when all sessions of the user are being revoked', async () => {
    start();
    const { auth } = await logIn();
    store.isHeld = true;
    const answers = [codeOf(waa.endSessions('test0001')), codeOf(waa.endPeeked(auth))];
    store.writes[0]?.settle(new Error('the disk is full'));
    expect(await Promise.all(answers)).toEqual(['ERR_STORE_UNAVAILABLE', 'ERR_STORE_UNAVAILABLE']);
  });
});

describe('LiveSessions', () => {
  it('tells the store later revocations when an earlier one keeps failing', async () => {
    /** A store whose login counter is broken, and whose writes fail at first. */
    class Broken extends MemoryStore {
      isAway = true;
      counted = 0;
      override async next(): Promise<number> {
        this.counted += 1;
        return -1;
      }
      override async put(key: string, value: string, expires: Date): Promise<void> {
        if (this.isAway) throw new Error('it is away');
        return super.put(key, value, expires);
      }
    }
    const store = new Broken();
    const complain = () => {};
    const shared = { store, maxLife: 7200, now: () => new Date(), staleAfter: 10_000, allowStale: false, complain };
    const live = new LiveSessions({ ...shared, application: digest('application', 'here') });
    const handle = { sessionId: 'a', group: '', wls: 'raven', principal: 'test0002', login: 1 };
    await expect(live.endAll('raven', 'test0001')).rejects.toThrow('login counter');
    await expect(live.end(handle, new Date(Date.now() + 60_000))).rejects.toThrow('it is away');
    store.isAway = false;
    const key = `ended:session.${digest('session', 'a')}`;
    await expect.poll(() => store.get(key), { timeout: 10_000 }).toBeDefined();
    expect(store.counted).toBeGreaterThan(1);
    live.stop();
    await store.close();
  });
});

describe.each(frameworks)('%s: a late cookie', (_, framework) => {
  const site = new Site(framework);
  const given: Record<string, (response: ServerResponse) => void> = {
    'an object': (response) => void response.writeHead(200, { 'set-cookie': ['a=1', 'b=2'] }).end(),
    'a reason and an object': (response) =>
      void response.writeHead(200, 'Fine', { 'Set-Cookie': ['a=1', 'b=2'] }).end(),
    'a flat list': (response) => void response.writeHead(200, ['Set-Cookie', 'a=1', 'SET-COOKIE', 'b=2']).end(),
    pairs: (response) => {
      const headers = [
        ['Set-Cookie', 'a=1'],
        ['X-Other', 'yes'],
        ['Set-Cookie', 'b=2'],
      ];
      response.writeHead(200, headers as never).end();
    },
  };
  const routes: Routes = (app) => {
    for (const [name, answer] of Object.entries(given)) {
      app.get(`/${encodeURIComponent(name)}`, (_request, response) => answer(response));
    }
    app.get('/private', (_request, response) => void response.send('text'));
  };
  beforeAll(() => site.listen());
  afterAll(() => site.close());

  it.each(Object.keys(given))('arrives beside the cookies that writeHead() is given as %s', async (name) => {
    clock.reset();
    site.serve(
      (app, auth) => {
        app.get('/private', auth.require(), (_request, response) => void response.send('text'));
        routes(app, auth);
      },
      { inactiveTimeout: 600 },
    );
    const browser = new Browser(site.address);
    await browser.logIn();
    clock.pass(300);
    const { set } = await browser.get(`/${encodeURIComponent(name)}`);
    expect(set).toEqual(['a=1', 'b=2', expect.stringMatching(/^webauth-session=/)]);
  });
});

describe.skipIf(!findRedis())('RedisStore', () => {
  /** Starts a store that has just caught up, and another one that is connected. */
  async function startStores() {
    const server = await RedisServer.start();
    const [store, other] = [new RedisStore({ url: server.url }), new RedisStore({ url: server.url })];
    onTestFinished(async () => {
      await Promise.all([store.close(), other.close()]);
      await server.remove();
    });
    const generations: string[] = [];
    const missed = async () => void generations.push(await store.mark(generations.at(-1)));
    // The connection has to exist, so that no beacon comes in between.
    await other.mark();
    await store.subscribe('ended', { changed: () => {}, missed });
    return { store, other, generations };
  }

  it('notices a new generation that begins right after its subscribers have caught up', async () => {
    const { other, generations } = await startStores();
    await other.invalidate();
    await expect.poll(() => generations.length, { timeout: 10_000 }).toBe(2);
    // The other store connects again too.
    await expect.poll(() => other.mark(), { timeout: 10_000 }).toBe(generations[1]);
  });

  it('notices it also when another subscriber of the same store reads the generation first', async () => {
    const { store, other, generations } = await startStores();
    await other.invalidate();
    // Its link may just end, since the generation is another one.
    const latest = await vi.waitFor(() => store.mark(), 10_000);
    await expect.poll(() => generations.at(-1), { timeout: 10_000 }).toBe(latest);
  });
});

describe.runIf(isRoot)('findUnsafeParent()', () => {
  it('judges the folder behind a link before `..` in the target of a link', () => {
    const base = newPath();
    mkdirSync(join(base, 'stranger', 'below'), { recursive: true, mode: 0o755 });
    mkdirSync(join(base, 'store'), { mode: 0o755 });
    chmodSync(home, 0o755);
    chownSync(join(base, 'stranger'), stranger, stranger);
    symlinkSync(join(base, 'stranger', 'below'), join(base, 'data'));
    symlinkSync('data/../store', join(base, 'link'));
    expect(findUnsafeParent(join(base, 'link'))?.path).toBe(join(base, 'stranger'));
  });

  it('accepts a link with `..` in its target when each folder is safe', () => {
    const base = newPath();
    mkdirSync(join(base, 'a', 'b'), { recursive: true, mode: 0o755 });
    symlinkSync('./b/../../a/b', join(base, 'a', 'link'));
    expect(findUnsafeParent(join(base, 'a', 'link'))).toBeUndefined();
  });
});

describe.runIf(isRoot)('findUnsafeFolder()', () => {
  it('advises to give the folder to the user of the process when only its group lets that user write', async () => {
    const path = newPath();
    chmodSync(home, 0o755);
    mkdirSync(path);
    chownSync(path, 0, stranger);
    chmodSync(path, 0o2770);
    const program = `
      const { findUnsafeFolder } = await import(process.argv[1]);
      process.setgroups([]);
      process.setgid(${stranger});
      process.setuid(${stranger});
      console.log(findUnsafeFolder(process.argv[2]).reason);`;
    const compiled = pathToFileURL(join(root, 'dist/session/safe-path.js')).href;
    const { stdout } = await runNode(['--input-type=module', '-e', program, compiled, path]);
    expect(stdout).toContain(`(mode 2770): run chmod go-w ${path} && chown ${stranger} ${path}`);
  });
});

describe.runIf(isRoot)('ucam-webauth store invalidate as root', () => {
  it('fails, and changes no owner, when the store belongs to the user of the application', async () => {
    const path = newPath();
    await new LmdbStore({ path }).close();
    for (const name of ['', 'data.mdb', 'lock.mdb', 'changes-1']) chownSync(join(path, name), stranger, stranger);
    const { status, stderr } = await runNode([join(root, 'dist/cli/main.js'), 'store', 'invalidate', path]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/belongs to another user \(65534\)\. Run this command as that user/);
    expect(stderr).not.toContain('chown');
    expect(statSync(join(path, 'data.mdb')).uid).toBe(stranger);
  });
});
