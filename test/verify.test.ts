import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type ErrorCode, ResponseError, StatusError, VerificationError, type WebauthError } from '../src/errors.js';
import { bundledKey, KeySet } from '../src/keys.js';
import { goose, raven } from '../src/profiles.js';
import {
  type AuthResponse,
  type FailureStatus,
  failures,
  formatResponse,
  formatSigned,
  parseResponse,
  responseFromQuery,
  responseUrl,
  type Version,
} from '../src/response.js';
import { signText } from '../src/signature.js';
import { type Expectations, verifyParsed, verifyResponse } from '../src/verify.js';
import {
  expectations,
  expectRefused,
  keys,
  makeFailure,
  makeKey,
  makeResponse,
  now,
  sign,
  thrownBy,
  unsigned,
  verify,
  wlsKey,
} from './helpers.js';

const versions = [1, 2, 3] as const;
const statuses = Object.keys(failures).map(Number) as FailureStatus[];
const stranger = makeKey(1024, 'a stranger');

/** That many milliseconds after {@link now}. */
const later = (milliseconds: number) => new Date(now.getTime() + milliseconds);

/** Holds that a response is refused with this VerificationError, against the usual attempt but for what is given. */
function refuses(code: ErrorCode, encoded: string, expected: Partial<Expectations> = {}): WebauthError {
  return expectRefused(() => verifyResponse(encoded, expectations(expected)), VerificationError, code);
}

/** Holds that it is refused for its form. */
function refusesForm(encoded: string, expected: Partial<Expectations> = {}): void {
  expectRefused(() => verifyResponse(encoded, expectations(expected)), ResponseError, 'ERR_RESPONSE_MALFORMED');
}

/** Holds that it is believed to say that nobody logged in. */
function fails(code: ErrorCode, encoded: string, expected: Partial<Expectations> = {}): AuthResponse {
  const call = () => verifyResponse(encoded, expectations(expected));
  return expectRefused(call, StatusError<AuthResponse>, code).response;
}

describe('a good response', () => {
  it('[V1, V6] is returned as it was sent', () => {
    const response = makeResponse({ sso: ['x-a'], ptags: ['current', 'x'], msg: 'Hello!' });
    const encoded = sign(response);
    expect(verifyResponse(encoded, expectations())).toStrictEqual(parseResponse(encoded));
    expect(verifyResponse(encoded, expectations())).toMatchObject({ ...response, sig: expect.any(Buffer) });
  });

  it('[R15] has its life passed on, or not', () => {
    expect(verify({ life: 42298 }).life).toBe(42298);
    expect(verify({ life: undefined }).life).toBeUndefined();
  });

  it('[M3, S1] may hold anything in any field that allows it', () => {
    const odd = '!%21%2521 é😀\n\0"\'<';
    const overrides = { msg: odd, id: odd, url: odd, principal: odd, ptags: [odd], auth: odd, sso: [odd], params: odd };
    expect(verify(overrides, { url: odd, params: odd })).toMatchObject(overrides);
  });

  it('[R12] may hold ptags that nobody knows', () => {
    expect(verify({ ptags: ['x-new', 'current'] }).ptags).toEqual(['x-new', 'current']);
    expect(verify({ ptags: [] }).ptags).toEqual([]);
  });
});

describe('a response that was parsed before', () => {
  const parsed = (encoded: string, expected: Expectations) => verifyParsed(encoded, parseResponse(encoded), expected);

  it('[V1] is judged as any other', () => {
    const encoded = sign(makeResponse({ sso: ['x-a'] }));
    expect(parsed(encoded, expectations())).toStrictEqual(verifyResponse(encoded, expectations()));
    const old = sign(makeResponse({ ver: 1 }));
    expect(parsed(old, expectations({ ver: 1, oldVersionPtags: ['current'] })).ptags).toEqual(['current']);
  });

  it.each<[string, ErrorCode, string, Partial<Expectations>]>([
    ['an older version', 'ERR_RESPONSE_VERSION', sign(makeResponse({ ver: 2 })), {}],
    ['another address', 'ERR_URL_MISMATCH', sign(makeResponse()), { url: 'https://other.example.org/' }],
    ['another attempt', 'ERR_PARAMS_MISMATCH', sign(makeResponse()), { params: 'another' }],
    ['another key', 'ERR_SIGNATURE_INVALID', sign(makeResponse(), stranger.privateKey), {}],
    ['nobody', 'ERR_WLS_CANCELLED', sign(makeFailure()), {}],
    [
      'no authentication of now',
      'ERR_IACT_UNSATISFIED',
      sign(makeResponse({ auth: '', sso: ['pwd'] })),
      { iact: true },
    ],
  ])('[V1] is refused for %s too', (_, code, encoded, expected) => {
    expect(thrownBy(() => parsed(encoded, expectations(expected)))).toMatchObject({ code });
    expect(thrownBy(() => verifyResponse(encoded, expectations(expected)))).toMatchObject({ code });
  });

  it('[V1] has its expectations looked at', () => {
    const unusable = { ...expectations(), now: new Date(Number.NaN) };
    expect(thrownBy(() => parsed(sign(makeResponse()), unusable))).toBeInstanceOf(TypeError);
  });
});

describe('the form', () => {
  it('[V1] is held to every rule', () => {
    refusesForm('3');
    refusesForm(sign(makeResponse()).replace('!200!', '!201!'));
    refusesForm(sign(makeResponse({ principal: '' })));
    refusesForm(sign(makeResponse({ id: '' })));
    refusesForm(sign(makeResponse({ auth: '', sso: [] })));
    refusesForm(sign(makeFailure({ ptags: ['current'] })));
    refusesForm(sign(makeResponse({ kid: '07' })));
  });

  it('[V1, R4, X4] has the fields counted', () => {
    const encoded = sign(makeResponse());
    refusesForm(`${encoded}!`);
    refusesForm(`${encoded}!7!AAAA`);
    refusesForm(encoded.slice(0, encoded.lastIndexOf('!')));
    // Signed, even so.
    for (const more of ['!', '!x', '!!!!']) {
      const text = formatSigned(makeResponse()) + more;
      const sig = signText(wlsKey.privateKey, text);
      refusesForm(`${text}${formatResponse({ ...makeResponse(), sig }).slice(formatSigned(makeResponse()).length)}`);
    }
  });

  it.each(versions)('[V1, X18] has exactly the version asked for, where somebody logged in: asked for %i', (asked) => {
    for (const ver of versions) {
      const call = () => verify({ ver }, { ver: asked, oldVersionPtags: ['current'] });
      if (ver === asked) expect(call().ver).toBe(asked);
      else expectRefused(call, ResponseError, 'ERR_RESPONSE_VERSION');
    }
  });

  it.each(versions)('[V1, F4] has at most the version asked for, where nobody did: asked for %i', (asked) => {
    for (const ver of versions) {
      for (const make of [sign, unsigned]) {
        const call = () => verifyResponse(make(makeFailure({ ver })), expectations({ ver: asked }));
        if (ver <= asked) expectRefused(call, StatusError, 'ERR_WLS_CANCELLED');
        else expectRefused(call, ResponseError, 'ERR_RESPONSE_VERSION');
      }
    }
  });

  it('[V1] has version 3 where the attempt does not say', () => {
    expect(verify({ ver: 3 }).ver).toBe(3);
    expectRefused(() => verify({ ver: 2 }), ResponseError, 'ERR_RESPONSE_VERSION');
    expectRefused(() => verify({ ver: 1 }), ResponseError, 'ERR_RESPONSE_VERSION');
  });

  it('[V1, R5] has a version that exists', () => {
    const encoded = sign(makeResponse());
    for (const ver of ['0', '4', '', '03']) {
      const call = () => verifyResponse(encoded.replace(/^3/, ver), expectations());
      expectRefused(call, ResponseError, 'ERR_RESPONSE_VERSION');
    }
  });
});

describe('the ptags of versions 1 and 2', () => {
  it.each([1, 2] as const)('[L5] are what the profile says: version %i', (ver) => {
    expect(verify({ ver }, { ver, oldVersionPtags: raven.oldVersionPtags }).ptags).toEqual(['current']);
    expect(verify({ ver }, { ver, oldVersionPtags: goose({ keys }).oldVersionPtags }).ptags).toEqual([]);
    expect(verify({ ver }, { ver }).ptags).toEqual([]);
  });

  it('[L5, X18] have no say in version 3', () => {
    expect(verify({ ptags: [] }, { oldVersionPtags: ['current'] }).ptags).toEqual([]);
    expect(verify({ ptags: ['x'] }, { oldVersionPtags: ['current'] }).ptags).toEqual(['x']);
  });

  it('[L5] are not given to a failure', () => {
    const response = fails('ERR_WLS_CANCELLED', sign(makeFailure({ ver: 1 })), { oldVersionPtags: ['current'] });
    expect(response.ptags).toEqual([]);
  });
});

describe('the key', () => {
  const foreign = (kid: string) => sign(makeResponse({ kid }), stranger.privateKey);

  it('[V2] is one of this service’s', () => {
    refuses('ERR_KEY_UNKNOWN', foreign('8'));
    refuses('ERR_KEY_UNKNOWN', sign(makeResponse({ kid: '8' })));
    refuses('ERR_KEY_UNKNOWN', sign(makeResponse()), { keys: new KeySet() });
    refuses('ERR_KEY_UNKNOWN', sign(makeResponse()), { keys: bundledKey('2') });
    refuses('ERR_KEY_UNKNOWN', sign(makeFailure({ kid: '8' })));
    refuses('ERR_KEY_UNKNOWN', formatResponse({ ...makeFailure({ kid: '8' }), sig: undefined }));
  });

  it('[V2] is the one that kid names, though another of the service’s signed', () => {
    const both = KeySet.from({ 7: wlsKey.pem, 8: stranger.pem });
    expect(verifyResponse(foreign('8'), expectations({ keys: both })).kid).toBe('8');
    refuses('ERR_SIGNATURE_INVALID', foreign('7'), { keys: both });
    refuses('ERR_SIGNATURE_INVALID', sign(makeResponse({ kid: '8' })), { keys: both });
  });

  it('[V2, K4] can be added and removed at any time', () => {
    const changing = KeySet.from({ 7: wlsKey.pem });
    refuses('ERR_KEY_UNKNOWN', foreign('8'), { keys: changing });
    changing.add('8', stranger.pem);
    expect(verifyResponse(foreign('8'), expectations({ keys: changing })).principal).toBe('test0001');
    changing.remove('8');
    refuses('ERR_KEY_UNKNOWN', foreign('8'), { keys: changing });
  });

  it('[V2] is named in the message, beside those that there are', () => {
    const both = KeySet.from({ 500: wlsKey.pem, 501: wlsKey.pem });
    expect(refuses('ERR_KEY_UNKNOWN', foreign('8'), { keys: both }).message).toMatch(/key 8 .*500, 501/);
    expect(refuses('ERR_KEY_UNKNOWN', foreign('8'), { keys: new KeySet() }).message).toMatch(/none/);
  });
});

describe('the url', () => {
  it.each([
    'https://evil.example.org/webauth/callback',
    'https://app.example.org/webauth/callback/',
    'https://app.example.org/webauth/callback?',
    'https://app.example.org/webauth/callback?x=1',
    'https://app.example.org/webauth/callbac',
    'https://app.example.org/webauth/Callback',
    'https://APP.example.org/webauth/callback',
    'https://app.example.org:443/webauth/callback',
    'https://app.example.org/webauth/%63allback',
    'https://app.example.org/webauth/../webauth/callback',
    'https://app.example.org.evil.example.org/webauth/callback',
    'https://user@app.example.org/webauth/callback',
    'http://app.example.org/webauth/callback',
    '/webauth/callback',
    ' https://app.example.org/webauth/callback',
  ])('[V3, X1] is that of the attempt, to the character, and not %j', (url) => {
    refuses('ERR_URL_MISMATCH', sign(makeResponse({ url })));
    refuses('ERR_URL_MISMATCH', sign(makeFailure({ url })));
  });

  it('[V3, V4, X17] is checked though params is right, and params though the url is', () => {
    const { params } = makeResponse();
    refuses('ERR_URL_MISMATCH', sign(makeResponse({ url: 'https://evil.example.org/', params })));
    refuses('ERR_PARAMS_MISMATCH', sign(makeResponse({ params: 'another token' })));
  });

  it('[V3, X5] is the field, whatever a service did to the address that it returns to', () => {
    const url = 'https://app.example.org/cb?blank&x=a%20b';
    const encoded = sign(makeResponse({ url }));
    // As Goose does: no bare name, + for a space.
    const rewritten = new URL('https://app.example.org/cb');
    rewritten.searchParams.set('x', 'a b');
    rewritten.searchParams.set('WLS-Response', encoded);
    expect(rewritten.search).toMatch(/^\?x=a\+b&WLS-Response=/);
    const query = rewritten.search.slice(1);
    expect(verifyResponse(responseFromQuery(query), expectations({ url })).url).toBe(url);
  });

  it('[V3, R2, X5] keeps the query that the address of version 1 has lost', () => {
    const url = 'https://app.example.org/cb?x=1';
    const address = responseUrl(url, 1, sign(makeFailure({ ver: 1, url })));
    expect(address).not.toContain('x=1&');
    const encoded = responseFromQuery(new URL(address).search.slice(1));
    expect(fails('ERR_WLS_CANCELLED', encoded, { url }).url).toBe(url);
    refuses('ERR_URL_MISMATCH', encoded, { url: 'https://app.example.org/cb' });
  });
});

describe('params', () => {
  it.each([
    '',
    'the token of this attemp',
    'the token of this attempt ',
    'The token of this attempt',
    'the token of this attempt\0',
    'xhe token of this attempt',
    'the%20token%20of%20this%20attempt',
    'the+token+of+this+attempt',
    'null',
  ])('[V4] are those of the attempt, and not %j', (params) => {
    refuses('ERR_PARAMS_MISMATCH', sign(makeResponse({ params })));
    refuses('ERR_PARAMS_MISMATCH', sign(makeFailure({ params })));
    refuses('ERR_PARAMS_MISMATCH', unsigned(makeFailure({ params })));
  });

  it('[V4] are compared as bytes', () => {
    expect(verify({ params: 'é' }, { params: 'é' }).params).toBe('é');
    expectRefused(() => verify({ params: 'e\u0301' }, { params: 'é' }), VerificationError, 'ERR_PARAMS_MISMATCH');
    expectRefused(() => verify({ params: 'é' }, { params: 'Ã©' }), VerificationError, 'ERR_PARAMS_MISMATCH');
    expectRefused(() => verify({ params: '中' }, { params: '-' }), VerificationError, 'ERR_PARAMS_MISMATCH');
  });

  it('[V4] are none where the attempt had none', () => {
    expect(verify({ params: '' }, { params: null }).params).toBe('');
    expect(verify({ params: '' }, { params: '' }).params).toBe('');
    expectRefused(() => verify({ params: 'x' }, { params: null }), VerificationError, 'ERR_PARAMS_MISMATCH');
    expectRefused(() => verify({ params: 'null' }, { params: null }), VerificationError, 'ERR_PARAMS_MISMATCH');
    expectRefused(() => verify({ params: 'x' }, { params: '' }), VerificationError, 'ERR_PARAMS_MISMATCH');
  });
});

describe('the time of issue', () => {
  const encoded = sign(makeResponse());
  const age = (milliseconds: number, expected: Partial<Expectations> = {}) =>
    verifyResponse(encoded, expectations({ now: later(milliseconds), ...expected }));

  it('[V5] may be thirty seconds ago, and not a millisecond more', () => {
    for (const past of [0, 1, 999, 1000, 29_000, 29_999, 30_000]) expect(age(past).issue).toEqual(now);
    for (const past of [30_001, 30_999, 31_000, 60_000, 3_600_000, 86_400_000 * 365]) {
      refuses('ERR_ISSUE_STALE', encoded, { now: later(past) });
    }
  });

  it('[V5] may be five seconds ahead, and not a millisecond more', () => {
    for (const ahead of [1, 999, 1000, 4_999, 5_000]) expect(age(-ahead).issue).toEqual(now);
    for (const ahead of [5_001, 5_999, 6_000, 60_000, 3_600_000]) {
      refuses('ERR_ISSUE_FUTURE', encoded, { now: later(-ahead) });
    }
  });

  it('[V5, X6] may not be any time in the future', () => {
    for (const issue of [
      '2026-03-01T12:00:06Z',
      '2026-03-02T12:00:00Z',
      '2100-01-01T00:00:00Z',
      '9999-12-31T23:59:59Z',
    ]) {
      refuses('ERR_ISSUE_FUTURE', sign(makeResponse({ issue: new Date(issue) })));
    }
    refuses('ERR_ISSUE_STALE', sign(makeResponse({ issue: new Date('0000-01-01T00:00:00Z') })));
  });

  it('[V5] is held to the second by the issue itself', () => {
    const at = (seconds: number) => sign(makeResponse({ issue: later(seconds * 1000) }));
    expect(verifyResponse(at(-30), expectations()).issue).toEqual(later(-30_000));
    refuses('ERR_ISSUE_STALE', at(-31));
    expect(verifyResponse(at(5), expectations()).issue).toEqual(later(5_000));
    refuses('ERR_ISSUE_FUTURE', at(6));
  });

  it('[V5] has the bounds that the application sets', () => {
    const own = { responseTimeout: 90, clockSkew: 0 };
    expect(age(90_000, own).issue).toEqual(now);
    expect(age(0, own).issue).toEqual(now);
    refuses('ERR_ISSUE_STALE', encoded, { ...own, now: later(90_001) });
    refuses('ERR_ISSUE_FUTURE', encoded, { ...own, now: later(-1) });
    const none = { responseTimeout: 0, clockSkew: 60.5 };
    expect(age(-60_500, none).issue).toEqual(now);
    refuses('ERR_ISSUE_FUTURE', encoded, { ...none, now: later(-60_501) });
    refuses('ERR_ISSUE_STALE', encoded, { ...none, now: later(1) });
  });

  it('[V5] is compared with the present, where no time is given', () => {
    const { keys, url, params } = expectations();
    const fresh = sign(makeResponse({ issue: new Date() }));
    expect(verifyResponse(fresh, { keys, url, params }).principal).toBe('test0001');
    const old = sign(makeResponse({ issue: new Date(Date.now() - 60_000) }));
    expectRefused(() => verifyResponse(old, { keys, url, params }), VerificationError, 'ERR_ISSUE_STALE');
  });

  it('[V5, F2] counts for failures too', () => {
    for (const make of [sign, unsigned]) {
      refuses('ERR_ISSUE_STALE', make(makeFailure()), { now: later(30_001) });
      refuses('ERR_ISSUE_FUTURE', make(makeFailure()), { now: later(-5_001) });
    }
  });
});

describe('the signature', () => {
  it('[V6, R18] is there, where somebody logged in', () => {
    refuses('ERR_SIGNATURE_MISSING', unsigned(makeResponse()));
    refuses('ERR_SIGNATURE_MISSING', formatResponse(makeResponse()));
    for (const ver of [1, 2] as const) refuses('ERR_SIGNATURE_MISSING', unsigned(makeResponse({ ver })), { ver });
  });

  it('[V6] is that of the key', () => {
    refuses('ERR_SIGNATURE_INVALID', sign(makeResponse(), stranger.privateKey));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...makeResponse(), sig: Buffer.alloc(128) }));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...makeResponse(), sig: Buffer.from([1]) }));
    refuses('ERR_SIGNATURE_INVALID', sign(makeResponse(), makeKey(2048, 'a stranger').privateKey));
  });

  it('[V6, S1] covers every field before kid', () => {
    const good = makeResponse();
    const { sig } = parseResponse(sign(good));
    const others: Partial<AuthResponse>[] = [
      { msg: 'x' },
      { issue: later(1000) },
      { id: '2' },
      { principal: 'test0002' },
      { ptags: [] },
      { ptags: ['current', 'x'] },
      { auth: 'x-a' },
      { sso: ['pwd'] },
      { life: 36001 },
      { life: undefined },
    ];
    for (const other of others) refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...good, ...other, sig }));
    const url = 'https://app.example.org/other';
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...good, url, sig }), { url });
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...good, params: 'x', sig }), { params: 'x' });
  });

  it('[V6, S1] covers the text as it came, and not another spelling of the same fields', () => {
    const encoded = sign(makeResponse({ life: 600 }));
    expect(verifyResponse(encoded, expectations()).life).toBe(600);
    const other = encoded.replace('!600!', '!0600!');
    expect(parseResponse(other).life).toBe(600);
    refuses('ERR_SIGNATURE_INVALID', other);
  });

  it('[V6, M8, X7] has one spelling', () => {
    const encoded = sign(makeResponse());
    const at = encoded.lastIndexOf('!') + 1;
    const sig = encoded.slice(at);
    expect(sig).toHaveLength(172);
    // Of the last character before the padding, two bits are unused.
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.';
    const last = alphabet.indexOf(sig[170] as string);
    for (const bits of [1, 2, 3]) refusesForm(`${encoded.slice(0, at)}${sig.slice(0, 170)}${alphabet[last | bits]}_`);
    for (const other of [
      sig.slice(0, -1),
      sig.replaceAll('_', '='),
      `${sig}_`,
      `${sig} `,
      `${sig.slice(0, 4)}\n${sig.slice(4)}`,
      sig.replaceAll('-', '+').replaceAll('.', '/').replaceAll('_', '='),
    ]) {
      refusesForm(encoded.slice(0, at) + other);
    }
  });

  it('[V6] does not pass from one response to another', () => {
    const cancelled = parseResponse(sign(makeFailure()));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...makeResponse(), sig: cancelled.sig }));
  });

  it('[V6, R4] does not pass from one version to another', () => {
    // Version 3 with its ptags empty and version 2 differ by one separator.
    const two = makeResponse({ ver: 2, ptags: [] });
    const { sig } = parseResponse(sign(two));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...two, ver: 3, sig }));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...two, ver: 1, sig }), { ver: 1 });
  });
});

describe('how the user authenticated', () => {
  const lists = [[], ['pwd'], ['x-a'], ['pwd', 'x-a']];
  const wanted = { iact: [undefined, true, false], aauth: [undefined, ['pwd'], ['x-a'], ['pwd', 'x-a']] } as const;

  const cases = wanted.iact.flatMap((iact) =>
    wanted.aauth.flatMap((aauth) =>
      ['', 'pwd', 'x-a'].flatMap((auth) => lists.map((sso) => ({ iact, aauth, auth, sso }))),
    ),
  );

  type Case = (typeof cases)[number];

  const ok = (acceptable: boolean) => (acceptable ? 'accepted' : 'ERR_AUTH_UNACCEPTABLE');
  const shares = (a: readonly string[], b: readonly string[]) => new Set([...a, ...b]).size < a.length + b.length;

  /** V7 to the letter: a line for each iact, and which code its refusal has. */
  const oracles: Readonly<Record<string, (auth: string, sso: readonly string[], aauth?: readonly string[]) => string>> =
    {
      true: (auth, _, aauth) => (auth === '' ? 'ERR_IACT_UNSATISFIED' : ok(!aauth || aauth.includes(auth))),
      false: (auth, sso, aauth) => (auth !== '' ? 'ERR_IACT_UNSATISFIED' : ok(!aauth || shares(sso, aauth))),
      undefined: (auth, sso, aauth) => ok(!aauth || aauth.includes(auth) || shares(sso, aauth)),
    };

  function oracle({ iact, aauth, auth, sso }: Case): string | undefined {
    if (auth === '' && sso.length === 0) return 'ERR_RESPONSE_MALFORMED';
    return oracles[`${iact}`]?.(auth, sso, aauth);
  }

  function verdict({ iact, aauth, auth, sso }: Case): string {
    try {
      verify({ auth, sso }, { iact, aauth });
      return 'accepted';
    } catch (error) {
      return (error as WebauthError).code;
    }
  }

  it('[V7] is what was asked for, in all 144 cases', () => {
    expect(cases).toHaveLength(144);
    const wrong = cases.filter((each) => verdict(each) !== oracle(each));
    expect(wrong).toEqual([]);
    const counts: Record<string, number> = {};
    for (const each of cases) counts[verdict(each)] = (counts[verdict(each)] ?? 0) + 1;
    expect(counts).toEqual({
      ERR_RESPONSE_MALFORMED: 12,
      accepted: 72,
      ERR_IACT_UNSATISFIED: 44,
      ERR_AUTH_UNACCEPTABLE: 16,
    });
  });

  const unsatisfied = (response: Partial<AuthResponse>, expected: Partial<Expectations>) =>
    expectRefused(() => verify(response, expected), VerificationError, 'ERR_IACT_UNSATISFIED');
  const unacceptable = (response: Partial<AuthResponse>, expected: Partial<Expectations>) =>
    expectRefused(() => verify(response, expected), VerificationError, 'ERR_AUTH_UNACCEPTABLE');

  it('[V7] is just now, where iact is yes', () => {
    expect(verify({ auth: 'pwd' }, { iact: true }).auth).toBe('pwd');
    unsatisfied({ auth: '', sso: ['pwd'] }, { iact: true });
    unsatisfied({ auth: '', sso: ['pwd'] }, { iact: true, aauth: ['pwd'] });
  });

  it('[V7] is by a type of aauth just now, where iact is yes: an earlier one does not do', () => {
    expect(verify({ auth: 'pwd' }, { iact: true, aauth: ['x-a', 'pwd'] }).auth).toBe('pwd');
    unacceptable({ auth: 'x-a', sso: ['pwd'] }, { iact: true, aauth: ['pwd'] });
  });

  it('[V7] is not just now, where iact is no', () => {
    expect(verify({ auth: '', sso: ['pwd'] }, { iact: false }).sso).toEqual(['pwd']);
    unsatisfied({ auth: 'pwd' }, { iact: false });
    unsatisfied({ auth: 'pwd', sso: ['pwd'] }, { iact: false, aauth: ['pwd'] });
    unacceptable({ auth: '', sso: ['x-a', 'x-b'] }, { iact: false, aauth: ['pwd'] });
  });

  it('[V7] is either, where iact is absent, by a type of aauth', () => {
    expect(verify({ auth: 'x-a', sso: ['pwd'] }, { aauth: ['pwd'] }).sso).toEqual(['pwd']);
    expect(verify({ auth: 'pwd', sso: ['x-a'] }, { aauth: ['pwd'] }).auth).toBe('pwd');
    unacceptable({ auth: 'x-a', sso: ['x-b'] }, { aauth: ['pwd'] });
    expect(verify({ auth: 'x-a' }, {}).auth).toBe('x-a');
  });

  it('[V7] is compared whole, and capitals count', () => {
    for (const auth of ['p', 'pw', 'pwdx', 'PWD', ' pwd', 'pwd,x-a']) {
      unacceptable({ auth }, { aauth: ['pwd'] });
      unacceptable({ auth, sso: ['PWD'] }, { aauth: ['pwd'] });
    }
  });
});

describe('a failure', () => {
  const codes: Readonly<Record<FailureStatus, ErrorCode>> = {
    410: 'ERR_WLS_CANCELLED',
    510: 'ERR_WLS_NO_ATYPES',
    520: 'ERR_WLS_VERSION',
    530: 'ERR_WLS_REQUEST',
    540: 'ERR_WLS_INTERACTION',
    560: 'ERR_WLS_UNAUTHORISED',
    570: 'ERR_WLS_DECLINED',
  };
  const failure = (status: FailureStatus, overrides: Partial<AuthResponse> = {}) =>
    makeFailure({ status, ver: status === 520 ? 1 : 3, ...overrides });

  it('[F1] has one of seven statuses', () => {
    expect(Object.keys(codes)).toEqual(statuses.map(String));
  });

  it.each(statuses)('[F1, F2] has its own code, signed or not, and carries the response: %i', (status) => {
    for (const make of [sign, unsigned]) {
      const encoded = make(failure(status, { msg: 'why', life: 300 }));
      const response = fails(codes[status], encoded);
      expect(response).toStrictEqual(parseResponse(encoded));
      expect(response).toMatchObject({ status, msg: 'why', life: 300, principal: '' });
    }
  });

  it.each(statuses)('[F1] is a 401 with a sentence for the person: %i', (status) => {
    const error = thrownBy(() => verifyResponse(sign(failure(status)), expectations())) as StatusError;
    expect(error).toMatchObject({ status: 401, closeCode: 4401, expose: true, name: 'StatusError' });
    expect(error.message).toMatch(/^the login/);
  });

  it.each(statuses)('[F2] answers this attempt, at this time, or is refused: %i', (status) => {
    for (const make of [sign, unsigned]) {
      refuses('ERR_URL_MISMATCH', make(failure(status, { url: 'https://evil.example.org/' })));
      refuses('ERR_PARAMS_MISMATCH', make(failure(status, { params: 'x' })));
      refuses('ERR_PARAMS_MISMATCH', make(failure(status, { params: '' })));
      refuses('ERR_ISSUE_STALE', make(failure(status, { issue: later(-31_000) })));
      refuses('ERR_ISSUE_FUTURE', make(failure(status, { issue: later(6_000) })));
    }
  });

  it('[F2, V2] names a key of this service, if any', () => {
    refuses('ERR_KEY_UNKNOWN', formatResponse({ ...makeFailure({ kid: '8' }), sig: undefined }));
    fails('ERR_WLS_CANCELLED', formatResponse({ ...makeFailure({ kid: '7' }), sig: undefined }));
    fails('ERR_WLS_CANCELLED', unsigned(makeFailure()), { keys: new KeySet() });
  });

  it.each(statuses)('[F3] with a signature that does not verify is refused: %i', (status) => {
    refuses('ERR_SIGNATURE_INVALID', sign(failure(status), stranger.privateKey));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...failure(status), sig: Buffer.alloc(128) }));
    const { sig } = parseResponse(sign(failure(status)));
    refuses('ERR_SIGNATURE_INVALID', formatResponse({ ...failure(status, { msg: 'changed' }), sig }));
  });

  it('[F2, V7] is not asked how the user authenticated', () => {
    for (const iact of [true, false]) fails('ERR_WLS_CANCELLED', sign(makeFailure()), { iact, aauth: ['pwd'] });
  });

  it('[F4] of a login of version 3 comes back in version 1', () => {
    const response = fails('ERR_WLS_CANCELLED', sign(makeFailure({ ver: 1 })), { ver: 3 });
    expect(response).toMatchObject({ ver: 1, status: 410 });
  });
});

describe('the order of the checks', () => {
  // Each of these responses is as wrong as the ones before, but for one thing.
  it('[V1, V2, V3, V4, V5, V6, V7] is: form, version, kid, url, params, issue, signature, authentication', () => {
    const attempt = expectations({ iact: true, aauth: ['pwd'], now });
    const wrong: Partial<AuthResponse> = {
      ver: 2,
      kid: '8',
      url: 'https://evil.example.org/',
      params: 'x',
      issue: later(-60_000),
      auth: '',
      sso: ['x-a'],
      id: '',
    };
    const codeOf = (right: Partial<AuthResponse>, key = stranger) =>
      (
        thrownBy(() =>
          verifyResponse(sign(makeResponse({ ...wrong, ...right }), key.privateKey), attempt),
        ) as WebauthError
      ).code;
    const good = makeResponse();
    let right: Partial<AuthResponse> = {};
    const next = (more: Partial<AuthResponse>, key = stranger) => {
      right = { ...right, ...more };
      return codeOf(right, key);
    };
    expect(next({})).toBe('ERR_RESPONSE_MALFORMED');
    expect(next({ id: '1' })).toBe('ERR_RESPONSE_VERSION');
    expect(next({ ver: 3, ptags: [] })).toBe('ERR_KEY_UNKNOWN');
    expect(next({ kid: good.kid })).toBe('ERR_URL_MISMATCH');
    expect(next({ url: good.url })).toBe('ERR_PARAMS_MISMATCH');
    expect(next({ params: good.params })).toBe('ERR_ISSUE_STALE');
    expect(next({ issue: later(60_000) })).toBe('ERR_ISSUE_FUTURE');
    expect(next({ issue: now })).toBe('ERR_SIGNATURE_INVALID');
    expect(next({}, wlsKey)).toBe('ERR_IACT_UNSATISFIED');
    expect(next({ auth: 'x-a' }, wlsKey)).toBe('ERR_AUTH_UNACCEPTABLE');
    expect(verifyResponse(sign(makeResponse({ ...wrong, ...right, auth: 'pwd' })), attempt).auth).toBe('pwd');
  });

  it('[V5, V6] makes no use of the key before the cheap checks are passed', () => {
    let used = 0;
    const counting = new Proxy(keys, {
      get(target, name) {
        if (name !== 'get') return Reflect.get(target, name, target);
        return (kid: string) => {
          const found = target.get(kid);
          return (
            found &&
            new Proxy(found, {
              get: (key, property) => {
                used += 1;
                return Reflect.get(key, property);
              },
            })
          );
        };
      },
    });
    refuses('ERR_URL_MISMATCH', sign(makeResponse({ url: 'x' })), { keys: counting });
    refuses('ERR_PARAMS_MISMATCH', sign(makeResponse({ params: 'x' })), { keys: counting });
    refuses('ERR_ISSUE_STALE', sign(makeResponse()), { keys: counting, now: later(60_000) });
    refuses('ERR_ISSUE_FUTURE', sign(makeResponse()), { keys: counting, now: later(-60_000) });
    expect(used).toBe(0);
    verifyResponse(sign(makeResponse()), expectations({ keys: counting }));
    expect(used).toBeGreaterThan(0);
  });
});

describe('expectations that cannot be used', () => {
  const wrong: readonly [string, Record<string, unknown>][] = [
    ['no keys', { keys: undefined }],
    ['keys that are a plain object', { keys: { 7: wlsKey.pem } }],
    ['no url', { url: undefined }],
    ['an empty url', { url: '' }],
    ['a URL object', { url: new URL('https://app.example.org/') }],
    ['no params', { params: undefined }],
    ['params that are not text', { params: 0 }],
    ['an invalid date', { now: new Date(Number.NaN) }],
    ['a responseTimeout that is not a number', { responseTimeout: Number.NaN }],
    ['a responseTimeout without end', { responseTimeout: Number.POSITIVE_INFINITY }],
    ['a negative responseTimeout', { responseTimeout: -1 }],
    ['a responseTimeout in text', { responseTimeout: '30' }],
    ['a clockSkew that is not a number', { clockSkew: Number.NaN }],
    ['a clockSkew without end', { clockSkew: Number.POSITIVE_INFINITY }],
    ['a negative clockSkew', { clockSkew: -1 }],
    ['a clockSkew in text', { clockSkew: '5' }],
    ['iact in the words of the wire', { iact: 'yes' }],
    ['an iact of null', { iact: null }],
    ['an empty aauth', { aauth: [] }],
    ['an aauth in the words of the wire', { aauth: 'pwd,x-a' }],
    ['an aauth of null', { aauth: null }],
    ['a version that there is not', { ver: 4 }],
    ['a version in text', { ver: '3' }],
  ];

  it.each(wrong)('[V1, V3, V4, V5, V7] are a TypeError, whatever the response: %s', (_, overrides) => {
    for (const encoded of [sign(makeResponse()), unsigned(makeFailure()), 'rubbish']) {
      const error = thrownBy(() => verifyResponse(encoded, expectations(overrides as Partial<Expectations>)));
      expect((error as object).constructor).toBe(TypeError);
    }
  });
});

describe('what an error says', () => {
  const secret = {
    principal: 'PRINCIPAL-spqr1',
    params: 'PARAMS-token',
    msg: 'MSG-text',
    id: 'ID-1',
    url: 'https://evil.example.org/URL-path',
    auth: 'AUTH-type',
    sso: ['SSO-type'],
    ptags: ['PTAGS-tag'],
  };
  const offered = makeResponse(secret);
  const { url, params } = offered;
  const attempt = { url, params };
  const bad = parseResponse(sign(offered, stranger.privateKey));
  const successes: readonly [ErrorCode, string, Partial<Expectations>][] = [
    ['ERR_RESPONSE_VERSION', sign(offered), { ...attempt, ver: 2 }],
    ['ERR_RESPONSE_VERSION', sign(offered).replace(/^3/, 'VER'), attempt],
    ['ERR_KEY_UNKNOWN', sign({ ...offered, kid: '8' }), attempt],
    ['ERR_URL_MISMATCH', sign(offered), { params }],
    ['ERR_PARAMS_MISMATCH', sign(offered), { url }],
    ['ERR_PARAMS_MISMATCH', sign(offered), { url, params: null }],
    ['ERR_ISSUE_STALE', sign(offered), { ...attempt, now: later(60_000) }],
    ['ERR_ISSUE_FUTURE', sign(offered), { ...attempt, now: later(-60_000) }],
    ['ERR_SIGNATURE_MISSING', unsigned(offered), attempt],
    ['ERR_SIGNATURE_INVALID', formatResponse(bad), attempt],
    ['ERR_AUTH_UNACCEPTABLE', sign(offered), { ...attempt, aauth: ['pwd'] }],
    ['ERR_IACT_UNSATISFIED', sign(offered), { ...attempt, iact: false }],
    ['ERR_IACT_UNSATISFIED', sign({ ...offered, auth: '' }), { ...attempt, iact: true }],
    ['ERR_WLS_CANCELLED', sign(makeFailure({ params, url, msg: secret.msg, id: secret.id })), attempt],
    ...sign(offered)
      .split('!')
      .slice(1)
      .map((_, index, fields): [ErrorCode, string, Partial<Expectations>] => {
        const spoiled = fields.map((field, at) => (at === index ? `${field}%` : field));
        return ['ERR_RESPONSE_MALFORMED', ['3', ...spoiled].join('!'), attempt];
      }),
    ['ERR_RESPONSE_MALFORMED', sign(makeFailure(secret)), attempt],
    ['ERR_RESPONSE_MALFORMED', `${sign(offered)}!PRINCIPAL`, attempt],
  ];

  it.each(successes)(
    '[V6, X10] is nothing of the response’s signature, params, principal and text: %s',
    (code, encoded, expected) => {
      const error = thrownBy(() => verifyResponse(encoded, expectations(expected))) as WebauthError;
      expect(error.code).toBe(code);
      const said = `${error.message} ${error.stack}`;
      expect(said).not.toMatch(/PRINCIPAL|PARAMS|MSG|ID-|URL-path|AUTH-|SSO-|PTAGS|VER/);
      const sig = encoded.slice(encoded.lastIndexOf('!') + 1);
      if (sig.length > 8)
        for (let at = 0; at + 8 <= sig.length; at += 4) expect(said).not.toContain(sig.slice(at, at + 8));
    },
  );

  it('[V3] is the url that was expected', () => {
    const { message } = refuses('ERR_URL_MISMATCH', sign(makeResponse({ url })));
    expect(message).toContain(expectations().url);
  });
});

describe('the real responses', () => {
  const genuine: { response: string }[] = JSON.parse(
    readFileSync(new URL('vectors/real-responses.json', import.meta.url), 'utf8'),
  );
  const [request, success, cancel] = genuine.map(({ response }) => response) as [string, string, string];
  const at = (encoded: string, keys: KeySet): Expectations => {
    const { url, issue } = parseResponse(encoded);
    return { keys, url, params: null, now: issue };
  };

  it('[V6, F1] of Raven in 2005: an error in the request', () => {
    const call = () => verifyResponse(request, at(request, bundledKey('2')));
    expect(expectRefused(call, StatusError<AuthResponse>, 'ERR_WLS_REQUEST').response).toMatchObject({
      ver: 1,
      status: 530,
      msg: "Missing required parameter 'ver'",
      issue: new Date('2005-03-17T15:16:28Z'),
      id: '1111072588-26568-7',
      url: 'http://raven.cam.ac.uk/debug.html',
      kid: '2',
    });
  });

  it('[V6, V7] of the demonstration service in 2013: a login', () => {
    const expected = at(success, bundledKey('901'));
    expect(verifyResponse(success, expected)).toMatchObject({
      ver: 3,
      status: 200,
      issue: new Date('2013-07-04T12:24:13Z'),
      id: '1372940650-10196-2',
      principal: 'test0001',
      ptags: ['current'],
      auth: '',
      sso: ['pwd'],
      life: 35873,
      params: '',
    });
    expect(verifyResponse(success, { ...expected, iact: false, aauth: ['pwd'] }).principal).toBe('test0001');
    const again = () => verifyResponse(success, { ...expected, iact: true });
    expectRefused(again, VerificationError, 'ERR_IACT_UNSATISFIED');
  });

  it('[V6, F4] of the demonstration service in 2013: a login cancelled, in version 1', () => {
    const call = () => verifyResponse(cancel, at(cancel, bundledKey('901')));
    expect(expectRefused(call, StatusError<AuthResponse>, 'ERR_WLS_CANCELLED').response).toMatchObject({
      ver: 1,
      msg: '',
    });
  });

  it('[V5] are stale today', () => {
    for (const encoded of genuine.map(({ response }) => response)) {
      const { kid, url } = parseResponse(encoded) as AuthResponse & { kid: '2' | '901' };
      const call = () => verifyResponse(encoded, { keys: bundledKey(kid), url, params: null });
      expectRefused(call, VerificationError, 'ERR_ISSUE_STALE');
    }
  });

  it('[V2] are refused where the other service was asked', () => {
    for (const encoded of [success, cancel]) {
      const call = () => verifyResponse(encoded, at(encoded, raven.keys));
      expectRefused(call, VerificationError, 'ERR_KEY_UNKNOWN');
    }
  });

  it('[V6] are refused with a character changed', () => {
    const fields = success.split('!');
    fields[6] = 'test0002';
    const call = () => verifyResponse(fields.join('!'), at(success, bundledKey('901')));
    expectRefused(call, VerificationError, 'ERR_SIGNATURE_INVALID');
  });
});

/** What `WLS-Response` says, in the query of the request, to the end of the way. */
function arrive(query: string, expected: Partial<Expectations> = {}) {
  return verifyResponse(responseFromQuery(query), expectations(expected));
}

describe('a mistake that others made', () => {
  const inQuery = (encoded: string) => `WLS-Response=${encodeURIComponent(encoded)}`;

  it('[X1] an address of the attacker’s own, in a response that is genuine', () => {
    const call = () => arrive(inQuery(sign(makeResponse({ url: 'https://evil.example.org/' }))));
    expectRefused(call, VerificationError, 'ERR_URL_MISMATCH');
  });

  it('[X3] %2521 stays %21 in its field', () => {
    // On the wire, after the query is decoded, the principal is this; decoded once too often it is three fields.
    const principal = 'test0001%21current%21pwd';
    const encoded = sign(makeResponse({ principal }));
    expect(encoded).toContain('test0001%2521current%2521pwd');
    expect(arrive(inQuery(encoded)).principal).toBe(principal);
  });

  it('[X3] an attacker’s own params cannot become fields', () => {
    // Fields of a victim, in params that a user chose, with separators that appear after one decoding more.
    const params = 'x!7!sig%21%2521';
    const response = arrive(inQuery(sign(makeResponse({ params }))), { params });
    expect(response).toMatchObject({ principal: 'test0001', params, kid: '7' });
    refusesForm(decodeURIComponent(sign(makeResponse({ params }))), { params });
  });

  it('[X3] what was encoded twice for the query is no response', () => {
    const form = (text: string) => new URLSearchParams([['', text]]).toString().slice(1);
    const encoded = sign(makeResponse());
    expect(arrive(`WLS-Response=${form(encoded)}`).principal).toBe('test0001');
    expectRefused(() => arrive(`WLS-Response=${form(form(encoded))}`), ResponseError, 'ERR_RESPONSE_VERSION');
    expectRefused(() => arrive(inQuery(encodeURIComponent(encoded))), ResponseError, 'ERR_RESPONSE_MALFORMED');
  });

  it('[X4] fields too many, that shift or hide others', () => {
    const fields = sign(makeResponse()).split('!');
    for (let at = 1; at < fields.length; at++) {
      refusesForm([...fields.slice(0, at), 'victim', ...fields.slice(at)].join('!'));
      refusesForm(fields.toSpliced(at, 1).join('!'));
    }
  });

  it('[X6] a response from next year, kept until then', () => {
    const issue = new Date('2027-03-01T12:00:00Z');
    refuses('ERR_ISSUE_FUTURE', sign(makeResponse({ issue })));
  });

  it('[X7] a signature in the usual base64, or nearly that of the protocol', () => {
    const encoded = sign(makeResponse());
    const at = encoded.lastIndexOf('!') + 1;
    const usual = encoded.slice(at).replaceAll('-', '+').replaceAll('.', '/').replaceAll('_', '=');
    refusesForm(encoded.slice(0, at) + usual);
    refusesForm(`${encoded.slice(0, at)}*${encoded.slice(at)}`);
  });

  it.each([
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    '../7',
    '7.pem',
    '/etc/passwd',
    '07',
    '7\n',
    '7\0',
  ])('[X8] the kid %j', (kid) => {
    refusesForm(sign(makeResponse({ kid })));
    refusesForm(sign(makeFailure({ kid })));
    refusesForm(formatResponse({ ...makeFailure({ kid }), sig: undefined }));
  });

  it('[X9] two responses, or a list of them', () => {
    const good = inQuery(sign(makeResponse()));
    const other = inQuery(sign(makeResponse({ principal: 'test0002' })));
    for (const query of [`${good}&${good}`, `${good}&${other}`, `${good}&${other.replace('=', '[]=')}`]) {
      expectRefused(() => arrive(query), ResponseError, 'ERR_RESPONSE_DUPLICATED');
    }
  });

  it('[X10] a broken escape, which is the sender’s mistake', () => {
    for (const query of ['WLS-Response=%', 'WLS-Response=%ff', `${inQuery(sign(makeResponse()))}%e9`]) {
      const error = expectRefused(() => arrive(query), ResponseError, 'ERR_RESPONSE_MALFORMED');
      expect(error.status).toBe(400);
    }
  });

  it('[X17] the token of an attempt, in a response made for the attacker’s site', () => {
    // The attacker had the application make the token, and the victim log in at his own site with it.
    const stolen = { url: 'https://evil.example.org/', params: expectations().params as string };
    refuses('ERR_URL_MISMATCH', sign(makeResponse(stolen)));
  });

  it.each([1, 2] as Version[])('[X18] a success in version %i, for the sake of the ptags that it implies', (ver) => {
    const call = () => verify({ ver }, { oldVersionPtags: ['current'] });
    expectRefused(call, ResponseError, 'ERR_RESPONSE_VERSION');
  });
});
