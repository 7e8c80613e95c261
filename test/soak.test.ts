import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Tasks } from './soak-process.js';

const SOCKETS = 10_000;
const PEOPLE = 400;
/** So many of whom lose all that they have. */
const OUT = 100;

/** What became of a client. Instants are milliseconds. */
interface Fate {
  readonly number: number;
  /** With which the server closed, and when that arrived. */
  readonly code: number;
  readonly told: number;
  /** When the connection had ended. */
  readonly over: number;
}

/** Each process has a descriptor for each of its sockets. */
const { userLimits } = process.report.getReport() as unknown as {
  readonly userLimits?: { readonly open_files: { readonly soft: number | 'unlimited' } };
};
// Not where there is no limit, or none is known.
const isRoom = !(Number(userLimits?.open_files.soft) < SOCKETS * 1.1);
if (!isRoom) console.warn('Left out: what needs 11,000 open files a process (ulimit -n).');

let server: ChildProcess;
let clients: ChildProcess;
let port: number;

beforeAll(async () => {
  server = start('soak-process.ts', ['--import', 'tsx', '--expose-gc']);
  clients = start('../bench/peers.mjs', []);
  port = await serve('port');
});

afterAll(() => {
  server.kill('SIGKILL');
  clients.kill('SIGKILL');
});

it('cuts off those who never answer a close', { timeout: 60_000 }, async () => {
  const cookies = await serve('begin', 50, 50);
  await open(cookies.slice(0, 25), true);
  await open(cookies.slice(25));
  await serve('endEach', range(50));
  const fates = await ended(50);
  expect(new Set(fates.map(({ code }) => code))).toEqual(new Set([4401]));
  const lasted = (from: number, to: number) => fates.slice(from, to).map(({ told, over }) => over - told);
  const [mute, others] = [spread(lasted(0, 25)), spread(lasted(25, 50))];
  console.log(
    `Of 50 sockets that were closed, 25 never answered: ended after ${mute} ms, the others after ${others} ms.`,
  );
  expect(Math.min(...lasted(0, 25))).toBeGreaterThan(1000);
  expect(Math.max(...lasted(0, 25))).toBeLessThan(10_000);
  expect(Math.max(...lasted(25, 50))).toBeLessThan(Math.min(...lasted(0, 25)));
  await tell('close');
});

it.runIf(isRoom)(
  'ends the sockets of ended sessions, of 10,000, and no others; and keeps nothing of them',
  { timeout: 120_000 },
  async () => {
    const first = await cycle();
    const second = await cycle();
    const percent = (100 * (second - first)) / first;
    console.log(
      `Heap after all were closed: ${mebibytes(first)}, and after as many again ${mebibytes(second)} (${percent.toFixed(1)}%).`,
    );
    expect(Math.abs(percent)).toBeLessThan(5);
  },
);

/** Opens them all, ends half of the sessions, and closes the others. @returns the server's heap then: bytes. */
async function cycle(): Promise<number> {
  const begun = performance.now();
  await open(await serve('begin', SOCKETS, PEOPLE));
  const took = (performance.now() - begun) / 1000;
  expect(await serve('open')).toBe(SOCKETS);

  const revoked = await revokeHalf();
  const fates = await ended(revoked.size);
  expect(fates.map(({ number }) => number)).toEqual([...revoked.keys()].sort((a, b) => a - b));
  expect(new Set(fates.map(({ code }) => code))).toEqual(new Set([4401]));
  const lags = fates.map(({ number, told }) => ({ number, lag: told - (revoked.get(number) as number) }));
  const [alone, together] = [false, true].map((isOut) =>
    lags.filter(({ number }) => isOfSomebodyOut(number) === isOut).map(({ lag }) => lag),
  ) as [number[], number[]];
  console.log(
    `${SOCKETS} sockets opened in ${took.toFixed(1)} s; ${fates.length} closed with 4401: ${spread(alone)} ms after endSession(), ${spread(together)} ms after endSessions().`,
  );
  expect(Math.max(...alone, ...together)).toBeLessThan(2000);

  expect(await tell('echo')).toEqual({ echoed: SOCKETS / 2 });
  expect(await serve('open')).toBe(SOCKETS / 2);
  await tell('close');
  return serve('heap');
}

/** Ends all that some people have, and as many sessions of others one by one. @returns when that was, by session. */
async function revokeHalf(): Promise<Map<number, number>> {
  const [out, others] = [true, false].map((isOut) =>
    range(SOCKETS).filter((number) => isOfSomebodyOut(number) === isOut),
  ) as [number[], number[]];
  const each = others.filter((_, i) => i % 3 === 0);
  const times = await serve('endEach', each);
  const people = range(OUT).map((person) => `person${person}`);
  const ofPeople = await serve('endPeople', people);
  const revoked = new Map([
    ...each.map((number, i) => [number, times[i] as number] as const),
    ...out.map((number) => [number, ofPeople[number % PEOPLE] as number] as const),
  ]);
  expect(revoked.size).toBe(SOCKETS / 2);
  return revoked;
}

function isOfSomebodyOut(number: number): boolean {
  return number % PEOPLE < OUT;
}

async function open(cookies: readonly string[], isMute = false): Promise<void> {
  const handshakes = cookies.map((cookie) =>
    [
      'GET / HTTP/1.1',
      'Host: localhost:3000',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Origin: http://localhost:3000',
      `Cookie: webauth-session=${cookie}`,
      '\r\n',
    ].join('\r\n'),
  );
  await tell('open', port, handshakes, isMute);
}

async function ended(count: number): Promise<readonly Fate[]> {
  return (await tell<{ readonly ended: readonly Fate[] }>('ended', count)).ended;
}

function start(file: string, execArgv: string[]): ChildProcess {
  return fork(new URL(file, import.meta.url), { execArgv, env: { PATH: process.env['PATH'], NODE_ENV: 'test' } });
}

async function serve<K extends keyof Tasks>(what: K, ...given: Parameters<Tasks[K]>) {
  const { value } = await ask<{ readonly value: unknown }>(server, what, given);
  return value as Awaited<ReturnType<Tasks[K]>>;
}

async function tell<T>(what: string, ...given: unknown[]): Promise<T> {
  return ask(clients, what, given);
}

/** The answer of a process, which has failed if it ends instead. */
async function ask<T>(child: ChildProcess, what: string, given: readonly unknown[]): Promise<T> {
  const stop = new AbortController();
  const answer = once(child, 'message', stop);
  const over = once(child, 'exit', stop).then(() => Promise.reject(new Error(`a process ended that was to ${what}`)));
  over.catch(() => {});
  child.send([what, ...given]);
  const [message] = await Promise.race([answer, over]).finally(() => stop.abort());
  if (message.error !== undefined) throw new Error(message.error);
  return message;
}

function range(count: number): number[] {
  return [...Array(count).keys()];
}

/** Of some numbers the middle one and the largest. */
function spread(numbers: readonly number[]): string {
  const sorted = [...numbers].sort((a, b) => a - b);
  return `${sorted[sorted.length >> 1]} (at most ${sorted.at(-1)})`;
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}
