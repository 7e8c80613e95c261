import type { IncomingMessage } from 'node:http';
import cookieParser from 'cookie-parser';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { SessionError } from '../src/errors.js';
import { isNavigation, readCookie, requestTarget } from '../src/http.js';

const parse = cookieParser();

/** What cookie-parser makes of a header, or of one pair of it. */
function parsed(cookie: string): Record<string, unknown> {
  const request = { headers: { cookie } } as { headers: object; cookies?: Record<string, unknown> };
  parse(request as never, {} as never, () => {});
  return request.cookies ?? {};
}

describe('readCookie', () => {
  const name = 'webauth-session';

  it('agrees with cookie-parser on which cookie is ours, and on how many there are', () => {
    const part = fc.constantFrom(
      name,
      name,
      '=',
      '=',
      ';',
      ';',
      ' ',
      '\t',
      '\u00a0',
      '\v',
      '"',
      'x',
      'j:',
      'j:{}',
      '%41',
      '%',
      '__proto__',
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
        const cookie = parts.join('');
        const ours = cookie.split(';').filter((pair) => Object.hasOwn(parsed(pair), name));
        const read = () => readCookie({ headers: { cookie } } as IncomingMessage, name);
        if (ours.length > 1) expect(read).toThrow(SessionError);
        else if (typeof (parsed(cookie)[name] ?? '') !== 'string') expect(read).toThrow(SessionError);
        else expect(read()).toBe(parsed(cookie)[name]);
      }),
      { numRuns: 20_000, seed: 3 },
    );
  });

  it('gives the parser nothing of others, whose cookies can be made to take it long', () => {
    const request = { headers: { cookie: `${'0=j:[;'.repeat(2500)} ${name}=a` } } as IncomingMessage;
    const parse = vi.spyOn(JSON, 'parse');
    expect(readCookie(request, name)).toBe('a');
    expect(parse).not.toHaveBeenCalled();
    parse.mockRestore();
  });

  it('leaves the request as it was', () => {
    const request = { headers: { cookie: `${name}=a` } } as IncomingMessage;
    expect(readCookie(request, name)).toBe('a');
    expect(request).toEqual({ headers: { cookie: `${name}=a` } });
  });
});

describe('requestTarget', () => {
  it.each([
    ['/a?b=c?d', '/a', 'b=c?d'],
    ['/a', '/a', ''],
    ['?', '', ''],
    ['http://x/a?b', 'http://x/a', 'b'],
  ])('splits %j at the first question mark, and decodes nothing', (url, path, query) => {
    expect(requestTarget({ url } as IncomingMessage)).toEqual({ path, query });
    expect(requestTarget({ url: '/inner', originalUrl: url } as unknown as IncomingMessage)).toEqual({ path, query });
  });
});

describe('isNavigation', () => {
  it.each([
    ['GET', { accept: 'text/html,*/*' }, true],
    ['HEAD', { accept: 'text/html' }, true],
    ['GET', { accept: 'text/html', 'sec-fetch-mode': 'navigate' }, true],
    ['POST', { accept: 'text/html', 'sec-fetch-mode': 'navigate' }, false],
    ['GET', { accept: 'text/html', 'sec-fetch-mode': 'cors' }, false],
    ['GET', { accept: 'text/html', 'x-requested-with': 'XMLHttpRequest' }, false],
    ['GET', { accept: '*/*' }, false],
    ['GET', {}, false],
  ])('of %s with %j is %j', (method, headers, expected) => {
    expect(isNavigation({ method, headers } as unknown as IncomingMessage)).toBe(expected);
  });
});
