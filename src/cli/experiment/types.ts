// What the experiment's server and its page, in the browser, say to each other.

export type Method = 'cookie' | 'frame' | 'query' | 'firstMessage' | 'subprotocol' | 'basic' | 'bearer';

/** What is the matter with a credential, or with who sends it. */
export type Case = 'good' | 'wrong' | 'expired' | 'reused' | 'foreign' | 'sandboxed' | 'ended';

/** Who opens the socket. */
export type Sender = 'page' | 'foreign' | 'sandboxed' | 'program';

/** How a try is to be made. */
export interface Plan {
  readonly id: string;
  readonly by: Sender;
  /** Where the socket is. */
  readonly url: string;
  /** The origin whose page is to open it, if not that of this one. */
  readonly from?: string;
  /** Absent where the page gets one itself, as any page does, or needs none. */
  readonly ticket?: string;
  /** What the program got to see, if it was the program's to do. */
  readonly seen?: readonly Seen[];
}

/** What whoever opened a socket got to see of it. */
export interface Seen {
  readonly opened: boolean;
  readonly said?: string;
  /** Of an answer of HTTP: programs are told, pages are not. */
  readonly status?: number;
  readonly error?: string;
  /** With which the socket was closed, by the other side. */
  readonly code?: number;
  readonly reason?: string;
}

/** A line on the wire; its credentials are masked. */
export interface Line {
  readonly from: 'client' | 'server';
  readonly text: string;
}

/** A connection, as it was at the server. */
export interface Wire {
  readonly lines: readonly Line[];
  readonly status?: number;
  readonly error?: { readonly code: string; readonly message: string };
  /** Whose socket it is. */
  readonly who?: string;
  readonly closed?: { readonly code: number; readonly reason: string };
}

/** What the server has to say of a try. */
export interface Report {
  readonly wires: readonly Wire[];
  readonly accepted: boolean;
  /** In a few characters. */
  readonly short: string;
  readonly verdict: string;
  /** The error's own sentence. */
  readonly because?: string;
  readonly lesson: string;
}
