/**
 * What the core's description of its API (`/docs`) begins with: enough for who knows nothing else, as a planner that is
 * given a URL and a token. Routes in it are checked against those that there are.
 */
import { AN_ERROR } from '@hauki/protocol/http-description';

export const ABOUT = `
The control plane of a Hauki mesh: it places source code in isolated vaults, where others call it.

- **Who asks** sends \`authorization: Bearer <token>\`. \`GET /api/v2/tokens/self\` says what a token may do.
- **Run code once:** \`POST /api/v2/omega_spool\` with \`source\`, \`method\` and \`params\`; then
  \`GET /api/v2/omega_spool/{job}\` with \`wait_ms\` answers with its \`state\` and \`result\`.
- **Call it often:** \`POST /api/v2/swarm_spawn_ephemeral\` with \`source\`, \`ttl_ms\` and any \`audience\` (or
  \`POST /api/v2/lxc_provision\` for one that lasts), then \`POST /api/v2/ephemeral/{worker}\` with
  \`{"jsonrpc": "2.0", "id": 1, "method": "greet", "params": ["Ada"]}\`. \`GET /api/v2/ephemeral/{worker}/logs\` is what it
  said, \`DELETE /api/v2/ephemeral/{worker}\` ends it.
- **Source** is one module: exported functions, or a class as the default export. It has no network, files, clock or
  random numbers but by \`grants\`. In Python it is a module's functions, or its class \`Worker\`.
- **Serve routes:** \`POST /api/evolve\` posts a module with a handler \`fetch(request)\`, or a FastAPI router, to a kernel of the
  mesh (\`GET /api/v2/kernels\`), which serves it below \`/api/plugins/<module>/\`.
- ${AN_ERROR}

For programs this is JSON at \`/docs/json\`.
`.trim();
