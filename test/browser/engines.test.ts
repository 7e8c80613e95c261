import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocketServer } from 'ws';
import type { Config } from '../../src/config.js';
import { createWAA, type WAA } from '../../src/waa.js';
import { acceptUpgrades } from '../../src/websocket/index.js';
import { installedBrowsers, launchBrowser } from './browsers.js';
import { inFresh } from './helpers.js';
import { app, type Servers, startServers } from './https.js';
import { hasWebKit, WebKit } from './webkit.js';

/** Part of a page that each driver can work. */
interface Visitor {
  goto(url: string): Promise<unknown>;
  /** Waits for a button with that text, and clicks the first. */
  press(name: string): Promise<void>;
  /** Waits for the heading. */
  see(heading: string): Promise<void>;
  evaluate<T>(expression: string): Promise<T>;
}

/** Runs tests, each in a browser that has no cookies. */
interface Engine {
  inFresh(test: (visitor: Visitor) => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

type Start = (servers: Servers) => Promise<Engine>;

const engines: [name: string, start: Start][] = installedBrowsers(true).map(({ name, executablePath }) => [
  name,
  async ({ certificate, names }) => {
    const browser = await launchBrowser(executablePath, certificate, names);
    return {
      inFresh: (test) => inFresh(browser, {}, (page) => test(toVisitor(page))),
      close: () => browser.close(),
    };
  },
]);
if (hasWebKit()) engines.push(['WebKit', startWebKit]);

function toVisitor(page: Page): Visitor {
  return {
    goto: (url) => page.goto(url),
    press: (name) => page.getByRole('button', { name }).first().click(),
    see: (name) => page.getByRole('heading', { name }).waitFor(),
    evaluate: (expression) => page.evaluate(expression),
  };
}

async function startWebKit({ names }: Servers): Promise<Engine> {
  const browser = await WebKit.start(names);
  return {
    inFresh: (test) =>
      browser.inFresh((page) =>
        test({
          goto: (url) => page.goto(url),
          press: (name) => page.click(`//button[contains(., '${name}')]`),
          see: async (heading) => void (await page.text(`//h1[contains(., '${heading}')]`)),
          evaluate: (expression) => page.evaluate(expression),
        }),
      ),
    close: () => browser.close(),
  };
}

/** Opens a socket. @returns its first message and, as `ended`, its close event. */
const openSocket = (path: string) => `new Promise((resolve) => {
  const socket = new WebSocket('${app.replace('http', 'ws')}${path}');
  socket.onmessage = ({ data }) => resolve(data);
  globalThis.ended = new Promise((resolve) => {
    let hasOpened = false;
    socket.onopen = () => { hasOpened = true; };
    socket.onclose = ({ code, reason, wasClean }) => resolve({ hasOpened, code, reason, wasClean });
  });
  ended.then(() => resolve('closed'));
})`;

describe.each(engines)('the basic path in %s', (_name, start) => {
  let servers: Servers;
  let engine: Engine;
  let waa: WAA;
  const wss = new WebSocketServer({ noServer: true });

  beforeAll(async () => {
    let config!: Config;
    servers = await startServers(
      (_, response) => response.end(),
      (server, _auth, complete) => {
        config = complete;
        server.get('/page', (_, response) => void response.send('<!doctype html><title>Page</title>'));
      },
    );
    waa = createWAA(config);
    acceptUpgrades(servers.application.server, wss, waa, { path: '/closing', rejection: 'close' });
    engine = await start(servers);
  });
  afterAll(async () => {
    await engine?.close();
    await Promise.all([waa?.close(), servers?.close()]);
  });

  async function logIn(visitor: Visitor): Promise<void> {
    await visitor.goto(app);
    await visitor.press('test0001');
    await visitor.see('You are test0001');
    await visitor.goto(`${app}/page`);
  }

  it('logs in before a guarded page, opens a socket, and closes it with 4401 at logout', async () => {
    await engine.inFresh(async (visitor) => {
      await logIn(visitor);
      expect(await visitor.evaluate(openSocket('/live'))).toBe('for test0001');
      await visitor.evaluate(`fetch('/webauth/logout', { method: 'POST' }).then(({ status }) => status)`);
      expect(await visitor.evaluate('ended')).toEqual({
        hasOpened: true,
        code: 4401,
        reason: 'ERR_SESSION_REVOKED: the session was ended',
        wasClean: true,
      });
    });
  });

  it('logs out by the button, and shows why a socket is rejected afterwards', async () => {
    await engine.inFresh(async (visitor) => {
      await logIn(visitor);
      await visitor.goto(`${app}/webauth/logout`);
      await visitor.press('Log out');
      await visitor.see('You are logged out of this site');
      await visitor.goto(`${app}/page`);
      expect(await visitor.evaluate(openSocket('/closing'))).toBe('closed');
      expect(await visitor.evaluate('ended')).toMatchObject({
        code: 4401,
        reason: expect.stringMatching(/^ERR_SESSION_MISSING: /),
      });
    });
  });
});
