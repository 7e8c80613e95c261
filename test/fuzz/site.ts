import type { RouteRequirements } from '../../src/express/index.js';
import type { WAA } from '../../src/waa.js';

/** An application under test, as far as the other side of the wire has to know it. */
export interface Site {
  readonly name: string;
  readonly port: number;
  /** Of its base URL, which is not where it listens: as behind a proxy. */
  readonly origin: string;
  readonly path: string;
  readonly cookies: WAA['cookies'];
  readonly routes: WAA['routes'];
}

/** What the driver tells the process of the applications, which answers with a {@link ServerReport}. */
export interface Order {
  /** What time it is: milliseconds. */
  readonly time: number;
  /** Whether to collect garbage first. */
  readonly collect: boolean;
}

/** What the process of the applications knows of itself. */
export interface ServerReport {
  /** Requests and upgrades that got past Node's parser. */
  readonly reached: number;
  /** Responses that were used up, and sessions that were ended; by site. */
  readonly spent: readonly number[];
  readonly revoked: readonly number[];
  /** What the stores remember, and the ends of sessions that are waited for. */
  readonly remembered: number;
  readonly watched: number;
  /** Bytes. */
  readonly heap: number;
  readonly resident: number;
  /** Warnings, errors that nobody caught, secrets in the log. */
  readonly problems: readonly string[];
}

/** Who has a session, and how they got it. Instants are milliseconds. */
export interface Person {
  readonly principal: string;
  readonly ptags: readonly string[];
  readonly auth: string;
  readonly sso: readonly string[];
  readonly issue: number;
}

interface Page {
  readonly asks: RouteRequirements;
  /** The same once more, in other words. */
  admits(person: Person, now: number): boolean;
}

const isCurrent = ({ ptags }: Person) => ptags.includes('current');

/** Whose pages may send what changes something, beside the application's own. */
export const friend = 'https://friend.example.org';

/** The pages behind a guard. */
export const pages: Readonly<Record<string, Page>> = {
  '/private': { asks: {}, admits: isCurrent },
  '/any': { asks: { ptags: [] }, admits: () => true },
  '/one': {
    asks: { principals: ['person-00'] },
    admits: (person) => isCurrent(person) && person.principal === 'person-00',
  },
  '/shared': { asks: { ptags: [], origins: [friend] }, admits: () => true },
  '/again': { asks: { iact: true }, admits: (person) => isCurrent(person) && person.auth !== '' },
  '/fresh': {
    asks: { ptags: [], maxAge: 60 },
    admits: ({ auth, issue }, now) => auth !== '' && now - issue <= 60_000,
  },
  '/card': {
    asks: { ptags: [], aauth: ['x-card'] },
    admits: ({ auth, sso }) => auth === 'x-card' || sso.includes('x-card'),
  },
  '/quiet': { asks: { iact: false }, admits: isCurrent },
};

/** What a page says to somebody who was let in. */
export const opened: RegExp = /^opened (\S+) for (\S+)$/;

/** What is said for a ticket. */
export const taken: RegExp = /^took a ticket of (\S+)$/;
