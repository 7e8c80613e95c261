import {
  type APIResponse,
  type Browser,
  type BrowserContext,
  chromium,
  type Locator,
  type Page,
} from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { certificateOf } from '../processes.js';
import { audit } from './audit.js';
import { browserArgs, type Demo, findQuickChromium, startDemo, trusting } from './helpers.js';

const executablePath = findQuickChromium();

/** What docs/websockets.md says that each is answered with: a status, or a close code, and the error's code. */
const ticket = (wrong: number, ended = wrong) => ({
  good: '101',
  wrong: `${wrong} ERR_TOKEN_INVALID`,
  expired: `${wrong} ERR_TOKEN_INVALID`,
  reused: `${wrong} ERR_TOKEN_INVALID`,
  foreign: '403 ERR_ORIGIN_REFUSED',
  sandboxed: '403 ERR_ORIGIN_REFUSED',
  ended: `${ended} ERR_SESSION_REVOKED`,
});
const cookie = {
  good: '101',
  wrong: '403 ERR_SESSION_INVALID',
  expired: '403 ERR_SESSION_EXPIRED',
  reused: '101',
  foreign: '403 ERR_ORIGIN_REFUSED',
  sandboxed: '403 ERR_ORIGIN_REFUSED',
  ended: '403 ERR_SESSION_REVOKED',
};
const documented = {
  cookie,
  frame: cookie,
  query: ticket(401),
  firstMessage: ticket(4401),
  subprotocol: ticket(403),
  basic: ticket(401),
  bearer: { ...ticket(401), reused: '101', ended: '401 ERR_TOKEN_INVALID' },
};
type Method = keyof typeof documented;
type Case = keyof typeof cookie;
const methods = Object.keys(documented) as Method[];
const cases = Object.keys(cookie) as Case[];

/** Longer than any name on the page, and shorter than any ticket, token or cookie. */
const secret = /[\w-]{32,}/;

describe.skipIf(executablePath === undefined)('the experiment, in Chromium', () => {
  let demo: Demo;
  let encrypted: Demo;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  const written: string[] = [];
  const reports: string[] = [];

  beforeAll(async () => {
    [demo, encrypted] = await Promise.all([startDemo(), startDemo(['--https'])]);
    const args = [...browserArgs, trusting(await certificateOf(encrypted.url))];
    browser = await chromium.launch({ executablePath: executablePath as string, args });
    context = await browser.newContext();
    context.setDefaultTimeout(15_000);
    page = await context.newPage();
    context.on('console', (message) => written.push(message.text()));
    context.on('weberror', ({ error }) => written.push(`uncaught: ${error().message}`));
    page.on('response', async (response) => {
      if (/\/experiment\/(?:tries|lives)\/[\w-]{16}$/.test(response.url())) reports.push(await response.text());
    });
    await begin(page, demo.url);
  });
  afterAll(async () => {
    await browser?.close();
    await Promise.all([demo?.close(), encrypted?.close()]);
  });

  it('is found from the home page, and runs no script but its own', async () => {
    await page.goto(demo.url);
    const [answer] = await Promise.all([
      page.waitForResponse(`${demo.url}/experiment`),
      page.getByRole('link', { name: 'Experiment' }).click(),
    ]);
    const policy = answer.headers()['content-security-policy'] ?? '';
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) {
      expect(policy.split('; ')).toContain(part);
    }
    expect(policy).not.toContain('unsafe');
    expect(policy.match(/ws:\/\/localhost:\d+/g)).toHaveLength(1 + methods.length);
  });

  it('has a button for each method, which opens a socket', async () => {
    for (const method of methods) {
      const result = await press(page, method, 'good');
      expect(await result.textContent()).toContain('✓ Accepted, as test0001');
      expect(await result.textContent()).toContain('The socket opened, and said: You are test0001.');
    }
  });

  it('shows for every method in every case what is documented', async () => {
    await page.getByRole('button', { name: /^Try all/ }).click();
    await page.getByText('10 were accepted, and 39 refused.').waitFor();
    const shown = Object.fromEntries(
      await Promise.all(
        methods.map(async (method) => {
          const verdicts = await Promise.all(cases.map((which) => verdictOf(cell(page, method, which))));
          return [method, Object.fromEntries(cases.map((which, i) => [which, verdicts[i]]))];
        }),
      ),
    );
    expect(shown).toEqual(documented);
  });

  it('shows no secret: not in the page, nor in what the server says of a try, nor in what the demonstration prints', async () => {
    expect(reports.length).toBeGreaterThanOrEqual(methods.length * cases.length);
    for (const report of reports) expect(report).not.toMatch(secret);
    for (const method of methods) {
      await cell(page, method, 'reused').click();
      expect(await page.content()).not.toMatch(secret);
    }
    expect(demo.printed()).toMatch(/refused ERR_TOKEN_INVALID/);
    expect(demo.printed()).not.toMatch(secret);
    // What the browser itself writes is what these two leak.
    const leaks = /^WebSocket connection to 'ws:\/\/(?:token:|\S+\?ticket=)/;
    expect(written.filter((text) => secret.test(text) && !leaks.test(text))).toEqual([]);
    expect(written.some((text) => leaks.test(text))).toBe(true);
    expect(written.filter((text) => !text.startsWith('WebSocket connection to'))).toEqual([]);
  });

  it('shows what was on the wire, who sent it, and how little the page is told', async () => {
    const origin = new RegExp(`→ Sent: Origin: ${demo.url}$`, 'm');
    const query = await shownIn(page, 'query', 'wrong');
    expect(query).toMatch(/→ Sent: GET \/\S+\/socket\?ticket=[\w-]{4}… \(43 characters\) HTTP\/1.1$/m);
    expect(query).toMatch(origin);
    expect(query).toMatch(/← Answered: HTTP\/1.1 401 Unauthorized$/m);
    expect(query).toContain('closed with 1006, and nothing else');
    const firstMessage = await shownIn(page, 'firstMessage', 'wrong');
    expect(firstMessage).toMatch(
      /101 Switching[\s\S]*→ Sent: message: [\w-]{4}… \(43 characters\)$[\s\S]*← Answered: close: 4401 ERR_/m,
    );
    expect(firstMessage).toContain('opened, and was closed with 4401: ERR_TOKEN_INVALID: this is no ticket');
    const subprotocol = await shownIn(page, 'subprotocol', 'good');
    expect(subprotocol).toMatch(/jupyter.org, v1.token.websocket.jupyter.org.[\w-]{4}… \(43 characters\)$/m);
    expect(subprotocol).toMatch(/← Answered: Sec-WebSocket-Protocol: v1.token.websocket.jupyter.org$/m);
    const basic = await shownIn(page, 'basic', 'good');
    expect(basic).toMatch(
      /WWW-Authenticate: Basic realm[\s\S]*Authorization: Basic [\w-]{4}… \(68 characters\)$[\s\S]*101 Switching/m,
    );
    const frame = await shownIn(page, 'frame', 'good');
    expect(frame).toMatch(
      /POST \/webauth\/frame[\s\S]*Set-Cookie: webauth-socket=[\w-]{4}… \(\d+ characters\); Path=\/; HttpOnly; Sa/,
    );
    const program = await shownIn(page, 'bearer', 'ended');
    expect(program).toMatch(
      /Authorization: Bearer ucwa… \(48 characters\)$[\s\S]*The whole answer: 401 ERR_TOKEN_INVALID/m,
    );
    expect(program).toContain('A program sent it');
    expect(await shownIn(page, 'cookie', 'ended')).toContain('A program sent it');
  });

  it('has foreign pages try it in earnest', async () => {
    const foreign = await shownIn(page, 'cookie', 'foreign');
    expect(foreign).toMatch(/Cookie: webauth-session=[\w-]{4}… \(\d+ characters\)/);
    expect(foreign).toMatch(/Origin: http:\/\/localhost:\d+$/m);
    expect(foreign).not.toMatch(new RegExp(`Sent: Origin: ${demo.url}$`, 'm'));
    const sandboxed = await shownIn(page, 'cookie', 'sandboxed');
    expect(sandboxed).toMatch(/Origin: null$/m);
    expect(sandboxed).not.toContain('Cookie: ');
    expect(await page.locator('iframe').count()).toBe(0);
  });

  it('shows the life of a socket: opened, renewed, its session ended, closed, reconnected', async () => {
    const told = page.locator('#life strong');
    const until = async (what: string) => {
      await told
        .filter({ hasText: new RegExp(`^${what}$`) })
        .last()
        .waitFor();
    };
    const deed = (name: string) => page.getByRole('button', { name, exact: true }).click();
    await deed('Open');
    await until('opened');
    await deed('Renew');
    await until('renewed');
    await deed('End its session');
    await until('reconnected');
    const lines = await page.locator('#life li').allInnerTexts();
    expect(lines.map((line) => /M? *([a-z ]+):/.exec(line.replace(/^[\d:]+ ?/, ''))?.[1])).toEqual([
      'opened',
      'renewed',
      'session ended',
      'closed',
      'waiting',
      'reconnected',
    ]);
    expect(lines[2]).toContain('4401, ERR_SESSION_REVOKED: the session was ended');
    expect(await page.locator('#life time').count()).toBe(6);
    await deed('Drop the connection');
    await told
      .filter({ hasText: /^reconnected$/ })
      .nth(1)
      .waitFor();
    await deed('Close');
    await page.getByText('It is closed.').waitFor();
    await deed('Reconnect');
    await told
      .filter({ hasText: /^reconnected$/ })
      .nth(2)
      .waitFor();
    expect(await page.content()).not.toMatch(secret);
    // All that was somebody else's session.
    await page.reload();
    await page.getByRole('heading', { level: 1, name: 'Whose WebSocket is it?' }).waitFor();
  });

  it('works by keyboard alone', async () => {
    await tabTo(page, page.getByRole('radio', { name: 'A good one Made' }));
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    await tabTo(page, page.getByRole('button', { name: 'query', exact: true }));
    await page.keyboard.press('Enter');
    await page.getByText('✕ Refused: 401 ERR_TOKEN_INVALID').waitFor();
    const heading = page.getByRole('heading', { name: 'query: an expired one' });
    await heading.and(page.locator(':focus')).waitFor();
    await tabTo(page, cell(page, 'cookie', 'good'));
    await page.keyboard.press('Space');
    await page.getByText('✓ Accepted, as test0001').waitFor();
  });

  it('can be read and touched on a desk and on a phone, in light and in dark', async () => {
    await page.locator('summary').click();
    for (const width of [1000, 390]) {
      await page.setViewportSize({ width, height: 800 });
      for (const [method, which] of [
        ['basic', 'wrong'],
        ['frame', 'good'],
      ] as const) {
        await press(page, method, which);
        expect(await audit(page)).toEqual([]);
      }
    }
  });

  it('refuses what it cannot understand, and what others send', async () => {
    const ask = (path: string, data: unknown, headers = {}) =>
      context.request.post(`${demo.url}/experiment/${path}`, {
        data: typeof data === 'string' ? data : JSON.stringify(data),
        headers: { Origin: demo.url, 'Content-Type': 'application/json', ...headers },
      });
    const statuses = async (answers: Promise<APIResponse>[]) => (await Promise.all(answers)).map((one) => one.status());
    const good = { method: 'query', which: 'good' };
    const bad = [
      '{',
      '[]',
      'null',
      {},
      { ...good, which: 'toString' },
      { ...good, method: '__proto__' },
      { method: ['query'], which: {} },
    ];
    expect(new Set(await statuses(bad.map((data) => ask('tries', data))))).toEqual(new Set([400]));
    expect(await statuses([ask('tries', good, { 'Content-Type': 'text/plain' })])).toEqual([400]);
    expect(await statuses([ask('tries', { ...good, more: 'x'.repeat(2000) })])).toEqual([413]);
    expect(await statuses([ask('tries', good, { Origin: 'http://localhost:1' })])).toEqual([403]);
    expect(await statuses(['x', 'x/end', '%00/drop', 'x/other'].map((path) => ask(`lives/${path}`, {})))).toEqual([
      404, 404, 404, 404,
    ]);
    const others = await browser.newContext();
    expect((await others.request.post(`${demo.url}/experiment/tries`, { data: good })).status()).toBe(401);
    const { id } = await (await ask('tries', good)).json();
    const read = (from: BrowserContext) => from.request.get(`${demo.url}/experiment/tries/${id}`);
    expect(await statuses([read(context)])).toEqual([200]);
    await begin(await others.newPage(), demo.url, 'test0002');
    expect(await statuses([read(others)])).toEqual([404]);
    await others.close();
  });

  it('has all of its servers on https where the demonstration is', async () => {
    const other = await browser.newContext();
    other.setDefaultTimeout(15_000);
    const there = await other.newPage();
    await begin(there, encrypted.url);
    for (const method of ['cookie', 'frame', 'query', 'bearer'] as const) {
      expect(await (await press(there, method, 'good')).textContent()).toContain('✓ Accepted, as test0001');
    }
    expect(await (await press(there, 'cookie', 'foreign')).textContent()).toContain(
      '✕ Refused: 403 ERR_ORIGIN_REFUSED',
    );
    await other.close();
  });
});

/** Logs in, and goes to the experiment. */
async function begin(page: Page, url: string, principal = 'test0001'): Promise<void> {
  await page.goto(`${url}/experiment`);
  await page.getByRole('button', { name: principal }).click();
  await page.getByRole('heading', { level: 1, name: 'Whose WebSocket is it?' }).waitFor();
}

/** Tries a method in a case. @returns the panel of what came of it, when that is there. */
async function press(page: Page, method: Method, which: Case): Promise<Locator> {
  await page.locator(`input[value=${which}]`).check();
  await page.getByRole('button', { name: method, exact: true }).click();
  const chosen = page.locator(`button[aria-current][data-method=${method}][data-which=${which}]`);
  await chosen.waitFor();
  await page.locator('#status:empty').waitFor({ state: 'attached' });
  return page.locator('#result');
}

function cell(page: Page, method: Method, which: Case): Locator {
  return page.locator(`[data-method=${method}][data-which=${which}]`);
}

/** The text of what the matrix leads to. */
async function shownIn(page: Page, method: Method, which: Case): Promise<string> {
  await cell(page, method, which).click();
  const parts = await page.locator('#result').locator('h3, p, .wire li').allTextContents();
  return parts.join('\n');
}

/** What a cell says of it: the status or close code, and the error's code. */
async function verdictOf(one: Locator): Promise<string> {
  const [shown, label] = [await one.locator('.verdict').textContent(), await one.getAttribute('aria-label')];
  const code = /\d+ ERR_\w+$/.exec(label ?? '')?.[0];
  const short = shown?.replace(/^[✓✕] /, '') ?? '';
  return code?.startsWith(`${short} `) ? code : short;
}

/** Presses Tab until the element has the focus. */
async function tabTo(page: Page, target: Locator): Promise<void> {
  for (let stops = 0; stops < 40; stops++) {
    await page.keyboard.press('Tab');
    if (await target.evaluate((element) => element === element.ownerDocument.activeElement)) return;
  }
  expect.fail(`${target} is not reached by Tab`);
}
