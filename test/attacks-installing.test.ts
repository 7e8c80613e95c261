import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { afterAll, afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { printable } from '../src/cli/usage.js';
import type { LogEvent } from '../src/config.js';
import { LmdbStore } from '../src/session/lmdb.js';
import { RedisStore } from '../src/session/redis.js';
import { cookieSecret } from '../src/session/secret.js';
import { createWAA } from '../src/waa.js';
import { root, runNode } from './processes.js';
import { clock, secret, wls } from './site.js';

const isRoot = process.getuid?.() === 0;
/** An account that is neither root nor the owner of anything here. */
const stranger = 65534;

const home = mkdtempSync(join(tmpdir(), 'attacks-installing-'));
afterAll(() => rmSync(home, { recursive: true }));
let count = 0;
const newPath = () => join(home, String(++count));

const opened: LmdbStore[] = [];
function openLmdb(path: string): LmdbStore {
  const store = new LmdbStore({ path, now: clock.now });
  opened.push(store);
  return store;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
});

describe('new LmdbStore()', () => {
  it('says that the path, or a part of it, is a file, and to give a folder', () => {
    const file = newPath();
    writeFileSync(file, '');
    expect(() => openLmdb(file)).toThrow(/EEXIST: .*: it is a file, or a link that leads nowhere\. Give the path/);
    for (const below of ['a', 'a/b'])
      expect(() => openLmdb(join(file, below))).toThrow(/ENOTDIR: .*a part of the path/);
  });

  it('says that the path is a link that leads nowhere', () => {
    const link = newPath();
    symlinkSync(join(home, 'missing'), link);
    for (const path of [link, join(link, 'store')]) expect(() => openLmdb(path)).toThrow(/link that leads nowhere/);
  });

  it('says that a name is too long', () => {
    expect(() => openLmdb(join(home, 'a'.repeat(300)))).toThrow(
      /ENAMETOOLONG: .*: the path is too long\. Give a shorter/,
    );
  });

  // In another process: a call that never returns would block this one.
  it.runIf(process.platform === 'linux')('fails below /proc, where no folder can be made', async () => {
    const program = `
      const { LmdbStore } = await import(process.argv[1]);
      for (const path of ['/proc/store', '/proc/store/a/b', '/proc/1/store']) {
        try { new LmdbStore({ path }); } catch (error) { console.log(error.message); }
      }`;
    const compiled = pathToFileURL(join(root, 'dist/session/lmdb.js')).href;
    const { stdout } = await runNode(['--input-type=module', '-e', program, compiled]);
    expect(
      stdout.match(/ENOENT: .*: no folder can be made there\. Give the path of a folder on a local disk/g),
    ).toHaveLength(3);
  });

  it('makes missing parents, for its own user only', () => {
    const path = join(newPath(), 'a', 'b');
    openLmdb(path);
    for (const folder of [path, join(path, '..'), join(path, '../..')])
      expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it.runIf(isRoot)('says that the user of the process may not write there', async () => {
    const path = newPath();
    chmodSync(home, 0o755);
    mkdirSync(path, { mode: 0o755 });
    const closed = newPath();
    mkdirSync(closed, { mode: 0o700 });
    chownSync(closed, 0, 0);
    const program = `
      const { LmdbStore } = await import(process.argv[1]);
      process.setgroups([]);
      process.setgid(${stranger});
      process.setuid(${stranger});
      for (const path of process.argv.slice(2)) {
        try { new LmdbStore({ path }); } catch (error) { console.log(error.message); }
      }`;
    const compiled = pathToFileURL(join(root, 'dist/session/lmdb.js')).href;
    const paths = [join(path, 'a'), join(path, 'a/b'), join(closed, 'a')];
    const { stdout } = await runNode(['--input-type=module', '-e', program, compiled, ...paths]);
    expect(
      stdout.match(/EACCES: .*: the user of this process lacks a permission\. Run it as a user who/g),
    ).toHaveLength(3);
  });
});

describe('LmdbStore.lag()', () => {
  it('stays small while subscribers catch up with a new generation, and grows while they cannot', async () => {
    const path = newPath();
    const store = openLmdb(path);
    let settle: { readonly done: () => void; readonly failed: (error: Error) => void } | undefined;
    const missed = (): Promise<void> =>
      settle === undefined
        ? Promise.resolve()
        : new Promise((done, failed) => {
            settle = { done, failed };
          });
    await store.subscribe('x', { changed: () => {}, missed });
    expect(store.lag()).toBe(0);
    settle = { done: () => {}, failed: () => {} };
    await openLmdb(path).invalidate();
    const first = store.lag();
    expect(first).toBeLessThan(1000);
    await expect.poll(() => store.lag()).toBeGreaterThan(first);
    settle.done();
    await expect.poll(() => store.lag()).toBe(0);
  });
});

describe('createWAA() with LmdbStore', () => {
  it('rejects no login and logs no error at the moment when the store is invalidated', async () => {
    const path = newPath();
    const events: LogEvent[] = [];
    const log = (event: LogEvent) => void events.push(event);
    const baseUrl = 'http://localhost:1';
    const waa = createWAA({ baseUrl, secret, wls: wls.profile, now: clock.now, log, store: openLmdb(path) });
    await waa.ready;
    const logIn = () => {
      const { location, nonce } = waa.startLogin('/');
      return waa.finishLogin(wls.respond(location), nonce);
    };
    const { auth } = await logIn();
    const revoked = new Promise<{ readonly code: string }>((resolve) => waa.watch(auth, resolve));
    await openLmdb(path).invalidate();
    await logIn();
    expect(await revoked).toMatchObject({ code: 'ERR_SESSION_REVOKED' });
    expect(events.filter(({ level }) => level === 'error')).toEqual([]);
    await waa.close();
  });
});

describe('cookieSecret({ file })', () => {
  it.skipIf(process.platform !== 'linux')('says so of a file that opens and cannot be read', () => {
    const read = () => cookieSecret({ file: '/proc/self/mem' });
    expect(read).toThrow(TypeError);
    expect(read).toThrow(/^the file \/proc\/self\/mem of the secret cannot be read: /);
  });
});

describe('printable()', () => {
  it('escapes what begins a new line in a terminal or moves its cursor', () => {
    expect(printable('a\u2028b\u2029c\u0085d\u001b[2J\u202ee')).toBe(
      'a\\u{2028}b\\u{2029}c\\u{85}d\\u{1b}[2J\\u{202e}e',
    );
  });
});

describe('RedisStore at a server that is no Redis', () => {
  it.each([
    ['-WRONGPASS \u001b[2J\u0007 \nforged line', TypeError],
    ['-ERR \u001b]0;title\u0007 \u2028forged line', Error],
    [`-NOPERM ${'x'.repeat(200_000)}`, TypeError],
  ])('rejects with one line of bounded length, without escape sequences, for the answer %.20j', async (line, kind) => {
    const server = createServer((socket) => {
      socket.on('error', () => {}).on('data', () => socket.write(`${line}\r\n`));
      onTestFinished(() => void socket.destroy());
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const store = new RedisStore({ url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}` });
    const error = await store.get('x').catch((thrown: Error) => thrown);
    await store.close();
    server.close();
    expect(error).toBeInstanceOf(kind);
    const { message } = error as Error;
    expect(message).toMatch(/^Redis cannot be used/);
    expect(message).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
    expect(message.length).toBeLessThan(2000);
  });

  it.each([
    ["-ERR unknown command 'AUTH', with args beginning with: 'user' 'PASSWORD' ", 'correct%20horse'],
    ["-ERR unknown command 'HELLO' with args beginning with: '3' 'AUTH' 'user' 'PASSWORD'", 'correct%20horse'],
    ['-ERR PASSWORD is no password here', 'battery'],
    ['-WRONGPASS for user: PASSWORD', 'staple'],
  ])(
    'shows the password neither in the error nor in its cause or the log, for the answer %j',
    async (line, encoded) => {
      const password = decodeURIComponent(encoded);
      const server = createServer((socket) => {
        socket.on('error', () => {}).on('data', () => socket.write(`${line.replace('PASSWORD', password)}\r\n`));
        onTestFinished(() => void socket.destroy());
      });
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      for (const options of [
        { url: `redis://user:${encoded}@${address}` },
        { url: `redis://${address}`, username: 'user', password },
      ]) {
        const store = new RedisStore(options);
        const error = await store.get('x').catch((thrown: Error) => thrown);
        await store.close();
        expect(error).toBeInstanceOf(Error);
        expect((error as Error).cause).toBeInstanceOf(Error);
        const shown = inspect(error, { depth: null, showHidden: true });
        expect(shown).toContain('Redis cannot be used');
        for (const secret of [password, encoded]) expect(shown).not.toContain(secret);
      }
      server.close();
    },
  );
});
