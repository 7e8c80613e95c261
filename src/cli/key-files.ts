import { createPublicKey, X509Certificate } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KeySet } from '../keys.js';
import { describeSystemError, readGivenFile } from './system-errors.js';
import { printable, UsageError } from './usage.js';

/** Names that login services and agents give to a key: `2.pem`, `pubkey2.crt`, `pubkey2`. */
const named = /^(?:pubkey)?([1-9]\d{0,7})(?:\.(?:pem|crt|cer|der|pub))?$/;

/**
 * Reads the public keys that the command line names: a folder of keys, or one key.
 *
 * @param path of a folder, or of a file with a public key (SubjectPublicKeyInfo or PKCS#1) or an X.509 certificate.
 * @param kid of a key whose file name has none.
 * @throws Error that names the file and the reason.
 */
export function readKeys(path: string, kid?: string): { readonly keys: KeySet; readonly isFolder: boolean } {
  if (path === '') throw new UsageError('the path of the keys is empty: name a folder, or a file with a key');
  const isFolder = isDirectory(path);
  return { keys: isFolder ? readFolder(path) : readFile(path, kid), isFolder };
}

/** The public key of a kid in two forms of PEM. */
export function formatKey(keys: KeySet, kid: string): { readonly spki: string; readonly pkcs1: string } {
  const key = keys.get(kid)?.key;
  if (key === undefined) throw new TypeError(`there is no key ${kid}`);
  return {
    spki: key.export({ type: 'spki', format: 'pem' }) as string,
    pkcs1: key.export({ type: 'pkcs1', format: 'pem' }) as string,
  };
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw new Error(describeSystemError(error, path) ?? String(error), { cause: error });
  }
}

function readFolder(path: string): KeySet {
  const keys = new KeySet();
  for (const name of readdirSync(path).sort()) {
    const kid = named.exec(name)?.[1];
    if (kid !== undefined && !isDirectory(join(path, name))) addKey(keys, kid, join(path, name));
  }
  if (keys.kids.length > 0) return keys;
  throw new Error(
    `there is no key in ${printable(path)}: a key's file is named <kid>.pem, or as it was published, such as pubkey2.crt`,
  );
}

function readFile(path: string, kid: string | undefined): KeySet {
  const known = named.exec(basename(path))?.[1] ?? kid;
  if (known === undefined) {
    throw new Error(`the name of ${printable(path)} says no kid: name the file <kid>.pem, such as 2.pem`);
  }
  const keys = new KeySet();
  addKey(keys, known, path);
  return keys;
}

/** Adds a key. Two files of one kid must hold the same key. */
function addKey(keys: KeySet, kid: string, path: string): void {
  const before = keys.fingerprint(kid);
  try {
    keys.add(kid, toPem(readGivenFile(path)));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Error(`${printable(path)}: ${error.message}`, { cause: error });
  }
  if (before !== undefined && before !== keys.fingerprint(kid)) {
    throw new Error(
      `two files hold different keys of kid ${kid}, one of them ${printable(path)}: remove the wrong one`,
    );
  }
}

/** Gives the PEM of a key that may also be DER, as browsers save certificates. */
function toPem(bytes: Buffer): string {
  // Every structure of DER that can hold a key is a SEQUENCE.
  if (bytes[0] !== 0x30) return bytes.toString('latin1');
  for (const parse of [
    () => new X509Certificate(bytes).publicKey,
    () => createPublicKey({ key: bytes, format: 'der', type: 'spki' }),
    () => createPublicKey({ key: bytes, format: 'der', type: 'pkcs1' }),
  ]) {
    try {
      return parse().export({ type: 'spki', format: 'pem' }) as string;
    } catch {
      // It is another structure.
    }
  }
  return bytes.toString('latin1');
}
