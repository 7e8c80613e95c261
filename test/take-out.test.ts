import type { IncomingMessage } from 'node:http';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { takeOut } from '../src/websocket/credentials.js';

const JUPYTER = 'v1.token.websocket.jupyter.org';

function requestOf(url: string, protocols?: string): IncomingMessage {
  const headers = protocols === undefined ? {} : { 'sec-websocket-protocol': protocols };
  return {
    url,
    headers,
    rawHeaders: Object.entries(headers).flat(),
    headersDistinct: {},
  } as unknown as IncomingMessage;
}

// Spellings of the name, and what is nearly one.
const character = fc.constantFrom(
  ...'ticket',
  '%74',
  '%69',
  '%63',
  '%6b',
  '%6B',
  '%65',
  '%',
  '%7',
  '?',
  '+',
  '%3D',
  'T',
);
const name = fc.oneof(
  fc.constantFrom(
    'ticket',
    '?ticket',
    '??ticket',
    '%74%69%63%6b%65%74',
    'ticke%74',
    'tickets',
    'ticket%00',
    '%3Fticket',
    '',
  ),
  fc.array(character, { maxLength: 8 }).map((parts) => parts.join('')),
);
const pair = fc
  .tuple(name, fc.constantFrom('', '=', '=x', '=a=b', '=%41', '=ticket', '=%zz'))
  .map((parts) => parts.join(''));

describe('takeOut()', () => {
  it('finds the tickets of a query that URLSearchParams finds, pair by pair, and leaves the others', () => {
    let found = 0;
    fc.assert(
      fc.property(fc.array(pair, { maxLength: 6 }), (pairs) => {
        const request = requestOf(`/live?${pairs.join('&')}`);
        const isTicket = (one: string) => new URLSearchParams(one).has('ticket');
        const { tickets } = takeOut(request, true);
        expect(tickets).toEqual(pairs.filter(isTicket).map((one) => new URLSearchParams(one).get('ticket')));
        const others = pairs.filter((one) => !isTicket(one));
        if (tickets.length > 0) expect(request.url).toBe(others.length === 0 ? '/live' : `/live?${others.join('&')}`);
        found += tickets.length;
      }),
      { seed: 20130704, numRuns: 3000 },
    );
    expect(found).toBeGreaterThan(500);
  });

  it('separates tokens from the other subprotocols, and keeps the order of both', () => {
    const request = requestOf('/live', `b, ${JUPYTER}.1, a, x${JUPYTER}.2, ${JUPYTER}, ${JUPYTER}.1`);
    expect(takeOut(request, false).tokens).toEqual(['1', '', '1']);
    expect(request.headers['sec-websocket-protocol']).toBe(`b, a, ${JUPYTER}`);
    expect(request.rawHeaders).toEqual(['sec-websocket-protocol', `b, a, ${JUPYTER}`]);
  });
});
