/** What an option's value has to be, and the words for it. */
export type Rule = readonly [test: (value: unknown) => boolean, needs: string];

/** The rule of each option of `T`. */
export type Rules<T> = { readonly [K in keyof Required<T>]: Rule };

export const isText = (value: unknown): value is string => typeof value === 'string';
export const text: Rule = [isText, 'is a text'];
export const flag: Rule = [(value) => typeof value === 'boolean', 'is true or false'];
const YEAR = 366 * 24 * 3600;
export const isSeconds = (value: unknown): value is number => typeof value === 'number' && value >= 0 && value <= YEAR;
export const seconds: Rule = [isSeconds, 'is a number of seconds, at most those of a year'];
export const callable: Rule = [(value) => typeof value === 'function', 'is a function'];
export const object: Rule = [(value) => typeof value === 'object' && value !== null, 'is an object'];

/** A list, and not one text, in which parts of names would be found too. */
export const texts: Rule = [
  (value) => Array.isArray(value) && value.every(isText),
  'is a list of texts, such as ["abc12"]',
];

/** Origins as browsers write them: what comes in is compared as a whole. */
export const originList: Rule = [
  (value) => Array.isArray(value) && value.every((item) => isText(item) && isOrigin(item)),
  'is a list of origins such as https://example.cam.ac.uk',
];

/** Options by name; there are no others. @throws TypeError with the name, and never the value: it may be a secret. */
export function checkOptions(of: string, options: object, rules: Readonly<Record<string, Rule>>): void {
  if (typeof options !== 'object' || options === null) throw new TypeError(`${of} takes an object of options`);
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (!rule) throw new TypeError(`${of} has no option ${name}; it has: ${Object.keys(rules).join(', ')}`);
    if (value !== undefined && !rule[0](value)) throw new TypeError(`the option ${name} ${rule[1]}`);
  }
}

function isOrigin(value: string): boolean {
  return URL.canParse(value) && new URL(value).origin === value;
}
