// One application in three processes behind nginx, with their sessions in Redis: log in by one, go on with another, log
// out by a third. Needs redis-server and nginx (Debian: apt-get install redis-server nginx-light).
//
//   NODE_ENV=development npx tsx examples/machines.ts
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createWLS } from 'ucam-webauth/wls';

const port = Number(process.env['PORT'] ?? 3000);
await checkFree(port);
const folder = mkdtempSync(join(tmpdir(), 'machines-'));
const started: ChildProcess[] = [];
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop(0));

const wls = createWLS();
await wls.listen(Number(process.env['WLS_PORT'] ?? 8711));
const [redisPort = 0, ...ports] = await freePorts(4);

// Redis must not evict, and keep what it is told: who logged out may not be forgotten.
const redis = ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--maxmemory-policy', 'noeviction'];
const durable = ['--appendonly', 'yes', '--appendfsync', 'always', '--save', ''];
run('redis-server', [...redis, ...durable, '--dir', folder, '--loglevel', 'warning']);

for (const [i, its] of ports.entries()) {
  run(process.execPath, ['--import', 'tsx', fileURLToPath(new URL('machines/server.ts', import.meta.url))], {
    NAME: `Process ${i + 1}`,
    PORT: `${its}`,
    PUBLIC_URL: `http://localhost:${port}`,
    // The first to start makes it. On several machines, it is copied to each.
    SECRET_FILE: join(folder, 'secret'),
    REDIS_URL: `redis://127.0.0.1:${redisPort}`,
    WLS_URL: wls.url,
    WLS_KEY: wls.profile.keys.get('1')?.key.export({ type: 'spki', format: 'pem' }) as string,
  });
}

await Promise.all(ports.map(listens));

writeFileSync(join(folder, 'nginx.conf'), nginx());
run('nginx', ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;']);
await listens(port);
console.log(`Listening on http://localhost:${port}/`);

/** It hands out requests in turn, leaves their paths and Host as they are, and lets sockets through. */
function nginx(): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
    pid ${folder}/nginx.pid;
    events {}
    http {
      access_log off;
      ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
      map $http_upgrade $upgrade_or_close { default upgrade; '' close; }
      upstream application { ${ports.map((its) => `server 127.0.0.1:${its} max_fails=0;`).join(' ')} }
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://application;
          proxy_http_version 1.1;
          proxy_set_header Host $http_host;
          proxy_set_header Upgrade $http_upgrade;
          proxy_set_header Connection $upgrade_or_close;
        }
      }
    }`;
}

async function listens(its: number): Promise<void> {
  while (!(await fetch(`http://127.0.0.1:${its}/`).catch(() => undefined))) await delay(100);
}

function run(command: string, args: string[], env: Record<string, string> = {}): void {
  const child = spawn(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  child.once('error', (error) => {
    console.error(`${command} cannot be started (${error.message}): apt-get install redis-server nginx-light`);
    stop(1);
  });
  // They are of use only together.
  child.once('exit', () => stop(1));
  started.push(child);
}

function stop(status: number): void {
  for (const child of started.splice(0)) child.removeAllListeners('exit').kill();
  rmSync(folder, { recursive: true, force: true });
  process.exit(status);
}

async function checkFree(its: number): Promise<void> {
  const server = createServer().listen(its, '127.0.0.1');
  await new Promise((open, refused) => server.once('listening', open).once('error', refused));
  await new Promise((closed) => server.close(closed));
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => new Promise((open) => server.once('listening', open))));
  const found = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return found;
}
