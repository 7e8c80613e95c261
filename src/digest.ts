import { hash } from 'node:crypto';

/** SHA-256 in base64url: what a store or a token keeps in place of a text. */
export function digest(text: string): string {
  return hash('sha256', text, 'base64url');
}
