import type { IncomingMessage } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isElementRead, isNavigation, purposeOf, wantsPage } from '../src/http.js';
import { MemoryStore } from '../src/session/memory.js';
import { answerTo, Browser, clock, frameworks, type Routes, Site } from './site.js';

type Sent = Record<string, string>;

/** `Accept` of navigations, as browsers send it. */
const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8';
const navigate: Sent = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', 'sec-fetch-site': 'none' };

/** Navigations of browsers, by the description of the browser. */
const pages: [name: string, headers: Sent][] = [
  ['a WebView of Android', { accept, 'x-requested-with': 'uk.ac.cam.example', ...navigate }],
  ['an old WebView of Android', { accept, 'x-requested-with': 'com.facebook.katana' }],
  ['a WebView whose application hides its name', { accept, 'x-requested-with': '' }],
  [
    'a WebView with an application name that contains XMLHttpRequest',
    { accept, 'x-requested-with': 'x.XMLHttpRequest' },
  ],
  ['a navigation that names XMLHttpRequest', { accept, 'x-requested-with': 'XMLHttpRequest', ...navigate }],
  ['a navigation that accepts anything', { accept: '*/*', ...navigate }],
  ['a navigation without Accept', navigate],
  ['an old browser', { accept }],
  ['an old browser that spells types in another case', { accept: 'Text/HTML, */*;q=0.1' }],
  ['a browser with parameters of types', { accept: 'application/json;q=0.9, text/html;level=1;q=0.001' }],
  ['a browser that accepts one level of HTML', { accept: 'text/html;q=0, text/html;level=1' }],
];

/** Requests of API clients, by the description of the client. */
const others: [name: string, headers: Sent][] = [
  ['fetch() in a WebView', { accept: '*/*', 'x-requested-with': 'uk.ac.cam.example', 'sec-fetch-mode': 'cors' }],
  ['fetch() that accepts HTML', { accept, 'sec-fetch-mode': 'same-origin' }],
  ['an old WebView’s fetch()', { accept: '*/*', 'x-requested-with': 'com.facebook.katana' }],
  ['XMLHttpRequest of a library', { accept: 'text/html, */*; q=0.01', 'x-requested-with': 'XMLHttpRequest' }],
  ['XMLHttpRequest in another case', { accept, 'x-requested-with': 'xmlhttprequest' }],
  ['XMLHttpRequest in a WebView', { accept, 'x-requested-with': 'uk.ac.cam.example, XMLHttpRequest' }],
  ['doubled XMLHttpRequest', { accept, 'x-requested-with': 'XMLHttpRequest, XMLHttpRequest' }],
  ['a doubled mode', { accept, 'sec-fetch-mode': 'navigate, navigate' }],
  ['a mode in another case', { accept, 'sec-fetch-mode': 'Navigate' }],
  ['an empty mode', { accept, 'sec-fetch-mode': '' }],
  ['a client that rejects HTML', { accept: 'text/html;q=0, application/json' }],
  ['a client that rejects HTML in other words', { accept: 'text/html ; Q=0.000' }],
  ['a client that accepts a type that begins alike', { accept: 'text/html-sandboxed' }],
  ['a client that accepts anything', { accept: '*/*' }],
  ['a client that accepts any text', { accept: 'text/*' }],
  ['a client without Accept', {}],
];

const requestOf = (headers: Sent, method = 'GET') => ({ method, headers }) as unknown as IncomingMessage;

describe('wantsPage()', () => {
  it.each(pages)('is true for %s', (_name, headers) => {
    expect([wantsPage(requestOf(headers)), isNavigation(requestOf(headers))]).toEqual([true, true]);
    expect(isNavigation(requestOf(headers, 'POST'))).toBe(false);
  });

  it.each(others)('is false for %s', (_name, headers) => {
    expect([wantsPage(requestOf(headers)), isNavigation(requestOf(headers))]).toEqual([false, false]);
  });
});

describe('purposeOf() and isElementRead()', () => {
  it.each<[string, Sent]>([
    ['Sec-Purpose', { 'sec-purpose': 'prefetch;prerender' }],
    ['Purpose in another case', { purpose: 'Prefetch' }],
    ['X-Moz', { 'x-moz': 'prefetch' }],
  ])('agree on a prefetch by %s', (_name, headers) => {
    expect([purposeOf(requestOf(headers)), isElementRead(requestOf(headers))]).toEqual(['prefetch', true]);
  });
});

describe.each(frameworks)('%s: a browser that sends X-Requested-With with its navigations', (_, framework) => {
  const site = new Site(framework);
  const webView: Sent = { accept, 'x-requested-with': 'uk.ac.cam.example' };
  let user: Browser;
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
    app.all('/form', auth.require({ bearer: true }), (_request, response) => void response.send('saved'));
    app.get('/nobody', auth.require({ principals: ['nobody'] }), (_request, response) => void response.send('never'));
  };
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
    user = new Browser(site.address);
  });

  it('is redirected to a login by a guard, and arrives at its page', async () => {
    const { status, location } = await user.get('/private?x=1', webView);
    expect(status).toBe(303);
    const arrived = await user.get(answerTo(location), webView);
    expect([arrived.status, arrived.location]).toEqual([303, `${site.address}/private?x=1`]);
    expect((await user.get('/private', webView)).text).toBe('test0001');
  });

  it('gets a page after Cancel at the login service', async () => {
    const { location } = await user.get('/private', webView);
    const answer = await user.get(answerTo(location, { status: 410 }), webView);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([401, 'text/html; charset=utf-8']);
    expect(answer.text).toContain('<h1>Login cancelled</h1>');
  });

  it('gets a page that says that nothing was saved for a form without a session', async () => {
    const answer = await user.post('/form', { ...webView, referer: `${site.address}/form?page=2` });
    expect([answer.status, answer.headers.get('content-type')]).toEqual([401, 'text/html; charset=utf-8']);
    expect(answer.text).toContain('What you sent was not saved.');
    expect(answer.text).toContain('/webauth/login?return=%2Fform%3Fpage%3D2');
    // The challenge of API tokens is for API clients.
    expect((await user.get('/form', webView)).status).toBe(303);
    expect((await user.fetch('/form')).headers.get('www-authenticate')).toContain('Bearer');
  });

  it('gets a page where its user is not allowed', async () => {
    await user.logIn();
    const answer = await user.get('/nobody', webView);
    expect([answer.status, answer.text]).toEqual([403, expect.stringContaining('<h1>You may not enter here</h1>')]);
  });

  it('gets pages for a logout that fails, and for the removal of its cookie', async () => {
    const store = new MemoryStore({ now: clock.now });
    site.serve(routes, { store });
    await user.logIn();
    store.put = () => Promise.reject(new Error('no route'));
    const failed = await user.post('/webauth/logout', webView);
    expect([failed.status, failed.text]).toEqual([503, expect.stringContaining('You are not logged out yet')]);
    const removed = await user.post('/webauth/logout?here=yes', webView);
    expect([removed.status, removed.text]).toEqual([200, expect.stringContaining('removed from this browser')]);
  });

  it('gets JSON for requests of its scripts', async () => {
    const scripted = { ...webView, accept: '*/*' };
    const answers = [
      await user.get('/private', scripted),
      await user.post('/form', scripted),
      await user.get('/private', { ...webView, 'sec-fetch-mode': 'cors' }),
    ];
    for (const { status, location, text } of answers) {
      expect([status, location, JSON.parse(text).error.code]).toEqual([401, '', 'ERR_SESSION_MISSING']);
    }
  });
});
