/** How the kernel describes itself (`/docs`): what its own routes answer, and what its modules serve. */
import { prefixOf } from '@hauki/protocol';
import {
  AN_ERROR,
  type Described,
  Flag,
  List,
  listOf,
  objectOf,
  ok,
  oneOf,
  orNull,
  Some,
  Text,
  type Told,
  Whole,
} from '@hauki/protocol/http-description';
import type { Kernel } from './kernel.ts';

/** What the description begins with: enough for who knows nothing else. */
export const ABOUT = `
A microkernel: post a module, and it serves, below \`/api/plugins/<module>/\`.

- **Who asks** sends \`authorization: Bearer <token>\`; a kernel that is open asks callers on its machine for none.
- **Post one:** \`POST /api/evolve\` with \`target_module\` (\`hello.js\`, \`hello.ts\`, \`hello.py\`) and \`content\`. In JavaScript and
  TypeScript it is one module without imports, \`export default { fetch(request) { return new Response("hello") } }\`, which sees the
  path behind its prefix; in Python one with a FastAPI \`router\`, or an ASGI \`app\`. It is tested first: what fails
  changes nothing, and the error has stage, line and reason. \`dry_run\` does all but the change.
- **Change it:** post it anew, or \`edits\` with the \`base_digest\` that \`GET /api/modules/{module}\` tells as \`digest\`.
  \`GET /api/modules/{module}/versions/{version}\` has a source, \`POST /api/modules/{module}/rollback\` brings the version
  before back, \`GET /api/modules/{module}/log\` is what it says, tracebacks too.
- **It may** do what its \`grants\` name; without \`time\` and \`random\` there is no clock and there are no random numbers.
- ${AN_ERROR}

For programs this is JSON at \`/docs/json\`.
`.trim();

const works = (members: Record<string, Described>): Told => ({
  answers: { 200: objectOf({ status: oneOf('ok'), kernel: Text, ...members }) },
});
const EVOLVED = ok({
  module: Text,
  version: Whole,
  digest: Text,
  prefix: Text,
  alias: orNull(Text),
  routes: listOf(Text),
  vault: objectOf({ driver: Text, level: Text, isolation: Text }),
  report: Some,
  dry_run: Flag,
  'weight?': Whole,
  'diff?': Text,
});
const MODULE = ok({
  module: Text,
  state: Text,
  prefix: Text,
  alias: orNull(Text),
  version: Whole,
  digest: Text,
  language: Text,
  pinned: Flag,
  routes: listOf(Text),
  live: List,
});
const VERSION = {
  module: Text,
  version: Whole,
  digest: Text,
  bytes: Whole,
  language: Text,
  driver: Text,
  memory_mib: Whole,
};

/** By method and path. */
export const TOLD: Record<string, Told> = {
  'GET /health': works({}),
  'GET /api/status': works({ started_at: Whole, drivers: Some, modules: List }),
  'POST /api/evolve': EVOLVED,
  'POST /api/evolve_plugin': EVOLVED,
  'GET /api/modules/:module': MODULE,
  'DELETE /api/modules/:module': ok(),
  'GET /api/modules/:module/versions': ok({ versions: listOf(objectOf(VERSION)) }),
  'GET /api/modules/:module/versions/:version': ok({ ...VERSION, source: Text }),
  'GET /api/modules/:module/log': ok({ logs: List }),
  'GET /api/modules/:module/diff': ok({ diff: Text }),
  'POST /api/modules/:module/rollback': EVOLVED,
  'POST /api/modules/:module/weights': MODULE,
  'POST /api/modules/:module/pin': ok(),
  'GET /api/history': ok({ entries: List }),
};

/** A description, as far as it is read here. */
export interface OpenApi {
  paths?: Record<string, object>;
  tags?: { name: string; description?: string }[];
}

/** What OpenAPI 3.0 has a place for. */
const OPENAPI = new Set(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']);

/** What stands for a part of a route: Hono's `:id{[0-9]{2}}` and `:name?`, FastAPI's `{path:path}`, and `*`. */
const PART = /:(\w+)(?:\{(?:[^{}]|\{[^{}]*\})*\})?\??|\{(\w+)(?::\w+)?\}|\*/g;

/** A route's path as OpenAPI has it: each name once, and braces around names only. */
function templateOf(path: string): { templated: string; names: string[] } {
  const names: string[] = [];
  const literal = (text: string) => text.replaceAll('{', '%7B').replaceAll('}', '%7D');
  let templated = '';
  let end = 0;
  for (const { 0: whole, 1: colon, 2: braced, index } of path.matchAll(PART)) {
    const name = colon ?? braced ?? 'path';
    let numbered = name;
    for (let i = 2; names.includes(numbered); i++) numbered = `${name}${i}`;
    names.push(numbered);
    templated += `${literal(path.slice(end, index))}{${numbered}}`;
    end = index + whole.length;
  }
  return { templated: templated + literal(path.slice(end)), names };
}

/** The description with every module's routes, under its tag. */
export function withModules(document: OpenApi, kernel: Pick<Kernel, 'modules'>): OpenApi {
  const paths: Record<string, Record<string, object>> = {};
  const tags: OpenApi['tags'] = [];
  for (const { module, version, digest, live, alias } of kernel.modules()) {
    tags.push({ name: module, description: `version ${version}, ${digest}` });
    for (const route of live.find((one) => one.version === version)?.routes ?? []) {
      const [method = '*', path = '/*'] = route.split(' ');
      const { templated, names } = templateOf(path);
      const methods = method === '*' ? ['get', 'post'] : [method.toLowerCase()].filter((one) => OPENAPI.has(one));
      const parameters = names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } }));
      // What lies under its alias is served there too.
      const at = alias !== null && path.startsWith(alias) ? [templated] : [];
      for (const full of [`${prefixOf(module)}${templated}`, ...at]) {
        paths[full] ??= {};
        for (const one of methods)
          paths[full][one] = {
            tags: [module],
            parameters,
            responses: { default: { description: 'what the module answers' } },
          };
      }
    }
  }
  return { ...document, tags: [...(document.tags ?? []), ...tags], paths: { ...document.paths, ...paths } };
}
