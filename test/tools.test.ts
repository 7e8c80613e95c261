import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { findChromium } from './browser/helpers.js';
import { root, runNode } from './processes.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-tools-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('scripts/prepare.mjs', () => {
  let clone: string;
  const prepare = () =>
    runNode([join(clone, 'scripts/prepare.mjs')], { env: { npm_execpath: join(folder, 'npm.mjs') } });
  const installs = () => readFileSync(join(folder, 'installs'), 'utf8').trim().split('\n').filter(Boolean);

  // A clone whose packages are there, and an npm that only writes down how it was called.
  beforeAll(() => {
    clone = join(folder, 'clone');
    for (const name of [
      'src',
      'keys',
      'scripts',
      'package.json',
      'package-lock.json',
      'tsconfig.json',
      'tsconfig.build.json',
      'tsconfig.browser.json',
      'tsconfig.browser.build.json',
    ]) {
      cpSync(join(root, name), join(clone, name), { recursive: true });
    }
    mkdirSync(join(clone, 'node_modules'));
    for (const name of readdirSync(join(root, 'node_modules')).filter((one) => !one.startsWith('.'))) {
      symlinkSync(join(root, 'node_modules', name), join(clone, 'node_modules', name), 'junction');
    }
    writeFileSync(join(folder, 'installs'), '');
    writeFileSync(
      join(folder, 'npm.mjs'),
      `import { appendFileSync } from 'node:fs';
       appendFileSync(${JSON.stringify(join(folder, 'installs'))}, process.argv.slice(2).join(' ') + '\\n');`,
    );
  });

  it('installs what the lock file names, and development tools whatever NODE_ENV says, then builds', async () => {
    expect((await prepare()).status).toBe(0);
    expect(installs()).toEqual(['install --no-save --include=dev --no-audit --no-fund']);
    expect(statSync(join(clone, 'dist/index.js')).isFile()).toBe(true);
    if (process.platform !== 'win32') expect(statSync(join(clone, 'dist/cli/main.js')).mode & 0o111).toBe(0o111);
  });

  it('does neither again where nothing changed', async () => {
    const before = statSync(join(clone, 'dist/index.js')).mtimeMs;
    expect((await prepare()).stdout).toBe('');
    expect(installs()).toHaveLength(1);
    expect(statSync(join(clone, 'dist/index.js')).mtimeMs).toBe(before);
  });

  it('builds again where a source changed or was deleted', async () => {
    const later = new Date(Date.now() + 60_000);
    writeFileSync(join(clone, 'src/extra.ts'), 'export const extra = 1;\n');
    utimesSync(join(clone, 'src/extra.ts'), later, later);
    await prepare();
    expect(statSync(join(clone, 'dist/extra.js')).isFile()).toBe(true);
    rmSync(join(clone, 'src/extra.ts'));
    utimesSync(join(clone, 'src'), later, later);
    await prepare();
    expect(() => statSync(join(clone, 'dist/extra.js'))).toThrow();
    expect(installs()).toHaveLength(1);
  });

  it('installs again where the lock file changed', async () => {
    writeFileSync(join(clone, 'package-lock.json'), `${readFileSync(join(clone, 'package-lock.json'), 'utf8')}\n`);
    await prepare();
    expect(installs()).toHaveLength(2);
  });
});

describe('npm start', () => {
  it('prints the address of a demonstration that answers', async () => {
    // A group of its own, so that npm and what it started end together.
    const npm = spawn('npm', ['start', '--', '--port', '0', '--wls-port', '0'], {
      cwd: root,
      detached: true,
      env: { ...process.env, NODE_ENV: '' },
    });
    try {
      let printed = '';
      const address = await new Promise<string>((resolve, reject) => {
        npm.once('exit', () => reject(new Error(printed)));
        for (const stream of [npm.stdout, npm.stderr]) {
          stream.on('data', (chunk) => {
            printed += chunk;
            const found = /Open (http:\S+) in a browser/.exec(printed)?.[1];
            if (found) resolve(found);
          });
        }
      });
      expect(await (await fetch(address)).text()).toContain('<h1>Log in with Raven, in Node</h1>');
    } finally {
      if (npm.exitCode === null) {
        process.kill(-(npm.pid as number), 'SIGTERM');
        await once(npm, 'close');
      }
    }
  });
});

describe('the reporter', () => {
  it.each([
    [
      'a pass, a failure and a skip',
      "it('a', () => {}); it('b', () => { throw new Error('x'); }); it.skip('c', () => {});",
      '1 passed, 1 failed, 1 skipped',
    ],
    ['passes only', "it('a', () => {}); it('b', () => {});", '2 passed, 0 failed'],
    ['a file that cannot be loaded', "throw new Error('x');", '0 passed, 1 failed'],
  ])('closes the run with one line: %s', async (_, tests, line) => {
    const project = mkdtempSync(join(folder, 'project-'));
    symlinkSync(join(root, 'node_modules'), join(project, 'node_modules'), 'junction');
    writeFileSync(join(project, 'one.test.mjs'), `import { it } from 'vitest';\n${tests}\n`);
    const reporter = join(root, 'test/reporter.ts');
    const { stdout } = await runNode([
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--root',
      project,
      '--reporter',
      reporter,
    ]);
    expect(stdout.trimEnd().split('\n').at(-1)).toBe(line);
  });
});

describe('the look for Chromium', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });

  it('takes the one that CHROMIUM names, and fails if it is not there', () => {
    vi.stubEnv('CHROMIUM', process.execPath);
    expect(findChromium()).toBe(process.execPath);
    vi.stubEnv('CHROMIUM', join(folder, 'nowhere'));
    expect(findChromium).toThrow('apt-get install chromium');
  });

  it('says how to install one where there is none, and fails where CI is set', () => {
    vi.stubEnv('CHROMIUM', undefined);
    vi.stubEnv('PATH', folder);
    vi.stubEnv('CI', undefined);
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    const found = findChromium();
    // A Mac may have one outside of the path.
    if (found === undefined) expect(warn).toHaveBeenCalledWith(expect.stringContaining('apt-get install chromium'));
    else expect(found).toMatch(/^\/Applications\//);
    vi.stubEnv('CI', 'true');
    if (found === undefined) expect(findChromium).toThrow('apt-get install chromium');
  });
});
