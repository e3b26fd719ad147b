/**
 * The peer of the MeshFS benchmark, in a process of its own: SQLite used directly by a script, as durable as MeshFS
 * (WAL, synchronous=FULL, a commit for each write), with the same payloads; and one large file, written and synced.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

export type Task =
  | { what: 'write' | 'read'; count: number; keys: number; payload: string }
  | { what: 'put' | 'get'; bytes: number };

const folder = process.argv[2]!;
const db = new DatabaseSync(join(folder, 'peer.sqlite'));
db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
db.exec('CREATE TABLE IF NOT EXISTS page (name TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT');
const write = db.prepare('INSERT INTO page VALUES (?, ?) ON CONFLICT DO UPDATE SET content = excluded.content');
const read = db.prepare('SELECT content FROM page WHERE name = ?');
const file = join(folder, 'peer.bin');
const CHUNK = 1024 * 1024;

/** Does the task; gives the milliseconds it took. */
async function perform(task: Task): Promise<number> {
  const began = performance.now();
  if (task.what === 'write')
    for (let at = 0; at < task.count; at++) write.run(`page ${at % task.keys}`, `${at} ${task.payload}`);
  else if (task.what === 'read') for (let at = 0; at < task.count; at++) read.get(`page ${at % task.keys}`);
  else if (task.what === 'put') {
    const handle = await open(file, 'w');
    const chunk = Buffer.alloc(CHUNK, 'x');
    for (let at = 0; at < task.bytes; at += CHUNK) await handle.write(chunk);
    await handle.sync();
    await handle.close();
  } else for await (const _ of createReadStream(file, { highWaterMark: CHUNK }));
  return performance.now() - began;
}

process.on('message', (task: Task) => void perform(task).then((ms) => process.send!({ ms })));
process.on('disconnect', () => process.exit(0));
process.send!('ready');
