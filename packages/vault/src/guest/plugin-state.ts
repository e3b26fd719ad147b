/**
 * A module's exported `state`, from one version to the next: what has the same name and the same type is taken over.
 *
 * What always holds: the object itself stays, and is filled in place, for the module's code holds on to it; whatever a
 * member is called, it is a member and nothing else; what is left behind is told.
 */

const BUILT_IN = /^(?:Map|Set|Date|RegExp|Error|Number|String|Boolean|BigInt|ArrayBuffer|DataView|\w*Array)$/;

/** What counts as a value's type; undefined where it has none yet. Every object of no built-in class is an `object`. */
function kindOf(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== 'object') return typeof value;
  const tag = Object.prototype.toString.call(value).slice('[object '.length, -1);
  return BUILT_IN.test(tag) ? tag : 'object';
}

/** What goes over of a state. An instance of a class goes as its members: with its methods it would stay where it is. */
export function portable(state: any): unknown {
  switch (kindOf(state)) {
    case 'Map':
      return new Map(state);
    case 'Set':
      return new Set(state);
    case 'Array':
      return Array.from(state);
    case 'object':
      return [Object.prototype, null].includes(Object.getPrototypeOf(state)) ? state : { ...state };
  }
  return state;
}

/** Takes a state of before into the one of now. Gives the names of what was left behind, `state` for all of it. */
export function takeOver(state: any, given: any): string[] {
  const kind = kindOf(state);
  if (given === undefined) return [];
  if (kind === undefined || kind !== kindOf(given)) return ['state'];
  if (kind === 'Map' || kind === 'Set') {
    state.clear();
    for (const one of given) kind === 'Map' ? state.set(one[0], one[1]) : state.add(one);
  } else if (kind === 'Array') {
    state.length = 0;
    for (const item of given) state.push(item);
  } else if (kind === 'Date') state.setTime(given.getTime());
  else if (kind === 'object') {
    pointBack(given, state);
    return takeMembers(state, given);
  } else if (ArrayBuffer.isView(state) && 'set' in state && given.length === (state as Uint8Array).length)
    (state as Uint8Array).set(given);
  else return ['state'];
  return [];
}

function takeMembers(state: any, given: any): string[] {
  // One that begins without members takes any.
  const empty = Object.keys(state).length === 0;
  const left: string[] = [];
  for (const name of Object.keys(given)) {
    const value = given[name];
    const own = Object.getOwnPropertyDescriptor(state, name);
    // What is computed of the rest is no state.
    if (own?.get && !own.set) continue;
    if (own && [undefined, kindOf(value)].includes(kindOf(state[name]))) state[name] = value;
    else if (!own && empty)
      Object.defineProperty(state, name, { value, writable: true, enumerable: true, configurable: true });
    else left.push(name);
  }
  return left;
}

/** What points to all of the given state from within it, as children do to their parent, points to the one that takes it over. */
function pointBack(given: object, state: object): void {
  const seen = new Set<object>([given]);
  const put = (value: unknown, replace: () => void) => {
    if (value === given) replace();
    else if (typeof value === 'object' && value !== null) seen.add(value);
  };
  // It grows as it is walked through.
  for (const one of seen as Set<any>) {
    if (one instanceof Map) {
      for (const [key, value] of one) put(value, () => one.set(key, state));
    } else if (one instanceof Set) {
      for (const value of one) put(value, () => one.delete(given) && one.add(state));
    } else if (Array.isArray(one)) {
      for (const [i, value] of one.entries()) put(value, () => one.splice(i, 1, state));
    } else if (kindOf(one) === 'object') {
      for (const name of Object.keys(one)) put(one[name], () => Object.assign(one, { [name]: state }));
    }
  }
}

/** At most so many names in a line of the log. */
const NAMES = 20;

/** What a line of the log says of what was left behind; undefined where nothing was. */
export function leftBehind(names: string[]): string | undefined {
  if (names.length === 0) return undefined;
  const more = names.length > NAMES ? ` and ${names.length - NAMES} more` : '';
  return `of the version before this was not taken over, for lack of a member of that name and type: ${names.slice(0, NAMES).join(', ')}${more}`;
}
