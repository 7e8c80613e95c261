const MINUTE = 60_000;

/** What is to be done for each name once a minute at most. Instants are milliseconds. */
export class Minutely {
  readonly #done = new Map<string, number>();
  #pruned = 0;

  /** Whether it is due for that name; then it counts as done. */
  isDue(name: string, now: number): boolean {
    if (Math.abs(now - (this.#done.get(name) ?? Number.NEGATIVE_INFINITY)) < MINUTE) return false;
    this.#prune(now);
    this.#done.set(name, now);
    return true;
  }

  #prune(now: number): void {
    if (Math.abs(now - this.#pruned) < MINUTE) return;
    this.#pruned = now;
    for (const [name, done] of this.#done) if (Math.abs(now - done) >= MINUTE) this.#done.delete(name);
  }
}
