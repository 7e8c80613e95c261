import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

// version and key id (6 bytes: exactly 8 characters of base64url) | nonce (12) | ciphertext | tag (16)
// 3: hashes in the store are labeled. What was sealed before does not open, since its revocations are not understood.
const VERSION = 3;
const HEAD = 6;
const NONCE = 12;
const TAG = 16;
const gcm = { authTagLength: TAG };

// Characters: nothing sealed, and more than any cookie.
const SHORTEST = 46;
const LONGEST = 8192;

interface SealingKey {
  readonly head: Buffer;
  readonly key: KeyObject;
  readonly aad: Buffer;
}

/**
 * Seals texts so that only we can read or make them: AES-256-GCM, under keys made from the secrets by HKDF for this one
 * purpose and place. The first secret seals; all of them open.
 */
export class Sealer {
  readonly #first: SealingKey;
  readonly #keys = new Map<string, SealingKey>();

  /**
   * @param purpose what the texts are; a text sealed for one purpose does not open as another.
   * @param bound where they belong (cookie name, base URL, path); it does not open elsewhere.
   */
  constructor(secrets: readonly Buffer[], purpose: string, ...bound: string[]) {
    const keys = secrets.map((secret) => deriveKey(secret, JSON.stringify(['ucam-webauth', purpose, ...bound])));
    if (keys[0] === undefined) throw new TypeError('a sealer needs a secret');
    this.#first = keys[0];
    for (const key of keys) this.#keys.set(key.head.toString('base64url'), key);
  }

  seal(text: string): string {
    const { head, key, aad } = this.#first;
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(aad);
    const body = [cipher.update(text, 'utf8'), cipher.final()];
    return Buffer.concat([head, nonce, ...body, cipher.getAuthTag()]).toString('base64url');
  }

  /** The text, or why it does not open: no secret of ours sealed it here, or it is not as we sealed it. */
  open(sealed: string): { readonly text: string } | 'unknown' | 'invalid' {
    // A client chooses it, and some parsers of cookies make objects of it.
    if (typeof sealed !== 'string') return 'invalid';
    if (sealed.length < SHORTEST || sealed.length > LONGEST) return 'invalid';
    const key = this.#keys.get(sealed.slice(0, (HEAD * 4) / 3));
    if (key === undefined) return mayBeAnothers(sealed) ? 'unknown' : 'invalid';
    const bytes = decode(sealed);
    if (bytes === undefined) return 'invalid';
    try {
      return { text: decrypt(key, bytes) };
    } catch {
      return 'invalid';
    }
  }
}

/** Whether a secret that we do not have, or a later version of us, may have sealed it. */
function mayBeAnothers(sealed: string): boolean {
  return /^[\w-]*$/.test(sealed) && (Buffer.from(sealed.slice(0, 4), 'base64url')[0] as number) >= VERSION;
}

/** Base64url as we write it: Node's decoder skips what it does not know, takes the other alphabet, and drops bits at the end. */
function decode(sealed: string): Buffer | undefined {
  const bytes = Buffer.from(sealed, 'base64url');
  return bytes.toString('base64url') === sealed ? bytes : undefined;
}

function decrypt({ key, aad }: SealingKey, bytes: Buffer): string {
  // As views; a Buffer's own parts take longer to make.
  const part = (from: number, to: number) => new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from);
  const end = bytes.length - TAG;
  const decipher = createDecipheriv('aes-256-gcm', key, part(HEAD, HEAD + NONCE), gcm);
  decipher.setAAD(aad);
  decipher.setAuthTag(part(end, bytes.length));
  const text = decipher.update(part(HEAD + NONCE, end));
  decipher.final();
  return text.toString();
}

function deriveKey(secret: Buffer, info: string): SealingKey {
  const derive = (what: string, length: number) =>
    Buffer.from(hkdfSync('sha256', secret, '', JSON.stringify([what, info]), length));
  // The key id is made from the secret, so that its place in a list can change.
  const head = Buffer.concat([Buffer.of(VERSION), derive('key id', HEAD - 1)]);
  const aad = Buffer.concat([head, Buffer.from(info)]);
  return { head, key: createSecretKey(derive('key', 32)), aad };
}
