import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

// The client has the types of a page, which those of Node contradict.
const entry: string = new URL('../src/client/index.ts', import.meta.url).href;
const { connect } = await import(entry);

/** Socket of a page whose events a test chooses. */
class FakeSocket extends EventTarget {
  static readonly OPEN = 1;
  static readonly opened: FakeSocket[] = [];
  readyState = 0;
  protocol = '';
  binaryType = 'blob';

  constructor() {
    super();
    FakeSocket.opened.push(this);
  }

  send(): void {}
  close(): void {}

  /** Reports the end of the socket. */
  end(code: number, reason = ''): void {
    this.dispatchEvent(Object.assign(new Event('close'), { code, reason }));
  }
}

let said: object[];
let connection: { close(): void };

/** Connects, and returns the socket once the client has made it. */
async function open(credential: string): Promise<FakeSocket> {
  said = [];
  connection = connect('/live', { credential, onStatus: (status: object) => void said.push(status) });
  return next(1);
}

async function next(count: number): Promise<FakeSocket> {
  await vi.waitFor(() => expect(FakeSocket.opened).toHaveLength(count));
  return FakeSocket.opened.at(-1) as FakeSocket;
}

beforeEach(() => {
  FakeSocket.opened.length = 0;
  vi.stubGlobal('WebSocket', FakeSocket);
  vi.stubGlobal('location', { href: 'https://app.cam.ac.uk/page', origin: 'https://app.cam.ac.uk' });
  vi.stubGlobal('addEventListener', () => {});
  vi.stubGlobal('fetch', async () => Response.json({ ticket: 'a ticket' }));
});
afterEach(() => {
  connection.close();
  vi.unstubAllGlobals();
});

describe.each(['cookie', 'query', 'firstMessage'] as const)(
  'connect(), by a close code without open, with %s',
  (credential) => {
    it('reports a rejection for 4403, and does not connect again', async () => {
      const socket = await open(credential);
      socket.end(4403, 'ERR_PRINCIPAL_REFUSED: not you');
      expect(said.at(-1)).toEqual({ state: 'refused', code: 'ERR_PRINCIPAL_REFUSED', reason: 'not you' });
      expect(FakeSocket.opened).toHaveLength(1);
    });

    it.each([1000, 3000, 4000])('reports the end for %i', async (code) => {
      const socket = await open(credential);
      socket.end(code, 'enough');
      expect(said.at(-1)).toEqual({ state: 'closed', code, reason: 'enough' });
    });

    it.each([1001, 1005, 1012, 4408, 4429])('connects again for %i', async (code) => {
      const socket = await open(credential);
      socket.end(code);
      expect(said.at(-1)).toMatchObject({ state: 'down', reason: `the socket was closed with ${code}` });
    });

    it('connects again at once for the first 4401, and later for the second', async () => {
      const socket = await open(credential);
      socket.end(4401, 'ERR_SESSION_EXPIRED: expired');
      const second = await next(2);
      second.end(4401, 'ERR_SESSION_EXPIRED: expired');
      expect(said.at(-1)).toMatchObject({ state: 'down', reason: 'ERR_SESSION_EXPIRED: expired' });
    });

    it('takes 1006 for a handshake that failed', async () => {
      const socket = await open(credential);
      socket.end(1006);
      await vi.waitFor(() =>
        expect(said.at(-1)).toMatchObject({ state: 'down', reason: 'the socket could not be opened' }),
      );
    });
  },
);
