import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { cookieSecret, newSecret } from '../src/session/secret.js';
import { createWAA } from '../src/waa.js';
import { seededBytes, thrownBy } from './helpers.js';
import { root, runNode } from './processes.js';

const isRoot = process.getuid?.() === 0;
const [ours, group, stranger] = [21_500, 22_000, 23_000];
const [a, b] = ['a', 'b'].map((seed) => seededBytes(seed, 32).toString('hex')) as [string, string];

let base: string;
let folder: string;
let count = 0;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), 'ucam-webauth-mounts-'));
  chmodSync(base, 0o755);
});
afterAll(() => rmSync(base, { recursive: true }));
beforeEach(() => {
  folder = join(base, String(count++));
  mkdirSync(folder);
  vi.stubEnv('UCAM_WEBAUTH_SECRET', undefined);
  return () => vi.unstubAllEnvs();
});

/** Makes a file of root's with a secret. */
function mount(path: string, mode: number, owner = 0, of = 0): string {
  const file = join(folder, path);
  writeFileSync(file, `${a}\n`);
  chownSync(file, owner, of);
  chmodSync(file, mode);
  return file;
}

/** Makes the folders and links of a Kubernetes volume. */
function mountVolume(): string {
  chmodSync(folder, 0o1777);
  mkdirSync(join(folder, '..2026_12_01'));
  mount('..2026_12_01/secret', 0o440, 0, group);
  symlinkSync('..2026_12_01', join(folder, '..data'));
  symlinkSync('..data/secret', join(folder, 'secret'));
  return join(folder, 'secret');
}

const script = `
  const [source, sources, uid, group] = process.argv.slice(1);
  const { cookieSecret } = await import(source);
  if (uid !== undefined) {
    process.setgroups([Number(group)]);
    process.setgid(Number(uid));
    process.setuid(Number(uid));
  }
  try {
    console.log(cookieSecret(JSON.parse(sources)).join());
  } catch (error) {
    console.log(error.name + ': ' + error.message);
  }`;

/** Reads a secret in another process: prints it, or why it is rejected. */
async function read(sources: object, flags: readonly string[] = [], asOther = true): Promise<string> {
  const source = pathToFileURL(join(root, 'dist/session/secret.js')).href;
  const who = asOther ? [String(ours), String(group)] : [];
  const args = [...flags, '--input-type=module', '--eval', script, source, JSON.stringify(sources), ...who];
  const { stdout, stderr } = await runNode(args);
  return stdout.trim() || stderr;
}

describe.runIf(isRoot)('cookieSecret({ file }) of another owner or mode', () => {
  it('takes the links and folders of a Kubernetes volume with sharedMount, which the error without it names', async () => {
    const file = mountVolume();
    expect(await read({ file })).toMatch(
      /^TypeError: .*open to others .*mode 440.*Kubernetes.*cookieSecret\(\{ file, sharedMount: true \}\)/,
    );
    expect(await read({ file, sharedMount: true })).toBe(a);
  });

  it('takes a secret of Docker swarm (root:root 0444) with sharedMount', async () => {
    const file = mount('secret', 0o444);
    expect(await read({ file })).toContain('sharedMount: true');
    expect(await read({ file, sharedMount: true })).toBe(a);
  });

  it('takes a credential of systemd (0400 in a folder 0500 of the service user) without sharedMount', async () => {
    const file = mount('secret', 0o400, ours, ours);
    chownSync(folder, ours, ours);
    chmodSync(folder, 0o500);
    expect(await read({ file })).toBe(a);
  });

  it('takes a file below a sticky folder such as /tmp', async () => {
    chmodSync(folder, 0o1777);
    expect(await read({ file: mount('secret', 0o400, ours, ours) })).toBe(a);
  });

  it.each([
    ['its group may write to it', 0o460, 0, /mode 460\), who can write to it: run chmod go-w/],
    ['all may write to it', 0o446, 0, /mode 446\), who can write to it: run chmod go-w/],
    ['a stranger owns it', 0o444, stranger, /belongs to another user \(23000\): run chown 21500/],
  ])('rejects a file with sharedMount when %s', async (_, mode, owner, message) => {
    expect(await read({ file: mount('secret', mode, owner, group), sharedMount: true })).toMatch(message);
  });

  it.each<[string, (path: string) => void, RegExp]>([
    ['all may write to', (path) => chmodSync(path, 0o777), /other users may write to it \(mode 777\): run chmod go-w/],
    ['another group may write to', (path) => chmodSync(path, 0o775), /other users may write to it \(mode 775\)/],
    ['a stranger owns', (path) => chownSync(path, stranger, 0), /it belongs to another user \(23000\)/],
  ])('rejects a file in a folder that %s, with or without sharedMount', async (_, open, message) => {
    const file = mount('secret', 0o400, ours, ours);
    open(folder);
    for (const sharedMount of [false, true]) {
      const said = await read({ file, sharedMount });
      expect(said).toMatch(/^TypeError: the file .* could be replaced by other users through /);
      expect(said).toMatch(message);
    }
  });

  it.each<[string, (file: string) => void]>([
    ['a link of a stranger', () => lchownSync(join(folder, '..data'), stranger, stranger)],
    ['a folder of a stranger behind a link', () => chownSync(join(folder, '..2026_12_01'), stranger, stranger)],
    ['a folder behind a link that all may write to', () => chmodSync(join(folder, '..2026_12_01'), 0o777)],
    ['a link in a folder without sticky bit', () => chmodSync(folder, 0o777)],
  ])('rejects %s on the way, with sharedMount', async (_, open) => {
    const file = mountVolume();
    open(file);
    expect(await read({ file, sharedMount: true })).toMatch(/^TypeError: .* could be replaced by other users/);
  });
});

describe("cookieSecret({ file }) under Node's permission model", () => {
  const flag = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission';

  it.each<[string, () => string[]]>([
    ['everything', () => ['--allow-fs-read=*']],
    ['the package and the folder of the secret', () => [`--allow-fs-read=${root}/`, `--allow-fs-read=${folder}/`]],
  ])('makes a file with mode 600 when reading %s is permitted', async (_, permitted) => {
    chmodSync(folder, 0o700);
    const file = join(folder, 'secret');
    const flags = [flag, ...permitted(), `--allow-fs-write=${folder}/`];
    const made = await read({ file }, flags, false);
    expect(made).toMatch(/^[0-9a-f]{64}$/);
    expect(readFileSync(file, 'utf8')).toBe(`${made}\n`);
    if (process.getuid !== undefined) expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await read({ file }, flags, false)).toBe(made);
  });
});

describe('cookieSecret() of a text', () => {
  it.each([`${a},${b}`, `${a}, ${b}`, `${a},\n${b}\n`, `${a}\r\n${b}`])('splits %j', (text) => {
    expect(cookieSecret({ value: text })).toEqual([a, b]);
  });

  it('splits the variable at commas, and names the wrong one', () => {
    vi.stubEnv('UCAM_WEBAUTH_SECRET', `${b},${a}`);
    expect(cookieSecret()).toEqual([b, a]);
    vi.stubEnv('UCAM_WEBAUTH_SECRET', `${b},${a.slice(1)}`);
    expect(() => cookieSecret()).toThrow(/^line 2 of the environment variable UCAM_WEBAUTH_SECRET is no secret/);
  });
});

describe('createWAA({ secret })', () => {
  it.each([`${a}\n`, ` ${a}`, `${a}\r\n`, `${a},${b}`, `${a}\n${b}\n`])('names cookieSecret() for %j', (secret) => {
    const error = thrownBy(() => createWAA({ baseUrl: 'http://localhost:3000', secret })) as TypeError;
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toMatch(/^the option secret has white space .*secret: cookieSecret\(\)/);
    expect(error.message).not.toContain(a);
  });

  const weak: [string, string][] = [
    ['zeros', '0'.repeat(64)],
    ['one byte', 'aB'.repeat(32)],
    ['0xff in hex of a Buffer', Buffer.alloc(32, 0xff).toString('hex')],
    ['a word, repeated', Buffer.from('changeme'.repeat(4)).toString('hex')],
    ['the hex digits, repeated', '0123456789abcdef'.repeat(4)],
    ['three digits, repeated', 'abc'.repeat(22).slice(0, 64)],
    ['a number', '1'.padStart(64, '0')],
  ];

  it.each(weak)('rejects %s in production, alone or in a list', (_, secret) => {
    vi.stubEnv('NODE_ENV', 'production');
    for (const one of [secret, [a, secret]]) {
      const create = () => createWAA({ baseUrl: 'https://example.org', secret: one });
      expect(create).toThrow(TypeError);
      expect(create).toThrow(/^secret \d of \d is not random, since it repeats a few bytes.*openssl rand -hex 32/);
    }
    expect(() => cookieSecret({ value: `${a}\n${secret}` })).toThrow(/^secret 2 of 2 is not random/);
  });

  it('takes what a random generator makes', () => {
    vi.stubEnv('NODE_ENV', 'production');
    for (let i = 0; i < 2000; i++) expect(cookieSecret({ value: newSecret() })).toHaveLength(1);
  });

  it.each(['development', 'test'])('takes any 64 digits with NODE_ENV=%s', (name) => {
    vi.stubEnv('NODE_ENV', name);
    expect(() => createWAA({ baseUrl: 'http://localhost:3000', secret: '0'.repeat(64) })).not.toThrow();
  });
});
