// What a client sends that opens a socket.

/** The subprotocol beside a token, and before one. */
export const PROTOCOL = 'v1.token.websocket.jupyter.org';

export const origin = 'http://localhost:3000';

/** @param more header lines that say whose socket it is. */
export function upgrade(more, target = '/') {
  return [
    `GET ${target} HTTP/1.1`,
    'Host: localhost:3000',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `Origin: ${origin}`,
    ...more,
    '\r\n',
  ].join('\r\n');
}
