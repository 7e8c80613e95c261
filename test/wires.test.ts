import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Wires } from '../src/cli/experiment/wire.js';

const secret = 'Wm9ueS1zZWNyZXQtdGhhdC1ub2JvZHktbWF5LXNlZS0';

describe('what the experiment notes of a wire', () => {
  const wires = new Wires();
  const server = createServer();
  let answer = '';

  beforeAll(async () => {
    wires.listen(server);
    server.on('upgrade', (_, socket) => socket.end(answer));
    await once(server.listen(0, '127.0.0.1'), 'listening');
  });
  afterAll(() => void server.close());

  /** Sends a handshake, and resolves to all that was noted of it. */
  async function noted(id: string, query: string, ...lines: string[]): Promise<string> {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const head = ['Host: localhost', 'Connection: Upgrade', 'Upgrade: websocket', ...lines];
    socket.write(`GET /${id}/socket${query} HTTP/1.1\r\n${head.join('\r\n')}\r\n\r\n`);
    await text(socket);
    return JSON.stringify(wires.of(id, 'abc12'));
  }

  it.each([
    ['a ticket', `?ticket=${secret}`],
    ['a ticket whose name is written otherwise', `?%74icket=${secret}`],
    ['two tickets', `?ticket=${secret}&ticket=${secret}`],
    ['a token', '', `Authorization: Bearer ${secret}`],
    ['a token without a scheme', '', `Authorization: ${secret}`],
    ['a scheme that is none', '', `Authorization: x ${secret} ${secret}`],
    ['two passwords', '', `Authorization: Basic ${secret}=`, `authorization: basic   ${secret}=`],
    ['cookies without blanks', '', `Cookie: webauth-session=${secret};webauth-socket=${secret}`],
    ["others' cookies", '', `Cookie: a=${secret.slice(0, 20)}; webauth-session=${secret}; b=${secret.slice(0, 20)}`],
    ['subprotocols', '', `Sec-WebSocket-Protocol: a,v1.token.websocket.jupyter.org.${secret},${secret}`],
  ])('holds no secret of %s', async (_, query, ...lines) => {
    answer = 'HTTP/1.1 403 Forbidden\r\nConnection: close\r\nSet-Cookie: x=1\r\n\r\n';
    const text = await noted(wires.begin('abc12'), query, ...lines);
    expect(text).toContain('HTTP/1.1 403 Forbidden');
    expect(text).not.toContain(secret.slice(5, 15));
    expect(text).not.toContain('Set-Cookie');
  });

  it('is for the person whose try it is, and for as long as there is room', async () => {
    const id = wires.begin('abc12');
    for (let i = 0; i < 20; i++) await noted(id, '');
    expect(wires.of(id, 'abc12')?.wires).toHaveLength(12);
    expect(wires.of(id, 'xyz98')).toBeUndefined();
    for (let i = 0; i < 500; i++) wires.begin('abc12');
    expect(wires.of(id, 'abc12')).toBeUndefined();
    expect(await noted(id, '')).toBeUndefined();
  });

  it.each([
    ['an answer that ends early', 'HTTP/1.1 4', undefined],
    ['a body that is not ours', 'HTTP/1.1 400 Bad Request\r\n\r\n{{}}', 400],
    ['a frame that is cut', 'HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x7e\x01', 101],
    ['a close without a code', 'HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x00\x88\x00', 101],
  ])('survives %s', async (_, given, status) => {
    answer = given;
    const id = wires.begin('abc12');
    await noted(id, '');
    expect(wires.of(id, 'abc12')?.wires[0]?.status).toBe(status);
  });
});
