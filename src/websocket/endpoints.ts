import type { EventEmitter } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { requestTarget } from '../http.js';
import { OtherListeners } from './other-listeners.js';
import {
  abortWith,
  declineOtherProtocols,
  offersWebSocket,
  responseOn,
  serveWithoutUpgrade,
} from './other-protocols.js';
import { endConnection, ignore, refuseNotFound } from './refusal.js';

/** @param others the server's other upgrade listeners, which may answer too. */
type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer, others: OtherListeners) => void;

/** A path of a server, and the handler of its upgrade requests. */
export interface Endpoint {
  /** Every path, if undefined. */
  readonly path: string | undefined;
  readonly upgrade: Upgrade;
  /** Time that a request for another path may wait for another listener: seconds. */
  readonly unclaimedTimeout: number;
  /** Logs an upgrade request for a path without an endpoint; absent outside of development. */
  readonly logUnknownPath?: ((message: string) => void) | undefined;
}

/** Most paths without an endpoint that are logged, each once. */
const MAX_LOGGED = 20;

const routers = new WeakMap<EventEmitter, UpgradeRouter>();

/**
 * Sends a server's upgrade requests for a path to a handler. Without a path, the handler gets every request that no
 * endpoint before it takes.
 *
 * @returns a function that removes the endpoint.
 * @throws TypeError if the server has an endpoint at that path.
 */
export function addEndpoint(server: EventEmitter, endpoint: Endpoint): () => void {
  const router = routers.get(server) ?? new UpgradeRouter(server);
  routers.set(server, router);
  return router.add(endpoint);
}

/** Listens for a server's upgrade requests: one listener for all endpoints. */
class UpgradeRouter {
  readonly #server: EventEmitter;
  readonly #endpoints = new Set<Endpoint>();
  readonly #others: OtherListeners;
  readonly #loggedPaths = new Set<string>();
  #unclaimedTimeout = 0;

  constructor(server: EventEmitter) {
    const others = new OtherListeners(server, 2);
    this.#server = server;
    this.#others = others;
    server.prependListener('upgrade', (_: IncomingMessage, socket: Duplex) => others.noteArrival(socket));
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#route(request, socket, head),
    );
    declineOtherProtocols(server, others);
  }

  add(endpoint: Endpoint): () => void {
    const { path, unclaimedTimeout } = endpoint;
    if ([...this.#endpoints].some((other) => other.path === path)) {
      throw new TypeError(`the server has sockets at ${path ?? 'every path'} already: give these a path of their own`);
    }
    this.#endpoints.add(endpoint);
    this.#unclaimedTimeout = Math.max(this.#unclaimedTimeout, unclaimedTimeout);
    return () => this.#endpoints.delete(endpoint);
  }

  #route(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', ignore);
    const earlier = earlierResponse(request, socket);
    if (earlier === undefined) return this.#routeFirst(request, socket, head);
    if (!earlier.writableEnded) return endBehind(earlier, socket);
    // The client may have all of it: over TLS, Node may report the end of a write after the next request.
    earlier.once('finish', () => {
      const next = earlierResponse(request, socket);
      if (next) return endBehind(next, socket);
      if (!socket.writable) return;
      // Node has just limited how long the connection may wait for another request.
      (socket as Socket).setTimeout((this.#server as Server).timeout ?? 0);
      this.#routeFirst(request, socket, head);
    });
  }

  /** Routes an upgrade request that is behind no other. */
  #routeFirst(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const others = this.#others;
    if (others.haveAnswered(socket)) return;
    if (!offersWebSocket(request)) {
      return others.serveUnlessAnswered(socket, () => serveWithoutUpgrade(this.#server, request, socket as Socket));
    }
    const { path } = requestTarget(request);
    const endpoint = this.#find(path);
    if (endpoint) return endpoint.upgrade(request, socket, head, others);
    if (others.exist) return others.leaveToThem(socket, this.#unclaimedTimeout, () => this.#logUnknown(path));
    this.#logUnknown(path);
    refuseNotFound(socket);
  }

  #logUnknown(path: string): void {
    const endpoints = [...this.#endpoints];
    const log = endpoints.find(({ logUnknownPath }) => logUnknownPath)?.logUnknownPath;
    if (log === undefined || this.#loggedPaths.size >= MAX_LOGGED || this.#loggedPaths.has(path)) return;
    this.#loggedPaths.add(path);
    const known = endpoints.map((endpoint) => endpoint.path).join(', ');
    log(
      `404 for a WebSocket handshake at ${JSON.stringify(withoutSecrets(path).slice(0, 100))}: no endpoint has that path. Endpoints of this server: ${known}.`,
    );
  }

  #find(path: string): Endpoint | undefined {
    return [...this.#endpoints].find((endpoint) => endpoint.path === undefined || endpoint.path === path);
  }
}

/** Replaces runs of letters and digits that may be tickets or tokens: an encoded `?` makes a query part of the path. */
function withoutSecrets(path: string): string {
  return path.replace(/[\w.~-]{40,}/g, '…');
}

/** Returns the response to an earlier request of the connection (pipelining), until it was sent. */
function earlierResponse(request: IncomingMessage, socket: Duplex): ServerResponse | undefined {
  const response = responseOn(socket);
  // A response to this request is of another listener, such as that of @fastify/websocket.
  return response?.req === request ? undefined : response;
}

/**
 * Closes a connection on which an upgrade request is behind an earlier response: an answer would come before that response,
 * or in the middle of it. Clients repeat pipelined requests (RFC 9112, 9.3.2).
 */
function endBehind(earlier: ServerResponse, socket: Duplex): void {
  abortWith(socket, earlier.req);
  endConnection(socket);
}
