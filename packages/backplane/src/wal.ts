/**
 * Whether SQLite's log lost something behind a damaged place. SQLite reads a log up to the first frame that does not fit,
 * and takes the rest for what was never committed, in silence; after a kill that is true of a torn last frame only.
 *
 * What always holds: the log is only read. A frame's checksum begins where the one before ended, so what follows a
 * damaged frame can still be told from what an earlier log left there. https://sqlite.org/fileformat2.html, section 4.
 */
import { closeSync, openSync, readSync } from 'node:fs';

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
/** In the log's first word: its checksums are of big-endian words. */
const BIG_ENDIAN = 0x377f0683;

type Sum = readonly [number, number];

function checksum([a, b]: Sum, bytes: Buffer, big: boolean): Sum {
  for (let at = 0; at + 8 <= bytes.length; at += 8) {
    a = (a + (big ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at)) + b) >>> 0;
    b = (b + (big ? bytes.readUInt32BE(at + 4) : bytes.readUInt32LE(at + 4)) + a) >>> 0;
  }
  return [a, b];
}

const pairAt = (bytes: Buffer, at: number): Sum => [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)];
const same = (one: Sum, other: Sum) => one[0] === other[0] && one[1] === other[1];

/** Commits of the log that stand whole behind a damaged place, and so are lost; 0 where there is no log. */
export function lostCommits(file: string, page_bytes: number): number {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw thrown;
  }
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    if (readSync(fd, header, 0, HEADER_BYTES, 0) < HEADER_BYTES) return 0;
    const big = header.readUInt32BE(0) === BIG_ENDIAN;
    let before = pairAt(header, 24);
    let whole = same(checksum([0, 0], header.subarray(0, 24), big), before);
    let salts = whole ? pairAt(header, 16) : undefined;
    let lost = 0;
    const frame = Buffer.alloc(FRAME_HEADER_BYTES + page_bytes);
    for (let at = HEADER_BYTES; readSync(fd, frame, 0, frame.length, at) === frame.length; at += frame.length) {
      salts ??= pairAt(frame, 8);
      const sum = pairAt(frame, 16);
      const expected = checksum(checksum(before, frame.subarray(0, 8), big), frame.subarray(FRAME_HEADER_BYTES), big);
      const fits = same(pairAt(frame, 8), salts) && same(expected, sum);
      const commits = frame.readUInt32BE(4) !== 0;
      if (whole) whole = fits;
      else if (fits && commits) lost += 1;
      before = sum;
    }
    return lost;
  } finally {
    closeSync(fd);
  }
}
