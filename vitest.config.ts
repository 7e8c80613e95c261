import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    env: { NODE_ENV: 'test' },
    reporters: ['default', './test/reporter.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // Also on two cores: some tests wait most of the time, for servers and clocks.
    maxWorkers: Math.max(2, availableParallelism() - 1),
  },
});
