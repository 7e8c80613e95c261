// A chat, with the page in examples/chat/. Who says something is who is logged in, whatever their message says.
//
//   NODE_ENV=development npx tsx examples/chat.ts
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { acceptUpgrades } from 'ucam-webauth/websocket';
import { createWLS } from 'ucam-webauth/wls';
import { type WebSocket, WebSocketServer } from 'ws';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Chat' });
const auth = webauth(waa);
const app = express();
app.use(auth);

// Neither is guarded, since nothing of anybody is in them: what people say comes through the socket.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; " +
  `connect-src 'self' ${waa.origin.replace(/^http/, 'ws')}; frame-ancestors 'none'; require-trusted-types-for 'script'`;
app.use(
  express.static(fileURLToPath(new URL('chat', import.meta.url)), {
    setHeaders: (response) => response.setHeader('Content-Security-Policy', policy),
  }),
);
// The page's side of the socket: browsers take it as it is.
app.use('/client', express.static(fileURLToPath(new URL('.', import.meta.resolve('ucam-webauth/client')))));
app.use(auth.failurePage);

const server = createServer(app);
const wss = new WebSocketServer({ noServer: true, maxPayload: 4096 });
acceptUpgrades(server, wss, waa, { path: '/chat', rejection: 'close', maxPerPrincipal: 10 });

/** Whose each socket is. */
const here = new Map<WebSocket, string>();
/** How much each person has said in the ten seconds that it is. */
const said = new Map<string, number>();
setInterval(() => said.clear(), 10_000);

wss.on('connection', (socket, request) => {
  const { principal = '' } = request.auth ?? {};
  here.set(socket, principal);
  tell(socket, { you: principal });
  tellWhoIsHere();
  socket.on('message', (data) => say(socket, principal, String(data)));
  socket.on('close', () => {
    here.delete(socket);
    tellWhoIsHere();
  });
});

server.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));

function say(socket: WebSocket, principal: string, text: string): void {
  const count = (said.get(principal) ?? 0) + 1;
  said.set(principal, count);
  // By the person, and not by the socket: anybody can open another one.
  if (count > 10) tell(socket, { sorry: 'Not so fast: ten messages in ten seconds.', text });
  else if (text.trim() === '' || text.length > 500) tell(socket, { sorry: 'A message has 1 to 500 characters.', text });
  else tellAll({ by: principal, text });
}

function tellWhoIsHere(): void {
  tellAll({ here: [...new Set(here.values())].sort() });
}

function tellAll(message: object): void {
  for (const socket of here.keys()) tell(socket, message);
}

function tell(socket: WebSocket, message: object): void {
  // What somebody does not read is kept in our memory: not without an end.
  if (socket.bufferedAmount > 1_000_000) socket.terminate();
  else socket.send(JSON.stringify(message));
}
