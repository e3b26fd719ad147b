/** Mesh-RPC's transports that need Node. */
export * from './jws-sign.ts';
export { type DialOptions, dial, dialTcp, type Listener, type ListenOptions, listen, sessionOf } from './listen.ts';
export { LOG_OUTPUT } from './log-output.ts';
export { whenToEnd } from './process-end.ts';
export { areFirst, Ride } from './ride.ts';
export { Shares } from './shares.ts';
export * from './sniff.ts';
export * from './transports/first-token.ts';
export * from './transports/http.ts';
export { type Asked, type Direct, onceForHeaders, readDirectly } from './transports/http-direct.ts';
export * from './transports/http-server.ts';
export * from './transports/http-websocket.ts';
export * from './transports/lines.ts';
export * from './transports/secure.ts';
export { askIfSilent } from './transports/silent-peer.ts';
export * from './transports/stream.ts';
export * from './transports/upgrade.ts';
export * from './transports/websocket-server.ts';
