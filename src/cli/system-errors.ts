import { readFileSync } from 'node:fs';
import { printable } from './usage.js';

/** Words for the error codes that files, folders and ports give. */
const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or directory. Check the path',
  ENOTDIR: 'a part of the path is not a directory. Check the path',
  EISDIR: 'it is a directory. Name a file in it',
  EACCES: 'permission denied. Run this as a user who has access',
  EPERM: 'permission denied. Run this as a user who has access',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space left on the device',
  ELOOP: 'too many symbolic links',
  ENAMETOOLONG: 'the name is too long',
  EADDRINUSE: 'the port is in use. Stop the program that uses it, or choose another port',
  EADDRNOTAVAIL: 'this machine has no such address',
};

interface SystemError extends Error {
  readonly code: string;
  readonly syscall: string;
  readonly path?: string;
  readonly address?: string;
  readonly port?: number;
}

/**
 * Describes an error of the operating system in a sentence.
 *
 * @param path of the file, where the error does not name it.
 * @returns undefined for every other error.
 */
export function describeSystemError(error: unknown, path?: string): string | undefined {
  if (!isSystemError(error)) return undefined;
  const { code, syscall, port, address } = error;
  if (syscall === 'listen' && code === 'EACCES') {
    return `cannot listen on port ${port} of ${address}: permission denied. Choose a port above 1023`;
  }
  const subject = port === undefined ? (error.path ?? path) : `port ${port} of ${address}`;
  const reason = reasons[code] ?? error.message;
  return subject === undefined ? reason : `cannot use ${printable(subject)}: ${reason}`;
}

function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}

/** Reads a file that the command line names. @throws Error that names the file and the reason. */
export function readGivenFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    // Of a directory, the error does not name the path.
    throw new Error(describeSystemError(error, path) ?? String(error), { cause: error });
  }
}
