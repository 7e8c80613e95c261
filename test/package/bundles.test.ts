import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build as esbuild, type Format } from 'esbuild';
import { build as vite } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browser, Program, root, runNode } from '../processes.js';

const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: Record<string, string> };
// A page loads the client, not a server.
const entries = Object.keys(exports).filter((entry) => entry !== './package.json' && entry !== './client');

/** Sources and bundles. Packages are found here, and not in the folder that bundles run in. */
let workshop: string;
/** Holds bundles only: no package, no key. */
let elsewhere: string;

beforeAll(() => {
  workshop = mkdtempSync(join(tmpdir(), 'ucam-webauth-bundles-'));
  elsewhere = mkdtempSync(join(tmpdir(), 'ucam-webauth-elsewhere-'));
  const modules = join(workshop, 'node_modules');
  mkdirSync(modules);
  symlinkSync(root, join(modules, 'ucam-webauth'), 'junction');
  for (const name of ['express', 'ws']) symlinkSync(join(root, 'node_modules', name), join(modules, name), 'junction');
  writeFileSync(join(workshop, 'package.json'), '{ "type": "module" }');
  writeFileSync(join(workshop, 'server.js'), server);
});
afterAll(() => {
  for (const folder of [workshop, elsewhere]) rmSync(folder, { recursive: true, force: true });
});

const server = `
  import { once } from 'node:events';
  import { createServer } from 'node:http';
  import express from 'express';
  import { WebSocketServer } from 'ws';
  import { createWAA, raven } from 'ucam-webauth';
  import { webauth } from 'ucam-webauth/express';
  import { acceptUpgrades } from 'ucam-webauth/websocket';
  import { createWLS } from 'ucam-webauth/wls';

  async function start() {
    const app = express();
    const server = createServer(app).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const baseUrl = 'http://127.0.0.1:' + server.address().port;
    const wls = createWLS();
    await wls.listen(0);
    const waa = createWAA({ baseUrl, wls: wls.profile });
    const auth = webauth(waa);
    app.use(auth);
    app.get('/', auth.require(), (request, response) => response.send('Hello, ' + request.auth.principal));
    app.use(auth.failurePage);
    const sockets = new WebSocketServer({ noServer: true });
    acceptUpgrades(server, sockets, waa, { path: '/live' });
    sockets.on('connection', (socket, request) => socket.send('Hello, ' + request.auth.principal));
    console.log('key ' + raven.keys.fingerprint('2'));
    console.log('ready at ' + baseUrl);
  }
  void start();`;

type Bundler = (entry: string, file: string) => Promise<unknown>;

/** `require` for packages in CommonJS, which esbuild leaves to a module in the format esm. */
const banner = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";

const withEsbuild =
  (format: Format): Bundler =>
  (entry, file) =>
    esbuild({
      absWorkingDir: workshop,
      entryPoints: [entry],
      outfile: file,
      bundle: true,
      platform: 'node',
      format,
      // A native module stays a package.
      external: ['lmdb'],
      logLevel: 'error',
      ...(format === 'esm' && { banner: { js: banner } }),
    });

const withRolldown: Bundler = (entry, file) =>
  vite({
    root: workshop,
    configFile: false,
    logLevel: 'error',
    ssr: { noExternal: true, external: ['lmdb'] },
    build: {
      ssr: join(workshop, entry),
      outDir: join(file, '..'),
      emptyOutDir: false,
      rolldownOptions: { output: { entryFileNames: 'server.mjs' } },
    },
  });

const bundlers: [string, string, Bundler][] = [
  ['esbuild as CommonJS', 'server.cjs', withEsbuild('cjs')],
  ['esbuild as a module', 'server.mjs', withEsbuild('esm')],
  ['rolldown', 'server.mjs', withRolldown],
];

/** Bundles a program, and moves the result to a folder that holds nothing else. */
async function bundle(bundler: Bundler, entry: string, file: string): Promise<string> {
  const made = mkdtempSync(join(workshop, 'made-'));
  await bundler(entry, join(made, file));
  const place = mkdtempSync(join(elsewhere, 'place-'));
  cpSync(join(made, file), join(place, file));
  return place;
}

describe.each(bundlers)('a server bundled by %s', (_, file, bundler) => {
  it('starts in another folder, and logs a user in for pages and WebSockets', async () => {
    const place = await bundle(bundler, 'server.js', file);
    const program = new Program([file], { cwd: place, env: { NODE_ENV: 'test' } });
    const [, address = ''] = await program.printed(/ready at (\S+)/);
    expect(program.output).toContain('key 813ab90a52018aff372740e1baa571273d3573fff8d908952a87c19093522afd');
    const browser = new Browser();
    expect((await browser.logIn(address)).body).toBe('Hello, test0001');
    const { said, socket } = await browser.connect(`${address.replace('http', 'ws')}/live`, address);
    expect(said).toBe('Hello, test0001');
    socket.terminate();
  }, 60_000);

  it.each(entries)(
    'loads %s',
    async (entry) => {
      const name = `entry-${entry.replace(/\W/g, '')}.js`;
      const specifier = entry.replace('.', 'ucam-webauth');
      writeFileSync(
        join(workshop, name),
        `import * as all from '${specifier}';\nconsole.log(Object.keys(all).length > 0);`,
      );
      const place = await bundle(bundler, name, file);
      if (entry === './lmdb') {
        mkdirSync(join(place, 'node_modules'));
        symlinkSync(join(root, 'node_modules', 'lmdb'), join(place, 'node_modules', 'lmdb'), 'junction');
      }
      expect(await runNode([file], { cwd: place })).toEqual({ status: 0, stdout: 'true\n', stderr: '' });
    },
    60_000,
  );
});
