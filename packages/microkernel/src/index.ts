/** The microkernel. `main.ts` is its process; this is what others may build on. */
export type { KernelEvent, KernelPage, KernelSummary } from './inside.ts';
export { Kernel, type KernelOptions } from './kernel.ts';
export type { Announcement } from './lines.ts';
export type { KernelProcessOptions } from './main.ts';
export { firstLine } from './outside.ts';
export { createKernelServer, type KernelServer, type ServerOptions } from './server.ts';
