/** MeshFS against a model: whatever is done in whatever order, it answers as lists of versions in a map would. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isError, PointerDeleted, PointerUnknown, PreconditionFailed, VersionUnknown } from '@hauki/protocol';
import fc from 'fast-check';
import type { Expect, MeshFs, Written } from '../src/index.ts';
import { contentOf, inPlace, listing, type Place } from './support.ts';

/** A pointer's versions; undefined is a deletion. */
type Model = Map<string, (string | undefined)[]>;
interface Real {
  place: Place;
  mesh: MeshFs;
  project: string;
  changes: AsyncIterator<Written>;
  /** What the watcher must have heard. */
  heard: [string, number, boolean][];
}
type Command = fc.AsyncCommand<Model, Real>;

const live = (model: Model, name: string) => model.get(name)?.at(-1);
const pointerOf = (real: Real, name: string) => `gem-pointer://wiki/${real.project}/${name}`;

/** A command that may always run. */
function command(text: string, run: (model: Model, real: Real) => Promise<void>): Command {
  return { check: () => true, run, toString: () => text };
}

/** The error that reading must give, or nothing. */
function missing(model: Model, name: string): ((thrown: unknown) => boolean) | undefined {
  if (!model.has(name)) return (thrown) => isError(thrown, PointerUnknown);
  return live(model, name) === undefined ? (thrown) => isError(thrown, PointerDeleted) : undefined;
}

function expectation(model: Model, name: string, kind: string): { expect: Expect; met: boolean } {
  const versions = model.get(name) ?? [];
  const is_live = live(model, name) !== undefined;
  if (kind === 'absent' || kind === 'present') return { expect: kind, met: is_live === (kind === 'present') };
  const version = kind === 'newest' ? versions.length : versions.length - 1;
  return { expect: [version], met: is_live && kind === 'newest' };
}

const name = fc.constantFrom('a.md', 'b.md', 'deep/c.md', 'd.txt');
// Some as rows and some as files, and some twice: what one version gives up another may still need.
const content = fc.oneof(
  fc.constantFrom('', 'same', 'other', 'x'.repeat(40_000), 'y'.repeat(40_000)),
  fc.string({ unit: 'grapheme', maxLength: 12 }),
);
const kind = fc.constantFrom('absent', 'present', 'newest', 'older');

async function wrote(model: Model, real: Real, name: string, content: string | undefined, written: Written) {
  const versions = model.get(name) ?? [];
  versions.push(content);
  model.set(name, versions);
  assert.equal(written.version, versions.length);
  real.heard.push([written.pointer, written.version, content === undefined]);
}

const commands = [
  fc.tuple(name, content, fc.boolean()).map(([name, content, raw]) =>
    command(`write ${name} ${content.length}`, async (model, real) => {
      const pointer = pointerOf(real, name);
      const written = raw
        ? await real.mesh.put({ pointer, content: Buffer.from(content) })
        : await real.mesh.write({ pointer, content });
      await wrote(model, real, name, content, written);
    }),
  ),
  fc.tuple(name, content, kind).map(([name, content, kind]) =>
    command(`write ${name} if ${kind}`, async (model, real) => {
      const { expect, met } = expectation(model, name, kind);
      const writing = real.mesh.write({ pointer: pointerOf(real, name), content, expect });
      if (met) await wrote(model, real, name, content, await writing);
      else await assert.rejects(writing, (thrown) => isError(thrown, PreconditionFailed));
    }),
  ),
  fc.tuple(name, fc.option(kind, { nil: undefined })).map(([name, kind]) =>
    command(`delete ${name} if ${kind}`, async (model, real) => {
      const { expect, met } = kind === undefined ? { expect: undefined, met: true } : expectation(model, name, kind);
      const refused = missing(model, name);
      const deleting = real.mesh.delete(pointerOf(real, name), { expect });
      if (refused && (met || !model.has(name))) await assert.rejects(deleting, refused);
      else if (met) await wrote(model, real, name, undefined, await deleting);
      else await assert.rejects(deleting, (thrown) => isError(thrown, PreconditionFailed));
    }),
  ),
  fc.tuple(name, fc.nat(8)).map(([name, version]) =>
    command(`read ${name} ${version}`, async (model, real) => {
      const pointer = pointerOf(real, name);
      const refused = missing(model, name);
      if (refused) await assert.rejects(real.mesh.resolve(pointer), refused);
      else assert.equal((await real.mesh.resolve(pointer)).content, live(model, name));
      const versions = model.get(name);
      if (!versions) return;
      const then = versions[version - 1];
      const asked = real.mesh.open(pointer, { version });
      if (then !== undefined) assert.equal((await contentOf((await asked).read())).toString(), then);
      else if (version < 1 || version > versions.length)
        await assert.rejects(asked, (thrown) => isError(thrown, VersionUnknown));
      else await assert.rejects(asked, (thrown) => isError(thrown, PointerDeleted));
    }),
  ),
  name.map((name) =>
    command(`history ${name}`, async (model, real) => {
      const asked = real.mesh.history(pointerOf(real, name));
      const versions = model.get(name);
      if (!versions) return assert.rejects(asked, (thrown) => isError(thrown, PointerUnknown));
      const told = (await asked).versions.map(({ version, bytes, deleted }) => [version, bytes, deleted === true]);
      const expected = versions.map((one, at) => [at + 1, Buffer.byteLength(one ?? ''), one === undefined]);
      assert.deepEqual(told, expected.reverse());
    }),
  ),
  fc.constant(
    command('list', async (model, real) => {
      const { entries } = await real.mesh.list(pointerOf(real, ''));
      const expected = [...model].filter(([, versions]) => versions.at(-1) !== undefined);
      assert.deepEqual(
        entries.map(({ pointer, version }) => [pointer, version]).sort(),
        expected.map(([name, versions]) => [pointerOf(real, name), versions.length]).sort(),
      );
    }),
  ),
  fc.constant(command('collect', async (_, real) => void (await real.mesh.collect()))),
  fc.constant(
    command('reopen', async (_, real) => {
      real.mesh = await real.place.reopen();
    }),
  ),
];

describe('MeshFS', () => {
  test('answers as a map of versions does, whatever is done in whatever order', () =>
    inPlace(async (place) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(fc.commands(commands, { maxCommands: 30 }), async (commands) => {
          const project = `run${run++}`;
          const changes = place.mesh.watch(`gem-pointer://wiki/${project}/`);
          const model: Model = new Map();
          const real: Real = { place, mesh: place.mesh, project, changes, heard: [] };
          await fc.asyncModelRun(() => ({ model, real }), commands);
          const files = Object.entries(await listing(place.wiki)).filter(([file]) => file.startsWith(`${project}/`));
          const expected = [...model].filter(([, versions]) => versions.at(-1) !== undefined);
          assert.deepEqual(
            Object.fromEntries(files),
            Object.fromEntries(expected.map(([name, versions]) => [`${project}/${name}`, versions.at(-1)])),
          );
          for (const heard of real.heard) {
            const { value } = await changes.next();
            assert.deepEqual([value.pointer, value.version, value.deleted === true], heard);
          }
          await changes.return?.();
        }),
        { numRuns: 60 },
      );
      assert.deepEqual(place.reports, []);
    }));
});
