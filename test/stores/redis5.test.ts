import { vi } from 'vitest';

// The tests of RedisStore, with version 5 of its client.
vi.mock('redis', () => import('redis5'));
await import('./redis.test.js');
