import { type ChildProcess, spawn } from 'node:child_process';
import type { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterAll, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';

/** The folder of the project, without a slash at its end. */
export const root: string = fileURLToPath(new URL('..', import.meta.url)).replace(/[/\\]$/, '');

// What a failed test leaves behind ends with the file that holds it.
const running = new Set<ChildProcess>();
afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
});

export interface RunOptions {
  /** Variables to set; undefined removes one. `NODE_ENV` is unset, unless it is given here. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Standard input: empty, if it is not given. */
  readonly input?: string;
}

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program of Node to its end. */
export async function runNode(args: readonly string[], options: RunOptions = {}): Promise<Result> {
  return run(process.execPath, args, options);
}

/** Runs a program to its end; its input is empty, and so not a terminal. */
export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const child = launch(file, args, options);
  // A program that does not read it may end before it has it all.
  child.stdin?.on('error', () => {});
  child.stdin?.end(options.input ?? '');
  const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
  const [stdout, stderr, status] = await Promise.all([read(child.stdout), read(child.stderr), ended]);
  return { status, stdout, stderr };
}

/** A program that goes on until it is told to stop: one of Node, unless another file is given. */
export class Program {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  #output = '';
  #look = (): void => {};

  /** Starts it. It is killed, if need be, when the test is over: so call this from within a test. */
  constructor(args: readonly string[], options: RunOptions = {}, file: string = process.execPath) {
    const child = launch(file, args, options);
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        this.#output += chunk;
        this.#look();
      });
    }
    this.#ended = new Promise((resolve) => child.once('close', resolve));
    onTestFinished(async () => {
      child.kill('SIGKILL');
      await this.#ended;
    });
  }

  /** What it has printed so far. */
  get output(): string {
    return this.#output;
  }

  /** Resolves to its exit status, once it has ended by itself or was told to. */
  get ended(): Promise<number | null> {
    return this.#ended;
  }

  /** Resolves as soon as the output matches; rejects if the program ends before it does. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    const found = new Promise<RegExpExecArray>((resolve) => {
      this.#look = () => {
        const match = pattern.exec(this.#output);
        if (match) resolve(match);
      };
      this.#look();
    });
    const over = this.#ended.then((status) => {
      throw new Error(`it ended with ${status}, and never printed ${pattern}; it printed:\n${this.#output}`);
    });
    return Promise.race([found, over]);
  }

  /** Asks it to stop as a system does; resolves to its exit status. */
  async stop(signal: 'SIGTERM' | 'SIGINT' | 'SIGQUIT' = 'SIGTERM'): Promise<number | null> {
    this.#child.kill(signal);
    return this.#ended;
  }
}

function launch(file: string, args: readonly string[], { env = {}, cwd = root }: RunOptions): ChildProcess {
  // Not what npm and the test runner tell the programs that they start: it would change what these do.
  const theirs = /^(?:npm_.*|VITEST.*|NODE_ENV|INIT_CWD|BASE_URL|MODE|DEV|PROD|SSR|TEST)$/;
  const inherited = Object.entries(process.env).filter(([name]) => !theirs.test(name));
  const wanted = Object.entries({ ...Object.fromEntries(inherited), ...env }).filter(
    ([, value]) => value !== undefined,
  );
  const child = spawn(file, args, { cwd, env: Object.fromEntries(wanted), stdio: 'pipe' });
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

async function read(stream: ChildProcess['stdout']): Promise<string> {
  return stream ? text(stream) : '';
}

/** Debian's packages of programs that have another name. */
const packageOf: Readonly<Record<string, string>> = {
  nginx: 'nginx-light',
  WebKitWebDriver: 'webkit2gtk-driver',
  Xvfb: 'xvfb',
};

/**
 * Whether these programs of the system are there; where not, a sentence says how to get them.
 * @throws Error in continuous integration, where they have to be.
 */
export function findPrograms(names: readonly string[]): boolean {
  const { CI: integration, PATH = '' } = process.env;
  const folders = PATH.split(delimiter);
  const missing = names.filter((name) => !folders.some((folder) => existsSync(join(folder, name))));
  if (missing.length === 0) return true;
  const packages = missing.map((name) => packageOf[name] ?? name).join(' ');
  const howTo = `some tests need ${missing.join(' and ')} on the PATH (Debian: apt-get install ${packages})`;
  if (integration) throw new Error(howTo);
  console.warn(`Left out: ${howTo}.`);
  return false;
}

/** Ports that nothing listens on just now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  await Promise.all(servers.map((server) => new Promise<void>((open) => server.listen(0, '127.0.0.1', open))));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}

/** What a server shows for itself, whether or not anybody vouches for it. */
export async function certificateOf(url: string): Promise<X509Certificate> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, servername: hostname, port: Number(port), rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const certificate = socket.getPeerX509Certificate() as X509Certificate;
  socket.destroy();
  return certificate;
}

export interface Page {
  readonly url: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** As much of a browser as logging in takes. Everything is on this machine, so one jar holds all cookies. */
export class Browser {
  readonly #cookies = new Map<string, string>();
  /** What nobody else may learn: cookies, tokens, signatures, whole responses. */
  readonly secrets: Set<string> = new Set();
  readonly #trust: { readonly ca?: string };

  /** @param ca the one certificate that it trusts. */
  constructor(ca?: string) {
    this.#trust = ca === undefined ? {} : { ca };
  }

  /** What it sends along. */
  get cookieHeader(): string {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  /** Goes to an address, and where it leads. */
  async visit(url: string): Promise<Page> {
    return this.#follow(await this.ask(url));
  }

  /** Sends a form from the page that it leads to, and goes where that leads. */
  async submit(url: string, fields: Readonly<Record<string, string>>): Promise<Page> {
    return this.#follow(await this.post(url, fields));
  }

  /** Sends the form, and stays. */
  async post(url: string, fields: Readonly<Record<string, string>>): Promise<Page> {
    const body = new URLSearchParams(fields).toString();
    const headers = { Origin: new URL(url).origin, 'Content-Type': 'application/x-www-form-urlencoded' };
    return this.ask(url, { method: 'POST', headers, body });
  }

  /** Goes to an address that needs a login, and picks the account at the development login service. */
  async logIn(url: string, account = 'test0001'): Promise<Page> {
    const choices = await this.visit(url);
    if (!choices.body.includes(`name="account" value="${account}"`)) {
      throw new Error(`${choices.url} (${choices.status}) does not offer ${account}:\n${choices.body}`);
    }
    return this.submit(choices.url, { account });
  }

  /** Opens a socket from a page of that origin; resolves to the first message and the socket. */
  async connect(
    url: string,
    origin: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly said: string; readonly socket: WebSocket }> {
    const socket = this.open(url, { Origin: origin, ...headers });
    const said = await new Promise<string>((resolve, reject) => {
      socket.once('message', (data) => resolve(String(data))).once('error', reject);
    });
    return { said, socket };
  }

  /** Begins to open a socket. */
  open(url: string, headers: Readonly<Record<string, string>>): WebSocket {
    return new WebSocket(url, { headers: { Cookie: this.cookieHeader, ...headers }, ...this.#trust });
  }

  /** Sends one request, as a browser that navigates does or, where it accepts no HTML, as a script of a page does. */
  async ask(
    url: string,
    options: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string } = {},
  ): Promise<Page> {
    const { method = 'GET', headers = {}, body } = options;
    const mode = (headers['Accept'] ?? 'text/html').includes('text/html') ? 'navigate' : 'cors';
    const navigation = { Accept: 'text/html,*/*;q=0.8', 'Sec-Fetch-Mode': mode, Cookie: this.cookieHeader };
    const send = url.startsWith('https:') ? tlsRequest : request;
    const page = await new Promise<Page>((resolve, reject) => {
      // Without an agent: a connection for each request, so that nothing stays open.
      const complete = { method, agent: false, headers: { ...navigation, ...headers }, ...this.#trust } as const;
      const sent = send(url, complete, (response) => {
        const { statusCode = 0 } = response;
        text(response).then(
          (read) => resolve({ url, status: statusCode, headers: response.headers, body: read }),
          reject,
        );
      });
      sent.once('error', reject).end(body);
    });
    this.#remember(page);
    return page;
  }

  async #follow(first: Page): Promise<Page> {
    let page = first;
    for (let hops = 0; page.headers.location !== undefined; hops++) {
      if (hops === 10) throw new Error(`${first.url} leads round in circles, lately to ${page.url}`);
      page = await this.ask(new URL(page.headers.location, page.url).href);
    }
    return page;
  }

  #remember({ headers }: Page): void {
    for (const cookie of headers['set-cookie'] ?? []) {
      const [, name, value] = /^([^=]*)=([^;]*)/.exec(cookie) as unknown as [string, string, string];
      if (value === '') this.#cookies.delete(name);
      else this.#cookies.set(name, value);
      // The marker of a login just made says nothing but 1.
      if (name !== 'webauth-done') this.secrets.add(value);
    }
    const { location = '' } = headers;
    const query = URL.canParse(location) ? new URL(location).searchParams : new URLSearchParams();
    const encoded = query.get('WLS-Response') ?? '';
    for (const secret of [query.get('params') ?? '', encoded, encoded.split('!').at(-1) ?? ''])
      this.secrets.add(secret);
    this.secrets.delete('');
  }
}
