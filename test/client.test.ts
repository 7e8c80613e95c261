import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { buildSync } from 'esbuild';
import { expect, it } from 'vitest';
import { root } from './processes.js';

const entry = join(root, 'src/client/index.ts');

it('is one small file, which needs no other', () => {
  const { outputFiles, metafile } = buildSync({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    format: 'esm',
    metafile: true,
    write: false,
  });
  expect(Object.keys(metafile.inputs)).toHaveLength(1);
  expect(Object.values(metafile.inputs).flatMap(({ imports }) => imports)).toEqual([]);
  expect(outputFiles).toHaveLength(1);
  expect(gzipSync(outputFiles[0]?.contents ?? '').length).toBeLessThan(3072);
});
