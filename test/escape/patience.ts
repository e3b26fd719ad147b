import { isError, NoNodeFits, WorkerDied } from '@hauki/protocol';

/** On a machine that is emulated everything takes longer: so many times as long as elsewhere is waited for a control. */
export const PATIENCE = Number(process.env.HAUKI_PATIENCE ?? 1);

/** Does again what such a machine was too slow for: a vault that was not offered in time, or was taken for one that hangs. */
export async function patiently<T>(run: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++)
    try {
      return await run();
    } catch (error) {
      if (tries >= PATIENCE || !(isError(error, NoNodeFits) || isError(error, WorkerDied))) throw error;
    }
}
