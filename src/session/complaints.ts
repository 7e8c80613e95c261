// Milliseconds.
const REPEAT_AFTER = 3_600_000;
const MAX_REASONS = 100;

/** Reports why a store cannot be used: each reason once an hour, and again after the store could be used. */
export class Complaints {
  readonly #report: (message: string) => void;
  /** Times of the last reports, by reason: milliseconds. */
  readonly #reported = new Map<string, number>();

  constructor(report: (message: string) => void) {
    this.#report = report;
  }

  /** Whether a reason was reported since the store could be used. */
  get haveReason(): boolean {
    return this.#reported.size > 0;
  }

  /** @param what what failed, as the beginning of the message. */
  add(what: string, { message }: Error): void {
    const now = performance.now();
    const last = this.#reported.get(message);
    if (last !== undefined && now - last < REPEAT_AFTER) return;
    // Messages may hold numbers and addresses: they are not kept without end.
    if (this.#reported.size >= MAX_REASONS) this.#reported.clear();
    this.#reported.set(message, now);
    this.#report(`${what}: ${message}`);
  }

  /** Reports the reasons anew from now on. */
  clear(): void {
    this.#reported.clear();
  }
}
