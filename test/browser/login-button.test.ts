import express from 'express';
import helmet from 'helmet';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebauthError } from '../../src/errors.js';
import { webauth } from '../../src/express/index.js';
import { html } from '../../src/html.js';
import type { Profile } from '../../src/profiles.js';
import { createWAA } from '../../src/waa.js';
import { createWLS } from '../../src/wls/index.js';
import { wlsKey } from '../helpers.js';
import { audit } from './audit.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';
import { type Fresh, inFresh, type Running, startNeighbour } from './helpers.js';

/** An application that loses its session cookie, and a login service that logs its user in by way of a further host. */
interface Site extends Running {
  /** Logins that the login service finished. */
  readonly logins: string[];
  /** Requests for the login route: method and `Sec-Fetch-User`. */
  readonly begun: string[];
  /** Whether the next answers lose the session cookie. */
  loses: boolean;
}

/** @param before what the application has in front of the login. */
async function startSite(build: (app: express.Express) => void = () => {}): Promise<Site> {
  const wls = createWLS({ key: wlsKey.privateKey });
  const logins: string[] = [];
  const further = await startNeighbour((request, response) => {
    const asked = new URL(request.url ?? '', 'http://localhost').searchParams.get('asked') as string;
    logins.push(asked);
    const encoded = encodeURIComponent(wls.respond(asked));
    response.writeHead(303, { Location: `${new URL(asked).searchParams.get('url')}?WLS-Response=${encoded}` }).end();
  });
  const service = await startNeighbour((request, response) => {
    const asked = new URL(request.url ?? '', service.url).href;
    response.writeHead(303, { Location: `${further.url}/?${new URLSearchParams({ asked })}` }).end();
  });
  const profile: Profile = { ...wls.profile, authUrl: `${service.url}/auth/authenticate.html` };
  const app = express();
  const application = await startNeighbour(app);
  const waa = createWAA({ baseUrl: application.url, wls: profile, secret: 'a1'.repeat(32) });
  const begun: string[] = [];
  const site: Site = {
    url: application.url,
    logins,
    begun,
    loses: true,
    close: async () => {
      await Promise.all([further, service, application].map((one) => one.close()));
      await waa.close();
    },
  };
  const auth = webauth(waa);
  app.use(({ method, path, headers }, response, next) => {
    if (path === '/webauth/login') begun.push(`${method} ${headers['sec-fetch-user']}`);
    if (site.loses) response.setHeader = withoutSession(response.setHeader);
    next();
  });
  app.use(auth);
  app.get('/private', auth.require(), (request, response) => {
    response.send(`<!doctype html><title>Private</title><h1>You are ${request.auth?.principal}</h1>`);
  });
  app.get('/looping', (_request, response) => {
    response.send('<!doctype html><a href="/webauth/login?return=%2Flooping">Loop</a>');
  });
  build(app);
  app.use(auth.failurePage);
  return site;
}

type Set = express.Response['setHeader'];

function withoutSession(set: Set): Set {
  return function (this: express.Response, name, value) {
    if (!Array.isArray(value)) return set.call(this, name, value);
    return set.call(
      this,
      name,
      value.filter((line) => !line.startsWith('webauth-session=')),
    );
  };
}

describe.each(installedBrowsers(true))('a button that begins a login, in $name', ({ executablePath }) => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchForLocalhost(executablePath);
  });
  afterAll(() => browser?.close());

  async function visit(site: Site, test: (page: Page) => Promise<void>, fresh: Fresh = {}): Promise<void> {
    try {
      await inFresh(browser, fresh, test);
    } finally {
      await site.close();
    }
  }

  const blocked = (page: Page) => page.getByText('ERR_COOKIES_BLOCKED', { exact: true }).waitFor();
  const arrive = (page: Page) => page.getByRole('heading', { name: 'You are test0001' }).waitFor();

  it.each([
    ['with JavaScript', true],
    ['without JavaScript', false],
  ])(
    'logs in within ten seconds of a login that was lost, by the keyboard alone, %s',
    async (_name, javaScriptEnabled) => {
      const site = await startSite();
      const test = async (page: Page) => {
        await page.goto(`${site.url}/private`);
        await blocked(page);
        expect(site.logins.length).toBe(1);
        site.loses = false;
        await page.keyboard.press('Tab');
        const button = page.getByRole('button', { name: 'Try again' });
        expect(await button.evaluate((element) => element.matches(':focus-visible'))).toBe(true);
        await page.keyboard.press('Enter');
        await arrive(page);
        expect([site.logins.length, site.begun]).toEqual([2, ['POST ?1']]);
        expect(page.url()).toBe(`${site.url}/private`);
      };
      await visit(site, test, { javaScriptEnabled });
    },
  );

  it('ends at the failure page each time if logins are in vain, one login for each press', async () => {
    const site = await startSite();
    await visit(site, async (page) => {
      await page.goto(`${site.url}/private`);
      for (const logins of [1, 2, 3]) {
        await blocked(page);
        expect(site.logins.length).toBe(logins);
        expect(await audit(page)).toEqual([]);
        const left = page.waitForEvent('load');
        await page.getByRole('button', { name: 'Try again' }).click();
        await left;
      }
    });
  });

  it('leaves no page behind to which Back would lead', async () => {
    const site = await startSite();
    site.loses = false;
    await visit(site, async (page) => {
      await page.goto(`${site.url}/webauth/logout`);
      await page.getByRole('button', { name: 'Log in again' }).click();
      await page.waitForURL(`${site.url}/`);
      await page.goBack();
      await page.getByRole('button', { name: 'Log out', exact: true }).waitFor();
      expect(page.url()).toBe(`${site.url}/webauth/logout`);
    });
  });

  it('does what no link does within ten seconds of a login, also after a click', async () => {
    const site = await startSite();
    await visit(site, async (page) => {
      await page.goto(`${site.url}/private`);
      await blocked(page);
      await page.goto(`${site.url}/looping`);
      await page.getByRole('link').click();
      await blocked(page);
      expect([site.logins.length, site.begun]).toEqual([1, ['GET ?1']]);
    });
  });

  it('works on a failure page of the application under the policy of helmet', async () => {
    const site = await startSite((app) => {
      const show: express.ErrorRequestHandler = (error, _request, response, next) => {
        if (!(error instanceof WebauthError) || error.loginUrl === undefined) return next(error);
        const form = html`<form method="post" action="${error.loginUrl}"><button>Once more</button></form>`;
        response.status(error.status).send(`<!doctype html><title>Failed</title><h1>${error.code}</h1>${form.text}`);
      };
      app.use(helmetFirst, show);
    });
    await visit(site, async (page) => {
      const answer = await page.goto(`${site.url}/private`);
      await page.getByRole('heading', { name: 'ERR_COOKIES_BLOCKED' }).waitFor();
      expect(answer?.headers()['content-security-policy']).toContain("form-action 'self'");
      site.loses = false;
      await page.getByRole('button', { name: 'Once more' }).click();
      await arrive(page);
    });
  });

  it('begins no login for a form of another port of the host', async () => {
    const site = await startSite();
    const other = await startNeighbour((_request, response) => {
      const action = `${site.url}/webauth/login?return=%2Fprivate`;
      response.setHeader('Content-Type', 'text/html');
      response.end(`<!doctype html><form method="post" action="${action}"><button>Free tickets</button></form>`);
    });
    await visit(site, async (page) => {
      await page.goto(`${site.url}/private`);
      await blocked(page);
      await page.goto(other.url);
      await page.getByRole('button').click();
      await page.getByText('ERR_ORIGIN_REFUSED').waitFor();
      expect(site.logins.length).toBe(1);
    });
    await other.close();
  });
});

/** Sets the headers of helmet for error pages too: the guard has failed before the route of the application. */
const helmetFirst: express.ErrorRequestHandler = (error, request, response, next) => {
  helmet()(request, response, () => next(error));
};
