// One machine of an application that several of them serve. What it is told is its one argument, as JSON.
import type { AddressInfo } from 'node:net';
import express from 'express';
import { webauth } from '../src/express/index.js';
import { KeySet } from '../src/keys.js';
import { LmdbStore } from '../src/session/lmdb.js';
import { cookieSecret } from '../src/session/secret.js';
import { createWAA } from '../src/waa.js';

/** What a machine is told. */
export interface Settings {
  readonly baseUrl: string;
  readonly secretFile: string;
  readonly storeFolder: string;
  readonly authUrl: string;
  /** The login service's public key, in PEM, by its kid. */
  readonly keys: Readonly<Record<string, string>>;
}

const { baseUrl, secretFile, storeFolder, authUrl, keys } = JSON.parse(process.argv[2] as string) as Settings;
const store = new LmdbStore({ path: storeFolder });
const waa = createWAA({
  baseUrl,
  secret: cookieSecret({ file: secretFile }),
  store,
  wls: { name: 'test', authUrl, keys: KeySet.from(keys), oldVersionPtags: ['current'], requirePtags: ['current'] },
});
const auth = webauth(waa);
const app = express().use(auth);
app.get('/', auth.require(), (request, response) => response.send(request.auth?.principal));
app.use(auth.failurePage);
await waa.ready;
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on ${(server.address() as AddressInfo).port}`);
});
process.once('SIGTERM', () =>
  server.close(async () => {
    await waa.close();
    await store.close();
  }),
);
