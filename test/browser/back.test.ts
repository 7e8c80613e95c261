import { EventEmitter, once } from 'node:events';
import express from 'express';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Config } from '../../src/config.js';
import { webauth } from '../../src/express/index.js';
import { hash } from '../../src/html.js';
import { MemoryStore } from '../../src/session/memory.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { createWLS, type WLS } from '../../src/wls/index.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';
import { Complaints, type Running, startNeighbour } from './helpers.js';

/** A store whose writes can fail. */
class Flaky extends MemoryStore {
  isDown = false;
  override async put(key: string, value: string, expires: Date): Promise<void> {
    if (this.isDown) throw new Error('no route');
    await super.put(key, value, expires);
  }
}

/** Two applications of one origin that log out together, and what their server sees. */
interface Site extends Running {
  readonly store: Flaky;
  /** Requests for a private page, with the status of the answer, and reports of restored pages. */
  readonly seen: string[];
  /** Resolves when there is something in `seen`. */
  next(): Promise<string>;
}

const script = `addEventListener('pageshow', ({ persisted }) => {
  if (persisted) fetch('/restored', { method: 'POST', body: location.pathname });
});`;

async function startSite(wls: WLS, config: Partial<Config>): Promise<Site> {
  const app = express();
  const neighbour = await startNeighbour(app);
  const [store, seen, bell] = [new Flaky(), [] as string[], new EventEmitter()];
  const note = (line: string) => void bell.emit('seen', seen.push(line));
  app.use((request, response, next) => {
    const isPage = /^\/[ab]\/(?:\?\d)?$/.test(request.url);
    if (isPage) response.on('finish', () => note(`${request.method} ${request.url} ${response.statusCode}`));
    next();
  });
  app.post('/restored', express.text(), ({ body }, response) => {
    note(`restored ${body}`);
    response.end();
  });
  const applications = ['a', 'b'].map((name) => {
    const shared = { wls: wls.profile, store, secret: 'a1'.repeat(32), coordinatedLogout: true, ...config };
    return { name, waa: createWAA({ baseUrl: `${neighbour.url}/${name}`, cookieName: name, ...shared }) };
  });
  for (const { name, waa } of applications) addPages(app, name, waa);
  const close = async () => {
    await neighbour.close();
    await Promise.all(applications.map(({ waa }) => waa.close()));
    await store.close();
  };
  const next = async () => {
    if (seen.length === 0) await once(bell, 'seen');
    return seen[0] as string;
  };
  return { url: neighbour.url, store, seen, next, close };
}

function addPages(app: express.Express, name: string, waa: WAA): void {
  const auth = webauth(waa);
  app.use(auth);
  app.get(`/${name}/`, auth.require(), (_request, response) => {
    response.set(
      'Content-Security-Policy',
      `default-src 'none'; script-src ${hash(script)}; connect-src 'self'; img-src data:`,
    );
    response.send(`<!doctype html><link rel="icon" href="data:,"><title>${name}</title><h1>Private ${name}</h1>
      <form method="post" action="${waa.routes.logout}"><button>Log out</button>
      <button formaction="${waa.routes.logout}?everywhere=yes">Log out everywhere</button></form>
      <p><a href="${waa.routes.logout}">Leave</a></p><script>${script}</script>`);
  });
  app.use(auth.failurePage);
}

// Not the headless shell: it restores no page.
describe.each(installedBrowsers())(
  'Back after a logout, in $name with its back/forward cache',
  ({ name, executablePath }) => {
    let browser: Browser;
    let wls: WLS;
    const sites = {} as { clearing: Site; other: Site };

    beforeAll(async () => {
      wls = createWLS();
      await wls.listen(0);
      sites.clearing = await startSite(wls, {});
      sites.other = await startSite(wls, { clearCacheOnLogout: false });
      browser = await launchForLocalhost(executablePath, (options) =>
        chromium.launch({ ...options, ignoreDefaultArgs: ['--disable-back-forward-cache'] }),
      );
    });
    afterAll(async () => {
      await browser?.close();
      await Promise.all([...Object.values(sites).map((site) => site.close()), wls?.close()]);
    });

    /** Logs in at one of the applications, or at both, and logs out as told; then goes back to where that began. */
    async function leave(site: Site, { act, pages = ['/a/'], provoked = [] }: Way): Promise<string> {
      const context = await browser.newContext();
      context.setDefaultTimeout(10_000);
      const complaints = new Complaints(context);
      try {
        const page = await context.newPage();
        let first = 0;
        for (const path of pages) {
          await page.goto(site.url + path);
          const account = page.getByRole('button', { name: 'test0001' });
          await account.or(page.getByText('Private')).first().waitFor();
          if (await account.isVisible()) await account.click();
          await page.getByText('Private').waitFor();
          first ||= Number(await page.evaluate('history.length'));
        }
        await act(page, site);
        await page.waitForLoadState('load');
        site.seen.length = 0;
        // Firefox keeps one entry where a form is answered by a redirect to its own page, and Chromium two.
        await page.evaluate(`history.go(${first} - history.length)`);
        const seen = await site.next();
        // Firefox's console does not mention the status.
        if (name === 'Chromium') for (const pattern of provoked) complaints.expect(pattern);
        complaints.expectNone();
        return seen;
      } finally {
        site.store.isDown = false;
        await context.close();
      }
    }

    it.each(ways.map((way) => [way.name, way] as const))('requests the page again after %s', async (_name, way) => {
      // Otherwise this browser would not show what is prevented.
      expect(await leave(sites.other, way)).toBe('restored /a/');
      // 401: another application ended the session, a moment after its login.
      expect(await leave(sites.clearing, way)).toMatch(/^GET \/a\/ (?:303|401)$/);
    });

    // WebDriver BiDi does not report to Playwright that Firefox restored a page: without a script nothing tells.
    const scriptless = [
      ['shows nothing private without JavaScript', 'clearing', ['GET /a/ 303'], 'Development login service'],
      ['restores the page without JavaScript where clearCacheOnLogout is false', 'other', [], 'Private a'],
    ] as const;
    it.each(scriptless.slice(0, name === 'Chromium' ? 2 : 1))('%s', async (_name, which, seen, heading) => {
      const site = sites[which];
      const context = await browser.newContext({ javaScriptEnabled: false });
      context.setDefaultTimeout(10_000);
      const page = await context.newPage();
      await page.goto(`${site.url}/a/`);
      await page.getByRole('button', { name: 'test0001' }).click();
      await press('Log out')(page);
      await page.waitForLoadState('load');
      await context.clearCookies();
      site.seen.length = 0;
      await page.evaluate('history.back()');
      await page.getByRole('heading', { name: heading }).waitFor();
      expect(site.seen).toEqual(seen);
      await context.close();
    });
  },
);

/** How a user logs out, and goes back. */
interface Way {
  readonly act: (page: Page, site: Site) => Promise<void>;
  /** Pages that the user visits before, in this order. */
  readonly pages?: readonly string[];
  /** Complaints of the browser's console. */
  readonly provoked?: readonly RegExp[];
}

function press(name: string, heading = 'You are logged out of this site') {
  return async (page: Page): Promise<void> => {
    await page.getByRole('button', { name, exact: true }).click();
    await page.getByRole('heading', { name: heading }).waitFor();
  };
}

async function failToLogOut(page: Page, { store }: Site): Promise<void> {
  store.isDown = true;
  await press('Log out', 'You are not logged out yet')(page);
}

const ways: readonly (Way & { readonly name: string })[] = [
  { name: 'its own button logged out', act: press('Log out') },
  { name: 'its own button logged out everywhere', act: press('Log out everywhere') },
  {
    name: 'the button of the logout page',
    act: async (page) => {
      await page.getByRole('link', { name: 'Leave' }).click();
      await press('Log out')(page);
    },
  },
  { name: 'the logout of another application of the origin', pages: ['/a/', '/b/'], act: press('Log out') },
  { name: 'a logout that failed', act: failToLogOut, provoked: [/status of 503/] },
  {
    name: 'the session was removed from this browser only',
    act: async (page, site) => {
      await failToLogOut(page, site);
      await press('Remove it from this browser only', 'Your session was removed from this browser')(page);
    },
    provoked: [/status of 503/],
  },
];
