/** The packages that only the demonstration needs. */
export type Packages = Awaited<ReturnType<typeof loadPackages>>;

export async function loadPackages() {
  try {
    const [{ default: express }, { WebSocket, WebSocketServer }] = await Promise.all([import('express'), import('ws')]);
    return { express, WebSocket, WebSocketServer };
  } catch (cause) {
    throw new Error('the demonstration needs two more packages: npm install express ws', { cause });
  }
}
