/**
 * Which addresses are the public internet's, and which somebody's own: this machine, its network, its cloud. Pure.
 *
 * What always holds: an address that is not known to be public is not. IPv6 is judged by what is global unicast, not by a
 * list of exceptions; an IPv4 address inside an IPv6 one is judged as itself.
 */
import { isIPv4, isIPv6 } from 'node:net';

type Range = readonly [first: string, bits: number, name: string];

/** https://www.iana.org/assignments/iana-ipv4-special-registry, with what is reserved beyond it. */
const IPV4: readonly Range[] = [
  ['0.0.0.0', 8, 'this network'],
  ['10.0.0.0', 8, 'private'],
  ['100.64.0.0', 10, 'carrier-grade NAT'],
  ['127.0.0.0', 8, 'loopback'],
  // Also the metadata service of most clouds, 169.254.169.254.
  ['169.254.0.0', 16, 'link-local'],
  ['172.16.0.0', 12, 'private'],
  ['192.0.0.0', 24, 'protocol assignments'],
  ['192.0.2.0', 24, 'documentation'],
  ['192.88.99.0', 24, '6to4 relays'],
  ['192.168.0.0', 16, 'private'],
  ['198.18.0.0', 15, 'benchmarking'],
  ['198.51.100.0', 24, 'documentation'],
  ['203.0.113.0', 24, 'documentation'],
  // Azure's host, which answers for metadata and DNS at an address that looks public.
  ['168.63.129.16', 32, 'cloud metadata'],
  ['224.0.0.0', 4, 'multicast'],
  ['240.0.0.0', 4, 'reserved'],
];

/** Outside 2000::/3 nothing is public; fd00:ec2::254, a metadata service, is among the unique local ones. */
const IPV6: readonly Range[] = [
  ['::', 128, 'unspecified'],
  ['::1', 128, 'loopback'],
  ['fc00::', 7, 'unique local'],
  ['fe80::', 10, 'link-local'],
  ['fec0::', 10, 'site-local'],
  ['ff00::', 8, 'multicast'],
  ['2001::', 23, 'protocol assignments'],
  ['2001:db8::', 32, 'documentation'],
  ['2002::', 16, '6to4'],
  ['3fff::', 20, 'documentation'],
];
const GLOBAL: Range = ['2000::', 3, 'global unicast'];
/** Those with an IPv4 address in their last four bytes that is where they lead: mapped, and translated (RFC 6052). */
const EMBEDDING: readonly Range[] = [
  ['::ffff:0:0', 96, 'mapped'],
  ['64:ff9b::', 96, 'translated'],
];

function bytesOf(address: string): Uint8Array {
  if (isIPv4(address)) return Uint8Array.from(address.split('.').map(Number));
  // As a URL has it: in hexadecimal throughout.
  const hex = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = '', tail] = hex.split('::');
  const groups = (text: string | undefined) => (text ? text.split(':').map((group) => Number.parseInt(group, 16)) : []);
  const [left, right] = [groups(head), groups(tail)];
  const all = tail === undefined ? left : [...left, ...Array(8 - left.length - right.length).fill(0), ...right];
  return Uint8Array.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

function within(bytes: Uint8Array, [first, bits]: Range): boolean {
  const start = bytesOf(first);
  for (let bit = 0; bit < bits; bit += 8) {
    const mask = bits - bit >= 8 ? 0xff : 0xff & (0xff << (8 - (bits - bit)));
    if (((bytes[bit >> 3]! ^ start[bit >> 3]!) & mask) !== 0) return false;
  }
  return true;
}

/**
 * What kind of address it is, in words, where it is not public: 'loopback', 'private', …; undefined for a public one. Of
 * an address with a zone (`fe80::1%eth0`) the address counts; what is no address is 'no address'.
 */
export function closedRange(address: string): string | undefined {
  const plain = address.split('%')[0]!;
  if (!isIPv4(plain) && !isIPv6(plain)) return 'no address';
  let bytes = bytesOf(plain);
  if (bytes.length === 16 && EMBEDDING.some((range) => within(bytes, range))) bytes = bytes.slice(12);
  const ranges = bytes.length === 4 ? IPV4 : IPV6;
  const found = ranges.find((range) => within(bytes, range));
  if (found) return found[2];
  return bytes.length === 16 && !within(bytes, GLOBAL) ? 'reserved' : undefined;
}

/** The address as host and port of a grant name it. An IPv4 address inside an IPv6 one goes by either name. */
export function namesOf(address: string, port: number): string[] {
  const plain = address.split('%')[0]!;
  if (isIPv4(plain)) return [`${plain}:${port}`];
  const bytes = bytesOf(plain);
  const own = `${new URL(`http://[${plain}]/`).hostname}:${port}`;
  return within(bytes, EMBEDDING[0]!) ? [own, `${bytes.slice(12).join('.')}:${port}`] : [own];
}

/** Whether two spellings are of one address; an IPv4 address inside an IPv6 one is that IPv4 address. */
export const sameAddress = (one: string, other: string): boolean => namesOf(one, 1).at(-1) === namesOf(other, 1).at(-1);
