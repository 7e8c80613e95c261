import { type Answer, Connection } from './connection.js';
import { findFault, hiddenTickets, isLogout, takenBy, type View, view } from './oracle.js';
import { Report, Tally } from './report.js';
import { makeShot, type Shot } from './requests.js';
import { opened, pages, type ServerReport, taken } from './site.js';
import { cookieSet, type Genuine, type Member, type Ticket, type World } from './world.js';

/** What came of hostile requests. */
export class RequestReport extends Report {
  sent = 0;
  /** Of these, such as got past Node's parser. */
  reached = 0;
  /** Requests with a connection of their own; and of these, such as Node waited for the end of, or never answers. */
  alone = 0;
  cutOff = 0;
  /** What was granted. */
  logins = 0;
  logouts = 0;
  pages = 0;
  sockets = 0;
  tickets = 0;
  readonly statuses: Tally<number> = new Tally();
  readonly codes: Tally<string> = new Tally();
  /** At a tenth of the way, and at the end. */
  readonly servers: ServerReport[] = [];

  /** @param session name of the session cookie. */
  count(answer: Answer, session: string): void {
    const { status, body } = answer;
    const cookie = cookieSet(answer, session);
    this.statuses.add(status);
    for (const code of /ERR_[A-Z_]+/.exec(body) ?? []) this.codes.add(code);
    if (cookie) this.logins += 1;
    if (cookie === '') this.logouts += 1;
    if (status === 101) this.sockets += 1;
    if (opened.test(body)) this.pages += 1;
    if (taken.test(body)) this.tickets += 1;
  }
}

const LANES = 4;

/** One site under fire. */
export class Ground {
  readonly world: World;
  /** Responses in requests that got no answer: they may have been used. */
  doubtful = 0;
  readonly #seed: number;
  readonly #report: RequestReport;
  readonly #lanes: readonly Connection[];
  /** The first request of the round. */
  #first: number | undefined;
  /** Good requests of people with a session who were not let in. */
  #turnedAway: { readonly seen: View; readonly answer: Answer; readonly member: Member }[] = [];

  constructor(seed: number, world: World, report: RequestReport) {
    this.#seed = seed;
    this.world = world;
    this.#report = report;
    this.#lanes = Array.from({ length: LANES }, () => new Connection(world.site.port));
  }

  /** Sends the requests of one round. */
  async fire(indexes: readonly number[]): Promise<void> {
    this.#first = indexes[0];
    const queue = indexes[Symbol.iterator]();
    await Promise.all(this.#lanes.map((lane) => this.#shoot(lane, queue)));
  }

  /** After a round: whoever had a session has it still, whoever left it is out, and what was not used can be. */
  async settle(): Promise<void> {
    for (const { seen, answer, member } of this.#turnedAway) {
      if (!member.ended && !member.doubtful) this.#found(seen.shot, 'somebody with a session was turned away', answer);
    }
    this.#turnedAway = [];
    const { victims, gone, left, expired, tickets, spares } = this.world;
    for (const member of victims) await this.#expectOpen(member, !member.ended);
    for (const member of [...gone, ...left, ...expired]) await this.#expectOpen(member, false);
    for (const ticket of tickets) await this.#expectTicket(ticket);
    for (const response of spares) if (!response.used && !response.doubtful) await this.#expectGood(response);
  }

  close(): void {
    for (const lane of this.#lanes) lane.close();
    this.world.close();
  }

  /** Several requests in one go, where nothing can go wrong between them. */
  async #shoot(lane: Connection, queue: Iterable<number>): Promise<void> {
    let volley: Shot[] = [];
    for (const index of queue) {
      if (this.#report.isFull) return;
      const shot = makeShot(this.#seed, index, this.world);
      if (shot.alone) await this.#sendAlone(shot);
      else volley.push(shot);
      if (volley.length <= index % 5) continue;
      await this.#sendTogether(lane, volley);
      volley = [];
    }
    if (volley.length > 0) await this.#sendTogether(lane, volley);
  }

  async #sendTogether(lane: Connection, shots: readonly Shot[]): Promise<void> {
    const seen = shots.map((shot) => view(shot, this.world));
    const { answers, problem } = await lane.send(shots);
    for (const [i, answer] of answers.entries()) this.#take(seen[i] as View, answer);
    if (problem === undefined && !lane.isSpoilt) return;
    const what = problem ? `no answer: ${problem}` : 'the connection was ended, or there is an answer too many';
    this.#found(shots[Math.min(answers.length, shots.length - 1)] as Shot, what, answers.at(-1));
    lane.close();
  }

  async #sendAlone(shot: Shot): Promise<void> {
    const connection = new Connection(this.world.site.port);
    const seen = view(shot, this.world);
    const { answers, problem } = await connection.send([shot]);
    connection.close();
    this.#report.alone += 1;
    if (answers[0]) this.#take(seen, answers[0]);
    else if (problem === 'given up' || (problem === 'closed' && isTunnel(shot))) this.#report.cutOff += 1;
    else this.#found(shot, `no answer: ${problem}`);
    this.#doubt(seen, answers[0]);
  }

  /** Node may have given a request to the application and not its answer to us. */
  #doubt(seen: View, answer: Answer | undefined): void {
    const { response, carried } = seen;
    const mayLogIn = response !== undefined && !response.used;
    const mayLogOut = answer?.status !== 303 && isLogout(seen, this.world);
    for (const ticket of seen.tickets) ticket.doubtful = true;
    if (mayLogIn) response.doubtful = true;
    if (mayLogIn) this.doubtful += 1;
    if (!(mayLogIn || mayLogOut)) return;
    for (const one of [...carried, ...(seen.companions ?? [])]) one.doubtful = true;
    this.world.ends += carried.length + 1;
  }

  #take(seen: View, answer: Answer): void {
    this.#report.count(answer, this.world.site.cookies.session);
    const fault = findFault(seen, answer, this.world);
    if (fault !== undefined) this.#found(seen.shot, fault, answer);
    this.#book(seen, answer);
  }

  /** What the answer changes. */
  #book(seen: View, answer: Answer): void {
    const { world } = this;
    const { member, response } = seen;
    const cookie = cookieSet(answer, world.site.cookies.session);
    if (cookie && response) world.enter(response, answer);
    const isOut = isLogout(seen, world) && [303, 401, 503].includes(answer.status);
    if (cookie || isOut) for (const one of seen.carried) this.#leave(one, seen.shot.index);
    if (cookie === '') this.#leaveEverywhere(seen);
    for (const ticket of takenBy(seen, answer)) ticket.taken = true;
    for (const ticket of hiddenTickets(seen, answer)) ticket.doubtful = true;
    if (member && mayExpectMore(seen, member, answer, world)) this.#turnedAway.push({ seen, answer, member });
  }

  /** Unless another request had ended this one's session in the meantime: then these go on. */
  #leaveEverywhere({ companions }: View): void {
    if (companions) this.world.ends += 1;
    for (const member of companions ?? []) member.doubtful = true;
  }

  #leave(member: Member, by: number): void {
    this.world.ends += 1;
    this.world.end(member, by);
  }

  async #expectOpen(member: Member, open: boolean): Promise<void> {
    if (member.doubtful) return;
    const problem = open ? 'the session of somebody who did not log out is gone' : 'a session that was ended goes on';
    if ((await this.world.opens(member)) === open) return;
    this.#noteRound(`${problem}: ${JSON.stringify(member)}`);
    // Said once; the next round begins anew.
    member.doubtful = true;
  }

  async #expectTicket(ticket: Ticket): Promise<void> {
    const { member, taken, doubtful } = ticket;
    if (doubtful || member.doubtful) return;
    const good = !taken && !member.ended;
    const principal = await this.world.take(ticket);
    if (principal !== (good ? member.principal : undefined))
      this.#noteRound(`a ticket of ${member.principal} gives ${principal}`);
    if (principal && (await this.world.take(ticket))) this.#noteRound('a ticket is taken twice');
  }

  async #expectGood(response: Genuine): Promise<void> {
    const answer = await this.world.use(response);
    const accepted = Boolean(cookieSet(answer, this.world.site.cookies.session));
    if (accepted) this.world.enter(response, answer);
    if (accepted !== response.good) {
      this.#noteRound(`a response that is ${response.good ? 'good is not' : 'wrong is'} accepted: ${response.encoded}`);
    }
  }

  #found(shot: Shot, what: string, answer?: Answer): void {
    const said =
      answer && `\n  answer:  ${escaped(`${answer.status} ${JSON.stringify(answer.headers)} ${answer.body}`)}`;
    this.#note(
      `request ${shot.index} (${shot.kind}): ${what}\n  request: ${escaped(shot.bytes.toString('latin1'))}${said ?? ''}`,
    );
  }

  #noteRound(what: string): void {
    this.#note(`after the requests from ${this.#first} on, ${what}`);
  }

  #note(what: string): void {
    this.#report.findings.push(`seed ${this.#seed}, ${this.world.site.name}: ${what}`);
  }
}

/** Node ends what it cannot serve as a tunnel, and says nothing. */
function isTunnel({ bytes }: Shot): boolean {
  return /^\s*CONNECT /.test(bytes.toString('latin1'));
}

/** Whether a request with which nothing is wrong was not granted. */
function mayExpectMore({ shot, path }: View, member: Member, { status, body }: Answer, { now }: World): boolean {
  if (!shot.sound) return false;
  if (shot.kind === 'socket') return status !== 101 && isAdmitted('/private', member, now);
  if (shot.kind === 'ticket') return status !== 429 && !body.startsWith('{"ticket":');
  if (opened.test(body)) return false;
  if (shot.kind === 'home') return body !== member.principal;
  if (!['page', 'data', 'post'].includes(shot.kind)) return false;
  return isAdmitted(path.slice(path.lastIndexOf('/')), member, now);
}

function isAdmitted(page: string, member: Member, now: number): boolean {
  return pages[page]?.admits(member, now) ?? false;
}

const SHOWN = 3000;

/** Bytes as they can be put into a string literal. */
function escaped(text: string): string {
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}… (${text.length} bytes)` : text;
  return JSON.stringify(shown).replace(/[\x7f-\xff]/g, (byte) => `\\x${byte.charCodeAt(0).toString(16)}`);
}
