import { spawnSync } from 'node:child_process';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { WebSocket } from 'ws';
import type { AcceptOptions } from '../src/websocket/index.js';
import { root, run } from './processes.js';
import { socketSite } from './sockets.js';

// The credentials as a client sends and understands them that knows nothing of us: Python's `websockets`.
const site = socketSite();
const PYTHON = '/usr/bin/python3';
const JUPYTER = 'v1.token.websocket.jupyter.org';

/** What the client is to do. */
interface Task {
  readonly uri: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly subprotocols?: readonly string[];
  readonly send?: readonly string[];
}

/** A ticket or token, and what ends what it stands for. */
interface Given {
  readonly secret: string;
  readonly end: () => Promise<unknown>;
}

interface Way {
  readonly name: string;
  readonly credential: 'bearer' | 'basic' | 'query' | 'subprotocol';
  readonly task: (secret: string) => Task;
  /** What the client sees of a wrong one. */
  readonly refusal: { readonly status: number; readonly challenge: string | null };
  readonly selected?: string;
  readonly takesTokens: boolean;
}

const basicRefusal = {
  status: 401,
  get challenge() {
    return `Basic realm="${site.origin}", charset="UTF-8"`;
  },
};

const ways: readonly Way[] = [
  {
    name: 'basic, with the principal as user',
    credential: 'basic',
    task: (secret) => ({ uri: address(`test0001:${secret}@`) }),
    refusal: basicRefusal,
    takesTokens: true,
  },
  {
    name: 'basic, with `token` as user',
    credential: 'basic',
    task: (secret) => ({ uri: address(`token:${secret}@`) }),
    refusal: basicRefusal,
    takesTokens: true,
  },
  {
    name: 'bearer',
    credential: 'bearer',
    task: (secret) => ({ uri: address(), headers: { Authorization: `Bearer ${secret}` } }),
    refusal: { status: 401, challenge: 'Bearer error="invalid_token"' },
    takesTokens: true,
  },
  {
    name: 'query',
    credential: 'query',
    task: (secret) => ({ uri: `${address()}?ticket=${secret}` }),
    refusal: {
      status: 401,
      get challenge() {
        return `Ucam-WebAuth realm="${site.origin}"`;
      },
    },
    takesTokens: false,
  },
  {
    name: 'subprotocol',
    credential: 'subprotocol',
    task: (secret) => ({ uri: address(), subprotocols: [JUPYTER, `${JUPYTER}.${secret}`] }),
    refusal: { status: 403, challenge: null },
    selected: JUPYTER,
    takesTokens: true,
  },
];

describe.skipIf(!findPython())('Python’s websockets', () => {
  describe.each(ways)('$name', ({ credential, task, refusal, selected = null, takesTokens }) => {
    it('is let in with a ticket, heard, and told that the session has ended', async () => {
      accept({ credentials: [credential] });
      const given = await ticket();
      expect(await untilEnded(task(given.secret), given)).toEqual(wholeLife(selected));
    });

    it.runIf(takesTokens)('is let in with an API token, and told that it was revoked', async () => {
      accept({ credentials: [credential] });
      const given = await apiToken();
      expect(await untilEnded(task(given.secret), given)).toEqual(wholeLife(selected));
    });

    it('is told the status where the ticket is wrong', async () => {
      accept({ credentials: [credential] });
      expect(await talk(task(wrong))).toEqual([{ event: 'refused', ...refusal }]);
    });

    it('is told the code where refusals close', async () => {
      accept({ credentials: [credential], rejection: 'close' });
      const closed = [{ event: 'open', subprotocol: null }, closedAs('ERR_TOKEN_INVALID')];
      const refused = [{ event: 'refused', ...refusal }];
      expect(await talk(task(wrong))).toEqual(credential === 'subprotocol' ? refused : closed);
      const given = await ticket();
      expect(await untilEnded(task(given.secret), given)).toEqual(wholeLife(selected));
    });
  });

  describe.each(['http', 'close'] as const)('firstMessage (rejection: %s)', (rejection) => {
    const options = { credentials: ['firstMessage'], rejection } as const;

    it('is let in with a ticket, heard, and told that the session has ended', async () => {
      accept(options);
      const given = await ticket();
      expect(await untilEnded({ uri: address(), send: [given.secret] }, given)).toEqual(wholeLife());
    });

    it('is told the code where the ticket is wrong', async () => {
      accept(options);
      const told = await talk({ uri: address(), send: [wrong, 'hello'] });
      expect(told).toEqual([{ event: 'open', subprotocol: null }, closedAs('ERR_TOKEN_INVALID')]);
    });
  });
});

const wrong = 'x'.repeat(43);

/** Whether this Python has it. @throws Error in continuous integration, where it has to. */
function findPython(): boolean {
  if (spawnSync(PYTHON, ['-c', 'import websockets.legacy.client']).status === 0) return true;
  const howTo = `some tests need websockets for ${PYTHON} (Debian: apt-get install python3-websockets)`;
  if (process.env['CI']) throw new Error(howTo);
  console.warn(`Left out: ${howTo}.`);
  return false;
}

/** Where the sockets are. @param user what stands before the host. */
function address(user = ''): string {
  return `ws://${user}127.0.0.1:${site.port}/live`;
}

async function ticket(): Promise<Given> {
  const { auth, cookie } = await site.logIn();
  const { ticket: secret } = await site.waa.makeTicket(cookie);
  return { secret, end: () => site.waa.endSession(auth) };
}

async function apiToken(): Promise<Given> {
  const { token: secret, handle } = await site.waa.tokens.create({ principal: 'test0001', name: 'a test', ttl: 600 });
  return { secret, end: () => site.waa.tokens.revoke('test0001', handle) };
}

/** Accepts sockets that say whose they are, and repeat what they hear. */
function accept(options: AcceptOptions): void {
  site.accept({ ptags: [], ...options });
  site.wss.on('connection', (socket: WebSocket, { auth }: IncomingMessage) => {
    socket.send(`You are ${auth?.principal}`);
    socket.on('message', (data) => socket.send(`You said ${data}`));
  });
}

/** Has the client do it, to its end. */
async function talk(task: Task): Promise<unknown[]> {
  const { stdout, stderr, status } = await run(PYTHON, [join(root, 'test/python_client.py')], {
    input: JSON.stringify(task),
  });
  expect([status, stderr]).toEqual([0, '']);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** The same with something to say, and what it was let in by ends as soon as that was heard. */
async function untilEnded(task: Task, { end }: Given): Promise<unknown[]> {
  site.wss.once('connection', (socket: WebSocket) => socket.once('message', () => void end()));
  return talk({ ...task, send: [...(task.send ?? []), 'hello'] });
}

/** All that {@link untilEnded} has the client see, if all goes well. */
function wholeLife(subprotocol: string | null = null): unknown[] {
  const messages = ['You are test0001', 'You said hello'].map((text) => ({ event: 'message', text }));
  return [{ event: 'open', subprotocol }, ...messages, closedAs('ERR_SESSION_REVOKED')];
}

function closedAs(code: string): unknown {
  return { event: 'closed', code: 4401, reason: expect.stringMatching(new RegExp(`^${code}: \\w`)) };
}
