/** Something that a store remembers until it expires. */
export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly expires: Date;
}

/** Who is told of changes. */
export interface Subscriber {
  /** An entry was put, by whichever process; of two for one key, the later one comes later. May come twice. */
  changed(entry: Entry): void;
  /**
   * Changes may have been missed, as at the beginning. Called once nothing more can be; it lists what there is. If it
   * rejects, it is called again later.
   */
  missed(): Promise<void>;
}

/**
 * What has to be remembered beside the cookies: spent responses, ended sessions, tickets and tokens. Keys are hashes, and
 * values that say something are sealed, so that whoever reads a store gets no session from it. The part of a key before
 * its last colon is its folder; a key without a colon is in none. Implementations share one test suite.
 *
 * A promise rejects, with a sentence for the log, where the store fails; each is settled within a few seconds.
 */
export interface Store {
  /**
   * A random text, made at the store's birth. A session of another mark is refused, so nothing ended comes back.
   * @param known the mark that the caller knew before. A store that has lost its own, or cannot say whether it forgot
   *   something, takes this one over: what the caller knew was put again by then. Without one it makes a new one.
   */
  mark(known?: string): Promise<string>;
  /** The next number of one counter: larger at each call, and larger than `seen`, also after a loss of data. */
  next(seen?: number): Promise<number>;
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
  /** All live entries of a folder, without those of folders in it. */
  list(folder: string): Promise<Entry[]>;
  /**
   * Tells of each `put` in a folder from now on, by whichever process.
   * @returns a function that ends it, once `missed` was called and has resolved for the first time.
   * @throws TypeError if the store cannot be used as it is configured.
   */
  subscribe(folder: string, subscriber: Subscriber): Promise<() => void>;
  /**
   * For how long subscribers may have been told nothing: milliseconds. 0 where they know everything, after they were told
   * just now if need be; infinite before they first did. Called for each request.
   */
  lag(): number;
  close(): Promise<void>;
}

/** The folder that a key is in; undefined if it is in none. */
export function folderOf(key: string): string | undefined {
  const colon = key.lastIndexOf(':');
  return colon < 0 ? undefined : key.slice(0, colon);
}
