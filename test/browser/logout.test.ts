import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { webauth } from '../../src/express/index.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { installedBrowsers } from './browsers.js';
import type { Routes } from './helpers.js';
import { app, type Domain, inBrowser, logIn, logInOnPath, sessionCookie, sibling, startDomain } from './https.js';

const notes = { base: '/notes', prefix: '__Secure-', name: 'notes' };
const notesSession = '__Secure-notes-session';
const binding = '__Host-webauth-session-id';

describe.each(installedBrowsers())('POST /webauth/logout in $name under cam.ac.uk', ({ executablePath }) => {
  let domain: Domain;
  let notesApplication: WAA;
  let newerMachine: WAA;

  beforeAll(async () => {
    domain = await startDomain(executablePath, answer, (server, auth, config) => {
      notesApplication = createWAA({ ...config, baseUrl: `${app}/notes`, cookieName: 'notes', cookiePath: '/notes' });
      newerMachine = createWAA({ ...config, secret: 'b2'.repeat(32) });
      addRoutes(notesApplication)(server, auth, config);
    });
  });
  afterAll(async () => {
    await domain?.close();
    await Promise.all([notesApplication?.close(), newerMachine?.close()]);
  });

  it.each(['/notes', '/', '/notes/webauth/'])(
    'revokes a session and one that a sibling planted beside it at %s, and removes both cookies',
    async (path) => {
      const own = await logInOnPath(domain, 'test0001', notes);
      const theirs = await logInOnPath(domain, 'test0002', notes);
      await inBrowser(domain, { [binding]: own.anchor }, async (page, context) => {
        await context.addCookies([
          { name: notesSession, value: own.session, domain: 'app.cam.ac.uk', path: '/notes', secure: true },
        ]);
        const line = `${notesSession}=${theirs.session}; Domain=cam.ac.uk; Path=${path}; Secure`;
        await page.goto(`${sibling}/?${new URLSearchParams({ cookie: line })}`);
        await page.goto(`${app}/notes/webauth/logout`);
        await page.getByRole('button', { name: 'Log out', exact: true }).click();
        await page.getByRole('heading', { name: 'You are logged out of this site' }).waitFor();
        expect((await context.cookies()).map(({ name }) => name)).not.toContain(notesSession);
        // What was planted no longer stands in the way of a login.
        await page.goto(`${app}/notes/`);
        await page.getByRole('button', { name: 'test0001' }).click();
        await page.getByText('Notes of test0001').waitFor();
      });
      for (const { session, anchor } of [own, theirs]) {
        expect(() => notesApplication.openSession(session, anchor)).toThrow('was ended');
      }
    },
  );

  it('leaves the session of another application on the host', async () => {
    const session = await logIn(domain, 'test0001');
    const own = await logInOnPath(domain, 'test0001', notes);
    await inBrowser(domain, { [sessionCookie]: session, [binding]: own.anchor }, async (page, context) => {
      await context.addCookies([
        { name: notesSession, value: own.session, domain: 'app.cam.ac.uk', path: '/notes', secure: true },
      ]);
      await page.goto(`${app}/notes/webauth/logout`);
      await page.getByRole('button', { name: 'Log out', exact: true }).click();
      await page.getByRole('heading', { name: 'You are logged out of this site' }).waitFor();
      await page.goto(app);
      await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
    });
  });

  it('keeps the cookie of another machine until the second button is pressed, by the keyboard alone', async () => {
    const { location, nonce } = newerMachine.startLogin('/');
    const { cookie } = await newerMachine.finishLogin(domain.wls.respond(location), nonce);
    await inBrowser(domain, { [sessionCookie]: cookie as string }, async (page, context) => {
      const names = async () => (await context.cookies(app)).map(({ name }) => name);
      await page.goto(`${app}/webauth/logout`);
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.getByText('ERR_LOGOUT_INCOMPLETE').waitFor();
      expect(await names()).toContain(sessionCookie);
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'Your session was removed from this browser' }).waitFor();
      expect(await names()).not.toContain(sessionCookie);
      expect(newerMachine.openSession(cookie).principal).toBe('test0001');
    });
  });
});

/** Serves the sibling's page, with the cookie that the query asks for. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const cookie = new URL(request.url ?? '', sibling).searchParams.getAll('cookie');
  response.writeHead(200, { 'Content-Type': 'text/html', 'Set-Cookie': cookie });
  response.end('<!doctype html><title>Sibling</title>');
}

function addRoutes(waa: WAA): Routes {
  return (server) => {
    const auth = webauth(waa);
    server.use('/notes', auth, auth.require(), (request, response) => {
      response.send(`Notes of ${request.auth?.principal}`);
    });
    server.use('/notes', auth.failurePage);
  };
}
