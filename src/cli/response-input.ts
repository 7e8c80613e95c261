import { malformed } from '../codec.js';
import { MAX_RESPONSE, responseFromQuery } from '../response.js';

/** Response string found in an input. */
export interface FoundResponse {
  readonly encoded: string;
  /** Name of the input's form, such as `an address`. */
  readonly form: string;
}

const NAME = 'WLS-Response=';

/** Characters that end an address in a line of text: a percent-encoded address has none of them. */
const delimiters: ReadonlySet<string> = new Set(' \t\r\n\v\f"\'`<>');

/**
 * Finds the response in an input as users have it: the decoded text, its percent-encoded form, an address, a query or a
 * line of a log, with or without quotes around it.
 *
 * @throws ResponseError if the input is empty, or its response does not decode.
 */
export function findResponse(input: string): FoundResponse {
  const trimmed = input.trim();
  const text = unquote(trimmed);
  if (text === '') throw malformed('the input is empty: give the response as an argument, or on standard input');
  const { encoded, form } = text.includes(NAME) ? fromAddress(text) : fromText(text);
  if (encoded.length <= MAX_RESPONSE && !encoded.includes('!')) {
    throw malformed('there is no login response in the input: a response has 13 or 14 fields, with "!" between them');
  }
  return { encoded, form: text === trimmed ? form : `${form}, in quotes` };
}

/** Removes one pair of quotes around a text. */
function unquote(text: string): string {
  return /^(["'`]).*\1$/s.test(text) ? text.slice(1, -1).trim() : text;
}

function fromAddress(text: string): FoundResponse {
  const at = text.indexOf(NAME);
  let start = at;
  while (start > 0 && !delimiters.has(text.charAt(start - 1))) start--;
  const rest = text.slice(at);
  const token = cutToken(rest, text.charAt(start - 1));
  // A decoded response may hold spaces; a line of a log goes on after a complete response.
  const isLine = start > 0 || (token.length < rest.length && token.split(/!|%21/i).length > 12);
  const query = (isLine ? token : rest).replace(/#.*$/s, '');
  const form = isLine ? 'a line with an address' : /^https?:/i.test(text) ? 'an address' : 'a query';
  return { encoded: responseFromQuery(query), form };
}

/** The part before the first delimiter. A single quote is a delimiter only after another one: addresses may hold it. */
function cutToken(text: string, opening: string): string {
  const token = /^[^\s"`<>]*/.exec(text)?.[0] ?? '';
  return opening === "'" && token.includes("'") ? token.slice(0, token.lastIndexOf("'")) : token;
}

function fromText(text: string): FoundResponse {
  const start = /^[123](?:!|%21)/i.test(text) ? 0 : text.search(/(?<=[\s"'`<=])[123](?:!|%21)\d{3}(?:!|%21)/i);
  const isLine = start > 0;
  const part = isLine ? text.slice(start) : text;
  const token = isLine ? cutToken(part, text.charAt(start - 1)) : part;
  const prefix = isLine ? 'a line with ' : '';
  // The decoded `url` has a scheme, and no escapes but of "!" and "%".
  if (!token.includes('://') && /%(?:21|2f|3a)/i.test(token)) {
    return { encoded: responseFromQuery(`${NAME}${token}`), form: `${prefix}a percent-encoded response` };
  }
  return { encoded: isLine ? cutFields(part) : part, form: `${prefix}a decoded response` };
}

/** Cuts what follows the last field of a decoded response. */
function cutFields(text: string): string {
  const fields = text.slice(0, 16_384).split('!');
  const last = (text.startsWith('3') ? 14 : 13) - 1;
  if (fields.length <= last) return text;
  return [...fields.slice(0, last), /^[\w.-]*/.exec(fields[last] as string)?.[0]].join('!');
}
