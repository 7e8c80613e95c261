// One server, in a process of its own: node bench/servers.mjs NAME, and what that takes. Says to its parent where it listens and what a client
// that is logged in sends, and then does what it is told, by messages `[what, ...given]`: each is one of its tasks.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import passportRaven from 'passport-raven';
import { WebSocketServer } from 'ws';
import { webauth } from '../dist/express/index.js';
import { createWAA } from '../dist/index.js';
import { MemoryStore } from '../dist/session/memory.js';
import { acceptUpgrades } from '../dist/websocket/index.js';
import { createWLS } from '../dist/wls/index.js';
import { origin } from './handshake.mjs';
import { collectAll, spent } from './measure.mjs';
import { sessionMaker } from './sessions.mjs';

/** How many tickets a session can have at a time. */
const MAX_TICKETS = 16;
/** How many sessions each person has where it does not matter: so few that none of them is ended with all others. */
const EACH = 40;
const greet = (principal) => `Hello, ${principal}.`;

/** An application of ours, and the cookie of somebody who logged in to it. */
async function ours(store = new MemoryStore()) {
  const wls = createWLS();
  const secret = randomBytes(32).toString('hex');
  const waa = createWAA({ baseUrl: origin, wls: wls.profile, secret, store, log: false });
  const { location, nonce } = waa.startLogin('/');
  const { cookie } = await waa.finishLogin(wls.respond(location), nonce);
  return { waa, store, secret, sealed: cookie, cookie: `${waa.cookies.session}=${cookie}` };
}

/** What the parent has done with sessions. */
function sessionTasks(made) {
  const { waa } = made;
  const make = sessionMaker(made);
  let round = 0;
  let sessions = [];
  const many = async (count, person) => {
    const all = [];
    for (let i = 0; i < count; i++) all.push(await make(person(i)));
    return all;
  };
  return {
    /** So many sessions, of one person or of many; the last that were made are those that are ended. */
    async sessions(count, isOne = false) {
      round += 1;
      sessions = await many(count, isOne ? () => 'everybody' : (i) => `person${round}-${Math.floor(i / EACH)}`);
      return { cookies: sessions.map((cookie) => `${waa.cookies.session}=${cookie}`) };
    },

    async tickets(count) {
      const holders = await many(Math.ceil(count / MAX_TICKETS), () => 'test0001');
      const tickets = [];
      for (let i = 0; i < count; i++) tickets.push((await waa.makeTicket(holders[i % holders.length])).ticket);
      return { tickets };
    },

    async endEach() {
      const auths = sessions.map((cookie) => waa.openSession(cookie));
      return closing(async () => {
        for (const auth of auths) await waa.endSession(auth);
      });
    },

    endAll: () => closing(() => waa.endSessions('everybody')),
  };
}

/** Microseconds spent until all sockets are closed. */
async function closing(close) {
  collectAll();
  let left = wss.clients.size;
  const all = new Promise((resolve) => {
    for (const socket of wss.clients) {
      socket.once('close', () => {
        left -= 1;
        if (left === 0) resolve();
      });
    }
  });
  const before = spent();
  await close();
  await all;
  return { spent: spent() - before };
}

/** What bare ws is to say: the same as ours. */
const REASON = 'ERR_SESSION_REVOKED: the session was ended';

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

  /** Knows nobody, and is sent the same as ours. */
  async 'bare ws'() {
    const endEach = () =>
      closing(async () => {
        for (const socket of wss.clients) socket.close(4401, REASON);
      });
    return { sockets: (server) => new WebSocketServer({ server }), tasks: { endEach } };
  },

  /** @param credential the one that it takes. */
  async acceptUpgrades(credential) {
    const made = await ours();
    const { token } = await made.waa.tokens.create({
      principal: 'test0001',
      name: 'bench',
      ttl: 3600,
      ptags: ['current'],
    });
    const sockets = (server) => {
      const wss = new WebSocketServer({ noServer: true });
      acceptUpgrades(server, wss, made.waa, { credentials: [credential] });
      return wss;
    };
    return { sockets, cookie: made.cookie, token, tasks: sessionTasks(made) };
  },
};

const {
  handler,
  sockets,
  cookie = '',
  token,
  logIn,
  tasks = {},
} = await servers[process.argv[2]](...process.argv.slice(3));
const server = createServer(handler).listen(0, '127.0.0.1');
// A server that knows its sockets has somebody who listens.
const wss = sockets?.(server).on('connection', (socket) => socket.on('error', () => {}));
await once(server, 'listening');
const { port } = server.address();
const known = {
  spent: () => ({ spent: spent() }),
  heap: () => ({ heap: collectAll() }),
  ...tasks,
};
process.on('message', async ([what, ...given]) => process.send(await known[what](...given)));
process.on('disconnect', () => process.exit());
process.send({ port, token, cookie: logIn ? await logIn(port) : cookie });
