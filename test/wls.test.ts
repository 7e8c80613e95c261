import { createVerify, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import express from 'express';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { formatRequest } from '../src/request.js';
import { type AuthResponse, failures, parseResponse, responseFromQuery, signedPart } from '../src/response.js';
import { type Expectations, verifyResponse } from '../src/verify.js';
import { createWLS, type WLS, type WLSOptions } from '../src/wls/index.js';

// One pair for all: making one takes longer than any of these tests.
const { privateKey: key, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const start = Date.parse('2024-05-06T07:08:09Z');
const home = 'http://app.localhost:3000/webauth/callback';

let clock = start;
const answers: AuthResponse[] = [];
const wls = newWLS({ now: () => new Date(clock), log: (answer) => answers.push(answer) });

const strict = newWLS({ now: () => new Date(clock), strict: true });

beforeAll(() => Promise.all([wls.listen(0), strict.listen(0)]));
afterAll(() => Promise.all([wls.close(), strict.close()]));
afterEach(() => {
  clock = start;
  vi.unstubAllEnvs();
});

function newWLS(options: WLSOptions = {}): WLS {
  return createWLS({ key, ...options });
}

/** As much of a browser as these tests need: it keeps cookies, and follows nothing. */
class Browser {
  readonly cookies = new Map<string, string>();

  async get(url: string): Promise<Response> {
    return this.#fetch(url, {});
  }

  /** Sends the form of the page at the address. */
  async choose(url: string, choice: Record<string, string>, headers: Record<string, string> = {}): Promise<Response> {
    const body = new URLSearchParams(choice);
    return this.#fetch(url, { method: 'POST', body, headers: { Origin: new URL(url).origin, ...headers } });
  }

  async #fetch(url: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Response> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { ...init, redirect: 'manual', headers: { ...init.headers, Cookie: cookie } });
    for (const line of response.headers.getSetCookie()) this.#keep(line);
    return response;
  }

  #keep(line: string): void {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) as unknown as [string, string, string];
    if (/Max-Age=0/.test(line)) this.cookies.delete(name);
    else this.cookies.set(name, value);
  }
}

type Asked = Partial<Parameters<typeof formatRequest>[1]>;

function ask(asked: Asked = {}): string {
  return formatRequest(wls.profile.authUrl, { url: home, ...asked });
}

function raw(query: string): string {
  return `${wls.profile.authUrl}?${query}`;
}

/** The encoded response in a redirect, with all that every redirect has to have. */
function sentBack(response: Response): { readonly encoded: string; readonly to: string } {
  expect(response.status).toBe(303);
  expect(response.headers.get('cache-control')).toBe('no-store');
  expect(response.headers.get('referrer-policy')).toBe('no-referrer');
  const [to, query] = split(response.headers.get('location') as string);
  const encoded = responseFromQuery(query);
  expect(isSigned(encoded)).toBe(true);
  return { encoded, to: to + query.replace(/&?WLS-Response=.*/, (found) => (found.startsWith('&') ? '&…' : '…')) };
}

function answerOf(response: Response): AuthResponse {
  return parseResponse(sentBack(response).encoded);
}

function split(address: string): [string, string] {
  const mark = address.indexOf('?');
  return [address.slice(0, mark + 1), address.slice(mark + 1)];
}

/** By Node alone, without our own verification. */
function isSigned(encoded: string, by: KeyObject = publicKey): boolean {
  const sig = encoded
    .slice(encoded.lastIndexOf('!') + 1)
    .replace(/[-._]/g, (char) => ({ '-': '+', '.': '/' })[char] ?? '=');
  return createVerify('sha1').update(signedPart(encoded)).verify(by, sig, 'base64');
}

function expected(more: Partial<Expectations> = {}): Expectations {
  return { keys: wls.profile.keys, url: home, params: null, now: new Date(clock), ...more };
}

const me = { account: 'test0001' };

describe('logging in', () => {
  it('shows a page, and sends the chosen account back as a success of version 3', async () => {
    const browser = new Browser();
    const address = ask({ params: 'täg!%21 +&' });
    expect((await browser.get(address)).status).toBe(200);
    const { encoded, to } = sentBack(await browser.choose(address, me));
    expect(to).toBe(`${home}?…`);
    expect(parseResponse(encoded)).toMatchObject({
      ver: 3,
      status: 200,
      msg: '',
      issue: new Date(start),
      url: home,
      principal: 'test0001',
      ptags: ['current'],
      auth: 'pwd',
      sso: [],
      life: 36000,
      params: 'täg!%21 +&',
      kid: '1',
    });
    expect(verifyResponse(encoded, expected({ params: 'täg!%21 +&', iact: true, aauth: ['pwd'] })).principal).toBe(
      'test0001',
    );
    expect(answers.at(-1)).toMatchObject({ status: 200, principal: 'test0001', url: home });
  });

  it.each([1, 2] as const)('answers version %i in itself, without ptags', async (ver) => {
    const { encoded } = sentBack(await new Browser().choose(ask({ ver }), me));
    expect(encoded.split('!')).toHaveLength(13);
    expect(parseResponse(encoded)).toMatchObject({ ver, status: 200, ptags: [] });
    expect(verifyResponse(encoded, expected({ ver, oldVersionPtags: ['current'] })).ptags).toEqual(['current']);
  });

  it('keeps the query of url in version 3, and drops it in version 1', async () => {
    const url = `${home}?a=1&b=%20`;
    expect(sentBack(await new Browser().choose(ask({ url }), me)).to).toBe(`${url}&…`);
    const old = sentBack(await new Browser().choose(ask({ url, ver: 1 }), me));
    expect(old.to).toBe(`${home}?…`);
    expect(parseResponse(old.encoded).url).toBe(url);
  });

  it('logs leavers in without ptags, and declines them in the versions that would make them current', async () => {
    const leaver = { account: 'test0401' };
    expect(answerOf(await new Browser().choose(ask(), leaver))).toMatchObject({ status: 200, ptags: [] });
    for (const ver of [1, 2] as const) {
      const browser = new Browser();
      expect(answerOf(await browser.choose(ask({ ver }), leaver))).toMatchObject({ ver, status: 570, principal: '' });
      expect(answerOf(await browser.get(ask({ ver })))).toMatchObject({ ver, status: 570 });
    }
  });

  it('never gives an id twice', async () => {
    const ids = Array.from({ length: 50 }, () => parseResponse(wls.respond({ url: home })).id);
    expect(new Set(ids).size).toBe(50);
    expect(ids[0]).toMatch(new RegExp(`^${start / 1000}-${process.pid}-\\d+$`));
  });
});

describe('single sign-on', () => {
  it('answers at once with sso and what is left of the session', async () => {
    const browser = new Browser();
    await browser.choose(ask(), { account: 'test0002' });
    clock += 600_500;
    const { encoded } = sentBack(await browser.get(ask()));
    expect(parseResponse(encoded)).toMatchObject({ principal: 'test0002', auth: '', sso: ['pwd'], life: 35399 });
    expect(verifyResponse(encoded, expected({ iact: false, aauth: ['pwd'] })).principal).toBe('test0002');
    expect(answerOf(await browser.get(ask({ iact: false })))).toMatchObject({ status: 200, auth: '' });
  });

  it('ends with the session', async () => {
    const browser = new Browser();
    await browser.choose(ask(), me);
    clock += 35_999_000;
    expect(answerOf(await browser.get(ask()))).toMatchObject({ status: 200, life: 1 });
    clock += 1;
    expect((await browser.get(ask())).status).toBe(200);
    expect(answerOf(await browser.get(ask({ iact: false }))).status).toBe(540);
  });

  it('asks all the same with iact=yes, and the choice begins a new session', async () => {
    const browser = new Browser();
    await browser.choose(ask(), me);
    const [before] = browser.cookies.values();
    clock += 1000_000;
    expect((await browser.get(ask({ iact: true }))).status).toBe(200);
    const again = answerOf(await browser.choose(ask({ iact: true }), { account: 'test0003' }));
    expect(again).toMatchObject({ principal: 'test0003', auth: 'pwd', sso: [], life: 36000 });
    expect(answerOf(await browser.get(ask())).principal).toBe('test0003');
    const old = new Browser();
    old.cookies.set([...browser.cookies.keys()][0] as string, before as string);
    expect((await old.get(ask())).status).toBe(200);
  });

  it('lasts as long as sessionLife says', () => {
    expect(parseResponse(newWLS({ sessionLife: 7 }).respond({ url: home })).life).toBe(7);
  });

  it('keeps an HttpOnly cookie of its own, and finds it among others', async () => {
    const browser = new Browser();
    const [line] = (await browser.choose(ask(), me)).headers.getSetCookie();
    expect(line).toMatch(
      new RegExp(`^development-wls-${new URL(wls.url).port}=[\\w-]{22}; Path=/; HttpOnly; SameSite=Lax$`),
    );
    browser.cookies.set('development-wls-1', 'another');
    browser.cookies.set('webauth-session', 'a=b');
    expect(answerOf(await browser.get(ask())).status).toBe(200);
  });

  it('is over after logging out, also for a copy of the cookie', async () => {
    const browser = new Browser();
    await browser.choose(ask(), me);
    const copy = new Browser();
    for (const [name, value] of browser.cookies) copy.cookies.set(name, value);
    const page = await browser.get(wls.profile.logoutUrl as string);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('You are logged out of the development login service.');
    expect(browser.cookies.size).toBe(0);
    expect((await copy.get(ask())).status).toBe(200);
  });

  it('keeps a bounded number of sessions', async () => {
    const first = new Browser();
    await first.choose(ask(), me);
    for (let i = 0; i < 10; i += 1) {
      await Promise.all(Array.from({ length: 100 }, () => new Browser().choose(ask(), me)));
    }
    expect((await first.get(ask())).status).toBe(200);
  });
});

describe('failures', () => {
  it('answers a cancelled login in version 1, without the query of url', async () => {
    const url = `${home}?a=1`;
    const { encoded, to } = sentBack(await new Browser().choose(ask({ url, params: 'p' }), { status: '410' }));
    expect(to).toBe(`${home}?…`);
    expect(parseResponse(encoded)).toMatchObject({ ver: 1, status: 410, url, params: 'p', principal: '', auth: '' });
    expect(() => verifyResponse(encoded, expected({ url, params: 'p' }))).toThrow('cancelled');
  });

  it.each([510, 520, 530, 540, 560, 570])('gives status %i when it is chosen', async (status) => {
    const browser = new Browser();
    const answer = answerOf(await browser.choose(ask({ ver: 2 }), { status: `${status}` }));
    expect(answer).toMatchObject({ ver: status === 520 ? 1 : 2, status, principal: '', ptags: [], auth: '', sso: [] });
    expect(answer.msg).not.toBe('');
    expect(browser.cookies.size).toBe(0);
  });

  it('has no way to authenticate but pwd', async () => {
    const browser = new Browser();
    await browser.choose(ask({ aauth: ['x-card', 'pwd'] }), me);
    expect(answerOf(await browser.get(ask({ aauth: ['pwd'] }))).status).toBe(200);
    for (const iact of [true, false]) {
      expect(answerOf(await browser.get(ask({ aauth: ['x-card'], iact }))).status).toBe(510);
    }
    expect(answerOf(await browser.choose(ask({ aauth: ['x-card'] }), me)).status).toBe(510);
  });

  it('does not ask with iact=no', async () => {
    expect(answerOf(await new Browser().get(ask({ iact: false })))).toMatchObject({ ver: 3, status: 540 });
    expect(answerOf(await new Browser().choose(ask({ iact: false }), me)).status).toBe(540);
  });

  it('shows a failure itself with fail=yes, and never goes back', async () => {
    const browser = new Browser();
    const pages = [
      await browser.choose(ask({ fail: true }), { status: '410' }),
      await browser.choose(ask({ fail: true }), { status: '560' }),
      await browser.choose(ask({ fail: true, ver: 1 }), { account: 'test0401' }),
      await browser.get(ask({ fail: true, aauth: ['x-card'] })),
      await new Browser().get(ask({ fail: true, iact: false })),
      await browser.get(`${ask({ fail: true })}&iact=perhaps`),
      await browser.get(`${ask({ fail: true })}&fail=yes`),
    ];
    expect(pages.map(({ status }) => status)).toEqual([403, 403, 403, 403, 403, 400, 400]);
    for (const page of pages) expect(page.headers.has('location')).toBe(false);
    expect(await pages[5]?.text()).toContain('iact is neither yes nor no');
    expect(answerOf(await browser.choose(ask({ fail: true }), me)).status).toBe(200);
  });
});

describe('refused requests', () => {
  const url = `url=${encodeURIComponent(home)}`;

  type Row = [query: string, sentence: string, answer: Partial<AuthResponse>];
  const always: Row[] = [
    [url, 'ver is missing', { ver: 1, status: 530 }],
    [`ver=4&${url}&params=p`, 'ver is not 1, 2 or 3', { ver: 1, status: 520, params: 'p' }],
    [`ver=&${url}`, 'ver is not 1, 2 or 3', { ver: 1, status: 520 }],
    [`ver=03&${url}`, 'ver is not 1, 2 or 3', { ver: 1, status: 520 }],
    [`ver=3&ver=3&${url}`, 'ver is there more than once', { ver: 1, status: 530 }],
    [`ver=3&${url}&iact=maybe&params=%21`, 'iact is neither', { ver: 3, status: 530, params: '!' }],
    [`ver=3&${url}&params=a&params=b`, 'params is there more than once', { ver: 3, status: 530, params: '' }],
    [`ver=3&${url}&params=%ff`, 'not UTF-8', { ver: 3, status: 530, params: '' }],
    [`ver=3&${url}&params=%zz`, 'broken percent-encoding', { ver: 3, status: 530, params: '' }],
    [`ver=3&${url}&aauth=pwd,,x`, 'aauth is not a list', { ver: 3, status: 530 }],
  ];
  const whenStrict: Row[] = [
    [`ver=2&${url}&skew=1`, 'no parameter of the name "skew"', { ver: 2, status: 530 }],
    [`ver=3&${url}&aauth=`, 'aauth is not a list', { ver: 3, status: 530 }],
    [`ver=3&${url}&date=20130230T000000Z`, 'date is not of the form', { ver: 3, status: 530 }],
    [`ver=3&${url}&fail=no`, 'fail can only be yes', { ver: 3, status: 530 }],
    [`ver=3&${url}&desc=%d8%b6`, 'desc is not printable ASCII', { ver: 3, status: 530 }],
    [`ver=3&${url}&msg=%0a`, 'msg is not printable ASCII', { ver: 3, status: 530 }],
  ];

  it.each(always)('goes back with %s', async (query, sentence, answer) => {
    await expectRejection(raw(query), sentence, answer);
  });

  it.each([...always, ...whenStrict])('goes back with %s, if it is strict', async (query, sentence, answer) => {
    await expectRejection(`${strict.profile.authUrl}?${query}`, sentence, answer);
  });

  async function expectRejection(address: string, sentence: string, answer: Partial<AuthResponse>): Promise<void> {
    const browser = new Browser();
    const back = answerOf(await browser.get(address));
    expect(back).toMatchObject({ url: home, principal: '', ...answer });
    expect(back.msg).toContain(sentence);
    expect(answerOf(await browser.choose(address, me)).status).toBe(answer.status);
  }

  it.each<[query: string, sentence: string]>([
    ['', 'ver is missing'],
    ['ver=3', 'url is missing'],
    ['ver=3&url=', 'url is not an absolute http or https address'],
    ['ver=3&url=/callback', 'url is not an absolute http or https address'],
    ['ver=3&url=javascript:alert(1)', 'url is not an absolute http or https address'],
    ['ver=3&url=http://a.example/%23x', 'url is not an absolute http or https address'],
    ['ver=3&url=http://a.example/%0d%0aSet-Cookie:x', 'url is not an absolute http or https address'],
    [`ver=3&${url}&${url}`, 'url is there more than once'],
    [`ver=3&${url}&%75rl=http://b.example/`, 'url is there more than once'],
    [`ver=3&${url}%ff`, 'not UTF-8'],
    ['ver=4&url=nowhere', 'ver is not 1, 2 or 3'],
    [`ver=4&${url}&fail=yes`, 'ver is not 1, 2 or 3'],
    [`ver=3&${url}&fail=no&fail=yes`, 'fail is there more than once'],
  ])('shows a page for %s', async (query, sentence) => {
    const page = await new Browser().get(raw(query));
    expect(page.status).toBe(400);
    expect(page.headers.has('location')).toBe(false);
    expect(await page.text()).toContain(sentence);
  });
});

describe('the page', () => {
  it('says what it is, what asks and why, and offers every account and status', async () => {
    const page = await new Browser().get(ask({ desc: 'Ünion <b> & Söhne', msg: 'to vote "now"', iact: true }));
    const text = await page.text();
    expect(text).toContain('This is not Raven.');
    expect(text).toContain('Ünion &#60;b&#62; &#38; Söhne');
    expect(text).toContain('app.localhost:3000');
    expect(text).toContain('to vote &#34;now&#34;');
    expect(text).toContain('even if you did before');
    for (const status of Object.keys(failures)) expect(text).toContain(`name="status" value="${status}"`);
    for (const name of ['test0001', 'test0004', 'test0402']) expect(text).toContain(`name="account" value="${name}"`);
    expect(text.match(/no longer current/g)).toHaveLength(2);
  });

  it.each([
    ['&#1590;&#x41;&lt;&amp;lt;&gt;&quot;', 'ض&#38;#x41;&#60;&#38;lt;&#62;&#34;'],
    ['&#0;&#10;&#55357;&#9999999;&nbsp;&', '&#38;#0;&#38;#10;&#38;#55357;&#38;#9999999;&#38;nbsp;&#38;'],
    ['<script>alert(1)</script>', '&#60;script&#62;alert(1)&#60;/script&#62;'],
  ])('decodes the text %s once, and escapes it', async (encoded, shown) => {
    const text = await (await new Browser().get(ask({ desc: { encoded }, msg: { encoded } }))).text();
    expect(text.split(`<bdi>${shown}</bdi>`)).toHaveLength(3);
  });

  it('escapes what accounts hold', async () => {
    const own = newWLS({ accounts: [{ principal: '"><i>', name: '<b>', ptags: ['<u>'] }] });
    await own.listen(0);
    const address = formatRequest(own.profile.authUrl, { url: home });
    const text = await (await new Browser().get(address)).text();
    expect(text).not.toMatch(/<(?:i|b|u)>/);
    expect(answerOf(await new Browser().choose(address, { account: '"><i>' })).principal).toBe('"><i>');
    await own.close();
  });

  it.each([
    [home, "'self' http://app.localhost:3000"],
    ['https://a.example/x?y', "'self' https://a.example"],
    ['http://[::1]:3000/', "'self' http:"],
    ['http://a.example;sandbox/', "'self' http:"],
    ["https://a,default-src/'none'", "'self' https:"],
  ])('lets its form lead to %s', async (url, sources) => {
    const policy = (await new Browser().get(ask({ url }))).headers.get('content-security-policy') as string;
    expect(policy.split('; ')).toContain(`form-action ${sources}`);
    expect(policy).not.toContain('sandbox');
  });
});

describe('the form', () => {
  it.each<[what: string, headers: Record<string, string>, status: number]>([
    ['its own', {}, 303],
    ['null, from the same origin', { Origin: 'null', 'Sec-Fetch-Site': 'same-origin' }, 303],
    ['null, from the same site', { Origin: 'null', 'Sec-Fetch-Site': 'same-site' }, 403],
    ['null', { Origin: 'null' }, 403],
    ['none', { Origin: '' }, 403],
    ['another', { Origin: 'https://evil.example' }, 403],
    ['another port', { Origin: 'http://localhost:3000', 'Sec-Fetch-Site': 'same-origin' }, 403],
    ['not one', { Origin: 'localhost' }, 403],
  ])('with Origin: %s', async (_, headers, status) => {
    const browser = new Browser();
    expect((await browser.choose(ask(), me, headers)).status).toBe(status);
    expect(browser.cookies.size).toBe(status === 303 ? 1 : 0);
  });

  it('is refused under the name of another host, though it leads here', async () => {
    const host = `evil.example:${new URL(wls.url).port}`;
    const post = (name: string) =>
      new Promise((resolve, reject) => {
        const headers = { Host: name, Origin: `http://${name}`, 'Content-Type': 'application/x-www-form-urlencoded' };
        httpRequest(ask(), { method: 'POST', headers }, (response) => resolve(response.resume().statusCode))
          .on('error', reject)
          .end('account=test0001');
      });
    expect(await post(host)).toBe(403);
    expect(await post(host.replace('evil.example', '127.0.0.1'))).toBe(303);
  });

  it.each<[choice: Record<string, string>]>([
    [{}],
    [{ account: 'nobody' }],
    [{ status: '200' }],
    [{ status: '__proto__' }],
    [{ status: '410 ' }],
    [{ other: 'test0001' }],
    [{ account: 'test0001', status: '410' }],
  ])('has no choice %o', async (choice) => {
    const browser = new Browser();
    expect((await browser.choose(ask(), choice)).status).toBe(400);
    expect(browser.cookies.size).toBe(0);
  });

  it('has a bound on its size', async () => {
    expect((await new Browser().choose(ask(), { account: 'x'.repeat(4000) })).status).toBe(400);
    expect((await new Browser().choose(ask(), { account: 'x'.repeat(300_000) })).status).toBe(413);
  });
});

describe('routes', () => {
  it.each<[method: string, path: string, allow: string]>([
    ['HEAD', '/auth/authenticate.html', 'GET, POST'],
    ['PUT', '/auth/authenticate.html', 'GET, POST'],
    ['HEAD', '/auth/logout.html', 'GET'],
    ['POST', '/auth/logout.html', 'GET'],
    ['HEAD', '/', 'GET'],
    ['DELETE', '/', 'GET'],
  ])('refuses %s %s', async (method, path, allow) => {
    const response = await fetch(wls.url + path, { method });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe(allow);
  });

  it('has a page at the root, and none elsewhere', async () => {
    const index = await fetch(wls.url);
    expect(index.status).toBe(200);
    expect(await index.text()).toContain('href="auth/logout.html"');
    for (const path of ['/auth', '/favicon.ico', '/auth/authenticate.html/', '/auth/AUTHENTICATE.html', '/%2f']) {
      expect((await fetch(wls.url + path)).status).toBe(404);
    }
  });

  it('serves Express, also where the body was read before', async () => {
    const app = express().use(express.urlencoded()).use(wls.handler);
    const server = app.listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const address = ask().replace(wls.url, `http://localhost:${(server.address() as AddressInfo).port}`);
    expect((await new Browser().get(address)).status).toBe(200);
    expect((await new Browser().choose(address, me)).status).toBe(400);
    server.close();
    server.closeAllConnections();
  });
});

describe('input that no browser sends', () => {
  const port = () => Number(new URL(wls.url).port);

  /** Sends the text as it stands; resolves with the status that comes back, or 0 if the connection just ends. */
  function send(text: string, end = true): Promise<number> {
    return new Promise((resolve) => {
      let answer = '';
      const socket = connect(port(), '127.0.0.1', () => socket.write(text, 'latin1', () => end || socket.destroy()));
      socket.on('data', (chunk) => {
        answer += chunk;
      });
      socket.on('error', () => {});
      socket.on('close', () => resolve(Number(/^HTTP\/1.1 (\d{3})/.exec(answer)?.[1] ?? 0)));
    });
  }

  const page = '/auth/authenticate.html';
  it.each<[what: string, line: string, status: number]>([
    ['two slashes', 'GET //', 404],
    ['another host', `GET //evil.example${page}?ver=3`, 404],
    ['a whole address', `GET http://localhost${page}`, 404],
    ['a star', 'OPTIONS *', 404],
    ['a lone percent sign', `GET ${page}?%`, 400],
    ['bytes that are not UTF-8', `GET ${page}?\xff\xfe=\xff`, 400],
    ['two question marks', `GET ${page}??ver=3`, 400],
    ['a fragment', `GET ${page}?ver=3#url`, 400],
    ['a huge query', `GET ${page}?${'a'.repeat(20_000)}`, 431],
    ['many parameters', `GET ${page}?${'a&'.repeat(7000)}`, 400],
  ])('answers %s', async (_, line, status) => {
    expect(await send(`${line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)).toBe(status);
  });

  it('survives a browser that leaves in the middle of the form', async () => {
    const { pathname, search, host } = new URL(ask());
    const head = `POST ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://${host}\r\nContent-Length: 99\r\n\r\nacc`;
    for (let i = 0; i < 20; i += 1) expect(await send(head, false)).toBe(0);
    expect((await fetch(ask())).status).toBe(200);
  });

  it('answers any query without a mistake of its own', async () => {
    const names = fc.constantFrom(
      'ver',
      'url',
      'desc',
      'aauth',
      'iact',
      'msg',
      'params',
      'date',
      'fail',
      '%75rl',
      'x',
      '',
    );
    const values = fc.oneof(
      fc.constantFrom(
        '1',
        '3',
        '4',
        encodeURIComponent(home),
        'http://[',
        'http://a;b',
        'yes',
        'no',
        'pwd',
        '&#1590;',
        '%ff',
        '%',
      ),
      fc.string({ unit: 'binary' }).map((text) => encodeURIComponent(text.toWellFormed())),
      fc.string(),
    );
    const pairs = fc.array(
      fc.tuple(names, values).map((pair) => pair.join('=')),
      { maxLength: 7 },
    );
    const likely = pairs.map((more) => ['ver=3', `url=${encodeURIComponent(home)}`, ...more].join('&'));
    const query = fc.oneof(
      likely,
      pairs.map((all) => all.join('&')),
      fc.string({ unit: 'grapheme' }),
    );
    // A server of its own: while the generators load, idle connections to the other one can expire at both ends.
    const own = newWLS();
    onTestFinished(() => own.close());
    await own.listen(0);
    await fc.assert(
      fc.asyncProperty(query, async (text) => {
        const response = await fetch(`${own.profile.authUrl}?${text}`, { redirect: 'manual' });
        await response.body?.cancel();
        expect([200, 303, 400, 403]).toContain(response.status);
        if (response.status === 303) expect(answerOf(response).status).not.toBe(200);
      }),
      { numRuns: 500 },
    );
  });
});

describe('respond', () => {
  it('answers as if the first account had just logged in', () => {
    const encoded = wls.respond(ask({ params: 'p' }));
    expect(verifyResponse(encoded, expected({ params: 'p' }))).toMatchObject({
      principal: 'test0001',
      auth: 'pwd',
      life: 36000,
    });
    expect(parseResponse(wls.respond({ url: home, ver: 1 }))).toMatchObject({ ver: 1, status: 200, ptags: [] });
  });

  it('signs what the overrides say', () => {
    const issue = new Date(start - 3000);
    const overrides = {
      principal: 'spqr2',
      ptags: ['a', 'b'],
      auth: '',
      sso: ['pwd'],
      life: 5,
      issue,
      id: 'x!%',
      msg: 'hi',
    };
    const encoded = wls.respond({ url: home }, { ...overrides, url: 'http://b.example/', params: 'q', ver: 3 });
    expect(isSigned(encoded)).toBe(true);
    expect(parseResponse(encoded)).toMatchObject({ ...overrides, url: 'http://b.example/', params: 'q' });
    expect(verifyResponse(encoded, expected({ url: 'http://b.example/', params: 'q' })).principal).toBe('spqr2');
  });

  it('leaves out of a failure what only a success has, unless the overrides say otherwise', () => {
    for (const status of Object.keys(failures).map(Number) as (keyof typeof failures)[]) {
      const ver = status === 410 || status === 520 ? 1 : 3;
      const response = parseResponse(wls.respond({ url: home }, { status }));
      expect(response).toMatchObject({ ver, status, principal: '', auth: '', life: undefined });
    }
    expect(wls.respond({ url: home }, { status: 570, principal: 'x' })).toContain('!x!');
    expect(parseResponse(wls.respond({ url: home }, { status: 410, ver: 3 })).ver).toBe(3);
  });

  it('replaces kid and sig after signing', () => {
    const other = wls.respond({ url: home }, { kid: '77' });
    expect(parseResponse(other).kid).toBe('77');
    expect(isSigned(other)).toBe(true);
    expect(isSigned(wls.respond({ url: home }, { sig: Buffer.alloc(256) }))).toBe(false);
    expect(parseResponse(wls.respond({ url: home }, { status: 410, kid: '', sig: undefined })).sig).toBeUndefined();
  });

  it('refuses a request that could not be sent', () => {
    expect(() => wls.respond({ url: 'nowhere' })).toThrow(TypeError);
    for (const odd of ['', 'nowhere', null, undefined, {}]) {
      expect(() => wls.respond(odd as never), `${odd}`).toThrow('respond() takes the address');
    }
    expect(() => wls.respond({ url: home }, { principle: 'x' } as never)).toThrow('a response has no field principle');
    expect(() => createWLS({ sesionLife: 3 } as never)).toThrow('createWLS has no option sesionLife');
    expect(() => wls.respond(`${wls.profile.authUrl}?ver=3`)).toThrow('url is missing');
  });
});

describe('starting', () => {
  it.each(['production', '', undefined])('refuses NODE_ENV %s', (value) => {
    vi.stubEnv('NODE_ENV', value);
    expect(() => newWLS()).toThrow(/TypeError|set NODE_ENV=development/);
    expect(newWLS({ dangerouslyActAsDevelopment: true }).url).toBe('http://localhost:8711');
  });

  it.each<[options: WLSOptions, sentence: string]>([
    [{ accounts: [] }, 'accounts is empty'],
    [{ accounts: [{ principal: '', ptags: [] }] }, 'no principal'],
    [{ accounts: [1, 2].map(() => ({ principal: 'a', ptags: [] })) }, 'same principal'],
    [{ accounts: [{ principal: 'a', ptags: ['b,c'] }] }, 'ptags of an account'],
    [{ accounts: [{ principal: 'a', ptags: [''] }] }, 'ptags of an account'],
    [{ sessionLife: 0 }, 'sessionLife is a whole number'],
    [{ sessionLife: 1.5 }, 'sessionLife is a whole number'],
    [{ strict: 'yes' } as never, 'strict is true or false'],
    [{ kid: '01' }, 'a kid is a number'],
    [{ key: 'no key' }, 'key is not a private key in PEM'],
    [{ key: publicKey }, 'private half of an RSA key'],
    [{ key: generateKeyPairSync('ed25519').privateKey }, 'private half of an RSA key'],
  ])('refuses %o', (options, sentence) => {
    const start = () => newWLS(options);
    expect(start).toThrow(TypeError);
    expect(start).toThrow(sentence);
  });

  it('takes a key as PEM, and makes one of its own otherwise', () => {
    const pem = key.export({ type: 'pkcs8', format: 'pem' }) as string;
    expect(isSigned(createWLS({ key: pem, kid: '5' }).respond({ url: home }))).toBe(true);
    const [one, two] = [createWLS(), createWLS()].map(({ profile }) => profile.keys.get('1'));
    expect(one?.length).toBe(256);
    expect(one?.fingerprint).not.toBe(two?.fingerprint);
  });

  it('describes itself as a profile', () => {
    expect(wls.profile).toMatchObject({
      name: 'development',
      authUrl: `${wls.url}/auth/authenticate.html`,
      logoutUrl: `${wls.url}/auth/logout.html`,
      oldVersionPtags: ['current'],
      requirePtags: ['current'],
    });
    expect(wls.profile.keys.kids).toEqual(['1']);
  });

  it.each(['0.0.0.0', '::', '', '192.0.2.1', 'example.org'])('does not listen on "%s"', async (host) => {
    await expect(newWLS().listen(0, host)).rejects.toThrow('listen on 127.0.0.1');
  });

  it('listens beyond loopback by name only, and says where', async () => {
    const open = newWLS({ dangerouslyListenBeyondLoopback: true });
    await open.listen(0, '0.0.0.0');
    expect(open.url).toMatch(/^http:\/\/localhost:\d+$/);
    expect((await fetch(open.url)).status).toBe(200);
    await open.close();
  });

  it('says which port is taken, and can try another', async () => {
    const blocker = createServer();
    await new Promise((resolve) => blocker.listen(0, '127.0.0.1', () => resolve(undefined)));
    const { port } = blocker.address() as AddressInfo;
    const second = newWLS();
    await expect(second.listen(port)).rejects.toThrow(`port ${port} of 127.0.0.1 is taken`);
    await second.listen(0);
    await expect(second.listen(0)).rejects.toThrow('listens already');
    await second.close();
    blocker.close();
  });

  it('closes at once, whatever connections are open, and can listen again', async () => {
    const own = newWLS();
    await own.close();
    await own.listen(0);
    const socket = connect(Number(new URL(own.url).port), '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    const ended = new Promise((resolve) => socket.once('close', resolve));
    await own.close();
    await ended;
    await expect(fetch(own.url)).rejects.toThrow();
    await own.listen(0);
    expect((await fetch(own.url)).status).toBe(200);
    await own.close();
  });
});
