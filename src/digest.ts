import { hash } from 'node:crypto';

/** Kinds of text that are hashed. None of them contains a colon. */
export type Hashed =
  | 'application'
  | 'binding'
  | 'handshake ticket'
  | 'login nonce'
  | 'owner'
  | 'person'
  | 'requirements'
  | 'response'
  | 'session'
  | 'ticket'
  | 'token'
  | 'token handle';

/**
 * Returns the SHA-256 of a text, labeled by its kind, in base64url.
 *
 * Users choose some of these texts, such as the value of a cookie. The label keeps such a hash from being taken for the
 * hash of another kind. The hash has no key, since applications with different secrets share a store.
 */
export function digest(kind: Hashed, text: string): string {
  return hash('sha256', `${kind}:${text}`, 'base64url');
}
