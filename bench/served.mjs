// What is done for requests and handshakes: servers and the load are processes of their own, and each server says how
// much processor time it spent on a batch.
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { compare, interleave } from './measure.mjs';

const MOST = { rounds: 41, seconds: 60 };
const REQUESTS = 600;
const HANDSHAKES = 200;
/** How often each server is called before anything is measured: the compiler takes that long. */
const WARM_UP = 15_000;
/** Characters; Node takes headers of 16 KB. */
const HEADER = 15_000;

const here = (name) => new URL(name, import.meta.url);
const children = [];

function start(file, ...args) {
  const child = fork(here(file), args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  children.push(child);
  return child;
}

/** The child's next message. A child that ends instead has failed. */
async function hear(child) {
  const stop = new AbortController();
  const { signal } = stop;
  const ended = once(child, 'exit', { signal }).then(() => {
    throw new Error(`${child.spawnargs.slice(1).join(' ')} ended`);
  });
  try {
    const [message] = await Promise.race([once(child, 'message', { signal }), ended]);
    if (message.error) throw new Error(`${child.spawnargs.slice(1).join(' ')}: ${message.error}`);
    return message;
  } finally {
    ended.catch(() => {});
    stop.abort();
  }
}

async function ask(child, message) {
  child.send(message);
  return hear(child);
}

/** Requests a second of the server's processor time. */
async function sample({ server, load, batch }) {
  const before = await ask(server, 'spent');
  await ask(load, batch);
  const after = await ask(server, 'spent');
  return batch.count / ((after.spent - before.spent) / 1e6);
}

const pages = {
  answer: { start: 'HTTP/1.1 200 OK\r\n', end: '\r\n\r\nHello, test0001.' },
  count: REQUESTS,
};
const refused = { answer: { start: 'HTTP/1.1 401 ', end: '}' }, count: REQUESTS / 4 };
const sockets = { answer: { start: 'HTTP/1.1 101 ', end: '' }, count: HANDSHAKES, upgrade: true };

const get = (...headers) => ['GET / HTTP/1.1', 'Host: localhost:3000', ...headers, '', ''].join('\r\n');
const upgrade = ({ origin, cookie }) =>
  get(
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `Origin: ${origin}`,
    `Cookie: ${cookie}`,
  );

/** Cookie headers made to take a careless parser long. */
const hostile = {
  'a run of blanks': `a=b;${' '.repeat(HEADER)}webauth-session`,
  'names that are nearly ours': 'xwebauth-session=a;'.repeat(HEADER / 19),
  'a run of equals signs': `webauth-sessio${'='.repeat(HEADER)}`,
};

/** What needs a redis-server is left out where there is none. */
const redis = 'route behind require(), with Redis';
const withRedis = spawnSync('redis-server', ['--version']).status === 0 ? redis : undefined;
if (withRedis === undefined) console.log('Left out: what needs redis-server (Debian: apt-get install redis-server).');

/** Operations per second of the server's processor time, by name and round. */
export async function runServed() {
  try {
    return await interleave(await contenders(), MOST);
  } finally {
    for (const child of children) child.kill();
  }
}

async function contenders() {
  const load = start('load.mjs');
  const found = {};
  const add = async (name, server, batch, warmUp = WARM_UP) => {
    await ask(load, { ...batch, count: warmUp });
    found[name] = { sample: () => sample({ server, load, batch }) };
  };
  for (const name of ['bare route', 'route behind require()', withRedis, 'route behind passport'].filter(Boolean)) {
    const server = start('servers.mjs', name);
    const { port, cookie } = await hear(server);
    await add(name, server, { ...pages, port, request: get(`Cookie: ${cookie}`) });
    if (name !== 'route behind require()') continue;
    for (const [kind, header] of Object.entries({ 'no session': 'a=b', ...hostile })) {
      await add(`refusing ${kind}`, server, { ...refused, port, request: get(`Cookie: ${header}`) }, WARM_UP / 5);
    }
  }
  for (const name of ['bare ws', 'acceptUpgrades']) {
    const server = start('servers.mjs', name);
    const told = await hear(server);
    await add(name, server, { ...sockets, port: told.port, request: upgrade(told) });
  }
  return found;
}

/** The rows of the table that these rates give. */
export function servedRatios(rates) {
  const ours = 'route behind require()';
  return [
    compare(rates, ours, 'bare route', {
      goal: 0.75,
      chart: 'Express require() / bare',
      note: 'Express without any middleware of ours, sent the same cookie',
    }),
    ...(withRedis === undefined
      ? []
      : [
          compare(rates, redis, ours, {
            goal: 0.9,
            chart: 'sessions in Redis / in memory',
            note: 'the same route; a request asks neither store',
          }),
        ]),
    compare(rates, ours, 'route behind passport', {
      goal: 1.2,
      chart: 'require() / passport',
      note: 'express-session in memory, passport and passport-raven; the session was begun by login()',
    }),
    compare(rates, 'acceptUpgrades', 'bare ws', {
      goal: 0.75,
      chart: 'ws handshake / bare ws',
      note: 'on a connection each, sent the same headers',
    }),
    ...Object.keys(hostile).map((kind) =>
      compare(rates, `refusing ${kind}`, 'refusing no session', { note: '15 KB of Cookie header against a few bytes' }),
    ),
  ];
}
