import { ResponseError } from './errors.js';

/** `YYYYMMDDTHHMMSSZ`, UTC. Fractions of a second are dropped. Throws TypeError outside the years 0 to 9999. */
export function formatDate(date: Date): string {
  const iso = Number.isNaN(date.getTime()) ? '' : date.toISOString();
  if (iso.length !== 24) throw new TypeError('a date on the wire needs a valid instant in the years 0 to 9999');
  return `${iso.slice(0, 19).replace(/[-:]/g, '')}Z`;
}

// 4DIGIT 2DIGIT 2DIGIT "T" 2DIGIT 2DIGIT 2DIGIT "Z"
const dateShape = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/;

/** The instant that the text names, or undefined where it is not a real one in exactly that form. */
export function parseDate(text: string): Date | undefined {
  const [, year, month, day, hour, minute, second] = dateShape.exec(text) ?? [];
  if (day === undefined) return undefined;
  const date = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  // Date turns 30 February into March and hour 24 into the next day; what it does not take at all has no day.
  return date.getUTCDate() === Number(day) ? date : undefined;
}

/** Base64 with `+ / =` written `- . _`. */
export function encodeBase64(bytes: Uint8Array): string {
  // base64url writes `+` as `-` too, `/` as `_`, and no padding.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url');
  return swap(text, '_', '.') + '_'.repeat((4 - (text.length % 4)) % 4);
}

/** The bytes, or undefined where the text is not their one canonical encoding. */
export function decodeBase64(text: string): Buffer | undefined {
  const padding = text.endsWith('__') ? 2 : text.endsWith('_') ? 1 : 0;
  const bytes = Buffer.from(swap(text.slice(0, text.length - padding), '.', '_'), 'base64url');
  // Node's decoder forgives alphabet, padding and trailing bits; comparing with what we would write forgives nothing.
  return encodeBase64(bytes) === text ? bytes : undefined;
}

/** Byte by byte: for a text of nothing but that sign, `replaceAll` takes ten times as long. */
function swap(text: string, from: string, to: string): string {
  const bytes = Buffer.from(text, 'latin1');
  const [old, fresh] = [from.charCodeAt(0), to.charCodeAt(0)];
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === old) bytes[i] = fresh;
  return bytes.toString('latin1');
}

/** `%` and `!` of one field as `%25` and `%21`. */
export function encodeField(field: string): string {
  return /[%!]/.test(field) ? field.replaceAll('%', '%25').replaceAll('!', '%21') : field;
}

/** The reverse, once; any other `%` is malformed. */
export function decodeField(field: string): string {
  if (!field.includes('%')) return field;
  if (/%(?!2[15])/.test(field)) throw malformed('a field has a "%" that is neither %21 nor %25');
  // In this order nothing is decoded twice: a "%" that comes out of %25 is not looked at again.
  return field.replaceAll('%21', '!').replaceAll('%25', '%');
}

// Visible ASCII: whatever else a query holds has to arrive percent-encoded.
const queryShape = /^[\x21-\x7e]*$/;

/** Decodes one `application/x-www-form-urlencoded` name or value, strictly: broken escapes or UTF-8 are malformed. */
export function decodeForm(raw: string): string {
  if (!queryShape.test(raw)) throw malformed('the query holds a character that should be percent-encoded');
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '));
  } catch {
    throw malformed('the query holds a broken percent-encoding, or bytes that are not UTF-8');
  }
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

/** A list on the wire: comma separated, empty for no items. Undefined where an item is empty. */
export function parseList(text: string): string[] | undefined {
  if (text === '') return [];
  const items = text.split(',');
  return items.includes('') ? undefined : items;
}

export function malformed(message: string): ResponseError {
  return new ResponseError('ERR_RESPONSE_MALFORMED', message);
}
