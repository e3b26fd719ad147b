/** What the commands of a kernel share: where it is, and how a change of it is shown. */
import { readFileSync } from 'node:fs';
import { BadInput, connectKernel, type Evolved, type KernelDoor } from '@hauki/mesh';
import { defaultDataDir, isThisMachine, kernelDataDir, kernelTokenFile } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import { type Common, coreUrl, withMesh } from './context.ts';
import { duration, paint, printable } from './output.ts';

export interface KernelFlags extends Common {
  to?: string;
  id?: string;
}

const DEFAULT_URL = 'http://127.0.0.1:8881';

/** Whether this is a kernel of the mesh, as it is called there; anything else is a URL. */
export const isKernelName = (to: string | undefined): boolean => /^(?:Microkernel-)?[a-z0-9-]{1,16}$/.test(to ?? '');

export const withKernel = (command: Command) =>
  command
    .option('--to <kernel>', `its URL, or its name in the mesh; default: HAUKI_KERNEL, else ${DEFAULT_URL}`)
    .option('--id <id>', 'its number, to find its token in the data folder', '77');

/**
 * Runs `use` with the kernel that the command line says: by its URL, or by the core of the mesh, where it is named. Its
 * token: HAUKI_KERNEL_TOKEN, else its file, for a kernel of this machine alone; an open kernel needs none.
 */
export async function useKernel<T>(flags: KernelFlags, use: (kernel: KernelDoor) => Promise<T>): Promise<T> {
  const { to } = flags;
  if (!isKernelName(to)) return use(openKernel(flags));
  return withMesh(flags, (mesh) => use({ url: coreUrl(flags), ...mesh.kernels.door(to!) }));
}

/** The same by its URL alone. */
export function openKernel({ to, id = '77', data = defaultDataDir() }: KernelFlags): KernelDoor {
  const url = to ?? process.env.HAUKI_KERNEL ?? DEFAULT_URL;
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new BadInput({
      what: to ? '--to' : 'HAUKI_KERNEL',
      why: `${JSON.stringify(url)} is no URL such as ${DEFAULT_URL}, nor a name such as Microkernel-77`,
    });
  const token = process.env.HAUKI_KERNEL_TOKEN ?? (isThisMachine(url) ? tokenIn(data, id) : undefined);
  return connectKernel({ url, ...(token ? { token } : {}) });
}

/** What a kernel of this data folder asks for; undefined where there is none, or it is open. */
function tokenIn(data: string, id: string): string | undefined {
  try {
    return readFileSync(kernelTokenFile(kernelDataDir(data, id)), 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** What is held in by nothing of its own is said to be. */
export function warnOf({ level, isolation }: Evolved['vault']): void {
  if (level === 'none') console.log(`  vault   ${isolation}`);
}

export function show(evolved: Evolved, took_ms: number, url: string): void {
  const { module, version, digest, prefix, alias, routes, report: said, dry_run, weight, diff } = evolved;
  const what = dry_run ? `would be version ${version}` : `serves as version ${version}`;
  console.log(`${paint('bold', module)} ${paint('green', what)} (${duration(took_ms)}), ${digest.slice(0, 12)}`);
  console.log(`  at      ${url}${prefix}${alias ? ` and ${url}${alias}` : ''}`);
  console.log(`  routes  ${printable(routes.join(', '))}`);
  console.log(`  stages  ${said.stages.map(({ stage, ms }) => `${stage} ${duration(ms)}`).join(', ')}`);
  if (weight !== undefined)
    console.log(
      `  share   ${weight} % of requests${weight === 0 ? `: with the header x-hauki-version: ${version}` : ''}`,
    );
  warnOf(evolved.vault);
  if (said.tests.length > 0) console.log(`  tests   ${said.tests.length} passed`);
  if (diff) console.log(printable(diff));
}
