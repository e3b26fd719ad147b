/**
 * Files and bodies on their way between a guest and its host, in messages of JSON: as text where that is short, else as
 * base64, so that whatever keeps to its limit in bytes fits into a message. Without anything of the platform of the web,
 * which small vaults load only when they need it; what is done for each byte is the engine's own.
 */

export type Carried = { text: string } | { base64: string };

/** Characters that are looked at together: more would take as much memory again. */
const PIECE = 64 * 1024;

/** How text is carried: not as itself where the escapes of JSON made it longer than base64 would. */
export function carriedText(text: string): Carried {
  const most = text.length / 3;
  let escapes = 0;
  for (let at = 0; at < text.length && escapes <= most; at += PIECE) {
    const piece = text.slice(at, at + PIECE);
    escapes += JSON.stringify(piece).length - 2 - piece.length;
  }
  const well_formed = text.toWellFormed();
  return escapes <= most ? { text: well_formed } : { base64: btoa(latin1Of(well_formed)) };
}

export const carriedBytes = (bytes: Uint8Array): Carried => ({ base64: (bytes as any).toBase64() });

export const bytesOf = (carried: Carried): Uint8Array =>
  (Uint8Array as any).fromBase64('base64' in carried ? carried.base64 : btoa(latin1Of(carried.text)));

/** Undefined for what is no UTF-8. */
export function textOf(carried: Carried): string | undefined {
  if ('text' in carried) return carried.text;
  try {
    return decodeURIComponent(escape(atob(carried.base64)));
  } catch {
    return undefined;
  }
}

/** The text's UTF-8, each byte as a character. */
const latin1Of = (text: string) => unescape(encodeURIComponent(text));
