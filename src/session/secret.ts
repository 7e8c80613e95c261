import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { isDevelopment, readVariable } from '../environment.js';
import { checkOptions, flag, isText, type Rules } from '../options.js';
import { findUnsafeParent, isTrusted, quote } from './safe-path.js';

/** Where the secret may come from. The first of these that is there counts, and no other is looked at. */
export interface SecretSources {
  /** The secret itself: a text, or a list of texts. Undefined, it is not there. */
  readonly value?: string | readonly string[] | undefined;
  /** The name of an environment variable: `UCAM_WEBAUTH_SECRET` by default. Set but empty, it is refused. */
  readonly env?: string | undefined;
  /** Path of a file that no other user can read. A missing one is made, with a new secret in it. */
  readonly file?: string | undefined;
  /**
   * Whether other users may read the file, as they can where Kubernetes, Docker or systemd mounts it. In any case only root
   * or the user of this process may own it and write to it. False by default.
   */
  readonly sharedMount?: boolean | undefined;
}

/**
 * The secret of an application, for `createWAA`: 32 random bytes as 64 hex digits. There may be several, one a line: the
 * first seals, all open.
 * @throws TypeError, with what to do and never with the secret, if there is none or it cannot be used safely.
 */
export function cookieSecret(sources: SecretSources = {}): readonly string[] {
  checkOptions('cookieSecret', sources, rules);
  const secrets = findSecrets(sources);
  if (!isDevelopment()) checkStrength(secrets);
  return secrets;
}

function findSecrets(sources: SecretSources): readonly string[] {
  const { value, env = 'UCAM_WEBAUTH_SECRET', file, sharedMount = false } = sources;
  if (isText(value)) return checkSecrets(itemsOf(value), 'the option value');
  if (value !== undefined) return checkSecrets(value, 'the option value', 'item');
  const variable = readVariable(env);
  // An empty one is what a failed command leaves: going on to another secret would hide that.
  if (variable !== undefined) return checkSecrets(itemsOf(variable), `the environment variable ${env}`);
  if (file !== undefined) return readOrCreate(resolve(file), sharedMount);
  throw new TypeError(
    `there is no secret: give cookieSecret its value, set the environment variable ${env}, or name a file, which is made if it is missing. A secret ${needsSecret}`,
  );
}

export function isSecret(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/i.test(value);
}

export const needsSecret = 'is 32 random bytes as 64 hex digits (make one with: openssl rand -hex 32)';

/** Most distinct bytes of a secret that is rejected. Fewer than one in 2^110 of random secrets have so few. */
const MOST_ALIKE = 8;

/** @throws TypeError for zeros, or another short pattern that is repeated: no random generator has made it. */
export function checkStrength(secrets: readonly string[]): void {
  const weak = secrets.findIndex((secret) => new Set(Buffer.from(secret, 'hex')).size <= MOST_ALIKE);
  if (weak < 0) return;
  throw new TypeError(
    `secret ${weak + 1} of ${secrets.length} is not random, since it repeats a few bytes, such as zeros: a secret ${needsSecret}`,
  );
}

/** Whether a text would be secrets but for white space, or for several of them in one text. */
export function isUnsplit(value: unknown): boolean {
  if (typeof value !== 'string' || value.trim() === '' || /^[0-9a-f]{64}$/i.test(value)) return false;
  return itemsOf(value.trim()).every(isSecret);
}

export function newSecret(): string {
  return randomBytes(32).toString('hex');
}

/**
 * Reads a file of secrets.
 *
 * @param shared whether other users may read the file.
 * @returns the secrets and the mode of the file; undefined if it is missing.
 */
export function readSecretFile(
  path: string,
  shared = false,
): { readonly secrets: readonly string[]; readonly mode: number } | undefined {
  const opened = openIfThere(path);
  if (opened === undefined) return undefined;
  try {
    // Judged and read by one descriptor: a name can come to mean another file in between.
    const stats = fstatSync(opened);
    checkFile(path, stats, shared);
    const secrets = checkSecrets(linesOf(readText(opened, path)), `the file ${path}`);
    return { secrets, mode: stats.mode & 0o777 };
  } finally {
    closeSync(opened);
  }
}

/** @throws TypeError for a file that cannot be read though it can be opened, such as some of /proc. */
function readText(opened: number, path: string): string {
  try {
    return readFileSync(opened, 'utf8');
  } catch (error) {
    const { message } = error as Error;
    throw new TypeError(
      `the file ${path} of the secret cannot be read: ${message}. Give the path of a file with the secret`,
      {
        cause: error,
      },
    );
  }
}

/** Makes a file with a new secret. @returns false if it is there already, perhaps since just now. */
export function createSecretFile(path: string): boolean {
  const unsafe = findUnsafeParent(dirname(path));
  if (unsafe !== undefined) {
    throw new TypeError(
      `the file ${path} of the secret is missing, and it cannot be made safely: other users can change ${unsafe.path}, since ${unsafe.reason}`,
    );
  }
  let temporary: string | undefined;
  try {
    temporary = writeBeside(path, [newSecret()]);
    // Unlike a rename, it replaces nothing; and whoever finds the file finds all of it.
    linkSync(temporary, path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw cannotCreate(path, error);
  } finally {
    if (temporary !== undefined) rmSync(temporary, { force: true });
  }
}

/** Writes secrets to a new file in the same folder, which nobody else can read. @returns its path. */
export function writeBeside(path: string, secrets: readonly string[], mode = 0o600): string {
  const temporary = join(dirname(path), `.secret-${randomBytes(8).toString('hex')}`);
  const opened = openSync(temporary, 'wx', 0o600);
  try {
    writeFileSync(opened, `${secrets.join('\n')}\n`);
    // Whatever the umask took away.
    unlessDenied(
      () => fchmodSync(opened, mode),
      () => chmodSync(temporary, mode),
    );
    unlessDenied(() => fsyncSync(opened));
    return temporary;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(opened);
  }
}

/** Calls what Node's permission model forbids, however much it allows; then does without, or something else. */
function unlessDenied(call: () => void, otherwise = () => {}): void {
  try {
    call();
  } catch (error) {
    if (codeOf(error) !== 'ERR_ACCESS_DENIED') throw error;
    otherwise();
  }
}

const rules: Rules<SecretSources> = {
  value: [
    (value) => isText(value) || (Array.isArray(value) && value.every(isText)),
    'is a text or a list of texts; undefined leaves it out',
  ],
  // Names appear in messages. Nothing as long as a secret is taken for one.
  env: [
    (value) => isText(value) && /^[a-z_]\w{0,62}$/i.test(value),
    'is the name of an environment variable, of at most 63 letters, digits and _',
  ],
  file: [
    (value) => isText(value) && /^[^\0\r\n]+$/.test(value) && !isSecret(value),
    'is the path of a file, and not the secret itself',
  ],
  sharedMount: flag,
};

/** Far more than anybody's. */
const LARGEST = 64 * 1024;

function linesOf(text: string): string[] {
  const lines = text.split(/\r?\n/);
  while (lines.at(-1) === '') lines.pop();
  return lines;
}

/** Splits a text at the ends of lines and at commas, which environment files keep in one line. */
function itemsOf(text: string): string[] {
  return linesOf(text.replaceAll(/,[ \t]*(?:\r?\n)?/g, '\n'));
}

function checkSecrets(given: readonly string[], source: string, each = 'line'): readonly string[] {
  if (given.length === 0) throw new TypeError(`${source} is empty: a secret ${needsSecret}`);
  const wrong = given.findIndex((secret) => !isSecret(secret));
  if (wrong >= 0) throw new TypeError(`${each} ${wrong + 1} of ${source} is no secret: a secret ${needsSecret}`);
  const secrets = given.map((secret) => secret.toLowerCase());
  const again = secrets.findIndex((secret, i) => secrets.indexOf(secret) < i);
  if (again >= 0) throw new TypeError(`${each} ${again + 1} of ${source} is a secret that is there already`);
  return secrets;
}

function readOrCreate(path: string, shared: boolean): readonly string[] {
  const there = readSecretFile(path, shared);
  if (there) return there.secrets;
  createSecretFile(path);
  // Read back in any case: another process may have made it first.
  const made = readSecretFile(path, shared);
  if (made) return made.secrets;
  throw new TypeError(`${path} is a link to a file that does not exist: make that file, or remove the link`);
}

function openIfThere(path: string): number | undefined {
  try {
    // Without waiting for somebody to write, as opening a pipe does.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw new TypeError(`the file ${path} of the secret cannot be opened (${codeOf(error)})`, { cause: error });
  }
}

function checkFile(path: string, stats: Stats, shared: boolean): void {
  if (!stats.isFile()) throw new TypeError(`${path} is no regular file, such as a secret is kept in`);
  if (stats.size > LARGEST)
    throw new TypeError(`the file ${path} is larger than ${LARGEST} bytes: it holds no secrets`);
  const us = process.getuid?.();
  // Windows has neither.
  if (us === undefined) return;
  if (!isTrusted(stats.uid)) {
    throw new TypeError(
      `the file ${path} of the secret belongs to another user (${stats.uid}): run chown ${us} ${quote(path)}`,
    );
  }
  checkMode(path, stats, shared);
  const unsafe = findUnsafeParent(path);
  if (unsafe === undefined) return;
  throw new TypeError(
    `the file ${path} of the secret could be replaced by other users through ${unsafe.path}, since ${unsafe.reason}`,
  );
}

function checkMode(path: string, { mode }: Stats, shared: boolean): void {
  if ((mode & (shared ? 0o022 : 0o077)) === 0) return;
  const open = `the file ${path} of the secret is open to others than its owner (mode ${(mode & 0o777).toString(8)})`;
  if (shared) throw new TypeError(`${open}, who can write to it: run chmod go-w ${quote(path)}`);
  const mounted =
    (mode & 0o022) === 0
      ? 'where Kubernetes, Docker or systemd mounts it, give cookieSecret({ file, sharedMount: true }); elsewhere '
      : '';
  throw new TypeError(`${open}: ${mounted}run chmod 600 ${quote(path)}`);
}

function cannotCreate(path: string, error: unknown): TypeError {
  const folder = dirname(path);
  const missing = codeOf(error) === 'ENOENT';
  const why = missing
    ? `its folder does not exist: run mkdir -p -m 700 ${quote(folder)}`
    : `it cannot be made here (${codeOf(error)}): run (umask 077; openssl rand -hex 32 > ${quote(path)}) as a user who may`;
  return new TypeError(`the file ${path} of the secret is missing, and ${why}`, { cause: error });
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
