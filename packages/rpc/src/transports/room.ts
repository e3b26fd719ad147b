/** Room in a server that has all the connections that it may have: who asks for nothing shuts nobody out. */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { SERVER_LIMITS } from './limits.ts';

/** Ends some connections whenever one more was refused. `idle`: those on which nothing is under way, the oldest first. */
export function whenFull(server: Server, idle: () => readonly Socket[]): void {
  let next_at = 0;
  server.on('drop', () => {
    const now = performance.now();
    if (now < next_at) return;
    next_at = now + SERVER_LIMITS.room_every_ms;
    const some = Math.ceil(server.maxConnections * SERVER_LIMITS.room_share);
    for (const socket of idle().slice(0, some)) socket.destroy();
  });
}
