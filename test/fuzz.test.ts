import { describe, expect, it } from 'vitest';
import { fuzzRequests } from './fuzz/drive.js';
import { fuzzResponses } from './fuzz/responses.js';

// `npm run fuzz` does the same many times over. A finding names its seed and index.
const seed = 20130704;
const from = 0;

describe('hostile input', () => {
  it('20,000 requests of all kinds: no 5xx, no hang, no session without a verified response, and memory is bounded', async () => {
    const report = await fuzzRequests({ seed, from, count: 20_000 });
    expect(report.findings).toEqual([]);
    expect(report.sent).toBe(20_000);
    // It is not that nothing ever gets anywhere: each of these is checked, as each refusal is.
    const { reached, logins, logouts, pages, sockets, tickets, cutOff } = report;
    expect(reached).toBeGreaterThan(15_000);
    expect(cutOff).toBeLessThan(400);
    for (const granted of [logins, logouts, pages, sockets, tickets]) expect(granted).toBeGreaterThan(50);
    for (const status of [101, 200, 303, 400, 401, 403, 404, 405])
      expect(report.statuses.count(status)).toBeGreaterThan(100);
    expect(report.codes.entries().length).toBeGreaterThan(20);
  }, 300_000);

  it('20,000 mutated responses: none is accepted that is not, byte for byte, what the login service signed', () => {
    const work = fuzzResponses({ seed, from, count: 20_000 });
    let step = work.next();
    while (!step.done) step = work.next();
    const report = step.value;
    expect(report.findings).toEqual([]);
    expect(report.count).toBe(20_000);
    expect(report.refused.count('ERR_SIGNATURE_INVALID')).toBeGreaterThan(5000);
    expect(report.compared).toBeGreaterThan(300);
    expect(report.right).toBeGreaterThan(0);
  }, 120_000);
});
