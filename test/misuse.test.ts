import { generateKeyPairSync } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server } from 'socket.io';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { WebSocketServer } from 'ws';
import * as express from '../src/express/index.js';
import * as index from '../src/index.js';
import * as lmdb from '../src/session/lmdb.js';
import * as redis from '../src/session/redis.js';
import * as websocket from '../src/websocket/index.js';
import * as socketio from '../src/websocket/socketio.js';
import * as wlsModule from '../src/wls/index.js';
import { expectations, keys, makeResponse, now, sign, wlsKey } from './helpers.js';
import { root } from './processes.js';

type Any = Record<string, (...given: unknown[]) => unknown>;
const entry = index as unknown as Any;
const { acceptUpgrades, authenticateUpgrade, refuseUpgrade, socketFrame } = websocket as unknown as Any;
const { acceptConnections } = socketio as unknown as Any;
/** Not by a name that the compiler reads: it is written for browsers, and this for Node. */
const client = (await import(join(root, 'src/client/index.ts'))) as Any;

const secret = 'a1'.repeat(32);
const folder = mkdtempSync(join(tmpdir(), 'misuse-'));
const baseUrl = 'https://app.example.org';
const config = { baseUrl, secret, log: () => {} };
const waa = index.createWAA({ ...config, listSessions: true });
const auth = express.webauth(waa);
const service = wlsModule.createWLS({ key: wlsKey.privateKey, now: () => now });
const server = createServer();
const wss = new WebSocketServer({ noServer: true });
const home = `${baseUrl}/webauth/callback`;
const { location, nonce } = waa.startLogin('/');
const live = (await waa.finishLogin(finish(), nonce).catch(() => undefined))?.auth;
const request = { headers: {}, rawHeaders: [], socket: {}, url: '/', method: 'GET' };

function finish(): string {
  return sign(makeResponse({ params: new URL(location).searchParams.get('params') as string, url: home }));
}

class Probe {}
const thrower = () => {
  throw new Error('thrown by the probe');
};
const hostile = new Proxy(
  {},
  { get: thrower, has: thrower, ownKeys: thrower, getPrototypeOf: thrower, getOwnPropertyDescriptor: thrower },
);
const revoked = Proxy.revocable({}, {});
revoked.revoke();

/** Values that few parameters take. */
const values: readonly unknown[] = [
  ...[undefined, null, true, false, 0, -1, 1.5, 1e15, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  ...[10n, '', 'x', 'A B', 'a\nb', '\ud800', Symbol('probe'), [], ['x'], [''], ['a,b'], [1], [undefined], new Array(1)],
  ...[{}, Object.create(null), { nowhere: 1 }, new Map(), new Probe(), Probe, () => {}, Promise.resolve(), /x/g],
  ...[new Date(now), new Date(Number.NaN), Buffer.from('x'), new URL(baseUrl), hostile, revoked.proxy],
  { get baseUrl() { return thrower(); } }, // biome-ignore format: one line
];

const isText = (value: unknown) => typeof value === 'string';
const isNothing = (value: unknown) => value === undefined;
const isFlag = (value: unknown) => typeof value === 'boolean';
const isLog = (value: unknown) => value === false || typeof value === 'function';
const isFunction = (value: unknown) => typeof value === 'function';
const isSome = (value: unknown) => isText(value) && value !== '';
const isArray = (value: unknown): value is unknown[] => value !== revoked.proxy && Array.isArray(value);
const isList = (value: unknown) => isArray(value) && value.length === 0;
const isX = (value: unknown) => isArray(value) && value[0] === 'x';
const isTexts = (value: unknown) => isList(value) || isX(value);
const isNumber = (value: unknown) => value === 0 || value === 1.5;
const isPositive = (value: unknown) => value === 1.5;
const isPlain = (value: unknown) =>
  isObject(value) &&
  value !== hostile &&
  value !== revoked.proxy &&
  [null, Object.prototype].includes(Object.getPrototypeOf(value)) &&
  Object.keys(value as object).length === 0;
const never = () => false;
const either =
  (...tests: ((value: unknown) => boolean)[]) =>
  (value: unknown) =>
    tests.some((test) => test(value));

interface Row {
  /** Function or method, as the documentation names it. */
  readonly of: string;
  readonly parameter: string;
  readonly accepts: (value: unknown) => boolean;
  readonly call: (value: unknown) => unknown;
  /** Whether a client chooses the value, so that a wrong one is a bad credential and no misuse. */
  readonly isCredential?: boolean;
}

const row = (of: string, parameter: string, accepts: Row['accepts'], call: Row['call'], isCredential = false): Row => ({
  ...{ of, parameter, accepts, call, isCredential },
});

const method = (name: string) => (waa as unknown as Any)[name]?.bind(waa) as (...given: unknown[]) => unknown;
const fail = () => new index.SessionError('ERR_SESSION_MISSING', 'x');

const rows: readonly Row[] = [
  row('verifyResponse', 'encoded', never, (x) => entry['verifyResponse']?.(x, expectations())),
  row('verifyResponse', 'expected', never, (x) => entry['verifyResponse']?.(sign(makeResponse()), x)),
  row('parseResponse', 'response', never, (x) => entry['parseResponse']?.(x)),
  row('formatRequest', 'authUrl', never, (x) => entry['formatRequest']?.(x, { url: home })),
  row('formatRequest', 'request', never, (x) => entry['formatRequest']?.(location, x)),
  row('createWAA', 'createWAA|baseUrl', never, (x) => entry['createWAA']?.(x)),
  row('cookieSecret', 'cookieSecret', never, (x) => entry['cookieSecret']?.(x)),
  row('nevar', 'nevar', never, (x) => entry['nevar']?.(x)),
  row('goose', 'goose', never, (x) => entry['goose']?.(x)),
  row('MemoryStore', 'MemoryStore', either(isNothing, isPlain), (x) => new index.MemoryStore(x as never)),
  row('LmdbStore', 'LmdbStore|path', never, (x) => new lmdb.LmdbStore(x as never)),
  row('RedisStore', 'RedisStore', never, (x) => new redis.RedisStore(x as never)),
  row('KeySet.from', 'pems|kid', never, (x) => index.KeySet.from(x as never)),
  row('KeySet.fromDirectory', 'path|folder', never, (x) => index.KeySet.fromDirectory(x as never)),
  row('KeySet.add', 'kid', never, (x) => new index.KeySet().add(x as never, wlsKey.pem)),
  row('KeySet.add', 'key 7', never, (x) => new index.KeySet().add('7', x as never)),
  row('KeySet.get', 'kid', isText, (x) => keys.get(x as never)),
  row('KeySet.remove', 'kid', isText, (x) => new index.KeySet().remove(x as never)),
  row('KeySet.fingerprint', 'kid', isText, (x) => keys.fingerprint(x as never)),
  ...[index.ResponseError, index.SessionError, index.AuthorisationError, index.VerificationError].flatMap((kind) => [
    row(kind.name, 'code', never, (x) => new kind(x as never, 'x')),
    row(kind.name, 'message', isText, (x) => new kind('ERR_DEADLINE' as never, x as never)),
  ]),
  row('StatusError', 'code', never, (x) => new index.StatusError(x as never, 'x', {})),
  row('waa.startLogin', 'returnTo', isText, (x) => waa.startLogin(x as never)),
  row('waa.startLogin', 'nonce', either(isNothing, isText), (x) => waa.startLogin('/', x as never)),
  row('waa.startLogin', 'startLogin|demands', (x) => isNothing(x) || [Map, Promise, Probe, Date, RegExp].some((kind) => isOf(x, kind as never)) || isPlain(x), (x) => waa.startLogin('/', undefined, x as never)), // biome-ignore format: one line
  row('waa.startLogin', 'startLogin', isNothing, (x) => waa.startLogin('/', undefined, {}, x as never)),
  row('waa.finishLogin', 'response', never, (x) => waa.finishLogin(x as never, nonce), true),
  row('waa.finishLogin', 'nonce|cookie|browser|state', never, (x) => waa.finishLogin(finish(), x as never), true),
  row('waa.openSession', 'session|logged in', never, (x) => waa.openSession(x as never), true),
  row('waa.makeTicket', 'session|logged in', never, (x) => waa.makeTicket(x as never), true),
  row('waa.takeTicket', 'ticket', never, (x) => waa.takeTicket(x as never), true),
  row('waa.openToken', 'token', never, (x) => waa.openToken(x as never), true),
  row('waa.authorise', 'authorise', never, (x) => waa.authorise(x as never)),
  ...['endSession', 'watch'].map((name) => row(`waa.${name}`, name, never, (x) => method(name)(x, () => {}))),
  ...['endSessions', 'block'].map(
    (name) =>
    row(`waa.${name}`, 'principal', (x) => x === 'x', (x) => method(name)(x)), // biome-ignore format: one line
  ),
  row('waa.unblock', 'principal', isSome, (x) => waa.unblock(x as never)),
  row('waa.tokens.create', 'tokens.create', never, (x) => waa.tokens.create(x as never)),
  row('waa.tokens.list', 'principal', isText, (x) => waa.tokens.list(x as never)),
  row('waa.tokens.revoke', 'principal', isText, (x) => waa.tokens.revoke(x as never, 'x')),
  row('waa.tokens.revoke', 'handle', isText, (x) => waa.tokens.revoke('x', x as never)),
  row('waa.sessions.list', 'principal', isText, (x) => waa.sessions.list(x as never)),
  row('waa.sessions.list', 'asking', isNothing, (x) => waa.sessions.list('x', x as never)),
  row('waa.sessions.revoke', 'principal', isText, (x) => waa.sessions.revoke(x as never, 'x')),
  row('waa.sessions.revoke', 'handle', isText, (x) => waa.sessions.revoke('x', x as never)),
  row('waa.socketCookie', 'origin', never, (x) => waa.socketCookie(x as never)),
  row('webauth', 'webauth', never, (x) => express.webauth(x as never)),
  row('webauth(waa)', 'next', isFunction, (x) => isFunction(x) || auth(request as never, {} as never, x as never)),
  row('auth.require', 'require', either(isNothing, isPlain), (x) => auth.require(x as never)),
  row('auth.require()', 'next', isFunction, (x) => isFunction(x) || auth.require()(request as never, {} as never, x as never)), // biome-ignore format: one line
  row('auth.failurePage', 'next', isFunction, (x) => isFunction(x) || auth.failurePage(fail(), request as never, {} as never, x as never)), // biome-ignore format: one line
  row('acceptUpgrades', 'server', never, (x) => acceptUpgrades?.(x, wss, waa, { path: '/x' })),
  row('acceptUpgrades', 'wss', never, (x) => acceptUpgrades?.(server, x, waa, { path: '/x' })),
  row('acceptUpgrades', 'waa', never, (x) => acceptUpgrades?.(server, wss, x, { path: '/x' })),
  row('acceptUpgrades', 'acceptUpgrades', either(isNothing, isPlain), (x) => acceptUpgrades?.(createServer(), wss, waa, x)), // biome-ignore format: one line
  row('authenticateUpgrade', 'waa', never, (x) => authenticateUpgrade?.(x, request)),
  row('authenticateUpgrade', 'request', never, (x) => authenticateUpgrade?.(waa, x)),
  row('authenticateUpgrade', 'authenticateUpgrade|nothing says|path|needs', never, (x) => authenticateUpgrade?.(waa, request, x)), // biome-ignore format: one line
  row('refuseUpgrade', 'socket', never, (x) => refuseUpgrade?.(x, fail())),
  row('socketFrame', 'waa', never, (x) => socketFrame?.(x, { origin: 'https://live.example.org' })),
  row('socketFrame', 'socketFrame', never, (x) => socketFrame?.(waa, x)),
  row('acceptConnections', 'io', never, (x) => acceptConnections?.(x, waa)),
  row('acceptConnections', 'waa', never, (x) => acceptConnections?.(new Server(createServer()), x)),
  row('acceptConnections', 'acceptConnections', either(isNothing, isPlain), (x) => acceptConnections?.(new Server(createServer()), waa, x)), // biome-ignore format: one line
  row('createWLS', 'createWLS', either(isNothing, isPlain), (x) => wlsModule.createWLS(x as never)),
  row('wls.listen', 'port', never, (x) => (isNothing(x) || x === 0 ? misused('port') : service.listen(x as never))),
  row('wls.listen', 'host|listen on', never, (x) => (isNothing(x) ? misused('host') : service.listen(0, x as never))),
  row('wls.respond', 'respond', never, (x) => service.respond((isOf(x, URL) ? {} : x) as never)),
  row('wls.respond', 'response', either(isNothing, isPlain), (x) => service.respond({ url: home }, x as never)),
  row('TicketError', 'message', isText, (x) => new (client['TicketError'] as unknown as typeof Error)(x as never)),
  row(
    'connect',
    'url',
    (x) => isText(x) || isOf(x, URL),
    (x) => client['connect']?.(x),
  ),
  row('connect', 'options|nowhere|baseUrl|credential', (x) => isNothing(x) || isObject(x), (x) => client['connect']?.('/x', x)), // biome-ignore format: one line
  row(
    'connection.send',
    'data',
    (x) => isText(x) || Buffer.isBuffer(x),
    (x) => connection()['send']?.(x),
  ),
  row('connection.close', 'code', isNothing, (x) => connection()['close']?.(x)),
  row(
    'connection.close',
    'reason',
    (x) => isNothing(x) || isText(x),
    (x) => connection()['close']?.(1000, x),
  ),
  row('fetchTicket', 'ticketUrl', either(isNothing, isText), (x) => (isNothing(x) || isText(x) ? undefined : client['fetchTicket']?.(x))), // biome-ignore format: one line
  row('fetchTicket', 'signal', isNothing, (x) => (isNothing(x) ? undefined : client['fetchTicket']?.('/x', x))),
];

function connection(): Any {
  return client['connect']?.('/x') as Any;
}

function isOf(value: unknown, kind: abstract new (...given: never[]) => unknown): boolean {
  return value !== hostile && value !== revoked.proxy && value instanceof kind;
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

function misused(name: string): never {
  throw new TypeError(name);
}

const isInBrowser = /^(?:connect|fetchTicket|TicketError)/;

/** Words of engines and of Node, which name nothing that a programmer has written. */
const engine =
  /Cannot (?:read|destructure|convert|use|mix)|is not (?:a function|iterable|a constructor|an object|extensible)|undefined or null|argument must be|Received|Invalid URL|thrown by the probe|has been revoked|is not defined|should be/;

/** What the call throws or rejects with; undefined if nothing. */
async function thrownBy(call: () => unknown): Promise<Error | undefined> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

function show(value: unknown): string {
  if (value === hostile || value === revoked.proxy) return 'a hostile Proxy';
  return typeof value === 'object' ? Object.prototype.toString.call(value) : String(value);
}

async function expectSentence(row: Row, value: unknown): Promise<void> {
  // A page that breaks its own options is told so by what it has thrown itself.
  if (isInBrowser.test(row.of) && (value === hostile || value === revoked.proxy)) return;
  const error = await thrownBy(() => row.call(value));
  const about = `${row.of}, ${row.parameter}: ${show(value)}`;
  if (row.accepts(value)) return expect(error?.message ?? '', about).not.toMatch(engine);
  expect(error, about).toBeInstanceOf(Error);
  if (!row.isCredential) expect(error?.constructor === TypeError || error instanceof index.WebauthError, `${about}: ${error}`).toBe(true); // biome-ignore format: one line
  if (row.isCredential)
    expect(error instanceof index.WebauthError || error?.constructor === TypeError, about).toBe(true);
  expect(error?.message, about).not.toMatch(engine);
  if (!(error instanceof index.WebauthError)) expect(error?.message, about).toMatch(new RegExp(row.parameter));
}

beforeAll(() => {
  vi.stubGlobal('location', new URL('https://app.example.org/page'));
  vi.stubGlobal('WebSocket', Object.assign(class extends EventEmitter {}, { OPEN: 1 }));
  vi.stubGlobal('queueMicrotask', () => {});
});

afterAll(async () => {
  vi.unstubAllGlobals();
  wss.close();
  await waa.close();
  rmSync(folder, { recursive: true });
});

describe('a parameter of the public API', () => {
  it.each(rows.map((one) => [`${one.of}: ${one.parameter}`, one] as const))(
    'rejects wrong values of %s in a sentence of ours',
    async (_, one) => {
      expect(live).toBeUndefined();
      for (const value of values) await expectSentence(one, value);
    },
  );
});

interface Options {
  readonly of: string;
  /** Options without which the others are not looked at. */
  readonly good: object;
  readonly call: (options: object) => unknown;
  /** The values of the list that an option takes beside undefined. */
  readonly accepts: Readonly<Record<string, (value: unknown) => boolean>>;
  /** Options that may not be undefined. */
  readonly needs?: readonly string[];
}

const names = (value: unknown) => isTexts(value) || (isArray(value) && value[0] === 'a,b');
const who = { principals: isTexts, ptags: isTexts, scopes: names };
const restrictions = ['principals', 'ptags', 'scopes'];
const upgrades = { ...who, credentials: never, origins: isList, frame: never, authorise: isFunction, deadline: isPositive, behindProxy: isFlag }; // biome-ignore format: one line
const connections = { ...upgrades, maxPending: isCount, maxPerPrincipal: isCount, maxPerSession: isCount };
const upgradeNeeds = [...restrictions, 'credentials', 'frame', 'authorise'];
const connectionNeeds = [...upgradeNeeds, 'maxPerPrincipal', 'maxPerSession'];

function isCount(value: unknown): boolean {
  return value === 1e15;
}

const isTags = (value: unknown) => isTexts(value);
const isPath = (value: unknown) => isText(value) && value !== '' && value !== '\0';
const tables: readonly Options[] = [
  {
    of: 'createWAA',
    good: config,
    call: (options) => index.createWAA(options as never),
    needs: ['baseUrl', 'requirePrincipals', 'requirePtags'],
    accepts: {
      ...{ baseUrl: never, secret: never, wls: never, store: never, log: isLog, callbackPath: never },
      ...{ cookieName: (x) => x === 'x', cookiePath: never, desc: (x) => isText(x) && x !== 'a\nb' && x !== '\ud800' },
      ...{ maxLife: isNumber, useWlsLife: isFlag, inactiveTimeout: never, coordinatedLogout: isFlag },
      ...{ clearCacheOnLogout: isFlag },
      ...{ listSessions: isFlag, staleAfter: isNumber, responseTimeout: isNumber, clockSkew: isNumber },
      ...{ requirePrincipals: isTexts, requirePtags: isTags, onLogin: isFunction, now: never },
      ...{ dangerouslyAllowStaleSessions: isFlag, dangerouslyActAsDevelopment: isFlag },
    },
  },
  {
    of: 'verifyResponse',
    good: expectations(),
    call: (options) => index.verifyResponse(sign(makeResponse()), options as never),
    needs: ['keys', 'url', 'params'],
    accepts: {
      ...{ keys: never, url: isSome, params: (x) => x === null || isText(x), now: isDay, iact: isFlag, aauth: isTypes },
      ...{ responseTimeout: isDuration, clockSkew: isDuration, oldVersionPtags: isTags, ver: never },
    },
  },
  {
    of: 'formatRequest',
    good: { url: home },
    call: (options) => index.formatRequest(location, options as never),
    needs: ['url'],
    accepts: {
      ...{
        url: (x) => x === home,
        desc: isWire,
        msg: isWire,
        aauth: isX,
        iact: isFlag,
      },
      ...{ params: (x) => isText(x) && x !== '\ud800', date: (x) => isDay(x), fail: isFlag, ver: never },
    },
  },
  { of: 'nevar', good: { keys }, call: (o) => index.nevar(o as never), needs: ['keys'], accepts: { keys: never } },
  { of: 'goose', good: { keys }, call: (o) => index.goose(o as never), needs: ['keys'], accepts: { keys: never } },
  {
    of: 'cookieSecret',
    good: { value: secret },
    call: (options) => index.cookieSecret(options as never),
    needs: ['value'],
    accepts: {
      value: never,
      env: (x) => x === 'x',
      file: (x) => isText(x) && x !== '' && x !== 'a\nb',
      sharedMount: isFlag,
    },
  },
  { of: 'new MemoryStore', good: {}, call: (o) => new index.MemoryStore(o), accepts: { now: never } },
  {
    of: 'new RedisStore',
    good: { url: 'redis://localhost:6379' },
    call: (options) => new redis.RedisStore(options as never),
    needs: ['url'],
    accepts: { url: never, username: isText, password: isText, prefix: isText, now: never },
  },
  {
    of: 'new LmdbStore',
    good: { path: '\0' },
    // Not with a path that it takes: it would make that folder.
    call: ({ path, ...others }: { path?: unknown }) => isPath(path) || new lmdb.LmdbStore({ ...others, path } as never),
    needs: ['path'],
    accepts: { path: isPath, now: never },
  },
  {
    of: 'tokens.create()',
    good: { principal: 'x', name: 'x', ttl: 1 },
    call: (options) => waa.tokens.create(options as never),
    needs: ['principal', 'name', 'ttl'],
    accepts: { principal: (x) => x === 'x', name: isSome, ttl: isPositive, scopes: isScopes, ptags: isTags },
  },
  {
    of: 'require()',
    good: {},
    call: (options) => auth.require(options as never),
    needs: [...restrictions, 'iact', 'aauth', 'maxAge'],
    accepts: { ...who, origins: isList, bearer: isFlag, iact: isFlag, aauth: isX, maxAge: never }, // biome-ignore format: one line
  },
  {
    of: 'acceptUpgrades',
    good: {},
    call: (options) => acceptUpgrades?.(createServer(), wss, waa, options),
    needs: connectionNeeds,
    accepts: { ...connections, path: never, rejection: never, heartbeat: isNumber, unclaimedTimeout: isPositive },
  },
  {
    of: 'acceptConnections',
    good: {},
    call: (options) => acceptConnections?.(new Server(createServer()), waa, options),
    needs: connectionNeeds,
    accepts: connections,
  },
  {
    of: 'socketFrame',
    good: { origin: 'https://live.example.org' },
    call: (options) => socketFrame?.(waa, options),
    needs: ['origin'],
    accepts: { origin: never, pages: isList },
  },
  {
    of: 'createWLS',
    good: { key: wlsKey.privateKey },
    call: (options) => wlsModule.createWLS(options),
    accepts: {
      ...{ accounts: never, key: never, kid: never, sessionLife: isCount, log: isFunction, now: never },
      ...{ strict: isFlag, dangerouslyActAsDevelopment: isFlag, dangerouslyListenBeyondLoopback: isFlag },
    },
  },
];

function isDuration(value: unknown): boolean {
  return isNumber(value) || isCount(value);
}

function isTypes(value: unknown): boolean {
  return isArray(value) && value.length > 0 && isText(value[0]);
}

function isWire(value: unknown): boolean {
  return isText(value) && value !== 'a\nb' && value !== '\ud800';
}

function isDay(value: unknown): boolean {
  return isOf(value, Date) && !Number.isNaN((value as Date).getTime());
}

function isScopes(value: unknown): boolean {
  return names(value);
}

/** The names that a function knows, of the sentence that rejects another one. */
async function namesOf({ good, call }: Options): Promise<string[]> {
  const error = await thrownBy(() => call({ ...good, nowhereToBeFound: 1 }));
  return /; it has: ([\w, ]+)/.exec(error?.message ?? '')?.[1]?.split(', ') ?? [];
}

describe.each(tables.map((one) => [one.of, one] as const))('an option of %s', (_, table) => {
  const { good, call, accepts, needs = [] } = table;

  it('is in the table of this test', async () => {
    expect((await namesOf(table)).sort()).toEqual(Object.keys(accepts).sort());
  });

  it.each(Object.keys(accepts))('rejects wrong values of %s in a sentence of ours', async (name) => {
    const takes = (value: unknown) =>
      isNothing(value) ? !needs.includes(name) : (accepts[name] as Row['accepts'])(value);
    const parameter = name.replace('accounts', 'accounts?');
    const one = { of: table.of, parameter, accepts: takes, call: (x: unknown) => call({ ...good, [name]: x }) };
    for (const value of values) await expectSentence(one, value);
  });

  it('is named if another one is a slip of the pen', async () => {
    for (const name of Object.keys(accepts)) {
      for (const slip of [name.toUpperCase(), `${name}s`, name.slice(0, -1)].filter((one) => !(one in accepts))) {
        const error = await thrownBy(() => call({ ...good, [slip]: 1 }));
        expect(error, slip).toBeInstanceOf(TypeError);
        expect(error?.message).toContain(
          `has no ${/Response|Request/.test(table.of) ? 'field' : 'option'} ${slip}; it`,
        );
        expect(error?.message).toMatch(/Perhaps \w+ was meant/);
      }
    }
  });
});

describe('the public API', () => {
  /** Methods that the library itself calls, with what it made or checked. */
  const internal =
    'adopt checkStore endPeeked isBound isOver isRevoked isRevokedEverywhere isTrusted log loginUrl note noteReturn peekSession reaches rejectMisdirected isEnded isEndedWithOthers recheck refused renew retirePeeked retireSession safeReturn unmet checkRequirements'; // biome-ignore format: one line

  it('has no function or method that this test does not call', () => {
    const called = new Set([...rows, ...tables].map(({ of }) => of.replace(/^new |\(.*/g, '')));
    const functions = [index, express, websocket, socketio, client, wlsModule, lmdb, redis].flatMap((one) =>
      Object.entries(one).flatMap(([name, value]) => (typeof value === 'function' ? [name] : [])),
    );
    // Abstract; and made by createWLS().
    const known = new Set([...called, 'KeySet', 'WebauthError', 'WLS']);
    expect(functions.filter((name) => !known.has(name))).toEqual([]);
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(waa)).filter((name) => method(name) !== undefined);
    const others = new Set(['constructor', 'close', ...internal.split(' ')]);
    expect(methods.filter((name) => !called.has(`waa.${name}`) && !others.has(name))).toEqual([]);
  });
});

describe('messages of wrong options', () => {
  it.each<[string, () => unknown, string]>([
    [
      'the form of a wrong secret',
      () => index.createWAA({ ...config, secret: 'cGFzc3dvcmQ=' }),
      'here it is a text of 12 characters, not all of them hex digits',
    ],
    [
      'the length of a wrong secret',
      () => index.createWAA({ ...config, secret: ['a1'.repeat(16)] }),
      'here it is a text of 32 characters',
    ],
    [
      'the option of a RedisStore',
      () => new redis.RedisStore('redis://localhost' as never),
      'RedisStore takes an object of options, such as { url }; here it is a text',
    ],
  ])('name %s', (_name, act, sentence) => {
    expect(act).toThrow(TypeError);
    expect(act).toThrow(sentence);
  });

  it.each([
    ['dev', 'set NODE_ENV=development (here it is "dev", which counts as production)'],
    ['x'.repeat(50), `here it is "${'x'.repeat(20)}", which`],
    [undefined, 'set NODE_ENV=development (unset, it counts as production)'],
  ])('name a NODE_ENV of %j', (value, sentence) => {
    vi.stubEnv('NODE_ENV', value);
    onTestFinished(() => void vi.unstubAllEnvs());
    expect(() => index.createWAA({ baseUrl: 'http://localhost:3000' })).toThrow(sentence);
    expect(() => wlsModule.createWLS()).toThrow(sentence);
  });
});

describe('a principal that the login service never sends', () => {
  const strays = [' abc12', 'abc12 ', 'ABC12', 'abc12@cam.ac.uk', 'abc-12', '12abc', 'ábc12'];
  const places: readonly [string, (principal: string) => unknown][] = [
    ['createWAA', (x) => index.createWAA({ ...config, requirePrincipals: ['abc12', x] })],
    ['auth.require()', (x) => auth.require({ principals: [x] })],
    ['acceptUpgrades()', (x) => acceptUpgrades?.(createServer(), wss, waa, { principals: [x] })],
    ['acceptConnections()', (x) => acceptConnections?.(new Server(createServer()), waa, { principals: [x] })],
    ['authenticateUpgrade()', (x) => authenticateUpgrade?.(waa, request, { principals: [x] })],
    ['waa.block()', (x) => waa.block(x)],
    ['waa.endSessions()', (x) => waa.endSessions(x)],
    ['waa.tokens.create()', (x) => waa.tokens.create({ principal: x, name: 'x', ttl: 1 })],
  ];

  it.each(places)('is a TypeError in %s', async (_, call) => {
    for (const stray of strays) {
      const error = await thrownBy(() => call(stray));
      expect(error, stray).toBeInstanceOf(TypeError);
      expect(error?.message).toContain(`${JSON.stringify(stray)}, which the login service raven never sends`);
    }
    expect((await thrownBy(() => call(' ABC12')))?.message).toContain('Perhaps "abc12" was meant');
  });

  it('can be unblocked and listed, since an earlier version may have stored it', async () => {
    await waa.unblock('ABC12');
    expect(await waa.tokens.list('ABC12')).toEqual([]);
    expect(await waa.sessions.revoke('ABC12', 'x')).toBe(false);
  });

  it('is for the profile to say: Goose sends any', () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const own = wlsModule.createWLS({ accounts: [{ principal: 'A Society', ptags: [] }], key: privateKey });
    for (const wls of [index.goose({ keys }), { ...own.profile, authUrl: 'https://sso.example.org/' }]) {
      index.createWAA({ ...config, wls, requirePrincipals: ['A Society'] });
    }
    const wls = { ...index.raven, name: 'other', principalPattern: /^[A-Z]+$/ };
    expect(() => index.createWAA({ ...config, wls, requirePrincipals: ['abc12'] })).toThrow('never sends');
    expect(() => index.createWAA({ ...config, wls: { ...wls, principalPattern: /x/g } })).toThrow('principalPattern');
  });
});

describe('a handler that is passed without a call, or called instead of passed', () => {
  it('names the call for auth.require', () => {
    expect(() => (auth.require as (...given: unknown[]) => unknown)(request, {}, () => {})).toThrow(
      "auth.require was passed without a call: write app.get('/', auth.require(), …)",
    );
  });

  it('names what to pass for auth.failurePage() and webauth', () => {
    expect(() => (auth.failurePage as (...given: unknown[]) => unknown)()).toThrow('app.use(auth.failurePage)');
    expect(() => (express.webauth as (...given: unknown[]) => unknown)(request, {}, () => {})).toThrow(
      'webauth() needs',
    );
    expect(() => express.webauth({} as never)).toThrow('needs the waa that createWAA() returned');
  });
});
