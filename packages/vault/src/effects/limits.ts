/** Bounds of effects that nobody outside needs to know, each with its reason. */

/**
 * Files of one volume that are being written at once: as many as the effects of some workers. Whoever mounts the volume
 * removes what a killed agent left of them, by their names alone, however many files of its own a guest made there.
 */
export const TEMPORARIES = 256;

/** Names that are looked up at once: libuv lets half of its threads do that, and in its line nobody comes before another. */
export const LOOKUPS = Math.ceil((Number(process.env.UV_THREADPOOL_SIZE) || 4) / 2);
