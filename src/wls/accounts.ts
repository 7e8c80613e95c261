/** Somebody who can log in. */
export interface Account {
  /** The identifier that applications see. */
  readonly principal: string;
  /** Shown on the page. */
  readonly name?: string;
  /** `['current']` for current members; none for people who have left. */
  readonly ptags: readonly string[];
}

/** Who can log in where nobody says. */
export const defaultAccounts: readonly Account[] = [
  { principal: 'test0001', name: 'First Student', ptags: ['current'] },
  { principal: 'test0002', name: 'Second Student', ptags: ['current'] },
  { principal: 'test0003', name: 'First Teacher', ptags: ['current'] },
  { principal: 'test0004', name: 'Second Teacher', ptags: ['current'] },
  { principal: 'test0401', name: 'First Leaver', ptags: [] },
  { principal: 'test0402', name: 'Second Leaver', ptags: [] },
];

/** @throws TypeError where nobody could log in, or a response could not say who did. */
export function checkAccounts(accounts: readonly Account[]): void {
  if (accounts.length === 0) throw new TypeError('accounts is empty: nobody could log in');
  if (accounts.some(({ principal }) => !principal)) throw new TypeError('an account has no principal');
  if (new Set(accounts.map(({ principal }) => principal)).size < accounts.length) {
    throw new TypeError('two accounts have the same principal');
  }
  if (accounts.some(({ ptags }) => !Array.isArray(ptags) || ptags.some((tag) => !/^[^,]+$/.test(tag)))) {
    throw new TypeError('the ptags of an account are a list of tags without commas, such as ["current"], or []');
  }
}
