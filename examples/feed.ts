// A feed for programs: somebody who is logged in makes an API token, and a program of theirs opens a socket with it.
//
//   NODE_ENV=development npx tsx examples/feed.ts
//
// Make a token at http://localhost:3000/, keep it in a file that only you can read, and have the program follow the
// feed:
//
//   FEED_TOKEN_FILE=token npx tsx examples/feed/client.ts
import { createServer } from 'node:http';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { acceptUpgrades } from 'ucam-webauth/websocket';
import { createWLS } from 'ucam-webauth/wls';
import { WebSocketServer } from 'ws';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Feed' });
const auth = webauth(waa);
const app = express();
app.use(auth);
app.get('/', auth.require(), (_request, response) => {
  response.set('Content-Security-Policy', "default-src 'none'; form-action 'self'; frame-ancestors 'none'");
  response.send(`<!doctype html><html lang="en"><meta name="viewport" content="width=device-width">
    <meta name="color-scheme" content="light dark"><title>Feed</title>
    <h1>Feed</h1>
    <form method="post" action="/tokens"><button>Make a token</button> Shown once; good for 90 days.</form>
    <form method="post" action="/revoke"><button>Revoke yours</button> Programs with them are cut off.</form>`);
});
// The guard takes posts from this application's own pages only, and no tokens: no token makes another one.
app.post('/tokens', auth.require(), async (request, response) => {
  const { principal = '', ptags = [] } = request.auth ?? {};
  const { token } = await waa.tokens.create({ principal, ptags, name: 'feed', ttl: 90 * 24 * 3600, scopes: ['feed'] });
  response.type('text/plain').send(`${token}\n`);
});
app.post('/revoke', auth.require(), async (request, response) => {
  const { principal = '' } = request.auth ?? {};
  const feeds = (await waa.tokens.list(principal)).filter(({ name }) => name === 'feed');
  for (const { handle } of feeds) await waa.tokens.revoke(principal, handle);
  response.redirect(303, '/');
});
app.use(auth.failurePage);

const server = createServer(app);
const wss = new WebSocketServer({ noServer: true, maxPayload: 1024 });
// Without scopes, every token of the person would open it, whatever it was made for.
acceptUpgrades(server, wss, waa, { path: '/feed', credentials: ['bearer'], scopes: ['feed'], maxPerPrincipal: 10 });
wss.on('connection', (socket, request) => socket.send(`This is the feed of ${request.auth?.principal}.`));
setInterval(() => {
  for (const socket of wss.clients) socket.send(new Date().toISOString());
}, 5000);
server.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));
