/** What the demo, the tests and the benchmarks use of the command: meshes of processes on this machine. */
export * from './local-mesh.ts';
