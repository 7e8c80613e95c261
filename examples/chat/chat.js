// What others say is only ever set as text, never as HTML.
import { connect } from '/client/index.js';

const $ = (id) => document.getElementById(id);

/** Who was logged in last. */
let me;

const connection = connect('/chat', { onMessage: hear, onStatus: show });

$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  // What could not be sent stays in the field.
  if (connection.send($('text').value)) $('say').reset();
  else $('status').textContent = 'Not sent: there is no connection just now.';
});
$('again').addEventListener('click', () => connection.open());

function hear(data) {
  const { you, here, by, text, sorry } = JSON.parse(data);
  if (you) greet(you);
  if (here) $('here').textContent = `Here: ${here.join(', ')}`;
  if (by) add(`${by}: ${text}`);
  if (sorry) {
    $('status').textContent = sorry;
    $('text').value ||= text;
  }
}

/** Somebody else is not to read what was said before. */
function greet(principal) {
  if (me !== principal) $('log').replaceChildren();
  me = principal;
}

function add(line) {
  const log = $('log');
  log.append(Object.assign(document.createElement('p'), { textContent: line }));
  if (log.children.length > 200) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}

function show(status) {
  const { state, loginUrl, retryIn } = status;
  $('status').textContent = describe(status);
  $('logout').hidden = state !== 'open';
  $('login').hidden = state !== 'logged out';
  $('again').hidden = retryIn === undefined;
  if (state !== 'open') $('here').textContent = '';
  if (state !== 'logged out') return;
  $('login').href = loginUrl;
  // The next person at this computer is not to read it.
  $('log').replaceChildren();
}

function describe({ state, reason, retryIn }) {
  if (state === 'connecting') return 'Connecting…';
  if (state === 'open') return 'Connected.';
  if (state === 'logged out') return 'You are not logged in.';
  if (state === 'refused') return `You are not allowed in: ${reason}.`;
  if (state === 'down') return `No connection: ${reason}. Trying again in ${Math.ceil(retryIn / 1000)} s.`;
  return 'Closed.';
}
