/** How often each thing came. */
export class Tally<K extends string | number> {
  readonly #counts = new Map<K, number>();

  add(what: K, times = 1): void {
    this.#counts.set(what, this.count(what) + times);
  }

  count(what: K): number {
    return this.#counts.get(what) ?? 0;
  }

  get total(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  /** The most frequent first. */
  entries(): [K, number][] {
    return [...this.#counts].sort(([, a], [, b]) => b - a);
  }
}

/** What is wrong, if anything is. */
export class Report {
  readonly findings: string[] = [];

  /** More would say the same. */
  get isFull(): boolean {
    return this.findings.length >= 20;
  }
}
