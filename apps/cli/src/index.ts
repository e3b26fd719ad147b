/** What the demo, the tests and the benchmarks use of the command: meshes of processes on this machine, and swarms. */
export { ircPlugin } from './irc-plugin.ts';
export * from './local-mesh.ts';
export { type Swarm, type SwarmOptions, startSwarm } from './swarm.ts';
