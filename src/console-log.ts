import type { LogEvent } from './config.js';

/** Prints an event as one line on standard error; debug events are left out. */
export function logToConsole({ level, event, message, code, principal }: LogEvent): void {
  if (level === 'debug') return;
  const about = [code, principal].filter((one) => one !== undefined);
  const more = about.length === 0 ? '' : ` (${about.join(', ')})`;
  console.error(escapeControls(`[ucam-webauth] ${level} ${event}: ${message}${more}`));
}

/** Names come from users: a line break or an escape sequence would forge lines in a terminal. */
function escapeControls(line: string): string {
  return line.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}
