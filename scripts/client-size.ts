/**
 * What a page loads of the SDK: bundled for browsers, minified, compressed. Run by hand it prints where the bytes are.
 * The benchmark, the browser's test and the example take the bundle from here.
 */
import { fileURLToPath } from 'node:url';
import { constants, gzipSync } from 'node:zlib';
import { build } from 'esbuild';

/** What the client of a page may weigh, compressed. */
export const CLIENT_LIMIT_BYTES = 15 * 1024;

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** All that a script needs; the errors and limits that it may name come with it. */
const ENTRY = "export { connect, destruct } from '@hauki/mesh';";

export interface ClientBundle {
  /** An ES module. */
  code: string;
  bytes: number;
  gzip_bytes: number;
  /** Files in it with their minified bytes, the largest first. */
  parts: [file: string, bytes: number][];
  /** Modules that the bundle leaves for the platform to find; there must be none. */
  imports: string[];
}

export async function bundleClient(entry = ENTRY): Promise<ClientBundle> {
  const { outputFiles, metafile } = await build({
    stdin: { contents: entry, resolveDir: ROOT, sourcefile: 'page.ts', loader: 'ts' },
    bundle: true,
    write: false,
    minify: true,
    metafile: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2024',
    legalComments: 'none',
    logLevel: 'silent',
    // Without this a module of Node would be an error; the test wants to name it.
    external: ['node:*'],
  });
  const code = outputFiles[0]!.text;
  const output = Object.values(metafile.outputs)[0]!;
  return {
    code,
    bytes: Buffer.byteLength(code),
    gzip_bytes: gzipSync(code, { level: constants.Z_BEST_COMPRESSION }).length,
    parts: Object.entries(output.inputs)
      .map(([file, { bytesInOutput }]): [string, number] => [file, bytesInOutput])
      .sort((a, b) => b[1] - a[1]),
    imports: output.imports.map(({ path }) => path),
  };
}

if (import.meta.main) {
  const { bytes, gzip_bytes, parts } = await bundleClient();
  for (const [file, size] of parts) if (size > 0) console.log(`${String(size).padStart(7)}  ${file}`);
  console.log(
    `${String(bytes).padStart(7)}  minified\n${String(gzip_bytes).padStart(7)}  of ${CLIENT_LIMIT_BYTES}, gzip`,
  );
}
