import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Store } from '../src/session/store.js';
import { createWAA, type Login, type WAA } from '../src/waa.js';
import { createWLS } from '../src/wls/index.js';
import { wlsKey } from './helpers.js';
import { secret } from './site.js';
import { engines } from './stores/engines.js';

/** By the system's clock, as Redis has it. */
const wls = createWLS({ key: wlsKey.privateKey });

describe.each(engines())('coordinated logouts on $name', (engine) => {
  let stores: Store[];
  let waas: WAA[];
  let one: WAA;
  let two: WAA;
  beforeEach(async () => {
    stores = [];
    waas = [];
    await engine.empty();
    one = await start('one');
    two = await start('two');
  });
  afterEach(async () => {
    await Promise.all(waas.map((waa) => waa.close()));
    await Promise.all(stores.map((store) => store.close()));
  });

  async function start(name: string): Promise<WAA> {
    const store = await engine.open();
    stores.push(store);
    const waa = createWAA({
      ...{ baseUrl: `https://example.org/${name}`, cookieName: name, coordinatedLogout: true },
      ...{ secret, wls: wls.profile, store },
    });
    waas.push(waa);
    await waa.ready;
    return waa;
  }

  async function logIn(waa: WAA, principal: string, anchor?: string): Promise<Login> {
    const { location, nonce } = waa.startLogin('/');
    return waa.finishLogin(wls.respond(location, { principal }), nonce, undefined, anchor);
  }

  const count = async () => (await (stores[0] as Store).list('ended')).length;
  const opens = (waa: WAA, { cookie, anchor }: Login) => {
    try {
      return waa.openSession(cookie, anchor).principal;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it('of one user leave few entries, and every session stays revoked, also after a restart', async () => {
    const ended: Login[] = [];
    for (let i = 0; i < 150; i++) {
      const login = await logIn(one, 'test0001');
      ended.push(login);
      await one.endSession(login.auth);
    }
    // Folded by 64, with a cutoff and the lifetimes of two applications.
    expect(await count()).toBeLessThan(70);
    const again = await start('one');
    for (const waa of [one, again]) {
      expect(new Set(ended.map((login) => opens(waa, login)))).toEqual(new Set(['ERR_SESSION_REVOKED']));
    }
    // A login that is bound to an old cookie revives none of its sessions.
    const fresh = await logIn(one, 'test0001', ended[0]?.anchor);
    await expect.poll(() => opens(again, fresh)).toBe('test0001');
    expect(opens(again, ended[0] as Login)).toBe('ERR_SESSION_REVOKED');
  });

  it('of one user in two applications leave few entries, whichever of them logs out', async () => {
    const ended: [WAA, Login][] = [];
    for (let i = 0; i < 100; i++) {
      const first = await logIn(one, 'test0001');
      const second = await logIn(two, 'test0001', first.anchor);
      expect(second.anchor).toBe(first.anchor);
      ended.push([one, first], [two, second]);
      const out = i % 2 === 0 ? one : two;
      await out.endSession(i % 2 === 0 ? first.auth : second.auth);
      if (i % 20 === 0)
        for (const [waa, login] of ended.slice(-2)) await expect.poll(() => opens(waa, login)).toMatch(/^ERR/);
    }
    await expect.poll(() => ended.filter(([waa, login]) => opens(waa, login) !== 'ERR_SESSION_REVOKED')).toEqual([]);
    expect(await count()).toBeLessThan(80);
  });

  it('revive no session of another user in the same browser when they are folded', async () => {
    const minted = await logIn(two, 'other');
    const joined = await logIn(one, 'test0001', minted.anchor);
    await one.endSession(joined.auth);
    await expect.poll(() => opens(two, minted)).toBe('ERR_SESSION_REVOKED');
    // The other way round: the user who logs out has logged in first.
    const first = await logIn(one, 'test0001');
    const guest = await logIn(two, 'other', first.anchor);
    await one.endSession(first.auth);
    for (let i = 0; i < 140; i++) await one.endSession((await logIn(one, 'test0001')).auth);
    const [again, same] = [await start('two'), await start('one')];
    for (const waa of [two, again]) {
      expect([minted, guest].map((login) => opens(waa, login))).toEqual(['ERR_SESSION_REVOKED', 'ERR_SESSION_REVOKED']);
    }
    expect([joined, first].map((login) => opens(same, login))).toEqual(['ERR_SESSION_REVOKED', 'ERR_SESSION_REVOKED']);
  });

  it('fold logouts of the same user that other processes took', async () => {
    const processes = [one, await start('one'), await start('one')];
    for (let i = 0; i < 150; i++) {
      const waa = processes[i % 3] as WAA;
      const { auth } = await logIn(waa, 'test0001');
      await waa.endSession(auth);
    }
    expect(await count()).toBeLessThan(80);
  });
});
