/** A core of its own for the tests of one file, and `hauki fs` against it, as a person or a script runs it. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect, type Mesh } from '@hauki/mesh';
import { type StartedCore, startCore } from '../../src/local-mesh.ts';

const BIN = fileURLToPath(new URL('../../bin/hauki.js', import.meta.url));

/** To be called within `describe`; core and mesh are there when its tests run. */
export function fsBench() {
  let folder: string;
  let core: StartedCore;
  let mesh: Mesh;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'hauki-fs-'));
    core = await startCore(folder, { port: 0 });
    mesh = await connect({ core: core.url, token: core.token });
  });
  after(async () => {
    await mesh.close();
    await core.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** `hauki fs …`; `url` is another way to the same core. */
  const start = (args: string[], url = core.url, home = process.env.HOME): ChildProcess =>
    spawn(process.execPath, [BIN, 'fs', ...args], {
      env: { ...process.env, HOME: home, HAUKI_DATA: folder, HAUKI_URL: url, HAUKI_TOKEN: core.token, NO_COLOR: '1' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  const run = async (args: string[], input: string | Buffer = '', url = core.url, home = process.env.HOME) => {
    const child = start(args, url, home);
    const out: Buffer[] = [];
    let err = '';
    child.stdout!.on('data', (data) => out.push(data));
    child.stderr!.on('data', (data) => {
      err += data;
    });
    child.stdin!.end(input);
    const [code] = await once(child, 'close');
    const bytes = Buffer.concat(out);
    return { code: code as number, out: bytes.toString(), bytes, err };
  };
  const json = async (args: string[]): Promise<any> => {
    const { out, err } = await run([...args, '--json']);
    assert.notEqual(out, '', err);
    return JSON.parse(out);
  };
  /** A folder of this machine, beside the core's. */
  const local = (name: string) => {
    const path = join(folder, 'local', name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  return { start, run, json, local, folder: () => folder, core: () => core, mesh: () => mesh };
}
