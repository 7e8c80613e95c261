import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type ClientHttp2Session,
  connect,
  constants,
  createSecureServer,
  createServer,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { request as http1Request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { makeCertificate } from '../src/cli/certificate.js';
import type { Config } from '../src/config.js';
import { type RouteRequirements, type Webauth, webauth } from '../src/express/index.js';
import { createWAA, type WAA } from '../src/waa.js';
import { acceptUpgrades } from '../src/websocket/index.js';
import { answerTo, clock, secret, wls } from './site.js';

type Handler = (response: Http2ServerResponse, request: Http2ServerRequest) => void;

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly location: string;
  /** Its `Set-Cookie` lines. */
  readonly set: readonly string[];
}

const certificate = makeCertificate(['localhost']);
const servers: [string, string, () => Http2Server][] = [
  ['createServer(), without TLS', 'http', () => createServer({ settings: { enableConnectProtocol: true } })],
  [
    'createSecureServer() with allowHTTP1',
    'https',
    () => createSecureServer({ ...certificate, allowHTTP1: true, settings: { enableConnectProtocol: true } }),
  ],
];

const names = ({ set }: Answer) => set.map((line) => line.split('=')[0]?.replace('__Host-', ''));
const codeOf = ({ text }: Answer): string => JSON.parse(text).error.code;

describe.each(servers)('webauth() on %s', (_, scheme, create) => {
  let server: Http2Server;
  let port: number;
  let origin: string;
  let client: ClientHttp2Session;
  let waa: WAA;
  const warnings: string[] = [];
  const warn = ({ name, message }: Error) => void warnings.push(`${name}: ${message}`);

  beforeAll(() => void process.on('warning', warn));
  afterAll(() => void process.off('warning', warn));
  beforeEach(async () => {
    clock.reset();
    warnings.length = 0;
    server = create();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    ({ port } = server.address() as AddressInfo);
    origin = `${scheme}://localhost:${port}`;
    client = connect(`${scheme}://127.0.0.1:${port}`, { ca: certificate.cert, servername: 'localhost' });
    await once(client, 'remoteSettings');
  });
  afterEach(async () => {
    const closed = once(client, 'close');
    client.destroy();
    await closed;
    server.close();
    await waa.close();
    // Headers of connections, reason phrases and the like are forbidden in HTTP/2: Node warns of them.
    expect(warnings).toEqual([]);
  });

  /** @param handler the page behind the guard. */
  function serve(
    handler: Handler = (response, { auth }) => void response.end(`for ${auth?.principal}`),
    config: Partial<Config> = {},
    requirements: RouteRequirements = {},
  ): Webauth {
    waa = createWAA({ baseUrl: origin, secret, wls: wls.profile, now: clock.now, inactiveTimeout: 600, ...config });
    const auth = webauth(waa);
    const guard = auth.require(requirements);
    server.on('request', (request, response) => {
      const fail = (error: unknown) => auth.failurePage(error, request, response, () => response.stream.destroy());
      auth(request, response, (error) => {
        if (error) return fail(error);
        guard(request, response, (refused) => (refused ? fail(refused) : handler(response, request)));
      });
    });
    return auth;
  }

  async function send(headers: OutgoingHttpHeaders, body?: string): Promise<Answer> {
    const sent = { ':authority': new URL(origin).host, ...headers };
    const stream = client.request(sent, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    const [answer] = (await once(stream, 'response')) as [IncomingHttpHeaders];
    let text = '';
    for await (const chunk of stream.setEncoding('utf8')) text += chunk;
    const { location = '', 'set-cookie': set = [] } = answer;
    return { status: Number(answer[':status']), headers: answer, text, location, set };
  }

  /** A browser that sends each of its cookies in a field of its own, as browsers do. */
  class Browser {
    readonly cookies = new Map<string, string>();

    get crumbs(): string[] {
      return [...this.cookies].map(([name, value]) => `${name}=${value}`);
    }

    async get(path: string, more: OutgoingHttpHeaders = {}): Promise<Answer> {
      return this.send({ ':path': path, accept: 'text/html', 'sec-fetch-mode': 'navigate', ...more });
    }

    async post(path: string, more: OutgoingHttpHeaders = {}): Promise<Answer> {
      return this.send({ ':path': path, ':method': 'POST', origin, ...more }, 'a=b');
    }

    async logIn(): Promise<Answer> {
      return this.get(answerTo((await this.get('/private')).location).slice(origin.length));
    }

    async send(headers: OutgoingHttpHeaders, body?: string): Promise<Answer> {
      const answer = await send({ cookie: this.crumbs, ...headers }, body);
      for (const line of answer.set) {
        const [name, value] = (line.split(';', 1)[0] as string).split('=') as [string, string];
        if (line.includes('Max-Age=0')) this.cookies.delete(name);
        else this.cookies.set(name, value);
      }
      return answer;
    }
  }

  it('logs a user in without a detour, and out', async () => {
    serve();
    const browser = new Browser();
    const begun = await browser.get('/private?x=1');
    expect([begun.status, begun.location.startsWith(wls.profile.authUrl)]).toEqual([303, true]);
    expect(names(begun)).toEqual(['webauth-login']);
    const back = await browser.get(answerTo(begun.location).slice(origin.length));
    expect([back.status, back.location]).toEqual([303, `${origin}/private?x=1`]);
    const page = await browser.get('/private?x=1');
    expect([page.status, page.text]).toEqual([200, 'for test0001']);
    expect([page.headers['cache-control'], page.headers.vary]).toEqual(['private, no-cache', 'Cookie']);
    expect((await browser.get('/webauth/logout')).text).toContain('test0001');
    const old = browser.crumbs;
    const out = await browser.post('/webauth/logout');
    expect([out.status, out.location]).toEqual([303, `${origin}/webauth/logout`]);
    expect((await browser.get('/webauth/logout')).text).toContain('logged out');
    const again = await send({ ':path': '/private', accept: 'application/json', cookie: old });
    expect([again.status, codeOf(again)]).toEqual([401, 'ERR_SESSION_REVOKED']);
  });

  it('sends a request for another host to the login route of its own, once', async () => {
    serve();
    const asked = { ':path': '/private', accept: 'text/html', ':authority': 'other.example' };
    const detour = await send(asked);
    expect(detour.location).toBe(`${origin}/webauth/login?return=%2Fprivate&moved=%2F`);
    const login = await send({ ...asked, ':path': detour.location.slice(origin.length) });
    expect(login.location.startsWith(wls.profile.authUrl)).toBe(true);
    // `:authority` counts; `host` does where that is missing, as behind a gateway from HTTP/1.1 (RFC 9113, 8.3.1).
    const both = await send({ ...asked, host: new URL(origin).host });
    expect(both.location).toBe(detour.location);
    const stream = client.request({ ':path': '/private', accept: 'text/html', host: new URL(origin).host });
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders];
    stream.resume();
    await once(stream, 'close');
    expect(headers.location?.startsWith(wls.profile.authUrl)).toBe(true);
  });

  it.each<[string, OutgoingHttpHeaders, number, string]>([
    ['no Origin', { origin: undefined }, 403, 'no Origin'],
    ['a foreign Origin', { origin: 'https://evil.cam.ac.uk' }, 403, 'another Origin'],
    ['the Origin null', { origin: 'null' }, 403, 'another Origin'],
    [
      'two Origins',
      { origin: ['https://evil.cam.ac.uk', 'https://evil.cam.ac.uk'] as never },
      403,
      'more than one Origin',
    ],
  ])('rejects a POST with %s, at pages, tickets and logout', async (_name, headers, status, message) => {
    serve();
    const browser = new Browser();
    await browser.logIn();
    for (const path of ['/private', '/webauth/ticket', '/webauth/logout']) {
      const answer = await browser.post(path, { accept: 'application/json', ...headers });
      expect([path, answer.status, codeOf(answer)]).toEqual([path, status, 'ERR_ORIGIN_REFUSED']);
      expect(answer.text).toContain(message);
    }
    expect((await browser.get('/private')).status).toBe(200);
  });

  it('accepts a POST of its own page, also with the Origin null under a strict referrer policy', async () => {
    serve();
    const browser = new Browser();
    await browser.logIn();
    expect((await browser.post('/private')).text).toBe('for test0001');
    const strict = await browser.post('/private', { origin: 'null', 'sec-fetch-site': 'same-origin' });
    expect(strict.text).toBe('for test0001');
  });

  it('issues tickets, and takes API tokens', async () => {
    serve(undefined, {}, { bearer: true });
    const browser = new Browser();
    await browser.logIn();
    const { ticket } = JSON.parse((await browser.post('/webauth/ticket')).text);
    expect((await waa.takeTicket(ticket)).principal).toBe('test0001');
    const { token } = await waa.tokens.create({ principal: 'abc12', ptags: ['current'], name: 'test', ttl: 60 });
    const headers = { ':path': '/private', authorization: `Bearer ${token}` };
    expect((await send(headers)).text).toBe('for abc12');
    expect((await send({ ...headers, ':method': 'POST' }, 'x')).text).toBe('for abc12');
    const wrong = await send({ ...headers, authorization: 'Bearer wrong' });
    expect([wrong.status, wrong.headers['www-authenticate']]).toEqual([401, 'Bearer error="invalid_token"']);
  });

  it('rejects a session cookie that is there twice, in fields of its own or in one', async () => {
    serve();
    const browser = new Browser();
    await browser.logIn();
    const own = browser.crumbs.find((one) => one.includes('-session=')) as string;
    const planted = `${own.split('=')[0]}=planted`;
    for (const cookie of [[planted, own], [own, planted], [`a=1; ${planted}`, own], [`${own}; ${planted}`]]) {
      const answer = await send({ ':path': '/private', accept: 'application/json', cookie });
      expect([answer.status, codeOf(answer)]).toEqual([401, 'ERR_SESSION_INVALID']);
    }
    const among = await send({ ':path': '/private', cookie: ['a=1', own, 'b=2; c=3'] });
    expect(among.text).toBe('for test0001');
  });

  it('answers HEAD, API clients, wrong methods and users who are not authorized', async () => {
    serve(undefined, {}, { principals: ['abc12'] });
    const browser = new Browser();
    const data = await send({ ':path': '/private', accept: 'application/json' });
    expect([data.status, codeOf(data)]).toEqual([401, 'ERR_SESSION_MISSING']);
    expect([data.headers['www-authenticate'], data.headers['cache-control']]).toEqual([
      `Ucam-WebAuth realm="${origin}"`,
      'no-store',
    ]);
    const head = await browser.send({ ':path': '/private', ':method': 'HEAD', accept: 'text/html' });
    expect([head.status, head.text, head.location.startsWith(wls.profile.authUrl)]).toEqual([303, '', true]);
    await browser.logIn();
    const page = await browser.get('/private');
    expect([page.status, page.text.includes('ERR_PRINCIPAL_REFUSED')]).toEqual([403, true]);
    const posted = await send({ ':path': '/private', ':method': 'POST', origin, accept: 'text/html' }, 'x=1');
    expect([posted.status, posted.text.includes('What you sent was not saved')]).toEqual([401, true]);
    const method = await browser.send({ ':path': '/webauth/ticket' });
    expect([method.status, method.headers['allow']]).toEqual([405, 'POST']);
  });

  it('answers a login response at another path with an error', async () => {
    serve();
    const browser = new Browser();
    const { location } = await browser.get('/private');
    const answer = await browser.get(`/callback${new URL(answerTo(location)).search}`);
    expect([answer.status, answer.text.includes('ERR_PATH_MISMATCH')]).toEqual([400, true]);
  });

  const list = ['a=1', 'b=2'];
  it.each<[string, Handler]>([
    ['an object', (response) => void response.writeHead(200, { 'Set-Cookie': list, 'X-A': '1' }).end('in')],
    [
      'an object with names that differ in case',
      (response) =>
        void response.writeHead(200, { 'Set-Cookie': 'a=1', 'set-cookie': 'b=2', 'X-A': '1' } as never).end('in'),
    ],
    [
      'a flat list',
      (response) =>
        void response.writeHead(200, ['Set-Cookie', 'a=1', 'X-A', '1', 'Set-Cookie', 'b=2'] as never).end('in'),
    ],
    [
      'pairs',
      (response) =>
        void response
          .writeHead(200, [
            ['Set-Cookie', 'a=1'],
            ['X-A', '1'],
            ['Set-Cookie', 'b=2'],
          ] as never)
          .end('in'),
    ],
    [
      'nothing, after setHeader',
      (response) => {
        response.setHeader('Set-Cookie', list);
        response.setHeader('X-A', '1');
        response.write('i');
        response.end('n');
      },
    ],
    [
      'flushHeaders',
      (response) => {
        response.setHeader('Set-Cookie', list);
        response.setHeader('X-A', '1');
        // The types lack it.
        (response as unknown as ServerResponse).flushHeaders();
        response.end('in');
      },
    ],
    [
      'early hints and an object',
      (response) => {
        response.writeEarlyHints({ link: '</a.css>; rel=preload' });
        response.writeHead(200, { 'Set-Cookie': list, 'X-A': '1' }).end('in');
      },
    ],
  ])('sends the renewed cookie beside the headers that writeHead() is given: %s', async (_name, handler) => {
    serve(handler);
    const browser = new Browser();
    await browser.logIn();
    clock.pass(301);
    const renewed = await browser.get('/private');
    expect([renewed.text, names(renewed), renewed.headers['x-a']]).toEqual(['in', ['a', 'b', 'webauth-session'], '1']);
    const next = await browser.get('/private');
    expect([next.text, names(next), next.headers['x-a']]).toEqual(['in', ['a', 'b'], '1']);
  });

  it('sends the renewed cookie on the answer of an error handler, where Node takes no head', async () => {
    serve((response) => {
      try {
        response.writeHead(200, { 'X-A': '1', 'X-B': undefined });
      } catch (error) {
        response.writeHead(500, { 'Set-Cookie': 'a=1' }).end((error as { code: string }).code);
      }
    });
    const browser = new Browser();
    await browser.logIn();
    clock.pass(301);
    const renewed = await browser.get('/private');
    expect([renewed.status, renewed.text]).toEqual([500, 'ERR_HTTP2_INVALID_HEADER_VALUE']);
    expect([names(renewed), renewed.headers['x-a']]).toEqual([['a', 'webauth-session'], undefined]);
  });

  it('survives a client that resets its stream before the answer', async () => {
    const held = new Promise<Http2ServerResponse>((resolve) => serve(resolve));
    const browser = new Browser();
    await browser.logIn();
    clock.pass(301);
    const stream = client.request({ ':path': '/private', ':authority': new URL(origin).host, cookie: browser.crumbs });
    const response = await held;
    const reset = once(response.stream, 'close');
    stream.close(constants.NGHTTP2_CANCEL);
    await reset;
    response.writeHead(200, ['Set-Cookie', 'a=1'] as never).end('in');
    expect((await send({ ':path': '/private', accept: 'application/json' })).status).toBe(401);
  });

  it('leaves a WebSocket over HTTP/2 to Node, which answers 405', async () => {
    serve();
    const browser = new Browser();
    await browser.logIn();
    const handshake = { ':path': '/live', ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': scheme, origin };
    expect((await browser.send(handshake)).status).toBe(405);
    expect((await browser.get('/private')).status).toBe(200);
  });

  it('rejects a WebSocket over HTTP/2 that the application has its guard decide', async () => {
    const auth = serve();
    const guard = auth.require();
    server.on('connect', (request: Http2ServerRequest, response: Http2ServerResponse) => {
      const fail = (error: unknown) => auth.failurePage(error, request, response, () => response.stream.destroy());
      auth(request, response, () => guard(request, response, (error) => (error ? fail(error) : response.end('in'))));
    });
    const handshake = { ':path': '/live', ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': scheme };
    const browser = new Browser();
    expect((await browser.send({ ...handshake, origin })).status).toBe(401);
    await browser.logIn();
    expect((await browser.send({ ...handshake, origin: 'https://evil.cam.ac.uk' })).status).toBe(403);
    expect((await browser.send({ ...handshake, origin })).text).toBe('in');
  });

  if (scheme === 'https') {
    it('serves HTTP/1.1 and its WebSockets beside', async () => {
      serve();
      const wss = new WebSocketServer({ noServer: true });
      const stop = acceptUpgrades(server, wss, waa, { path: '/live' });
      const browser = new Browser();
      await browser.logIn();
      const cookie = browser.crumbs.join('; ');
      const request = http1Request({
        ...{ host: '127.0.0.1', port, path: '/private', ca: certificate.cert, servername: 'localhost', agent: false },
        headers: { host: new URL(origin).host, cookie },
      });
      request.end();
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      let text = '';
      for await (const chunk of response) text += chunk;
      expect([response.httpVersion, text]).toEqual(['1.1', 'for test0001']);
      const accepted = once(wss, 'connection');
      const socket = new WebSocket(`wss://127.0.0.1:${port}/live`, {
        ...{ ca: certificate.cert, servername: 'localhost', origin, headers: { cookie } },
      });
      const [, { auth }] = (await accepted) as [WebSocket, IncomingMessage];
      expect(auth?.principal).toBe('test0001');
      const closed = once(socket, 'close');
      for (const one of wss.clients) one.terminate();
      await closed;
      stop();
    });
  }
});
