/** Which names and addresses a core and a kernel answer for, as the command line says. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const BIN = fileURLToPath(new URL('../bin/hauki.js', import.meta.url));
/** Of loopback, though no machine calls itself so. */
const ADDRESS = '127.0.0.2';

describe('the names of a core and of a kernel', () => {
  const folder = mkdtempSync(join(tmpdir(), 'hauki-hosts-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** Starts it, asks for its health under each name, and ends it. */
  async function asked(hosts: string[], ...args: string[]): Promise<{ url: string; statuses: (number | undefined)[] }> {
    const child = spawn(process.execPath, [BIN, ...args, '--port', '0', '--json'], {
      env: { ...process.env, HAUKI_DATA: join(folder, args[0]!) },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      const lines = createInterface(child.stdout).on('close', () => lines.emit('line', '{}'));
      const [line] = await once(lines, 'line');
      const { url } = JSON.parse(line);
      const status = async (host: string) => {
        const sent = request(`${url}/health`, { headers: { host } }).end();
        const [answer] = await once(sent, 'response');
        answer.resume();
        return answer.statusCode as number;
      };
      return { url, statuses: await Promise.all(hosts.map(status)) };
    } finally {
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'exit');
    }
  }

  it('are an address besides loopback and the names that the core is given', {
    skip: process.platform !== 'linux',
  }, async () => {
    const names = ['localhost', `${ADDRESS}:8000`, 'core.example', 'b.example:443', 'c.example'];
    const given = ['--host', ADDRESS, '--host-name', 'core.example', '--host-name', 'B.example'];
    const { url, statuses } = await asked(names, 'up', '--nodes', '0', ...given);
    assert.match(url, /^http:\/\/127\.0\.0\.2:/);
    assert.deepEqual(statuses, [200, 200, 200, 200, 403]);
  });

  it('are those that the kernel is given', async () => {
    const given = ['--driver', 'quickjs', '--host-name', 'kernel.example'];
    const { statuses } = await asked(['127.0.0.1', 'kernel.example', 'c.example'], 'kernel', ...given);
    assert.deepEqual(statuses, [200, 200, 403]);
  });
});
