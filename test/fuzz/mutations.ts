import { decodeBase64, encodeBase64 } from '../../src/codec.js';
import type { KeySet } from '../../src/keys.js';
import { toBytes, toNumber } from '../helpers.js';
import type { Dice } from './dice.js';

/** Where mutations take from. */
export interface Stock {
  /** Other genuine responses, to be spliced. */
  readonly others: readonly string[];
  readonly keys: KeySet;
}

/** The encoded response, changed in one place or a few. (It can happen that a change leaves it as it was.) */
export function mutateResponse(encoded: string, dice: Dice, stock: Stock): string {
  const times = dice.weighted<number>([
    [1, 8],
    [2, 2],
    [4, 1],
  ]);
  let mutated = encoded;
  for (let i = 0; i < times; i++) mutated = dice.weighted(mutations)(mutated, dice, stock);
  return mutated;
}

type Mutation = (text: string, dice: Dice, stock: Stock) => string;

/** What means something on the wire, or does not survive carelessness. The last one encodes as U+FFFD does. */
const nasty = [
  ...['!', '%', '%21', '%25', '%2521', '%41', '%0', '!!', ',', '+', '-', '.', '_', '/', '=', ' ', '\0', '\n', '\r\n'],
  ...['0', '1', '2', '3', '9', 'A', 'a', 'Z', 'é', 'e\u0301', '\u00ad', '\u200b', '\ufeff', '\u{1f600}', '\ud800'],
];

const mutations: readonly (readonly [Mutation, number])[] = [
  [replaceCharacter, 10],
  [(text, dice) => insert(text, dice.below(text.length + 1), dice.pick(nasty)), 6],
  [(text, dice) => cut(text, dice.below(text.length + 1), 1 + dice.below(4)), 6],
  [doubleRange, 2],
  [swapNeighbours, 3],
  [changeCase, 3],
  [respell, 4],
  [setField, 12],
  [swapFields, 4],
  [(text, dice) => atField(text, dice, () => []), 3],
  [(text, dice) => atField(text, dice, (field) => [field, field]), 3],
  [(text, dice) => atField(text, dice, () => [dice.pick(nasty)]), 3],
  [spliceField, 6],
  [spliceTail, 4],
  [mutateSignature, 16],
];

function replaceCharacter(text: string, dice: Dice): string {
  const at = dice.below(text.length);
  // The next character or the one in the alphabet of the field: small steps are the ones that are overlooked.
  const near = String.fromCharCode(text.charCodeAt(at) ^ (1 << dice.below(7)));
  return text.slice(0, at) + (dice.percent(70) ? near : dice.pick(nasty)) + text.slice(at + 1);
}

function insert(text: string, at: number, what: string): string {
  return text.slice(0, at) + what + text.slice(at);
}

function cut(text: string, at: number, length: number): string {
  return text.slice(0, at) + text.slice(at + length);
}

function doubleRange(text: string, dice: Dice): string {
  const at = dice.below(text.length);
  return insert(text, at, text.slice(at, at + 1 + dice.below(12)));
}

function swapNeighbours(text: string, dice: Dice): string {
  const at = dice.below(text.length);
  return text.slice(0, at) + text.slice(at + 1, at + 2) + text.slice(at, at + 1) + text.slice(at + 2);
}

function changeCase(text: string, dice: Dice): string {
  const at = dice.below(text.length);
  const letter = text.charAt(at);
  const other = letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase();
  return text.slice(0, at) + other + text.slice(at + 1);
}

/** The same to somebody who decodes too much, or who compares what is decoded. */
function respell(text: string, dice: Dice): string {
  const ways = [
    (all: string) => all.replace('%21', '!'),
    (all: string) => all.replace('%25', '%'),
    (all: string) => all.replaceAll('%', '%25'),
    (all: string) => all.replace('\ufffd', '\ud800'),
    (all: string) => all.normalize('NFD'),
    (all: string) => `${all} `,
    (all: string) => `\ufeff${all}`,
    (all: string) => all.replaceAll(' ', '+'),
    (all: string) => replaceAt(all, dice, (letter) => `%${letter.charCodeAt(0).toString(16).padStart(2, '0')}`),
  ];
  return dice.pick(ways)(text);
}

function replaceAt(text: string, dice: Dice, by: (letter: string) => string): string {
  const at = dice.below(text.length);
  return text.slice(0, at) + by(text.charAt(at)) + text.slice(at + 1);
}

/** By the field's place in version 3. */
const fieldValues: readonly (readonly string[])[] = [
  ['1', '2', '3', '4', '03', '3 ', ''],
  ['200', '410', '510', '520', '530', '540', '560', '570', '0200', '200.0', ''],
  ['', 'x'],
  ['20260301T120000Z', '20260301T120001Z', '20260301T115959Z', '20260301T240000Z', '20260230T000000Z', ''],
  ['', '1', '__proto__'],
  ['', 'https://evil.example/webauth/callback', 'https://evil.example', '//'],
  ['', 'test0001', 'TEST0001', 'test0001 ', 'test0001,test0002', 'root', '__proto__'],
  ['', 'current', 'current,current', ',', 'current,', 'admin', 'Current'],
  ['', 'pwd', 'x-card', 'PWD', 'pwd,pwd'],
  ['', 'pwd', 'pwd,', 'x-card'],
  ['', '0', '1', '-1', '+1', '1e9', '01', '999999999999999', '99999999999999999999', ' 5', '٣'],
  ['', 'x', 'null', '{}'],
  ['', '1', '2', '7', '8', '901', '07', '7 ', '0', '__proto__', '999999999', '../7'],
  ['', 'AAAA', '____', '_'],
];

function setField(text: string, dice: Dice): string {
  const fields = text.split('!');
  const at = dice.below(Math.min(fields.length, fieldValues.length));
  // Of an older version the fields behind ptags are one place to the left.
  const place = fields.length === 13 && at >= 7 ? at + 1 : at;
  fields[at] = dice.pick(fieldValues[place] as readonly string[]);
  return fields.join('!');
}

function swapFields(text: string, dice: Dice): string {
  const fields = text.split('!');
  const [a, b] = [dice.below(fields.length), dice.below(fields.length)];
  [fields[a], fields[b]] = [fields[b] as string, fields[a] as string];
  return fields.join('!');
}

function atField(text: string, dice: Dice, by: (field: string) => string[]): string {
  const fields = text.split('!');
  const at = dice.below(fields.length);
  return fields.toSpliced(at, 1, ...by(fields[at] as string)).join('!');
}

function spliceField(text: string, dice: Dice, { others }: Stock): string {
  const [fields, theirs] = [text.split('!'), dice.pick(others).split('!')];
  const at = dice.below(fields.length);
  fields[at] = theirs[at] ?? '';
  return fields.join('!');
}

/** Our beginning, and from some field on another response: its signature at least. */
function spliceTail(text: string, dice: Dice, { others }: Stock): string {
  const [fields, theirs] = [text.split('!'), dice.pick(others).split('!')];
  const at = 1 + dice.below(13);
  return [...fields.slice(0, at), ...theirs.slice(at)].join('!');
}

/** The last field alone: its bytes, or how they are written. */
function mutateSignature(text: string, dice: Dice, { keys }: Stock): string {
  const at = text.lastIndexOf('!') + 1;
  const [before, sig] = [text.slice(0, at), text.slice(at)];
  const bytes = decodeBase64(sig);
  const n = keys.get(before.split('!').at(-2) ?? '')?.n;
  if (bytes === undefined || bytes.length === 0 || n === undefined || dice.percent(30)) {
    return before + dice.pick(spellings)(sig);
  }
  return before + encodeBase64(dice.pick(signatures)(bytes, toNumber(n), dice));
}

const spellings: readonly ((sig: string) => string)[] = [
  (sig) => sig.replaceAll('-', '+').replaceAll('.', '/').replaceAll('_', '='),
  (sig) => sig.replaceAll('.', '_'),
  (sig) => sig.replace(/_+$/, ''),
  (sig) => `${sig}_`,
  (sig) => `${sig}____`,
  (sig) => `${sig} `,
  (sig) => ` ${sig}`,
  (sig) => `${sig}\n`,
  (sig) => sig.slice(0, 76) + sig.slice(76).replace(/^/, '\n'),
  (sig) => sig + sig,
  // Bits that the padding leaves over.
  (sig) => sig.replace(/[AQgw](?=_*$)/, (last) => String.fromCharCode(last.charCodeAt(0) + 1)),
  (sig) => sig.replace(/.(?=_*$)/, (last) => (last === 'B' ? 'C' : 'B')),
  () => '',
];

const signatures: readonly ((sig: Buffer, n: bigint, dice: Dice) => Buffer)[] = [
  (sig, _n, dice) => flip(sig, dice.below(sig.length * 8)),
  (sig, _n, dice) => flip(sig, dice.below(sig.length * 8)),
  (sig, n) => toBytes(toNumber(sig) + n, sig.length),
  (sig, n) => toBytes((n - (toNumber(sig) % n)) % n, sig.length),
  (sig, n) => toBytes((toNumber(sig) * 2n) % n, sig.length),
  (sig) => Buffer.concat([Buffer.of(0), sig]),
  (sig) => Buffer.concat([sig, Buffer.of(0)]),
  (sig) => sig.subarray(1),
  (sig) => sig.subarray(0, -1),
  (sig) => Buffer.from(sig).reverse(),
  (sig) => Buffer.alloc(sig.length),
  (sig) => Buffer.alloc(sig.length, 0xff),
  (sig) => toBytes(1n, sig.length),
  (sig, n) => toBytes(n - 1n, sig.length),
  (sig, n) => toBytes(n, sig.length),
];

function flip(bytes: Buffer, bit: number): Buffer {
  const flipped = Buffer.from(bytes);
  flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
  return flipped;
}
