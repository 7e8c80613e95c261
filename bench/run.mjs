// Speeds compared, in one process and by the processor's time, so that other work on the machine matters little:
// node bench/run.mjs, after a build. "Times as fast" is operations of the first per second of CPU, over the second's.
import { createCipheriv, createDecipheriv, createSecretKey, createVerify, randomBytes, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import passportRaven from 'passport-raven';
import { createWAA, ravenDemo, verifyResponse } from '../dist/index.js';
import { parseResponse, signedPart } from '../dist/response.js';
import { forgeEngine, opensslEngine } from '../dist/signature.js';
import { createWLS } from '../dist/wls/index.js';

process.env.NODE_ENV = 'development';

const ROUNDS = 31;
const SAMPLE = 25_000; // microseconds of CPU

const vectors = JSON.parse(readFileSync(new URL('../test/vectors/real-responses.json', import.meta.url), 'utf8'));
const encoded = vectors.find(({ response }) => response.startsWith('3!200!')).response;
const { sig, kid, url, issue } = parseResponse(encoded);
const key = ravenDemo.keys.get(kid);
const signed = signedPart(encoded);
const signedBytes = Buffer.from(signed);
const expected = { keys: ravenDemo.keys, url, params: null, now: issue };
const ours = () => verifyResponse(encoded, expected).principal === 'test0001';

/** Its own check of a response, called as passport would, on the same genuine one: it is told to overlook its age. */
function passportCheck() {
  let user;
  const options = { audience: 'https://example.org', debug: true, clockMargin: Number.POSITIVE_INFINITY };
  const strategy = new passportRaven.Strategy(options, (principal, _response, done) => done(null, principal));
  strategy.success = (found) => {
    user = found;
  };
  const request = { query: { 'WLS-Response': encoded } };
  return () => {
    user = undefined;
    strategy.authenticate(request);
    return user === 'test0001';
  };
}

/** Things that are refused before any signature is looked at. */
const malformed = {
  'a word': 'hello',
  'a field too few': encoded.replace('!', ''),
  'a broken signature': encoded.replace(/_$/, '='),
  'a broken escape at the end of 8 KB': `3!200!${'%25'.repeat(2600)}%${'!'.repeat(11)}`,
  '8 KB of separators': '3!'.repeat(4096),
  // Runs of one sign are what careless regular expressions take quadratic time over.
  '8 KB of padding': `3!410!!20130704T122413Z!a!b!!!!!!!1!${'_'.repeat(8000)}a`,
  'a megabyte': '3!200!'.padEnd(1 << 20, 'A'),
};

function refusal(text) {
  return () => {
    try {
      verifyResponse(text, expected);
    } catch (error) {
      return error.name === 'ResponseError';
    }
    return false;
  };
}

const wls = createWLS();
const waa = createWAA({ baseUrl: 'http://localhost:3000', wls: wls.profile });
const { location, nonce } = waa.startLogin('/');
const { cookie } = await waa.finishLogin(wls.respond(location), nonce);

/** Opens as many bytes as the cookie seals, and does nothing else. */
function bareOpen() {
  const secret = createSecretKey(randomBytes(32));
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', secret, iv);
  const plain = Buffer.alloc(Buffer.from(cookie, 'base64url').length - 6 - 12 - 16, 'a');
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  const tag = cipher.getAuthTag();
  return () => {
    const decipher = createDecipheriv('aes-256-gcm', secret, iv, { authTagLength: 16 }).setAuthTag(tag);
    const opened = decipher.update(sealed);
    decipher.final();
    return opened.length === plain.length;
  };
}

const contenders = {
  verifyResponse: ours,
  'crypto.verify': () => verify('sha1', signedBytes, key.key, sig),
  createVerify: () => createVerify('sha1').update(signed).verify(key.key, sig),
  'passport-raven': passportCheck(),
  ...Object.fromEntries(Object.entries(malformed).map(([name, text]) => [`refusing ${name}`, refusal(text)])),
  'waa.openSession': () => waa.openSession(cookie).principal === 'test0001',
  'bare AES-256-GCM': bareOpen(),
  'forge engine': () => forgeEngine.verify(key, signed, sig),
  'openssl engine': () => opensslEngine.verify(key, signed, sig),
};

function cpuTime(run, times) {
  const before = process.cpuUsage();
  for (let i = 0; i < times; i++) run();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/** How often it has to run for one sample; warms it up on the way. */
function calibrate(name, run) {
  if (run() !== true) throw new Error(`${name} does not do its work`);
  for (let times = 16; ; times *= 2) {
    const spent = cpuTime(run, times);
    if (spent > SAMPLE / 2) return Math.max(1, Math.round((times * SAMPLE) / spent));
  }
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
}

const plan = Object.entries(contenders).map(([name, run]) => ({ name, run, times: calibrate(name, run), rates: [] }));
for (let round = 0; round < ROUNDS; round++) {
  // Everything once a round, forwards and backwards in turn.
  for (const one of round % 2 ? [...plan].reverse() : plan) {
    one.rates.push(one.times / (Math.max(1, cpuTime(one.run, one.times)) / 1e6));
  }
}
const rates = Object.fromEntries(plan.map((one) => [one.name, one.rates]));
const rate = (name) => median(rates[name]);
const ratio = (a, b) => median(rates[a].map((value, i) => value / rates[b][i]));
const extreme = (names, better) => names.reduce((a, b) => (better(rate(a), rate(b)) ? a : b));

const bare = extreme(['crypto.verify', 'createVerify'], (a, b) => a > b);
const slowest = extreme(
  Object.keys(malformed).map((name) => `refusing ${name}`),
  (a, b) => a < b,
);
const pairs = [
  ['verifyResponse', bare],
  ['verifyResponse', 'passport-raven'],
  [slowest, 'verifyResponse'],
  ['waa.openSession', 'bare AES-256-GCM'],
  ['forge engine', 'openssl engine'],
];
const width = Math.max(...plan.map(({ name }) => name.length));
const perSecond = (name) => Math.round(rate(name)).toLocaleString('en').padStart(11);
console.log(`Node ${process.version}, ${process.arch}; medians of ${ROUNDS} rounds; operations per second of CPU\n`);
for (const { name } of plan) console.log(`${name.padEnd(width)} ${perSecond(name)}`);
console.log('\nTimes as fast (of what is malformed, the slowest to refuse; of the bare checks, the faster)\n');
for (const [a, b] of pairs) console.log(`${ratio(a, b).toFixed(2).padStart(8)}  ${a} / ${b}`);
await waa.close();
