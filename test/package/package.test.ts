import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Result, root, run, runNode } from '../processes.js';

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const entries = Object.keys(manifest.exports).filter((entry) => entry !== './package.json');
const tool = (...names: string[]) => join(root, 'node_modules', ...names);

/** Everything that follows happens in here: the tarball, and a project in which it is installed. */
let folder: string;
let tarball: string;
let project: string;
let packed: string[];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-package-'));
  project = join(folder, 'project');
  const output = await npm(root, 'pack', '--json', '--ignore-scripts', '--pack-destination', folder);
  const [{ filename, files }] = JSON.parse(output);
  tarball = join(folder, filename);
  packed = files.map(({ path }: { path: string }) => path);
  await installTarball();
}, 180_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** In an empty project and without the network: what the package needs to run is installed from our own copy of it. */
async function installTarball(): Promise<void> {
  mkdirSync(project);
  const needed = Object.entries(closure()).map(([name, path]) => [name, `file:${path}`]);
  const dependencies = { ...Object.fromEntries(needed), [manifest.name]: `file:${tarball}` };
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module', dependencies }));
  // --install-links copies folders, as if they came from the registry. The peers are left out: they are optional, or
  // another package than ours is to work without them.
  await npm(project, 'install', '--offline', '--install-links', '--legacy-peer-deps', '--ignore-scripts');
  // Two entries are for those who have these. They are found there, and not beside what was installed.
  mkdirSync(join(folder, 'node_modules'));
  for (const name of ['lmdb', 'redis']) symlinkSync(tool(name), join(folder, 'node_modules', name), 'junction');
}

/** Where we have the packages that ours needs to run, and theirs. */
function closure(): Record<string, string> {
  const found: Record<string, string> = {};
  const add = (name: string, from: string): void => {
    const path = dirname(createRequire(join(from, 'package.json')).resolve(`${name}/package.json`));
    if (found[name] === path) return;
    if (found[name] !== undefined) throw new Error(`two versions of ${name} are needed: install one below the other`);
    found[name] = path;
    const { dependencies = {} } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    for (const dependency of Object.keys(dependencies)) add(dependency, path);
  };
  for (const name of Object.keys(manifest.dependencies)) add(name, root);
  return found;
}

/** Runs npm, which has to succeed; returns what it prints. */
async function npm(cwd: string, ...args: string[]): Promise<string> {
  const options = {
    cwd,
    env: { npm_config_audit: 'false', npm_config_fund: 'false', npm_config_cache: join(folder, 'cache') },
  };
  const { npm_execpath } = process.env;
  const { status, stdout, stderr } = npm_execpath
    ? await runNode([npm_execpath, ...args], options)
    : await run('npm', args, options);
  if (status !== 0) throw new Error(`npm ${args[0]} ended with ${status}:\n${stderr}${stdout}`);
  return stdout;
}

/** Runs a program in the project in which the package is installed. */
async function runThere(name: string, text: string): Promise<Result> {
  writeFileSync(join(project, name), text);
  return runNode([name], { cwd: project });
}

describe('the tarball', () => {
  it('holds what is needed to use the package, and nothing else', () => {
    const expected = [
      ...['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'SECURITY.md'],
      ...['keys/README.md', 'keys/2.pem', 'keys/901.pem'],
      // Not its pictures.
      ...files('docs')
        .filter((name) => name.endsWith('.md'))
        .map((name) => `docs/${name}`),
      ...files('examples').map((name) => `examples/${name}`),
      ...sources().flatMap((name) => [`dist/${name}.js`, `dist/${name}.d.ts`]),
    ];
    expect([...packed].sort()).toEqual(expected.sort());
  });

  function files(folder: string): string[] {
    const names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
    return names.filter((name) => /\.\w+$/.test(name)).map((name) => name.replaceAll('\\', '/'));
  }

  /** The source files, without their ending. */
  function sources(): string[] {
    return files('src').map((name) => name.slice(0, -'.ts'.length));
  }

  it('is what publint wants it to be', async () => {
    const { status, stdout } = await runNode([
      tool('publint/src/cli.js'),
      'run',
      tarball,
      '--level',
      'warning',
      '--strict',
    ]);
    expect(stdout).toContain('All good!');
    expect(status).toBe(0);
  });

  it('has types that every kind of module resolves', async () => {
    const attw = tool('@arethetypeswrong/cli/dist/index.js');
    const options = ['--profile', 'esm-only', '--ignore-rules', 'cjs-resolves-to-esm', '--no-color', '--no-emoji'];
    const { status, stdout, stderr } = await runNode([attw, tarball, '--format', 'json', ...options]);
    expect(stderr).toBe('');
    const { analysis } = JSON.parse(stdout);
    expect(Object.keys(analysis.entrypoints).sort()).toEqual(Object.keys(manifest.exports).sort());
    expect(status).toBe(0);
  }, 120_000);
});

describe('the installed package', () => {
  it('brings nothing along but what it needs to run', () => {
    const installed = readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.'));
    expect(installed.sort()).toEqual([...Object.keys(closure()), manifest.name].sort());
  });

  it.each(entries)('can be imported: %s', async (entry) => {
    const name = join(manifest.name, entry).replaceAll('\\', '/');
    const { status, stdout, stderr } = await runThere(
      'entry.mjs',
      `import * as all from '${name}';\nconsole.log(Object.keys(all).sort().join());`,
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const here = await import(join(root, manifest.exports[entry].replace('dist', 'src').replace(/\.js$/, '.ts')));
    expect(stdout.trim()).toBe(Object.keys(here).sort().join());
  });

  it.each(entries)('can be required by CommonJS: %s', async (entry) => {
    const name = join(manifest.name, entry).replaceAll('\\', '/');
    const { status, stdout } = await runThere(
      'entry.cjs',
      `const all = require('${name}');\nconsole.log(Object.keys(all).filter((name) => typeof all[name] === 'function').length);`,
    );
    expect(status).toBe(0);
    expect(Number(stdout)).toBeGreaterThan(0);
  });

  it('says its version to those who ask, and has no other entries', async () => {
    const { stdout } = await runThere('version.cjs', `console.log(require('${manifest.name}/package.json').version);`);
    expect(stdout.trim()).toBe(manifest.version);
    const { status, stderr } = await runThere('inside.mjs', `await import('${manifest.name}/dist/waa.js');`);
    expect([status, stderr]).toEqual([1, expect.stringContaining('ERR_PACKAGE_PATH_NOT_EXPORTED')]);
  });

  it('verifies a genuine response, with the key that comes along', async () => {
    const [{ response }] = JSON.parse(readFileSync(join(root, 'test/vectors/real-responses.json'), 'utf8'));
    const { stdout, stderr } = await runThere(
      'genuine.mjs',
      `import { raven, StatusError, verifyResponse } from '${manifest.name}';
      const [encoded, url, now] = [${JSON.stringify(response)}, 'http://raven.cam.ac.uk/debug.html', new Date('2005-03-17T15:16:30Z')];
      try {
        verifyResponse(encoded, { keys: raven.keys, url, params: null, now });
      } catch (error) {
        console.log(error instanceof StatusError, error.code);
      }`,
    );
    expect([stdout.trim(), stderr]).toEqual(['true ERR_WLS_REQUEST', '']);
  });

  it('has the command, for npx', async () => {
    const output = await npm(project, 'exec', '--offline', '--no', '--', manifest.name, 'keys');
    expect(output).toContain('813ab90a52018aff372740e1baa571273d3573fff8d908952a87c19093522afd');
  });

  it('says what the demonstration needs, where it is not installed', async () => {
    const command = join('node_modules', manifest.name, manifest.bin[manifest.name]);
    const { status, stderr } = await runNode([command, 'demo', '--port', '0', '--wls-port', '0'], { cwd: project });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^ucam-webauth: .*npm install express ws\n$/)]);
  });
});

describe('the types of the installed package', () => {
  /** Compiles a program in the project; the packages of types named are all that there are. */
  async function compile(
    text: string,
    types: readonly string[],
    options: object = {},
    packages: readonly string[] = [],
  ): Promise<Result> {
    const place = mkdtempSync(join(project, 'types-'));
    const modules = join(place, 'node_modules');
    mkdirSync(join(modules, '@types'), { recursive: true });
    for (const name of types) symlinkSync(tool('@types', name), join(modules, '@types', name), 'junction');
    for (const name of packages) symlinkSync(tool(name), join(modules, name), 'junction');
    writeFileSync(join(place, 'package.json'), '{ "type": "module" }');
    writeFileSync(join(place, 'program.ts'), text);
    const strictest = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true };
    const compilerOptions = {
      module: 'nodenext',
      types: ['node'],
      noEmit: true,
      skipLibCheck: false,
      ...strictest,
      ...options,
    };
    writeFileSync(join(place, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['program.ts'] }));
    return runNode([tool('typescript/bin/tsc'), '-p', '.'], { cwd: place });
  }

  const good = { status: 0, stdout: '', stderr: '' };

  const withNodeOnly = `
    import { createServer } from 'node:http';
    import { type Auth, type Config, createWAA, KeySet, MemoryStore, StatusError, type Store, verifyResponse } from 'ucam-webauth';
    import { webauth } from 'ucam-webauth/express';
    import { LmdbStore } from 'ucam-webauth/lmdb';
    import { RedisStore } from 'ucam-webauth/redis';
    import { authenticateUpgrade, refuseUpgrade } from 'ucam-webauth/websocket';
    import { createWLS } from 'ucam-webauth/wls';

    const stores: Store[] = [new LmdbStore({ path: '/tmp/x' }), new RedisStore({ url: 'redis://localhost' })];
    const store: Store = stores[0] ?? new MemoryStore();
    const wls = createWLS({ accounts: [{ principal: 'spqr1', ptags: ['current'] }] });
    const config: Config = { baseUrl: 'http://localhost:3000', secret: process.env['SECRET'], wls: wls.profile, store };
    const waa = createWAA(config);
    const auth = webauth(waa);
    const server = createServer((request, response) => {
      auth(request, response, () => response.end(request.auth?.principal));
    });
    server.on('upgrade', async (request, socket) => {
      try {
        const who: Auth = await authenticateUpgrade(waa, request, { ptags: ['current'] });
        socket.end(who.principal);
      } catch (error) {
        refuseUpgrade(socket, error);
      }
    });
    export function check(encoded: string, pem: string): readonly string[] {
      try {
        return verifyResponse(encoded, { keys: KeySet.from({ 2: pem }), url: 'https://example.org/', params: null }).ptags;
      } catch (error) {
        if (error instanceof StatusError) console.log(error.code satisfies string);
        throw error;
      }
    }`;

  const withExpress = `
    import express from 'express';
    import { Server } from 'socket.io';
    import { type Auth, createWAA } from 'ucam-webauth';
    import { webauth } from 'ucam-webauth/express';
    import { acceptConnections } from 'ucam-webauth/socket.io';
    import { acceptUpgrades } from 'ucam-webauth/websocket';
    import { WebSocketServer } from 'ws';

    const waa = createWAA({ baseUrl: 'https://example.org' });
    const auth = webauth(waa);
    const app = express().use(auth);
    const router = express.Router();
    router.get('/', auth.require({ ptags: [] }), (req, res) => {
      const who: string | undefined = req.auth?.principal;
      res.send(who);
    });
    app.use('/below', router);
    app.use(auth.failurePage);
    const server = app.listen(3000);
    const wss = new WebSocketServer({ noServer: true });
    const stop: () => void = acceptUpgrades(server, wss, waa);
    acceptUpgrades(server, new WebSocketServer({ noServer: true }), waa, { path: '/live', principals: ['spqr1'] });
    wss.on('connection', (socket, request) => socket.send(request.auth?.principal ?? ''));
    process.once('SIGTERM', stop);

    interface Said { said: (by: string) => void }
    const io = new Server<{ say: (text: string) => void }, Said, Record<string, never>, { auth: Auth }>(server);
    acceptConnections(io, waa, { credentials: ['cookie', 'query'], maxPerPrincipal: 10 });
    acceptConnections(new Server(server), waa);
    io.on('connection', (socket) => socket.emit('said', socket.data.auth.principal));`;

  const withBrowser = `
    import { type Connection, connect, fetchTicket, type Status, TicketError } from 'ucam-webauth/client';

    const say = (status: Status): string | number => {
      if (status.state === 'logged out') return status.loginUrl;
      return status.state === 'down' ? status.retryIn : status.state;
    };
    const connection: Connection = connect('/live', {
      credential: 'frame',
      onMessage: (data) => data instanceof ArrayBuffer && connection.send(data),
      onStatus: (status) => say(status),
    });
    export const login = (): Promise<string | undefined> =>
      fetchTicket().catch((error: unknown) => (error instanceof TicketError ? error.loginUrl : undefined));`;

  it.each([
    ['a browser', [], { lib: ['ES2022', 'DOM'], types: [] }],
    ['Node', ['node'], { lib: ['ES2022'] }],
  ])(
    'of the client need those of %s only',
    async (_, types, options) => {
      expect(await compile(withBrowser, types, options)).toEqual(good);
    },
    120_000,
  );

  it('need no other types than those of Node', async () => {
    expect(await compile(withNodeOnly, ['node'])).toEqual(good);
  }, 120_000);

  it('fit those of Express, ws and Socket.IO', async () => {
    expect(await compile(withExpress, ['node', 'express', 'ws'], {}, ['socket.io'])).toEqual(good);
  }, 120_000);

  it('find mistakes', async () => {
    const mistakes = `
      import { createWAA, verifyResponse, KeySet, type VerifiedResponse } from 'ucam-webauth';
      createWAA({});
      createWAA({ baseUrl: 'https://example.org', secrets: [] });
      verifyResponse('', { keys: new KeySet(), url: '' });
      export const forged: VerifiedResponse = { ...verifyResponse('', { keys: new KeySet(), url: '', params: '' }), principal: 1 };`;
    const { stdout } = await compile(mistakes, ['node']);
    const lines = [...stdout.matchAll(/program\.ts\((\d+),/g)].map(([, line]) => Number(line));
    expect(lines).toEqual([3, 4, 5, 6]);
  }, 120_000);
});
