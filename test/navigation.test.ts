import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { purposeOf } from '../src/http.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site } from './site.js';

type Sent = Record<string, string>;
const code = ({ text }: Answer) => /ERR_\w+/.exec(text)?.[0];
const fetched = (mode: string, destination: string): Sent => ({
  'sec-fetch-mode': mode,
  'sec-fetch-dest': destination,
  'sec-fetch-site': 'same-site',
});

/** Navigation that a service worker of Firefox passes through. */
const passedThrough: Sent = {
  ...fetched('same-origin', 'empty'),
  'sec-fetch-site': 'same-origin',
  'upgrade-insecure-requests': '1',
  accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
};

const windows: [name: string, sent: Sent][] = [
  ['none of the headers', {}],
  ['a navigation', fetched('navigate', 'document')],
  ['a service worker', fetched('navigate', 'empty')],
  ['a service worker of Firefox', passedThrough],
  ['a mode and no destination', { 'sec-fetch-mode': 'navigate', 'sec-fetch-site': 'none' }],
  ['a destination and no mode', { 'sec-fetch-dest': 'iframe' }],
  ['another purpose', { 'sec-purpose': 'something-new', purpose: 'x-prefetcher' }],
];

const frames = ['iframe', 'frame', 'object', 'embed', 'fencedframe'].map((destination) =>
  fetched('navigate', destination),
);

const parts: Sent[] = [
  fetched('no-cors', 'image'),
  fetched('no-cors', 'empty'),
  fetched('no-cors', 'script'),
  fetched('cors', 'empty'),
  fetched('same-origin', 'empty'),
  { ...passedThrough, 'upgrade-insecure-requests': '0' },
  { ...passedThrough, 'sec-fetch-mode': 'cors' },
  { ...passedThrough, 'sec-fetch-site': 'same-site' },
  { ...passedThrough, accept: '*/*' },
  fetched('websocket', 'empty'),
  fetched('no-cors', 'document'),
  fetched('navigate', 'image'),
  fetched('navigate, navigate', 'document'),
  fetched('', 'document'),
];

const prefetches: Sent[] = [
  { 'sec-purpose': 'prefetch' },
  { 'sec-purpose': 'prefetch;prerender', ...fetched('navigate', 'document') },
  { 'sec-purpose': 'prefetch;anonymous-client-ip' },
  { 'sec-purpose': 'Prefetch' },
  { purpose: 'prefetch' },
  { purpose: 'prefetch', ...fetched('navigate', 'iframe') },
  { 'x-moz': 'prefetch', ...passedThrough },
];

describe.each(frameworks)('%s: a login', (_, framework) => {
  const site = new Site(framework);
  let user: Browser;
  const routes: Routes = (app, auth) => {
    app.get('/private', auth.require(), ({ auth: who }, response) => void response.send(who?.principal));
    app.get('/staff', auth.require({ maxAge: 60 }), ({ auth: who }, response) => void response.send(who?.principal));
  };
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
    user = new Browser(site.address);
  });

  const started = () => site.events.filter(({ event }) => event === 'login started' || event === 'login').length;
  const refusedCodes = () => site.events.filter(({ event }) => event === 'refused').map((event) => event.code);

  describe.each([
    ['at the login', 403, '/webauth/login?return=/private'],
    ['at a guard', 401, '/private'],
  ] as const)('%s', (_name, status, path) => {
    it.each(windows)('starts with %s', async (_name2, sent) => {
      const { location } = await user.get(path, sent);
      expect((await user.get(answerTo(location), sent)).status).toBe(303);
      expect((await user.get('/private', sent)).text).toBe('test0001');
    });

    it('does not start in a frame, which gets a link for the window', async () => {
      for (const sent of frames) {
        const answer = await user.get(path, sent);
        expect([answer.status, answer.location, answer.set, started()]).toEqual([status, '', [], 0]);
        expect(answer.text).toContain('href="/webauth/login?return=%2Fprivate" target="_top"');
        expect(answer.headers.get('x-frame-options')).toBe(null);
        expect(answer.headers.get('content-security-policy')).not.toContain('frame-ancestors');
        expect(answer.headers.get('cache-control')).toBe('no-store');
      }
    });

    it('does not start as a part of a page', async () => {
      for (const sent of parts) {
        const answer = await user.get(path, sent);
        expect([answer.status, answer.location, answer.set, started()], JSON.stringify(sent)).toEqual([
          status,
          '',
          [],
          0,
        ]);
        expect(code(answer)).toBe(status === 403 ? 'ERR_NAVIGATION_REQUIRED' : 'ERR_SESSION_MISSING');
      }
    });

    it('does not start by a prefetch, which gets 503', async () => {
      for (const sent of prefetches) {
        const answer = await user.get(path, sent);
        expect([answer.status, code(answer), answer.set, started()]).toEqual([503, 'ERR_PREFETCH_REFUSED', [], 0]);
        expect(answer.headers.get('cache-control')).toBe('no-store');
      }
      expect(refusedCodes()).toEqual(Array(prefetches.length).fill('ERR_PREFETCH_REFUSED'));
    });
  });

  it('is not finished by a frame, a part of a page or a prefetch, and its response stays good', async () => {
    const callback = answerTo((await user.get('/private')).location);
    for (const sent of [...frames, ...parts, ...prefetches]) {
      const answer = await user.get(callback, sent);
      expect([answer.status, answer.set]).toEqual([prefetches.includes(sent) ? 503 : 403, []]);
      expect(answer.text).not.toContain('WLS-Response');
    }
    expect((await user.send('HEAD', callback)).status).toBe(405);
    expect((await user.get(callback)).status).toBe(303);
  });

  it('starts and finishes for fetch() of Node, which sends a mode and no site', async () => {
    const sent = { 'sec-fetch-mode': 'cors', accept: '*/*' };
    const { status, location } = await user.get('/webauth/login?return=/private', sent);
    expect([status, (await user.get(answerTo(location), sent)).status]).toEqual([303, 303]);
  });

  it('is answered with JSON where a script asks for it', async () => {
    const answer = await user.fetch('/webauth/login?return=/private', fetched('cors', 'empty'));
    expect([answer.status, JSON.parse(answer.text).error]).toMatchObject([
      403,
      { code: 'ERR_NAVIGATION_REQUIRED', loginUrl: '/webauth/login?return=%2Fprivate' },
    ]);
  });

  it('is not stepped up in a frame, nor by a prefetch', async () => {
    await user.logIn();
    clock.pass(61);
    const framed = await user.get('/staff', fetched('navigate', 'iframe'));
    expect([framed.status, code(framed), framed.location]).toEqual([401, 'ERR_STEP_UP_REQUIRED', '']);
    expect(framed.text).not.toContain('test0001');
    expect((await user.get('/staff', { 'sec-purpose': 'prefetch' })).status).toBe(503);
    expect((await user.get('/staff', fetched('navigate', 'document'))).status).toBe(303);
  });

  it('is not needed by frames, parts and prefetches of a page whose user is logged in', async () => {
    await user.logIn();
    for (const sent of [...frames, ...parts, ...prefetches])
      expect((await user.get('/private', sent)).status).toBe(200);
  });

  it('keeps its other failure pages out of frames', async () => {
    await user.logIn('/private');
    user.plant('webauth-session', 'x');
    const answer = await user.get('/webauth/logout', fetched('navigate', 'iframe'));
    expect(answer.headers.get('x-frame-options')).toBe('DENY');
    const post = await user.post('/webauth/logout', {
      origin: 'https://evil.cam.ac.uk',
      ...fetched('navigate', 'iframe'),
    });
    expect([post.status, post.headers.get('x-frame-options')]).toEqual([403, 'DENY']);
  });
});

describe('purposeOf()', () => {
  const purpose = (headers: Sent) => purposeOf({ headers } as never);

  it('names the kind of request that a browser describes', () => {
    expect(windows.map(([, sent]) => purpose(sent))).toEqual(Array(windows.length).fill('window'));
    expect(frames.map(purpose)).toEqual(Array(frames.length).fill('frame'));
    expect(parts.map(purpose)).toEqual(Array(parts.length).fill('part'));
    expect(prefetches.map(purpose)).toEqual(Array(prefetches.length).fill('prefetch'));
  });
});
