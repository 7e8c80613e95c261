import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AuthResponse, parseResponse, responseFromQuery } from '../src/response.js';
import { createWLS } from '../src/wls/index.js';

/** As much of the strategy as makes a request. */
interface RavenStrategy {
  redirect(location: string): void;
  authenticate(request: { readonly query: object; readonly url: string }): void;
}

// It has no types.
const Strategy: new (options: object, verify: () => void) => RavenStrategy = createRequire(import.meta.url)(
  'passport-raven',
);

// The requests of agents that were made for Raven: written here after their sources, or made by the agent itself.
const { privateKey: key } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const wls = createWLS({ key });
const strict = createWLS({ key, strict: true });
beforeAll(() => Promise.all([wls.listen(0), strict.listen(0)]));
afterAll(() => Promise.all([wls.close(), strict.close()]));

const home = 'http://app.localhost:8080/private/page?a=1&b=%20';
const encoded = encodeURIComponent(home);
const date = '20260301T120000Z';

interface Request {
  readonly agent: string;
  readonly query: string;
  /** Fields of the response to a login. */
  readonly answer: Partial<AuthResponse>;
  /** Text on the page that offers the accounts. */
  readonly shown?: string;
  /** Deviation from the protocol that the page names; none by default. */
  readonly deviation?: string;
}

const requests: readonly Request[] = [
  {
    agent: 'passport-raven, without options',
    query: passportRaven({}),
    answer: { ver: 3, url: 'http://app.localhost:8080/login' },
  },
  {
    agent: 'passport-raven, with all options',
    query: passportRaven({ desc: 'Room booking & keys', msg: 'Please log in', iact: true }),
    answer: { ver: 3, url: 'http://app.localhost:8080/login', auth: 'pwd' },
    shown: 'Room booking &#38; keys',
  },
  {
    agent: 'mod_ucam_webauth of today, with AADescription and AATimeoutMsg in UTF-8',
    query: `ver=3&url=${encoded}&date=${date}&desc=Caf%C3%A9%20%E2%80%93%20menu&msg=${encodeURIComponent('à bientôt')}&iact=yes`,
    answer: { ver: 3, url: home },
    shown: 'Café – menu',
    deviation: 'desc is not printable ASCII',
  },
  {
    agent: 'mod_ucam_webauth of today, with AADescription in Latin-1',
    query: `ver=3&url=${encoded}&date=${date}&desc=Caf%e9%20menu`,
    answer: { ver: 3, url: home },
    shown: 'Café menu',
    deviation: 'desc is not printable ASCII',
  },
  {
    agent: 'mod_ucam_webauth of 2004, which sends skew and leaves the address as it is',
    query: `ver=1&url=http://app.localhost:8080/private/page?a=1&desc=A%20page&date=${date}&skew=45`,
    answer: { ver: 1, url: 'http://app.localhost:8080/private/page?a=1' },
    shown: 'A page',
  },
  {
    agent: 'django-ucamwebauth, without settings',
    query: new URLSearchParams([
      ['ver', '3'],
      ['url', home],
      ['desc', ''],
      ['iact', ''],
      ['msg', ''],
      ['params', 'next=%2Fprivate%2F'],
      ['fail', ''],
    ]).toString(),
    answer: { ver: 3, url: home, params: 'next=%2Fprivate%2F' },
  },
  {
    agent: 'pyroven, without settings',
    query: `ver=3&url=${encoded}&desc=&aauth=&iact=&msg=&params=&fail=`,
    answer: { ver: 3, url: home, params: '' },
  },
  {
    agent: 'ucam-webauth-php, which forgets the = of params',
    query: `ver=3&url=${encoded}&desc=A%20page&iact=&paramsnext%3D%2F&date=${date}&skew=5`,
    answer: { ver: 3, url: home, params: '' },
    deviation: 'no parameter of the name &#34;paramsnext=/&#34;',
  },
  {
    agent: 'the C# port of it, with + for spaces and small hexadecimal digits',
    query: `ver=2&url=${encoded.toLowerCase()}&desc=A+page%2c+and+%26lt%3bmore%26gt%3b&iact=yes&date=${date}&fail=yes`,
    answer: { ver: 2, url: home },
    shown: 'A page, and &#60;more&#62;',
  },
  {
    agent: 'python-ucam-webauth, in its own order',
    query: `params=%7B%22next%22%3A+%22%2F%22%7D&aauth=pwd&url=${encoded}&desc=R%26amp%3BD+%26%231590%3B&ver=3&iact=yes`,
    answer: { ver: 3, url: home, params: '{"next": "/"}' },
    shown: 'R&#38;D ض',
  },
  {
    agent: 'omniauth-ucam-raven, whose & in desc begins another parameter',
    query: `ver=3&url=http://app.localhost:8080/auth/ucamraven/callback&desc=R&D%20web&date=${date}`,
    answer: { ver: 3, url: 'http://app.localhost:8080/auth/ucamraven/callback' },
    deviation: 'no parameter of the name &#34;D web&#34;',
  },
  {
    agent: 'the Drupal module, with the name of the site',
    query: `ver=3&url=${encoded}&desc=${encodeURIComponent('St John’s Choir')}&params=/node/1`,
    answer: { ver: 3, url: home, params: '/node/1' },
    shown: 'St John’s Choir',
    deviation: 'desc is not printable ASCII',
  },
  {
    agent: 'a PHP agent with another form of date',
    query: `ver=3&date=20141003131322z&desc=Readme%20example%20site&url=${encoded}`,
    answer: { ver: 3, url: home },
    deviation: 'date is not of the form',
  },
  {
    agent: 'a page that puts location.href into a link',
    query: 'ver=3&url=http://app.localhost:8080/minutes?year=2020&term=1&desc=Students&msg=&iact=',
    answer: { ver: 3, url: 'http://app.localhost:8080/minutes?year=2020' },
    deviation: 'no parameter of the name &#34;term&#34;',
  },
  {
    agent: 'an agent that takes scheme and host as the browser sent them',
    query: `ver=3&url=${encodeURIComponent('HTTP://App.Localhost:8080/')}&fail=no&msg=one%0D%0Atwo`,
    answer: { ver: 3, url: 'HTTP://App.Localhost:8080/' },
    deviation: 'fail can only be yes',
  },
];

describe('createWLS(), asked by', () => {
  it.each(requests)('$agent: offers the accounts and logs in', async ({ query, answer, shown, deviation }) => {
    const address = `${wls.profile.authUrl}?${query}`;
    const page = await fetch(address);
    const text = await page.text();
    expect(page.status).toBe(200);
    if (shown) expect(text).toContain(`<bdi>${shown}</bdi>`);
    if (deviation) expect(text).toContain(deviation);
    else expect(text).not.toContain('deviates from the protocol');
    const { location, response } = await logIn(address);
    expect(response).toMatchObject({ status: 200, principal: 'test0001', ...answer });
    // Version 1 replaces the query of `url`; later versions keep it.
    const before = response.ver === 1 ? response.url.replace(/\?.*/, '') : response.url;
    const separator = before.includes('?') ? '&' : '?';
    expect(location.startsWith(`${before}${separator}WLS-Response=`)).toBe(true);
    expect(new URL(location).hostname).toBe('app.localhost');
  });

  it.each(requests)('$agent: rejects each deviation if it is strict', async ({ query, deviation }) => {
    const page = await fetch(`${strict.profile.authUrl}?${query}`, { redirect: 'manual' });
    const isEmptyOrObsolete = query.split('&').some((pair) => /^(?:aauth|iact|fail|date)=$|^skew=/.test(pair));
    expect(page.status === 303 ? statusOf(page) : page.status).toBe(isEmptyOrObsolete || deviation ? 530 : 200);
  });

  it('an agent whose mistake changes the answer: says 530 with the reason', async () => {
    const mistakes = [
      'iact=1',
      'iact=YES',
      'iact=true',
      'aauth=,',
      'aauth=pwd,',
      'fail=1',
      'params=%e9',
      `url=${encoded}`,
    ];
    for (const mistake of mistakes) {
      const page = await fetch(`${wls.profile.authUrl}?ver=3&url=${encoded}&${mistake}`, { redirect: 'manual' });
      const status = page.status === 303 ? statusOf(page) : page.status;
      expect([mistake, status]).toEqual([mistake, mistake.startsWith('url') ? 400 : 530]);
    }
  });

  it('an agent that sends anything at all: names a few deviations, escaped and each once', async () => {
    const strays = Array.from({ length: 50 }, (_, i) => `<b>${i % 40}=1`).map(encodeURI);
    const page = await fetch(`${wls.profile.authUrl}?ver=3&url=${encoded}&${strays.join('&')}&${'<i>'.repeat(999)}=`);
    const text = await page.text();
    expect(page.status).toBe(200);
    expect(text.match(/there is no parameter of the name/g)).toHaveLength(5);
    expect(text).not.toMatch(/<b>|<i>/);
  });
});

describe('createWLS().respond()', () => {
  it.each(requests)('answers $agent', ({ query, answer }) => {
    const response = parseResponse(wls.respond(`${wls.profile.authUrl}?${query}`));
    expect(response).toMatchObject({ status: 200, ...answer });
  });

  it('throws for a deviation if the service is strict', () => {
    const address = `${strict.profile.authUrl}?ver=3&url=${encoded}&iact=`;
    expect(() => strict.respond(address)).toThrow('iact is neither yes nor no');
    expect(parseResponse(wls.respond(address)).status).toBe(200);
  });
});

describe('createWLS().profile', () => {
  it('gives the key in the form of PKCS#1, which other agents read', () => {
    const [kid = ''] = wls.profile.keys.kids;
    const pem = wls.profile.keys.get(kid)?.key.export({ type: 'pkcs1', format: 'pem' }) as string;
    expect(pem).toMatch(/^-----BEGIN RSA PUBLIC KEY-----\n/);
    expect(createPublicKey(pem).equals(createPublicKey(key))).toBe(true);
  });
});

/** The query that the agent itself makes. */
function passportRaven(options: object): string {
  const strategy = new Strategy({ audience: 'http://app.localhost:8080', ...options }, () => {});
  let address = '';
  strategy.redirect = (location: string) => {
    address = location;
  };
  strategy.authenticate({ query: {}, url: '/login' });
  return address.slice(address.indexOf('?') + 1);
}

async function logIn(address: string): Promise<{ readonly location: string; readonly response: AuthResponse }> {
  const answer = await fetch(address, {
    method: 'POST',
    body: new URLSearchParams({ account: 'test0001' }),
    headers: { Origin: new URL(address).origin },
    redirect: 'manual',
  });
  expect(answer.status).toBe(303);
  const location = answer.headers.get('location') as string;
  return { location, response: responseIn(location) };
}

function responseIn(location: string): AuthResponse {
  return parseResponse(responseFromQuery(location.slice(location.indexOf('?') + 1)));
}

function statusOf(redirect: Response): number {
  return responseIn(redirect.headers.get('location') as string).status;
}
