/** What of the console is loaded into a QuickJS vault when it is first needed: with the first line that is more than text. */
import { type ConsolePowers, type LateConsole, lateConsole } from './console.ts';

export interface VmConsolePowers extends ConsolePowers {
  /** What is made. */
  console?: LateConsole;
}

const powers = (globalThis as unknown as { __platform: VmConsolePowers }).__platform;
powers.console = lateConsole(powers);
