"""A module's exported `state`, from one version to the next: what has the same name and the same type is taken over.

It is filled in place, for the module's code holds on to it; what is left behind is told.
"""
import datetime

import hauki_peer as peer

_KINDS = {
    # Numbers are one kind: the wire tells 1.0 from 1 no more than JavaScript does.
    "bool": bool, "number": (int, float), "str": str, "dict": (dict, peer.Map), "list": (list, tuple),
    "set": (set, frozenset, peer.Set), "bytes": (bytes, bytearray),
}  # fmt: skip
"""Types that come as one over the wire, a module's own classes of them included."""


def native(value, made=None):
    """What came over the wire in Python's own types: JavaScript's Map and Set become dict and set."""
    made = {} if made is None else made
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, (dict, peer.Map)):
        known = made[id(value)] = {}
        known.update((_key(key), native(item, made)) for key, item in value.items())
    elif isinstance(value, list):
        known = made[id(value)] = []
        known.extend(native(item, made) for item in value)
    elif isinstance(value, peer.Set):
        known = made[id(value)] = set(map(_key, value))
    else:
        return value
    return known


def _key(value):
    """A tuple comes as a list, a frozenset as a set: what is a key, or in a set, was one of those."""
    if isinstance(value, list):
        return tuple(map(_key, value))
    return frozenset(map(_key, value)) if isinstance(value, peer.Set) else value


def take_over(state, given) -> list:
    """Takes a state as it came over the wire into the one of now. Gives what was left behind, `state` for all of it."""
    if given is peer.undefined:
        return []
    if _kind(state) != _kind(given):
        return ["state"]
    # What points to the state of before points to this one then.
    made = {id(given): state}
    left = []
    if isinstance(state, dict):
        # One that begins without names takes any.
        empty = not state
        for name, value in [(_key(name), native(value, made)) for name, value in given.items()]:
            if empty:
                state[name] = value
            elif name in state and (state[name] is None or _kind(state[name]) == _kind(value)):
                state[name] = _as(state[name], value)
            else:
                left.append(str(name))
    elif isinstance(state, list):
        state[:] = [native(item, made) for item in given]
    elif isinstance(state, set):
        items = set(map(_key, given))
        state.clear()
        state.update(items)
    else:
        left.append("state")
    return left


_NAMES = 20
"""At most so many names in a line of the log."""


def left_behind(names: list) -> str:
    """What a line of the log says of what was left behind; nothing where nothing was."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    which = ", ".join(names[:_NAMES]) + more
    return f"of the version before this was not taken over, for lack of a member of that name and type: {which}"


def _kind(value) -> str:
    return next((name for name, types in _KINDS.items() if isinstance(value, types)), type(value).__name__)


def _as(now, before):
    """A value of before as the type that the one of now has."""
    kind = type(now)
    if isinstance(now, (dict, list, set)) and kind not in (dict, list, set):
        # Of a class like defaultdict: it has more to it than its items.
        now.clear()
        now.extend(before) if isinstance(now, list) else now.update(before)
        return now
    if isinstance(now, datetime.datetime) and now.tzinfo is None:
        # Over the wire all have a zone; one without cannot be compared with those.
        return before.astimezone().replace(tzinfo=None)
    if isinstance(now, tuple) and hasattr(kind, "_make"):
        return kind._make(before)
    if isinstance(now, float) or kind in (tuple, bytearray, frozenset):
        return kind(before)
    return int(before) if type(before) is peer.BigInt else before
