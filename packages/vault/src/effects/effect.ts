/**
 * What an effect is, and what it has to work with. Each effect is a module of its own: a maker is called once for each
 * vault and gives its effects by name; `effects.ts` lists the makers and bounds what all of them do together.
 */
import { GrantMissing, type Grants } from '@hauki/protocol';
import type { FamilyPowers } from './clone.ts';
import type { Asker } from './lookups.ts';
import type { Hold, Network } from './network.ts';
import type { Rates } from './rates.ts';
import type { Secrets } from './secrets.ts';

/** MeshFS as effects need it. */
export interface MeshFsClient {
  resolve(pointer: string): Promise<{ pointer: string; content: string; media_type: string }>;
  write(pointer: string, content: string, media_type?: string): Promise<object>;
}

/** What a worker may do, and how often it and those below it have done it of late. */
export interface Allowance {
  worker: string;
  readonly grants: Grants;
  rates: Rates;
}

/** What the host gives for one vault. */
export interface EffectPowers {
  /** Whose the vault is: the owner's name, with those above it. */
  owner: string;
  grants: Grants;
  /** Values of the secrets that the grants name. */
  secrets?: Readonly<Record<string, string>> | undefined;
  meshfs: MeshFsClient;
  /** Where the vault's volume is mounted, if it has one. */
  volume?: string | undefined;
  /** All that what it does counts against: its own, its parent's, and so on. Its own alone where left out. */
  allowances?(): readonly Allowance[];
  /** Makes clones for it; left out where there are none. */
  family?: FamilyPowers | undefined;
  /** What all vaults of the node share. */
  network: Network;
  /** Takes one line, already cut to size. */
  log(level: string, line: string): void;
  /** Told how many bytes of an answer's body were fetched. */
  fetched?(bytes: number): void;
  /** Whether the vault stands still just now: that it takes nothing means nothing then. */
  paused?(): boolean;
}

/** The vault as its effects see it. */
export interface EffectVault extends Omit<EffectPowers, 'allowances' | 'grants' | 'owner' | 'secrets'> {
  /** Those that hold just now: they may change between two calls. */
  readonly grants: Grants;
  readonly secrets: Secrets;
  /** Never empty: its own is the first. */
  allowances(): readonly Allowance[];
  /** As whom it looks names up. */
  asker(): Asker;
  /** Room in the agent's memory, of the vault's and of the node's. */
  hold: Hold;
  /** An error as the guest may hear it: typed, without a place in the host's own code. */
  told(error: unknown): Error;
  /** Aborted when the vault has ended. */
  readonly ended: AbortSignal;
  /** Calls `run` whenever the grants have changed; the function that it gives stops that. */
  onRegrant(run: () => void): () => void;
}

/** One call of an effect. `args` are a stranger's; the signal is aborted when the guest gives up or the vault ends. */
export type Effect = (args: unknown[], signal: AbortSignal) => unknown;

export type EffectMaker = (vault: EffectVault) => Record<string, Effect>;

/** What a worker hears where it had a grant and has it no more. */
export const wasRevoked = (fields: { grant: string; wanted: string }) =>
  new GrantMissing(
    fields,
    `The worker has no grant for this any more: ${fields.grant} ${fields.wanted}. Of ${fields.grant} something was revoked while it lived`,
  );
