import {
  callable,
  flag,
  isSeconds,
  originList,
  type Rule,
  type Rules,
  restriction,
  seconds,
  texts,
} from '../options.js';
import { requirementRules, type WAA } from '../waa.js';
import { type Credential, methods } from './credentials.js';
import type { AcceptOptions, ConnectionOptions } from './door.js';
import type { UpgradeOptions } from './gate.js';

/** Checks what options mean together, and whether the login service can send the principals. */
export function checkUse(of: string, waa: WAA, options: UpgradeOptions): void {
  const { credentials = ['cookie'], origins = [], frame } = options;
  waa.checkRequirements(of, options);
  if (credentials.includes('firstMessage') && credentials.length > 1) {
    throw new TypeError('firstMessage goes with no other credential: give it a path of its own');
  }
  if (frame && !credentials.includes('cookie')) throw new TypeError('a frame makes cookies: credentials needs cookie');
  const plain = origins.find((origin) => !origin.startsWith('https:'));
  if (plain === undefined || waa.isDevelopment) return;
  throw new TypeError(`pages of ${plain} are not encrypted on their way, which is for development only: use https`);
}

/** Of cookies, that browsers send them there. */
export function checkReach(waa: WAA, path: string, { credentials = ['cookie'], frame }: UpgradeOptions): void {
  if (!credentials.includes('cookie') || frame || waa.reaches(path)) return;
  throw new TypeError(`browsers send the session to ${waa.cookies.path} only, and so never to ${path}`);
}

const credentialNames: readonly string[] = [...methods.map(({ name }) => name), 'firstMessage'] satisfies Credential[];

const positive: Rule = [
  (value) => isSeconds(value) && value > 0 && value <= 3600,
  'is a number of seconds, at most an hour',
];

export const upgradeRules: Rules<UpgradeOptions> = {
  ...requirementRules,
  credentials: restriction([
    (value) => texts[0](value) && (value as string[]).length > 0 && (value as string[]).every(isCredential),
    `is a list of some of: ${credentialNames.join(', ')}`,
  ]),
  origins: originList,
  frame: restriction([(value) => typeof value === 'function' && 'read' in value, 'is made by socketFrame()']),
  authorise: restriction(callable),
  deadline: positive,
  behindProxy: flag,
};

const count: Rule = [(value) => Number.isInteger(value) && (value as number) > 0, 'is a whole number, at least 1'];

export const connectionRules: Rules<ConnectionOptions> = {
  ...upgradeRules,
  maxPending: count,
  maxPerPrincipal: restriction(count),
  maxPerSession: restriction(count),
};

export const acceptRules: Rules<AcceptOptions> = {
  ...connectionRules,
  path: [(value) => typeof value === 'string' && /^\/[^?#]*$/.test(value), 'begins with / and has no query'],
  rejection: [(value) => value === 'http' || value === 'close', "is 'http' or 'close'"],
  heartbeat: seconds,
  unclaimedTimeout: positive,
};

function isCredential(name: string): boolean {
  return credentialNames.includes(name);
}
