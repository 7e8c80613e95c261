import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/**
 * What happens to what is sent: it passes, perhaps after so many milliseconds; it is held back, in both directions
 * (`silent`), or only where a SUBSCRIBE was sent (`deaf`); or nobody can connect.
 */
export type Mode = 'pass' | 'silent' | 'deaf' | 'refuse' | { readonly delay: number };

interface Wire {
  readonly ends: readonly [Socket, Socket];
  subscribed: boolean;
  /** What passes once the mode lets it. */
  held: (() => void)[];
}

/** A network between a client and a server, which can be broken. It is gone when the test is over. */
export class TcpProxy {
  readonly #server: Server;
  readonly #wires = new Set<Wire>();
  readonly #port: number;
  #mode: Mode = 'pass';
  /** How many pieces are on their way. */
  delayed = 0;
  /** How many connections there were. */
  accepted = 0;

  private constructor(server: Server, target: number) {
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#connect(client, target));
    onTestFinished(() => {
      this.cut();
      server.close();
    });
  }

  static async to(port: number, mode: Mode = 'pass'): Promise<TcpProxy> {
    const server = createServer();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const proxy = new TcpProxy(server, port);
    await proxy.set(mode);
    return proxy;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#port}`;
  }

  /** How many connections there are. */
  get open(): number {
    return this.#wires.size;
  }

  /** What was held back comes through now, as far as the mode lets it. */
  async set(mode: Mode): Promise<void> {
    const wasClosed = this.#mode === 'refuse';
    this.#mode = mode;
    if (mode === 'refuse' && !wasClosed) this.#server.close();
    if (mode !== 'refuse' && wasClosed) await once(this.#server.listen(this.#port, '127.0.0.1'), 'listening');
    for (const wire of this.#wires) for (const send of wire.held.splice(0)) this.#pass(wire, send);
  }

  /** Ends all connections. */
  cut(): void {
    for (const { ends } of this.#wires) for (const socket of ends) socket.destroy();
  }

  #connect(client: Socket, target: number): void {
    const server = connect(target, '127.0.0.1');
    const wire: Wire = { ends: [client, server], subscribed: false, held: [] };
    this.#wires.add(wire);
    this.accepted += 1;
    client.on('data', (chunk) => {
      wire.subscribed ||= /\r\nsubscribe\r\n/i.test(chunk.toString('latin1'));
      this.#pass(wire, () => server.write(chunk));
    });
    server.on('data', (chunk) => this.#pass(wire, () => client.write(chunk)));
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket
        .on('error', () => {})
        .on('close', () => {
          other.destroy();
          this.#wires.delete(wire);
        });
    }
  }

  #pass(wire: Wire, send: () => void): void {
    const mode = this.#mode;
    if (mode === 'silent' || (mode === 'deaf' && wire.subscribed)) wire.held.push(send);
    else if (typeof mode === 'object') this.#delay(send, mode.delay);
    else send();
  }

  #delay(send: () => void, time: number): void {
    this.delayed += 1;
    const arrive = () => {
      this.delayed -= 1;
      send();
    };
    setTimeout(arrive, time).unref();
  }
}
