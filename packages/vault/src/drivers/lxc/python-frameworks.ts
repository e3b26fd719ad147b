/**
 * Where the host has what Python plugins are written with: FastAPI as the distribution packs it, with all that its import
 * brings along, whatever its version, and what it imports only when a module needs it. Found by importing each once, in a
 * process of its own; what was found is remembered beside the staged roots until something is installed or removed.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { making } from './staging.ts';

/**
 * What is imported at staging; whichever is missing, vaults are made without it. All but the first are what FastAPI and
 * Starlette import late: for forms and uploads (by its older and its newer name), e-mail addresses, sessions' cookies,
 * templates, quick JSON.
 */
export const FRAMEWORKS = [
  'fastapi',
  'multipart',
  'python_multipart',
  'email_validator',
  'itsdangerous',
  'jinja2',
  'orjson',
];
/** An import of FastAPI takes a third of a second; on a machine that is busy and cold many times that. */
const IMPORT_MS = 60_000;

/**
 * Imports each of argv[2:] with the site folders of argv[1] in reach, and tells of every package that was loaded from
 * there: its name, and its folder or its file. `-S`: no `.pth` file of the host's runs.
 */
const FIND = `
import importlib, json, os, sys
sites = json.loads(sys.argv[1])
sys.path += sites
sys.dont_write_bytecode = True
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except Exception:
        pass
found = {}
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    if "." in name or not file or not any(file.startswith(site + "/") for site in sites):
        continue
    # Not by __path__: some single files, six for one, say that they are packages.
    found[name] = os.path.dirname(file) if os.path.basename(file).startswith("__init__.") else file
print(json.dumps(found))
`;

/** Packages' folders and single files by their names. Rejects where the interpreter cannot be run. */
export async function findFrameworks(
  interpreter: string,
  sites: string[],
  stage_dir: string,
  names = FRAMEWORKS,
): Promise<Record<string, string>> {
  const known = createHash('sha256').update(JSON.stringify([2, interpreter, names]));
  for (const site of sites) known.update(`${site} ${statSync(site, { bigint: true }).mtimeNs}\n`);
  const file = join(stage_dir, `.python-frameworks-${known.digest('hex').slice(0, 24)}.json`);
  const remembered = await readFile(file, 'utf8').catch(() => undefined);
  if (remembered !== undefined) return JSON.parse(remembered);
  const args = ['-I', '-S', '-c', FIND, JSON.stringify(sites), ...names];
  const { stdout } = await promisify(execFile)(interpreter, args, { env: {}, timeout: IMPORT_MS });
  const found = JSON.parse(stdout) as Record<string, string>;
  const temporary = making(stage_dir);
  await writeFile(temporary, JSON.stringify(found), { mode: 0o644 });
  await rename(temporary, file);
  return found;
}
