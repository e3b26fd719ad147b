/**
 * Compiles the allowlist of system calls (`../lxc/seccomp.policy`, LXC's text format) into the BPF program that
 * bubblewrap loads. One policy for both drivers; LXC compiles it by libseccomp, this one needs nothing but the numbers
 * in `syscalls.txt`. Pure: text in, bytes out.
 *
 * Whatever is not understood is an error, never a call that is let through: an unknown name, operator or action.
 */
import { readFileSync } from 'node:fs';

export type SeccompArch = 'x64' | 'arm64';

interface Condition {
  argument: number;
  mask: bigint;
  value: bigint;
}

export interface Rule {
  name: string;
  /** 0: allowed; otherwise the errno it answers. */
  errno: number;
  /** All must hold. None: always. */
  conditions: Condition[];
}

const NUMBERS_FILE = new URL('./syscalls.txt', import.meta.url);
const AUDIT_ARCH: Record<SeccompArch, number> = { x64: 0xc000003e, arm64: 0xc00000b7 };
/** On x64 the numbers from here on are the x32 calls: the same calls under other numbers. */
const X32 = 0x40000000;
const EPERM = 1;
const ALL = 0xffffffffffffffffn;

// Instructions, and places in the kernel's `struct seccomp_data`.
const LOAD = 0x20;
const AND = 0x54;
const EQUAL = 0x15;
const AT_LEAST = 0x35;
const RETURN = 0x06;
const NUMBER_AT = 0;
const ARCH_AT = 4;
const ARGUMENTS_AT = 16;
const KILL_PROCESS = 0x80000000;
const ERRNO = 0x00050000;
const ALLOW = 0x7fff0000;

/** Reads LXC's version 2 policy text: `NAME`, `NAME allow [argument,value,operator(,mask)]…`, `NAME errno N`. */
export function parsePolicy(text: string): Rule[] {
  const lines = text.split('\n').map((line) => line.replace(/#.*/, '').trim());
  const [version, kind, section, ...rest] = lines.filter(Boolean);
  if (version !== '2' || kind !== 'allowlist errno 1' || section !== '[all]')
    throw new Error('the policy must begin with: 2, allowlist errno 1, [all]');
  return rest.map((line) => {
    const [, name = '', action = 'allow', errno, conditions = ''] =
      /^(\w+)(?:\s+(allow|errno)(?:\s+(\d+))?)?((?:\s*\[[^\]]*\])*)$/.exec(line) ?? [];
    if (!name || (action === 'errno') !== (errno !== undefined))
      throw new Error(`not understood in the policy: ${line}`);
    return {
      name,
      errno: Number(errno ?? 0),
      conditions: [...conditions.matchAll(/\[([^\]]*)\]/g)].map(([, inner]) => condition(inner!, line)),
    };
  });
}

function condition(inner: string, line: string): Condition {
  const [argument, value, operator, mask] = inner.split(',').map((part) => part.trim());
  const masked = operator === 'SCMP_CMP_MASKED_EQ';
  if (!/^[0-5]$/.test(argument ?? '') || (!masked && operator !== 'SCMP_CMP_EQ') || masked !== (mask !== undefined))
    throw new Error(`not understood in the policy: ${line}`);
  return { argument: Number(argument), value: BigInt(value!), mask: masked ? BigInt(mask!) : ALL };
}

/** Numbers of the calls of an architecture; names that only others have map to `undefined`. */
export function syscallNumbers(arch: SeccompArch): Map<string, number | undefined> {
  const column = arch === 'x64' ? 1 : 2;
  const rows = readFileSync(NUMBERS_FILE, 'utf8')
    .split('\n')
    .filter((line) => line && !line.startsWith('#'));
  return new Map(
    rows.map((row) => {
      const fields = row.split(' ');
      const number = fields[column]!;
      return [fields[0]!, number === '-' ? undefined : Number(number)];
    }),
  );
}

/** The program, in the byte order of these machines: `struct sock_filter[]`. */
export function compilePolicy(text: string, arch: SeccompArch): Buffer {
  const numbers = syscallNumbers(arch);
  const groups = new Map<number, Rule[]>();
  for (const rule of parsePolicy(text)) {
    if (!numbers.has(rule.name)) throw new Error(`the policy names ${rule.name}, which is in no table of system calls`);
    const number = numbers.get(rule.name);
    if (number === undefined) continue;
    const group = groups.get(number);
    if (group) group.push(rule);
    else groups.set(number, [rule]);
  }
  const program: number[][] = [];
  const put = (code: number, value: number, yes = 0, no = 0) => program.push([code, yes, no, value]);
  put(LOAD, ARCH_AT);
  put(EQUAL, AUDIT_ARCH[arch], 1, 0);
  put(RETURN, KILL_PROCESS);
  put(LOAD, NUMBER_AT);
  if (arch === 'x64') {
    put(AT_LEAST, X32, 0, 1);
    put(RETURN, ERRNO | EPERM);
  }
  for (const [number, rules] of groups) {
    const body = rules.flatMap(check);
    body.push([RETURN, 0, 0, ERRNO | EPERM]);
    if (body.length > 255) throw new Error(`too many rules for ${rules[0]!.name}`);
    put(EQUAL, number, 0, body.length);
    program.push(...body);
  }
  put(RETURN, ERRNO | EPERM);
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, yes, no, value], i) => {
    bytes.writeUInt16LE(code!, i * 8);
    bytes.writeUInt8(yes!, i * 8 + 2);
    bytes.writeUInt8(no!, i * 8 + 3);
    bytes.writeUInt32LE(value! >>> 0, i * 8 + 4);
  });
  return bytes;
}

/** Instructions that return the rule's action when all of its conditions hold, and else fall through. */
function check(rule: Rule): number[][] {
  const answer = [RETURN, 0, 0, rule.errno === 0 ? ALLOW : ERRNO | rule.errno];
  const halves = rule.conditions.flatMap(({ argument, mask, value }) =>
    [0, 1].map((half) => {
      const shift = BigInt(half * 32);
      return {
        at: ARGUMENTS_AT + argument * 8 + half * 4,
        mask: Number((mask >> shift) & 0xffffffffn),
        value: Number((value >> shift) & 0xffffffffn),
      };
    }),
  );
  const steps = halves.filter((half) => half.mask !== 0);
  const after = steps.map((_, i) => steps.slice(i + 1).length * 3 + 1);
  return [
    ...steps.flatMap(({ at, mask, value }, i) => [
      [LOAD, 0, 0, at],
      [AND, 0, 0, mask],
      [EQUAL, 0, after[i]!, value],
    ]),
    answer,
  ];
}
