// Pages at one origin, and their sockets at another: two ports of localhost here. The page opens one by a ticket in its
// address, and one by a cookie that a hidden frame gets; its script is examples/two-origins/page.js.
//
//   NODE_ENV=development npx tsx examples/two-origins.ts
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { acceptUpgrades, socketFrame } from 'ucam-webauth/websocket';
import { createWLS } from 'ucam-webauth/wls';
import { WebSocketServer } from 'ws';

const port = Number(process.env['PORT'] ?? 3000);
const socketsPort = Number(process.env['SOCKETS_PORT'] ?? 3001);
const origin = `http://localhost:${socketsPort}`;
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

// Servers on two machines each make one: of the same baseUrl, wls, secret and store.
const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile });
const auth = webauth(waa);

const policy =
  "default-src 'none'; script-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; " +
  `frame-ancestors 'none'; connect-src 'self' ${origin} ${origin.replace(/^http/, 'ws')}; frame-src ${origin}`;
const pages = express().use(auth);
pages.get('/', auth.require(), (_request, response) => {
  response.set('Content-Security-Policy', policy);
  response.send(`<!doctype html>
    <html lang="en" data-sockets="${origin}">
    <head><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
    <title>Two origins</title><link rel="icon" href="data:,"><script type="module" src="page.js"></script></head>
    <body><main><h1>Two origins</h1>
    <p>By ticket: <output id="query"></output></p>
    <p>By frame: <output id="frame"></output></p></main>
    <form method="post" action="/webauth/logout"><button>Log out</button></form></body></html>`);
});
pages.use(express.static(fileURLToPath(new URL('two-origins', import.meta.url))));
pages.use('/client', express.static(fileURLToPath(new URL('.', import.meta.resolve('ucam-webauth/client')))));
pages.use(auth.failurePage);

// This one has no login and no pages. (To browsers, all ports of localhost have the same cookies, so that the session's
// comes here too; to two hosts it would not.)
const frame = socketFrame(waa, { origin });
const server = createServer(frame);
const wss = new WebSocketServer({ noServer: true, maxPayload: 1024 });
acceptUpgrades(server, wss, waa, { path: '/by-ticket', credentials: ['query'], rejection: 'close' });
acceptUpgrades(server, wss, waa, { path: '/by-frame', credentials: ['cookie'], frame, rejection: 'close' });
wss.on('connection', (socket, request) => socket.send(`Hello, ${request.auth?.principal}.`));

server.listen(socketsPort, '127.0.0.1', () => {
  pages.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));
});
