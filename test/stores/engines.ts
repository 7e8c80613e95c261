import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { open as openFiles } from 'lmdb';
import { afterAll } from 'vitest';
import { LmdbStore } from '../../src/session/lmdb.js';
import { MemoryStore } from '../../src/session/memory.js';
import { RedisStore } from '../../src/session/redis.js';
import type { Store } from '../../src/session/store.js';
import { findRedis, RedisServer } from './redis-server.js';

/** Kind of store, with what a writer beside this library can do to it. */
export interface Engine {
  readonly name: string;
  /** Opens the store that there is. */
  open(): Promise<Store>;
  /** Sets the counter of logins; undefined where nothing but the process can. */
  readonly setCounter?: (number: number) => Promise<void>;
  /** Sends a change that is in no entry; undefined where changes are read from entries. */
  readonly publish?: (key: string, value: string, expires: Date) => Promise<void>;
  /** Puts an empty store in place of the one that there was. */
  empty(): Promise<void>;
}

function memory(): Engine {
  let store = new MemoryStore();
  return {
    name: 'MemoryStore',
    open: async () => store,
    empty: async () => {
      store = new MemoryStore();
    },
  };
}

function lmdb(): Engine {
  const folders: string[] = [];
  const newFolder = async () => {
    folders.push(await mkdtemp(join(tmpdir(), 'ucam-webauth-engine-')));
  };
  const path = () => folders.at(-1) as string;
  afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));
  return {
    name: 'LmdbStore',
    open: async () => new LmdbStore({ path: path() }),
    setCounter: async (number) => {
      const files = openFiles({ path: path(), noSubdir: false });
      await files.put('count', number);
      await files.close();
    },
    empty: newFolder,
  };
}

function redis(): Engine {
  let server: RedisServer | undefined;
  return {
    name: 'RedisStore',
    open: async () => {
      server ??= await RedisServer.start();
      return new RedisStore({ url: server.url });
    },
    setCounter: async (number) => {
      await server?.ask('SET', 'ucam-webauth:number', String(number));
    },
    publish: async (...[key, value, expires]) => {
      const change = JSON.stringify([key, value, expires.getTime()]);
      await server?.ask('PUBLISH', 'ucam-webauth:0:changes:ended', change);
    },
    empty: async () => {
      await server?.ask('FLUSHALL');
    },
  };
}

/** Every kind of store; Redis where there is one. */
export function engines(): Engine[] {
  return [memory(), lmdb(), ...(findRedis() ? [redis()] : [])];
}
