/** The flags that say what a worker gets and may do. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { BadInput, ConnectionLost, isError, normaliseGrants, Unauthorised } from '@hauki/mesh';
import { adminTokenFile, nodeTokenFile } from '@hauki/mesh/data-dir';
import { Command } from 'commander';
import { coreToJoin, isOpenToStrangers } from '../src/commands/up.ts';
import {
  argument,
  type CloneFlags,
  cloneOptions,
  coreUrl,
  findToken,
  milliseconds,
  openMesh,
  withModuleFlags,
} from '../src/context.ts';

const folder = mkdtempSync(join(tmpdir(), 'hauki-flags-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const options = (...words: string[]) => {
  const command = withModuleFlags(new Command()).exitOverride();
  return cloneOptions(command.parse(words, { from: 'user' }).opts<CloneFlags>());
};
const refuses = (words: string[], pattern: RegExp) =>
  assert.throws(
    () => options(...words),
    (error) => isError(error, BadInput) && pattern.test(error.message),
  );

describe('flags', () => {
  it('are grants, in short', () => {
    const given = options(
      ...['--fetch', 'a.example:443', '--fetch', 'GET,head@[::1]:80/60', '--fetch', 'b.example:80/5'],
      ...['--connect', 'irc.example:6697', '--read', 'gem-pointer://wiki/a/', '--write', 'gem-pointer://wiki/b'],
      ...['--volume', 'notes=32', '--clone', '3/20/256', '--time', '--min-isolation', 'vm', '--memory', '64'],
    );
    assert.deepEqual(normaliseGrants(given.grants), {
      fetch: [
        { to: 'a.example:443', methods: [], per_minute: 0 },
        { to: '[::1]:80', methods: ['GET', 'HEAD'], per_minute: 60 },
        { to: 'b.example:80', methods: [], per_minute: 5 },
      ],
      connect: ['irc.example:6697'],
      meshfs: { read: ['gem-pointer://wiki/a/'], write: ['gem-pointer://wiki/b/readme.md'] },
      volume: { name: 'notes', quota_mib: 32 },
      clone: { live: 3, total: 20, memory_mib: 256 },
      secrets: [],
      time: true,
      random: false,
    });
    assert.deepEqual([given.min_isolation, given.memory_mib, given.secrets], ['vm', 64, undefined]);
    assert.deepEqual(options('--clone', '3', '--volume', 'x').grants, {
      ...{ fetch: [], connect: [], meshfs: { read: [], write: [] }, time: false, random: false },
      ...{ volume: 'x', clone: { live: 3 } },
    });
  });

  it('and arguments are JSON where they are JSON; no integer is rounded', () => {
    const cases: [string, unknown][] = [
      ['1e3', 1000],
      ['9007199254740991', Number.MAX_SAFE_INTEGER],
      ['9007199254740993', 9007199254740993n],
      ['{"ids":[-12345678901234567890, 0.5]}', { ids: [-12345678901234567890n, 0.5] }],
      ['"9007199254740993"', '9007199254740993'],
      ['007', '007'],
    ];
    for (const [text, value] of cases) assert.deepEqual(argument(text), value, text);
  });

  it('take secrets from a file or the environment, and from nowhere that others see', () => {
    writeFileSync(join(folder, 'key'), 'from-a-file\n');
    process.env.HAUKI_TEST_SECRET = 'from=the@environment';
    assert.deepEqual(
      options(
        ...['--secret', `A@a.example:443,[::1]:80=@${join(folder, 'key')}`],
        ...['--secret', 'B@b.example:443=env:HAUKI_TEST_SECRET'],
      ).secrets,
      {
        A: { value: 'from-a-file', to: ['a.example:443', '[::1]:80'] },
        B: { value: 'from=the@environment', to: ['b.example:443'] },
      },
    );
    for (const [flag, words] of [
      ['A@a.example:443=hush-hush', /does not stand on a command line/],
      ['A=hush-hush', /not understood/],
      ['A@a.example:443=env:NO_SUCH_VARIABLE_HERE', /no variable NO_SUCH_VARIABLE_HERE/],
      ['A@a.example:443=@/no/such/file', /ENOENT/],
    ] as const)
      assert.throws(
        () => options('--secret', flag),
        (error) => isError(error, BadInput) && words.test(error.message) && !error.message.includes('hush'),
        flag,
      );
  });

  it('that are no numbers are refused, not left out', () => {
    refuses(['--clone', 'many'], /--clone.*"many" is no whole number/);
    refuses(['--clone', '3/x'], /--clone/);
    refuses(['--volume', 'a=big'], /--volume/);
    refuses(['--memory', '1e3'], /--memory/);
    for (const cpu of ['abc', '', '0', '2', '-1', '1e-1', 'NaN', 'Infinity'])
      refuses([`--cpu=${cpu}`], /--cpu.* is no number from 0\.05 to 1/);
    assert.equal(options('--cpu', '0.5').cpu, 0.5);
  });

  it('with more parts than there are are refused, not cut', () => {
    refuses(['--volume', 'a=1=2'], /--volume.*"a=1=2" is not name or name=MiB/);
    refuses(['--volume', '=3'], /--volume/);
    refuses(['--volume', 'a=0'], /--volume.*from 1 to/);
    refuses(['--clone', '1/2/3/4'], /--clone.*"1\/2\/3\/4" is not live/);
    refuses(['--clone', '1//3'], /--clone.*"" is no whole number/);
  });

  it('that name what there is not are refused with what there is', () => {
    refuses(['--driver', 'docker'], /--driver.*"docker" is none of lxc, quickjs, process/);
    refuses(['--min-isolation', 'strong'], /--min-isolation.*none of none, process, vm, container/);
  });

  it('for times are durations with a unit, of a length that can be', () => {
    for (const text of ['5', '-5s', '1e3s', 's', '1.s', `${'9'.repeat(400)}h`, '9999999999999999h'])
      refuses([`--turn=${text}`], /--turn.*is no duration/);
    assert.throws(() => milliseconds('--timeout', '0s', 1), /--timeout.*less than 1 ms/);
    assert.equal(milliseconds('--timeout', '1.5s', 1), 1_500);
  });
});

describe('the core that is meant', () => {
  it('is a URL of HTTP; what is none is refused, not looked for', () => {
    const refused = (core: string | undefined, what: string) =>
      assert.throws(
        () => coreUrl({ ...(core === undefined ? {} : { core }) }),
        (error) => isError(error, BadInput) && error.fields.what === what,
        core,
      );
    for (const core of ['nonsense', 'localhost:8000', '127.0.0.1:8000', 'ftp://127.0.0.1', '', 'http://'])
      refused(core, '--core');
    assert.equal(coreUrl({ core: 'HTTPS://core.example' }), 'HTTPS://core.example');
    const before = process.env.HAUKI_URL;
    try {
      process.env.HAUKI_URL = 'localhost';
      refused(undefined, 'HAUKI_URL');
      delete process.env.HAUKI_URL;
      assert.equal(coreUrl({}), 'http://127.0.0.1:8000');
    } finally {
      delete process.env.HAUKI_URL;
      if (before !== undefined) process.env.HAUKI_URL = before;
    }
  });
});

describe('the token of a data folder', () => {
  it('for nodes is for a core on this machine alone, unless its file is named', () => {
    const token_file = nodeTokenFile(folder);
    mkdirSync(dirname(token_file), { recursive: true });
    writeFileSync(token_file, 'hauki_node\n');
    const [here, there] = ['http://127.0.0.1:1', 'http://10.9.9.9:1'];
    assert.deepEqual(coreToJoin({ core: here, data: folder }), { core_url: here, token_file });
    assert.throws(
      () => coreToJoin({ core: there, data: folder }),
      (error) => isError(error, Unauthorised) && /is no loopback address.*--token-file/.test(error.message),
    );
    assert.deepEqual(coreToJoin({ core: there }, token_file), { core_url: there, token_file });
  });

  it('is for a core on this machine alone, whatever folder is named', async () => {
    const before = process.env.HAUKI_TOKEN;
    delete process.env.HAUKI_TOKEN;
    try {
      const file = adminTokenFile(folder);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, 'hauki_secret\n');
      for (const core of ['http://127.0.0.1:8000', 'http://localhost:1', 'https://[::1]:1', 'http://127.9.9.9'])
        assert.equal(findToken(folder, core), 'hauki_secret');
      const told = (error: unknown) =>
        isError(error, Unauthorised) && /is no loopback address.*HAUKI_TOKEN/.test(String(error));
      for (const core of [
        'http://10.9.9.9:1',
        'https://localhost.example',
        'http://127.0.0.1@evil.example',
        'http://[::2]',
      ])
        assert.throws(() => findToken(folder, core), told, core);
      await assert.rejects(openMesh({ core: 'http://10.9.9.9:1', data: folder }), told);
      process.env.HAUKI_TOKEN = 'hauki_for_there';
      assert.equal(findToken(folder, 'http://10.9.9.9:1'), 'hauki_for_there');
    } finally {
      delete process.env.HAUKI_TOKEN;
      if (before !== undefined) process.env.HAUKI_TOKEN = before;
    }
  });

  it('that name a core which is not there are told so, also where there is no token for it', async () => {
    const before = process.env.HAUKI_TOKEN;
    delete process.env.HAUKI_TOKEN;
    const server = createServer((_request, response) => response.end('{}')).listen(0, '127.0.0.1');
    try {
      await once(server, 'listening');
      const core = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const data = join(folder, 'none');
      const no_token = (error: unknown) => isError(error, BadInput) && /admin\.token is not there/.test(error.message);
      await assert.rejects(openMesh({ core, data }), no_token);
      await new Promise((done) => server.close(done));
      await assert.rejects(openMesh({ core, data }), (error) => isError(error, ConnectionLost));
    } finally {
      server.close();
      if (before !== undefined) process.env.HAUKI_TOKEN = before;
    }
  });

  it('that open a core to strangers are known: all addresses at once, and such as are neither loopback’s nor private', () => {
    for (const host of ['0.0.0.0', '::', '203.0.113.7', '2001:db8::7', '172.32.0.1'])
      assert.ok(isOpenToStrangers(host), host);
    for (const host of [
      '127.0.0.1',
      '::1',
      '10.8.0.1',
      '172.31.0.1',
      '192.168.1.2',
      '100.100.1.2',
      'fd00::1',
      'localhost',
    ])
      assert.ok(!isOpenToStrangers(host), host);
  });
});
