import { X509Certificate } from 'node:crypto';
import type { LogEvent } from '../config.js';
import { webauth } from '../express/index.js';
import { sendPage } from '../html.js';
import { MemoryStore } from '../session/memory.js';
import { newSecret } from '../session/secret.js';
import { createWAA } from '../waa.js';
import { acceptUpgrades } from '../websocket/index.js';
import { createWLS } from '../wls/index.js';
import { type Certificate, loopback, makeCertificate } from './certificate.js';
import { homePage, membersPage, notFoundPage, type Seen, script, welcomePage } from './demo-pages.js';
import { startExperiment } from './experiment/index.js';
import { loadPackages } from './packages.js';
import { startServer } from './server.js';
import { type Call, interrupted, printable, readPort } from './usage.js';

/** Runs a demonstration application with a login service of its own until it is told to stop. */
export async function demo({ options }: Call): Promise<number> {
  process.env['NODE_ENV'] ||= 'development';
  const told = interrupted();
  const ports = [readPort(options.port, 8710), readPort(options['wls-port'], 8711)] as const;
  const certificate = options.https ? makeCertificate(loopback) : undefined;
  const running = await startDemo(...ports, certificate);
  console.log(`\n  Open ${running.url}/ in a browser (end this with Ctrl-C).\n`);
  if (certificate) console.log(introduce(certificate));
  await told;
  await running.close();
  return 0;
}

/** What people need to know of it before their browser tells them. */
function introduce({ cert }: Certificate): string {
  return `  Its certificate was made just now. The SHA-256 fingerprint, which the browser can show too, is
  ${new X509Certificate(cert).fingerprint256}

  The browser will warn you once, since nobody vouches for this certificate: choose "Advanced" (in
  Safari, "Show Details"), and go on to localhost.
`;
}

/** With a certificate, on https; the login service is on http in any case. */
async function startDemo(
  port: number,
  wlsPort: number,
  certificate: Certificate | undefined,
): Promise<{ url: string; close(): Promise<void> }> {
  const packages = await loadPackages();
  const { express, WebSocketServer } = packages;
  const wls = createWLS();
  await wls.listen(wlsPort).catch((error) => Promise.reject(explain(error.cause ?? error)));
  const local = await startServer(port, certificate).catch(async (error) => {
    // Left open, it would keep this process alive.
    await wls.close();
    throw explain(error);
  });
  const { server, origin: url } = local;
  const app = express();
  server.on('request', app);

  const seen = new Map<string, Seen>();
  const store = new MemoryStore();
  const shared = { baseUrl: url, wls: wls.profile, secret: newSecret(), store };
  const waa = createWAA({
    ...shared,
    desc: 'the ucam-webauth demonstration',
    listSessions: true,
    log: printEvent,
    onLogin: (auth, response) => remember(seen, auth.sessionId, { response, at: new Date() }),
  });
  const auth = webauth(waa);
  const firstPort = port === 0 ? 0 : Math.max(port, wlsPort) + 1;
  const experiment = await startExperiment({ server, waa, auth, wls, shared, packages, certificate, port: firstPort });
  app.disable('x-powered-by');
  app.use(auth);
  app.get('/', async (request, response) => {
    const { auth: who } = request;
    if (!who) return sendPage(response, 'ucam-webauth', welcomePage(waa));
    const connect = [`${url.replace('http', 'ws')}/live`];
    const page = homePage(waa, who, await waa.sessions.list(who.principal, who), seen.get(who.sessionId));
    sendPage(response, 'ucam-webauth', page, { script, connect });
  });
  app.post('/sessions', auth.require({ ptags: [] }), express.urlencoded(), async (request, response) => {
    await waa.sessions.revoke(request.auth?.principal ?? '', String(request.body.handle));
    response.redirect(303, '/');
  });
  app.get('/any', auth.require({ ptags: [] }), (_, response) => response.redirect(303, '/'));
  app.get('/members', auth.require(), (request, response) => sendPage(response, 'Members', membersPage(request.auth)));
  experiment.addRoutes(app);
  app.use((_, response) => sendPage(response, 'Not found', notFoundPage(), { status: 404 }));
  app.use(auth.failurePage);

  const wss = new WebSocketServer({ noServer: true, maxPayload: 1024 });
  acceptUpgrades(server, wss, waa, { path: '/live', ptags: [] });
  wss.on('connection', (socket, request) => {
    const { principal } = request.auth ?? {};
    socket.on('error', () => {});
    socket.send(`You are ${principal}. The server knows from the cookie of your session.`);
    socket.on('message', (data) => socket.send(`${principal} said: ${data}`));
  });
  return {
    url,
    close: async () => {
      local.close();
      await Promise.all([experiment.close(), waa.close(), wls.close()]);
      await store.close();
    },
  };
}

function explain(error: NodeJS.ErrnoException & { port?: number }): Error {
  if (error.code !== 'EADDRINUSE') return error;
  const others = 'give other ports with --port and --wls-port (0 takes a free one)';
  return new Error(
    `port ${error.port} is in use: end what listens there, perhaps an earlier demonstration, or ${others}`,
    {
      cause: error,
    },
  );
}

function remember(seen: Map<string, Seen>, id: string, what: Seen): void {
  seen.set(id, what);
  if (seen.size > 1000) seen.delete(seen.keys().next().value as string);
}

function printEvent({ time, level, event, message, code, principal }: LogEvent): void {
  const parts = [time.toISOString().slice(11, 19), level.padEnd(5), event, code, principal, `(${message})`];
  console.log(parts.filter(Boolean).map(String).map(printable).join(' '));
}
