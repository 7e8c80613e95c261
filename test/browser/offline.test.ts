import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { freePorts, Program, root } from '../processes.js';
import { audit } from './audit.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';
import { type Fresh, inFresh } from './helpers.js';

/** Cache-first worker, as many tutorials have it: it stores every response. */
const naiveWorker = `
addEventListener('install', () => skipWaiting());
addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || new URL(request.url).pathname.startsWith('/webauth/')) return;
  event.respondWith((async () => {
    const stored = await caches.match(request);
    if (stored) return stored;
    const response = await fetch(request);
    if (response.ok) await (await caches.open('everything')).put(request, response.clone());
    return response;
  })());
});`;

/** Changes to files of the example, by path: each returns the new text. */
type Changes = Readonly<Record<string, (text: string) => string>>;

const withNaiveWorker: Changes = { 'offline/worker.js': () => naiveWorker };
const withoutClearing: Changes = {
  'offline/page.js': (text) => replace(text, "$('logout')?.addEventListener", '$()?.addEventListener'),
};
const withBackForwardCache: Changes = {
  'offline.ts': (text) => replace(text, "response.setHeader('Cache-Control', 'no-store');", ''),
  'offline/page.js': (text) => replace(replace(text, "'pageshow'", "'never'"), "'pagehide'", "'never'"),
};
const withRequestLog: Changes = {
  'offline.ts': (text) =>
    replace(
      text,
      'app.use(auth);',
      `app.use((request, _response, next) => {
        console.log(request.path, request.headers['sec-fetch-dest']);
        next();
      });
      app.use(auth);`,
    ),
};
const withReloadOnly: Changes = { 'offline.ts': withBackForwardCache['offline.ts'] as (text: string) => string };

interface Options extends Fresh {
  readonly changes?: Changes;
}

interface Visit {
  readonly url: string;
  readonly page: Page;
  /** Logs out of the login service, in another tab: it would log the user in again without a question. */
  readonly forgetLogin: () => Promise<void>;
  readonly goOffline: () => Promise<unknown>;
  readonly goOnline: () => Promise<unknown>;
  /** Paths of responses that came to a page so far, and whether by way of the worker. */
  readonly responses: readonly (readonly [path: string, byWorker: boolean])[];
  /** Returns lines that the example printed. */
  readonly printed: (pattern: RegExp) => readonly string[];
}

// Not the headless shell: it has no back/forward cache.
describe.each(installedBrowsers())('examples/offline.ts, in $name', ({ name, executablePath }) => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchForLocalhost(executablePath, (options) =>
      chromium.launch({ ...options, ignoreDefaultArgs: ['--disable-back-forward-cache'] }),
    );
  });
  afterAll(() => browser?.close());

  /** Runs a test of the example in which test0001 is logged in and sees the private page, by way of the worker. */
  function loggedIn(
    test: (visit: Visit) => Promise<void>,
    { changes = {}, ...fresh }: Options = {},
  ): () => Promise<void> {
    return async () => {
      const [port, wlsPort] = (await freePorts(2)) as [number, number];
      const env = { NODE_ENV: 'development', PORT: `${port}`, WLS_PORT: `${wlsPort}` };
      const cwd = copyExample(changes);
      const start = async () => {
        const started = new Program(['--import', 'tsx', 'examples/offline.ts'], { env, cwd });
        await started.printed(/^Listening on /m);
        return started;
      };
      let program = await start();
      const url = `http://localhost:${port}/`;
      await inFresh(browser, fresh, async (page, context) => {
        const responses: [string, boolean][] = [];
        context.on('response', (response) => {
          if (response.url().startsWith(url)) {
            responses.push([new URL(response.url()).pathname, response.fromServiceWorker()]);
          }
        });
        await page.goto(url);
        await page.evaluate('navigator.serviceWorker.ready.then(() => {})');
        await page.getByRole('link', { name: 'Your loans' }).click();
        await page.getByRole('button', { name: 'test0001' }).click();
        await page.getByText('A book on lock-picking, borrowed by test0001').waitFor();
        expect(await page.evaluate('navigator.serviceWorker.controller !== null')).toBe(true);
        const forgetLogin = async () => {
          const tab = await context.newPage();
          await tab.goto(`http://localhost:${wlsPort}/auth/logout.html`);
          await tab.close();
        };
        // In Firefox the requests of a worker still arrive while WebDriver BiDi has the page offline: the server stops.
        const goOffline = () => (name === 'Firefox' ? program.stop() : context.setOffline(true));
        const goOnline = async () => {
          if (name === 'Chromium') return context.setOffline(false);
          // A server that starts again knows no session.
          await context.clearCookies();
          program = await start();
        };
        const printed = (pattern: RegExp) => program.output.split('\n').filter((line) => pattern.test(line));
        await test({ url, page, forgetLogin, goOffline, goOnline, responses, printed });
      });
    };
  }

  it(
    "shows the login service and nothing private after Back and a typed address, when the page's button logged out",
    loggedIn(async ({ url, page, forgetLogin }) => {
      await forgetLogin();
      await logOutByOwnButton(page);
      await page.goBack({ waitUntil: 'commit' });
      await page.getByText('This is not Raven.').waitFor();
      await expectNothingPrivate(page);
      await page.goto(`${url}loans`);
      await page.getByText('This is not Raven.').waitFor();
      await expectNothingPrivate(page);
    }),
  );

  it(
    'shows the offline page and nothing private offline, when the page that Back leads to logged out',
    loggedIn(
      async ({ url, page, goOffline }) => {
        await logOutByOwnButton(page);
        await expect.poll(() => storedPaths(page), { timeout: 10_000 }).toEqual(publicPaths);
        await goOffline();
        await page.goBack({ waitUntil: 'commit' });
        await page.getByRole('heading', { name: 'You are offline' }).waitFor();
        expect(page.url()).toBe(`${url}loans`);
        await expectNothingPrivate(page);
        await page.goto(`${url}loans`);
        await page.getByRole('heading', { name: 'You are offline' }).waitFor();
        await expectNothingPrivate(page);
        expect(await page.evaluate(`fetch('/api/loans').then(() => 'answered', () => 'failed')`)).toBe('failed');
        await page.getByRole('link', { name: 'Opening hours' }).click();
        await page.getByText('The desk is open from 9:00 to 17:00').waitFor();
      },
      { provoked: [failedFetch[name]] },
    ),
  );

  it(
    'leaves logins and logouts to the browser',
    loggedIn(
      async ({ page, responses, printed }) => {
        await logOutByOwnButton(page);
        // The page after the logout has an image, which clears the browser's cache.
        await page.waitForLoadState('load');
        // A worker's own requests have no destination.
        expect(printed(/^\/loans /)).toContain('/loans empty');
        expect(printed(/^\/webauth\//)).toEqual([
          '/webauth/callback document',
          '/webauth/logout document',
          '/webauth/logout document',
          '/webauth/cleared image',
        ]);
        // WebDriver BiDi does not report to Playwright that a response came by way of a worker.
        if (name === 'Firefox') return;
        expect(responses).toContainEqual(['/loans', true]);
        expect(responses.filter(([path]) => path.startsWith('/webauth/'))).toEqual([
          ['/webauth/callback', false],
          ['/webauth/logout', false],
          ['/webauth/logout', false],
          ['/webauth/cleared', false],
        ]);
      },
      { changes: withRequestLog },
    ),
  );

  it.each([
    ['the login service', false, 'This is not Raven.'],
    ['the offline page', true, 'You are offline'],
  ] as const)('shows %s after Back, when the back/forward cache restores the page (offline: %s)', (_, offline, shown) =>
    loggedIn(
      async ({ page, forgetLogin, goOffline }) => {
        await forgetLogin();
        expect(await storedPaths(page)).not.toContain('/loans');
        await logOutByOwnButton(page);
        await expect.poll(() => storedPaths(page), { timeout: 10_000 }).toEqual(publicPaths);
        if (offline) await goOffline();
        await page.goBack({ waitUntil: 'commit' });
        await page.getByText(shown).waitFor();
        await expectNothingPrivate(page);
      },
      { changes: withReloadOnly },
    )(),
  );

  it(
    'stores public responses only, and shows the private page while the user is logged in',
    loggedIn(async ({ url, page, goOffline, goOnline }) => {
      expect(await audit(page)).toEqual([]);
      await page.goto(`${url}index.html`);
      await expect
        .poll(() => storedPaths(page), { timeout: 10_000 })
        .toEqual(['/', '/index.html', ...publicPaths.slice(1)]);
      await page.goto(`${url}loans?page=2`);
      await page.getByText('borrowed by test0001').waitFor();
      expect((await storedPaths(page)).filter((path) => /loans|webauth/.test(path))).toEqual([]);
      await goOffline();
      await page.reload();
      await page.getByRole('heading', { name: 'You are offline' }).waitFor();
      expect(await audit(page)).toEqual([]);
      await goOnline();
      await page.reload();
      if (name === 'Firefox') await page.getByRole('button', { name: 'test0001' }).click();
      await page.getByText('borrowed by test0001').waitFor();
    }),
  );

  it.each([
    [
      'a page reports a logout',
      (page: Page) => page.evaluate(`navigator.serviceWorker.controller.postMessage('logged out')`),
    ],
    ["the library's own page logs out", logOutByLibraryPage],
  ] as const)('the worker deletes what an earlier worker stored, when %s', (_, logOut) =>
    loggedIn(async ({ page }) => {
      await page.evaluate(`caches.open('everything').then((cache) => cache.add('/loans'))`);
      expect(await storedPaths(page)).toContain('/loans');
      await logOut(page);
      await expect.poll(() => storedPaths(page), { timeout: 10_000 }).toEqual(publicPaths);
    })(),
  );

  it(
    'the page deletes what a naive worker stored, before it logs out',
    loggedIn(
      async ({ page }) => {
        expect(await storedPaths(page)).toContain('/loans');
        await logOutByOwnButton(page);
        expect(await storedPaths(page)).toEqual([]);
      },
      { changes: withNaiveWorker },
    ),
  );

  // Controls: the tests above can fail.
  it.each([
    ["the library's own page logs out", logOutByLibraryPage, withNaiveWorker],
    ['a page logs out that deletes no caches', logOutByOwnButton, { ...withNaiveWorker, ...withoutClearing }],
  ] as const)('shows the private page offline with a naive worker, when %s', (_, logOut, changes) =>
    loggedIn(
      async ({ url, page, goOffline }) => {
        await logOut(page);
        await goOffline();
        await page.goto(`${url}loans`);
        await page.getByText('Loans of test0001').waitFor();
        await page.getByText('A book on lock-picking, borrowed by test0001').waitFor();
      },
      { changes },
    )(),
  );

  it(
    'shows the private page after Back, when the page may stay in the back/forward cache and does not reload',
    loggedIn(
      async ({ page }) => {
        await logOutByOwnButton(page);
        await page.goBack({ waitUntil: 'commit' });
        await page.getByText('A book on lock-picking, borrowed by test0001').waitFor();
      },
      { changes: withBackForwardCache },
    ),
  );
});

/** Complaint about a request of the page that the worker cannot answer; Firefox does not mention the URL. */
const failedFetch = {
  Chromium: /net::ERR_FAILED .*api\/loans/,
  Firefox: /NetworkError when attempting to fetch resource/,
};
const publicPaths = ['/', '/offline.html', '/page.js', '/style.css'];

/** Copies the example to a folder of its own, as a user does who has the package installed. */
function copyExample(changes: Changes): string {
  const folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-offline-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'node_modules'));
  for (const name of ['express', 'tsx']) {
    symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name), 'junction');
  }
  symlinkSync(root, join(folder, 'node_modules', 'ucam-webauth'), 'junction');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  for (const name of ['offline.ts', 'offline']) {
    cpSync(join(root, 'examples', name), join(folder, 'examples', name), { recursive: true });
  }
  for (const [name, change] of Object.entries(changes)) {
    const file = join(folder, 'examples', name);
    writeFileSync(file, change(readFileSync(file, 'utf8')));
  }
  return folder;
}

function replace(text: string, part: string, by: string): string {
  expect(text).toContain(part);
  return text.replace(part, () => by);
}

async function logOutByOwnButton(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByText('You are logged out of this site').waitFor();
}

async function logOutByLibraryPage(page: Page): Promise<void> {
  await page.goto(new URL('/webauth/logout', page.url()).href);
  await page.getByRole('button', { name: 'Log out', exact: true }).click();
  await page.getByText('You are logged out of this site').waitFor();
}

async function expectNothingPrivate(page: Page): Promise<void> {
  expect(await page.content()).not.toMatch(/Loans of|borrowed by/);
}

/** Paths of all responses in CacheStorage, sorted. */
async function storedPaths(page: Page): Promise<string[]> {
  const paths: string[] = await page.evaluate(`(async () => {
    const paths = [];
    for (const name of await caches.keys()) {
      for (const { url } of await (await caches.open(name)).keys()) paths.push(new URL(url).pathname);
    }
    return paths;
  })()`);
  return [...new Set(paths)].sort();
}
