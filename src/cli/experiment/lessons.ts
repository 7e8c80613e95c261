import type { Kind } from './credentials.js';
import type { Case, Method } from './types.js';

/** What a method is for, and where it leaks. */
export const abouts: Readonly<Record<Method, { readonly who: string; readonly leaks: string }>> = {
  cookie: {
    who: 'Pages of the application itself.',
    leaks: 'into no address and no script; but the browser sends it along for any page of the same site.',
  },
  frame: { who: 'Pages at another origin that open sockets often.', leaks: 'as a cookie does.' },
  query: {
    who: 'Pages at another origin.',
    leaks: "into the logs of whatever is on the way, and the browser's console.",
  },
  firstMessage: {
    who: 'Pages whose addresses are logged on the way.',
    leaks: "into what records messages; and a stranger's socket is open for a while.",
  },
  subprotocol: { who: 'Front ends of Jupyter.', leaks: 'into logs that write this header, which few people think of.' },
  basic: {
    who: 'Programs that take nothing but an address.',
    leaks: 'out of the address, into scripts and shells; and browsers keep it.',
  },
  bearer: { who: 'Programs.', leaks: 'into logs that write Authorization; most know not to.' },
};

/** What each case is called, and what it is. */
export const cases: Readonly<Record<Case, { readonly name: string; readonly short: string; readonly what: string }>> = {
  good: { name: 'A good one', short: 'good', what: 'Made just now.' },
  wrong: { name: 'A wrong one', short: 'wrong', what: 'One character is changed.' },
  expired: { name: 'An expired one', short: 'expired', what: 'Made by a machine whose clock is late.' },
  reused: { name: 'The same one twice', short: 'twice', what: 'For two sockets, one after the other.' },
  foreign: { name: 'From a foreign page', short: 'foreign', what: 'A good one, in a page of another origin.' },
  sandboxed: { name: 'From a sandboxed page', short: 'sandbox', what: 'Its origin is null.' },
  ended: { name: 'After logging out', short: 'ended', what: 'Of a session that has ended; a revoked token.' },
};

export const kinds: Readonly<Record<Method, Kind>> = {
  cookie: 'session',
  frame: 'socket',
  query: 'ticket',
  firstMessage: 'ticket',
  subprotocol: 'ticket',
  basic: 'ticket',
  bearer: 'token',
};

/** What there is to learn from it. */
export function lessonOf(method: Method, which: Case): string {
  return special[method]?.[which] ?? lessons[kinds[method]][which];
}

const cookies: Readonly<Record<Case, string>> = {
  good: 'The page did nothing: the browser put the cookie there. It is HttpOnly, so that no script ever sees it.',
  wrong:
    'The cookie is sealed, and with one character changed it opens no more. It is 403, since a 401 has to name a scheme of HTTP, and a cookie is none.',
  expired:
    'Its end is sealed into the cookie. What counts is the clock of the server, and not how long a browser keeps it.',
  reused:
    'A cookie is good until its session ends, and who has it has the session. So it is kept out of addresses and scripts.',
  foreign:
    'The browser sent the cookie for a page that is not ours: ports mean nothing to it. Only the Origin tells them apart, and it is checked before all else.',
  sandboxed:
    'A sandboxed page has no origin, and browsers write null. Anybody can make such a page, so null is never let in; and its browser sent no cookie either.',
  ended: 'Logging out ends the session at the server. Every copy of its cookie is worth nothing from then on.',
};

const tickets: Readonly<Record<Case, string>> = {
  good: 'It was good for this one socket, and is used up now.',
  wrong: 'A ticket is 256 random bits, of which the server keeps a hash: one character off is as good as none.',
  expired:
    'A ticket lasts for 30 seconds, and this one was made over 30 seconds ago, by the clock of the machine that made it.',
  reused: 'The first socket used it up: whoever reads it somewhere on the way comes too late.',
  foreign: 'Its ticket is good, and nobody looked at it: the Origin comes first. So the ticket is not used up either.',
  sandboxed: 'A sandboxed page has no origin, and browsers write null. Anybody can make one, so null is never let in.',
  ended: 'A ticket stands for a session. That was over before the ticket was shown.',
};

const tokens: Readonly<Record<Case, string>> = {
  good: 'A program sets the header that no page can set. It sent no Origin, and needs none.',
  wrong: 'A token is 256 random bits, of which the server keeps a hash: one character off is as good as none.',
  expired: 'Whoever made it said how long it was to last.',
  reused: 'An API token is no ticket: it lasts, and so it is worth more to a thief. Give it few scopes.',
  foreign:
    'The program said that it is a foreign page, and was refused as one. It could have said nothing: the Origin protects people and their browsers, and programs have to have a token.',
  sandboxed: 'The program said null, as a sandboxed page would. What has an Origin is held to it.',
  ended: 'Logging out ends no API token. It was revoked, which ends it, and its sockets, within a second.',
};

const lessons: Readonly<Record<Kind, Readonly<Record<Case, string>>>> = {
  session: cookies,
  socket: cookies,
  ticket: tickets,
  token: tokens,
};

const special: { readonly [method in Method]?: { readonly [which in Case]?: string } } = {
  frame: {
    good: 'A hidden frame of this origin spent a ticket, and got a cookie for sockets only. On localhost the cookie of the session comes along, since ports mean nothing to cookies; this server does not look at it, as no other host would get it.',
  },
  query: {
    good: 'The ticket is in the address, and so perhaps in logs. It was good for this one socket, and is used up now.',
    wrong: `${tickets.wrong} Look into the browser's console: the whole address is there.`,
  },
  firstMessage: {
    good: 'The socket was open before anybody was known: 101 comes first, and then the ticket.',
    foreign: 'The Origin is in the handshake, so that this one is refused before it could send its ticket.',
  },
  subprotocol: {
    good: 'A page can choose its subprotocols, so one of them carries the ticket. The server chooses the other one, and never sends the ticket back.',
  },
  basic: {
    good: 'There were two handshakes: the browser sends a password only after a 401 has asked it to. It keeps it, and sends it by itself from then on.',
    foreign: 'It was not even asked for its password: the Origin comes first.',
  },
};
