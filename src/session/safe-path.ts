import { lstatSync, readlinkSync, type Stats, statSync } from 'node:fs';
import { dirname, parse, resolve, sep } from 'node:path';

/** Limit of symbolic links on a path, as on Linux. */
const MAX_LINKS = 40;
const OTHERS_WRITE = 0o002;
const GROUP_WRITE = 0o020;
const STICKY = 0o1000;
const DENIED = 'denied';

/** A folder, file or link that another user can change, and a command that mends it. */
export interface UnsafePath {
  readonly path: string;
  readonly reason: string;
}

/**
 * Finds the first folder or symbolic link on the way to a folder or file through which another user could lead a reader or
 * writer elsewhere. A sticky folder such as /tmp passes: there, only owners can rename or remove entries, and the owner of
 * the next component is judged. Components that do not exist yet, or that Node's permission model hides, are not judged.
 * Without user ids (Windows) every path passes.
 *
 * @param folder path of the folder or file; it is judged like its parents.
 * @returns the unsafe component, or undefined if there is none.
 */
export function findUnsafeParent(folder: string): UnsafePath | undefined {
  if (process.getuid === undefined) return undefined;
  const { root } = parse(resolve(folder));
  let at = root;
  let links = 0;
  const pending = namesOf(resolve(folder));
  for (;;) {
    const stats = look(at);
    if (stats === undefined) return undefined;
    const unsafe = judge(at, stats);
    if (unsafe !== undefined) return unsafe;
    if (stats !== DENIED && stats.isSymbolicLink()) {
      if (++links > MAX_LINKS) return { path: at, reason: 'it is one of too many symbolic links' };
      const target = readlinkSync(at);
      pending.unshift(...namesOf(target));
      at = resolve(dirname(at), parse(target).root);
      continue;
    }
    const next = pending.shift();
    if (next === undefined) return undefined;
    // `..` in a link is judged where it leads: the name before it may be a link too.
    at = resolve(at, next);
  }
}

/**
 * Judges a folder that holds nothing but the caller's files: no other user may write to it, with or without the sticky bit.
 *
 * @param folder path of a folder that exists.
 */
export function findUnsafeFolder(folder: string): UnsafePath | undefined {
  if (process.getuid === undefined) return undefined;
  const unsafe = findUnsafeParent(folder);
  if (unsafe !== undefined) return unsafe;
  const stats = statSync(folder);
  if (!isWritable(stats, GROUP_WRITE | OTHERS_WRITE)) return undefined;
  const open = tooOpen(folder, stats);
  const us = process.getuid();
  // A folder that its group cannot write to belongs to its owner alone.
  return stats.uid === us ? open : { path: folder, reason: `${open.reason} && chown ${us} ${quote(folder)}` };
}

/**
 * Judges a file before it is opened by name. A missing file is safe, since only the caller can make it in a safe folder.
 *
 * @param file path of a file in a safe folder.
 */
export function findUnsafeFile(file: string): UnsafePath | undefined {
  const stats = lstatSync(file, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  if (stats.isSymbolicLink()) return { path: file, reason: `it is a symbolic link: remove it with rm ${quote(file)}` };
  if (!stats.isFile()) return { path: file, reason: `it is no regular file: remove it with rm -r ${quote(file)}` };
  return process.getuid === undefined || isTrusted(stats.uid) ? undefined : owned(file, stats);
}

/** Quotes a path for a shell. */
export function quote(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

/** Undefined if the path does not exist; DENIED where Node's permission model hides a parent of a permitted folder. */
function look(path: string): Stats | typeof DENIED | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_ACCESS_DENIED') return DENIED;
    throw error;
  }
}

function judge(path: string, stats: Stats | typeof DENIED): UnsafePath | undefined {
  if (stats === DENIED) return undefined;
  if (!isTrusted(stats.uid)) return owned(path, stats);
  // The mode of a link says nothing, and nobody but an owner can rename or remove an entry of a sticky folder.
  if (stats.isSymbolicLink() || (stats.mode & STICKY) !== 0) return undefined;
  // Many systems give each user a group of its own, and let it write to all folders.
  const judged = stats.gid === process.getgid?.() ? OTHERS_WRITE : GROUP_WRITE | OTHERS_WRITE;
  return isWritable(stats, judged) ? tooOpen(path, stats) : undefined;
}

/** Whether an owner can change everything here anyway. In a user namespace, the root folder's owner stands for root. */
export function isTrusted(uid: number): boolean {
  if (uid === 0 || uid === process.getuid?.()) return true;
  const root = look('/');
  return typeof root === 'object' && uid === root.uid;
}

function isWritable({ mode }: Stats, judged: number): boolean {
  return (mode & judged) !== 0;
}

function owned(path: string, { uid }: Stats): UnsafePath {
  const us = process.getuid?.();
  return { path, reason: `it belongs to another user (${uid}): run chown -h ${us} ${quote(path)}` };
}

function tooOpen(path: string, { mode }: Stats): UnsafePath {
  const digits = (mode & 0o7777).toString(8);
  return { path, reason: `other users may write to it (mode ${digits}): run chmod go-w ${quote(path)}` };
}

function namesOf(path: string): string[] {
  return path.slice(parse(path).root.length).split(sep).filter(Boolean);
}
