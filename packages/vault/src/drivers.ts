/** Which drivers there are. The order is the order of preference: the strongest isolation first. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Driver } from './driver.ts';
import { createQuickjsDriver } from './drivers/quickjs/quickjs.ts';

export interface DriverOptions {
  node_id: string;
  data_dir: string;
  log(line: string, fields?: object): void;
  /** Names to make; all when left out. */
  only?: string[] | undefined;
}

/** Makes the drivers; whether each can be offered here, its `probe` tells. */
export async function createDrivers({ node_id, data_dir, log, only }: DriverOptions): Promise<Driver[]> {
  const drivers: Driver[] = [];
  if (!only || only.includes('quickjs')) drivers.push(createQuickjsDriver());
  void [node_id, data_dir, log, mkdirSync, join];
  return drivers;
}
