/** Mesh-RPC for every platform: nothing here imports Node. */
export * from './channel.ts';
export { decodeValue, type Encoded, encodeValue, type Refs } from './codec.ts';
export * from './ghost.ts';
export * from './handshake.ts';
export { isClass } from './lineage.ts';
export { methodsOf } from './methods.ts';
export * from './plain.ts';
export { Deferred, lookAt, RemotePromise } from './promise.ts';
export * from './redeem.ts';
export { reference } from './references.ts';
export * from './resume.ts';
export { Served } from './served.ts';
export * from './session.ts';
export { bytesLength, type FrameTransport, joinBytes, type Transport, type TransportEvents } from './transport.ts';
export * from './transports/memory.ts';
export * from './transports/port.ts';
export * from './transports/websocket.ts';
export * from './values.ts';
