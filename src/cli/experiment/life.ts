import type { IncomingMessage } from 'node:http';
import type { Server } from 'node:net';
import type { WebSocket } from 'ws';
import { WebauthError } from '../../errors.js';
import type { WAA } from '../../waa.js';
import { acceptUpgrades } from '../../websocket/index.js';
import type { Packages } from '../packages.js';
import { idIn, type Wires } from './wire.js';

/** What can be done to a socket from outside. */
export type Deed = 'end' | 'drop';

interface Open {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
}

/** Sockets whose life a page watches. Each lives by a session that was begun for it. */
export class Lives {
  readonly #waa: WAA;
  readonly #open = new Map<string, Open>();

  constructor(server: Server, waa: WAA, wires: Wires, packages: Packages) {
    this.#waa = waa;
    const wss = new packages.WebSocketServer({ noServer: true, maxPayload: 1024 });
    wires.listen(server);
    acceptUpgrades(server, wss, waa, {
      path: '/experiment/life',
      credentials: ['query'],
      ptags: [],
      maxPerPrincipal: 20,
    });
    wss.on('connection', (socket, request) => this.#begin(socket, request));
  }

  /** Resolves to whether there is such a socket, of this person. */
  async act(deed: Deed, id: string, principal: string): Promise<boolean> {
    const found = this.#open.get(id);
    const auth = found?.request.auth;
    if (found === undefined || auth?.principal !== principal) return false;
    if (deed === 'drop') found.socket.terminate();
    else await this.#waa.endSession(auth);
    return true;
  }

  #begin(socket: WebSocket, request: IncomingMessage): void {
    const id = idIn(request.url ?? '') ?? '';
    this.#open.set(id, { socket, request });
    socket.on('error', () => {});
    socket.on('close', () => {
      if (this.#open.get(id)?.socket === socket) this.#open.delete(id);
    });
    socket.on('message', async (data) => socket.send(JSON.stringify(await renew(request, String(data)))));
  }
}

/** A page of ours says nothing else. */
async function renew({ auth }: IncomingMessage, text: string): Promise<object> {
  try {
    await auth?.renew?.(JSON.parse(text).ticket);
    return { type: 'renewed', expires: auth?.expires };
  } catch (error) {
    return { type: 'not renewed', code: error instanceof WebauthError ? error.code : 'not understood' };
  }
}
