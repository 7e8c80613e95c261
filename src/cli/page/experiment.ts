import type { Case, Method } from '../experiment/types.js';
import { byId, onPress } from './dom.js';
import { Life } from './life.js';
import { show } from './show.js';
import { type Outcome, runTrial } from './trial.js';

const form = byId<HTMLFormElement>('trial');
const panel = byId('result');
const status = byId('status');
const matrix = byId('matrix');
const all = byId<HTMLButtonElement>('all');
const tried = byId('tried');
const outcomes = new Map<HTMLButtonElement, Outcome>();
let isBusy = false;

form.addEventListener('submit', (event) => event.preventDefault());
onPress(form, ({ value }) => {
  const which = new FormData(form).get('which');
  const cell = cells().find(({ dataset }) => dataset['method'] === value && dataset['which'] === which);
  if (cell) busy(status, () => tryAndShow(cell, status));
});
onPress(matrix, (cell) => busy(tried, () => (outcomes.has(cell) ? present(cell, matrix) : tryAndShow(cell, matrix))));
onPress(all, () => busy(tried, tryAll));
new Life();
for (const button of document.querySelectorAll('button')) button.disabled = false;

function cells(): HTMLButtonElement[] {
  return [...matrix.querySelectorAll('button')];
}

/** One thing at a time: what is pressed meanwhile is not done. @param says how it goes. */
async function busy(says: HTMLElement, work: () => string | Promise<string>): Promise<void> {
  if (isBusy) return;
  isBusy = true;
  says.textContent = 'Trying…';
  try {
    says.textContent = await work();
  } catch (error) {
    says.textContent = (error as Error).message;
    says.scrollIntoView({ block: 'center' });
  } finally {
    isBusy = false;
  }
}

/** @param place where to show what came of it: near to what was pressed. */
async function tryAndShow(cell: HTMLButtonElement, place: HTMLElement): Promise<string> {
  await fill(cell);
  return present(cell, place);
}

async function tryAll(): Promise<string> {
  const every = cells();
  let accepted = 0;
  try {
    for (const [i, cell] of every.entries()) {
      all.textContent = `Trying ${i + 1} of ${every.length}`;
      accepted += (await fill(cell)).accepted ? 1 : 0;
    }
    return `${accepted} were accepted, and ${every.length - accepted} refused.`;
  } finally {
    all.textContent = 'Try all again';
  }
}

async function fill(cell: HTMLButtonElement): Promise<Outcome> {
  const { method, which } = cell.dataset;
  const outcome = await runTrial(method as Method, which as Case);
  const { accepted, short, verdict } = outcome;
  outcomes.set(cell, outcome);
  const shown = cell.querySelector('.verdict') as HTMLElement;
  shown.textContent = `${accepted ? '✓' : '✕'} ${short}`;
  shown.className = `verdict ${accepted ? 'good' : 'bad'}`;
  cell.ariaLabel = `${nameOf(cell)}: ${verdict}`;
  return outcome;
}

function present(cell: HTMLButtonElement, place: HTMLElement): string {
  const outcome = outcomes.get(cell) as Outcome;
  for (const other of cells()) other.ariaCurrent = other === cell ? 'true' : null;
  place.after(panel);
  show(panel, nameOf(cell), outcome);
  return '';
}

/** Of the cell, as its row and column say it. */
function nameOf({ dataset }: HTMLButtonElement): string {
  const choice = form.querySelector(`input[value="${dataset['which']}"]`)?.parentElement?.querySelector('strong');
  return `${dataset['method']}: ${choice?.textContent?.toLowerCase()}`;
}
