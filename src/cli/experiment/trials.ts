import type { ClientOptions } from 'ws';
import { sentence } from '../../html.js';
import type { Auth } from '../../session/session.js';
import type { WAA } from '../../waa.js';
import type { Certificate } from '../certificate.js';
import type { Packages } from '../packages.js';
import type { Credentials } from './credentials.js';
import { kinds, lessonOf } from './lessons.js';
import { openAsProgram } from './program.js';
import type { Servers } from './servers.js';
import type { Case, Method, Plan, Report, Seen, Sender, Wire } from './types.js';
import type { Wires } from './wire.js';

interface TrialsOptions {
  readonly waa: WAA;
  readonly wires: Wires;
  readonly servers: Servers;
  readonly credentials: Credentials;
  readonly packages: Packages;
  readonly certificate: Certificate | undefined;
}

/** Tries of a method in a case. What a browser can do the page does; the rest is done here, by a program. */
export class Trials {
  readonly #options: TrialsOptions;

  constructor(options: TrialsOptions) {
    this.#options = options;
  }

  /** How the page is to make the try; or, if it was a program's to make, what that got to see. */
  async begin(method: Method, which: Case, auth: Auth): Promise<Plan> {
    const { wires, servers } = this.#options;
    const id = wires.begin(auth.principal, lessonOf(method, which));
    const by = senderOf(method, which);
    // A folder of its own: a browser sends a password that it knows to all of a folder.
    const url = `${servers.origins[method].replace(/^http/, 'ws')}/${id}/socket`;
    if (by === 'program') return { id, by, url, seen: await this.#runProgram(url, method, which, auth) };
    const plan = { id, by, url, ...(isElsewhere(which) && { from: servers.foreign }) };
    // A page gets a good ticket as any page does.
    if (kinds[method] !== 'ticket' || isOwn(which)) return plan;
    return { ...plan, ticket: await this.#make(method, which, auth) };
  }

  /** What the server has to say of a try; undefined if this person has made none of that name. */
  report(id: string, owner: string): Report | undefined {
    const found = this.#options.wires.of(id, owner);
    if (found === undefined) return undefined;
    const { wires, lesson } = found;
    return { ...judge(wires.at(-1)), wires, lesson: wires.length === 0 ? unheard : lesson };
  }

  async #runProgram(url: string, method: Method, which: Case, auth: Auth): Promise<Seen[]> {
    const { packages, certificate } = this.#options;
    const headers = this.#headers(method, which, await this.#make(method, which, auth));
    const options: ClientOptions = { headers, ...(certificate && { ca: certificate.cert }) };
    const seen = [await openAsProgram(packages, url, options)];
    if (which === 'reused') seen.push(await openAsProgram(packages, url, options));
    return seen;
  }

  /** Cookies as a browser would send them. */
  #headers(method: Method, which: Case, credential: string): Record<string, string> {
    const { waa, servers } = this.#options;
    if (method === 'bearer') {
      const from = { foreign: servers.foreign, sandboxed: 'null' }[which as string];
      return { Authorization: `Bearer ${credential}`, ...(from && { Origin: from }) };
    }
    const name = method === 'cookie' ? waa.cookies.session : waa.socketCookie(servers.origins.frame).name;
    return { Origin: waa.origin, Cookie: `${name}=${credential}` };
  }

  #make(method: Method, which: Case, auth: Auth): Promise<string> {
    const { credentials, servers } = this.#options;
    return credentials.make(kinds[method], which, auth, servers.origins.frame);
  }
}

/** No script can choose a cookie that is HttpOnly, nor set an Authorization. */
function senderOf(method: Method, which: Case): Sender {
  const byScript = kinds[method] === 'ticket' || isOwn(which) || isElsewhere(which);
  if (method === 'bearer' || !byScript) return 'program';
  return isElsewhere(which) ? which : 'page';
}

/** Whether what the browser has by itself is what is to be sent. */
function isOwn(which: Case): boolean {
  return which === 'good' || which === 'reused';
}

function isElsewhere(which: Case): which is 'foreign' | 'sandboxed' {
  return which === 'foreign' || which === 'sandboxed';
}

const unheard = 'Nothing has arrived at the server. Perhaps the browser wants to be told that it may trust that port.';

/** By its last connection: a browser that is asked for a password comes twice. */
function judge(wire: Wire = { lines: [] }): Pick<Report, 'accepted' | 'short' | 'verdict' | 'because'> {
  const { status, who, error, closed } = wire;
  if (who !== undefined) return { accepted: true, short: `${status}`, verdict: `Accepted, as ${who}` };
  if (status === undefined) return { accepted: false, short: 'none', verdict: 'No answer' };
  const short = `${closed?.code ?? status}`;
  const verdict = `${closed ? 'Closed' : 'Refused'}: ${short} ${error?.code ?? ''}`;
  return { accepted: false, short, verdict, ...(error && { because: sentence(error.message) }) };
}
