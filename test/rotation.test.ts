import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { newSecret } from '../src/session/secret.js';
import { createWLS } from '../src/wls/index.js';
import { Browser, type Page, Program, root, runNode } from './processes.js';
import type { Settings } from './rotation-process.js';

const baseUrl = 'http://localhost:3000';
const wls = createWLS();
const [kid] = wls.profile.keys.kids as [string];
const keys = { [kid]: wls.profile.keys.get(kid)?.key.export({ type: 'spki', format: 'pem' }) as string };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-rotation-'));
  return () => rmSync(folder, { recursive: true });
});

/** One process of the application, with a copy of the file of secrets that is its own. */
class Machine {
  readonly secretFile: string;
  #program: Program | undefined;
  #url = '';
  #inFlight = 0;

  constructor(name: string) {
    this.secretFile = join(folder, `secret-${name}`);
  }

  get isUp(): boolean {
    return this.#url !== '';
  }

  async start(): Promise<void> {
    const { authUrl } = wls.profile;
    const settings: Settings = {
      baseUrl,
      secretFile: this.secretFile,
      storeFolder: join(folder, 'store'),
      authUrl,
      keys,
    };
    const program = join(root, 'test/rotation-process.ts');
    const env = { NODE_ENV: 'test', UCAM_WEBAUTH_SECRET: undefined };
    this.#program = new Program(['--import', 'tsx', program, JSON.stringify(settings)], { env });
    const [, port] = await this.#program.printed(/listening on (\d+)/);
    this.#url = `http://127.0.0.1:${port}`;
  }

  /** Is sent nothing any more, finishes what it has, ends, and comes back. */
  async restart(): Promise<void> {
    this.#url = '';
    await vi.waitUntil(() => this.#inFlight === 0);
    expect(await this.#program?.stop()).toBe(0);
    await this.start();
  }

  async ask(browser: Browser, path: string, accept = 'text/html'): Promise<Page> {
    this.#inFlight += 1;
    try {
      const headers = { Host: new URL(baseUrl).host, Accept: accept };
      return await browser.ask(this.#url + path, { headers });
    } finally {
      this.#inFlight -= 1;
    }
  }
}

/** Machines that are to serve one application, all with one new secret. */
async function startMachines(): Promise<[Machine, Machine, Machine]> {
  const machines: [Machine, Machine, Machine] = [new Machine('a'), new Machine('b'), new Machine('c')];
  await changeSecrets(machines[0]);
  copySecrets(machines);
  await Promise.all(machines.map((machine) => machine.start()));
  return machines;
}

async function changeSecrets(machine: Machine, ...step: string[]): Promise<void> {
  const { status, stderr } = await runNode([join(root, 'dist/cli/main.js'), 'secret', machine.secretFile, ...step]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
}

function copySecrets([first, ...others]: readonly Machine[]): void {
  for (const { secretFile } of others) copyFileSync((first as Machine).secretFile, secretFile);
}

/** Somebody with a browser. */
class Person {
  readonly principal: string;
  readonly #browser = new Browser();

  constructor(principal: string) {
    this.principal = principal;
  }

  /** Begins to log in at one machine, and comes back to the other. */
  async logIn(begin: Machine, finish: Machine): Promise<this> {
    const { headers } = await begin.ask(this.#browser, '/');
    const answer = wls.respond(headers.location ?? '', { principal: this.principal });
    const done = await finish.ask(this.#browser, `/webauth/callback?WLS-Response=${encodeURIComponent(answer)}`);
    expect(done).toMatchObject({ status: 303, headers: { location: `${baseUrl}/` } });
    return this;
  }

  async fetch(machine: Machine): Promise<Page> {
    return machine.ask(this.#browser, '/', 'application/json');
  }
}

/** People who go on using the application, one machine after the other. */
class Traffic {
  readonly people = new Set<Person>();
  /** Whatever was not the page that a person who is logged in gets. */
  readonly wrong: string[] = [];
  served = 0;
  #over = false;
  readonly #done: Promise<void>;

  constructor(machines: readonly Machine[]) {
    this.#done = this.#run(machines);
  }

  async end(): Promise<void> {
    this.#over = true;
    await this.#done;
  }

  async #run(machines: readonly Machine[]): Promise<void> {
    for (let i = 0; !this.#over; i++) {
      await new Promise((soon) => setTimeout(soon, 5));
      const machine = machines[i % machines.length] as Machine;
      if (machine.isUp) await Promise.all([...this.people].map((person) => this.#use(person, machine)));
    }
  }

  async #use(person: Person, machine: Machine): Promise<void> {
    try {
      const { status, body } = await person.fetch(machine);
      this.served += 1;
      if (status !== 200 || body !== person.principal) this.wrong.push(`${person.principal}: ${status} ${body}`);
    } catch (error) {
      this.wrong.push(`${person.principal}: ${error}`);
    }
  }
}

describe('a new secret', () => {
  it('comes into use in three steps on three machines, and nobody is logged out', async () => {
    const machines = await startMachines();
    const [a, b, c] = machines;
    const before = readFileSync(a.secretFile, 'utf8');
    const traffic = new Traffic(machines);
    onTestFinished(() => traffic.end());
    let count = 0;
    /** Somebody logs in at each machine, by way of another, and stays. */
    const logIn = async () => {
      for (const [begin, finish] of [
        [a, b],
        [b, c],
        [c, a],
      ] as const) {
        traffic.people.add(await new Person(`test${++count}`).logIn(begin, finish));
      }
    };
    const take = async (step: string) => {
      await changeSecrets(a, step);
      copySecrets(machines);
      for (const machine of machines) {
        await machine.restart();
        await logIn();
      }
    };
    await logIn();
    const old = [...traffic.people];
    await take('--add');
    await take('--promote');
    const beforeDrop = [...traffic.people];
    expect(traffic.wrong).toEqual([]);

    // Those whom the old secret logged in have had their time.
    for (const person of beforeDrop.slice(0, -3)) traffic.people.delete(person);
    await take('--drop');
    await traffic.end();
    expect(traffic.wrong).toEqual([]);
    expect(traffic.served).toBeGreaterThan(300);
    for (const person of old) for (const machine of machines) expect((await person.fetch(machine)).status).toBe(401);
    expect(readFileSync(c.secretFile, 'utf8')).not.toContain(before.trim());
  }, 180_000);

  it('that seals on one machine before the others know it logs people out there, and takes no cookie from them', async () => {
    const [a, b, c] = await startMachines();
    const early = await new Person('early').logIn(a, b);
    writeFileSync(a.secretFile, `${newSecret()}\n${readFileSync(a.secretFile, 'utf8')}`);
    await a.restart();
    for (const machine of [a, b, c]) expect(await early.fetch(machine)).toMatchObject({ status: 200, body: 'early' });
    const late = await new Person('late').logIn(a, a);
    for (const machine of [b, c]) {
      const { status, headers } = await late.fetch(machine);
      expect(status).toBe(401);
      expect(headers['set-cookie']).toBeUndefined();
    }
    expect(await late.fetch(a)).toMatchObject({ status: 200, body: 'late' });
  }, 60_000);
});
