/**
 * `npm run demo`: the main job, in acts, on a mesh of one core and three nodes on free ports of this machine.
 * With LXC it uses LXC vaults, without it QuickJS; `--driver lxc|quickjs` chooses. `--act 5` plays one act alone.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startMesh } from '@hauki/cli';
import { connect } from '@hauki/mesh';
import { scouts } from './acts/01-scouts.ts';
import { rawSource } from './acts/02-raw-source.ts';
import { silence } from './acts/03-silence.ts';
import { kernel } from './acts/04-kernel.ts';
import { ops } from './acts/05-ops.ts';
import { type Act, heading, ms } from './stage.ts';

const ACTS: Act[] = [scouts, rawSource, silence, kernel, ops];
const NODES = ['north', 'east', 'south'];

const { values } = parseArgs({ options: { driver: { type: 'string' }, act: { type: 'string' } } });
if (values.driver !== undefined && values.driver !== 'lxc' && values.driver !== 'quickjs') {
  console.error(`demo: --driver is lxc or quickjs, not ${values.driver}`);
  process.exit(2);
}
if (values.act !== undefined && !ACTS[Number(values.act) - 1]) {
  console.error(`demo: --act is a number from 1 to ${ACTS.length}, not ${values.act}`);
  process.exit(2);
}

const data_dir = mkdtempSync(join(tmpdir(), 'hauki-demo-'));
const began = performance.now();
try {
  console.log('Hauki: source in, a contained live object out. A core and three nodes are starting…');
  await using local = await startMesh({
    data_dir,
    nodes: NODES.map((name) => ({ name })),
    log: { file: join(data_dir, 'log') },
  });
  await using mesh = await connect({ core: local.url, token: local.token });
  const { nodes } = await mesh.registry();
  const lxc = nodes[0]!.drivers.lxc!;
  const driver = values.driver ?? (lxc.available ? 'lxc' : 'quickjs');
  console.log(
    `  core ${local.url}; nodes ${nodes.map((n) => n.node).join(', ')}; up after ${ms(performance.now() - began)}`,
  );
  console.log(
    `  vaults: ${driver}${lxc.available ? '' : ` (no lxc here: ${lxc.reason})`}. ${nodes[0]!.drivers[driver]?.isolation ?? ''}`,
  );
  for (const [i, act] of ACTS.entries()) {
    if (values.act !== undefined && Number(values.act) !== i + 1) continue;
    heading(`Act ${i + 1}. ${act.title}`);
    await act.play({ local, mesh, driver });
  }
  heading(`Done in ${ms(performance.now() - began)}.`);
} catch (error) {
  console.error(`\ndemo: ${error instanceof Error ? error.stack : error}`);
  process.exitCode = 1;
} finally {
  rmSync(data_dir, { recursive: true, force: true });
}
