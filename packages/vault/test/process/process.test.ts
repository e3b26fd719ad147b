/** The process driver: what a vault sees, how it ends, and what is said where there is no bubblewrap. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  copyFileSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { killedAt } from '../../../../test/support/last-moment.ts';
import { lives, traces, until } from '../../../../test/support/mesh.ts';
import { alive, GUEST_FILE, type Guest, isPatient } from '../lxc/harness.ts';
import { type Bench, bench, skip } from './harness.ts';

suite('a running process vault', { skip }, () => {
  let b: Bench;
  let guest: Guest;
  before(async () => {
    b = bench();
    guest = await b.start();
  });
  after(() => b.end());

  test('has no capabilities, a filter of system calls, and its own namespaces', () => {
    const status = readFileSync(`/proc/${guest.vault.pid}/status`, 'utf8');
    for (const field of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
      assert.match(status, new RegExp(`^${field}:\\s*0+$`, 'm'));
    assert.match(status, /^NoNewPrivs:\s*1$/m);
    assert.match(status, /^Seccomp:\s*2$/m);
    if (process.getuid?.() === 0) assert.doesNotMatch(status, /^Uid:\s*0\s/m);
  });

  test('takes no processor from whoever wakes it', () => {
    assert.ok(isPatient(guest.vault.pid!));
  });

  test('sees neither environment, name nor files of its host, and no process', async () => {
    assert.deepEqual(
      (await guest.ask('Object.keys(process.env)')).filter((name: string) => name !== 'PWD'),
      [],
    );
    assert.equal(await guest.ask('get("node:os").hostname()'), 'vault');
    assert.equal(await guest.ask('process.pid'), 1);
    for (const path of ['/', '/etc/passwd', '/proc/self/status', '/bin/node'])
      await assert.rejects(guest.ask(`fs.readdirSync(${JSON.stringify(path)})`), /ERR_ACCESS_DENIED/, path);
  });

  test('writes to a bounded /tmp and nowhere else', async () => {
    await assert.rejects(guest.ask('fs.writeFileSync("/x", "x")'), /ERR_ACCESS_DENIED/);
    await guest.ask('fs.writeFileSync("/tmp/a", "x")');
    await assert.rejects(guest.ask('fs.writeFileSync("/tmp/big", Buffer.alloc(20e6))'), /ENOSPC/);
    await guest.ask('fs.unlinkSync("/tmp/big")');
  });

  test('starts no process and no thread of its own', async () => {
    assert.match(
      await guest.ask('get("node:child_process").spawnSync("/bin/node").error?.code ?? "ran"').catch(String),
      /ERR_ACCESS_DENIED/,
    );
    await assert.rejects(
      guest.ask('void new (get("node:worker_threads").Worker)("1", { eval: true })'),
      /ERR_ACCESS_DENIED/,
    );
  });

  test('tells what it uses, stands still while it is paused, and goes on', async () => {
    const { cpu_ms, memory_bytes } = await guest.vault.usage!();
    assert.ok(cpu_ms > 0 && memory_bytes > 1 << 20);
    await guest.vault.pause!();
    const answer = guest.ask('1 + 1');
    const early = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 200, 'silent'))]);
    assert.equal(early, 'silent');
    await guest.vault.resume!();
    assert.equal(await answer, 2);
  });
});

suite('the end of a process vault', { skip }, () => {
  test('by kill leaves nothing, also when it is paused, and is told once', async () => {
    const b = bench();
    const guest = await b.start();
    await guest.vault.pause!();
    await Promise.all([guest.vault.kill('enough'), guest.vault.kill('again')]);
    assert.equal(alive(guest.vault.pid), false);
    const { usage, ...exit } = await guest.vault.exited;
    assert.deepEqual(exit, { cause: 'killed', reason: 'enough', log_tail: '' });
    assert.ok(usage!.memory_bytes > 0);
    await b.end();
  });

  test("by somebody's SIGKILL of monitor or guest leaves nothing", async () => {
    const b = bench();
    for (const whom of ['monitor', 'guest']) {
      const { vault, ask } = await b.start();
      await ask('1');
      const monitor = Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${vault.pid}/status`, 'utf8'))![1]);
      process.kill(whom === 'monitor' ? monitor : vault.pid, 'SIGKILL');
      const exit = await vault.exited;
      assert.equal(exit.cause, 'exited');
      assert.match(exit.reason, /SIGKILL/);
      assert.equal(alive(vault.pid), false);
    }
    await b.end();
  });

  test('by itself is told with its code and its last words', async () => {
    const b = bench();
    const { vault, ask } = await b.start();
    ask('(() => { console.error("farewell"); process.exit(7); })()').catch(() => {});
    const exit = await vault.exited;
    assert.equal(exit.cause, 'exited');
    assert.match(exit.reason, /code 7/);
    assert.match(exit.log_tail, /farewell/);
    await b.end();
  });

  test('when its buffers pass the limit is told as a lack of memory', async () => {
    const b = bench();
    const { vault, ask } = await b.start(64);
    ask('(() => { const all = []; for (;;) all.push(Buffer.alloc(4 << 20, 1)); })()').catch(() => {});
    const exit = await vault.exited;
    assert.equal(exit.cause, 'out_of_memory', exit.reason);
    assert.match(exit.reason, /64 MiB/);
    await b.end();
  });
});

suite('a process vault that was started ahead', { skip }, () => {
  test('becomes that of whoever asks: its id and its share of the CPU, read back; once, and it ends like any other', async () => {
    const b = bench();
    const { vault, ask } = await b.start();
    const spec = { id: 'asked-for', owner: 'another', listen_host: '127.0.0.1', memory_mib: 96, cpu: 0.5 };
    assert.equal(b.driver.pooling!.kind(spec), b.driver.pooling!.kind({ ...spec, id: 'x', owner: 'y', cpu: 1 }));
    assert.notEqual(b.driver.pooling!.kind(spec), b.driver.pooling!.kind({ ...spec, memory_mib: 97 }));
    await b.driver.pooling!.assign(vault, spec);
    assert.equal(vault.id, 'asked-for');
    assert.equal(await ask('1 + 1'), 2);
    await assert.rejects(b.driver.start(spec), /already there/);
    const second = await b.start();
    await assert.rejects(b.driver.pooling!.assign(second.vault, spec), /already there/);
    assert.equal(alive(second.vault.pid), false);
    await vault.kill('enough');
    assert.ok((await vault.exited).usage!.cpu_ms > 0);
    await b.end();
  });
});

suite('without bubblewrap', () => {
  test('the driver says that it is for trusted code, and its vaults live, are bounded by the permission model, and end', async () => {
    const b = bench({ without_sandbox: true });
    const offer = await b.driver.probe();
    assert.equal(offer.available, true);
    assert.equal(b.driver.level, 'none');
    assert.match(b.driver.isolation, /TRUSTED CODE ONLY/);
    const { vault, ask } = await b.start();
    assert.equal(await ask('1 + 1'), 2);
    await assert.rejects(ask('fs.readFileSync("/etc/passwd")'), /ERR_ACCESS_DENIED/);
    await vault.kill('enough');
    assert.equal(lives(vault.pid), false);
    await b.end();
  });

  test('in a sandbox that was made without Python the driver says so, and what to do; with files, a volume is its home', async () => {
    const b = bench({ without_sandbox: true, contained: true });
    const offer = await b.driver.probe();
    assert.ok(offer.available);
    assert.match(b.driver.isolation, /contained from the host, not from each other/);
    assert.match(offer.note!, /no Python: .+ then start the swarm anew, or use a kernel outside: hauki kernel --join/);
    assert.equal(offer.runtimes, undefined);
    const path = mkdtempSync(join(tmpdir(), 'hauki-volume-'));
    const { vault, ask } = await b.start(96, { volume: { path, inside: '/root' } });
    assert.equal(await ask('fs.writeFileSync(process.env.HOME + "/a", "kept"), process.env.HOME'), path);
    if (process.platform === 'linux')
      assert.equal(readFileSync(`/proc/${vault.pid}/oom_score_adj`, 'utf8').trim(), '1000');
    await vault.kill('enough');
    assert.equal(readFileSync(join(path, 'a'), 'utf8'), 'kept');
    rmSync(path, { recursive: true });
    await b.end();
  });
});

suite('an ordinary user', { skip: skip || (process.getuid?.() !== 0 && 'only root can become another user') }, () => {
  test('has the same vaults, with memory watched where no cgroup can be written', async () => {
    // A folder that the user may enter, with the driver as one file: a checkout may lie where nobody else may go.
    const folder = mkdtempSync(join(tmpdir(), 'hauki-user-'));
    try {
      const { build } = await import('esbuild');
      const script = join(folder, 'agent.mjs');
      const entry = fileURLToPath(new URL('./user.ts', import.meta.url));
      await build({
        entryPoints: [entry],
        bundle: true,
        platform: 'node',
        format: 'esm',
        outfile: script,
        logLevel: 'silent',
        external: ['esbuild'],
      });
      for (const file of ['../../src/drivers/lxc/seccomp.policy', '../../src/drivers/process/syscalls.txt'])
        copyFileSync(new URL(file, import.meta.url), join(folder, file.slice(file.lastIndexOf('/') + 1)));
      copyFileSync(GUEST_FILE, join(folder, 'guest.mjs'));
      copyFileSync(process.execPath, join(folder, 'node'));
      mkdirSync(join(folder, 'home'));
      for (const path of ['.', ...globSync('**', { cwd: folder })]) chownSync(join(folder, path), 65_534, 65_534);
      const out = execFileSync(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', join(folder, 'node'), script, folder],
        { encoding: 'utf8', env: { HOME: join(folder, 'home'), PATH: '/usr/bin:/bin' }, cwd: folder, timeout: 50_000 },
      );
      const said = JSON.parse(out.trim().split('\n').at(-1)!);
      assert.equal(said.level, 'process', JSON.stringify(said));
      assert.equal(said.answer, 2);
      assert.equal(said.secret, 'ERR_ACCESS_DENIED');
      assert.equal(said.bomb.cause, 'out_of_memory', JSON.stringify(said));
      assert.equal(said.left, 0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

suite('the agent', { skip }, () => {
  test('killed with -9 leaves no process, and the next sweep clears the rest', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-process-'));
    const node_id = `pk${process.pid}`;
    const script = join(data_dir, 'agent.ts');
    writeFileSync(
      script,
      `import { createProcessDriver } from ${JSON.stringify(import.meta.resolve('../../src/drivers/process/process.ts'))};
       const driver = createProcessDriver(${JSON.stringify({ node_id, data_dir, guest_file: GUEST_FILE })});
       const vault = await driver.start({ id: 'v', owner: 'o', listen_host: '127.0.0.1', memory_mib: 96 });
       vault.control.start({ message() {}, close() {} });
       console.log(vault.pid); setInterval(() => {}, 1000);`,
    );
    const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pid = Number(String(await new Promise((resolve) => child.stdout.once('data', resolve))));
    assert.ok(alive(pid));
    child.kill('SIGKILL');
    await until('its vault is gone', () => !alive(pid));
    const b = bench({ node_id, data_dir });
    await b.driver.sweep();
    await until('nothing is left', () => traces(`${node_id}.`).length === 0);
    assert.equal(await b.driver.sweep(), 0);
    await b.driver.close();
    rmSync(data_dir, { recursive: true });
  });

  test('killed with -9 leaves no guest that spins, also where there is no bubblewrap', async () => {
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-process-'));
    const node_id = `ps${process.pid}`;
    await killedAt(
      data_dir,
      {
        '{ createProcessDriver }': import.meta.resolve('../../src/drivers/process/process.ts'),
        '{ converse }': import.meta.resolve('../lxc/harness.ts'),
      },
      `const options = ${JSON.stringify({ node_id, data_dir, guest_file: GUEST_FILE, without_sandbox: true })};
       const vault = await createProcessDriver(options).start({ id: 'v', owner: 'o', listen_host: '127.0.0.1', memory_mib: 96 });
       const { ask } = converse(vault);
       await ask('1');
       fs.writeFileSync(options.data_dir + '/pid', String(vault.pid));
       vault.control.send('(() => { fs.writeFileSync("spins", ""); for (;;); })()');
       while (!fs.existsSync(options.data_dir + '/process/v/tmp/spins')) await fsp.access('/');
       die();`,
    );
    const pid = Number(readFileSync(join(data_dir, 'pid'), 'utf8'));
    try {
      await until('it has ended with its agent', () => !alive(pid));
    } finally {
      if (alive(pid)) process.kill(pid, 'SIGKILL');
    }
    rmSync(data_dir, { recursive: true });
  });

  for (const [what, mine] of [
    ['to try whether it can', '.trial-'],
    ['for a vault', '.v'],
  ])
    test(`killed with -9 when it has just made cgroups ${what} leaves none, also where it never starts again`, async (t) => {
      if (process.getuid?.() !== 0) return t.skip('only root makes cgroups');
      const data_dir = mkdtempSync(join(tmpdir(), 'hauki-process-'));
      const node_id = `pm${process.pid}`;
      const script = join(data_dir, 'agent.ts');
      const from = (file: string) => JSON.stringify(import.meta.resolve(`../../src/drivers/${file}`));
      writeFileSync(
        script,
        `import { existsSync } from 'node:fs';
         import { Cgroups } from ${from('lxc/cgroups.ts')};
         import { createProcessDriver } from ${from('process/process.ts')};
         const { create } = Cgroups.prototype;
         Cgroups.prototype.create = function (name, limits) {
           const folders = create.call(this, name, limits);
           const made = folders.length > 0 && folders.every(existsSync);
           if (name.includes(${JSON.stringify(`.${node_id}${mine}`)})) process.kill(process.pid, made ? 'SIGKILL' : 'SIGTERM');
           return folders;
         };
         const driver = createProcessDriver(${JSON.stringify({ node_id, data_dir, guest_file: GUEST_FILE })});
         await driver.start({ id: 'v', owner: 'o', listen_host: '127.0.0.1', memory_mib: 96 });`,
      );
      const child = spawn(process.execPath, [script], { stdio: ['ignore', 'inherit', 'inherit'] });
      const [, signal] = await once(child, 'exit');
      assert.equal(signal, 'SIGKILL');
      await until('nothing is left', () => traces(`${node_id}.`).length === 0);
      rmSync(data_dir, { recursive: true });
    });
});
