/** How English is written, loaded into a QuickJS vault when it is first needed. */
import { type English, english } from './english.ts';

export interface VmEnglish {
  /** What is made. */
  english?: English;
}

(globalThis as unknown as { __platform: VmEnglish }).__platform.english = english;
