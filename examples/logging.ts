// What happens, as lines of JSON, written by pino: npm install pino
//
//   NODE_ENV=development npx tsx examples/logging.ts
import express from 'express';
import { pino } from 'pino';
import { createWAA } from 'ucam-webauth';
import { webauth } from 'ucam-webauth/express';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
const logger = pino({ level: process.env['LOG_LEVEL'] ?? 'info' });
const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));

const waa = createWAA({
  baseUrl: `http://localhost:${port}`,
  wls: wls.profile,
  // The levels are four of pino's own. `time` stays out, since pino gives each line its own. In the other fields there
  // never is a cookie, a token, a signature or a query.
  log: ({ time, level, message, ...fields }) => logger[level](fields, message),
});
const auth = webauth(waa);
const app = express();

app.use(auth);
app.get('/', auth.require(), (request, response) => {
  const { principal, sessionId } = request.auth ?? {};
  // The same two names as in the events: all that happened in one session can be found by them.
  logger.info({ event: 'hello', principal, sessionId }, 'somebody was greeted');
  response.send(`Hello, ${principal}. <a href="/webauth/logout">Log out</a>`);
});
app.use(auth.failurePage);

app.listen(port, '127.0.0.1', () => logger.info(`Listening on ${waa.origin}/`));
