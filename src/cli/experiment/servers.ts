import type { IncomingMessage, RequestListener } from 'node:http';
import type { WebSocketServer } from 'ws';
import { Html, hash, html } from '../../html.js';
import type { WAA } from '../../waa.js';
import { type AcceptOptions, acceptUpgrades, socketFrame } from '../../websocket/index.js';
import type { Certificate } from '../certificate.js';
import type { Packages } from '../packages.js';
import { type LocalServer, startServer } from '../server.js';
import type { Method } from './types.js';
import type { Wires } from './wire.js';

/** What the servers are made with. */
export interface Setting {
  readonly waa: WAA;
  readonly wires: Wires;
  readonly packages: Packages;
  readonly certificate: Certificate | undefined;
  /** The first of as many as are needed; 0 for free ones. */
  readonly port: number;
}

/** Where each method is tried, and where a page is that is none of the application's. */
export interface Servers {
  readonly origins: Readonly<Record<Method, string>>;
  readonly foreign: string;
  close(): void;
}

export const methods: readonly Method[] = [
  'cookie',
  'frame',
  'query',
  'firstMessage',
  'subprotocol',
  'basic',
  'bearer',
];

/** One server for each method, at an origin of its own, and one of somebody else's. */
export async function startServers(setting: Setting): Promise<Servers> {
  const started: LocalServer[] = [];
  const close = () => {
    for (const server of started) server.close();
  };
  try {
    const origins: Partial<Record<Method, string>> = {};
    for (const method of methods) {
      const local = await start(setting, started);
      open(local, method, setting);
      origins[method] = local.origin;
    }
    const { server, origin: foreign } = await start(setting, started);
    server.on('request', foreignPage(setting.waa.origin, Object.values(origins)));
    return { origins: origins as Record<Method, string>, foreign, close };
  } catch (error) {
    close();
    throw error;
  }
}

async function start({ port, certificate }: Setting, started: LocalServer[]): Promise<LocalServer> {
  const wanted = port === 0 ? 0 : port + started.length;
  // Which ones they are matters little: the page says so.
  const local = await startServer(wanted, certificate).catch(() => startServer(0, certificate));
  started.push(local);
  return local;
}

/** Has a server take sockets by that method. */
function open({ server, origin }: LocalServer, method: Method, { waa, wires, packages }: Setting): void {
  const frame = method === 'frame' ? socketFrame(waa, { origin }) : undefined;
  wires.listen(server);
  server.on('request', frame ?? introduce(method));
  if (frame) server.on('upgrade', dropSession(waa));
  const wss = new packages.WebSocketServer({ noServer: true, maxPayload: 1024 });
  if (method === 'firstMessage') noteMessages(wss, wires);
  acceptUpgrades(server, wss, waa, { ...common, ...options[method], ...(frame && { frame }) });
  wss.on('connection', (socket, request) => {
    const who = request.auth?.principal ?? '';
    wires.noteOwner(request, who);
    socket.on('error', () => {});
    socket.send(`You are ${who}.`);
  });
}

/** For whoever comes to look, perhaps since the browser did not trust the certificate. */
function introduce(method: Method): RequestListener {
  return (_, response) => void response.end(`Here are the sockets that try ${method}. Go back to the experiment.\n`);
}

const common: AcceptOptions = { ptags: [], maxPending: 100, maxPerPrincipal: 100, deadline: 5 };

const options: Readonly<Record<Method, AcceptOptions>> = {
  cookie: { credentials: ['cookie'] },
  frame: { credentials: ['cookie'] },
  query: { credentials: ['query'] },
  firstMessage: { credentials: ['firstMessage'] },
  subprotocol: { credentials: ['subprotocol'] },
  basic: { credentials: ['basic'] },
  bearer: { credentials: ['bearer'], scopes: ['read'] },
};

/** To cookies all ports of localhost are one place. At any other host than the pages' this one would not arrive. */
function dropSession({ cookies }: WAA): (request: IncomingMessage) => void {
  return ({ headers }) => {
    const pairs = headers.cookie?.split('; ').filter((pair) => !pair.startsWith(`${cookies.session}=`)) ?? [];
    if (pairs.length > 0) headers.cookie = pairs.join('; ');
    else delete headers.cookie;
  };
}

/** What comes first is the ticket, whoever sends it. */
function noteMessages(wss: WebSocketServer, wires: Wires): void {
  const upgrade = wss.handleUpgrade;
  wss.handleUpgrade = (request, socket, head, done) =>
    upgrade.call(wss, request, socket, head, (ws, ...rest) => {
      ws.once('message', (data) => wires.noteMessage(request, String(data)));
      done(ws, ...rest);
    });
}

/** A page of somebody else's. It opens what it is told to, as an attacker's would unasked. */
function foreignPage(application: string, sockets: readonly string[]): RequestListener {
  const { text } = html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A foreign page</title>
<script data-application="${application}">${new Html(script)}</script>
`;
  const connect = sockets.map((origin) => origin.replace(/^http/, 'ws')).join(' ');
  const policy = `default-src 'none'; script-src ${hash(script)}; connect-src ${connect}; frame-ancestors ${application}`;
  const headers = {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Security-Policy': policy,
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
  };
  return (_, response) => void response.writeHead(200, headers).end(text);
}

const script = `
const { application } = document.currentScript.dataset;
function attempt({ url, protocols, first }) {
  const socket = new WebSocket(url, protocols);
  const seen = { opened: false };
  return new Promise((resolve) => {
    socket.onopen = () => {
      seen.opened = true;
      if (first) socket.send(first);
    };
    socket.onmessage = ({ data }) => {
      seen.said = data;
      socket.close();
    };
    socket.onclose = ({ code, reason }) => resolve('said' in seen ? seen : { ...seen, code, reason });
  });
}
addEventListener('message', async ({ source, origin, data }) => {
  if (source === parent && origin === application) parent.postMessage({ seen: await attempt(data) }, application);
});
parent.postMessage({ ready: true }, application);
`;
