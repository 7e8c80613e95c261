// Sends requests, from a process of its own, so that only what the server does is measured. Each message from the parent
// is a batch: so many requests, the same one or one after the other of a list, over a few connections; the answer says
// whether all were answered as wanted.
import { once } from 'node:events';
import { connect } from 'node:net';

const CONNECTIONS = 8;

process.on('disconnect', () => process.exit());
process.on('message', async (batch) => {
  try {
    let left = batch.count;
    const one = batch.upgrade ? handshakes : requests;
    await Promise.all(Array.from({ length: CONNECTIONS }, () => one(batch, () => left-- > 0)));
    process.send({});
  } catch (error) {
    process.send({ error: error.message });
  }
});

/** One after the other, on one connection that is kept. */
async function requests({ port, request, answer }, more) {
  const socket = await open(port);
  while (more()) {
    const found = await exchange(socket, request, isWhole);
    if (!found.startsWith(answer.start) || !found.endsWith(answer.end)) throw new Error(`answered: ${found}`);
  }
  socket.destroy();
}

/** Each on a connection of its own, which is closed when the server has agreed. */
async function handshakes({ port, request, requests = [], answer }, more) {
  while (more()) {
    const socket = await open(port);
    const found = await exchange(socket, requests.pop() ?? request, (text) => text.includes('\r\n\r\n'));
    if (!found.startsWith(answer.start)) throw new Error(`answered: ${found}`);
    socket.end();
    if (!socket.closed) await once(socket, 'close');
  }
}

async function open(port) {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true }).setEncoding('latin1');
  await once(socket, 'connect');
  return socket;
}

function exchange(socket, request, isDone) {
  return new Promise((resolve, reject) => {
    let found = '';
    const take = (text) => {
      found += text;
      if (isDone(found)) settle(resolve, found);
    };
    const lost = () => settle(reject, new Error(`the connection ended after: ${found}`));
    const settle = (how, what) => {
      socket.off('data', take).off('close', lost).off('error', lost);
      how(what);
    };
    socket.on('data', take).on('close', lost).on('error', lost);
    socket.write(request);
  });
}

function isWhole(text) {
  const end = text.indexOf('\r\n\r\n');
  const length = /^content-length: (\d+)/im.exec(text.slice(0, end))?.[1];
  return end >= 0 && length !== undefined && text.length === end + 4 + Number(length);
}
