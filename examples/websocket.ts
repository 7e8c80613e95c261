// The same login opens WebSockets, once with the package ws and once in an upgrade handler of one's own.
//
//   NODE_ENV=development npx tsx examples/websocket.ts
import { createServer } from 'node:http';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { acceptUpgrades, authenticateUpgrade, refuseUpgrade } from 'ucam-webauth/websocket';
import { createWLS } from 'ucam-webauth/wls';
import { WebSocketServer } from 'ws';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile });
const auth = webauth(waa);
const app = express();
app.use(auth);
app.get('/', auth.require(), (_request, response) => {
  response.send(`<p id="said"></p><script>
    const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/live');
    socket.onmessage = ({ data }) => { document.getElementById('said').textContent = data; };
  </script>`);
});
app.use(auth.failurePage);
const server = createServer(app);

// With ws: only people who are logged in get a socket, and it closes when their session ends.
const wss = new WebSocketServer({ noServer: true });
acceptUpgrades(server, wss, waa, { path: '/live' });
wss.on('connection', (socket, request) => socket.send(`Hello, ${request.auth?.principal}.`));

// With anything else that takes a request and a socket: here, whatever is not for the above.
server.on('upgrade', async (request, socket) => {
  if (request.url?.split('?')[0] === '/live') return;
  try {
    const { principal } = await authenticateUpgrade(waa, request);
    socket.end(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: hello\r\nConnection: Upgrade\r\n\r\nHello, ${principal}.\n`,
    );
  } catch (error) {
    refuseUpgrade(socket, error);
  }
});

server.listen(port, '127.0.0.1', () => console.log(`Listening on http://localhost:${port}/`));
