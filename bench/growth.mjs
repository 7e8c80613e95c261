// How the time to read a request grows with its header fields, before anybody is authenticated: node bench/growth.mjs,
// after a build, runs these rows alone. Each field has several hostile shapes; the worst of them is a row of the table.
// Node takes 16 KB of header unless `maxHeaderSize` is raised, so the requests are made here.
import { randomBytes } from 'node:crypto';
import { IncomingMessage, ServerResponse } from 'node:http';
import { pathToFileURL } from 'node:url';
import { webauth } from '../dist/express/index.js';
import { createWAA, MemoryStore } from '../dist/index.js';
import { authenticateUpgrade } from '../dist/websocket/index.js';
import { createWLS } from '../dist/wls/index.js';
import { origin } from './handshake.mjs';
import { inProcess, interleave, median } from './measure.mjs';

const KB = 1024;
const SIZES = [1, 4, 16, 64];
/** Times as long for 64 KB as for 16 KB: 4 is linear, 16 quadratic. */
const GOAL = 8;
/** First all shapes are compared, roughly; then the worst are measured. */
const ROUGH = { sizes: [16, 64], timing: { warmUp: 3000, sample: 1500 }, most: { rounds: 5, seconds: 5 } };
const FINE = { sizes: SIZES, timing: { warmUp: 12_000, sample: 5000 }, most: { rounds: 9, seconds: 10 } };
/** How many shapes of a field are measured. */
const WORST = 2;

const JUPYTER = 'v1.token.websocket.jupyter.org';
const SESSION = 'webauth-session';

const fill =
  (text, before = '', after = '') =>
  (size) =>
    flat(before + text.repeat(Math.max(0, Math.ceil((size - before.length - after.length) / text.length))) + after);

/** Different ones, since a doubled one may end the reading. */
const numbered = (text, by) => (size) => {
  const one = `${text}100000${by}`;
  return flat(Array.from({ length: Math.ceil(size / one.length) }, (_, i) => text + (100000 + i)).join(by));
};

/** One piece of memory, as headers are that arrive. */
function flat(text) {
  return Buffer.from(text, 'latin1').toString('latin1');
}

const base64 = (text) => (size) =>
  `Basic ${Buffer.from(text.repeat(Math.ceil(((size - 6) * 3) / 4 / text.length))).toString('base64')}`;

/** By field: what the shapes look like, and what makes them of a size in bytes. */
const values = {
  Cookie: {
    'many pairs': fill('a=1; '),
    'the session many times': fill(`${SESSION}=x; `),
    'the name of the session many times in one pair': fill(`${SESSION} `, '', '=x'),
    'names that are nearly that of the session': fill(`${SESSION}s=x; `),
    separators: fill(';'),
    'blanks before the name': fill(' ', 'a=1;', `${SESSION}=x`),
    'blanks behind the name': fill(' ', SESSION, '=x'),
    'tabs behind the name, and no value': fill('\t', SESSION, 'x'),
    'blanks around the value': fill(' ', `${SESSION}=`, 'x '),
    'a session of escapes': fill('%41', `${SESSION}=`),
    'a session of broken escapes': fill('%', `${SESSION}=`),
    'a session that is a list of lists': fill('[', `${SESSION}=j:`),
    'a long session': fill('A', `${SESSION}=`),
  },
  Authorization: {
    'a long Bearer': fill('a', 'Bearer '),
    'a long Bearer, its last character foreign': fill('a', 'Bearer ', ','),
    'blanks in Bearer': fill(' ', 'Bearer ', 'x'),
    'padding in Bearer': fill('=', 'Bearer x', 'x'),
    'many schemes': fill('Bearer x, '),
    'a long Basic without a colon': base64('a'),
    'a Basic of colons': base64(':'),
    'a Basic of letters beyond ASCII': base64('é'),
    'a Basic of padding': fill('=', 'Basic '),
    'another scheme': fill('x', 'Digest '),
  },
  'Sec-WebSocket-Protocol': {
    'many tokens': fill(`${JUPYTER}.x,`, '', 'x'),
    'different tokens': numbered(`${JUPYTER}.`, ','),
    'many subprotocols': fill('a,', '', 'b'),
    'different subprotocols': numbered('a', ', '),
    'different subprotocols, and a token': (size) => `${numbered('a', ', ')(size)}, ${JUPYTER}.x`,
    'the bare one many times': fill(`${JUPYTER},`, '', 'x'),
    commas: fill(','),
    blanks: fill(' ', 'a', 'b'),
    tabs: fill('\t', 'a,', 'b'),
    'one long token': fill('x', `${JUPYTER}.`),
    'a token of escapes': fill('%41', `${JUPYTER}.`),
    'a token of broken escapes': fill('%', `${JUPYTER}.`),
  },
  'Sec-WebSocket-Extensions': {
    'many offers': fill('permessage-deflate,', '', 'x'),
    'many offers with parameters': fill('permessage-deflate; client_max_window_bits, ', '', 'x'),
    'many parameters': fill('x;', 'x;', 'x'),
    'different parameters of permessage-deflate': numbered('permessage-deflate;x', ';'),
    'a long quoted value': fill('a', 'x; a="', '"'),
    'a long quoted value without an end': fill('a', 'x; a="'),
    'a quoted value of escapes': fill('\\a', 'x; a="', '"'),
    'a quoted value of backslashes': fill('\\', 'x; a="', '"'),
    semicolons: fill(';', 'x'),
    blanks: fill(' ', 'x', 'x'),
  },
  Origin: {
    'a long one': fill('a', 'https://'),
    'ours many times': fill(`${origin}, `),
    commas: fill(','),
  },
  Accept: { 'many types': fill('text/htm, '), 'many ranges': fill('*/*;q=0.1,') },
  Referer: {
    'steps up': fill('a/../', `${origin}/`),
    'broken escapes': fill('%', `${origin}/?`),
    'at signs': fill('@', 'http://'),
    'a long host': fill('a.', 'http://', 'b'),
    'a path of ours': fill('a', `${origin}/`),
    'tabs, which addresses lose': fill('\t', `${origin}/`, 'x'),
  },
  'X-Requested-With': { 'a long one': fill('x') },
  Host: { 'a long one': fill('a.'), colons: fill(':') },
  'Sec-Fetch-Site': { 'a long one': fill('same-origin') },
  'Sec-Fetch-Mode': { 'a long one': fill('navigate') },
  'Sec-Fetch-Dest': { 'a long one': fill('document') },
  'many lines': { 'beside an Authorization': numbered('a', ' ') },
  'the query': {
    'many pairs': fill('a=1&'),
    tickets: fill('ticket=x&'),
    'tickets in escapes': fill('%74%69%63%6b%65%74=x&'),
    'names that are nearly that of a ticket': fill('ticke%74s=x&'),
    ampersands: fill('&'),
    'percent signs': fill('%'),
    'percent signs between ampersands': fill('%&'),
    'plus signs': fill('+'),
    'question marks': fill('?'),
    'a long ticket of escapes': fill('%41', 'ticket='),
  },
  'WLS-Response': {
    separators: fill('!', 'WLS-Response='),
    'many of them': fill('WLS-Response=x&'),
    'pairs beside it': fill('WLS-Respons=x&'),
    'a name in escapes': fill('%57LS-Respons=x&'),
    escapes: fill('%21', 'WLS-Response='),
    'broken escapes': fill('%', 'WLS-Response='),
  },
  'return and aauth': {
    'a long path': fill('a', 'return=/'),
    slashes: fill('/', 'return='),
    'many methods': fill('pwd,', 'aauth='),
    'many of them': fill('return=/&aauth=pwd&'),
    escapes: fill('%2F', 'return='),
  },
};

const credentials = ['bearer', 'basic', 'subprotocol', 'query', 'cookie'];
const upgradeFields = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-version': '13',
};

/** A request as it arrives. */
function requestOf(url, fields) {
  const request = new IncomingMessage(socket);
  request.method = 'GET';
  request.httpVersion = '1.1';
  request.url = url;
  request.headers = { ...fields };
  request.rawHeaders = Object.entries(fields).flat();
  return request;
}

const socket = { localAddress: '127.0.0.1', writable: true, readable: true, destroyed: false, encrypted: true };

/** What reads a field: a handshake, and a page behind a guard. Each says that it let nobody in. */
function readers(waa) {
  const options = { credentials };
  const auth = webauth(waa);
  const guard = auth.require({ bearer: true });
  const handshake = async (url, fields) => {
    try {
      await authenticateUpgrade(waa, requestOf(url, { ...upgradeFields, ...fields }), options);
    } catch (error) {
      return error.name === 'SessionError' || error.name === 'AuthorisationError';
    }
    return false;
  };
  const page = (url, fields) =>
    new Promise((resolve) => {
      const request = requestOf(url, { host: 'localhost:3000', accept: 'text/html', ...fields });
      const response = new ServerResponse(request);
      response.end = () => resolve(true);
      const fail = (error) => auth.failurePage(error, request, response, () => resolve(false));
      const next = (error) =>
        error ? fail(error) : guard(request, response, (problem) => (problem ? fail(problem) : resolve(false)));
      auth(request, response, next);
    });
  return { handshake, page };
}

/** The requests that a field is read in. */
function requestsFor(field, value) {
  if (field === 'the query')
    return [
      ['handshake', `/live?${value}`, {}],
      ['page', `/?${value}`, {}],
    ];
  if (field === 'WLS-Response') return [['page', `/webauth/callback?${value}`, {}]];
  if (field === 'return and aauth') return [['page', `/webauth/login?${value}`, {}]];
  const fields = field === 'many lines' ? linesOf(value) : { [field.toLowerCase()]: value };
  // A page that a script reads, for which the answer leads back to where the script is.
  const ofScript = field === 'Referer' ? { ...fields, accept: 'application/json' } : fields;
  return [
    ['handshake', '/live', fields],
    ['page', '/', ofScript],
  ];
}

/** As many lines as there are names. Node takes 2000 unless `maxHeadersCount` is raised. */
function linesOf(names) {
  return { authorization: 'Bearer x', ...Object.fromEntries(names.split(' ').map((name) => [name, 'x'])) };
}

/** Rows of the table, one for each field: its worst shape. */
export async function runGrowth() {
  const wls = createWLS();
  const waa = createWAA({
    baseUrl: origin,
    secret: randomBytes(32).toString('hex'),
    store: new MemoryStore(),
    wls: wls.profile,
  });
  const read = readers(waa);
  const rows = [];
  for (const [field, shapes] of Object.entries(values)) {
    const all = Object.entries(shapes).flatMap(([shape, make]) =>
      requestsFor(field, '').map(([reader]) => ({ field, shape, make, reader, run: read[reader] })),
    );
    const worst = (await slowest(all, ROUGH)).slice(0, WORST);
    rows.push({ ...(await slowest(worst, FINE))[0], shapes: all.length, goal: GOAL });
  }
  await waa.close();
  return rows;
}

/** The same ones with how they grow, those first that grow most. */
async function slowest(candidates, effort) {
  const measured = [];
  for (const one of candidates) measured.push({ ...one, ...(await growthOf(one, effort)) });
  return measured.sort((a, b) => b.value - a.value);
}

async function growthOf({ field, shape, make, reader, run }, { sizes, timing, most }) {
  const contenders = {};
  for (const size of sizes) {
    const [, url, fields] = requestsFor(field, make(size * KB)).find(([name]) => name === reader);
    contenders[size] = await inProcess(`${field}, ${shape}, ${size} KB`, () => run(url, fields), timing);
  }
  const rates = await interleave(contenders, most);
  const value = median(rates[16].map((rate, round) => rate / rates[64][round]));
  return { value, times: sizes.map((size) => 1e6 / median(rates[size])) };
}

/** One row, as it is printed. */
export function describeGrowth({ field, shapes, shape, reader, value, times, goal }) {
  const verdict = value <= goal ? 'holds ' : 'MISSED';
  const each = times.map((time) => time.toFixed(1)).join(', ');
  return `${value.toFixed(2).padStart(8)}  at most ${goal}  ${verdict}  ${field} (of ${shapes}, the worst: ${shape}, in a ${reader}; ${each} us)`;
}

export const growthTitle = `Times as long for 64 KB of a header field as for 16 KB (4 is linear), and what was aimed at; then ${SIZES.join(', ')} KB`;

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  process.env.NODE_ENV = 'development';
  console.log(`${growthTitle}\n\n${(await runGrowth()).map(describeGrowth).join('\n')}`);
}
