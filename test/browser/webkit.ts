import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { findPrograms, freePorts } from '../processes.js';
import { type Names, startProxy } from './browsers.js';
import type { Running } from './helpers.js';

/** Whether WebKitGTK, its WebDriver and a virtual display are installed. @throws Error if absent in continuous integration. */
export function hasWebKit(): boolean {
  return findPrograms(['WebKitWebDriver', 'Xvfb']);
}

/** WebKitGTK, driven by its WebDriver (https://www.w3.org/TR/webdriver2/), on a virtual display. */
export class WebKit {
  readonly #display: ChildProcess;
  readonly #driver: ChildProcess;
  readonly #proxy: Running;
  readonly #address: string;

  private constructor(display: ChildProcess, driver: ChildProcess, proxy: Running, address: string) {
    this.#display = display;
    this.#driver = driver;
    this.#proxy = proxy;
    this.#address = address;
  }

  /** Starts the driver. @param names servers that its windows reach, all under https. */
  static async start(names: Names): Promise<WebKit> {
    const display = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '1280x1024x24', '-nolisten', 'tcp'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    });
    const [number] = (await once(createInterface(display.stdio[3] as Readable), 'line')) as [string];
    const proxy = await startProxy(names);
    const proxyUrl = proxy.url.replace('socks', 'socks5');
    const [port] = await freePorts(1);
    const driver = spawn('WebKitWebDriver', [`--port=${port}`, '--host=127.0.0.1'], {
      stdio: 'ignore',
      env: {
        ...process.env,
        DISPLAY: `:${number}`,
        // The driver's own capability for SOCKS has no effect.
        https_proxy: proxyUrl,
        all_proxy: proxyUrl,
        no_proxy: '',
        // As root, in a container, WebKit's own sandbox does not start.
        WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1',
      },
    });
    const browser = new WebKit(display, driver, proxy, `http://127.0.0.1:${port}`);
    await browser.#ready();
    return browser;
  }

  /** Runs a test in a new window that has no cookies. */
  async inFresh(test: (page: WebKitPage) => Promise<void>): Promise<void> {
    const capabilities = { alwaysMatch: { acceptInsecureCerts: true } };
    const { sessionId } = (await command(`${this.#address}/session`, 'POST', { capabilities })) as {
      sessionId: string;
    };
    const page = new WebKitPage(`${this.#address}/session/${sessionId}`);
    try {
      await test(page);
    } finally {
      await command(`${this.#address}/session/${sessionId}`, 'DELETE');
    }
  }

  async close(): Promise<void> {
    for (const started of [this.#driver, this.#display]) {
      if (started.exitCode !== null) continue;
      const exited = once(started, 'exit');
      started.kill();
      await exited;
    }
    await this.#proxy.close();
  }

  /** Waits until the driver listens: it reports that in no other way. */
  async #ready(): Promise<void> {
    for (let tries = 0; ; tries++) {
      const isReady = await command(`${this.#address}/status`, 'GET').then(
        () => true,
        () => false,
      );
      if (isReady) return;
      if (tries === 100 || this.#driver.exitCode !== null) throw new Error('WebKitWebDriver does not start');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Window of WebKitGTK. */
export class WebKitPage {
  readonly #session: string;

  constructor(session: string) {
    this.#session = session;
  }

  async goto(url: string): Promise<void> {
    await command(`${this.#session}/url`, 'POST', { url });
  }

  async back(): Promise<void> {
    await command(`${this.#session}/back`, 'POST', {});
  }

  async url(): Promise<string> {
    return (await command(`${this.#session}/url`, 'GET')) as string;
  }

  /** Clicks the element, once it is there. @param xpath for example `//button[.='Log out']`. */
  async click(xpath: string): Promise<void> {
    await command(`${await this.#element(xpath)}/click`, 'POST', {});
  }

  /** Waits for the element. @returns its text. */
  async text(xpath: string): Promise<string> {
    return (await command(`${await this.#element(xpath)}/text`, 'GET')) as string;
  }

  /** Returns the result of an expression, after its promise is settled. */
  async evaluate<T>(expression: string): Promise<T> {
    const script = `const done = arguments[0];
      Promise.resolve((${expression})).then(done, (error) => done({ thrown: String(error) }));`;
    return (await command(`${this.#session}/execute/async`, 'POST', { script, args: [] })) as T;
  }

  /** Returns the cookies of the page, including those that scripts cannot read. */
  async cookies(): Promise<readonly { readonly name: string; readonly value: string }[]> {
    return (await command(`${this.#session}/cookie`, 'GET')) as { name: string; value: string }[];
  }

  async #element(xpath: string): Promise<string> {
    const wanted = { using: 'xpath', value: xpath };
    const deadline = performance.now() + 10_000;
    for (;;) {
      try {
        const found = (await command(`${this.#session}/element`, 'POST', wanted)) as Record<string, string>;
        return `${this.#session}/element/${Object.values(found)[0]}`;
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
    }
  }
}

/** Sends a command of WebDriver. @throws Error with the driver's message. */
async function command(url: string, method: string, body?: object): Promise<unknown> {
  const response = await fetch(url, { method, ...(body ? { body: JSON.stringify(body) } : {}) });
  const { value } = (await response.json()) as { value: unknown };
  const { error, message } = (value ?? {}) as { error?: string; message?: string };
  if (!response.ok) throw new Error(`WebDriver: ${error}: ${message}`);
  return value;
}
