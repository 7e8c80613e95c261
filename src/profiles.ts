import { bundledKey, type KeySet, type PublicKey } from './keys.js';

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
}

/** Raven, the University of Cambridge's login service. */
export const raven: Profile = ravenLike('raven', 'https://raven.cam.ac.uk', '2');

/** Raven's demonstration service. The private half of its key is published, so anybody can log in as anybody. */
export const ravenDemo: Profile = ravenLike('ravenDemo', 'https://demo.raven.cam.ac.uk', '901');

const demoModulus = ravenDemo.keys.get('901')?.n;

/** Nevar, the SRCF's stand-in for Raven; its operator gives you the key. */
export function nevar({ keys }: { readonly keys: KeySet }): Profile {
  return {
    name: 'nevar',
    authUrl: 'https://nevar.srcf.net/wls/authenticate',
    logoutUrl: 'https://nevar.srcf.net/oidc/logout',
    keys,
    oldVersionPtags: ['current'],
    requirePtags: ['current'],
  };
}

/** Goose, logins with SRCF accounts; its operator gives you the keys. It sends no ptags, so none are required. */
export function goose({ keys }: { readonly keys: KeySet }): Profile {
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
  };
}
