/** The options of all commands; each takes some of them. */
export const options = {
  https: { type: 'boolean' },
  port: { type: 'string' },
  'wls-port': { type: 'string' },
  key: { type: 'string' },
  strict: { type: 'boolean' },
  demo: { type: 'boolean' },
  keys: { type: 'string' },
  url: { type: 'string' },
  params: { type: 'string' },
  at: { type: 'string' },
  ver: { type: 'string' },
  iact: { type: 'string' },
  aauth: { type: 'string' },
  add: { type: 'boolean' },
  promote: { type: 'boolean' },
  drop: { type: 'boolean' },
  prefix: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const;

type OptionName = Exclude<keyof typeof options, 'help' | 'version'>;

/** What a command is called with. */
export interface Call {
  readonly words: readonly string[];
  readonly options: {
    readonly [name in OptionName]?: (typeof options)[name]['type'] extends 'string' ? string : boolean;
  };
}

/** The command was called wrongly; the message says how. */
export class UsageError extends Error {}

/** A port number: 0 asks for a free one. */
export function readPort(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65535)
    throw new UsageError(`${text || 'an empty text'} is not a port: give a number from 0 to 65535`);
  return Number(text);
}

/** Untrusted text for a terminal: control characters are shown, not sent. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (char) => `\\u{${(char.codePointAt(0) as number).toString(16)}}`);
}

/** Resolves when the process is asked to end. Called before anything is printed: whoever reads that may ask at once. */
export function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => resolve());
  });
}
