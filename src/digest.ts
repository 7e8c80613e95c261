import { createHash } from 'node:crypto';

/** SHA-256 in base64url: what a store or a token keeps in place of a text. */
export function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}
