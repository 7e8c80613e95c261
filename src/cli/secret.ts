import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, realpathSync, renameSync, rmSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { findUnsafeParent } from '../session/safe-path.js';
import { createSecretFile, newSecret, readSecretFile, writeBeside } from '../session/secret.js';
import { type Call, printable, UsageError } from './usage.js';

/** Prints a new secret; or makes, shows and changes a file of them, and prints none. */
export async function secret({ words: [file], options }: Call): Promise<number> {
  const wanted = (Object.keys(steps) as Step[]).filter((step) => options[step]);
  const [step] = wanted;
  if (wanted.length > 1) throw new UsageError(`--${wanted.join(' and --')} are steps: take one at a time`);
  if (file === undefined) {
    if (step) throw new UsageError(`--${step} changes a file: say which`);
    console.log(newSecret());
    return 0;
  }
  const path = resolve(file);
  checkFolder(path);
  const next = step ? take(step, path) : createSecretFile(path) && made;
  show(path);
  if (next) console.log(`\n${next}`);
  return 0;
}

type Step = 'add' | 'promote' | 'drop';

/** What each step of a rotation makes of the secrets, and what is to be done after it. */
const steps: Readonly<Record<Step, { change(secrets: readonly string[]): string[]; readonly next: string }>> = {
  add: {
    change: (secrets) => [...secrets, newSecret()],
    next: `Added as the last one, which opens and does not seal yet. Copy the file to all machines, and restart the
application on each. Only when all of them have it, go on with --promote.`,
  },
  promote: {
    change: (secrets) => [...atLeastTwo(secrets).slice(-1), ...secrets.slice(0, -1)],
    next: `The last one is the first now. Copy the file to all machines, and restart the application on each. When the
longest session that was begun before that has ended (after maxLife: two hours, unless you set it), go on with --drop.
API tokens will end with it that were not used since, a minute from now at the earliest.`,
  },
  drop: {
    change: (secrets) => atLeastTwo(secrets).slice(0, -1),
    next: `The last one is gone. Copy the file to all machines, and restart the application on each; what the dropped
one sealed does not open any more.`,
  },
};

const made = `Made, for its owner alone to read, who has to be the user that the application runs as. If it
runs on several machines, copy this file to each of them over ssh, with its mode (scp -p).`;

function atLeastTwo(secrets: readonly string[]): readonly string[] {
  if (secrets.length > 1) return secrets;
  throw new Error('there is one secret only: begin with --add');
}

/** Changes the file, unless another process is changing it. @returns what to do next. */
function take(step: Step, path: string): string {
  const { path: real } = read(path);
  return locked(real, () => {
    const { secrets, mode } = read(real);
    const { change, next } = steps[step];
    const temporary = writeBeside(real, change(secrets), mode);
    renameSync(temporary, real);
    return next;
  });
}

function locked<T>(path: string, work: () => T): T {
  const lock = `${path}.lock`;
  try {
    closeSync(openSync(lock, 'wx', 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new Error(`another process is changing the file; if there is none, one was cut short: remove ${lock}`);
  }
  try {
    return work();
  } finally {
    rmSync(lock);
  }
}

function show(path: string): void {
  console.log(printable(path));
  for (const [i, one] of read(path).secrets.entries()) {
    console.log(`  ${i + 1}  ${keyId(one)}  ${i === 0 ? 'seals and opens' : 'opens'}`);
  }
}

/** The file behind any links: it is that one that is replaced. */
function read(path: string) {
  const found = readSecretFile(path);
  if (found) return { ...found, path: realpathSync(path) };
  throw new Error(`there is no file ${path}: without an option this command makes one`);
}

/**
 * Checks, for root, each folder and symbolic link on the way to a file: another user could lead root to files of others.
 * @throws Error if another user can change one.
 */
function checkFolder(path: string): void {
  if (process.getuid?.() !== 0) return;
  const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink();
  const unsafe = findUnsafeParent(dirname(path)) ?? (isLink ? findUnsafeParent(path) : undefined);
  if (unsafe === undefined) return;
  throw new Error(
    `${unsafe.path} can be changed by others than root: run this as the user that the application runs as`,
  );
}

/** A name for a secret, which says nothing of it. */
function keyId(one: string): string {
  return createHash('sha256').update(`ucam-webauth key id ${one}`).digest('hex').slice(0, 8);
}
