import type { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { requestTarget } from '../http.js';
import { ignore, refuseNotFound } from './refusal.js';

export type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

interface Endpoint {
  readonly path: string | undefined;
  readonly upgrade: Upgrade;
}

/** One listener a server, so that several endpoints share it and what nobody takes is answered. */
const endpoints = new WeakMap<EventEmitter, Set<Endpoint>>();

/** Sends a server's upgrades of a path, or of all that no other endpoint before it takes, to a function. */
export function addEndpoint(server: EventEmitter, path: string | undefined, upgrade: Upgrade): () => void {
  const known = endpoints.get(server) ?? listen(server);
  if ([...known].some((other) => other.path === path)) {
    throw new TypeError(`the server has sockets at ${path ?? 'every path'} already: give these a path of their own`);
  }
  const endpoint = { path, upgrade };
  known.add(endpoint);
  return () => known.delete(endpoint);
}

function listen(server: EventEmitter): Set<Endpoint> {
  const known = new Set<Endpoint>();
  endpoints.set(server, known);
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', ignore);
    const { path } = requestTarget(request);
    const endpoint = [...known].find((candidate) => candidate.path === undefined || candidate.path === path);
    if (endpoint) endpoint.upgrade(request, socket, head);
    // Somebody else's listener may know the path.
    else if (server.listenerCount('upgrade') === 1) refuseNotFound(socket);
  });
  return known;
}
