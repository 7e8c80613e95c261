// What one process does with a store that others have too. It is told: the folder, what to do, and a word for that.
import { readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LmdbStore } from '../../src/session/lmdb.js';

const [path = '', what = '', word = ''] = process.argv.slice(2);
const expires = new Date(Date.now() + 600_000);
const die = () => process.kill(process.pid, 'SIGKILL');
const deadly = () => {
  die();
  return new Date();
};

const deeds: Readonly<Record<string, (store: LmdbStore) => Promise<void>>> = {
  put: async (store) => store.put(word, String(Date.now()), expires),

  /** Uses one key up, and takes one entry, as often as it can; says how often it did. */
  race: async (store) => {
    console.log('ready');
    while ((await store.get('go')) === undefined) await delay(1);
    const tries = Array.from({ length: 50 }, async () => [await store.spend('a', expires), await store.take('x:a')]);
    const won = await Promise.all(tries);
    console.log(`spent ${won.filter(([spent]) => spent).length}, took ${won.filter(([, taken]) => taken).length}`);
  },

  /** Is killed as soon as it has its answer. */
  survive: async (store) => {
    await store.put(word, 'survived', expires);
    // At once, so that it is known that it had its answer.
    writeSync(1, 'answered');
    die();
  },

  /** Says how long after it was put it heard of an entry. */
  hear: async (store) => {
    const changed = ({ value }: { readonly value: string }) =>
      console.log(`heard after ${Date.now() - Number(value)} ms`);
    await store.subscribe('x', { changed, missed: async () => {} });
    console.log('listening');
    await delay(60_000);
  },

  /** Is killed within a write, in which the clock is asked. */
  dieWriting: async (store) => {
    clock = deadly;
    await store.put('x:never', '', expires);
  },

  /** Is killed within a read. */
  dieReading: async (store) => {
    clock = deadly;
    await store.list('x');
  },

  /** Its folder is on a small disk. */
  fill: async (store) => {
    await store.put('x:a', 'kept', expires);
    const filler = join(path, 'filler');
    for (let size = 2 ** 22; size >= 1; size /= 2) fillWith(size, filler);
    const big = 'x'.repeat(300_000);
    const failed = (error: Error) => error.message;
    console.log('put:', await store.put('x:big', big, expires).catch(failed));
    console.log('spend:', await Promise.all([store.spend('a', expires), store.put('x:b', big, expires)]).catch(failed));
    console.log('get:', await store.get('x:a'), await store.get('x:big'), (await store.list('x')).length);
    try {
      new LmdbStore({ path: join(path, 'another') });
    } catch (error) {
      console.log('open:', (error as Error).message);
    }
    for (const name of readdirSync(path)) if (name.startsWith('filler')) rmSync(join(path, name));
    await store.put('x:big', big, expires);
    console.log('then:', (await store.get('x:big'))?.length, await store.spend('b', expires));
  },
};

let clock = () => new Date();
const store = new LmdbStore({ path, now: () => clock() });
await deeds[what]?.(store);
await store.close();

function fillWith(size: number, name: string): void {
  for (let i = 0; ; i++) {
    try {
      writeFileSync(`${name}-${size}-${i}`, new Uint8Array(size));
    } catch {
      return;
    }
  }
}
