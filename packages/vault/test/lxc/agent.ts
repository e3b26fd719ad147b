/** An agent of its own, for tests that kill it or start it with a leaked descriptor. Arguments as JSON. */
import { closeInheritedDescriptors } from '../../src/drivers/lxc/descriptors.ts';
import { createLxcDriver } from '../../src/drivers/lxc/lxc.ts';

const { node_id, data_dir, guest_file, close_inherited, trial } = JSON.parse(process.argv[2]!);
if (close_inherited) closeInheritedDescriptors();
const driver = createLxcDriver({ node_id, data_dir, guest_file, trial });
const vault = await driver.start({ id: 'v', owner: 'tester', listen_host: '127.0.0.1', memory_mib: 96 });
vault.control.start({ message() {}, close() {} });
console.log(JSON.stringify({ pid: vault.pid, port: vault.port }));
if (trial) {
  console.log(JSON.stringify(await vault.exited));
  await driver.close();
} else setInterval(() => {}, 1_000);
