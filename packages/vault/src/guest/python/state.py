"""A module's exported `state`, from one version to the next: what has the same name and the same type is taken over."""
import hauki_peer as peer


def native(value, made=None):
    """What came over the wire in Python's own types: JavaScript's Map and Set become dict and set."""
    made = {} if made is None else made
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, (dict, peer.Map)):
        known = made[id(value)] = {}
        known.update((key, native(item, made)) for key, item in value.items())
    elif isinstance(value, list):
        known = made[id(value)] = []
        known.extend(native(item, made) for item in value)
    elif isinstance(value, peer.Set):
        known = made[id(value)] = set(value)
    else:
        return value
    return known


def take_over(state, given) -> None:
    """Takes a state of before into the one of now, in place."""
    if isinstance(state, dict) and isinstance(given, dict):
        # One that begins without names takes any.
        names = set(state) or set(given)
        for name, value in given.items():
            if name in names and name not in state:
                state[name] = value
            elif name in names and _alike(state[name], value):
                state[name] = _as(state[name], value)
    elif isinstance(state, list) and isinstance(given, list):
        state[:] = given
    elif isinstance(state, set) and isinstance(given, set):
        state.clear()
        state.update(given)


def _kind(value) -> str:
    # Numbers are one kind: the wire tells 1.0 from 1 no more than JavaScript does. Neither does it a tuple from a list.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    return "list" if isinstance(value, tuple) else "bytes" if isinstance(value, bytearray) else type(value).__name__


def _alike(now, before) -> bool:
    """What is None now has no type yet."""
    return now is None or _kind(now) == _kind(before)


def _as(now, before):
    if isinstance(now, float) or type(now) in (tuple, bytearray):
        return type(now)(before)
    return int(before) if type(before) is peer.BigInt else before
