import { setImmediate as turn } from 'node:timers/promises';

/** When something is due that is done now and then, as part of other work, so that no timer keeps the process alive. */
export class Pace {
  readonly #every: number;
  #last = Number.NEGATIVE_INFINITY;

  constructor(every: number) {
    this.#every = every;
  }

  /** Whether it is due, also after the clock was put back as far; then it counts as done. */
  isDue(now: number): boolean {
    if (Math.abs(now - this.#last) < this.#every) return false;
    this.#last = now;
    return true;
  }
}

/** How many are dealt with before something else has its turn. */
const CHUNK = 500;

/** Does something with each, and lets other work go on now and then. */
export async function inTurns<T>(all: readonly T[], work: (one: T) => void): Promise<void> {
  for (const [i, one] of all.entries()) {
    work(one);
    if (i % CHUNK === CHUNK - 1) await turn();
  }
}

const MINUTE = 60_000;

/** What is to be done for each name once a minute at most. Instants are milliseconds. */
export class Minutely {
  readonly #done = new Map<string, number>();
  readonly #pruning = new Pace(MINUTE);

  /** Whether it is due for that name; then it counts as done. */
  isDue(name: string, now: number): boolean {
    if (!isOver(this.#done.get(name), now)) return false;
    if (this.#pruning.isDue(now)) {
      for (const [other, done] of this.#done) if (isOver(done, now)) this.#done.delete(other);
    }
    this.#done.set(name, now);
    return true;
  }
}

function isOver(done = Number.NEGATIVE_INFINITY, now: number): boolean {
  return Math.abs(now - done) >= MINUTE;
}
