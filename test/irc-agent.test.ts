/** A worker agent: hears on `#ops` which kernel is idle, gives it a data scraper as far as its token lets it, uses that. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ircPlugin } from '@hauki/cli';
import { connect, connectKernel, Forbidden, isError } from '@hauki/mesh';
import { type Ircd, ircMissing, startIrcd, Watcher } from './support/ircd.ts';
import { useJoinedKernels } from './support/kernel.ts';
import { until, useMesh } from './support/mesh.ts';

const AGENT = fileURLToPath(new URL('../examples/agents/ops-agent.ts', import.meta.url));
const SCRAPER = readFileSync(new URL('../examples/plugins/data_scraper.ts', import.meta.url), 'utf8');

describe('a worker agent on IRC', { skip: ircMissing }, () => {
  const used = useMesh({ nodes: [] });
  const { all: kernels, start, name } = useJoinedKernels(used, 'a');
  let ircd: Ircd;
  let watcher: Watcher;

  before(async () => {
    ircd = await startIrcd();
    watcher = await new Watcher(ircd.port).join();
    const plugin = await ircPlugin(`127.0.0.1:${ircd.port}`);
    for (const i of [0, 1]) {
      const kernel = await start(i);
      const door = connectKernel({ url: kernel.url, token: kernel.token });
      // The first is busy with something already.
      if (i === 0)
        await door.evolve({ target_module: 'busy', content: `export default { fetch: () => new Response('x') }` });
      await door.evolve(plugin);
    }
    await until('both are online', () => watcher.lines('Online. Awaiting DNA Injection.').length === 2);
  });
  after(async () => {
    watcher?.leave();
    await ircd?.stop();
  });

  it('picks the idle kernel, injects its scraper, and uses the new route, with a token for no more than that', async () => {
    const { token } = await used.mesh.tokens.create({
      name: 'scout',
      scopes: ['evolve'],
      targets: { nodes: [name(1).toLowerCase()], pointers: [], fetch: [] },
      expires_in_ms: 600_000,
    });
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', AGENT, `127.0.0.1:${ircd.port}`],
      { env: { ...process.env, HAUKI_URL: used.local.url, HAUKI_TOKEN: token }, timeout: 120_000 },
    );
    assert.match(stdout, new RegExp(`^${name(1)} holds the least of 2$`, 'm'));
    assert.match(
      stdout,
      new RegExp(`^it says: \\[${name(1)}\\] Evolved. New routes available at /api/plugins/data_scraper/$`, 'm'),
    );
    assert.match(
      stdout,
      /^scraped: \{"title":"Ports","headings":\["Tides"\],.*"href":"\/kemi","text":"Kemi & Ajos"\}\]\}$/m,
    );
    assert.equal(watcher.lines('available at /api/plugins/data_scraper/').length, 1);
    const [entry] = await connectKernel({ url: kernels[1]!.url, token: kernels[1]!.token }).history('data_scraper');
    assert.match(entry!.by, /^scout-/);
  });

  it('changes no other kernel, and gives nothing that it has not', async () => {
    const { token } = await used.mesh.tokens.create({
      name: 'scout',
      scopes: ['evolve'],
      targets: { nodes: [name(1).toLowerCase()], pointers: [], fetch: [] },
      expires_in_ms: 600_000,
    });
    await using mesh = await connect({ core: used.local.url, token });
    const evolve = (more: object) =>
      mesh.kernels.evolve({ kernel: name(1), target_module: 'data_scraper.ts', content: SCRAPER, ...more });
    const forbidden = (error: unknown) => isError(error, Forbidden);
    await assert.rejects(evolve({ kernel: name(0) }), forbidden);
    await assert.rejects(evolve({ grants: { connect: ['127.0.0.1:1'] } }), forbidden);
    await assert.rejects(evolve({ grants: { meshfs: { read: ['gem-pointer://kernel/'] } } }), forbidden);
    // What the version before was granted is not taken over by who may not grant it.
    const door = connectKernel({ url: kernels[1]!.url, token: kernels[1]!.token });
    const grants = { fetch: ['127.0.0.1:1'] };
    await door.evolve({ target_module: 'data_scraper.ts', content: SCRAPER, grants });
    await evolve({});
    const versions = await door.versions('data_scraper');
    assert.deepEqual(
      versions.slice(-2).map((version) => version.grants.fetch.length),
      [1, 0],
    );
  });
});
