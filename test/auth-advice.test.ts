import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

let waa: WAA;

beforeEach(() => {
  clock.reset();
  waa = createWAA({ baseUrl: 'http://localhost:1', secret, wls: wls.profile, now: clock.now, log: () => {} });
});
afterEach(() => waa.close());

async function copyOfToken(): Promise<Auth> {
  const { token } = await waa.tokens.create({ principal: 'test0001', name: 'a program', ttl: 60 });
  return { ...(await waa.openToken(token)) };
}

async function copyOfSession(): Promise<Auth> {
  const { location, nonce } = waa.startLogin('/');
  return { ...(await waa.finishLogin(wls.respond(location), nonce)).auth };
}

describe('the advice of the TypeError for a copy of an Auth', () => {
  it.each([copyOfToken, copyOfSession])('is to use the object, for watch() and %o', async (copy) => {
    const auth = await copy();
    expect(() => waa.watch(auth, () => {})).toThrow('request.auth of a handler or a socket');
    expect(() => waa.watch(auth, () => {})).not.toThrow('To revoke');
  });

  it.each(['endSession', 'retireSession'] as const)(
    'names the list of tokens for an API token, and %s()',
    async (method) => {
      const revoked = waa[method](await copyOfToken());
      await expect(revoked).rejects.toThrow('waa.tokens.revoke(principal, handle)');
      await expect(revoked).rejects.not.toThrow('waa.sessions');
    },
  );

  it.each(['endSession', 'retireSession'] as const)(
    'names the list of sessions for a session, and %s()',
    async (method) => {
      await expect(waa[method](await copyOfSession())).rejects.toThrow('waa.sessions.revoke(principal, handle)');
    },
  );
});
