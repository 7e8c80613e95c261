import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { root, runNode } from '../processes.js';

const tool = (...names: string[]) => join(root, 'node_modules', ...names);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-types-'));
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, '@types'), { recursive: true });
  for (const name of ['express', 'node']) symlinkSync(tool('@types', name), join(modules, '@types', name), 'junction');
  symlinkSync(root, join(modules, 'ucam-webauth'), 'junction');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Compiles a program beside the declarations of another package; returns the errors. */
async function compile(declared: string, program: string, options: object = {}): Promise<string> {
  const place = mkdtempSync(join(folder, 'program-'));
  writeFileSync(join(place, 'other.d.ts'), declared);
  writeFileSync(join(place, 'program.ts'), program);
  const compilerOptions = {
    module: 'nodenext',
    types: ['node'],
    noEmit: true,
    strict: true,
    skipLibCheck: false,
    ...options,
  };
  writeFileSync(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['other.d.ts', 'program.ts'] }));
  return (await runNode([tool('typescript/bin/tsc'), '-p', '.'], { cwd: place })).stdout;
}

const theirs = (property: string) =>
  `export interface AuthResult { payload: { sub: string } }
   declare global { namespace Express { interface Request { ${property} } } }`;

const guarded = `
  import express from 'express';
  import { type Auth, createWAA } from 'ucam-webauth';
  import { webauth } from 'ucam-webauth/express';
  const auth = webauth(createWAA({ baseUrl: 'https://example.org' }));
  const app = express().use(auth);`;

describe('the type of request.auth', () => {
  it.each([
    ['optional', 'auth?: AuthResult;', {}],
    ['optional, with exact optional properties', 'auth?: AuthResult;', { exactOptionalPropertyTypes: true }],
    ['required', 'auth: AuthResult;', {}],
  ])(
    'is that of another package that declares it: %s',
    async (_, property, options) => {
      const program = `${guarded}
      app.get('/', auth.require(), (req, res) => { res.send((req.auth as unknown as Auth).principal); });
      app.get('/api', (req, res) => { res.send(req.auth?.payload.sub); });`;
      expect(await compile(theirs(property), program, options)).toBe('');
    },
    120_000,
  );

  it('is Auth where no other package declares it', async () => {
    const program = `${guarded}
      app.get('/', auth.require(), (req, res) => { const who: Auth | undefined = req.auth; res.send(who?.principal); });`;
    expect(await compile('export {};', program)).toBe('');
  }, 120_000);

  it('lets another package extend Request, after the line of the documentation', async () => {
    const basic = `import type { Request } from 'express';
      export interface BasicRequest extends Request { auth: { user: string } }`;
    const program = `${guarded}
      import type { BasicRequest } from './other.js';
      app.get('/', (req, res) => { res.send((req as BasicRequest).auth.user); });`;
    const line = '\ndeclare global { namespace Express { interface Request { auth?: any } } }';
    expect(await compile(basic, program)).toContain('TS2430');
    expect(await compile(basic, program + line)).toBe('');
  }, 120_000);
});
