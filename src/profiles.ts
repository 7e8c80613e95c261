import { bundledKey, type KeySet, type PublicKey } from './keys.js';
import { checkOptions, keySet, type Rules, required } from './options.js';

/** A login service, as plain data: make your own by the same shape. */
export interface Profile {
  /** Sealed into each session: a session of one service does not open under another. */
  readonly name: string;
  /** Where people authenticate: https, or http on loopback. */
  readonly authUrl: string;
  /** Where people log out of the service itself. */
  readonly logoutUrl?: string;
  readonly keys: KeySet;
  /** The ptags that a success of version 1 or 2 implies. */
  readonly oldVersionPtags: readonly string[];
  /** The ptags of which a person needs one, where a route does not say; empty asks for none. */
  readonly requirePtags: readonly string[];
  /**
   * Pattern of the service's principals, without the flags g and y. A principal that does not match is rejected where an
   * application names it, since the service never sends it. Any principal, by default.
   */
  readonly principalPattern?: RegExp;
}

/** CRSids: `spqr1`. */
const crsid: RegExp = /^[a-z][a-z0-9]*$/;

/** Raven, the University of Cambridge's login service. */
export const raven: Profile = ravenLike('raven', 'https://raven.cam.ac.uk', '2');

/** Raven's demonstration service. The private half of its key is published, so anybody can log in as anybody. */
export const ravenDemo: Profile = ravenLike('ravenDemo', 'https://demo.raven.cam.ac.uk', '901');

const demoModulus = ravenDemo.keys.get('901')?.n;

/** Keys of a login service that its operator gives. */
interface KeyOptions {
  readonly keys: KeySet;
}

const keyRules: Rules<KeyOptions> = { keys: required(keySet) };

/**
 * Checks principals that an application names.
 *
 * @param what the parameter that names them, for the message.
 * @throws TypeError if one is none that the login service can send.
 */
export function checkPrincipals(
  what: string,
  principals: readonly string[] = [],
  { name, principalPattern }: Profile,
): void {
  const stray = principals.find((principal) => principalPattern?.test(principal) === false);
  if (stray === undefined) return;
  const meant = stray.trim().toLowerCase();
  const hint = principalPattern?.test(meant) ? ` Perhaps ${JSON.stringify(meant)} was meant.` : '';
  throw new TypeError(
    `${what} names ${JSON.stringify(stray.slice(0, 40))}, which the login service ${name} never sends: its principals match ${principalPattern}.${hint}`,
  );
}

/** Nevar, the SRCF's stand-in for Raven; its operator gives you the key. */
export function nevar(options: KeyOptions): Profile {
  checkOptions('nevar()', options, keyRules);
  const { keys } = options;
  return {
    name: 'nevar',
    authUrl: 'https://nevar.srcf.net/wls/authenticate',
    logoutUrl: 'https://nevar.srcf.net/oidc/logout',
    keys,
    oldVersionPtags: ['current'],
    requirePtags: ['current'],
    principalPattern: crsid,
  };
}

/** Goose, logins with SRCF accounts; its operator gives you the keys. It sends no ptags, so none are required. */
export function goose(options: KeyOptions): Profile {
  checkOptions('goose()', options, keyRules);
  const { keys } = options;
  return {
    name: 'goose',
    authUrl: 'https://auth.srcf.net/wls/authenticate',
    logoutUrl: 'https://auth.srcf.net/logout',
    keys,
    oldVersionPtags: [],
    requirePtags: [],
  };
}

/** Whether anybody can sign with this key: true of the demonstration service's, under whatever kid it is configured. */
export function isDemoKey(key: PublicKey): boolean {
  // By the modulus: whoever knows its factors can sign for any exponent.
  return demoModulus?.equals(key.n) === true;
}

function ravenLike(name: string, origin: string, kid: '2' | '901'): Profile {
  return {
    name,
    authUrl: `${origin}/auth/authenticate.html`,
    logoutUrl: `${origin}/auth/logout.html`,
    keys: bundledKey(kid),
    oldVersionPtags: ['current'],
    requirePtags: ['current'],
    principalPattern: crsid,
  };
}
