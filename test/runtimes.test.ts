import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Result, root, runNode } from './processes.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-runtimes-'));
  // An npm that has no Node to give: it writes down how it was called, and answers as the variables say.
  writeFileSync(
    join(folder, 'npm.mjs'),
    `import { appendFileSync } from 'node:fs';
     const args = process.argv.slice(2);
     appendFileSync(${JSON.stringify(join(folder, 'calls'))}, JSON.stringify(args) + '\\n');
     const line = /@(\\d+)$/.exec(args[2])[1];
     const asked = args.at(-1) === 'process.version';
     console.log(asked ? 'v' + line + '.9.1' : 'output of ' + line + '\\n3 passed, 0 failed');
     if (line === process.env[asked ? 'MISSING' : 'FAILING']) process.exitCode = 7;`,
  );
});
beforeEach(() => writeFileSync(join(folder, 'calls'), ''));
afterAll(() => rmSync(folder, { recursive: true }));

function runtimes(args: readonly string[] = [], env: Record<string, string> = {}): Promise<Result> {
  return runNode([join(root, 'scripts/runtimes.mjs'), ...args], {
    env: { npm_execpath: join(folder, 'npm.mjs'), ...env },
  });
}

/** What was run, by the name and line of its runtime. */
function calls(): { readonly runtime: string; readonly args: string[] }[] {
  const lines = readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n');
  return lines.map((line) => {
    const [exec, yes, wanted = '', end, node, ...args] = JSON.parse(line) as string[];
    expect([exec, yes, end, node]).toEqual(['exec', '--yes', '--', 'node']);
    return { runtime: wanted.replace('--package=', ''), args };
  });
}

describe('scripts/runtimes.mjs', () => {
  it('runs the tests on each line of Node, hands arguments on, and prints a line for each', async () => {
    const { status, stdout, stderr } = await runtimes(['test/codec.test.ts', '-t', '[M3] twice']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.trim().split('\n')).toEqual(
      [20, 22, 24].map((line) =>
        expect.stringMatching(`^Node ${line}: v${line}.9.1, passed \\(3 passed, 0 failed\\), \\d+ s$`),
      ),
    );
    const tests = [join(root, 'node_modules/vitest/vitest.mjs'), 'run', 'test/codec.test.ts', '-t', '[M3] twice'];
    expect(calls()).toEqual(
      [20, 22, 24].flatMap((line) => [
        { runtime: `node@${line}`, args: ['-p', 'process.version'] },
        { runtime: `node@${line}`, args: tests },
      ]),
    );
  });

  it('goes on after a failure, shows what that printed, and fails', async () => {
    const { status, stdout, stderr } = await runtimes([], { FAILING: '22' });
    expect(status).toBe(1);
    expect(stdout.match(/^Node \d+: v\S+, \w+/gm)).toEqual([
      'Node 20: v20.9.1, passed',
      'Node 22: v22.9.1, FAILED',
      'Node 24: v24.9.1, passed',
    ]);
    expect(stderr).toContain('output of 22');
    expect(stderr).not.toContain('output of 20');
    expect(stderr.trimEnd()).toMatch(/\nFailed on Node 22\.$/);
  });

  it('says which line cannot be had, does not test with it, and fails', async () => {
    const { status, stdout, stderr } = await runtimes([], { MISSING: '24' });
    expect({ status, last: stdout.trim().split('\n').at(-1) }).toEqual({
      status: 1,
      last: 'Node 24: it cannot be had',
    });
    expect(stderr).toContain('Failed on Node 24.');
    expect(calls()).toHaveLength(5);
  });
});
