import { text } from 'node:stream/consumers';
import type { ClientOptions, WebSocket } from 'ws';
import type { Packages } from '../packages.js';
import type { Seen } from './types.js';

/** Opens a socket as a program does: with whatever headers it likes; and it gets to see every answer. */
export async function openAsProgram(packages: Packages, url: string, options: ClientOptions): Promise<Seen> {
  const socket = new packages.WebSocket(url, { handshakeTimeout: 5000, ...options });
  try {
    return await see(socket);
  } finally {
    socket.terminate();
  }
}

function see(socket: WebSocket): Promise<Seen> {
  let opened = false;
  return new Promise((resolve) => {
    const closed = (code: number, reason: string) => resolve({ opened, code, reason });
    socket.on('open', () => {
      opened = true;
    });
    socket.on('message', (data) => resolve({ opened, said: String(data) }));
    socket.on('close', (code, reason) => closed(code, String(reason)));
    socket.on('error', ({ message }) => closed(1006, message));
    socket.on('unexpected-response', async (_, response) => {
      const body = await text(response).catch(() => '');
      resolve({ opened, status: response.statusCode ?? 0, error: codeIn(body) });
    });
  });
}

function codeIn(body: string): string {
  return /"code":"(\w+)"/.exec(body)?.[1] ?? '';
}
