/**
 * What speaks other than plain HTTP with a core, under any input: JSON-RPC over its door and over the relay, and a node that
 * lies, in what it says and in what it answers. `API_RUNS`: how many of each, for one in the usual run.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { nodeTokenFile } from '@hauki/mesh/data-dir';
import { KERNEL_LINK } from '@hauki/protocol';
import { encode, Session } from '@hauki/rpc';
import { dialUpgrade, streamTransport } from '@hauki/rpc/node';
import fc from 'fast-check';
import { CALCULATOR, useMesh } from './support/mesh.ts';
import {
  type Answer,
  type Asked,
  answersAs,
  asker,
  asserts,
  errorIn,
  JUNK,
  NAMES,
  type Operation,
  operationsOf,
  RUNS,
  replaced,
} from './support/openapi.ts';

const AUDIENCE = 'A'.repeat(43);
const json = { 'content-type': 'application/json' };

/** Asserts that a link says what is wrong with whatever it is told, and goes on. */
const saysAnything = (link: Session, what: Record<string, unknown[]>) =>
  asserts(
    fc.constantFrom(...Object.keys(what)).chain((method) => fc.tuple(fc.constant(method), replaced(what[method]))),
    async ([method, params]) => {
      const error = await link.call(method, params as unknown[], { timeout_ms: 30_000 }).then(
        () => undefined,
        (thrown) => thrown,
      );
      const why = `${method} ${JSON.stringify(params).slice(0, 500)} => ${error}`;
      assert.ok(link.open, why);
      if (error) assert.ok(NAMES.has(error.name) && !/^(InternalError|RemoteError)$/.test(error.name), why);
    },
    RUNS * 15,
  );

describe('what speaks with a core', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'] }] });
  let worker: string;
  let operations: Operation[];
  let ask: (asked: Asked) => Promise<Answer>;
  let close = () => {};
  before(async () => {
    ({ ask, close } = asker(used.local.url, used.local.token));
    operations = operationsOf(JSON.parse((await ask({ method: 'GET', path: '/docs/json' })).text));
    await used.mesh.meshfs.write('gem-pointer://wiki/p/a', 'kept');
    ({ worker } = await used.mesh.details(used.mesh.clone({ source: CALCULATOR })));
  });
  after(() => close());

  it('calls of a worker are answered as JSON-RPC, whatever is sent', async () => {
    const path = `/api/v2/ephemeral/${worker}`;
    const call = { jsonrpc: '2.0', id: 1, method: 'add', params: [1, 2] };
    const text = fc.oneof(
      replaced(call).map((one) => JSON.stringify(one)),
      replaced([call, { ...call, id: 'two' }]).map((one) => JSON.stringify(one)),
      fc.constantFrom(
        '',
        '{',
        '[]',
        '[[]]',
        'NaN',
        '"x"',
        '{"method":"add","method":"fail"}',
        '['.repeat(50_000),
        '\0',
      ),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    ) as fc.Arbitrary<string | Buffer>;
    await asserts(
      text,
      async (body) => {
        const answer = await ask({ method: 'POST', path, headers: json, body });
        const what = `${body} => ${answer.status} ${answer.text}`;
        if (answer.status === 204) return assert.equal(answer.text, '', what);
        assert.equal(answer.status, 200, what);
        for (const one of [JSON.parse(answer.text)].flat()) {
          assert.equal(one.jsonrpc, '2.0', what);
          assert.ok('id' in one && 'result' in one !== 'error' in one, what);
          if (one.error) assert.ok(NAMES.has(one.error.data?.name) && one.error.data.name !== 'InternalError', what);
        }
      },
      RUNS * 20,
    );
  });

  it('the relay takes any line, and answers lines of JSON-RPC or nothing', async () => {
    const { hostname, port } = new URL(used.local.url);
    const line = fc.oneof(
      replaced({ jsonrpc: '2.0', id: 1, method: 'rpc.hello', params: [] }),
      replaced({
        jsonrpc: '2.0',
        id: 2,
        method: 'rpc.redeem',
        params: [{ ticket: 'a.b.c', key: {}, nonce: '', proof: '' }],
      }),
      replaced({
        jsonrpc: '2.0',
        id: 3,
        method: 'rpc.resume',
        params: [{ session: 'x', nonce: '', received: 0, proof: '' }],
      }),
      JUNK,
    );
    await asserts(
      fc.array(line, { minLength: 1, maxLength: 5 }),
      async (lines) => {
        const socket = connect(Number(port), hostname);
        socket.on('error', () => {});
        const said = lines.map((one) => `${JSON.stringify(one)}\n`).join('');
        const hello = '{"jsonrpc":"2.0","id":"last","method":"rpc.hello"}\n';
        socket.write(
          `GET /api/v2/ephemeral/${worker} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: Upgrade\r\nUpgrade: hauki\r\nAuthorization: Bearer ${used.local.token}\r\n\r\n{}\n${said}${hello}`,
        );
        let heard = '';
        for await (const piece of socket.setEncoding('utf8')) {
          heard += piece;
          if (heard.includes('"last"')) break;
        }
        socket.destroy();
        const [head = '', body = ''] = heard.split('\r\n\r\n');
        assert.match(head, /^HTTP\/1\.1 101 /, said);
        for (const one of body.split('\n').filter((text) => text !== ''))
          assert.equal([JSON.parse(one)].flat()[0].jsonrpc, '2.0', `${said} => ${one}`);
      },
      RUNS * 3,
    );
  });

  it('a node that says or answers anything is refused by the table of errors, and so is who asks for its workers', async (test) => {
    const token = readFileSync(nodeTokenFile(used.local.data_dir), 'utf8').trim();
    const info = {
      node: 'n-liar',
      labels: { liar: 'yes' },
      drivers: { quickjs: { available: true, isolation: 'none', level: 'vm', runtimes: ['node'] } },
      memory_mib: 1_000_000,
      cores: 1,
      volumes: { available: true },
    };
    const load = { workers: 0, memory_used_mib: 0, cpu: 0 };
    let answer = (_method: string, _params: unknown[]): unknown => null;
    const link = new Session({
      transport: streamTransport(await dialUpgrade(used.local.url, '/api/v2/node/link', token, 10_000)),
      dispatch: async (method, params) => answer(method, params as unknown[]),
      literal: encode,
    });
    test.after(() => {
      answer = () => true;
      link.close('done');
    });
    const told = (method: string, params: unknown) => link.call(method, params as unknown[], { timeout_ms: 30_000 });
    const fate = { worker: 'w-x', epoch: 1, cause: 'destructed', reason: 'r', at: 1, lines: [], owner: 'admin' };
    const tell = (what: Record<string, unknown[]>) => saysAnything(link, what);
    const clone = { source: CALCULATOR, memory_mib: 16 };
    await tell({
      // Wrong in two places: what is replaced mends one of them at most.
      announce: ['n-liar', 5, 5],
      register: [{ ...info, cores: -1 }, load, [], 5],
      report: [load],
      worker_died: [fate],
      meshfs_write: ['w-x', 'gem-pointer://wiki/p/a', 'x'],
      meshfs_resolve: ['w-x', 'gem-pointer://wiki/p/a'],
      clone: ['w-x', clone],
      toString: [1],
    });
    await told('register', [info, load, [], []]);
    const reports = setInterval(() => void told('report', [load]).catch(() => {}), 1_000);
    test.after(() => clearInterval(reports));

    const post = (path: string, body: object) =>
      ask({ method: 'POST', path, headers: json, body: JSON.stringify(body) });
    const made = {
      isolation: 'vm',
      direct: { host: '127.0.0.1', port: 9, tls: false },
      ticket: { jti: 'j', role: 'owner', secret: 's' },
    };
    const spawn = {
      source: CALCULATOR,
      audience: AUDIENCE,
      labels: info.labels,
      lease_ms: 600_000,
      grants: { meshfs: { read: ['gem-pointer://wiki/'], write: ['gem-pointer://wiki/'] }, clone: 2, volume: 'data' },
    };
    const mesh = async () => {
      const { workers } = await used.mesh.registry();
      return workers.filter(({ node }) => node === info.node).map(({ worker: name }) => name);
    };
    await asserts(
      replaced(made),
      async (wrong) => {
        answer = (method) => (method === 'provision' ? wrong : true);
        const { volume: _, ...grants } = spawn.grants;
        const spawned = await post('/api/v2/swarm_spawn_ephemeral', { ...spawn, grants });
        const error = errorIn(spawned);
        if (error) assert.equal(error, 'OutcomeUnknown', `${JSON.stringify(wrong)} => ${spawned.text}`);
        assert.equal((await mesh()).length > 0, error === undefined, 'what its node did not answer for is not listed');
        answer = () => true;
        for (const name of await mesh())
          await ask({ method: 'DELETE', path: `/api/v2/ephemeral/${name}` }).then(() =>
            told('worker_died', [{ ...fate, worker: name, node: info.node }]),
          );
      },
      RUNS * 5,
    );
    answer = (method) => (method === 'provision' ? made : true);
    const spawned = await post('/api/v2/swarm_spawn_ephemeral', spawn);
    assert.equal(spawned.status, 200, spawned.text);
    const { worker: theirs } = JSON.parse(spawned.text);
    const at = `/api/v2/ephemeral/${theirs}`;
    const asked: Asked[] = [
      { method: 'GET', path: '/api/v2/service_registry' },
      { method: 'GET', path: '/api/v2/sessions' },
      { method: 'GET', path: '/api/v2/volumes' },
      { method: 'GET', path: at },
      { method: 'GET', path: `${at}/logs` },
      ...['ticket', 'pause', 'resume', 'inspect', 'revoke'].map((verb) => {
        const body = { ticket: { audience: AUDIENCE }, inspect: { expression: '1' }, revoke: { clone: true } };
        return {
          method: 'POST',
          path: `${at}/${verb}`,
          headers: json,
          body: JSON.stringify((body as any)[verb] ?? {}),
        };
      }),
    ];
    await asserts(
      fc.tuple(fc.constantFrom(...asked), JUNK),
      async ([request, junk]) => {
        answer = () => junk;
        const operation = operations.find(
          ({ method, path }) => method === request.method && path.replace('{worker}', theirs) === request.path,
        )!;
        const got = await ask(request);
        answersAs(operation, got);
        assert.notEqual(errorIn(got), 'BadInput', `${request.method} ${request.path}: ${got.text}`);
      },
      RUNS * 10,
    );
    await tell({
      worker_died: [fate],
      vault_ready: [{ worker: theirs }],
      meshfs_write: [theirs, 'gem-pointer://wiki/p/c', 'x', 'text/plain'],
      meshfs_resolve: [theirs, 'gem-pointer://wiki/p/a'],
      clone: [theirs, clone],
    });
  });

  it('a caller’s link and a kernel’s refuse by the table of errors, and go on', async () => {
    const node_token = readFileSync(nodeTokenFile(used.local.data_dir), 'utf8').trim();
    const modules = [{ module: 'echo', version: 1, digest: 'd', serving: true }];
    for (const [path, token, what] of [
      [
        '/api/v2/swarm_link',
        used.local.token,
        { spawn: [1, { source: 5, audience: AUDIENCE, cpu: 7 }], toString: [1] },
      ],
      [
        KERNEL_LINK,
        node_token,
        { register: [{ kernel: 'nobody', url: 5 }, modules], report: [modules, 'a line'], constructor: [] },
      ],
    ] as [string, string, Record<string, unknown[]>][]) {
      const link = new Session({
        transport: streamTransport(await dialUpgrade(used.local.url, path, token, 10_000)),
        dispatch: async () => null,
        ...(path === KERNEL_LINK ? {} : { literal: encode }),
      });
      try {
        await saysAnything(link, what);
      } finally {
        link.close('done');
      }
    }
  });

  it('a kernel that answers anything has what it says passed on, or is named in an error of the table', async () => {
    const token = readFileSync(nodeTokenFile(used.local.data_dir), 'utf8').trim();
    let answer: unknown = null;
    const link = new Session({
      transport: streamTransport(await dialUpgrade(used.local.url, KERNEL_LINK, token, 10_000)),
      dispatch: async () => answer,
    });
    try {
      const modules = [{ module: 'echo', version: 1, digest: 'd', serving: true }];
      await link.call('register', [{ kernel: 'Microkernel-liar', url: 'http://127.0.0.1:9' }, modules]);
      const own = '/api/v2/kernels/Microkernel-liar';
      const evolve = JSON.stringify({
        target_module: 'echo.js',
        content: 'x',
        kernel: 'Microkernel-liar',
        watch_ms: 0,
      });
      const asked: Asked[] = [
        { method: 'GET', path: `${own}/status` },
        { method: 'GET', path: `${own}/modules/echo/log` },
        { method: 'POST', path: `${own}/modules/echo/rollback`, headers: json, body: '{}' },
        { method: 'POST', path: '/api/evolve', headers: json, body: evolve },
        { method: 'DELETE', path: '/api/v2/modules/echo?kernel=Microkernel-liar' },
        { method: 'GET', path: '/api/plugins/echo/' },
      ];
      await asserts(
        fc.tuple(
          fc.constantFrom(...asked),
          fc.oneof(JUNK, replaced([200, { status: 'ok' }]), replaced([200, [], 'hi'])),
        ),
        async ([request, junk]) => {
          answer = junk;
          const got = await ask(request);
          // What a kernel calls an error it may spell as it likes.
          const passed = Array.isArray(junk) && got.status === junk[0];
          const error = passed ? undefined : errorIn(got);
          assert.notEqual(error, 'BadInput', `${request.method} ${request.path} => ${got.text}`);
        },
        RUNS * 10,
      );
    } finally {
      link.close('done');
    }
  });

  it('and the core is whole after it', async () => {
    const body = '{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}';
    const { text } = await ask({ method: 'POST', path: `/api/v2/ephemeral/${worker}`, headers: json, body });
    assert.equal(JSON.parse(text).result, 3);
    assert.doesNotMatch(used.log(), /a request failed|uncaught|unhandled/i);
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  });
});
