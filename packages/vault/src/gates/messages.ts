/** What the agent and its gate host say to each other. */

/** Down: from the agent. `open` comes with the handle of the agent's end of the guest's fd 4. */
export type Down =
  | { op: 'open'; id: string; listen_host: string }
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | { op: 'close'; id: string; reason: string };

/** Up: from the host. After `gone` there is nothing of the gate left, its port included. */
export type Up =
  | { op: 'opened'; id: string; port: number }
  | { op: 'text'; id: string; text: string; bytes?: Uint8Array | undefined }
  | { op: 'gone'; id: string; cause: 'exited' | 'misbehaved'; reason: string };
