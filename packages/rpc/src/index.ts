/** Mesh-RPC for every platform: nothing here imports Node. */
export { decodeValue, type Encoded, encodeValue, type Refs } from './codec.ts';
export * from './ghost.ts';
export * from './handshake.ts';
export { isClass, methodsOf } from './methods.ts';
export * from './plain.ts';
export * from './redeem.ts';
export { kindOf, type RefKind, reference } from './references.ts';
export * from './session.ts';
export type { Transport, TransportEvents } from './transport.ts';
export * from './transports/memory.ts';
export * from './transports/port.ts';
export * from './transports/websocket.ts';
export * from './values.ts';
