import { readFileSync } from 'node:fs';
import { createWLS } from '../wls/index.js';
import { type Call, interrupted, readPort } from './usage.js';

/** Runs the development login service until it is told to stop. */
export async function wls({ options }: Call): Promise<number> {
  process.env['NODE_ENV'] ||= 'development';
  const told = interrupted();
  const key = options.key === undefined ? {} : { key: readFileSync(options.key, 'utf8') };
  const service = createWLS({ ...key, strict: options.strict ?? false });
  await service.listen(readPort(options.port, 8711));
  const { profile } = service;
  const [kid] = profile.keys.kids as [string];
  console.log(`The development login service is at ${service.url}/ (end it with Ctrl-C).

  authUrl    ${profile.authUrl}
  logoutUrl  ${profile.logoutUrl}
  kid        ${kid}, SHA-256 ${profile.keys.fingerprint(kid)}

${profile.keys.get(kid)?.key.export({ type: 'spki', format: 'pem' })}`);
  await told;
  await service.close();
  return 0;
}
