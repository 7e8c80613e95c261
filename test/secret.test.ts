import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
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
import { Sealer } from '../src/session/seal.js';
import { cookieSecret, newSecret, type SecretSources } from '../src/session/secret.js';
import { thrownBy } from './helpers.js';
import { type Result, root, runNode } from './processes.js';

const [a, b, c] = ['a1', 'b2', 'c3'].map((pair) => pair.repeat(32)) as [string, string, string];
const isRoot = process.getuid?.() === 0;
const isPosix = process.getuid !== undefined;

let folder: string;
let file: string;
let count = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-secret-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

beforeEach(() => {
  file = join(folder, `secret ${count++}`);
  vi.stubEnv('UCAM_WEBAUTH_SECRET', undefined);
  vi.stubEnv('OTHER', undefined);
  return () => vi.unstubAllEnvs();
});

function write(text: string, mode = 0o600): string {
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

/** The sentence of the refusal, which never holds a secret. */
function refusal(sources: SecretSources): string {
  const error = thrownBy(() => cookieSecret(sources));
  expect(error).toBeInstanceOf(TypeError);
  const { message, cause } = error as TypeError;
  expect(`${message} ${cause}`).not.toMatch(/(?:a1|b2|c3){2}/i);
  return message;
}

describe('the sources', () => {
  it.each<[string, SecretSources, string | undefined, readonly string[]]>([
    ['the value', { value: a }, undefined, [a]],
    ['the variable', {}, a, [a]],
    ['the variable, which counts before the file', { file: '/nowhere/secret' }, a, [a]],
    ['the value, which counts before the variable', { value: b, file: '/nowhere/secret' }, a, [b]],
    ['the variable, where the value is undefined', { value: undefined }, a, [a]],
    ['the value, whatever the variable holds', { value: b }, 'nonsense', [b]],
    ['a list', { value: [b, a] }, undefined, [b, a]],
    ['several lines of the value', { value: `${b}\n${a}` }, undefined, [b, a]],
    ['several lines of the variable', {}, `${b}\r\n${a}\r\n\n\n`, [b, a]],
    ['upper case', { value: [a.toUpperCase(), b] }, undefined, [a, b]],
  ])('give %s', (_, sources, variable, expected) => {
    vi.stubEnv('UCAM_WEBAUTH_SECRET', variable);
    expect(cookieSecret(sources)).toEqual(expected);
  });

  it('are the variable alone where nothing is given', () => {
    vi.stubEnv('UCAM_WEBAUTH_SECRET', a);
    expect(cookieSecret()).toEqual([a]);
  });

  it('give another variable where it is named, and then not the usual one', () => {
    vi.stubEnv('UCAM_WEBAUTH_SECRET', a);
    vi.stubEnv('OTHER', b);
    expect(cookieSecret({ env: 'OTHER' })).toEqual([b]);
    vi.stubEnv('OTHER', undefined);
    expect(refusal({ env: 'OTHER' })).toContain('variable OTHER');
  });

  it('give the file, and touch no file that does not count', () => {
    expect(cookieSecret({ value: a, file })).toEqual([a]);
    vi.stubEnv('UCAM_WEBAUTH_SECRET', a);
    expect(cookieSecret({ file })).toEqual([a]);
    expect(existsSync(file)).toBe(false);
    vi.stubEnv('UCAM_WEBAUTH_SECRET', undefined);
    expect(cookieSecret({ file: write(`${c}\n`) })).toEqual([c]);
  });

  it('that are not there at all are named, all three', () => {
    const sentence = refusal({ value: undefined, file: undefined });
    for (const part of ['its value', 'UCAM_WEBAUTH_SECRET', 'name a file', 'openssl rand -hex 32']) {
      expect(sentence).toContain(part);
    }
  });

  it.each<[SecretSources, string | undefined, RegExp]>([
    [{ value: '' }, undefined, /^the option value is empty: a secret is 32 random bytes as 64 hex digits/],
    [{ value: [] }, undefined, /^the option value is empty/],
    [{ value: '\n\n' }, a, /^the option value is empty/],
    [{ value: `${a}0` }, undefined, /^line 1 of the option value is no secret: .*64 hex digits/],
    [{ value: ` ${a}` }, undefined, /^line 1 of the option value is no secret/],
    [{ value: `${a}\n\n${b}` }, undefined, /^line 2 of the option value is no secret/],
    [{ value: `\n${a}` }, undefined, /^line 1 of the option value is no secret/],
    [{ value: a.replace('a', 'g') }, undefined, /^line 1 of the option value is no secret/],
    [{ value: [a, ''] }, undefined, /^item 2 of the option value is no secret/],
    [{ value: [`${a}\n`] }, undefined, /^item 1 of the option value is no secret/],
    [{ value: [a, b, a.toUpperCase()] }, undefined, /^item 3 of the option value is a secret that is there already$/],
    // What a failed command leaves; the file is not looked at.
    [{ file: '/nowhere/secret' }, '', /^the environment variable UCAM_WEBAUTH_SECRET is empty/],
    [{}, `${a}\n${b.slice(1)}`, /^line 2 of the environment variable UCAM_WEBAUTH_SECRET is no secret/],
    [{}, `${a}\n${a}`, /^line 2 of the environment variable UCAM_WEBAUTH_SECRET is a secret that is there already/],
    // Somebody gave the secret where a name was wanted.
    [{ env: a }, undefined, /^the option env is the name of an environment variable/],
    [{ env: '' }, undefined, /^the option env is the name/],
    [{ file: a }, undefined, /^the option file is the path of a file, and not the secret itself/],
    [{ file: '' }, undefined, /^the option file is the path/],
    [{ file: `${a}\n${b}` }, undefined, /^the option file is the path/],
    [{ value: 7 as unknown as string }, undefined, /^the option value is a text or a list of texts/],
    [{ value: [a, null] as unknown as string[] }, undefined, /^the option value is a text or a list/],
    [{ path: a } as SecretSources, undefined, /^cookieSecret has no option path/],
    [a as unknown as SecretSources, undefined, /^cookieSecret takes an object/],
  ])('%# that cannot be used are refused, without what they hold', (sources, variable, sentence) => {
    vi.stubEnv('UCAM_WEBAUTH_SECRET', variable);
    expect(refusal(sources)).toMatch(sentence);
  });
});

describe('the file', () => {
  it.each<[string, string, RegExp]>([
    ['nothing', '', / is empty: a secret /],
    ['blank lines', '\n\n', / is empty: a secret /],
    ['a word', 'secret\n', /^line 1 of the file .* is no secret/],
    ['too few digits in line 2', `${a}\n${b.slice(2)}\n`, /^line 2 of the file .* is no secret/],
    ['a blank line in between', `${a}\n\n${b}\n`, /^line 2 of the file .* is no secret/],
    ['two in one line', `${a} ${b}\n`, /^line 1 of the file .* is no secret/],
    ['one twice', `${a}\n${b}\n${a}\n`, /^line 3 of the file .* is a secret that is there already/],
    ['too much', `${a}\n`.repeat(1009), / is larger than 65536 bytes/],
  ])('with %s in it is refused', (_, text, sentence) => {
    const message = refusal({ file: write(text) });
    expect(message).toMatch(sentence);
    expect(message).toContain(file);
  });

  it('may hold several, in order, in upper case, with lines as on Windows and blank ones at its end', () => {
    expect(cookieSecret({ file: write(`${b}\r\n${a.toUpperCase()}\r\n\r\n`) })).toEqual([b, a]);
    expect(cookieSecret({ file: write(b) })).toEqual([b]);
  });

  it('is made if it is missing, and stays what it was made', () => {
    const [made, ...more] = cookieSecret({ file });
    expect(made).toMatch(/^[0-9a-f]{64}$/);
    expect(more).toEqual([]);
    expect(readFileSync(file, 'utf8')).toBe(`${made}\n`);
    expect(cookieSecret({ file })).toEqual([made]);
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it.each(['000', '022', '077', '777'])('is made with mode 600, whatever the umask (%s)', async (umask) => {
    const { status, stderr } = await inProcess(`process.umask(0o${umask}); cookieSecret({ file })`);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(statSync(file).mode & 0o777).toBe(isPosix ? 0o600 : 0o666);
  });

  it('is made once, though 20 processes start at once, and all have the same secret', async () => {
    const start = Date.now() + 3_000;
    const wait = `while (Date.now() < ${start});`;
    const script = `${wait} console.log(cookieSecret({ file }).join())`;
    const results = await Promise.all(Array.from({ length: 20 }, () => inProcess(script)));
    expect(results.map(({ stderr }) => stderr).join('')).toBe('');
    expect(new Set(results.map(({ stdout }) => stdout)).size).toBe(1);
    expect(results[0]?.stdout).toBe(readFileSync(file, 'utf8'));
    expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  }, 60_000);

  it.runIf(isPosix)('is refused if anybody else can read or change it, with the command that helps', () => {
    write(`${a}\n`);
    for (const mode of [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777]) {
      chmodSync(file, mode);
      expect(refusal({ file })).toMatch(
        new RegExp(`open to others .*mode ${mode.toString(8)}.* run chmod 600 '${file}'$`),
      );
    }
    for (const mode of [0o600, 0o400, 0o700]) {
      chmodSync(file, mode);
      expect(cookieSecret({ file })).toEqual([a]);
    }
  });

  it.runIf(isPosix)('is named so that the command can be copied, whatever its name', () => {
    file = join(folder, "it's $(here)");
    write(`${a}\n`, 0o644);
    const [, command] = /run (chmod .*)$/.exec(refusal({ file })) ?? [];
    expect(spawnSync('sh', ['-c', command as string]).status).toBe(0);
    expect(cookieSecret({ file })).toEqual([a]);
  });

  it.runIf(isRoot)('is refused if another user owns it (only the superuser can give it away to test that)', () => {
    chownSync(write(`${a}\n`), 65534, 65534);
    expect(refusal({ file })).toMatch(/belongs to another user \(65534\): run chown 0 '/);
  });

  it('is refused if its folder is missing', () => {
    const path = join(folder, 'none', 'secret');
    expect(refusal({ file: path })).toBe(
      `the file ${path} of the secret is missing, and its folder does not exist: run mkdir -p -m 700 ${join(folder, 'none')}`,
    );
    expect(refusal({ file: join(write(a), 'secret') })).toMatch(/cannot be opened \(ENOTDIR\)/);
  });

  it.runIf(isPosix && !isRoot)('is refused if it may not be made or read (the superuser may always)', () => {
    const closed = join(folder, 'closed');
    mkdirSync(closed, 0o500);
    expect(refusal({ file: join(closed, 'secret') })).toMatch(/cannot be made here \(EACCES\)/);
    expect(refusal({ file: write(a, 0o000) })).toMatch(/cannot be opened \(EACCES\)/);
  });

  it.runIf(isPosix)('may be reached by a link, and what that leads to is judged', () => {
    const target = write(`${a}\n`);
    const link = `${target} link`;
    symlinkSync(target, link);
    expect(cookieSecret({ file: link })).toEqual([a]);
    chmodSync(target, 0o644);
    expect(refusal({ file: link })).toMatch(/run chmod 600 /);
    rmSync(target);
    expect(refusal({ file: link })).toMatch(/is a link to a file that does not exist/);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
  });

  it.runIf(isPosix)('is refused, without waiting, if it is no file', () => {
    expect(spawnSync('sh', ['-c', 'mkfifo -m 600 "$1"', 'sh', file]).status).toBe(0);
    expect(refusal({ file })).toMatch(/ is no regular file/);
    expect(refusal({ file: folder })).toMatch(/ is no regular file/);
    expect(refusal({ file: '/dev/zero' })).toMatch(/ is no regular file/);
  });

  async function inProcess(script: string): Promise<Result> {
    const source = pathToFileURL(join(root, 'dist/session/secret.js')).href;
    const given = `import { cookieSecret } from ${JSON.stringify(source)}; const file = ${JSON.stringify(file)};`;
    return runNode(['--input-type=module', '--eval', `${given} ${script}`]);
  }
});

describe('several secrets', () => {
  const sealer = (secrets: readonly string[]) =>
    new Sealer(
      secrets.map((secret) => Buffer.from(secret, 'hex')),
      'test',
    );

  it('all open, and the first seals', () => {
    const [old, fresh] = [newSecret(), newSecret()];
    const sealedBefore = sealer([old]).seal('before');
    const added = sealer(cookieSecret({ file: write(`${old}\n${fresh}\n`) }));
    const promoted = sealer(cookieSecret({ file: write(`${fresh}\n${old}\n`) }));
    const dropped = sealer(cookieSecret({ file: write(`${fresh}\n`) }));
    expect(added.open(sealedBefore)).toEqual({ text: 'before' });
    expect(sealer([old]).open(added.seal('on'))).toEqual({ text: 'on' });
    expect(promoted.open(sealedBefore)).toEqual({ text: 'before' });
    const sealedAfter = promoted.seal('after');
    for (const one of [added, promoted, dropped]) expect(one.open(sealedAfter)).toEqual({ text: 'after' });
    expect(sealer([old]).open(sealedAfter)).toBe('unknown');
    expect(dropped.open(sealedBefore)).toBe('unknown');
  });
});
