import type { IncomingMessage } from 'node:http';
import express from 'express';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { LogEvent } from '../src/config.js';
import { AuthorisationError } from '../src/errors.js';
import { checkOrigin } from '../src/http.js';
import { createWAA } from '../src/waa.js';
import { authenticateUpgrade } from '../src/websocket/index.js';
import { thrownBy } from './helpers.js';
import { Browser, clock, Site, secret, wls } from './site.js';

const site = new Site(express);
const origin = 'https://app.example.org';

beforeAll(() => site.listen());
afterAll(() => site.close());
beforeEach(() => {
  clock.reset();
  site.serve((app, auth) => {
    app.get('/private', auth.require(), (_, response) => void response.send('private'));
    app.post('/form', auth.require(), (_, response) => void response.send('done'));
  });
});

function messageOf(headers: Record<string, string | string[]>, method = 'POST'): string {
  const { origin: sent = [] } = headers;
  const request = {
    method,
    headers,
    rawHeaders: [sent].flat().flatMap((one) => ['Origin', one]),
  } as unknown as IncomingMessage;
  return (thrownBy(() => checkOrigin(request, new Set([origin]))) as AuthorisationError).message;
}

function logged(event: LogEvent['event']): string {
  return site.events.flatMap((one) => (one.event === event ? [one.message] : [])).join('\n');
}

describe('the message of ERR_PARAMS_MISMATCH', () => {
  const config = { baseUrl: 'http://localhost:3000', wls: wls.profile, now: clock.now, log: () => {} };
  const waa = createWAA({ ...config, secret });
  const finish = (one: typeof waa, location: string, nonce: string) =>
    one.finishLogin(wls.respond(location), nonce).then(
      () => '',
      (error: Error) => error.message,
    );

  it('names the secret and baseUrl when the state was sealed with another secret or for another baseUrl', async () => {
    const { location, nonce } = waa.startLogin('/');
    const others = [{ secret: 'b2'.repeat(32) }, { baseUrl: 'http://localhost:3000/app' }];
    for (const other of others) {
      // The address is that of the other application, so that only the state differs.
      const one = createWAA({ ...config, secret, ...other });
      const state = new URL(location).searchParams.get('params') as string;
      const begun = new URL(one.startLogin('/').location);
      begun.searchParams.set('params', state);
      const message = await finish(one, begun.href.replaceAll('+', '%20'), nonce);
      expect(message).toContain('no secret of this process opens its state');
      expect(message).toContain('give all processes the same secret and baseUrl');
      expect(message).not.toContain(state);
    }
  });

  it('names another browser when the state opens and the login cookie is another', async () => {
    const [one, two] = [waa.startLogin('/'), waa.startLogin('/')];
    const message = await finish(waa, one.location, two.nonce);
    expect(message).toContain('a login that another browser started');
    expect(message).not.toContain('secret');
    expect(message).not.toContain(two.nonce);
  });
});

describe('the message of ERR_ORIGIN_REFUSED', () => {
  it('names the Origin that came, the allowed ones, and baseUrl', () => {
    const message = messageOf({ origin: 'https://evil.example.org' });
    expect(message).toContain('another Origin, "https://evil.example.org"; allowed: https://app.example.org.');
    expect(message).toContain('The origin in the address bar of the page has to be that of baseUrl');
  });

  it('names the proxy that removes the header when the browser says same-origin', () => {
    expect(messageOf({ 'sec-fetch-site': 'same-origin' })).toContain('a proxy in front of the application removes');
    expect(messageOf({})).not.toContain('proxy');
    expect(messageOf({})).toContain('no Origin, which browsers send and a test has to send itself; allowed');
    expect(messageOf({ 'sec-fetch-site': 'cross-site' })).not.toContain('proxy');
    // Browsers send no Origin with the image of a page.
    const image = { 'sec-fetch-site': 'same-origin', 'sec-fetch-dest': 'image', 'sec-fetch-mode': 'no-cors' };
    expect(messageOf(image, 'GET')).not.toContain('proxy');
  });

  it('names the proxy at a WebSocket handshake with a cookie', async () => {
    await site.waa.ready;
    const { location, nonce } = site.waa.startLogin('/');
    const { cookie } = await site.waa.finishLogin(wls.respond(location), nonce);
    const headers = {
      ...{ cookie: `webauth-session=${cookie}`, 'sec-fetch-site': 'same-origin', upgrade: 'websocket' },
      ...{ connection: 'Upgrade', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' },
    };
    const request = { method: 'GET', httpVersion: '1.1', url: '/', headers, headersDistinct: {}, rawHeaders: [] };
    const upgrade = Object.assign(request, { httpVersionMajor: 1, httpVersionMinor: 1, socket: { writable: true } });
    const error = await authenticateUpgrade(site.waa, upgrade as never).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AuthorisationError);
    expect((error as Error).message).toContain('a proxy in front of the application removes');
  });

  it.each(['\u0085\u2028', '\u001b[31m', 'x'.repeat(20_000)])('is one bounded line for an Origin of %j', (sent) => {
    const message = messageOf({ origin: `https://a${sent}` });
    expect(message.length).toBeLessThan(500);
    expect(message).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
  });
});

describe('what is logged of a login', () => {
  const long = `/private?q=${'x'.repeat(2048)}`;

  it('says that the return path is too long, and not what it is', async () => {
    const answer = await new Browser(site.address).get(long);
    expect(answer.status).toBe(303);
    expect(logged('login started')).toContain(`has ${long.length} characters, and a login returns to at most 2048`);
    expect(logged('login started')).not.toContain('xxxx');
  });

  it('says nothing of a return path that fits', async () => {
    await new Browser(site.address).get('/private?q=1');
    expect(logged('login started')).not.toContain('characters');
  });

  it('names the Host that came, and that of baseUrl', async () => {
    await new Browser(site.address).get('/private', { host: 'alias.example' });
    expect(logged('login started')).toContain(`"alias.example", and baseUrl has ${new URL(site.address).host}`);
  });

  it('is one line, whatever an application has thrown', async () => {
    site.waa.log('error', 'refused', `a\r\n2026-01-01 logged in: root ${'y'.repeat(5000)}`);
    expect(logged('refused')).toMatch(/^a\\u000d\\u000a2026/);
    expect(logged('refused').length).toBeLessThan(1100);
  });
});

describe('respond()', () => {
  it('names the Host that it needs when it is given the login route of the application', async () => {
    const { location } = await new Browser(site.address).get('/private', { host: '127.0.0.1:1' });
    expect(new URL(location).pathname).toBe('/webauth/login');
    const error = thrownBy(() => wls.respond(location)) as Error;
    expect(error).toBeInstanceOf(TypeError);
    const host = new URL(site.address).host;
    expect(error.message).toContain("the application's own login route");
    expect(error.message).toContain(`.set('Host', '${host}')`);
  });

  it('says which requests are redirected when there is no Location', () => {
    expect(() => wls.respond(undefined as never)).toThrow('redirects only requests with Accept: text/html');
  });

  it('names it for an application below a path', () => {
    const error = thrownBy(() => wls.respond('http://localhost:3000/app/webauth/login?return=%2F')) as Error;
    expect(error.message).toContain('the header Host: localhost:3000');
  });
});
