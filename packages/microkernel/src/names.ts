/** The names of modules and aliases, as they are asked for. Which module a request is for, `protocol/targets.ts` says. */
import {
  BadInput,
  EvolveRejected,
  type Grants,
  LANGUAGE_ENDINGS,
  type Language,
  MODULE_NAME,
  PLUGINS,
} from '@hauki/protocol';

/** What the kernel serves itself; no alias may lie over it. */
const OWN = ['/api/status', '/api/evolve', '/api/evolve_plugin', '/api/modules', '/api/history', '/docs', '/health'];

/**
 * The module and the language that an evolve's `target_module` names: `admin_tools.py`, or `admin_tools` where the
 * language is given beside it, or not at all. Throws EvolveRejected, stage `name`.
 */
export function readModule(
  target_module: unknown,
  language?: Language,
): { module: string; language: Language | undefined } {
  if (typeof target_module !== 'string')
    throw new BadInput({ what: 'target_module', why: 'it must be a text such as data_scraper.ts' });
  const module = JSON.stringify(target_module.slice(0, 100));
  const refused = (why: string) => new EvolveRejected({ module, stage: 'name', why });
  const [, name, ending] = /^(.*?)(?:\.([a-z]+))?$/s.exec(target_module)!;
  if (!MODULE_NAME.test(name!))
    throw refused(`it is no module's name: small letters, digits and _, a letter first, at most 48${likeIt(name!)}`);
  const named = ending === undefined ? undefined : LANGUAGE_ENDINGS.get(ending);
  if (ending !== undefined && !named) throw refused(`.${ending} is none of ${[...LANGUAGE_ENDINGS.keys()].join(', ')}`);
  if (language && named && language !== named) throw refused(`its name says ${named}, not ${language}`);
  return { module: name!, language: language ?? named };
}

/** A name that would do in place of one that does not, where that is plain. */
function likeIt(name: string): string {
  const like = name.toLowerCase().replaceAll(/[-. ]/g, '_');
  return MODULE_NAME.test(like) ? `; ${like} would be one (hauki evolve --name ${like})` : '';
}

/** Checks an alias that somebody wants for a module. Throws BadInput; whether it is free is not asked here. */
export function checkAlias(alias: string): string {
  if (!/^(?:\/[a-z0-9_-]{1,64}){1,8}\/$/.test(alias))
    throw new BadInput({
      what: 'alias',
      why: `${JSON.stringify(alias.slice(0, 200))} is not like /api/v2/meshfs/: one to eight parts of small letters, digits, _ and -, a / before each and at the end`,
    });
  const over = [...OWN, PLUGINS.slice(0, -1)].find((own) => `${own}/`.startsWith(alias) || alias.startsWith(`${own}/`));
  if (over) throw new BadInput({ what: 'alias', why: `${alias} lies over the kernel's own ${over}` });
  return alias;
}

/** Where a kernel keeps what it runs; no module writes there. */
export const SOURCES = 'gem-pointer://plugins/';

/** Throws BadInput where a module would be let write over modules' sources. */
export function checkGrants(grants: Grants): Grants {
  const over = grants.meshfs.write.find((prefix) => prefix.startsWith(SOURCES) || SOURCES.startsWith(prefix));
  if (over)
    throw new BadInput({ what: 'grants.meshfs.write', why: `${over}: what lies in ${SOURCES} is the kernel's` });
  return grants;
}

/** Whether two aliases lie over each other. */
export const aliasesMeet = (a: string, b: string): boolean => a.startsWith(b) || b.startsWith(a);
