import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeBase64,
  decodeField,
  decodeForm,
  encodeBase64,
  encodeField,
  formatDate,
  isEscaped,
  isList,
  parseDate,
  parseList,
  queryPairs,
} from '../src/codec.js';
import { ResponseError } from '../src/errors.js';
import { anyText, hostileText } from './arbitraries.js';
import { expectRefused, seededBytes } from './helpers.js';

function expectMalformed(call: () => unknown): void {
  expectRefused(call, ResponseError, 'ERR_RESPONSE_MALFORMED');
}

describe('dates', () => {
  it('[M1] is YYYYMMDDTHHMMSSZ in UTC', () => {
    expect(parseDate('20130704T122413Z')).toEqual(new Date('2013-07-04T12:24:13Z'));
    expect(formatDate(new Date('2013-07-04T13:24:13.999+01:00'))).toBe('20130704T122413Z');
    expect(parseDate('00000101T000000Z')?.getUTCFullYear()).toBe(0);
    expect(parseDate('99991231T235959Z')).toEqual(new Date('9999-12-31T23:59:59Z'));
  });

  it('[M1] has exactly that form', () => {
    const wrong = [
      '',
      '20130704t122413Z',
      '20130704T122413z',
      '20130704T122413',
      '20130704 122413Z',
      '2013-07-04T12:24:13Z',
      '20130704T122413+0000',
      '20130704T122413.5Z',
      '20130704T1224Z',
      '020130704T122413Z',
      '-0130704T122413Z',
      ' 20130704T122413Z',
      '20130704T122413Z ',
      '20130704T122413Z\n',
      '２０１３０７０４T122413Z',
      '2013070\u06f4T122413Z',
      'now',
    ];
    for (const text of wrong) expect(parseDate(text), text).toBeUndefined();
  });

  it('[M2] is a real instant', () => {
    const wrong = [
      '20130230T000000Z',
      '20130229T000000Z',
      '21000229T000000Z',
      '20130431T000000Z',
      '20130100T000000Z',
      '20130132T000000Z',
      '20130001T000000Z',
      '20131301T000000Z',
      '20130701T250000Z',
      '20130701T240000Z',
      '20130701T006000Z',
      '20161231T235960Z',
      '20130701T000099Z',
    ];
    for (const text of wrong) expect(parseDate(text), text).toBeUndefined();
    expect(parseDate('20120229T000000Z')).toEqual(new Date('2012-02-29T00:00:00Z'));
    expect(parseDate('20000229T235959Z')).toEqual(new Date('2000-02-29T23:59:59Z'));
  });

  it('[M1, M2] is read and written without change, whatever the instant', () => {
    const seconds = fc.integer({ min: -62_167_219_200, max: 253_402_300_799 });
    fc.assert(
      fc.property(seconds, (second) => {
        const date = new Date(second * 1000);
        expect(formatDate(date)).toHaveLength(16);
        expect(parseDate(formatDate(date))).toEqual(date);
      }),
    );
    const digits = fc.stringMatching(/^\d{8}T\d{6}Z$/);
    fc.assert(
      fc.property(digits, (text) => {
        const date = parseDate(text);
        if (date) expect(formatDate(date)).toBe(text);
      }),
    );
  });

  it('[M1] cannot be written of an instant that has none', () => {
    expect(() => formatDate(new Date(Number.NaN))).toThrow(TypeError);
    expect(() => formatDate(new Date(253_402_300_800_000))).toThrow(TypeError);
    expect(() => formatDate(new Date(-62_167_219_200_001))).toThrow(TypeError);
  });
});

describe('fields', () => {
  it('[M3] writes % as %25 and ! as %21, and nothing else', () => {
    expect(encodeField('50% of !')).toBe('50%25 of %21');
    expect(encodeField('%21')).toBe('%2521');
    expect(encodeField('a&b=c+d é😀\n')).toBe('a&b=c+d é😀\n');
    expect(decodeField('50%25 of %21')).toBe('50% of !');
  });

  it('[M3, M6] reads escapes in one pass', () => {
    expect(decodeField('%2521')).toBe('%21');
    expect(decodeField('%252521')).toBe('%2521');
    expect(decodeField('%2525')).toBe('%25');
    expect(decodeField('%2121')).toBe('!21');
  });

  it('[M3] comes back as it went', () => {
    fc.assert(
      fc.property(hostileText, (text) => {
        expect(encodeField(text)).not.toMatch(/!|%(?!2[15])/);
        expect(decodeField(encodeField(text))).toBe(text);
      }),
    );
  });

  it.each(['%', '%2', '%20', '%2g', '%41', '%2E', '%u0021', '100%', '%%21', '%2%35', '%\u0032\uff11', '%\n21'])(
    '[M4] refuses %j',
    (text) => {
      expectMalformed(() => decodeField(text));
      expectMalformed(() => decodeField(`a%25b${text}`));
    },
  );

  it('[M4] are told from other texts without being read', () => {
    const text = fc.oneof(anyText, fc.stringMatching(/^(?:%|%2|%21|%25|a|!){0,12}$/));
    fc.assert(
      fc.property(text, (text) => {
        expect(isEscaped(text)).toBe(!/%(?!2[15])/.test(text));
      }),
    );
    // However long: no repetition is tried in more ways than one.
    for (const part of ['%25', '%', '%25a', 'a']) {
      expect(isEscaped(part.repeat(100_000))).toBe(part !== '%');
      expect(isEscaped(`${part.repeat(100_000)}%2`)).toBe(false);
    }
  });

  it('[M3, M4] reads only what it would write', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const escaped = text.replaceAll('!', '');
        let read: string;
        try {
          read = decodeField(escaped);
        } catch (error) {
          expect((error as object).constructor).toBe(ResponseError);
          return;
        }
        expect(encodeField(read)).toBe(escaped);
      }),
    );
  });
});

describe('base64', () => {
  it('[M7] writes - . _ for + / =', () => {
    expect(encodeBase64(Buffer.from('fbff', 'hex'))).toBe('-.8_');
    expect(encodeBase64(Buffer.from('fb', 'hex'))).toBe('-w__');
    expect(decodeBase64('-.8_')).toEqual(Buffer.from('fbff', 'hex'));
    expect(encodeBase64(Buffer.alloc(0))).toBe('');
  });

  it('[M7] writes the bytes of a view, and no others', () => {
    const bytes = new Uint8Array([1, 2, 3, 4, 5, 6]).subarray(2, 4);
    expect(encodeBase64(bytes)).toBe('AwQ_');
  });

  it('[M8, X7] accepts one spelling only', () => {
    const good = '-.8_'; // fb ff
    const wrong = [
      '+/8=', // the usual alphabet
      '-.8=',
      '+.8_',
      '-/8_',
      '-_8', // base64url
      '-.8', // no padding
      '-.8__', // too much of it
      '-.8_-.8_', // in the middle
      '-.9_', // unused bits
      '-.._',
      '-x__', // unused bits, of four
      '_', // padding alone
      '____',
      '-', // half a byte
      'AAAAA',
      ' -.8_',
      '-.8_ ',
      '-.8_\n',
      '-.\n8_',
      '-.8_\0',
      '-\u002e8\uff3f',
      '-.8_é',
      '%2D.8_',
    ];
    expect(decodeBase64(good)).toBeDefined();
    for (const text of wrong) expect(decodeBase64(text), JSON.stringify(text)).toBeUndefined();
  });

  it('[M8] refuses every other last character before the padding', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.';
    const accepted = (tail: string) => [...alphabet].filter((char) => decodeBase64(`A${char}${tail}`)).length;
    expect(accepted('__')).toBe(4);
    expect([...alphabet].filter((char) => decodeBase64(`AA${char}_`)).length).toBe(16);
    expect([...alphabet].filter((char) => decodeBase64(`AAA${char}`)).length).toBe(64);
  });

  it('[M7, M8] comes back as it went, at every length', () => {
    for (let length = 0; length < 300; length++) {
      const bytes = seededBytes(`base64 ${length}`, length);
      expect(encodeBase64(bytes)).toMatch(/^[A-Za-z0-9.-]*_{0,2}$/);
      expect(decodeBase64(encodeBase64(bytes))).toEqual(bytes);
    }
    fc.assert(
      fc.property(fc.oneof(anyText, fc.stringMatching(/^[A-Za-z0-9._-]{0,12}$/)), (text) => {
        const bytes = decodeBase64(text);
        if (bytes) expect(encodeBase64(bytes)).toBe(text);
      }),
    );
  });
});

describe('lists', () => {
  it('[M9] are separated by commas, and empty where there is no text', () => {
    expect(parseList('')).toEqual([]);
    expect(parseList('pwd')).toEqual(['pwd']);
    expect(parseList('pwd,x-a')).toEqual(['pwd', 'x-a']);
    expect(parseList('pwd, x-a')).toEqual(['pwd', ' x-a']);
  });

  it.each([',', 'pwd,', ',pwd', 'pwd,,x-a', ',,'])('[M9] have no empty item, as in %j', (text) => {
    expect(parseList(text)).toBeUndefined();
    expect(isList(text)).toBe(false);
  });

  it('[M9] are told from other texts without being read', () => {
    const text = fc.oneof(anyText, fc.stringMatching(/^[a,]{0,12}$/));
    fc.assert(
      fc.property(text, (text) => {
        expect(isList(text)).toBe(!text.split(',').includes('') || text === '');
      }),
    );
  });
});

describe('the query', () => {
  it('[M10] has + for a space, and escapes of UTF-8', () => {
    expect(decodeForm('a+b%20c%2Bd')).toBe('a b c+d');
    expect(decodeForm('%c3%A9%F0%9F%98%80%00')).toBe('é😀\0');
    expect(decodeForm("!'()*~-._;/?:@$,[]")).toBe("!'()*~-._;/?:@$,[]");
    expect(decodeForm('')).toBe('');
  });

  it.each(['%', '%2', '%zz', 'a%', '%u00e9', '%-1', '% 21', '100%'])('[M10, X10] refuses the escape in %j', (raw) => {
    expectMalformed(() => decodeForm(raw));
  });

  it.each([
    ['a byte alone', '%ff'],
    ['a continuation alone', '%80'],
    ['a sequence cut short', '%c3'],
    ['a sequence broken off', '%c3!'],
    ['an overlong form', '%c0%af'],
    ['an overlong form of three bytes', '%e0%80%af'],
    ['an overlong zero', '%c0%80'],
    ['half of a surrogate pair', '%ed%a0%80'],
    ['a surrogate pair of three bytes each', '%ed%a0%bd%ed%b8%80'],
    ['what lies beyond Unicode', '%f4%90%80%80'],
    ['Latin-1', 'caf%e9'],
  ])('[M10, X10] refuses %s', (_, raw) => {
    expectMalformed(() => decodeForm(raw));
  });

  it.each([' ', '\n', '\0', '\x7f', 'é', 'Ã©', '😀', '\ud83d', '\ufeff', '\u2028'])(
    '[M10] refuses %j unescaped',
    (raw) => {
      expectMalformed(() => decodeForm(raw));
      expectMalformed(() => decodeForm(`a${raw}b`));
    },
  );

  it('[M10] comes back as it went', () => {
    fc.assert(
      fc.property(hostileText, (text) => {
        expect(decodeForm(encodeURIComponent(text))).toBe(text);
        expect(decodeForm(new URLSearchParams([['', text]]).toString().slice(1))).toBe(text);
      }),
    );
  });

  it('[M11] is split at &, and at the first = of each pair', () => {
    expect(queryPairs('a=1&b=2=3&c&=d&&e=')).toEqual([
      ['a', '1'],
      ['b', '2=3'],
      ['c', ''],
      ['', 'd'],
      ['e', ''],
    ]);
    expect(queryPairs('')).toEqual([]);
    expect(queryPairs('&&')).toEqual([]);
  });

  it('[M11] is not split at ;', () => {
    expect(queryPairs('a=1;b=2')).toEqual([['a', '1;b=2']]);
  });

  it('[M11] is not decoded before it is split', () => {
    expect(queryPairs('a%3d1%26b=2')).toEqual([['a%3d1%26b', '2']]);
  });
});
