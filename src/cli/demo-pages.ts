import { formatDate } from '../codec.js';
import { type Html, html } from '../html.js';
import type { AuthResponse } from '../response.js';
import type { ListedSession } from '../session/list.js';
import type { Auth } from '../session/session.js';
import { checks } from '../verify.js';
import type { WAA } from '../waa.js';

/** What is kept of a login, to be shown. */
export interface Seen {
  readonly response: AuthResponse;
  readonly at: Date;
}

export function welcomePage(waa: WAA): Html {
  return html`<h1>Log in with Raven, in Node</h1>
    <p>This is a small application that uses <code>ucam-webauth</code>. Nobody is logged in. The button takes you to a
      login service that runs on this machine and behaves as Raven does; it has test accounts, and asks for no
      password.</p>
    <form method="post" action="${waa.loginUrl('/')}"><p><button class="main">Log in</button></p></form>
    <p class="quiet">Once you are in, this page shows the session, the login service's answer and what was checked of it,
      and a WebSocket that the same cookie opened; and you can try all other ways of opening one. To see what else can
      happen, try an account that is no longer current, or cancel. ${waa.origin} is served to this machine only.</p>`;
}

export function homePage(waa: WAA, auth: Auth, sessions: readonly ListedSession[], seen: Seen | undefined): Html {
  return html`<h1>You are ${auth.principal}</h1>
    <div class="row">
      <form method="post" action="${waa.routes.logout}"><button>Log out</button></form>
      <form method="post" action="${waa.routes.logout}?everywhere=yes"><button>Log out everywhere</button></form>
      <a class="button" href="/members">A page for current members</a>
    </div>
    ${socketPanel()}
    ${experimentEntry()}
    ${sessionTable(auth)}
    ${sessionsPanel(sessions)}
    ${seen ? responseTables(seen) : html`<p class="quiet">The answer of the login service is no longer remembered.</p>`}
    ${inEarnest()}`;
}

export function membersPage(auth: Auth | undefined): Html {
  return html`<h1>For current members</h1>
    <p>${auth?.principal} has the ptag <code>current</code>, so this page opens. An account without it, such as
      test0401, gets 403 here.</p>
    <p><a class="button" href="/">Back</a></p>`;
}

export function notFoundPage(): Html {
  return html`<h1>Not found</h1><p>There is no page at this address.</p><p><a class="button" href="/">Back</a></p>`;
}

/** Runs in the browser: opens the socket and writes what it says. */
export const script = `
const log = document.getElementById('log');
const state = document.getElementById('state');
const form = document.getElementById('say');
const write = (text) => {
  const line = document.createElement('li');
  line.textContent = text;
  log.append(line);
  while (log.children.length > 6) log.firstChild.remove();
};
const socket = new WebSocket(location.origin.replace(/^http/, 'ws') + '/live');
socket.onopen = () => { state.textContent = 'open'; state.className = 'good'; form.hidden = false; };
socket.onmessage = (event) => write(event.data);
socket.onclose = (event) => {
  state.textContent = 'closed (' + event.code + (event.reason ? ', ' + event.reason : '') + ')';
  state.className = 'bad';
  form.hidden = true;
  document.getElementById('after').hidden = false;
};
form.onsubmit = (event) => {
  event.preventDefault();
  socket.send(form.elements.text.value);
  form.reset();
};
for (const time of document.querySelectorAll('time')) time.textContent = new Date(time.dateTime).toLocaleString();
const ends = document.getElementById('ends');
const left = document.getElementById('left');
const tick = () => {
  const seconds = Math.max(0, Math.round((Date.parse(ends.dateTime) - Date.now()) / 1000));
  left.textContent = ', in ' + Math.floor(seconds / 60) + ' min ' + seconds % 60 + ' s';
};
tick();
setInterval(tick, 1000);
`;

function socketPanel(): Html {
  return html`<h2 id="live">A WebSocket, opened with the same cookie</h2>
    <div class="panel">
      <p role="status">It is <strong id="state">opening</strong>.</p>
      <noscript><p>Without JavaScript it stays so: this page opens it by a script.</p></noscript>
      <ul id="log" aria-live="polite" aria-labelledby="live"></ul>
      <form id="say" class="row" hidden>
        <label for="text">Say something</label>
        <input id="text" name="text" maxlength="200" autocomplete="off" required>
        <button>Send</button>
      </form>
      <p id="after" hidden><a class="button" href="/">Load this page again</a></p>
    </div>`;
}

function experimentEntry(): Html {
  return html`<h2>Whose WebSocket is it?</h2>
    <p>A cookie is one of seven ways to say so. Try them all, also with what is wrong, expired or not yours; see what goes
      over the wire, and why it is refused.</p>
    <p><a class="button main" href="/experiment">Experiment</a></p>`;
}

const because = {
  maxLife: 'the longest that this application lets a session last',
  life: 'your session at the login service ends then',
  inactiveTimeout: 'unless you use it before',
  ttl: 'that is how long the token was made for',
} as const;

function sessionTable({ ptags, sso, auth, loggedInAt, expires, expiresBecause, sessionId }: Auth): Html {
  return html`<h2>Your session</h2>
    <table>
      ${row('ends', html`${instant(expires, 'ends')}<span id="left"></span>: ${because[expiresBecause]}`)}
      ${row('began', instant(loggedInAt))}
      ${row('ptags', ptags.join(', ') || 'none: not a current member')}
      ${row('authenticated', auth ? `just then, by ${auth}` : `earlier, by ${sso.join(', ')}`)}
      ${row('handle', html`<code>${sessionId}</code>`)}
    </table>`;
}

function sessionsPanel(sessions: readonly ListedSession[]): Html {
  const items = sessions.map(
    ({ handle, userAgent, created, lastSeen, current }) => html`<li>
      <p><strong>${nameOf(userAgent)}</strong>${current && ' (this one)'}<br>
        <span class="quiet">began ${instant(created)}, last seen ${instant(lastSeen)}</span></p>
      <form method="post" action="/sessions"><input type="hidden" name="handle" value="${handle}">
        <button aria-label="End this session: ${nameOf(userAgent)}">End this session</button></form></li>`,
  );
  return html`<h2>Your sessions</h2>
    <p>Log in with another browser, or in a private window, as the same person: it turns up here. A session that is ended
      here is over at once, and its WebSocket closes.</p>
    <ul class="items">${items}</ul>`;
}

/** Enough of what a browser says of itself to tell one from another. */
function nameOf(userAgent: string): string {
  const browser = /\b(Firefox|Edg|OPR|HeadlessChrome|Chrome|Safari)\/\d+/.exec(userAgent)?.[0].replace('/', ' ');
  const system = /\((?:X11; )?([^;)]+)/.exec(userAgent)?.[1];
  return browser === undefined
    ? userAgent.slice(0, 60) || 'an unknown browser'
    : [browser, system].filter(Boolean).join(', ');
}

function inEarnest(): Html {
  return html`<details><summary>What this demonstration leaves out: secrets, and more than one machine</summary>
    <p>The secret that seals sessions was made up when this program started, and ends with it. An application in earnest
      keeps one in a file: <code>cookieSecret({ file })</code> makes it. To change it without logging anybody out,
      <code>npx ucam-webauth secret FILE --add</code>, and later <code>--promote</code> and <code>--drop</code>; each says
      what to do next.</p>
    <p>This program remembers ended sessions in its own memory. <code>new LmdbStore({ path })</code> serves the processes of
      one machine, <code>new RedisStore({ url })</code> those of many. In a clone of the repository
      <code>NODE_ENV=development npx tsx examples/machines.ts</code> runs three processes behind nginx, with Redis.</p>
    </details>`;
}

function responseTables({ response, at }: Seen): Html {
  const fields = Object.entries(response).map(([name, value]) => row(name, html`<code>${show(value)}</code>`));
  const held = checks.map(({ name, requirement }) => html`<li><strong>${name}</strong>: ${requirement}</li>`);
  return html`<h2>What was checked of the login service's answer</h2>
    <ul class="held">
      <li><strong>form</strong>: every field is as the protocol has it</li>
      ${held}
      <li><strong>first use</strong>: it was not used before</li>
    </ul>
    <p class="quiet">All of it held, at ${instant(at)}; otherwise nobody would be logged in.</p>
    <h2>The answer, field by field</h2>
    <table>${fields}</table>`;
}

/** The browser rewrites it in its own zone and language. */
function instant(at: Date, id?: string): Html {
  return html`<time${id && html` id="${id}"`} datetime="${at.toISOString()}">${at.toUTCString()}</time>`;
}

function row(name: string, value: unknown): Html {
  return html`<tr><th scope="row">${name}</th><td>${value}</td></tr>`;
}

function show(value: unknown): string {
  if (value instanceof Date) return formatDate(value);
  if (Buffer.isBuffer(value)) return `${value.length} bytes, ${value.toString('hex', 0, 12)}…`;
  return value === undefined || value === '' ? 'empty' : [value].flat().join(', ') || 'empty';
}
