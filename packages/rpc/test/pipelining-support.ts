import { reference } from '../src/references.ts';
import type { FrameTransport, Transport } from '../src/transport.ts';
import { settle } from './support.ts';

/** The value, some turns later. */
export const later = <T>(value: T, turns = 3): Promise<T> => settle(turns).then(() => value);

export class File {
  readonly name: string;
  readonly lines: string[] = [];
  constructor(name: string) {
    this.name = name;
  }
  write(line: string) {
    this.lines.push(line);
    return this;
  }
  async slowly(line: string) {
    await settle(5);
    return this.write(line);
  }
  read() {
    return this.lines.join('\n');
  }
  fail() {
    throw new RangeError('no such line');
  }
}

/** What is called. */
export const makeRoot = () => ({
  open: (name = 'a') => new File(name),
  slow: (name = 'a') => later(new File(name)),
  one: () => 1,
  two: () => later(2),
  add: (a: number, b: number) => a + b,
  sum: (of: { list: number[]; map: Map<string, number> }) =>
    [...of.list, ...of.map.values()].reduce((x, y) => x + y, 0),
  nameOf: (file: File) => (file instanceof File ? file.name : typeof file),
  broken: () => {
    throw new RangeError('out of order');
  },
  brokenLater: async () => {
    await settle(2);
    throw new RangeError('out of order');
  },
  config: () => ({ deep: { port: 80, list: [1, 2, 3] }, text: 'four' }),
  tools: () => ({ up: { twice: (n: number) => n * 2 } }),
  when: () => new Date(7),
  self: () => reference({ self: () => reference({ end: () => 'end' }) }),
});

/** Rejections that nobody handled while `body` ran. */
export async function unhandled(body: () => Promise<void>): Promise<unknown[]> {
  const heard: unknown[] = [];
  const hear = (reason: unknown) => void heard.push(reason);
  process.on('unhandledRejection', hear);
  try {
    await body();
    await settle();
  } finally {
    process.off('unhandledRejection', hear);
  }
  return heard;
}

/** Counts how often the direction of messages changes: two for each round trip. */
export function turns(...ends: FrameTransport[]): () => number {
  let last = -1;
  let changes = 0;
  ends.forEach((end, i) => {
    const send = end.send.bind(end);
    (end as Transport).send = (text, bytes) => {
      // What lets go of something is nobody's round trip.
      if (!/"method":"rpc\.(release|forget)"/.test(text) && last !== i) {
        last = i;
        changes++;
      }
      send(text, bytes);
    };
  });
  return () => changes;
}
