import { constants, createHash, createVerify, type KeyObject, privateEncrypt, timingSafeEqual } from 'node:crypto';
import forge from 'node-forge';
import { bundledKey, type PublicKey } from './keys.js';

/**
 * Something that can tell whether a signature is right: RSASSA-PKCS1-v1_5 with SHA-1 over the text's UTF-8 bytes.
 * Says no, and does not throw, whatever the signature's bytes are.
 */
export interface Engine {
  readonly name: string;
  verify(key: PublicKey, text: string, sig: Uint8Array): boolean;
}

/** Node's own. Some systems' OpenSSL policy refuses SHA-1 signatures: there it throws, or says no to everything. */
export const opensslEngine: Engine = {
  name: 'openssl',
  verify: ({ key, length }, text, sig) =>
    // OpenSSL checks the length too; a plain comparison does not depend on its version.
    sig.length === length && createVerify('sha1').update(text).verify(key, sig),
};

/**
 * node-forge raises the signature to the public exponent; what comes out is compared, whole, with the one block that
 * is right. Forge's own verification is not used: it parses the block, and has accepted forged ones.
 */
export const forgeEngine: Engine = {
  name: 'forge',
  verify: (key, text, sig) => {
    if (sig.length !== key.length) return false;
    const block = openBlock(key, sig);
    return block !== undefined && timingSafeEqual(block, canonicalBlock(text, key.length));
  },
};

/** The first engine that accepts a good signature and refuses a bad one. */
export function chooseEngine(engines: readonly Engine[]): Engine {
  const engine = engines.find(works);
  if (engine === undefined) throw new Error('no engine on this system can verify RSA signatures with SHA-1');
  return engine;
}

/** Signs a text as a login service does. */
export function signText(key: KeyObject, text: string): Buffer {
  // By its parts, since some systems' policy refuses to sign with SHA-1 in one go; the bytes are the same.
  return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, Buffer.concat([digestInfo, sha1(text)]));
}

/** What Raven said to a request without `ver` in March 2005, signed with its key 2: the known answer of {@link works}. */
const known = {
  text: "1!530!Missing required parameter 'ver'!20050317T151628Z!1111072588-26568-7!http://raven.cam.ac.uk/debug.html!!!!!",
  sig: Buffer.from(
    'ZUcFzGfEPyVhYqHYK9gDfewP6xSOKNvdOcAp3ZpzGoDAmY1eG704aw1aDTOh6nTYtZAoGNqio33CCGWT29fjY10phtSEe8xCNP9WgpohOze9SOYUXJ10uuVRXBXE/1DCiCPZxUODZPEaeOv8P0zgm3JfRsVdDy9SnDjFvQQ43O8=',
    'base64',
  ),
};

function works(engine: Engine): boolean {
  const key = bundledKey('2').get('2') as PublicKey;
  const bad = Buffer.from(known.sig);
  bad[0] = (bad[0] as number) ^ 1;
  try {
    return engine.verify(key, known.text, known.sig) && !engine.verify(key, known.text, bad);
  } catch {
    return false;
  }
}

/** The signature raised to the public exponent, as long as the modulus; undefined where it is not below the modulus. */
function openBlock(key: PublicKey, sig: Uint8Array): Buffer | undefined {
  const integer = (bytes: Buffer) => new forge.jsbn.BigInteger(bytes.toString('hex'), 16);
  const publicKey = forge.pki.rsa.setPublicKey(integer(key.n), integer(key.e));
  try {
    return Buffer.from(openRaw(Buffer.from(sig).toString('latin1'), publicKey, true, false), 'latin1');
  } catch {
    return undefined;
  }
}

// Missing from forge's types: the last argument turns off all looking at the padding.
const openRaw = (forge.pki.rsa as unknown as { decrypt: (...args: unknown[]) => string }).decrypt;

// DER of SEQUENCE { SEQUENCE { OID 1.3.14.3.2.26 (SHA-1), NULL }, OCTET STRING (20 bytes) }, up to the digest.
const digestInfo = Buffer.from('3021300906052b0e03021a05000414', 'hex');

/** EMSA-PKCS1-v1_5 (RFC 8017, 9.2): 00 01 FF ... FF 00 DigestInfo. */
function canonicalBlock(text: string, length: number): Buffer {
  const digest = sha1(text);
  const block = Buffer.alloc(length, 0xff);
  block[0] = 0;
  block[1] = 1;
  const start = length - digestInfo.length - digest.length;
  block[start - 1] = 0;
  digestInfo.copy(block, start);
  digest.copy(block, start + digestInfo.length);
  return block;
}

function sha1(text: string): Buffer {
  return createHash('sha1').update(text).digest();
}

/** Is `sig` the key's signature of the text? The engine is chosen when this module is loaded. */
export const verifySignature: Engine['verify'] = chooseEngine([opensslEngine, forgeEngine]).verify;
