export type { Config, LogEvent } from './config.js';
export {
  AuthorisationError,
  type ErrorCode,
  ResponseError,
  SessionError,
  StatusError,
  VerificationError,
  WebauthError,
} from './errors.js';
export { KeySet, type PublicKey } from './keys.js';
export { goose, nevar, type Profile, raven, ravenDemo } from './profiles.js';
export { type AuthRequest, type Encoded, formatRequest } from './request.js';
export { type AuthResponse, type FailureStatus, parseResponse, type Version } from './response.js';
export type { ListedSession } from './session/list.js';
export { MemoryStore } from './session/memory.js';
export { cookieSecret, type SecretSources } from './session/secret.js';
export type { Auth, EndsBecause } from './session/session.js';
export type { Entry, Store, Subscriber } from './session/store.js';
export type { NewToken, Token } from './session/tokens.js';
export { type Expectations, type VerifiedResponse, verifyResponse } from './verify.js';
export { createWAA, type Requirements, type SessionDesk, type TokenDesk, type WAA } from './waa.js';
