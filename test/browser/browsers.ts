import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import {
  type Browser,
  type BrowserContextOptions,
  chromium,
  type Frame,
  firefox,
  type LaunchOptions,
} from 'playwright-core';
import { browserArgs, findBrowser, findChromium, findQuickChromium, type Running, trusting } from './helpers.js';

/** Starts a browser. */
export type Launch = (options: LaunchOptions) => Promise<Browser>;

/** Preferences of Firefox, as about:config shows them. */
export type Preferences = Readonly<Record<string, string | number | boolean>>;

/** Local ports of servers, by `host:port` of their public origins. */
export type Names = ReadonlyMap<string, number>;

/** Installed browser. */
export interface InstalledBrowser {
  readonly name: 'Chromium' | 'Firefox';
  readonly executablePath: string;
}

/** Returns the path of Firefox, or `undefined` after a warning if it is absent. */
function findFirefox(): string | undefined {
  return findBrowser({
    variable: 'FIREFOX',
    names: ['firefox-esr', 'firefox', 'firefox.exe'],
    elsewhere: ['/Applications/Firefox.app/Contents/MacOS/firefox', 'C:\\Program Files\\Mozilla Firefox\\firefox.exe'],
    howToInstall:
      'the tests in Firefox need Firefox (Debian: apt-get install firefox-esr; elsewhere, set FIREFOX to its path)',
  });
}

/** Returns the browsers in which a test file runs. @param isQuick `true` for Chromium's headless shell. */
export function installedBrowsers(isQuick = false): readonly InstalledBrowser[] {
  const paths = { Chromium: isQuick ? findQuickChromium() : findChromium(), Firefox: findFirefox() };
  return Object.entries(paths).flatMap(([name, executablePath]) =>
    executablePath === undefined ? [] : [{ name: name as InstalledBrowser['name'], executablePath }],
  );
}

/** Returns the URL of a frame's document, or `blocked` where the browser shows its own error page in its place. */
export function urlIn(frame: Frame): string {
  return /^(?:chrome-error:\/\/chromewebdata\/$|about:neterror\?e=cspBlocked&)/.test(frame.url())
    ? 'blocked'
    : frame.url();
}

function isFirefox(executablePath: string): boolean {
  return /firefox(\.exe)?(-esr)?$/i.test(executablePath);
}

/**
 * Starts a browser that reaches the named servers under their public names, and no other server.
 *
 * @param certificate certificate of these servers, in PEM.
 */
export async function launchBrowser(
  executablePath: string,
  certificate: string,
  names: Names,
  launch?: Launch,
): Promise<Browser> {
  if (isFirefox(executablePath)) return launchFirefox(executablePath, names, launch);
  const rules = [...names].map(([name, port]) => `MAP ${name} 127.0.0.1:${port}`);
  return (launch ?? ((options) => chromium.launch(options)))({
    executablePath,
    args: [
      ...browserArgs,
      trusting(new X509Certificate(certificate)),
      `--host-resolver-rules=${[...rules, 'MAP * ~NOTFOUND'].join(', ')}`,
    ],
  });
}

/**
 * Starts a browser for servers on localhost.
 *
 * @param launch starts the browser, if it is a Chromium.
 * @param preferences further preferences, if it is a Firefox.
 */
export async function launchForLocalhost(
  executablePath: string,
  launch: Launch = (options) => chromium.launch(options),
  preferences: Preferences = {},
): Promise<Browser> {
  if (isFirefox(executablePath)) {
    return launchFirefox(executablePath, new Map(), ({ firefoxUserPrefs, ...options }) =>
      firefox.launch({ ...options, firefoxUserPrefs: { ...firefoxUserPrefs, ...preferences } }),
    );
  }
  return launch({ executablePath, args: [...browserArgs] });
}

/**
 * Starts a Firefox as its distributor ships it, which Playwright drives by WebDriver BiDi.
 *
 * @param names servers that it reaches.
 */
async function launchFirefox(
  executablePath: string,
  names: Names,
  launch: Launch = (options) => firefox.launch(options),
): Promise<Browser> {
  const proxy = await startProxy(names);
  const browser = await launch({
    executablePath,
    channel: 'moz-firefox',
    firefoxUserPrefs: preferencesFor(proxy),
  });
  browser.once('disconnected', () => proxy.close());
  omitUnknownCommands(browser);
  const newContext = browser.newContext.bind(browser);
  browser.newContext = (options?: BrowserContextOptions) => newContext({ ignoreHTTPSErrors: true, ...options });
  return browser;
}

/** Playwright's own option does not reach the contexts. */
function preferencesFor({ url }: Running): Preferences {
  const { hostname, port } = new URL(url);
  return {
    'network.proxy.type': 1,
    'network.proxy.socks': hostname,
    'network.proxy.socks_port': Number(port),
    'network.proxy.socks_remote_dns': true,
  };
}

/** Omits the command of Playwright's that a Firefox ESR does not know yet: its pages keep their light colors. */
function omitUnknownCommands(browser: Browser): void {
  type Session = { send(method: string, ...more: unknown[]): Promise<unknown> };
  const { _connection: connection } = browser as unknown as {
    _connection: { toImpl(browser: Browser): { _browserSession: Session } };
  };
  const session = Object.getPrototypeOf(connection.toImpl(browser)._browserSession) as Session;
  const { send } = session;
  session.send = function (this: Session, method, ...more) {
    return method === 'emulation.setMediaFeaturesOverride' ? Promise.resolve({}) : send.call(this, method, ...more);
  };
}

/** Starts a SOCKS proxy (RFC 1928) that connects public names with local ports, for browsers that cannot map names. */
export async function startProxy(names: Names): Promise<Running> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket, other: Socket) => {
    sockets.add(socket);
    socket.on('error', () => other.destroy()).on('close', () => sockets.delete(socket) && other.destroy());
  };
  const server = createServer({ allowHalfOpen: true }, async (client) => {
    client.on('error', () => {});
    const port = names.get(await readTarget(client));
    if (port === undefined) return void client.end(replyWith(HOST_UNREACHABLE));
    const upstream = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    keep(client, upstream);
    keep(upstream, client);
    client.write(replyWith(SUCCEEDED));
    client.pipe(upstream).pipe(client);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    url: `socks://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

const SUCCEEDED = 0;
const HOST_UNREACHABLE = 4;

function replyWith(code: number): Buffer {
  return Buffer.from([5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
}

/** Reads the request of a client. @returns `host:port`; of a numeric address, an empty string. */
async function readTarget(client: Socket): Promise<string> {
  const [, methods = 0] = await read(client, 2);
  await read(client, methods);
  client.write(Buffer.from([5, 0]));
  const [, , , type, length = 0] = await read(client, 5);
  if (type !== 3) return '';
  const host = await read(client, length);
  return `${host}:${(await read(client, 2)).readUInt16BE()}`;
}

/** Reads so many bytes. @returns no bytes if the client leaves before. */
async function read(client: Socket, length: number): Promise<Buffer> {
  for (;;) {
    if (length === 0 || client.readableEnded || client.destroyed) return Buffer.alloc(2);
    const bytes: Buffer | null = client.read(length);
    if (bytes) return bytes;
    await new Promise<void>((resolve) => {
      client.once('readable', resolve).once('close', resolve);
    });
  }
}
