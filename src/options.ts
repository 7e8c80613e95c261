import { types } from 'node:util';

/** Test of a value, the words for what it tests, and whether the value may not be undefined, or the option not left out. */
export type Rule = readonly [test: (value: unknown) => boolean, needs: string, undefined?: 'refused' | 'required'];

/** The rule of each option of `T`. */
export type Rules<T> = { readonly [K in keyof Required<T>]: Rule };

export const isText = (value: unknown): value is string => typeof value === 'string';
export const text: Rule = [isText, 'is a text'];
export const flag: Rule = [(value) => typeof value === 'boolean', 'is true or false'];
/** The longest that anything can be set to last: seconds. */
export const YEAR: number = 366 * 24 * 3600;
export const isSeconds = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= YEAR;
export const seconds: Rule = [isSeconds, 'is a number of seconds, at most those of a year'];
export const callable: Rule = [(value) => typeof value === 'function', 'is a function'];
export const object: Rule = [(value) => typeof value === 'object' && value !== null, 'is an object'];

/** Whether a value is a `Date` of whichever realm, and a valid one. */
export function isDate(value: unknown): value is Date {
  return types.isDate(value) && !Number.isNaN(value.getTime());
}
export const date: Rule = [isDate, 'is a valid Date'];

/** A clock. It is read once here, since a wrong one would show at the first login only. A test may set its time later. */
export const clock: Rule = [
  (value) => typeof value === 'function' && types.isDate(value()),
  'is a function that returns a Date, such as () => new Date()',
];

/** Whether a value is a list of texts that pass a test. Holes are no texts: `every` would skip them. */
export function isTextList(value: unknown, test?: (item: string) => boolean): value is readonly string[] {
  if (!Array.isArray(value)) return false;
  for (const item of value) if (!isText(item) || test?.(item) === false) return false;
  return true;
}

/** A list, and not one text, in which parts of names would be found too. */
export const texts: Rule = [(value) => isTextList(value), 'is a list of texts, such as ["abc12"]'];

/** Names of users or of tokens' scopes. Nothing has the empty one. */
export const names: Rule = [
  (value) => isTextList(value, (name) => name !== ''),
  'is a list of texts, such as ["abc12"], none of them empty',
];

/** Whether a text can be a ptag. A response separates ptags by commas, so that one with a comma would match nobody. */
export const isTag = (tag: string): boolean => tag !== '' && !tag.includes(',');
export const tags: Rule = [
  (value) => isTextList(value, isTag),
  'is a list of texts, such as ["current"], none of them empty or with a comma',
];

/** An origin as browsers write it: what comes in is compared as a whole. */
export const origin: Rule = [
  (value) => isText(value) && isOrigin(value),
  'is an origin such as https://live.example.cam.ac.uk',
];

/** Several of them. */
export const originList: Rule = [
  (value) => isTextList(value, isOrigin),
  'is a list of origins such as https://example.cam.ac.uk, without a slash at the end',
];

/** A set of keys, of this copy of the package or of another. */
export const keySet: Rule = [
  (value) => ['get', 'fingerprint'].every((name) => typeof (value as Record<string, unknown>)?.[name] === 'function'),
  'is a KeySet, such as KeySet.from({ "2": pem })',
];

/** An option that lets in fewer people: undefined, by a mistake somewhere else, it would let in more. */
export function restriction([test, needs]: Rule): Rule {
  return [test, needs, 'refused'];
}

/** The same rules for values that may be undefined. */
export function unrestricted<T>(rules: Rules<T>): Rules<T> {
  const entries = Object.entries<Rule>(rules).map(([name, [test, needs]]) => [name, [test, needs]]);
  return Object.fromEntries(entries) as Rules<T>;
}

export function required([test, needs]: Rule): Rule {
  return [test, needs, 'required'];
}

/**
 * Checks options by name; there are no others.
 *
 * @param of the function that takes them, for the message.
 * @param kind the word for one of them in the message.
 * @throws TypeError with the name, and never the value: it may be a secret.
 */
export function checkOptions(
  of: string,
  options: unknown,
  rules: Readonly<Record<string, Rule>>,
  kind: 'option' | 'field' = 'option',
): void {
  const wanted = Object.keys(rules).filter((name) => rules[name]?.[2] === 'required');
  const example = wanted.length > 0 ? `, such as { ${wanted.join(', ')} }` : '';
  const needs = `${of} takes an object of ${kind}s${example}`;
  if (!passes(isPlain, options)) throw new TypeError(`${needs}; here it is ${kindOf(options)}`);
  const given = readFields(needs, options);
  for (const name of wanted) if (!given.has(name)) throw new TypeError(`${of} needs the ${kind} ${name}`);
  for (const [name, value] of given) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (!rule) throw new TypeError(`${of} ${unknownName(kind, name, Object.keys(rules))}`);
    checkValue(kind === 'option' ? `the option ${name}` : `the ${name} of ${of}`, value, rule);
  }
}

/**
 * Checks an argument.
 *
 * @param of the function that takes it, for the message.
 * @throws TypeError with the name of the argument and the kind of the value.
 */
export function checkArgument(of: string, name: string, value: unknown, rule: Rule): void {
  checkValue(`the argument ${name} of ${of}`, value, rule);
}

/**
 * Checks the fields of an argument that is an object, of whichever class; there are no others.
 *
 * @param of the function that takes it, for the message.
 * @throws TypeError with the name of the field and the kind of the value.
 */
export function checkFields(of: string, what: string, fields: unknown, rules: Readonly<Record<string, Rule>>): void {
  const known = Object.keys(rules);
  const given = readFields(`${of} takes an object of ${known.join(', ')}`, fields, known);
  for (const [name, rule] of Object.entries(rules)) checkValue(`${what}.${name}`, given.get(name), rule);
  const stray = [...given.keys()].find((name) => !Object.hasOwn(rules, name));
  if (stray !== undefined) throw new TypeError(`${what} ${unknownName('field', stray, known)}`);
}

/** @throws TypeError unless it is the object that `createWAA` returned. */
export function checkWAA(of: string, waa: unknown): void {
  if (passes((value) => typeof (value as { openSession?: unknown })?.openSession === 'function', waa)) return;
  throw new TypeError(
    `${of} needs the waa that createWAA() returned, and not a promise or middleware of it; here it is ${kindOf(waa)}`,
  );
}

/** Says that a name is unknown, which known one it resembles, and which there are. */
function unknownName(kind: 'option' | 'field', name: string, known: readonly string[]): string {
  const nearest = nearestName(name, known);
  const hint = nearest === undefined ? '' : `. Perhaps ${nearest} was meant`;
  return `has no ${kind} ${quote(name)}; it has: ${known.join(', ')}${hint}`;
}

/** Names the kind of a value, and not the value: it may be a secret. */
export function kindOf(value: unknown): string {
  if (typeof value === 'string') return value === '' ? 'an empty text' : 'a text';
  if (typeof value === 'function' || typeof value === 'symbol' || typeof value === 'bigint') return `a ${typeof value}`;
  if (typeof value !== 'object' || value === null) return `${value}`;
  if (types.isProxy(value)) return 'an object';
  if (types.isPromise(value)) return 'a promise (perhaps an await is missing)';
  if (types.isDate(value)) return isDate(value) ? 'a Date' : 'an invalid Date';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  return 'an object';
}

function checkValue(what: string, value: unknown, [test, needs, missing]: Rule): void {
  if (value === undefined && missing === undefined) return;
  if (!passes(test, value)) throw new TypeError(`${what} ${needs}; here it is ${kindOf(value)}`);
}

/** Whether a value passes a test. One that throws when it is read, such as a revoked Proxy, does not. */
export function passes(test: (value: unknown) => boolean, value: unknown): boolean {
  try {
    return test(value);
  } catch {
    return false;
  }
}

/** Reads the fields of an object once, since a getter or a Proxy may throw. */
function readFields(needs: string, fields: unknown, known: readonly string[] = []): Map<string, unknown> {
  let cause: unknown;
  try {
    if (typeof fields === 'object' && fields !== null && !Array.isArray(fields)) return collect(fields, known);
  } catch (error) {
    cause = error;
  }
  throw new TypeError(`${needs}; here it is ${kindOf(fields)}`, cause === undefined ? undefined : { cause });
}

function collect(fields: object, known: readonly string[]): Map<string, unknown> {
  const names = new Set(known);
  for (const name in fields) names.add(name);
  return new Map([...names].map((name) => [name, (fields as Record<string, unknown>)[name]]));
}

/** Not a list or a Map, in which no option would be found; whichever realm it is of. */
function isPlain(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Not a pattern either: to URL, `*` and `;` are characters of a name. */
function isOrigin(value: string): boolean {
  return /^https?:\/\/[\w.:[\]-]+$/.test(value) && URL.canParse(value) && new URL(value).origin === value;
}

/** A name that a programmer wrote, in a message: as it is if it looks like a name. */
function quote(name: string): string {
  return /^\w{1,40}$/.test(name) ? name : JSON.stringify(name.slice(0, 40));
}

/** The known name that is the most like a name; `undefined` if none is much like it. */
function nearestName(name: string, known: readonly string[]): string | undefined {
  // Nothing as long is a slip of the pen, and the distance takes time of the square of the length.
  if (name.length > 40) return undefined;
  const distances = known.map((one) => [distance(name.toLowerCase(), one.toLowerCase()), one] as const);
  const [nearest] = distances.sort(([a], [b]) => a - b);
  return nearest && nearest[0] <= Math.ceil(name.length / 3) ? nearest[1] : undefined;
}

/** Levenshtein distance: the least number of characters to insert, delete or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
