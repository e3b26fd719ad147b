/** The node agent. `main.ts` is its process; this is what others may build on. */
export { Agent, type AgentOptions } from './agent.ts';
export type { NodeOptions } from './main.ts';
export { defaultMemoryMib } from './memory.ts';
export { makeImage } from './mounts.ts';
export { mountsOf, Volumes } from './volumes.ts';
