import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { LogEvent } from '../src/config.js';
import type { Auth } from '../src/session/session.js';
import { createWAA, type WAA } from '../src/waa.js';
import { clock, secret, wls } from './site.js';

let waa: WAA;
let events: LogEvent[];

beforeEach(() => {
  clock.reset();
  events = [];
  waa = make();
});
afterEach(() => waa.close());

function make(): WAA {
  const log = (event: LogEvent) => void events.push(event);
  return createWAA({ baseUrl: 'http://localhost:1', secret, wls: wls.profile, now: clock.now, log });
}

async function logIn(application = waa): Promise<{ auth: Auth; cookie: string }> {
  const { location, nonce } = application.startLogin('/');
  const { auth, cookie } = await application.finishLogin(wls.respond(location), nonce);
  return { auth, cookie: cookie as string };
}

const copies: [string, (auth: Auth) => unknown][] = [
  ['JSON', (auth) => JSON.parse(JSON.stringify(auth))],
  ['a spread', (auth) => ({ ...auth })],
  ['Object.assign', (auth) => Object.assign({}, auth)],
  ['structuredClone', (auth) => structuredClone(auth)],
  ['all property descriptors', (auth) => Object.create(null, Object.getOwnPropertyDescriptors(auth))],
  ['all of it, with its prototype', (auth) => Object.assign(Object.create(Object.getPrototypeOf(auth)), auth)],
  ['inheritance', (auth) => Object.create(auth)],
  ['a proxy', (auth) => new Proxy(auth, {})],
  ['a copy without group', ({ group: _, ...auth }) => auth],
  ['a copy with another group', (auth) => ({ ...auth, group: 'x' })],
];

const others: [string, unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['a string', 'test0001'],
  ['a number', 1],
  ['a promise', Promise.resolve({ sessionId: 'x' })],
  ['an empty object', {}],
  ['a function', () => {}],
  ['an array', []],
];

describe.each(['endSession', 'retireSession'] as const)('waa.%s()', (method) => {
  it.each(copies)('rejects with a TypeError before anything is done for a copy made by %s', async (_, copy) => {
    const { auth, cookie } = await logIn();
    const onEnd = vi.fn();
    waa.watch(auth, onEnd);
    events = [];
    const revoked = waa[method](copy(auth) as Auth);
    await expect(revoked).rejects.toThrow(TypeError);
    await expect(revoked).rejects.toThrow(`${method}() takes the Auth object`);
    await expect(revoked).rejects.toThrow('waa.sessions.revoke(principal, handle)');
    expect(waa.openSession(cookie).principal).toBe('test0001');
    expect(onEnd).not.toHaveBeenCalled();
    expect(events).toEqual([]);
  });

  it.each(others)('rejects with a TypeError of ours for %s', async (_, value) => {
    await expect(waa[method](value as Auth)).rejects.toThrow(`${method}() takes the Auth object`);
  });

  it.each(['cookie', 'ticket', 'after renewal'])('revokes the session of an original: %s', async (kind) => {
    const { auth, cookie } = await logIn();
    const { ticket } = await waa.makeTicket(cookie);
    if (kind === 'after renewal') waa.adopt(auth, await waa.takeTicket(ticket));
    await waa[method](kind === 'ticket' ? await waa.takeTicket(ticket) : auth);
    expect(() => waa.openSession(cookie)).toThrow('the session was ended');
  });
});

describe('waa.endSession()', () => {
  it('revokes the API token of an original, and rejects a copy of its Auth', async () => {
    const { token } = await waa.tokens.create({ principal: 'test0001', name: 'a program', ttl: 60 });
    const auth = await waa.openToken(token);
    await expect(waa.endSession({ ...auth })).rejects.toThrow(TypeError);
    expect((await waa.openToken(token)).via).toBe('token');
    await waa.endSession(auth);
    await expect(waa.openToken(token)).rejects.toMatchObject({ code: 'ERR_TOKEN_INVALID' });
  });

  it('rejects with a TypeError for an Auth of another copy of the package', async () => {
    vi.resetModules();
    const { createWAA: createOther } = await import('../src/waa.js');
    const other = createOther({
      baseUrl: 'http://localhost:1',
      secret,
      wls: wls.profile,
      now: clock.now,
      log: () => {},
    });
    const { auth } = await logIn(other as unknown as WAA);
    await expect(waa.endSession(auth)).rejects.toThrow(TypeError);
    await other.close();
  });
});

describe('waa.watch()', () => {
  it.each(copies)('throws a TypeError before anything is done for a copy made by %s', async (_, copy) => {
    const { auth } = await logIn();
    const onEnd = vi.fn();
    expect(() => waa.watch(copy(auth) as Auth, onEnd)).toThrow('watch() takes the Auth object');
    await waa.endSession(auth);
    expect(onEnd).not.toHaveBeenCalled();
  });

  it.each(others)('throws a TypeError of ours for %s', (_, value) => {
    expect(() => waa.watch(value as Auth, () => {})).toThrow('watch() takes the Auth object');
  });
});

describe('Auth', () => {
  it('shows its documented fields alone, in JSON, a spread and a log', async () => {
    const { auth } = await logIn();
    const fields = Object.keys(JSON.parse(JSON.stringify(auth))).sort();
    expect(Reflect.ownKeys({ ...auth }).sort()).toEqual(
      [...fields, 'interactiveAt'].filter((one, i, all) => all.indexOf(one) === i).sort(),
    );
    expect(fields).not.toContain('mark');
    expect(inspect(auth, { showHidden: true })).not.toContain('mark');
  });
});
