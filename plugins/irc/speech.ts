/** What a kernel says when it is asked, and nothing else: whoever asks, nothing changes. */
import type { KernelSummary } from '@hauki/microkernel';

/** One line of IRC has room for so much, with all that stands before it. */
const LINE_CHARS = 380;
/** Lines of one answer. */
const LINES = 3;

const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
const since = (s: number) =>
  s < 120 ? `${s} s` : s < 7_200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3_600)} h`;

export function summary({ kernel, up_s, modules }: KernelSummary): string {
  const each = modules.map(
    ({ module, version, state, requests }) =>
      `${module} v${version ?? 0} ${state.replace('_', ' ')} (${plural(requests, 'request')})`,
  );
  const text = `[${kernel}] up ${since(up_s)}, ${plural(modules.length, 'module')}${each.length > 0 ? ': ' : ''}${each.join(', ')}`;
  return text.length > LINE_CHARS ? `${text.slice(0, LINE_CHARS - 1)}…` : text;
}

export function routeLines({ kernel, modules }: KernelSummary): string[] {
  const begin = `[${kernel}]`;
  const lines: string[] = [];
  for (const [i, { prefix }] of modules.entries()) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + prefix.length < LINE_CHARS) lines.push(`${lines.pop()} ${prefix}`);
    else if (lines.length < LINES) lines.push(`${begin} ${prefix}`);
    else return [...lines.slice(0, -1), `${last} and ${modules.length - i} more`];
  }
  return lines.length > 0 ? lines : [`${begin} no routes yet`];
}

/**
 * The answer to a line, or none: `!status` and `!routes`, to all kernels or to the one that is named, by its name or its
 * number.
 */
export async function answerTo(text: string, kernel: string, ask: () => Promise<KernelSummary>): Promise<string[]> {
  const [, what, whom] = /^!(status|routes)(?:\s+(\S{1,40}))?\s*$/i.exec(text) ?? [];
  if (what === undefined) return [];
  const named = whom?.toLowerCase();
  const name = kernel.toLowerCase();
  if (named !== undefined && named !== name && named !== name.replace(/^microkernel-/, '')) return [];
  const now = await ask();
  return what.toLowerCase() === 'status' ? [summary(now)] : routeLines(now);
}
