import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AuthRequest, formatRequest, parseRequest, RequestRefused } from '../src/request.js';
import { anyRequest, anyText, hostileText, mutationsOf } from './arbitraries.js';
import { thrownBy } from './helpers.js';

const wls = 'https://wls.example.org/authenticate';
const url = 'https://app.example.org/webauth/callback';

/** The query of the address that the request is sent to. */
function write(request: Partial<AuthRequest>): string {
  const address = formatRequest(wls, { url, ...request });
  expect(address.startsWith(`${wls}?`)).toBe(true);
  return address.slice(wls.length + 1);
}

/** What a parser that is not ours finds in the query. */
function read(request: Partial<AuthRequest>): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(write(request)));
}

function expectTypeError(request: object): void {
  const error = thrownBy(() => formatRequest(wls, { url, ...request } as unknown as AuthRequest));
  expect((error as object).constructor).toBe(TypeError);
}

function expectStatus(status: 520 | 530, query: string): void {
  const error = thrownBy(() => parseRequest(query)) as RequestRefused;
  expect({ kind: (error as object).constructor, status: error.status }).toEqual({ kind: RequestRefused, status });
}

const least = `ver=3&url=${encodeURIComponent(url)}`;

describe('a request that is written', () => {
  it('[Q1] has all that was given, in the words of the wire', () => {
    const request: AuthRequest = {
      url,
      ver: 2,
      desc: 'Tea & biscuits',
      aauth: ['pwd', 'x-card'],
      iact: true,
      msg: 'to see the list',
      params: 'a b',
      date: new Date('2026-03-01T12:00:00Z'),
      fail: true,
    };
    expect(read(request)).toEqual({
      ver: '2',
      url,
      desc: 'Tea &amp; biscuits',
      aauth: 'pwd,x-card',
      iact: 'yes',
      msg: 'to see the list',
      params: 'a b',
      date: '20260301T120000Z',
      fail: 'yes',
    });
  });

  it('[Q1] is the service’s address and a query', () => {
    expect(formatRequest(wls, { url: 'https://a.example/' })).toBe(`${wls}?ver=3&url=https%3A%2F%2Fa.example%2F`);
    expect(formatRequest(`${wls}?x=1`, { url: 'https://a.example/' })).toBe(
      `${wls}?x=1&ver=3&url=https%3A%2F%2Fa.example%2F`,
    );
  });

  it('[Q1, Q12] has nothing that was not asked for', () => {
    expect(read({})).toEqual({ ver: '3', url });
    for (const stray of [{ skew: 0 }, { wobble: 'x' }]) expectTypeError(stray as object);
  });

  it('[Q2] is of version 3, unless another is asked for', () => {
    expect(read({})['ver']).toBe('3');
    for (const ver of [1, 2, 3] as const) expect(read({ ver })['ver']).toBe(`${ver}`);
    for (const ver of [0, 4, 1.5, Number.NaN, '3', null]) expectTypeError({ ver });
  });

  it.each([
    undefined,
    null,
    '',
    '/webauth/callback',
    'app.example.org',
    '//app.example.org/',
    'ftp://app.example.org/',
    'javascript:alert(1)',
    'https:app.example.org',
    'https://',
    'https://app.example.org/#part',
    'https://app.example.org/a b',
    'https://app.example.org/\n',
    'https://app.example.org/é',
    'https://app.example.org:99999/',
    ' https://app.example.org/',
  ])('[Q3] has an absolute http(s) url, not %j', (wrong) => {
    expectTypeError({ url: wrong });
  });

  it('[Q3] keeps every character of its url', () => {
    const awkward = "https://app.example.org/a%20b;c?x=1&y=%26+!'()*%21&blank";
    expect(read({ url: awkward })['url']).toBe(awkward);
    expect(parseRequest(write({ url: awkward })).url).toBe(awkward);
    expect(read({ url: 'http://localhost:3000/' })['url']).toBe('http://localhost:3000/');
  });

  it('[Q5] encodes text: & as &amp;, what is not ASCII as a decimal reference, and leaves < and >', () => {
    expect(read({ desc: 'A & B <i> ض é 😀 &#1590;' })['desc']).toBe(
      'A &amp; B <i> &#1590; &#233; &#128512; &amp;#1590;',
    );
    expect(read({ msg: '"100%" \'!\' + ~' })['msg']).toBe('"100%" \'!\' + ~');
  });

  it('[Q4, Q5] puts nothing but printable ASCII on the wire', () => {
    const text = hostileText.map((value) => value.replaceAll(/\p{Cc}/gu, ''));
    fc.assert(
      fc.property(text, (desc) => {
        const wire = read({ desc })['desc'] as string;
        expect(wire).toMatch(/^[\x20-\x7e]*$/);
        const plain = wire
          .replaceAll(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)))
          .replaceAll('&amp;', '&');
        // A reference of the caller's own comes out as text, not as the character.
        expect(plain).toBe(desc);
      }),
    );
  });

  it.each(['\0', '\n', '\t', '\x1f', '\x7f', '\u0080', '\u009f', '\ud83d', '\ude00'])(
    '[Q6] has no control character, such as %j, in its text',
    (char) => {
      for (const name of ['desc', 'msg']) expectTypeError({ [name]: `a${char}b` });
    },
  );

  it('[Q6] takes text that is encoded as it is, and checks it', () => {
    expect(read({ desc: { encoded: 'A &amp; B &#1590; &' } })['desc']).toBe('A &amp; B &#1590; &');
    for (const encoded of ['ض', 'a\nb', '\x7f', 'é']) {
      expectTypeError({ desc: { encoded } });
      expectTypeError({ msg: { encoded } });
    }
  });

  it('[Q7] lists the types that will do, and never none', () => {
    expect(read({ aauth: ['pwd'] })['aauth']).toBe('pwd');
    for (const aauth of [[], [''], ['pwd', ''], ['pwd,x-a'], ['a b'], ['é'], ['a\n'], 'pwd'])
      expectTypeError({ aauth });
  });

  it('[Q8] says yes, no or nothing of iact', () => {
    expect(read({ iact: true })['iact']).toBe('yes');
    expect(read({ iact: false })['iact']).toBe('no');
    expect(write({})).not.toContain('iact');
  });

  it('[Q9, M12] carries any text in params, if it is Unicode', () => {
    const params = '{"a":"é%21!%2521+ &=\0\u{10ffff}"}';
    expect(read({ params })['params']).toBe(params);
    expect(read({ params: '' })['params']).toBe('');
    expectTypeError({ params: '\ud83d' });
  });

  it('[Q10, M1] writes the date, and refuses what is none', () => {
    expect(read({ date: new Date(0) })['date']).toBe('19700101T000000Z');
    expectTypeError({ date: new Date(Number.NaN) });
    expectTypeError({ date: new Date('+010000-01-01T00:00:00Z') });
  });

  it('[Q11] says yes to fail, or nothing', () => {
    expect(read({ fail: true })['fail']).toBe('yes');
    expect(write({ fail: false })).not.toContain('fail');
  });

  it.each([
    'http://wls.example.org/authenticate',
    'http://localhost.example.org/',
    'http://127.0.0.1.example.org/',
    'http://10.0.0.1/',
    'http://[::2]/',
    'ftp://localhost/',
    'wls.example.org',
    '/authenticate',
    '',
  ])('[Q13] is not sent to %j', (address) => {
    expect(thrownBy(() => formatRequest(address, { url }))).toBeInstanceOf(TypeError);
  });

  it.each([
    'https://wls.example.org/',
    'http://localhost:8080/auth',
    'http://wls.localhost/',
    'http://127.0.0.1/',
    'http://127.9.9.9/',
    'http://[::1]:80/',
  ])('[Q13] is sent to %j', (address) => {
    expect(formatRequest(address, { url })).toBe(`${address}?${least}`);
  });
});

describe('a request that is read', () => {
  it('[Q1, Q10, Q11] gives what is there', () => {
    expect(parseRequest(least)).toStrictEqual({ ver: 3, url });
    const query = `${least}&desc=A+%26amp%3B+B&aauth=pwd,x-a&iact=no&msg=&params=a%2Bb&date=20260301T120000Z&fail=yes`;
    expect(parseRequest(query)).toStrictEqual({
      ver: 3,
      url,
      desc: { encoded: 'A &amp; B' },
      aauth: ['pwd', 'x-a'],
      iact: false,
      msg: { encoded: '' },
      params: 'a+b',
      date: new Date('2026-03-01T12:00:00Z'),
      fail: true,
    });
  });

  it('[Q1] has each parameter once at most, however it is written', () => {
    for (const pair of ['ver=3', 'ver=1', '%76er=3', `url=${url}`, 'params=']) {
      expectStatus(530, `${least}&params=x&${pair}`);
    }
  });

  it.each(['skew=0', 'x=1', 'Ver=3', '__proto__=1', 'constructor=1', 'toString', 'desc[]=a', '=', '=x', 'ver%00=3'])(
    '[Q1, Q12] has no other parameter, such as %j',
    (pair) => {
      expectStatus(530, `${least}&${pair}`);
    },
  );

  it('[M11] has & between its pairs, and not ;', () => {
    expectStatus(520, least.replace('&', ';'));
    expect(parseRequest(`${least}&params=a;iact=yes`)).toStrictEqual({ ver: 3, url, params: 'a;iact=yes' });
  });

  it('[Q2] has a version, which is 1, 2 or 3', () => {
    expectStatus(530, `url=${encodeURIComponent(url)}`);
    for (const ver of ['', '0', '4', '03', '3.0', '3+', '3%0a', '%EF%BC%93', '+3', 'three', '12']) {
      expectStatus(520, `ver=${ver}&url=${encodeURIComponent(url)}`);
    }
    for (const ver of [1, 2, 3]) {
      expect(parseRequest(`ver=${ver}&url=${encodeURIComponent(url)}`)).toStrictEqual({ ver, url });
    }
  });

  it('[Q3] has a url, absolute and without a fragment', () => {
    expectStatus(530, 'ver=3');
    for (const wrong of ['', '/x', '//a.example/', 'ftp://a.example/', 'javascript:alert(1)', 'https://a.example/#x']) {
      expectStatus(530, `ver=3&url=${encodeURIComponent(wrong)}`);
    }
    for (const wrong of ['https://a.example/é', 'https://a.example/ b', 'https://a.example/\r\nX: y', 'https://']) {
      expectStatus(530, `ver=3&url=${encodeURIComponent(wrong)}`);
    }
  });

  it('[Q4] has printable ASCII in desc and msg', () => {
    for (const name of ['desc', 'msg']) {
      for (const value of ['%C3%A9', '%0A', '%00', '%7F', '%E2%80%AE']) expectStatus(530, `${least}&${name}=${value}`);
      expect(parseRequest(`${least}&${name}=<b>%20~`)).toStrictEqual({ ver: 3, url, [name]: { encoded: '<b> ~' } });
    }
  });

  it('[Q7, M9] has a list in aauth that is not empty', () => {
    for (const value of ['', ',', 'pwd,', ',pwd', 'pwd,,x', 'a+b', '%C3%A9', 'a%0A']) {
      expectStatus(530, `${least}&aauth=${value}`);
    }
    expect(parseRequest(`${least}&aauth=x-a%2Cpwd`)).toStrictEqual({ ver: 3, url, aauth: ['x-a', 'pwd'] });
  });

  it('[Q8] has yes or no in iact', () => {
    for (const value of ['', 'Yes', 'YES', 'true', '1', 'maybe', 'yes+']) expectStatus(530, `${least}&iact=${value}`);
    expect(parseRequest(`${least}&iact=yes`).iact).toBe(true);
    expect(parseRequest(`${least}&iact=no`).iact).toBe(false);
    expect(parseRequest(least)).not.toHaveProperty('iact');
  });

  it('[Q10, M2] has a date that is one', () => {
    for (const value of ['', '20260230T000000Z', '2026-03-01T12:00:00Z', 'now', '20260301T120000z']) {
      expectStatus(530, `${least}&date=${value}`);
    }
  });

  it('[Q11] has yes in fail', () => {
    for (const value of ['', 'no', 'Yes', 'true']) expectStatus(530, `${least}&fail=${value}`);
  });

  it('[M10] has no broken escapes', () => {
    for (const value of ['%', '%zz', '%ff', '%c0%af', '%ed%a0%80', 'é', ' ']) {
      expectStatus(530, `${least}&params=${value}`);
      expectStatus(530, `${least}&${value}=1`);
    }
  });

  it('[Q1] shows no more than a line of a strange name', () => {
    const error = thrownBy(() => parseRequest(`${least}&${'<x>%0A'.repeat(2000)}=1`)) as RequestRefused;
    expect(error.message.length).toBeLessThan(200);
    expect(error.message).not.toContain('\n');
  });
});

describe('requests, whatever they hold', () => {
  it('[Q1, Q9] come back as they went', () => {
    fc.assert(
      fc.property(anyRequest, (request) => {
        const query = write(request);
        expect(query).toMatch(/^[\x21-\x7e]*$/);
        expect(parseRequest(query)).toStrictEqual(request);
        expect(write(parseRequest(query))).toBe(query);
      }),
    );
  });

  it('[Q2] are read, or refused with a status, and nothing else', () => {
    const query = fc.oneof(
      anyText,
      mutationsOf(anyRequest.map(write)),
      anyText.map((text) => `${least}&${text}`),
    );
    let good = 0;
    fc.assert(
      fc.property(query, (raw) => {
        try {
          write(parseRequest(raw));
          good += 1;
        } catch (error) {
          expect((error as object).constructor).toBe(RequestRefused);
        }
      }),
      { numRuns: 3000 },
    );
    // The mutations are not all hopeless.
    expect(good).toBeGreaterThan(100);
  });
});
