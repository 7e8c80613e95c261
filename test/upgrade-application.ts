import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { onTestFinished } from 'vitest';
import { WebSocketServer } from 'ws';
import { makeCertificate } from '../src/cli/certificate.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type AcceptOptions, acceptUpgrades } from '../src/websocket/index.js';
import { clock, secret, wls } from './site.js';

/** A server of one test, its open connections, and an application that accepts sockets at `/live` unless told otherwise. */
export interface UpgradeApplication {
  readonly server: Server;
  readonly port: number;
  readonly origin: string;
  readonly waa: WAA;
  readonly wss: WebSocketServer;
  /** Server sides of the connections that are open. */
  readonly connections: Set<Duplex>;
}

export interface UpgradeSetup {
  readonly accept?: AcceptOptions;
  /** Registers upgrade listeners before those of the library. */
  readonly before?: (server: Server) => void;
  /** Registers upgrade listeners after those of the library. */
  readonly after?: (server: Server) => void;
  /** Makes the request listener; the server has none otherwise. */
  readonly serve?: (waa: WAA) => RequestListener;
  readonly secure?: boolean;
}

export const certificate: ReturnType<typeof makeCertificate> = makeCertificate(['localhost']);

/** Starts a server that ends with the test. */
export async function startUpgrades(setup: UpgradeSetup = {}): Promise<UpgradeApplication> {
  const { accept = { path: '/live' }, before, after, serve, secure = false } = setup;
  const server = secure ? (createSecureServer(certificate) as unknown as Server) : createServer();
  const connections = new Set<Duplex>();
  server.on(secure ? 'secureConnection' : 'connection', (socket: Socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const origin = `http${secure ? 's' : ''}://localhost:${port}`;
  const waa = createWAA({ baseUrl: origin, secret, wls: wls.profile, now: clock.now, log: () => {} });
  if (serve) server.on('request', serve(waa));
  const wss = new WebSocketServer({ noServer: true });
  before?.(server);
  acceptUpgrades(server, wss, waa, accept);
  after?.(server);
  onTestFinished(async () => {
    for (const socket of connections) socket.destroy();
    server.close();
    await waa.close();
  });
  return { server, port, origin, waa, wss, connections };
}

/** Reads a connection to its end. */
export async function readAll(socket: Duplex): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}
