import type express from 'express';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, wls } from './site.js';

const { authUrl } = wls.profile;
const code = ({ text }: Answer) => /ERR_\w+/.exec(text)?.[0];
const login = '/webauth/login?return=%2Fprivate';

/** Every form and link of a page that leads to the login. */
function beginnings({ text }: Answer): string[] {
  return [...text.matchAll(/<(?:a|form)[^>]*(?:href|action)="([^"]*\/webauth\/login[^"]*)"[^>]*>/g)].map(
    ([tag]) => tag,
  );
}

describe.each(frameworks)('%s: POST /webauth/login', (_, framework) => {
  const site = new Site(framework);
  let user: Browser;
  const routes: Routes = (app, auth) => {
    const show: express.RequestHandler = ({ auth: who }, response) => void response.send(who?.principal);
    app.get('/private', auth.require(), show);
    app.get('/instant', auth.require({ maxAge: 1 }), show);
    app.post('/form', auth.require(), show);
  };
  const started = () => site.events.filter(({ event }) => event === 'login started').length;

  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
    user = new Browser(site.address);
  });

  /** A user whose browser lost the session of a login that has just succeeded. */
  async function loseSession(): Promise<void> {
    await user.logIn();
    user.plant('webauth-session');
    site.events.length = 0;
  }

  it('answers with a page that leads to the login service without a script, and the login succeeds', async () => {
    const answer = await user.press('/webauth/login?return=%2Fprivate%3Fx%3D1');
    expect([answer.status, answer.location.startsWith(`${authUrl}?`)]).toEqual([200, true]);
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(answer.text).toContain(`<a class="button main" href="${authUrl}?`);
    const arrived = await user.get(answerTo(answer.location));
    expect([arrived.status, arrived.location]).toEqual([303, `${site.address}/private?x=1`]);
    expect((await user.get('/private')).text).toBe('test0001');
  });

  it('redirects a client that reads no pages', async () => {
    const { status, location } = await user.post(login, { accept: '*/*' });
    expect([status, location.startsWith(`${authUrl}?`)]).toEqual([303, true]);
  });

  it('goes to the return URL if the user is logged in', async () => {
    await user.logIn();
    const { status, location } = await user.post(login);
    expect([status, location]).toEqual([303, `${site.address}/private`]);
  });

  it('passes on the authentication requirements of a step-up', async () => {
    await user.logIn('/instant');
    clock.pass(2);
    const refused = await user.get('/instant');
    expect([refused.status, code(refused)]).toEqual([400, 'ERR_IACT_UNSATISFIED']);
    const [, action = ''] = /<form method="post" action="([^"]*)">/.exec(refused.text) ?? [];
    const { location } = await user.press(action.replaceAll('&#38;', '&'));
    expect(new URL(location).searchParams.get('iact')).toBe('yes');
  });

  it('begins another login within ten seconds of one, where no navigation does', async () => {
    await loseSession();
    for (const sent of [{}, { 'sec-fetch-user': '?1' }, { 'sec-fetch-user': '?1', 'sec-fetch-mode': 'navigate' }]) {
      for (const path of ['/private', login, `${login}&moved=%2F`]) {
        const answer = await user.get(path, sent);
        expect([answer.status, code(answer), answer.location]).toEqual([400, 'ERR_COOKIES_BLOCKED', '']);
      }
    }
    expect(started()).toBe(0);
    expect((await user.press(login)).location.startsWith(`${authUrl}?`)).toBe(true);
    expect(started()).toBe(1);
  });

  describe('from another page than one of this origin', () => {
    const foreign: [name: string, sent: Record<string, string | string[]>][] = [
      ['a sibling host', { origin: 'https://evil.cam.ac.uk' }],
      ['another port', { origin: 'http://127.0.0.1:1' }],
      ['a frame without an origin', { origin: 'null', 'sec-fetch-site': 'cross-site' }],
      ['a page of a browser that sends null alone', { origin: 'null' }],
      ['a client that sends no Origin', { origin: [] }],
    ];

    it.each(foreign)('begins no login for %s, and shows a link', async (_name, sent) => {
      const before = await user.post(login, sent);
      await loseSession();
      for (const answer of [before, await user.post(login, sent)]) {
        expect([answer.status, code(answer), answer.location, answer.set]).toEqual([403, 'ERR_ORIGIN_REFUSED', '', []]);
        expect(beginnings(answer)).toEqual([`<a class="button main" href="${site.address}${login}">`]);
      }
      expect(started()).toBe(0);
      const { error } = JSON.parse((await user.post(login, { ...sent, accept: '*/*' })).text);
      expect(error).toMatchObject({ code: 'ERR_ORIGIN_REFUSED', loginUrl: login });
    });

    it('begins one where a referrer policy hides the Origin, and the browser names this origin', async () => {
      await loseSession();
      const { location } = await user.press(login, { origin: 'null', 'sec-fetch-site': 'same-origin' });
      expect(location.startsWith(`${authUrl}?`)).toBe(true);
    });
  });

  it.each(['iframe', 'object', 'image'])('begins no login with Sec-Fetch-Dest: %s', async (destination) => {
    const sent = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': destination, 'sec-fetch-site': 'same-origin' };
    const answer = await user.post(login, sent);
    expect([answer.status, code(answer), started()]).toEqual([403, 'ERR_NAVIGATION_REQUIRED', 0]);
    expect(answer.headers.get('x-frame-options')).toBe('DENY');
    const scripted = await user.post(login, { ...sent, 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' });
    expect([scripted.status, JSON.parse(scripted.text).error.code]).toEqual([403, 'ERR_NAVIGATION_REQUIRED']);
  });

  describe('at another Host', () => {
    it('begins the login there for the Origin of baseUrl, since a proxy rewrote Host', async () => {
      await loseSession();
      const { location } = await user.press(login, { host: 'inside:8080' });
      expect(location.startsWith(`${authUrl}?`)).toBe(true);
    });

    it('moves to baseUrl where a referrer policy hides the Origin', async () => {
      const sent = { host: 'alias.example', origin: 'null', 'sec-fetch-site': 'same-origin' };
      const { status, location } = await user.post(login, sent);
      expect([status, location]).toEqual([303, `${site.address}${login}&moved=%2F`]);
    });
  });

  it('is what the buttons of all pages do that begin a login', async () => {
    const { location } = await user.get('/private');
    const out = new Browser(site.address);
    const pages: Answer[] = [
      await user.get(answerTo(location, { status: 410 })),
      await user.get('/webauth/callback'),
      await out.post('/form'),
      await out.get('/private', { cookie: 'webauth-session=x' }),
      await out.get('/webauth/logout'),
      await out.post('/webauth/logout?everywhere=yes'),
      await out.get(login, { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'image', 'sec-fetch-site': 'none' }),
      await out.get('/private', { 'sec-purpose': 'prefetch' }),
    ];
    await loseSession();
    pages.push(await user.get('/private'));
    for (const page of pages) {
      const [tag = '', ...more] = beginnings(page);
      expect([more, tag.startsWith('<form method="post" action="/webauth/login?return=')], page.text).toEqual([
        [],
        true,
      ]);
      // No link or form leads out of the origin after a button is pressed.
      expect(page.headers.get('content-security-policy')).toContain("form-action 'self'");
    }
  });

  it('is not what the page does that other sites may frame', async () => {
    const sent = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe', 'sec-fetch-site': 'cross-site' };
    const answer = await user.get('/private', sent);
    expect(beginnings(answer)).toEqual([`<a class="button main" href="${login}" target="_top">`]);
    expect(answer.text).not.toContain('<form');
  });
});
