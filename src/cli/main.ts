#!/usr/bin/env node
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { errorTable, WebauthError } from '../errors.js';
import { describeSystemError } from './system-errors.js';
import { type Call, options, printable, UsageError } from './usage.js';

const title = 'ucam-webauth: log people in with Raven (Ucam-WebAuth)';

const exitStatus = `Exit status: 0 all is well; 2 malformed response; 3 it does not verify; 4 it verifies, and no user logged in;
5 the store cannot be used; 64 wrong usage; 1 anything else.`;

interface Command {
  /** Synopsis and explanation. */
  readonly help: string;
  /** How many words it takes at most, beside its options. */
  readonly words: 0 | 1 | 2;
  readonly options: readonly (keyof Call['options'])[];
  /** Loaded when called: the demonstration needs packages that the others do not. */
  load(): Promise<(call: Call) => Promise<number>>;
}

const commands = new Map<string, Command>([
  [
    'demo',
    {
      help: `  ucam-webauth demo [--https] [--port 8710] [--wls-port 8711]
      A demonstration application and a development login service, on this machine. With --https the application has a
      certificate of its own making: its cookies are then those of production, and its socket is wss.`,
      words: 0,
      options: ['https', 'port', 'wls-port'],
      load: async () => (await import('./demo.js')).demo,
    },
  ],
  [
    'wls',
    {
      help: `  ucam-webauth wls [--port 8711] [--key private.pem] [--strict]
      The development login service alone. The key pair is new at each start, unless --key gives one. The public key is
      printed as SubjectPublicKeyInfo and as PKCS#1. --strict rejects every request that deviates from the protocol.`,
      words: 0,
      options: ['port', 'key', 'strict'],
      load: async () => (await import('./wls.js')).wls,
    },
  ],
  [
    'keys',
    {
      help: `  ucam-webauth keys [folder | file]
      The keys that come with this package, or those of a folder or file, with their fingerprints and how to check them.
      A file is named <kid>.pem, or as it was published, such as pubkey2.crt; it may be a certificate.`,
      words: 1,
      options: [],
      load: async () => (await import('./keys.js')).keys,
    },
  ],
  [
    'verify',
    {
      help: `  ucam-webauth verify [response] [--url URL] [--params TEXT] [--at DATE|issue] [--keys folder|file] [--demo]
                      [--ver 1|2|3] [--iact yes|no] [--aauth TYPES]
      Checks a WLS-Response, given here or on standard input, and says check by check whether it passes; the last line is
      the verdict. The input may be an address, a query, a line of a log, or the response itself, encoded or decoded.
      --at gives the time of the checks (YYYYMMDDTHHMMSSZ, or "issue": the time at which the response was made).
      --keys takes what the command keys takes. A login that the key of the demonstration service signed is valid with
      --demo only, or if --keys gives the file of that key.`,
      words: 1,
      options: ['url', 'params', 'at', 'keys', 'demo', 'ver', 'iact', 'aauth'],
      load: async () => (await import('./verify.js')).verify,
    },
  ],
  [
    'secret',
    {
      help: `  ucam-webauth secret [file] [--add | --promote | --drop]
      Prints a new secret; or makes a file with one, if it is missing, and says what each of its secrets does.
      To change the secret and log nobody out: --add a new one, --promote it to the first, --drop the old one.
      After each step copy the file to all machines and restart the application on all of them.`,
      words: 1,
      options: ['add', 'promote', 'drop'],
      load: async () => (await import('./secret.js')).secret,
    },
  ],
  [
    'store',
    {
      help: `  ucam-webauth store invalidate [folder | redis://HOST] [--prefix TEXT]
      Starts a new generation of a store: all users log in again, and API tokens are issued anew; blocks and revocations
      stay. Run it after a restore from a backup, or when a Redis replica took over. Applications may be running or not.
      A Redis URL with a password is better in the environment variable UCAM_WEBAUTH_STORE: other users of the machine
      can read arguments. --prefix is that of the application's RedisStore; the default is "ucam-webauth:".`,
      words: 2,
      options: ['prefix'],
      load: async () => (await import('./store.js')).store,
    },
  ],
]);

const names = [...commands.keys()];

const output = watchOutput();
const given = process.argv.slice(2);
try {
  const status = await main(given);
  process.exitCode = output.failed && status === 0 ? 1 : status;
} catch (error) {
  process.exitCode = report(error, given);
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = readArgs(args);
  const { help: wantsHelp, version, ...options } = values;
  if (version) return print(createRequire(import.meta.url)('../../package.json').version);
  const [name, ...words] = positionals;
  if (name === 'help') return print(formatHelp(words[0]));
  if (wantsHelp) return print(formatHelp(name));
  if (name === undefined) throw new UsageError(`which command? There are: ${names.join(', ')}`);
  const command = find(name);
  checkCall(name, command, { words, options });
  const run = await command.load();
  return run({ words, options });
}

function find(name: string): Command {
  const command = commands.get(name);
  if (command === undefined) throw new UsageError(`there is no command ${name}; there are: ${names.join(', ')}`);
  return command;
}

/** The help of one command, or of all. */
function formatHelp(name: string | undefined): string {
  const parts = name === undefined ? [...commands.values()] : [find(name)];
  return [title, ...parts.map(({ help }) => help), exitStatus].join('\n\n');
}

/** Rejects options and words that the command would ignore. */
function checkCall(name: string, command: Command, { words, options }: Call): void {
  const stray = Object.keys(options).find((option) => !(command.options as readonly string[]).includes(option));
  if (stray !== undefined) throw new UsageError(`${name} has no option --${stray}`);
  if (words.length <= command.words) return;
  const takes = ['nothing', 'one thing', 'two things'][command.words];
  throw new UsageError(`${name} takes ${takes} beside its options; put quotes around what holds spaces`);
}

function readArgs(args: string[]) {
  try {
    const parsed = parseArgs({ args, options, allowPositionals: true, tokens: true });
    checkRepetition(parsed.tokens);
    return parsed;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    // Some of Node's messages have several lines.
    throw new UsageError((error as Error).message.replace(/\s*\n\s*/g, ' '));
  }
}

/** Of two values of an option one would be ignored. */
function checkRepetition(tokens: readonly { readonly kind: string; readonly name?: string }[]): void {
  const seen = new Set<string>();
  for (const { kind, name } of tokens) {
    if (kind !== 'option' || name === undefined) continue;
    if (seen.has(name)) throw new UsageError(`--${name} is given twice: give it once`);
    seen.add(name);
  }
}

function print(text: string): number {
  console.log(text);
  return 0;
}

/** Prints an error. @returns the exit status. */
function report(error: unknown, args: readonly string[]): number {
  const message = describeSystemError(error) ?? (error instanceof Error ? error.message : String(error));
  console.error(`ucam-webauth: ${printable(message)}`);
  if (error instanceof UsageError) {
    const name = args.find((arg) => commands.has(arg));
    console.error(`Run "ucam-webauth ${name === undefined ? '' : `${name} `}--help" for how to use it.`);
    return 64;
  }
  return error instanceof WebauthError ? errorTable[error.code].exit : 1;
}

/** Watches standard output and standard error: a write that fails later than its call would end the process. */
function watchOutput(): { readonly failed: boolean } {
  const state = { failed: false };
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader of a pipe, such as `head`, may have all that it wants.
    if (error.code === 'EPIPE' || state.failed) return;
    state.failed = true;
    process.exitCode ||= 1;
    console.error(`ucam-webauth: standard output: ${printable(describeSystemError(error) ?? error.message)}`);
  });
  return state;
}
