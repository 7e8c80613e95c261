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
  readonly sockets: string;
  /** Stops it, and starts it again: it knows nobody then. */
  readonly restart: (meanwhile: () => Promise<void>) => Promise<void>;
  readonly page: Page;
  readonly context: BrowserContext;
}

describe.each(installedBrowsers(true))('examples with sockets, in $name', ({ name, executablePath }) => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchForLocalhost(executablePath);
  });
  afterAll(() => browser?.close());

  /** A test of an example that was just started. */
  function visit(example: string, test: (visit: Visit) => Promise<void>, fresh: Fresh = {}): () => Promise<void> {
    return async () => {
      const [port, wlsPort, socketsPort] = await freePorts(3);
      const ports = { PORT: `${port}`, WLS_PORT: `${wlsPort}`, SOCKETS_PORT: `${socketsPort}` };
      const env = { NODE_ENV: 'development', ...ports };
      const program = await start(example, env);
      const restart = async (meanwhile: () => Promise<void>) => {
        await program.stop();
        await meanwhile();
        await start(example, env);
      };
      const addresses = { url: `http://localhost:${port}/`, sockets: `http://localhost:${socketsPort}` };
      await inFresh(browser, fresh, (page, context) => test({ ...addresses, restart, page, context }));
    };
  }

  it.each(['chat.ts', 'socketio.ts'])(
    '%s says who is there and who said what, as text, and leads back by way of a login',
    (example) =>
      visit(example, async ({ url, page, context }) => {
        await page.goto(`${url}?a=b`);
        await status(page, 'You are not logged in.').waitFor();
        expect(await audit(page)).toEqual([]);
        await page.getByRole('link', { name: 'Log in' }).click();
        await page.getByRole('button', { name: 'test0001' }).click();
        await page.getByText('Here: test0001', { exact: true }).waitFor();
        expect(page.url()).toBe(`${url}?a=b`);
        await status(page, 'Connected.').waitFor();

        const other = await (await browser.newContext()).newPage();
        await other.goto(`${url}webauth/login?return=/`);
        await other.getByRole('button', { name: 'test0002' }).click();
        await page.getByText('Here: test0001, test0002', { exact: true }).waitFor();
        await other.getByLabel('Message').fill('<b>Tea</b> & cake');
        await other.getByLabel('Message').press('Enter');
        await log(page).getByText('test0002: <b>Tea</b> & cake', { exact: true }).waitFor();
        expect(await other.getByLabel('Message').inputValue()).toBe('');
        await other.context().close();
        await page.getByText('Here: test0001', { exact: true }).waitFor();

        await page.setViewportSize({ width: 375, height: 700 });
        expect(await audit(page)).toEqual([]);
        const tab = await context.newPage();
        await tab.goto(url);
        await tab.getByRole('button', { name: 'Log out' }).click();
        await status(page, 'You are not logged in.').waitFor();
        expect(await log(page).textContent()).toBe('');
      })(),
  );

  it(
    'keeps what a page of a neighbour sends with a stolen sid out of a chat by Socket.IO',
    visit(
      'socketio.ts',
      async ({ url, page, context }) => {
        const neighbour = await startNeighbour((_, response) => {
          response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>Neighbour</title>');
        });
        const polled = page.waitForRequest(/transport=polling&.*sid=/);
        await page.goto(`${url}webauth/login?return=/`);
        await page.getByRole('button', { name: 'test0001' }).click();
        const sid = new URL((await polled).url()).searchParams.get('sid');
        const query = `EIO=4&sid=${sid}&transport=`;
        const other = await context.newPage();
        await other.goto(neighbour.url);
        const posted = other.waitForResponse((response) => response.request().method() === 'POST');
        const said = await other.evaluate(`new Promise((done) => {
        const send = { method: 'POST', mode: 'no-cors', credentials: 'include', body: '42["say","planted"]' };
        fetch(${JSON.stringify(`${url}socket.io/?${query}polling`)}, send).then(() => {
          const socket = new WebSocket(${JSON.stringify(`${url.replace('http', 'ws')}socket.io/?${query}websocket`)});
          socket.onmessage = () => done('open');
          socket.onclose = ({ code }) => done(code);
        });
      })`);
        expect([(await posted).status(), said]).toEqual([403, 1006]);
        // It is the same site, so that the browser does send the visitor's session along.
        expect((await context.cookies(neighbour.url)).map(({ name }) => name)).toContain('webauth-session');
        await page.getByLabel('Message').fill('my own');
        await page.getByLabel('Message').press('Enter');
        await log(page).getByText('test0001: my own', { exact: true }).waitFor();
        expect(await log(page).textContent()).not.toContain('planted');
        await neighbour.close();
      },
      { provoked: [rejectedHandshake[name]] },
    ),
  );

  it(
    'says that the connection was lost, keeps what is being written, and that nobody is logged in any more',
    visit('chat.ts', async ({ url, page, restart }) => {
      await page.clock.install();
      await page.goto(`${url}webauth/login?return=/`);
      await page.getByRole('button', { name: 'test0001' }).click();
      await status(page, 'Connected.').waitFor();
      // Nothing is tried by itself meanwhile.
      await page.clock.pauseAt(Date.now() + 60_000);
      await restart(async () => {
        await status(page, 'No connection').waitFor();
        await page.getByLabel('Message').fill('half a thought');
        await page.getByLabel('Message').press('Enter');
        expect(await page.getByLabel('Message').inputValue()).toBe('half a thought');
      });
      await page.getByRole('button', { name: 'Try now' }).click();
      await status(page, 'ERR_SESSION_INVALID').waitFor();
      await page.clock.runFor(60_000);
      await page.getByRole('link', { name: 'Log in' }).waitFor();
    }),
  );

  it(
    'opens sockets of another origin by a ticket and by a frame, until somebody logs out',
    visit('two-origins.ts', async ({ url, sockets, page, context }) => {
      await page.goto(url);
      await page.getByRole('button', { name: 'test0001' }).click();
      for (const way of ['query', 'frame']) await output(page, way).filter({ hasText: 'Hello, test0001.' }).waitFor();
      const names = (await context.cookies(sockets)).map(({ name }) => name);
      expect(names).toContain('webauth-socket');
      const tab = await context.newPage();
      await tab.goto(url);
      await output(tab, 'frame').filter({ hasText: 'Hello, test0001.' }).waitFor();
      await tab.getByRole('button', { name: 'Log out' }).click();
      for (const way of ['query', 'frame']) await output(page, way).filter({ hasText: 'logged out' }).waitFor();
    }),
  );
});

/** Complaint about a socket. */
const rejectedHandshake = {
  Chromium: /WebSocket connection to .* failed/,
  Firefox: /can’t establish a connection to the server at ws:/,
};

async function start(example: string, env: Readonly<Record<string, string>>): Promise<Program> {
  const program = new Program(['--import', 'tsx', join('examples', example)], { env });
  await program.printed(/^Listening on /m);
  return program;
}

function status(page: Page, said: string): Locator {
  return page.locator('#status').filter({ hasText: said });
}

function log(page: Page): Locator {
  return page.getByRole('log', { name: 'What was said' });
}

/** What is shown of one way of opening a socket. */
function output(page: Page, way: string): Locator {
  return page.locator(`#${way}`);
}
