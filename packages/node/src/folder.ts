/**
 * A node's folder: whose it is now, and the name that it gives the node for ever.
 *
 * What always holds: one agent at a time has the folder, by SQLite's exclusive lock on `agent.lock`, as a core has its
 * store; the kernel lets go of it when the process ends, however it ends, so no lock is ever stale. POSIX drops it also
 * when this process closes any other descriptor of that file: nothing else opens it. A file is written whole and flushed,
 * or is not there.
 */
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { BadInput, describe, ID_PATTERN } from '@hauki/protocol';

/** `SQLITE_BUSY`: somebody else holds the lock. */
const BUSY = 5;
/** How long to wait for a predecessor that is just ending. It blocks the process, so it is short. */
const WAIT_MS = 1_000;
const NAME = new RegExp(ID_PATTERN);

export interface NodeFolder {
  /** The node's name. */
  node: string;
  /** Lets another agent have the folder; what ends with the process need not. */
  close(): void;
}

/**
 * Takes the folder, which is made if need be. `newName`: the node's name where the folder has none yet. Throws BadInput,
 * saying what to do, where another agent has it, or what it keeps is damaged.
 */
export function openFolder(data_dir: string, newName: () => string): NodeFolder {
  mkdirSync(data_dir, { recursive: true });
  // Vaults' mapped users pass through it to what is theirs; what is secret in it has modes of its own.
  chmodSync(data_dir, 0o711);
  const lock = lockFolder(data_dir);
  try {
    return { node: nameOf(join(data_dir, 'node.json'), newName), close: () => lock.close() };
  } catch (error) {
    lock.close();
    throw error;
  }
}

function lockFolder(data_dir: string): DatabaseSync {
  const [file, holder] = [join(data_dir, 'agent.lock'), join(data_dir, 'agent.pid')];
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(file, { timeout: WAIT_MS });
    // It stays begun: nothing is ever written to it.
    db.exec('BEGIN EXCLUSIVE');
    // Whoever may read a file may lock it, and keep the agent away.
    chmodSync(file, 0o600);
  } catch (error) {
    db?.close();
    const what = `the node's folder ${resolve(data_dir)}`;
    if ((error as { errcode?: number }).errcode !== BUSY)
      throw new BadInput({ what, why: `its lock cannot be had: ${describe(error)}` });
    throw new BadInput({
      what,
      why: `it is in use by another agent${pidIn(holder)}, and one folder is one node. Stop that one (hauki up starts one too), or give this one a folder of its own: --name or --data`,
    });
  }
  try {
    writeFileSync(holder, `${process.pid}\n`, { mode: 0o600 });
  } catch {
    // Only for the message above, and the disk may be full.
  }
  return db;
}

function pidIn(file: string): string {
  try {
    return ` (pid ${Number.parseInt(readFileSync(file, 'utf8'), 10)})`;
  } catch {
    return '';
  }
}

function nameOf(file: string, newName: () => string): string {
  if (!existsSync(file)) {
    const node = newName();
    writeWhole(file, JSON.stringify({ node }));
    return node;
  }
  let node: unknown;
  try {
    node = JSON.parse(readFileSync(file, 'utf8')).node;
  } catch {}
  if (typeof node === 'string' && NAME.test(node)) return node;
  throw new BadInput({
    what: file,
    why: 'it is damaged: it does not say {"node":"…"}. Write the node’s name there again, which its log tells; or remove the file, then this is a new node, and what its volumes hold is given to nobody until it has its old name',
  });
}

/** Writes a file of the owner's alone, durable when it returns, with the old content or the new one at any time. */
export function writeWhole(file: string, text: string): void {
  writeFileSync(`${file}.making`, text, { mode: 0o600, flush: true });
  renameSync(`${file}.making`, file);
  const fd = openSync(join(file, '..'), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
