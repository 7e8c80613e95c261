import { type Browser, type BrowserContext, chromium, type Locator, type Page, type Response } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { errorTable } from '../../src/errors.js';
import { failures } from '../../src/response.js';
import { checks } from '../../src/verify.js';
import { certificateOf } from '../processes.js';
import { audit } from './audit.js';
import {
  browserArgs,
  type Fresh,
  findQuickChromium,
  inFresh,
  openSocket,
  type Running,
  startDemo,
  trusting,
} from './helpers.js';

const executablePath = findQuickChromium();

describe.skipIf(executablePath === undefined)('the demonstration, in Chromium', () => {
  let demo: Running;
  let browser: Browser;

  beforeAll(async () => {
    demo = await startDemo();
    browser = await chromium.launch({ executablePath: executablePath as string, args: [...browserArgs] });
  });
  afterAll(async () => {
    await browser?.close();
    await demo?.close();
  });

  function visit(test: (page: Page, context: BrowserContext) => Promise<void>, fresh: Fresh = {}): () => Promise<void> {
    return () => inFresh(browser, fresh, test);
  }

  /** From the home page to the login service. */
  async function beginLogin(page: Page): Promise<void> {
    await page.goto(demo.url);
    await page.getByRole('button', { name: 'Log in' }).click();
    await heading(page, 'Development login service').waitFor();
  }

  async function logIn(page: Page, principal = 'test0001'): Promise<void> {
    await beginLogin(page);
    await account(page, principal).click();
    await heading(page, `You are ${principal}`).waitFor();
    // Whoever logged out before would see it refused.
    await page.getByText(`You are ${principal}. The server knows from the cookie`).waitFor();
  }

  /** The cookie of the session, for a test to take away and put back. */
  async function sessionCookie(context: BrowserContext) {
    const cookie = (await context.cookies()).find(({ name }) => name === 'webauth-session');
    if (cookie === undefined) return expect.fail('there is no session cookie');
    return cookie;
  }

  it(
    'logs in, opens the socket, and shows what happened',
    visit(async (page) => {
      await page.goto(demo.url);
      expect(await page.title()).toBe('ucam-webauth');
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.getByText('This is not Raven.').waitFor();
      expect(new URL(page.url()).origin).not.toBe(demo.url);
      await account(page, 'test0001').click();

      await heading(page, 'You are test0001').waitFor();
      expect(page.url()).toBe(`${demo.url}/`);
      await page.getByText('It is open.').waitFor();
      await page.getByText('You are test0001. The server knows from the cookie of your session.').waitFor();
      await page.getByLabel('Say something').fill('<b>good</b> morning & all');
      await page.getByRole('button', { name: 'Send' }).click();
      await page.getByText('test0001 said: <b>good</b> morning & all', { exact: true }).waitFor();

      const ends = page.getByRole('row', { name: /^ends/ });
      expect(await ends.textContent()).toMatch(/in 1(20 min 0|19 min \d+) s: the longest that this application lets/);
      expect(await page.getByRole('row', { name: /^authenticated/ }).textContent()).toContain('just then, by pwd');
      const checked = page.getByRole('list').filter({ hasText: 'first use' }).getByRole('listitem');
      expect(await checked.allInnerTexts()).toEqual([
        'form: every field is as the protocol has it',
        ...checks.map(({ name, requirement }) => `${name}: ${requirement}`),
        'first use: it was not used before',
      ]);
      const answer = page.getByRole('table').filter({ hasText: 'principal' });
      const fields = 'ver status msg issue id url principal ptags auth sso life params kid sig'.split(' ');
      expect(await answer.getByRole('rowheader').allInnerTexts()).toEqual(fields);
      const value = (name: string) => answer.getByRole('row', { name: new RegExp(`^${name} `) }).getByRole('cell');
      expect(await value('url').textContent()).toBe(`${demo.url}/webauth/callback`);
      expect(await value('principal').textContent()).toBe('test0001');
      expect(await value('life').textContent()).toBe('36000');
    }),
  );

  it(
    'logs in for the second time without asking, and says that it was not asked',
    visit(async (page) => {
      await logIn(page);
      await page.getByRole('button', { name: 'Log out', exact: true }).click();
      await heading(page, 'You are logged out of this site').waitFor();
      const shown = collectPages(page);
      await page.getByRole('button', { name: 'Log in again' }).click();
      await heading(page, 'You are test0001').waitFor();
      expect(await page.getByRole('row', { name: /^authenticated/ }).textContent()).toContain('earlier, by pwd');
      // The page that answers the button goes on by itself.
      expect(shown()).toEqual([`${demo.url}/webauth/login?return=%2F`, `${demo.url}/`]);
    }),
  );

  it(
    'takes a cancelled login for what it is, and offers another try',
    visit(async (page) => {
      await beginLogin(page);
      const answer = atCallback(page);
      await page.getByRole('button', { name: 'Cancel' }).click();
      expect((await answer).status()).toBe(401);
      await heading(page, 'Login cancelled').waitFor();
      await page.getByText('Nothing has changed. You can try again whenever you like.').waitFor();
      expect(await audit(page)).toEqual([]);
      await page.getByRole('button', { name: 'Try again' }).click();
      await account(page, 'test0002').click();
      await heading(page, 'You are test0002').waitFor();
    }),
  );

  it(
    'keeps the session when another login is cancelled',
    visit(async (page, context) => {
      await logIn(page);
      const session = await sessionCookie(context);
      // Nobody who is logged in is sent to log in, so the second login begins while the cookie is away. The login
      // service's own is away too, so that it asks.
      await context.clearCookies();
      const second = await context.newPage();
      await beginLogin(second);
      await context.addCookies([session]);
      const answer = atCallback(second);
      await second.getByRole('button', { name: 'Cancel' }).click();
      expect((await answer).status()).toBe(401);
      await heading(second, 'Login cancelled').waitFor();
      expect((await sessionCookie(context)).value).toBe(session.value);
      await page.reload();
      await heading(page, 'You are test0001').waitFor();
      await page.getByText('It is open.').waitFor();
    }),
  );

  it(
    'keeps the session when a tab that waited at the login service gives up',
    visit(async (page, context) => {
      const waiting = await context.newPage();
      await beginLogin(waiting);
      await logIn(page);
      const answer = atCallback(waiting);
      await waiting.getByRole('button', { name: 'Cancel' }).click();
      expect((await answer).status()).toBeLessThan(500);
      await expectReadable(waiting);
      await page.reload();
      await heading(page, 'You are test0001').waitFor();
    }),
  );

  for (const [status, [code]] of Object.entries(failures)) {
    it(
      `shows a page that people can read for status ${status}`,
      visit(async (page) => {
        await beginLogin(page);
        await page.locator('summary').click();
        const answer = atCallback(page);
        await page.locator(`button[value="${status}"]`).first().click();
        expect((await answer).status()).toBe(errorTable[code].status);
        await expectReadable(page);
        await page.getByText(code).waitFor();
        await page.getByRole('button', { name: 'Try again' }).waitFor();
        expect(await audit(page)).toEqual([]);
      }),
    );
  }

  it(
    'logs out: sockets close at once, the cookie is worth nothing any more, and the page says what remains',
    visit(
      async (page, context) => {
        await logIn(page);
        await page.getByText('It is open.').waitFor();
        const session = await sessionCookie(context);
        const other = await context.newPage();
        await other.goto(demo.url);
        await other.getByText('It is open.').waitFor();
        expect(await openSocket(other, `${demo.url}/live`)).toContain('You are test0001.');
        const closed = page.getByText('closed (4401, ERR_SESSION_REVOKED').waitFor({ timeout: 2000 });
        await Promise.all([closed, other.getByRole('button', { name: 'Log out', exact: true }).click()]);

        await heading(other, 'You are logged out of this site').waitFor();
        await other.getByText('You may still be logged in at the login service').waitFor();
        const there = other.getByRole('link', { name: /^Log out of / });
        expect(new URL((await there.getAttribute('href')) as string).pathname).toBe('/auth/logout.html');
        expect(await page.getByLabel('Say something').isVisible()).toBe(false);
        await page.getByRole('link', { name: 'Load this page again' }).click();
        await page.getByText('Nobody is logged in.').waitFor();

        for (const cookies of [[], [session]]) {
          await context.addCookies(cookies);
          await page.goto(demo.url);
          await page.getByText('Nobody is logged in.').waitFor();
          expect((await context.request.get(`${demo.url}/members`, { maxRedirects: 0 })).status()).toBe(401);
          expect(await openSocket(page, `${demo.url}/live`)).toBe(1006);
        }

        await there.click();
        await heading(other, 'Logged out').waitFor();
        // Now the login service asks again.
        await beginLogin(page);
      },
      { bypassCSP: true, provoked: [/WebSocket connection to .* failed: .*403/] },
    ),
  );

  it(
    'lets somebody who has left into what is for everybody, and not into what is for members',
    visit(async (page) => {
      await logIn(page, 'test0401');
      const open = await page.goto(`${demo.url}/any`);
      expect(open?.status()).toBe(200);
      await heading(page, 'You are test0401').waitFor();
      expect(
        await page
          .getByRole('row', { name: /^ptags/ })
          .first()
          .textContent(),
      ).toContain('not a current member');
      const refused = await page.goto(`${demo.url}/members`);
      expect(refused?.status()).toBe(403);
      await expectReadable(page);
      await page.getByText('ERR_PTAGS_REFUSED').waitFor();
      await page.getByRole('link', { name: 'Log out' }).click();
      await page.getByText('You are logged in as test0401.').waitFor();
      await page.getByRole('button', { name: 'Log out', exact: true }).click();
      await heading(page, 'You are logged out of this site').waitFor();
    }),
  );

  it(
    'survives going back and loading the answer of the login service again',
    visit(async (page, context) => {
      const answer = atCallback(page);
      await beginLogin(page);
      const [attempt] = (await context.cookies()).filter(({ name }) => name === 'webauth-login');
      await account(page, 'test0001').click();
      await heading(page, 'You are test0001').waitFor();
      const used = (await answer).url();
      const session = await sessionCookie(context);

      const shown = collectPages(page);
      await page.goBack();
      await page.locator('h1').waitFor();
      expect(shown().length).toBeLessThanOrEqual(1);
      await expectReadable(page);

      // As good as a second tab that finishes later: the session is there, and the person is the same.
      for (let time = 0; time < 2; time++) {
        expect((await page.goto(used))?.status()).toBe(200);
        await heading(page, 'You are test0001').waitFor();
      }

      // Even with the cookie of that login, which success took away.
      await context.addCookies(attempt ? [attempt] : []);
      expect((await page.goto(used))?.status()).toBe(400);
      await heading(page, 'This login was used already').waitFor();

      expect((await sessionCookie(context)).value).toBe(session.value);
      await page.goto(demo.url);
      await heading(page, 'You are test0001').waitFor();
      await page.getByText('It is open.').waitFor();
    }),
  );

  it(
    'shows a person all of their sessions, and ends another one of them',
    visit(async (page, context) => {
      await logIn(page, 'test0004');
      const other = await (await context.browser()?.newContext())?.newPage();
      if (other === undefined) return expect.fail('there is no browser');
      await logIn(other, 'test0004');
      await other.getByText('It is open.').waitFor();
      await page.reload();
      const sessions = page.getByRole('listitem').filter({ hasText: 'last seen' });
      expect(await sessions.count()).toBe(2);
      expect(await sessions.filter({ hasText: '(this one)' }).count()).toBe(1);
      const end = sessions.filter({ hasNotText: '(this one)' }).getByRole('button', { name: /^End this session: / });
      await tabTo(page, end);
      const closed = other.getByText('closed (4401, ERR_SESSION_REVOKED').waitFor({ timeout: 2000 });
      await Promise.all([closed, page.keyboard.press('Enter')]);
      await heading(page, 'You are test0004').waitFor();
      expect(await sessions.count()).toBe(1);
      await page.getByText('It is open.').waitFor();

      // So soon after a login it could be a loop: only a press leads on. The login service knows them still.
      await other.goto(`${demo.url}/any`);
      await other.getByText('Your session was ended.').waitFor();
      await other.getByRole('button', { name: 'Log in' }).click();
      await other.getByText('It is open.').waitFor();
      const both = [page, other].map((one) => one.getByText('closed (4401').waitFor({ timeout: 2000 }));
      await context.request.post(`${demo.url}/webauth/logout?everywhere=yes`, { headers: { Origin: demo.url } });
      await Promise.all(both);
      await other.context().close();
    }),
  );

  it(
    'works by keyboard alone, and shows where one is',
    visit(async (page) => {
      await page.goto(demo.url);
      await enter(page, page.getByRole('button', { name: 'Log in' }));
      await heading(page, 'Development login service').waitFor();
      await enter(page, account(page, 'test0003'));
      await page.getByText('It is open.').waitFor();
      await tabTo(page, page.getByLabel('Say something'));
      await page.keyboard.type('no mouse');
      await enter(page, page.getByRole('button', { name: 'Send' }));
      await page.getByText('test0003 said: no mouse').waitFor();
      await enter(page, page.getByRole('link', { name: 'A page for current members' }));
      await heading(page, 'For current members').waitFor();
      await enter(page, page.getByRole('link', { name: 'Back' }));
      await heading(page, 'You are test0003').waitFor();
      await enter(page, page.getByRole('button', { name: 'Log out', exact: true }));
      await heading(page, 'You are logged out of this site').waitFor();
    }),
  );

  for (const [device, width] of [
    ['on a desk', 1000],
    ['on a phone', 375],
  ] as const) {
    it(
      `can be read and touched ${device}, in light and in dark`,
      visit(async (page, context) => {
        await page.setViewportSize({ width, height: 700 });
        const faults: Record<string, string[]> = {};
        const look = async (name: string) => {
          const found = await audit(page);
          if (found.length > 0) faults[name] = found;
        };
        await page.goto(demo.url);
        await look('landing');
        await beginLogin(page);
        await page.locator('summary').click();
        await look('login service');
        const { origin } = new URL(page.url());
        await context.clearCookies();
        await account(page, 'test0401').click();
        await page.getByText('ERR_COOKIES_BLOCKED').waitFor();
        await look('cookies');
        await context.clearCookies();
        await logIn(page);
        await page.getByLabel('Say something').fill('w'.repeat(200));
        await page.getByRole('button', { name: 'Send' }).click();
        await page.getByText('test0001 said: www').waitFor();
        await look('home');
        await page.goto(`${demo.url}/members`);
        await look('members');
        await page.goto(`${demo.url}/webauth/logout`);
        await look('log out?');
        await page.getByRole('button', { name: 'Log out', exact: true }).click();
        await heading(page, 'You are logged out of this site').waitFor();
        await look('logged out');
        await page.getByRole('link', { name: /^Log out of / }).click();
        await heading(page, 'Logged out').waitFor();
        await look('logged out of the login service');
        await logIn(page, 'test0401');
        await look('home of somebody who has left');
        await page.goto(`${demo.url}/members`);
        await look('403');
        await page.goto(`${origin}/`);
        await look('root of the login service');
        await page.goto(`${origin}/auth/authenticate.html?ver=3`);
        await look('mistake in the request');
        expect(faults).toEqual({});
      }),
    );
  }
});

describe.skipIf(executablePath === undefined)('the demonstration on https, in Chromium', () => {
  let demo: Running;
  let browser: Browser;

  beforeAll(async () => {
    demo = await startDemo(['--https']);
    const args = [...browserArgs, trusting(await certificateOf(demo.url))];
    browser = await chromium.launch({ executablePath: executablePath as string, args });
  });
  afterAll(async () => {
    await browser?.close();
    await demo?.close();
  });

  it('logs in with cookies for this host and https alone, and opens the socket on wss', async () => {
    await inFresh(browser, {}, async (page, context) => {
      const sockets: string[] = [];
      page.on('websocket', (socket) => sockets.push(socket.url()));
      await page.goto(demo.url);
      await page.getByRole('button', { name: 'Log in' }).click();
      await heading(page, 'Development login service').waitFor();
      expect(new URL(page.url()).protocol).toBe('http:');
      await account(page, 'test0001').click();
      await heading(page, 'You are test0001').waitFor();
      await page.getByText('It is open.').waitFor();
      await page.getByText('The server knows from the cookie of your session.').waitFor();
      expect(page.url()).toBe(`${demo.url}/`);
      expect(sockets).toEqual([`${demo.url.replace('https', 'wss')}/live`]);

      const ours = (await context.cookies(demo.url)).filter(({ name }) => name.includes('webauth'));
      expect(ours.map(({ name }) => name)).toContain('__Host-webauth-session');
      for (const { name, secure, path } of ours)
        expect([name, secure, path]).toEqual([expect.stringMatching(/^__Host-/), true, '/']);
      await page.getByRole('button', { name: 'Log out', exact: true }).click();
      await heading(page, 'You are logged out of this site').waitFor();
    });
  });
});

function heading(page: Page, name: string): Locator {
  return page.getByRole('heading', { level: 1, name, exact: true });
}

/** The button of an account, on the page of the login service. */
function account(page: Page, principal: string): Locator {
  return page.getByRole('button', { name: principal });
}

/** The answer to the login service's answer, when it comes. */
function atCallback(page: Page): Promise<Response> {
  return page.waitForResponse((response) => new URL(response.url()).pathname === '/webauth/callback');
}

/** The addresses that show a page from now on, without those that only lead on. */
function collectPages(page: Page): () => string[] {
  const shown: string[] = [];
  page.on('response', (response) => {
    const main = response.frame() === page.mainFrame() && response.request().isNavigationRequest();
    if (main && (response.status() < 300 || response.status() > 399)) shown.push(response.url());
  });
  return () => shown;
}

/** Holds that the page says in words of its own what went wrong, and leads somewhere. */
async function expectReadable(page: Page): Promise<void> {
  await page.locator('h1').waitFor();
  const text = await page.locator('body').textContent();
  expect(text).not.toMatch(/\n\s+at |node_modules|\.[jt]s:\d|Internal Server Error|undefined|\[object/);
  expect(await page.locator('a, button').count()).toBeGreaterThan(0);
}

/** Presses Tab until the element has the focus, and holds that each stop on the way can be seen to have it. */
async function tabTo(page: Page, target: Locator): Promise<void> {
  for (let stops = 0; stops < 40; stops++) {
    await page.keyboard.press('Tab');
    const outline = await page.evaluate<string>(`(() => {
      const { activeElement } = document;
      if (activeElement === document.body) return 'left';
      const { outlineStyle, outlineWidth } = getComputedStyle(activeElement);
      return activeElement.matches(':focus-visible') ? outlineStyle + ' ' + outlineWidth : 'invisible';
    })()`);
    if (outline === 'left') continue;
    expect(outline).toBe('solid 3px');
    if (await target.evaluate((element) => element === element.ownerDocument.activeElement)) return;
  }
  expect.fail(`${target} is not reached by Tab`);
}

async function enter(page: Page, target: Locator): Promise<void> {
  await tabTo(page, target);
  await page.keyboard.press('Enter');
}
