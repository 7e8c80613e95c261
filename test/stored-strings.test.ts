import { hkdfSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { cookiesOf, socketCookieOf } from '../src/config.js';
import { digest } from '../src/digest.js';
import { bindingName, personOf, sessionName, tokenName } from '../src/session/ended.js';
import { blockEntry, cutEntry, lifeEntry, memberEntry, revocationEntry, unowned } from '../src/session/entries.js';
import { MemoryStore } from '../src/session/memory.js';
import { Sealer } from '../src/session/seal.js';
import { createWAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

const ends = new Date(Date.UTC(2026, 2, 1));

describe('stored strings', () => {
  it('are these hashes, by kind', () => {
    expect(digest('session', 'AAAAAAAAAAAAAAAAAAAAAA')).toMatchInlineSnapshot(
      `"jN5AK0VJ7lmzRCFUWDCgPYBNhFSA4yaXNcMbR3WCclM"`,
    );
    expect(digest('binding', 'AAAAAAAAAAAAAAAAAAAAAA')).toMatchInlineSnapshot(
      `"X9_MvIvzd41g_sJfFtECMFLMwt-du49CNQgyh8BYCbk"`,
    );
    expect(digest('person', '["raven","abc12"]')).toMatchInlineSnapshot(
      `"tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM"`,
    );
    expect(digest('owner', '["https://example.org","raven","abc12"]')).toMatchInlineSnapshot(
      `"h1CRzziNJHOCnb5rlKlXetIWNt-nhaL0AfAV5SL7Qro"`,
    );
    expect(digest('application', '["https://example.org","__Host-webauth-session"]')).toMatchInlineSnapshot(
      `"Pi-U66VQWxRvKqsWCeAN9Qqfkzq2qwM1uzjzDrkkeas"`,
    );
    expect(digest('token', '["https://example.org","ucwa_x"]')).toMatchInlineSnapshot(
      `"aAtfpng62zYbNiGUo2Eb0j6tIHevkS7Y9w_mF4kLIjM"`,
    );
    expect(digest('token handle', 'x')).toMatchInlineSnapshot(`"M00JfCtTq0Eh8zPgAi7WjtU9oMDkZX9viYoKVbvP1VQ"`);
    expect(digest('ticket', '["https://example.org","x"]')).toMatchInlineSnapshot(
      `"KJhzZj0NfsKZgyEsXBGgMF7UalGJw9l8JseAFUsAuiM"`,
    );
    expect(digest('response', '["raven",0,"x"]')).toMatchInlineSnapshot(
      `"x2cIQUW5uQX7GEk-i9uHCEegee4uxDO9KsQAPDof014"`,
    );
    expect(digest('login nonce', 'x')).toMatchInlineSnapshot(`"xQcxYKYTs_Tn_kbRizK9ue9fGg93zzQp6n_SNHqkjJQ"`);
    expect(digest('requirements', '&iact=yes')).toMatchInlineSnapshot(`"aIm2M7jBycpSbaXgW5YXnQbL33uDRlYKKxAVHP63vdA"`);
  });

  it('are these entries of the folder of revocations', () => {
    const person = personOf('raven', 'abc12');
    const binding = digest('binding', 'x');
    const owner = { person, login: 7 };
    const entries = [
      revocationEntry(sessionName('x'), owner, ends),
      revocationEntry(bindingName(binding), unowned, ends),
      revocationEntry(tokenName('x'), unowned, ends),
      cutEntry(person, 7, ends),
      blockEntry(person, 7, true, ends),
      blockEntry(person, 7, false, ends),
      lifeEntry(digest('application', 'x'), 7200, ends),
      memberEntry(binding, owner, ends),
    ];
    expect(entries.map(({ key, value }) => [key, value])).toMatchInlineSnapshot(`
      [
        [
          "ended:session.nMbEOaPZ9xbZ4FJiHfK9OSMKs8qyLPm6uzbFqZWa-3Y",
          "tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM.7",
        ],
        [
          "ended:binding.IYv8wSj_8oTeq3RU967Kj1PdDLI5obU_WToohG_pRu0",
          "",
        ],
        [
          "ended:token.M00JfCtTq0Eh8zPgAi7WjtU9oMDkZX9viYoKVbvP1VQ",
          "",
        ],
        [
          "ended:all.tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM.7",
          "",
        ],
        [
          "ended:blocked.tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM.7",
          "yes",
        ],
        [
          "ended:blocked.tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM.7",
          "no",
        ],
        [
          "ended:life.zd6_26_MmDe08qiMyrTc9pSYnP88lAEZcddqVoKvUrY.7200",
          "",
        ],
        [
          "ended:member.IYv8wSj_8oTeq3RU967Kj1PdDLI5obU_WToohG_pRu0.tuD8YR7NCBy2nT-ZCbjwY_W7y3v5yXV6GmTZtg0oaPM",
          "7",
        ],
      ]
    `);
  });

  it('are these keys and folders of a store', async () => {
    clock.reset();
    const keys = new Set<string>();
    class Noting extends MemoryStore {
      override async put(key: string, value: string, expires: Date): Promise<void> {
        keys.add(key);
        return super.put(key, value, expires);
      }
      override async spend(key: string, expires: Date): Promise<boolean> {
        keys.add(`spent ${key}`);
        return super.spend(key, expires);
      }
    }
    const store = new Noting({ now: clock.now });
    const config = { baseUrl: 'https://example.org/app', secret, wls: wls.profile, now: clock.now, store };
    const waa = createWAA({ ...config, listSessions: true, inactiveTimeout: 600, coordinatedLogout: true });
    await waa.ready;
    const { location, nonce } = waa.startLogin('/app');
    const { auth, cookie, anchor } = await waa.finishLogin(wls.respond(location, { principal: 'abc12' }), nonce);
    waa.note(auth);
    await waa.makeTicket(cookie, anchor);
    await waa.tokens.create({ principal: 'abc12', name: 'x', ttl: 60 });
    clock.pass(301);
    waa.renew(waa.openSession(cookie, anchor));
    await waa.endSession(auth);
    await waa.close();
    // What is random in them, by its shape alone.
    const known = [
      ...[digest('person', JSON.stringify([wls.profile.name, 'abc12']))],
      ...[digest('owner', JSON.stringify(['https://example.org/app', wls.profile.name, 'abc12']))],
      ...[digest('application', '["https://example.org/app","__Host-webauth-session"]')],
    ];
    const shapeOf = (key: string) =>
      key.replace(/[\w-]{43}/g, (hash) => ['<person>', '<owner>', '<application>'][known.indexOf(hash)] ?? '<hash>');
    expect([...keys].map((key) => shapeOf(key).replace(/\d{1,16}$/, '<number>')).sort()).toMatchInlineSnapshot(`
      [
        "ended:binding.<hash>",
        "ended:life.<application>.<number>",
        "ended:member.<hash>.<person>",
        "seen.<application>:<hash>",
        "sessions.<owner>:<hash>",
        "spent <hash>",
        "ticket.<hash>",
        "token.<hash>",
        "tokens.<owner>:<hash>",
      ]
    `);
  });

  it('are these cookies', () => {
    const config = { baseUrl: 'https://example.org', wls: wls.profile, coordinatedLogout: true };
    expect(cookiesOf(config)).toMatchInlineSnapshot(`
      {
        "anchor": "__Host-webauth-session-id",
        "done": "__Host-webauth-done",
        "login": "__Host-webauth-login",
        "path": "/",
        "secure": true,
        "session": "__Host-webauth-session",
      }
    `);
    expect(socketCookieOf(config, 'https://pages.example.org')).toMatchInlineSnapshot(`
      {
        "name": "__Host-webauth-socket",
        "secure": true,
      }
    `);
    expect(
      cookiesOf({ baseUrl: 'https://example.org/app', cookiePath: '/app', cookieName: 'app' }),
    ).toMatchInlineSnapshot(`
      {
        "anchor": "__Host-webauth-session-id",
        "done": "__Host-app-done",
        "login": "__Host-app-login",
        "path": "/app",
        "secure": true,
        "session": "__Secure-app-session",
      }
    `);
    expect(cookiesOf({ baseUrl: 'http://localhost:3000' })).toMatchInlineSnapshot(`
      {
        "anchor": undefined,
        "done": "webauth-done",
        "login": "webauth-login",
        "path": "/",
        "secure": false,
        "session": "webauth-session",
      }
    `);
  });

  it('are sealed under keys of these purposes, in version 3', () => {
    const key = Buffer.from(secret, 'hex');
    const headOf = (purpose: string, ...bound: string[]) => {
      const info = JSON.stringify(['key id', JSON.stringify(['ucam-webauth', purpose, ...bound])]);
      const id = Buffer.from(hkdfSync('sha256', key, '', info, 5));
      expect(new Sealer([key], purpose, ...bound).seal('x').slice(0, 8)).toBe(
        Buffer.concat([Buffer.of(3), id]).toString('base64url'),
      );
      return Buffer.concat([Buffer.of(3), id]).toString('base64url');
    };
    const bound = ['__Host-webauth-session', 'https://example.org', '/'];
    const purposes = ['session', 'ticket', 'token', 'list', 'renewal', 'socket'];
    expect(purposes.map((purpose) => [purpose, headOf(purpose, ...bound)])).toMatchInlineSnapshot(`
      [
        [
          "session",
          "AzCzURgO",
        ],
        [
          "ticket",
          "A-qjoh1h",
        ],
        [
          "token",
          "A7VD9CTQ",
        ],
        [
          "list",
          "A4NsTgeq",
        ],
        [
          "renewal",
          "AwlbhfcY",
        ],
        [
          "socket",
          "A4r8ogJJ",
        ],
      ]
    `);
    expect(headOf('login attempt', '__Host-webauth-login', 'https://example.org', '/')).toMatchInlineSnapshot(
      `"A_TNl-PR"`,
    );
  });
});
