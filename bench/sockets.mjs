// Many sockets at a time: what it takes to close those of ended sessions, and what they take while they are open. Their
// clients are processes of their own.
import { setTimeout as delay } from 'node:timers/promises';
import { ask, endAll, hear, start } from './children.mjs';
import { upgrade } from './handshake.mjs';
import { compare, interleave } from './measure.mjs';

/** How many are closed in a round. */
const CLOSED = 10_000;
const MOST = { rounds: 5, seconds: 30 };
/** For the compiler, before anything is measured. */
const WARM_UP = 3000;
/** How many are open while it is measured what that takes: fewer than the descriptors that a process can have. */
const OPEN = 15_000;
/** Seconds in which nobody says anything. */
const IDLE = 5;

const bare = 'closing, bare ws';
const each = 'closing, endSession() each';
const all = 'closing, endSessions() of all';

/** Sockets closed per second of the server's processor time, by name and round. */
export async function runClosing() {
  try {
    const [theirs, ours] = [await startServer('bare ws'), await startServer('acceptUpgrades')];
    const clients = startClients(1);
    /** Bare ws is sent as much as ours. */
    const close = async (contender, count, isOne = false) => {
      await open(contender, clients, await makeSessions(ours, count, isOne));
      const { spent } = await ask(contender.server, [isOne ? 'endAll' : 'endEach']);
      await ask(clients[0], ['close']);
      return count / (spent / 1e6);
    };
    const contenders = {
      [bare]: { sample: () => close(theirs, CLOSED) },
      [each]: { sample: () => close(ours, CLOSED) },
    };
    for (const contender of [theirs, ours]) await close(contender, WARM_UP);
    const rates = await interleave(contenders, MOST);
    return { ...rates, [all]: [await close(ours, CLOSED, true)] };
  } finally {
    endAll();
  }
}

/** The rows of the table that these rates give. */
export function closingRatios(rates) {
  return [
    compare(rates, each, bare, {
      goal: 0.77,
      chart: 'close ended / bare ws',
      note: `close(4401) of as many; ${CLOSED} at a time, each of a session of its own`,
    }),
    compare(rates, all, bare, { note: 'all of one person, each of a session of its own; one round' }),
  ];
}

/** Of sockets that are open and idle, ours and bare ws: bytes of heap for each, and milliseconds of processor time for all. */
export async function holding() {
  try {
    const ours = await startServer('acceptUpgrades');
    const cookies = await makeSessions(ours, OPEN);
    const held = { ours: await hold(ours, cookies), bare: await hold(await startServer('bare ws'), cookies) };
    return { ...held, open: OPEN, seconds: IDLE };
  } finally {
    endAll();
  }
}

async function startServer(name) {
  const server = start('servers.mjs', name, 'cookie');
  return { server, ...(await hear(server)) };
}

/** Their cookies. @param isOne whether all are one person's. */
async function makeSessions({ server }, count, isOne = false) {
  return (await ask(server, ['sessions', count, isOne])).cookies;
}

function startClients(count) {
  return Array.from({ length: count }, () => start('peers.mjs'));
}

/** Opens a socket for each of the sessions. */
async function open({ port }, clients, cookies) {
  const handshakes = cookies.map((cookie) => upgrade([`Cookie: ${cookie}`]));
  const share = Math.ceil(handshakes.length / clients.length);
  const shares = clients.map((_, i) => handshakes.slice(i * share, (i + 1) * share));
  await Promise.all(clients.map((client, i) => ask(client, ['open', port, shares[i]])));
}

async function hold({ server, port }, cookies) {
  const clients = startClients(2);
  const empty = await ask(server, ['heap']);
  await open({ port }, clients, cookies);
  const full = await ask(server, ['heap']);
  const before = await ask(server, ['spent']);
  await delay(IDLE * 1000);
  const after = await ask(server, ['spent']);
  return { bytes: (full.heap - empty.heap) / cookies.length, idle: (after.spent - before.spent) / 1000 };
}
