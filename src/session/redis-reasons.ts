import { singleLine } from '../errors.js';
import { isText } from '../options.js';

/** A Redis that no waiting mends: its configuration, or that of the application, has to be changed. */
export class Refusal extends TypeError {}

/** Address of a Redis. */
interface Address {
  /** Passwords, which no error may show. */
  readonly secrets: readonly string[];
  readonly host: string;
  readonly port: string;
  readonly tls: boolean;
  readonly database: string;
}

/** A known reason for which a Redis cannot be used. */
interface Reason {
  /** Matches the code of the error, a space and its message. */
  readonly pattern: RegExp;
  /** Whether it lasts until the configuration is changed. */
  readonly lasts?: true;
  /** Cause and cure, to follow what Redis or the system said. */
  readonly explain: (address: Address) => string;
}

const COMMANDS =
  '+info +eval +get +set +getdel +mget +exists +hget +hset +hmget +zadd +zrem +zscan +zrangebyscore +pttl +pexpire +time +publish +subscribe +unsubscribe +select +ping';

/** The first match counts. */
const reasons: readonly Reason[] = [
  {
    pattern: / WRONGPASS| ERR invalid password|called without any password configured/,
    lasts: true,
    explain: () =>
      'the user name or the password is wrong. Correct it in the option url or password; in a URL it is percent-encoded (encodeURIComponent)',
  },
  {
    pattern: / NOAUTH/,
    lasts: true,
    explain: () =>
      'it needs a password. Give it in the option password, or percent-encoded in the url (redis://USER:PASSWORD@HOST)',
  },
  {
    pattern: / NOPERM|ACL failure in script|can't run this command or subcommand/,
    lasts: true,
    explain: () =>
      `its user lacks a permission. With the default prefix, run ACL SETUSER NAME ~ucam-webauth:* &ucam-webauth:* ${COMMANDS}; where a provider forbids ACL, change the user in the settings of the service`,
  },
  {
    pattern: / ERR (?:DB index is out of range|invalid DB index)/,
    lasts: true,
    explain: ({ database }) =>
      `it has no database ${database}. Give the number of one that it has (redis://HOST/NUMBER), or raise databases in its redis.conf`,
  },
  {
    pattern: / ERR SELECT is not allowed in cluster mode/,
    lasts: true,
    explain: () => 'it is a node of a Redis Cluster, which has database 0 only, and RedisStore needs a single Redis',
  },
  {
    pattern: / (?:MOVED|ASK) | CROSSSLOT|Script attempted to access a non local key in a cluster node/,
    lasts: true,
    explain: () => 'it is a node of a Redis Cluster. Give the url of a Redis that is no part of a cluster',
  },
  {
    pattern: / ERR unknown command/,
    lasts: true,
    explain: () =>
      'it lacks a command that RedisStore needs: give the url of a Redis of version 6.2 or later (not of a Sentinel or a proxy), with no command renamed or disabled',
  },
  {
    pattern: / DENIED Redis is running in protected mode/,
    lasts: true,
    explain: () =>
      'it is in protected mode and takes connections from its own machine only. Set a password for its default user (requirepass) and give it in the option password',
  },
  {
    pattern: / ERR max number of clients reached/,
    explain: () => 'it has too many clients. Raise maxclients in its redis.conf, or close other clients',
  },
  { pattern: / LOADING/, explain: () => 'it is still reading its data from the disk' },
  {
    pattern: / MISCONF/,
    explain: () => 'it takes no writes, since it cannot save to its disk. See the log of Redis, and its disk',
  },
  { pattern: / OOM /, explain: () => 'it has no memory left. Raise maxmemory, or remove other data' },
  {
    pattern: / READONLY/,
    explain: () =>
      'it is a replica, which takes no writes. Give the url of the primary, unless a failover is under way',
  },
  { pattern: / MASTERDOWN/, explain: () => 'it is a replica that has lost its primary. Give the url of the primary' },
  { pattern: / CLUSTERDOWN/, explain: () => 'it is a node of a Redis Cluster that is not complete' },
  { pattern: / BUSY /, explain: () => 'it is busy with a script' },
  {
    pattern: /^ECONNREFUSED/,
    explain: ({ host, port }) => `nothing listens on port ${port} of ${host}. Start Redis, or correct the url`,
  },
  {
    pattern: /^(?:ENOTFOUND|EAI_)/,
    explain: ({ host }) => `the host name ${host} cannot be resolved. Correct the url, or see to the DNS`,
  },
  {
    pattern: /^(?:EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL)/,
    explain: ({ host }) => `there is no route to ${host}. Correct the url, or see to the network`,
  },
  {
    pattern: /^ERR_SSL_|^EPROTO|wrong version number/,
    explain: ({ port }) =>
      `TLS failed: what listens on port ${port} speaks no TLS, or another version. Use redis: for a port without TLS`,
  },
  {
    pattern: /^(?:CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_TLS_CERT|HOSTNAME_MISMATCH|INVALID_CA)/,
    explain: ({ host }) =>
      `TLS failed: the certificate of ${host} is not trusted. Name the file of its authority in NODE_EXTRA_CA_CERTS, and use the host name that the certificate is for`,
  },
  {
    pattern: /RESP type|Unexpected byte|ParseError|Protocol error/i,
    explain: ({ port, tls }) =>
      `what listens on port ${port} is no Redis, such as an HTTP server${tls ? '' : ', or it takes TLS only (rediss:)'}. Correct the url`,
  },
  {
    pattern: /^ETIMEDOUT|Connection timeout|has not answered for/,
    explain: ({ port, tls }) =>
      tls
        ? `nothing answered on port ${port}. A firewall may drop packets, or the port may be one without TLS (redis:)`
        : `nothing answered on port ${port}. A firewall may drop packets, or Redis may be busy`,
  },
  {
    pattern: /^(?:ECONNRESET|EPIPE)|closed unexpectedly|connection has ended/i,
    explain: ({ tls }) =>
      tls
        ? 'the connection was closed'
        : 'the connection was closed. Redis has stopped, or the port takes TLS only (rediss:)',
  },
];

/** Reads the address from the options. */
export function addressOf({ url, password = '' }: { readonly url: string; readonly password?: string }): Address {
  const { protocol, hostname, port, pathname, password: encoded } = new URL(url);
  const secrets = [password, encoded, decoded(encoded)].filter((secret) => secret !== '');
  const database = pathname.slice(1) || '0';
  return { secrets, host: hostname, port: port || '6379', tls: protocol === 'rediss:', database };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Error of a Redis that cannot be used for now, and is tried again. */
class Away extends Error {}

/** Whether an error says how Redis fails, and not how one command does. */
export function isDiagnosed(error: unknown): boolean {
  return (
    error instanceof Refusal || error instanceof Away || reasons.some(({ pattern }) => pattern.test(textOf(error)))
  );
}

/** Says why a Redis cannot be used, and what to do. The error of the client, without passwords, becomes the cause. */
export function diagnose(error: Error, address: Address): Error {
  if (error instanceof Refusal || error instanceof Away) return error;
  const cause = withoutSecrets(error, address);
  const reason = reasons.find(({ pattern }) => pattern.test(textOf(cause)));
  const message = reason === undefined ? cause.message : `${briefly(cause)}: ${reason.explain(address)}`;
  if (reason?.lasts) return new Refusal(`Redis cannot be used: ${message}`, { cause });
  return new Away(`Redis cannot be used just now: ${message}`, { cause });
}

/**
 * Copies an error without passwords, and with a message of one line and of bounded length. A server repeats the arguments
 * of a command that it does not know, such as AUTH.
 */
function withoutSecrets(error: Error, { secrets }: Address): Error {
  let message = messageOf(error).replace(/,? with args beginning with:.*/s, '');
  for (const secret of secrets) message = message.replaceAll(secret, '…');
  const { code } = error as NodeJS.ErrnoException;
  return Object.assign(new Error(singleLine(message)), isText(code) ? { code } : {});
}

function textOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return `${isText(code) ? code : ''} ${messageOf(error as Error)}`;
}

/** Without what Redis adds for its own clients. */
function briefly(error: Error): string {
  return messageOf(error)
    .replace(/(?:, | HELLO must).*/s, '')
    .replace(/\.$/, '');
}

/** Returns the message of an error. Of several addresses that were tried, the first one says why. */
function messageOf(error: Error): string {
  return String(error instanceof AggregateError ? error.errors[0]?.message : error.message);
}
