import { checkOptions, isText, type Rules, required, tags, text } from '../options.js';

/** Somebody who can log in. */
export interface Account {
  /** The identifier that applications see. */
  readonly principal: string;
  /** Shown on the page. */
  readonly name?: string;
  /** `['current']` for current members; none for people who have left. */
  readonly ptags: readonly string[];
}

/** Pattern of Raven's principals. */
export const crsid: RegExp = /^[a-z][a-z0-9]*$/;

/** Who can log in where nobody says. */
export const defaultAccounts: readonly Account[] = [
  { principal: 'test0001', name: 'First Student', ptags: ['current'] },
  { principal: 'test0002', name: 'Second Student', ptags: ['current'] },
  { principal: 'test0003', name: 'First Teacher', ptags: ['current'] },
  { principal: 'test0004', name: 'Second Teacher', ptags: ['current'] },
  { principal: 'test0401', name: 'First Leaver', ptags: [] },
  { principal: 'test0402', name: 'Second Leaver', ptags: [] },
];

const rules: Rules<Account> = {
  principal: required([
    (value) => isText(value) && value !== '',
    'is a text that is not empty: with no principal, nobody could log in',
  ]),
  name: text,
  ptags: required(tags),
};

/** @throws TypeError where nobody could log in, or a response could not say who did. */
export function checkAccounts(accounts: readonly Account[]): void {
  if (accounts.length === 0) throw new TypeError('accounts is empty: nobody could log in');
  for (const account of accounts) checkOptions('an account', account, rules, 'field');
  if (new Set(accounts.map(({ principal }) => principal)).size < accounts.length) {
    throw new TypeError('two accounts have the same principal');
  }
}
