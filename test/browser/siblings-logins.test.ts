import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { webauth } from '../../src/express/index.js';
import { createWAA } from '../../src/waa.js';
import { installedBrowsers } from './browsers.js';
import type { Routes } from './helpers.js';
import {
  app,
  ask,
  beginLogin,
  cookiesOf,
  type Domain,
  inBrowser,
  logIn,
  logInOnPath,
  login,
  loginCookie,
  otherPort,
  sessionCookie,
  sibling,
  startDomain,
} from './https.js';

/** Another application below a path, whose session cookie is for that path. */
const anchorCookie = '__Host-webauth-session-id';
const notes = { base: '/notes', prefix: '__Secure-', name: 'notes' };

// In all of these the victim is test0001, and the attacker, who has a site under cam.ac.uk and an account, test0002.
describe.each(installedBrowsers())('logging in over https under cam.ac.uk in $name', ({ executablePath }) => {
  let domain: Domain;
  beforeAll(async () => {
    domain = await startDomain(executablePath, answer, addRoutes);
  });
  afterAll(() => domain?.close());

  function eventsBut(...left: string[]): string[] {
    const events = domain.application.events.filter(({ event }) => !left.includes(event));
    return events.map(({ event, code }) => (code === undefined ? event : `${event} ${code}`));
  }

  for (const [who, principal] of [
    ['logged in', 'test0001'],
    ['logged out', undefined],
  ] as const) {
    it(`a cookie that a sibling plants is none of ours, to somebody who is ${who}`, async () => {
      const own = principal && { [sessionCookie]: await logIn(domain, principal) };
      const theirs = {
        [sessionCookie]: await logIn(domain, 'test0002'),
        [loginCookie]: 'x',
        '__Host-webauth-done': '1',
      };
      const dress = (dresses: readonly Dress[]) =>
        Object.entries(theirs).flatMap(([name, value]) => dresses.map((as) => as(name, value)));
      await inBrowser(domain, { ...own }, async (page) => {
        await plant(page, dress([...refused, ...dressedUp]));
        await page.goto(app);
        const arrived = domain.application.arrived.find(({ line }) => line === 'GET /');
        expect(readCookies(arrived?.cookie ?? '')).toEqual(
          [...readCookies(formatCookies({ ...own })), ...dress(dressedUp)].sort(),
        );
        if (principal) await page.getByRole('heading', { name: `You are ${principal}` }).waitFor();
        else expect(page.url().startsWith(`${login}/`)).toBe(true);
      });
    });
  }

  for (const [when, path] of [
    ['after ours', '/'],
    ['before ours', `${notes.base}/`],
  ] as const) {
    it(`a cookie of an application on a path, doubled by a sibling so that it comes ${when}, is nobody’s`, async () => {
      const { session, anchor } = await logInOnPath(domain, 'test0001', notes);
      const own = { name: '__Secure-notes-session', value: session };
      const theirs = await logIn(domain, 'test0002', notes);
      await inBrowser(domain, { [anchorCookie]: anchor }, async (page, context) => {
        await context.addCookies([{ ...own, domain: 'app.cam.ac.uk', path: notes.base, secure: true }]);
        await plant(page, [`${own.name}=${theirs}; Domain=cam.ac.uk; Path=${path}; Secure`]);
        const url = `${app}${notes.base}/`;
        expect((await page.goto(url))?.status()).toBe(401);
        await page.getByText('ERR_SESSION_INVALID').waitFor();
        await page.getByText('delete the cookies of this site').waitFor();
        const arrived = domain.application.arrived.find(({ line }) => line === `GET ${notes.base}/`)?.cookie;
        const both = [`${own.name}=${own.value}`, `${own.name}=${theirs}`];
        const sent = arrived?.split('; ').filter((pair) => !pair.startsWith(anchorCookie));
        expect(sent).toEqual(path === '/' ? both : both.reverse());
        expect(eventsBut('login started')).toEqual(['refused ERR_SESSION_INVALID']);
        await context.clearCookies({ domain: '.cam.ac.uk' });
        await page.goto(url);
        await page.getByText('Notes of test0001').waitFor();
      });
    });
  }

  for (const [who, anchored] of [
    ['never used the application', false],
    ['lost their own session, and kept what it was anchored to', true],
  ] as const) {
    it(`a session of an application on a path, planted by a sibling, is of no use to one who ${who}`, async () => {
      const victim = await logInOnPath(domain, 'test0001', notes);
      const theirs = await logInOnPath(domain, 'test0002', notes);
      await inBrowser(domain, { ...(anchored && { [anchorCookie]: victim.anchor }) }, async (page) => {
        await plant(page, [
          `__Secure-notes-session=${theirs.session}; Domain=cam.ac.uk; Path=/notes; Secure`,
          `${anchorCookie}=${theirs.anchor}; Domain=cam.ac.uk; Path=/; Secure`,
        ]);
        const answer = await page.goto(`${app}${notes.base}/`);
        // Without an anchor nobody is logged in, whatever else there is: they are sent to log in.
        if (anchored) await page.getByText('ERR_SESSION_INVALID').waitFor();
        expect([answer?.status(), new URL(page.url()).origin === app]).toEqual(anchored ? [401, true] : [200, false]);
        const arrived = domain.application.arrived.find(({ line }) => line === `GET ${notes.base}/`)?.cookie;
        expect(arrived).toContain(`__Secure-notes-session=${theirs.session}`);
        expect(arrived).not.toContain(theirs.anchor);
      });
      // It is a genuine session, where its anchor is.
      const cookie = `__Secure-notes-session=${theirs.session}; ${anchorCookie}=${theirs.anchor}`;
      expect((await ask(domain, `${notes.base}/`, { cookie })).body).toBe('Notes of test0002');
    });
  }

  describe('a login that somebody else began', () => {
    for (const [who, isLoggedIn, hasBegun, codes] of [
      ['logged in', true, false, ['ERR_COOKIES_BLOCKED', undefined]],
      ['logged in, and began a login in another tab', true, true, ['ERR_PARAMS_MISMATCH', 'ERR_PARAMS_MISMATCH']],
      ['logged out', false, false, ['ERR_COOKIES_BLOCKED', 'ERR_COOKIES_BLOCKED']],
      ['logged out, and began a login', false, true, ['ERR_PARAMS_MISMATCH', 'ERR_PARAMS_MISMATCH']],
    ] as const) {
      it(`changes nothing for somebody who is ${who}`, async () => {
        const own = {
          ...(isLoggedIn && { [sessionCookie]: await logIn(domain, 'test0001') }),
          ...(hasBegun && { [loginCookie]: (await beginLogin(domain)).nonce }),
        };
        await expectNoChange(own, 'test0002', codes[0]);
        // Not even where it is a login of the same person: they are sent on as they are.
        await expectNoChange(own, 'test0001', codes[1]);
      });
    }

    async function expectNoChange(own: Record<string, string>, principal: string, code?: string): Promise<void> {
      const { path, nonce } = await beginLogin(domain, { principal });
      await inBrowser(domain, own, async (page, context) => {
        await plant(page, [`${loginCookie}=${nonce}`]);
        const answer = page.waitForResponse(app + path);
        await page.evaluate(`void location.assign(${JSON.stringify(app + path)})`);
        expect((await answer).status()).toBe(code ? 400 : 303);
        await page.getByText(code ?? 'You are test0001').waitFor();
        const arrived = domain.application.arrived.find(({ line }) => line === `GET ${path}`);
        expect(arrived?.cookie).toBe(formatCookies(own));
        expect(eventsBut()).toEqual(code ? [`refused ${code}`] : []);
        const left = Object.entries(await cookiesOf(context)).map(([name, { value }]) => [name, value]);
        expect(Object.fromEntries(left)).toEqual(own);
      });
      // It was genuine, and is still good where it belongs.
      expect((await ask(domain, path, { cookie: formatCookies({ [loginCookie]: nonce }) })).status).toBe(303);
    }
  });

  it('a response that was made for another site is refused, whose params and cookie are right', async () => {
    await inBrowser(domain, {}, async (page) => {
      for (const site of [sibling, otherPort]) {
        const { location, nonce } = await beginLogin(domain);
        const lure = new URL(location);
        lure.searchParams.set('url', `${site}/webauth/callback`);
        await page.goto(lure.href);
        if (site === sibling) await page.getByRole('button', { name: 'test0001' }).click();
        await page.waitForURL(`${site}/webauth/callback?WLS-Response=*`);
        const caught = page.url().slice(site.length);
        domain.application.events.length = 0;
        const { status, body, cookies } = await ask(domain, caught, {
          cookie: formatCookies({ [loginCookie]: nonce }),
        });
        expect([status, body.includes('ERR_URL_MISMATCH'), cookies]).toEqual([400, true, []]);
        expect(domain.application.arrived.at(-1)?.cookie).toBe(`${loginCookie}=${nonce}`);
        expect(eventsBut()).toEqual(['refused ERR_URL_MISMATCH']);
      }
    });
  });

  it('a success of version 1, which its own user asked for, is refused', async () => {
    await inBrowser(domain, {}, async (page, context) => {
      await page.goto(app);
      await page.goto(page.url().replace('?ver=3&', '?ver=1&'));
      await page.getByRole('button', { name: 'test0001' }).click();
      await page.getByText('ERR_RESPONSE_VERSION').waitFor();
      const arrived = domain.application.arrived.at(-1);
      expect(arrived?.line).toMatch(/^GET \/webauth\/callback\?WLS-Response=1!200!/);
      expect(arrived?.cookie).toContain(`${loginCookie}=`);
      expect(eventsBut('login started')).toEqual(['refused ERR_RESPONSE_VERSION']);
      expect(Object.keys(await cookiesOf(context))).toEqual([loginCookie]);
      // Nor does somebody who has left become current, who finds a login service that says so.
      const { path, nonce } = await beginLogin(domain, { ver: 1, principal: 'test0401', ptags: [] });
      const { status, body } = await ask(domain, path, { cookie: formatCookies({ [loginCookie]: nonce }) });
      expect([status, body.includes('ERR_RESPONSE_VERSION')]).toEqual([400, true]);
    });
  });

  it('ends on the application, wherever somebody asked it to lead', async () => {
    await inBrowser(domain, {}, async (page, context) => {
      await page.goto(app);
      await page.getByRole('button', { name: 'test0001' }).click();
      await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
      const seen = new Set<string>();
      page.on('request', (request) => {
        if (request.isNavigationRequest()) seen.add(new URL(request.url()).origin);
      });
      for (const address of addresses()) {
        await context.clearCookies({ name: /^__Host-webauth/ });
        await page
          .goto(address, { waitUntil: 'commit' })
          .catch(({ message }: Error) => expect.fail(`${address}: ${message}`));
        expect(page.url().startsWith(`${app}/`), `${address} led to ${page.url()}`).toBe(true);
        expect([...seen].sort(), address).toEqual([app, login]);
        expect(Object.keys(await cookiesOf(context)), address).toContain(sessionCookie);
        seen.clear();
      }
    });
  });
});

function formatCookies(values: Record<string, string>): string {
  return Object.entries(values)
    .map((pair) => pair.join('='))
    .join('; ');
}

/** The pairs of a Cookie header, in which bytes count that Node takes for characters. */
function readCookies(header: string): string[] {
  return Buffer.from(header, 'latin1').toString().split('; ').filter(Boolean).sort();
}

type Dress = (name: string, value: string) => string;

/** Cookies that a browser does not take from a neighbour. */
const refused: readonly Dress[] = [
  (name, value) => `${name}=${value}`,
  (name, value) => `${name.toLowerCase()}=${value}`,
  (name, value) => `${name.toUpperCase()}=${value}`,
  (name, value) => ` \t${name} =${value}`,
  (name, value) => `${name}\u3000=${value}`,
  // Without a name, so that what it sends looks like ours.
  (name, value) => `=${name}=${value}`,
  (name, value) => ` = ${name}=${value}`,
];

/** Cookies that it takes and sends, whose names somebody might make out to be ours. */
const dressedUp: readonly Dress[] = [
  (name, value) => `${name.replace('__Host-', '')}=${value}`,
  (name, value) => `${name.replace('Host', 'Secure')}=${value}`,
  (name, value) => `"${name}"=${value}`,
  // Blanks, to those who do not only know those of ASCII.
  (name, value) => `\u00a0${name}=${value}`,
  (name, value) => `\u2000${name}=${value}`,
  (name, value) => `\ufeff${name}=${value}`,
  (name, value) => `$Version,${name}=${value}`,
  (name, value) => `${name.replace('-', '%2d')}=${value}`,
];

/** Goes to the sibling and has it plant cookies for the whole domain, by its script and by its server. */
async function plant(page: Page, cookies: readonly string[]): Promise<void> {
  const lines = cookies.map((cookie) =>
    /; Path=/.test(cookie) ? cookie : `${cookie}; Domain=cam.ac.uk; Path=/; Secure`,
  );
  const query = new URLSearchParams(lines.map((line): [string, string] => ['cookie', line]));
  await page.goto(`${sibling}/?${query}`);
  await page.evaluate(`for (const line of ${JSON.stringify(lines)}) document.cookie = line;`);
}

/** What the sibling and the other port serve, with the cookies that the query asks for. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const cookies = new URL(request.url ?? '', sibling).searchParams.getAll('cookie');
  const inBytes = cookies.map((cookie) => Buffer.from(cookie).toString('latin1'));
  response.writeHead(200, { 'Content-Type': 'text/html', 'Set-Cookie': inBytes });
  response.end('<!doctype html><title>Somebody else</title>');
}

/** The whole application needs a login, whatever the path; below one of them is another application. */
const addRoutes: Routes = (server, auth, config) => {
  const other = { baseUrl: `${app}${notes.base}`, cookieName: notes.name, cookiePath: notes.base };
  const notesAuth = webauth(createWAA({ ...config, ...other }));
  server.use(
    notes.base,
    notesAuth,
    notesAuth.require(),
    (request, response) => void response.send(`Notes of ${request.auth?.principal}`),
  );
  server.use(auth.require(), (_, response) => response.status(404).send('<!doctype html><title>Not found</title>'));
};

/** Ways to ask for a login that leads to the sibling. */
function addresses(): string[] {
  const host = 'evil.cam.ac.uk';
  const decoded = [
    `//${host}`,
    `///${host}`,
    `/\\${host}`,
    `/\t/${host}`,
    `/\n/${host}`,
    `/\r\n/${host}`,
    ` //${host}`,
    `/ /${host}`,
    `/\u0000/${host}`,
    `${host}`,
    `.${host}`,
    `@${host}`,
    `:x@${host}`,
    ':8443/',
    `;@${host}`,
    `https://${host}`,
    `https:${host}`,
    `//app.cam.ac.uk@${host}`,
    'https://app.cam.ac.uk:8443/',
    'javascript:location="https://evil.cam.ac.uk"',
    'data:text/html,<script>location="https://evil.cam.ac.uk"</script>',
    `/.//${host}`,
    `/..//${host}`,
    `/%2e%2e//${host}`,
    `/%2f/${host}`,
    `/%09/${host}`,
    `/%252f%252f${host}`,
    `/;//${host}`,
    `\uff0f\uff0f${host}`,
    `/\u00a0/${host}`,
    `//evil\u3002cam\u3002ac\u3002uk`,
    `/\r\nLocation: https://${host}`,
    `/\r\n\r\n<script>location="https://${host}"</script>`,
    `/${'x'.repeat(3000)}`,
    `/webauth/login?return=//${host}`,
    `/?return=//${host}#//${host}`,
  ].map((value) => `return=${encodeURIComponent(value)}`);
  const raw = [
    `return=//${host}`,
    `return=/\\${host}`,
    `return=%252f%252f${host}`,
    `return=%c0%af/${host}`,
    `return=/&return=//${host}`,
    `return=//${host}&return=/`,
    `return[]=//${host}`,
    `return[0]=//${host}&return=//${host}`,
    `%72eturn=//${host}`,
    `return=//${host}&moved=%2F`,
    `return=+//${host}`,
    '',
  ];
  const paths = [
    `//${host}/x`,
    `/\\${host}/x`,
    `/%5c${host}`,
    `/.//${host}`,
    `/%2f/${host}`,
    `//${host}/%2e%2e`,
    `/x?//${host}`,
  ];
  return [...[...decoded, ...raw].map((query) => `${app}/webauth/login?${query}`), ...paths.map((path) => app + path)];
}
