// Processor time, not the clock's, so that other work on the machine matters little.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
/** Before each sample, so that nobody clears up after another. */
const collectGarbage = runInNewContext('gc');

// Microseconds of processor time.
const WARM_UP = 400_000;
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
 * @returns the samples by name, one a round.
 */
export async function interleave(contenders, rounds) {
  const rates = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    const order = Object.entries(contenders);
    for (const [name, { sample }] of round % 2 ? order.reverse() : order) rates[name].push(await sample());
  }
  return rates;
}

/** How many times as fast the first is: the median of what each round says. */
export function ratio(rates, first, second) {
  return median(rates[first].map((rate, round) => rate / rates[second][round]));
}

/** A contender that is a function of this process, which says whether it did its work. */
export async function inProcess(name, run) {
  const work = run();
  const repeat = work instanceof Promise ? repeatAsync : repeatSync;
  if ((await work) !== true) throw new Error(`${name} does not do its work`);
  let times = 8;
  let time = 0;
  // Long enough for the compiler to be done with it.
  while (time < WARM_UP) {
    times *= 2;
    time = await repeat(run, times);
  }
  times = Math.max(1, Math.round((times * SAMPLE) / time));
  return { sample: async () => times / (Math.max(1, await repeat(run, times)) / 1e6) };
}

function repeatSync(run, times) {
  collectGarbage({ type: 'minor' });
  const before = spent();
  for (let i = 0; i < times; i++) run();
  return spent() - before;
}

async function repeatAsync(run, times) {
  collectGarbage({ type: 'minor' });
  const before = spent();
  for (let i = 0; i < times; i++) await run();
  return spent() - before;
}
