// A JSON API, and a single-page front end for it: the files in examples/spa/.
//
//   NODE_ENV=development npx tsx examples/spa.ts
import { fileURLToPath } from 'node:url';
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { type Middleware, webauth } from 'ucam-webauth/express';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Notes' });
const auth = webauth(waa);
const app = express();
app.use(auth);

// Not guarded, since nothing of anybody is in it: what there is to see comes from the API.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; " +
  "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
app.use(
  express.static(fileURLToPath(new URL('spa', import.meta.url)), {
    setHeaders: (response) => response.setHeader('Content-Security-Policy', policy),
  }),
);

app.get('/api/me', auth.require({ ptags: [] }), (request, response) => {
  const { principal, expires } = request.auth ?? {};
  // Seconds and not the instant: the browser's clock may be wrong.
  response.json({ principal, secondsLeft: (Number(expires) - Date.now()) / 1000 });
});
serveList('notes', auth.require());
serveList('committee', auth.require({ principals: ['test0001', 'test0002'] }));
app.use(auth.failurePage);

app.listen(port, '127.0.0.1', () => console.log(`Listening on ${waa.origin}/`));

function serveList(name: string, guard: Middleware): void {
  const entries: { readonly text: string; readonly by: string | undefined }[] = [];
  app.get(`/api/${name}`, guard, (_request, response) => void response.json(entries));
  // To browsers all of cam.ac.uk is one site: what pages of other hosts there send comes with our cookies, SameSite or not.
  // So the guard looks at the Origin of what changes something. And express.json() reads nothing but JSON, which browsers
  // let a page send to another origin only where that agrees; nothing here does.
  app.post(`/api/${name}`, guard, express.json(), (request, response) => {
    const text: unknown = request.body?.text;
    if (typeof text !== 'string' || text.trim() === '' || text.length > 200) {
      response.status(400).json({ error: { message: 'a note has 1 to 200 characters' } });
      return;
    }
    if (entries.push({ text, by: request.auth?.principal }) > 100) entries.shift();
    response.status(201).json({});
  });
}
