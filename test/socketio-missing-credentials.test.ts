import { describe, expect, it } from 'vitest';
import { acceptConnections } from '../src/websocket/socketio.js';
import { rejected, socketIOSite } from './socketio-site.js';

const site = socketIOSite();

describe('acceptConnections(), for a client without a credential', () => {
  it.each(['polling', 'websocket'])('names the credentials that it accepts, by %s', async (transport) => {
    acceptConnections(site.io, site.waa, { credentials: ['cookie', 'bearer'] });
    const headers = { origin: site.origin };
    const { text } = await (transport === 'polling'
      ? site.ask('transport=polling', headers)
      : site.upgrade('', headers));
    expect(JSON.parse(text).error).toEqual({
      code: 'ERR_SESSION_MISSING',
      message: 'no credential; this endpoint accepts: bearer, cookie',
    });
  });

  it.each([undefined, 7, { ticket: 'x' }])('says where the ticket of firstMessage belongs, for %j', async (ticket) => {
    acceptConnections(site.io, site.waa, { credentials: ['firstMessage'] });
    const auth = ticket === undefined ? {} : { ticket };
    const error = await rejected(
      site.client({ transports: ['websocket'], auth, extraHeaders: { origin: site.origin } }),
    );
    expect(error.message).toBe(
      'no credential; this endpoint accepts: firstMessage (a ticket as auth.ticket of the client)',
    );
    expect(error).toMatchObject({ data: { code: 'ERR_TOKEN_INVALID' } });
  });
});
