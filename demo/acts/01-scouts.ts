/** Act 1: fifty scouts, cloned in a `for` loop, read several hundred real documents. */
import { fileURLToPath } from 'node:url';
import { bundle } from '@hauki/mesh/bundle';
import { openLibrary } from '../library.ts';
import { type Act, bytes, holds, ms, progress, table } from '../stage.ts';
import type WebScout from '../workers/web_scout.ts';
import type { Finding } from '../workers/web_scout.ts';

const SCOUTS = 50;
const POINTER = 'gem-pointer://wiki/workers/web_scout';

function top(lists: string[][], count: number): string {
  const tally = new Map<string, number>();
  for (const word of lists.flat()) tally.set(word, (tally.get(word) ?? 0) + 1);
  return [...tally]
    .sort((a, b) => b[1] - a[1])
    .slice(0, count)
    .map(([word, n]) => `${word} ${n}`)
    .join(', ');
}

export const scouts: Act = {
  title: `Scouts: ${SCOUTS} clones read what npm installed`,
  async play({ mesh, driver }) {
    await using library = await openLibrary();
    const { source, language } = await bundle(fileURLToPath(new URL('../workers/web_scout.ts', import.meta.url)));
    const { digest } = await mesh.meshfs.write(POINTER, source, { language });
    console.log(`  ${POINTER} is written (${bytes(source.length)}, sha256 ${digest.slice(0, 12)})`);
    console.log(`  ${library.paths.length} documents are served at ${library.base}`);

    const before = mesh.stats();
    const started = performance.now();
    const homes = new Map<string, { scouts: number; documents: number; dead: number }>();
    const hired = [];
    let born = 0;
    for (let i = 0; i < SCOUTS; i++) {
      const scout = mesh.clone<WebScout>(POINTER, { driver, grants: { fetch: [library.host] } });
      const share = library.paths.filter((_, at) => at % SCOUTS === i);
      const work = scout.analyze(library.base, share);
      // It is looked at when all have landed: one that fails before must not end the demo in the middle.
      work.catch(() => {});
      hired.push({ scout, work, place: mesh.details(scout) });
    }
    const places = await Promise.all(
      hired.map(async ({ place }, i) => {
        const { node, route } = await place;
        const home = homes.get(node) ?? { scouts: 0, documents: 0, dead: 0 };
        home.scouts++;
        homes.set(node, home);
        progress(`scout ${i + 1} landed on ${node} (${++born} of ${SCOUTS})`, born === SCOUTS);
        return { node, route };
      }),
    );
    const cloned_ms = performance.now() - started;
    holds(
      'every scout is reached directly',
      places.every((p) => p.route === 'direct'),
    );

    const report: Finding[] = [];
    await Promise.all(
      hired.map(async ({ work }, i) => {
        const findings = await work;
        report.push(...findings);
        const home = homes.get(places[i]!.node)!;
        home.documents += findings.length;
        home.dead += findings.reduce((n, f) => n + f.dead_links.length, 0);
        progress(`${report.length} of ${library.paths.length} documents read`, report.length === library.paths.length);
      }),
    );
    const done_ms = performance.now() - started;
    holds('every document is in the report', new Set(report.map((f) => f.path)).size === library.paths.length);

    const ending = performance.now();
    await Promise.all(hired.map(({ scout }) => mesh.destruct(scout)));
    const ended_ms = performance.now() - ending;
    const view = await mesh.registry();
    holds('no worker is left', view.workers.length === 0);

    const after = mesh.stats();
    table(
      ['node', 'scouts', 'documents', 'dead links'],
      [...homes].map(([node, h]) => [node, h.scouts, h.documents, h.dead]),
    );
    const sum = (pick: (f: Finding) => number) => report.reduce((n, f) => n + pick(f), 0);
    const worst = report.toSorted((a, b) => b.dead_links.length - a.dead_links.length)[0]!;
    table(
      ['the report', ''],
      [
        ['documents, headings, words', `${report.length}, ${sum((f) => f.headings)}, ${sum((f) => f.words)}`],
        ['dead relative links', `${sum((f) => f.dead_links.length)}, most in ${worst.path}`],
        [
          'languages of code',
          top(
            report.map((f) => f.languages),
            6,
          ),
        ],
        [
          'keywords',
          top(
            report.map((f) => f.keywords),
            8,
          ),
        ],
        [`${SCOUTS} ${driver} vaults alive after`, ms(cloned_ms)],
        ['report complete after', ms(done_ms)],
        ['destructed in', ms(ended_ms)],
        ['Mesh-RPC bytes, direct', bytes(after.direct_bytes - before.direct_bytes)],
        ['Mesh-RPC bytes, through the core', bytes(view.relay_bytes)],
      ],
    );
  },
};
