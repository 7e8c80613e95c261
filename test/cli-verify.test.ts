import { createPublicKey, X509Certificate } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findResponse } from '../src/cli/response-input.js';
import { formatDate } from '../src/codec.js';
import { ravenDemo } from '../src/profiles.js';
import { makeFailure, makeResponse, sign, wlsKey, wlsKid } from './helpers.js';
import { type Result, root, runNode } from './processes.js';

const main = join(root, 'dist/cli/main.js');
const vectors = JSON.parse(readFileSync(join(root, 'test/vectors/real-responses.json'), 'utf8'));
const [failed, succeeded, cancelled] = vectors.map(({ response }: { response: string }) => response) as [
  string,
  string,
  string,
];
const encoded = encodeURIComponent(succeeded);
// Certificates as the login service published them.
const published = dirname(createRequire(import.meta.url).resolve('passport-raven'));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-cli-verify-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function verify(...args: string[]): Promise<Result> {
  return runNode([main, 'verify', ...args]);
}

const lastLine = ({ stdout }: Result) => stdout.trimEnd().split('\n').at(-1);

describe.concurrent('ucam-webauth verify: the key of the demonstration service', () => {
  it('exits with 3 for a login that it signed, whatever else holds', async () => {
    const result = await verify(succeeded, '--at', 'issue');
    expect(result.status).toBe(3);
    expect(result.stdout).toMatch(/^FAILS {6}demo key: the key must not be .* published$/m);
    expect(result.stdout).toContain('Add --demo');
    expect(lastLine(result)).toBe('Verdict: NOT VALID, because of demo key.');
  });

  it('exits with 3 if a folder holds it under another kid', async () => {
    const keys = join(folder, 'other-kid');
    mkdirSync(keys);
    copyFileSync(join(root, 'keys/901.pem'), join(keys, '901.pem'));
    copyFileSync(join(root, 'keys/901.pem'), join(keys, '77.pem'));
    const result = await verify(succeeded, '--at', 'issue', '--keys', keys);
    expect(result.status).toBe(3);
    expect(lastLine(result)).toBe('Verdict: NOT VALID, because of demo key.');
  });

  it.each([
    ['--demo', ['--demo']],
    ['the file of the key', ['--keys', join(root, 'keys/901.pem')]],
    ['its certificate', ['--keys', join(published, 'pubkey901.crt')]],
    ['a folder with its certificate, and --demo', ['--keys', published, '--demo']],
  ])('exits with 0 if it is named by %s', async (_, options) => {
    const result = await verify(succeeded, '--at', 'issue', ...options);
    expect(result.status).toBe(0);
    expect(lastLine(result)).toBe(
      'Verdict: valid. test0001 logged in. Not checked: version; url; params; iact, aauth.',
    );
    expect(result.stdout).toContain('ITS PRIVATE HALF IS PUBLISHED');
  });

  it('says that its signature on a failure proves nothing', async () => {
    const result = await verify(cancelled, '--at', 'issue');
    expect(result.status).toBe(4);
    expect(result.stdout).toMatch(/^nothing {4}demo key: its private key is published/m);
    expect(lastLine(result)).toContain('Verdict: not signed by a secret key, and no user logged in: 410');
  });
});

describe.concurrent('ucam-webauth verify: the verdict in the last line', () => {
  const own = sign(makeResponse());
  const ownFailure = sign(makeFailure({}));
  let key: string[] = [];
  beforeAll(() => {
    const file = join(folder, `${wlsKid}.pem`);
    writeFileSync(file, wlsKey.pem);
    key = ['--keys', file];
  });

  it('names the user, and nothing more if everything was checked', async () => {
    const { url, params, issue, ver } = makeResponse();
    const asked = ['--url', url, '--params', params, '--ver', `${ver}`, '--aauth', 'pwd', '--at', formatDate(issue)];
    const result = await verify(own, ...key, ...asked);
    expect(result.status).toBe(0);
    expect(lastLine(result)).toBe(`Verdict: valid. ${makeResponse().principal} logged in.`);
  });

  it('names all failed checks, and the exit status is that of the first', async () => {
    const result = await verify(own, ...key, '--url', 'https://b.example/');
    expect(result.status).toBe(3);
    expect(lastLine(result)).toBe('Verdict: NOT VALID, because of url; issue.');
    const version = await verify(own, ...key, '--ver', '1', '--url', 'https://b.example/', '--at', 'issue');
    expect(version.status).toBe(2);
    expect(lastLine(version)).toBe('Verdict: NOT VALID, because of version; url.');
  });

  it('says that no user logged in', async () => {
    const result = await verify(ownFailure, ...key, '--at', 'issue');
    expect(result.status).toBe(4);
    expect(lastLine(result)).toMatch(/^Verdict: valid, and no user logged in: \d{3}, /);
    const unsigned = await verify('1!410!!20050317T151628Z!x!http://a.example/!!!!!!!', '--at', 'issue');
    expect(unsigned.status).toBe(4);
    expect(lastLine(unsigned)).toMatch(/^Verdict: not signed by a secret key, and no user logged in: 410/);
  });

  it.each([
    ['old', '20130704T123105Z', 'FAILS', 'It is 412 s old.'],
    ['old by days', '20130708T122413Z', 'FAILS', 'It is 345600 s (4 days) old.'],
    ['in the future', '20130704T122401Z', 'FAILS', 'It is 12 s in the future.'],
    ['fresh', '20130704T122416Z', 'holds', 'It is 3 s old.'],
  ])('states the condition and the age of a response that is %s', async (_, at, outcome, age) => {
    const { stdout } = await verify(succeeded, '--demo', '--at', at);
    const condition = 'the response must be at most 30 s old, and at most 5 s in the future';
    expect(stdout).toContain(`${outcome.padEnd(9)}  issue: ${condition}\n           ${age}\n`);
  });

  it('states a condition for every check, so that a failure does not contradict it', async () => {
    const { stdout } = await verify(succeeded.replace('test0001', 'test0002'), '--ver', '2', '--iact', 'yes');
    const failures = [...stdout.matchAll(/^FAILS +([\w, ]+): (.*)$/gm)];
    expect(failures.map(([, name]) => name)).toEqual(['version', 'issue', 'sig', 'demo key', 'iact, aauth']);
    for (const [, , sentence] of failures) expect(sentence).toContain(' must ');
  });

  it.each([
    ['', 'the input is empty: give the response as an argument, or on standard input'],
    [' \r\n', 'the input is empty'],
    ['""', 'the input is empty'],
    ['https://a.example/?WLS-Response=', 'the query holds no WLS-Response'],
    ['3!200!!', 'version 3 has 14 fields'],
  ])('is on standard error for the malformed input %j', async (input, sentence) => {
    const piped = await runNode([main, 'verify'], { input });
    expect(piped).toMatchObject({ status: 2, stdout: '' });
    expect(piped.stderr).toMatch(/^ucam-webauth: not a valid response: .*\n$/);
    expect(piped.stderr).toContain(sentence);
    expect(await verify(input)).toEqual(piped);
  });
});

describe('findResponse()', () => {
  const decoded = 'a decoded response';
  const log = `127.0.0.1 - - [04/Jul/2013:12:24:15 +0000] "GET /cb?a=1&WLS-Response=${encoded}&b=2 HTTP/1.1" 303 0 "-" "x"`;
  it.each([
    ['a decoded response', succeeded, decoded],
    ['a decoded response between spaces', `\ufeff  ${succeeded}\r\n`, decoded],
    ['a decoded response with spaces and quotes in it', failed, decoded],
    ['a decoded response in quotes', `"${succeeded}"`, `${decoded}, in quotes`],
    ['a percent-encoded response', encoded, 'a percent-encoded response'],
    ['a percent-encoded response with ! encoded', encoded.replaceAll('!', '%21'), 'a percent-encoded response'],
    [
      'a percent-encoded response with + for spaces',
      encodeURIComponent(failed).replaceAll('%20', '+'),
      'a percent-encoded response',
    ],
    ['an address', `https://a.example/cb?WLS-Response=${encoded}`, 'an address'],
    ['an address in quotes', `'https://a.example/cb?WLS-Response=${encoded}'`, 'an address, in quotes'],
    ['an address in angle brackets', `<https://a.example/cb?WLS-Response=${encoded}>`, 'a line with an address'],
    ['an address with a fragment', `https://a.example/cb?x=1&WLS-Response=${encoded}&y#z`, 'an address'],
    ['a path', `/cb?WLS-Response=${encoded}`, 'a query'],
    ['a query', `WLS-Response=${encoded}`, 'a query'],
    ['a query of the decoded response', `?WLS-Response=${succeeded}`, 'a query'],
    ['a line of an access log', log, 'a line with an address'],
    ['a line that begins with the path', `/cb?WLS-Response=${encoded} 303 12ms`, 'a line with an address'],
    ['a line of JSON', JSON.stringify({ url: `/cb?WLS-Response=${encoded}`, status: 303 }), 'a line with an address'],
    ['a line of HTML', `<a href='https://a.example/?WLS-Response=${encoded}'>x</a>`, 'a line with an address'],
    ['a header', `Location: https://a.example/?WLS-Response=${encoded}`, 'a line with an address'],
    [
      'several lines',
      `HTTP/1.1 303 See Other\r\n${`Location: /?WLS-Response=${encoded}`}\r\n\r\n`,
      'a line with an address',
    ],
    ['a line with a decoded response', `warn rejected ${succeeded} from 127.0.0.1`, 'a line with a decoded response'],
    [
      'a line with an encoded response',
      `response="${encoded}" referrer="https://a.example/"`,
      'a line with a percent-encoded response',
    ],
  ])('finds %s', (_, input, form) => {
    const response = input.includes('Missing') ? failed : succeeded;
    expect(findResponse(input)).toEqual({ encoded: response, form });
  });

  it('decodes a percent-encoded response once', () => {
    const tricky = sign(makeResponse({ params: 'a%21b!%2525' }));
    expect(findResponse(encodeURIComponent(tricky)).encoded).toBe(tricky);
    expect(findResponse(`/?WLS-Response=${encodeURIComponent(tricky)}`).encoded).toBe(tricky);
    expect(findResponse(tricky).encoded).toBe(tricky);
  });

  it('rejects two responses in one address, and gives the first of two lines', () => {
    const pair = `WLS-Response=${encoded}`;
    expect(() => findResponse(`/cb?${pair}&${pair}`)).toThrow('more than once');
    expect(findResponse(`GET /cb?${pair}\nGET /cb?WLS-Response=other`).encoded).toBe(succeeded);
  });

  it.each(['rubbish', 'https://example.cam.ac.uk/webauth/callback', 'WLS-Response=rubbish', 'GET / HTTP/1.1', '3'])(
    'says that there is no login response in %j',
    (input) => {
      expect(() => findResponse(input)).toThrow(
        'there is no login response in the input: a response has 13 or 14 fields',
      );
    },
  );

  it.each([
    'A'.repeat(5_000_000),
    `${'a '.repeat(1_000_000)}WLS-Response=${'!'.repeat(1_000_000)}`,
    `x 3!200!${'!'.repeat(2_000_000)}`,
    `"${'%21'.repeat(1_000_000)}"`,
    `${'a'.repeat(2_000_000)} WLS-Response=%21`,
  ])('takes time in proportion to a long input', (input) => {
    try {
      findResponse(input);
    } catch (error) {
      expect((error as Error).name).toBe('ResponseError');
    }
  });
});

describe.concurrent('ucam-webauth keys and --keys', () => {
  const own = () => [sign(makeResponse()), '--at', formatDate(makeResponse().issue)];
  const place = (name: string, content: string | Buffer) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const pkcs1 = createPublicKey(wlsKey.pem).export({ type: 'pkcs1', format: 'pem' }) as string;

  it('read a certificate that the service published, in PEM and DER', async () => {
    const { raw } = new X509Certificate(readFileSync(join(published, 'pubkey901.crt')));
    mkdirSync(join(folder, 'der'));
    for (const path of [join(published, 'pubkey901.crt'), place('der/pubkey901.crt', raw)]) {
      const { status, stdout } = await runNode([main, 'keys', path]);
      expect(status).toBe(0);
      expect(stdout).toContain(`kid 901, RSA 1024 bits`);
      expect(stdout).toContain(ravenDemo.keys.fingerprint('901'));
      expect((await verify(succeeded, '--at', 'issue', '--keys', path)).status).toBe(0);
    }
  });

  it('read a key as PKCS#1, and one whose name has no kid as that of the response', async () => {
    for (const name of [`pubkey${wlsKid}`, 'key-of-our-service.txt']) {
      const result = await verify(...own(), '--keys', place(name, pkcs1));
      expect(result.stdout).toContain(`key ${wlsKid}, as configured`);
      expect(result.status).toBe(0);
    }
  });

  it('print each key as SubjectPublicKeyInfo and as PKCS#1', async () => {
    const { stdout } = await runNode([main, 'keys', place(`pubkey${wlsKid}.pem`, wlsKey.pem)]);
    expect(stdout).toContain(pkcs1);
    expect(stdout).toContain(wlsKey.pem.trim());
    const bundled = await runNode([main, 'keys']);
    expect(bundled.stdout.match(/BEGIN RSA PUBLIC KEY/g)).toHaveLength(2);
  });

  it('say what is wrong with a path', async () => {
    mkdirSync(join(folder, 'differs'));
    place('differs/9.pem', wlsKey.pem);
    copyFileSync(join(root, 'keys/2.pem'), join(folder, 'differs/pubkey9.crt'));
    mkdirSync(join(folder, 'empty'));
    const cases: [path: string, status: number, sentence: string][] = [
      [join(folder, 'none'), 1, 'none: no such file or directory. Check the path'],
      [join(root, 'package.json', 'x'), 1, 'a part of the path is not a directory'],
      [join(folder, 'empty'), 1, 'there is no key in '],
      [join(folder, 'differs'), 1, 'two files hold different keys of kid 9'],
      [place('3.pem', '<!DOCTYPE html>'), 1, 'key 3 is not a public key or certificate'],
      [place('4.pem', Buffer.from([0x30, 0x82, 0, 1, 0xff])), 1, 'key 4 is not a public key or certificate'],
      ['', 64, 'the path of the keys is empty'],
    ];
    for (const [path, status, sentence] of cases) {
      const results = await Promise.all([runNode([main, 'keys', path]), verify(succeeded, '--keys', path)]);
      for (const result of results) {
        expect(result).toMatchObject({ status, stdout: '' });
        expect(result.stderr).toContain(sentence);
        expect(result.stderr).not.toMatch(/ENOENT|ENOTDIR|^\s+at /m);
      }
    }
  });
});
