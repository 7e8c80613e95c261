import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Result, root, run, runNode } from '../processes.js';

interface LockedPackage {
  readonly version: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const text = readFileSync(join(root, 'package-lock.json'), 'utf8');
const { '': project, ...packages } = JSON.parse(text).packages as Record<string, LockedPackage>;

describe('package-lock.json', () => {
  it('has an entry for each optional dependency, so for the native packages of all platforms', () => {
    const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies)
        .filter((name) => !isLocked(name, path))
        .map((name) => `${path} needs ${name}`),
    );
    expect(missing).toEqual([]);
  });

  /** Whether Node finds the package from that folder, as locked. */
  function isLocked(name: string, from: string): boolean {
    const above = from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/')));
    return Object.hasOwn(packages, `${from}/node_modules/${name}`) || isBeside(name, above);
  }

  function isBeside(name: string, from: string): boolean {
    return from === '' ? Object.hasOwn(packages, `node_modules/${name}`) : isLocked(name, from);
  }

  it('has an integrity for each package, and names no registry', () => {
    expect(Object.entries(packages).filter(([, { integrity }]) => !integrity?.startsWith('sha512-'))).toEqual([]);
    expect(text).not.toMatch(/"resolved"/);
  });

  it('names the dependencies of package.json', () => {
    const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const { dependencies, devDependencies, peerDependencies } = manifest;
    expect(project).toMatchObject({ dependencies, devDependencies, peerDependencies });
  });
});

describe('npm ci', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-lock-'));
    for (const name of ['package.json', 'package-lock.json', '.npmrc']) cpSync(join(root, name), join(folder, name));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each([
    [[]],
    [['--os=linux', '--cpu=arm64', '--libc=musl']],
    [['--os=darwin', '--cpu=arm64']],
    [['--os=win32', '--cpu=x64']],
    [['--os=freebsd', '--cpu=x64']],
  ])(
    'accepts the lock file in a fresh clone: %j',
    async (platform) => {
      const { status, stderr } = await npm('ci', '--dry-run', '--offline', '--ignore-scripts', ...platform);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    },
    60_000,
  );

  function npm(...args: string[]): Promise<Result> {
    const options = { cwd: folder, env: { npm_config_cache: join(folder, 'cache') } };
    const { npm_execpath } = process.env;
    return npm_execpath ? runNode([npm_execpath, ...args], options) : run('npm', args, options);
  }
});
