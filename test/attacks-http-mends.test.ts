import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { webauth } from '../src/express/index.js';
import { createWAA } from '../src/waa.js';
import { Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const routes: Routes = (app, auth) => void app.use(auth.require(), (_request, response) => void response.send('in'));

describe.each(frameworks)('%s: a guard behind a proxy that rewrites Host', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
  });

  it.each(['/list?moved=1', '/list?page=2&moved=%2F', '/list?return=no&moved=%2F', '/list?return=%2F&moved=1'])(
    'sends a user to log in from a page with a parameter moved of its own: %s',
    async (page) => {
      const user = new Browser(site.address);
      const first = await user.get(page, { host: 'inside:8080' });
      expect(first.location).toBe(`${site.address}/webauth/login?return=${encodeURIComponent(page)}&moved=%2F`);
      const { location } = await user.get(first.location, { host: 'inside:8080' });
      expect(new URL(location).searchParams.get('url')).toBe(`${site.address}/webauth/callback`);
    },
  );

  it.each(['return=%2Flist&moved=%2F', 'return=%2flist&iact=yes&moved=%2F', 'return=/list&moved=/'])(
    'ends the way to the login with an error where the proxy also rewrites its path: %s',
    async (query) => {
      const answer = await new Browser(site.address).get(`/login?${query}`, { host: 'inside:8080' });
      expect([answer.status, answer.location, /ERR_\w+/.exec(answer.text)?.[0]]).toEqual([
        400,
        '',
        'ERR_PATH_MISMATCH',
      ]);
    },
  );
});

/** What middleware does that replaced `writeHead` before `webauth()`, as `on-headers` does, and so writes the head last. */
type LastWord = (response: ServerResponse, write: (headers?: Record<string, string>) => ServerResponse) => void;

const future = 'Fri, 01 Jan 2100 00:00:00 GMT';
const sharing: [name: string, LastWord][] = [
  ['setHeader()', (response, write) => void (response.setHeader('Cache-Control', 'public, max-age=60') && write())],
  ['appendHeader()', (response, write) => void (response.appendHeader('cache-control', 's-maxage=60') && write())],
  ['writeHead()', (_response, write) => void write({ 'CDN-Cache-Control': 'max-age=60' })],
  [
    'removeHeader() and Expires',
    (response, write) => {
      response.setHeader('Expires', future).removeHeader('Cache-Control');
      write();
    },
  ],
];
const harmless: [name: string, LastWord][] = [
  ['Vary', (response, write) => void (response.appendHeader('Vary', 'Accept') && write())],
  ['no-store', (response, write) => void (response.setHeader('Cache-Control', 'no-store') && write())],
  ['nothing', (_response, write) => void write()],
];

describe.each(frameworks)('%s: webauth() after middleware that replaced writeHead()', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => clock.reset());

  /** Names of the cookies on a public page, for a session that is due for renewal and for a broken one. */
  async function cookiesAfter(last: LastWord): Promise<string[][]> {
    const pages: Routes = (app, auth) => {
      app.get('/private', auth.require(), (_request, response) => void response.send('in'));
      app.get('/public', (_request, response) => void response.cookie('own', '1').send('public'));
    };
    site.serve(pages, { inactiveTimeout: 600 }, (app) => {
      app.use((request, response, next) => {
        const { writeHead } = response;
        response.writeHead = (status: number) => {
          const write = (headers = {}) => writeHead.call(response, status, headers);
          if (request.path === '/public') last(response, write);
          else write();
          return response;
        };
        next();
      });
    });
    const user = new Browser(site.address);
    await user.logIn();
    clock.pass(301);
    const answers = [await user.get('/public'), await user.get('/public', { cookie: 'webauth-session=broken' })];
    for (const { text } of answers) expect(text).toBe('public');
    return answers.map(({ set }) => set.map((line) => line.split('=')[0] as string));
  }

  it.each(sharing)(
    'sets no session cookie where that lets a shared cache store the answer by %s',
    async (_name, last) => {
      expect(await cookiesAfter(last)).toEqual([['own'], ['own']]);
    },
  );

  it.each(harmless)('sets it where that sets %s', async (_name, last) => {
    const both = ['own', 'webauth-session'];
    expect(await cookiesAfter(last)).toEqual([both, both]);
  });
});

describe('webauth() without a framework, where writeHead() throws', () => {
  it.each<[string, string, (response: ServerResponse) => void]>([
    ['a reason that HTTP forbids', 'GET', (response) => response.writeHead(200, '\u0141', { 'Content-Length': 2 })],
    ['trailers for HEAD', 'HEAD', (response) => response.writeHead(200, { Trailer: 'X-Sum' })],
  ])('keeps no header of a head with %s', async (_name, method, fail) => {
    const server = createServer();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const waa = createWAA({ baseUrl: address, secret, wls: wls.profile, now: clock.now });
    onTestFinished(async () => {
      server.close();
      server.closeAllConnections();
      await waa.close();
    });
    const auth = webauth(waa);
    server.on('request', (request, response) => {
      auth(request, response, () => {
        try {
          fail(response);
        } catch {
          response.writeHead(500, 'Failed').end('failed');
        }
      });
    });
    // A cookie that opens nothing is removed when the head is written.
    const answer = await new Browser(address).send(method, '/', { cookie: 'webauth-session=broken' });
    expect([answer.status, answer.text, answer.set.length]).toEqual([500, method === 'HEAD' ? '' : 'failed', 1]);
    expect([answer.headers.get('content-length'), answer.headers.get('trailer')]).toEqual([null, null]);
  });
});

describe.each(frameworks)('%s: a session that is due for renewal', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => clock.reset());

  /** Headers of the package `nocache`. */
  const nocache = {
    'Surrogate-Control': 'no-store',
    'Cache-Control': 'no-store, no-cache, must-revalidate, proxy-revalidate',
    Pragma: 'no-cache',
    Expires: '0',
  };

  it.each<[string, Record<string, string>, number]>([
    ['stays in use behind nocache()', nocache, 200],
    ['stays in use with CDN-Cache-Control: no-store', { 'CDN-Cache-Control': 'private, no-store' }, 200],
    ['is not renewed with no-store for one device only', { ...nocache, 'Surrogate-Control': 'no-store;abc' }, 401],
    ['is not renewed with no-store beside max-age', { 'CDN-Cache-Control': 'no-store, max-age=60' }, 401],
    ['is not renewed with no-store for a CDN and public', { ...nocache, 'Cache-Control': 'public' }, 401],
    ['is not renewed with an empty list for a CDN', { ...nocache, 'Surrogate-Control': '' }, 401],
  ])('%s', async (_name, headers, status) => {
    site.serve(routes, { inactiveTimeout: 600 }, (app) => {
      app.use((_request, response, next) => {
        response.set(headers);
        next();
      });
    });
    const user = new Browser(site.address);
    await user.logIn();
    clock.pass(400);
    expect((await user.fetch('/private')).status).toBe(200);
    clock.pass(400);
    expect((await user.fetch('/private')).status).toBe(status);
  });
});

describe('webauth() on a response that a test made up', () => {
  it('adds no method that is missing, and removes the cookie of a session that does not open', async () => {
    const waa = createWAA({ baseUrl: 'http://127.0.0.1', secret, wls: wls.profile, now: clock.now });
    onTestFinished(() => waa.close());
    await waa.ready;
    const headers = new Map<string, unknown>();
    const written: unknown[] = [];
    const response = {
      headersSent: false,
      getHeader: (name: string) => headers.get(name.toLowerCase()),
      getHeaders: () => Object.fromEntries(headers),
      hasHeader: (name: string) => headers.has(name.toLowerCase()),
      setHeader: (name: string, value: unknown) => void headers.set(name.toLowerCase(), value),
      removeHeader: (name: string) => void headers.delete(name.toLowerCase()),
      writeHead: (status: number) => void written.push(status),
    };
    const request = { method: 'GET', url: '/', headers: { cookie: 'webauth-session=broken' }, rawHeaders: [] };
    webauth(waa)(request as never, response as never, () => response.writeHead(200));
    expect([written, 'appendHeader' in response]).toEqual([[200], false]);
    expect(String(headers.get('set-cookie'))).toMatch(/^webauth-session=; .*Max-Age=0/);
  });
});
