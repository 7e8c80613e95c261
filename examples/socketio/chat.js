// What others say is only ever set as text, never as HTML.
import { fetchTicket } from '/client/index.js';
import { io } from '/socket.io/socket.io.esm.min.js';

const $ = (id) => document.getElementById(id);

// The session's cookie goes along by itself, with every request.
const socket = io();
/** Who was logged in last. */
let me;

socket.on('connect', () => show('Connected.'));
socket.on('disconnect', (reason) => {
  show('No connection. Trying again.');
  // Then Socket.IO does not try again by itself.
  if (reason === 'io server disconnect') socket.connect();
});
socket.on('connect_error', ({ context }) => explain(context));

socket.on('you', (principal) => {
  // Somebody else is not to read what was said before.
  if (me !== principal) $('log').replaceChildren();
  me = principal;
});
socket.on('here', (people) => {
  $('here').textContent = `Here: ${people.join(', ')}`;
});
socket.on('said', (by, text) => add(`${by}: ${text}`));
socket.on('sorry', (why, text) => {
  $('status').textContent = why;
  $('text').value ||= text;
});

$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  // Socket.IO would keep it, and send it by whoever is logged in next.
  if (!socket.connected) return;
  socket.emit('say', $('text').value);
  $('say').reset();
});
$('again').addEventListener('click', () => socket.connect());

/** Why there is no connection: whether somebody is logged in is for the ticket route to say. */
async function explain(answer) {
  try {
    await fetchTicket();
  } catch ({ loginUrl }) {
    return loginUrl ? logOut(loginUrl) : show('No connection. Trying again.');
  }
  const { code, message } = readError(answer);
  // Somebody is, and may not.
  if (!/_REFUSED$/.test(code)) return;
  socket.disconnect();
  show(`You are not allowed in: ${message}.`);
  $('again').hidden = false;
}

/** What the server has said, if it was ours: a proxy answers in other ways. */
function readError(answer) {
  try {
    return JSON.parse(answer.responseText).error;
  } catch {
    return {};
  }
}

function logOut(loginUrl) {
  socket.disconnect();
  show('You are not logged in.');
  $('login').hidden = false;
  $('login').href = loginUrl;
  // The next person at this computer is not to read it.
  $('log').replaceChildren();
}

function add(line) {
  const log = $('log');
  log.append(Object.assign(document.createElement('p'), { textContent: line }));
  if (log.children.length > 200) log.firstChild.remove();
  log.scrollTop = log.scrollHeight;
}

function show(status) {
  $('status').textContent = status;
  $('logout').hidden = !socket.connected;
  $('login').hidden = $('again').hidden = true;
  if (!socket.connected) $('here').textContent = '';
}
