import { SessionError } from './errors.js';
import { flag, isSeconds, type Rules, restriction, unrestricted } from './options.js';
import { isTypeList } from './request.js';
import type { Auth } from './session/session.js';
import { checkAuthentication } from './verify.js';

/** How a person has to have authenticated. */
export interface Demands {
  /**
   * true: interactively, in the login that made this session; false: if somebody has to log in, then only without being
   * asked anything. Either, by default.
   */
  readonly iact?: boolean | undefined;
  /** In one of these ways, such as `["pwd"]`; any, by default. */
  readonly aauth?: readonly string[] | undefined;
  /** At most so long ago, and interactively: seconds; as long as the session lasts, by default. */
  readonly maxAge?: number | undefined;
}

export const demandRules: Rules<Demands> = {
  iact: restriction(flag),
  aauth: restriction([
    (value) => isTypeList(value) && String(value).length <= 256,
    'is a list of at least one authentication type, such as ["pwd"]; in all, they have at most 256 characters',
  ]),
  maxAge: restriction([
    (value) => isSeconds(value) && Number.isInteger(value) && value > 0,
    'is a whole number of seconds, at least 1 and at most those of a year',
  ]),
};

/** The same for demands that were read before: one that is undefined asks for nothing. */
export const demandFields: Rules<Demands> = unrestricted(demandRules);

/** The demands among other requirements; undefined where there is none. @throws TypeError where they contradict. */
export function readDemands({ iact, aauth, maxAge }: Demands): Demands | undefined {
  if (iact === false && maxAge !== undefined) {
    throw new TypeError('maxAge asks people to authenticate again, and iact: false not to ask them: leave one out');
  }
  if (iact === undefined && aauth === undefined && maxAge === undefined) return undefined;
  return { iact: maxAge === undefined ? iact : true, aauth, maxAge };
}

/** Why the login that made this session is not enough; undefined if it is. @param now milliseconds. */
export function unmet(auth: Auth, { iact, aauth, maxAge }: Demands, now: number): SessionError | undefined {
  const asked = { iact: iact === true ? true : undefined, aauth };
  if (checkAuthentication({ response: auth, expected: asked })) {
    const how = aauth === undefined ? '' : ` by ${aauth.join(' or ')}`;
    const when = iact === true ? ' in which the person was asked to authenticate' : '';
    return new SessionError('ERR_STEP_UP_REQUIRED', `this asks for a login${how}${when}`);
  }
  const age = now - (auth.interactiveAt?.getTime() ?? Number.NEGATIVE_INFINITY);
  if (maxAge === undefined || age <= maxAge * 1000) return undefined;
  return new SessionError('ERR_STEP_UP_REQUIRED', `this asks for an authentication of the last ${maxAge} s`);
}

/** The demands as parameters of our login route, each with its `&`. */
export function formatDemands({ iact, aauth, maxAge }: Demands): string {
  const pairs = [
    iact !== undefined && `&iact=${iact ? 'yes' : 'no'}`,
    aauth && `&aauth=${encodeURIComponent(aauth.join(','))}`,
    maxAge !== undefined && `&maxAge=${maxAge}`,
  ];
  return pairs.filter(Boolean).join('');
}

/** The reverse. What is not a demand asks for nothing: the page itself still asks for what it needs. */
export function parseDemands(query: URLSearchParams): Demands | undefined {
  const given = {
    iact: { yes: true, no: false }[query.get('iact') ?? ''],
    aauth: query.get('aauth')?.split(','),
    maxAge: query.has('maxAge') ? Number(query.get('maxAge')) : undefined,
  };
  const right = Object.entries(given).filter(([name, value]) => demandRules[name as keyof Demands][0](value));
  const { iact, ...rest } = Object.fromEntries(right) as Demands;
  return readDemands(rest.maxAge === undefined ? { iact, ...rest } : rest);
}
