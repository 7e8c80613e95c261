import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** What a server said. Its bytes are one character each. */
export interface Answer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: string;
}

export interface Exchange {
  /** One for each request, if all went well. */
  readonly answers: readonly Answer[];
  /** Why there are fewer. */
  readonly problem: 'closed' | 'given up' | 'too late' | 'not HTTP' | undefined;
}

/** What is sent, and what is needed to read the answer. */
export interface Sending {
  readonly bytes: Buffer;
  /** Whether it is a HEAD, whose answer has no body. */
  readonly head: boolean;
  /** Perhaps not all of it: the server may wait for the rest. */
  readonly partial: boolean;
}

/** After how long it is said that there is no rest: milliseconds. */
const PATIENCE = 500;

/** How long an answer may take: milliseconds. */
const DEADLINE = 20_000;

/** A connection to a server on this machine, over which anything can be sent. It is opened when it is needed. */
export class Connection {
  readonly #port: number;
  #socket: Socket | undefined;
  #text = '';
  #closed = true;
  #gaveUp = false;
  #look = (): void => {};

  constructor(port: number) {
    this.#port = port;
  }

  /** Sends requests in one go, and reads their answers. */
  async send(sendings: readonly Sending[]): Promise<Exchange> {
    if (this.#closed) await this.#open();
    this.#socket?.write(sendings.length === 1 ? (sendings[0] as Sending).bytes : Buffer.concat(sendings.map(bytesOf)));
    const answers: Answer[] = [];
    const problem = await new Promise<Exchange['problem']>((resolve) => {
      const late = setTimeout(() => resolve('too late'), DEADLINE);
      const rest = sendings[0]?.partial ? setTimeout(() => this.#giveUp(), PATIENCE) : undefined;
      this.#look = () => {
        const result = this.#read(sendings, answers);
        if (result === 'more') return;
        clearTimeout(late);
        clearTimeout(rest);
        resolve(result);
      };
      this.#look();
    });
    this.#look = () => {};
    return { answers, problem };
  }

  /** Node takes that for the end of the connection too, and may leave unsaid what it was about to answer. */
  #giveUp(): void {
    this.#gaveUp = true;
    this.#socket?.end();
  }

  /** Whether the server has ended it, or said something that nobody asked for. */
  get isSpoilt(): boolean {
    return this.#closed || this.#text !== '';
  }

  /** Whatever comes afterwards is not read. */
  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#text = '';
    this.#closed = true;
  }

  async #open(): Promise<void> {
    this.close();
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    this.#socket = socket;
    this.#closed = false;
    const ended = () => {
      if (this.#socket === socket) this.#closed = true;
      this.#look();
    };
    // A reset comes with an error before it.
    socket
      .on('error', () => {})
      .once('end', ended)
      .once('close', ended);
    socket.on('data', (chunk) => {
      if (this.#socket !== socket) return;
      this.#text += chunk.toString('latin1');
      this.#look();
    });
  }

  #read(sendings: readonly Sending[], answers: Answer[]): Exchange['problem'] | 'more' {
    while (answers.length < sendings.length) {
      const read = readAnswer(this.#text, sendings[answers.length]?.head ?? false, this.#closed);
      if (read === 'not HTTP') return read;
      if (read === undefined) return this.#closed ? (this.#gaveUp ? 'given up' : 'closed') : 'more';
      answers.push(read.answer);
      this.#text = this.#text.slice(read.length);
    }
    return undefined;
  }
}

function bytesOf({ bytes }: Sending): Buffer {
  return bytes;
}

interface Read {
  readonly answer: Answer;
  /** How much of the text it took. */
  readonly length: number;
}

/** The first answer in the text, without any interim one; undefined while it is not complete. */
function readAnswer(text: string, head: boolean, closed: boolean): Read | 'not HTTP' | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return text.length > 100_000 ? 'not HTTP' : undefined;
  const [first = '', ...lines] = text.slice(0, end).split('\r\n');
  const status = Number(/^HTTP\/1\.1 ([1-5]\d\d) [\x20-\x7e]*$/.exec(first)?.[1]);
  const headers = lines.map(readHeader);
  if (Number.isNaN(status) || headers.includes(undefined)) return 'not HTTP';
  if (status < 200 && status !== 101) return later(readAnswer(text.slice(end + 4), head, closed), end + 4);
  const answer = { status, headers: headers as Answer['headers'] };
  const body = head || hasNoBody(status) ? { body: '', length: 0 } : readBody(text.slice(end + 4), answer, closed);
  return body && { answer: { ...answer, body: body.body }, length: end + 4 + body.length };
}

function later(read: Read | 'not HTTP' | undefined, by: number): Read | 'not HTTP' | undefined {
  return typeof read === 'object' ? { answer: read.answer, length: read.length + by } : read;
}

function hasNoBody(status: number): boolean {
  return status === 101 || status === 204 || status === 304;
}

// token ":" OWS value OWS; a value without control characters
function readHeader(line: string): readonly [string, string] | undefined {
  const [, name, value] = /^([\w!#$%&'*+.^`|~-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)$/.exec(line) ?? [];
  return name === undefined || value === undefined ? undefined : [name.toLowerCase(), value.trimEnd()];
}

/** The value of a header that is there once at most. */
export function headerOf({ headers }: Pick<Answer, 'headers'>, name: string): string | undefined {
  return headers.find(([key]) => key === name)?.[1];
}

function readBody(text: string, answer: Omit<Answer, 'body'>, closed: boolean) {
  const length = headerOf(answer, 'content-length');
  if (headerOf(answer, 'transfer-encoding') === 'chunked') return readChunks(text);
  if (length === undefined) return closed ? { body: text, length: text.length } : undefined;
  return text.length >= Number(length) ? { body: text.slice(0, Number(length)), length: Number(length) } : undefined;
}

function readChunks(text: string): { body: string; length: number } | undefined {
  const shape = /([\da-f]+)\r\n/iy;
  let body = '';
  for (let at = 0; ; ) {
    shape.lastIndex = at;
    const size = Number.parseInt(shape.exec(text)?.[1] ?? '', 16);
    const end = shape.lastIndex + size;
    if (Number.isNaN(size) || text.length < end + 2) return undefined;
    body += text.slice(shape.lastIndex, end);
    at = end + 2;
    if (size === 0) return { body, length: at };
  }
}
