import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createWLS } from '../../src/wls/index.js';
import { now as start, wlsKey } from '../helpers.js';
import { Ground, RequestReport } from './ground.js';
import type { Order, ServerReport, Site } from './site.js';
import { World } from './world.js';

export interface RequestRun {
  readonly seed: number;
  /** The index of the first one. */
  readonly from: number;
  readonly count: number;
  readonly onProgress?: (sent: number) => void;
}

/** So many requests happen at one instant, which is so long after the one before: milliseconds. */
const ROUND = 2000;
const STEP = 90_000;

/** How long the process of the applications may be silent: milliseconds. */
const PATIENCE = 60_000;

/** How much more may be kept at the end than at a tenth of the way: bytes. */
const MORE = 4 * 2 ** 20;

/** Sends hostile requests to applications in a process of their own. */
export async function fuzzRequests(run: RequestRun): Promise<RequestReport> {
  const server = fork(fileURLToPath(new URL('./server.ts', import.meta.url)), {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    execArgv: ['--expose-gc', '--disable-warning=DEP0170', '--import', 'tsx'],
    env: { ...process.env, NODE_ENV: 'test' },
  });
  try {
    const [sites] = (await Promise.race([once(server, 'message'), endOf(server)])) as [Site[]];
    const driver = new Driver(run, server, sites);
    await driver.drive().catch((error: Error) => driver.report.findings.push(`it cannot go on: ${error.message}`));
    return driver.report;
  } finally {
    // It may be in a loop without end.
    server.kill('SIGKILL');
  }
}

class Driver {
  readonly report = new RequestReport();
  readonly #run: RequestRun;
  readonly #server: ChildProcess;
  readonly #grounds: readonly Ground[];
  readonly #ended: Promise<never>;
  #time = start.getTime();

  constructor(run: RequestRun, server: ChildProcess, sites: readonly Site[]) {
    this.#run = run;
    this.#server = server;
    this.#ended = endOf(server);
    this.#ended.catch(() => {});
    const wls = createWLS({ key: wlsKey.privateKey, now: () => new Date(this.#time) });
    const worlds = sites.map((site) => new World(site, wls));
    for (const world of worlds) world.foreign = worlds.filter((other) => other !== world);
    this.#grounds = worlds.map((world) => new Ground(run.seed, world, this.report));
  }

  async drive(): Promise<void> {
    const { from, count, onProgress } = this.#run;
    // So that at the first measurement all that is kept for a while is there.
    const early = from + Math.floor(count / 10);
    for (let first = from; first < from + count && !this.report.isFull; first += ROUND) {
      await this.#round(first, Math.min(first + ROUND, from + count));
      if (first <= early && early < first + ROUND) await this.#measure();
      onProgress?.(this.report.sent);
    }
    await this.#measure();
    for (const ground of this.#grounds) ground.close();
    this.#checkMemory();
  }

  async #round(first: number, end: number): Promise<void> {
    await this.#tell(false);
    await Promise.all(this.#grounds.map(({ world }) => world.renew(this.#time)));
    const indexes = Array.from({ length: end - first }, (_, i) => first + i);
    const grounds = this.#grounds;
    await Promise.all(grounds.map((ground, i) => ground.fire(indexes.filter((index) => index % grounds.length === i))));
    this.report.sent += indexes.length;
    await Promise.all(grounds.map((ground) => ground.settle()));
    await this.#account(first);
    this.#time += STEP;
  }

  /** Holds what the stores were told against what was seen. */
  async #account(first: number): Promise<void> {
    const { spent, revoked } = await this.#tell(false);
    this.#grounds.forEach(({ world, doubtful }, i) => {
      const used = (spent[i] ?? 0) - world.logins;
      const ended = (revoked[i] ?? 0) - world.ends;
      const where = `seed ${this.#run.seed}, requests from ${first} on, ${world.site.name}`;
      if (used < 0 || used > doubtful) this.report.findings.push(`${where}: ${used} responses used unseen`);
      if (ended > 0) this.report.findings.push(`${where}: ${ended} sessions more ended than logouts were sent`);
    });
  }

  async #measure(): Promise<void> {
    const server = await this.#tell(true);
    this.report.servers.push(server);
    this.report.reached = server.reached - this.#grounds.reduce((sum, { world }) => sum + world.asked, 0);
  }

  #checkMemory(): void {
    const { findings, servers } = this.report;
    const [early, late] = servers.map(({ heap }) => heap);
    if (early && late && late > early + MORE) findings.push(`the heap grew from ${early} to ${late} bytes`);
    const watched = servers.at(-1)?.watched;
    if (watched !== 0) findings.push(`${watched} sessions are watched for sockets that are gone`);
  }

  async #tell(collect: boolean): Promise<ServerReport> {
    const order: Order = { time: this.#time, collect };
    const [report] = await Promise.all([this.#hear(), this.#server.send(order)]);
    this.report.findings.push(...report.problems);
    return report;
  }

  async #hear(): Promise<ServerReport> {
    const message = once(this.#server, 'message', { signal: AbortSignal.timeout(PATIENCE) });
    const [report] = (await Promise.race([message, this.#ended])) as [ServerReport];
    return report;
  }
}

async function endOf(server: ChildProcess): Promise<never> {
  const [status] = await once(server, 'exit');
  throw new Error(`the process of the applications ended with ${status}`);
}
