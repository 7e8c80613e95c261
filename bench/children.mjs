// Other processes of the benchmark: how they are started, asked and ended.
import { fork } from 'node:child_process';
import { once } from 'node:events';

const children = [];

export function start(file, ...args) {
  const child = fork(new URL(file, import.meta.url), args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  children.push(child);
  return child;
}

/** The child's next message. A child that ends instead has failed. */
export async function hear(child) {
  const stop = new AbortController();
  const { signal } = stop;
  const ended = once(child, 'exit', { signal }).then(() => {
    throw new Error(`${child.spawnargs.slice(1).join(' ')} ended`);
  });
  try {
    const [message] = await Promise.race([once(child, 'message', { signal }), ended]);
    if (message.error) throw new Error(`${child.spawnargs.slice(1).join(' ')}: ${message.error}`);
    return message;
  } finally {
    ended.catch(() => {});
    stop.abort();
  }
}

export async function ask(child, message) {
  child.send(message);
  return hear(child);
}

/** Ends all that were started so far. */
export function endAll() {
  for (const child of children.splice(0)) child.kill();
}
