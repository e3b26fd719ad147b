/**
 * Peers that go without a word: a machine that lost its power or its way ends none of its connections. Who has nothing to
 * say to it would hold them for ever, and with them the places that are counted by them.
 */
import type { Socket } from 'node:net';
import { SILENT_PEER } from './limits.ts';

/**
 * Has the system ask a silent peer whether it is there, which no script hears of, and end the connection of one that is
 * not.
 */
export function askIfSilent(socket: Socket): void {
  socket.setKeepAlive(true, SILENT_PEER.after_ms, SILENT_PEER.every_ms, SILENT_PEER.times);
}
