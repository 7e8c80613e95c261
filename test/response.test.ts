import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeBase64 } from '../src/codec.js';
import { ResponseError } from '../src/errors.js';
import {
  type AuthResponse,
  type FailureStatus,
  failures,
  formatResponse,
  formatSigned,
  MAX_RESPONSE,
  parseResponse,
  responseFromQuery,
  responseUrl,
  signedPart,
  type Version,
} from '../src/response.js';
import { anyResponse, anyText, mutationsOf } from './arbitraries.js';
import { expectRefused, makeFailure, makeResponse, sign, thrownBy, unsigned } from './helpers.js';

const versions = [1, 2, 3] as const;
const statuses = Object.keys(failures).map(Number) as FailureStatus[];

const order = {
  3: 'ver status msg issue id url principal ptags auth sso life params kid sig'.split(' '),
  2: 'ver status msg issue id url principal auth sso life params kid sig'.split(' '),
  1: 'ver status msg issue id url principal auth sso life params kid sig'.split(' '),
};

/** A good response as it travels, with some of its fields replaced by exactly that text. */
function wire(fields: Record<string, string> = {}, from: AuthResponse = makeResponse()): string {
  const names = order[from.ver];
  const values = sign(from).split('!');
  return names.map((name, index) => fields[name] ?? values[index]).join('!');
}

function expectMalformed(encoded: string): void {
  expectRefused(() => parseResponse(encoded), ResponseError, 'ERR_RESPONSE_MALFORMED');
}

describe('the fields of a response', () => {
  it('[R4, R16] are fourteen in version 3', () => {
    const encoded =
      '3!200!Hello!20130704T122413Z!1372940650-10196-2!https://a.example/x!test0001!current,x!pwd!x-a,x-b!35873!a%21b%25c!901!AQI_';
    const response: AuthResponse = {
      ver: 3,
      status: 200,
      msg: 'Hello',
      issue: new Date('2013-07-04T12:24:13Z'),
      id: '1372940650-10196-2',
      url: 'https://a.example/x',
      principal: 'test0001',
      ptags: ['current', 'x'],
      auth: 'pwd',
      sso: ['x-a', 'x-b'],
      life: 35873,
      params: 'a!b%c',
      kid: '901',
      sig: Buffer.from([1, 2]),
    };
    expect(parseResponse(encoded)).toStrictEqual(response);
    expect(formatResponse(response)).toBe(encoded);
  });

  it.each([1, 2] as const)('[R4] are thirteen in version %i, without ptags', (ver) => {
    const encoded = `${ver}!200!!20130704T122413Z!1-2!https://a.example/x!test0001!!pwd!60!p!901!AQI_`;
    const response = parseResponse(encoded);
    expect(response).toMatchObject({ ver, principal: 'test0001', ptags: [], auth: '', sso: ['pwd'], life: 60 });
    expect(formatResponse(response)).toBe(encoded);
  });

  it.each(versions)('[R4, X4] are no fewer and no more in version %i', (ver) => {
    const fields = sign(makeResponse({ ver })).split('!');
    for (let count = 1; count <= 30; count++) {
      if (count === fields.length) continue;
      const others = [...fields, ...Array(30).fill('')].slice(0, count);
      expectMalformed(others.join('!'));
    }
    for (let at = 0; at <= fields.length; at++) {
      // A field more, in any place, so that the last ones still look right.
      expectMalformed(
        [...fields.slice(0, at), fields[at] ?? '', ...fields.slice(at)].join('!').replace(/^!/, `${ver}!`),
      );
    }
  });

  it('[R4] of version 3 do not do under the name of an older one, nor the reverse', () => {
    expectMalformed(wire({ ver: '2' }));
    expectMalformed(wire({ ver: '1' }));
    expectMalformed(wire({ ver: '3' }, makeResponse({ ver: 2 })));
  });

  it.each(['', '0', '4', '03', '3.0', ' 3', '3 ', '3\n', '-3', '+3', '1e0', '３', '%33', '12', 'x', '__proto__'])(
    '[R5] have 1, 2 or 3 for ver, not %j',
    (ver) => {
      expectRefused(() => parseResponse(wire({ ver })), ResponseError, 'ERR_RESPONSE_VERSION');
    },
  );

  it.each(statuses)('[R6] can have the status %i', (status) => {
    const ver = status === 520 ? 1 : 3;
    expect(parseResponse(sign(makeFailure({ ver, status }))).status).toBe(status);
  });

  it.each(['', '0', '20', '2000', '0200', '201', '400', '411', '500', '550', '580', '999', '2e2', ' 200', '200 '])(
    '[R6] cannot have the status %j',
    (status) => {
      expectMalformed(wire({ status }));
      expectMalformed(wire({ status }, makeFailure()));
    },
  );

  it.each(['200\n', '+200', '0x1', '２００', 'toString', '__proto__', '%32', '410.0'])(
    '[R6] cannot have the status %j either',
    (status) => {
      expectMalformed(wire({ status }));
    },
  );

  it('[R7] may say something in msg, of any kind', () => {
    for (const msg of ['', 'It\'s "you"', '<script>alert(1)</script>', 'é😀\n\0', '!%!']) {
      expect(parseResponse(sign(makeResponse({ msg }))).msg).toBe(msg);
    }
  });

  it('[R8] have an issue, which is a date', () => {
    for (const issue of [
      '',
      '20130230T000000Z',
      '20130701T250000Z',
      '20130704t122413z',
      '1372940653',
      '20130704T122413Z ',
    ]) {
      expectMalformed(wire({ issue }));
      expectMalformed(wire({ issue }, makeFailure()));
    }
  });

  it('[R9] have an id', () => {
    expectMalformed(wire({ id: '' }));
    expectMalformed(wire({ id: '' }, makeFailure()));
    for (const id of ['1372940650-10196-2', 'bXk2lqNu7Cn1Tz0vYbF9oA+/', '0']) {
      expect(parseResponse(sign(makeResponse({ id }))).id).toBe(id);
    }
  });

  it('[R10] have a url', () => {
    expectMalformed(wire({ url: '' }));
    expectMalformed(wire({ url: '' }, makeFailure()));
    expect(parseResponse(wire({ url: 'https://a.example/?x=%2521%25' })).url).toBe('https://a.example/?x=%21%');
  });

  it.each(versions)('[R11] have a principal where somebody logged in, and none otherwise (version %i)', (ver) => {
    expectMalformed(wire({ principal: '' }, makeResponse({ ver })));
    for (const status of statuses) {
      if (status === 520 && ver !== 1) continue;
      expectMalformed(wire({ principal: 'test0001' }, makeFailure({ ver, status })));
    }
  });

  it('[R12, M9] have a list in ptags, which may be empty', () => {
    expect(parseResponse(wire({ ptags: '' })).ptags).toEqual([]);
    expect(parseResponse(wire({ ptags: 'current' })).ptags).toEqual(['current']);
    expect(parseResponse(wire({ ptags: 'x-unheard-of,current,!'.replace('!', '%21') })).ptags).toEqual([
      'x-unheard-of',
      'current',
      '!',
    ]);
    for (const ptags of [',', 'current,', ',current', 'a,,b']) expectMalformed(wire({ ptags }));
  });

  it.each(statuses)('[R12, R13, R14] have no ptags, auth or sso with status %i', (status) => {
    const failure = makeFailure({ status, ver: status === 520 ? 1 : 3 });
    parseResponse(wire({}, failure));
    if (failure.ver === 3) expectMalformed(wire({ ptags: 'current' }, failure));
    expectMalformed(wire({ auth: 'pwd' }, failure));
    expectMalformed(wire({ sso: 'pwd' }, failure));
  });

  it('[R13, R14] say in auth or in sso how the user authenticated, or in both', () => {
    expect(parseResponse(wire({ auth: 'pwd', sso: '' }))).toMatchObject({ auth: 'pwd', sso: [] });
    expect(parseResponse(wire({ auth: '', sso: 'pwd' }))).toMatchObject({ auth: '', sso: ['pwd'] });
    expect(parseResponse(wire({ auth: 'pwd', sso: 'x-a,x-b' }))).toMatchObject({ auth: 'pwd', sso: ['x-a', 'x-b'] });
    for (const ver of versions) expectMalformed(wire({ auth: '', sso: '' }, makeResponse({ ver })));
  });

  it('[R14, M9] have a list in sso', () => {
    for (const sso of [',', 'pwd,', ',pwd', 'a,,b']) {
      expectMalformed(wire({ sso }));
      expectMalformed(wire({ auth: '', sso }));
    }
  });

  it('[R15] have digits in life, or nothing', () => {
    expect(parseResponse(wire({ life: '' })).life).toBeUndefined();
    expect(parseResponse(wire({ life: '0' })).life).toBe(0);
    expect(parseResponse(wire({ life: '42298' })).life).toBe(42298);
    expect(parseResponse(wire({ life: '9'.repeat(15) })).life).toBe(999_999_999_999_999);
    expect(parseResponse(wire({ life: '300' }, makeFailure())).life).toBe(300);
    for (const life of ['-1', '+1', '1.5', '1e3', '0x10', ' 1', '1 ', '1\n', 'x', '１', 'Infinity', '9'.repeat(16)]) {
      expectMalformed(wire({ life }));
    }
  });

  it('[R16] have params as they went: JSON, base64, other alphabets', () => {
    for (const params of ['', '{"a":[1,"!"]}', 'SGVsbG8+/w==', 'Größe ض 😀', '%21%2521', 'a b+c\n\0', '%']) {
      expect(parseResponse(sign(makeResponse({ params }))).params).toBe(params);
    }
  });

  it.each([
    '0',
    '02',
    '-1',
    '+2',
    '2 ',
    ' 2',
    '2\n',
    '1.0',
    '123456789',
    '٢',
    '%32',
    'x',
    '__proto__',
    '../2',
    '2.pem',
  ])('[R17, K5] have a number for kid, not %j', (kid) => {
    expectMalformed(wire({ kid }));
    expectMalformed(wire({ kid, sig: '' }, makeFailure()));
  });

  it('[R17] have a kid where there is a signature', () => {
    expectMalformed(wire({ kid: '' }));
    expectMalformed(wire({ kid: '' }, makeFailure()));
    expect(parseResponse(wire({ kid: '99999999' })).kid).toBe('99999999');
    expect(parseResponse(unsigned(makeFailure()))).toMatchObject({ kid: '', sig: undefined });
    expect(parseResponse(wire({ sig: '' }, makeFailure()))).toMatchObject({ kid: '7', sig: undefined });
  });

  it('[R18, M8, X7] have canonical base64 for sig', () => {
    const { sig } = Object.fromEntries(order[3].map((name, index) => [name, wire().split('!')[index]])) as {
      sig: string;
    };
    expect(sig).toMatch(/_$/);
    const wrong = [
      sig.slice(0, -1),
      `${sig}_`,
      sig.replaceAll('_', '='),
      sig.replaceAll('-', '+').replaceAll('.', '/').replaceAll('_', '='),
      ` ${sig}`,
      `${sig}\n`,
      `${sig.slice(0, 8)} ${sig.slice(8)}`,
      sig.replaceAll('_', '%5F'),
      encodeURIComponent(sig.replaceAll('_', '=')),
      '_',
    ];
    for (const other of wrong) expectMalformed(wire({ sig: other }));
  });

  it('[R18] have no sig that is longer than any key', () => {
    const sig = (bytes: number) => encodeBase64(Buffer.alloc(bytes, 0xff));
    expect(parseResponse(wire({ sig: sig(2048) })).sig).toHaveLength(2048);
    expectMalformed(wire({ sig: sig(2050) }));
  });

  it('[R19] have version 1 where the status is 520', () => {
    expect(parseResponse(sign(makeFailure({ ver: 1, status: 520 }))).status).toBe(520);
    for (const ver of [2, 3] as const) expectMalformed(sign(makeFailure({ ver, status: 520 })));
  });

  it('[M4, M5] have no stray % anywhere', () => {
    for (const name of order[3].slice(1)) {
      for (const stray of ['%', '%20', '%2', '%41', '%2e']) expectMalformed(wire({ [name]: stray }));
    }
  });

  it('[M5] are not unescaped in kid and sig', () => {
    expectMalformed(wire({ kid: '%25' }));
    expectMalformed(wire({ sig: '%21' }));
    expectMalformed(wire({ sig: '%25' }));
  });

  it('[M6, X3] are split before they are unescaped', () => {
    const principal = 'a!b!c%21d';
    const response = parseResponse(sign(makeResponse({ principal })));
    expect(response.principal).toBe(principal);
    // The field says it, and it stays in the field.
    const params = '!!victim!current!pwd!!!!7!';
    expect(parseResponse(sign(makeResponse({ params })))).toMatchObject({ principal: 'test0001', params });
  });

  it('[M12] are well-formed Unicode', () => {
    for (const half of ['\ud83d', '\ude00', '\ude00\ud83d']) {
      expectMalformed(wire({ msg: half }));
      expectMalformed(wire({ params: half }));
    }
    expect(parseResponse(wire({ msg: '😀' })).msg).toBe('😀');
  });

  it('[M13] are not looked at beyond 8192 characters', () => {
    expect(MAX_RESPONSE).toBe(8192);
    const room = MAX_RESPONSE - wire({ params: '' }).length;
    expect(parseResponse(wire({ params: 'x'.repeat(room) })).params).toHaveLength(room);
    expectMalformed(wire({ params: 'x'.repeat(room + 1) }));
    expectMalformed('!'.repeat(10_000_000));
    expectMalformed(wire({ life: '1'.repeat(9000) }));
  });

  it('[R4] are in a string; anything else is the programmer’s mistake', () => {
    for (const wrong of [undefined, null, 3, {}, [wire()], Buffer.from(wire())]) {
      expect(thrownBy(() => parseResponse(wrong as string))).toBeInstanceOf(TypeError);
    }
  });
});

describe('what a signature covers', () => {
  it('[S1] is all before the last two fields, as it was received', () => {
    expect(signedPart('3!a%21b!c!kid!sig')).toBe('3!a%21b!c');
    expect(signedPart('3!a!!kid!')).toBe('3!a!');
    for (const ver of versions) {
      const response = makeResponse({ ver, msg: '!%21é', params: '%!' });
      expect(signedPart(sign(response))).toBe(formatSigned(response));
      expect(signedPart(unsigned(response))).toBe(formatSigned(response));
    }
  });
});

describe('responses, whatever they hold', () => {
  it('[M3, R4] come back as they went', () => {
    fc.assert(
      fc.property(anyResponse, (response) => {
        const encoded = formatResponse(response);
        fc.pre(encoded.length <= MAX_RESPONSE);
        expect(parseResponse(encoded)).toStrictEqual(response);
        expect(formatResponse(parseResponse(encoded))).toBe(encoded);
        expect(signedPart(encoded)).toBe(formatSigned(response));
      }),
      { numRuns: 2000 },
    );
  });

  it('[R1, M6] come back as they went through the browser, in every version', () => {
    fc.assert(
      fc.property(anyResponse, (response) => {
        const encoded = formatResponse(response);
        const address = new URL(responseUrl('https://app.example.org/cb?x=1', response.ver, encoded));
        fc.pre(address.search.length <= MAX_RESPONSE);
        expect(responseFromQuery(address.search.slice(1))).toBe(encoded);
      }),
      { numRuns: 1000 },
    );
  });

  it('[R4, M3] are read, and are written again to the byte, or are a ResponseError and nothing else', () => {
    const encoded = fc.oneof(anyText, mutationsOf(anyResponse.map(formatResponse)));
    let good = 0;
    fc.assert(
      fc.property(encoded, (text) => {
        let response: AuthResponse;
        try {
          response = parseResponse(text);
        } catch (error) {
          expect((error as object).constructor).toBe(ResponseError);
          return;
        }
        good += 1;
        // Leading zeros of life are the one thing that can be written in two ways.
        if (/!0\d/.test(text)) expect(parseResponse(formatResponse(response))).toStrictEqual(response);
        else expect(formatResponse(response)).toBe(text);
      }),
      { numRuns: 5000 },
    );
    expect(good).toBeGreaterThan(100);
  });
});

describe('the response in the query', () => {
  const take = responseFromQuery;
  const refuses = (query: string) =>
    expectRefused(() => responseFromQuery(query), ResponseError, 'ERR_RESPONSE_MALFORMED');

  it('[R1, R3] is the value of WLS-Response, wherever that stands', () => {
    expect(take('WLS-Response=a')).toBe('a');
    expect(take('x=1&WLS-Response=a')).toBe('a');
    expect(take('x&&WLS-Response=a&y=%zz')).toBe('a');
    expect(take('WLS-Response=a=b')).toBe('a=b');
    expect(take('wls-response=b&WLS-Responses=c&XWLS-Response=d&WLS-Response=a')).toBe('a');
  });

  it('[M6, M10] is decoded once', () => {
    expect(take('WLS-Response=3%21a+b%2Bc%2520%C3%A9%F0%9F%98%80')).toBe('3!a b+c%20é😀');
    expect(take('WLS-Response=3!200!a%252521')).toBe('3!200!a%2521');
    expect(take("WLS-Response=~'()*;/?:@,$")).toBe("~'()*;/?:@,$");
  });

  it.each([
    '',
    'x=1',
    'WLS-Response',
    'WLS-Response=',
    '&',
    'wls-response=a',
    'WLS_Response=a',
    'WLS-Response%=a',
    '?WLS-Response=a',
  ])('[R3] is missing in %j', (query) => {
    refuses(query);
  });

  it.each([
    'WLS-Response=a&WLS-Response=b',
    'WLS-Response=a&WLS-Response=a',
    'WLS-Response=a&WLS-Response=',
    'WLS-Response=&WLS-Response=a',
    'WLS-Response&WLS-Response=a',
    'WLS-Response=a&x=1&WLS-Response=b&WLS-Response=c',
    'WLS-Response=a&WLS-Response[]=b',
    'WLS-Response[0]=a&WLS-Response=b',
    'WLS-Response=a&WLS-Response[x]=b',
    'WLS-Response=a&WLS-Response%5B%5D=b',
    'WLS-Response=a&WLS%2dResponse=b',
    'WLS%2DResponse=a&WLS-Response=b',
    '%57LS-Response=a&WLS-Response=b',
    'WLS-Response=a&%57%4c%53%2d%52%65%73%70%6f%6e%73%65=b',
  ])('[R3, X9] is not taken where there are two: %j', (query) => {
    expectRefused(() => responseFromQuery(query), ResponseError, 'ERR_RESPONSE_DUPLICATED');
  });

  it.each([
    'WLS-Response[]=a',
    'WLS-Response[0]=a',
    'WLS-Response[',
    'WLS-Response%5B%5D=a',
    'WLS%2dResponse=a',
    '%57LS-Response=a',
  ])('[R3] is not taken from another spelling: %j', (query) => {
    refuses(query);
  });

  it.each(['%', 'a%', '%2', '%zz', '%u0041', '100%25%', '%-1'])(
    '[M10, X10] is refused with the broken escape in %j',
    (value) => {
      expect(refuses(`WLS-Response=${value}`).status).toBe(400);
    },
  );

  it.each(['%ff', '%c3', '%c0%af', '%ed%a0%80', '%f4%90%80%80', 'caf%E9'])(
    '[M10, X10] is refused with bytes that are not UTF-8: %j',
    (value) => {
      expect(refuses(`WLS-Response=${value}`).status).toBe(400);
    },
  );

  it.each(['é', 'Ã©', '😀', '\ud83d', ' ', '\0', '\n', '\x7f', '\u2028'])('[M10] is refused with a raw %j', (value) => {
    refuses(`WLS-Response=${value}`);
    refuses(`WLS-Response=a${value}b`);
  });

  it('[M11] does not end at ;', () => {
    expect(take('WLS-Response=a;WLS-Response=b')).toBe('a;WLS-Response=b');
    refuses('x=1;WLS-Response=a');
  });

  it('[M13] is refused beyond 8192 characters', () => {
    expect(take(`WLS-Response=${'a'.repeat(8192)}`)).toHaveLength(8192);
    refuses(`WLS-Response=${'a'.repeat(8193)}`);
    refuses(`WLS-Response=${'%41'.repeat(2731)}`);
    refuses(`WLS-Response=${'%'.repeat(1_000_000)}`);
  });

  it('[R3, X10] is found, or there is a ResponseError and nothing else', () => {
    const good = anyResponse.map((response) => `x=1&WLS-Response=${encodeURIComponent(formatResponse(response))}`);
    const query = fc.oneof(
      anyText,
      anyText.map((text) => `WLS-Response=${text}`),
      mutationsOf(good),
    );
    fc.assert(
      fc.property(query, (raw) => {
        try {
          expect(typeof responseFromQuery(raw)).toBe('string');
        } catch (error) {
          expect((error as object).constructor).toBe(ResponseError);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe('the address that a response arrives at', () => {
  const address = (url: string, ver: Version) => responseUrl(url, ver, '3!a b!%21');
  const pair = 'WLS-Response=3!a%20b!%2521';

  it('[R1] has WLS-Response after ?, or after & where there is a query', () => {
    for (const ver of [2, 3] as const) {
      expect(address('https://a.example/x', ver)).toBe(`https://a.example/x?${pair}`);
      expect(address('https://a.example/x?y=1&z', ver)).toBe(`https://a.example/x?y=1&z&${pair}`);
      expect(address('https://a.example/x?', ver)).toBe(`https://a.example/x?&${pair}`);
    }
    expect(address('https://a.example/x', 1)).toBe(`https://a.example/x?${pair}`);
  });

  it('[R2] loses the query that was there in version 1', () => {
    expect(address('https://a.example/x?y=1&z', 1)).toBe(`https://a.example/x?${pair}`);
    expect(address('https://a.example/x?y=?&z=?', 1)).toBe(`https://a.example/x?${pair}`);
  });
});
