// A program that follows the feed of ../feed.ts, for as long as its token is good.
//
//   FEED_TOKEN_FILE=token npx tsx examples/feed/client.ts
//
// The token is in a file, or in FEED_TOKEN. It is no argument: everybody on a machine can see those of all programs.
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { WebSocket } from 'ws';

const { FEED_URL: url = 'ws://localhost:3000/feed', FEED_TOKEN_FILE: file, FEED_TOKEN: given } = process.env;
const token = (file ? readFileSync(file, 'utf8') : (given ?? '')).trim();
/** Milliseconds without a sign of life, after which a connection counts as lost: the server pings twice in them. */
const SILENCE = 70_000;
let failures = 0;

const { protocol, hostname } = new URL(url);
if (token === '') stop('There is no token: make one, and name its file in FEED_TOKEN_FILE.');
else if (protocol !== 'wss:' && hostname !== 'localhost') stop(`A token is not sent unencrypted to ${url}: use wss.`);
else follow();

function follow(): void {
  const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` }, handshakeTimeout: 15_000 });
  const silence = setTimeout(() => socket.terminate(), SILENCE);
  let answer = '';
  socket.on('ping', () => silence.refresh());
  socket.on('message', (data) => {
    failures = 0;
    console.log(String(data));
  });
  socket.on('unexpected-response', async (_request, response) => {
    answer = await describe(response);
    socket.terminate();
  });
  socket.on('error', (error) => console.error(answer || error.message));
  socket.on('close', (code) => {
    clearTimeout(silence);
    if (code === 4401) stop('The token was revoked, or is over: make a new one.');
    else if (process.exitCode === undefined) setTimeout(follow, pause());
  });
}

/** What a server says that opens no socket. Where it is the token, that will not get better: it is not sent again. */
async function describe(response: IncomingMessage): Promise<string> {
  const { statusCode = 0 } = response;
  const isRefused = statusCode === 401 || statusCode === 403;
  if (isRefused) process.exitCode = 1;
  const said = await text(response).catch(() => '');
  return `${isRefused ? 'The token was refused' : 'Not now'} (${statusCode}): ${said}`;
}

/** Twice as long each time, up to a minute; and by chance, so that not all programs come back at once. */
function pause(): number {
  const longest = Math.min(60_000, 1000 * 2 ** failures);
  failures += 1;
  return longest * (0.5 + Math.random() / 2);
}

function stop(why: string): void {
  console.error(why);
  process.exitCode = 1;
}
