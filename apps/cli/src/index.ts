/** What the demo, the tests and the benchmarks use of the command: meshes of processes on this machine, and swarms. */
export * from './local-mesh.ts';
export { type Swarm, type SwarmOptions, startSwarm } from './swarm.ts';
