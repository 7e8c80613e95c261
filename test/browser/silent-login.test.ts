import type { IncomingMessage, ServerResponse } from 'node:http';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installedBrowsers } from './browsers.js';
import type { Routes } from './helpers.js';
import {
  app,
  beginLogin,
  cookiesOf,
  type Domain,
  inBrowser,
  loginCookie,
  sessionCookie,
  sibling,
  startDomain,
} from './https.js';

const loginPath = '/webauth/login?return=/';

/** A request for the login or a guarded page, as its browser described it, and the answer's status. */
interface Fetched {
  readonly described: string;
  readonly status: number;
}

// All hosts are under cam.ac.uk, which is one site. The user is logged in at the login service, and not here.
describe.each(installedBrowsers())(
  'logging in where single sign-on asks nothing, in $name',
  ({ name, executablePath }) => {
    let domain: Domain;
    const seen = new Map<string, Fetched[]>();
    let waiting: (() => void) | undefined;

    beforeAll(async () => {
      domain = await startDomain(executablePath, answer, addRoutes);
      domain.application.server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
        const { url = '', headers } = request;
        const described = ['sec-purpose', 'sec-fetch-mode', 'sec-fetch-dest'].map((name) => headers[name]);
        response.on('finish', () => {
          const fetched = { described: described.filter(Boolean).join(' '), status: response.statusCode };
          seen.set(url, [...(seen.get(url) ?? []), fetched]);
          waiting?.();
        });
      });
    });
    afterAll(() => domain?.close());

    /** Waits until the application has answered a request for the address. */
    async function answered(url: string): Promise<Fetched> {
      for (;;) {
        const [fetched] = seen.get(url) ?? [];
        if (fetched) return fetched;
        await new Promise<void>((resolve) => {
          waiting = resolve;
        });
      }
    }

    /** Runs a test in a browser whose user is logged in at the login service alone. */
    async function signedOn(test: (page: Page, context: BrowserContext) => Promise<void>): Promise<void> {
      await inBrowser(domain, {}, async (page, context) => {
        await page.goto(app);
        await page.getByRole('button', { name: 'test0001' }).click();
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        await logOutHere(context);
        await test(page, context);
      });
    }

    async function logOutHere(context: BrowserContext): Promise<void> {
      await context.clearCookies({ name: /^__Host-webauth/ });
      domain.application.events.length = 0;
      seen.clear();
    }

    const theirPage = (body: string) => `${sibling}/?${new URLSearchParams({ body })}`;
    const started = () =>
      domain.application.events.filter(({ event }) => event === 'login started' || event === 'login');

    const target = `${app}${loginPath}`;
    const parts: [name: string, body: string, described: string, status: number][] = [
      ['an image', `<img src="${target}">`, 'no-cors image', 403],
      ['a script', `<script src="${target}"></script>`, 'no-cors script', 403],
      ['a background', `<div style="background: url('${target}')">x</div>`, 'no-cors image', 403],
      [
        'fetch() without CORS',
        `<script>fetch('${target}', { mode: 'no-cors', credentials: 'include' })</script>`,
        'no-cors empty',
        403,
      ],
      ['fetch()', `<script>fetch('${target}', { credentials: 'include' }).catch(() => {})</script>`, 'cors empty', 403],
      ['a frame', `<iframe src="${target}"></iframe>`, 'navigate iframe', 403],
      ['an object', `<object data="${target}" type="text/html"></object>`, 'navigate object', 403],
      ['an embedded page', `<embed src="${target}" type="text/html">`, 'navigate embed', 403],
      ['a prefetch', `<link rel="prefetch" href="${target}">`, 'prefetch no-cors empty', 503],
    ];

    it.each(partsIn(name, parts))('starts none for %s of a sibling host', async (_name, body, described, status) => {
      await signedOn(async (page, context) => {
        await page.goto(theirPage(body));
        expect(await answered(loginPath)).toEqual({ described, status });
        await page.waitForLoadState('networkidle');
        expect([started(), Object.keys(await cookiesOf(context))]).toEqual([[], []]);
      });
    });

    it('starts none for a guarded page in a frame of a sibling host, and shows a link for the window', async () => {
      await signedOn(async (page, context) => {
        await page.goto(theirPage(`<iframe src="${app}/"></iframe>`));
        expect(await answered('/')).toEqual({ described: 'navigate iframe', status: 401 });
        expect([started(), Object.keys(await cookiesOf(context))]).toEqual([[], []]);
        await page.frameLocator('iframe').getByRole('link', { name: 'Log in' }).click();
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        expect(page.url()).toBe(`${app}/`);
      });
    });

    // Firefox prerenders no pages.
    it.skipIf(name === 'Firefox')(
      'starts none for a page that is prerendered, and one when the user goes there',
      async () => {
        await signedOn(async (page, context) => {
          await page.goto(`${app}/speculating`);
          expect(await answered(loginPath)).toEqual({ described: 'prefetch;prerender navigate document', status: 503 });
          expect([started(), Object.keys(await cookiesOf(context))]).toEqual([[], []]);
          await page.getByRole('link').click();
          await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        });
      },
    );

    const ways: [name: string, body: string, act?: (page: Page, context: BrowserContext) => Promise<unknown>][] = [
      ['a link', `<a href="${target}">go</a>`, (page) => page.getByText('go').click()],
      [
        'a form',
        `<form action="${app}/webauth/login"><button name="return" value="/">go</button></form>`,
        (page) => page.getByText('go').click(),
      ],
      ['a script', `<script>location.assign('${target}')</script>`],
      ['a refresh', `<meta http-equiv="refresh" content="0; url=${target}">`],
    ];

    it.each(partsIn(name, ways))('starts one for a navigation by %s of a sibling host', async (_name, body, act) => {
      await signedOn(async (page, context) => {
        await page.goto(theirPage(body), { waitUntil: 'commit' });
        await act?.(page, context);
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        expect(Object.keys(await cookiesOf(context))).toContain(sessionCookie);
      });
    });

    it('starts one in a window that a page opens', async () => {
      await signedOn(async (page, context) => {
        await page.goto(theirPage(`<button onclick="window.open('${target}')">go</button>`));
        const [popup] = await Promise.all([context.waitForEvent('page'), page.getByText('go').click()]);
        await popup.getByRole('heading', { name: 'You are test0001' }).waitFor();
      });
    });

    // Firefox describes the request of such a worker as one that is no navigation.
    const passed = name === 'Firefox' ? 'same-origin empty' : 'navigate empty';

    it('starts one through a service worker that passes navigations on', async () => {
      await signedOn(async (page, context) => {
        await page.goto(`${app}/worker`);
        await page.evaluate(`navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready)
        .then(() => navigator.serviceWorker.controller
          || new Promise((resolve) => navigator.serviceWorker.addEventListener('controllerchange', resolve)))
        .then(() => {})`);
        await logOutHere(context);
        await page.goto(app);
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        const [callback] = [...seen].find(([url]) => url.startsWith('/webauth/callback')) ?? [];
        expect(await answered('/')).toMatchObject({ described: passed });
        expect((await answered(callback as string)).status).toBe(303);
        await logOutHere(context);
        await page.evaluate(`void location.assign(${JSON.stringify(loginPath)})`);
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
        expect(await answered(loginPath)).toEqual({ described: passed, status: 303 });
      });
    });

    it('is not finished in a frame, which leaves the response for the window', async () => {
      const { path, nonce } = await beginLogin(domain);
      await inBrowser(domain, { [loginCookie]: nonce }, async (page, context) => {
        seen.clear();
        await page.goto(theirPage(`<iframe src="${app}${path}"></iframe>`));
        expect(await answered(path)).toEqual({ described: 'navigate iframe', status: 403 });
        expect([started(), Object.keys(await cookiesOf(context))]).toEqual([[], [loginCookie]]);
        await page.goto(app + path);
        await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
      });
    });
  },
);

/** Those in which browsers differ, in Firefox, which takes longer; and all in Chromium. */
function partsIn<T extends [string, ...unknown[]]>(browser: string, parts: readonly T[]): readonly T[] {
  const differing = ['an image', 'fetch()', 'a frame', 'an embedded page', 'a prefetch', 'a link', 'a refresh'];
  return browser === 'Firefox' ? parts.filter(([part]) => differing.includes(part)) : parts;
}

/** Serves the sibling's page, with the body that the query asks for. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const body = new URL(request.url ?? '', sibling).searchParams.get('body') ?? '';
  response.writeHead(200, { 'Content-Type': 'text/html' }).end(`<!doctype html><title>Sibling</title>${body}`);
}

const speculation = JSON.stringify({ prerender: [{ urls: [loginPath], eagerness: 'immediate' }] });

const addRoutes: Routes = (server) => {
  server.get('/speculating', (_, response) => {
    response.type('html').send(`<!doctype html><title>Speculating</title><a href="${loginPath}">Log in</a>
      <script type="speculationrules">${speculation}</script>`);
  });
  server.get('/worker', (_, response) => void response.type('html').send('<!doctype html><title>Worker</title>'));
  server.get('/worker.js', (_, response) => {
    response.type('text/javascript').send(`
      addEventListener('activate', (event) => event.waitUntil(clients.claim()));
      addEventListener('fetch', (event) => event.respondWith(fetch(event.request)));`);
  });
};
