// What is done without any network: checking responses, and opening session cookies.
import { createCipheriv, createDecipheriv, createSecretKey, createVerify, randomBytes, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { sealData, unsealData } from 'iron-session';
import passportRaven from 'passport-raven';
import { createWAA, MemoryStore, ravenDemo, verifyResponse } from '../dist/index.js';
import { parseResponse, signedPart } from '../dist/response.js';
import { Ended } from '../dist/session/ended.js';
import { forgeEngine, opensslEngine } from '../dist/signature.js';
import { createWLS } from '../dist/wls/index.js';
import { origin } from './handshake.mjs';
import { bySpeed, collectAll, compare, inProcess, interleave } from './measure.mjs';
import { sessionMaker } from './sessions.mjs';

const MOST = { rounds: 31, seconds: 25 };

const vectors = JSON.parse(readFileSync(new URL('../test/vectors/real-responses.json', import.meta.url), 'utf8'));
const encoded = vectors.find(({ response }) => response.startsWith('3!200!')).response;
const { sig, kid, url, issue } = parseResponse(encoded);
const key = ravenDemo.keys.get(kid);
const signed = signedPart(encoded);
const signedBytes = Buffer.from(signed);
const expected = { keys: ravenDemo.keys, url, params: null, now: issue };

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

/** A success that is right but for what is given. */
function success(fields) {
  const { msg = '', id = '1-2', ptags = 'current', kid = '901', sig = 'AAAA' } = fields;
  return `3!200!${msg}!20130704T122413Z!${id}!${url}!test0001!${ptags}!!pwd!35873!!${kid}!${sig}`;
}

/** What is refused before any signature is looked at. Runs of one sign are what careless parsers take long over. */
const malformed = {
  'a word': 'hello',
  'a field too few': encoded.replace('!', ''),
  'a signature in the usual base64': encoded.replace(/_$/, '='),
  'a signature whose last bits are wrong': encoded.replace(/g_$/, 'h_'),
  '8 KB of separators': '3!'.repeat(4096),
  '8 KB of padding': `3!410!!20130704T122413Z!a!b!!!!!!!1!${'_'.repeat(8000)}a`,
  '8 KB of signature': success({ sig: 'A'.repeat(8000) }),
  '8 KB of commas': success({ ptags: ','.repeat(8000) }),
  '8 KB of kid': success({ kid: '9'.repeat(8000) }),
  '8 KB of escapes, and a field missing': success({ msg: '%25'.repeat(2660), id: '' }),
  '8 KB of another alphabet, and a field missing': success({ msg: '\u0636'.repeat(7980), id: '' }),
  'a megabyte': '3!200!'.padEnd(1 << 20, 'A'),
};

/** Right but for its last character, so that it has to be read to its end: the worst that we know to make. */
const worst = {
  '8 KB of escapes, the last one broken': success({ msg: `${'%25'.repeat(2660)}%` }),
  '8 KB of escapes and letters, the last escape broken': success({ msg: `${'%25a'.repeat(1990)}%` }),
  '8 KB of list, its last item empty': success({ ptags: 'a,'.repeat(3990) }),
  'the longest signature, its last character foreign': success({ sig: `${'A'.repeat(2731)}+` }),
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

/** Tells the one that listens to it of sessions that were ended, and keeps nothing of them itself. */
class Telling extends MemoryStore {
  async subscribe(folder, subscriber) {
    this.tell = (entry) => subscriber.changed(entry);
    return super.subscribe(folder, subscriber);
  }
}

const MANY = 1_000_000;

/** Sessions that were ended: as stores keep them, under the hash of their id. */
function* ended(count) {
  const expires = new Date(Date.now() + 7200_000);
  for (let i = 0; i < count; i++)
    yield { key: `ended:session.${randomBytes(32).toString('base64url')}`, value: '', expires };
}

/** A session check in a process that knows of so many ended sessions. */
async function checkBeside(count) {
  const store = new Telling();
  const made = await session({ store });
  for (const entry of ended(count)) store.tell(entry);
  return { waa: made.waa, check: await opening(made) };
}

/** Bytes that a process keeps for each ended session, and characters of a session cookie with two ptags. */
export async function sizes() {
  const known = new Ended();
  const before = collectAll();
  for (const entry of ended(MANY)) known.learn(entry, Date.now() / 1000);
  const bytes = (collectAll() - before) / known.size;
  const { waa, cookie } = await session({}, { ptags: ['current', 'current-student'] });
  await waa.close();
  return { bytes, cookie: cookie.length };
}

/** A session, its cookie, and what opens the cookie. */
async function session(config = {}, overrides = {}) {
  const wls = createWLS();
  const made = { secret: randomBytes(32).toString('hex'), store: new MemoryStore(), ...config };
  const waa = createWAA({ baseUrl: origin, wls: wls.profile, log: false, ...made });
  const { location, nonce } = waa.startLogin('/');
  const { cookie, auth } = await waa.finishLogin(wls.respond(location, overrides), nonce);
  return { waa, cookie, auth, ...made };
}

/** So many that none of them is remembered when it comes again. */
const COOKIES = 2500;

/** Opens cookies of as many sessions, each for the first time in a while. */
async function opening({ cookie, ...made }) {
  const make = sessionMaker({ ...made, sealed: cookie });
  const cookies = [];
  while (cookies.length < COOKIES) cookies.push(await make('test0001'));
  let next = 0;
  return () => {
    next = (next + 1) % COOKIES;
    return made.waa.openSession(cookies[next]).principal === 'test0001';
  };
}

/** Opens as many bytes as the cookie seals, other ones each time too, and does nothing else. */
function bareOpen(cookie) {
  const secret = createSecretKey(randomBytes(32));
  const plain = Buffer.alloc(Buffer.from(cookie, 'base64url').length - 6 - 12 - 16, 'a');
  const all = Array.from({ length: COOKIES }, () => {
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', secret, iv);
    const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
    return { iv, sealed, tag: cipher.getAuthTag() };
  });
  let next = 0;
  return () => {
    next = (next + 1) % COOKIES;
    const { iv, sealed, tag } = all[next];
    const decipher = createDecipheriv('aes-256-gcm', secret, iv, { authTagLength: 16 }).setAuthTag(tag);
    const opened = decipher.update(sealed);
    decipher.final();
    return opened.length === plain.length;
  };
}

/** The same facts in the other library's cookie. */
async function ironOpen(auth) {
  const password = randomBytes(32).toString('hex');
  const seal = await sealData(auth, { password, ttl: 7200 });
  return async () => (await unsealData(seal, { password, ttl: 7200 })).principal === 'test0001';
}

/** Operations per second of processor time, by name and round. */
export async function runCore() {
  const made = await session();
  const { waa, cookie, auth } = made;
  const [few, many] = [await checkBeside(100), await checkBeside(MANY)];
  const runs = {
    verifyResponse: () => verifyResponse(encoded, expected).principal === 'test0001',
    'crypto.verify': () => verify('sha1', signedBytes, key.key, sig),
    createVerify: () => createVerify('sha1').update(signed).verify(key.key, sig),
    'passport-raven': passportCheck(),
    ...named(malformed),
    ...named(worst),
    'opening a session cookie': await opening(made),
    'the same cookie again': () => waa.openSession(cookie).principal === 'test0001',
    'bare AES-256-GCM': bareOpen(cookie),
    'session check beside 100 ended': few.check,
    'session check beside 1,000,000 ended': many.check,
    'iron-session': await ironOpen(auth),
    'engine: openssl': () => opensslEngine.verify(key, signed, sig),
    'engine: forge': () => forgeEngine.verify(key, signed, sig),
  };
  const contenders = {};
  for (const [name, run] of Object.entries(runs)) contenders[name] = await inProcess(name, run);
  const rates = await interleave(contenders, MOST);
  await Promise.all([waa.close(), few.waa.close(), many.waa.close()]);
  return rates;
}

function named(texts) {
  return Object.fromEntries(Object.entries(texts).map(([name, text]) => [refusing(name), refusal(text)]));
}

function refusing(name) {
  return `refusing ${name}`;
}

/** The rows of the table that these rates give. */
export function coreRatios(rates) {
  const bare = bySpeed(rates, ['crypto.verify', 'createVerify']).at(-1);
  const [slowest] = bySpeed(rates, Object.keys({ ...malformed, ...worst }).map(refusing));
  const [usual] = bySpeed(rates, Object.keys(malformed).map(refusing));
  const opening = 'opening a session cookie';
  return [
    compare(rates, 'verifyResponse', bare, {
      goal: 0.7,
      chart: 'verify / bare crypto',
      note: 'the faster of crypto.verify and createVerify, with a parsed key',
    }),
    compare(rates, 'verifyResponse', 'passport-raven', {
      goal: 12,
      chart: 'verify / passport-raven',
      note: 'its own check of the same response',
    }),
    compare(rates, slowest, 'verifyResponse', {
      goal: 3,
      chart: 'refuse malformed / verify',
      note: 'of what is malformed, the slowest to refuse',
    }),
    compare(rates, opening, 'bare AES-256-GCM', {
      goal: 0.5,
      chart: 'open cookie / bare AES-GCM',
      note: 'of the same bytes, with the key as a KeyObject',
    }),
    compare(rates, opening, 'iron-session', {
      goal: 60,
      chart: 'open cookie / iron-session',
      note: 'version 8, unsealing the same facts',
    }),
    compare(rates, 'the same cookie again', opening, { note: 'which is known from the last time' }),
    compare(rates, 'session check beside 1,000,000 ended', 'session check beside 100 ended', {
      goal: 0.77,
      chart: '10⁶ ended sessions / 100',
      note: 'opening a cookie in a process that knows of so many ended sessions',
    }),
    compare(rates, usual, 'verifyResponse', { note: 'of what is not right but for its last character' }),
    compare(rates, 'engine: forge', 'engine: openssl', { note: 'used where the system refuses SHA-1' }),
  ];
}
