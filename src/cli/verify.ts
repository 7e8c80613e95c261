import { text as readAll } from 'node:stream/consumers';
import { formatDate, parseDate } from '../codec.js';
import { errorTable } from '../errors.js';
import { KeySet } from '../keys.js';
import { isDemoKey, raven, ravenDemo } from '../profiles.js';
import { type AuthResponse, parseResponse, responseFromQuery, type Version } from '../response.js';
import { checks, type Expectations } from '../verify.js';
import { type Call, printable, UsageError } from './usage.js';

/** Prints, check by check, what holds of a response. @returns the exit status of the first check that does not. */
export async function verify({ words, options }: Call): Promise<number> {
  const encoded = readResponse(words[0] ?? (await readInput()));
  const response = parseResponse(encoded);
  const expected = readExpectations(options, response);
  printFields(response);
  const exit = printChecks(encoded, response, expected, options);
  printKey(response, expected.keys);
  return exit;
}

async function readInput(): Promise<string> {
  if (process.stdin.isTTY) throw new UsageError('give the response as an argument, or on standard input');
  return (await readAll(process.stdin)).replace(/\r?\n$/, '');
}

/** A whole address or query, as it stands in a log or an address bar, or the text after decoding. */
function readResponse(given: string): string {
  const query = /^(?:https?:[^?]*)?\??((?:.*&)?WLS-Response=.*)$/s.exec(given)?.[1];
  return query === undefined ? given : responseFromQuery(query.replace(/#.*$/s, ''));
}

function readExpectations(options: Call['options'], response: AuthResponse): Expectations {
  const { url = response.url, params = response.params, at, keys, ver, iact, aauth } = options;
  if (ver !== undefined && !/^[123]$/.test(ver)) throw new UsageError('--ver is 1, 2 or 3');
  if (aauth === '') throw new UsageError('--aauth is a list of types, such as pwd');
  if (iact !== undefined && iact !== 'yes' && iact !== 'no') throw new UsageError('--iact is yes or no');
  return {
    url,
    params,
    keys: keys === undefined ? bundled() : KeySet.fromDirectory(keys),
    now: readInstant(at, response),
    ver: ver === undefined ? (response.status === 200 ? response.ver : 3) : (Number(ver) as Version),
    iact: iact === undefined ? undefined : iact === 'yes',
    aauth: aauth?.split(','),
  };
}

function readInstant(at: string | undefined, response: AuthResponse): Date {
  if (at === undefined) return new Date();
  const instant = at === 'issue' ? response.issue : parseDate(at);
  if (instant === undefined) throw new UsageError('--at is a date of the form YYYYMMDDTHHMMSSZ, or "issue"');
  return instant;
}

function bundled(): KeySet {
  const all = new KeySet();
  for (const { keys } of [raven, ravenDemo]) {
    for (const kid of keys.kids) all.add(kid, keys.get(kid)?.key.export({ type: 'spki', format: 'pem' }) as string);
  }
  return all;
}

function printFields(response: AuthResponse): void {
  for (const [name, value] of Object.entries(response)) {
    if (name === 'sig') continue;
    const text = value instanceof Date ? formatDate(value) : [value ?? []].flat().join(',');
    console.log(`  ${name.padEnd(9)} ${printable(text)}`);
  }
  console.log('\nholds      form: every field is as the protocol has it');
}

/** Made of this response itself where nothing was given to compare with; that proves nothing, and is not called a check. */
const taken = { version: 'ver', url: 'url', params: 'params' } as const;

function printChecks(
  encoded: string,
  response: AuthResponse,
  expected: Expectations,
  options: Call['options'],
): number {
  const facts = { encoded, response, expected, now: (expected.now as Date).getTime() };
  let exit = 0;
  for (const { name, holds, run } of checks) {
    const option = Object.hasOwn(taken, name) ? taken[name as keyof typeof taken] : undefined;
    if (option !== undefined && options[option] === undefined) {
      console.log(`not asked  ${name}: say with --${option} what it was to be`);
      continue;
    }
    const nothing = nothingToCheck(name, response, options);
    if (nothing !== undefined) {
      console.log(nothing);
      continue;
    }
    const error = run(facts);
    if (error === undefined) {
      console.log(`holds      ${name}: ${holds}`);
      continue;
    }
    console.log(`FAILS      ${name}: ${holds}\n           ${error.code}: ${printable(error.message)}`);
    exit ||= errorTable[error.code].exit;
    // What a failure says of iact and aauth means nothing.
    if (response.status !== 200 && name === 'status') break;
  }
  return exit;
}

/** What is to be said instead, where a check would hold of nothing at all. */
function nothingToCheck(
  name: string,
  { kid, sig }: AuthResponse,
  { iact, aauth }: Call['options'],
): string | undefined {
  if (name === 'kid' && kid === '') return 'nothing    kid: it names no key';
  if (name === 'sig' && sig === undefined) return 'nothing    sig: it is not signed, so anybody can have written it';
  const free = iact === undefined && aauth === undefined;
  if (name === 'iact, aauth' && free) return 'not asked  iact, aauth: say with --iact and --aauth what they were';
  return undefined;
}

function printKey({ kid, sig }: AuthResponse, keys: KeySet): void {
  const key = keys.get(kid);
  if (key === undefined || sig === undefined) return;
  const whose = key.fingerprint === raven.keys.fingerprint('2') ? "Raven's own" : 'as configured';
  const warning = 'of the demonstration service: ITS PRIVATE HALF IS PUBLISHED, SO ANYBODY CAN SIGN WITH IT';
  console.log(`\nkey ${kid}, ${isDemoKey(key) ? warning : whose}\n  ${key.fingerprint}`);
}
