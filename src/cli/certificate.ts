import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import forge from 'node-forge';

/** A certificate and its key, in PEM, as a server of Node takes them. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What this machine calls itself. */
export const loopback: readonly string[] = ['localhost', '*.localhost', '127.0.0.1', '::1'];

/** Makes a certificate that nobody vouches for, good for a week. @param names hosts and addresses, the main one first. */
export function makeCertificate(names: readonly string[]): Certificate {
  const { publicKey, privateKey: key } = generateKeys();
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.publicKeyFromPem(publicKey);
  // In front of what is random, so that it is a positive number, and written in the only way that there is.
  certificate.serialNumber = `01${randomBytes(16).toString('hex')}`;
  certificate.validity = validity();
  const subject = [{ name: 'commonName', value: names[0] }];
  certificate.setSubject(subject);
  certificate.setIssuer(subject);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'extKeyUsage', serverAuth: true },
    { name: 'subjectAltName', altNames: names.map(altName) },
  ]);
  certificate.sign(forge.pki.privateKeyFromPem(key), forge.md.sha256.create());
  return { cert: forge.pki.certificateToPem(certificate), key };
}

/** By Node, which is faster at it than forge. */
function generateKeys() {
  return generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
}

const hour = 3600_000;

/** From a little before now: the clock of whoever looks at it may be behind. */
function validity() {
  const now = Date.now();
  return { notBefore: new Date(now - hour), notAfter: new Date(now + 7 * 24 * hour) };
}

/** As X.509 tells them apart: 2 is a name, 7 an address. */
function altName(name: string) {
  return isIP(name) === 0 ? { type: 2, value: name } : { type: 7, ip: name };
}
