/** What a caller needs of Mesh-RPC, for the SDK: an index of its own, so that a page loads no more than that. */

export { unref } from '#platform';
export { Channel } from './channel.ts';
export {
  type Ghost,
  type GhostSource,
  ghost,
  type PendingGhost,
  pendingGhost,
  sourceOf,
  withOptions,
} from './ghost.ts';
export {
  type CallerKey,
  destructText,
  heartbeatText,
  leaseKey,
  mac,
  makeCallerKey,
  readTicketBody,
  sessionKey,
} from './handshake.ts';
export type * from './hauki.ts';
export { late } from './late.ts';
export { openSession } from './redeem.ts';
export { type CallOptions, Session } from './session.ts';
export type { FrameTransport } from './transport.ts';
export { WEBSOCKET_PROTOCOL, type WebSocketLike, webSocketTransport } from './transports/websocket.ts';
