import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import expressSession from 'express-session';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Config } from '../src/config.js';
import { type Webauth, webauth } from '../src/express/index.js';
import { createWAA, type WAA } from '../src/waa.js';
import { type Answer, Browser, clock, secret, wls } from './site.js';

type Handler = (response: ServerResponse, request: IncomingMessage) => void;
type Head = Parameters<ServerResponse['writeHead']>[1];

let server: Server;
let address: string;
let waa: WAA;
let auth: Webauth;

beforeEach(async () => {
  clock.reset();
  server = createServer();
  server.keepAliveTimeout = 0;
  await once(server.listen(0, '127.0.0.1'), 'listening');
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  server.close();
  server.closeAllConnections();
  await waa.close();
});

function start(config: Partial<Config> = {}): void {
  waa = createWAA({ baseUrl: address, secret, wls: wls.profile, now: clock.now, inactiveTimeout: 600, ...config });
  auth = webauth(waa);
}

/** Serves a handler behind the guard, without a framework: no header is set but by this library. */
function serve(handler: Handler): void {
  start();
  const guard = auth.require();
  server.on('request', (request, response) => {
    const fail = (error: unknown) => auth.failurePage(error, request, response, () => response.destroy());
    auth(request, response, (error) => {
      if (error) return fail(error);
      guard(request, response, (refused) => (refused ? fail(refused) : handler(response, request)));
    });
  });
}

/** A browser with a session that the next request renews. */
async function dueBrowser(): Promise<Browser> {
  const browser = new Browser(address);
  expect((await browser.logIn()).status).toBe(303);
  clock.pass(301);
  return browser;
}

const names = (answer: Answer) => answer.set.map((line) => line.split('=')[0]);
const links = (answer: Answer) => answer.headers.get('link');
const everything = ['a', 'b', 'webauth-session'];

/** Ways to give two cookies and two links to `writeHead`, with a function that sets them before it where needed. */
const forms: Record<string, Handler> = {
  'an object with lists': (response) =>
    void response.writeHead(200, { 'Set-Cookie': ['a=1', 'b=2'], Link: ['<x>', '<y>'] }).end('in'),
  'a reason and an object with lists': (response) =>
    void response.writeHead(200, 'Fine', { 'set-cookie': ['a=1', 'b=2'], link: ['<x>', '<y>'] }).end('in'),
  'an object with names that differ in case': (response) =>
    void response
      .writeHead(200, { 'Set-Cookie': 'a=1', 'set-cookie': 'b=2', Link: '<x>', LINK: '<y>' } as Head)
      .end('in'),
  'undefined and an object': (response) =>
    void response.writeHead(200, undefined, { 'SET-COOKIE': ['a=1', 'b=2'], Link: ['<x>', '<y>'] }).end('in'),
  'an object without a prototype': (response) =>
    void response
      .writeHead(
        200,
        Object.assign(Object.create(null), { 'Set-Cookie': ['a=1', 'b=2'], Link: ['<x>', '<y>'] }) as Head,
      )
      .end('in'),
  'a flat list': (response) =>
    void response.writeHead(200, ['Set-Cookie', 'a=1', 'Link', '<x>', 'set-cookie', 'b=2', 'Link', '<y>']).end('in'),
  'a reason and a flat list': (response) =>
    void response
      .writeHead(200, 'Fine', ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Link', '<x>', 'Link', '<y>'])
      .end('in'),
  'a flat list with lists': (response) =>
    void response.writeHead(200, ['Set-Cookie', ['a=1', 'b=2'], 'Link', ['<x>', '<y>']]).end('in'),
  pairs: (response) =>
    void response
      .writeHead(200, [
        ['Set-Cookie', 'a=1'],
        ['Set-Cookie', 'b=2'],
        ['Link', '<x>'],
        ['link', '<y>'],
      ] as unknown as Head)
      .end('in'),
  'a reason and pairs with lists': (response) =>
    void response
      .writeHead(200, 'Fine', [
        ['Set-Cookie', ['a=1', 'b=2']],
        ['Link', ['<x>', '<y>']],
      ] as unknown as Head)
      .end('in'),
  'a status alone, after setHeader': (response) => {
    response.setHeader('Set-Cookie', ['a=1', 'b=2']).setHeader('Link', ['<x>', '<y>']);
    response.writeHead(200).end('in');
  },
  'a flat list, after setHeader of another name': (response) => {
    response.setHeader('X-Before', 'yes');
    response.writeHead(200, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'Link', '<x>', 'Link', '<y>']).end('in');
  },
  'nothing, after appendHeader': (response) => {
    response.appendHeader('Set-Cookie', 'a=1').appendHeader('set-cookie', 'b=2').appendHeader('Link', ['<x>', '<y>']);
    response.end('in');
  },
  'nothing, after setHeaders': (response) => {
    const headers = new Headers({ Link: '<x>, <y>' });
    for (const cookie of ['a=1', 'b=2']) headers.append('Set-Cookie', cookie);
    response.setHeaders(headers);
    response.write('i');
    response.end('n');
  },
  'nothing, after setHeaders with a Map': (response) => {
    response
      .setHeaders(
        new Map([
          ['Set-Cookie', ['a=1', 'b=2']],
          ['Link', ['<x>', '<y>']],
        ]) as never,
      )
      .end('in');
  },
  flushHeaders: (response) => {
    response.setHeader('Set-Cookie', ['a=1', 'b=2']).setHeader('Link', ['<x>', '<y>']);
    response.flushHeaders();
    response.end('in');
  },
  'early hints and an object': (response) => {
    response.writeEarlyHints({ link: '<early>; rel=preload' });
    response.writeProcessing();
    response.writeHead(200, { 'Set-Cookie': ['a=1', 'b=2'], Link: ['<x>', '<y>'] }).end('in');
  },
};

describe('writeHead() behind a guard', () => {
  it.each(Object.entries(forms))(
    'sends every header and the renewed cookie when it is given %s',
    async (_, handler) => {
      serve(handler);
      const browser = await dueBrowser();
      const renewed = await browser.get('/private');
      expect([renewed.status, renewed.text]).toEqual([200, 'in']);
      expect([names(renewed), links(renewed)]).toEqual([everything, '<x>, <y>']);
      // The browser has its new session, and the next answer sets none: there, too, each header of the application arrives.
      const next = await browser.get('/private');
      expect([names(next), links(next)]).toEqual([['a', 'b'], '<x>, <y>']);
      expect(next.headers.get('cache-control')).toBe('private, no-cache');
      expect(next.headers.get('vary')).toBe('Cookie');
    },
  );

  it.each(Object.entries(forms))('sends the same to HEAD when it is given %s', async (_, handler) => {
    serve(handler);
    const browser = await dueBrowser();
    const renewed = await browser.send('HEAD', '/private', { accept: 'text/html' });
    expect([renewed.text, names(renewed), links(renewed)]).toEqual(['', everything, '<x>, <y>']);
  });

  it('sends the renewed cookie with 304 and with 204', async () => {
    for (const status of [304, 204]) {
      server.removeAllListeners('request');
      serve((response) => void response.writeHead(status, ['ETag', '"1"', 'Set-Cookie', 'a=1']).end());
      const renewed = await (await dueBrowser()).get('/private');
      expect([renewed.status, names(renewed), renewed.headers.get('etag')]).toEqual([
        status,
        ['a', 'webauth-session'],
        '"1"',
      ]);
    }
  });

  it.each<[string, unknown]>([
    ['a Map', new Map([['X-Lost', 'yes']])],
    ['Headers', new Headers({ 'X-Lost': 'yes' })],
    ['null', null],
    ['an empty list', []],
  ])('sends the renewed cookie when it is given %s, in which Node finds no header', async (_, given) => {
    serve((response) => void response.writeHead(200, given as Head).end('in'));
    const renewed = await (await dueBrowser()).get('/private');
    expect([renewed.text, names(renewed), renewed.headers.get('x-lost')]).toEqual(['in', ['webauth-session'], null]);
  });

  it('sends one line for a name that an object has in two spellings beside a header of the application', async () => {
    // As a proxy does that spreads the headers of its upstream, and relies on the last one.
    serve((response) => {
      response.setHeader('X-Powered-By', 'tests');
      response.writeHead(200, { 'content-length': '9', 'Content-Length': '2' } as Head).end('in');
    });
    const renewed = await (await dueBrowser()).get('/private');
    expect([renewed.headers.get('content-length'), renewed.text]).toEqual(['2', 'in']);
  });

  const wrong: [string, (response: ServerResponse) => void, string][] = [
    [
      'undefined as a value',
      (response) => response.writeHead(200, { 'X-A': '1', 'X-B': undefined }),
      'ERR_HTTP_INVALID_HEADER_VALUE',
    ],
    ['a line break in a value', (response) => response.writeHead(200, ['X-A', '1', 'X-B', 'a\nb']), 'ERR_INVALID_CHAR'],
    ['a blank in a name', (response) => response.writeHead(200, { 'X-A': '1', 'X B': '1' }), 'ERR_INVALID_HTTP_TOKEN'],
    ['a list of odd length', (response) => response.writeHead(200, ['X-A', '1', 'X-B']), 'ERR_INVALID_ARG_VALUE'],
    ['a status of four digits', (response) => response.writeHead(1000, { 'X-A': '1' }), 'ERR_HTTP_INVALID_STATUS_CODE'],
  ];
  it.each(wrong)(
    'throws as Node does for %s, and sets the cookie on the answer that says so',
    async (_, write, code) => {
      serve((response) => {
        try {
          write(response);
        } catch (error) {
          const text = (error as { code: string }).code;
          response.writeHead(500, { 'Set-Cookie': 'a=1', 'Content-Length': text.length }).end(text);
        }
      });
      const renewed = await (await dueBrowser()).get('/private');
      expect([renewed.status, renewed.text, names(renewed)]).toEqual([500, code, ['a', 'webauth-session']]);
      expect(renewed.headers.get('x-a')).toBeNull();
    },
  );

  it('throws when it is called twice, and leaves the first head as it was', async () => {
    let code: string | undefined;
    serve((response) => {
      response.writeHead(200, { 'Set-Cookie': 'a=1' });
      try {
        response.writeHead(201, { 'Set-Cookie': 'b=2' });
      } catch (error) {
        ({ code } = error as { code: string });
      }
      response.end('in');
    });
    const renewed = await (await dueBrowser()).get('/private');
    expect([renewed.status, names(renewed), code]).toEqual([200, ['a', 'webauth-session'], 'ERR_HTTP_HEADERS_SENT']);
  });
});

/** Middleware that, as `on-headers` does for compression and the like, does something when a head is written. */
function onHead(listener: (response: ServerResponse) => void): express.RequestHandler {
  return (_, response, next) => {
    const { writeHead } = response;
    let isDone = false;
    response.writeHead = (status: number, ...rest: unknown[]) => {
      const given = rest.find((one) => typeof one === 'object') as Record<string, string> | undefined;
      for (const [name, value] of Object.entries(given ?? {})) response.setHeader(name, value);
      if (!isDone) listener(response);
      isDone = true;
      return writeHead.call(response, status);
    };
    next();
  };
}

describe('webauth() beside middleware that replaces writeHead()', () => {
  const before = onHead((response) => response.appendHeader('Set-Cookie', 'before=1'));
  const after = onHead((response) => response.appendHeader('Set-Cookie', 'after=1'));
  const compress: express.RequestHandler = (_, response, next) => {
    const { end } = response;
    response.end = ((...given: Parameters<typeof end>) => {
      if (!response.headersSent) response.writeHead(response.statusCode);
      return end.apply(response, given);
    }) as typeof end;
    next();
  };
  const sessions = () =>
    expressSession({ secret: 'x', resave: true, saveUninitialized: true, rolling: true, name: 'other' });

  const orders: [string, (guard: express.RequestHandler[]) => express.RequestHandler[], string[]][] = [
    ['before it', (ours) => [before, ...ours], ['before']],
    ['after it', (ours) => [...ours, after], ['after']],
    ['on both sides', (ours) => [before, ...ours, after, compress], ['before', 'after']],
    ['express-session before it', (ours) => [sessions(), ...ours], ['other']],
    ['express-session after it', (ours) => [...ours, sessions(), compress], ['other']],
  ];
  it.each(orders)('sets the renewed cookie, those of the handler and theirs: %s', async (_, order, theirs) => {
    start();
    const app = express();
    app.use(order([auth as express.RequestHandler, auth.require() as express.RequestHandler]));
    app.get('/private', (_request, response) => {
      response.cookie('c', '3');
      response.writeHead(200, { 'Set-Cookie': ['a=1', 'b=2'], 'Content-Length': 2 }).end('in');
    });
    app.use(auth.failurePage);
    server.on('request', app);
    const renewed = await (await dueBrowser()).get('/private');
    expect(renewed.text).toBe('in');
    expect(names(renewed).sort()).toEqual([...everything, ...theirs].sort());
  });

  it('sets it when an error handler writes the head, once', async () => {
    start();
    const app = express();
    app.use(auth, auth.require());
    app.get('/private', (_request, response) => {
      response.writeHead(200, { 'X-Late': 'a\nb' });
    });
    app.use(((_error, _request, response, _next) => {
      response.writeHead(500, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']).end();
    }) as express.ErrorRequestHandler);
    server.on('request', app);
    const renewed = await (await dueBrowser()).get('/private');
    expect([renewed.status, names(renewed)]).toEqual([500, everything]);
  });
});

describe('webauth() before an error handler that gives Set-Cookie to writeHead()', () => {
  it('sets the cookies that remove a session, although the logout elsewhere fails', async () => {
    start();
    server.on('request', (request, response) =>
      auth(request, response, (error) => {
        const status = (error as { status?: number } | undefined)?.status ?? 404;
        response.writeHead(status, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']).end();
      }),
    );
    const browser = new Browser(address);
    browser.plant('webauth-session', 'broken');
    const answer = await browser.post('/webauth/logout?everywhere=yes');
    expect([answer.status, names(answer)]).toEqual([401, ['a', 'b', 'webauth-session', 'webauth-done']]);
  });

  it('lets each line of the handler arrive where a guard rejects an API client', async () => {
    start();
    const guard = auth.require({ bearer: true });
    server.on('request', (request, response) =>
      auth(request, response, () =>
        guard(request, response, () => {
          response.writeHead(401, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']).end();
        }),
      ),
    );
    const answer = await new Browser(address).fetch('/private');
    expect([answer.status, names(answer)]).toEqual([401, ['a', 'b']]);
    expect([answer.headers.get('www-authenticate'), answer.headers.get('cache-control')]).toEqual([
      'Bearer',
      'no-store',
    ]);
  });

  it('sets the cookie of a login beside headers that address shared caches', async () => {
    start();
    server.on('request', (request, response) => {
      response.setHeader('CDN-Cache-Control', 'max-age=60');
      auth(request, response, () => response.writeHead(404).end());
    });
    const answer = await new Browser(address).get('/webauth/login?return=/');
    expect([answer.status, names(answer)]).toEqual([303, ['webauth-login']]);
  });
});

describe('webauth() before a handler with lists that all its answers share', () => {
  const cookies = ['a=1', 'b=2'];
  const accept = ['Accept'];
  const challenges = ['Basic'];

  it.each<[string, Handler]>([
    [
      'setHeader',
      (response) => void response.setHeader('Set-Cookie', cookies).setHeader('Vary', accept).writeHead(200).end('in'),
    ],
    ['an object', (response) => void response.writeHead(200, { 'Set-Cookie': cookies, Vary: accept }).end('in')],
    ['a flat list', (response) => void response.writeHead(200, ['Set-Cookie', cookies, 'Vary', accept]).end('in')],
  ])('sends the cookie of a user to no other user: %s', async (_, handler) => {
    serve(handler);
    expect(names(await (await dueBrowser()).get('/private'))).toEqual(everything);
    const other = new Browser(address);
    await other.logIn();
    expect(names(await other.get('/private'))).toEqual(['a', 'b']);
    expect([cookies, accept]).toEqual([['a=1', 'b=2'], ['Accept']]);
  });

  it('leaves lists alone that were set before it', async () => {
    start();
    const guard = auth.require();
    server.on('request', (request, response) => {
      response.setHeader('Set-Cookie', cookies).setHeader('Vary', accept).setHeader('WWW-Authenticate', challenges);
      const fail = (error: unknown) => auth.failurePage(error, request, response, () => response.destroy());
      auth(request, response, (error) => (error ? fail(error) : guard(request, response, fail)));
    });
    const browser = new Browser(address);
    expect(names(await browser.get('/private'))).toEqual(['a', 'b', 'webauth-login']);
    const { headers } = await browser.fetch('/private');
    expect(headers.get('www-authenticate')).toBe(`Basic, Ucam-WebAuth realm="${address}"`);
    expect([cookies, accept, challenges]).toEqual([['a=1', 'b=2'], ['Accept'], ['Basic']]);
  });
});

describe('webauth() before the Node server of Hono', () => {
  /** As `@hono/node-server` writes the head of a streamed answer: an object of its headers, flushed at once. */
  it('sets the renewed cookie beside those of a streamed answer', async () => {
    serve((response) => {
      response.writeHead(200, { 'content-type': 'text/plain; charset=UTF-8', 'set-cookie': ['a=1', 'b=2'] });
      response.flushHeaders();
      response.end('in');
    });
    const renewed = await (await dueBrowser()).get('/private');
    expect([renewed.text, names(renewed)]).toEqual(['in', everything]);
  });
});
