// A page that members read, and that staff change only with a password typed within the last five minutes.
//
//   NODE_ENV=development npx tsx examples/staff.ts
import express from 'express';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({ baseUrl: `http://localhost:${port}`, wls: wls.profile, desc: 'Notices' });
const auth = webauth(waa);
const app = express();
const staff = ['test0003', 'test0004'];
const notices: { readonly text: string; readonly by: string | undefined }[] = [];

app.use(auth);
app.get('/', auth.require(), (request, response) => {
  const items = notices.map(({ text, by }) => `<li>${escapeHtml(text)} (${escapeHtml(by)})</li>`);
  const isStaff = staff.includes(request.auth?.principal ?? '');
  send(response, 'Notices', `<ul>${items.join('')}</ul>${isStaff ? '<p><a href="/new">Add a notice</a></p>' : ''}`);
});

// The form wants a fresher password than what it sends, so that there are three minutes at least to fill it in. Were only
// the post guarded, people would write first and be refused afterwards: a post cannot be sent round by the login service.
app.get('/new', auth.require({ principals: staff, maxAge: 120 }), (_request, response) => {
  send(
    response,
    'Add a notice',
    `<form method="post"><p><label for="text">Notice</label>
    <input id="text" name="text" required maxlength="200"></p><p><button>Add</button></p></form>`,
  );
});

// Who takes longer gets the failure page: nothing was saved, log in in another tab, and send it again. Posts pass a guard
// from our own pages only: to browsers all of cam.ac.uk is one site, so that forms on other hosts there arrive with our
// cookies, SameSite or not.
app.post('/new', auth.require({ principals: staff, maxAge: 300 }), express.urlencoded(), (request, response) => {
  const text = String(request.body?.text ?? '').slice(0, 200);
  if (text.trim()) notices.push({ text, by: request.auth?.principal });
  response.redirect(303, '/');
});
app.use(auth.failurePage);

app.listen(port, '127.0.0.1', () => console.log(`Listening on http://localhost:${port}/`));

function send(response: express.Response, title: string, body: string): void {
  // No other site may show this page in a frame, to have its buttons pressed unseen; and no script runs.
  response.set('Content-Security-Policy', "default-src 'none'; form-action 'self'; frame-ancestors 'none'");
  response.send(`<!doctype html>
    <html lang="en">
    <head><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
    <title>${title}</title></head>
    <body><main><h1>${title}</h1>${body}</main>
    <p><a href="/">Notices</a> <a href="/webauth/logout">Log out</a></p></body></html>`);
}

function escapeHtml(text = ''): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
