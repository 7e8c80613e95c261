#!/usr/bin/env node
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { errorTable, WebauthError } from '../errors.js';
import { UsageError } from './usage.js';

const help = `ucam-webauth: log people in with Raven (Ucam-WebAuth)

  ucam-webauth demo [--port 8710] [--wls-port 8711]
      A demonstration application and a development login service, on this machine.

  ucam-webauth wls [--port 8711] [--key private.pem]
      The development login service alone. The key pair is new at each start, unless --key gives one.

  ucam-webauth keys [folder]
      The fingerprints of the keys that come with this package, or of a folder's, and how to check them.

  ucam-webauth verify [response] [--url URL] [--params TEXT] [--at DATE|issue] [--keys folder]
                      [--ver 1|2|3] [--iact yes|no] [--aauth TYPES]
      Says of a WLS-Response, given here or on standard input, check by check what holds and what does not.
      It may be a whole address or query, or the decoded text. --at says as of when it is to be judged
      (YYYYMMDDTHHMMSSZ, or "issue": as of when it was made).

Exit status: 0 all is well; 2 malformed response; 3 it does not verify; 4 it verifies, and nobody logged in;
64 wrong usage; 1 anything else.`;

/** Loaded when called: the demonstration needs packages that the others do not. */
const commands = {
  demo: async () => (await import('./demo.js')).demo,
  wls: async () => (await import('./wls.js')).wls,
  keys: async () => (await import('./keys.js')).keys,
  verify: async () => (await import('./verify.js')).verify,
};

const options = {
  port: { type: 'string' },
  'wls-port': { type: 'string' },
  key: { type: 'string' },
  keys: { type: 'string' },
  url: { type: 'string' },
  params: { type: 'string' },
  at: { type: 'string' },
  ver: { type: 'string' },
  iact: { type: 'string' },
  aauth: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const;

/** What a command is called with. */
export interface Call {
  readonly words: readonly string[];
  readonly options: { readonly [name in Exclude<keyof typeof options, 'help' | 'version'>]?: string };
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = report(error);
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = readArgs(args);
  const { help: wantsHelp, version, ...given } = values;
  if (version) return print(createRequire(import.meta.url)('../../package.json').version);
  const [name, ...words] = positionals;
  if (wantsHelp || name === 'help') return print(help);
  if (name === undefined || !Object.hasOwn(commands, name)) {
    throw new UsageError(name === undefined ? 'which command?' : `there is no command ${name}`);
  }
  const command = await commands[name as keyof typeof commands]();
  return command({ words, options: given });
}

function readArgs(args: string[]) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function print(text: string): number {
  console.log(text);
  return 0;
}

function report(error: unknown): number {
  if (error instanceof UsageError) {
    console.error(`ucam-webauth: ${error.message}\n\n${help}`);
    return 64;
  }
  console.error(`ucam-webauth: ${error instanceof Error ? error.message : error}`);
  return error instanceof WebauthError ? errorTable[error.code].exit : 1;
}
