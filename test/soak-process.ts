// The server of the soak test: sockets whose sessions it makes and ends as it is told, by messages `[what, ...given]`.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { MemoryStore } from '../src/session/memory.js';
import { Sealer } from '../src/session/seal.js';
import { newSessionId, openSession, sealSession } from '../src/session/session.js';
import { createWAA } from '../src/waa.js';
import { acceptUpgrades } from '../src/websocket/index.js';
import { createWLS } from '../src/wls/index.js';

const DAY = 24 * 3600_000;
const baseUrl = 'http://localhost:3000';
const secret = 'a1'.repeat(32);

let ahead = 0;
const now = () => new Date(Date.now() + ahead);
const store = new MemoryStore({ now });
const wls = createWLS({ now });
const waa = createWAA({ baseUrl, secret, store, now, wls: wls.profile });
const sealer = new Sealer([Buffer.from(secret, 'hex')], 'session', waa.cookies.session, baseUrl, waa.cookies.path);

const server = createServer().listen(0, '127.0.0.1');
const wss = new WebSocketServer({ noServer: true });
acceptUpgrades(server, wss, waa);
wss.on('connection', (socket) => socket.on('message', (data) => socket.send(String(data))));
await once(server, 'listening');

/** Those of now, as cookies. */
let sessions: string[] = [];

async function logIn(): Promise<string> {
  const { location, nonce } = waa.startLogin('/');
  const { cookie } = await waa.finishLogin(wls.respond(location), nonce);
  return cookie as string;
}

/** Sessions as logins begin them, of all these people in turn; but one login does, since each takes a millisecond. */
async function begin(count: number, people: number): Promise<string[]> {
  const first = openSession(sealer, await logIn());
  sessions = [];
  for (let i = 0; i < count; i++) {
    const who = { id: newSessionId(), principal: `person${i % people}`, login: await store.next() };
    sessions.push(sealSession(sealer, { ...first, ...who }));
  }
  return sessions;
}

/** Ends each of these by itself. @returns when that was, in milliseconds. */
async function endEach(numbers: readonly number[]): Promise<number[]> {
  const times: number[] = [];
  for (const number of numbers) {
    times.push(Date.now());
    await waa.endSession(waa.openSession(sessions[number]));
    // So that the server also hears what its clients say.
    await turn();
  }
  return times;
}

async function endPeople(principals: readonly string[]): Promise<number[]> {
  const times: number[] = [];
  for (const principal of principals) {
    times.push(Date.now());
    await waa.endSessions(principal);
    await turn();
  }
  return times;
}

/** Bytes in use, when nobody is here, and the sessions that were ended are over anyway and so forgotten. */
async function heap(): Promise<number> {
  while (wss.clients.size > 0 || (await connections()) > 0) await delay(10);
  sessions = [];
  ahead += DAY;
  // What is over is forgotten as part of other work.
  await waa.endSession(waa.openSession(await logIn()));
  for (let i = 0; i < 3; i++) {
    await delay(50);
    globalThis.gc?.();
  }
  return process.memoryUsage().heapUsed;
}

function connections(): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  );
}

const tasks = {
  begin,
  endEach,
  endPeople,
  heap,
  open: async () => wss.clients.size,
  port: async () => (server.address() as AddressInfo).port,
};

export type Tasks = typeof tasks;

process.on('disconnect', () => process.exit());
process.on('message', async ([what, ...given]: [keyof Tasks, ...unknown[]]) => {
  process.send?.({ value: await (tasks[what] as (...given: unknown[]) => Promise<unknown>)(...given) });
});
