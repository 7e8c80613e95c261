// One of several processes of one application, as ../machines.ts starts them. In earnest each may be on a machine of its
// own: they have the address, the secret and the Redis in common, and nothing else.
import { createServer } from 'node:http';
import express from 'express';
import { cookieSecret, createWAA, KeySet } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { RedisStore } from 'ucam-webauth/redis';
import { acceptUpgrades } from 'ucam-webauth/websocket';
import { WebSocketServer } from 'ws';

const {
  NAME = '',
  PORT = '',
  PUBLIC_URL = '',
  SECRET_FILE = '',
  REDIS_URL = '',
  WLS_URL = '',
  WLS_KEY = '',
} = process.env;

const waa = createWAA({
  baseUrl: PUBLIC_URL,
  secret: cookieSecret({ file: SECRET_FILE }),
  store: new RedisStore({ url: REDIS_URL }),
  wls: {
    name: 'development',
    authUrl: `${WLS_URL}/auth/authenticate.html`,
    logoutUrl: `${WLS_URL}/auth/logout.html`,
    keys: KeySet.from({ 1: WLS_KEY }),
    oldVersionPtags: ['current'],
    requirePtags: ['current'],
  },
  listSessions: true,
  log: ({ level, event, code, message }) => console.log(NAME, level, event, code ?? '', message),
});
// Throws if that Redis must not be used, as one that may forget who logged out.
await waa.ready;

const auth = webauth(waa);
const app = express();
app.use(auth);
app.get('/', auth.require(), async (request, response) => {
  const { principal = '' } = request.auth ?? {};
  const sessions = await waa.sessions.list(principal, request.auth);
  response.send(`<!doctype html><title>Several machines</title>
    <p>${NAME} says: you are ${principal}, in ${sessions.length} session(s). Reload, and another process answers.</p>
    <p id="socket">The socket is opening.</p>
    <p><a href="/webauth/logout">Log out</a> here or in another browser, and the socket closes, whichever process has it.</p>
    <script>
      const say = (text) => { document.getElementById('socket').textContent = text; };
      const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/live');
      socket.onmessage = ({ data }) => say(data);
      socket.onclose = ({ code }) => say('The socket was closed with ' + code + '.');
    </script>`);
});
app.use(auth.failurePage);

const server = createServer(app);
const wss = new WebSocketServer({ noServer: true });
acceptUpgrades(server, wss, waa, { path: '/live' });
wss.on('connection', (socket, request) => socket.send(`${NAME} has the socket of ${request.auth?.principal}.`));
server.listen(Number(PORT), '127.0.0.1', () => console.log(`${NAME} listens on ${PORT}`));
