// Network first. Only public responses are stored, so the caches hold nothing private that could outlive a logout.
const shell = ['/', '/offline.html', '/page.js', '/style.css'];

addEventListener('install', (event) => {
  skipWaiting();
  event.waitUntil(fillShell());
});

// An earlier worker may have stored more.
addEventListener('activate', (event) => event.waitUntil(clearCaches()));

addEventListener('message', (event) => {
  if (event.data === 'logged out') event.waitUntil(clearCaches());
});

addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  // The library's own logout page runs no script of the application, and so sends no message.
  if (request.method === 'POST' && pathname === '/webauth/logout') event.waitUntil(clearCaches());
  // Without respondWith(), the browser sends the request as if there were no worker: logins, logouts, forms.
  if (request.method !== 'GET' || origin !== location.origin || pathname.startsWith('/webauth/')) return;
  event.respondWith(respond(event));
});

async function respond(event) {
  const { request } = event;
  try {
    const response = await fetch(request);
    if (isPublic(response)) event.waitUntil(store(request, response.clone()));
    return response;
  } catch (error) {
    const stored = (await caches.match(request, { cacheName: 'public' })) ?? (await caches.match(request));
    if (stored) return stored;
    if (request.mode !== 'navigate') throw error;
    return (await caches.match('/offline.html')) ?? Response.error();
  }
}

/** Whether the server marks a response as public. One without `Cache-Control` counts as private. */
function isPublic({ status, headers }) {
  const directives = (headers.get('Cache-Control') ?? '').toLowerCase().split(/[\s,]+/);
  return (
    status === 200 && directives.includes('public') && !directives.some((one) => /^(?:private|no-store)/.test(one))
  );
}

async function store(request, response) {
  const cache = await caches.open('public');
  await cache.put(request, response);
}

/** Stores the pages that work offline. They are fetched without cookies, so they are the same for all users. */
async function fillShell() {
  const cache = await caches.open('shell');
  await cache.addAll(shell.map((path) => new Request(path, { credentials: 'omit', cache: 'reload' })));
}

async function clearCaches() {
  for (const name of await caches.keys()) if (name !== 'shell') await caches.delete(name);
  // The page that logs out deletes the shell too.
  await fillShell();
}
