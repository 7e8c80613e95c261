/** Whether this process says that it is for development or tests. Without a word from `NODE_ENV` it is production. */
export function isDevelopment(): boolean {
  const { NODE_ENV } = process.env;
  return NODE_ENV === 'development' || NODE_ENV === 'test';
}

/** Advice to set `NODE_ENV`, with what it is now. */
export function developmentAdvice(): string {
  const { NODE_ENV } = process.env;
  const now = NODE_ENV === undefined ? 'unset, it' : `here it is ${JSON.stringify(NODE_ENV.slice(0, 20))}, which`;
  return `set NODE_ENV=development (${now} counts as production)`;
}

/** Whether events are printed unless the application says otherwise: in development, but not in tests. */
export function logsToConsole(): boolean {
  return process.env['NODE_ENV'] === 'development';
}

/** Is this host name one that never leaves the machine? `localhost`, `*.localhost`, `127.0.0.0/8` and `::1`. */
export function isLoopback(hostname: string): boolean {
  return /^(?:(?:.+\.)?localhost|127(?:\.\d{1,3}){3}|\[?::1\]?)$/i.test(hostname);
}

/** What an environment variable is set to. */
export function readVariable(name: string): string | undefined {
  return process.env[name];
}
