/** What is announced of a kernel, in the notes' own words: the same on the mesh's event stream, in logs and on IRC. */
import { prefixOf } from '@hauki/protocol';

/** What a kernel tells of its changes. */
export type Announcement =
  | { what: 'evolved'; module: string; version: number; digest: string; by: string }
  | { what: 'removed'; module: string; by: string };

export const onlineOf = (kernel: string): string => `[${kernel}] Online. Awaiting DNA Injection.`;

export const lineOf = (kernel: string, { what, module }: { what: 'evolved' | 'removed'; module: string }): string =>
  what === 'evolved'
    ? `[${kernel}] Evolved. New routes available at ${prefixOf(module)}/`
    : `[${kernel}] Evolved. Routes removed from ${prefixOf(module)}/`;
