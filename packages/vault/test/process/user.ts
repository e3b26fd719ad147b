/** An agent's driver as an ordinary user runs it (see `process.test.ts`). Argument: a folder of the user's own. */
import { join } from 'node:path';
import { createProcessDriver } from '../../src/drivers/process/process.ts';
import { alive, converse } from '../lxc/harness.ts';

const folder = process.argv[2]!;
const driver = createProcessDriver({
  ...{ node_id: `user${process.pid}`, data_dir: join(folder, 'data') },
  guest_file: join(folder, 'guest.mjs'),
});
const spec = { owner: 'o', listen_host: '127.0.0.1' };
const offer = await driver.probe();
const one = converse(await driver.start({ ...spec, id: 'one', memory_mib: 96 }));
const answer = await one.ask('1 + 1');
const secret = await one.ask('fs.readFileSync("/etc/passwd", "utf8")').catch((error: Error) => error.message);
const two = converse(await driver.start({ ...spec, id: 'two', memory_mib: 64 }));
two.ask('(() => { const all = []; for (;;) all.push(Buffer.alloc(4 << 20, 1)); })()').catch(() => {});
const bomb = await two.vault.exited;
await driver.close();
const left = [one, two].filter(({ vault }) => alive(vault.pid));
console.log(JSON.stringify({ offer, level: driver.level, answer, secret, bomb, left: left.length }));
