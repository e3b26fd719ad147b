/**
 * The files of the Python guest. Its codec and sessions are those of the Python client, the same file under another
 * name, so that there is one Python peer.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OWN = 'main guest bridge session pool module context plugin asgi state bundled'
  .split(' ')
  .map((name) => `${name}.py`);
const PEER = '../../../../../clients/python/hauki.py';

/** Contents by name; `main.py` is what is run: `python3 -I -S -B main.py`. */
export async function pythonGuestFiles(): Promise<Map<string, Buffer>> {
  const read = (path: string) => readFile(fileURLToPath(new URL(path, import.meta.url)));
  const names: [string, string][] = [
    ...OWN.map((name): [string, string] => [name, `./${name}`]),
    ['hauki_peer.py', PEER],
  ];
  return new Map(
    await Promise.all(names.map(async ([name, path]): Promise<[string, Buffer]> => [name, await read(path)])),
  );
}

/** Writes them to a folder of their own. */
export async function writePythonGuest(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, content] of await pythonGuestFiles()) await writeFile(join(folder, name), content);
}
