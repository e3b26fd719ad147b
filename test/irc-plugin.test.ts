/** The IRC plugin's parts: lines out of bytes, answers, and announcements that come once and in order. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KernelEvent, KernelPage, KernelSummary } from '@hauki/microkernel';
import fc from 'fast-check';
import { Announcer, type Cursor } from '../plugins/irc/announcer.ts';
import { answerTo } from '../plugins/irc/speech.ts';
import { LineCutter, transportOver } from '../plugins/irc/transport.ts';
import { until } from './support/mesh.ts';

const MODULES = fc.array(
  fc.record({
    module: fc.stringMatching(/^[a-z][a-z0-9_]{0,40}$/),
    version: fc.option(fc.nat()),
    state: fc.constantFrom('serving', 'handing_over', 'restarting', 'failed'),
    requests: fc.nat(),
  }),
  { maxLength: 60 },
);
const summaryOf = (modules: object[]): KernelSummary =>
  ({
    kernel: 'Microkernel-77',
    up_s: 90,
    modules: modules.map((m: any) => ({ ...m, prefix: `/api/plugins/${m.module}/` })),
  }) as never;

describe('lines of a server', () => {
  it('are the same however the bytes are cut', () => {
    const text = fc.array(fc.string({ unit: 'grapheme' }).map((line) => line.replace(/[\r\n]/g, '')));
    fc.assert(
      fc.property(text, fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }), (lines, sizes) => {
        const bytes = Buffer.from(lines.map((line) => `${line}\r\n`).join(''));
        const cutter = new LineCutter();
        const found: string[] = [];
        for (let at = 0, i = 0; at < bytes.length; at += sizes[i++ % sizes.length]!)
          found.push(...cutter.cut(bytes.subarray(at, at + sizes[i % sizes.length]!)));
        assert.deepEqual(
          found,
          lines.filter((line) => line !== ''),
        );
      }),
    );
  });

  it('end the connection where one never ends', () => {
    const cutter = new LineCutter();
    assert.throws(() => {
      for (let i = 0; i < 100; i++) [...cutter.cut(new Uint8Array(1024))];
    }, /longer than/);
  });

  it('carry nobody’s line break', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        let written = '';
        const { promise: never, resolve: end } = Promise.withResolvers<void>();
        const stream = {
          // biome-ignore lint/correctness/useYield: nothing comes
          readable: (async function* (): AsyncGenerator<Uint8Array> {
            await never;
          })(),
          async write(chunk: string) {
            written += chunk;
          },
          end() {},
          close: () => end(),
        };
        const Transport = transportOver(async () => stream);
        const transport = new Transport();
        await new Promise<void>((resolve) => {
          transport.on('open', resolve);
          transport.connect();
        });
        transport.writeLine(`PRIVMSG #ops :${text}`);
        transport.disposeSocket();
        assert.match(written, /^[^\r\n\0]*\r\n$/);
      }),
      { numRuns: 50 },
    );
  });
});

describe('answers on IRC', () => {
  it('are given to !status and !routes alone, in few lines that fit', async () => {
    await fc.assert(
      fc.asyncProperty(
        MODULES,
        fc.constantFrom('!status', '!routes 77', '!STATUS microkernel-77'),
        async (modules, text) => {
          const lines = await answerTo(text, 'Microkernel-77', async () => summaryOf(modules));
          assert.ok(lines.length > 0 && lines.length <= 3);
          for (const line of lines) assert.ok(line.startsWith('[Microkernel-77] ') && line.length < 440, line);
        },
      ),
    );
    const asked = () => assert.fail('it asked');
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        fc.pre(!/^!(status|routes)/i.test(text));
        assert.deepEqual(await answerTo(text, 'Microkernel-77', asked), []);
        assert.deepEqual(await answerTo(`!status x${text}`, 'Microkernel-77', asked), []);
      }),
    );
  });
});

describe('announcements', () => {
  it('come once each and in order, whatever fails, and whoever takes over', { timeout: 60_000 }, async () => {
    const step = fc.constantFrom(
      'change',
      'silent',
      'swap',
      'restart',
      'crash',
      'fail-say',
      'fail-page',
      'fail-save',
      'turn',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const events: KernelEvent[] = [];
        const said: string[] = [];
        const expected: string[] = ['online 1'];
        let kept: Cursor | undefined;
        let boot = 1;
        const failing = new Set<string>();
        const fails = (what: string) => {
          if (failing.delete(what)) throw new Error(what);
        };
        const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
        const start = () => {
          const mine = { serving: true };
          const announcer = new Announcer({
            async page(after) {
              await turn();
              fails('fail-page');
              const seq = events.length;
              const self = mine.serving ? { module: 'irc', version: 1, grants: {} } : null;
              const later = after === 'now' ? [] : events.slice(after, after + 3);
              return { kernel: 'K', boot, online: `online ${boot}`, self, seq, events: later } as unknown as KernelPage;
            },
            async say(line, signal) {
              await turn();
              if (signal.aborted) throw signal.reason;
              fails('fail-say');
              said.push(line);
              await turn();
            },
            load: async () => kept,
            async save(_, cursor) {
              await turn();
              kept = { ...cursor };
              fails('fail-save');
            },
            serves: async () => {},
            wait: () => turn(),
            log() {},
          });
          void announcer.run();
          return { announcer, mine };
        };
        const settled = () =>
          until('all was said', () => kept?.boot === boot && said.length >= expected.length, 10_000);
        let now = start();
        const replace = async () => {
          now.mine.serving = false;
          now.announcer.stop();
          now = start();
        };
        await settled();
        for (const what of steps) {
          if (what === 'change' || what === 'silent') {
            const seq = events.length + 1;
            const line = what === 'change' ? `line ${seq}` : null;
            events.push({ seq, deed: 'evolve', module: 'm', version: 1, by: 'a', line });
            if (line) expected.push(line);
          } else if (what === 'swap') {
            await now.announcer.handOver();
            await replace();
          } else if (what === 'restart' || what === 'crash') {
            // With nothing on its way; what then is must not be lost.
            await settled();
            await turn();
            await turn();
            await turn();
            if (what === 'restart') expected.push(`online ${++boot}`);
            await replace();
            await settled();
          } else if (what === 'turn') await turn();
          else failing.add(what);
        }
        failing.clear();
        await settled();
        now.announcer.stop();
        assert.deepEqual(said, expected);
      }),
      { numRuns: 60 },
    );
  });
});
