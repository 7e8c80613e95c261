import { join } from 'node:path';
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePorts, Program } from '../processes.js';
import { audit } from './audit.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';
import { type Fresh, inFresh, startNeighbour } from './helpers.js';

/** The example, and a page that was never there before. */
interface Visit {
  readonly url: string;
  readonly wlsUrl: string;
  readonly page: Page;
  readonly context: BrowserContext;
}

interface Options extends Fresh {
  readonly example?: string;
}

describe.each(installedBrowsers(true))('examples, in $name', ({ name, executablePath }) => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchForLocalhost(executablePath, undefined, acceptingReposts);
  });
  afterAll(() => browser?.close());

  /** A test of an example that was just started. */
  function visit(
    test: (visit: Visit) => Promise<void>,
    { example = 'spa.ts', ...fresh }: Options = {},
  ): () => Promise<void> {
    return async () => {
      const [port, wlsPort] = (await freePorts(2)) as [number, number];
      const env = { NODE_ENV: 'development', PORT: `${port}`, WLS_PORT: `${wlsPort}` };
      await new Program(['--import', 'tsx', join('examples', example)], { env }).printed(/^Listening on /m);
      const addresses = { url: `http://localhost:${port}/`, wlsUrl: `http://localhost:${wlsPort}/` };
      await inFresh(browser, fresh, (page, context) => test({ ...addresses, page, context }));
    };
  }

  it(
    'sends people to log in, back to the list that they wanted, and shows what they add as text',
    visit(async ({ url, page }) => {
      await open(page, `${url}?a=b#committee`);
      expect(page.url()).toBe(`${url}?a=b#committee`);
      await expectCurrent(page, 'Committee');
      await page.getByText(/^test0001, until \d\d:\d\d$/).waitFor();
      await status(page, 'Nothing is here yet.').waitFor();
      await field(page).fill('<b title="x">Tea</b> & cake');
      await field(page).press('Enter');
      await page.getByText('<b title="x">Tea</b> & cake (test0001)', { exact: true }).waitFor();
      await status(page, 'Added.').waitFor();
      expect([await field(page).inputValue(), await isFocused(field(page))]).toEqual(['', true]);

      await page.getByRole('link', { name: 'Notes' }).click();
      await status(page, 'Nothing is here yet.').waitFor();
      await expectCurrent(page, 'Notes');
      await expect.poll(() => isFocused(page.getByRole('heading', { name: 'Notes' }))).toBe(true);
      expect(await page.getByRole('listitem').count()).toBe(0);
      await page.goBack();
      await page.getByText('Tea').waitFor();
      await expectCurrent(page, 'Committee');
    }),
  );

  it(
    'loses nothing when the session was ended in another tab: back to the same place, with what was being written',
    visit(async ({ url, wlsUrl, page, context }) => {
      await open(page, `${url}#committee`);
      await field(page).fill('half a thought');
      await logOutEverywhere(await context.newPage(), url, wlsUrl);
      await page.getByRole('button', { name: 'Add' }).click();
      await logIn(page);
      expect(page.url()).toBe(`${url}#committee`);
      await expectCurrent(page, 'Committee');
      await status(page, 'What you were writing is still here, and not sent yet.').waitFor();
      expect(await field(page).inputValue()).toBe('half a thought');
      expect(await page.getByRole('listitem').count()).toBe(0);
      await page.getByRole('button', { name: 'Add' }).click();
      await page.getByText('half a thought (test0001)', { exact: true }).waitFor();
      await page.reload();
      await page.getByText('half a thought (test0001)', { exact: true }).waitFor();
      expect(await field(page).inputValue()).toBe('');
    }),
  );

  it(
    'keeps what somebody was writing from the next person, and from who comes after logging out',
    visit(async ({ url, wlsUrl, page, context }) => {
      await open(page, url);
      await field(page).fill('for my eyes only');
      await logOutEverywhere(await context.newPage(), url, wlsUrl);
      await page.getByRole('link', { name: 'Committee' }).click();
      await logIn(page, 'test0002');
      await status(page, 'Nothing is here yet.').waitFor();
      expect(page.url()).toBe(`${url}#committee`);
      expect([await field(page).inputValue(), await stored(page)]).toEqual(['', { principal: 'test0002' }]);

      await field(page).fill('for my eyes only');
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByText('You may still be logged in at the login service').waitFor();
      expect(await stored(page)).toEqual({});
      await page.goto(`${wlsUrl}auth/logout.html`);
      await page.goto(url);
      await page.getByText('This is not Raven.').waitFor();
    }),
  );

  it(
    'shows nothing any more once it is left, and asks again who it is when somebody comes back to it',
    visit(async ({ url, wlsUrl, page, context }) => {
      await open(page, url);
      await field(page).fill('kept in the memory of the browser');
      // What the browser tells a page that it keeps; the browser of the tests keeps none.
      await page.evaluate('dispatchEvent(new Event("pagehide"))');
      expect(
        await page
          .getByText(/test0001|kept/)
          .filter({ visible: true })
          .count(),
      ).toBe(0);
      expect(await field(page).isVisible()).toBe(false);
      await page.evaluate('dispatchEvent(new Event("pageshow"))');
      await field(page).waitFor();
      await logOutEverywhere(await context.newPage(), url, wlsUrl);
      await page.evaluate('dispatchEvent(new Event("pagehide")) && dispatchEvent(new Event("pageshow"))');
      await page.getByText('This is not Raven.').waitFor();
    }),
  );

  it(
    'offers to log in, and does not go there by itself, when Back leads to it after a logout',
    visit(async ({ url, page }) => {
      await open(page, url);
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByText('You are logged out of this site').waitFor();
      while (page.url() !== url) await page.goBack();
      await page.getByText('You are logged out.', { exact: true }).waitFor();
      expect([page.url(), await field(page).isVisible(), await status(page, 'Loading…').count()]).toEqual([
        url,
        false,
        0,
      ]);
      // Single sign-on lets the user in without a question.
      await page.getByRole('button', { name: 'Log in again' }).click();
      await field(page).waitFor();
      expect(await page.getByRole('button', { name: 'Log in again' }).isVisible()).toBe(false);
    }),
  );

  it(
    'leads back past the login service, and not to it again',
    visit(async ({ url, page }) => {
      await page.goto(`${url}webauth/logout`);
      await page.goto(url);
      await page.getByText('This is not Raven.').waitFor();
      await page.goBack();
      await page.getByText('You are logged out of this site').waitFor();
    }),
  );

  it(
    'tells people that they may not, and that nothing could be reached',
    visit(
      async ({ url, page, context }) => {
        await open(page, `${url}#committee`, 'test0003');
        await status(page, 'You are logged in, but this is for other people.').waitFor();
        expect(await field(page).isVisible()).toBe(false);
        await page.getByRole('link', { name: 'Notes' }).click();
        await field(page).fill('w'.repeat(200));
        await context.setOffline(true);
        await page.getByRole('button', { name: 'Add' }).click();
        await status(page, 'The server cannot be reached. Try again.').waitFor();
        await context.setOffline(false);
        await page.getByRole('button', { name: 'Add' }).click();
        await status(page, 'Added.').waitFor();
        await field(page).fill(' ');
        await page.getByRole('button', { name: 'Add' }).click();
        await status(page, 'That did not work: a note has 1 to 200 characters.').waitFor();
      },
      { provoked: complaints[name].offline },
    ),
  );

  it(
    'says that the session is about to end, and goes on with a newer password',
    visit(async ({ url, page }) => {
      await page.clock.install();
      await open(page, `${url}#committee`);
      await page.getByRole('button', { name: 'Log out' }).click();
      await page.getByText('You are logged out of this site').waitFor();
      // Without being asked, so that any password will be newer than this login.
      await page.goto(`${url}#committee`);
      await field(page).waitFor();
      const warning = page.locator('#warning');
      const again = page.getByRole('button', { name: 'Log in again' });
      await page.clock.fastForward(114 * 60_000);
      expect([await warning.textContent(), await again.isVisible()]).toEqual(['', false]);
      await page.clock.fastForward(70_000);
      await warning.getByText('You will be logged out in less than five minutes.').waitFor();
      await field(page).fill('just in time');
      await again.click();
      await page.getByText('It wants you to authenticate again').waitFor();
      await logIn(page);
      await status(page, 'What you were writing is still here, and not sent yet.').waitFor();
      expect([await warning.textContent(), await again.isVisible(), page.url()]).toEqual([
        '',
        false,
        `${url}#committee`,
      ]);

      await page.clock.fastForward(121 * 60_000);
      await warning.getByText('You are logged out.').waitFor();
      expect(await again.isVisible()).toBe(true);
    }),
  );

  it(
    'takes nothing from pages of neighbours, and is not shown in their frames',
    visit(
      async ({ url, page, context }) => {
        const arrived: string[] = [];
        context.on('request', (request) => {
          if (request.method() === 'POST') arrived.push(request.url());
        });
        const neighbour = await startNeighbour((_, response) => {
          response.setHeader('Content-Type', 'text/html');
          response.end(`<form method="post" enctype="text/plain" action="${url}api/notes">
            <input name='{"text": "planted", "x": "' value='"}'><button>Press</button></form><iframe src="${url}"></iframe>`);
        });
        try {
          await open(page, url);
          await field(page).waitFor();
          const other = await context.newPage();
          await other.goto(neighbour.url);
          const frame = other.frames().find((found) => found !== other.mainFrame());
          await frame?.waitForLoadState();
          expect(await frame?.locator('main').count()).toBe(0);
          for (const how of ['{ mode: "no-cors" }', '{ headers: { "Content-Type": "application/json" } }']) {
            const body = `JSON.stringify({ text: 'planted' })`;
            const options = `{ method: 'POST', credentials: 'include', body: ${body}, ...${how} }`;
            await other.evaluate(`fetch('${url}api/notes', ${options}).catch(() => {})`);
          }
          await other.getByRole('button', { name: 'Press' }).click();
          await other.getByText('ERR_ORIGIN_REFUSED').waitFor();
          expect(arrived.filter((address) => address === `${url}api/notes`).length).toBeGreaterThanOrEqual(2);
          await page.reload();
          await status(page, 'Nothing is here yet.').waitFor();
        } finally {
          await neighbour.close();
        }
      },
      { provoked: [/frame-ancestors/, ...complaints[name].crossOrigin] },
    ),
  );

  it(
    'works by keyboard alone',
    visit(async ({ url, page }) => {
      await open(page, url);
      await field(page).waitFor();
      for (const expected of ['Notes', 'Committee']) {
        await page.keyboard.press('Tab');
        await expect.poll(() => isFocused(page.getByRole('link', { name: expected }))).toBe(true);
      }
      await page.keyboard.press('Enter');
      await status(page, 'Nothing is here yet.').waitFor();
      await expect.poll(() => isFocused(page.getByRole('heading', { name: 'Committee' }))).toBe(true);
      await page.keyboard.press('Tab');
      await page.keyboard.type('no mouse');
      await page.keyboard.press('Enter');
      await page.getByText('no mouse (test0001)').waitFor();
    }),
  );

  it(
    'finds what was typed into a form whose post was refused: by going back, and by loading the refusal again',
    visit(
      async ({ url, page, context }) => {
        const input = page.getByLabel('Notice');
        /** Fills the form in; and then the session becomes one that was made without a password. */
        const sendTooLate = async (text: string) => {
          await page.goto(`${url}new`);
          const asked = page.getByRole('button', { name: 'test0003' });
          await asked.or(input).waitFor();
          if (await asked.isVisible()) await asked.click();
          await input.fill(text);
          const other = await context.newPage();
          await other.goto(`${url}webauth/logout`);
          await other.getByRole('button', { name: 'Log out', exact: true }).click();
          await other.getByText('You are logged out of this site').waitFor();
          await other.goto(url);
          await other.getByRole('link', { name: 'Add a notice' }).waitFor();
          await page.getByRole('button', { name: 'Add' }).click();
          await page.getByText('What you sent was not saved.').waitFor();
          return other;
        };

        await sendTooLate('sent from the form');
        const opened = context.waitForEvent('page');
        await page.getByRole('button', { name: 'Log in' }).click();
        const tab = await opened;
        await tab.getByRole('button', { name: 'test0003' }).click();
        await tab.getByLabel('Notice').waitFor();
        expect(tab.url()).toBe(`${url}new`);
        await page.goBack();
        await expect.poll(() => input.inputValue()).toBe('sent from the form');
        await page.getByRole('button', { name: 'Add' }).click();
        await page.getByText('sent from the form (test0003)').waitFor();

        const other = await sendTooLate('sent again');
        await other.getByRole('link', { name: 'Add a notice' }).click();
        await other.getByRole('button', { name: 'test0003' }).click();
        await other.getByLabel('Notice').waitFor();
        await page.reload();
        await page.getByText('sent again (test0003)').waitFor();
      },
      { example: 'staff.ts' },
    ),
  );

  for (const [device, width] of [
    ['on a desk', 1000],
    ['on a phone', 375],
  ] as const) {
    it(
      `can be read and touched ${device}, in light and in dark`,
      visit(async ({ url, page }) => {
        await page.setViewportSize({ width, height: 700 });
        await page.clock.install();
        await open(page, url);
        await field(page).fill('w'.repeat(200));
        await field(page).press('Enter');
        await status(page, 'Added.').waitFor();
        expect(await audit(page)).toEqual([]);
        await page.clock.fastForward(116 * 60_000);
        await page.getByRole('button', { name: 'Log in again' }).waitFor();
        expect(await audit(page)).toEqual([]);
      }),
    );
  }
});

/** Has Firefox send a form again without the question to its user, which Playwright cannot answer. */
const acceptingReposts = { 'dom.confirm_repost.testing.always_accept': true };

/** Complaints of the console about requests that fail. */
const complaints = {
  Chromium: { offline: [/ERR_INTERNET_DISCONNECTED/], crossOrigin: [/CORS policy/, /net::ERR_FAILED/] },
  Firefox: { offline: [], crossOrigin: [/Same Origin Policy disallows reading/] },
};

/** Goes to the front end, which leads to the login service, and picks an account there. */
async function open(page: Page, address: string, principal?: string): Promise<void> {
  await page.goto(address);
  await logIn(page, principal);
}

async function logIn(page: Page, principal = 'test0001'): Promise<void> {
  await page.getByText('This is not Raven.').waitFor();
  await page.getByRole('button', { name: principal }).click();
  await page.getByText(`${principal}, until`).waitFor();
}

/** Here and at the login service. */
async function logOutEverywhere(page: Page, url: string, wlsUrl: string): Promise<void> {
  await page.goto(`${url}webauth/logout`);
  await page.getByRole('button', { name: 'Log out', exact: true }).click();
  await page.getByText('You are logged out of this site').waitFor();
  await page.goto(`${wlsUrl}auth/logout.html`);
  await page.close();
}

function status(page: Page, said: string): Locator {
  return page
    .getByRole('status')
    .getByText(said)
    .or(page.getByRole('status').filter({ hasText: said }))
    .first();
}

function field(page: Page): Locator {
  return page.getByLabel('Something to add');
}

/** Which list is shown: to those who see, and to those who hear. */
async function expectCurrent(page: Page, name: string): Promise<void> {
  await page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
  expect(await page.title()).toBe(name);
  expect(await page.locator('[aria-current=page]').allInnerTexts()).toEqual([name]);
}

async function isFocused(element: Locator): Promise<boolean> {
  return element.evaluate((found) => found === found.ownerDocument.activeElement);
}

/** What the front end keeps in this tab. */
async function stored(page: Page): Promise<unknown> {
  return page.evaluate('({ ...sessionStorage })');
}
