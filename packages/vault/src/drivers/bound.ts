/** How a process is started that shall not outlive the one that starts it, nor hurry before it. */
import { existsSync } from 'node:fs';

/** Of the same package as the rest. */
export const CHRT = '/usr/bin/chrt';
const SETPRIV = '/usr/bin/setpriv';
const IF_BORN = '[ "$PPID" = "$0" ] && exec "$@"';

/**
 * What goes before a guest's command: woken, it does not take a processor from whoever computes, which is most often who
 * woke it and has more to say (sched(7), SCHED_BATCH). A free processor it takes at once, and its share is that of others.
 */
export const PATIENT = [CHRT, '--batch', '0'];

/** Whether this machine has what it takes. */
export const canBind = (): boolean => process.platform === 'linux' && existsSync(SETPRIV);

/**
 * What goes before a command that shall die with `parent`, which starts it. A parent that died before its
 * child had asked for the signal would send none, and nobody would end the child: so that looks, once it has asked, whether
 * its parent is still the one that made it.
 */
export const boundTo = (parent: number): string[] => [
  ...[SETPRIV, '--pdeathsig', 'KILL'],
  ...['/bin/sh', '-c', IF_BORN, String(parent)],
];
