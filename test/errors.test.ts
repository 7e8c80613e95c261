import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import express from 'express';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { errorTable, SessionError, WebauthError } from '../src/errors.js';
import { webauth } from '../src/express/index.js';
import * as here from '../src/index.js';
import { wlsKey } from './helpers.js';
import { Browser, clock, Site, secret, wls } from './site.js';

type Package = typeof here;
type ErrorClass = new (code: string, message: string, response?: unknown) => WebauthError;

/** Another copy of the package, as workspaces, bundles and test runners load one. */
let there: Package;
let adapters: typeof import('../src/express/index.js');
let sockets: typeof import('../src/websocket/index.js');
beforeAll(async () => {
  vi.resetModules();
  there = await import('../src/index.js');
  adapters = await import('../src/express/index.js');
  sockets = await import('../src/websocket/index.js');
  expect(there.SessionError).not.toBe(here.SessionError);
});

const codes = (Object.keys(errorTable) as here.ErrorCode[]).map((code) => [code, errorTable[code].class] as const);
const classNames = [...new Set(codes.map(([, name]) => name))];
const classOf = (copy: Package, name: string) => copy[name as 'SessionError'] as unknown as ErrorClass;
const forgedBrands = { [Symbol.for('ucam-webauth.Auth')]: true, [Symbol.for('ucam-webauth.request')]: true };

function make(copy: Package, name: string): WebauthError {
  const [code = ''] = codes.find(([, one]) => one === name) ?? [];
  return new (classOf(copy, name))(code, 'a message', {});
}

describe('WebauthError', () => {
  it.each(codes)('has the properties that error handlers read (http-errors): %s', (code, name) => {
    const error = new (classOf(here, name))(code, 'a message', {});
    expect(error).toMatchObject({ status: errorTable[code].status, statusCode: errorTable[code].status, expose: true });
    expect(Object.keys(error)).toEqual(expect.arrayContaining(['status', 'statusCode', 'expose']));
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ statusCode: errorTable[code].status });
  });

  it.each(classNames)('recognizes an instance of another copy of the package: %s', (name) => {
    for (const [made, asked] of [
      [there, here],
      [here, there],
    ] as const) {
      const error = make(made, name);
      expect(error).toBeInstanceOf(asked.WebauthError);
      for (const other of classNames) expect(error instanceof classOf(asked, other)).toBe(other === name);
    }
  });

  it('recognizes an instance of an extending class, but is not one', () => {
    class OwnError extends here.SessionError {}
    const own = new OwnError('ERR_SESSION_MISSING', 'nobody is logged in');
    expect(own).toBeInstanceOf(OwnError);
    expect(own).toBeInstanceOf(there.SessionError);
    expect(own).toBeInstanceOf(Error);
    expect(make(here, 'SessionError')).not.toBeInstanceOf(OwnError);
    expect(make(there, 'SessionError')).not.toBeInstanceOf(OwnError);
  });

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['a string', 'ERR_SESSION_MISSING'],
    ['an Error', new Error('x')],
    ['a look-alike', { name: 'SessionError', code: 'ERR_SESSION_MISSING', status: 401 }],
    [
      'a look-alike from JSON',
      JSON.parse('{"ucam-webauth.SessionError":true,"Symbol(ucam-webauth.SessionError)":true}'),
    ],
    ['a function', here.SessionError],
  ])('does not recognize %s', (_, value) => {
    expect(value instanceof WebauthError).toBe(false);
    expect(value instanceof SessionError).toBe(false);
  });
});

describe('an application with two copies of the package', () => {
  const server = createServer();
  let address: string;
  let waa: ReturnType<Package['createWAA']>;
  /** From the other copy than the WAA. */
  let auth: ReturnType<typeof adapters.webauth>;

  beforeAll(async () => {
    clock.reset();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const store = new there.MemoryStore({ now: clock.now });
    const [kid = ''] = wls.profile.keys.kids;
    const keys = there.KeySet.from({ [kid]: wlsKey.pem });
    const { profile } = wls;
    waa = here.createWAA({ baseUrl: address, secret, store, wls: { ...profile, keys }, now: clock.now, log: () => {} });
    auth = adapters.webauth(waa as never);
    const app = express().set('env', 'test').use(auth);
    app.get('/public', (request, response) => void response.json(request.auth ?? null));
    app.get('/private', auth.require(), (request, response) => void response.send(request.auth?.principal));
    app.get('/staff', auth.require({ principals: ['abc12'] }));
    app.post('/end', auth.require(), async (request, response) => {
      await waa.endSession(request.auth as here.Auth);
      response.send('ended');
    });
    app.use(auth.failurePage);
    server.on('request', app);
  });
  afterAll(async () => {
    server.close();
    server.closeAllConnections();
    await waa.close();
  });

  it('answers a request without a session', async () => {
    const browser = new Browser(address);
    expect(await browser.get('/public')).toMatchObject({ status: 200, text: 'null' });
    expect((await browser.get('/private')).location).toContain(wls.profile.authUrl);
    expect((await browser.fetch('/private')).status).toBe(401);
  });

  it('logs a user in, and rejects with 403 an unauthorized one', async () => {
    const browser = new Browser(address);
    await browser.logIn();
    expect((await browser.get('/private')).text).toBe('test0001');
    const { status, text } = await browser.fetch('/staff');
    expect([status, JSON.parse(text).error.code]).toEqual([403, 'ERR_PRINCIPAL_REFUSED']);
  });

  it('revokes the session of a request', async () => {
    const browser = new Browser(address);
    await browser.logIn();
    expect((await browser.post('/end')).text).toBe('ended');
    expect((await browser.fetch('/private')).status).toBe(401);
  });

  it('rejects with its own status a login that another copy rejects', async () => {
    const onLogin = () => Promise.reject(make(there, 'AuthorisationError'));
    const strict = here.createWAA({
      baseUrl: address,
      secret,
      wls: wls.profile,
      now: clock.now,
      log: () => {},
      onLogin,
    });
    const { location, nonce } = strict.startLogin('/private');
    const login = strict.finishLogin(wls.respond(location), nonce);
    await expect(login).rejects.toMatchObject({ status: 403, loginUrl: '/webauth/login?return=%2Fprivate' });
    await strict.close();
  });

  it('keeps the user that the middleware of another copy found for another login service', async () => {
    const other = there.createWAA({ baseUrl: address, secret, wls: { ...wls.profile, name: 'other' }, log: () => {} });
    const both = here.createWAA({ baseUrl: address, secret, wls: wls.profile, now: clock.now, log: () => {} });
    const site = new Site(express);
    await site.listen();
    const known = webauth(both);
    site.run((app) => {
      app.use(known, adapters.webauth(other as never));
      app.get('/', (request, response) => void response.json(request.auth?.principal ?? null));
    });
    const { location, nonce } = both.startLogin('/');
    const { cookie } = await both.finishLogin(wls.respond(location), nonce);
    const headers = { cookie: `webauth-session=${cookie}` };
    expect((await new Browser(site.address).fetch('/', headers)).text).toBe('"test0001"');
    site.close();
    await Promise.all([other.close(), both.close()]);
  });

  it('rejects a WebSocket handshake with the status of an error of another copy', async () => {
    const [client, server] = await connectedSockets();
    sockets.refuseUpgrade(server, make(here, 'AuthorisationError'));
    expect(await text(client)).toMatch(/^HTTP\/1\.1 403 /);
  });
});

describe('a forged brand', () => {
  it('authenticates no request', async () => {
    const site = new Site(express);
    await site.listen();
    site.serve(
      (app, auth) => {
        app.get('/private', auth.require(), (_, response) => void response.send('private'));
      },
      {},
      (app) => {
        app.use((request, _, next) => {
          Object.assign(request, forgedBrands, { auth: { principal: 'test0001', ...forgedBrands } });
          next();
        });
      },
    );
    expect((await new Browser(site.address).fetch('/private')).status).toBe(401);
    await site.waa.close();
    site.close();
  });

  it('makes no copy of an Auth one that can be revoked or watched', async () => {
    const waa = here.createWAA({
      baseUrl: 'http://localhost:1',
      secret,
      wls: wls.profile,
      now: clock.now,
      log: () => {},
    });
    const { location, nonce } = waa.startLogin('/');
    const { auth, cookie } = await waa.finishLogin(wls.respond(location), nonce);
    const forged = Object.assign({ ...auth }, forgedBrands) as here.Auth;
    await expect(waa.endSession(forged)).rejects.toThrow(TypeError);
    expect(() => waa.watch(forged, () => {})).toThrow(TypeError);
    expect(waa.openSession(cookie as string).principal).toBe('test0001');
    await waa.close();
  });
});

/** Both ends of a connection. */
async function connectedSockets(): Promise<[client: Socket, server: Socket]> {
  const listener = createTcpServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  listener.close();
  return [client, server];
}
