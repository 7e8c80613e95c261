import { type Connection, connect, type Status } from '../../client/index.js';
import type { Wire } from '../experiment/types.js';
import { ask } from './ask.js';
import { byId, make, onPress } from './dom.js';

const MOST = 40;
const ticketUrl = '/experiment/ticket';

/** The life of one socket, as the page and its server see it. */
export class Life {
  readonly #list = byId('life');
  readonly #now = byId('now');
  #id = '';
  #connection: Connection | undefined;
  #wasOpen = false;
  #opened = 0;
  /** What is told has an order, though some of it has to be asked for. */
  #told: Promise<void> = Promise.resolve();

  constructor() {
    onPress(byId('deeds'), ({ value }) => {
      this.#act(value).catch(({ message }: Error) => this.#write('failed', message));
    });
  }

  async #act(deed: string): Promise<void> {
    if (deed === 'open' || deed === 'reopen') return this.#open();
    if (this.#connection === undefined) throw new Error('Open it first.');
    if (deed === 'close') this.#connection.close(1000, 'the page wants no more');
    else if (deed === 'renew') await this.#renew(this.#connection);
    else await ask('POST', `/experiment/lives/${this.#id}/${deed}`);
  }

  async #open(): Promise<void> {
    if (this.#connection) return this.#connection.open();
    this.#id = (await ask<{ id: string }>('POST', '/experiment/lives')).id;
    this.#connection = connect(`/experiment/life?try=${this.#id}`, {
      credential: 'query',
      ticketUrl,
      onStatus: (status) => this.#note(status),
      onMessage: (data) => this.#hear(String(data)),
    });
  }

  async #renew(connection: Connection): Promise<void> {
    const { ticket } = await ask<{ ticket: string }>('POST', ticketUrl);
    if (!connection.send(JSON.stringify({ type: 'renew', ticket }))) throw new Error('It is not open.');
  }

  #hear(text: string): void {
    const { type, expires, code } = JSON.parse(text);
    if (type !== 'renewed') return this.#write(type, code);
    const end = new Date(expires).toLocaleTimeString();
    this.#write(
      'renewed',
      `A fresh ticket was sent through it. It goes on by that ticket's session, which ends at ${end}.`,
    );
  }

  #note(status: Status): void {
    const at = new Date();
    this.#told = this.#told
      .then(() => this.#tell(status, at))
      .catch(({ message }: Error) => this.#write('unknown', message));
  }

  async #tell(status: Status, at: Date): Promise<void> {
    this.#now.textContent = status.state;
    if (status.state === 'open') return this.#tellOpen(at);
    if (this.#wasOpen) await this.#tellClosed(status, at);
    this.#wasOpen = false;
    if (status.state === 'down')
      this.#write('waiting', `It is tried again in ${(status.retryIn / 1000).toFixed(1)} s.`, at);
    if (status.state === 'refused' || status.state === 'logged out') this.#write(status.state, reasonOf(status), at);
  }

  #tellOpen(at: Date): void {
    this.#wasOpen = true;
    this.#opened += 1;
    if (this.#opened === 1) this.#write('opened', 'by a ticket in its address, which is used up now.', at);
    else this.#write('reconnected', 'by another ticket, of a session that has just begun.', at);
  }

  /** What the server has sent, if it was the server that closed it. */
  async #tellClosed(status: Status, at: Date): Promise<void> {
    const { closed } = await ask<Pick<Wire, 'closed'>>('GET', `/experiment/lives/${this.#id}`);
    if (closed && closed.code >= 4000)
      this.#write('session ended', `The server sent ${closed.code}, ${closed.reason}.`, at);
    this.#write('closed', reasonOf(status), at);
  }

  #write(what: string, more: string, at = new Date()): void {
    const time = make('time', '', at.toLocaleTimeString());
    this.#list.append(make('li', '', time, ' ', make('strong', '', what), more && `: ${more}`));
    while (this.#list.children.length > MOST) this.#list.firstElementChild?.remove();
  }
}

function reasonOf(status: Status): string {
  if (status.state === 'closed') return `with ${status.code}${status.reason && `, ${status.reason}`}`;
  return 'reason' in status ? status.reason : '';
}
