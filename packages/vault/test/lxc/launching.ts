/** An agent that has a process forked ahead and starts no container, for tests that kill it. Arguments as JSON. */
import { Launcher } from '../../src/drivers/lxc/launcher.ts';

const { lxc_dir, files_dir } = JSON.parse(process.argv[2]!);
const launcher = new Launcher(lxc_dir, files_dir);
launcher.soon('127.0.0.1');
console.log('asked');
setInterval(() => {}, 1_000);
