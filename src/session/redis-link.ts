import { createClient } from 'redis';
import { isText } from '../options.js';
import { addressOf, diagnose, isDiagnosed, Refusal } from './redis-reasons.js';

// Milliseconds.
const PATIENCE = 2000;
const BEACON_EVERY = 1000;

const BEACONS_UNHEARD = 4;
/** How many questions may wait for their answers. */
const QUEUE = 10_000;

/** Where it leads, and as whom. */
export interface LinkOptions {
  readonly url: string;
  readonly username?: string;
  readonly password?: string;
}

/**
 * Two connections: one is asked, the other one listens. Whatever goes wrong with either ends both, and there is no way
 * back: what begins anew cannot be half alive.
 */
export class Link {
  readonly #address: ReturnType<typeof addressOf>;
  readonly #commands: Client;
  readonly #listening: Client;
  readonly #beacon: string;
  /** Where the store has its mark, and what that was. */
  readonly #mark: string;
  #marked: unknown;
  /** When the beacons were sent that were not heard yet, by what they say. */
  readonly #unheard = new Map<string, number>();
  readonly #waiting = new Set<(why: Error) => void>();
  /** Clients that have a connection. */
  readonly #made = new Set<Client>();
  #timer: NodeJS.Timeout | undefined;
  #count = 0;
  #ended = (_: Error): void => {};
  readonly ended: Promise<Error>;
  over: Error | undefined;
  /** All subscribers know what they have missed. */
  caughtUp = false;

  /** @param beacon a channel of this link alone. @param mark the key that is there for as long as any is. */
  constructor(options: LinkOptions, beacon: string, mark: string) {
    this.#address = addressOf(options);
    this.#beacon = beacon;
    this.#mark = mark;
    this.ended = new Promise((resolve) => {
      this.#ended = resolve;
    });
    [this.#commands, this.#listening] = [connectable(options), connectable(options)];
    for (const client of [this.#commands, this.#listening]) {
      // A connection that is being made cannot be ended, and should not keep the process alive.
      client.on('connect', () => this.#connected(client)).unref();
      client.on('error', this.end).on('end', () => this.end(new Error('the connection has ended')));
    }
  }

  /**
   * @param heard is told when a beacon was sent that has come back just now. What was published before it has come too,
   *   since Redis keeps the order; and a connection that only looks healthy brings none.
   */
  async open(heard: (sent: number) => void): Promise<void> {
    await this.#bounded(Promise.all([this.#commands.connect(), this.#listening.connect()]));
    const info = await this.info();
    if (info('redis_mode') === 'sentinel') throw new Refusal(isSentinel);
    if (info('role') !== 'master')
      throw new Error('it is a replica, which takes no writes. Give the url of the primary');
    if (info('maxmemory_policy') !== 'noeviction') throw new Refusal(evicts(info('maxmemory_policy')));
    await this.listen(this.#beacon, (message) => {
      const sent = this.#unheard.get(message);
      if (sent === undefined) return;
      this.#unheard.clear();
      heard(sent);
    });
    if (!this.over) this.#timer = setInterval(() => this.#sendBeacon(), BEACON_EVERY).unref();
  }

  /** Asks Redis something: settled soon, whatever happens. */
  async ask<T>(question: (redis: Client) => Promise<T>): Promise<T> {
    if (this.over) throw this.over;
    try {
      return await this.#bounded(question(this.#commands));
    } catch (error) {
      // It was made a replica.
      if (error instanceof Error && error.message.includes('READONLY')) this.end(error);
      throw isDiagnosed(error) ? diagnose(error as Error, this.#address) : error;
    }
  }

  async run(script: string, keys: string[], args: string[]): Promise<unknown> {
    return this.ask((redis) => redis.eval(script, { keys, arguments: args }));
  }

  /** What Redis says of itself, by name. */
  async info(): Promise<(name: string) => string> {
    const info = await this.ask((redis) => redis.info());
    const facts = new Map(info.split('\r\n').map((line) => line.split(':', 2) as [string, string]));
    return (name) => {
      const fact = facts.get(name);
      if (fact === undefined) throw new Refusal(`this Redis does not say what its ${name} is, which has to be known`);
      return fact;
    };
  }

  /** Whether all that was ever confirmed is on the disk. */
  async writesAtOnce(): Promise<boolean> {
    // Not every user may ask this.
    const config: Record<string, string> = await this.ask((redis) => redis.configGet('*appendfsync*')).catch(
      () => ({}),
    );
    return config['appendfsync'] === 'always' && config['no-appendfsync-on-rewrite'] === 'no';
  }

  async listen(channel: string, listener: Listener): Promise<void> {
    if (this.over) throw this.over;
    await this.#bounded(this.#listening.subscribe(channel, listener));
  }

  leave(channel: string, listener: Listener): void {
    if (!this.over) this.#bounded(this.#listening.unsubscribe(channel, listener)).catch(this.end);
  }

  readonly end = (why: Error): void => {
    if (this.over) return;
    const over = diagnose(why, this.#address);
    this.over = over;
    clearInterval(this.#timer);
    for (const fail of this.#waiting) fail(over);
    for (const client of this.#made) destroy(client);
    this.#ended(over);
  };

  #connected(client: Client): void {
    if (this.over) return destroy(client);
    this.#made.add(client);
    client.ref();
  }

  #sendBeacon(): void {
    // Counted, not timed: a process that stood still has not listened either.
    if (this.#unheard.size >= BEACONS_UNHEARD) return this.end(new Error('it does not tell of changes any more'));
    this.#count += 1;
    const message = String(this.#count);
    this.#unheard.set(message, performance.now());
    // One that is not sent is not heard either.
    this.run(beaconScript, [this.#mark], [this.#beacon, message]).then(
      (mark) => this.checkMark(mark),
      () => {},
    );
  }

  /** Ends the link if the store generation is not the one that was reported first: all subscribers have to catch up. */
  checkMark(mark: unknown): void {
    if (isText(this.#marked) && mark !== this.#marked) this.end(new Error('it has lost its memory'));
    this.#marked = mark;
  }

  /** The client's own timeouts do not bound the time that a reply takes. */
  async #bounded<T>(answer: Promise<T>): Promise<T> {
    let fail = (_: Error): void => {};
    const over = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const late = () => this.end(new Error(`it has not answered for ${PATIENCE / 1000} seconds`));
    const timer = setTimeout(late, PATIENCE);
    this.#waiting.add(fail);
    try {
      return await Promise.race([answer, over]);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(fail);
    }
  }
}

type Client = ReturnType<typeof connectable>;
type Listener = (message: string) => void;

/** For scripts: whether a replica was connected within the last hour (`repl-backlog-ttl`), and so may have the data. */
export const hasReplicas = `string.find(redis.call('INFO', 'replication'), 'repl_backlog_active:1', 1, true)`;

// A replica is told, while it is connected, that its data is not complete after a restart.
const beaconScript = `
  redis.call('PUBLISH', ARGV[1], ARGV[2])
  if ${hasReplicas} and redis.call('HGET', KEYS[1], 'durable') == '1' then
    redis.call('HSET', KEYS[1], 'durable', '0')
  end
  return redis.call('HGET', KEYS[1], 'mark')`;

/** A client that does nothing by itself: it neither waits, nor tries again, nor keeps anything for later. */
function connectable({ url, username, password }: LinkOptions) {
  return createClient({
    url,
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    socket: { reconnectStrategy: false, connectTimeout: PATIENCE },
    disableOfflineQueue: true,
    commandsQueueMaxLength: QUEUE,
    commandOptions: { timeout: 0 },
    maintNotifications: 'disabled',
    disableClientInfo: true,
  });
}

/** Ends a client. Version 5 throws where the connection is closed already. */
function destroy(client: Client): void {
  if (client.isOpen) client.destroy();
}

const isSentinel =
  'Redis cannot be used: this is a Sentinel, which stores nothing. Give the url of the primary that it watches (SENTINEL GET-MASTER-ADDR-BY-NAME)';

function evicts(policy: string): string {
  return (
    `this Redis may forget which sessions were ended: its maxmemory-policy is ${policy}. ` +
    'Run CONFIG SET maxmemory-policy noeviction, and write maxmemory-policy noeviction into its redis.conf. ' +
    'Where a provider forbids CONFIG, set it in the settings of the service (its parameter group or configuration)'
  );
}
