import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browser, freePorts, Program, root, runNode } from './processes.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-migrating-'));
  mkdirSync(join(folder, 'node_modules'));
  for (const name of ['express', 'express-session', 'passport', 'passport-raven']) {
    symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name), 'junction');
  }
  symlinkSync(root, join(folder, 'node_modules', 'ucam-webauth'), 'junction');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(
    join(folder, 'users.js'),
    `const users = new Map();
     export const keepUser = async (crsid) => void users.set(crsid, { crsid, name: crsid.toUpperCase() });
     export const findUser = async (crsid) => users.get(crsid);
     export const isOnCommittee = async (crsid) => crsid === 'test0001';`,
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

/** The block of JavaScript of a document in which the text stands. */
function code(document: string, text: string): string {
  const blocks = [...readFileSync(join(root, document), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)];
  const found = blocks.map(([, block]) => block as string).filter((block) => block.includes(text));
  expect(found, `blocks with ${text}`).toHaveLength(1);
  return found[0] as string;
}

/** Each text in place of another, which has to be there. */
function edit(program: string, edits: readonly (readonly [string, string])[]): string {
  return edits.reduce((text, [from, to]) => {
    expect(text).toContain(from);
    return text.replace(from, () => to);
  }, program);
}

describe('docs/migrating.md', () => {
  const piece = (text: string) => code('docs/migrating.md', text);

  /** The application as it is after, with all the pieces that give back what was lost. */
  function application(port: number, wlsPort: number): string {
    const pages = `
      app.get('/user', (request, response) => {
        request.session.visits = (request.session.visits ?? 0) + 1;
        response.send([request.user?.name, request.session.visits].join());
      });`;
    const overHttp: [string, string][] = [
      ['__Host-', ''],
      ['secure: true, ', ''],
    ];
    const given = [piece('request.user = request.auth'), edit(piece("name: '__Host-boats'"), overHttp), pages];
    const committee = edit(piece('isOnCommittee('), [["import { AuthorisationError } from 'ucam-webauth';", '']]);
    return edit(piece('app.use(auth.failurePage);\napp.listen'), [
      ["import express from 'express';", "import express from 'express';\nimport session from 'express-session';"],
      ['{ createWAA }', '{ AuthorisationError, createWAA }'],
      ['{ findUser, keepUser }', '{ findUser, isOnCommittee, keepUser }'],
      ['const waa', `const wls = createWLS();\nawait wls.listen(${wlsPort});\nconst waa`],
      ["baseUrl: 'https://boats.example.org'", `baseUrl: 'http://localhost:${port}', wls: wls.profile`],
      ['app.use(auth);', ['app.use(auth);', ...given, committee].join('\n')],
      ['app.use(auth.failurePage);', piece('ERR_WLS_CANCELLED')],
      ["app.listen(3000, '127.0.0.1')", `app.listen(${port}, '127.0.0.1', () => console.log('Listening'))`],
      ['import { findUser', "import { createWLS } from 'ucam-webauth/wls';\nimport { findUser"],
    ]);
  }

  it('leads to an application that does what the one before did', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const url = `http://localhost:${port}`;
    writeFileSync(join(folder, 'after.js'), application(port, wlsPort));
    const env = { NODE_ENV: 'development', SESSION_SECRET: 'a secret' };
    await new Program([join(folder, 'after.js')], { env }).printed(/Listening/);
    const browser = new Browser();
    const said = async (path: string) => (await browser.visit(url + path)).body;

    expect([await said('/'), await said('/user')]).toEqual(['<a href="/boats">Log in</a>', ',1']);
    const choices = await browser.visit(`${url}/boats`);
    const cancelled = await browser.submit(choices.url, { status: '410' });
    expect([cancelled.status, cancelled.body]).toEqual([401, expect.stringMatching(/^<p>You did not log in\./)]);

    expect((await browser.logIn(`${url}/boats`)).body).toBe('Boats of TEST0001');
    expect([await said('/'), await said('/user'), await said('/user')]).toEqual([
      'Welcome back.',
      'TEST0001,1',
      'TEST0001,2',
    ]);
    expect((await browser.visit(`${url}/committee`)).status).toBe(404);
    await browser.submit(`${url}/webauth/logout`, {});
    expect(await said('/user')).toBe(',1');
    await browser.visit(`http://localhost:${wlsPort}/auth/logout.html`);

    expect((await browser.logIn(`${url}/boats`, 'test0002')).body).toBe('Boats of TEST0002');
    expect(await said('/user')).toBe('TEST0002,1');
    const refused = await browser.visit(`${url}/committee`);
    expect([refused.status, refused.body]).toEqual([403, expect.stringContaining('ERR_PRINCIPAL_REFUSED')]);
  });

  it('begins with an application that runs', async () => {
    const [port] = (await freePorts(1)) as [number];
    const before = edit(piece("from 'passport-raven'"), [
      ["app.listen(3000, '127.0.0.1')", `app.listen(${port}, '127.0.0.1', () => console.log('Listening'))`],
    ]);
    writeFileSync(join(folder, 'before.js'), before);
    await new Program([join(folder, 'before.js')], { env: { SESSION_SECRET: 'a secret' } }).printed(/Listening/);
    const browser = new Browser();
    expect((await browser.visit(`http://localhost:${port}/`)).body).toBe('<a href="/login">Log in</a>');
    const { status, headers } = await browser.ask(`http://localhost:${port}/login`);
    expect([status, headers.location]).toEqual([302, expect.stringContaining('boats.example.org%2Flogin')]);
  });
});

describe('docs/agents.md', () => {
  it('shows what its program prints', async () => {
    const program = code('docs/agents.md', 'RavenStrategy');
    const { status, stdout, stderr } = await runNode(['--input-type=module', '-e', program]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const [, promised = ''] = /\n\/\/ (.+)\n$/.exec(program) ?? [];
    expect(stdout).toBe(`${promised}\n`);
  });
});
