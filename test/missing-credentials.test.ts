import { describe, expect, it } from 'vitest';
import type { Credential } from '../src/websocket/index.js';
import { socketSite } from './sockets.js';

const site = socketSite();

describe('acceptUpgrades(), for a handshake without a credential', () => {
  it.each<[readonly Credential[] | undefined, string]>([
    [undefined, 'cookie'],
    [['query', 'cookie'], 'query (?ticket=…), cookie'],
    [['bearer', 'basic', 'subprotocol'], 'bearer, basic, subprotocol'],
  ])('names the credentials that the endpoint accepts: %s', async (credentials, names) => {
    site.accept(credentials ? { credentials } : {});
    const { text, code } = await site.refused('/', { origin: site.origin });
    expect(code).toBe('ERR_SESSION_MISSING');
    expect(JSON.parse(text).error.message).toBe(`no credential; this endpoint accepts: ${names}`);
  });
});
