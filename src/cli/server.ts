import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import type { Certificate } from './certificate.js';

/** A server that this machine alone can reach. */
export interface LocalServer {
  readonly server: Server;
  readonly origin: string;
  close(): void;
}

/** Listens on a port, or on a free one if it is 0; with a certificate, on https. */
export async function startServer(port: number, certificate: Certificate | undefined): Promise<LocalServer> {
  const server = certificate ? createTlsServer({ ...certificate }) : createServer();
  const connections = collectConnections(server);
  await once(server.listen(port, '127.0.0.1'), 'listening');
  return {
    server,
    origin: `${certificate ? 'https' : 'http'}://localhost:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      for (const connection of connections) connection.destroy();
    },
  };
}

/** All that are open, also those that have said nothing so far: those a server on https does not close by itself. */
function collectConnections(server: Server): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  return open;
}
