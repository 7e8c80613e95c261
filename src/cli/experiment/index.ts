import type { ServerResponse } from 'node:http';
import type { Server } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ErrorRequestHandler, Express, Request, RequestHandler, Response, Router } from 'express';
import type { Config } from '../../config.js';
import { SessionError, WebauthError } from '../../errors.js';
import type { Webauth } from '../../express/index.js';
import { sendPage } from '../../html.js';
import { sendData } from '../../http.js';
import type { Auth } from '../../session/session.js';
import { createWAA, type WAA } from '../../waa.js';
import type { WLS } from '../../wls/index.js';
import type { Certificate } from '../certificate.js';
import type { Packages } from '../packages.js';
import { type Clock, Credentials } from './credentials.js';
import { cases } from './lessons.js';
import { type Deed, Lives } from './life.js';
import { experimentPage, style } from './page.js';
import { methods, type Servers, startServers } from './servers.js';
import { Trials } from './trials.js';
import type { Case, Method } from './types.js';
import { Wires } from './wire.js';

/** What the experiment needs of the demonstration. */
export interface ExperimentOptions {
  /** The application's own server, and what it logs people in with. */
  readonly server: Server;
  readonly waa: WAA;
  readonly auth: Webauth;
  readonly wls: WLS;
  /** Of `waa`, as far as others can have the same. */
  readonly shared: Config;
  readonly packages: Packages;
  readonly certificate: Certificate | undefined;
  /** Of the first of its servers; 0 for free ones. */
  readonly port: number;
}

export interface Experiment {
  /** Adds the page, its scripts and what they ask for. */
  addRoutes(app: Express): void;
  close(): Promise<void>;
}

/** Starts the servers on which ways of opening a socket are tried. */
export async function startExperiment(options: ExperimentOptions): Promise<Experiment> {
  const { server, waa, wls, shared, packages, certificate, port } = options;
  const wires = new Wires();
  const servers = await startServers({ waa, wires, packages, certificate, port });
  const clocks = { right: clock(shared, 0), late: clock(shared, 20), later: clock(shared, 40) };
  const credentials = new Credentials(clocks, wls);
  const trials = new Trials({ waa, wires, servers, credentials, packages, certificate });
  const lives = new Lives(server, waa, wires, packages);
  return {
    addRoutes: (app) => addRoutes(app, options, { wires, servers, credentials, trials, lives }),
    close: async () => {
      servers.close();
      await Promise.all(Object.values(clocks).map((one) => one.waa.close()));
    },
  };
}

function clock(shared: Config, lateness: number): Clock {
  return { lateness, waa: createWAA({ ...shared, now: () => new Date(Date.now() - lateness * 1000) }) };
}

interface Parts {
  readonly wires: Wires;
  readonly servers: Servers;
  readonly credentials: Credentials;
  readonly trials: Trials;
  readonly lives: Lives;
}

function addRoutes(app: Express, { auth, waa, packages: { express } }: ExperimentOptions, parts: Parts): void {
  const { servers } = parts;
  const router = express.Router();
  router.use(auth.require({ ptags: [] }), holdBack(), express.json({ limit: 1024 }));
  router.get('/', (_, response) => {
    sendPage(response, 'Experiment', experimentPage(servers, waa.origin), {
      style,
      module: '/cli/page/experiment.js',
      connect: ["'self'", ...[waa.origin, ...Object.values(servers.origins)].map((one) => one.replace(/^http/, 'ws'))],
      frames: [servers.origins.frame, servers.foreign],
    });
  });
  addTries(router, parts);
  addLives(router, parts);
  app.use('/experiment', router, refuseBroken);
  // As they are in dist/, so that they find each other.
  for (const folder of ['/cli/page', '/client']) {
    app.use(folder, express.static(fileURLToPath(new URL(`../..${folder}`, import.meta.url)), scripts));
  }
}

const scripts = {
  index: false,
  setHeaders: (response: ServerResponse) => void response.setHeader('X-Content-Type-Options', 'nosniff'),
} as const;

function addTries(router: Router, { trials }: Parts): void {
  router.post(
    '/tries',
    later(async (request, response) => {
      const { method, which } = (request.body ?? {}) as { readonly method?: unknown; readonly which?: unknown };
      if (!isMethod(method) || !isCase(which)) return refuse(response, 400, 'that is no method and case');
      sendData(response, 200, await trials.begin(method, which, whoOf(request)));
    }),
  );
  router.get('/tries/:id', (request, response) => {
    const report = trials.report(request.params.id, whoOf(request).principal);
    if (report) sendData(response, 200, report);
    else refuse(response, 404, 'you have made no such try lately');
  });
}

function addLives(router: Router, { wires, credentials, lives }: Parts): void {
  router.post('/lives', (request, response) => {
    sendData(response, 200, { id: wires.begin(whoOf(request).principal) });
  });
  router.post(
    '/ticket',
    later(async (request, response) => sendData(response, 200, await credentials.ticket(whoOf(request)))),
  );
  router.get('/lives/:id', (request, response) => {
    const found = wires.of(request.params.id, whoOf(request).principal);
    if (found) sendData(response, 200, { closed: found.wires.at(-1)?.closed });
    else refuse(response, 404, 'you have no such socket');
  });
  router.post(
    '/lives/:id/:deed',
    later(async (request, response) => {
      const { id, deed } = request.params;
      const isDone = isDeed(deed) && (await lives.act(deed, String(id), whoOf(request).principal));
      if (isDone) sendData(response, 200, {});
      else refuse(response, 404, 'you have no such socket open');
    }),
  );
}

/** Express 4 does not wait for what a handler does. */
function later(handle: (request: Request, response: Response) => Promise<void>): RequestHandler {
  return (request, response, next) => void handle(request, response).catch(next);
}

/** Lets so much in and no more, since each try leaves something behind for a while. */
function holdBack(): RequestHandler {
  let [count, until] = [0, 0];
  return (request, _, next) => {
    const now = performance.now();
    if (now > until) [count, until] = [0, now + 30_000];
    if (request.method === 'POST') count += 1;
    next(count > MOST ? new SessionError('ERR_LIMIT_REACHED', `at most ${MOST} tries in half a minute`) : undefined);
  };
}

const MOST = 400;

/** What is not even JSON, or too much of it. */
const refuseBroken: ErrorRequestHandler = (error, _request, response, next) => {
  const isTheirs = !(error instanceof WebauthError) && error.status >= 400 && error.status < 500;
  if (isTheirs) refuse(response, error.status, 'that is nothing this address takes');
  else next(error);
};

function refuse(response: Response, status: number, message: string): void {
  sendData(response, status, { error: { message } });
}

/** Whoever comes here has passed `require`. */
function whoOf(request: Request): Auth {
  return request.auth as Auth;
}

function isMethod(value: unknown): value is Method {
  return methods.includes(value as Method);
}

function isCase(value: unknown): value is Case {
  return typeof value === 'string' && Object.hasOwn(cases, value);
}

function isDeed(value: unknown): value is Deed {
  return value === 'end' || value === 'drop';
}
