// What comes from the API is only ever set as text, never as HTML.
const $ = (id) => document.getElementById(id);
const links = [...document.querySelectorAll('nav a')];
const current = () => links.find(({ hash }) => hash === location.hash) ?? links[0];
let end = Number.POSITIVE_INFINITY;
// Whether the page was reached by the Back or Forward button, from the browser's cache or not.
let isRevisited = performance.getEntriesByType('navigation')[0]?.type === 'back_forward';

addEventListener('pageshow', ({ persisted }) => {
  isRevisited ||= persisted === true;
  attempt(start);
});
// Browsers keep pages to go back to. The next person at this computer is not to find this one there.
addEventListener('pagehide', () => hide('top', 'content'));
addEventListener('hashchange', () => {
  hide('content');
  attempt(show).then(() => $('heading').focus());
});
$('add').addEventListener('submit', (event) => {
  event.preventDefault();
  attempt(save);
});
$('text').addEventListener('input', () => sessionStorage.setItem('draft', $('text').value));
$('logout').addEventListener('submit', () => sessionStorage.clear());
// While a session lasts, only a newer password brings a longer one.
$('again').addEventListener('click', () => logIn(`/webauth/login${Date.now() < end ? '?maxAge=60' : ''}`));
setInterval(warn, 10_000);

async function start() {
  const { principal, secondsLeft } = await ask('me');
  isRevisited = false;
  end = Date.now() + secondsLeft * 1000;
  $('who').textContent = `${principal}, until ${new Date(end).toTimeString().slice(0, 5)}`;
  $('top').hidden = false;
  warn();
  // What somebody was writing when the session ended is for nobody else.
  if (sessionStorage.getItem('principal') !== principal) sessionStorage.clear();
  sessionStorage.setItem('principal', principal);
  $('text').value = sessionStorage.getItem('draft') ?? '';
  await show();
  if ($('text').value) $('said').textContent = 'What you were writing is still here, and not sent yet.';
}

async function show() {
  const link = current();
  document.title = $('heading').textContent = link.textContent;
  for (const other of links) other.ariaCurrent = other === link ? 'page' : null;
  const entries = await ask(link.hash.slice(1));
  if (link !== current()) return;
  $('list').replaceChildren(...entries.map(item));
  $('said').textContent = entries.length > 0 ? '' : 'Nothing is here yet.';
  $('content').hidden = false;
}

function item({ text, by }) {
  return Object.assign(document.createElement('li'), { textContent: `${text} (${by})` });
}

async function save() {
  const body = JSON.stringify({ text: $('text').value });
  await ask(current().hash.slice(1), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  $('add').reset();
  sessionStorage.removeItem('draft');
  await show();
  $('said').textContent = 'Added.';
}

/**
 * Returns the answer of the API. A user who has to log in first goes there, and nothing more happens here. After Back, a
 * button is shown instead: the next user of a computer may have pressed it after a logout, and single sign-on would log
 * the user before in again.
 */
async function ask(name, options) {
  const response = await fetch(`/api/${name}`, options);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401 && !isRevisited) return logIn(answer.error?.loginUrl);
  if (response.status === 401) {
    end = 0;
    warn();
    throw new Error('');
  }
  if (response.status === 403) throw new Error('You are logged in, but this is for other people.');
  throw new Error(`That did not work: ${answer.error?.message ?? response.status}.`);
}

/** Comes back to what is shown now; the server cannot know it, since browsers keep what follows the # to themselves. */
function logIn(url = '/webauth/login') {
  const there = new URL(url, location.origin);
  there.searchParams.set('return', location.pathname + location.search + location.hash);
  // In place of this page: to go back from the login service would lead here, and so there again.
  location.replace(there);
  return new Promise(() => {});
}

async function attempt(something) {
  try {
    await something();
  } catch (error) {
    $('said').textContent = error instanceof TypeError ? 'The server cannot be reached. Try again.' : error.message;
  }
}

/** Says, once each, that the session is about to end and that it is over. */
function warn() {
  const minutes = (end - Date.now()) / 60_000;
  const soon = 'You will be logged out in less than five minutes. What you are writing will be kept.';
  const over = `You are logged out.${sessionStorage.getItem('draft') ? ' What you were writing is kept.' : ''}`;
  const warning = minutes > 5 ? '' : minutes > 0 ? soon : over;
  if ($('warning').textContent !== warning) $('warning').textContent = warning;
  $('again').hidden = warning === '';
}

function hide(...ids) {
  for (const id of ids) $(id).hidden = true;
}
