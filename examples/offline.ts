// A service worker that is safe with logins: public pages work offline, and nothing private is shown after a logout. The
// worker and the page's script are in examples/offline/.
//
//   NODE_ENV=development npx tsx examples/offline.ts
import { fileURLToPath } from 'node:url';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Library desk' });
const auth = webauth(waa);
const app = express();
app.use(auth);

const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; img-src data:; " +
  "form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
app.use((_request, response, next) => {
  response.setHeader('Content-Security-Policy', policy);
  next();
});

// Public, the worker's script too: browsers update no worker from behind a redirect to a login. express.static() sends
// `Cache-Control: public`, and the worker stores only responses that say so.
app.use(express.static(fileURLToPath(new URL('offline', import.meta.url))));

// Private. With the guard's own `private, no-cache`, browsers keep a page in their back/forward cache. The logout page has
// them clear it, but not all browsers do. `no-store` works in more of them; page.js reloads a page that was kept nevertheless.
app.use(['/loans', '/api'], auth.require(), (_request, response, next) => {
  response.setHeader('Cache-Control', 'no-store');
  next();
});
app.get('/loans', (request, response) => {
  response.send(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Your loans</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
<script type="module" src="/page.js"></script>
</head>
<body>
<main id="private">
<h1>Loans of ${request.auth?.principal}</h1>
<p id="loans" role="status">Loading…</p>
<form id="logout" method="post" action="/webauth/logout"><button>Log out</button></form>
</main>
<p><a href="/">Opening hours</a></p>
</body>
</html>`);
});
app.get('/api/loans', (request, response) => {
  response.json([`A book on lock-picking, borrowed by ${request.auth?.principal}`]);
});
app.use(auth.failurePage);

app.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));
