/** Act 4: an empty microkernel becomes a MeshFS, then swaps a module ten times while somebody asks it every 5 ms. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startKernel } from '@hauki/cli';
import { connectKernel } from '@hauki/mesh';
import { type Act, holds, median, ms, progress, table } from '../stage.ts';

const SWAPS = 10;
const EVERY_MS = 5;
const POINTER = 'gem-pointer://wiki/demo/hello';
const greeter = (n: number) => `export default { fetch: () => new Response('version ${n}') };`;

export const kernel: Act = {
  title: `A kernel: empty at first, then ${SWAPS} swaps under a request every ${EVERY_MS} ms`,
  async play({ driver }) {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-demo-kernel-'));
    const id = `d${process.pid.toString(36)}`;
    const started = await startKernel({ data_dir, id, port: 0, drivers: [driver] });
    try {
      const door = connectKernel({ url: started.url, token: started.token });
      const ask = (path: string, init: RequestInit = {}) =>
        fetch(started.url + path, { ...init, headers: { authorization: `Bearer ${started.token}` } });

      const empty = await door.status();
      holds('the kernel is empty', empty.modules.length === 0);
      console.log(`  [${empty.kernel}] Online. Awaiting DNA Injection. ${started.url}, 0 modules`);

      const source = readFileSync(new URL('../../plugins/meshfs_controller.ts', import.meta.url), 'utf8');
      const prefixes = ['gem-pointer://wiki/'];
      const posted = await door.evolve({
        target_module: 'meshfs_controller.ts',
        content: source,
        grants: { meshfs: { read: prefixes, write: prefixes } },
        alias: '/api/v2/meshfs/',
      });
      const stages = posted.report.stages.map(({ stage, ms: took }) => `${stage} ${ms(took)}`).join(', ');
      console.log(
        `  plugins/meshfs_controller.ts is posted: ${stages}; new routes at ${posted.prefix} and ${posted.alias}`,
      );
      const body = JSON.stringify({ pointer: POINTER, content: '# Hello' });
      const written = (await (await ask('/api/v2/meshfs/write', { method: 'POST', body })).json()) as {
        status: string;
      };
      const found = (await (await ask(`${posted.prefix}resolve?pointer=${encodeURIComponent(POINTER)}`)).json()) as {
        content: string;
      };
      holds('what was written at one route is read at the other', found.content === '# Hello');
      console.log(`  POST /api/v2/meshfs/write: ${written.status}; GET ${posted.prefix}resolve: ${found.content}`);

      await door.evolve({ target_module: 'greeter', content: greeter(0) });
      const took: number[] = [];
      const versions = new Set<string>();
      const failed: string[] = [];
      const asked: Promise<void>[] = [];
      const pinger = setInterval(() => {
        const at = performance.now();
        const answered = ask('/api/plugins/greeter/').then(async (answer) => {
          versions.add(await answer.text());
          if (!answer.ok) failed.push(String(answer.status));
          took.push(performance.now() - at);
        });
        asked.push(answered.catch((error) => void failed.push(String(error))));
      }, EVERY_MS);
      const swapped: number[] = [];
      for (let n = 1; n <= SWAPS; n++) {
        const at = performance.now();
        await door.evolve({ target_module: 'greeter', content: greeter(n) });
        swapped.push(performance.now() - at);
        // Every version is to be seen by somebody.
        const text = await (await ask('/api/plugins/greeter/')).text();
        holds('the newest version answers as soon as its post does', text === `version ${n}`);
        progress(`${n} of ${SWAPS} swaps, ${took.length} requests answered`, n === SWAPS);
      }
      clearInterval(pinger);
      await Promise.all(asked);
      const history = await door.history('greeter');
      table(
        ['swaps', ''],
        [
          ['posted to serving, median', ms(median(swapped))],
          ['requests meanwhile', asked.length],
          ['requests failed', failed.length],
          ['answered in, median and slowest', `${ms(median(took))}, ${ms(Math.max(...took))}`],
          ['versions that answered', versions.size],
          ['changes in the journal', history.length],
        ],
      );
      holds(`no request failed: ${failed[0]}`, failed.length === 0 && took.length === asked.length);
      holds('the journal has every change', history.length === SWAPS + 1);
    } finally {
      await started.stop();
      rmSync(data_dir, { recursive: true, force: true });
    }
  },
};
