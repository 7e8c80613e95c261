import { constants, createHash, privateEncrypt, type RsaPrivateKey } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { bundledKey, KeySet, type PublicKey } from '../src/keys.js';
import { chooseEngine, type Engine, forgeEngine, opensslEngine, signText, verifySignature } from '../src/signature.js';
import { makeKey, seededBytes, seededNumbers, type TestKey, toBytes, toNumber } from './helpers.js';

const engines = [opensslEngine, forgeEngine] as const;

interface Signer extends TestKey {
  readonly name: string;
  readonly publicKey: PublicKey;
}

function signer(bits: number, seed = 'a signer'): Signer {
  const key = makeKey(bits, seed);
  return { ...key, name: `${bits} bits`, publicKey: KeySet.from({ 1: key.pem }).get('1') as PublicKey };
}

const key1024 = signer(1024);
const signers = [key1024, signer(1025), signer(1031), signer(1536), signer(2048)];
const stranger = signer(1024, 'a stranger');

/** What the engines say, each of them. */
function verdicts(publicKey: PublicKey, text: string, sig: Uint8Array): boolean[] {
  return engines.map((engine) => engine.verify(publicKey, text, sig));
}

const accepted = [true, true];
const refused = [false, false];

describe('a good signature', () => {
  it.each(signers)('[S1, S4] is accepted by both: $name', ({ privateKey, publicKey }) => {
    for (const text of ['', '3!200!é😀!\0\n', 'x'.repeat(8192)]) {
      expect(verdicts(publicKey, text, signText(privateKey, text))).toEqual(accepted);
    }
  });

  it('[S1] covers the UTF-8 of the text', () => {
    const { privateKey, publicKey } = key1024;
    const sig = signText(privateKey, 'é');
    expect(verdicts(publicKey, 'é', sig)).toEqual(accepted);
    for (const text of ['e\u0301', 'Ã©', 'e', '\u00e8', 'é\0']) expect(verdicts(publicKey, text, sig)).toEqual(refused);
  });

  it('[S1] is the one that signText makes, and no other', () => {
    const { privateKey, length } = key1024;
    const sig = signText(privateKey, 'text');
    expect(sig).toEqual(signText(privateKey, 'text'));
    expect(sig).toEqual(raise(key1024, goodBlock('text', length)));
  });
});

type Change = (sig: Buffer, random: (below: number) => number, signer: Signer) => Buffer;

const some = (random: (below: number) => number, length: number) => seededBytes(`${random(2 ** 32)}`, length);
const changed = (sig: Buffer, at: number, by: number) => {
  const copy = Buffer.from(sig);
  copy[at] = (copy[at] as number) ^ by;
  return copy;
};

const changes: Readonly<Record<string, Change>> = {
  'one bit': (sig, random) => changed(sig, random(sig.length), 1 << random(8)),
  'one byte': (sig, random) => changed(sig, random(sig.length), 1 + random(255)),
  'two bits': (sig, random) => changed(changed(sig, 0, 1 << random(8)), 1 + random(sig.length - 1), 1 << random(8)),
  'the first byte': (sig, random) => changed(sig, 0, 1 + random(255)),
  'the last byte': (sig, random) => changed(sig, sig.length - 1, 1 + random(255)),
  'a stretch': (sig, random) => {
    const start = random(sig.length - 8);
    const copy = Buffer.from(sig);
    return Buffer.concat([copy.subarray(0, start), some(random, 8), copy.subarray(start + 8)]);
  },
  'cut at the end': (sig, random) => sig.subarray(0, random(sig.length)),
  'cut at the start': (sig, random) => sig.subarray(1 + random(sig.length)),
  'longer at the end': (sig, random) => Buffer.concat([sig, some(random, 1 + random(20))]),
  'longer at the start': (sig, random) => Buffer.concat([some(random, 1 + random(20)), sig]),
  'zeros at the end': (sig, random) => Buffer.concat([sig, Buffer.alloc(1 + random(20))]),
  'zeros at the start': (sig, random) => Buffer.concat([Buffer.alloc(1 + random(20)), sig]),
  'shifted left': (sig) => Buffer.concat([sig.subarray(1), Buffer.alloc(1)]),
  'shifted right': (sig) => Buffer.concat([Buffer.alloc(1), sig.subarray(0, -1)]),
  backwards: (sig) => Buffer.from(sig).reverse(),
  'any bytes': (sig, random) => some(random, sig.length),
  'any bytes below the modulus': (_sig, random, { n, length }) => toBytes(toNumber(some(random, length)) % n, length),
  's + n': (sig, _random, { n, length }) => toBytes(toNumber(sig) + n, length),
  'n - s': (sig, _random, { n, length }) => toBytes(n - toNumber(sig), length),
  's + 1': (sig, _random, { length }) => toBytes(toNumber(sig) + 1n, length),
  zero: (_sig, _random, { length }) => Buffer.alloc(length),
  one: (_sig, _random, { length }) => toBytes(1n, length),
  'n - 1': (_sig, _random, { n, length }) => toBytes(n - 1n, length),
  n: (_sig, _random, { n, length }) => toBytes(n, length),
  'n + 1': (_sig, _random, { n, length }) => toBytes(n + 1n, length),
  'all ones': (_sig, _random, { length }) => Buffer.alloc(length, 0xff),
  nothing: () => Buffer.alloc(0),
  'the block itself': (_sig, _random, { length }) => goodBlock('another text', length),
};

const alterations: Readonly<Record<string, (text: string, random: (below: number) => number) => string>> = {
  'a bit of one character': (text, random) => {
    const at = random(text.length);
    const bit = 1 << random(7);
    return text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ bit) + text.slice(at + 1);
  },
  'a character less': (text, random) => {
    const at = random(text.length);
    return text.slice(0, at) + text.slice(at + 1);
  },
  'a character more': (text, random) => {
    const at = random(text.length + 1);
    return text.slice(0, at) + String.fromCodePoint(0x21 + random(0x500)) + text.slice(at);
  },
  'a space at the end': (text) => `${text} `,
  'a zero at the end': (text) => `${text}\0`,
  'a separator at the end': (text) => `${text}!`,
  capitals: (text) => text.toUpperCase(),
  nothing: () => '',
};

interface Pair {
  readonly text: string;
  readonly sig: Buffer;
}

/** A way to spoil a good pair: what is offered instead, and the key to which. */
interface Spoiler {
  readonly name: string;
  spoil(pair: Pair, random: (below: number) => number, signer: Signer, other: Pair): Pair & { key?: PublicKey };
}

const spoilers: readonly Spoiler[] = [
  ...Object.entries(changes).map(
    ([name, change]): Spoiler => ({
      name,
      spoil: ({ text, sig }, random, signer) => ({ text, sig: change(sig, random, signer) }),
    }),
  ),
  ...Object.entries(alterations).map(
    ([name, alter]): Spoiler => ({
      name: `the text: ${name}`,
      spoil: ({ text, sig }, random) => ({ text: alter(text, random), sig }),
    }),
  ),
  { name: 'the signature of another text', spoil: ({ text }, _random, _signer, { sig }) => ({ text, sig }) },
  { name: 'another key', spoil: (pair) => ({ ...pair, key: stranger.publicKey }) },
];

describe('a signature or a text that was changed', () => {
  // forge's arithmetic takes the time: most of the rounds use the shortest keys.
  const rounds = [15_000, 1_500, 1_500, 1_000, 1_500];

  it.each(signers.map((each, index) => ({ ...each, rounds: rounds[index] as number })))(
    '[S4, V6] is refused by both, and the untouched one accepted: $name, $rounds times',
    ({ rounds, ...signer }) => {
      const random = seededNumbers(signer.bits);
      const pairs = Array.from({ length: 20 }, (_, index): Pair => {
        const text = `3!200!!20260301T120000Z!${index}!https://a.example/!test0001!current!pwd!!${random(40000)}!é${index}`;
        return { text, sig: signText(signer.privateKey, text) };
      });
      const anyPair = () => pairs[random(pairs.length)] as Pair;
      const wrong: string[] = [];
      for (let round = 0; round < rounds; round++) {
        const pair = anyPair();
        const { name, spoil } = spoilers[round % spoilers.length] as Spoiler;
        const { text, sig, key = signer.publicKey } = spoil(pair, random, signer, anyPair());
        // A change can happen to change nothing.
        const good = key === signer.publicKey && text === pair.text && sig.equals(pair.sig);
        const [openssl, forge] = verdicts(key, text, sig);
        if (openssl !== good || forge !== good) wrong.push(`${name}: openssl ${openssl}, forge ${forge}`);
      }
      expect(wrong).toEqual([]);
      for (const { text, sig } of pairs) expect(verdicts(signer.publicKey, text, sig)).toEqual(accepted);
    },
    // Arithmetic only, but a busy machine may take its time.
    120_000,
  );

  it('[S4] is refused by both wherever one bit is turned over', () => {
    const text = 'every bit';
    const sig = signText(key1024.privateKey, text);
    for (let bit = 0; bit < sig.length * 8; bit++) {
      expect(verdicts(key1024.publicKey, text, changed(sig, bit >> 3, 1 << (bit & 7)))).toEqual(refused);
    }
  });
});

/** Any block of the length of the modulus, raised to the private exponent. */
function raise({ privateKey }: TestKey, block: Buffer): Buffer {
  return privateEncrypt({ key: privateKey, padding: constants.RSA_NO_PADDING } as unknown as RsaPrivateKey, block);
}

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const digestOf = (text: string, algorithm = 'sha1') => createHash(algorithm).update(text).digest();

const header = hex('30 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14');

/** 00 type, padding, 00, and the rest, as long as the modulus. */
function block(length: number, rest: Buffer, { type = 1, fill = 0xff } = {}): Buffer {
  const padding = Buffer.alloc(length - 3 - rest.length, fill);
  return Buffer.concat([Buffer.from([0, type]), padding, Buffer.alloc(1), rest]);
}

function goodBlock(text: string, length: number): Buffer {
  return block(length, Buffer.concat([header, digestOf(text)]));
}

describe('a block made by hand', () => {
  const text = '3!200!!20260301T120000Z!1!https://a.example/!test0001!current!pwd!!!';
  const digest = digestOf(text);
  const garbage = (length: number) => seededBytes('garbage', length);
  const info = (prefix: string, rest: Buffer = digest) => Buffer.concat([hex(prefix), rest]);

  it.each(signers)('[S3] is accepted by both where it is right: $name', (signer) => {
    const sig = raise(signer, goodBlock(text, signer.length));
    expect(sig).toHaveLength(signer.length);
    expect(verdicts(signer.publicKey, text, sig)).toEqual(accepted);
    expect(verifySignature(signer.publicKey, text, sig)).toBe(true);
  });

  // What follows the padding and its 00.
  const wrongContents: Readonly<Record<string, Buffer>> = {
    'no NULL': info('30 1f 30 07 06 05 2b 0e 03 02 1a 04 14'),
    'no NULL, old lengths': info('30 21 30 09 06 05 2b 0e 03 02 1a 04 14'),
    'the digest alone': digest,
    'the digest in an OCTET STRING alone': info('04 14'),
    nothing: Buffer.alloc(0),
    'MD5 named': info('30 24 30 0c 06 08 2a 86 48 86 f7 0d 02 05 05 00 04 14'),
    'SHA-224 named, a digest of SHA-1': info('30 25 30 0d 06 09 60 86 48 01 65 03 04 02 04 05 00 04 14'),
    'SHA-256 named, a digest of SHA-1': info('30 25 30 0d 06 09 60 86 48 01 65 03 04 02 01 05 00 04 14'),
    'SHA-256': info('30 31 30 0d 06 09 60 86 48 01 65 03 04 02 01 05 00 04 20', digestOf(text, 'sha256')),
    'SHA-256 named as SHA-1': info('30 2d 30 09 06 05 2b 0e 03 02 1a 05 00 04 20', digestOf(text, 'sha256')),
    MD5: info('30 20 30 0c 06 08 2a 86 48 86 f7 0d 02 05 05 00 04 10', digestOf(text, 'md5')),
    'sha1WithRSAEncryption named': info('30 25 30 0d 06 09 2a 86 48 86 f7 0d 01 01 05 05 00 04 14'),
    'the old name of SHA-1 with RSA': info('30 21 30 09 06 05 2b 0e 03 02 1d 05 00 04 14'),
    'one byte after the digest': Buffer.concat([header, digest, Buffer.alloc(1)]),
    'many bytes after the digest': Buffer.concat([header, digest, garbage(60)]),
    'zeros after the digest': Buffer.concat([header, digest, Buffer.alloc(82)]),
    'bytes after the digest, counted in': Buffer.concat([
      hex('30 29 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
      digest,
      garbage(8),
    ]),
    'bytes after the digest, in its string': Buffer.concat([
      hex('30 29 30 09 06 05 2b 0e 03 02 1a 05 00 04 1c'),
      digest,
      garbage(8),
    ]),
    'another NULL after the digest': Buffer.concat([
      hex('30 23 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
      digest,
      hex('05 00'),
    ]),
    'garbage for the parameters': Buffer.concat([
      hex('30 2b 30 13 06 05 2b 0e 03 02 1a 04 0a'),
      garbage(10),
      hex('04 14'),
      digest,
    ]),
    'garbage inside the NULL': Buffer.concat([
      hex('30 2b 30 13 06 05 2b 0e 03 02 1a 05 0a'),
      garbage(10),
      hex('04 14'),
      digest,
    ]),
    'garbage after the NULL': Buffer.concat([
      hex('30 2b 30 13 06 05 2b 0e 03 02 1a 05 00'),
      garbage(10),
      hex('04 14'),
      digest,
    ]),
    'an empty SEQUENCE for the NULL': info('30 21 30 09 06 05 2b 0e 03 02 1a 30 00 04 14'),
    'an INTEGER for the NULL': info('30 22 30 0a 06 05 2b 0e 03 02 1a 02 01 00 04 14'),
    'the outer length one short': info('30 20 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the outer length one long': info('30 22 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the algorithm’s length one short': info('30 21 30 08 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the algorithm’s length one long': info('30 21 30 0a 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the name’s length one short': info('30 21 30 09 06 04 2b 0e 03 02 1a 05 00 04 14'),
    'the name’s length one long': info('30 21 30 09 06 06 2b 0e 03 02 1a 05 00 04 14'),
    'the NULL’s length 1': info('30 21 30 09 06 05 2b 0e 03 02 1a 05 01 04 14'),
    'the digest’s length one short': info('30 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 13'),
    'the digest’s length one long': info('30 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 15'),
    'the outer length in the long form': info('30 81 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the outer length in four bytes': info('30 84 00 00 00 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the algorithm’s length in the long form': info('30 22 30 81 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'the name’s length in the long form': info('30 22 30 0a 06 81 05 2b 0e 03 02 1a 05 00 04 14'),
    'the NULL’s length in the long form': info('30 22 30 0a 06 05 2b 0e 03 02 1a 05 81 00 04 14'),
    'the digest’s length in the long form': info('30 22 30 09 06 05 2b 0e 03 02 1a 05 00 04 81 14'),
    'an indefinite length': Buffer.concat([hex('30 80 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'), digest, hex('00 00')]),
    'a padded arc in the name': info('30 22 30 0a 06 06 2b 80 0e 03 02 1a 05 00 04 14'),
    'a constructed OCTET STRING': info('30 23 30 09 06 05 2b 0e 03 02 1a 05 00 24 16 04 14'),
    'a BIT STRING': info('30 22 30 09 06 05 2b 0e 03 02 1a 05 00 03 15 00'),
    'a SET for the SEQUENCE': info('31 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'a context tag for the SEQUENCE': info('a0 21 30 09 06 05 2b 0e 03 02 1a 05 00 04 14'),
    'a digest cut short': Buffer.concat([hex('30 20 30 09 06 05 2b 0e 03 02 1a 05 00 04 13'), digest.subarray(0, 19)]),
    'an empty digest': hex('30 0d 30 09 06 05 2b 0e 03 02 1a 05 00 04 00'),
    'the digest of another text': Buffer.concat([header, digestOf(`${text} `)]),
    'the digest backwards': Buffer.concat([header, Buffer.from(digest).reverse()]),
    'another 00 before it': Buffer.concat([hex('00'), header, digest]),
    'FF after the 00': Buffer.concat([hex('ff'), header, digest]),
    'everything twice': Buffer.concat([header, digest, header, digest]),
  };

  it.each(Object.keys(wrongContents))('[S3] is refused by both: %s', (name) => {
    for (const signer of [key1024, signers[1] as Signer]) {
      const sig = raise(signer, block(signer.length, wrongContents[name] as Buffer));
      expect(verdicts(signer.publicKey, text, sig)).toEqual(refused);
      expect(verifySignature(signer.publicKey, text, sig)).toBe(false);
    }
  });

  const right = Buffer.concat([header, digest]);
  const { length } = key1024;
  const whole = goodBlock(text, length);
  const room = length - 3 - right.length;
  const with_ = (at: number, byte: number) => {
    const copy = Buffer.from(whole);
    copy[at] = byte;
    return copy;
  };
  const shortPadding = (count: number) =>
    Buffer.concat([hex('00 01'), Buffer.alloc(count, 0xff), hex('00'), right, garbage(room - count)]);

  const wrongBlocks: Readonly<Record<string, Buffer>> = {
    'no padding, the rest garbage': shortPadding(0),
    'padding of one FF, the rest garbage': shortPadding(1),
    'padding of seven FF, the rest garbage': shortPadding(7),
    'padding of eight FF, the rest garbage': shortPadding(8),
    'padding of all FF but one, and a byte at the end': shortPadding(room - 1),
    'no 00 after the padding': Buffer.concat([hex('00 01'), Buffer.alloc(room + 1, 0xff), right]),
    'type 00, filled with 00': block(length, right, { type: 0, fill: 0 }),
    'type 00, filled with FF': block(length, right, { type: 0 }),
    'type 01, filled with 00': block(length, right, { fill: 0 }),
    'type 02, filled with FF': block(length, right, { type: 2 }),
    'type 02, filled with something else': block(length, right, { type: 2, fill: 0x5a }),
    'type 03': block(length, right, { type: 3 }),
    'type 81': block(length, right, { type: 0x81 }),
    'a first byte that is not 00': with_(0, 1),
    'padding that begins with FE': with_(2, 0xfe),
    'padding with 00 in it': with_(20, 0),
    'padding with FE in the middle': with_(2 + (room >> 1), 0xfe),
    'padding with 7F in the middle': with_(2 + (room >> 1), 0x7f),
    'padding that ends in FE': with_(2 + room - 1, 0xfe),
    'padding that is all garbage': Buffer.concat([
      hex('00 01'),
      Buffer.from(garbage(room)).map((byte) => byte || 1),
      hex('00'),
      right,
    ]),
    '01 for the 00 after the padding': with_(2 + room, 1),
    'everything one to the left': Buffer.concat([whole.subarray(1), hex('00')]),
    'the DigestInfo at the very start': Buffer.concat([right, garbage(length - right.length)]),
    'nothing but zeros': Buffer.alloc(length),
    PSS: pss(text, length),
  };

  it.each(Object.keys(wrongBlocks))('[S3] is refused by both: %s', (name) => {
    const offered = wrongBlocks[name] as Buffer;
    expect(offered).toHaveLength(length);
    expect(toNumber(offered) < key1024.n).toBe(true);
    expect(verdicts(key1024.publicKey, text, raise(key1024, offered))).toEqual(refused);
    expect(verifySignature(key1024.publicKey, text, raise(key1024, offered))).toBe(false);
  });

  it('[S3] is refused by both where any one byte of it is another', () => {
    for (let at = 0; at < length; at++) {
      const by = 1 + (at % 255);
      const offered = changed(whole, at, at === 0 ? 1 : by);
      expect(verdicts(key1024.publicKey, text, raise(key1024, offered))).toEqual(refused);
    }
  });
});

/** A block of RSASSA-PSS with SHA-1 and a salt of 20 bytes, for a modulus of 8 bits a byte. */
function pss(text: string, length: number): Buffer {
  const salt = seededBytes('salt', 20);
  const digest = createHash('sha1').update(Buffer.alloc(8)).update(digestOf(text)).update(salt).digest();
  const plain = Buffer.concat([Buffer.alloc(length - 20 - 20 - 2), Buffer.from([1]), salt]);
  const masked = Buffer.from(plain);
  for (let at = 0; at < plain.length; at++) {
    const count = Buffer.alloc(4);
    count.writeUInt32BE(Math.floor(at / 20));
    const mask = createHash('sha1').update(digest).update(count).digest();
    masked[at] = (plain[at] as number) ^ (mask[at % 20] as number);
  }
  masked[0] = (masked[0] as number) & 0x7f;
  return Buffer.concat([masked, digest, Buffer.from([0xbc])]);
}

describe('the length of a signature', () => {
  it.each(signers)('[S2] is that of the modulus: $name', ({ privateKey, publicKey, length }) => {
    const sig = signText(privateKey, 'text');
    expect(sig).toHaveLength(length);
    const zero = Buffer.alloc(1);
    const others = [
      sig.subarray(1),
      sig.subarray(0, -1),
      Buffer.concat([zero, sig]),
      Buffer.concat([sig, zero]),
      Buffer.concat([Buffer.alloc(length), sig]),
      Buffer.concat([sig, sig]),
      Buffer.alloc(0),
      zero,
    ];
    for (const other of others) expect(verdicts(publicKey, 'text', other)).toEqual(refused);
  });

  it.each([key1024, signers[2] as Signer])(
    '[S2] counts zeros at the start: $name',
    ({ privateKey, publicKey, length }) => {
      let text = '';
      let sig: Buffer | undefined;
      for (let count = 0; sig?.[0] !== 0; count++) {
        text = `text ${count}`;
        sig = signText(privateKey, text);
      }
      expect(sig).toHaveLength(length);
      expect(verdicts(publicKey, text, sig)).toEqual(accepted);
      expect(verdicts(publicKey, text, sig.subarray(1))).toEqual(refused);
      expect(verdicts(publicKey, text, Buffer.concat([sig.subarray(1), Buffer.alloc(1)]))).toEqual(refused);
      expect(verdicts(publicKey, text, Buffer.concat([Buffer.alloc(1), sig]))).toEqual(refused);
    },
  );

  it.each(signers)('[S2] does not let s + n pass for s: $name', ({ privateKey, publicKey, n, length }) => {
    let tried = 0;
    for (let count = 0; tried < 5 && count < 10_000; count++) {
      const text = `text ${count}`;
      const sig = signText(privateKey, text);
      const more = toBytes(toNumber(sig) + n, length);
      if (more.length > length) continue;
      tried += 1;
      expect(verdicts(publicKey, text, sig)).toEqual(accepted);
      expect(verdicts(publicKey, text, more)).toEqual(refused);
    }
    expect(tried).toBe(5);
  });

  it('[S2] does not let multiples of n pass either, where they fit', () => {
    const { privateKey, publicKey, n, length } = signers[1] as Signer;
    const sig = signText(privateKey, 'text');
    for (let times = 1n; times < 64n; times++) {
      const more = toBytes(toNumber(sig) + times * n, length);
      expect(more).toHaveLength(length);
      expect(verdicts(publicKey, 'text', more)).toEqual(refused);
    }
  });
});

describe('the choice of an engine', () => {
  const engine = (name: string, verify: Engine['verify']): Engine => ({ name, verify });
  const no = engine('no', () => false);
  const yes = engine('yes', () => true);
  const throws = engine('throws', () => {
    throw new Error('error:03000098:digital envelope routines::invalid digest');
  });
  const throwsOnBad = engine('throws on a bad one', (...args) => {
    if (opensslEngine.verify(...args)) return true;
    throw new Error('bad signature');
  });
  const backwards = engine('backwards', (...args) => !opensslEngine.verify(...args));

  it('[S5] falls on the first that works', () => {
    expect(chooseEngine([opensslEngine, forgeEngine])).toBe(opensslEngine);
    expect(chooseEngine([forgeEngine, opensslEngine])).toBe(forgeEngine);
  });

  it.each([no, yes, throws, throwsOnBad, backwards])('[S5] passes over one that fails: $name', (broken) => {
    expect(chooseEngine([broken, forgeEngine])).toBe(forgeEngine);
    expect(chooseEngine([broken, broken, opensslEngine])).toBe(opensslEngine);
  });

  it('[S5] falls on none where none works', () => {
    expect(() => chooseEngine([no, yes, throws, throwsOnBad, backwards])).toThrow(/no engine/);
    expect(() => chooseEngine([])).toThrow(/no engine/);
  });

  it('[S5] is made with a signature of a real key', () => {
    const asked: string[] = [];
    const nosy = engine('nosy', (key, text, sig) => {
      asked.push(key.fingerprint);
      return opensslEngine.verify(key, text, sig);
    });
    expect(chooseEngine([nosy])).toBe(nosy);
    const real = bundledKey('2').fingerprint('2');
    expect(asked).toEqual([real, real]);
  });
});
