import { SessionError } from '../errors.js';

export function revoked(why?: string): SessionError {
  return new SessionError('ERR_SESSION_REVOKED', `the session was ended${why === undefined ? '' : `: ${why}`}`);
}

export function forgotten(): SessionError {
  return revoked('the store of sessions has lost its memory');
}

export function expired(because?: string): SessionError {
  if (because === 'inactiveTimeout') {
    return new SessionError('ERR_SESSION_IDLE', 'the session was not used for too long: log in again');
  }
  return new SessionError('ERR_SESSION_EXPIRED', 'the session is over: log in again');
}

export function storeAway(then = 'try again in a moment'): SessionError {
  return new SessionError('ERR_STORE_UNAVAILABLE', `the store of sessions cannot be reached: ${then}`);
}
