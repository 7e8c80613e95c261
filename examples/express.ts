// An Express application that people log in to with Raven.
//
//   UCAM_WEBAUTH_SECRET=$(openssl rand -hex 32) PUBLIC_URL=https://example.cam.ac.uk npx tsx examples/express.ts
//
// On your own machine, with a login service of its own:
//
//   NODE_ENV=development npx tsx examples/express.ts
import express from 'express';
import { createWAA, raven } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const baseUrl = process.env['PUBLIC_URL'] ?? `http://localhost:${port}`;

const waa = createWAA({
  baseUrl,
  secret: process.env['UCAM_WEBAUTH_SECRET'],
  wls: process.env['PUBLIC_URL'] ? raven : await localLoginService(),
  log: ({ level, event, code, message }) => console.log(level, event, code ?? '', message),
});
const auth = webauth(waa);
const app = express();

app.use(auth);
app.get('/', (request, response) => {
  response.send(request.auth ? `Hello, ${request.auth.principal}.` : 'Hello. <a href="/members">Members</a>');
});
app.get('/members', auth.require(), (request, response) => {
  response.send(`Only current members of the University see this, such as ${request.auth?.principal}.`);
});
app.get('/committee', auth.require({ principals: ['test0001', 'test0002'] }), (_request, response) => {
  response.send('Only these two people see this.');
});
app.get('/anybody', auth.require({ ptags: [] }), (request, response) => {
  response.send(
    `Everybody with an account sees this, also those who have left: ${request.auth?.ptags.join() || 'left'}.`,
  );
});
app.use(auth.failurePage);

app.listen(port, '127.0.0.1', () => console.log(`Listening on ${baseUrl}/`));

async function localLoginService() {
  const wls = createWLS();
  await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));
  return wls.profile;
}
