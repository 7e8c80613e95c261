import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { html } from '../../src/html.js';
import { installedBrowsers, launchForLocalhost, type Preferences, urlIn } from './browsers.js';
import {
  type Application,
  browserArgs,
  Complaints,
  inFresh,
  openSocket,
  type Running,
  startApplication,
  startNeighbour,
} from './helpers.js';

describe.each(installedBrowsers())(
  'a page on another port, which is the same site, in $name',
  ({ name, executablePath }) => {
    let application: Application;
    let neighbour: Running;
    let browser: Browser;

    beforeAll(async () => {
      application = await startApplication();
      neighbour = await startNeighbour((request, response) => {
        const [page, policy] = (request.url ?? '').slice(1).split(',') as [string, string | undefined];
        response.writeHead(200, { 'Content-Type': 'text/html', ...(policy && { 'Referrer-Policy': policy }) });
        response.end(`<!doctype html><title>Neighbour</title>${neighbourPages(application.url)[page] ?? ''}`);
      });
      browser = await launchForLocalhost(executablePath);
    });
    afterAll(async () => {
      await browser?.close();
      await Promise.all([neighbour?.close(), application?.close()]);
    });

    /** A test in a browser that is logged in, and stays so. */
    function visit(provoked: readonly RegExp[], test: (page: Page, context: BrowserContext) => Promise<void>) {
      return () =>
        inFresh(browser, { provoked }, async (page, context) => {
          await logIn(page, application);
          application.arrived.length = 0;
          application.events.length = 0;
          await test(page, context);
          await page.goto(application.url);
          await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
          expect(await openSocket(page, `${application.url}/live`)).toBe('for test0001');
        });
    }

    it(
      'cannot open our sockets with its visitor’s cookies',
      visit([rejectedHandshake[name]], async (page) => {
        await page.goto(neighbour.url);
        expect(await openSocket(page, `${application.url}/live`)).toBe(1006);
        expect(application.arrived).toEqual([
          { line: 'GET /live', cookie: expect.stringContaining('webauth-session='), origin: neighbour.url },
        ]);
        expect(application.events).toMatchObject([{ event: 'refused', code: 'ERR_ORIGIN_REFUSED' }]);
      }),
    );

    for (const policy of ['', 'no-referrer']) {
      it(
        `cannot log its visitor out${policy && ` under the referrer policy ${policy}`}`,
        visit([], async (page) => {
          await page.goto(`${neighbour.url}/logout,${policy}`);
          const answer = page.waitForResponse(`${application.url}/webauth/logout`);
          await page.getByRole('button').click();
          expect((await answer).status()).toBe(403);
          await page.getByRole('heading', { name: 'That came from another site' }).waitFor();
          expect(application.arrived).toEqual([
            {
              line: 'POST /webauth/logout',
              cookie: expect.stringContaining('webauth-session='),
              origin: policy ? 'null' : neighbour.url,
            },
          ]);
          expect(application.events).toMatchObject([{ event: 'refused', code: 'ERR_ORIGIN_REFUSED' }]);
        }),
      );
    }

    it(
      'cannot put our pages into frames',
      visit([/frame-ancestors/], async (page) => {
        await page.goto(`${neighbour.url}/frames`, { waitUntil: 'load' });
        const framed = page.frames().filter((frame) => frame !== page.mainFrame());
        // But for the page that says that logins are not for frames: it knows nobody, and leads on in the window.
        const shown = (path: string) => (path === '/webauth/callback' ? application.url + path : 'blocked');
        expect(framed.map(urlIn)).toEqual(framedPaths.map(shown));
        expect(await framed.at(-1)?.getByRole('link').getAttribute('target')).toBe('_top');
        expect(await framed.at(-1)?.content()).not.toContain('test0001');
        // The pages were asked for, as its visitor: only the browser's obedience kept them from being shown.
        expect(application.arrived.map(({ line }) => line).sort()).toEqual(
          framedPaths.map((path) => `GET ${path}`).sort(),
        );
        for (const { cookie } of application.arrived) expect(cookie).toContain('webauth-session=');
      }),
    );
  },
);

describe.each(installedBrowsers())('$name that blocks cookies', ({ name, executablePath }) => {
  // Under 127.0.0.1, so that the cookies of the application alone can be blocked, and not those of its login service.
  let application: Application;

  beforeAll(async () => {
    application = await startApplication('127.0.0.1');
  });
  afterAll(() => application?.close());

  // The login service knows its user, and sends them back without a page, where only the application's are blocked: the
  // way into a loop.
  for (const blocked of ['from everywhere', 'from the application'] as const) {
    it(`is told so after one visit to the login service: ${blocked}`, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'browser-profile-'));
      const setting = blocked === 'from everywhere' ? undefined : application.url;
      const browser = await blocking[name](executablePath, folder, setting);
      try {
        const [context = await browser.newContext()] = browser.contexts();
        context.setDefaultTimeout(10_000);
        const complaints = new Complaints(context);
        const page = await context.newPage();
        const shown: string[] = [];
        page.on('request', (request) => shown.push(`${request.method()} ${new URL(request.url()).pathname}`));
        await page.goto(application.url);
        await page.getByRole('button', { name: 'test0001' }).click();
        await expectCookiesPage(page);
        const login = ['GET /', 'GET /auth/authenticate.html', 'POST /auth/authenticate.html', 'GET /webauth/callback'];
        expect(shown.splice(0)).toEqual(login);

        await page.getByRole('button', { name: 'Try again' }).click();
        if (blocked === 'from everywhere') await page.getByRole('button', { name: 'test0001' }).click();
        await expectCookiesPage(page);
        const asked = blocked === 'from everywhere';
        const again = ['POST /webauth/login', ...login.slice(1)].filter(
          (line) => asked || !line.startsWith('POST /auth'),
        );
        expect(shown).toEqual(again);
        expect((await context.cookies(application.url)).map(({ name }) => name)).not.toContain('webauth-session');
        complaints.expectNone();
      } finally {
        await browser.close();
        await rm(folder, { recursive: true, force: true, maxRetries: 5 });
      }
    });
  }
});

/** Ways to start a browser that blocks the cookies of one origin, or all, with a folder for its settings. */
const blocking = {
  Chromium: async (executablePath: string, folder: string, origin?: string): Promise<Browser> => {
    const content = origin
      ? { content_settings: { exceptions: { cookies: { [`${new URL(origin).hostname},*`]: { setting: 2 } } } } }
      : { default_content_setting_values: { cookies: 2 } };
    await mkdir(join(folder, 'Default'));
    await writeFile(join(folder, 'Default', 'Preferences'), JSON.stringify({ profile: content }));
    const context = await chromium.launchPersistentContext(folder, { executablePath, args: [...browserArgs] });
    return context.browser() as Browser;
  },
  Firefox: async (executablePath: string, folder: string, origin?: string): Promise<Browser> => {
    const permissions = join(folder, 'permissions');
    await writeFile(permissions, `origin\tcookie\t2\t${origin}\n`);
    const setting: Preferences = origin
      ? { 'permissions.manager.defaultsUrl': pathToFileURL(permissions).href }
      : { 'network.cookie.cookieBehavior': 2 };
    return launchForLocalhost(executablePath, undefined, setting);
  },
};

/** Complaint about a socket; Firefox does not mention the status. */
const rejectedHandshake = {
  Chromium: /WebSocket connection to .* failed: .*Unexpected response code: 403/,
  Firefox: /can’t establish a connection to the server at ws:/,
};
const framedPaths = ['/', '/nobody', '/webauth/logout', '/webauth/callback'];

/** What the neighbour serves, by path. */
function neighbourPages(target: string): Record<string, string> {
  return {
    logout: html`<form method="post" action="${target}/webauth/logout"><button>You have won</button></form>`.text,
    frames: framedPaths.map((path) => html`<iframe src="${target}${path}"></iframe>`.text).join(''),
  };
}

async function logIn(page: Page, { url }: Application): Promise<void> {
  await page.goto(url);
  await page.getByRole('button', { name: 'test0001' }).click();
  await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
}

async function expectCookiesPage(page: Page): Promise<void> {
  await page.getByText('ERR_COOKIES_BLOCKED').waitFor();
  await page.getByRole('heading', { name: 'Your login could not be matched to your browser' }).waitFor();
  await page.getByText('Allow cookies for this site').waitFor();
}
