/**
 * Evolve: from posted source to a version that serves, stage by stage. Each stage may refuse; then nothing has changed,
 * and the answer says which stage, why, at which line, and what the module logged.
 */
import type { MeshFs } from '@hauki/meshfs';
import {
  BadInput,
  describe,
  EvolveRejected,
  type EvolveRequest,
  type Grants,
  isError,
  type Language,
  LIMITS,
  MeshError,
  type Report,
  SourceRejected,
  type Trial,
  WORKER_LANGUAGES,
} from '@hauki/protocol';
import { dehydrate } from './handover.ts';
import { type Instance, type InstanceSpec, lineOf } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import type { PluginHost } from './plugin-host.ts';
import type { Store } from './store.ts';
import { checkBaseOfWhole, digestOf, operate } from './surgeon.ts';
import { runTrials } from './trial.ts';

export interface Staged {
  /** Untouched by any request. */
  instance: Instance;
  report: Report;
}

const HOOKS = 'dehydrate() and hydrate(state, from_version) go together: a module has both as functions, or neither';

const KEPT = ' (kept from an earlier version)';
const LET_GO =
  '. A test that is posted for the same request takes the place of a kept one; keep_tests: false (--no-keep-tests) lets go of all that were kept';

/** Throws EvolveRejected, stage `size`, or `parse` for what is no text. */
export function checkSource(source: unknown, module: string): string {
  const bytes = typeof source === 'string' && source.trim() !== '' ? Buffer.byteLength(source) : 0;
  if (bytes > 0 && !(source as string).isWellFormed())
    throw new EvolveRejected({ module, stage: 'parse', why: 'it holds half of a surrogate pair, which no text has' });
  if (bytes > 0 && bytes <= LIMITS.source_bytes) return source as string;
  const why = bytes === 0 ? 'it is empty' : `it has ${bytes} bytes, and may have ${LIMITS.source_bytes}`;
  throw new EvolveRejected({ module, stage: 'size', why });
}

/** The source that is asked for, and its language where that is known. `running`: of the version that serves. */
export async function sourceOf(
  store: Store,
  meshfs: MeshFs,
  name: string,
  { content, pointer, edits, base_digest: digest }: EvolveRequest,
  running: string | undefined,
): Promise<{ source: string; language?: Language | undefined }> {
  if ([content, pointer, edits].filter((one) => one !== undefined).length !== 1)
    throw new BadInput({ what: 'the request', why: 'give one of content, pointer and edits' });
  // Only one that does not run is looked for.
  const stale = running !== undefined && digest !== undefined && digest !== digestOf(running);
  const base = stale ? await store.base(name, digest) : undefined;
  if (edits !== undefined) return { source: operate(running, digest, edits, base) };
  if (digest !== undefined) checkBaseOfWhole(running, digest, base);
  if (content !== undefined) return { source: content };
  const kept = await meshfs.resolve(pointer!);
  return { source: kept.content, language: WORKER_LANGUAGES.find((one) => one === kept.language) };
}

/** Of Python's a third is the module's own (guest/python/guest.py): its framework's import takes seconds on a busy machine. */
const loadTime = (language: Language) => (language === 'python' ? 3 : 1) * LIMITS.load_ms;

export interface StageOptions {
  module: string;
  version: number;
  digest: string;
  source: string;
  language: Language;
  driver: string;
  memory_mib: number;
  grants: Grants;
  trials: readonly Trial[];
  /** Those of them that were kept from earlier versions. */
  kept: ReadonlySet<Trial>;
  /** For a dry run the instance that would serve is not made. */
  dry: boolean;
}

/**
 * Brings a version through staging: it must start, load, bind, name its routes, pass the trials, and give the state that it
 * has after them. Gives an instance
 * that has served nothing. Rejects with EvolveRejected; then nothing of it is left.
 */
export async function stage(host: PluginHost, options: StageOptions): Promise<Staged> {
  const { module, trials, kept, dry, ...rest } = options;
  const stages: Report['stages'] = [];
  const spec: InstanceSpec = { module, ...rest, load_timeout_ms: loadTime(rest.language) };
  const tried = dry || trials.length > 0;
  let now = tried && spec.grants.volume !== null ? 'copy' : 'start';
  let began = performance.now();
  const next = (stage: string) => {
    const at = performance.now();
    stages.push({ stage: now, ms: Math.round((at - began) * 10) / 10 });
    [now, began] = [stage, at];
  };
  const started: Instance[] = [];
  let copied = false;
  try {
    copied = tried && (await host.copyHome(spec));
    if (copied) next('start');
    now = 'start';
    const first = await host.start(spec, copied);
    started.push(first);
    next('routes');
    const { routes, state } = first.description;
    // With one of them a state would be lost in silence.
    if (state === 'half') throw new SourceRejected({ stage: 'exports', reason: HOOKS, log_tail: '' });
    if (routes.length === 0) throw new Error('it has no routes');
    if (trials.length === 0) {
      next('');
      return { instance: first, report: { stages, routes, tests: [], log: first.log_tail() } };
    }
    next('tests');
    // The one that the trials are run on has a past; the one that will serve has none. On the module's own home, where
    // there is a copy, nothing of a version is loaded before it has passed.
    const serving = dry ? first : copied ? undefined : host.start(spec);
    const [tests, [other]] = await Promise.all([runTrials(first, trials), Promise.allSettled([serving])]);
    if (other.status === 'fulfilled' && other.value && other.value !== first) started.push(other.value);
    const failed = tests.flatMap((test, i) => (test.passed ? [] : [{ ...test, was_kept: kept.has(trials[i]!) }]));
    if (failed.length > 0) {
      const all = failed.map(({ trial, why, was_kept }) => `${trial}${was_kept ? KEPT : ''}: ${why}`).join('; ');
      throw new Error(`${all.slice(0, 2_000)}${failed.some(({ was_kept }) => was_kept) ? LET_GO : ''}`);
    }
    if (other.status === 'rejected') throw other.reason;
    if (first.has_state) {
      // Better now than when it is to be left.
      next('state');
      await dehydrate(first, KERNEL_LIMITS.state_ms);
    }
    let second = other.value;
    if (!second) {
      next('home');
      second = await host.start(spec);
      started.push(second);
    }
    next('');
    const report = { stages, routes, tests, log: first.log_tail() };
    if (second !== first) await first.end('its tests are over');
    return { instance: second, report };
  } catch (error) {
    const log = started
      .map((instance) => instance.log_tail())
      .filter(Boolean)
      .join('\n');
    await Promise.all(started.map((instance) => instance.end('it was rejected')));
    if (copied) await host.dropCopy(spec);
    throw rejection(module, now, error, log);
  }
}

/** Stages at which a vault is made. */
const STARTS = ['copy', 'start', 'home'];

/** What went wrong at a stage, as its sender is told. */
export function rejection(module: string, stage: string, error: unknown, log = ''): Error {
  const rejected = isError(error, SourceRejected);
  // Not the module's fault: full, shutting down, no such driver.
  if (error instanceof MeshError && !rejected && STARTS.includes(stage)) return error;
  const fields = (error as { fields?: { stage?: string; log_tail?: string; reason?: string } }).fields ?? {};
  /** A guest may have shaped it. */
  const text = (value: unknown) => (typeof value === 'string' ? value : 'it did not say');
  const line = lineOf(error);
  const said = [fields.log_tail, log]
    .filter((one) => typeof one === 'string' && one !== '')
    .join('\n')
    .slice(-KERNEL_LIMITS.report_log_chars);
  return new EvolveRejected({
    module,
    stage: rejected ? text(fields.stage) : stage,
    why: rejected ? text(fields.reason) : describe(error),
    ...(line === undefined ? {} : { line }),
    ...(said === '' ? {} : { log: said }),
  });
}
