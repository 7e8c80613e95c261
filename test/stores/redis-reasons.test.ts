import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { makeCertificate } from '../../src/cli/certificate.js';
import type { LogEvent } from '../../src/config.js';
import { RedisStore, type RedisStoreOptions } from '../../src/session/redis.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { thrownBy } from '../helpers.js';
import { freePorts, Program } from '../processes.js';
import { expectNothingUnhandled, findRedis, RedisServer } from './redis-server.js';

expectNothingUnhandled();

const patiently = { timeout: 10_000, interval: 20 };
const password = 'Pa55-of-the-tests';

interface Opened {
  readonly waa: WAA;
  /** Messages about the store. */
  readonly log: readonly string[];
}

/** An application whose log is read. */
function open(url: string, options: Partial<RedisStoreOptions> = {}): Opened {
  const log: string[] = [];
  const note = ({ event, message }: LogEvent) => event === 'store' && log.push(message);
  const store = new RedisStore({ url, ...options });
  const waa = createWAA({ baseUrl: 'http://localhost:3000', store, log: (event) => void note(event) });
  onTestFinished(async () => {
    await waa.close();
    await store.close();
  });
  return { waa, log };
}

/** Everything that an error shows when it is printed, with its causes. */
function shown(error: unknown): string {
  const { message, stack, cause } = error as Error;
  return `${message} ${stack} ${JSON.stringify(error)}${cause === undefined ? '' : ` ${shown(cause)}`}`;
}

async function rejection({ ready }: WAA): Promise<Error> {
  return ready.then(
    () => expect.fail('ready has resolved'),
    (error) => error,
  );
}

async function expectRejected({ waa, log }: Opened, said: RegExp, advice: RegExp): Promise<void> {
  const error = await rejection(waa);
  expect(error).toBeInstanceOf(TypeError);
  expect(error).toHaveProperty('code', 'ERR_STORE_UNAVAILABLE');
  expect(error.message).toMatch(/^Redis cannot be used: /);
  expect(error.message).toMatch(said);
  expect(error.message).toMatch(advice);
  expect((error.cause as Error).message).toMatch(said);
  expect(shown(error)).not.toContain(password);
  expect(log).toEqual([`the store cannot be used: ${error.message}`]);
}

/** Expects that the reason is logged once, however often the store tries again. */
async function expectExplained({ log }: Opened, reason: RegExp): Promise<void> {
  await expect.poll(() => log.length, patiently).toBeGreaterThan(0);
  expect(log[0]).toMatch(/^the store cannot be reached: Redis cannot be used just now: /);
  expect(log[0]).toMatch(reason);
  expect(log[0]).not.toContain(password);
  expect(log.slice(1)).toEqual([]);
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** A server that answers all that it is sent with one line of the protocol. */
async function answering(line: string): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {}).on('data', () => socket.write(`${line}\r\n`));
    onTestFinished(() => void socket.destroy());
  });
  return `redis://127.0.0.1:${await listen(server)}`;
}

describe('new RedisStore()', () => {
  it.each([
    'redis://:pa/ss@localhost',
    'redis://user:12#34@localhost',
    'redis://user:12?34@localhost',
    'redis://:a@b/c#d@localhost/2',
    'rediss://:50%@localhost',
  ])('names percent-encoding for the URL %s', (url) => {
    const error = thrownBy(() => new RedisStore({ url })) as TypeError;
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toMatch(/^the option url .*percent-encode \/ \? # and % in its user name and password/);
    expect(shown(error)).not.toContain(url);
  });

  it.each(['redis://:p%2Fw%23@localhost', 'redis://:p@ss@localhost/3', 'rediss://10.0.0.5:6380/0'])(
    'takes the URL %s',
    (url) => {
      expect(new RedisStore({ url }).lag()).toBe(Infinity);
    },
  );
});

describe.skipIf(!findRedis())('ready, with a RedisStore', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-reasons-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  let redis: RedisServer;
  let tlsPort: number;
  const user = (name: string, ...rules: string[]) => redis.ask('ACL', 'SETUSER', name, 'on', `>${password}`, ...rules);

  beforeAll(async () => {
    const { cert, key } = makeCertificate(['localhost']);
    writeFileSync(join(folder, 'cert'), cert);
    writeFileSync(join(folder, 'key'), key);
    [tlsPort = 0] = await freePorts(1);
    const tls = [`tls-port ${tlsPort}`, `tls-cert-file ${folder}/cert`, `tls-key-file ${folder}/key`];
    redis = await RedisServer.start(['databases 4', ...tls, 'tls-auth-clients no']);
  });

  it('rejects when Redis needs a password, or another one', async () => {
    const guarded = await RedisServer.start([`requirepass right-${password}`]);
    await expectRejected(open(guarded.url), /NOAUTH/, /needs a password\. Give it in the option password/);
    await expectRejected(open(guarded.url, { password }), /WRONGPASS/, /user name or the password is wrong/);
    const other = open(`redis://nobody:${password}@127.0.0.1:${guarded.port}`);
    await expectRejected(other, /WRONGPASS/, /user name or the password is wrong/);
    await guarded.remove();
  });

  it.each([
    ['INFO', ['~*', '&*', '+@all', '-info'], /'info' command/],
    ['scripts', ['~*', '&*', '+@all', '-eval'], /'eval' command/],
    ['SUBSCRIBE', ['~*', '&*', '+@all', '-subscribe'], /'subscribe' command/],
    ['channels', ['~*', 'resetchannels', '+@all'], /channels/],
    ['its keys', ['~other:*', '&*', '+@all'], /keys/],
    ['ZADD, which scripts call', ['~*', '&*', '+@all', '-zadd'], /script/],
    ['GETDEL, which only tickets need', ['~*', '&*', '+@all', '-getdel'], /script/],
  ])('rejects when its user may not use %s', async (_, rules, said) => {
    await user('limited', 'reset', 'on', `>${password}`, ...rules);
    const opened = open(redis.url, { username: 'limited', password });
    await expectRejected(opened, said, /lacks a permission.*run ACL SETUSER NAME ~ucam-webauth:\* /);
  });

  it('resolves for a user with the permissions that the message names, and no others', async () => {
    await user('limited', 'reset', 'on', `>${password}`, '-@all');
    const { message } = await rejection(open(redis.url, { username: 'limited', password }).waa);
    const [, rules = ''] = /ACL SETUSER NAME ([^;]*);/.exec(message) ?? [];
    await user('limited', ...rules.split(' '));
    const { waa, log } = open(redis.url, { username: 'limited', password });
    await waa.ready;
    expect(await waa.tokens.list('test0001')).toEqual([]);
    await waa.endSessions('test0001');
    await waa.block('test0001');
    expect(log).toEqual([]);
  });

  it('rejects when there is no such database', async () => {
    const opened = open(`${redis.url}/9`);
    await expectRejected(opened, /DB index is out of range/, /it has no database 9\. Give the number of one/);
  });

  it('rejects on a node of a cluster: by slots of other nodes, several slots of its own, or a database', async () => {
    const cluster = await RedisServer.start(['cluster-enabled yes']);
    await expectRejected(open(`${cluster.url}/2`), /SELECT is not allowed/, /Redis Cluster/);
    await cluster.ask('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
    await expect.poll(() => cluster.ask('CLUSTER', 'INFO'), patiently).toContain('cluster_state:ok');
    await expectRejected(open(cluster.url), /CROSSSLOT/, /no part of a cluster/);
    await cluster.remove();
    await expectRejected(open(await answering('-MOVED 1234 10.0.0.9:6379')), /MOVED/, /no part of a cluster/);
  });

  it('rejects with advice for managed services when the policy evicts', async () => {
    const evicting = await RedisServer.start(['maxmemory-policy allkeys-lru', 'rename-command CONFIG ""']);
    const { message } = await rejection(open(evicting.url).waa);
    expect(message).toMatch(/policy is allkeys-lru.*Where a provider forbids CONFIG, set it in the settings/);
    await evicting.remove();
  });

  it('rejects when a command is disabled, at a Sentinel, and in protected mode', async () => {
    const lacking = await RedisServer.start(['rename-command EVAL ""']);
    await expectRejected(open(lacking.url), /unknown command/, /no command renamed or disabled/);
    await lacking.remove();
    const denied = '-DENIED Redis is running in protected mode because protected mode is enabled';
    await expectRejected(open(await answering(denied)), /DENIED/, /requirepass/);
    const [port = 0] = await freePorts(1);
    const config = join(folder, 'sentinel.conf');
    writeFileSync(config, `port ${port}\nbind 127.0.0.1\nsentinel monitor primary 127.0.0.1 ${redis.port} 1\n`);
    const sentinel = new Program([config, '--sentinel'], {}, 'redis-server');
    await sentinel.printed(/Sentinel ID is/);
    const { message } = await rejection(open(`redis://127.0.0.1:${port}`).waa);
    expect(message).toMatch(/this is a Sentinel.*Give the url of the primary/);
  });

  it('logs once that nothing listens, and recovers', async () => {
    const server = await RedisServer.start();
    await server.stop();
    const opened = open(server.url, { password });
    await expectExplained(opened, /ECONNREFUSED.*nothing listens on port \d+ of 127\.0\.0\.1\. Start Redis/);
    await opened.waa.ready;
    expect(opened.log).toHaveLength(1);
    await server.start();
    await expect.poll(() => opened.waa.endSessions('test0001').then(Boolean, () => 'away'), patiently).not.toBe('away');
    await server.remove();
  });

  it('logs each new reason while it waits, and rejects none of what may pass', async () => {
    let line = '-LOADING Redis is loading the dataset in memory';
    const server = createServer((socket) => {
      socket.on('error', () => {}).on('data', () => socket.write(`${line}\r\n`));
    });
    const opened = open(`redis://127.0.0.1:${await listen(server)}`);
    await expectExplained(opened, /LOADING.*still reading its data/);
    line = '-MASTERDOWN Link with MASTER is down';
    await expect.poll(() => opened.log.length, patiently).toBe(2);
    expect(opened.log[1]).toMatch(/MASTERDOWN.*Give the url of the primary/);
    await opened.waa.ready;
    expect(opened.log).toHaveLength(2);
  });

  it('logs that a port has no TLS, has nothing but TLS, or has an untrusted certificate', async () => {
    const { port } = redis;
    await Promise.all([
      expectExplained(open(`rediss://127.0.0.1:${port}`), /has not answered|timeout.*without TLS \(redis:\)/i),
      expectExplained(
        open(`redis://127.0.0.1:${tlsPort}`),
        /connection .*closed.*TLS only \(rediss:\)|takes TLS only/i,
      ),
      expectExplained(open(`rediss://localhost:${tlsPort}`), /certificate of localhost is not trusted.*NODE_EXTRA_CA/),
    ]);
  });

  it('logs that an HTTP server listens there, over TLS or not', async () => {
    const http = createHttpServer((_, response) => response.end('hello'));
    const port = await listen(http);
    await Promise.all([
      expectExplained(open(`redis://127.0.0.1:${port}`), /no Redis, such as an HTTP server/),
      expectExplained(open(`rediss://127.0.0.1:${port}`), /speaks no TLS/),
    ]);
  });

  it('logs that a host has no address, or that nothing is answered', async () => {
    const silent = createServer((socket) => void onTestFinished(() => void socket.destroy()));
    const port = await listen(silent);
    await Promise.all([
      expectExplained(open('redis://no-such-host.invalid'), /host name no-such-host\.invalid cannot be resolved/),
      expectExplained(open(`redis://:${password}@127.0.0.1:${port}`), /nothing answered on port .*firewall/),
    ]);
  });

  it('logs that Redis has too many clients, or is a replica, and what to do', async () => {
    const [full, replica] = [await RedisServer.start(), await RedisServer.start()];
    await full.ask('CONFIG', 'SET', 'maxclients', '1');
    await replica.ask('REPLICAOF', '127.0.0.1', String(redis.port));
    await Promise.all([
      expectExplained(open(full.url), /max number of clients.*Raise maxclients/),
      expectExplained(open(replica.url), /it is a replica, .*Give the url of the primary/),
    ]);
    await Promise.all([full.remove(), replica.remove()]);
  });

  it('logs that Redis takes no writes, since it cannot save', async () => {
    const url = await answering("-MISCONF Redis is configured to save RDB snapshots, but it's unable to persist");
    await expectExplained(open(url), /MISCONF.*cannot save to its disk/);
  });
});
