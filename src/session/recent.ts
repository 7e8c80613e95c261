/** How many are kept at least; at most twice as many. */
const MOST = 500;

/** What texts stand for that came lately, where finding that out takes long. What did not come for long is forgotten. */
export class Recent<V> {
  #young = new Map<string, V>();
  #old = new Map<string, V>();

  get(text: string): V | undefined {
    const young = this.#young.get(text);
    if (young !== undefined) return young;
    const old = this.#old.get(text);
    if (old !== undefined) this.set(text, old);
    return old;
  }

  set(text: string, value: V): void {
    if (this.#young.size >= MOST) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(text, value);
  }
}
