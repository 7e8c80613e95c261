// Makes docs/images/*.png of the demonstration's pages, in Chromium: npm run screenshots.
// Made twice on one machine they are the same to the byte: what differs from run to run is made the same in the page.
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core';
import { browserArgs, findChromium, startDemo } from '../test/browser/helpers.js';

const folder = fileURLToPath(new URL('../docs/images/', import.meta.url));
const desk = { width: 800, height: 800 };
const phone = { width: 390, height: 700 };
/** High enough for all that is shown of the experiment. */
const tall = 6000;

/** Runs in the page: ports, times and handle become those of one imagined run. */
const settle = `
const put = (element, text) => {
  // In a copy, which the page's own clock does not know.
  const copy = element.cloneNode();
  copy.textContent = text;
  element.replaceWith(copy);
};
for (const time of document.querySelectorAll('time')) put(time, '01/03/2026, ' + (time.id === 'ends' ? 14 : 12) + ':00:00');
for (const left of document.querySelectorAll('#left')) put(left, ', in 120 min 0 s');
for (const code of document.querySelectorAll('code')) {
  const text = code.textContent;
  if (text.startsWith('localhost:')) put(code, 'localhost:' + (text === APPLICATION ? 8710 : 8711));
  if (/^[\\w-]{22}$/.test(text)) put(code, 'Zm9yIGEgcGljdHVyZSBvbg');
}
for (const said of document.querySelectorAll('#result q, .wire li')) {
  const text = said.lastChild;
  text.data = text.data
    .replace(/(Host: |Origin: http:..)localhost:\\d+/, (_, before) => before + 'localhost:' + (before === 'Host: ' ? 8712 : 8719))
    .replace(/(allowed: http:..)localhost:\\d+/, '$1localhost:8710')
    .replace(/(GET .)[\\w-]{16}/, '$1cGljdHVyZSBvbmx5')
    .replace(/=[\\w-]{4}… .\\d+/, '=Zm9y… (227');
}
document.activeElement.blur();
scrollTo(0, 0);
`;

const executablePath = findChromium();
if (executablePath === undefined) process.exit(1);
mkdirSync(folder, { recursive: true });
const demo = await startDemo();
// Letters without coloured edges, which would be wrong on other screens; and nothing kept of what was painted before.
const painting = ['--disable-lcd-text', '--disable-partial-raster'];
const browser = await chromium.launch({ executablePath, args: [...browserArgs, ...painting] });
try {
  for (const colorScheme of ['light', 'dark'] as const) {
    await visit({ colorScheme }, async (page) => {
      await beginLogin(page);
      await shoot(page, `login-service-${colorScheme}`);
      await cancelLogin(page);
      await shoot(page, `cancelled-${colorScheme}`);
      await logIn(page, 'test0001');
      await shoot(page, `demo-${colorScheme}`, page.getByText('What was checked'));
    });
    await visit({ colorScheme, viewport: { ...desk, height: tall } }, async (page) => {
      await experiment(page);
      await shoot(page, `experiment-${colorScheme}`, heading(page, 'Try all'), heading(page, 'Try one'));
    });
  }
  await visit({}, showLeaver);
  await visit({ viewport: phone, colorScheme: 'dark' }, async (page) => {
    await logIn(page, 'test0001');
    await shoot(page, 'demo-phone', page.getByRole('heading', { name: 'Your session', exact: true }));
  });
  await visit({ viewport: { ...phone, height: tall } }, async (page) => {
    await experiment(page);
    await page.getByRole('button', { name: 'Try all' }).click();
    await page.getByText(/^\d+ were accepted/).waitFor();
    await shoot(page, 'experiment-phone', heading(page, 'The life of a socket'), heading(page, 'Try all'));
  });
} finally {
  await browser.close();
  await demo.close();
}

/** In a browser that nobody used before. */
async function visit(options: BrowserContextOptions, show: (page: Page) => Promise<void>): Promise<void> {
  const context = await browser.newContext({ viewport: desk, locale: 'en-GB', timezoneId: 'UTC', ...options });
  context.setDefaultTimeout(10_000);
  await show(await context.newPage());
  await context.close();
}

async function beginLogin(page: Page): Promise<void> {
  await page.goto(`${demo.url}/any`);
  await page.getByText('This is not Raven.').waitFor();
}

async function cancelLogin(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('Login cancelled').waitFor();
}

async function logIn(page: Page, principal: string): Promise<void> {
  await beginLogin(page);
  await page.getByRole('button', { name: principal }).click();
  await page.getByLabel('Say something').fill('Good morning');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText(`${principal} said: Good morning`).waitFor();
}

/** A foreign page that tries to open a socket by the cookie. */
async function experiment(page: Page): Promise<void> {
  await page.goto(`${demo.url}/experiment`);
  await page.getByRole('button', { name: 'test0001' }).click();
  await page.getByLabel('From a foreign page').check();
  await page.getByRole('button', { name: 'cookie', exact: true }).click();
  await page.getByText('ERR_ORIGIN_REFUSED').first().waitFor();
}

/** Somebody who may not enter, and logs out. */
async function showLeaver(page: Page): Promise<void> {
  await logIn(page, 'test0401');
  await page.goto(`${demo.url}/members`);
  await shoot(page, 'refused');
  await page.goto(`${demo.url}/webauth/logout`);
  await shoot(page, 'log-out');
  await page.getByRole('button', { name: 'Log out', exact: true }).click();
  await page.getByText('You are logged out').waitFor();
  await shoot(page, 'logged-out');
}

function heading(page: Page, name: string): Locator {
  return page.getByRole('heading', { name, exact: true });
}

/**
 * The page from its top, or from one element, to the end of what it says, or to where another one begins, or as much as
 * the window shows.
 */
async function shoot(page: Page, name: string, before?: Locator, from?: Locator): Promise<void> {
  await page.evaluate(settle.replace('APPLICATION', JSON.stringify(new URL(demo.url).host)));
  // What is under the mouse looks different.
  await page.mouse.move(0, 0);
  const { width, height } = page.viewportSize() ?? desk;
  const box = await (before ?? page.locator('main > :last-child')).boundingBox();
  if (box === null) throw new Error(`${name}: the page ends nowhere`);
  const end = before ? box.y : box.y + box.height + 24;
  const y = Math.max(0, Math.round((await from?.boundingBox())?.y ?? 0) - 24);
  const clip = { x: 0, y, width, height: Math.min(height, Math.round(end)) - y };
  await page.screenshot({ path: `${folder}${name}.png`, clip, animations: 'disabled' });
}
