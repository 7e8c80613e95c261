import { Sealer } from '../dist/session/seal.js';
import { newSessionId, openSession, sealSession } from '../dist/session/session.js';
import { origin } from './handshake.mjs';

/** Makes sessions like one that is there, each of a login of its own; a whole login for each would take too long. */
export function sessionMaker({ waa, store, secret, sealed }) {
  const sealer = new Sealer([Buffer.from(secret, 'hex')], 'session', waa.cookies.session, origin, waa.cookies.path);
  const first = openSession(sealer, sealed);
  return async (principal) =>
    sealSession(sealer, { ...first, id: newSessionId(), principal, login: await store.next() });
}
