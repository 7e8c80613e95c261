import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from 'redis';
import { afterAll, expect } from 'vitest';
import { findPrograms, freePorts } from '../processes.js';

/** Whether there is a Redis to test with. @throws Error in continuous integration, where there has to be one. */
export function findRedis(): boolean {
  return findPrograms(['redis-server']);
}

/** Has the file fail if anything in it is rejected and nobody catches it. Call it before all else. */
export function expectNothingUnhandled(): void {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  afterAll(() => {
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });
}

const servers = new Set<RedisServer>();
afterAll(async () => {
  await Promise.all([...servers].map((server) => server.remove()));
});
// A run that is broken off gets no further than this.
process.once('exit', () => {
  for (const server of servers) void server.stop('SIGKILL');
});

/** A redis-server on a port of this machine, with a folder of its own; gone when the test file is over. */
export class RedisServer {
  readonly port: number;
  readonly #folder: string;
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  private constructor(port: number, folder: string) {
    this.port = port;
    this.#folder = folder;
    servers.add(this);
  }

  /** @param config lines as in redis.conf; nothing is written to the disk unless they say so. */
  static async start(config: readonly string[] = []): Promise<RedisServer> {
    const [port = 0] = await freePorts(1);
    const server = new RedisServer(port, await mkdtemp(join(tmpdir(), 'ucam-webauth-redis-')));
    await server.start(config);
    return server;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it again, on the same port; resolves when it can be asked. */
  async start(config: readonly string[] = []): Promise<void> {
    const basics = [
      `port ${this.port}`,
      'bind 127.0.0.1',
      `dir ${this.#folder}`,
      'save ""',
      'repl-diskless-sync-delay 0',
    ];
    const child = spawn('redis-server', ['-'], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('error', resolve).once('close', resolve));
    child.stdin.end([...basics, ...config].join('\n'));
    let printed = '';
    const ready = new Promise<void>((resolve) => {
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        printed += chunk;
        if (printed.includes('Ready to accept connections')) resolve();
      });
    });
    const over = this.#ended.then(() => Promise.reject(new Error(`redis-server ended; it printed:\n${printed}`)));
    await Promise.race([ready, over]);
    // It will end one day, and then nobody waits for it.
    over.catch(() => {});
  }

  /** Ends it: SIGTERM lets it save what it is configured to, SIGKILL does not. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#child?.kill(signal);
    await this.#ended;
  }

  /** Ends it at once, and all that it had on the disk. */
  async remove(): Promise<void> {
    await this.stop('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
    servers.delete(this);
  }

  /** Asks it something, as its operator does. */
  async ask(...command: string[]): Promise<unknown> {
    const client = createClient({ url: this.url, socket: { reconnectStrategy: false } }).on('error', () => {});
    await client.connect();
    try {
      return await client.sendCommand(command);
    } finally {
      client.destroy();
    }
  }
}
