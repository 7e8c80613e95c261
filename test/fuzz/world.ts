import type { KeySet } from '../../src/keys.js';
import type { AuthResponse } from '../../src/response.js';
import type { WLS } from '../../src/wls/index.js';
import { type Answer, Connection, headerOf } from './connection.js';
import { returns } from './returns.js';
import { type Person, type Site, taken } from './site.js';

/** A login that was begun. */
export interface Attempt {
  readonly nonce: string;
  /** The address at the login service. */
  readonly location: string;
}

/** What stands for a session once. */
export interface Ticket {
  readonly text: string;
  readonly member: Member;
  taken: boolean;
  /** It was in a request that got no answer, so that nobody knows. */
  doubtful: boolean;
}

/** What the login service signed. */
export interface Genuine extends Person {
  readonly encoded: string;
  readonly attempt: Attempt;
  /** Whether it is a success that the attempt has to accept. */
  readonly good: boolean;
  used: boolean;
  /** It was in a request that got no answer, so that nobody knows. */
  doubtful: boolean;
}

/** Somebody with a session, live or not. */
export interface Member extends Person {
  readonly cookie: string;
  /** What the session is bound to, where it is. */
  readonly anchor: string | undefined;
  ended: boolean;
  /** The index of the request that ended it. */
  endedBy: number | undefined;
  /** It was in a logout that Node may have refused, so that nobody knows. */
  doubtful: boolean;
}

const VICTIMS = 6;
const GUESTS = 6;
const TICKETS = 4;
/** Among the logins under way, that of somebody who is logged in and has to authenticate again; two are before it. */
const AGAIN = 2;
const OLD = 4;
/** How long a session lasts here, and how much of that somebody who is to be attacked still has: milliseconds. */
const LIFE = 600_000;
const REST = 60_000;

/** All that is genuine at one site: what its users and its attackers know. */
export class World {
  readonly site: Site;
  /** Of the login service. */
  readonly keys: KeySet;
  readonly #wls: WLS;
  readonly #connection: Connection;
  /** Of the other sites. Nothing of theirs is good here. */
  foreign: readonly World[] = [];
  /** Milliseconds. */
  now = 0;
  #rounds = 0;
  #made = 0;
  #people = 0;

  /** What the store of the site may have been told by now: of logins, and of sessions that ended. */
  logins = 0;
  ends = 0;
  /** How many plain requests it sent. */
  asked = 0;

  /** Whose sessions nothing may end but a logout that they send. */
  victims: Member[] = [];
  /** Who log in and out. */
  guests: Member[] = [];
  attempts: Attempt[] = [];
  /** Of guests; nobody has used them. */
  tickets: Ticket[] = [];
  /** Responses that nobody has sent, some of them right and some of them not. */
  spares: Genuine[] = [];
  /** What was over before this round: sessions, and responses that were used. */
  gone: Member[] = [];
  expired: Member[] = [];
  spent: Genuine[] = [];
  /** What is over since. */
  left: Member[] = [];
  #used: Genuine[] = [];

  /** Everybody whose session may be live, by its cookie. */
  readonly members: Map<string, Member> = new Map();
  /** Every response that is still fresh, by its text in bytes. */
  readonly responses: Map<string, Genuine> = new Map();

  constructor(site: Site, wls: WLS) {
    this.site = site;
    this.keys = wls.profile.keys;
    this.#wls = wls;
    this.#connection = new Connection(site.port);
  }

  /** Brings everything up to date. The numbers of things stay the same, so that choices among them do. */
  async renew(now: number): Promise<void> {
    this.now = now;
    this.#forget();
    this.#rounds += 1;
    this.attempts = [await this.#begin(), this.attempts[0] ?? (await this.#begin())];
    await this.#fill(this.victims, VICTIMS, (i) => this.#victim(i));
    await this.#fill(this.guests, GUESTS, () => this.#guest());
    this.attempts.push(await this.#begin(this.victims[1]));
    this.tickets = [];
    for (let i = 0; i < TICKETS; i++) this.tickets.push(await this.#makeTicket(this.guests[i] as Member));
    while (this.gone.length + this.left.length < OLD) await this.#leave(await this.#logIn(this.#guest()));
    this.gone = [...this.gone, ...this.left.splice(0)].slice(-OLD);
    this.spent = [...this.spent, ...this.#used.splice(0)].slice(-OLD);
    this.spares = [
      ...flaws.map((flaw, i) => this.#respond(this.attempts[i % AGAIN] as Attempt, flaw(this))),
      ...flawsOfStepUp.map((flaw) => this.#respond(this.attempts[AGAIN] as Attempt, flaw(this))),
    ];
  }

  /** A good response of its own, for somebody new. */
  fresh(): Genuine {
    return this.#respond(this.attempts[0] as Attempt, { ...this.#guest(), good: true });
  }

  /** What a browser sends for somebody; with another one's anchor, if that is given. */
  cookieOf({ cookie, anchor }: Pick<Member, 'cookie' | 'anchor'>, { anchor: other } = { anchor }): string {
    const { cookies } = this.site;
    const session = `${cookies.session}=${cookie}`;
    return cookies.anchor === undefined ? session : `${session}; ${cookies.anchor}=${other}`;
  }

  /** A response was accepted with this answer, which holds the session. */
  enter(response: Genuine, answer: Answer): Member {
    const { cookies } = this.site;
    const cookie = cookieSet(answer, cookies.session) ?? '';
    const anchor = cookies.anchor && cookieSet(answer, cookies.anchor);
    const { principal, ptags, auth, sso, issue } = response;
    const member = {
      principal,
      ptags,
      auth,
      sso,
      issue,
      cookie,
      anchor,
      ended: false,
      endedBy: undefined,
      doubtful: false,
    };
    response.used = true;
    this.logins += 1;
    this.#used.push(response);
    this.members.set(cookie, member);
    return member;
  }

  /** A session was ended, or is given up. */
  end(member: Member, by?: number): void {
    if (member.ended) return;
    this.left.push(member);
    member.ended = true;
    member.endedBy = by;
  }

  /** What no answer may repeat. */
  get secrets(): string[] {
    const cookies = [...this.victims, ...this.guests].flatMap(({ cookie, anchor }) => [cookie, anchor ?? cookie]);
    const nonces = this.attempts.map(({ nonce }) => nonce);
    const tickets = this.tickets.map(({ text }) => text);
    return [
      ...cookies,
      ...nonces,
      ...tickets,
      ...this.spares.map(({ encoded }) => encoded.slice(encoded.lastIndexOf('!') + 1)),
    ];
  }

  /** A plain request of somebody who means well. */
  async ask(method: string, path: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    const all = { Host: new URL(this.site.origin).host, Accept: 'text/html', ...headers };
    const lines = Object.entries(all).map((header) => header.join(': '));
    const bytes = Buffer.from([`${method} ${path} HTTP/1.1`, ...lines, '', ''].join('\r\n'), 'latin1');
    this.asked += 1;
    const { answers, problem } = await this.#connection.send([{ bytes, head: false, partial: false }]);
    if (answers[0] === undefined) throw new Error(`${method} ${path} at ${this.site.name}: ${problem}`);
    return answers[0];
  }

  /** Whether the session opens a page. */
  async opens(member: Member): Promise<boolean> {
    const { body } = await this.ask('GET', this.site.routes.home, { Cookie: this.cookieOf(member) });
    return body === member.principal;
  }

  /** Who it is that a ticket stands for; undefined if it is refused. */
  async take({ text }: Ticket): Promise<string | undefined> {
    const { body } = await this.ask('GET', `${this.site.path}/take?ticket=${text}`);
    return taken.exec(body)?.[1];
  }

  /** Sends a response as it should be sent. */
  async use({ encoded, attempt }: Genuine): Promise<Answer> {
    const { routes, cookies } = this.site;
    const target = `${routes.callback}?WLS-Response=${encodeURIComponent(encoded)}`;
    return this.ask('GET', target, { Cookie: `${cookies.login}=${attempt.nonce}` });
  }

  close(): void {
    this.#connection.close();
  }

  /** @param member who is logged in, and has to authenticate again. */
  async #begin(member?: Member): Promise<Attempt> {
    const back = returns[this.#rounds % returns.length] as string;
    const target = `${this.site.routes.login}?return=${encodeURIComponent(back)}`;
    const cookie = member && this.cookieOf(member);
    const answer = await (cookie ? this.ask('GET', `${target}&iact=yes`, { Cookie: cookie }) : this.ask('GET', target));
    const [nonce, location] = [cookieSet(answer, this.site.cookies.login), headerOf(answer, 'location')];
    if (!nonce || !location) throw new Error(`no login begins at ${this.site.name}: ${answer.status} ${answer.body}`);
    return { nonce, location };
  }

  async #logIn(overrides: Partial<AuthResponse>): Promise<Member> {
    const response = this.#respond(this.attempts[0] as Attempt, { ...overrides, good: true });
    const answer = await this.use(response);
    if (cookieSet(answer, this.site.cookies.session)) return this.enter(response, answer);
    throw new Error(`no login succeeds at ${this.site.name}: ${answer.status} ${answer.body}`);
  }

  async #leave(member: Member): Promise<void> {
    const { routes, origin } = this.site;
    await this.ask('POST', routes.logout, { Origin: origin, Cookie: this.cookieOf(member) });
    this.ends += 1;
    this.end(member);
  }

  async #makeTicket(member: Member): Promise<Ticket> {
    const { routes, origin } = this.site;
    const headers = { Origin: origin, Cookie: this.cookieOf(member) };
    const { status, body } = await this.ask('POST', routes.ticket, headers);
    if (status !== 200) throw new Error(`no ticket at ${this.site.name}: ${status} ${body}`);
    return { text: JSON.parse(body).ticket, member, taken: false, doubtful: false };
  }

  async #fill(members: Member[], count: number, who: (i: number) => Partial<AuthResponse>): Promise<void> {
    for (let i = 0; i < count; i++) {
      const known = members[i];
      if (known && !known.ended && !known.doubtful && known.issue + LIFE - REST > this.now) continue;
      members[i] = await this.#logIn(who(i));
    }
  }

  /** Each another person, of one kind or another. */
  #victim(i: number): Partial<AuthResponse> {
    const how = i % 3 === 1 ? { auth: '', sso: ['pwd'] } : {};
    return { principal: `person-${String(i).padStart(2, '0')}`, ptags: i % 3 === 2 ? [] : ['current'], ...how };
  }

  #guest(): { principal: string; ptags: string[] } {
    this.#people = (this.#people + 1) % 100;
    return { principal: `guest-${String(this.#people).padStart(3, '0')}`, ptags: ['current'] };
  }

  #respond(attempt: Attempt, { good, ...overrides }: Partial<AuthResponse> & { good: boolean }): Genuine {
    // Always equally long, so that places in it mean the same in each run.
    this.#made += 1;
    const id = `${this.site.port}-${String(this.#made).padStart(9, '0')}`;
    const fields = { id, principal: 'somebody', ptags: ['current'], auth: 'pwd', sso: [], ...overrides };
    const { principal, ptags, auth, sso } = fields;
    const failed = overrides.status !== undefined;
    const encoded = this.#wls.respond(attempt.location, failed ? { id, ...overrides } : fields);
    const response = {
      principal,
      ptags,
      auth,
      sso,
      issue: this.now,
      encoded,
      attempt,
      good,
      used: false,
      doubtful: false,
    };
    if (good) this.responses.set(Buffer.from(encoded).toString('latin1'), response);
    return response;
  }

  #forget(): void {
    for (const [cookie, member] of this.members) {
      if (member.issue + LIFE > this.now) continue;
      this.members.delete(cookie);
      if (!member.ended) this.expired = [...this.expired, member].slice(-OLD);
    }
    for (const [text, { issue }] of this.responses) if (issue < this.now) this.responses.delete(text);
  }
}

type Overrides = Partial<AuthResponse> & { good: boolean };

/** Half of the spare responses are good; the others are genuine too, and wrong in one thing. */
const flaws: readonly ((world: World) => Overrides)[] = [
  () => ({ good: true }),
  () => ({ good: true, msg: 'a ! and a %, \ufffd é 😀' }),
  () => ({ good: true, auth: '', sso: ['pwd'] }),
  () => ({ good: true, ptags: [], life: 300 }),
  () => ({ good: true, principal: 'person-00' }),
  () => ({ good: true, auth: 'x-card', sso: ['pwd', 'x-card'] }),
  ({ now }) => ({ good: false, issue: new Date(now - 40_000) }),
  ({ now }) => ({ good: false, issue: new Date(now + 60_000) }),
  () => ({ good: false, url: 'https://evil.example/webauth/callback' }),
  () => ({ good: false, ver: 2, ptags: [] }),
  () => ({ good: false, status: 410 }),
  // (Not kid: it is not signed, so that a mutation can put it right again.)
  () => ({ good: false, params: 'y' }),
  () => ({ good: false, params: 'x' }),
];

/** Of answers to somebody who is logged in and is to authenticate again: the same person has to, and interactively. */
const flawsOfStepUp: typeof flaws = [
  () => ({ good: true, principal: 'person-01' }),
  () => ({ good: false, principal: 'person-00' }),
  () => ({ good: false, principal: 'person-01', auth: '', sso: ['pwd'] }),
];

/** The value of a cookie that an answer sets; undefined where it does not. */
export function cookieSet({ headers }: Answer, name: string): string | undefined {
  const prefix = `${name}=`;
  const line = headers.findLast(([key, value]) => key === 'set-cookie' && value.startsWith(prefix))?.[1];
  return line?.slice(prefix.length).split(';')[0];
}
