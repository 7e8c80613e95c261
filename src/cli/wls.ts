import { createWLS } from '../wls/index.js';
import { formatKey } from './key-files.js';
import { readGivenFile } from './system-errors.js';
import { type Call, interrupted, printable, readPort } from './usage.js';

/** Runs the development login service until it is told to stop. */
export async function wls({ options }: Call): Promise<number> {
  process.env['NODE_ENV'] ||= 'development';
  const told = interrupted();
  const port = readPort(options.port, 8711);
  const service = create(options);
  await service.listen(port);
  const { profile } = service;
  const [kid] = profile.keys.kids as [string];
  const { spki, pkcs1 } = formatKey(profile.keys, kid);
  console.log(`The development login service is at ${service.url}/ (end it with Ctrl-C).

  authUrl    ${profile.authUrl}
  logoutUrl  ${profile.logoutUrl}
  kid        ${kid}, SHA-256 ${profile.keys.fingerprint(kid)}

${spki}
The same key as PKCS#1, for mod_ucam_webauth and python-ucam-webauth:

${pkcs1}`);
  await told;
  await service.close();
  return 0;
}

function create({ key: path, strict = false }: Call['options']) {
  if (path === undefined) return createWLS({ strict });
  const key = readGivenFile(path).toString('latin1');
  try {
    return createWLS({ key, strict });
  } catch (error) {
    if (!/^key is not /.test((error as Error).message)) throw error;
    throw new Error(`${printable(path)}: the ${(error as Error).message}`, { cause: error });
  }
}
