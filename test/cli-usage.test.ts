import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { describeSystemError, readGivenFile } from '../src/cli/system-errors.js';
import { errorTable } from '../src/errors.js';
import { type Result, root, runNode } from './processes.js';

const main = join(root, 'dist/cli/main.js');
const names = ['demo', 'wls', 'keys', 'verify', 'secret', 'store'];
const cancelled = '1!410!!20050317T151628Z!x!http://a.example/!!!!!!!';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-cli-usage-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function cli(...args: string[]): Promise<Result> {
  return runNode([main, ...args], { env: { NODE_ENV: 'development' } });
}

// What a failed test leaves behind ends with the file.
const running = new Set<ChildProcess>();
afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
});

/** Runs the command with standard output or standard error of the test's own. */
function start(args: readonly string[], stdio: ('pipe' | 'ignore' | 'inherit' | number)[]): ChildProcess {
  const child = spawn(process.execPath, [main, ...args], { cwd: root, stdio });
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

describe.concurrent('ucam-webauth: wrong usage', () => {
  it.each<[command: string, args: string[], sentence: string]>([
    ['', [], 'which command? There are: demo, wls, keys, verify, secret, store'],
    ['', ['brew'], 'there is no command brew; there are: demo'],
    ['', ['help', 'brew'], 'there is no command brew'],
    ['wls', ['wls', '--port', '1', '--port', '2'], '--port is given twice'],
    ['verify', ['verify', '--keys', 'a', 'x', '--keys=b'], '--keys is given twice'],
    ['secret', ['secret', 'f', '--add', '--add'], '--add is given twice'],
    ['wls', ['wls', '--port', ''], 'an empty text is not a port'],
    ['wls', ['wls', '--brew'], "Unknown option '--brew'"],
    ['wls', ['wls', '--strict=yes'], "'--strict' does not take an argument"],
    ['verify', ['verify', '--params', '-x'], "'--params' argument is ambiguous. Did you forget"],
    ['verify', ['verify', 'x', '--strict'], 'verify has no option --strict'],
    ['keys', ['keys', '--demo'], 'keys has no option --demo'],
    ['verify', ['verify', cancelled, '--url', ''], '--url is the URL'],
  ])('answers %s %j with a sentence and the line that names the help', async (command, args, sentence) => {
    const { status, stdout, stderr } = await cli(...args);
    expect([status, stdout]).toEqual([64, '']);
    const [first, second, ...rest] = stderr.split('\n');
    expect(first).toContain(`ucam-webauth: `);
    expect(first).toContain(sentence);
    expect(second).toBe(`Run "ucam-webauth ${command && `${command} `}--help" for how to use it.`);
    expect(rest).toEqual(['']);
  });
});

describe.concurrent('ucam-webauth --help', () => {
  it.each(names)('explains %s alone', async (name) => {
    const [option, word] = await Promise.all([cli(name, '--help'), cli('help', name)]);
    expect(option).toEqual(word);
    expect(option).toMatchObject({ status: 0, stderr: '' });
    expect([...option.stdout.matchAll(/^ {2}ucam-webauth (\w+)/gm)].map(([, found]) => found)).toEqual([name]);
  });

  it('states every exit status of the table of errors', async () => {
    const { stdout } = await cli('help');
    const statement = stdout.slice(stdout.indexOf('Exit status:'));
    // A command of this program authorizes no user, so that 6 does not occur.
    const statuses = new Set(
      Object.values(errorTable)
        .map(({ exit }) => exit)
        .filter((exit) => exit !== 6),
    );
    for (const status of [0, 1, 64, ...statuses]) expect(statement).toMatch(new RegExp(`\\b${status} \\w`));
  });
});

describe.concurrent('ucam-webauth: files that cannot be used', () => {
  it.each<[what: string, args: () => string[], sentence: string]>([
    ['a missing key', () => ['wls', '--key', join(folder, 'none')], 'none: no such file or directory. Check the path'],
    ['a folder as key', () => ['wls', '--key', folder], 'it is a directory. Name a file in it'],
    ['a path through a file', () => ['wls', '--key', join(main, 'x')], 'a part of the path is not a directory'],
    ['an empty path', () => ['wls', '--key', ''], 'no such file or directory'],
    ['a public key', () => ['wls', '--key', 'keys/2.pem'], 'keys/2.pem: the key is not a private key in PEM'],
    ['a secret in a path through a file', () => ['secret', join(main, 'x')], 'not a directory'],
    ['a store in a path through a file', () => ['store', 'invalidate', main], 'is no folder of a store'],
    ['a name with control characters', () => ['keys', 'a\u001b[31m'], 'a\\u{1b}[31m: no such file'],
  ])('says in a sentence what is wrong with %s', async (_, args, sentence) => {
    const { status, stdout, stderr } = await cli(...args());
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^ucam-webauth: .+\n$/);
    expect(stderr).toContain(sentence);
    expect(stderr).not.toMatch(/ENO|EISDIR|node:/);
  });

  it.skipIf(process.getuid?.() === 0)('says that permission is denied', async () => {
    const path = join(folder, 'unreadable.pem');
    writeFileSync(path, 'x');
    chmodSync(path, 0);
    const { status, stderr } = await cli('wls', '--key', path);
    expect([status, stderr]).toEqual([1, expect.stringContaining('permission denied')]);
  });
});

describe('describeSystemError()', () => {
  const error = (code: string, more: object) =>
    Object.assign(new Error(`${code}: raw`), { code, syscall: 'open', ...more });

  it.each([
    [error('EACCES', { path: '/x' }), 'cannot use /x: permission denied. Run this as a user who has access'],
    [error('EPERM', { path: '/x' }), 'cannot use /x: permission denied. Run this as a user who has access'],
    [error('EISDIR', {}), 'it is a directory. Name a file in it'],
    [error('EACCES', { syscall: 'listen', port: 80, address: '127.0.0.1' }), /port 80 of 127\.0\.0\.1: .* above 1023$/],
    [error('EADDRINUSE', { syscall: 'listen', port: 99, address: '::1' }), /port 99 of ::1: the port is in use/],
    [error('EODD', { path: '/x' }), 'cannot use /x: EODD: raw'],
  ])('describes %s', (raised, sentence) => {
    expect(describeSystemError(raised)).toMatch(sentence);
  });

  it('leaves other errors alone', () => {
    for (const other of [new Error('x'), new TypeError('y'), 'z', undefined, null]) {
      expect(describeSystemError(other)).toBeUndefined();
    }
  });
});

describe('readGivenFile()', () => {
  it('throws an error that names a directory, which Node does not', () => {
    expect(() => readGivenFile(folder)).toThrow(`cannot use ${folder}: it is a directory`);
    expect(readGivenFile(join(root, 'keys/2.pem'))).toEqual(readFileSync(join(root, 'keys/2.pem')));
  });
});

describe.concurrent('ucam-webauth: standard output that ends early', () => {
  it.each<[args: string[], status: number]>([
    [['help'], 0],
    [['keys'], 0],
    [['verify', cancelled, '--at', 'issue'], 4],
    [['secret'], 0],
  ])('%j exits with its own status and prints no stack', async (args, status) => {
    const child = start(args, ['ignore', 'pipe', 'pipe']);
    child.stdout?.destroy();
    const [stderr, [code, signal]] = await Promise.all([
      text(child.stderr as NodeJS.ReadableStream),
      once(child, 'close'),
    ]);
    expect({ code, signal, stderr }).toEqual({ code: status, signal: null, stderr: '' });
  });

  it('wls goes on and serves', async () => {
    const child = start(['wls', '--port', '0'], ['ignore', 'pipe', 'pipe']);
    const [first] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
    child.stdout?.destroy();
    const [url = ''] = /http:\S+/.exec(`${first}`) ?? [];
    expect((await fetch(url)).status).toBe(200);
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([0, null]);
  });

  it.runIf(existsSync('/dev/full'))('fails with a sentence if the device is full', async () => {
    const full = openSync('/dev/full', 'w');
    const child = start(['secret'], ['ignore', full, 'pipe']);
    closeSync(full);
    const [stderr, [code]] = await Promise.all([text(child.stderr as NodeJS.ReadableStream), once(child, 'close')]);
    expect(stderr).toBe('ucam-webauth: standard output: no space left on the device\n');
    expect(code).toBe(1);
  });
});

describe.concurrent('ucam-webauth wls', () => {
  it('prints its public key as PKCS#1 too, and takes --strict', async () => {
    for (const options of [[], ['--strict']]) {
      const child = start(['wls', '--port', '0', ...options], ['ignore', 'pipe', 'inherit']);
      let printed = '';
      for await (const chunk of child.stdout as NodeJS.ReadableStream) {
        printed += chunk;
        if (printed.includes('END RSA PUBLIC KEY')) break;
      }
      const [address = ''] = /http:\S+authenticate\.html/.exec(printed) ?? [];
      const query = `ver=3&url=${encodeURIComponent('http://a.localhost/')}&skew=1&iact=`;
      const { status } = await fetch(`${address}?${query}`, { redirect: 'manual' });
      expect([options, status]).toEqual([options, options.length === 0 ? 200 : 303]);
      child.kill('SIGTERM');
      await once(child, 'close');
    }
  });
});
