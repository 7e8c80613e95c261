import type { IncomingMessage, ServerResponse } from 'node:http';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { html } from '../../src/html.js';
import { installedBrowsers, urlIn } from './browsers.js';
import { Complaints, openSocket, type Routes } from './helpers.js';
import {
  app,
  ask,
  cookiesOf,
  type Domain,
  directly,
  inBrowser,
  logIn,
  login,
  loginCookie,
  otherPort,
  sessionCookie,
  sibling,
  startDomain,
} from './https.js';

describe.each(installedBrowsers())('https under cam.ac.uk in $name', ({ name, executablePath }) => {
  let domain: Domain;
  beforeAll(async () => {
    domain = await startDomain(executablePath, answer, addRoutes);
  });
  afterAll(() => domain?.close());

  /** A test with somebody who is logged in as test0001, and must be so at the end, in the very same session. */
  function visit(test: (page: Page, context: BrowserContext, value: string) => Promise<void>) {
    return async () => {
      const value = await logIn(domain, 'test0001');
      await inBrowser(domain, { [sessionCookie]: value }, async (page, context) => {
        await test(page, context, value);
        expect(domain.application.opened).toEqual([]);
        expect(await cookiesOf(context)).toMatchObject({ [sessionCookie]: { value } });
        const { body } = await ask(domain, '/', { cookie: `${sessionCookie}=${value}` });
        expect(body).toContain('You are test0001');
      });
    };
  }

  /** The requests for an address came as from these origins, and each one brought the session cookie. */
  function expectArrived(line: string, ...origins: (string | undefined)[]): void {
    const found = domain.application.arrived.filter((arrival) => arrival.line === line);
    const cookie = expect.stringContaining(`${sessionCookie}=`);
    expect(found).toEqual(origins.map((origin) => ({ line, cookie, origin })));
  }

  /** Nothing happened but that so many requests were refused for their Origin. */
  function expectRefused(times: number): void {
    const happened = domain.application.events.map(({ event, code }) => `${event} ${code}`);
    expect(happened).toEqual(Array(times).fill('refused ERR_ORIGIN_REFUSED'));
  }

  for (const [who, origin] of [
    ['a sibling', sibling],
    ['another port of the same host', otherPort],
  ] as const) {
    describe(who, () => {
      it(
        'cannot open our sockets',
        visit(async (page, _context, value) => {
          await page.goto(origin);
          expect(await openSocket(page, `${app}/live`)).toBe(1006);
          expectArrived('GET /live', origin);
          expectRefused(1);
          // What the page was not told; and that the cookie was not to blame.
          const cookie = `${sessionCookie}=${value}`;
          expect(await handshake(domain, { cookie, origin })).toEqual([403, 'ERR_ORIGIN_REFUSED']);
          expect(domain.application.opened.splice(0)).toEqual([]);
          expect(await handshake(domain, { cookie, origin: app })).toBe('for test0001');
          expect(domain.application.opened.splice(0)).toEqual(['test0001']);
        }),
      );

      it(
        'changes nothing by posting, and is given nothing',
        visit(async (page) => {
          const known = await domain.application.store.list('');
          await page.goto(origin);
          const paths = ['/webauth/logout', '/webauth/logout?everywhere=yes', '/webauth/ticket', '/save'];
          for (const path of paths) {
            expect(await send(page, path, { mode: 'cors' })).toBe('TypeError');
            expect(await send(page, path, { mode: 'no-cors' })).toEqual(['opaque', 0, '']);
            expect(await send(page, path, { mode: 'no-cors', keepalive: true, body: 'x' })).toEqual(['opaque', 0, '']);
            expect(await postForm(page, `${app}${path}`)).toBe(403);
            expectArrived(`POST ${path}`, origin, origin, origin, origin);
          }
          expectRefused(4 * paths.length);
          expect(await domain.application.store.list('')).toEqual(known);
        }),
      );

      it(
        'reads nothing of what its visitor may read',
        visit(async (page) => {
          await page.goto(origin);
          expect(await send(page, '/data', { method: 'GET', mode: 'cors' })).toBe('TypeError');
          expect(await send(page, '/data', { method: 'GET', mode: 'no-cors' })).toEqual(['opaque', 0, '']);
          expect(await readByScript(page, `${app}/data`)).toEqual([]);
          expect(await readByWindow(page, `${app}/data`)).toBe('SecurityError');
          expectArrived('GET /data', origin, undefined, undefined, undefined);
        }),
      );
    });
  }

  it(
    'another port of the same host is sent our cookies all the same, which no prefix prevents',
    visit(async (page) => {
      await page.goto(otherPort);
      expect(domain.overheard.find(({ line }) => line === 'GET /')?.cookie).toContain(`${sessionCookie}=`);
      await page.goto(sibling);
      expect(domain.overheard.filter(({ line }) => line === 'GET /').at(-1)?.cookie).toBe('');
    }),
  );

  it(
    'a sibling cannot put our pages into frames',
    visit(async (page, context) => {
      const complaints = new Complaints(context);
      const ours = ['/', '/nobody', '/webauth/login', '/webauth/callback', '/webauth/logout'];
      // What an application answers by itself is its own to protect.
      const addresses = [...[...ours, '/data'].map((path) => `${app}${path}`), `${login}/auth/authenticate.html`];
      await page.goto(sibling);
      await page.setContent(addresses.map((address) => html`<iframe src="${address}"></iframe>`.text).join(''));
      const frames = page.frames().filter((frame) => frame !== page.mainFrame());
      // But for the page that says that logins are not for frames: it knows nobody, and leads on in the window.
      const links = ['/webauth/login', '/webauth/callback'];
      const shown = (path: string) => (links.includes(path) ? app + path : 'blocked');
      expect(frames.map(urlIn)).toEqual([...ours.map(shown), `${app}/data`, 'blocked']);
      for (const frame of frames.filter((one) => links.some((path) => urlIn(one) === app + path))) {
        expect(await frame.getByRole('link').getAttribute('target')).toBe('_top');
        expect(await frame.content()).not.toContain('test0001');
      }
      for (const path of ours.slice(1)) expectArrived(`GET ${path}`, undefined);
      expectArrived('GET /', undefined);
      complaints.expect(/frame-ancestors/);
    }),
  );

  describe('a page that has no origin', () => {
    // By the Fetch standard a redirect from the page's own origin leaves `Origin` as it is; Chromium sends `null`.
    const afterRedirect = { Chromium: 'null', Firefox: sibling }[name];
    for (const [which, content, browserSendsCookie, origin] of [
      ['of a sibling, which sends no referrer', `<meta name="referrer" content="no-referrer">${form}`, true, 'null'],
      ['of a sibling, which is sent on with its form', form.replace(app, sibling), true, afterRedirect],
      // Its site is none, so that SameSite holds here.
      ['in a sandbox', html`<iframe sandbox="allow-forms" srcdoc="${form}"></iframe>`.text, false, 'null'],
      ['made of data', html`<iframe src="data:text/html,${encodeURIComponent(form)}"></iframe>`.text, false, 'null'],
    ] as const) {
      it(
        `${which}, cannot log out`,
        visit(async (page) => {
          await page.goto(sibling);
          await page.setContent(content);
          const answer = page.waitForResponse(`${app}/webauth/logout`);
          await page.frames().at(-1)?.locator('button').click();
          expect((await answer).status()).toBe(403);
          const cookie = browserSendsCookie ? expect.stringContaining(`${sessionCookie}=`) : '';
          expect(domain.application.arrived).toContainEqual({ line: 'POST /webauth/logout', cookie, origin });
          expectRefused(1);
        }),
      );
    }

    it(
      'after a redirect by a sibling, to which our own page posts, cannot log out',
      visit(async (page) => {
        await page.goto(`${app}/away`);
        const answer = page.waitForResponse(`${app}/webauth/logout`);
        await page.getByRole('button').click();
        expect((await answer).status()).toBe(403);
        expectArrived('POST /webauth/logout', 'null');
        expectRefused(1);
      }),
    );
  });

  it('lets people in, gives them sockets and tickets, and logs them out, also from a page that sends no referrer', async () => {
    await inBrowser(domain, {}, async (page, context) => {
      const complaints = new Complaints(context);
      await page.goto(`${app}/strict`);
      expect(Object.keys(await cookiesOf(context))).toEqual([loginCookie]);
      await page.getByRole('button', { name: 'test0002' }).click();
      await page.getByRole('button', { name: 'Log out' }).waitFor();
      const ours = { domain: 'app.cam.ac.uk', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' };
      expect(await cookiesOf(context)).toEqual({
        '__Host-webauth-session': { ...ours, expires: -1, value: expect.stringMatching(/^[\w-]{100,900}$/) },
        '__Host-webauth-done': { ...ours, expires: expect.any(Number), value: expect.any(String) },
      });
      expect(await openSocket(page, `${app}/live`)).toBe('for test0002');
      const { store } = domain.application;
      const kept = store.size;
      expect(await send(page, '/webauth/ticket', {})).toEqual(['basic', 200, expect.stringContaining('"ticket":"')]);
      expect(store.size).toBe(kept + 1);

      const elsewhere = { cookie: `${sessionCookie}=${await logIn(domain, 'test0002')}` };
      expect((await ask(domain, '/', elsewhere)).body).toContain('You are test0002');
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByRole('heading', { name: 'You are logged out of this site' }).waitFor();
      expectArrived('POST /webauth/logout?everywhere=yes', 'null');
      expect((await ask(domain, '/', elsewhere)).status).toBe(303);
      expect(await cookiesOf(context)).toEqual({});
      complaints.expectNone();
    });
  });
});

const form = html`<form method="post" action="${app}/webauth/logout"><button>You have won</button></form>`.text;

const addRoutes: Routes = (server, auth) => {
  server.get('/away', (_, response) =>
    response.send(`<!doctype html><title>Away</title>${form.replace(app, sibling)}`),
  );
  server.get('/data', auth.require(), (request, response) => response.json({ principal: request.auth?.principal }));
  server.post('/save', auth.require(), (_, response) => response.send('saved'));
  server.get('/strict', auth.require(), (_, response) => {
    const body = '<form method="post" action="/webauth/logout?everywhere=yes"><button>Log out</button></form>';
    response.set('Referrer-Policy', 'no-referrer').send(`<!doctype html><title>Strict</title>${body}`);
  });
};

/** What the sibling and the other port serve: pages to attack from, and a form sent on. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === 'POST') response.writeHead(307, { Location: `${app}${request.url}` }).end();
  else response.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>Somebody else</title>');
}

/** Opens a socket as a program would, whatever it claims to be: its first message, or how it was refused. */
function handshake({ port, certificate }: Domain, headers: Record<string, string>): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://127.0.0.1:${port}/live`, { ...directly(certificate), headers });
    socket.once('message', (data) => {
      resolve(`${data}`);
      socket.close();
    });
    socket.once('error', reject);
    socket.once('unexpected-response', async (_, response: IncomingMessage) => {
      let body = '';
      for await (const chunk of response) body += chunk;
      resolve([response.statusCode, JSON.parse(body).error.code]);
    });
  });
}

/** Has the page send a request, with the cookies of its visitor: what it sees of the answer. */
function send(page: Page, path: string, options: Record<string, unknown>): Promise<unknown> {
  const init = { method: 'POST', credentials: 'include', ...options };
  return page.evaluate(`fetch(${JSON.stringify(app + path)}, ${JSON.stringify(init)}).then(
    async (response) => [response.type, response.status, await response.text()],
    (error) => error.name,
  )`);
}

/** Has the page post a form into a frame: the status of the answer, which the browser may then refuse to show. */
async function postForm(page: Page, url: string): Promise<number> {
  const answer = page.waitForResponse((response) => response.url() === url);
  await page.evaluate(`(() => {
    const form = Object.assign(document.createElement('form'), { method: 'post', target: 'frame' });
    const frame = Object.assign(document.createElement('iframe'), { name: 'frame' });
    form.action = ${JSON.stringify(url)};
    document.body.replaceChildren(form, frame);
    form.submit();
  })()`);
  return (await answer).status();
}

/** Everything that a page can catch of an address that it runs as a script. */
function readByScript(page: Page, url: string): Promise<string[]> {
  return page.evaluate(`new Promise((resolve) => {
    const caught = [];
    Object.defineProperty(Object.prototype, 'principal', { set: (value) => caught.push(String(value)) });
    addEventListener('error', ({ message }) => { if (message && message !== 'Script error.') caught.push(message); });
    const script = document.createElement('script');
    script.onload = script.onerror = () => resolve(caught);
    script.src = ${JSON.stringify(url)};
    document.body.append(script);
  })`);
}

/** Opens an address in a window of its own, and tries to read that. */
async function readByWindow(page: Page, url: string): Promise<unknown> {
  const opening = page.evaluate(`void (globalThis.opened = open(${JSON.stringify(url)}))`);
  const [opened] = await Promise.all([page.waitForEvent('popup'), opening]);
  await opened.waitForLoadState();
  return page.evaluate(`(() => {
    try { document.domain = 'cam.ac.uk'; } catch {}
    try { return opened.document.body.textContent; } catch ({ name }) { return name; }
  })()`);
}
