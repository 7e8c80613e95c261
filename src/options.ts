/** What an option's value has to be, the words for it, and whether it may be undefined, or left out. */
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

/** A list, and not one text, in which parts of names would be found too. */
export const texts: Rule = [
  (value) => Array.isArray(value) && value.every(isText),
  'is a list of texts, such as ["abc12"]',
];

/** An origin as browsers write it: what comes in is compared as a whole. */
export const origin: Rule = [
  (value) => isText(value) && isOrigin(value),
  'is an origin such as https://live.example.cam.ac.uk',
];

/** Several of them. */
export const originList: Rule = [
  (value) => Array.isArray(value) && value.every((item) => isText(item) && isOrigin(item)),
  'is a list of origins such as https://example.cam.ac.uk, without a slash at the end',
];

/** An option that lets in fewer people: undefined, by a mistake somewhere else, it would let in more. */
export function restriction([test, needs]: Rule): Rule {
  return [test, needs, 'refused'];
}

export function required([test, needs]: Rule): Rule {
  return [test, needs, 'required'];
}

/** Options by name; there are no others. @throws TypeError with the name, and never the value: it may be a secret. */
export function checkOptions(of: string, options: object, rules: Readonly<Record<string, Rule>>): void {
  if (!isPlain(options)) throw new TypeError(`${of} takes an object of options`);
  const wanted = Object.keys(rules).filter((name) => rules[name]?.[2] === 'required');
  for (const name of wanted) if (!(name in options)) throw new TypeError(`${of} needs the option ${name}`);
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (!rule) throw new TypeError(`${of} has no option ${name}; it has: ${Object.keys(rules).join(', ')}`);
    const [test, needs, missing] = rule;
    if (value !== undefined && !test(value)) throw new TypeError(`the option ${name} ${needs}`);
    if (value === undefined && missing) throw new TypeError(`the option ${name} ${needs}; here it is undefined`);
  }
}

/** Not a list or a Map, in which no option would be found; whichever realm it is of. */
function isPlain(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** Not a pattern either: to URL, `*` and `;` are characters of a name. */
function isOrigin(value: string): boolean {
  return /^https?:\/\/[\w.:[\]-]+$/.test(value) && URL.canParse(value) && new URL(value).origin === value;
}
