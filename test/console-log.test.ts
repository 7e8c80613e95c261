import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Config } from '../src/config.js';
import { logToConsole } from '../src/console-log.js';
import { createWAA } from '../src/waa.js';
import { root } from './processes.js';
import { clock, wls } from './site.js';

// Production rejects the repetitive secret of the other tests.
const secret = randomBytes(32).toString('hex');

let lines: string[];
beforeEach(() => {
  clock.reset();
  lines = [];
  vi.spyOn(console, 'error').mockImplementation((line) => void lines.push(line));
  for (const name of ['log', 'info', 'warn', 'debug'] as const) {
    vi.spyOn(console, name).mockImplementation(() => expect.unreachable());
  }
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

/** Logs a user in, and is refused once; returns all secrets of it. */
async function logIn(config: Partial<Config> = {}): Promise<string[]> {
  const waa = createWAA({
    baseUrl: 'https://localhost:1',
    secret,
    wls: { ...wls.profile, authUrl: 'https://example.org/auth' },
    now: clock.now,
    ...config,
  });
  const { location, nonce } = waa.startLogin('/private?key=hidden');
  const encoded = wls.respond(location);
  const { cookie = '' } = await waa.finishLogin(encoded, nonce);
  await expect(waa.finishLogin(encoded, nonce)).rejects.toThrow();
  await waa.block('test0002');
  await waa.close();
  return [nonce, encoded, cookie, secret, 'hidden'];
}

describe('createWAA() without the option log', () => {
  it('prints a line for each event on standard error in development, without secrets', async () => {
    vi.stubEnv('NODE_ENV', 'development');
    const secrets = await logIn();
    expect(lines).toEqual([
      '[ucam-webauth] info start: sessions are kept in memory: a restart logs everyone out',
      '[ucam-webauth] info login: somebody logged in (test0001)',
      '[ucam-webauth] warn blocked: a person was blocked (test0002)',
    ]);
    for (const one of secrets) expect(lines.join('\n')).not.toContain(one);
  });

  it.each(['test', 'production', '', undefined])('prints nothing where NODE_ENV is %j', async (environment) => {
    vi.stubEnv('NODE_ENV', environment);
    await logIn();
    expect(lines).toEqual([]);
  });

  it('prints nothing in production that acts as development', async () => {
    vi.stubEnv('NODE_ENV', 'production');
    await logIn({ dangerouslyActAsDevelopment: true });
    expect(lines).toEqual([]);
  });
});

describe('createWAA() with the option log', () => {
  beforeEach(() => vi.stubEnv('NODE_ENV', 'development'));

  it('prints nothing for false', async () => {
    await logIn({ log: false });
    expect(lines).toEqual([]);
  });

  it('gives events to a function, and prints nothing', async () => {
    const log = vi.fn();
    await logIn({ log });
    expect(log).toHaveBeenCalledWith(expect.objectContaining({ event: 'login', principal: 'test0001' }));
    expect(lines).toEqual([]);
  });

  it.each([true, 'console', null, {}])('throws a TypeError for %j', (log) => {
    const config = { baseUrl: 'https://localhost:1', log } as unknown as Config;
    expect(() => createWAA(config)).toThrow(/^the option log is a function, or false; here it is/);
  });
});

describe('logToConsole()', () => {
  const event = { time: new Date(0), level: 'warn', event: 'refused', message: 'a message' } as const;

  it('names code and principal', () => {
    logToConsole({ ...event, code: 'ERR_PTAGS_REFUSED', principal: 'abc12', sessionId: 'x' });
    expect(lines).toEqual(['[ucam-webauth] warn refused: a message (ERR_PTAGS_REFUSED, abc12)']);
  });

  it.each(['\n', '\r', '\u001b', '\u009b', '\u2028', '\u202e', '\0'])('escapes the character %j', (character) => {
    logToConsole({ ...event, message: `a${character}b` });
    expect(lines).toEqual([`[ucam-webauth] warn refused: a\\u{${character.charCodeAt(0).toString(16)}}b`]);
  });

  it('leaves debug events out', () => {
    logToConsole({ ...event, level: 'debug' });
    expect(lines).toEqual([]);
  });
});

describe('environment variables of examples and documents', () => {
  const files = ['examples', 'docs', '.'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: folder === 'examples', encoding: 'utf8' })
      .filter((name) => /\.(?:md|[jt]s|mjs|html)$/.test(name))
      .map((name) => join(folder, name)),
  );

  it.each(files)('are none that Vite sets: %s', (file) => {
    const text = readFileSync(join(root, file), 'utf8');
    expect(text).not.toMatch(/\bBASE_URL\b|\benv(?:\.|\[')(?:MODE|DEV|PROD|SSR)\b/);
  });
});
