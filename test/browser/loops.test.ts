import type { RequestListener, ServerResponse } from 'node:http';
import express from 'express';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Config } from '../../src/config.js';
import { type RouteRequirements, webauth } from '../../src/express/index.js';
import { html, sendPage } from '../../src/html.js';
import type { Profile } from '../../src/profiles.js';
import type { AuthResponse } from '../../src/response.js';
import { createWAA } from '../../src/waa.js';
import { createWLS } from '../../src/wls/index.js';
import { wlsKey } from '../helpers.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';
import { type Running, startNeighbour } from './helpers.js';

/** An application that cannot work, and the page that everybody ends at who comes to it. */
interface Misconfiguration {
  readonly name: string;
  readonly config?: Partial<Config>;
  /** Below the origin. */
  readonly base?: string;
  /** What the page asks for that is gone to. */
  readonly asks?: RouteRequirements;
  readonly loses?: RegExp;
  /** What the login service says, and how its clock differs: seconds. */
  readonly answers?: Partial<AuthResponse>;
  readonly wlsClock?: number;
  readonly visits: number;
  readonly status: number;
  readonly code: string;
  readonly heading: string;
  readonly says: string;
}

const insufficient = {
  visits: 1,
  status: 400,
  code: 'ERR_IACT_UNSATISFIED',
  heading: 'That login is not what this page asks for',
};
const useless = { visits: 1, status: 401, code: 'ERR_SESSION_EXPIRED', heading: 'Please log in again' };
const blocked = {
  status: 400,
  code: 'ERR_COOKIES_BLOCKED',
  heading: 'Your login could not be matched to your browser',
};
const clock = (seconds: number) => () => new Date(Date.now() + seconds * 1000);

const misconfigurations: readonly Misconfiguration[] = [
  {
    name: 'a cookiePath that misses the page',
    base: '/app',
    config: { cookiePath: '/app' },
    ...blocked,
    visits: 0,
    says: '"/" needs a login, and browsers send the session to /app only',
  },
  {
    name: 'something in between that loses the session cookie',
    loses: /^webauth-session=/,
    ...blocked,
    visits: 1,
    says: 'A login has just succeeded, and it was in vain: the browser did not keep its session cookie',
  },
  {
    name: 'something in between that loses all cookies',
    loses: /./,
    ...blocked,
    visits: 1,
    says: 'The browser did not bring back the cookie of this login: cookies are blocked',
  },
  {
    name: 'a login service whose sessions are over at once',
    answers: { life: 0 },
    ...useless,
    says: 'The session would be over at once: log out of the login service first',
  },
  {
    name: 'a maxLife of nothing',
    config: { maxLife: 0 },
    ...useless,
    says: 'The session would be over at once',
  },
  {
    name: 'a maxAge that the login service’s clock makes impossible',
    asks: { maxAge: 1 },
    wlsClock: -3,
    ...insufficient,
    says: 'The page asks for an authentication of the last 1 s, and this one was older when it arrived',
  },
  {
    name: 'a login service that does not ask its user, though it is told to',
    asks: { iact: true },
    answers: { auth: '', sso: ['pwd'] },
    ...insufficient,
    says: 'The user was to authenticate now, and did not',
  },
  {
    name: 'a login service that knows another way of logging in only',
    asks: { aauth: ['x-card'] },
    visits: 1,
    status: 400,
    code: 'ERR_AUTH_UNACCEPTABLE',
    heading: 'That way of logging in is not enough here',
    says: 'The user did not authenticate in the way that was asked for: x-card',
  },
  {
    name: 'ptags that the person does not have',
    asks: { ptags: ['robot'] },
    visits: 1,
    status: 403,
    code: 'ERR_PTAGS_REFUSED',
    heading: 'You may not enter here',
    says: 'To enter here, a person needs the ptag "robot"',
  },
  {
    name: 'a clock that is an hour fast',
    config: { now: clock(3600) },
    visits: 1,
    status: 400,
    code: 'ERR_ISSUE_STALE',
    heading: 'This login took too long to arrive',
    says: "if this happens to everyone, check the clock of the application's machine",
  },
  {
    name: 'a clock that is an hour slow',
    config: { now: clock(-3600) },
    visits: 1,
    status: 400,
    code: 'ERR_ISSUE_FUTURE',
    heading: 'The clocks of this site and of the login service disagree',
    says: "the clock of the application's machine is probably slow",
  },
];

describe.each(installedBrowsers(true))(
  '[login 5] no loop in $name, whatever is misconfigured',
  ({ executablePath }) => {
    let browser: Browser;
    const running: Running[] = [];
    beforeAll(async () => {
      browser = await launchForLocalhost(executablePath);
    });
    afterAll(() => browser?.close());
    afterEach(async () => void (await Promise.all(running.splice(0).map((each) => each.close()))));

    it.each(misconfigurations.map((wrong) => [wrong.name, wrong] as const))('%s', async (_name, wrong) => {
      const login = await startLogin(wrong);
      const url = await start((origin) => serve({ ...wrong, origin, wls: login.profile }));
      await inBrowser(async (page) => {
        const answer = await page.goto(url);
        await expectPage(page, wrong);
        expect([answer?.status(), login.visits.length]).toEqual([wrong.status, wrong.visits]);
        // Whoever wants to try again can, and has to want it each time.
        const again = page.getByRole('button', { name: /^(Try again|Log in)$/ });
        if (wrong.visits === 0 || (await again.count()) === 0) return;
        const arrived = page.waitForEvent('load');
        await again.click();
        await arrived;
        await expectPage(page, wrong);
        expect(login.visits.length).toBe(2 * wrong.visits);
      });
    });

    it('a script that goes to log in whenever it is told to, and a session cookie that is lost', async () => {
      const login = await startLogin();
      const url = await start((origin) => serve({ origin, wls: login.profile, loses: /^webauth-session=/ }));
      await inBrowser(async (page) => {
        await page.goto(`${url}/front`);
        await page.getByText('ERR_COOKIES_BLOCKED').waitFor();
        await page.getByText('the browser did not keep its session cookie').waitFor();
        expect(login.visits.length).toBe(1);
      });
    });

    it('a proxy that calls us by another name, and a session cookie that is lost, after a click', async () => {
      const login = await startLogin();
      const url = await start((origin) => {
        const answer = serve({ origin, wls: login.profile, loses: /^webauth-session=/ });
        return (request, response) => {
          request.headers.host = 'inside:8080';
          answer(request, response);
        };
      });
      await inBrowser(async (page) => {
        await page.setContent(`<a href="${url}">There</a>`);
        // Browsers say of all that follows a click that it was one.
        const marked = page.waitForRequest(async (request) => {
          return request.url() === `${url}/` && (await request.headerValue('sec-fetch-user')) === '?1';
        });
        await page.getByRole('link').click();
        await marked;
        await expectPage(page, { ...blocked, says: 'the browser did not keep its session cookie' });
        expect(login.visits.length).toBe(1);
      });
    });

    describe('two processes that answer in turn', () => {
      async function startBoth(config: Partial<Config>) {
        const login = await startLogin();
        let turn = 0;
        const url = await start((origin) => {
          const both = [1, 2].map(() => serve({ origin, wls: login.profile, config }));
          return (request, response) => both[turn++ % 2]?.(request, response);
        });
        return { url, login };
      }

      it('and each made up a secret: nobody can log in', async () => {
        const { url, login } = await startBoth({});
        await inBrowser(async (page) => {
          await page.goto(url);
          await expectPage(page, {
            code: 'ERR_PARAMS_MISMATCH',
            heading: 'You could not be logged in',
            says: 'The response answers no login that was started here: no secret of this process opens its state',
          });
          expect(login.visits.length).toBe(1);
        });
      });

      it('and each has a store of its own: the first one does not know of the session', async () => {
        const { url, login } = await startBoth({ secret: 'a1'.repeat(32) });
        await inBrowser(async (page) => {
          await page.goto(url);
          await expectPage(page, {
            ...blocked,
            says: 'the application was restarted, or its processes share no store',
          });
          expect(login.visits.length).toBe(1);
        });
      });
    });

    describe('two applications of one origin that send people to each other', () => {
      /** @param names what each calls its cookies. */
      async function startBoth(...names: [string | undefined, string | undefined]) {
        const login = await startLogin();
        const url = await start((origin) => {
          const [one, two] = names.map((cookieName, i) => {
            const base = ['/one', '/two'][i] as string;
            return serve({ origin, base, wls: login.profile, config: { ...(cookieName && { cookieName }) } });
          }) as [RequestListener, RequestListener];
          return (request, response) => (request.url?.startsWith('/two') ? two : one)(request, response);
        });
        return { url, login };
      }

      it('with one name for their cookies: the second one says so', async () => {
        const { url, login } = await startBoth(undefined, undefined);
        await inBrowser(async (page) => {
          const answer = await page.goto(`${url}/one/there`);
          await expectPage(page, {
            ...blocked,
            says: 'another application on this host uses its name too',
          });
          expect([answer?.status(), answer?.url(), login.visits.length]).toEqual([400, `${url}/two/back`, 1]);
        });
      });

      it('with two names: everybody arrives', async () => {
        const { url, login } = await startBoth(undefined, 'second');
        await inBrowser(async (page) => {
          await page.goto(`${url}/one/there`);
          await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
          expect([page.url(), login.visits.length]).toEqual([`${url}/one/home`, 2]);
          await page.goto(`${url}/one/there`);
          await page.getByRole('heading', { name: 'You are test0001' }).waitFor();
          expect(login.visits.length).toBe(2);
        });
      });
    });

    async function start(make: (origin: string) => RequestListener): Promise<string> {
      let answer: RequestListener = () => {};
      const site = await startNeighbour((request, response) => answer(request, response));
      answer = make(site.url);
      running.push(site);
      return site.url;
    }

    /** A login service whose user is logged in there: it answers at once, which is the way into a loop. */
    async function startLogin({ answers = {}, wlsClock = 0 }: Partial<Misconfiguration> = {}) {
      const wls = createWLS({ key: wlsKey.privateKey, now: clock(wlsClock) });
      const visits: string[] = [];
      const url = await start((origin) => (request, response) => {
        const asked = new URL(request.url ?? '', origin);
        if (asked.pathname !== '/auth/authenticate.html') return void response.writeHead(404).end();
        visits.push(asked.href);
        const encoded = encodeURIComponent(wls.respond(asked.href, answers));
        response.writeHead(303, { Location: `${asked.searchParams.get('url')}?WLS-Response=${encoded}` }).end();
      });
      const profile: Profile = { ...wls.profile, authUrl: `${url}/auth/authenticate.html` };
      return { profile, visits };
    }

    async function inBrowser(test: (page: Page) => Promise<void>): Promise<void> {
      const context = await browser.newContext();
      context.setDefaultTimeout(10_000);
      try {
        await test(await context.newPage());
      } finally {
        await context.close();
      }
    }
  },
);

interface Served extends Pick<Misconfiguration, 'config' | 'base' | 'asks' | 'loses'> {
  readonly origin: string;
  readonly wls: Profile;
}

/** An application: a page at `/`, one that runs a script, and below its base two that lead elsewhere and back. */
function serve({ origin, wls, base = '', config = {}, asks = {}, loses }: Served): RequestListener {
  const waa = createWAA({ baseUrl: origin + base, wls, ...config });
  const auth = webauth(waa);
  const app = express();
  if (loses) app.use((_request, response, next) => next(void loseCookies(response, loses)));
  app.use(auth);
  app.get('/front', (_request, response) => sendPage(response, 'Front end', html``, { script, connect: ["'self'"] }));
  app.get(['/', `${base}/home`], auth.require(asks), (request, response) =>
    sendPage(response, 'Application', html`<h1>You are ${request.auth?.principal}</h1>`),
  );
  app.get('/one/there', auth.require(), (_request, response) => response.redirect('/two/back'));
  app.get('/two/back', auth.require(), (_request, response) => response.redirect('/one/home'));
  return app.use(auth.failurePage);
}

/** As the README has it for front ends. */
const script = `fetch('/').then((response) => {
  if (response.status === 401) location.assign('/webauth/login?return=' + encodeURIComponent(location.pathname));
});`;

/** What a filter on the way does to an answer. */
function loseCookies(response: ServerResponse, which: RegExp): void {
  const write = response.writeHead;
  response.writeHead = (...head: unknown[]) => {
    const lines = [response.getHeader('Set-Cookie') ?? []].flat().map(String);
    response.removeHeader('Set-Cookie');
    for (const line of lines) if (!which.test(line)) response.appendHeader('Set-Cookie', line);
    return Reflect.apply(write, response, head);
  };
}

async function expectPage(page: Page, { heading, code, says }: Pick<Misconfiguration, 'heading' | 'code' | 'says'>) {
  await page.getByText(code, { exact: true }).waitFor();
  await page.getByRole('heading', { name: heading, exact: true }).waitFor();
  await page.getByText(says).waitFor();
}
