// Many clients of sockets at a time, from a process of its own. It does as little as it can with each, so that thousands
// take little room and time. Each message from the parent, `[what, ...given]`, is one of the tasks below.
import { connect } from 'node:net';

/** How many connect at a time: with another process that does so too, fewer than the system lets wait for a server. */
const AT_ONCE = 200;

const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** A client. Frames of the server are taken to be short ones; none of ours is longer. */
class Peer {
  /** With which code the server closed, and when, in milliseconds; and when the connection had ended. */
  code;
  told;
  over;
  #socket;
  #isMute;
  #isOpen = false;
  #rest = Buffer.alloc(0);
  #echoed;

  /** @param isMute whether it leaves a close without an answer. */
  constructor(port, request, isMute, onOver) {
    this.#isMute = isMute;
    this.opened = new Promise((resolve, reject) => {
      const answer = (refusal) => (refusal === undefined ? resolve() : reject(new Error(refusal)));
      this.#socket = connect({ port, host: '127.0.0.1', noDelay: true })
        .on('connect', () => this.#socket.write(request))
        .on('data', (chunk) => this.#read(chunk, answer))
        .on('error', (error) => reject(error))
        .on('close', () => {
          this.over = Date.now();
          reject(new Error('the server ended the connection'));
          onOver();
        });
    });
  }

  /** Resolves when the server has sent the same text. */
  async echo(text) {
    const echoed = new Promise((resolve) => {
      this.#echoed = resolve;
    });
    this.#send(TEXT, Buffer.from(text));
    if ((await echoed) !== text) throw new Error('the server sent another text');
  }

  close() {
    this.#send(CLOSE, Buffer.of(1000 >> 8, 1000 & 0xff));
  }

  #read(chunk, answer) {
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    if (!this.#isOpen) {
      const end = data.indexOf('\r\n\r\n');
      this.#isOpen = end >= 0 && data.toString('latin1', 0, 12) === 'HTTP/1.1 101';
      if (this.#isOpen) data = data.subarray(end + 4);
      if (end >= 0) answer(this.#isOpen ? undefined : `answered: ${data}`);
    }
    while (this.#isOpen && data.length >= 2 && data.length >= 2 + data[1]) {
      this.#take(data[0] & 0x0f, data.subarray(2, 2 + data[1]));
      data = data.subarray(2 + data[1]);
    }
    this.#rest = data;
  }

  #take(opcode, payload) {
    if (opcode === PING) this.#send(PONG, payload);
    if (opcode === TEXT) this.#echoed?.(payload.toString());
    if (opcode !== CLOSE || this.told !== undefined) return;
    this.told = Date.now();
    this.code = payload.readUInt16BE(0);
    if (!this.#isMute) this.#send(CLOSE, payload.subarray(0, 2));
  }

  /** With a mask that changes nothing. */
  #send(opcode, payload) {
    this.#socket.write(Buffer.concat([Buffer.of(0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0), payload]));
  }
}

let peers = [];
/** How many of them are over. */
let gone = 0;
let look = () => {};

const stillOpen = () => peers.filter(({ over }) => over === undefined);

/** Resolves when so many connections of all have ended. */
function ended(count) {
  return new Promise((resolve) => {
    look = () => gone >= count && resolve();
    look();
  });
}

function note() {
  gone += 1;
  look();
}

const tasks = {
  /** One socket for each handshake, in this order. */
  async open(port, requests, isMute = false) {
    const first = peers.length;
    for (let i = 0; i < requests.length; i += AT_ONCE) {
      const some = requests.slice(i, i + AT_ONCE).map((request) => new Peer(port, request, isMute, note));
      peers.push(...some);
      await Promise.all(some.map(({ opened }) => opened));
    }
    return { opened: peers.length - first };
  },

  /** Waits until so many have ended. What became of each: its number, the code, when it was told, and when it was over. */
  async ended(count) {
    await ended(count);
    const all = peers.map(({ code, told, over }, number) => ({ number, code, told, over }));
    return { ended: all.filter(({ over }) => over !== undefined) };
  },

  /** Has the server of those that are open send something back. */
  async echo() {
    const open = stillOpen();
    await Promise.all(open.map((peer, i) => peer.echo(`message ${i}`)));
    return { echoed: open.length };
  },

  /** Closes those that are open, and forgets all. */
  async close() {
    for (const peer of stillOpen()) peer.close();
    await ended(peers.length);
    peers = [];
    gone = 0;
    return {};
  },
};

process.on('disconnect', () => process.exit());
process.on('message', async ([what, ...given]) => {
  try {
    process.send(await tasks[what](...given));
  } catch (error) {
    process.send({ error: error.message });
  }
});
