import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { request as send } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Browser, freePorts, Program, root, runNode } from './processes.js';

const examples = readdirSync(join(root, 'examples')).filter((name) => name !== 'README.md');

/** Each example, and how it is used. */
const uses: Readonly<Record<string, (start: Start) => Promise<void>>> = {
  'express.ts': useExpress,
  'websocket.ts': useWebSocket,
  'verify.ts': useVerify,
};

/** Runs the example in development, on free ports. */
type Start = () => Promise<{ readonly program: Program; readonly port: number; readonly url: string }>;

async function useExpress(start: Start): Promise<void> {
  const { program, url } = await start();
  const [member, other, leaver] = [new Browser(), new Browser(), new Browser()];
  expect((await member.visit(url)).body).toContain('Hello. <a href="/members">');
  expect((await member.logIn(`${url}members`)).body).toContain('such as test0001');
  expect((await member.visit(url)).body).toBe('Hello, test0001.');
  expect((await member.visit(`${url}committee`)).body).toBe('Only these two people see this.');

  const refused = await other.logIn(`${url}committee`, 'test0003');
  expect([refused.status, refused.body]).toEqual([403, expect.stringContaining('ERR_PRINCIPAL_REFUSED')]);
  expect((await other.visit(`${url}members`)).status).toBe(200);

  expect((await leaver.logIn(`${url}anybody`, 'test0401')).body).toContain('left');
  const gone = await leaver.visit(`${url}members`);
  expect([gone.status, gone.body]).toEqual([403, expect.stringContaining('ERR_PTAGS_REFUSED')]);

  const script = await new Browser().ask(`${url}members`, { headers: { Accept: 'application/json' } });
  expect([script.status, JSON.parse(script.body).error.code]).toEqual([401, 'ERR_SESSION_MISSING']);
  await member.submit(`${url}webauth/logout`, {});
  expect((await member.visit(url)).body).toContain('Hello. ');
  for (const secret of [...member.secrets, ...leaver.secrets])
    expect(program.output).not.toContain(secret.slice(0, 16));
}

async function useWebSocket(start: Start): Promise<void> {
  const { url, port } = await start();
  const origin = new URL(url).origin;
  const browser = new Browser();
  const page = await browser.logIn(url);
  expect([page.status, page.body]).toEqual([200, expect.stringContaining('new WebSocket')]);
  const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, origin);
  expect(said).toBe('Hello, test0001.');
  const closed = new Promise<number>((done) => socket.once('close', done));
  await expect(new Browser().connect(`ws://localhost:${port}/live`, origin)).rejects.toThrow('403');
  await expect(browser.connect(`ws://localhost:${port}/live`, 'https://example.org')).rejects.toThrow('403');

  const upgrade = { Connection: 'Upgrade', Upgrade: 'hello', Origin: origin };
  const answer = await browser.ask(`${url}by-hand`, { headers: { ...upgrade, Origin: 'https://example.org' } });
  expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([403, 'ERR_ORIGIN_REFUSED']);
  expect(await talk(`${url}by-hand`, { ...upgrade, Cookie: browser.cookieHeader })).toBe('Hello, test0001.\n');

  await browser.submit(`${url}webauth/logout`, {});
  expect(await closed).toBe(4401);
}

/** What the other side says once it has switched protocols. */
async function talk(url: string, headers: Record<string, string>): Promise<string> {
  return new Promise((done, reject) => {
    const request = send(url, { headers, agent: false });
    request.once('upgrade', (_, socket, head) => {
      let said = head.toString();
      socket.setEncoding('utf8').on('data', (chunk: string) => {
        said += chunk;
      });
      socket.once('end', () => done(said));
    });
    request.once('response', ({ statusCode }) => reject(new Error(`status ${statusCode}`)));
    request.once('error', reject).end();
  });
}

async function useVerify(): Promise<void> {
  const { status, stdout, stderr } = await runNode(['--import', 'tsx', join('examples', 'verify.ts')]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const [address = '', ...said] = stdout.trim().split('\n');
  expect(Object.fromEntries(new URL(address).searchParams)).toMatchObject({ ver: '3', desc: 'Example' });
  expect(said).toEqual([
    'genuine, and nobody logged in: ERR_WLS_REQUEST',
    expect.stringMatching(/^not acceptable: ERR_ISSUE_STALE, /),
  ]);
}

describe('examples', () => {
  it('are all used here', () => {
    expect(Object.keys(uses).sort()).toEqual([...examples].sort());
  });

  it.each(examples)('%s imports the package by its name, as a copy of it would', (name) => {
    const text = readFileSync(join(root, 'examples', name), 'utf8');
    const specifiers = [...text.matchAll(/^(?:import|\}).*?from '([^']+)';$|\bimport\('([^']+)'\)/gm)].map(
      (match) => match[1] ?? match[2],
    );
    expect(specifiers.length).toBe(text.match(/\bimport\b/g)?.length);
    expect(specifiers).toContain('ucam-webauth');
    for (const specifier of specifiers) {
      expect(specifier).toMatch(/^(?:node:\w+|express|ws|ucam-webauth(?:\/(?:express|websocket|wls))?)$/);
    }
  });

  it.each(Object.entries(uses))('%s does what it says', async (name, use) => {
    await use(async () => {
      const [port, wlsPort] = (await freePorts(2)) as [number, number];
      const env = { NODE_ENV: 'development', PORT: `${port}`, WLS_PORT: `${wlsPort}` };
      const program = new Program(['--import', 'tsx', join('examples', name)], { env });
      await program.printed(/^Listening on /m);
      return { program, port, url: `http://localhost:${port}/` };
    });
  });

  it('refuse to run in production without what that takes', async () => {
    const { status, stderr } = await runNode(['--import', 'tsx', join('examples', 'express.ts')]);
    expect(status).not.toBe(0);
    expect(stderr).toContain('set NODE_ENV=development');
  });
});

/** The blocks of code of a document, in order. */
function codeBlocks(document: string, language: string): string[] {
  const text = readFileSync(join(root, document), 'utf8');
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, code]) => code as string);
}

describe("the README's code", () => {
  const blocks = codeBlocks('README.md', 'ts');
  const [quickStart = '', ownService = '', byYourself = '', inTests = ''] = blocks;
  let folder: string;

  // An application of somebody else's, in which the package is installed.
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-readme-'));
    const packages = join(folder, 'node_modules');
    mkdirSync(join(packages, '@types'), { recursive: true });
    for (const name of ['express', 'ws', '@types/node', '@types/express', '@types/ws']) {
      symlinkSync(join(root, 'node_modules', name), join(packages, name), 'junction');
    }
    symlinkSync(root, join(packages, 'ucam-webauth'), 'junction');
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const compilerOptions = {
      module: 'nodenext',
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      types: ['node'],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  it('is four blocks, and the quick start is at most fifteen lines', () => {
    expect(blocks).toHaveLength(4);
    expect(
      quickStart
        .trim()
        .split('\n')
        .filter((line) => line.trim() !== '').length,
    ).toBeLessThanOrEqual(15);
  });

  it('type-checks as it stands', { timeout: 120_000 }, async () => {
    writeFileSync(join(folder, 'quick-start.ts'), quickStart);
    writeFileSync(join(folder, 'own-service.ts'), `import { createWAA } from 'ucam-webauth';\n${ownService}`);
    writeFileSync(
      join(folder, 'by-yourself.ts'),
      `declare const token: string, encoded: string;\n${byYourself}console.log(location, principal);`,
    );
    writeFileSync(
      join(folder, 'in-tests.ts'),
      `import { createWLS } from 'ucam-webauth/wls';\nconst wls = createWLS();\n${inTests}console.log(page);`,
    );
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    expect(await runNode([tsc, '-p', folder])).toEqual({ status: 0, stdout: '', stderr: '' });
    // It would have found a mistake.
    writeFileSync(join(folder, 'mistake.ts'), quickStart.replace('request.auth?.principal', 'request.auth?.principle'));
    expect((await runNode([tsc, '-p', folder])).stdout).toMatch(/^\S*mistake\.ts.*'principle'/m);
    rmSync(join(folder, 'mistake.ts'));
  });

  /** The quick start with the login service of its own. */
  function withOwnService(port: number, wlsPort: number, more = ''): string {
    const [imported = '', made = ''] = ownService.split('\n\n');
    return (imported + quickStart + more)
      .replace(/^const waa = .*\n/m, made)
      .replaceAll('3000', `${port}`)
      .replaceAll('8711', `${wlsPort}`);
  }

  it('tests an application as it says', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const file = join(folder, 'tested.ts');
    const whenListening = "await new Promise((resolve) => server.once('listening', resolve));\n";
    const end = 'console.log(await page.text());\nprocess.exit();\n';
    writeFileSync(file, withOwnService(port, wlsPort, whenListening + inTests + end));
    const { stdout, stderr } = await runNode(['--import', 'tsx', file], { env: { NODE_ENV: 'test' } });
    expect([stdout, stderr]).toEqual(['Hello, abc12.\n', '']);
  });

  it('runs, with the login service of its own that it describes', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const program = withOwnService(port, wlsPort);
    expect(program).toContain(`baseUrl: 'http://localhost:${port}', wls: wls.profile`);
    const file = join(folder, 'running.ts');
    writeFileSync(file, `${program}\nserver.once('listening', () => console.log('Listening'));\n`);
    const running = new Program(['--import', 'tsx', file], { env: { NODE_ENV: 'development' } });
    await running.printed(/Listening/);
    const browser = new Browser();
    const page = await browser.logIn(`http://localhost:${port}/`);
    expect([page.status, page.body]).toEqual([200, 'Hello, test0001.']);
    const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, `http://localhost:${port}`);
    socket.terminate();
    expect(said).toBe('Hello, test0001.');
  });

  it('refuses to start as it stands where there is no secret', async () => {
    const file = join(folder, 'no-secret.ts');
    writeFileSync(file, quickStart);
    const { status, stderr } = await runNode(['--import', 'tsx', file], { env: { UCAM_WEBAUTH_SECRET: undefined } });
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/TypeError: secret is missing.*openssl rand -hex 32/);
  });
});

describe('the commands that the README names', () => {
  const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts as Record<string, string>;

  it('are scripts of package.json', () => {
    const named = [
      ...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/\bnpm (?:run (\w+)|(start|test))\b/g),
    ].map((match) => match[1] ?? match[2]);
    expect(named.length).toBeGreaterThan(3);
    expect([...new Set(named)].filter((name) => !scripts[name as string])).toEqual([]);
  });

  it('say of the genuine response of 2005 what the README says', async () => {
    const [code = ''] = codeBlocks('README.md', 'sh').filter((block) => block.includes('real-responses'));
    const [, expression = '', args = ''] = /^node -p '(.+)' \| npx ucam-webauth (.+)$/m.exec(code) ?? [];
    const printed = await runNode(['-p', expression]);
    const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { bin: Record<string, string> };
    const { status, stdout } = await runNode([bin['ucam-webauth'] as string, ...args.split(' ')], {
      input: printed.stdout,
    });
    expect(status).toBe(4);
    expect(stdout).toMatch(/holds +sig: .*\n/);
    expect(stdout).toContain("Raven's own");
  });
});

describe.each(['README.md', 'SECURITY.md', 'CHANGELOG.md', 'keys/README.md', 'docs/protocol.md'])('%s', (document) => {
  const text = readFileSync(join(root, document), 'utf8');

  it('links to files and headings that exist', () => {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link as string);
    const broken = links
      .filter((link) => !/^https:\/\//.test(link))
      .filter((link) => {
        const [path = '', heading] = link.split('#');
        const file = path === '' ? join(root, document) : resolve(root, dirname(document), path);
        return !existsSync(file) || (heading !== undefined && !headings(file).includes(heading));
      });
    expect(broken).toEqual([]);
  });

  it('names files that exist', () => {
    // A name in code, with an ending of ours. What a user makes or fetches is not ours.
    const theirs = ['pubkey2.crt', 'pubkey901.crt', 'server.ts', 'private.pem'];
    const code = [...text.matchAll(/`([^`\n]+)`/g), ...text.matchAll(/^```\w*\n(.*?)^```$/gms)].map(
      ([, inner]) => inner as string,
    );
    const names = code.flatMap(
      (inner) =>
        inner.match(/(?<![\w./:-])\.{0,2}\/?(?:[\w-]+\/)*[\w-]+\.(?:[cm]?ts|[cm]?js|json|md|pem|crt)\b(?!\.)/g) ?? [],
    );
    const places = [dirname(document), '.'];
    expect(
      names.filter((name) => !theirs.includes(name) && !places.some((place) => existsSync(resolve(root, place, name)))),
    ).toEqual([]);
  });
});

/** The anchors of a document's headings. */
function headings(file: string): string[] {
  const titles = [...readFileSync(file, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, title]) => title as string);
  return titles.map((title) =>
    title
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}
