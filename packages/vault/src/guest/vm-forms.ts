/**
 * Forms and their files: loaded into a QuickJS vault when one of them is first touched, or a form is read. Apart from the
 * rest of the platform, because few plugins take forms and each would carry it.
 */
import { Blob, File, own, useBlobs } from './platform/blob.ts';
import { FormData } from './platform/form-data.ts';
import { FORM } from './platform/limits.ts';
import { boundaryOf, readMultipart, writeMultipart } from './platform/multipart.ts';
import { bufferOf } from './platform/text.ts';
import type { Platform, PlatformPowers } from './vm-platform.ts';

export interface Forms {
  Blob: typeof Blob;
  File: typeof File;
  FormData: typeof FormData;
  blob(bytes: Uint8Array, type: string): Blob;
  /** What reads forms of a type. Throws TypeError where there is none. */
  reader(content_type: string): (bytes: Uint8Array) => FormData;
  /** What a body is made of; undefined where it is neither a form nor a blob. */
  body(given: unknown): { bytes: Uint8Array; type: string } | undefined;
}

/** `platform` is there by now. */
export function makeForms(powers: PlatformPowers, { URLSearchParams }: Pick<Platform, 'URLSearchParams'>): Forms {
  useBlobs(powers);
  return {
    Blob,
    File,
    FormData,
    blob: (bytes, type) => new Blob(own(bytes), { type }),
    reader(content_type) {
      const kind = content_type.split(';', 1)[0]!.trim().toLowerCase();
      if (kind === 'multipart/form-data') {
        const boundary = boundaryOf(content_type);
        return (bytes) => readMultipart(bytes, boundary, powers);
      }
      if (kind !== 'application/x-www-form-urlencoded')
        throw new TypeError(
          `A form is of type multipart/form-data or application/x-www-form-urlencoded, not ${JSON.stringify(kind.slice(0, 100))}`,
        );
      return (bytes) => {
        const form = new FormData();
        const text = powers.decode(bufferOf(bytes), 'utf-8', 0, 1);
        if (text.split('&', FORM.parts + 1).length > FORM.parts)
          throw new TypeError(`The form cannot be read: it has more than ${FORM.parts} parts`);
        for (const [name, value] of new URLSearchParams(text)) form.append(name, value);
        return form;
      };
    },
    body(given) {
      if (given instanceof FormData) return writeMultipart(given, powers);
      return given instanceof Blob ? { bytes: Blob.bytesOf(given), type: given.type } : undefined;
    },
  };
}

const powers = (globalThis as unknown as { __platform?: PlatformPowers }).__platform;
if (powers?.platform) powers.made_forms = makeForms(powers, powers.platform);
