import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { acceptConnections } from '../../src/websocket/socketio.js';
import { socketIOSite } from '../socketio-site.js';
import { installedBrowsers, launchForLocalhost } from './browsers.js';

const socketIOClient = fileURLToPath(new URL('../../node_modules/socket.io/client-dist/socket.io.js', import.meta.url));

// Markup that is injected into a page of ours, where no script runs, opens no connection in the visitor's name.
describe.each(installedBrowsers(true))('acceptConnections() in $name', { timeout: 60_000 }, ({ executablePath }) => {
  const site = socketIOSite();
  let browser: Browser;
  let page: Page;
  /** Statuses of the answers to requests for the engine, by the name in their address. */
  let answered: Map<string, number>;

  beforeAll(async () => {
    browser = await launchForLocalhost(executablePath);
  });

  afterAll(() => browser.close());

  beforeEach(async () => {
    answered = new Map();
    site.server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
      const name = new URL(request.url as string, site.origin).searchParams.get('name');
      if (name !== null) response.once('finish', () => answered.set(name, response.statusCode));
      // What it answers by itself is a page.
      response.setHeader('Content-Type', 'text/html');
    });
    const context = await browser.newContext();
    page = await context.newPage();
    await context.addCookies([{ name: 'webauth-session', value: await site.logIn(), url: site.origin }]);
    await page.goto(site.origin);
    return () => context.close();
  });

  const address = (name: string): string => `/socket.io/?EIO=4&transport=polling&name=${name}`;

  const elements: Record<string, (url: string) => string> = {
    image: (url) => `<img src="${url}">`,
    'image-crossorigin': (url) => `<img crossorigin="use-credentials" src="${url}">`,
    'svg-image': (url) => `<svg><image href="${url}"></image></svg>`,
    'svg-use': (url) => `<svg><use href="${url}#x"></use></svg>`,
    style: (url) => `<link rel="stylesheet" href="${url}">`,
    font: (url) => `<style>@font-face { font-family: f; src: url("${url}") }</style><p style="font-family: f">text`,
    frame: (url) => `<iframe src="${url}"></iframe>`,
    object: (url) => `<object data="${url}"></object>`,
    embed: (url) => `<embed src="${url}">`,
    video: (url) => `<video src="${url}"></video>`,
    prefetch: (url) => `<link rel="prefetch" href="${url}">`,
    'prefetch-crossorigin': (url) => `<link rel="prefetch" crossorigin="use-credentials" href="${url}">`,
    'preload-script': (url) => `<link rel="preload" as="script" crossorigin="use-credentials" href="${url}">`,
    modulepreload: (url) => `<link rel="modulepreload" href="${url}">`,
  };

  it('rejects the requests of elements, and connects scripts', async () => {
    acceptConnections(site.io, site.waa, { maxPerPrincipal: 1 });
    // Firefox prefetches nothing for a page that holds the other elements too.
    const isPrefetch = (name: string) => name.startsWith('prefetch');
    for (const names of [
      Object.keys(elements).filter(isPrefetch),
      Object.keys(elements).filter((name) => !isPrefetch(name)),
    ]) {
      await page.setContent(names.map((name) => elements[name]?.(address(name))).join('\n'));
      await vi.waitFor(() => expect([...answered.keys()]).toEqual(expect.arrayContaining(names)), 10_000);
    }
    const script = JSON.stringify(address('script'));
    await page.evaluate(`document.body.append(Object.assign(document.createElement('script'), { src: ${script} }))`);
    const names = [...Object.keys(elements), 'script'];
    await vi.waitFor(() => expect([...answered.keys()].sort()).toEqual(names.sort()), 10_000);
    expect(Object.fromEntries(answered)).toEqual(Object.fromEntries(names.map((name) => [name, 403])));
    expect(site.io.engine.clientsCount).toBe(0);
    const connection = once(site.io, 'connection');
    await page.addScriptTag({ path: socketIOClient });
    await page.evaluate('io({ transports: ["polling"] })');
    const [{ data }] = await connection;
    expect(data.auth.principal).toBe('test0001');
  });

  it('rejects a navigation', async () => {
    acceptConnections(site.io, site.waa);
    await page.evaluate(`location.assign(${JSON.stringify(address('navigation'))})`);
    await vi.waitFor(() => expect(answered.get('navigation')).toBe(403), 10_000);
  });

  it('cannot tell a preload of data from fetch, as SECURITY.md says', async () => {
    acceptConnections(site.io, site.waa);
    await page.setContent(`<link rel="preload" as="fetch" crossorigin="use-credentials" href="${address('preload')}">`);
    await vi.waitFor(() => expect(answered.get('preload')).toBe(200), 10_000);
  });
});
