/** What every command has in common: which core, which token, JSON or not. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { BadInput, type CloneOptions, connect, type Mesh } from '@hauki/mesh';
import { adminTokenFile, defaultDataDir } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import { parseDuration } from './output.ts';

export interface Common {
  core?: string;
  data?: string;
  json?: boolean;
}

/** Options before and after the verb count alike. */
export const common = (command: Command): Common => command.optsWithGlobals<Common>();

/** The token: HAUKI_TOKEN, else the file that the core made in its data folder. */
export function findToken(data_dir: string = defaultDataDir()): string {
  if (process.env.HAUKI_TOKEN) return process.env.HAUKI_TOKEN;
  const file = adminTokenFile(data_dir);
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'EACCES' ? 'is not yours to read' : 'is not there';
    throw new BadInput({
      what: 'token',
      why: `${file} ${why}. Start a core with \`hauki up\`, name its folder with --data, or set HAUKI_TOKEN`,
    });
  }
}

/** Connects as the command line says. */
export async function openMesh({ core, data }: Common): Promise<Mesh> {
  return connect({ ...(core ? { core } : {}), token: findToken(data) });
}

/** Runs `use` with a mesh and lets go of it afterwards. */
export async function withMesh<T>(options: Common, use: (mesh: Mesh) => Promise<T>): Promise<T> {
  const mesh = await openMesh(options);
  try {
    return await use(mesh);
  } finally {
    await mesh.close();
  }
}

export const collect = (value: string, all: string[] = []): string[] => [...all, value];

/** `key=value` pairs. */
export function pairs(what: string, list: string[] = []): Record<string, string> {
  return Object.fromEntries(
    list.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new BadInput({ what, why: `${JSON.stringify(pair)} is not key=value` });
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

export function milliseconds(what: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const ms = parseDuration(text);
  if (ms === undefined)
    throw new BadInput({ what, why: `${JSON.stringify(text)} is no duration like 500ms, 30s, 10m, 2h` });
  return ms;
}

export interface CloneFlags extends Common {
  driver?: string;
  minIsolation?: string;
  cpu?: string;
  label?: string[];
  memory?: string;
  fetch?: string[];
  read?: string[];
  write?: string[];
  routing?: string;
  ttl?: string;
  maxLife?: string;
  idle?: string;
  lease?: string;
}

/** The SDK's options from the flags of `hauki clone`. */
export function cloneOptions(flags: CloneFlags): CloneOptions {
  const wanted: Record<string, unknown> = {
    driver: flags.driver,
    min_isolation: flags.minIsolation,
    cpu: flags.cpu === undefined ? undefined : Number(flags.cpu),
    labels: flags.label && pairs('--label', flags.label),
    memory_mib: flags.memory === undefined ? undefined : Number(flags.memory),
    routing: flags.routing,
    ttl_ms: milliseconds('--ttl', flags.ttl),
    max_life_ms: milliseconds('--max-life', flags.maxLife),
    idle_ms: milliseconds('--idle', flags.idle),
    lease_ms: milliseconds('--lease', flags.lease),
    grants: { fetch: flags.fetch ?? [], meshfs: { read: flags.read ?? [], write: flags.write ?? [] } },
  };
  return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined)) as CloneOptions;
}

/** Resolves when somebody asks this command to end. To be called before the command says that it is ready. */
export const askedToEnd = (): Promise<undefined> =>
  Promise.race(['SIGINT', 'SIGTERM', 'SIGHUP'].map((signal) => once(process, signal))).then(() => undefined);
