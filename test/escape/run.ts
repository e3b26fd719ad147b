/**
 * The escape suite: `npm run test:escape`. Every attempt runs in every driver that it applies to and must be blocked,
 * and has a control: the same probe without that protection, which must get through. Prints one row for each attempt
 * and driver; `--json` prints rows as lines of JSON; other arguments are words to look for in the attempts' names.
 *
 * All of it runs in a network namespace with nothing but a loopback interface (`host.ts`).
 *
 * The list of issue 4, and where each item is:
 *   language.ts   Function, Promise, async constructor chains; prepareStackTrace; prototype pollution across the bridge;
 *                 hostile getters and Proxies in results
 *   inside.ts     import('node:fs'); process.binding; process.dlopen; host environment; /proc/<pid>/root, mem, environ;
 *                 core_pattern, sysrq; release_agent; a cgroup's limits; symbolic and hard links and `..` out of its folder;
 *                 TCP and DNS out; metadata address; host Unix and abstract sockets; tmpfs and inode filling;
 *                 heap, ArrayBuffer and string bombs
 *   lifecycle.ts  infinite and microtask loops; ReDoS; parked await; recursion; log flood; surviving destruct; surviving
 *                 kill -9 of the agent
 *   doors.ts      ungranted effects; redirects; smuggled requests; use after revoke; another vault's id; malformed and oversized frames;
 *                 links swapped on paths the agent reads; a forged heartbeat; `..` in every name the API takes
 *   calls.ts      connect, bind, fast open, re-listen, ioctl on fd 3 and on accepted sockets; passing them on (sendmsg);
 *                 TIOCSTI; AF_VSOCK, AF_ALG, AF_PACKET, AF_NETLINK; mount, remount and umount; unshare, clone and clone3
 *                 of a user namespace; setns; ptrace; mknod; open_by_handle_at; bpf; perf_event_open; userfaultfd;
 *                 io_uring; keyctl; raising its own limits; inherited descriptors; setuid exec; fork bomb
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startMesh } from '@hauki/cli';
import { DRIVERS, missing } from '../support/mesh.ts';
import { callAttempts, noPerl } from './calls.ts';
import { doorAttempts } from './doors.ts';
import { cannotRun, isAlone, openHost, startAlone } from './host.ts';
import { insideAttempts } from './inside.ts';
import { languageAttempts } from './language.ts';
import { lifecycleAttempts } from './lifecycle.ts';
import { type Attempt, fault, type Row, render } from './table.ts';
import { openWorld } from './world.ts';

const words = process.argv.slice(2).filter((arg) => !arg.startsWith('--'));
const as_json = process.argv.includes('--json');

async function inNamespace(): Promise<Row[]> {
  const host = await openHost();
  const folder = mkdtempSync(join(tmpdir(), 'hauki-escape-mesh-'));
  const drivers = DRIVERS.filter((driver) => !missing(driver));
  const local = await startMesh({ nodes: [{ drivers }], data_dir: folder, log: { file: join(folder, 'log') } });
  const world = await openWorld(host.facts, local, folder);
  const rows: Row[] = [];
  try {
    const native = drivers.filter((driver) => driver !== 'quickjs');
    const no_calls = noPerl();
    if (no_calls) console.error(`No raw system calls are tried: ${no_calls}.`);
    const attempts: Attempt[] = [
      ...languageAttempts(world),
      ...insideAttempts(world),
      ...lifecycleAttempts(world),
      ...doorAttempts(world),
      ...(no_calls ? [] : await callAttempts(host.facts, folder, native)),
    ];
    for (const attempt of attempts) {
      if (words.length > 0 && !words.some((word) => attempt.name.includes(word))) continue;
      const tried = drivers.filter((driver) => attempt.by[driver] !== undefined);
      const control = attempt.control.run();
      const outcomes = await Promise.all(tried.map((driver) => attempt.run(driver)));
      for (const [i, driver] of tried.entries()) {
        const row: Row = {
          ...{ attempt: attempt.name, driver, by: attempt.by[driver]!, outcome: outcomes[i]! },
          control: { ...(await control), what: attempt.control.what },
        };
        rows.push(row);
        if (as_json) console.log(JSON.stringify(row));
      }
    }
  } finally {
    await world.close();
    await local.stop();
    host.close();
    rmSync(folder, { recursive: true, force: true });
  }
  return rows;
}

const why_not = cannotRun();
if (why_not) {
  console.error(`The escape suite does not run here: ${why_not}.`);
  process.exitCode = 1;
} else if (isAlone()) {
  const rows = await inNamespace();
  if (!as_json) console.log(render(rows));
  process.exitCode = rows.some(fault) ? 1 : 0;
} else {
  const child = startAlone(fileURLToPath(import.meta.url), process.argv.slice(2));
  child.stdout!.pipe(process.stdout);
  child.on('exit', (code) => {
    process.exitCode = code ?? 1;
  });
}
