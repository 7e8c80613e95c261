import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as express from '../src/express/index.js';
import * as index from '../src/index.js';
import * as lmdb from '../src/session/lmdb.js';
import * as redis from '../src/session/redis.js';
import * as websocket from '../src/websocket/index.js';
import * as socketio from '../src/websocket/socketio.js';
import * as wls from '../src/wls/index.js';
import { root } from './processes.js';

/** What a room of the source may import beside itself; `types` are rooms of which it may know the types only. */
interface Room {
  readonly imports: readonly string[];
  readonly types?: readonly string[];
  /** Packages from the registry. Those of Node are everybody's. */
  readonly packages?: readonly string[];
}

const messages = ['errors', 'options', 'codec', 'request', 'response'];
const checking = [...messages, 'keys', 'signature', 'verify', 'profiles', 'environment'];
const deciding = [...checking, 'digest', 'config', 'session', 'demands', 'attempts', 'waa'];

/** A room is a folder of src, or a file that is in none. */
const rooms: Readonly<Record<string, Room>> = {
  errors: { imports: [] },
  environment: { imports: [] },
  html: { imports: [] },
  options: { imports: [] },
  digest: { imports: [] },
  codec: { imports: ['errors'] },
  request: { imports: ['codec', 'errors', 'environment', 'options'], types: ['response'] },
  response: { imports: ['codec', 'errors', 'options'] },
  keys: { imports: ['errors', 'options'] },
  signature: { imports: ['keys', 'errors'], packages: ['node-forge'] },
  profiles: { imports: ['keys', 'options'] },
  verify: { imports: ['errors', 'codec', 'options', 'response', 'keys', 'signature'] },
  http: { imports: ['codec', 'errors'], packages: ['cookie-parser'] },
  session: { imports: ['codec', 'digest', 'environment', 'errors', 'options'], packages: ['lmdb', 'redis'] },
  config: { imports: ['environment', 'errors', 'options', 'profiles', 'request', 'session'], types: ['verify'] },
  demands: { imports: ['errors', 'options', 'request', 'verify'], types: ['session'] },
  attempts: { imports: ['digest', 'errors'], types: ['demands', 'session'] },
  'console-log': { imports: [], types: ['config'] },
  waa: { imports: [...checking, 'console-log', 'digest', 'config', 'session', 'demands', 'attempts'] },
  express: { imports: [...deciding, 'http', 'html'] },
  websocket: { imports: [...deciding, 'http', 'html'] },
  // Not what verifies: a mistake in one is not to hide in the other.
  wls: { imports: [...messages, 'signature', 'keys', 'html', 'environment', 'http'], types: ['profiles'] },
  // What runs in the browser: a page can load the file as it is.
  client: { imports: [] },
  index: { imports: [...deciding, 'express', 'websocket', 'wls', 'http', 'html'] },
  cli: {
    imports: [...deciding, 'express', 'websocket', 'wls', 'http', 'html', 'client'],
    packages: ['express', 'node-forge', 'ws'],
  },
};

/** The rooms that only compute: no server, console, randomness, clock or waiting. */
const pure = ['errors', 'codec', 'request', 'response', 'keys', 'signature', 'verify', 'profiles'];

/** What users get, by the entry of package.json: the names that exist when a program runs. */
const publicNames = {
  '.': [
    'AuthorisationError',
    'KeySet',
    'MemoryStore',
    'ResponseError',
    'SessionError',
    'StatusError',
    'VerificationError',
    'WebauthError',
    'cookieSecret',
    'createWAA',
    'formatRequest',
    'goose',
    'nevar',
    'parseResponse',
    'raven',
    'ravenDemo',
    'verifyResponse',
  ],
  './express': ['webauth'],
  './websocket': ['acceptUpgrades', 'authenticateUpgrade', 'refuseUpgrade', 'socketFrame'],
  './wls': ['WLS', 'createWLS'],
  './socket.io': ['acceptConnections'],
  './client': ['TicketError', 'connect', 'fetchTicket'],
  './lmdb': ['LmdbStore'],
  './redis': ['RedisStore'],
};

interface Import {
  readonly from: string;
  /** As it is written. */
  readonly specifier: string;
  readonly typeOnly: boolean;
}

const src = join(root, 'src');
/** Not by a name that the compiler reads: it is written for browsers, and this for Node. */
const client: object = await import(join(src, 'client/index.ts'));
const code = new Map(
  readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => [name.split(sep).join('/'), withoutComments(readFileSync(join(src, name), 'utf8'))]),
);
const imports = [...code].flatMap(([file, text]) => readImports(file, text));
const inside = imports.filter(({ specifier }) => specifier.startsWith('.'));

function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[\s\S]*?\*\//gm, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

function readImports(from: string, text: string): Import[] {
  // import … from '…', export … from '…', import '…', import('…')
  const statement = /\b(?:(?:import|export)\b([^'"`;()]*?)\bfrom|import)\s*(\()?\s*(['"`])([^'"`]+)\3/g;
  return [...text.matchAll(statement)].map(([, clause = '', , , specifier]) => ({
    from,
    specifier: specifier as string,
    typeOnly: isTypeOnly(clause.trim()),
  }));
}

/** `type { A }`, or `{ type A, type B }`. */
function isTypeOnly(clause: string): boolean {
  const items = /^\{([^}]*)\}$/
    .exec(clause)?.[1]
    ?.split(',')
    .map((item) => item.trim());
  return clause.startsWith('type ') || (items?.filter(Boolean).every((item) => item.startsWith('type ')) ?? false);
}

function roomOf(file: string): string {
  return (file.split('/')[0] as string).replace(/\.ts$/, '');
}

/** The file of src that a relative import names. */
function target({ from, specifier }: Import): string {
  const path = resolve(src, dirname(from), specifier.replace(/\.js$/, '.ts'));
  return relative(src, path).split(sep).join('/');
}

function describeImport(one: Import): string {
  return `${one.from} imports ${one.typeOnly ? 'types of ' : ''}${one.specifier}`;
}

/** The lines of these files that match. */
function linesWith(pattern: RegExp, among: (file: string) => boolean): string[] {
  return [...code]
    .filter(([file]) => among(file))
    .flatMap(([file, text]) => text.split('\n').map((line) => ({ file, line: line.trim() })))
    .filter(({ line }) => pattern.test(line))
    .map(({ file, line }) => `${file}: ${line}`);
}

/** The first circle found, as the names along it. */
function findCircle(arrows: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const walk = (name: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(name)) return [...path.slice(path.indexOf(name)), name];
    if (done.has(name)) return undefined;
    for (const next of arrows.get(name) ?? []) {
      const circle = walk(next, [...path, name]);
      if (circle) return circle;
    }
    done.add(name);
    return undefined;
  };
  for (const name of arrows.keys()) {
    const circle = walk(name, []);
    if (circle) return circle;
  }
  return undefined;
}

describe('the imports of src', () => {
  it('are all found by this test', () => {
    expect(imports.length).toBeGreaterThan(100);
    // Each line that begins an import or ends one with `from` was read as one.
    for (const [file, text] of code) {
      const begun = text.match(/^(?:import\b|\} from\b|export (?:type )?[{*].* from\b)|\bimport\(/gm) ?? [];
      const multiline = text.match(/^import (?:type )?\{$/gm) ?? [];
      expect([file, readImports(file, text)]).toEqual([
        file,
        expect.objectContaining({ length: begun.length - multiline.length }),
      ]);
    }
    expect(linesWith(/\bimport\((?!\s*['"`])/, () => true)).toEqual([]);
    expect(linesWith(/\bcreateRequire\b/, (file) => roomOf(file) !== 'cli')).toEqual([]);
  });

  it('name files that exist, by their compiled name', () => {
    const missing = inside.filter((one) => !one.specifier.endsWith('.js') || !code.has(target(one)));
    expect(missing.map(describeImport)).toEqual([]);
  });

  it('come from rooms that are in the table', () => {
    expect([...new Set([...code.keys()].map(roomOf))].sort()).toEqual(Object.keys(rooms).sort());
  });

  it.each(Object.keys(rooms))('of %s are those that it may have', (name) => {
    const { imports: may, types = [], packages = [] } = rooms[name] as Room;
    const refused = imports
      .filter(({ from }) => roomOf(from) === name)
      .filter((one) => {
        if (one.specifier.startsWith('node:')) return false;
        if (!one.specifier.startsWith('.')) return !packages.includes(one.specifier);
        const room = roomOf(target(one));
        return room !== name && !may.includes(room) && !(one.typeOnly && types.includes(room));
      });
    expect(refused.map(describeImport)).toEqual([]);
  });

  it('never lead round in a circle when a program runs, nor does the table', () => {
    const files = new Map(
      [...code.keys()].map((file) => [file, inside.filter((one) => one.from === file && !one.typeOnly).map(target)]),
    );
    expect(findCircle(files)).toBeUndefined();
    expect(
      findCircle(
        new Map([
          ['a', ['b']],
          ['b', ['c']],
          ['c', ['b']],
        ]),
      ),
    ).toEqual(['b', 'c', 'b']);
    const table = Object.entries(rooms).map(
      ([name, room]) => [name, [...room.imports, ...(room.types ?? [])]] as const,
    );
    expect(findCircle(new Map(table))).toBeUndefined();
  });

  it('of what the package needs to run are its dependencies, and those of the demonstration its peers', () => {
    const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    // A store is loaded by those only who use it.
    const isStore = (file: string) => /^session\/(?:lmdb|redis(?:-link)?)\.ts$/.test(file);
    const used = (among: (room: string) => boolean, stores = false) => {
      const found = imports.filter(
        ({ from, typeOnly }) => among(roomOf(from)) && isStore(from) === stores && !typeOnly,
      );
      return [...new Set(found.map(({ specifier }) => specifier).filter((name) => !/^(?:\.|node:)/.test(name)))].sort();
    };
    expect(used((room) => room !== 'cli')).toEqual(Object.keys(dependencies).sort());
    const optional = [...used((room) => room === 'cli'), ...used(() => true, true)].filter(
      (name) => !Object.hasOwn(dependencies, name),
    );
    // What is not loaded here is handed to us.
    expect([...optional, 'socket.io'].sort()).toEqual(Object.keys(peerDependencies).sort());
    // The command `store` loads the store that it was given, once it is called.
    expect(
      inside.filter((one) => isStore(target(one)) && !isStore(one.from) && !one.typeOnly).map(describeImport),
    ).toEqual(['cli/store.ts imports ../session/redis.js', 'cli/store.ts imports ../session/lmdb.js']);
  });
});

describe('what computes, up to verifyResponse', () => {
  const isPure = (file: string) => pure.includes(roomOf(file));

  it('knows no server and no console', () => {
    const servers =
      /\bnode:(?:https?|http2|net|tls|dgram|child_process|worker_threads|process)\b|\bconsole\b|\bprocess\./;
    expect(linesWith(servers, isPure)).toEqual([]);
  });

  it('uses no randomness', () => {
    const random =
      /\b(?:randomBytes|randomInt|randomUUID|randomFill(?:Sync)?|getRandomValues|generateKey\w*|Math\.random)\b/;
    expect(linesWith(random, isPure)).toEqual([]);
  });

  it('looks at the clock only where nobody gave it the time', () => {
    const clock = /\bDate\.now\b|\bnew Date(?:\(\)|;|$)|\bperformance\b|\bhrtime\b/;
    const asDefault = /\bnow\b[^;]*(?:\?\?|=) (?:Date\.now\(\)|new Date\(\))/;
    expect(linesWith(clock, isPure).filter((line) => !asDefault.test(line))).toEqual([]);
    expect(linesWith(clock, isPure)).toHaveLength(1);
  });

  it('never waits', () => {
    expect(linesWith(/\basync\b|\bawait\b|\bPromise\b|\bset(?:Timeout|Interval|Immediate)\b/, isPure)).toEqual([]);
  });
});

describe('the library', () => {
  const isLibrary = (file: string) => roomOf(file) !== 'cli';

  it('neither prints nor ends the process: that is for the command', () => {
    expect(
      linesWith(/\bconsole\.|\bprocess\.(?:exit|abort|kill|stdout|stderr|stdin|argv|on|once)\b/, isLibrary).filter(
        (line) => !line.startsWith('console-log.ts: console.error('),
      ),
    ).toEqual([]);
  });

  it('reads no file beside its module, so that a bundle is complete', () => {
    expect(linesWith(/\bimport\.meta\b|\b__(?:dirname|filename)\b|\bcreateRequire\b/, isLibrary)).toEqual([]);
  });

  it('imports nothing on demand, so that a bundle is complete', () => {
    expect(linesWith(/\bimport\(/, isLibrary)).toEqual([]);
  });

  it('reads the environment in one place', () => {
    expect(linesWith(/\bprocess\.env\b/, (file) => isLibrary(file) && file !== 'environment.ts')).toEqual([]);
    expect(linesWith(/\bimport\.meta\.env\b|\bfrom 'node:process'/, () => true)).toEqual([]);
  });
});

describe('the public names', () => {
  const entries = {
    '.': index,
    './express': express,
    './websocket': websocket,
    './wls': wls,
    './socket.io': socketio,
    './client': client,
    './lmdb': lmdb,
    './redis': redis,
  };

  it.each(Object.entries(publicNames))('of %s are those listed here', (entry, names) => {
    expect(Object.keys(entries[entry as keyof typeof entries]).sort()).toEqual([...names].sort());
  });

  it('have an entry each in package.json, and a source file behind it', () => {
    const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      exports: Record<string, string>;
    };
    expect(Object.keys(exports).sort()).toEqual([...Object.keys(publicNames), './package.json'].sort());
    for (const path of Object.values(exports).filter((name) => name.startsWith('./dist/'))) {
      expect([path, existsSync(join(root, path.replace('dist', 'src').replace(/\.js$/, '.ts')))]).toEqual([path, true]);
    }
  });
});
