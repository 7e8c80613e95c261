import fc from 'fast-check';
import type { AuthRequest } from '../src/request.js';
import { type AuthResponse, type FailureStatus, failures } from '../src/response.js';

// The same examples in every run.
fc.configureGlobal({ seed: 20130704, numRuns: 500 });

const nasty = [
  ...['!', '%', '%21', '%25', '%2521', '%2', '%2e', '%GG', '!!', '%25%32%31', '&', '=', '+', ',', ';', '#', '?', ' '],
  ...['\0', '\n', '\r\n', '\t', '\x7f', '\u0085', '\u2028', '\ufeff', '\u202e', 'e\u0301', 'é', 'ض', '中', '😀'],
  ...['\u{10ffff}', '\uffff', '\\', '"', "'", '<', '>', '&amp;', '__proto__', 'WLS-Response', '../', '[]', '-._', '_'],
];

/** Well-formed text, rich in all that means something on the wire, and in what does not survive carelessness. */
export const hostileText: fc.Arbitrary<string> = fc
  .array(fc.oneof(fc.constantFrom(...nasty), fc.string({ unit: 'binary', maxLength: 6 })), { maxLength: 8 })
  .map((parts) => parts.join(''));

/** Any 16-bit units at all, halves of surrogate pairs too. */
export const anyText: fc.Arbitrary<string> = fc.oneof(
  hostileText,
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 80 }).map((units) => String.fromCharCode(...units)),
  // Bytes as Node gives the target of a request: one character each.
  fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
);

const required = hostileText.filter((text) => text !== '');
const item = hostileText.map((text) => text.replaceAll(',', '')).filter((text) => text !== '');
const items = fc.array(item, { maxLength: 3 });
// The years 0 to 9999, to the second.
const instant = fc.integer({ min: -62_167_219_200, max: 253_402_300_799 }).map((seconds) => new Date(seconds * 1000));
const version = fc.constantFrom(1 as const, 2 as const, 3 as const);
const kid = fc.integer({ min: 1, max: 99_999_999 }).map(String);
const sig = fc.uint8Array({ minLength: 1, maxLength: 130 }).map((bytes) => Buffer.from(bytes));

const common = {
  ver: version,
  msg: hostileText,
  issue: instant,
  id: required,
  url: required,
  life: fc.option(fc.integer({ min: 0, max: 999_999_999_999_999 }), { nil: undefined }),
  params: hostileText,
};

const plain = { noNullPrototype: true };

const success: fc.Arbitrary<AuthResponse> = fc
  .record(
    {
      ...common,
      status: fc.constant(200 as const),
      principal: required,
      ptags: items,
      auth: hostileText,
      sso: items,
      kid,
      sig,
    },
    plain,
  )
  .map((response) => (response.ver === 3 ? response : { ...response, ptags: [] }))
  .filter(({ auth, sso }) => auth !== '' || sso.length > 0);

const statuses = Object.keys(failures).map(Number) as FailureStatus[];

const failure: fc.Arbitrary<AuthResponse> = fc
  .record(
    {
      ...common,
      status: fc.constantFrom(...statuses),
      principal: fc.constant(''),
      ptags: fc.constant([]),
      auth: fc.constant(''),
      sso: fc.constant([]),
      kid: fc.oneof(fc.constant(''), kid),
      sig: fc.option(sig, { nil: undefined }),
    },
    plain,
  )
  .map((response) => ({
    ...response,
    ver: response.status === 520 ? (1 as const) : response.ver,
    kid: response.kid === '' && response.sig ? '1' : response.kid,
  }));

/** Every response that the protocol allows. */
export const anyResponse: fc.Arbitrary<AuthResponse> = fc.oneof(success, failure);

const type = fc
  .string({ unit: fc.constantFrom('!', '%', '&', '=', '+', ';', '#', 'p', 'x-a', '~', '"'), minLength: 1 })
  .map((text) => text.slice(0, 12));
const printableText = hostileText.map((text) => text.replaceAll(/[^\x20-\x7e]/g, ''));

/** Every request that the protocol allows, as `parseRequest` gives it. */
export const anyRequest: fc.Arbitrary<AuthRequest> = fc.record(
  {
    ver: version,
    url: hostileText.map((text) => `https://app.example.org/${text.replaceAll(/[^\x21-\x22\x24-\x7e]/g, '')}`),
    desc: printableText.map((encoded) => ({ encoded })),
    aauth: fc.array(type, { minLength: 1, maxLength: 3 }),
    iact: fc.boolean(),
    msg: printableText.map((encoded) => ({ encoded })),
    params: hostileText,
    date: instant,
    fail: fc.constant(true),
  },
  { requiredKeys: ['ver', 'url'], noNullPrototype: true },
);

/** A text that differs from the given ones by a few cuts, doublings, exchanges and insertions. */
export function mutationsOf(texts: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const edit = fc.record({ at: fc.nat(1000), length: fc.nat(6), insert: fc.oneof(fc.constant(''), anyText) });
  return fc.tuple(texts, fc.array(edit, { minLength: 1, maxLength: 4 })).map(([text, edits]) =>
    edits.reduce((mutated, { at, length, insert }) => {
      const start = mutated.length === 0 ? 0 : at % mutated.length;
      return mutated.slice(0, start) + insert + mutated.slice(start + length);
    }, text),
  );
}
