import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const here = import.meta.dirname;

// A clause is a list item that begins with its number in bold.
const clauses = [
  ...readFileSync(join(here, '../docs/protocol.md'), 'utf8').matchAll(/^- \*\*([A-Z]\d+)\*\* (.*)$/gm),
].map(([, id]) => id as string);

const files = readdirSync(here, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.test.ts'));

// it('…'), test("…"), describe(`…`), it.each(rows)('…'): the string that the call begins with.
const titled = /\b(?:it|test|describe)(?:\.\w+(?:\([^()]*\))?)*\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g;

const titles = files.flatMap((file) =>
  [...readFileSync(join(here, file), 'utf8').matchAll(titled)].map(([, , title]) => ({ file, title: title as string })),
);

/** The ids that a title cites, as in `[R7]` or `[R7, V1]`. */
function citations(title: string): string[] {
  return [...title.matchAll(/\[([A-Z]\d+(?:, [A-Z]\d+)*)\]/g)].flatMap(([, ids]) => (ids as string).split(', '));
}

describe('docs/protocol.md and the tests', () => {
  it('have each clause once', () => {
    expect(clauses.length).toBeGreaterThan(90);
    expect(clauses.filter((id, index) => clauses.indexOf(id) !== index)).toEqual([]);
  });

  it('number the clauses of each section without a gap', () => {
    for (const section of new Set(clauses.map((id) => id.slice(0, 1)))) {
      const ids = clauses.filter((id) => id.startsWith(section));
      expect(ids).toEqual(ids.map((_, index) => `${section}${index + 1}`));
    }
  });

  it('have a test for each clause', () => {
    const cited = new Set(titles.flatMap(({ title }) => citations(title)));
    expect(clauses.filter((id) => !cited.has(id))).toEqual([]);
  });

  it('cite clauses that exist', () => {
    const unknown = titles.filter(({ title }) => citations(title).some((id) => !clauses.includes(id)));
    expect(unknown).toEqual([]);
  });
});
