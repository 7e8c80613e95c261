import type { Seen, Wire } from '../experiment/types.js';
import { make } from './dom.js';
import type { Outcome } from './trial.js';

/** Shows what came of a try, and leads whoever reads or hears the page to it. */
export function show(panel: HTMLElement, name: string, outcome: Outcome): void {
  const heading = make('h3', '', name);
  heading.id = 'result-name';
  heading.tabIndex = -1;
  const { accepted, verdict, because, lesson, wires, seen } = outcome;
  panel.replaceChildren(
    heading,
    make('p', '', make('strong', accepted ? 'good' : 'bad', `${accepted ? '✓' : '✕'} ${verdict}`)),
    make('p', '', because && make('q', '', because), ' ', lesson),
    make('h4', '', 'On the wire'),
    make(
      'p',
      'quiet',
      `${senders[outcome.by]} Secrets are masked: their first four characters, and how long they are.`,
    ),
    ...wires.map(listWire),
    make('h4', '', outcome.by === 'program' ? 'What the program was told' : 'What the page was told'),
    ...seen.map((one) => make('p', '', tell(one))),
  );
  panel.hidden = false;
  heading.focus({ preventScroll: true });
  // All of it, or on a small screen as much as there is room for.
  panel.scrollIntoView({ block: 'nearest' });
}

const senders = {
  page: 'Your browser sent it, from this page.',
  foreign: 'Your browser sent it, from a page of another origin in a hidden frame.',
  sandboxed: 'Your browser sent it, from a page in a sandbox.',
  program: 'A program sent it, the server of this demonstration: no page can choose these headers.',
} as const;

function listWire({ lines }: Wire): HTMLElement {
  const items = lines.map(({ from, text }) => {
    const arrow = make('span', '', from === 'client' ? '→ ' : '← ');
    arrow.ariaHidden = 'true';
    return make(
      'li',
      from === 'client' ? '' : 'answer',
      arrow,
      make('span', 'heard', from === 'client' ? 'Sent: ' : 'Answered: '),
      text,
    );
  });
  return make('ul', 'wire', ...items);
}

function tell({ opened, said, status, error, code, reason }: Seen): string {
  if (said !== undefined) return `The socket opened, and said: ${said}`;
  if (status !== undefined) return `The whole answer: ${status} ${error}.`;
  if (opened) return `The socket opened, and was closed with ${code}${reason && `: ${reason}`}.`;
  return `The socket was closed with ${code}, and nothing else: pages learn neither the status nor the reason.`;
}
