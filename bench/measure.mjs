// Processor time, not the clock's, so that other work on the machine matters little.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
/** Before each sample, so that nobody clears up after another. */
const collectGarbage = runInNewContext('gc');

/** Clears up all there is. @returns bytes in use. */
export function collectAll() {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

// Microseconds of processor time.
const WARM_UP = 200_000;
const SAMPLE = 25_000;

/** Microseconds that this process has spent. */
export function spent() {
  const { user, system } = process.cpuUsage();
  return user + system;
}

export function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
}

/**
 * Runs everything once a round, forwards and backwards in turn, so that no contender has a better time of it.
 * @param contenders by name; `sample()` gives operations per second of processor time.
 * @param most how many rounds, and for how many seconds: a busy machine gets through fewer rounds.
 * @returns the samples by name, one a round.
 */
export async function interleave(contenders, most) {
  const order = Object.entries(contenders);
  const rates = Object.fromEntries(order.map(([name]) => [name, []]));
  const end = Date.now() + most.seconds * 1000;
  for (let round = 0; round < most.rounds && (round < 5 || Date.now() < end); round++) {
    for (const [name, { sample }] of order) rates[name].push(await sample());
    order.reverse();
  }
  return rates;
}

/** A row of the table: how many times as fast the first is, as the median of what each round says. */
export function compare(rates, first, second, { goal, chart, note }) {
  const value = median(rates[first].map((rate, round) => rate / rates[second][round]));
  return { first, second, goal, chart, note, value };
}

/** These names, the slowest first. */
export function bySpeed(rates, names) {
  return [...names].sort((a, b) => median(rates[a]) - median(rates[b]));
}

/**
 * A contender that is a function of this process, which says whether it did its work.
 * @param timing microseconds of warming up, and of each sample.
 */
export async function inProcess(name, run, { warmUp = WARM_UP, sample = SAMPLE } = {}) {
  const repeat = run() instanceof Promise ? repeatAsync : repeatSync;
  const time = async (times) => {
    collectGarbage({ type: 'minor' });
    const before = spent();
    if (!(await repeat(run, times))) throw new Error(`${name} does not do its work`);
    return Math.max(1, spent() - before);
  };
  let times = 8;
  let taken = 0;
  // Long enough for the compiler to be done with it.
  while (taken < warmUp) {
    times *= 2;
    taken = await time(times);
  }
  times = Math.max(1, Math.round((times * sample) / taken));
  return { sample: async () => times / ((await time(times)) / 1e6) };
}

function repeatSync(run, times) {
  let done = true;
  for (let i = 0; i < times; i++) done = run() && done;
  return done;
}

async function repeatAsync(run, times) {
  let done = true;
  for (let i = 0; i < times; i++) done = (await run()) && done;
  return done;
}
