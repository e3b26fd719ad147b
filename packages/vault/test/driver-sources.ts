/** The workers of the driver conformance suite, in each language. */
import type { Language } from '@hauki/protocol';

interface Sources {
  language: Language;
  /** Calls, effects, the end hook. */
  worker: string;
  error: RegExp;
  /** `twice(n)`, in TypeScript where there is a choice. */
  twice: { language: Language; source: string };
  broken: string;
  broken_at: RegExp;
  /** Counts in a global. */
  leak: string;
  spin: string;
  /** `grow()` takes memory without end. */
  bomb: string;
}

export const SOURCES: Record<'javascript' | 'python', Sources> = {
  javascript: {
    language: 'javascript',
    worker: `
  let calls = 0;
  export const add = (a, b) => { calls++; return a + b; };
  export const count = () => calls;
  export const boom = () => { throw new RangeError('no'); };
  export const ask = (url) => fetch(url).then((r) => r.text());
  export const say = (text) => { console.log(text); hauki.log(text); };
  export const read = (pointer) => hauki.meshfs.resolve(pointer).then((d) => d.content);
  export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms, 'waited'));
  export const powers = () => ['require', 'process', 'Deno', 'Bun'].filter((name) => name in globalThis && globalThis[name]);
  export const onEnd = (reason) => hauki.log('ended: ' + reason);`,
    error: /RangeError: no/,
    twice: { language: 'typescript', source: 'export const twice = (n: number): number => 2 * n;' },
    broken: 'export const a = 1;\nexport const b = (;',
    broken_at: /worker\.mjs:2/,
    leak: `globalThis.leaked = (globalThis.leaked ?? 0) + 1; export const seen = () => globalThis.leaked;`,
    spin: 'export const spin = () => { for (;;) {} };',
    bomb: 'export const grow = () => { const all = []; for (;;) all.push(new Array(1e5).fill(all.length)); };',
  },
  python: {
    language: 'python',
    worker: `
import time
calls = 0
def add(a, b):
    global calls
    calls += 1
    return a + b
def count(): return calls
def boom(): raise ValueError('no')
async def ask(url): return (await hauki.fetch(url)).text
def say(text):
    print(text)
    hauki.log(text)
def read(pointer): return hauki.meshfs.resolve(pointer)['content']
def wait(ms):
    time.sleep(ms / 1000)
    return 'waited'
def powers(): return []
def on_end(reason): hauki.log('ended: ' + reason)
`,
    error: /ValueError: no/,
    twice: { language: 'python', source: 'def twice(n: int) -> int: return 2 * n' },
    broken: 'a = 1\nb = (;\n',
    broken_at: /worker\.py:2/,
    leak: `
import builtins
builtins.leaked = getattr(builtins, 'leaked', 0) + 1
def seen(): return leaked
`,
    spin: 'def spin():\n    while True: pass\n',
    bomb: 'def grow():\n    all = []\n    while True: all.append(list(range(100_000)))\n',
  },
};
