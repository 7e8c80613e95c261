#!/usr/bin/env node
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { errorTable, WebauthError } from '../errors.js';
import { type Call, options, printable, UsageError } from './usage.js';

const help = `ucam-webauth: log people in with Raven (Ucam-WebAuth)

  ucam-webauth demo [--https] [--port 8710] [--wls-port 8711]
      A demonstration application and a development login service, on this machine. With --https the application has a
      certificate of its own making: its cookies are then those of production, and its socket is wss.

  ucam-webauth wls [--port 8711] [--key private.pem]
      The development login service alone. The key pair is new at each start, unless --key gives one.

  ucam-webauth keys [folder]
      The fingerprints of the keys that come with this package, or of a folder's, and how to check them.

  ucam-webauth verify [response] [--url URL] [--params TEXT] [--at DATE|issue] [--keys folder]
                      [--ver 1|2|3] [--iact yes|no] [--aauth TYPES]
      Says of a WLS-Response, given here or on standard input, check by check what holds and what does not.
      It may be a whole address or query, or the decoded text. --at says as of when it is to be judged
      (YYYYMMDDTHHMMSSZ, or "issue": as of when it was made).

  ucam-webauth secret [file] [--add | --promote | --drop]
      Prints a new secret; or makes a file with one, if it is missing, and says what each of its secrets does.
      To change the secret and log nobody out: --add a new one, --promote it to the first, --drop the old one.
      After each step copy the file to all machines and restart the application on all of them.

  ucam-webauth store invalidate [folder | redis://HOST] [--prefix TEXT]
      Starts a new generation of a store: all users log in again, and API tokens are issued anew; blocks and revocations
      stay. Run it after a restore from a backup, or when a Redis replica took over. Applications may be running or not.
      A Redis URL with a password is better in the environment variable UCAM_WEBAUTH_STORE: other users of the machine
      can read arguments. --prefix is that of the application's RedisStore; the default is "ucam-webauth:".

Exit status: 0 all is well; 2 malformed response; 3 it does not verify; 4 it verifies, and nobody logged in;
64 wrong usage; 1 anything else.`;

interface Command {
  /** How many words it takes at most, beside its options. */
  readonly words: 0 | 1 | 2;
  readonly options: readonly (keyof Call['options'])[];
  /** Loaded when called: the demonstration needs packages that the others do not. */
  load(): Promise<(call: Call) => Promise<number>>;
}

const commands = new Map<string, Command>([
  ['demo', { words: 0, options: ['https', 'port', 'wls-port'], load: async () => (await import('./demo.js')).demo }],
  ['wls', { words: 0, options: ['port', 'key', 'strict'], load: async () => (await import('./wls.js')).wls }],
  ['keys', { words: 1, options: [], load: async () => (await import('./keys.js')).keys }],
  ['secret', { words: 1, options: ['add', 'promote', 'drop'], load: async () => (await import('./secret.js')).secret }],
  ['store', { words: 2, options: ['prefix'], load: async () => (await import('./store.js')).store }],
  [
    'verify',
    {
      words: 1,
      options: ['url', 'params', 'at', 'keys', 'ver', 'iact', 'aauth'],
      load: async () => (await import('./verify.js')).verify,
    },
  ],
]);

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
  if (name === undefined) throw new UsageError('which command?');
  const command = commands.get(name);
  if (command === undefined) throw new UsageError(`there is no command ${name}`);
  checkCall(name, command, { words, options: given });
  const run = await command.load();
  return run({ words, options: given });
}

/** What a command would not look at is a mistake of whoever gave it. */
function checkCall(name: string, command: Command, { words, options: given }: Call): void {
  const stray = Object.keys(given).find((option) => !(command.options as readonly string[]).includes(option));
  if (stray !== undefined) throw new UsageError(`${name} has no option --${stray}`);
  if (words.length <= command.words) return;
  const takes = ['nothing', 'one thing', 'two things'][command.words];
  throw new UsageError(`${name} takes ${takes} beside its options; put quotes around what holds spaces`);
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
    console.error(`ucam-webauth: ${printable(error.message)}\n\n${help}`);
    return 64;
  }
  console.error(`ucam-webauth: ${printable(error instanceof Error ? error.message : String(error))}`);
  return error instanceof WebauthError ? errorTable[error.code].exit : 1;
}
