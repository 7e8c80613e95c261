// One server, in a process of its own: node bench/servers.mjs NAME. Says to its parent where it listens and what a client
// that is logged in sends, and then, each time it is asked, how much processor time it has spent.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import passportRaven from 'passport-raven';
import { WebSocketServer } from 'ws';
import { webauth } from '../dist/express/index.js';
import { createWAA } from '../dist/index.js';
import { acceptUpgrades } from '../dist/websocket/index.js';
import { createWLS } from '../dist/wls/index.js';
import { spent } from './measure.mjs';

const origin = 'http://localhost:3000';
const greet = (principal) => `Hello, ${principal}.`;

/** An application of ours, and the cookie of somebody who logged in to it. */
async function ours(store) {
  const wls = createWLS();
  const waa = createWAA({ baseUrl: origin, wls: wls.profile, ...(store && { store }) });
  const { location, nonce } = waa.startLogin('/');
  const { cookie } = await waa.finishLogin(wls.respond(location), nonce);
  return { waa, cookie: `${waa.cookies.session}=${cookie}` };
}

async function guarded(store) {
  const { waa, cookie } = await ours(store);
  const auth = webauth(waa);
  const app = express().use(auth);
  app.get('/', auth.require(), (request, response) => response.send(greet(request.auth.principal)));
  app.use(auth.failurePage);
  return { handler: app, cookie };
}

async function redisStore() {
  const { RedisStore } = await import('../dist/session/redis.js');
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  await new Promise((closed) => probe.close(closed));
  const redis = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', ''], { stdio: 'ignore' });
  process.on('exit', () => redis.kill());
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit());
  return new RedisStore({ url: `redis://127.0.0.1:${port}` });
}

const servers = {
  /** Knows nobody; it is sent the same cookie as the one with require(). */
  async 'bare route'() {
    const app = express();
    app.get('/', (_request, response) => response.send(greet('test0001')));
    return { handler: app, cookie: (await ours()).cookie };
  },

  async 'route behind require()'() {
    return guarded();
  },

  /** With a Redis of its own. */
  async 'route behind require(), with Redis'() {
    return guarded(await redisStore());
  },

  /**
   * A session that passport made and keeps as it comes: in express-session's own memory. It is begun by `login`, as the
   * strategy does when a response is right; no genuine response that it would take as fresh can be made here.
   */
  async 'route behind passport'() {
    const app = express();
    app.use(session({ secret: 'a secret of no worth', resave: false, saveUninitialized: false }));
    passport.use(
      new passportRaven.Strategy({ audience: origin }, (principal, _response, done) => done(null, principal)),
    );
    passport.serializeUser((principal, done) => done(null, principal));
    passport.deserializeUser((principal, done) => done(null, principal));
    app.use(passport.initialize());
    app.use(passport.session());
    app.get('/begin', (request, response, next) => {
      request.login('test0001', (error) => (error ? next(error) : response.send('begun')));
    });
    const guard = (request, response, next) => (request.isAuthenticated() ? next() : response.sendStatus(401));
    app.get('/', guard, (request, response) => response.send(greet(request.user)));
    const logIn = async (port) => {
      const { headers } = await fetch(`http://127.0.0.1:${port}/begin`);
      return headers.getSetCookie()[0].split(';')[0];
    };
    return { handler: app, logIn };
  },

  async 'bare ws'() {
    return { sockets: (server) => new WebSocketServer({ server }), cookie: (await ours()).cookie };
  },

  async acceptUpgrades() {
    const { waa, cookie } = await ours();
    const sockets = (server) => {
      const wss = new WebSocketServer({ noServer: true });
      acceptUpgrades(server, wss, waa);
      return wss;
    };
    return { sockets, cookie };
  },
};

const { handler, sockets, cookie, logIn } = await servers[process.argv[2]]();
const server = createServer(handler).listen(0, '127.0.0.1');
// A server that knows its sockets has somebody who listens.
sockets?.(server).on('connection', (socket) => socket.on('error', () => {}));
await once(server, 'listening');
const { port } = server.address();
process.on('message', () => process.send({ spent: spent() }));
process.on('disconnect', () => process.exit());
process.send({ port, origin, cookie: cookie ?? (await logIn(port)) });
