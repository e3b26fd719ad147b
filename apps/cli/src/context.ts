/** What every command has in common: which core, which token, JSON or not. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  BadInput,
  type CloneOptions,
  CPU_SHARE,
  connect,
  type GrantRequest,
  ISOLATION_LEVELS,
  isError,
  LEASE,
  LIMITS,
  type Mesh,
  type Routing,
  type SecretRequests,
  Unauthorised,
} from '@hauki/mesh';
import { adminTokenFile, defaultDataDir, isThisMachine } from '@hauki/mesh/data-dir';
import type { Command } from 'commander';
import { parseDuration } from './output.ts';

export interface Common {
  core?: string;
  data?: string;
  json?: boolean;
}

export const DEFAULT_CORE = 'http://127.0.0.1:8000';

/** Options before and after the verb count alike. */
export function common(command: Command): Common {
  const { data, ...others } = command.optsWithGlobals<Common>();
  return data === undefined ? others : { ...others, data: resolve(data) };
}

/** `--data` as a further command needs it, where this one was given it. */
export const dataFlag = (command: Command): string => {
  const { data } = common(command);
  if (data === undefined) return '';
  return ` --data ${/^[\w./-]+$/.test(data) ? data : `'${data.replaceAll("'", "'\\''")}'`}`;
};

/** The core that the command line means. Throws BadInput for what is no URL of one. */
export function coreUrl({ core }: Pick<Common, 'core'>): string {
  const url = core ?? process.env.HAUKI_URL ?? DEFAULT_CORE;
  if (/^https?:\/\//i.test(url) && URL.canParse(url)) return url;
  throw new BadInput({
    what: core === undefined ? 'HAUKI_URL' : '--core',
    why: `${JSON.stringify(url)} is no URL such as ${DEFAULT_CORE}`,
  });
}

/** A whole number from a flag, as people write one: no sign, no point, no exponent. Throws BadInput. */
export function whole(what: string, given: string, least = 0, most: number = Number.MAX_SAFE_INTEGER): number {
  const number = /^\d{1,16}$/.test(given) ? Number(given) : Number.NaN;
  if (number >= least && number <= most) return number;
  const bounds = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
  throw new BadInput({ what, why: `${JSON.stringify(given)} is no whole number ${bounds}` });
}

/** A number from a flag, as in 0.5. Throws BadInput. */
export function decimal(what: string, given: string, least: number, most: number): number {
  const number = /^\d{1,9}(\.\d{1,9})?$/.test(given) ? Number(given) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw new BadInput({ what, why: `${JSON.stringify(given)} is no number from ${least} to ${most}` });
}

/** One of a few words, from a flag. Throws BadInput. */
export function oneOf<T extends string>(what: string, given: string, words: readonly T[]): T {
  const found = words.find((word) => word === given);
  if (found !== undefined) return found;
  throw new BadInput({ what, why: `${JSON.stringify(given)} is none of ${words.join(', ')}` });
}

/** What a flag says, where it is given. */
export const given = <T>(text: string | undefined, read: (text: string) => T): T | undefined =>
  text === undefined ? undefined : read(text);

/**
 * Refuses to send a token that was found in a file to another machine: `--data` names a folder, and whoever listens there
 * could use the token here. `instead`: what to do. Throws Unauthorised.
 */
export function checkOwnMachine(url: string, instead = 'set HAUKI_TOKEN to a token that is known there'): void {
  if (!isThisMachine(url))
    throw new Unauthorised({
      why: `${URL.parse(url)?.hostname} is no loopback address, and the token of a data folder is sent to no other: ${instead}`,
    });
}

/** The token for a core: HAUKI_TOKEN, else the file that the core made in its data folder. */
export function findToken(data_dir: string = defaultDataDir(), core?: string): string {
  if (process.env.HAUKI_TOKEN) return process.env.HAUKI_TOKEN;
  if (core !== undefined) checkOwnMachine(core);
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

/** Connects as the command line says. Rejects with ConnectionLost where no core answers, whether or not there is a token for it. */
export async function openMesh({ core, data = defaultDataDir() }: Common): Promise<Mesh> {
  const url = coreUrl({ core });
  let token: string;
  try {
    token = findToken(data, url);
  } catch (error) {
    // Where no core was ever started, there is neither. Asked for its health alone, a core looks at no token.
    if (isError(error, BadInput) && !existsSync(adminTokenFile(data)))
      await (await connect({ core: url, token: 'none' })).close();
    throw error;
  }
  return connect({ core: url, token });
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

/** Drivers by their names, as they are asked for. */
export const DRIVERS = ['lxc', 'quickjs', 'process'] as const;

export const HOST_NAME =
  'a name besides loopback’s that it answers for, as a proxy before it passes on; may be repeated';

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

/** A duration from a flag, of at least so many milliseconds. Throws BadInput. */
export function milliseconds(what: string, text: string | undefined, least = 0): number | undefined {
  if (text === undefined) return undefined;
  const ms = parseDuration(text);
  if (ms === undefined)
    throw new BadInput({ what, why: `${JSON.stringify(text)} is no duration like 500ms, 30s, 10m, 2h` });
  if (ms < least) throw new BadInput({ what, why: `${JSON.stringify(text)} is less than ${least} ms` });
  return ms;
}

/** Which way to the worker, from `--routing`. Throws BadInput. */
export const routingOf = (text: string): Routing =>
  oneOf('--routing', text, ['p2p_preferred', 'p2p_only', 'relay_only']);

/** What a command line names: a pointer, or a file, which is bundled. */
export function originOf(what: string): string | { file: string } {
  if (what.startsWith('gem-pointer://')) return what;
  if (!existsSync(what))
    throw new BadInput({ what, why: 'there is no such file; a pointer begins with gem-pointer://' });
  return { file: what };
}

/** Integers that a number would round are bigints. */
const exact = (_key: string, value: unknown, { source = '' }: { source?: string }) =>
  typeof value === 'number' && /^-?\d+$/.test(source) && !Number.isSafeInteger(value) ? BigInt(source) : value;

/** An argument of a call: JSON where it is JSON, else text. */
export function argument(text: string): unknown {
  try {
    return JSON.parse(text, exact as (key: string, value: unknown) => unknown);
  } catch {
    return text;
  }
}

export interface CloneFlags extends Common {
  driver?: string;
  minIsolation?: string;
  cpu?: string;
  turn?: string;
  label?: string[];
  memory?: string;
  fetch?: string[];
  connect?: string[];
  read?: string[];
  write?: string[];
  volume?: string;
  clone?: string;
  secret?: string[];
  time?: boolean;
  random?: boolean;
  routing?: string;
  ttl?: string;
  maxLife?: string;
  idle?: string;
  lease?: string;
}

/** The flags that say what a worker gets and may do, the same for all that make one. */
export const withModuleFlags = (command: Command): Command =>
  command
    .option('--driver <name>', 'lxc, quickjs or process; default: the strongest that a node offers')
    .option('--min-isolation <level>', `no vault weaker than this: ${ISOLATION_LEVELS.join(', ')}`)
    .option('--cpu <share>', 'share of a core, from 0.05 to 1; in a quickjs vault from 0.1')
    .option('--turn <time>', 'what one turn of its code may compute, 10ms to 10s; with --driver quickjs')
    .option('--label <key=value>', 'the node must carry this; may be repeated', collect)
    .option('--memory <MiB>', 'memory of the vault')
    .option('--fetch <[METHODS@]host:port[/n]>', 'grant: may fetch from there, n times a minute; repeatable', collect)
    .option('--connect <host:port>', 'grant: may open byte streams to there; may be repeated', collect)
    .option('--read <prefix>', 'grant: may read pointers below this; may be repeated', collect)
    .option('--write <prefix>', 'grant: may write pointers below this; may be repeated', collect)
    .option('--volume <name[=MiB]>', 'grant: a private folder that lasts')
    .option('--clone <live[/total[/MiB]]>', 'grant: may clone workers, so many at once, ever, of so much memory')
    .option(
      '--secret <NAME@host:port=from>',
      'a secret that only requests to there carry; from: env:VARIABLE or @file; repeatable',
      collect,
    )
    .option('--time', 'grant: may read the clock')
    .option('--random', 'grant: may draw random numbers');

/** A `fetch` grant from `[METHODS@]host:port[/n]`. Throws BadInput. */
export function fetchGrant(text: string): NonNullable<GrantRequest['fetch']>[number] {
  const [, methods, to = text, per_minute] = /^(?:([A-Za-z,]+)@)?([^@/]+)(?:\/(\d+))?$/.exec(text) ?? [];
  if (methods === undefined && per_minute === undefined) return to;
  return {
    to,
    ...(methods === undefined ? {} : { methods: methods.split(',').filter((method) => method !== '') }),
    ...(per_minute === undefined ? {} : { per_minute: whole('--fetch', per_minute, 0, LIMITS.fetches_per_minute) }),
  };
}

/** A `volume` grant from `name[=MiB]`. Throws BadInput. */
export function volumeGrant(text: string): GrantRequest['volume'] {
  const [name = '', quota_mib, ...more] = text.split('=');
  if (name === '' || more.length > 0)
    throw new BadInput({ what: '--volume', why: `${JSON.stringify(text)} is not name or name=MiB, as in notes=32` });
  return quota_mib === undefined ? name : { name, quota_mib: whole('--volume', quota_mib, 1, LIMITS.volume_mib) };
}

function quotaOfClones(text: string): GrantRequest['clone'] {
  const parts = text.split('/');
  if (parts.length > 3)
    throw new BadInput({ what: '--clone', why: `${JSON.stringify(text)} is not live[/total[/MiB]], as in 3/20/256` });
  const [live = 0, total, memory_mib] = parts.map((part) => whole('--clone', part));
  return {
    live,
    ...(total === undefined ? {} : { total }),
    ...(memory_mib === undefined ? {} : { memory_mib }),
  };
}

/** `NAME@host:port[,host:port]=from`: the value itself never stands on a command line, where others see it. */
function secrets(flags: string[]): SecretRequests {
  return Object.fromEntries(
    flags.map((flag) => {
      const [, name, to, from] = /^([^@=]+)@([^@=]+)=(.+)$/s.exec(flag) ?? [];
      const wrong = (why: string) =>
        new BadInput({
          what: `--secret ${name ?? '(not shown)'}`,
          why: `${why}; it is NAME@host:port=env:VARIABLE or =@file`,
        });
      if (name === undefined || to === undefined || from === undefined) throw wrong('that is not understood');
      const named = from.startsWith('env:') ? process.env[from.slice(4)] : undefined;
      if (from.startsWith('env:') && named === undefined) throw wrong(`there is no variable ${from.slice(4)}`);
      if (!from.startsWith('env:') && !from.startsWith('@')) throw wrong('a value does not stand on a command line');
      let value = named;
      try {
        value ??= readFileSync(from.slice(1), 'utf8').replace(/\r?\n$/, '');
      } catch (error) {
        throw wrong(`${from.slice(1)} cannot be read (${(error as NodeJS.ErrnoException).code})`);
      }
      return [name, { value, to: to.split(',') }];
    }),
  );
}

/** The SDK's options from the flags of `hauki clone`. */
export function cloneOptions(flags: CloneFlags): CloneOptions {
  const wanted: Record<string, unknown> = {
    driver: given(flags.driver, (text) => oneOf('--driver', text, DRIVERS)),
    min_isolation: given(flags.minIsolation, (text) => oneOf('--min-isolation', text, ISOLATION_LEVELS)),
    cpu: given(flags.cpu, (text) => decimal('--cpu', text, CPU_SHARE.least, CPU_SHARE.most)),
    turn_ms: milliseconds('--turn', flags.turn),
    labels: flags.label && pairs('--label', flags.label),
    memory_mib: given(flags.memory, (text) => whole('--memory', text, 1)),
    routing: given(flags.routing, routingOf),
    ttl_ms: milliseconds('--ttl', flags.ttl, LEASE.min_ms),
    max_life_ms: milliseconds('--max-life', flags.maxLife, LEASE.min_ms),
    idle_ms: milliseconds('--idle', flags.idle, LEASE.min_ms),
    lease_ms: milliseconds('--lease', flags.lease),
    grants: {
      fetch: flags.fetch?.map(fetchGrant) ?? [],
      connect: flags.connect ?? [],
      meshfs: { read: flags.read ?? [], write: flags.write ?? [] },
      volume: flags.volume === undefined ? null : volumeGrant(flags.volume),
      clone: flags.clone === undefined ? null : quotaOfClones(flags.clone),
      time: flags.time ?? false,
      random: flags.random ?? false,
    } satisfies GrantRequest,
    secrets: flags.secret && secrets(flags.secret),
  };
  return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined)) as CloneOptions;
}

/** Resolves when somebody asks this command to end. To be called before the command says that it is ready. */
export const askedToEnd = (): Promise<undefined> =>
  Promise.race(['SIGINT', 'SIGTERM', 'SIGHUP'].map((signal) => once(process, signal))).then(() => undefined);

/** Starts what can be broken off. Undefined where somebody asks this command to end (`asked`) before it has started. */
export async function unlessAsked<T>(
  asked: Promise<undefined>,
  start: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const end = new AbortController();
  void asked.then(() => end.abort());
  try {
    return await start(end.signal);
  } catch (error) {
    if (end.signal.aborted) return undefined;
    throw error;
  }
}
