import { text as readAll } from 'node:stream/consumers';
import { formatDate, parseDate } from '../codec.js';
import { errorTable, ResponseError, type WebauthError } from '../errors.js';
import { KeySet, type PublicKey } from '../keys.js';
import { isDemoKey, raven, ravenDemo } from '../profiles.js';
import { type AuthResponse, failures, parseResponse, type Version } from '../response.js';
import { checks, type Expectations } from '../verify.js';
import { formatKey, readKeys } from './key-files.js';
import { type FoundResponse, findResponse } from './response-input.js';
import { describeSystemError } from './system-errors.js';
import { type Call, printable, UsageError } from './usage.js';

/**
 * Prints, check by check, whether a response passes, and a verdict.
 *
 * @returns the exit status of the first check that fails.
 */
export async function verify({ words, options }: Call): Promise<number> {
  const { encoded, form, response } = read(words[0] ?? (await readInput()));
  const { expected, acceptsDemoKey } = readExpectations(options, response);
  console.log(`Input: ${form}\n`);
  printFields(response);
  const results = runChecks({ encoded, response, expected, options, acceptsDemoKey });
  for (const result of results) console.log(formatResult(result));
  printKey(response, expected.keys);
  console.log(`\n${formatVerdict(response, results)}`);
  return results.find(({ outcome }) => outcome === 'FAILS')?.exit ?? 0;
}

async function readInput(): Promise<string> {
  if (process.stdin.isTTY) throw new UsageError('give the response as an argument, or on standard input');
  try {
    return await readAll(process.stdin);
  } catch (error) {
    throw new Error(describeSystemError(error, 'standard input') ?? String(error), { cause: error });
  }
}

/** @throws ResponseError with the verdict in its message: it is the only line that is printed. */
function read(input: string): FoundResponse & { readonly response: AuthResponse } {
  try {
    const found = findResponse(input);
    return { ...found, response: parseResponse(found.encoded) };
  } catch (error) {
    if (error instanceof ResponseError) error.message = `not a valid response: ${error.message}`;
    throw error;
  }
}

interface Setting {
  readonly expected: Expectations & { readonly now: Date };
  /** Whether a success that the published demonstration key signed passes. */
  readonly acceptsDemoKey: boolean;
}

function readExpectations(options: Call['options'], response: AuthResponse): Setting {
  const { url = response.url, params = response.params, at, ver, iact, aauth } = options;
  if (ver !== undefined && !/^[123]$/.test(ver)) throw new UsageError('--ver is 1, 2 or 3');
  if (aauth === '') throw new UsageError('--aauth is a list of types, such as pwd');
  if (iact !== undefined && iact !== 'yes' && iact !== 'no') throw new UsageError('--iact is yes or no');
  if (url === '') throw new UsageError('--url is the URL that the response has to be for');
  const now = readInstant(at, response);
  const given = options.keys === undefined ? undefined : readKeys(options.keys, response.kid || undefined);
  return {
    expected: {
      url,
      params,
      keys: given?.keys ?? bundledKeys(),
      now,
      ver: ver === undefined ? (response.status === 200 ? response.ver : 3) : (Number(ver) as Version),
      iact: iact === undefined ? undefined : iact === 'yes',
      aauth: aauth?.split(','),
    },
    // A key that is named alone is meant; a folder may hold it among others.
    acceptsDemoKey: options.demo === true || given?.isFolder === false,
  };
}

function readInstant(at: string | undefined, response: AuthResponse): Date {
  if (at === undefined) return new Date();
  const instant = at === 'issue' ? response.issue : parseDate(at);
  if (instant === undefined) throw new UsageError('--at is a date of the form YYYYMMDDTHHMMSSZ, or "issue"');
  return instant;
}

function bundledKeys(): KeySet {
  const all = new KeySet();
  for (const { keys } of [raven, ravenDemo]) for (const kid of keys.kids) all.add(kid, formatKey(keys, kid).spki);
  return all;
}

function printFields(response: AuthResponse): void {
  for (const [name, value] of Object.entries(response)) {
    if (name === 'sig') continue;
    const text = value instanceof Date ? formatDate(value) : [value ?? []].flat().join(',');
    console.log(`  ${name.padEnd(9)} ${printable(text)}`);
  }
  console.log('');
}

interface Result {
  readonly name: string;
  readonly outcome: 'holds' | 'FAILS' | 'not asked' | 'nothing';
  readonly sentence: string;
  readonly details?: readonly string[];
  /** Exit status, if it fails. */
  readonly exit?: number;
}

interface Facts extends Setting {
  readonly encoded: string;
  readonly response: AuthResponse;
  readonly options: Call['options'];
}

function runChecks(facts: Facts): Result[] {
  const { encoded, response, expected, options } = facts;
  const form = 'every field must have the form that the protocol gives it';
  const results: Result[] = [{ name: 'form', outcome: 'holds', sentence: form }];
  for (const { name, requirement, run } of checks) {
    const skipped = skip(name, response, options);
    if (skipped !== undefined) {
      results.push({ name, ...skipped });
      continue;
    }
    const error = run({ encoded, response, expected, now: expected.now.getTime() });
    results.push(toResult(name, requirement, error, facts));
    if (name === 'sig') results.push(...checkDemoKey(facts));
    // The fields that a failure leaves empty say nothing about iact and aauth.
    if (response.status !== 200 && name === 'status') break;
  }
  return results;
}

function toResult(
  name: string,
  sentence: string,
  error: WebauthError | undefined,
  { response, expected }: Facts,
): Result {
  const measured = name === 'issue' ? [formatAge(expected.now.getTime() - response.issue.getTime())] : [];
  if (error === undefined) return { name, outcome: 'holds', sentence, details: measured };
  const details = [...measured, `${error.code}: ${printable(error.message)}`];
  return { name, outcome: 'FAILS', sentence, details, exit: errorTable[error.code].exit };
}

/** A comparison with the response itself proves nothing, so without an option these are not checked. */
const comparisons = { version: 'ver', url: 'url', params: 'params' } as const;

/** Explains why a check would say nothing; undefined if it is to be made. */
function skip(
  name: string,
  { kid, sig }: AuthResponse,
  options: Call['options'],
): Pick<Result, 'outcome' | 'sentence'> | undefined {
  const option = Object.hasOwn(comparisons, name) ? comparisons[name as keyof typeof comparisons] : undefined;
  if (option !== undefined && options[option] === undefined) {
    return { outcome: 'not asked', sentence: `give the requested value with --${option}` };
  }
  if (name === 'iact, aauth' && options.iact === undefined && options.aauth === undefined) {
    return { outcome: 'not asked', sentence: 'give the requested values with --iact and --aauth' };
  }
  if (name === 'kid' && kid === '') return { outcome: 'nothing', sentence: 'it names no key' };
  if (name === 'sig' && sig === undefined) {
    return { outcome: 'nothing', sentence: 'it is not signed, so anybody can have written it' };
  }
  return undefined;
}

/** The private half of the demonstration key is published: its signature proves nothing, unless the user asks about it. */
function checkDemoKey({ response: { kid, status }, expected: { keys }, acceptsDemoKey }: Facts): Result[] {
  const key = keys.get(kid);
  if (key === undefined || !isDemoKey(key) || acceptsDemoKey) return [];
  const name = 'demo key';
  if (status !== 200) {
    return [{ name, outcome: 'nothing', sentence: 'its private key is published, so its signature proves nothing' }];
  }
  const details = ['Add --demo if the response is of the demonstration service.'];
  const sentence = 'the key must not be that of the demonstration service, whose private half is published';
  return [{ name, outcome: 'FAILS', sentence, details, exit: errorTable.ERR_KEY_UNKNOWN.exit }];
}

function formatResult({ name, outcome, sentence, details = [] }: Result): string {
  return [`${outcome.padEnd(9)}  ${name}: ${sentence}`, ...details.map((detail) => `           ${detail}`)].join('\n');
}

function formatAge(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const amount = Math.abs(seconds);
  const days = Math.floor(amount / 86_400);
  const length = days > 1 ? `${amount} s (${days} days)` : `${amount} s`;
  return seconds < 0 ? `It is ${length} in the future.` : `It is ${length} old.`;
}

function printKey({ kid, sig }: AuthResponse, keys: KeySet): void {
  const key = keys.get(kid);
  if (key === undefined || sig === undefined) return;
  console.log(`\nkey ${kid}, ${describeKey(key)}\n  ${key.fingerprint}`);
}

function describeKey(key: PublicKey): string {
  if (isDemoKey(key)) {
    return 'of the demonstration service: ITS PRIVATE HALF IS PUBLISHED, SO ANYBODY CAN SIGN WITH IT';
  }
  return key.fingerprint === raven.keys.fingerprint('2') ? "Raven's own" : 'as configured';
}

/** The last line: the outcome of all checks. */
function formatVerdict({ status, principal, sig }: AuthResponse, results: readonly Result[]): string {
  const named = (outcome: Result['outcome']) =>
    results.filter((result) => result.outcome === outcome).map(({ name }) => name);
  const failed = named('FAILS').filter((name) => name !== 'status');
  if (failed.length > 0) return `Verdict: NOT VALID, because of ${failed.join('; ')}.`;
  const unchecked = named('not asked');
  const limits = unchecked.length > 0 ? ` Not checked: ${unchecked.join('; ')}.` : '';
  if (status === 200) return `Verdict: valid. ${printable(principal)} logged in.${limits}`;
  const worthless =
    sig === undefined || results.some(({ name, outcome }) => name === 'demo key' && outcome === 'nothing');
  const weight = worthless ? 'not signed by a secret key' : 'valid';
  return `Verdict: ${weight}, and no user logged in: ${status}, ${failures[status][1]}.${limits}`;
}
