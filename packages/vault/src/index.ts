/** Vaults: drivers, and the effects that the host performs for guests. */
export * from './driver.ts';
export { createQuickjsDriver } from './drivers/quickjs/quickjs.ts';
export { createDrivers } from './drivers.ts';
export * from './effects/effects.ts';
export { writeNodeGuest } from './guest/bundle.ts';
