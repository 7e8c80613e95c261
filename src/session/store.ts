/** Something that a store remembers until it expires. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly expires: Date;
}

/**
 * What has to be remembered beside the cookies: spent responses, ended sessions, tickets and tokens. Keys are hashes or
 * random handles, so that whoever reads a store gets no session from it. Implementations share one test suite.
 */
export interface Store {
  /** A random text, made at the store's birth. A session of another mark is refused, so nothing ended comes back. */
  mark(): Promise<string>;
  /** The next number of one counter: larger at each call. */
  next(): Promise<number>;
  /** Uses a key up: true the first time, and false from then on until it expires. Atomic. */
  spend(key: string, expires: Date): Promise<boolean>;
  /** Keeps a value until it expires, in place of what the key had. All who subscribed are told, this process too. */
  put(key: string, value: string, expires: Date): Promise<void>;
  /** What the key has; never what has expired. */
  get(key: string): Promise<string | undefined>;
  /** Gets and deletes, atomically: of several callers one gets it. */
  take(key: string): Promise<string | undefined>;
  /** Forgets a key, if it is there. Nobody is told. */
  delete(key: string): Promise<void>;
  /** All live entries whose keys begin so. */
  list(prefix: string): Promise<Entry[]>;
  /** Calls back on each `put` from now on, by whichever process. Returns a function that ends it. */
  subscribe(onChange: (entry: Entry) => void): Promise<() => void>;
  close(): Promise<void>;
}
