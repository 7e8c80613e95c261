import type { IncomingMessage } from 'node:http';
import { describe, expect, it } from 'vitest';
import { readBasic, readScheme } from '../src/http.js';
import { socketSite } from './sockets.js';

const site = socketSite();

function requestOf(...values: string[]): IncomingMessage {
  const rawHeaders = values.flatMap((value) => ['Authorization', value]);
  return { headers: { authorization: values[0] }, rawHeaders } as unknown as IncomingMessage;
}

const base64 = (text: string | Buffer) => Buffer.from(text as string).toString('base64');

describe('readScheme()', () => {
  it.each([
    ['Bearer abc', 'abc'],
    ['bearer   abc', 'abc'],
    ['BEARER a-b.c_d~e+f/g==', 'a-b.c_d~e+f/g=='],
  ])('returns the token68 of %j', (line, expected) => {
    expect(readScheme(requestOf(line), 'bearer')).toBe(expected);
  });

  it.each([
    'Bearer',
    'Bearer ',
    'Bearer a b',
    'Bearer a,b',
    'Bearer a, Basic b',
    'Bearer a,',
    'Bearer a;b',
    'Bearer a ',
    ' Bearer a',
    'Bearer\ta',
    'Bearer \ta',
    'Bearer a\t',
    'Bearer =',
    'Bearer a=b',
    'Bearer "a"',
    'Bearer realm="a"',
    'Bearer a\xa0',
    'Bearer é',
    'Bearer a\0',
    'Bearer a\n',
    'Bearera',
  ])('returns an empty text for %j', (line) => {
    expect(readScheme(requestOf(line), 'bearer')).toBe('');
  });
});

describe('readBasic()', () => {
  it.each([
    ['token:abc', 'token', 'abc'],
    ['token:', 'token', ''],
    [':abc', '', 'abc'],
    ['a:b:c', 'a', 'b:c'],
    ['é€😀:ü', 'é€😀', 'ü'],
  ])('returns user and password of %j', (text, user, password) => {
    expect(readBasic(requestOf(`Basic ${base64(text)}`))).toEqual({ user, password });
    expect(readBasic(requestOf(`basic  ${base64(text)}`))).toEqual({ user, password });
  });

  it.each([
    ['a parameter follows', `Basic ${base64('token:abc')},x=y`],
    ['another scheme follows', `Basic ${base64('token:abc')}, Bearer x`],
    ['a blank is within', 'Basic dG9rZW4 6YWJj'],
    ['a tab is before it', `Basic\t${base64('token:abc')}`],
    ['padding is missing', 'Basic dG9rZW46YQ'],
    ['padding is short', 'Basic dG9rZW46YQ='],
    ['padding is too long', 'Basic dG9rZW46YWJj='],
    ['padding is within', 'Basic dG9rZW46YQ==dG9rZW46YQ=='],
    ['bits behind the text are set', 'Basic dG9rZW46YR=='],
    ['it is base64url', `Basic ${Buffer.from('???:~~~>').toString('base64url')}`],
    ['it has characters that base64 lacks', 'Basic dG9r.ZW46YWJj'],
    ['it is empty', 'Basic '],
    ['there is no colon', `Basic ${base64('token')}`],
    ['a NUL is in the password', `Basic ${base64('token:abc\0')}`],
    ['a line break is in the user', `Basic ${base64('token\r\n:abc')}`],
    ['a DEL is in the password', `Basic ${base64('token:\x7fabc')}`],
    ['a control character of Latin-1 is in the password', `Basic ${base64('token:\x85abc')}`],
    ['it is no UTF-8', `Basic ${base64(Buffer.from('token:\xff', 'latin1'))}`],
    ['it is overlong UTF-8', `Basic ${base64(Buffer.from([0x74, 0xc0, 0xba, 0x3a, 0x61]))}`],
    ['it is a lone surrogate in UTF-8', `Basic ${base64(Buffer.from([0x74, 0x3a, 0xed, 0xa0, 0x80]))}`],
  ])('returns undefined when %s', (_, line) => {
    expect(readBasic(requestOf(line))).toBeUndefined();
  });
});

describe('acceptUpgrades() with basic and bearer', () => {
  it.each<[string, (ticket: string) => string]>([
    ['a parameter follows the base64', (ticket) => `Basic ${base64(`token:${ticket}`)},x=y`],
    ['a NUL is before the colon', (ticket) => `Basic ${base64(`token\0:${ticket}`)}`],
    ['padding is left out', (ticket) => `Basic ${base64(`token:${ticket}`).replace(/=+$/, '')}`],
    ['junk is in the base64', (ticket) => `Basic ${base64(`token:${ticket}`).replace('d', 'd.')}`],
    ['there is no colon', (ticket) => `Basic ${base64(ticket)}`],
    ['a parameter follows the ticket', (ticket) => `Bearer ${ticket},x=y`],
    ['another scheme follows the ticket', (ticket) => `Bearer ${ticket}, Basic x`],
    ['a tab is before the ticket', (ticket) => `Bearer\t${ticket}`],
  ])('rejects with 401, and consumes no ticket, when %s', async (_, write) => {
    site.accept({ credentials: ['bearer', 'basic', 'cookie'] });
    const { cookie } = await site.logIn();
    const { ticket } = await site.waa.makeTicket(cookie);
    const answer = await site.refused('/', site.headers(cookie, { authorization: write(ticket) }));
    expect(answer).toMatchObject({ status: 401, code: 'ERR_TOKEN_INVALID' });
    await expect(site.waa.takeTicket(ticket)).resolves.toMatchObject({ principal: 'test0001' });
  });
});
