// Installs what package-lock.json names, if that changed since the last time, and builds dist/, if a source did.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (...names) => join(root, ...names);
const run = (file, ...args) => execFileSync(file, args, { cwd: root, stdio: 'inherit' });

const lock = createHash('sha256')
  .update(readFileSync(at('package-lock.json')))
  .digest('hex');
const installed = at('node_modules', '.installed-lock');
if (read(installed) !== lock) {
  console.log('Installing what package-lock.json names; this needs the network, and is done once.');
  // Not `npm ci`: after one, or after a change of a single package, this installs the difference only.
  runNpm('install', '--no-save', '--include=dev', '--no-audit', '--no-fund');
  writeFileSync(installed, lock);
}

// The mark is kept out of dist/, which is published as it is.
const built = at('node_modules', '.built');
const projects = ['tsconfig.build.json', 'tsconfig.browser.build.json'];
const sources = ['src', 'tsconfig.json', 'tsconfig.browser.json', ...projects, 'package-lock.json'];
if (
  !existsSync(built) ||
  !existsSync(at('dist')) ||
  newest(sources.map((name) => at(name))) > statSync(built).mtimeMs
) {
  rmSync(at('dist'), { recursive: true, force: true });
  for (const project of projects) run(process.execPath, at('node_modules', 'typescript', 'bin', 'tsc'), '-p', project);
  // npx makes a command executable when it first links it, and not again.
  chmodSync(at('dist', 'cli', 'main.js'), 0o755);
  writeFileSync(built, '');
}

function runNpm(...args) {
  // npm says where it is to the scripts that it runs; on Windows it cannot be called by its bare name.
  const { npm_execpath } = process.env;
  if (npm_execpath) run(process.execPath, npm_execpath, ...args);
  else run('npm', ...args);
}

function read(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

/** When the newest of these was changed; a folder is, when something in it is added or deleted. */
function newest(paths) {
  const below = (path) => (statSync(path).isDirectory() ? readdirSync(path).map((name) => join(path, name)) : []);
  return Math.max(...paths.map((path) => Math.max(statSync(path).mtimeMs, newest(below(path)))));
}
