/**
 * A kernel's port, fuzzed with raw sockets: whatever a request spells, it reaches the module that it spells, byte for
 * byte, or none; ambiguous framing smuggles nothing; and the next connection is answered.
 */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { before, describe, it } from 'node:test';
import fc from 'fast-check';
import { useKernel } from './support/kernel.ts';

const RUNS = Number(process.env.FUZZ_RUNS ?? 250);
const ANSWER_MS = 30_000;
const MODULES = ['target', 'other', 'target_2'];
const ALIAS = '/api/v2/aliased/';

/** What a module is told is in its answer; `/seen` says who has come so far. */
const module = (name: string) => `
  const seen = [];
  export default { async fetch(request) {
    const path = request.url.replace(/^[a-z]+:\\/\\/[^/]*/, '');
    if (path === '/seen') return Response.json(seen);
    seen.push(path);
    if (seen.length > 5000) seen.splice(0, 1000);
    const body = request.body ? await request.text() : '';
    return Response.json({ module: '${name}', path, length: body.length, prefix: request.headers.get('x-forwarded-prefix') });
  } };`;

interface Answer {
  status: number;
  headers: Map<string, string>;
  text: string;
}

describe('the port of a kernel', () => {
  const kernel = useKernel({ drivers: ['quickjs'] });
  const digests = new Map<string, string>();
  let port: number;
  let pid: number;
  before(async () => {
    for (const name of MODULES) {
      const { digest } = await kernel.door.evolve({ target_module: name, content: module(name) });
      digests.set(digest, name);
    }
    const { digest } = await kernel.door.evolve({
      target_module: 'aliased',
      content: module('aliased'),
      alias: ALIAS,
    });
    digests.set(digest, 'aliased');
    port = Number(new URL(kernel.process.url).port);
    pid = kernel.process.child.pid!;
  });

  /** Sends bytes as they are and reads until the other side closes, or has been silent after an answer. */
  const send = (bytes: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1');
      let text = '';
      let quiet: NodeJS.Timeout | undefined;
      const late = setTimeout(() => {
        socket.destroy();
        reject(new Error(`no answer to ${JSON.stringify(bytes.replace(auth(), ''))}`));
      }, ANSWER_MS);
      const done = () => {
        clearTimeout(late);
        clearTimeout(quiet);
        socket.destroy();
        resolve(text);
      };
      socket.setEncoding('latin1');
      socket.on('data', (data) => {
        text += data;
        // A connection that is kept: what was to come has mostly come.
        clearTimeout(quiet);
        quiet = setTimeout(done, 250);
      });
      socket.on('end', done);
      socket.on('close', done);
      socket.on('error', () => {});
      socket.write(bytes, 'latin1', () => {});
    });
  const auth = () => `Authorization: Bearer ${kernel.process.token}\r\n`;
  const parse = (text: string): Answer => {
    const [head = '', ...rest] = text.split('\r\n\r\n');
    const [first = '', ...lines] = head.split('\r\n');
    const headers = new Map(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    );
    return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(first)?.[1] ?? 0), headers, text: rest.join('\r\n\r\n') };
  };
  const ask = async (method: string, target: string): Promise<Answer> =>
    parse(await send(`${method} ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\n${auth()}Connection: close\r\n\r\n`));
  /** The next connection is served, by the same process. */
  const alive = async () => {
    const { status, text } = await ask('GET', '/health');
    assert.equal(status, 200);
    assert.match(text, /"status":"ok"/);
    assert.equal(kernel.process.child.pid, pid);
    assert.equal(kernel.process.child.exitCode, null);
  };

  /** The module that a target spells literally: no decoding, no folding, nothing taken together. */
  const spelled = (target: string): string | undefined => {
    const path = target.replace(/^https?:\/\/[^/?#]*/i, '');
    const at = (prefix: string) => path === prefix || path.startsWith(`${prefix}/`) || path.startsWith(`${prefix}?`);
    return at(ALIAS.slice(0, -1)) ? 'aliased' : [...MODULES, 'aliased'].find((name) => at(`/api/plugins/${name}`));
  };
  const OWN = /"drivers":|"entries":|"openapi":|"versions":/;

  it('gives a request to the module that its target spells, or to none', async () => {
    const words = [
      'api',
      'plugins',
      'v2',
      'aliased',
      ...MODULES,
      'status',
      'history',
      'evolve',
      'docs',
      'json',
      'modules',
    ];
    const tricks = [
      '', '.', '..', '...', '%2e', '%2e%2e', '.%2E', '%2E.', '..;', '..%2f', '%2f', '%2F..%2F', '%5c', '%252e%252e',
      '%252f', 'TARGET', 'Target', 't%61rget', 'target%00', 'target%20', 'target;a=b', 'target.', 'target.js', '%74arget',
      't\u00e4rget', 'target\u017f', '\uff0e\uff0e', '\\', '..\\', 'target\\..\\other', '@', 'target@other', '*', '~', '%', '%zz', '%c0%ae',
      '%c0%af', '%u002e', '\t', 'target\tother', '\x01', '\x7f', '__proto__', 'constructor',
    ]; // biome-ignore format: a list to look over
    const segment = fc.oneof(
      { weight: 5, arbitrary: fc.constantFrom(...words) },
      { weight: 4, arbitrary: fc.constantFrom(...tricks) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 6 }) },
    );
    const joint = fc.constantFrom('/', '/', '/', '/', '//', '/./', '/../', '%2f', '\\', '/%2e%2e/', ';/', '?/', '#/');
    const begin = fc.constantFrom(
      '/api/plugins/target', '/api/plugins/target/', '/api/plugins/', '/api/plugins', '/api/v2/aliased/', '/', '//', '',
      'http://127.0.0.1/api/plugins/target', 'http://evil.example/api/plugins/other/', 'HTTP://127.0.0.1', 'https://a@b',
      'http:', 'http:///', 'ftp://127.0.0.1/', '*', '/API/plugins/', '/api//plugins/', '/api/./plugins/', '/./api/plugins/',
    ); // biome-ignore format: a list to look over
    const method = fc.constantFrom(
      'GET', 'GET', 'GET', 'POST', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT', 'PATCH', 'PROPFIND', 'PURGE', 'QUERY',
      'get', 'FOO', 'GE T', '', 'X'.repeat(300), 'PRI',
    ); // biome-ignore format: a list to look over
    const target = fc
      .tuple(begin, fc.array(fc.tuple(joint, segment), { maxLength: 6 }))
      .map(([first, more]) => Buffer.from(first + more.flat().join('')).toString('latin1'))
      .map((text) => text.replaceAll(/[\r\n]/g, ''));
    let served = 0;
    await fc.assert(
      fc.asyncProperty(method, target, async (verb, text) => {
        const answer = await ask(verb, text);
        const by = digests.get(answer.headers.get('x-hauki-digest') ?? '');
        // A target with a space in it is another request line: what stands before the space is asked for, or nothing.
        const wanted = spelled(text.split(' ')[0]!);
        if (by !== undefined) {
          served++;
          assert.equal(by, wanted);
          const path = text.split(/[ ?]/)[0]!.replace(/^https?:\/\/[^/]*/i, '');
          assert.ok(!path.split('/').some((one) => /^(?:\.|%2e){1,2}$/i.test(one)), `${path} was served`);
          if (answer.status === 200 && verb !== 'HEAD') assert.equal(JSON.parse(unchunked(answer)).module, by);
        } else if (/^(?:https?:\/\/[^/?#]*)?\/api\/plugins/i.test(text)) {
          assert.ok(answer.status >= 400 || answer.status === 0, `${answer.status} ${answer.text.slice(0, 200)}`);
          assert.doesNotMatch(answer.text, OWN);
        }
        await alive();
      }),
      {
        numRuns: RUNS,
        examples: [
          ['GET', '/api/plugins/target/../other/'],
          ['GET', '/api/plugins/target/%2e%2e/%2e%2e/status'],
        ],
      },
    );
    assert.ok(served > RUNS / 50, `${served} were served: the fuzzing misses what it looks for`);
  });

  it('lets nothing be smuggled in a body whose end is unclear', async () => {
    let count = 0;
    const inner = (canary: string) => `GET /api/plugins/other/${canary} HTTP/1.1\r\nHost: 127.0.0.1\r\n${auth()}\r\n`;
    /** What makes the end of a body unclear; `all` and `none` are lengths with and without what would be smuggled. */
    const framings: ((all: number, none: number) => string)[] = [
      (all) => `Content-Length: ${all}\r\nTransfer-Encoding: chunked`,
      (_, none) => `Transfer-Encoding: chunked\r\nContent-Length: ${none}`,
      (all, none) => `Content-Length: ${none}\r\nContent-Length: ${all}`,
      (all, none) => `Content-Length: ${none}, ${all}`,
      (all) => `Content-Length: ${all}\r\nTransfer-Encoding: xchunked`,
      (all) => `Content-Length: ${all}\r\nTransfer-Encoding:\r\n chunked`,
      (all) => `Content-Length: ${all}\r\nTransfer-Encoding : chunked`,
      (all) => `Content-Length: ${all}\r\nTransfer-Encoding: identity, chunked`,
      () => 'Transfer-Encoding: chunked, identity',
      () => 'Transfer-Encoding: chunked\r\nTransfer-Encoding: x',
      () => 'Transfer-Encoding: \x0bchunked',
      (_, none) => `Content-Length: +${none}`,
      (_, none) => `Content-Length: -${none}`,
      (_, none) => `Content-Length: 0x${none}`,
      (_, none) => `Content-Length: ${none} ${none}`,
      (all) => `Content-Length : ${all}`,
      () => 'Content-Length: 99999999999999999999',
      (all) => `Content-Length: ${all}\r\nX: y\nTransfer-Encoding: chunked`,
      (all) => `Content-Length: ${all}\r\nX\x00: y`,
      (all) => `X: y\r\n Content-Length: 0\r\nTransfer-Encoding: chunked\r\nContent-Length: ${all}`,
    ];
    const starts = ['0\r\n\r\n', '0\n\n', '0\r\n', '5\r\nhello\r\n0\r\n\r\n', '', '0;\r\n\r\n', '00\r\n\r\n', '\r\n'];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...framings),
        fc.constantFrom(...starts),
        fc.constantFrom('POST', 'GET', 'PUT'),
        fc.constantFrom('target', 'nobody'),
        async (framing, start, verb, to) => {
          const canary = `smuggled-${++count}`;
          const whole = start + inner(canary);
          const head = `${verb} /api/plugins/${to}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n${auth()}`;
          await send(`${head}${framing(whole.length, start.length)}\r\n\r\n${whole}`);
          await alive();
        },
      ),
      { numRuns: RUNS },
    );
    assert.doesNotMatch(JSON.stringify(await kernel.json('other/seen')), /smuggled/);
    // The control: as a request of its own, where the first one's end is clear, it arrives.
    const clear = `POST /api/plugins/target/ HTTP/1.1\r\nHost: 127.0.0.1\r\n${auth()}Content-Length: 2\r\n\r\nhi`;
    await send(clear + inner('honest'));
    assert.match(JSON.stringify(await kernel.json('other/seen')), /honest/);
  });

  it('refuses broken chunks, and gives modules no more than came whole', async () => {
    const sizes = ['-1', '0x5', 'g', '5 5', 'ffffffffffffffffff', '', '5\n', ' 5', '\x00'];
    const head = `POST /api/plugins/target/chunks HTTP/1.1\r\nHost: 127.0.0.1\r\n${auth()}Transfer-Encoding: chunked\r\n\r\n`;
    for (const size of sizes)
      for (const before of ['', '2\r\nhi\r\n']) {
        const answer = parse(await send(`${head}${before}${size}\r\nhello\r\n0\r\n\r\n`));
        assert.notEqual(answer.status, 200, JSON.stringify(size));
        await alive();
      }
    const { status, text, headers } = parse(await send(`${head}5;ext=1\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n`));
    assert.equal(status, 200);
    assert.equal(JSON.parse(unchunked({ status, text, headers })).length, 5);
  });

  it('survives what is no HTTP at all, and requests that never end', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), async (bytes) => {
        const socket = connect(port, '127.0.0.1');
        socket.on('error', () => {});
        await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
        await alive();
        socket.destroy();
      }),
      { numRuns: RUNS / 5 },
    );
    const header = (size: number) =>
      `GET /api/plugins/target/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${'y'.repeat(size)}\r\n`;
    for (const part of [header(10), header(20_000), header(10).repeat(1), 'GET /api/plugins/target/'.repeat(4_000)]) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(part);
      await alive();
      socket.destroy();
    }
    const many = Array.from({ length: 3_000 }, (_, i) => `X-${i}: y\r\n`).join('');
    const { status } = parse(await send(`GET /api/plugins/target/ HTTP/1.1\r\nHost: 127.0.0.1\r\n${many}\r\n`));
    assert.ok(status >= 400, String(status));
  });
});

function unchunked({ headers, text }: Answer): string {
  if (headers.get('transfer-encoding') !== 'chunked') return text;
  return text.replaceAll(/(?:^|\r\n)[0-9a-f]+\r\n/g, '');
}
