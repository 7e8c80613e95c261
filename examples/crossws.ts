// Sockets of another package than ws, which has upgrades of its own: crossws. docs/other-servers.md says what has to be
// right there.
//
//   npm install crossws
//   NODE_ENV=development npx tsx examples/crossws.ts
import { createServer, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { defineHooks, type Peer } from 'crossws';
import crossws from 'crossws/adapters/node';
import express from 'express';
import { type Auth, createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { authenticateUpgrade, refuseUpgrade, type UpgradeOptions } from 'ucam-webauth/websocket';
import { createWLS } from 'ucam-webauth/wls';

declare module 'crossws' {
  interface PeerContext {
    auth: Auth;
    stop: () => void;
  }
}

const OPEN = 1;
const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile });
const auth = webauth(waa);
const app = express().use(auth);
app.get('/', auth.require(), (request, response) => response.send(`Hello, ${request.auth?.principal}.`));
app.post('/token', auth.require(), async (request, response) => {
  const { principal = '', ptags = [] } = request.auth ?? {};
  const { token } = await waa.tokens.create({ principal, ptags, name: 'live', ttl: 3600, scopes: ['live'] });
  response.send(token);
});
app.use(auth.failurePage);

const hooks = defineHooks({
  open(peer) {
    peer.subscribe('everybody');
    const { auth } = peer.context;
    peer.context.stop = waa.watch(auth, (error) => peer.close(error.closeCode, error.code));
    peer.send(`Hello, ${auth.principal}.`);
  },
  message(peer, message) {
    // What arrives after we have closed is not from somebody who is logged in.
    if (peer.websocket.readyState !== OPEN) return;
    for (const other of peer.peers) if (isDeaf(other)) other.terminate();
    sockets.publish('everybody', `${peer.context.auth.principal}: ${message.text()}`);
  },
  close: (peer) => peer.context.stop(),
});
// The first subprotocol that the client offers. A token is not among them any more.
const handleProtocols = (offered: Set<string>) => [...offered][0];
const sockets = crossws({ hooks, handleProtocols, serverOptions: { maxPayload: 4096 } });

const options: UpgradeOptions = { credentials: ['bearer', 'subprotocol', 'query', 'cookie'], scopes: ['live'] };
const server = createServer(app);
server.on('upgrade', async (request, socket, head) => {
  socket.on('error', () => {});
  if (request.url?.split('?')[0] !== '/live') return refuseNotFound(socket);
  const admitted = await authenticateUpgrade(waa, request, options)
    .then((auth) => withAuth(request, auth))
    .catch((error) => refuseUpgrade(socket, error));
  if (admitted) await sockets.handleUpgrade(request, socket, head, admitted);
});
server.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));

/** The request as crossws takes it, from which its peer has the context. */
function withAuth({ url = '', headers }: IncomingMessage, auth: Auth): Request {
  const request = new Request(new URL(url, waa.origin), { headers: headers as Record<string, string> });
  return Object.assign(request, { context: { auth } });
}

/** What somebody does not read is kept in our memory: not without an end. */
function isDeaf({ websocket }: Peer): boolean {
  return (websocket.bufferedAmount ?? 0) > 1_000_000;
}

function refuseNotFound(socket: Duplex): void {
  socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n', () => socket.destroy());
}
