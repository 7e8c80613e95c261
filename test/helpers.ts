import { checkPrimeSync, createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { expect } from 'vitest';
import type { ErrorCode } from '../src/errors.js';
import { KeySet } from '../src/keys.js';
import { type AuthResponse, formatResponse, formatSigned } from '../src/response.js';
import { signText } from '../src/signature.js';
import { type Expectations, type VerifiedResponse, verifyResponse } from '../src/verify.js';

/** As many bytes as wanted, always the same for the same seed. */
export function seededBytes(seed: string, length: number): Buffer {
  return createHash('shake256', { outputLength: length }).update(seed).digest();
}

/** Numbers from 0 up to, not including, `below`: always the same ones for the same seed. */
export function seededNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export interface TestKey {
  readonly privateKey: KeyObject;
  /** The public half: SPKI in PEM. */
  readonly pem: string;
  readonly bits: number;
  /** Length of the modulus in bytes. */
  readonly length: number;
  readonly n: bigint;
}

/** An RSA key of exactly that many bits, always the same one for the same arguments. */
export function makeKey(bits: number, seed = 'a key', exponent = 65537n): TestKey {
  for (let round = 0; ; round++) {
    const p = makePrime(bits - (bits >> 1), `${seed} ${bits} p ${round}`, exponent);
    const q = makePrime(bits >> 1, `${seed} ${bits} q ${round}`, exponent);
    const n = p * q;
    if (p === q || n.toString(2).length !== bits) continue;
    const d = inverse(exponent, (p - 1n) * (q - 1n));
    const numbers = { n, e: exponent, d, p, q, dp: d % (p - 1n), dq: d % (q - 1n), qi: inverse(q, p) };
    const texts = Object.entries(numbers).map(([name, value]) => [name, toBytes(value).toString('base64url')]);
    const privateKey = createPrivateKey({ key: { kty: 'RSA', ...Object.fromEntries(texts) }, format: 'jwk' });
    const pem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }) as string;
    return { privateKey, pem, bits, length: Math.ceil(bits / 8), n };
  }
}

function makePrime(bits: number, seed: string, exponent: bigint): bigint {
  const random = BigInt.asUintN(bits, toNumber(seededBytes(seed, Math.ceil(bits / 8))));
  // The two highest bits make the product long enough more often than not.
  let prime = random | (3n << BigInt(bits - 2)) | 1n;
  while ((prime - 1n) % exponent === 0n || !checkPrimeSync(prime, { checks: 8 })) prime += 2n;
  return prime;
}

function inverse(value: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [modulus, value % modulus, 0n, 1n];
  while (b !== 0n) [a, b, x, y] = [b, a % b, y, x - (a / b) * y];
  return ((x % modulus) + modulus) % modulus;
}

/** Big-endian, as short as it gets or padded with zeros to the length. */
export function toBytes(value: bigint, length = 1): Buffer {
  const hex = value.toString(16);
  return Buffer.from(hex.padStart(Math.max(length * 2, hex.length + (hex.length % 2)), '0'), 'hex');
}

export function toNumber(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex') || '0'}`);
}

/** The key of the login service in the tests, and its kid. */
export const wlsKey: TestKey = makeKey(1024, 'login service');
export const wlsKid = '7';
export const keys: KeySet = KeySet.from({ [wlsKid]: wlsKey.pem });

/** When everything in the tests happens. */
export const now: Date = new Date('2026-03-01T12:00:00Z');

/** A good success of version 3, or of another version, but for what is given. Not signed yet. */
export function makeResponse(overrides: Partial<AuthResponse> = {}): AuthResponse {
  return {
    ver: 3,
    status: 200,
    msg: '',
    issue: now,
    id: '1772366400-4711-1',
    url: 'https://app.example.org/webauth/callback',
    principal: 'test0001',
    ptags: overrides.ver === 1 || overrides.ver === 2 ? [] : ['current'],
    auth: 'pwd',
    sso: [],
    life: 36000,
    params: 'the token of this attempt',
    kid: wlsKid,
    sig: undefined,
    ...overrides,
  };
}

/** A good failure, but for what is given. Not signed yet. */
export function makeFailure(overrides: Partial<AuthResponse> = {}): AuthResponse {
  return makeResponse({ status: 410, principal: '', ptags: [], auth: '', sso: [], life: undefined, ...overrides });
}

/** The response as it travels, signed. */
export function sign(response: AuthResponse, key: KeyObject = wlsKey.privateKey): string {
  return formatResponse({ ...response, sig: signText(key, formatSigned(response)) });
}

/** The response as it travels, without kid and signature. */
export function unsigned(response: AuthResponse): string {
  return formatResponse({ ...response, kid: '', sig: undefined });
}

/** What an attempt expects that {@link makeResponse} answers, but for what is given. */
export function expectations(overrides: Partial<Expectations> = {}): Expectations {
  const { url, params } = makeResponse();
  return { keys, url, params, now, ...overrides };
}

/** Verifies a signed response that is good, but for what is given, against an attempt that is, but for what is given. */
export function verify(response: Partial<AuthResponse> = {}, expected: Partial<Expectations> = {}): VerifiedResponse {
  return verifyResponse(sign(makeResponse(response)), expectations(expected));
}

/** What the call throws; the test fails if it throws nothing. */
export function thrownBy(call: () => unknown): unknown {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    return error;
  }
  return expect.fail(`nothing was thrown; the result is ${JSON.stringify(result)}`);
}

/** Holds that the call throws an error of exactly this class and code. */
export function expectRefused<E extends { readonly code: ErrorCode }>(
  call: () => unknown,
  // Abstract in type only: what its constructor takes is of no interest here.
  kind: abstract new (...args: never[]) => E,
  code: ErrorCode,
): E {
  const error = thrownBy(call) as E;
  expect({ kind: (error as object).constructor, code: error.code }).toEqual({ kind, code });
  return error;
}
