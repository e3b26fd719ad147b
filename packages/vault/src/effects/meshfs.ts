/** Effects on pointers: reading and writing those under the prefixes that were granted. */
import { BadInput, GrantMissing, parsePointer, reaches } from '@hauki/protocol';
import type { EffectMaker } from './effect.ts';

export const meshfsEffects: EffectMaker = (vault) => {
  const granted = (right: 'read' | 'write', given: unknown): string => {
    const { text } = parsePointer(given as string);
    if (!reaches(vault.grants.meshfs[right], text)) throw new GrantMissing({ grant: `meshfs.${right}`, wanted: text });
    return text;
  };
  return {
    'meshfs.resolve': ([pointer]) => vault.meshfs.resolve(granted('read', pointer)),
    'meshfs.write'([pointer, content, media_type]) {
      if (typeof content !== 'string') throw new BadInput({ what: 'meshfs.write', why: 'the content must be text' });
      const to = granted('write', pointer);
      return vault.meshfs.write(to, content, typeof media_type === 'string' ? media_type : undefined);
    },
  };
};
