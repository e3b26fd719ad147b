/** `hauki run`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BadInput, ConnectionLost, connect, isError } from '@hauki/mesh';
import type { Command } from 'commander';
import { type Common, common, coreUrl, findToken } from '../context.ts';
import { type LocalMesh, startMesh } from '../local-mesh.ts';

/** The core that the command line means, or, where none answers, a mesh for the time of the script. */
async function meshFor(flags: Common): Promise<{ url: string; token: string; own?: LocalMesh; data_dir?: string }> {
  const url = coreUrl(flags);
  try {
    const token = findToken(flags.data);
    await (await connect({ core: url, token })).close();
    return { url, token };
  } catch (error) {
    if (flags.core || !(isError(error, ConnectionLost) || isError(error, BadInput))) throw error;
    console.error('hauki: no core answers here; starting one for this script');
    const data_dir = mkdtempSync(join(tmpdir(), 'hauki-run-'));
    const own = await startMesh({ data_dir });
    return { url: own.url, token: own.token, own, data_dir };
  }
}

export function runCommands(program: Command): void {
  program
    .command('run')
    .argument('<script>', 'a .ts or .js script that uses @hauki/mesh')
    .argument('[arguments...]', 'handed to the script')
    .passThroughOptions()
    .description('run a script against the mesh; where none is up, one is started for as long as the script runs')
    .action(async (script: string, args: string[], _flags, command: Command) => {
      if (!existsSync(script)) throw new BadInput({ what: script, why: 'there is no such file' });
      const { url, token, own, data_dir } = await meshFor(common(command));
      try {
        const child = spawn(
          process.execPath,
          [
            '--disable-warning=ExperimentalWarning',
            '--import',
            import.meta.resolve('../resolve-hook.ts'),
            script,
            ...args,
          ],
          { stdio: 'inherit', env: { ...process.env, HAUKI_URL: url, HAUKI_TOKEN: token } },
        );
        const forward = (signal: NodeJS.Signals) => child.kill(signal);
        process.on('SIGINT', forward);
        process.on('SIGTERM', forward);
        const [code, signal] = await once(child, 'exit');
        process.exitCode = signal ? 1 : code;
      } finally {
        await own?.stop();
        if (data_dir) rmSync(data_dir, { recursive: true, force: true });
      }
    });
}
