/**
 * What a token may do, as pure functions: of what it holds and what is wished, whether it may; of what its maker holds
 * and what is asked for, what a narrower token holds.
 *
 * What always holds, and is tested as a property: whatever `refusal` lets a token do, it lets its maker do too. So a
 * token alone says what its holder may, without a look at those above it; only their end must end it (`tokens.ts`).
 */
import {
  BadInput,
  canonicalPrefix,
  canonicalTargets,
  EVERYTHING,
  Forbidden,
  type Grants,
  ID_PATTERN,
  LIMITS,
  reaches,
  reachesAll,
  SCOPES,
  type Scope,
  type TokenRequest,
  type TokenTargets,
} from '@hauki/protocol';

export type { Scope } from '@hauki/protocol';

export interface Rights {
  readonly scopes: readonly Scope[];
  readonly targets: Readonly<Required<TokenTargets>>;
}

/** Who asks. */
export interface Principal extends Rights {
  /** What a refusal calls it, as in "this token", which is what it is where nothing is said. */
  readonly called?: string;
  /** The token's id; `admin` and `node` for the two that are made with the core. */
  readonly id: string;
  /** Its owner identity: the ids from the first maker's token down to its own, parted by `/`. It never changes. */
  readonly name: string;
}

/** What somebody wants to do. */
export interface Wish {
  /** One of these is needed. */
  scope: Scope | readonly Scope[];
  worker?: { worker: string; owner: string };
  /** In any spelling. */
  pointer?: string;
  node?: string;
}

const ALL = '*';
const calledOf = ({ called = 'this token' }: Principal) => called;
const capital = (text: string) => text[0]!.toUpperCase() + text.slice(1);
/** Who has made a worker holds its owner's ticket, which lets it call and end the worker anyway. */
const IMPLIED_ON_OWN: readonly Scope[] = ['call', 'destruct'];
/** The door to calls: whoever may clone may call its own. Whose the worker is must be asked behind it. */
export const CALL: readonly Scope[] = ['call', 'spawn.pointer'];
const ID = new RegExp(ID_PATTERN);
export const TOKEN_NAME = /^[a-z0-9][a-z0-9-]{0,31}$/;

export const ADMIN: Principal = {
  id: 'admin',
  name: 'admin',
  scopes: ['admin'],
  targets: { workers: [ALL], pointers: [EVERYTHING], nodes: [ALL], fetch: [ALL] },
};
export const NODE: Principal = {
  id: 'node',
  name: 'node',
  scopes: ['node'],
  targets: { workers: [], pointers: [], nodes: [ALL], fetch: [] },
};

/** Whether one of the scopes held covers the scope. */
export const covers = (held: readonly Scope[], scope: Scope): boolean =>
  held.some((h) => h === 'admin' || h === scope || scope.startsWith(`${h}.`));

const named = (list: readonly string[], name: string) => list.includes(ALL) || list.includes(name);

/** Agents put six hex digits behind the name that they are given; a target covers its name with and without them. */
const SUFFIXES = /^(-[0-9a-f]{6})*$/;
export const reachesNode = (list: readonly string[], node: string) =>
  named(list, node) || list.some((name) => node.startsWith(name) && SUFFIXES.test(node.slice(name.length)));

/** Whether a worker of `owner` is the principal's own: made with its token, or with one below it. */
export const owns = (principal: Pick<Principal, 'name'>, owner: string): boolean =>
  owner === principal.name || owner.startsWith(`${principal.name}/`);

/** Why the wish is refused, saying which scope or target is missing; undefined when it is not. Throws on a non-pointer. */
export function refusal(
  principal: Principal,
  wish: Wish,
): { why: string; scope?: string; target?: string } | undefined {
  const scopes: readonly Scope[] = typeof wish.scope === 'string' ? [wish.scope] : wish.scope;
  const { targets } = principal;
  const own = wish.worker !== undefined && owns(principal, wish.worker.owner);
  const implied = own && covers(principal.scopes, 'spawn.pointer') && scopes.some((s) => IMPLIED_ON_OWN.includes(s));
  if (!implied && !scopes.some((scope) => covers(principal.scopes, scope)))
    return {
      why: `This needs a token with the scope ${scopes.join(' or ')}; this one has ${principal.scopes.join(', ')}`,
      scope: scopes.join(' or '),
    };
  const outside = (kind: string, what: string, has: readonly string[]) => ({
    why: `${capital(calledOf(principal))} does not reach ${kind} ${what}; it reaches ${has.length > 0 ? has.join(', ') : 'none'}`,
    target: what,
  });
  if (wish.worker && !own && !named(targets.workers, wish.worker.worker))
    return outside('the worker', wish.worker.worker, ['its own', ...targets.workers]);
  if (wish.pointer !== undefined && !reaches(targets.pointers, wish.pointer))
    return outside('the pointer', wish.pointer, targets.pointers);
  if (wish.node !== undefined && !reachesNode(targets.nodes, wish.node))
    return outside('the node', wish.node, targets.nodes);
  return undefined;
}

export const may = (principal: Principal, wish: Wish): boolean => refusal(principal, wish) === undefined;

/** Throws Forbidden unless the principal may. */
export function demand(principal: Principal, wish: Wish): void {
  const refused = refusal(principal, wish);
  if (refused) throw new Forbidden(refused);
}

/** Throws Forbidden unless the principal may end a worker: who may, may hold it too, and take from it. */
export function demandEnd(principal: Principal, known: { worker: string; owner: string; lasting: boolean }): void {
  demand(principal, { scope: known.lasting ? 'provision' : 'destruct', worker: known });
}

/** Throws Forbidden unless the principal may hand these grants to a worker: nobody gives what they do not have. */
export function demandGrants(principal: Principal, { fetch, connect, meshfs, clone, secrets }: Grants): void {
  for (const right of ['read', 'write'] as const) {
    const scope = `meshfs.${right}` as const;
    for (const prefix of meshfs[right]) {
      if (!covers(principal.scopes, scope))
        throw new Forbidden({ why: `The grant meshfs.${right} needs a token with the scope ${scope}`, scope });
      if (!reachesAll(principal.targets.pointers, prefix))
        throw new Forbidden({
          why: `The grant meshfs.${right} ${prefix} is beyond ${calledOf(principal)}`,
          target: prefix,
        });
    }
  }
  // What is beyond the mesh is one kind of target, whatever is sent there.
  const outside: [string, string[]][] = [
    ['fetch', fetch.map(({ to }) => to)],
    ['connect', connect],
    ...secrets.map(({ name, to }): [string, string[]] => [`secrets ${name} to`, to]),
  ];
  for (const [grant, targets] of outside)
    for (const target of targets)
      if (!named(principal.targets.fetch, target))
        throw new Forbidden({ why: `The grant ${grant} ${target} is beyond ${calledOf(principal)}`, target });
  // A worker's clones are its token's: what that may not make, its workers may not.
  if (clone && !covers(principal.scopes, 'spawn.pointer'))
    throw new Forbidden({
      why: 'The grant clone needs a token with the scope spawn or spawn.pointer',
      scope: 'spawn.pointer',
    });
}

/** The rights of a narrower token. Throws BadInput for what cannot be, Forbidden for more than the maker has. */
export function attenuate(maker: Principal, request: TokenRequest): Rights {
  const scopes = [...new Set(request.scopes)];
  const unknown = scopes.find((scope) => !Object.hasOwn(SCOPES, scope));
  if (unknown !== undefined || scopes.length === 0)
    throw new BadInput({
      what: 'scopes',
      why: `${scopes.length === 0 ? 'none is given' : `${JSON.stringify(unknown)} is none`}. There are: ${Object.keys(SCOPES).join(', ')}`,
    });
  if (scopes.includes('node') && scopes.length > 1)
    throw new BadInput({ what: 'scopes', why: 'a node’s token is for nothing else: give it the scope node alone' });
  const beyond = scopes.find((scope) => !covers(maker.scopes, scope));
  if (beyond !== undefined)
    throw new Forbidden({ why: `A token cannot give the scope ${beyond}, which it does not have`, scope: beyond });

  const { workers, pointers, nodes, fetch } = request.targets ?? {};
  const mine = maker.targets;
  const within = (kind: keyof TokenTargets, list: string[], covered: (entry: string) => boolean) => {
    const outside = list.find((entry) => !covered(entry));
    if (outside !== undefined)
      throw new Forbidden({ why: `A token cannot give ${kind} ${outside}, which it does not reach`, target: outside });
    return list;
  };
  const names = (kind: 'workers' | 'nodes', list: string[]) =>
    within(kind, checkedNames(kind, list), (name) => (kind === 'nodes' ? reachesNode : named)(mine[kind], name));
  return {
    scopes,
    targets: {
      workers: workers ? names('workers', workers) : scopes.includes('admin') ? [...mine.workers] : [],
      pointers: pointers
        ? within('pointers', bounded('pointers', pointers).map(canonicalPrefix), (p) => reachesAll(mine.pointers, p))
        : [...mine.pointers],
      nodes: nodes ? names('nodes', nodes) : [...mine.nodes],
      fetch: fetch ? within('fetch', hosts(fetch), (host) => named(mine.fetch, host)) : [...mine.fetch],
    },
  };
}

function bounded(what: string, list: string[]): string[] {
  if (list.length > LIMITS.token_targets)
    throw new BadInput({ what: `targets.${what}`, why: `at most ${LIMITS.token_targets}` });
  return [...new Set(list)];
}

function checkedNames(kind: string, list: string[]): string[] {
  const wrong = list.find((name) => name !== ALL && !ID.test(name));
  if (wrong !== undefined)
    throw new BadInput({ what: `targets.${kind}`, why: `${JSON.stringify(wrong)} is no name like w-abc123` });
  return bounded(kind, list);
}

function hosts(list: string[]): string[] {
  if (list.includes(ALL)) return [ALL];
  return canonicalTargets('targets.fetch', bounded('fetch', list));
}
