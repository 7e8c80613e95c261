import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkArgument, isText, kindOf, type Rule, required } from './options.js';

/** A public key, parsed once, with all that verification asks of it. */
export interface PublicKey {
  readonly key: KeyObject;
  /** Length of the modulus, and so of every signature, in bytes. */
  readonly length: number;
  /** SHA-256 of the DER SubjectPublicKeyInfo, in hex. */
  readonly fingerprint: string;
  /** Modulus and exponent, big-endian. */
  readonly n: Buffer;
  readonly e: Buffer;
}

// A number of at most eight digits that does not begin with 0.
const kidShape = /^[1-9]\d{0,7}$/;

/** The keys of a login service by kid. Keys are added and removed while it is in use. */
export class KeySet {
  readonly #keys = new Map<string, PublicKey>();

  /** From PEM texts by kid, as in `KeySet.from({ "2": pem })`. */
  static from(pems: Readonly<Record<string, string>>): KeySet {
    checkArgument('KeySet.from()', 'pems', pems, pemsByKid);
    const keys = new KeySet();
    for (const [kid, pem] of Object.entries(pems)) keys.add(kid, pem);
    return keys;
  }

  /** From the files `<kid>.pem` of a folder, read once; other files are left alone. */
  static fromDirectory(path: string): KeySet {
    checkArgument('KeySet.fromDirectory()', 'path', path, folder);
    const keys = new KeySet();
    for (const name of readFolder(path)) {
      const kid = /^([1-9]\d{0,7})\.pem$/.exec(name)?.[1];
      if (kid) keys.add(kid, readFileSync(join(path, name), 'utf8'));
    }
    if (keys.kids.length === 0) throw new TypeError(`there is no key in ${path}: a key's file is named <kid>.pem`);
    return keys;
  }

  /**
   * Adds a key, or replaces the one of that kid.
   * @param pem an RSA public key as SPKI, PKCS#1 or X.509 PEM. Of a certificate only the key counts; its dates and its
   *   own signature are not looked at.
   * @throws TypeError if the kid or the key is not one.
   */
  add(kid: string, pem: string): void {
    if (!isText(kid)) checkKid('add()', kid);
    if (!kidShape.test(kid)) {
      throw new TypeError(
        `a kid is a number of one to eight digits without a leading zero, not ${JSON.stringify(kid.slice(0, 40))}`,
      );
    }
    this.#keys.set(kid, parseKey(kid, pem));
  }

  /** Removes a key; says whether it was there. */
  remove(kid: string): boolean {
    checkKid('remove()', kid);
    return this.#keys.delete(kid);
  }

  /** The kids, in the order in which they were added. */
  get kids(): string[] {
    return [...this.#keys.keys()];
  }

  /** The key of that kid, if there is one. */
  get(kid: string): PublicKey | undefined {
    if (!isText(kid)) checkKid('get()', kid);
    return this.#keys.get(kid);
  }

  /** SHA-256 of the key's DER SubjectPublicKeyInfo, in hex: compare it with the one that you get from the service. */
  fingerprint(kid: string): string | undefined {
    checkKid('fingerprint()', kid);
    return this.#keys.get(kid)?.fingerprint;
  }
}

const pemsByKid: Rule = required([
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value) && Object.entries(value).length > 0,
  'is an object of PEM texts by kid, such as { "2": pem }, and not empty',
]);

const folder: Rule = required([
  (value) => isText(value) && /^[^\0]+$/.test(value),
  'is the path of a folder with files <kid>.pem',
]);

/** @throws TypeError for a number, such as 2: no key has it, so that a key would seem to be missing, or removed. */
function checkKid(method: string, kid: unknown): void {
  checkArgument(`KeySet.${method}`, 'kid', kid, required([isText, 'is a text, such as "2"']));
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new TypeError(`the folder ${path} of the keys cannot be read (${code})`, { cause });
  }
}

function parseKey(kid: string, pem: string): PublicKey {
  if (!isText(pem)) throw new TypeError(`key ${kid} is not PEM text; here it is ${kindOf(pem)}`);
  if (/PRIVATE KEY/.test(pem))
    throw new TypeError(`key ${kid} is a private key: keep it where it is, and give its public half`);
  const key = readPem(kid, pem);
  if (key.asymmetricKeyType !== 'rsa') throw new TypeError(`key ${kid} is not an RSA key`);
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (modulusLength < 1024) throw new TypeError(`key ${kid} has ${modulusLength} bits; the least is 1024`);
  if (publicExponent < 65537n) throw new TypeError(`key ${kid} has the exponent ${publicExponent}; the least is 65537`);
  const { n, e } = key.export({ format: 'jwk' });
  return {
    key,
    length: Math.ceil(modulusLength / 8),
    fingerprint: createHash('sha256')
      .update(key.export({ type: 'spki', format: 'der' }))
      .digest('hex'),
    n: Buffer.from(n as string, 'base64url'),
    e: Buffer.from(e as string, 'base64url'),
  };
}

function readPem(kid: string, pem: string): KeyObject {
  try {
    return createPublicKey(pem);
  } catch (cause) {
    throw new TypeError(`key ${kid} is not a public key or certificate in PEM`, { cause });
  }
}

/** Public keys of `keys/`, as code: a bundle has no files beside it. */
const bundledPems = {
  2: `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC/9qcAW1XCSk0RfAfiulvTouMZ
KD4jm99rXtMIcO2bn+3ExQpObbwWugiO8DNEffS7bzSxZqGp7U6bPdi4xfX76wgW
GQ6qWi55OXJV0oSiqrd3aOEspKmJKuupKXONo2efAt6JkdHVH0O6O8k5LVap6w4y
1W/T/ry4QH7khRxWtQIDAQAB
-----END PUBLIC KEY-----`,
  901: `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC4RYvbSGb42EEEXzsz93Mubo0f
dWZ7UJ0HoZXQch5XIR0Zl8ANaLf3tVpRz4CI2JBUVpUjXEgzOa+wZBbuvczOuiB3
BfNDSKKQaftxWKouboJRA5acxa3fr2JZc8O5Qc1J6Qq8E8cjuSQWlpxTGa0JEnbK
V7/PVUFDuFeEI11e/wIDAQAB
-----END PUBLIC KEY-----`,
} as const;

/** Returns one of the keys of this package: kid 2 (Raven) or kid 901 (its demonstration service). */
export function bundledKey(kid: '2' | '901'): KeySet {
  return KeySet.from({ [kid]: bundledPems[kid] });
}
