/** The filter of system calls, compiled: what the policy says is what the program answers, for any call. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { compilePolicy, parsePolicy, type SeccompArch, syscallNumbers } from '../../src/drivers/process/seccomp.ts';

const POLICY = readFileSync(new URL('../../src/drivers/lxc/seccomp.policy', import.meta.url), 'utf8');
const ARCH_OF = { x64: 0xc000003e, arm64: 0xc00000b7 };
const ALLOW = 0x7fff0000;
const EPERM = 0x00050001;
const KILL = 0x80000000;

interface Call {
  number: number;
  args: bigint[];
}

/** Runs a program as the kernel would. */
function answer(program: Buffer, arch: number, { number, args }: Call): number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(number >>> 0, 0);
  data.writeUInt32LE(arch, 4);
  args.forEach((arg, i) => {
    data.writeBigUInt64LE(arg, 16 + i * 8);
  });
  let held = 0;
  for (let at = 0; ; at++) {
    const code = program.readUInt16LE(at * 8);
    const [yes, no, k] = [program[at * 8 + 2]!, program[at * 8 + 3]!, program.readUInt32LE(at * 8 + 4)];
    if (code === 0x20) held = data.readUInt32LE(k);
    else if (code === 0x54) held = (held & k) >>> 0;
    else if (code === 0x15) at += held === k ? yes : no;
    else if (code === 0x35) at += held >= k ? yes : no;
    else return k;
  }
}

/** What the policy says of a call, read without any program. */
function meant(arch: SeccompArch, { number, args }: Call): number {
  const numbers = syscallNumbers(arch);
  for (const { name, errno, conditions } of parsePolicy(POLICY)) {
    if (numbers.get(name) !== number) continue;
    if (conditions.every(({ argument, mask, value }) => (args[argument]! & mask) === value))
      return errno === 0 ? ALLOW : 0x00050000 | errno;
  }
  return EPERM;
}

const word = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 3n, 4n, 9n, 15n, 0x10000n, 0x10000000n, 0x5412n, 0x5421n, 0x4000n, 0x20000000n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
const call = fc.record({
  number: fc.oneof(fc.integer({ min: 0, max: 460 }), fc.integer({ min: 0, max: 0x3fffffff })),
  args: fc.array(word, { minLength: 6, maxLength: 6 }),
});

suite('the filter of system calls', () => {
  for (const arch of ['x64', 'arm64'] as const)
    test(`answers on ${arch} what the policy says, for any call`, () => {
      const program = compilePolicy(POLICY, arch);
      assert.ok(program.length / 8 < 4096, 'the kernel takes 4096 instructions');
      fc.assert(
        fc.property(call, (made) => {
          assert.equal(answer(program, ARCH_OF[arch], made), meant(arch, made));
        }),
        { numRuns: 2_000 },
      );
      assert.equal(answer(program, 0x40000003, { number: 3, args: [0n, 0n, 0n, 0n, 0n, 0n] }), KILL);
    });

  test('lets nobody in by the other numbers of x64', () => {
    const program = compilePolicy(POLICY, 'x64');
    const read = { number: 0x40000000, args: [0n, 0n, 0n, 0n, 0n, 0n] };
    assert.equal(answer(program, ARCH_OF.x64, read), EPERM);
    assert.equal(answer(program, ARCH_OF.x64, { ...read, number: 0 }), ALLOW);
  });

  test('refuses a policy that it does not understand', () => {
    const head = '2\nallowlist errno 1\n[all]\n';
    for (const [line, why] of [
      ['no_such_call', /no table of system calls/],
      ['read allow [0,1,SCMP_CMP_GT]', /not understood/],
      ['read allow [9,1,SCMP_CMP_EQ]', /not understood/],
      ['read errno', /not understood/],
      ['read trap', /not understood/],
    ] as const)
      assert.throws(() => compilePolicy(head + line, 'x64'), why);
    assert.throws(() => parsePolicy('2\ndenylist\nread'), /must begin with/);
  });
});
