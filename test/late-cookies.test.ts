import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Browser, clock, frameworks, type Routes, Site } from './site.js';

type Headers = Record<string, string | string[]>;
const future = 'Fri, 01 Jan 2100 00:00:00 GMT';

/** Headers with which a shared cache may store the answer, or is addressed. */
const shared: [name: string, headers: Headers][] = [
  ['CDN-Cache-Control', { 'CDN-Cache-Control': 'max-age=60' }],
  ['Cloudflare’s', { 'Cloudflare-CDN-Cache-Control': 'max-age=60' }],
  ['Vercel’s', { 'Vercel-CDN-Cache-Control': 'max-age=60' }],
  ['Netlify’s', { 'Netlify-CDN-Cache-Control': 'public, s-maxage=60' }],
  ['Akamai’s', { 'Akamai-Cache-Control': 'max-age=60' }],
  ['LiteSpeed’s', { 'X-LiteSpeed-Cache-Control': 'public,max-age=60' }],
  ['any vendor’s', { 'Unheard-Of-Cache-Control': 'max-age=60' }],
  ['Edge-Control', { 'Edge-Control': '!no-store, max-age=60' }],
  ['Surrogate-Control', { 'Surrogate-Control': 'max-age=60' }],
  ['X-Accel-Expires in seconds', { 'X-Accel-Expires': '60' }],
  ['X-Accel-Expires at a time', { 'X-Accel-Expires': '@4102444800' }],
  ['X-Accel-Expires: @0, which leaves it to the configuration of nginx', { 'X-Accel-Expires': '@0' }],
  ['X-Accel-Expires: off, which leaves it to the other headers', { 'X-Accel-Expires': 'off' }],
  ['X-Varnish-TTL', { 'X-Varnish-TTL': '60' }],
  ['X-TTL', { 'X-TTL': '1h' }],
  ['Expires alone', { Expires: future }],
  ['public beside private', { 'Cache-Control': 'private, public' }],
  ['s-maxage beside private', { 'Cache-Control': 'private, s-maxage=60' }],
  ['private for one header only', { 'Cache-Control': 'max-age=60, private="set-cookie"' }],
  ['private as a part of a quoted text', { 'Cache-Control': 'max-age=60, x="a, private"' }],
  ['a vendor’s beside private', { 'Cache-Control': 'private', 'Fastly-Cache-Control': 'max-age=60' }],
  ['public beside no-cache', { 'Cache-Control': 'public, no-cache' }],
  ['s-maxage beside max-age=0', { 'Cache-Control': 'max-age=0, s-maxage=60' }],
  ['no-cache for one header only', { 'Cache-Control': 'no-cache="set-cookie"' }],
  ['public in a second line', { 'Cache-Control': ['private', 'public'] }],
];

/** Headers with which no shared cache stores the answer. */
const own: [name: string, headers: Headers][] = [
  ['nothing', { 'X-Powered-By': 'tests' }],
  ['X-Accel-Expires: 0', { 'X-Accel-Expires': '0' }],
  ['X-Accel-Buffering', { 'X-Accel-Buffering': 'no' }],
  ['Surrogate-Key', { 'Surrogate-Key': 'a b' }],
  ['Cache-Tag', { 'Cache-Tag': 'a' }],
  ['Expires in the past', { Expires: 'Thu, 01 Jan 1970 00:00:00 GMT' }],
  ['Expires that is no date', { Expires: '0' }],
  ['Expires beside private', { 'Cache-Control': 'private', Expires: future }],
  ['private in a second line', { 'Cache-Control': ['max-age=60', 'private'] }],
  ['no-cache', { 'Cache-Control': 'no-cache' }],
  ['max-age=0 and must-revalidate', { 'Cache-Control': ['max-age=0', 'Must-Revalidate'] }],
  ['PRIVATE', { 'Cache-Control': 'max-age=60 , PRIVATE' }],
];

/** Ways of giving headers, whatever the values are. */
const ways: Record<string, (response: import('node:http').ServerResponse, headers: Headers) => void> = {
  setHeader: (response, headers) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    response.end('text');
  },
  'setHeader, in capitals, and a flush': (response, headers) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name.toUpperCase(), value);
    response.flushHeaders();
    response.end('text');
  },
  'an object': (response, headers) => void response.writeHead(200, headers).end('text'),
  'a reason and an object in small letters': (response, headers) =>
    void response
      .writeHead(
        200,
        'Fine',
        Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
      )
      .end('text'),
  'an object and undefined': (response, headers) =>
    void response.writeHead(200, headers as never, undefined as never).end('text'),
  'undefined and an object': (response, headers) => void response.writeHead(200, undefined, headers).end('text'),
  'a flat list with a line for each value': (response, headers) =>
    void response.writeHead(200, linesOf(headers).flat()).end('text'),
  'pairs with a line for each value': (response, headers) =>
    void response.writeHead(200, linesOf(headers) as never).end('text'),
};

function linesOf(headers: Headers): [string, string][] {
  return Object.entries(headers).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]));
}

describe.each(frameworks)('%s: a cookie that is set late', (_, framework) => {
  const site = new Site(framework);
  const all = new Map([...shared, ...own]);
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), (_request, response) => void response.send('in'));
    app.get('/way', (request, response) => {
      const { way, name } = request.query as { way: string; name: string };
      ways[way]?.(response, all.get(name) as Headers);
    });
  };
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    // Node takes pairs only where no header was set before.
    site.serve(routes, { inactiveTimeout: 600 }, (app) => void app.disable('x-powered-by'));
  });

  /** `Set-Cookie` lines of an answer to a browser whose session is due for renewal, and to one with a broken cookie. */
  async function cookiesOn(name: string): Promise<Record<string, number[]>> {
    const user = new Browser(site.address);
    await user.logIn();
    clock.pass(301);
    const cookie = `webauth-session=${user.cookie('webauth-session')}`;
    const counts: Record<string, number[]> = {};
    for (const way of Object.keys(ways)) {
      const path = `/way?${new URLSearchParams({ way, name })}`;
      const renewed = await new Browser(site.address).get(path, { cookie });
      const cleared = await new Browser(site.address).get(path, { cookie: 'webauth-session=broken' });
      expect([renewed.text, cleared.text]).toEqual(['text', 'text']);
      counts[way] = [renewed.set.length, cleared.set.length];
    }
    return counts;
  }
  const each = (counts: number[]) => Object.fromEntries(Object.keys(ways).map((way) => [way, counts]));

  it.each(shared)('is left out, renewed or removed, where a shared cache may store it: %s', async (name) => {
    expect(await cookiesOn(name)).toEqual(each([0, 0]));
  });

  it.each(own)('is set where no shared cache stores it: %s', async (name) => {
    expect(await cookiesOn(name)).toEqual(each([1, 1]));
  });

  it('adds private to Cache-Control: no-cache, only where it sets a cookie', async () => {
    const path = `/way?${new URLSearchParams({ way: 'an object', name: 'no-cache' })}`;
    const answers = await Promise.all(
      ['webauth-session=broken', 'x=1'].map((cookie) => new Browser(site.address).get(path, { cookie })),
    );
    expect(answers.map(({ headers }) => headers.get('cache-control'))).toEqual(['private, no-cache', 'no-cache']);
  });

  it('leaves an answer as its handler made it storable', async () => {
    const answer = await new Browser(site.address).get(
      `/way?${new URLSearchParams({ way: 'setHeader', name: 'Expires alone' })}`,
      { cookie: 'webauth-session=broken' },
    );
    expect([answer.headers.get('expires'), answer.headers.get('cache-control')]).toEqual([future, null]);
  });
});
