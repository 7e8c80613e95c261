import { once } from 'node:events';
import type { IncomingMessage, RequestListener } from 'node:http';
import { createServer, request as httpsRequest, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Browser, BrowserContext, Cookie, Page } from 'playwright-core';
import { expect } from 'vitest';
import { type Certificate, makeCertificate } from '../../src/cli/certificate.js';
import type { AuthResponse } from '../../src/response.js';
import { createWLS, type WLS } from '../../src/wls/index.js';
import { type Launch, launchBrowser, type Names } from './browsers.js';
import { type Application, type Arrival, type Routes, runApplication, stop } from './helpers.js';

/** What the application, its sibling, the login service and somebody else's port of the application's host are called. */
export const app = 'https://app.cam.ac.uk';
export const sibling = 'https://evil.cam.ac.uk';
export const login = 'https://login.cam.ac.uk';
export const otherPort = 'https://app.cam.ac.uk:8443';

export const sessionCookie = '__Host-webauth-session';
export const loginCookie = '__Host-webauth-login';

/** The four of them, each a server on loopback. */
export interface Servers {
  readonly application: Application;
  readonly wls: WLS;
  /** What came to the sibling and to the other port. */
  readonly overheard: Arrival[];
  /** Where the application is, for programs that do not know its name. */
  readonly port: number;
  readonly certificate: string;
  /** Its private key. */
  readonly key: string;
  /** Further ones that a test asked for, by origin, which answer nothing yet. */
  readonly further: ReadonlyMap<string, Server>;
  /** Where all of them listen. */
  readonly names: Names;
  close(): Promise<void>;
}

/** The servers, and a browser that reaches them under their names and nothing else. */
export interface Domain extends Servers {
  readonly browser: Browser;
}

/**
 * Starts the servers, and a browser.
 *
 * @param executablePath path of a Chromium or Firefox.
 * @param answer what the sibling and the other port serve.
 * @param origins of further servers.
 * @param launch starts the browser, if it is a Chromium.
 */
export async function startDomain(
  executablePath: string,
  answer: RequestListener,
  routes?: Routes,
  origins: readonly string[] = [],
  launch?: Launch,
): Promise<Domain> {
  const servers = await startServers(answer, routes, origins);
  const browser = await launchBrowser(executablePath, servers.certificate, servers.names, launch);
  const close = async () => {
    await browser.close();
    await servers.close();
  };
  return { ...servers, browser, close };
}

/** Starts the servers alone, for a browser that Playwright does not drive. */
export async function startServers(
  answer: RequestListener,
  routes?: Routes,
  origins: readonly string[] = [],
): Promise<Servers> {
  const certificate = makeCertificate(['cam.ac.uk', '*.cam.ac.uk']);
  const overheard: Arrival[] = [];
  const wls = createWLS({ dangerouslyListenBeyondLoopback: true });
  const servers = {
    app: await listen(certificate),
    login: await listen(certificate, wls.handler),
    theirs: await listen(certificate, (request, response) => {
      const { method, url, headers } = request;
      overheard.push({ line: `${method} ${url}`, cookie: headers.cookie ?? '', origin: headers.origin });
      answer(request, response);
    }),
  };
  const profile = {
    ...wls.profile,
    authUrl: `${login}/auth/authenticate.html`,
    logoutUrl: `${login}/auth/logout.html`,
  };
  const application = runApplication(servers.app, { baseUrl: app, secret: 'a1'.repeat(32), wls: profile }, routes);
  const { theirs } = servers;
  const further = new Map<string, Server>();
  for (const origin of origins) further.set(origin, await listen(certificate));
  const names: [string, Server][] = [
    [app, servers.app],
    [login, servers.login],
    [sibling, theirs],
    [otherPort, theirs],
    ...further,
  ];
  return {
    application,
    wls,
    overheard,
    port: portOf(servers.app),
    certificate: certificate.cert,
    key: certificate.key,
    further,
    names: portsOf(names),
    close: async () => {
      await Promise.all([application.close(), ...[servers.login, theirs, ...further.values()].map(stop)]);
    },
  };
}

/**
 * Runs a test in a browser that has nothing but these cookies of the application, and forgets what came before.
 * @param names values by name.
 */
export async function inBrowser(
  { browser, application, overheard }: Domain,
  names: Readonly<Record<string, string>>,
  test: (page: Page, context: BrowserContext) => Promise<void>,
): Promise<void> {
  const context = await browser.newContext();
  context.setDefaultTimeout(10_000);
  try {
    const common = { url: app, secure: true, httpOnly: true, sameSite: 'Lax' } as const;
    await context.addCookies(Object.entries(names).map(([name, value]) => ({ name, value, ...common })));
    for (const list of [application.arrived, application.events, application.opened, overheard]) list.length = 0;
    await test(await context.newPage(), context);
  } finally {
    await context.close();
  }
}

/** The cookies that the browser would send to the application, by name. */
export async function cookiesOf(context: BrowserContext): Promise<Record<string, Omit<Cookie, 'name'>>> {
  return Object.fromEntries((await context.cookies(app)).map(({ name, ...cookie }) => [name, cookie]));
}

/** Sends a request as a program does, which follows nothing, keeps nothing, and may claim anything. */
export async function ask({ port, certificate }: Servers, path: string, headers: Record<string, string> = {}) {
  const { host } = new URL(app);
  const sent = { host, accept: 'text/html', ...headers };
  const request = httpsRequest({ port, path, headers: sent, ...directly(certificate), agent: false }).end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of response) body += chunk;
  const { location = '', 'set-cookie': cookies = [] } = response.headers;
  return { status: response.statusCode as number, location, cookies, body };
}

/** How a program on this machine reaches a server that has a name for the browser only. */
export function directly(certificate: string) {
  return { host: '127.0.0.1', servername: new URL(app).host, ca: certificate };
}

/** A login that somebody began, and what the login service answers to it, both without a browser. */
export async function beginLogin(domain: Servers, overrides: Partial<AuthResponse> = {}, { base, name } = main) {
  const { location, cookies } = await ask(domain, `${base}/webauth/login?return=${base}/`);
  const encoded = domain.wls.respond(location, overrides);
  const path = `${base}/webauth/callback?WLS-Response=${encodeURIComponent(encoded)}`;
  return { location, path, nonce: readSetCookie(cookies, `__Host-${name}-login`) };
}

/** The session cookie of somebody who logged in without a browser. */
export async function logIn(domain: Servers, principal: string, at = main): Promise<string> {
  return readSetCookie(await cookiesOfLogin(domain, principal, at), `${at.prefix}${at.name}-session`);
}

/** The same where the session cookie has a path, and so an anchor. */
export async function logInOnPath(
  domain: Servers,
  principal: string,
  at: typeof main,
): Promise<{ readonly session: string; readonly anchor: string }> {
  const lines = await cookiesOfLogin(domain, principal, at);
  const session = readSetCookie(lines, `${at.prefix}${at.name}-session`);
  return { session, anchor: readSetCookie(lines, '__Host-webauth-session-id') };
}

async function cookiesOfLogin(domain: Servers, principal: string, at: typeof main): Promise<readonly string[]> {
  const { path, nonce } = await beginLogin(domain, { principal }, at);
  return (await ask(domain, path, { cookie: `__Host-${at.name}-login=${nonce}` })).cookies;
}

/** Where logins are served, and how their cookies begin. */
const main = { base: '', prefix: '__Host-', name: 'webauth' };

function readSetCookie(lines: readonly string[], name: string): string {
  const line = lines.find((one) => one.startsWith(`${name}=`)) ?? expect.fail(`no ${name} among ${lines}`);
  return line.slice(name.length + 1).split(';', 1)[0] as string;
}

async function listen(certificate: Certificate, handler?: RequestListener): Promise<Server> {
  const server = createServer({ ...certificate }, handler);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return server;
}

/** Local ports of servers, by `host:port`. */
function portsOf(servers: readonly [string, Server][]): Names {
  return new Map(
    servers.map(([origin, server]) => {
      const { hostname, port } = new URL(origin);
      return [`${hostname}:${port || 443}`, portOf(server)];
    }),
  );
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
