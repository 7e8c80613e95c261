import type { KeySet } from '../keys.js';
import { raven, ravenDemo } from '../profiles.js';
import { formatKey, readKeys } from './key-files.js';
import { type Call, printable } from './usage.js';

const howToCheck = `To check a fingerprint, take the key from the login service itself, over https, and compare:

  openssl x509 -in pubkey2.crt -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256

or let this command read it: npx ucam-webauth keys pubkey2.crt

Raven's keys were published at https://raven.cam.ac.uk/project/keys/, the demonstration service's below it at
https://raven.cam.ac.uk/project/keys/demo_server/ (pubkey2.crt, pubkey901.crt). The dates of those certificates are
long past; only the key in them counts. For another login service, ask its operator.`;

/** Prints keys and their fingerprints. */
export async function keys({ words: [path] }: Call): Promise<number> {
  if (path !== undefined) list(printable(path), readKeys(path).keys);
  else {
    list('raven', raven.keys);
    list('ravenDemo (its private half is published: never for production)', ravenDemo.keys);
  }
  console.log(howToCheck);
  return 0;
}

function list(title: string, set: KeySet): void {
  console.log(title);
  for (const kid of set.kids) {
    const bits = set.get(kid)?.key.asymmetricKeyDetails?.modulusLength;
    const { spki, pkcs1 } = formatKey(set, kid);
    console.log(`  kid ${kid}, RSA ${bits} bits, SHA-256 of its SubjectPublicKeyInfo:\n    ${set.fingerprint(kid)}\n`);
    console.log(`${spki}\nThe same key as PKCS#1, for mod_ucam_webauth and python-ucam-webauth:\n\n${pkcs1}`);
  }
}
