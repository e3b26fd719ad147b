/** A node's folder: one agent at a time has it, and what is damaged in it is named. */
import assert from 'node:assert/strict';
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BadInput } from '@hauki/protocol';
import { openFolder } from '../src/folder.ts';

const folders: string[] = [];
const fresh = () => {
  const made = mkdtempSync(join(tmpdir(), 'hauki-folder-'));
  folders.push(made);
  return made;
};
after(() => {
  for (const made of folders) rmSync(made, { recursive: true, force: true });
});

const refuses = (data_dir: string, pattern: RegExp) =>
  assert.throws(
    () => openFolder(data_dir, () => assert.fail('a name is not made')),
    (thrown) => thrown instanceof BadInput && pattern.test(thrown.message),
  );

/** What an agent's process says first, started over a folder. */
async function agentOver(data_dir: string): Promise<unknown> {
  const options = { core_url: 'http://127.0.0.1:1', data_dir, token_file: join(data_dir, 'none.token') };
  const child = fork(fileURLToPath(import.meta.resolve('@hauki/node/main')), [], {
    env: { ...process.env, HAUKI_NODE_OPTIONS: JSON.stringify(options) },
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  const ended = once(child, 'exit');
  const [said] = await once(child, 'message');
  assert.deepEqual((await ended)[0], 1);
  return said;
}

describe('the folder of a node', () => {
  it('keeps its name, in a file of the owner’s alone, who alone can lock it', () => {
    const data_dir = join(fresh(), 'new', 'node');
    const first = openFolder(data_dir, () => 'one-0a1b2c');
    first.close();
    const again = openFolder(data_dir, () => 'two-0a1b2c');
    again.close();
    assert.deepEqual([first.node, again.node], ['one-0a1b2c', 'one-0a1b2c']);
    for (const file of ['node.json', 'agent.lock'])
      assert.equal(statSync(join(data_dir, file)).mode & 0o777, 0o600, file);
    assert.equal(statSync(data_dir).mode & 0o777, 0o711);
  });

  it('is one agent’s at a time; another is told who has it and what to do', async () => {
    const data_dir = fresh();
    const held = openFolder(data_dir, () => 'one');
    const pattern = new RegExp(`in use by another agent \\(pid ${process.pid}\\).*--name or --data`);
    refuses(data_dir, pattern);
    assert.match(((await agentOver(data_dir)) as { failed: string }).failed, pattern);
    assert.equal(readFileSync(join(data_dir, 'node.json'), 'utf8'), '{"node":"one"}');
    held.close();
    openFolder(data_dir, () => 'one').close();
  });

  it('is free again when who had it was killed', async () => {
    const data_dir = fresh();
    const file = JSON.stringify(new URL('../src/folder.ts', import.meta.url).href);
    const code = `import { openFolder } from ${file};
      const folder = openFolder(${JSON.stringify(data_dir)}, () => 'one');
      console.log('held');
      setInterval(() => folder.node, 1e6);`;
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', code]);
    try {
      await once(child.stdout, 'data');
      refuses(data_dir, new RegExp(`pid ${child.pid}`));
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    openFolder(data_dir, () => 'one').close();
  });

  it('whose node.json is damaged is refused, naming the file and what to do, and left as it is', async () => {
    const data_dir = fresh();
    const file = join(data_dir, 'node.json');
    for (const text of ['', '{"node":"on', 'null', '{}', '{"node":7}', '{"node":"../x"}']) {
      writeFileSync(file, text);
      refuses(data_dir, /node\.json: it is damaged.*Write the node’s name there again/);
      assert.equal(readFileSync(file, 'utf8'), text);
    }
    const { failed } = (await agentOver(data_dir)) as { failed: string };
    assert.ok(failed.startsWith(`${file}: it is damaged`), failed);
    assert.ok(!existsSync(`${file}.making`));
  });
});
