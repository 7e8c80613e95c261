const $ = (id) => document.getElementById(id);

navigator.serviceWorker?.register('/worker.js');
if ($('loans')) showLoans();

// The caches are deleted before the form is sent, since this script ends with the page.
$('logout')?.addEventListener('submit', (event) => {
  event.preventDefault();
  clearCaches()
    .catch(console.error)
    .then(() => event.target.submit());
});

// The back/forward cache keeps a page as it is, and no worker sees a request when Back restores it. So the page hides
// what is private when the user leaves it, and loads anew when it is restored.
addEventListener('pagehide', () => {
  if ($('private')) $('private').hidden = true;
});
addEventListener('pageshow', ({ persisted }) => {
  if (persisted) location.reload();
});

async function showLoans() {
  try {
    const response = await fetch('/api/loans');
    if (!response.ok) throw new Error(`status ${response.status}`);
    $('loans').textContent = (await response.json()).join(', ');
  } catch {
    $('loans').textContent = 'Your loans could not be fetched. Load this page again.';
  }
}

async function clearCaches() {
  for (const name of await caches.keys()) await caches.delete(name);
  // Not the page's controller: after a forced reload a page has none.
  const registration = await navigator.serviceWorker.getRegistration();
  registration?.active?.postMessage('logged out');
}
