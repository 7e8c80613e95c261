// What is done for requests and handshakes: servers and the load are processes of their own, and each server says how
// much processor time it spent on a batch.
import { spawnSync } from 'node:child_process';
import { ask, endAll, hear, start } from './children.mjs';
import { PROTOCOL, upgrade } from './handshake.mjs';
import { compare, interleave } from './measure.mjs';

const MOST = { rounds: 41, seconds: 30 };
/** Of each kind of handshake. */
const MOST_HANDSHAKES = { rounds: 31, seconds: 9 };
const REQUESTS = 600;
const HANDSHAKES = 400;
/** How many tickets are made at a time: each is good for half a minute. */
const TICKETS = 1000;
/** How often each server is called before anything is measured: the compiler takes that long. */
const WARM_UP = 15_000;
/** Characters; Node takes headers of 16 KB. */
const HEADER = 15_000;

/** Requests a second of the server's processor time. @param prepare makes what is sent, if that is another each time. */
async function sample({ server, load, batch, prepare = async () => ({}) }) {
  // Who has waited for its turn is slower at first.
  await ask(load, { ...batch, count: batch.count / 2, ...(await prepare(batch.count / 2)) });
  const whole = { ...batch, ...(await prepare(batch.count)) };
  const before = await ask(server, ['spent']);
  await ask(load, whole);
  const after = await ask(server, ['spent']);
  return batch.count / ((after.spent - before.spent) / 1e6);
}

const pages = {
  answer: { start: 'HTTP/1.1 200 OK\r\n', end: '\r\n\r\nHello, test0001.' },
  count: REQUESTS,
};
const refused = { answer: { start: 'HTTP/1.1 401 ', end: '}' }, count: REQUESTS / 4 };
const sockets = { answer: { start: 'HTTP/1.1 101 ', end: '' }, count: HANDSHAKES, upgrade: true };

const get = (...headers) => ['GET / HTTP/1.1', 'Host: localhost:3000', ...headers, '', ''].join('\r\n');

/** What shows who a handshake is for, by the kind of credential. */
const showing = {
  cookie: ({ cookie }) => upgrade([`Cookie: ${cookie}`]),
  bearer: ({ token }) => upgrade([`Authorization: Bearer ${token}`]),
  subprotocol: ({ token }) => upgrade([`Sec-WebSocket-Protocol: ${PROTOCOL}, ${PROTOCOL}.${token}`]),
  query: ({ ticket }) => upgrade([], `/?ticket=${ticket}`),
};

/** As long as a ticket, for a server that takes none. */
const noTicket = 'a'.repeat(43);

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
    const rates = await interleave(await routes(), MOST);
    // Each kind by itself: who has rested while others had their turn is slow at first, whoever it is.
    for (const kind of Object.keys(showing))
      Object.assign(rates, await interleave(await handshakes(kind), MOST_HANDSHAKES));
    return rates;
  } finally {
    endAll();
  }
}

async function routes() {
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
  return found;
}

/** Bare ws and ours, with one kind of credential. */
async function handshakes(kind) {
  const load = start('load.mjs');
  const [bare, ours] = [start('servers.mjs', 'bare ws'), start('servers.mjs', 'acceptUpgrades', kind)];
  const [{ port }, told] = [await hear(bare), await hear(ours)];
  const request = showing[kind]({ ...told, ticket: noTicket });
  const warm = async (server, batch) => {
    await ask(load, { ...batch, count: WARM_UP / 3 });
    return { sample: () => sample({ server, load, batch }) };
  };
  const byOurs = { ...sockets, port: told.port, request };
  return {
    [`bare ws, ${kind}`]: await warm(bare, { ...sockets, port, request }),
    [`acceptUpgrades, ${kind}`]: kind === 'query' ? await byTickets(ours, load, told.port) : await warm(ours, byOurs),
  };
}

/** Handshakes by a ticket each, which are made outside of the time that is measured. */
async function byTickets(server, load, port) {
  const prepare = async (count) => {
    const { tickets } = await ask(server, ['tickets', count]);
    return { requests: tickets.map((ticket) => showing.query({ ticket })) };
  };
  const batch = { ...sockets, port };
  for (let done = 0; done < WARM_UP / 3; done += TICKETS) {
    await ask(load, { ...batch, count: TICKETS, ...(await prepare(TICKETS)) });
  }
  return { sample: () => sample({ server, load, batch, prepare }) };
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
    ...Object.keys(showing).map((kind) =>
      compare(rates, `acceptUpgrades, ${kind}`, `bare ws, ${kind}`, {
        goal: kind === 'cookie' ? 0.75 : 0.8,
        chart: `ws by ${kind} / bare ws`,
        note: `on a connection each, sent ${kind === 'query' ? 'as long a ticket' : 'the same headers'}`,
      }),
    ),
    ...Object.keys(hostile).map((kind) =>
      compare(rates, `refusing ${kind}`, 'refusing no session', { note: '15 KB of Cookie header against a few bytes' }),
    ),
  ];
}
