import { readFileSync } from 'node:fs';
import { StatusError, WebauthError } from '../../src/errors.js';
import { bundledKey, KeySet } from '../../src/keys.js';
import { type AuthResponse, parseResponse, signedPart } from '../../src/response.js';
import { forgeEngine, opensslEngine } from '../../src/signature.js';
import { type Expectations, verifyResponse } from '../../src/verify.js';
import { makeFailure, makeKey, makeResponse, now, sign, wlsKey, wlsKid } from '../helpers.js';
import { Dice } from './dice.js';
import { mutateResponse } from './mutations.js';
import { Report, Tally } from './report.js';

export interface ResponseRun {
  readonly seed: number;
  /** The index of the first one. */
  readonly from: number;
  readonly count: number;
}

/** What came of mutated responses. */
export class ResponseReport extends Report {
  count = 0;
  /** Spliced together to what is, byte for byte, another genuine one. */
  accepted = 0;
  /** Failures that carry no signature: believed only in that nobody logged in. */
  unsigned = 0;
  /** Signatures that both engines judged; and of these, found right. */
  compared = 0;
  right = 0;
  /** Why responses were refused that were expected with all that they say: for their form or signature only. */
  readonly refused: Tally<string> = new Tally();
  /** The same, for an attempt that the genuine one answers. */
  readonly refusedForAttempt: Tally<string> = new Tally();
}

/** Of so many signatures, one goes to the slow engine too. */
const FORGE_EVERY = 16;

/** Mutates genuine responses, and holds that none is accepted that is not, byte for byte, a genuine one. */
export function* fuzzResponses({ seed, from, count }: ResponseRun): Generator<number, ResponseReport> {
  const report = new ResponseReport();
  for (const { encoded, expected } of genuine) {
    if (!isAccepted(judge(encoded, expected))) report.findings.push(`a genuine response is refused: ${show(encoded)}`);
  }
  for (let index = from; index < from + count && !report.isFull; index++) {
    report.count += 1;
    const problem = tryOne(seed, index, report);
    if (problem !== undefined) report.findings.push(`seed ${seed}, response ${index}: ${problem}`);
    if (index % 1000 === 0) yield index - from;
  }
  return report;
}

/** Mutates one and judges it in all ways; the answer is what is wrong. */
function tryOne(seed: number, index: number, report: ResponseReport): string | undefined {
  const dice = new Dice(seed, index);
  const { encoded, expected } = dice.pick(genuine);
  let mutated = encoded;
  while (mutated === encoded) mutated = mutateResponse(encoded, dice, { others, keys });
  const forAttempt = judge(mutated, expected);
  const byItself = judge(mutated, expectedBy(mutated) ?? expected);
  record(forAttempt, report.refusedForAttempt);
  record(byItself, report.refused);
  if (byItself === 'unsigned failure') report.unsigned += 1;
  if (isAccepted(byItself)) report.accepted += 1;
  const wrong = [forAttempt, byItself].find((verdict) => isMistake(verdict, mutated));
  if (wrong !== undefined) return `${wrong}: ${show(mutated)}, which was ${show(encoded)}`;
  return compareEngines(mutated, index, report);
}

type Verdict = 'accepted' | 'failure' | 'unsigned failure' | `ERR_${string}` | `threw ${string}`;

function judge(encoded: string, expected: Expectations): Verdict {
  try {
    verifyResponse(encoded, expected);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof WebauthError)) return `threw ${error}`;
    if (!(error instanceof StatusError)) return error.code as Verdict;
    return (error.response as AuthResponse).sig === undefined ? 'unsigned failure' : 'failure';
  }
}

function isAccepted(verdict: Verdict): boolean {
  return verdict === 'accepted' || verdict === 'failure';
}

function isMistake(verdict: Verdict, mutated: string): boolean {
  // What is outside of the signed part, the kid and the signature, has to be as it was too.
  if (isAccepted(verdict)) return !genuineTexts.has(mutated);
  return verdict.startsWith('threw');
}

function record(verdict: Verdict, refused: Tally<string>): void {
  if (verdict.startsWith('ERR_')) refused.add(verdict);
}

/** An attempt that everything in the response fits, so that nothing but its form and signature can refuse it. */
function expectedBy(encoded: string): Expectations | undefined {
  try {
    const { ver, url, params, issue } = parseResponse(encoded);
    return { keys, ver, url, params, now: issue };
  } catch {
    return undefined;
  }
}

/** Node's engine judges each signature, forge a share: they agree, and with whether the response is genuine. */
function compareEngines(encoded: string, index: number, report: ResponseReport): string | undefined {
  if (index % FORGE_EVERY !== 0) return undefined;
  const { kid, sig } = parsed(encoded) ?? {};
  const key = keys.get(kid ?? '');
  if (sig === undefined || key === undefined) return undefined;
  const [node, forge] = [opensslEngine, forgeEngine].map((engine) => engine.verify(key, signedPart(encoded), sig));
  report.compared += 1;
  if (node) report.right += 1;
  if (node === forge && node === genuineTexts.has(encoded)) return undefined;
  return `node says ${node}, forge ${forge}: ${show(encoded)}`;
}

function parsed(encoded: string): AuthResponse | undefined {
  try {
    return parseResponse(encoded);
  } catch {
    return undefined;
  }
}

function show(text: string): string {
  return JSON.stringify(text).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

interface Genuine {
  readonly encoded: string;
  readonly expected: Expectations;
}

const otherKey = makeKey(1024, 'another login service');
const keys = KeySet.from({ [wlsKid]: wlsKey.pem, 8: otherKey.pem });
for (const kid of ['2', '901'] as const) {
  // A profile has one service's keys; here all of them are at hand, to be mixed up.
  keys.add(kid, bundledKey(kid).get(kid)?.key.export({ type: 'spki', format: 'pem' }) as string);
}

function made(overrides: Partial<AuthResponse>, key = wlsKey): Genuine {
  const response = overrides.status === undefined ? makeResponse(overrides) : makeFailure(overrides);
  const { ver, url, params } = response;
  return { encoded: sign(response, key.privateKey), expected: { keys, ver, url, params, now } };
}

function vectors(): Genuine[] {
  const file = new URL('../vectors/real-responses.json', import.meta.url);
  const responses = JSON.parse(readFileSync(file, 'utf8')) as { response: string }[];
  return responses.map(({ response }) => {
    const expected = expectedBy(response);
    if (expected === undefined) throw new Error(`not a response: ${response}`);
    return { encoded: response, expected };
  });
}

/** Of each version, successes and failures, of several keys, and with all in them that an encoding can be about. */
const genuine: readonly Genuine[] = [
  made({}),
  made({ principal: 'test0002', id: 'gF3-x_9/Zr+0', ptags: ['current', 'staff'], life: 1 }),
  made({ auth: '', sso: ['pwd', 'x-card'] }),
  made({ msg: 'a ! and a % and %21, "quoted"', params: '{"a":"100%!"}' }),
  made({ msg: 'U+FFFD \ufffd, é, e\u0301, ض, 😀', params: '\ufffd' }),
  made({ params: '' }),
  made({ ver: 1 }),
  made({ ver: 2, sso: ['pwd'] }),
  made({ status: 410, msg: 'cancelled' }),
  made({ ver: 1, status: 530 }),
  made({ status: 570, msg: '\ufffd %25' }),
  made({ kid: '8', principal: 'test0003' }, otherKey),
  made({ kid: '8', auth: 'x-card', params: 'q' }, otherKey),
  ...vectors(),
];
const others = genuine.map(({ encoded }) => encoded);
const genuineTexts: ReadonlySet<string> = new Set(others);
