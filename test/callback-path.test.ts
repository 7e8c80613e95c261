import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Config } from '../src/config.js';
import { webauth } from '../src/express/index.js';
import { createWAA } from '../src/waa.js';
import { findPrograms, freePorts, Program } from './processes.js';
import { type Answer, answerTo, Browser, clock, frameworks, type Routes, Site, secret, wls } from './site.js';

const routes: Routes = (app, auth) => void app.use(auth.require(), (_request, response) => void response.send('in'));

/** The events of logins that came back to another path. */
function misdirections({ events }: Site) {
  return events.filter(({ code }) => code === 'ERR_PATH_MISMATCH').map(({ level, message }) => ({ level, message }));
}

function expectMisdirected(answer: Answer, arrived: string, callback: string): void {
  expect(answer.status).toBe(400);
  expect(answer.text).toContain('ERR_PATH_MISMATCH');
  const text = answer.text.replaceAll('&#34;', '"');
  expect(text).toContain(`arrived at the path "${arrived}" instead of "${callback}"`);
  expect([answer.headers.get('cache-control'), answer.set]).toEqual(['no-store', []]);
}

describe.each(frameworks)('%s: webauth()', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
  });

  /** Starts a login and returns the query with which it would come back. */
  async function begin(browser: Browser, path = '/private?x=1'): Promise<string> {
    const { location } = await browser.get(path);
    return new URL(answerTo(location)).search;
  }

  it.each([
    '/',
    '/callback',
    '/webauth/callback/',
    '//webauth/callback',
    '/webauth//callback',
    '/WebAuth/Callback',
    '/webauth/%63allback',
    '/webauth%2Fcallback',
    '/webauth/callback;v=1',
    '/app/webauth/callback',
    '/webauth/login',
    '/webauth/logout',
  ])('answers a login response at %s with an error that names both paths', async (path) => {
    const browser = new Browser(site.address);
    const answer = await browser.get(path + (await begin(browser)));
    expectMisdirected(answer, path, '/webauth/callback');
    expect(misdirections(site)).toEqual([{ level: 'warn', message: expect.stringContaining(`"${path}"`) }]);
    // The page leads to the login that was begun, and not to the address of the error.
    expect(answer.text).toContain('action="/webauth/login?return=%2Fprivate%3Fx%3D1"');
  });

  it('answers API clients with JSON, and HEAD with the status', async () => {
    const browser = new Browser(site.address);
    const query = await begin(browser);
    const { status, text } = await browser.fetch(`/callback${query}`);
    expect([status, JSON.parse(text).error.code]).toEqual([400, 'ERR_PATH_MISMATCH']);
    expect((await browser.send('HEAD', `/callback${query}`, { accept: 'text/html' })).status).toBe(400);
  });

  it('answers so with the failures of the login service, and to a user who is logged in', async () => {
    const browser = new Browser(site.address);
    await browser.logIn();
    const { location } = await new Browser(site.address).get('/private');
    const { search } = new URL(
      answerTo(location, { status: 410, principal: '', ptags: [], auth: '', life: undefined }),
    );
    expectMisdirected(await browser.get(`/callback${search}`), '/callback', '/webauth/callback');
  });

  it('logs it once a minute', async () => {
    const browser = new Browser(site.address);
    const query = await begin(browser);
    for (const seconds of [0, 30, 29]) {
      clock.pass(seconds);
      expect((await browser.get(`/callback${query}`)).status).toBe(400);
    }
    expect(misdirections(site)).toHaveLength(1);
    clock.pass(1);
    await browser.get(`/callback${query}`);
    expect(misdirections(site)).toHaveLength(2);
  });

  it('shows at most a hundred characters of the path', async () => {
    const browser = new Browser(site.address);
    await browser.get(`${'/abcdefghi'.repeat(500)}${await begin(browser)}`);
    expect(misdirections(site)[0]?.message).toContain(`"${'/abcdefghi'.repeat(10)}"`);
  });

  it('leaves long segments out of the log, which may be secrets of the application', async () => {
    const browser = new Browser(site.address);
    await browser.get(`/reset/${'a'.repeat(31)}/form${await begin(browser)}`);
    expect(misdirections(site)[0]?.message).toContain('"/reset/…/form"');
  });

  it.each<[string, Partial<Config>]>([
    ['of another secret', { secret: 'b2'.repeat(32) }],
    ['with another cookieName', { cookieName: 'other' }],
    ['below another path', { baseUrl: 'http://127.0.0.1:1/other' }],
  ])('passes on the login response of an application %s', async (_name, config) => {
    const other = createWAA({ baseUrl: site.address, secret, wls: wls.profile, now: clock.now, ...config });
    onTestFinished(() => other.close());
    const { location } = other.startLogin('/');
    const { search } = new URL(answerTo(location));
    const browser = new Browser(site.address);
    await browser.logIn();
    const { status, text } = await browser.get(`/their/callback${search}`);
    expect([status, text, misdirections(site)]).toEqual([200, 'in', []]);
  });

  it('passes on what is no login response, one that is there twice, and one in the history of a browser', async () => {
    const browser = new Browser(site.address);
    await browser.logIn();
    const query = await begin(new Browser(site.address));
    const others = ['?WLS-Response', '?WLS-Response=', '?WLS-Response=3!200', '?WLS-Response=%zz', '?x=WLS-Response'];
    for (const other of [...others, `${query}&${query.slice(1)}`]) {
      expect([other, (await browser.get(`/page${other}`)).text]).toEqual([other, 'in']);
    }
    expect((await browser.send('POST', `/page${query}`, { origin: site.address })).text).toBe('in');
    clock.pass(1801);
    expect((await browser.get(`/page${query}`)).text).toBe('in');
    expect(misdirections(site)).toEqual([]);
  });

  it('names both paths where processes of one application have different callback paths', async () => {
    const other = createWAA({
      ...{ baseUrl: site.address, secret, wls: wls.profile, now: clock.now },
      callbackPath: '/login/raven',
    });
    onTestFinished(() => other.close());
    const { location } = other.startLogin('/private');
    const answer = await new Browser(site.address).get(answerTo(location));
    expectMisdirected(answer, '/login/raven', '/webauth/callback');
  });

  it('sees the whole path where it is mounted below one', async () => {
    site.waa = createWAA({ baseUrl: `${site.address}/app`, secret, wls: wls.profile, now: clock.now });
    const mounted = webauth(site.waa);
    site.run((app) => {
      app.use('/app', mounted, mounted.require(), (_request, response) => void response.send('in'));
      app.use('/app', mounted.failurePage);
    });
    const browser = new Browser(site.address);
    const { answer } = await browser.arrive('/app/private');
    expect(answer.text).toBe('in');
    const { search } = new URL(answerTo((await new Browser(site.address).get('/app/private')).location));
    expectMisdirected(await browser.get(`/app/callback${search}`), '/app/callback', '/app/webauth/callback');
    await site.waa.close();
  });
});

describe.skipIf(!findPrograms(['nginx']))('webauth() behind nginx', () => {
  const site = new Site(frameworks[0]?.[1] as never);
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-callback-'));
    await site.listen();
  });
  afterAll(() => {
    site.close();
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => clock.reset());

  /** @param server lines of nginx's server; `UPSTREAM` stands for the address of the application. */
  async function start(path: string, server: string, config: Partial<Config> = {}, ours = routes): Promise<Browser> {
    const [port] = (await freePorts(1)) as [number];
    const origin = `http://127.0.0.1:${port}`;
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    writeFileSync(
      join(folder, 'nginx.conf'),
      `pid ${folder}/nginx.pid;
      error_log stderr notice;
      events {}
      http {
        access_log off;
        ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
        proxy_set_header Host $http_host;
        server {
          listen 127.0.0.1:${port};
          ${server.replaceAll('UPSTREAM', site.address)}
        }
      }`,
    );
    const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;'];
    const nginx = new Program(args, {}, 'nginx');
    // Killed, it would leave its worker behind.
    onTestFinished(async () => void (await nginx.stop()));
    await nginx.printed(/start worker process /);
    site.serve(ours, { baseUrl: origin + path, ...config });
    return new Browser(origin);
  }

  it.each([
    ['strips the path', '/app', 'location /app/ { proxy_pass UPSTREAM/; }', '/webauth/callback'],
    ['strips part of the path', '/a/b', 'location /a/ { proxy_pass UPSTREAM/; }', '/b/webauth/callback'],
    ['adds a path', '', 'location / { proxy_pass UPSTREAM/node/; }', '/node/webauth/callback'],
    [
      'adds a slash at the end',
      '',
      'location / { rewrite ^(.+[^/])$ $1/ break; proxy_pass UPSTREAM; }',
      '/webauth/callback/',
    ],
    [
      'redirects to a slash at the end',
      '',
      'location ~ [^/]$ { return 301 $uri/$is_args$args; } location / { proxy_pass UPSTREAM; }',
      '/webauth/callback/',
    ],
    ['doubles the first slash', '', 'location / { proxy_pass UPSTREAM//; }', '//webauth/callback'],
  ])('ends the login with an error where nginx %s', async (_, path, server, arrived) => {
    const browser = await start(path, server);
    // A user whom the login service lets in without a question.
    const { answer, trail } = await browser.arrive(`${path}/private/`);
    expectMisdirected(answer, arrived, `${path}/webauth/callback`);
    expect(trail.length).toBeLessThan(4);
    expect(misdirections(site)).toHaveLength(1);
  });

  it.each([
    ['passes paths on', '/app', 'location /app/ { proxy_pass UPSTREAM; }'],
    ['replaces the path by itself', '/app', 'location /app/ { proxy_pass UPSTREAM/app/; }'],
    ['merges slashes', '', 'merge_slashes on; location / { proxy_pass UPSTREAM; }'],
  ])('logs users in where nginx %s', async (_, path, server) => {
    const browser = await start(path, server);
    const { answer } = await browser.arrive(`${path}/private/`);
    expect([answer.status, answer.text, misdirections(site)]).toEqual([200, 'in', []]);
  });

  it.each([
    [
      'strips the path and names itself as the Host',
      '/app',
      'location /app/ { proxy_pass UPSTREAM/; }',
      '/webauth/login',
    ],
    [
      'adds a slash to paths and names another Host',
      '',
      'location / { rewrite ^(.+[^/])$ $1/ break; proxy_pass UPSTREAM; }',
      '/webauth/login/',
    ],
  ])('ends the way to the login with an error where nginx %s', async (_, path, server, arrived) => {
    const browser = await start(path, `proxy_set_header Host application; ${server}`);
    const { answer, trail } = await browser.arrive(`${path}/private/`);
    expectMisdirected(answer, arrived, `${path}/webauth/login`);
    expect(trail).toHaveLength(1);
    expect(answer.text).toContain(`action="${path}/webauth/login?return=`);
  });

  it('ends the way to the login with an error where nginx strips the path, and the application has other routes', async () => {
    const server = 'proxy_set_header Host application; location /app/ { proxy_pass UPSTREAM/; }';
    const browser = await start('/app', server, {}, (app, auth) => {
      app.get('/private', auth.require(), (_request, response) => void response.send('in'));
    });
    const { answer } = await browser.arrive('/app/private');
    expectMisdirected(answer, '/webauth/login', '/app/webauth/login');
    expect(answer.text).toContain('action="/app/webauth/login?return=%2Fprivate"');
  });

  it('leaves such a redirect of another application on the host alone', async () => {
    const browser = await start('/app', 'location / { proxy_pass UPSTREAM; }', {}, () => {});
    const { status } = await browser.get('/webauth/login?return=%2F&moved=%2F');
    expect([status, misdirections(site).length]).toEqual([404, 1]);
    expect((await browser.get('/webauth/login?return=%2F&moved=%2Fapp%2F')).status).toBe(400);
  });

  it.each([
    ['strips the path', '/app', 'location /app/ { proxy_pass UPSTREAM/; }', ''],
    ['strips part of the path', '/a/b', 'location /a/ { proxy_pass UPSTREAM/; }', '/b'],
    ['adds a path', '', 'location / { proxy_pass UPSTREAM/node/; }', '/node'],
  ])('logs both paths of a request for a route of ours where nginx %s', async (_, path, server, arrived) => {
    const browser = await start(path, server, {}, () => {});
    for (const route of ['login', 'logout', 'cleared']) {
      expect((await browser.get(`${path}/webauth/${route}`)).status).toBe(404);
    }
    const paths = `arrived at the path "${arrived}/webauth/login" instead of "${path}/webauth/login"`;
    expect(misdirections(site)).toEqual([{ level: 'warn', message: expect.stringContaining(paths) }]);
  });

  it('logs nothing where the application has a route of its own there, or the path is no route of ours', async () => {
    const browser = await start('/app', 'location /app/ { proxy_pass UPSTREAM/; }', {}, (app) =>
      app.get('/webauth/login', (_request, response) => void response.send('theirs')),
    );
    expect((await browser.get('/app/webauth/login')).text).toBe('theirs');
    expect((await browser.get('/app/webauth/signin')).status).toBe(404);
    expect(misdirections(site)).toEqual([]);
  });

  it('ends the login with an error where nginx strips the path of a callbackPath of its own', async () => {
    const server = 'location / { rewrite ^/sso(/.*)$ $1 break; proxy_pass UPSTREAM; }';
    const browser = await start('', server, { callbackPath: '/sso/return' });
    const { answer } = await browser.arrive('/private/');
    expectMisdirected(answer, '/return', '/sso/return');
  });
});
