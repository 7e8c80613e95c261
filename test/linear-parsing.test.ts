import type { IncomingMessage } from 'node:http';
import { describe, expect, it, vi } from 'vitest';
import { checkFormOrigin, isNavigation, readCookie } from '../src/http.js';
import { protocolsOf, takeOut, withholdTokenProtocol } from '../src/websocket/credentials.js';
import { findHandshakeError } from '../src/websocket/handshake-grammar.js';
import { authenticateUpgrade, type UpgradeOptions } from '../src/websocket/index.js';
import { handshakeHeaders, handshakeParts, socketSite } from './sockets.js';

// What is read of a request before anybody is authenticated takes time in proportion to its length. Counted are calls of
// the engine's own functions, each with the length of what it is called on. What expressions do inside is not counted:
// for that there is a very long input, which would take minutes if it were quadratic; and `bench/growth.mjs`.
const site = socketSite();
const JUPYTER = 'v1.token.websocket.jupyter.org';
const SESSION = 'webauth-session';

type Make = (count: number) => string;
const repeat =
  (text: string, before = '', after = ''): Make =>
  (count) =>
    before + text.repeat(count) + after;
const numbered =
  (text: string, by: string): Make =>
  (count) =>
    Array.from({ length: count }, (_, i) => text + i).join(by);

/** By header field, or the query: values that grow with a count. */
const inputs: readonly [field: string, shape: string, make: Make][] = [
  ['sec-websocket-protocol', 'many tokens', repeat(`${JUPYTER}.x,`, '', 'x')],
  ['sec-websocket-protocol', 'different tokens', numbered(`${JUPYTER}.`, ',')],
  ['sec-websocket-protocol', 'different subprotocols and a token', (n) => `${JUPYTER}.x, ${numbered('a', ', ')(n)}`],
  ['sec-websocket-protocol', 'the bare one many times', repeat(`${JUPYTER},`, '', 'x')],
  ['sec-websocket-protocol', 'blanks', repeat(' ', `${JUPYTER}.x`, 'x')],
  ['sec-websocket-extensions', 'many offers', repeat('permessage-deflate; client_max_window_bits,', '', 'x')],
  ['sec-websocket-extensions', 'different parameters', numbered('permessage-deflate; x', ';')],
  ['sec-websocket-extensions', 'a quoted value without an end', repeat('\\a', 'x; a="')],
  ['sec-websocket-extensions', 'blanks', repeat(' ', 'x', 'x')],
  ['cookie', 'many pairs', repeat('a=1; ')],
  ['cookie', 'the session many times', repeat(`${SESSION}=x; `)],
  ['cookie', 'the name of the session many times', repeat(`${SESSION} `, '', '=x')],
  ['cookie', 'blanks behind the name', repeat(' ', SESSION, '=x')],
  ['cookie', 'a session that is a list of lists', repeat('[', `${SESSION}=j:`)],
  ['cookie', 'a session of broken escapes', repeat('%', `${SESSION}=`)],
  ['authorization', 'Bearer with blanks', repeat(' ', 'Bearer ', ',')],
  ['authorization', 'Bearer with padding', repeat('=', 'Bearer x', 'x')],
  ['authorization', 'Basic without a colon', repeat('AAAA', 'Basic ')],
  ['authorization', 'Basic of colons', repeat('Ojo6', 'Basic ')],
  ['origin', 'a list of ours', repeat('http://127.0.0.1,')],
  ['query', 'many pairs', repeat('a=1&')],
  ['query', 'many tickets', repeat('%74icket=x&')],
  ['query', 'percent signs', repeat('%&')],
  ['query', 'question marks', repeat('?')],
];

function requestOf(field: string, value: string): IncomingMessage {
  const headers: Record<string, string> = { ...handshakeHeaders, accept: 'text/html' };
  if (field !== 'query') headers[field] = value;
  return {
    ...handshakeParts,
    url: field === 'query' ? `/live?${value}` : '/live',
    headers,
    headersDistinct: Object.fromEntries(Object.entries(headers).map(([name, one]) => [name, [one]])),
    rawHeaders: Object.entries(headers).flat(),
    socket: {},
  } as unknown as IncomingMessage;
}

const options: UpgradeOptions = { credentials: ['bearer', 'basic', 'subprotocol', 'query', 'cookie'] };

/** Reads all that is read of a handshake, and of a request for a page. */
async function readAll(field: string, value: string): Promise<void> {
  await expect(authenticateUpgrade(site.waa, requestOf(field, value), options)).rejects.toMatchObject({
    name: expect.stringMatching(/^(SessionError|AuthorisationError)$/),
  });
  const request = requestOf(field, value);
  // A malformed list is read too, so that no token of it is shown.
  for (const read of [takeOut, withholdTokenProtocol]) read(requestOf(field, value), true);
  protocolsOf(request);
  findHandshakeError(request);
  isNavigation(request);
  for (const read of [() => readCookie(request, SESSION), () => checkFormOrigin(request, site.waa.origins)]) {
    try {
      read();
    } catch (error) {
      expect(error).toHaveProperty('code');
    }
  }
}

/** Functions of the engine whose time grows with what they are called on. */
const counted: readonly [object, readonly string[]][] = [
  [Array.prototype, ['includes', 'indexOf', 'filter', 'find', 'some', 'every', 'map', 'flatMap', 'join', 'concat']],
  [String.prototype, ['split', 'includes', 'indexOf', 'trim', 'replace', 'replaceAll', 'toLowerCase', 'slice']],
];

/** Sum, over all calls during the work, of the lengths of what was called. */
async function countDuring(work: () => Promise<void>): Promise<number> {
  let count = 0;
  const undo: (() => void)[] = [];
  for (const [prototype, names] of counted) {
    for (const name of names) {
      const descriptor = Object.getOwnPropertyDescriptor(prototype, name) as PropertyDescriptor;
      const original = descriptor.value as (...given: unknown[]) => unknown;
      const counting = function (this: { readonly length: number }, ...given: unknown[]): unknown {
        count += this.length;
        return original.apply(this, given);
      };
      Object.defineProperty(prototype, name, { ...descriptor, value: counting });
      undo.push(() => Object.defineProperty(prototype, name, descriptor));
    }
  }
  try {
    await work();
  } finally {
    for (const one of undo) one();
  }
  return count;
}

describe('readCookie()', () => {
  it('parses nothing of a pair that is longer than browsers keep', () => {
    const parse = vi.spyOn(JSON, 'parse');
    const read = (length: number) => {
      const cookie = `${SESSION}=j:${'['.repeat(length)}`;
      return readCookie({ headers: { cookie } } as IncomingMessage, SESSION);
    };
    expect(read(100)).toBe(`j:${'['.repeat(100)}`);
    expect(parse).toHaveBeenCalledTimes(1);
    expect(read(8192)).toBe(`${SESSION}=j:${'['.repeat(8192)}`);
    expect(parse).toHaveBeenCalledTimes(1);
    parse.mockRestore();
  });
});

describe('reading a request before authentication', () => {
  it.each(inputs)('takes calls in proportion to the length of %s: %s', async (field, _, make) => {
    const count = (times: number) => countDuring(() => readAll(field, make(times)));
    // Once before, for what is made at the first call.
    await count(10);
    const [short, long] = [await count(500), await count(2000)];
    expect(long / short).toBeLessThan(6);
  });

  it.each(inputs)('ends for a very long %s: %s', async (field, _, make) => {
    const length = 2_000_000;
    await readAll(field, make(Math.ceil(length / make(100).length) * 100));
  });
});
