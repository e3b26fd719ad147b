/** How a process is started that shall not outlive the one that starts it. */

const SETPRIV = '/usr/bin/setpriv';
const IF_BORN = '[ "$PPID" = "$0" ] && exec "$@"';

/**
 * What goes before a command that shall die with `parent`, which starts it. A parent that died before its
 * child had asked for the signal would send none, and nobody would end the child: so that looks, once it has asked, whether
 * its parent is still the one that made it.
 */
export const boundTo = (parent: number): string[] => [
  ...[SETPRIV, '--pdeathsig', 'KILL'],
  ...['/bin/sh', '-c', IF_BORN, String(parent)],
];
