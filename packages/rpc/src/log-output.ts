/**
 * Where the processes of a mesh log: to standard error, which whoever starts them leads to a file, a pipe or a terminal.
 * What cannot be written, as on a full disk, is lost: a log ends nobody.
 */

/** For pino's `destination`, whose errors nobody needs to hear. It keeps so much that could not be written, to try again. */
export const LOG_OUTPUT = { dest: 2, sync: true, maxLength: 1024 * 1024 } as const;
