/** Asks this page's server. @throws Error with what it said. */
export async function ask<T>(method: 'GET' | 'POST', path: string, data: object = {}): Promise<T> {
  const post = { body: JSON.stringify(data), headers: { 'Content-Type': 'application/json' } };
  const response = await fetch(path, { method, ...(method === 'POST' && post) });
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({}));
  const advice = response.status === 401 ? ' Load this page again to log in.' : '';
  throw new Error(`Nothing was done: ${error?.message ?? `the server answered ${response.status}`}.${advice}`);
}
