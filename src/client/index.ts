/** How a page shows whose socket it is to be: docs/websockets.md helps to choose. */
export type Credential = 'cookie' | 'frame' | 'query' | 'subprotocol' | 'firstMessage';

/** How it is with the socket, for people to see. */
export type Status =
  | { readonly state: 'connecting' }
  | {
      readonly state: 'open';
      /** The subprotocol that the server chose, or an empty text. */
      readonly protocol: string;
    }
  | {
      /** Out of reach. It is tried again by itself. */
      readonly state: 'down';
      readonly reason: string;
      /** When: milliseconds from now. */
      readonly retryIn: number;
    }
  | {
      /** Nobody is logged in any more. */
      readonly state: 'logged out';
      /** Where to go to log in, and come back to this page. */
      readonly loginUrl: string;
    }
  | {
      /** This person, or this page, may not. */
      readonly state: 'refused';
      /** Of the error table; absent where the server did not say. */
      readonly code?: string;
      readonly reason: string;
      /** Present where that is a guess, since the server did not say: then it is tried again, after so many milliseconds. */
      readonly retryIn?: number;
    }
  | {
      /** Over: the page or the application has closed it. */
      readonly state: 'closed';
      readonly code: number;
      readonly reason: string;
    };

/** What a message can be, in either direction. */
export type Data = string | Blob | ArrayBuffer | ArrayBufferView;

export interface ConnectOptions {
  /** What is sent to show whose socket it is: `cookie`, by default. */
  readonly credential?: Credential;
  /** The page's own subprotocols. */
  readonly protocols?: readonly string[];
  /** Where tickets are: `/webauth/ticket`, by default; below the path of `baseUrl`, if that has one. */
  readonly ticketUrl?: string;
  /** What messages of bytes are: `blob`, by default. */
  readonly binaryType?: 'blob' | 'arraybuffer';
  readonly onMessage?: (data: string | Blob | ArrayBuffer) => void;
  readonly onStatus?: (status: Status) => void;
}

/** A socket that is opened anew whenever it is lost, until somebody has to do something. */
export interface Connection {
  readonly status: Status;
  /** @returns whether it was handed to an open socket; what was not is for the page to keep. */
  send(data: Data): boolean;
  /** Tries now: also after somebody has logged in again, or where the socket was closed. */
  open(): void;
  /** Closes the socket for good. */
  close(code?: number, reason?: string): void;
}

/** The ticket could not be had. */
export class TicketError extends Error {
  override readonly name = 'TicketError';
  /** The status of the answer; 0 where there was none. */
  readonly status: number;
  /** Of the error table. */
  readonly code: string;
  /** Where nobody is logged in: where to go to log in, and come back to this page. */
  readonly loginUrl: string | undefined;

  constructor(message: string, status = 0, code = 'ERR_NETWORK', loginUrl?: string) {
    super(message);
    this.status = status;
    this.code = code;
    this.loginUrl = loginUrl;
  }
}

/**
 * Opens a socket, and keeps it open.
 * @param url a path of the page's own origin, or an address of `http:`, `https:`, `ws:` or `wss:`; http becomes ws.
 */
export function connect(url: string, options: ConnectOptions = {}): Connection {
  return new Kept(url, options);
}

class Kept implements Connection {
  status: Status = { state: 'connecting' };
  constructor(_url: string, _options: ConnectOptions) {}
  send(_data: Data): boolean {
    return false;
  }
  open(): void {}
  close(_code?: number, _reason?: string): void {}
}
