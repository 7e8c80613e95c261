import { fetchTicket } from '../../client/index.js';
import type { Case, Method, Plan, Report, Seen, Sender } from '../experiment/types.js';
import { ask } from './ask.js';

/** A try, and what came of it. */
export interface Outcome extends Report {
  readonly method: Method;
  readonly which: Case;
  readonly by: Sender;
  readonly seen: readonly Seen[];
}

/** What is given to the browser to open a socket with. */
interface Opening {
  readonly url: string;
  readonly protocols: readonly string[];
  readonly first?: string;
}

/** Milliseconds. */
const PATIENCE = 10_000;

/** Tries one way in one case: the server plans it, the browser does it, and the server says what arrived. */
export async function runTrial(method: Method, which: Case): Promise<Outcome> {
  const plan = await ask<Plan>('POST', '/experiment/tries', { method, which });
  const seen = plan.seen ?? (await run(plan, method, which));
  const report = await ask<Report>('GET', `/experiment/tries/${plan.id}`);
  return { ...report, method, which, by: plan.by, seen };
}

async function run(plan: Plan, method: Method, which: Case): Promise<Seen[]> {
  if (method === 'frame') await spendInFrame(new URL(plan.url), plan.id);
  const opening = await prepare(plan, method);
  if (plan.from !== undefined) return [await openElsewhere(opening, plan.from, plan.by === 'sandboxed')];
  const seen = [await open(opening)];
  if (which === 'reused') seen.push(await open(opening));
  return seen;
}

async function prepare({ url, ticket: given }: Plan, method: Method): Promise<Opening> {
  if (method === 'cookie' || method === 'frame') return { url, protocols: [] };
  const ticket = given ?? (await fetchTicket());
  if (method === 'query') return { url: `${url}?ticket=${ticket}`, protocols: [] };
  if (method === 'firstMessage') return { url, protocols: [], first: ticket };
  if (method === 'basic') return { url: url.replace('://', `://token:${ticket}@`), protocols: [] };
  const jupyter = 'v1.token.websocket.jupyter.org';
  return { url, protocols: [jupyter, `${jupyter}.${ticket}`] };
}

/** Opens a socket, and closes it when it has said something. */
function open({ url, protocols, first }: Opening): Promise<Seen> {
  const socket = new WebSocket(url, [...protocols]);
  let seen: Seen = { opened: false };
  const slow = setTimeout(() => socket.close(), PATIENCE);
  return new Promise((resolve) => {
    socket.onopen = () => {
      seen = { opened: true };
      if (first) socket.send(first);
    };
    socket.onmessage = ({ data }) => {
      seen = { opened: true, said: String(data) };
      socket.close();
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(slow);
      resolve('said' in seen ? seen : { ...seen, code, reason });
    };
  });
}

/** Has a page of another origin open it, in a hidden frame. */
async function openElsewhere(opening: Opening, from: string, isSandboxed: boolean): Promise<Seen> {
  const frame = document.createElement('iframe');
  if (isSandboxed) frame.setAttribute('sandbox', 'allow-scripts');
  // What is in a sandbox has no origin by which it could be named.
  const { seen } = await talk<{ seen: Seen }>(frame, `${from}/`, isSandboxed ? 'null' : from, opening);
  return seen;
}

/** Has a hidden frame of the sockets' origin spend a ticket for a cookie of that origin. */
async function spendInFrame({ protocol, host }: URL, id: string): Promise<void> {
  const origin = `${protocol.replace('ws', 'http')}//${host}`;
  const ticket = await fetchTicket();
  const frame = document.createElement('iframe');
  const said = await talk<{ ok: boolean; message?: string }>(frame, `${origin}/webauth/frame?try=${id}`, origin, {
    ticket,
  });
  if (!said.ok) throw new Error(`The frame got no cookie: ${said.message}.`);
}

/** Shows a hidden frame, posts it a message when it is ready, and resolves to its answer. */
async function talk<Answer>(frame: HTMLIFrameElement, src: string, origin: string, message: object): Promise<Answer> {
  const stop = new AbortController();
  frame.hidden = true;
  frame.src = src;
  try {
    return await new Promise((resolve, reject) => {
      const hear = (event: MessageEvent) => {
        if (event.source !== frame.contentWindow || event.origin !== origin) return;
        if (event.data.ready) frame.contentWindow?.postMessage(message, origin === 'null' ? '*' : origin);
        else resolve(event.data);
      };
      addEventListener('message', hear, { signal: stop.signal });
      setTimeout(() => reject(new Error(`The page at ${new URL(src).origin} did not answer.`)), PATIENCE);
      document.body.append(frame);
    });
  } finally {
    stop.abort();
    frame.remove();
  }
}
