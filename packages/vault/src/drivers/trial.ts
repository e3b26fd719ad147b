/**
 * Runs a trial, and once more where it fails: what was tried may have been killed, or the machine have had too much to do,
 * and what fails twice is held not to work.
 */
export async function twice(trial: () => Promise<unknown>): Promise<void> {
  try {
    await trial();
  } catch {
    await trial();
  }
}
