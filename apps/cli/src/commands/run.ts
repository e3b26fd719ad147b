/** `hauki run`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BadInput, ConnectionLost, connect, isError } from '@hauki/mesh';
import { ownerLives, ownName } from '@hauki/vault/owner';
import type { Command } from 'commander';
import { askedToEnd, type Common, common, coreUrl, findToken, unlessAsked } from '../context.ts';
import { type LocalMesh, startMesh } from '../local-mesh.ts';
import { EXIT } from '../output.ts';

/** How folders begin whose owners this process can look for: pids mean nothing outside their namespace. */
function folders(): string {
  try {
    return `hauki-run-${/\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0]}-`;
  } catch {
    return 'hauki-run-';
  }
}

/** Removes what scripts that were killed left. */
function sweep(begin: string): void {
  try {
    for (const name of readdirSync(tmpdir())) {
      const folder = join(tmpdir(), name);
      if (!name.startsWith(begin) || ownerLives(name) !== false || lstatSync(folder).uid !== process.getuid?.())
        continue;
      rmSync(folder, { recursive: true, force: true });
    }
  } catch {
    // It may not be listed, or another does the same.
  }
}

/** A new folder for the time of a script. */
function ownFolder(): string {
  const begin = folders();
  sweep(begin);
  const folder = join(tmpdir(), begin + ownName());
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

interface Found {
  url: string;
  token: string;
  /** Lets go of a mesh that is the script's own, and of its folder. */
  end?(): Promise<void>;
}

/**
 * The core that the command line means, or, where none answers, a mesh for the time of the script. Undefined where somebody
 * asks this command to end before there is one.
 */
async function meshFor(flags: Common): Promise<Found | undefined> {
  const url = coreUrl(flags);
  try {
    const token = findToken(flags.data, url);
    await (await connect({ core: url, token })).close();
    return { url, token };
  } catch (error) {
    if (flags.core || !(isError(error, ConnectionLost) || isError(error, BadInput))) throw error;
    console.error('hauki: no core answers here; starting one for this script');
    const data_dir = ownFolder();
    const remove = () => rmSync(data_dir, { recursive: true, force: true });
    let own: LocalMesh | undefined;
    try {
      own = await unlessAsked(askedToEnd(), (signal) => startMesh({ data_dir, signal }));
    } finally {
      if (!own) remove();
    }
    return own && { url: own.url, token: own.token, end: () => own.stop().finally(remove) };
  }
}

export function runCommands(program: Command): void {
  program
    .command('run')
    .argument('<script>', 'a .ts or .js script that uses @hauki/mesh')
    .argument('[arguments...]', 'handed to the script')
    .passThroughOptions()
    .description('run a script against the mesh; where none is up, one is started for as long as the script runs')
    .addHelpText(
      'after',
      `
The script finds @hauki/mesh wherever it lies; HAUKI_URL and HAUKI_TOKEN are set for it.

Example:
  hauki run examples/01-one-call.ts`,
    )
    .action(async (script: string, args: string[], _flags, command: Command) => {
      const is = existsSync(script) ? statSync(script) : undefined;
      if (!is || is.isDirectory())
        throw new BadInput({ what: script, why: is ? 'it is a folder; name a script in it' : 'there is no such file' });
      const found = await meshFor(common(command));
      if (!found) {
        process.exitCode = EXIT.failed;
        return;
      }
      try {
        const child = spawn(
          process.execPath,
          [
            '--disable-warning=ExperimentalWarning',
            '--import',
            import.meta.resolve('../script-hook.ts'),
            script,
            ...args,
          ],
          {
            // The last is what the script ends with (`script-hook.ts`).
            stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
            env: { ...process.env, HAUKI_URL: found.url, HAUKI_TOKEN: found.token, HAUKI_RUN: '1' },
          },
        );
        const forward = (signal: NodeJS.Signals) => child.kill(signal);
        for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, forward);
        const [code, signal] = await once(child, 'exit');
        process.exitCode = signal ? 1 : code;
      } finally {
        await found.end?.();
      }
    });
}
