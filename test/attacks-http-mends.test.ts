import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Browser, clock, frameworks, type Routes, Site } from './site.js';

const routes: Routes = (app, auth) => void app.use(auth.require(), (_request, response) => void response.send('in'));

describe.each(frameworks)('%s: a guard behind a proxy that rewrites Host', (_, framework) => {
  const site = new Site(framework);
  beforeAll(() => site.listen());
  afterAll(() => site.close());
  beforeEach(() => {
    clock.reset();
    site.serve(routes);
  });

  it.each(['/list?moved=1', '/list?page=2&moved=1', '/list?return=no&moved=1'])(
    'sends a user to log in from a page with a parameter moved of its own: %s',
    async (page) => {
      const user = new Browser(site.address);
      const first = await user.get(page, { host: 'inside:8080' });
      expect(first.location).toBe(`${site.address}/webauth/login?return=${encodeURIComponent(page)}&moved=1`);
      const { location } = await user.get(first.location, { host: 'inside:8080' });
      expect(new URL(location).searchParams.get('url')).toBe(`${site.address}/webauth/callback`);
    },
  );
});
