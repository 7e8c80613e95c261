import { vi } from 'vitest';
import { imports } from './machines-process.js';

// The tests of outages, with version 5 of the client of Redis in this process and in its machines.
vi.mock('redis', () => import('redis5'));
imports.push(new URL('stores/redis5.ts', import.meta.url).href);
await import('./outages.test.js');
