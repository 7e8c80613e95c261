import { connect } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore } from '../src/session/memory.js';
import { answerTo, Browser, clock, frameworks, type Routes, Site } from './site.js';

const session = 'webauth-session';

const routes: Routes = (app, auth) => {
  app.get('/', (request, response) => void response.send(request.auth?.principal ?? 'nobody'));
  app.post('/private', auth.require(), (_request, response) => void response.send('posted'));
  app.use('/private', auth.require(), (request, response) => void response.send(`of ${request.auth?.principal}`));
};

// What a browser does not send by itself, or Node's client would repair, written byte by byte.
describe.each(frameworks)('%s', (_, framework) => {
  const site = new Site(framework);
  let store: MemoryStore;
  let browser: Browser;
  let cookie: string;
  let kept: number;

  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(async () => {
    clock.reset();
    store = new MemoryStore({ now: clock.now });
    site.serve(routes, { store });
    browser = new Browser(site.address);
    await browser.logIn();
    cookie = `Cookie: ${session}=${browser.cookie(session)}`;
    kept = store.size;
  });

  /** Sends lines as they are, and reads to the end. `OURS` is our origin. */
  async function raw(requestLine: string, ...headers: string[]): Promise<string> {
    const { hostname, port, host } = new URL(site.address);
    const filled = headers.map((line) => line.replaceAll('OURS', site.address));
    const lines = [requestLine, `Host: ${host}`, 'Connection: close', 'Content-Length: 0', ...filled];
    const socket = connect(Number(port), hostname);
    socket.end(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'));
    return readAll(socket);
  }

  /** The person is logged in as before, and nothing was made that could be used. */
  async function expectUntouched(): Promise<void> {
    expect((await browser.get('/')).text).toBe('test0001');
    expect(store.size).toBe(kept);
  }

  describe.each(['/webauth/logout', '/webauth/logout?everywhere=yes', '/webauth/ticket', '/private'])(
    'POST %s',
    (path) => {
      it.each(
        [
          [],
          ['Sec-Fetch-Site: same-origin'],
          ['Referer: OURS/', 'Sec-Fetch-Site: same-origin'],
          ['Origin:', 'Sec-Fetch-Site: same-origin'],
          ['Origin: null'],
          ['Origin: null', 'Sec-Fetch-Site: none'],
          ['Origin: null', 'Sec-Fetch-Site: same-site'],
          ['Origin: null', 'Sec-Fetch-Site: cross-site'],
          ['Origin: null', 'Sec-Fetch-Site: Same-Origin'],
          ['Origin: null', 'Sec-Fetch-Site: same-origin', 'Sec-Fetch-Site: same-site'],
          ['Origin: null', 'Sec-Fetch-Site: same-site', 'Sec-Fetch-Site: same-origin'],
          ['Origin: null', 'Origin: null', 'Sec-Fetch-Site: same-origin'],
          ['Origin: null, null', 'Sec-Fetch-Site: same-origin'],
          ['Origin: NULL', 'Sec-Fetch-Site: same-origin'],
          ['Origin: OURS', 'Origin: null', 'Sec-Fetch-Site: same-origin'],
          ['Origin: null', 'Origin: OURS', 'Sec-Fetch-Site: same-origin'],
          ['Origin: OURS', 'Origin: https://evil.cam.ac.uk'],
          ['Origin: OURS, https://evil.cam.ac.uk'],
          ['Origin: OURS https://evil.cam.ac.uk'],
          ['Origin: OURS/'],
          ['Origin: OURS.evil.cam.ac.uk'],
          ['Origin: https://evil.cam.ac.uk', 'Sec-Fetch-Site: same-origin'],
          ['X-Forwarded-Host: evil.cam.ac.uk', 'Origin: https://evil.cam.ac.uk'],
        ].map((lines) => [lines.join(' | '), lines] as const),
      )('is refused with %s', async (_name, lines) => {
        const answer = await raw(`POST ${path} HTTP/1.1`, cookie, ...lines);
        expect(answer).toMatch(/^HTTP\/1\.1 403 /);
        expect(answer).toContain('ERR_ORIGIN_REFUSED');
        expect(answer).not.toMatch(/^Set-Cookie:/im);
        await expectUntouched();
      });

      it.each([['Origin: OURS'], ['Origin: null', 'Sec-Fetch-Site: same-origin']])(
        'is good with %s',
        async (...lines) => {
          expect(await raw(`POST ${path} HTTP/1.1`, cookie, ...lines)).toMatch(/^HTTP\/1\.1 (200|303) /);
        },
      );
    },
  );

  it.each([
    'http://evil.example/webauth/logout',
    '//webauth/logout',
    '//evil.example/webauth/logout',
    '/webauth/logout/',
    '/webauth//logout',
    '/WebAuth/Logout',
    '/webauth/%6cogout',
    '/webauth%2flogout',
    '/webauth/logout%3f',
    '/webauth/logout;x',
    '/webauth/logout#x',
    '/./webauth/logout',
    '/x/../webauth/logout',
    '/webauth\\logout',
  ])('our routes have one spelling each, and not %s', async (target) => {
    const answer = await raw(`POST ${target} HTTP/1.1`, cookie, 'Origin: OURS');
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(answer).not.toMatch(/^Set-Cookie:/im);
    await expectUntouched();
  });

  it.each([
    '/private//evil.example',
    '/private/..//evil.example',
    '/private/\\evil.example',
    '/private?//evil.example',
    '/private/%2f%2fevil.example',
    '//evil.example/../private',
    '//evil.example/private',
    '/\\evil.example/private',
    'http://evil.example/private',
    'http://evil.example//private',
    'https:evil.example/private',
  ])('a login that %s asks for ends here', async (target) => {
    const stranger = new Browser(site.address);
    const { status, location } = await stranger.get(target);
    // Not every one of them is taken for the page, or for a path at all.
    if (status !== 303) return expect([status === 404 || status === 400, location]).toEqual([true, '']);
    const done = await stranger.get(answerTo(location));
    expect([done.status, new URL(done.location).origin]).toEqual([303, site.address]);
    expect(done.location.slice(site.address.length)).toMatch(/^\/(?![/\\])/);
  });

  it.each([
    'OURS//evil.example/x',
    'OURS/\\evil.example/x',
    'OURS/\t/evil.example',
    'OURS/.//evil.example',
    'OURS@evil.example/x',
    'https://evil.example/x',
    'javascript:alert(1)',
  ])('a program that says that it is on %s is led to a path of ours', async (referer) => {
    const answer = await raw('GET /private HTTP/1.1', 'Accept: application/json', `Referer: ${referer}`);
    const { loginUrl } = JSON.parse(answer.slice(answer.indexOf('{'))).error;
    const done = await browser.get(loginUrl);
    expect(new URL(done.location).origin).toBe(site.address);
    expect(done.location.slice(site.address.length)).toMatch(/^\/(?![/\\])/);
  });

  it.each([
    ['twice, in two lines', (own: string) => [own, own]],
    ['twice, and one is somebody else’s', (own: string) => [own, `Cookie: ${session}=theirs`]],
    ['after one that is planted', (own: string) => [`Cookie: a=b; ${session}=theirs`, own]],
    ['with one that has a blank in its name', (own: string) => [`${own}; ${session}\t=theirs`]],
  ])('a session cookie that is sent %s is nobody’s', async (_name, lines) => {
    const answer = await raw('GET /private HTTP/1.1', 'Accept: text/html', ...lines(cookie));
    expect(answer).toMatch(/^HTTP\/1\.1 401 /);
    expect(answer).toContain('delete the cookies of this site');
    expect(answer).toContain('ERR_SESSION_INVALID');
    expect(await raw('GET / HTTP/1.1', ...lines(cookie))).toMatch(/nobody$/);
    await expectUntouched();
  });

  it('an answer of the login service counts in the address of a GET only, and is not used up elsewhere', async () => {
    const other = new Browser(site.address);
    const address = answerTo((await other.get('/private')).location);
    const [path, query] = address.slice(site.address.length).split('?') as [string, string];
    const form = { 'content-type': 'application/x-www-form-urlencoded' };
    for (const answer of [
      await other.post(path, form, query),
      await other.post(`${path}?${query}`, { 'x-http-method-override': 'GET' }),
      await other.post(`${path}?_method=GET&${query}`, form, '_method=GET'),
      await other.send('HEAD', `${path}?${query}`),
      await other.send('OPTIONS', `${path}?${query}`),
    ]) {
      expect([answer.status, answer.headers.get('allow'), answer.set]).toEqual([405, 'GET', []]);
    }
    expect((await other.send('GET', path, form, query)).status).toBe(400);
    expect((await other.get(`${path}?${query}`)).status).toBe(303);
  });

  it('an answer that comes twice in one packet makes one session', async () => {
    const other = new Browser(site.address);
    const address = answerTo((await other.get('/private')).location);
    const login = `Cookie: webauth-login=${other.cookie('webauth-login')}`;
    const request = `GET ${address.slice(site.address.length)} HTTP/1.1\r\nHost: x\r\n${login}\r\nAccept: text/html`;
    const { hostname, port } = new URL(site.address);
    const socket = connect(Number(port), hostname);
    socket.end(`${request}\r\n\r\n${request}\r\nConnection: close\r\n\r\n`);
    const answers = await readAll(socket);
    expect(answers.match(/^HTTP\/1\.1 \d+/gm)?.sort()).toEqual(['HTTP/1.1 303', 'HTTP/1.1 400']);
    expect(answers.match(/^Set-Cookie: webauth-session=/gim)).toHaveLength(1);
    expect(answers).toContain('ERR_RESPONSE_REPLAYED');
  });

  it.each([
    ['HTTP/1.0, and no Host', 'GET /private HTTP/1.0\r\n'],
    ['an empty Host', 'GET /private HTTP/1.1\r\nHost:\r\n'],
    ['the Host of somebody else', 'GET /private HTTP/1.1\r\nHost: evil.example\r\n'],
    ['a Host that is more than one', 'GET /private HTTP/1.1\r\nHost: 127.0.0.1@evil.example/x?y#z\r\n'],
  ])('a request with %s is led to the configured address', async (_name, head) => {
    const { hostname, port } = new URL(site.address);
    const socket = connect(Number(port), hostname);
    socket.end(`${head}Accept: text/html\r\nConnection: close\r\n\r\n`);
    const [, location] = /^Location: (.*)$/im.exec(await readAll(socket)) ?? [];
    expect(location).toBe(`${site.address}/webauth/login?return=%2Fprivate&moved=%2F`);
  });

  it('headers without end are refused before we look at them', async () => {
    expect(await raw('GET /private HTTP/1.1', `X: ${'x'.repeat(20_000)}`)).toMatch(/^HTTP\/1\.1 431 /);
    expect(await raw('GET /private HTTP/1.1', `Cookie: ${'webauth-session=x;'.repeat(800)}`)).toContain(
      'ERR_SESSION_INVALID',
    );
  });
});

async function readAll(socket: AsyncIterable<Buffer>): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}
