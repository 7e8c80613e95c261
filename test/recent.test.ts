import { describe, expect, it } from 'vitest';
import { Recent } from '../src/session/recent.js';
import { createWAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

describe('what came lately', () => {
  it('is kept, at least five hundred and at most a thousand of it', () => {
    const recent = new Recent<number>();
    for (let i = 0; i < 100_000; i++) recent.set(`${i}`, i);
    const kept = Array.from({ length: 100_000 }, (_, i) => recent.get(`${99_999 - i}`)).filter(
      (one) => one !== undefined,
    );
    expect(kept.length).toBeGreaterThanOrEqual(500);
    expect(kept.length).toBeLessThanOrEqual(1000);
    expect(kept.slice(0, 500)).toEqual(Array.from({ length: 500 }, (_, i) => 99_999 - i));
  });

  it('stays as long as it comes again now and then', () => {
    const recent = new Recent<string>();
    recent.set('often', 'here');
    for (let i = 0; i < 10_000; i++) {
      recent.set(`${i}`, 'once');
      if (i % 450 === 0) expect(recent.get('often')).toBe('here');
    }
  });
});

describe('a session whose cookie came before', () => {
  const config = { baseUrl: 'http://localhost:3000', secret, wls: wls.profile, now: clock.now };
  const begin = async () => {
    const waa = createWAA(config);
    const { location, nonce } = waa.startLogin('/');
    const { cookie = '' } = await waa.finishLogin(wls.respond(location, { ptags: ['current'] }), nonce);
    return { waa, cookie, auth: waa.openSession(cookie) };
  };

  it('is looked at anew each time: ended, blocked, over, and in another application', async () => {
    clock.reset();
    const [one, two, three] = [await begin(), await begin(), await begin()];
    await one.waa.endSession(one.auth);
    expect(() => one.waa.openSession(one.cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    await two.waa.block('test0001');
    expect(() => two.waa.openSession(two.cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    expect(() => three.waa.openSession(one.cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_REVOKED' }));
    clock.pass(7200);
    expect(() => three.waa.openSession(three.cookie)).toThrow(expect.objectContaining({ code: 'ERR_SESSION_EXPIRED' }));
    clock.reset();
    for (const { waa } of [one, two, three]) await waa.close();
  });

  it('is the same however often it is opened, whatever the application does to what it is given', async () => {
    const { waa, cookie, auth } = await begin();
    const [ptags, sso] = [auth.ptags as string[], auth.sso as string[]];
    expect(() => ptags.push('staff')).toThrow(TypeError);
    expect(() => sso.push('pwd')).toThrow(TypeError);
    Object.assign(auth, { principal: 'root', ptags: ['staff'] });
    expect(waa.openSession(cookie)).toMatchObject({ principal: 'test0001', ptags: ['current'] });
    const made = { principal: 'test0001', name: 'a test', ttl: 60, scopes: ['read'], ptags: ['current'] };
    const { token } = await waa.tokens.create(made);
    for (let i = 0; i < 2; i++) {
      const { scopes = [] } = await waa.openToken(token);
      expect(() => (scopes as string[]).push('write')).toThrow(TypeError);
      expect(scopes).toEqual(['read']);
    }
    await waa.close();
  });
});
