/** Bad input gets a clear, typed error with its status, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import * as errors from '@hauki/mesh';
import { type CloneOptions, connect, type ErrorClass, isError, type Origin } from '@hauki/mesh';
import { CALCULATOR, DRIVERS, missing, useMesh } from './support/mesh.ts';

/** A thumbprint of the right form, of no key. */
const AUDIENCE = randomBytes(32).toString('base64url');

for (const driver of DRIVERS) {
  describe(`a source that cannot become a worker, with ${driver} vaults`, { skip: missing(driver) }, () => {
    const used = useMesh({ nodes: [{ drivers: [driver] }] });

    const refused = async (origin: Origin, kind: ErrorClass<any>, pattern: RegExp, options: CloneOptions = {}) => {
      await assert.rejects(Promise.resolve(used.mesh.clone(origin, { driver, ...options })), (error: Error) => {
        assert.ok(isError(error, kind), `${error.name}: ${error.message}`);
        assert.match(error.message, pattern);
        return true;
      });
      assert.deepEqual((await used.mesh.registry()).workers, [], 'nothing is left behind');
    };

    it('that does not parse is refused with the place', async () => {
      await refused(
        { source: 'export const a = 1;\nexport const b = (;' },
        errors.SourceRejected,
        /\(parse\): SyntaxError: .+worker\.\w+:2/,
      );
      await refused({ source: 'export const a: = 1;', language: 'typescript' }, errors.SourceRejected, /\(parse\)/);
      await refused(
        { source: 'export const a = () => B.C;\nenum B { C }', language: 'typescript' },
        errors.SourceRejected,
        /enum is not supported .*worker\.mjs:2.*Give it as a file, which is compiled/,
      );
    });

    it('that is none at all is refused by the core, as one of another kind is', async () => {
      const nothing = /give either a pointer or a source/;
      for (const [origin, why] of [
        [undefined, nothing],
        [{}, nothing],
        [null, /pointer: null was given/],
        [7, /pointer: 7 was given/],
      ] as const)
        await refused(origin as never, errors.BadInput, why);
    });

    it('that throws while loading is refused with what it threw', async () => {
      await refused(
        { source: 'throw new RangeError("not today"); export const a = () => 1;' },
        errors.SourceRejected,
        /\(load\): RangeError: not today/,
      );
      const throwing = 'export default class A { constructor() { throw new TypeError("no body"); } a() {} }';
      await refused({ source: throwing }, errors.SourceRejected, /\(load\): TypeError: no body/);
      await refused({ source: 'throw { status: 7 };' }, errors.SourceRejected, /\(load\): it threw {"status":7}/);
    });

    it('that never finishes loading is refused, waiting or spinning', async () => {
      const options = { load_timeout_ms: 700 };
      await refused(
        { source: 'await new Promise(() => {}); export const a = () => 1;' },
        errors.SourceRejected,
        /did not finish loading within 700 ms/,
        options,
      );
      await refused(
        { source: 'for (;;) {} export const a = () => 1;' },
        errors.SourceRejected,
        // On a busy machine a turn may come to its own end first.
        /did not finish loading within 700 ms|one turn of its code ran for more than/,
        options,
      );
    });

    it('that exports nothing callable is refused, saying what it does export', async () => {
      await refused({ source: 'const a = 1;' }, errors.SourceRejected, /exports nothing/);
      await refused({ source: 'export const answer = 42;' }, errors.SourceRejected, /exports only answer/);
      await refused(
        { source: 'export default class A { #secret() {} }' },
        errors.SourceRejected,
        /class without public methods/,
      );
    });

    it('that imports what is not there is refused, naming it', async () => {
      await refused(
        { source: 'import x from "left-pad"; export const a = () => x;' },
        errors.SourceRejected,
        /left-pad/,
      );
    });

    it('that is too large is refused before any vault is made', async () => {
      const source = `export const a = () => ${JSON.stringify('x'.repeat(errors.LIMITS.source_bytes))};`;
      await refused({ source }, errors.TooLarge, /The source is too large: \d+ bytes, but \d+ bytes are allowed/);
    });
  });
}

describe('a request that cannot be met', () => {
  const used = useMesh({ nodes: [{ drivers: ['quickjs'], labels: { zone: 'north' }, memory_mib: 256 }] });

  const post = (body: unknown, path = '/api/v2/swarm_spawn_ephemeral', headers: Record<string, string> = {}) =>
    fetch(new URL(path, used.local.url), {
      method: 'POST',
      headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
  const answer = async (response: Response) => {
    const { status, error } = (await response.json()) as any;
    assert.equal(status, 'error');
    return { http: response.status, name: error.data?.name, message: error.message };
  };

  it('for an unknown pointer says which', async () => {
    const { http, name, message } = await answer(
      await post({ pointer: 'gem-pointer://wiki/workers/nobody', audience: AUDIENCE }),
    );
    assert.deepEqual([http, name], [404, 'PointerUnknown']);
    assert.match(message, /wiki\/workers\/nobody/);
  });

  it('for a document that is no source says so', async () => {
    await used.mesh.meshfs.write('gem-pointer://wiki/p/readme', '# Hello');
    const { http, name, message } = await answer(
      await post({ pointer: 'gem-pointer://wiki/p/readme', audience: AUDIENCE }),
    );
    assert.deepEqual([http, name], [400, 'BadInput']);
    assert.match(message, /text\/markdown/);
  });

  it('for a node that does not exist says what was wanted and what there is', async () => {
    for (const [wanted, why] of [
      [{ labels: { zone: 'south' } }, /"zone":"south".*label zone is north/],
      [{ driver: 'lxc' }, /"driver":"lxc".*no driver lxc/],
      [{ memory_mib: 1000 }, /"memory_mib":1000.*256 MiB free of 256/],
    ] as const) {
      const { http, name, message } = await answer(await post({ source: CALCULATOR, audience: AUDIENCE, ...wanted }));
      assert.deepEqual([http, name], [503, 'NoNodeFits']);
      assert.match(message, why);
    }
  });

  it('with a body too large answers 413', async () => {
    const { http, name } = await answer(
      await post({ source: 'x'.repeat(errors.LIMITS.body_bytes), audience: AUDIENCE }),
    );
    assert.deepEqual([http, name], [413, 'TooLarge']);
  });

  it('with anything malformed answers 400 and names it', async () => {
    const cases: [unknown, RegExp][] = [
      ['{"source": ', /JSON/],
      [{ source: CALCULATOR }, /audience/],
      [{ source: CALCULATOR, audience: 'short' }, /audience/],
      [{ audience: AUDIENCE }, /either a pointer or a source/],
      [{ source: CALCULATOR, pointer: 'gem-pointer://wiki/a/b', audience: AUDIENCE }, /either a pointer or a source/],
      [{ source: CALCULATOR, audience: AUDIENCE, colour: 'red' }, /additional|colour/],
      [
        { source: CALCULATOR, audience: AUDIENCE, lease_ms: 1 },
        /lease_ms: 1 was given; expected is a whole number from 500/,
      ],
      ...['max_life_ms', 'idle_ms'].flatMap((bound) =>
        [0, 499].map((ms): [unknown, RegExp] => [
          { source: CALCULATOR, audience: AUDIENCE, [bound]: ms },
          new RegExp(`${bound}: ${ms} was given; expected is a whole number from 500`),
        ]),
      ),
      [
        { source: CALCULATOR, audience: AUDIENCE, driver: 'quickjs', cpu: 0.05 },
        /cpu: a quickjs vault has at least 0\.1/,
      ],
      [{ source: CALCULATOR, audience: AUDIENCE, grants: { fetch: ['not a host'] } }, /not host:port/],
      [{ source: CALCULATOR, audience: AUDIENCE, grants: { meshfs: { read: ['/etc/'] } } }, /not a pointer prefix/],
      [{ source: CALCULATOR, audience: AUDIENCE, memory_mib: -5 }, /memory_mib/],
    ];
    for (const [body, pattern] of cases) {
      const { http, message } = await answer(await post(body));
      assert.equal(http, 400, JSON.stringify(body));
      assert.match(message, pattern);
    }
  });

  it('without a token, with a malformed or a wrong one, answers 401 and each says what to do', async () => {
    const said = new Set<string>();
    for (const authorization of [undefined, 'Basic abc', 'Bearer hauki_wrong']) {
      for (const path of ['/api/v2/service_registry', '/api/v2/meshfs/resolve?pointer=gem-pointer://wiki/p/readme']) {
        const response = await fetch(
          new URL(path, used.local.url),
          authorization ? { headers: { authorization } } : {},
        );
        const { http, message } = await answer(response);
        assert.equal(http, 401, `${path} with ${authorization}`);
        said.add(message);
      }
    }
    assert.equal(said.size, 3);
    await assert.rejects(
      connect({ core: used.local.url, token: 'hauki_wrong' }).then((m) => m.registry()),
      (e) => isError(e, errors.Unauthorised),
    );
  });

  it('of an unknown worker answers 404, for every verb', async () => {
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/ticket'],
    ] as const) {
      const response = await fetch(`${used.local.url}/api/v2/ephemeral/w-nobody${path}`, {
        method,
        headers: { authorization: `Bearer ${used.local.token}`, 'content-type': 'application/json' },
        body: method === 'POST' ? JSON.stringify({ audience: AUDIENCE }) : null,
      });
      const { http, name } = await answer(response);
      assert.deepEqual([http, name], [404, 'WorkerUnknown']);
    }
  });

  it('from another host name or a page of another origin is refused', async () => {
    const { request } = await import('node:http');
    const ask = (headers: Record<string, string>) =>
      new Promise<number>((resolve, reject) => {
        request(new URL('/health', used.local.url), { headers }, (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        })
          .on('error', reject)
          .end();
      });
    assert.equal(await ask({}), 200);
    assert.equal(await ask({ host: 'evil.example' }), 403);
    assert.equal(await ask({ origin: 'https://evil.example' }), 403);
    assert.equal(await ask({ origin: 'http://localhost:3000' }), 200);
  });

  it('left no worker, and no secret in any log', async () => {
    assert.deepEqual((await used.mesh.registry()).workers, []);
    const log = used.log();
    assert.ok(log.length > 0);
    assert.equal(log.includes(used.local.token), false);
    assert.equal(/"secret"|eyJ[A-Za-z0-9_-]{20,}\./.test(log), false);
  });
});
