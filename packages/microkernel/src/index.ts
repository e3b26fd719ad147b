/** The microkernel. `main.ts` is its process; this is what others may build on. */
export { type Announcement, Kernel, type KernelOptions } from './kernel.ts';
export type { KernelProcessOptions } from './main.ts';
export { createKernelServer, type KernelServer, type ServerOptions } from './server.ts';
