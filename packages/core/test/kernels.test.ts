/** Which kernel of the mesh a request goes to, and what a kernel may say of itself. */
import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { BadInput, type CoreForKernel, isError, PluginFailed } from '@hauki/protocol';
import { remote, Session } from '@hauki/rpc';
import { streamTransport } from '@hauki/rpc/node';
import { Kernels, type RegisteredKernel } from '../src/kernels/kernels.ts';
import { KERNELS_LIMITS } from '../src/kernels/limits.ts';
import { serveKernel } from '../src/kernels/link.ts';
import { NODE } from '../src/rights.ts';

describe('the kernels for a request', () => {
  it('are tried last when they have been silent for a while, also those that a key has chosen', () => {
    let now = 0;
    const kernels = new Kernels(
      () => {},
      () => now,
    );
    const modules = [{ module: 'm', version: 1, digest: '', serving: true }];
    const [a, b, c] = ['a', 'b', 'c'].map((kernel) => {
      const one = { info: { kernel, url: '' }, modules, session: { close() {} }, heard_at: now };
      kernels.register(one as unknown as RegisteredKernel);
      return one as unknown as RegisteredKernel;
    });
    const first = (key?: string) => kernels.order('m', key)[0]!.info.kernel;
    const firsts = (key?: string) => [first(key), first(key), first(key), first(key)];
    assert.deepEqual(firsts(), ['a', 'b', 'c', 'a']);
    const keys = Array.from({ length: 32 }, (_, i) => `key ${i}`);
    const key = keys.find((one) => first(one) === 'b')!;
    assert.deepEqual(firsts(key), ['b', 'b', 'b', 'b']);
    now += KERNELS_LIMITS.silent_ms + 1;
    for (const one of [a!, c!]) kernels.report(one, modules, null);
    assert.ok(!firsts().includes('b'));
    assert.ok(!firsts(key).includes('b'));
    assert.equal(kernels.order('m', undefined).at(-1), b);
    assert.equal(kernels.order('m', key).length, 3);
    kernels.report(b!, modules, null);
    assert.deepEqual(firsts(key), ['b', 'b', 'b', 'b']);
    // Where all are silent it may be the core that was kept from hearing them.
    now += KERNELS_LIMITS.silent_ms + 1;
    assert.equal(new Set(firsts()).size, 3);
  });

  it('are waited for while they may come back, and not any longer', async () => {
    let now = 1;
    const kernels = new Kernels(
      () => {},
      () => now,
    );
    const modules = [{ module: 'm', version: 1, digest: '', serving: true }];
    const session = { close() {}, open: true, call: async () => [200, [], null] };
    const kernel = (name: string, held: typeof modules) =>
      ({ info: { kernel: name, url: '' }, modules: held, session, heard_at: now }) as unknown as RegisteredKernel;
    const request = { method: 'GET', path: '/', headers: [], body: null, signal: { aborted: false } };
    const fetch = () => kernels.fetch('m', request as never).then(({ kernel }) => kernel, String);
    assert.match(await fetch(), /ModuleUnknown/);
    const [a, b] = [kernel('a', modules), kernel('b', [])];
    kernels.register(a);
    kernels.away(a, 'its link is lost');
    const asked = fetch();
    kernels.register(b);
    // One that holds something else is not what was waited for.
    await new Promise((resolve) => setImmediate(resolve));
    kernels.register(a);
    assert.equal(await asked, 'a');
    kernels.away(a, 'its link is lost');
    now += KERNELS_LIMITS.back_ms + 1;
    assert.match(await fetch(), /ModuleUnknown/);
  });

  it('are asked as soon as one of those that are there has the module, though others may come back', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const kernels = new Kernels(() => {});
    const session = { close() {}, open: true, call: async () => [200, [], null] };
    const [gone, here] = ['gone', 'here'].map((kernel) => {
      const one = { info: { kernel, url: '' }, modules: [], session, heard_at: Number.POSITIVE_INFINITY };
      kernels.register(one as unknown as RegisteredKernel);
      return one as unknown as RegisteredKernel;
    });
    kernels.away(gone!, 'its link is lost');
    let by: string | undefined;
    const request = { method: 'GET', path: '/', headers: [], body: null, signal: { aborted: false } };
    const asked = kernels.fetch('m', request as never).then(({ kernel }) => {
      by = kernel;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(by, undefined);
    kernels.report(here!, [{ module: 'm', version: 1, digest: '', serving: true }], null);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(by, 'here');
    await asked;
  });

  it('are refused as failed where what one answers for its own routes is no answer', async () => {
    const kernels = new Kernels(() => {});
    let told: unknown = [200, { status: 'ok' }];
    const session = { close() {}, call: async () => told };
    const one = { info: { kernel: 'Microkernel-1', url: '' }, modules: [], session, heard_at: 0 };
    kernels.register(one as unknown as RegisteredKernel);
    const own = () => kernels.own('1', () => true, 'GET', '/api/status', undefined, 'ada');
    assert.deepEqual(await own(), told);
    for (told of [undefined, 'x', [], [99, {}], [600, {}], ['200', {}], [200, {}, 'more']])
      await assert.rejects(own(), (error) => isError(error, PluginFailed) && error.fields.module === 'Microkernel-1');
  });

  it('leave nothing behind when modules of ever new names come and go', async () => {
    const kernels = new Kernels(() => {});
    const of = (module: string) => [{ module, version: 1, digest: '', serving: true }];
    const all = ['a', 'b'].map((kernel) => {
      const gatherers = new Map();
      const session = { close() {}, open: true, call: async () => [200, [], null] };
      const one = { info: { kernel, url: '' }, modules: [], session, heard_at: Number.POSITIVE_INFINITY, gatherers };
      kernels.register(one as unknown as RegisteredKernel);
      return one as unknown as RegisteredKernel;
    });
    const first = (module: string) => kernels.order(module, undefined)[0]!.info.kernel;
    const hold = (module: string) => {
      for (const one of all) kernels.report(one, of(module), null);
    };
    hold('m');
    assert.deepEqual([first('m'), first('m'), first('m')], ['a', 'b', 'a']);
    const request = { method: 'GET', path: '/', headers: [], body: null, signal: { aborted: false } };
    for (let i = 0; i < KERNELS_LIMITS.turns; i++) {
      hold(`m${i}`);
      if (i < 3) await kernels.fetch(`m${i}`, request as never).catch(() => {});
      else first(`m${i}`);
    }
    for (const { gatherers, modules } of all) assert.ok(gatherers!.size <= modules.length, `${gatherers!.size}`);
    hold('m');
    assert.equal(first('m'), 'a', 'its turn begins anew');
  });
});

describe('a kernel’s link', () => {
  const kernels = new Kernels(() => {});
  const server = createServer((socket) => serveKernel(socket, { kernels, principal: NODE, core_id: 'c', log() {} }));
  const sessions: Session[] = [];
  before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  after(async () => {
    for (const session of sessions) session.close('the test is over');
    await new Promise((resolve) => server.close(resolve));
  });
  const link = (): CoreForKernel => {
    const session = new Session({
      transport: streamTransport(connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' })),
    });
    sessions.push(session);
    return remote<CoreForKernel>(session);
  };
  const info = { kernel: 'Microkernel-1', url: 'http://127.0.0.1:1' };
  const held = { module: 'm', version: 1, digest: 'd', serving: true };
  /** Short on the wire, and two to the power of its depth texts when written out. */
  let shared: unknown[] = [];
  for (let depth = 0; depth < 16; depth++) shared = [shared, shared];

  it('takes what kernels say of themselves and of their modules, and keeps no more than is known', async () => {
    const core = link();
    const newer = { ...info, together: true, newer: 1 };
    assert.deepEqual(await core.register(newer, [{ ...held, newer: 1 } as never]), { core: 'c' });
    const [{ since: _, ...listed }] = kernels.list() as unknown as [Record<string, unknown>];
    assert.deepEqual(listed, { ...info, modules: [held] });
    await core.report([{ ...held, serving: false }], null);
    assert.equal(kernels.list()[0]!.modules[0]!.serving, false);
  });

  it('refuses what is of another kind or too long, wherever it stands, and makes no text of it', async () => {
    const strange: [string, unknown, unknown][] = [
      ['nothing', undefined, []],
      ['a name in lists', { ...info, kernel: shared }, []],
      ['another name', { ...info, kernel: 'x' }, []],
      ['a URL in lists', { ...info, url: shared }, []],
      ['a long URL', { ...info, url: 'x'.repeat(2_000) }, []],
      ['no list', info, 'm'],
      ['a module in lists', info, [{ ...held, module: shared }]],
      ['a digest in lists', info, [{ ...held, digest: shared }]],
      ['a version in lists', info, [{ ...held, version: shared }]],
      ['too many modules', info, Array(KERNELS_LIMITS.modules + 1).fill(held)],
    ];
    const refused = (error: Error) => isError(error, BadInput);
    const core = link();
    for (const [what, told, modules] of strange)
      await assert.rejects(core.register(told as never, modules as never), refused, what);
    await core.register({ ...info, kernel: 'Microkernel-2' }, [held]);
    await assert.rejects(core.report([{ ...held, module: shared as never }], null), refused);
  });
});
