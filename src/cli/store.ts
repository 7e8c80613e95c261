import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readVariable } from '../environment.js';
import { type Call, printable, UsageError } from './usage.js';

/** Name of the environment variable that keeps a password out of the list of processes. */
const VARIABLE = 'UCAM_WEBAUTH_STORE';

const done = `All users have to log in again, and API tokens have to be issued anew. Blocks and revocations stay.
Running applications notice within a few seconds; the others when they start.`;

/** Starts a new generation of a store. */
export async function store({ words: [step, given], options: { prefix } }: Call): Promise<number> {
  if (step !== 'invalidate') throw new UsageError('store takes a step: ucam-webauth store invalidate');
  const target = given ?? readVariable(VARIABLE) ?? '';
  if (target === '') throw new UsageError(`give a folder or a Redis URL, or set the environment variable ${VARIABLE}`);
  // The URL may hold a password, so that no message repeats it.
  const isRedis = /^rediss?:/i.test(target);
  if (!isRedis && target.includes('://')) throw new UsageError('the store is neither a folder nor a redis: URL');
  if (!isRedis && prefix !== undefined) throw new UsageError('--prefix is for Redis only');
  const name = isRedis ? await invalidateRedis(target, prefix) : await invalidateFolder(resolve(target));
  console.log(`Started a new generation of ${printable(name)}.\n${done}`);
  return 0;
}

/** @returns the name of the store, without a password. */
async function invalidateRedis(url: string, prefix: string | undefined): Promise<string> {
  const { RedisStore } = await import('../session/redis.js').catch(missing('redis'));
  const opened = new RedisStore({ url, ...(prefix !== undefined && { prefix }) });
  try {
    await opened.invalidate();
  } finally {
    await opened.close();
  }
  return `the store in Redis at ${new URL(url).host}${prefix === undefined ? '' : ` (prefix ${prefix})`}`;
}

async function invalidateFolder(path: string): Promise<string> {
  // Opening the store would make one.
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  const data = isFolder ? statSync(join(path, 'data.mdb'), { throwIfNoEntry: false }) : undefined;
  if (data === undefined) {
    throw new Error(
      `${path} is no folder of a store: it has no file data.mdb. Give the path of the application's LmdbStore`,
    );
  }
  // Files that root makes would be closed to the application.
  const us = process.getuid?.();
  const owner = [data.uid, statSync(path).uid].find((uid) => us !== undefined && uid !== us);
  if (owner !== undefined) {
    throw new Error(
      `the store in ${path} belongs to another user (${owner}). Run this command as that user, if it runs the application`,
    );
  }
  const { LmdbStore } = await import('../session/lmdb.js').catch(missing('lmdb'));
  const opened = new LmdbStore({ path });
  try {
    await opened.invalidate();
  } finally {
    await opened.close();
  }
  return `the store in ${path}`;
}

function missing(name: string): (cause: unknown) => never {
  return (cause) => {
    throw new Error(`this store needs one more package: npm install ${name}`, { cause });
  };
}
