import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import forge from 'node-forge';
import { afterAll, describe, expect, it } from 'vitest';
import { bundledKey, KeySet, type PublicKey } from '../src/keys.js';
import { goose, isDemoKey, nevar, raven, ravenDemo } from '../src/profiles.js';
import { signedPart } from '../src/response.js';
import { signText, verifySignature } from '../src/signature.js';
import { makeKey, thrownBy, toBytes, wlsKey } from './helpers.js';

const figures = {
  2: {
    n: 'bff6a7005b55c24a4d117c07e2ba5bd3a2e319283e239bdf6b5ed30870ed9b9fedc4c50a4e6dbc16ba088ef033447df4bb6f34b166a1a9ed4e9b3dd8b8c5f5fbeb0816190eaa5a2e79397255d284a2aab77768e12ca4a9892aeba929738da3679f02de8991d1d51f43ba3bc9392d56a9eb0e32d56fd3febcb8407ee4851c56b5',
    fingerprint: '813ab90a52018aff372740e1baa571273d3573fff8d908952a87c19093522afd',
  },
  901: {
    n: 'b8458bdb4866f8d841045f3b33f7732e6e8d1f75667b509d07a195d0721e57211d1997c00d68b7f7b55a51cf8088d890545695235c483339afb06416eebdccceba207705f34348a29069fb7158aa2e6e825103969cc5addfaf625973c3b941cd49e90abc13c723b92416969c5319ad091276ca57bfcf554143b85784235d5eff',
    fingerprint: 'd61f4109c85e19bf58a4e7efaf822a4cf1b97a1dd25dcdd363b6d2386ec41a77',
  },
} as const;

const passportRaven = dirname(createRequire(import.meta.url).resolve('passport-raven'));
const certificateOf = (kid: '2' | '901') => readFileSync(join(passportRaven, `pubkey${kid}.crt`), 'utf8');

const genuine: { kid: '2' | '901'; response: string }[] = JSON.parse(
  readFileSync(new URL('vectors/real-responses.json', import.meta.url), 'utf8'),
);

function keyOf(pem: string): PublicKey {
  return KeySet.from({ 1: pem }).get('1') as PublicKey;
}

/** Holds that a text is refused as a key, with a TypeError whose message matches. */
function expectRefusedKey(pem: unknown, message: RegExp): void {
  const keys = new KeySet();
  const error = thrownBy(() => keys.add('1', pem as string)) as Error;
  expect(error.constructor).toBe(TypeError);
  expect(error.message).toMatch(message);
  expect(keys.kids).toEqual([]);
}

function publicPem(key: KeyObject, type: 'spki' | 'pkcs1' = 'spki'): string {
  return (key.type === 'private' ? createPublicKey(key) : key).export({ type, format: 'pem' }) as string;
}

/** A certificate of the test key: made by forge, expired, and changed before it is put into PEM. */
function certificate(change: (der: Buffer) => Buffer = (der) => der): string {
  const privateKey = forge.pki.privateKeyFromPem(
    wlsKey.privateKey.export({ type: 'pkcs1', format: 'pem' }) as string,
  ) as forge.pki.rsa.PrivateKey;
  const made = forge.pki.createCertificate();
  made.publicKey = forge.pki.setRsaPublicKey(privateKey.n, privateKey.e);
  made.serialNumber = '01';
  made.validity.notBefore = new Date('2001-01-01T00:00:00Z');
  made.validity.notAfter = new Date('2002-01-01T00:00:00Z');
  made.setSubject([{ name: 'commonName', value: 'somebody else' }]);
  made.setIssuer([{ name: 'commonName', value: 'nobody' }]);
  made.sign(privateKey, forge.md.md5.create());
  const der = Buffer.from(forge.asn1.toDer(forge.pki.certificateToAsn1(made)).getBytes(), 'latin1');
  const base64 = change(der).toString('base64').replaceAll(/.{64}/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
}

describe('the keys that come with the package', () => {
  it.each(['2', '901'] as const)('[K3] have these figures: kid %s', (kid) => {
    const keys = bundledKey(kid);
    const key = keys.get(kid) as PublicKey;
    expect(keys.kids).toEqual([kid]);
    expect(key.n.toString('hex')).toBe(figures[kid].n);
    expect(key.e.toString('hex')).toBe('010001');
    expect(key.length).toBe(128);
    expect(key.fingerprint).toBe(figures[kid].fingerprint);
    expect(keys.fingerprint(kid)).toBe(figures[kid].fingerprint);
    expect(key.key.asymmetricKeyDetails).toMatchObject({ modulusLength: 1024, publicExponent: 65537n });
  });

  it.each(['2', '901'] as const)('[K3, K1] are in the old certificates that others ship: kid %s', (kid) => {
    const theirs = KeySet.from({ [kid]: certificateOf(kid) });
    expect(theirs.fingerprint(kid)).toBe(figures[kid].fingerprint);
    expect(theirs.get(kid)?.n).toEqual(bundledKey(kid).get(kid)?.n);
  });

  it.each(genuine)('[K3, S1] signed what the real services sent: $note', ({ kid, response }) => {
    const sig = Buffer.from(
      response
        .slice(response.lastIndexOf('!') + 1)
        .replaceAll('-', '+')
        .replaceAll('.', '/')
        .replaceAll('_', '='),
      'base64',
    );
    const theirs = keyOf(certificateOf(kid));
    const other = bundledKey(kid === '2' ? '901' : '2').get(kid === '2' ? '901' : '2') as PublicKey;
    expect(verifySignature(bundledKey(kid).get(kid) as PublicKey, signedPart(response), sig)).toBe(true);
    expect(verifySignature(theirs, signedPart(response), sig)).toBe(true);
    expect(verifySignature(other, signedPart(response), sig)).toBe(false);
  });

  it('[K3] are what is in the folder', () => {
    const keys = KeySet.fromDirectory(new URL('../keys', import.meta.url).pathname);
    expect(keys.kids.toSorted()).toEqual(['2', '901']);
  });

  it.each(['2', '901'] as const)('[K3] equal the file of the folder: %s', (kid) => {
    const file = KeySet.fromDirectory(new URL('../keys', import.meta.url).pathname);
    expect(bundledKey(kid).kids).toEqual([kid]);
    expect(bundledKey(kid).fingerprint(kid)).toBe(file.fingerprint(kid));
    expect(readFileSync(new URL('../src/keys.ts', import.meta.url), 'utf8')).toContain(
      readFileSync(new URL(`../keys/${kid}.pem`, import.meta.url), 'utf8').trim(),
    );
  });
});

describe('the login services', () => {
  const keys = KeySet.from({ 500: wlsKey.pem });

  it('[L1] raven', () => {
    expect(raven).toMatchObject({
      name: 'raven',
      authUrl: 'https://raven.cam.ac.uk/auth/authenticate.html',
      logoutUrl: 'https://raven.cam.ac.uk/auth/logout.html',
      requirePtags: ['current'],
    });
    expect(raven.keys.kids).toEqual(['2']);
    expect(raven.keys.fingerprint('2')).toBe(figures[2].fingerprint);
  });

  it('[L2] ravenDemo', () => {
    expect(ravenDemo).toMatchObject({
      name: 'ravenDemo',
      authUrl: 'https://demo.raven.cam.ac.uk/auth/authenticate.html',
      logoutUrl: 'https://demo.raven.cam.ac.uk/auth/logout.html',
      requirePtags: ['current'],
    });
    expect(ravenDemo.keys.kids).toEqual(['901']);
    expect(ravenDemo.keys.fingerprint('901')).toBe(figures[901].fingerprint);
  });

  it('[L3] nevar', () => {
    expect(nevar({ keys })).toStrictEqual({
      name: 'nevar',
      authUrl: 'https://nevar.srcf.net/wls/authenticate',
      logoutUrl: 'https://nevar.srcf.net/oidc/logout',
      keys,
      oldVersionPtags: ['current'],
      requirePtags: ['current'],
      principalPattern: /^[a-z][a-z0-9]*$/,
    });
  });

  it('[L4] goose', () => {
    expect(goose({ keys })).toStrictEqual({
      name: 'goose',
      authUrl: 'https://auth.srcf.net/wls/authenticate',
      logoutUrl: 'https://auth.srcf.net/logout',
      keys,
      oldVersionPtags: [],
      requirePtags: [],
    });
  });

  it('[L5] that are like Raven say what old versions imply', () => {
    expect(raven.oldVersionPtags).toEqual(['current']);
    expect(ravenDemo.oldVersionPtags).toEqual(['current']);
    expect(nevar({ keys }).oldVersionPtags).toEqual(['current']);
    expect(goose({ keys }).oldVersionPtags).toEqual([]);
  });

  it('[K6] know the demonstration key again, under any kid and in any wrapping', () => {
    const { key } = bundledKey('901').get('901') as PublicKey;
    for (const text of [publicPem(key), publicPem(key, 'pkcs1'), certificateOf('901')]) {
      const configured = KeySet.from({ 2: text, 77: text });
      for (const kid of configured.kids) expect(isDemoKey(configured.get(kid) as PublicKey)).toBe(true);
    }
    expect(isDemoKey(bundledKey('2').get('2') as PublicKey)).toBe(false);
    expect(isDemoKey(keyOf(wlsKey.pem))).toBe(false);
  });
});

describe('what is a key', () => {
  it('[K1] is SPKI, PKCS#1 or a certificate, and the same key in each', () => {
    const texts = [wlsKey.pem, publicPem(wlsKey.privateKey, 'pkcs1'), certificate()];
    expect(texts.map((text) => /BEGIN ([A-Z ]+)-/.exec(text)?.[1])).toEqual([
      'PUBLIC KEY',
      'RSA PUBLIC KEY',
      'CERTIFICATE',
    ]);
    for (const text of texts) {
      const { fingerprint, n, e, length } = keyOf(text);
      expect(fingerprint).toBe(keyOf(wlsKey.pem).fingerprint);
      expect({ n, e, length }).toEqual({ n: toBytes(wlsKey.n), e: Buffer.from([1, 0, 1]), length: 128 });
    }
  });

  it('[K1] is all that counts of a certificate: it may be out of date, and its signature wrong', () => {
    const spoiled = certificate((der) => {
      der[der.length - 1] = (der[der.length - 1] as number) ^ 1;
      return der;
    });
    expect(spoiled).not.toBe(certificate());
    expect(keyOf(spoiled).fingerprint).toBe(keyOf(wlsKey.pem).fingerprint);
  });

  it.each([1024, 1025, 1031, 1536, 2048, 3072, 4096])('[K2] may have %i bits', (bits) => {
    const made = makeKey(bits);
    const key = keyOf(made.pem);
    expect(key.length).toBe(Math.ceil(bits / 8));
    expect(key.n).toEqual(toBytes(made.n));
    const sig = signText(made.privateKey, 'text');
    expect(sig).toHaveLength(key.length);
    expect(verifySignature(key, 'text', sig)).toBe(true);
    expect(verifySignature(key, 'Text', sig)).toBe(false);
  });

  it.each([512, 768, 1016, 1022, 1023])('[K2] may not have %i bits', (bits) => {
    const { pem } = makeKey(bits);
    expectRefusedKey(pem, new RegExp(`${bits} bits.* 1024`));
    expectRefusedKey(publicPem(createPublicKey(pem), 'pkcs1'), /1024/);
  });

  it.each([3n, 5n, 17n, 257n, 65535n])('[K2] may not have the exponent %d', (exponent) => {
    expectRefusedKey(makeKey(1024, 'exponent', exponent).pem, new RegExp(`exponent ${exponent};.*65537`));
  });

  it.each([65537n, 65539n, 4294967311n])('[K2] may have the exponent %d', (exponent) => {
    expect(keyOf(makeKey(1024, 'exponent', exponent).pem).e).toEqual(toBytes(exponent));
  });

  it('[K2] is RSA, and RSA for any padding', () => {
    const others = [
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      generateKeyPairSync('ed25519'),
      generateKeyPairSync('x25519'),
      generateKeyPairSync('rsa-pss', { modulusLength: 1024 }),
      generateKeyPairSync('dsa', { modulusLength: 1024, divisorLength: 160 }),
    ];
    for (const { publicKey } of others) {
      expectRefusedKey(publicKey.export({ type: 'spki', format: 'pem' }), /not an RSA key/);
    }
  });

  it('[K2] is not a private one', () => {
    const { privateKey } = wlsKey;
    const texts = [
      privateKey.export({ type: 'pkcs1', format: 'pem' }),
      privateKey.export({ type: 'pkcs8', format: 'pem' }),
      privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-128-cbc', passphrase: 'x' }),
      `${wlsKey.pem}${privateKey.export({ type: 'pkcs8', format: 'pem' })}`,
    ];
    for (const text of texts) {
      expectRefusedKey(text, /private key/);
      const error = thrownBy(() => keyOf(text as string)) as Error;
      // Not a line of it is repeated.
      for (const line of (text as string).split('\n')) if (line.length > 40) expect(error.message).not.toContain(line);
    }
  });

  it('[K2] is PEM', () => {
    const base64 = wlsKey.pem.replaceAll(/-----[^-]*-----|\n/g, '');
    const broken = `-----BEGIN PUBLIC KEY-----\n${base64.slice(0, -40)}\n-----END PUBLIC KEY-----\n`;
    for (const text of ['', 'x', base64, broken, '-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n']) {
      expectRefusedKey(text, /not a public key or certificate in PEM/);
    }
    for (const text of [
      undefined,
      null,
      2,
      {},
      Buffer.from(wlsKey.pem),
      createPrivateKey(wlsKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string),
    ]) {
      expectRefusedKey(text, /not PEM text/);
    }
  });
});

describe('a set of keys', () => {
  const other = makeKey(1024, 'another');

  it('[K4] holds several, which come and go', () => {
    const keys = KeySet.from({ 500: wlsKey.pem });
    expect(keys.get('501')).toBeUndefined();
    keys.add('501', other.pem);
    expect(keys.kids).toEqual(['500', '501']);
    expect(keys.get('501')?.n).toEqual(toBytes(other.n));
    expect(keys.remove('500')).toBe(true);
    expect(keys.remove('500')).toBe(false);
    expect(keys.get('500')).toBeUndefined();
    expect(keys.fingerprint('500')).toBeUndefined();
    expect(keys.kids).toEqual(['501']);
    keys.add('501', wlsKey.pem);
    expect(keys.get('501')?.n).toEqual(toBytes(wlsKey.n));
  });

  it('[K4] does not change through what it gives out', () => {
    const keys = KeySet.from({ 500: wlsKey.pem });
    keys.kids.push('501');
    expect(keys.kids).toEqual(['500']);
  });

  it('[K4] keeps the key that it has where the new one is refused', () => {
    const keys = KeySet.from({ 500: wlsKey.pem });
    expect(() => keys.add('500', 'not a key')).toThrow(TypeError);
    expect(keys.get('500')?.n).toEqual(toBytes(wlsKey.n));
  });

  it('[K5] may have kids of one to eight digits', () => {
    for (const kid of ['1', '2', '901', '99999999']) expect(KeySet.from({ [kid]: wlsKey.pem }).kids).toEqual([kid]);
  });

  const strange = [
    ...['', '0', '02', '123456789', '-1', '+2', '2.0', '1e3', ' 2', '2 ', '2\n', '\n2', '2\0', '٢', '２', 'two'],
    ...['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'get', 'size', '../2', './2', '2.pem', '2/', '/2'],
  ];

  it.each(strange)('[K5, X8] never has the kid %j', (kid) => {
    const keys = KeySet.from({ 2: wlsKey.pem });
    expect(thrownBy(() => keys.add(kid, wlsKey.pem))).toBeInstanceOf(TypeError);
    const pairs = Object.fromEntries([[kid, wlsKey.pem]]);
    expect(Object.keys(pairs)).toEqual([kid]);
    expect(thrownBy(() => KeySet.from(pairs))).toBeInstanceOf(TypeError);
    expect(keys.get(kid)).toBeUndefined();
    expect(keys.fingerprint(kid)).toBeUndefined();
    expect(keys.remove(kid)).toBe(false);
    expect(keys.kids).toEqual(['2']);
  });
});

describe('a folder of keys', () => {
  const folder = mkdtempSync(join(tmpdir(), 'keys-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  async function fill(name: string, files: Record<string, string>): Promise<string> {
    const path = join(folder, name);
    await mkdir(path);
    for (const [file, text] of Object.entries(files)) await writeFile(join(path, file), text);
    return path;
  }

  it('[K4] has one file for each kid', async () => {
    const path = await fill('several', { '500.pem': wlsKey.pem, '2.pem': certificateOf('2') });
    const keys = KeySet.fromDirectory(path);
    expect(keys.kids.toSorted()).toEqual(['2', '500']);
    expect(keys.fingerprint('2')).toBe(figures[2].fingerprint);
    expect(keys.get('500')?.n).toEqual(toBytes(wlsKey.n));
  });

  it('[K5] may have other files in it, which are left alone', async () => {
    const rubbish = [
      ...['README.md', '2', '2.crt', '02.pem', '0.pem', '123456789.pem', '2.pem.bak', '.pem', '2.PEM', 'x2.pem'],
      ...['2.pem~', '.2.pem', '2.pem\n', '__proto__.pem', 'constructor.pem'],
    ];
    const path = await fill('other', {
      ...Object.fromEntries(rubbish.map((name) => [name, 'not a key'])),
      '7.pem': wlsKey.pem,
    });
    await mkdir(join(path, 'folder'));
    expect(KeySet.fromDirectory(path).kids).toEqual(['7']);
  });

  it('[K4] is read once', async () => {
    const path = await fill('once', { '7.pem': wlsKey.pem });
    const keys = KeySet.fromDirectory(path);
    writeFileSync(join(path, '8.pem'), wlsKey.pem);
    expect(keys.get('8')).toBeUndefined();
    expect(keys.get('../once/7')).toBeUndefined();
  });

  it('[K2] with a file that holds no key is refused, and the message names the kid', async () => {
    const path = await fill('broken', { '7.pem': wlsKey.pem, '8.pem': 'not a key' });
    expect(() => KeySet.fromDirectory(path)).toThrow(/key 8 is not a public key/);
  });

  it('[K4] without any is refused, as is one that does not exist', async () => {
    const path = await fill('empty', {});
    expect(thrownBy(() => KeySet.fromDirectory(path))).toBeInstanceOf(TypeError);
    const rubbish = await fill('rubbish', { '02.pem': wlsKey.pem });
    expect(thrownBy(() => KeySet.fromDirectory(rubbish))).toBeInstanceOf(TypeError);
    expect(() => KeySet.fromDirectory(join(folder, 'nowhere'))).toThrow(/ENOENT/);
  });
});
