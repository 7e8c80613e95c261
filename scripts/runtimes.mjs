// Runs the tests on each line of Node that we support, one after another: npm run test:runtimes.
// What follows is for vitest: npm run test:runtimes -- test/codec.test.ts
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const lines = [20, 22, 24];
const root = fileURLToPath(new URL('..', import.meta.url));
const vitest = fileURLToPath(new URL('../node_modules/vitest/vitest.mjs', import.meta.url));

const failed = lines.filter((line) => !passes(line));
if (failed.length > 0) console.error(`Failed on Node ${failed.join(' and ')}.`);
process.exitCode = failed.length > 0 ? 1 : 0;

/** Prints one line of result, and after it what was printed by a run that failed. */
function passes(line) {
  process.stdout.write(`Node ${line}: `);
  const { stdout: version, ...started } = node(line, ['-p', 'process.version']);
  if (started.status !== 0) return report('it cannot be had', version, started);
  const begun = performance.now();
  const run = node(line, [vitest, 'run', ...process.argv.slice(2)]);
  const seconds = Math.round((performance.now() - begun) / 1000);
  return report(`${version.trim()}, ${counted(run)}, ${seconds} s`, run.stdout, run);
}

function report(result, printed, { status, stderr, error }) {
  console.log(result);
  if (status !== 0) console.error([printed, stderr, error?.message].filter(Boolean).join('\n'));
  return status === 0;
}

/** With that Node also first on the path, for what the tests start; fetched from the registry if need be. */
function node(line, args) {
  const exec = ['exec', '--yes', `--package=node@${line}`, '--', 'node', ...args];
  // npm says where it is to the scripts that it runs; on Windows it cannot be called by its bare name.
  const { npm_execpath: npm } = process.env;
  const command = npm ? [process.execPath, [npm, ...exec]] : ['npm', exec];
  return spawnSync(...command, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'pipe'] });
}

/** The closing line of our reporter; another one may have been asked for. */
function counted({ status, stdout }) {
  const line = stdout?.match(/^\d+ passed, \d+ failed.*$/gm)?.at(-1);
  return [status === 0 ? 'passed' : 'FAILED', line && `(${line})`].filter(Boolean).join(' ');
}
