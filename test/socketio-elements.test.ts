import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import { isElementRead, isOwnRead } from '../src/http.js';
import { acceptConnections } from '../src/websocket/socketio.js';
import { codeOf, socketIOSite } from './socketio-site.js';

const site = socketIOSite();

/** Fetch Metadata as browsers send it with a GET request of a page of the same origin. */
const fetched = { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' };
const elements: [string, Record<string, string>][] = [
  ['an image', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' }],
  ['an image with crossorigin', { 'sec-fetch-dest': 'image' }],
  ['an SVG reference', { 'sec-fetch-mode': 'same-origin', 'sec-fetch-dest': 'image' }],
  ['a script', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'script' }],
  ['a module', { 'sec-fetch-dest': 'script' }],
  ['a style sheet', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'style' }],
  ['a font', { 'sec-fetch-dest': 'font' }],
  ['a manifest', { 'sec-fetch-dest': 'manifest' }],
  ['a track', { 'sec-fetch-mode': 'same-origin', 'sec-fetch-dest': 'track' }],
  ['a frame', { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' }],
  ['a link', { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }],
  ['a navigation through a service worker', { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'empty' }],
  [
    'a navigation through a service worker of Firefox',
    { 'sec-fetch-mode': 'same-origin', 'upgrade-insecure-requests': '1', accept: 'text/html,*/*;q=0.8' },
  ],
  ['a prefetch', { 'sec-fetch-mode': 'no-cors', 'sec-purpose': 'prefetch' }],
  ['a prefetch with crossorigin', { 'sec-purpose': 'prefetch' }],
  ['a prefetch of an older Firefox', { 'x-moz': 'prefetch' }],
  ['a prerendering', { 'sec-purpose': 'prefetch;prerender' }],
];

describe('acceptConnections()', () => {
  it('opens a polling connection by cookie for a fetch of our own page, which has no Origin', async () => {
    acceptConnections(site.io, site.waa);
    const { cookie } = site.headers(await site.logIn());
    for (const mode of ['cors', 'same-origin']) {
      expect((await site.ask('transport=polling', { cookie, ...fetched, 'sec-fetch-mode': mode })).status).toBe(200);
    }
  });

  it.each(elements)('rejects %s of our own page, so that it takes no place of the user', async (_, metadata) => {
    acceptConnections(site.io, site.waa, { maxPerPrincipal: 1 });
    const { cookie } = site.headers(await site.logIn());
    const answer = await site.ask('transport=polling', { cookie, ...fetched, ...metadata });
    expect([answer.status, codeOf(answer)]).toEqual([403, 'ERR_ORIGIN_REFUSED']);
    expect(site.io.engine.clientsCount).toBe(0);
  });

  it.each(elements)('rejects %s that carries a password or an allowed Origin', async (_, metadata) => {
    const page = 'http://live.localhost:1';
    acceptConnections(site.io, site.waa, { credentials: ['basic', 'cookie'], origins: [page] });
    const { cookie } = site.headers(await site.logIn());
    const authorization = `Basic ${Buffer.from(`token:${await site.ticket()}`).toString('base64')}`;
    for (const shown of [{ authorization }, { cookie, origin: page, 'sec-fetch-site': 'cross-site' }]) {
      expect(codeOf(await site.ask('transport=polling', { ...fetched, ...shown, ...metadata }))).toBe(
        'ERR_ORIGIN_REFUSED',
      );
    }
    expect(site.io.engine.clientsCount).toBe(0);
  });

  it.each(Object.keys(fetched))('rejects a cookie without Origin where the browser does not send %s', async (name) => {
    acceptConnections(site.io, site.waa);
    const { cookie } = site.headers(await site.logIn());
    const { [name as keyof typeof fetched]: _, ...others } = fetched;
    expect(codeOf(await site.ask('transport=polling', { cookie, ...others }))).toBe('ERR_ORIGIN_REFUSED');
  });
});

describe('isOwnRead()', () => {
  const of = (headers: Record<string, string>, method = 'GET') => ({ method, headers }) as unknown as IncomingMessage;

  it('is true for fetch and XMLHttpRequest of the same origin only', () => {
    expect(isOwnRead(of(fetched))).toBe(true);
    for (const [, metadata] of elements) expect(isOwnRead(of({ ...fetched, ...metadata }))).toBe(false);
    for (const site of ['same-site', 'cross-site', 'none', 'same-origin, same-origin']) {
      expect(isOwnRead(of({ ...fetched, 'sec-fetch-site': site }))).toBe(false);
    }
    for (const method of ['POST', 'HEAD', 'OPTIONS']) expect(isOwnRead(of(fetched, method))).toBe(false);
    expect(isOwnRead(of({ ...fetched, upgrade: 'websocket' }))).toBe(false);
  });
});

describe('isElementRead()', () => {
  const of = (headers: Record<string, string>, method = 'GET') => ({ method, headers }) as unknown as IncomingMessage;

  it('is true for each element, and false for scripts, clients without Fetch Metadata and other methods', () => {
    for (const [, metadata] of elements) {
      expect(isElementRead(of(metadata))).toBe(true);
      expect(isElementRead(of(metadata, 'POST'))).toBe(false);
    }
    for (const headers of [{}, fetched, { 'sec-fetch-site': 'cross-site' }])
      expect(isElementRead(of(headers))).toBe(false);
  });
});
