// The chat of examples/chat.ts with Socket.IO: the same page, with another script, examples/socketio/chat.js.
//
//   NODE_ENV=development npx tsx examples/socketio.ts
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { Server, type Socket } from 'socket.io';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { acceptConnections } from 'ucam-webauth/socket.io';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Chat' });
const auth = webauth(waa);
const app = express();
app.use(auth);

// Nothing of anybody is in these files: what people say comes through Socket.IO.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; " +
  `connect-src 'self' ${waa.origin.replace(/^http/, 'ws')}; frame-ancestors 'none'; require-trusted-types-for 'script'`;
for (const folder of ['socketio', 'chat']) {
  const setHeaders = (response: express.Response) => response.setHeader('Content-Security-Policy', policy);
  app.use(express.static(fileURLToPath(new URL(folder, import.meta.url)), { setHeaders }));
}
// What fetches tickets. (Socket.IO serves its own client.)
app.use('/client', express.static(fileURLToPath(new URL('.', import.meta.resolve('ucam-webauth/client')))));
app.use(auth.failurePage);

const server = createServer(app);
const io = new Server(server, { maxHttpBufferSize: 4096 });
acceptConnections(io, waa, { maxPerPrincipal: 10 });

/** How much each person has said in the ten seconds that it is. */
const said = new Map<string, number>();
setInterval(() => said.clear(), 10_000);

io.on('connection', (socket) => {
  socket.emit('you', socket.data.auth.principal);
  tellWhoIsHere();
  socket.on('say', (text: unknown) => say(socket, text));
  socket.on('disconnect', tellWhoIsHere);
});

server.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));

function say(socket: Socket, text: unknown): void {
  const { principal } = socket.data.auth;
  const count = (said.get(principal) ?? 0) + 1;
  said.set(principal, count);
  // What is not read is kept in our memory: who goes on all the same gets no answer.
  if (count > 50) return void socket.disconnect(true);
  // By the person, and not by the socket: anybody can open another one.
  if (count > 10) socket.emit('sorry', 'Not so fast: ten messages in ten seconds.', text);
  // Whatever a client sends arrives here: not only what the page's form lets through.
  else if (typeof text !== 'string' || text.trim() === '' || text.length > 500)
    socket.emit('sorry', 'A message has 1 to 500 characters.', text);
  else io.emit('said', principal, text);
}

function tellWhoIsHere(): void {
  const principals = [...io.of('/').sockets.values()].map(({ data }) => data.auth.principal);
  io.emit('here', [...new Set(principals)].sort());
}
