import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
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
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeCertificate } from '../src/cli/certificate.js';
import { formatDate } from '../src/codec.js';
import { raven, ravenDemo } from '../src/profiles.js';
import { makeFailure, makeResponse, sign, wlsKey, wlsKid } from './helpers.js';
import { Browser, certificateOf, Program, type Result, type RunOptions, root, runNode } from './processes.js';

const main = join(root, 'dist/cli/main.js');
const vectors = JSON.parse(readFileSync(join(root, 'test/vectors/real-responses.json'), 'utf8'));
const [failed, succeeded, cancelled] = vectors.map(({ response }: { response: string }) => response) as [
  string,
  string,
  string,
];

/** Exit statuses, beside 0. */
const malformed = 2;
const unverified = 3;
const nobody = 4;
const usage = 64;

let folder: string;
let ownKeys: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-cli-'));
  ownKeys = join(folder, 'keys');
  mkdirSync(ownKeys);
  writeFileSync(join(ownKeys, `${wlsKid}.pem`), wlsKey.pem);
  writeFileSync(join(ownKeys, 'README.md'), 'not a key');
});

afterAll(() => rmSync(folder, { recursive: true }));

async function cli(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return runNode([main, ...args], options);
}

async function verify(...args: string[]): Promise<Result> {
  return cli(['verify', ...args]);
}

/** Holds that the command refused with one sentence, and without a place in the code; of wrong usage it names the help. */
function expectSentence({ status, stderr }: Result, expected: number, sentence: RegExp): void {
  expect(stderr).toMatch(sentence);
  const help = expected === usage ? 'Run "ucam-webauth (?:\\w+ )?--help" for how to use it\\.\\n' : '';
  expect(stderr).toMatch(new RegExp(`^ucam-webauth: .+\\n${help}$`));
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(status).toBe(expected);
}

/** The lines that say of a check whether it holds, as `name: verdict`. */
function verdicts(stdout: string): string[] {
  const lines = [...stdout.matchAll(/^(holds|FAILS|not asked) +([\w, ]+):/gm)];
  return lines.map(([, verdict, name]) => `${name}: ${verdict}`);
}

describe.concurrent('the command', () => {
  it('explains itself', async () => {
    const [help, option, version] = await Promise.all([cli(['help']), cli(['-h']), cli(['--version'])]);
    for (const name of ['demo', 'wls', 'keys', 'verify', 'secret'])
      expect(help.stdout).toContain(`  ucam-webauth ${name} `);
    expect(option).toEqual(help);
    expect(help).toMatchObject({ status: 0, stderr: '' });
    const { version: ours } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(version).toEqual({ status: 0, stdout: `${ours}\n`, stderr: '' });
  });

  it.each([
    [[], /which command\?/],
    [['brew'], /there is no command brew/],
    [['toString'], /there is no command toString/],
    [['--brew'], /--brew/],
    [['verify', '--at'], /--at/],
    [['keys', '--port', '1'], /keys has no option --port/],
    [['demo', 'now'], /demo takes nothing beside its options/],
    [['verify', '1!530!Missing', 'required', "parameter 'ver'!"], /verify takes one thing .* quotes/],
    [['keys', '--add'], /keys has no option --add/],
    [['secret', '--add'], /--add changes a file: say which/],
    [['secret', 'file', '--add', '--drop'], /--add and --drop are steps: take one at a time/],
    [['secret', 'one', 'two'], /secret takes one thing/],
    [['wls', '--port', '65536'], /65536 is not a port/],
    [['demo', '--wls-port', 'x'], /x is not a port/],
    [['\u001b[31mred'], /there is no command \\u\{1b\}\[31mred/],
  ])('refuses %j as wrong usage, and names the help', async (args, sentence) => {
    const result = await cli(args, { env: { NODE_ENV: 'development' } });
    expectSentence(result, usage, sentence);
    expect(result.stdout).toBe('');
  });
});

describe.concurrent('ucam-webauth keys', () => {
  it('prints the fingerprints of the keys that come with the package, and how to check them', async () => {
    const { status, stdout } = await cli(['keys']);
    expect(status).toBe(0);
    expect(stdout.match(/\b[0-9a-f]{64}\b/g)).toEqual([raven.keys.fingerprint('2'), ravenDemo.keys.fingerprint('901')]);
    expect(stdout).toContain('never for production');
    expect(stdout).toContain('openssl dgst -sha256');
  });

  it('prints those of a folder', async () => {
    const { status, stdout } = await cli(['keys', ownKeys]);
    expect(status).toBe(0);
    expect(stdout).toContain(`kid ${wlsKid}, RSA 1024 bits`);
    expect(stdout.match(/\b[0-9a-f]{64}\b/g)).toHaveLength(1);
  });

  it('says in a sentence what is wrong with a folder', async () => {
    expectSentence(await cli(['keys', folder]), 1, /there is no key in .*: a key's file is named <kid>\.pem/);
    expectSentence(await cli(['keys', join(folder, 'missing')]), 1, /no such file or directory/);
  });
});

describe.concurrent('ucam-webauth verify', () => {
  it('finds that the genuine failure of 2005 holds, as of when it was made', async () => {
    const { status, stdout, stderr } = await verify(failed, '--at', 'issue');
    expect({ status, stderr }).toEqual({ status: nobody, stderr: '' });
    expect(stdout).toContain("msg       Missing required parameter 'ver'");
    expect(stdout).toContain('ERR_WLS_REQUEST');
    expect(stdout).toContain(`key 2, Raven's own\n  ${raven.keys.fingerprint('2')}`);
    expect(verdicts(stdout)).toEqual([
      'form: holds',
      'version: not asked',
      'kid: holds',
      'url: not asked',
      'params: not asked',
      'issue: holds',
      'sig: holds',
      'status: FAILS',
    ]);
  });

  it('finds that the genuine success of 2013 holds, and warns of its key', async () => {
    const { status, stdout } = await verify(succeeded, '--at', 'issue', '--demo');
    expect(status).toBe(0);
    expect(verdicts(stdout).filter((line) => line.endsWith('FAILS'))).toEqual([]);
    expect(stdout).toContain('principal test0001');
    expect(stdout).toMatch(/key 901, .*ITS PRIVATE HALF IS PUBLISHED/);
  });

  it('finds that the genuine cancellation of 2013 holds', async () => {
    const { status, stdout } = await verify(cancelled, '--at', 'issue');
    expect(status).toBe(nobody);
    expect(stdout).toContain('ERR_WLS_CANCELLED');
    expect(stdout).toContain('ITS PRIVATE HALF IS PUBLISHED');
  });

  it('finds all three too old today', async () => {
    for (const { status, stdout } of await Promise.all([failed, succeeded, cancelled].map((text) => verify(text)))) {
      expect(status).toBe(unverified);
      expect(verdicts(stdout)).toContain('issue: FAILS');
      expect(verdicts(stdout)).toContain('sig: holds');
      expect(stdout).toContain('ERR_ISSUE_STALE');
    }
  });

  it('does not say of an unsigned failure that somebody signed it', async () => {
    const { status, stdout } = await verify('1!410!!20050317T151628Z!x!http://a.example/!!!!!!!', '--at', 'issue');
    expect(status).toBe(4);
    expect(stdout).toContain('sig: it is not signed, so anybody can have written it');
    expect(stdout).toContain('kid: it names no key');
    expect(verdicts(stdout)).not.toContain('sig: holds');
    expect(verdicts(stdout)).not.toContain('kid: holds');
    expect(verdicts(stdout)).not.toContain('iact, aauth: holds');
  });

  it('finds a changed one forged', async () => {
    const { status, stdout } = await verify(succeeded.replace('test0001', 'test0002'), '--at', 'issue');
    expect(status).toBe(unverified);
    expect(verdicts(stdout)).toContain('sig: FAILS');
    expect(stdout).toContain('ERR_SIGNATURE_INVALID');
  });

  const address = 'https://demo.raven.cam.ac.uk/nonexistant';
  it.each([
    ['the instant, 30 s later', ['--at', '20130704T122443Z'], 0, 'issue: holds'],
    ['the instant, 31 s later', ['--at', '20130704T122444Z'], unverified, 'issue: FAILS'],
    ['the instant, 5 s earlier', ['--at', '20130704T122408Z'], 0, 'issue: holds'],
    ['the instant, 6 s earlier', ['--at', '20130704T122407Z'], unverified, 'issue: FAILS'],
    ['the address', ['--at', 'issue', '--url', address], 0, 'url: holds'],
    ['another address', ['--at', 'issue', '--url', `${address}/`], unverified, 'url: FAILS'],
    ['no params', ['--at', 'issue', '--params', ''], 0, 'params: holds'],
    ['other params', ['--at', 'issue', '--params', 'token'], unverified, 'params: FAILS'],
    ['the version', ['--at', 'issue', '--ver', '3'], 0, 'version: holds'],
    ['another version', ['--at', 'issue', '--ver', '2'], malformed, 'version: FAILS'],
    ['no interaction', ['--at', 'issue', '--iact', 'no'], 0, 'iact, aauth: holds'],
    ['interaction', ['--at', 'issue', '--iact', 'yes'], unverified, 'iact, aauth: FAILS'],
    ['an authentication type', ['--at', 'issue', '--aauth', 'x509,pwd'], 0, 'iact, aauth: holds'],
    ['another one', ['--at', 'issue', '--aauth', 'x509'], unverified, 'iact, aauth: FAILS'],
  ])('holds a response to %s', async (_, options, expected, verdict) => {
    const { status, stdout } = await verify(succeeded, '--demo', ...options);
    expect(verdicts(stdout)).toContain(verdict);
    expect(status).toBe(expected);
  });

  it.each([
    [['--at', 'yesterday'], /--at is a date/],
    [['--at', '20130704T122413'], /--at is a date/],
    [['--ver', '4'], /--ver is 1, 2 or 3/],
    [['--iact', 'maybe'], /--iact is yes or no/],
  ])('refuses %j as wrong usage', async (options, sentence) => {
    expectSentence(await verify(succeeded, ...options), usage, sentence);
  });

  it('takes a response in whatever shape people have it', async () => {
    const encoded = `WLS-Response=${encodeURIComponent(succeeded)}`;
    const shapes = [
      succeeded,
      `${address}?${encoded}`,
      `${address}?a=b&${encoded}&c=d#top`,
      `?${encoded}`,
      `a=b&${encoded}`,
      encoded,
    ];
    const expected = await verify(succeeded, '--at', 'issue');
    const given = shapes.slice(1, 3).map((shape) => verify(shape, '--at', 'issue'));
    const piped = shapes.map((shape, i) =>
      cli(['verify', '--at', 'issue'], { input: shape + ['', '\n', '\r\n'][i % 3] }),
    );
    // The first line says which shape it is.
    const rest = ({ stdout, ...result }: Result) => ({ ...result, stdout: stdout.replace(/^Input: .*\n/, '') });
    for (const result of await Promise.all([...given, ...piped])) expect(rest(result)).toEqual(rest(expected));
  });

  it.each([
    ['nothing', '', /./],
    ['a word', 'hello', /there is no login response in the input/],
    ['another version', '4!200!!', /the version of the response/],
    ['too few fields', '3!200!!', /version 3 has 14 fields, and this response 4/],
    ['a broken signature', succeeded.replace(/_$/, '='), /sig is not canonical base64/],
    ['one that is there twice', `?WLS-Response=${failed}&WLS-Response=${failed}`, /WLS-Response more than once/],
    ['a broken escape', '?WLS-Response=%zz', /broken percent-encoding/],
    ['one that is too long', `${succeeded}${'A'.repeat(10_000)}`, /longer than 8192 characters/],
    ['one that is far too long', 'A'.repeat(10_000_000), /longer than 8192 characters/],
    ['a whole address of that length', `?WLS-Response=${'%41'.repeat(100_000)}`, /longer than 8192 characters/],
  ])('says of %s that it is malformed', async (_, input, sentence) => {
    const result = await cli(['verify', '--at', 'issue'], { input });
    expectSentence(result, malformed, sentence);
    expect(result.stdout).toBe('');
  });

  it('takes keys of a folder, and then no others', async () => {
    const own = sign(makeResponse());
    const at = ['--at', formatDate(makeResponse().issue)];
    const { status, stdout } = await verify(own, ...at, '--keys', ownKeys);
    expect(status).toBe(0);
    expect(stdout).toContain(`key ${wlsKid}, as configured`);
    expect(stdout).not.toContain('PUBLISHED');
    const [unknown, others] = await Promise.all([
      verify(own, ...at),
      verify(succeeded, '--at', 'issue', '--keys', ownKeys),
    ]);
    for (const result of [unknown, others]) {
      expect(result.status).toBe(unverified);
      expect(result.stdout).toContain('ERR_KEY_UNKNOWN');
    }
  });

  it('shows control characters, and does not send them to the terminal', async () => {
    const nasty = '\u001b]0;title\u0007\u001b[2J\r\n\u0000\u0085\u009b31m\u200b\u202e<b>';
    const input = sign(makeFailure({ msg: nasty, id: nasty, url: nasty, params: nasty }));
    const { status, stdout, stderr } = await cli(
      ['verify', '--at', 'issue', '--keys', ownKeys, '--url', nasty.replaceAll('\u0000', '')],
      { input },
    );
    expect(status).toBe(unverified);
    expect(stdout).toContain(
      'msg       \\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{d}\\u{a}\\u{0}\\u{85}\\u{9b}31m\\u{200b}\\u{202e}<b>',
    );
    expect(stdout + stderr).not.toMatch(/[^\P{C}\n]/u);
    const refused = await cli(['verify'], { input: input.replace('3!410', `${nasty}!410`) });
    expect(refused.status).toBe(malformed);
    expect(refused.stdout + refused.stderr).not.toMatch(/[^\P{C}\n]/u);
  });
});

describe('ucam-webauth secret', () => {
  let file: string;
  let count = 0;
  beforeEach(() => {
    file = join(folder, `secret-${count++}`);
  });
  const step = (...options: string[]) => cli(['secret', file, ...options]);
  const held = () => readFileSync(file, 'utf8').trimEnd().split('\n');
  /** What it says of each secret: a name, and what it does. */
  const said = ({ stdout }: Result) =>
    [...stdout.matchAll(/^ {2}\d+ {2}([0-9a-f]{8}) {2}(.*)$/gm)].map(([, id, does]) => [id, does]);
  const isRoot = process.getuid?.() === 0;

  it('prints a new secret each time, and nothing else', async () => {
    const [one, two] = await Promise.all([cli(['secret']), cli(['secret'])]);
    expect(one).toMatchObject({ status: 0, stderr: '' });
    expect(one.stdout).toMatch(/^[0-9a-f]{64}\n$/);
    expect(two.stdout).not.toBe(one.stdout);
  });

  it('makes a file once, and never prints what is in it', async () => {
    const first = await step();
    expect(first).toMatchObject({ status: 0, stderr: '' });
    expect(first.stdout).toContain('Made, for its owner alone');
    expect(held()).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)]);
    const again = await step();
    expect(again.stdout).not.toContain('Made');
    expect(said(again)).toEqual(said(first));
    expect(said(first)).toEqual([[expect.any(String), 'seals and opens']]);
    for (const { stdout } of [first, again]) expect(stdout).not.toMatch(/[0-9a-f]{16}/);
    expect(held()[0]).not.toContain(said(first)[0]?.[0]);
  });

  it('rotates in three steps, and says after each what to do', async () => {
    const [[old] = []] = said(await step());
    const [before] = held();
    const added = await step('--add');
    const [[, fresh] = []] = [said(added).map(([id]) => id)];
    expect(said(added)).toEqual([
      [old, 'seals and opens'],
      [fresh, 'opens'],
    ]);
    expect(added.stdout).toMatch(/Copy the file to all machines, and restart .* go on with --promote/s);
    const [kept, after] = held();
    expect(kept).toBe(before);

    const promoted = await step('--promote');
    expect(said(promoted)).toEqual([
      [fresh, 'seals and opens'],
      [old, 'opens'],
    ]);
    expect(promoted.stdout).toMatch(/Copy the file to all machines, and restart .* go on with --drop/s);
    expect(held()).toEqual([after, before]);

    const dropped = await step('--drop');
    expect(said(dropped)).toEqual([[fresh, 'seals and opens']]);
    expect(dropped.stdout).toMatch(/Copy the file to all machines, and restart/);
    expect(held()).toEqual([after]);
    for (const { stdout } of [added, promoted, dropped]) expect(stdout).not.toMatch(/[0-9a-f]{16}/);
  });

  it('neither drops nor promotes the only secret, and changes no file that is missing', async () => {
    expectSentence(await step('--add'), 1, /there is no file .*: without an option this command makes one/);
    await step();
    const before = held();
    for (const option of ['--drop', '--promote'])
      expectSentence(await step(option), 1, /one secret only: begin with --add/);
    expect(held()).toEqual(before);
  });

  it('keeps the mode, and the link by which the file is reached', async () => {
    await step();
    chmodSync(file, 0o400);
    const link = `${file}-link`;
    symlinkSync(file, link);
    expect((await cli(['secret', link, '--add'])).status).toBe(0);
    expect(held()).toHaveLength(2);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    if (process.getuid) expect(statSync(file).mode & 0o777).toBe(0o400);
  });

  it.runIf(isRoot)('changes nothing as root where another user could lead it elsewhere meanwhile', async () => {
    await step();
    chownSync(file, 65534, 65534);
    expectSentence(await step('--add'), 1, /belongs to another user \(65534\): run chown/);
    chownSync(file, 0, 0);
    for (const [uid, mode] of [
      [65534, 0o700],
      [0, 0o777],
    ] as const) {
      chownSync(folder, uid, 0);
      chmodSync(folder, mode);
      for (const each of [[], ['--add']] as const) {
        expectSentence(await step(...each), 1, /can be changed by others than root: run this as the user/);
      }
    }
    chownSync(folder, 0, 0);
    chmodSync(folder, 0o700);
    expect((await step('--add')).status).toBe(0);
  });

  it('loses no step of several at once: each is taken, or refused with a sentence', async () => {
    await step();
    const results = await Promise.all(Array.from({ length: 10 }, () => step('--add')));
    const taken = results.filter(({ status }) => status === 0);
    for (const result of results) {
      if (!taken.includes(result)) expectSentence(result, 1, /another process is changing the file.* remove .*\.lock/);
    }
    expect(taken.length).toBeGreaterThan(0);
    expect(held()).toHaveLength(1 + taken.length);
    writeFileSync(`${file}.lock`, '');
    expectSentence(await step('--add'), 1, /another process is changing the file/);
    rmSync(`${file}.lock`);
    expect((await step('--add')).status).toBe(0);
    expect(readdirSync(folder).filter((name) => /^\.|\.lock$/.test(name))).toEqual([]);
  });

  it('refuses what the application would refuse', async () => {
    expectSentence(await cli(['secret', folder]), 1, /is no regular file/);
    expectSentence(await cli(['secret', join(folder, 'none', 'secret')]), 1, /its folder does not exist: run mkdir/);
    writeFileSync(file, 'a1'.repeat(31), { mode: 0o600 });
    const result = await step('--add');
    expectSentence(result, 1, /line 1 of the file .* is no secret/);
    expect(result.stderr).not.toContain('a1a1');
    if (!process.getuid) return;
    chmodSync(file, 0o644);
    expectSentence(await step('--add'), 1, /run chmod 600 /);
  });
});

const servers = [
  ['wls', ['--port', '0'], /development login service is at (http:\S+)/],
  ['demo', ['--port', '0', '--wls-port', '0'], /Open (http:\S+) in a browser/],
] as const;

describe.each(servers)('ucam-webauth %s', (name, ports, address) => {
  it('starts without any configuration, answers on this machine, and stops when it is told to', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const program = new Program([main, name, ...ports]);
      const [, url = ''] = await program.printed(address);
      expect(new URL(url).hostname).toBe('localhost');
      const page = await new Browser().visit(url);
      expect(page.status).toBe(200);
      expect(page.headers['content-security-policy']).toContain("frame-ancestors 'none'");
      expect(await program.stop(signal)).toBe(0);
      expect(program.output).not.toMatch(/error/i);
    }
  });

  it('refuses to start in production, with a sentence', async () => {
    const result = await cli([name, ...ports], { env: { NODE_ENV: 'production' } });
    expectSentence(result, 1, /anybody .*set NODE_ENV=development/);
    expect(result.stdout).toBe('');
  });

  it('says that a port is in use, and ends', async () => {
    const taken = createServer();
    await new Promise<void>((open) => taken.listen(0, '127.0.0.1', open));
    const { port } = taken.address() as { port: number };
    try {
      for (const option of ports.filter((word) => word.startsWith('--'))) {
        const others = ports.map((word, i) => (ports[i - 1] === option ? `${port}` : word));
        expectSentence(await cli([name, ...others]), 1, new RegExp(`port ${port}.* is (?:taken|in use): .*port`));
      }
    } finally {
      await new Promise((closed) => taken.close(closed));
    }
  });
});

describe('ucam-webauth wls', () => {
  it('signs with the key that it is given, and prints the public half', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const file = join(folder, 'private.pem');
    writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    const program = new Program([main, 'wls', '--port', '0', '--key', file]);
    await program.printed(/END PUBLIC KEY/);
    expect(program.output).toContain(publicKey.export({ type: 'spki', format: 'pem' }));
    expect(program.output).not.toContain('PRIVATE');
    expect(await program.stop()).toBe(0);
  });

  it('says in a sentence what is wrong with a key', async () => {
    expectSentence(await cli(['wls', '--key', join(folder, 'none.pem')]), 1, /no such file/);
    expectSentence(await cli(['wls', '--key', join(ownKeys, `${wlsKid}.pem`)]), 1, /key is not .*private/);
  });
});

describe('ucam-webauth demo', () => {
  async function start(): Promise<{ program: Program; url: string; browser: Browser }> {
    const program = new Program([main, 'demo', '--port', '0', '--wls-port', '0']);
    const [, url = ''] = await program.printed(/Open (http:\S+) in a browser/);
    return { program, url, browser: new Browser() };
  }

  it('logs somebody in, and shows what was checked and the socket', async () => {
    const { program, url, browser } = await start();
    const welcome = await browser.visit(url);
    expect(welcome.body).toContain('Nobody is logged in');
    const [, login = ''] = /action="([^"]+)"><p><button class="main">Log in</.exec(welcome.body) ?? [];
    const choices = await browser.visit(new URL(login, url).href);
    expect(choices.body).toContain('This is not Raven');
    expect(new URL(choices.url).host).not.toBe(new URL(url).host);
    const home = await browser.submit(choices.url, { account: 'test0003' });
    expect(home).toMatchObject({ url, status: 200 });
    expect(home.body).toContain('You are test0003');
    for (const check of [
      'form',
      'version',
      'kid',
      'url',
      'params',
      'issue',
      'sig',
      'status',
      'iact, aauth',
      'first use',
    ]) {
      expect(home.body).toContain(`<strong>${check}</strong>`);
    }
    expect(home.body).toContain('<code>test0003</code>');
    expect((await browser.visit(new URL('/members', url).href)).body).toContain('so this page opens');

    const { said, socket } = await browser.connect(
      new URL('/live', url.replace('http', 'ws')).href,
      new URL(url).origin,
    );
    expect(said).toContain('You are test0003');
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    const after = await browser.submit(new URL('/webauth/logout', url).href, {});
    expect(after.body).toContain('You are logged out of this site');
    expect(await closed).toBe(4401);
    expect((await browser.visit(url)).body).toContain('Nobody is logged in');
    expect(await program.stop()).toBe(0);
  });

  it('prints what happens, and no cookie, token or signature', async () => {
    const { program, url, browser } = await start();
    await browser.logIn(new URL('/members', url).href, 'test0401');
    await browser.ask(`${url}webauth/callback?WLS-Response=${encodeURIComponent(succeeded)}`);
    await browser.submit(`${url}webauth/logout`, {});
    await program.printed(/logout/);
    expect(program.output).toMatch(/info +login test0401/);
    expect(program.output).toMatch(/warn +refused ERR_PTAGS_REFUSED/);
    expect(browser.secrets.size).toBeGreaterThan(4);
    const secrets = [...browser.secrets, succeeded, succeeded.split('!').at(-1) as string];
    for (const secret of secrets) expect(program.output).not.toContain(secret.slice(0, 16));
    expect(await program.stop()).toBe(0);
  });

  it('stops although a browser keeps a socket open', async () => {
    const { program, url, browser } = await start();
    await browser.logIn(`${url}any`);
    const { socket } = await browser.connect(`${url.replace('http', 'ws')}live`, new URL(url).origin);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    expect(await program.stop()).toBe(0);
    await closed;
  });

  it('shows a person that another account may not see the page for members', async () => {
    const { url, browser } = await start();
    const refusal = await browser.logIn(new URL('/members', url).href, 'test0402');
    expect(refusal.status).toBe(403);
    expect(refusal.body).toContain('ERR_PTAGS_REFUSED');
  });
});

describe('ucam-webauth demo --https', () => {
  const day = 24 * 3600_000;

  async function start() {
    const program = new Program([main, 'demo', '--https', '--port', '0', '--wls-port', '0']);
    const printed = /Open (https:\S+) in a browser.*SHA-256 fingerprint.* is\s+(\S{95})\s.*will warn you once/s;
    const [, url = '', fingerprint = ''] = await program.printed(printed);
    const certificate = await certificateOf(url);
    return { program, url, fingerprint, certificate, browser: new Browser(certificate.toString()) };
  }

  /** Begins to talk to it without TLS. */
  async function plain(url: string) {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  }

  it('has the certificate whose fingerprint it prints, for this machine and for a week', async () => {
    const { program, fingerprint, certificate } = await start();
    expect(certificate.fingerprint256).toBe(fingerprint);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.subjectAltName?.match(/(?<=DNS:)[^,]+/g)).toEqual(['localhost', '*.localhost']);
    expect(['127.0.0.1', '::1', '127.0.0.2'].map((ip) => certificate.checkIP(ip))).toEqual([
      '127.0.0.1',
      '::1',
      undefined,
    ]);
    const [from, to] = [certificate.validFrom, certificate.validTo].map((at) => Date.parse(at) - Date.now()) as [
      number,
      number,
    ];
    expect([from < -60_000, from > -day, to > 6 * day, to < 8 * day]).toEqual([true, true, true, true]);
    expect([certificate.ca, certificate.keyUsage]).toEqual([false, ['1.3.6.1.5.5.7.3.1']]);
    const other = new X509Certificate(makeCertificate(['localhost']).cert);
    expect(other.serialNumber).not.toBe(certificate.serialNumber);
    expect(other.publicKey.equals(certificate.publicKey)).toBe(false);
    expect(await program.stop()).toBe(0);
    expect(program.output).not.toMatch(/PRIVATE|error/);
  });

  it('logs somebody in with cookies for this host and https alone, and opens a socket on wss', async () => {
    const { url, browser } = await start();
    const choices = await browser.visit(`${url}any`);
    expect(new URL(choices.url).protocol).toBe('http:');
    const back = await browser.post(choices.url, { account: 'test0002' });
    const { headers } = await browser.ask(back.headers.location as string);
    const [session, ...others] = headers['set-cookie'] ?? [];
    expect(session).toMatch(/^__Host-webauth-session=[^;]+; Path=\/;.* HttpOnly; SameSite=Lax; Secure$/);
    expect(others.length).toBeGreaterThan(0);
    for (const line of others) expect(line).toMatch(/^__Host-webauth-\w+=[^;]*; Path=\/;.* Secure$/);

    const home = await browser.visit(url);
    expect(home.body).toContain('You are test0002');
    const { origin, host } = new URL(url);
    expect(home.headers['content-security-policy']).toContain(`connect-src wss://${host}/live;`);
    const { said, socket } = await browser.connect(`wss://${host}/live`, origin);
    expect(said).toContain('You are test0002');
    const closed = new Promise<number>((resolve) => socket.once('close', resolve));
    await browser.submit(`${url}webauth/logout`, {});
    expect(await closed).toBe(4401);
    await expect(browser.connect(`wss://${host}/live`, origin.replace('https', 'http'))).rejects.toThrow('403');
  });

  it('gives whoever speaks http no page, goes on, and stops although somebody says nothing', async () => {
    const { program, url, browser } = await start();
    const speaking = await plain(url);
    speaking.end('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect(await text(speaking)).not.toContain('HTTP/');
    const silent = await plain(url);
    const ended = once(silent, 'close');
    await browser.logIn(`${url}any`);
    const { socket } = await browser.connect(url.replace('https', 'wss').concat('live'), new URL(url).origin);
    const closed = once(socket, 'close');
    expect(await program.stop()).toBe(0);
    await Promise.all([ended, closed]);
  });
});
