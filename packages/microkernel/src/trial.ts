/**
 * Trials: requests that a version must answer as expected before it takes traffic. They are posted with a version and
 * kept for those that come after it.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  BadInput,
  type Body,
  describe,
  type FlatHeaders,
  prefixOf,
  type Trial,
  type TrialResult,
} from '@hauki/protocol';
import type { Instance, PluginRequest } from './instance.ts';
import { KERNEL_LIMITS } from './limits.ts';
import { standsIn } from './search.ts';

/** From a test that was late: whether its vault still does anything else. */
const ALIVE_MS = 2_000;
/** That code went on and on, in the words of the driver or of the kernel. */
const ENDLESS = /ran for more than|overran its turn|did not return|never returns/;
/** Whom a trial asks, unless it names another. */
const HOST = 'staging';
/** Most that is read of an answer's body. */
const BODY_BYTES = 1024 * 1024;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTexts = (value: unknown) => isObject(value) && Object.values(value).every((text) => typeof text === 'string');
const KEYS = ['path', 'method', 'headers', 'body', 'expect'];
const EXPECTED = ['status', 'json', 'text', 'headers'];

/** What is wrong with a trial; one that asked for something else than it says would pass whatever is answered. */
function faultOf(trial: unknown): string | undefined {
  if (!isObject(trial)) return 'it is no object';
  const { path, method, headers, expect } = trial;
  if (typeof path !== 'string' || !path.startsWith('/')) return 'its path must be a text that begins with /';
  if (method !== undefined && !(typeof method === 'string' && /^[a-z]{1,16}$/i.test(method)))
    return 'its method must be a name such as POST';
  if (headers !== undefined && !isTexts(headers)) return 'its headers must be texts by their names';
  const strange = Object.keys(trial).find((key) => !KEYS.includes(key));
  if (strange) return `it has no ${JSON.stringify(strange.slice(0, 40))}; there is ${KEYS.join(', ')}`;
  if (!isObject(expect)) return `its expect must be an object of ${EXPECTED.join(', ')}`;
  const other = Object.keys(expect).find((key) => !EXPECTED.includes(key));
  if (other) return `its expect has no ${JSON.stringify(other.slice(0, 40))}; there is ${EXPECTED.join(', ')}`;
  const { status, text, headers: named } = expect;
  if (status !== undefined && !(Number.isInteger(status) && (status as number) >= 200 && (status as number) <= 599))
    return 'its expect.status must be a number from 200 to 599';
  if (text !== undefined && typeof text !== 'string') return 'its expect.text must be a text';
  if (named !== undefined && !isTexts(named)) return 'its expect.headers must be texts by their names';
  return undefined;
}

/** Checks the shape of posted trials. Throws BadInput. */
export function checkTrials(given: unknown): Trial[] {
  if (given === undefined) return [];
  if (!Array.isArray(given) || given.length > KERNEL_LIMITS.tests)
    throw new BadInput({ what: 'tests', why: `a list of at most ${KERNEL_LIMITS.tests}` });
  for (const [i, trial] of given.entries()) {
    const fault = faultOf(trial);
    if (fault) throw new BadInput({ what: `tests[${i}]`, why: fault });
  }
  return given as Trial[];
}

export const nameOf = ({ method = 'GET', path }: Trial): string => `${method.toUpperCase()} ${path}`;

/** For JSON: the order in which an object's members were written says nothing. */
const inOrder = (_key: string, value: unknown) =>
  isObject(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value;

/**
 * Trials of both, each once: one posted anew takes the place of an earlier one of the same request. Throws BadInput where
 * they are more than are kept.
 */
export function mergeTrials(kept: readonly Trial[], posted: readonly Trial[]): Trial[] {
  const identity = (trial: Trial) => {
    const headers = Object.entries(trial.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
    return JSON.stringify([nameOf(trial), Object.fromEntries(headers), trial.body ?? null], inOrder);
  };
  const merged = [...new Map([...kept, ...posted].map((trial) => [identity(trial), trial])).values()];
  const { kept_tests } = KERNEL_LIMITS;
  if (merged.length > kept_tests)
    throw new BadInput({
      what: 'tests',
      why: `with those kept from earlier versions they are ${merged.length}, and ${kept_tests} are kept; keep_tests: false (--no-keep-tests) lets go of the earlier ones`,
    });
  return merged;
}

async function bodyText(body: Body): Promise<string> {
  if (body === null) return '';
  if (typeof body === 'string') return body;
  if (body instanceof Uint8Array) return Buffer.from(body).toString('utf8');
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > BODY_BYTES) break;
  }
  return Buffer.concat(chunks).toString('utf8');
}

const short = (value: unknown): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text === undefined ? 'nothing' : text.length > 200 ? `${text.slice(0, 200)}…` : text;
};

/** What differs between an answer and what is expected; undefined where nothing does. */
function difference(expect: Trial['expect'], status: number, headers: FlatHeaders, text: string): string | undefined {
  const { status: wanted = 200, json, text: part, headers: named = {} } = expect;
  if (status !== wanted) return `the status is ${status}, not ${wanted}; the body begins ${short(text)}`;
  if (json !== undefined) {
    let got: unknown;
    try {
      got = JSON.parse(text);
    } catch {
      return `the body is no JSON: ${short(text)}`;
    }
    if (!isDeepStrictEqual(got, json)) return `the body is ${short(got)}, not ${short(json)}`;
  }
  if (part !== undefined && !standsIn(text, part))
    return `the body has no ${JSON.stringify(short(part))} in it: ${short(text)}`;
  for (const [name, value] of Object.entries(named)) {
    const at = headers.findIndex((header, i) => i % 2 === 0 && header.toLowerCase() === name.toLowerCase());
    const got = at < 0 ? undefined : headers[at + 1];
    if (got !== value) return `the header ${name} is ${short(got)}, not ${short(value)}`;
  }
  return undefined;
}

/** The request of a trial, as a module hears one in service: with its host, and with the prefix that the kernel gives it. */
export function requestOf(module: string, { method = 'GET', path, headers = {}, body }: Trial): PluginRequest {
  const heard = new Map(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
  const host = heard.get('host') ?? HOST;
  heard.set('host', host).set('x-forwarded-prefix', prefixOf(module));
  const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body);
  if (text !== null && typeof body !== 'string' && !heard.has('content-type'))
    heard.set('content-type', 'application/json');
  return { method: method.toUpperCase(), url: `http://${host}${path}`, headers: [...heard].flat(), body: text };
}

/** Runs one trial; never rejects. */
async function run(instance: Instance, trial: Trial, signal: AbortSignal): Promise<TrialResult> {
  const began = performance.now();
  const result = (why?: string): TrialResult => ({
    trial: nameOf(trial),
    passed: why === undefined,
    ms: Math.round(performance.now() - began),
    ...(why === undefined ? {} : { why }),
  });
  const time = AbortSignal.any([signal, AbortSignal.timeout(KERNEL_LIMITS.test_ms)]);
  const late = new Promise<never>((_, reject) =>
    time.addEventListener('abort', () => reject(new Error(`it did not end within ${KERNEL_LIMITS.test_ms} ms`)), {
      once: true,
    }),
  );
  late.catch(() => {});
  try {
    const asked = instance.fetch({ ...requestOf(instance.spec.module, trial), signal: time });
    const [status, given, answered] = await Promise.race([asked, late]);
    return result(difference(trial.expect, status, given, await Promise.race([bodyText(answered), late])));
  } catch (error) {
    if (instance.open) return result(describe(error));
    const why = await instance.whyGone();
    return result(
      `it did not ${ENDLESS.test(why) ? 'end within its time' : 'answer, because its vault ended'}: ${why}`,
    );
  }
}

/**
 * Runs trials one after the other, until the time for all is over. Those behind one that left nothing to ask are not
 * run, and not in the result.
 */
export async function runTrials(instance: Instance, trials: readonly Trial[]): Promise<TrialResult[]> {
  const all = AbortSignal.timeout(KERNEL_LIMITS.all_tests_ms);
  const results: TrialResult[] = [];
  for (const trial of trials) {
    const one = await run(instance, trial, all);
    results.push(one);
    if (!instance.open) break;
    // None behind it can be told from it.
    if (one.ms >= KERNEL_LIMITS.test_ms && !(await instance.lives(ALIVE_MS))) {
      one.why += ', and answered nothing else since';
      break;
    }
  }
  return results;
}
