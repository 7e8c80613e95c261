import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const here = import.meta.dirname;

const document = readFileSync(join(here, '../docs/protocol.md'), 'utf8');

// A clause is a list item that begins with its number in bold.
const clauses = [...document.matchAll(/^- \*\*([A-Z]\d+)\*\* (.*)$/gm)].map(([, id]) => id as string);

// A row of the last table: the clause, files of src, files of tests.
const rows = [...document.matchAll(/^\| ([A-Z]\d+) \| (.*) \| (.*) \|$/gm)].map(([, id, sources, tests]) => ({
  id: id as string,
  sources: named(sources as string),
  tests: named(tests as string),
}));

function named(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name as string);
}

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

  it('have a row each that says where it is held', () => {
    expect(rows.map(({ id }) => id)).toEqual(clauses);
  });

  it('name the files whose tests cite a clause, all of them and no others', () => {
    for (const { id, tests } of rows) {
      const citing = titles.filter(({ title }) => citations(title).includes(id)).map(({ file }) => `test/${file}`);
      expect([id, tests]).toEqual([id, [...new Set(citing)].sort()]);
    }
  });

  it('name files of src that one of these tests runs', () => {
    for (const { id, sources, tests } of rows) {
      const run = new Set(tests.flatMap((file) => [...importsOf(join(here, '..', file))]));
      expect([id, sources.filter((file) => !run.has(join(here, '..', file)))]).toEqual([id, []]);
      expect(sources).not.toEqual([]);
    }
  });
});

/** The files that a file imports, and those that these import. */
function importsOf(file: string, known = new Set<string>()): Set<string> {
  for (const [, specifier] of readFileSync(file, 'utf8').matchAll(/\bfrom '(\.[^']+)'/g)) {
    const found = resolve(dirname(file), (specifier as string).replace(/\.js$/, '.ts'));
    if (known.has(found)) continue;
    known.add(found);
    importsOf(found, known);
  }
  return known;
}
