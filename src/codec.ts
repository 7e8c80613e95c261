import { ResponseError } from './errors.js';

/** `YYYYMMDDTHHMMSSZ`, UTC. Fractions of a second are dropped. Throws TypeError outside the years 0 to 9999. */
export function formatDate(date: Date): string {
  const iso = Number.isNaN(date.getTime()) ? '' : date.toISOString();
  if (iso.length !== 24) throw new TypeError('a date on the wire needs a valid instant in the years 0 to 9999');
  return `${iso.slice(0, 19).replace(/[-:]/g, '')}Z`;
}

// 4DIGIT month 2DIGIT "T" hour minute second "Z"
const dateShape = /^\d{4}(?:0[1-9]|1[0-2])\d\dT(?:[01]\d|2[0-3])[0-5]\d[0-5]\dZ$/;

/** The instant that the text names, or undefined where it is not a real one in exactly that form. */
export function parseDate(text: string): Date | undefined {
  if (!dateShape.test(text)) return undefined;
  const part = (from: number, to: number) => Number(text.slice(from, to));
  const day = part(6, 8);
  // Not by Date.UTC, which takes the years 0 to 99 for those of another century.
  const date = new Date(0);
  date.setUTCFullYear(part(0, 4), part(4, 6) - 1, day);
  date.setUTCHours(part(9, 11), part(11, 13), part(13, 15));
  // 30 February has become a day in March.
  return date.getUTCDate() === day ? date : undefined;
}

/** Base64 with `+ / =` written `- . _`. */
export function encodeBase64(bytes: Uint8Array): string {
  // base64url writes `+` as `-` too, `/` as `_`, and no padding.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url');
  return text.replaceAll('_', '.') + '_'.repeat((4 - (text.length % 4)) % 4);
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.';

/** By character code: the six bits that the character stands for, or -1. */
const sextets = Array.from({ length: 128 }, (_, code) => alphabet.indexOf(String.fromCharCode(code)));

/** The bytes, or undefined where the text is not their one canonical encoding. */
export function decodeBase64(text: string): Buffer | undefined {
  // Node's decoder forgives alphabet, padding and trailing bits, and to check all that takes longer than to decode.
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith('__') ? 2 : text.endsWith('_') ? 1 : 0;
  const bytes = Buffer.allocUnsafe((text.length / 4) * 3 - padding);
  let [held, bits, at] = [0, 0, 0];
  for (let i = 0; i < text.length - padding; i++) {
    const sextet = sextets[text.charCodeAt(i)] ?? -1;
    if (sextet < 0) return undefined;
    held = (held << 6) | sextet;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes[at++] = held >> bits;
    held &= (1 << bits) - 1;
  }
  // Bits of the last character that belong to no byte.
  return held === 0 ? bytes : undefined;
}

/** `%` and `!` of one field as `%25` and `%21`. */
export function encodeField(field: string): string {
  return /[%!]/.test(field) ? field.replaceAll('%', '%25').replaceAll('!', '%21') : field;
}

// *( any character but "%" ) *( ( "%21" / "%25" ) *( any character but "%" ) ), as far as that goes: it matches any
// text, so it never goes back to look for another way.
const escapedStart = /^[^%]*(?:%2[15][^%]*)*/;

/** Whether every `%` begins `%21` or `%25`. */
export function isEscaped(text: string): boolean {
  return !text.includes('%') || escapedStart.exec(text)?.[0] === text;
}

/** The reverse, once; any other `%` is malformed. */
export function decodeField(field: string): string {
  if (!field.includes('%')) return field;
  if (!isEscaped(field)) throw malformed('a field has a "%" that is neither %21 nor %25');
  // There are no other escapes in it than these two.
  return decodeURIComponent(field);
}

// Visible ASCII: whatever else a query holds has to arrive percent-encoded.
const queryShape = /^[\x21-\x7e]*$/;

/** Decodes one `application/x-www-form-urlencoded` name or value, strictly: broken escapes or UTF-8 are malformed. */
export function decodeForm(raw: string): string {
  if (!queryShape.test(raw)) throw malformed('the query holds a character that should be percent-encoded');
  try {
    return decodeURIComponent(raw.includes('+') ? spaced(raw) : raw);
  } catch {
    throw malformed('the query holds a broken percent-encoding, or bytes that are not UTF-8');
  }
}

/** Byte by byte: for a text of nothing but `+`, `replaceAll` takes ten times as long. */
function spaced(raw: string): string {
  const bytes = Buffer.from(raw, 'latin1');
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 0x2b) bytes[i] = 0x20;
  return bytes.toString('latin1');
}

/** The pairs of a raw query, still encoded. `;` does not separate pairs: nothing sends it, and parsers differ on it. */
export function queryPairs(rawQuery: string): [name: string, value: string][] {
  return rawQuery
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => {
      const equals = pair.indexOf('=');
      return equals < 0 ? [pair, ''] : [pair.slice(0, equals), pair.slice(equals + 1)];
    });
}

// *1( item *( "," item ) ), as far as it goes.
const listStart = /^(?:[^,]+(?:,[^,]+)*)?/;

/** Whether a text is a list on the wire: comma separated, without an empty item; empty for no items. */
export function isList(text: string): boolean {
  return !text.includes(',') || listStart.exec(text)?.[0] === text;
}

/** The items of a list. Undefined where one is empty. */
export function parseList(text: string): string[] | undefined {
  if (text === '') return [];
  if (!text.includes(',')) return [text];
  return isList(text) ? text.split(',') : undefined;
}

export function malformed(message: string): ResponseError {
  return new ResponseError('ERR_RESPONSE_MALFORMED', message);
}
