import { describe, expect, it } from 'vitest';
import type { Answer } from './fuzz/connection.js';
import { hiddenTickets, takenBy, type View } from './fuzz/oracle.js';

const ticket = { text: 't', member: { principal: 'test0001' }, taken: false, doubtful: false };
const view = (method: string) => ({ method, tickets: [ticket] }) as unknown as View;
const answer = (status: number, body = '') => ({ status, body, headers: [] }) as unknown as Answer;

describe('the oracle of the fuzzer', () => {
  it.each([
    ['HEAD', 200],
    ['HEAD', 401],
    ['GET', 304],
  ])('leaves it open whether %s answered with %i consumed the ticket', (method, status) => {
    expect(takenBy(view(method), answer(status))).toEqual([]);
    expect(hiddenTickets(view(method), answer(status))).toEqual([ticket]);
  });

  it('knows a ticket as consumed, or not, where the answer has a body', () => {
    const took = answer(200, 'took a ticket of test0001');
    expect([takenBy(view('GET'), took), hiddenTickets(view('GET'), took)]).toEqual([[ticket], []]);
    const refused = answer(401, '{}');
    expect([takenBy(view('GET'), refused), hiddenTickets(view('GET'), refused)]).toEqual([[], []]);
  });
});
