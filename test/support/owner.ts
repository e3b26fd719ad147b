/** A script that owns clones until it is killed. Tells its parent their names; its options come as JSON. */
import { connect } from '@hauki/mesh';

const { driver, lease_ms, count, source } = JSON.parse(process.argv[2]!);
const mesh = await connect();
const clones = Array.from({ length: count }, () => mesh.clone({ source }, { driver, lease_ms }));
process.send!(await Promise.all(clones.map(async (clone) => (await mesh.details(clone)).worker)));
setInterval(() => {}, 1_000);
