import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { Browser, freePorts, Program, root } from './processes.js';

const [, section = ''] = readFileSync(join(root, 'docs/client.md'), 'utf8').split('## With Vite');
const blocks = [...section.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code as string);
const [config = '', application = '', middleware = ''] = blocks;

describe('an application with the Vite of docs/client.md', () => {
  // Without colors in the output, which CI turns on.
  const env = { NODE_ENV: 'development', NO_COLOR: '1' };
  let folder: string;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ucam-webauth-vite-'));
    const packages = join(folder, 'node_modules');
    mkdirSync(packages);
    for (const name of ['express', 'ws', 'vite']) symlinkSync(join(root, 'node_modules', name), join(packages, name));
    symlinkSync(root, join(packages, 'ucam-webauth'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    writeFileSync(join(folder, 'index.html'), '<!doctype html><title>Front end</title><p>Front end</p>');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function expectLogin(port: number): Promise<void> {
    const origin = `http://localhost:${port}`;
    const browser = new Browser();
    expect((await browser.logIn(`${origin}/webauth/login?return=%2Fapi%2Fme`)).body).toBe('"test0001"');
    const { said, socket } = await browser.connect(`ws://localhost:${port}/live`, origin);
    socket.terminate();
    expect(said).toBe('Hello, test0001.');
    await expect(new Browser().connect(`ws://localhost:${port}/live`, origin)).rejects.toThrow('403');
    expect((await browser.visit(`${origin}/`)).body).toContain('Front end');
    // The dev server's own socket.
    const own = new WebSocket(`ws://localhost:${port}/`, 'vite-ping', { origin });
    await new Promise((resolve, reject) => own.once('open', resolve).once('error', reject));
    own.terminate();
  }

  it('logs in and opens a WebSocket through the proxy of the dev server', async () => {
    const [port, inner, wlsPort] = (await freePorts(3)) as [number, number, number];
    const place = (name: string, code: string) => {
      const replaced = code
        .replaceAll('5173', `${port}`)
        .replaceAll('3000', `${inner}`)
        .replaceAll('8711', `${wlsPort}`);
      writeFileSync(join(folder, name), replaced);
    };
    place('vite.config.js', config);
    place('server.js', `${application}\nconsole.log('Listening');\n`);
    const own = new Program(['server.js'], { env, cwd: folder });
    const vite = new Program([join(root, 'node_modules/vite/bin/vite.js')], { env, cwd: folder });
    await Promise.all([own.printed(/Listening/), vite.printed(/Local: /)]);
    await expectLogin(port);
    expect(own.output).not.toContain('under another name');
  });

  it('logs in and opens a WebSocket with Vite as a middleware', async () => {
    const [port, wlsPort] = (await freePorts(2)) as [number, number];
    const [, ...lines] = middleware.split('\n');
    const program = `import { createServer } from 'vite';\n${application
      .replace("app.listen(3000, '127.0.0.1')", 'server')
      .replace('const wss', () => `${lines.join('\n')}const wss`)
      .replaceAll('5173', '3000')}console.log('Listening');\n`;
    writeFileSync(
      join(folder, 'middleware.js'),
      program.replaceAll('3000', `${port}`).replaceAll('8711', `${wlsPort}`),
    );
    await new Program(['middleware.js'], { env, cwd: folder }).printed(/Listening/);
    await expectLogin(port);
  });
});
