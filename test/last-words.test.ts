/**
 * What a worker logged right before it ended is among its last words, however it ended, and whoever asked it something
 * hears of its death. Real meshes, every driver.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Fate, isError, WorkerDied, withOptions } from '@hauki/mesh';
import { DRIVERS, missing, until, useMesh } from './support/mesh.ts';

const SOURCE = `
  export const exit = () => { console.error('FATAL: no config'); process.exit(1); };
  export const streams = () => { process.stdout.write('to stdout\\n'); process.stderr.write('to stderr, unended'); process.exit(1); };
  export const abort = () => { console.error('about to abort'); process.abort(); };
  export const spin = () => { hauki.log('about to spin'); for (;;); };
  export const each = (items) => { for (const item of items) { console.log('item', item); if (item === 3) for (;;); } };
  export const wish = () => { void hauki.meshfs.resolve('gem-pointer://x/y').catch(() => {}); console.log('after a wish'); for (;;); };
  export const bomb = () => { console.log('about to burst'); const all = (globalThis.all = []); for (;;) all.push(new Uint8Array(1 << 12).fill(1)); };
`;
interface Doomed {
  exit(): void;
  streams(): void;
  abort(): void;
  spin(): void;
  each(items: number[]): void;
  wish(): void;
  bomb(): void;
}

for (const driver of DRIVERS) {
  describe(`the last words of a worker in a ${driver} vault`, { skip: missing(driver), concurrency: 2 }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    const made = async () => (await used.mesh.details(used.mesh.clone<Doomed>({ source: SOURCE }, { driver }))).worker;

    /** How it ended that was called so, and what it had said. */
    async function ended(method: keyof Doomed, ...args: unknown[]): Promise<{ cause: Fate['cause']; said: string[] }> {
      // In quickjs its turn's bound ends it, also on a machine that is slow; else its lease does.
      const lease_ms = driver === 'quickjs' ? 30_000 : 3_000;
      const made = { driver, memory_mib: 64, lease_ms, heartbeat_ms: 300 };
      const ghost = used.mesh.clone<Doomed>({ source: SOURCE }, made);
      const { worker } = await used.mesh.details(ghost);
      const calls = withOptions(ghost, { timeout_ms: 20_000 }) as unknown as Record<
        string,
        (...given: unknown[]) => any
      >;
      const call = Promise.resolve(calls[method]!(...args)).catch(() => {});
      let fate: Fate | undefined;
      await until(`${method} has ended it`, async () => {
        const found = await used.mesh.why(worker);
        if (found.state === 'dead') fate = found.fate;
        return fate !== undefined;
      });
      await call;
      const said = fate!.lines.filter(({ level }) => level !== 'vault').map(({ text }) => text);
      return { cause: fate!.cause, said };
    }

    it('hold what it logged before it computed without end, and nothing else', async () => {
      const { cause, said } = await ended('spin');
      assert.deepEqual([cause, said], [driver === 'quickjs' ? 'misbehaved' : 'unresponsive', ['about to spin']]);
    });

    it('hold each item of a loop that hangs at the last', async () => {
      assert.deepEqual((await ended('each', [1, 2, 3, 4])).said, ['item 1', 'item 2', 'item 3']);
    });

    it('hold what it logged after it had asked for something in the same turn', async () => {
      assert.deepEqual((await ended('wish')).said, ['after a wish']);
    });

    it('hold what it logged before its memory burst', async () => {
      const { cause, said } = await ended('bomb');
      assert.deepEqual(said, ['about to burst']);
      assert.notEqual(cause, 'unresponsive');
    });

    it('are not asked for in vain: who looked into it as it died hears that it died, and of what', async () => {
      const worker = await made();
      const deadly = driver === 'quickjs' ? '(() => { for (;;); })()' : 'process.exit(3)';
      const why = driver === 'quickjs' ? ['misbehaved', /one turn of its code/] : ['exited', /ended with code 3/];
      await assert.rejects(used.mesh.inspect(worker, deadly), (error: Error) => {
        assert.ok(isError(error, WorkerDied), `${error}`);
        assert.equal(error.fields.cause, why[0]);
        assert.match(error.fields.reason, why[1] as RegExp);
        return true;
      });
    });

    // A worker in quickjs has no process to end.
    if (driver === 'quickjs') return;

    it('hold what it logged before it ended its process', async () => {
      assert.deepEqual(await ended('exit'), { cause: 'exited', said: ['FATAL: no config'] });
      assert.deepEqual((await ended('streams')).said, ['to stdout', 'to stderr, unended']);
      assert.deepEqual((await ended('abort')).said, ['about to abort']);
    });

    it('tell of an abort', async () => {
      const worker = await made();
      await assert.rejects(used.mesh.inspect(worker, 'process.abort()'), /SIGABRT/);
    });
  });
}
