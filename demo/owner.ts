/** The script that act 3 kills: it owns ten clones and says nothing more once they live. */
import { connect } from '@hauki/mesh';

const { driver, lease_ms, count } = JSON.parse(process.argv[2]!);
const mesh = await connect();
const clones = Array.from({ length: count }, (_, i) =>
  mesh.clone<{ whoami(): string }>({ source: `export const whoami = () => 'clone ${i + 1}';` }, { driver, lease_ms }),
);
await Promise.all(clones.map((clone) => clone.whoami()));
process.send!(await Promise.all(clones.map((clone) => mesh.details(clone))));
setInterval(() => {}, 1_000);
