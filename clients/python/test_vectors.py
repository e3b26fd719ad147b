"""Runs docs/vectors against hauki.py: python3 test_vectors.py. Says how many hold; fails at the first that does not."""
import base64
import datetime
import json
import math
import os
import re
import socket
import struct
import sys
import threading
import time

import hauki

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, "../../docs/vectors", name), encoding="utf-8") as file:
        return json.load(file)


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}:\n  is        {actual!r}\n  should be {expected!r}")


def refused(run, what):
    try:
        run()
    except hauki.ProtocolViolation:
        return
    raise AssertionError(f"{what}: was not refused")


# ---- handshake.json, resume.json


def handshake():
    vector = read("handshake.json")
    given, keys, redemption = vector["given"], vector["keys"], vector["redemption"]
    secret, jti = given["secret"], given["jti"]
    key = hauki.CallerKey(hauki.from_base64url(given["caller_private_key"]["d"]))
    equal(key.jwk, redemption["caller_key"], "the public key")
    equal(key.thumbprint, redemption["audience"], "its thumbprint")
    for use in ("session", "lease"):
        equal(hauki.derived_key(secret, jti, use).hex(), keys[f"{use}_key_hex"], f"the {use} key")
    session, lease = hauki.derived_key(secret, jti, "session"), hauki.derived_key(secret, jti, "lease")
    for side in ("caller", "worker"):
        said = hauki.transcript(side, jti, given["worker_nonce"], given["caller_nonce"])
        equal(said, redemption[f"{side}_transcript"], f"the {side}'s transcript")
        equal(hauki.mac(session, said), redemption[f"{side}_proof"], f"the {side}'s proof")
    equal(key.sign(redemption["caller_transcript"]), redemption["caller_signature"], "the signature")
    beat = hauki.heartbeat_text(given["worker"], given["epoch"], vector["heartbeat"]["challenge"])
    equal((beat, hauki.mac(lease, beat)), (vector["heartbeat"]["text"], vector["heartbeat"]["mac"]), "the heartbeat")
    end = hauki.destruct_text(given["worker"], given["epoch"])
    equal((end, hauki.mac(lease, end)), (vector["destruct"]["text"], vector["destruct"]["mac"]), "the destruct")
    equal(hauki.message_frame(vector["frame"]["payload"], None).hex(), vector["frame"]["hex"], "the frame")
    return 1


def resume():
    vector = read("resume.json")
    given = vector["given"]
    key = hauki.derived_key(given["secret"], given["jti"], "resume")
    equal(key.hex(), vector["keys"]["resume_key_hex"], "the resume key")
    for side in ("caller", "worker"):
        nonces = given["worker_nonce"], given["caller_nonce"]
        said = hauki.resume_text(side, given["jti"], *nonces, given[f"{side}_received"])
        equal(said, vector[f"{side}_transcript"], f"the {side}'s transcript")
        equal(hauki.mac(key, said), vector[f"{side}_proof"], f"the {side}'s proof")
    channel, (near, far) = hauki._Channel(), socket.socketpair()
    channel.attach(hauki._Link(near))
    for text in vector["caller_sent"]:
        channel.send(text, None)
    there = hauki._Link(far)
    for _ in vector["caller_sent"]:
        there.read()
    channel.detach()
    near, far = socket.socketpair()
    channel.attach(hauki._Link(near), given["worker_received"])
    again = hauki._Link(far)
    texts = [hauki.read_message(*again.read())[0] for _ in vector["caller_sends_again"]]
    equal(texts, vector["caller_sends_again"], "what is sent again")
    channel.end("over", bye=True)
    equal(again.read(), (hauki.BYE, b""), "the end")
    there.close(), again.close()
    return 1


# ---- frames.json


def link_of(data: bytes):
    near, far = socket.socketpair()
    link = hauki._Link(near, data)
    link.limit = hauki.MESSAGE_BYTES
    far.close()
    return link


def frames():
    vectors = read("frames.json")
    link = link_of(bytes.fromhex("".join(frame["hex"] for frame in vectors["frames"])))
    for frame in vectors["frames"]:
        kind, payload = link.read()
        if "text" in frame:
            attached = base64.b64decode(frame["bytes"]) if "bytes" in frame else None
            equal(hauki.read_message(kind, payload), (frame["text"], attached), frame["name"])
            again = hauki.message_frame(frame["text"], None if attached is None else [attached])
        elif "ack" in frame:
            equal((kind, payload), (hauki.ACK, struct.pack(">Q", frame["ack"])), frame["name"])
            again = hauki.frame(kind, payload)
        else:
            equal((kind, payload.decode()), (hauki.BYE, frame["bye"]), frame["name"])
            again = hauki.frame(kind, payload)
        equal(again.hex(), frame["hex"], frame["name"])
    link.close()
    for frame in vectors["malformed"]:
        link = link_of(bytes.fromhex(frame["hex"] + "00"))
        refused(lambda link=link: hauki.read_message(*link.read()), frame["name"])
        link.close()
    return len(vectors["frames"]) + len(vectors["malformed"])


# ---- values.json


class Stand:
    """Stands for whatever has its tag."""

    def __init__(self):
        self.tags = {}

    def take(self, tag):
        return self.tags.setdefault(json.dumps(tag), self.Thing(tag))

    def give(self, value):
        return value.tag if isinstance(value, self.Thing) else None

    class Thing:
        def __init__(self, tag):
            self.tag = tag


def build(description, stand):
    """The value that a description describes."""
    known = {}

    def make(d):
        def named(value):
            if "id" in d:
                known[d["id"]] = value
            return value

        kind = d["type"]
        if kind in ("null", "undefined", "hole"):
            return {"null": None, "undefined": hauki.undefined, "hole": hauki.hole}[kind]
        if kind == "number":
            value = d["value"]
            return value if isinstance(value, int) else float(value)
        if kind == "boolean":
            return d["value"]
        if kind == "string":
            return d["value"] + "".join(map(chr, d.get("then_code_units", [])))
        if kind == "bigint":
            return hauki.BigInt(d["value"])
        if kind == "boxed":
            return named(hauki.Boxed(make(d["value"])))
        if kind == "date":
            return named(hauki.Date(d["ms"]))
        if kind == "regexp":
            return named(hauki.RegExp(d["source"], d["flags"]))
        if kind == "array":
            made = named([])
            made.extend(make(item) for item in d["items"])
            return made
        if kind == "object":
            made = named({})
            made.update((name, make(member)) for name, member in d["members"])
            return made
        if kind == "map":
            made = named(hauki.Map())
            for key, value in d["entries"]:
                made[make(key)] = make(value)
            return made
        if kind == "set":
            made = named(hauki.Set())
            for item in d["items"]:
                made.add(make(item))
            return made
        if kind == "bytes":
            elements = [int(e) if isinstance(e, str) and d["of"].startswith("Big") else e for e in d["elements"]]
            elements = [float(e) if isinstance(e, str) else e for e in elements]
            data = hauki.Binary.of(d["of"], elements)
            return named(bytearray(data) if d["of"] == "Uint8Array" else data)
        if kind == "error":
            made = named(hauki.JsError(d["name"], d["message"], d.get("stack")))
            if "cause" in d:
                made.cause = make(d["cause"])
            if "errors" in d:
                made.errors = make(d["errors"])
            made.props.update((name, make(value)) for name, value in d.get("props", []))
            return made
        if kind == "table_error":
            return named(getattr(hauki, d["name"])("?", {name: make(value) for name, value in d["fields"]}))
        return known[d["as"]] if kind == "same" else stand.take(d["tag"])

    return make(description)


def same(a, b, where="value", seen=None):
    """Whether two values are the same, down to what refers to what."""
    seen = {} if seen is None else seen
    if isinstance(a, (list, dict, hauki.Map, hauki.Set, Exception)):
        if id(a) in seen:
            return equal(seen[id(a)], id(b), f"{where}: what it refers to")
        seen[id(a)] = id(b)
    if isinstance(a, datetime.datetime):
        a = hauki.Date(round(a.timestamp() * 1000))
    if isinstance(a, bytes) and type(b) is bytearray:
        return equal(bytes(a), bytes(b), where)
    equal(type(a), type(b), f"{where}: its type")
    if isinstance(a, float):
        return equal((repr(a), math.copysign(1, a)), (repr(b), math.copysign(1, b)), where)
    if isinstance(a, dict):
        equal(set(a), set(b), where)
        for key in a:
            same(a[key], b[key], f"{where}.{key}", seen)
    elif isinstance(a, (list, hauki.Set)):
        equal(len(a), len(b), where)
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}[{i}]", seen)
    elif isinstance(a, hauki.Map):
        equal(len(a), len(b), where)
        for x, y in zip(a.items(), b.items()):
            same(list(x), list(y), where, seen)
    elif isinstance(a, hauki.MeshError):
        same(a.fields, b.fields, where, seen)
    elif isinstance(a, hauki.JsError):
        equal((a.name, a.message, a.stack), (b.name, b.message, b.stack), where)
        for part in ("cause", "errors", "props"):
            same(getattr(a, part), getattr(b, part), f"{where}.{part}", seen)
    elif isinstance(a, hauki.Boxed):
        same(a.value, b.value, where, seen)
    elif isinstance(a, hauki.Binary):
        equal((a.type, a.elements()), (b.type, b.elements()), where)
    elif a is not b:
        equal(a, b, where)


# Ours has its own message for an error of the table, and JavaScript's order of members.
REORDERED = ("integers as names stand first",)
# Python cannot tell whether JavaScript would take a regular expression.
NOT_TOLD = ("a regular expression that is none",)


def values():
    vectors = read("values.json")
    for vector in vectors["values"]:
        name, text, attached = vector["name"], vector["text"], base64.b64decode(vector["bytes"])
        tree, stand = hauki._read_json(text), Stand()
        literal = vector.get("literal")
        actual = tree if literal else hauki.decode_value(tree, attached, stand.take)
        same(actual, build(vector["describe"], stand), f"decode {name}")

        stand = Stand()
        value = build(vector["describe"], stand)
        if "error of the table" in name:
            for error in value if isinstance(value, list) else [value]:
                error.message = re.search(r'"message":"([^"]*)"', text)[1]
        made, parts = hauki.encode_value(value, stand.give)
        equal(parts is None, bool(literal), f"encode {name}: literal")
        equal(b"".join(parts or ()), attached, f"encode {name}: bytes")
        if name.startswith(REORDERED):
            made, text = json.loads(made), json.loads(text)
        equal(made, text, f"encode {name}")
    for vector in vectors["malformed"]:
        attached, tree = base64.b64decode(vector["bytes"]), hauki._read_json(vector["text"])
        if vector["name"] not in NOT_TOLD:
            refused(lambda: hauki.decode_value(tree, attached, Stand().take), vector["name"])
    return 2 * len(vectors["values"]) + len(vectors["malformed"]) - len(NOT_TOLD)


# ---- calls.json


class Peer:
    """A session whose other side is a list of messages."""

    def __init__(self):
        near, far = socket.socketpair()
        self.link = hauki._Link(far)
        self.link.limit = hauki.MESSAGE_BYTES
        self.channel = hauki._Channel()
        self.session = hauki._Session(self.channel, 5000)
        self.root = hauki.RemoteObject(self.session, None)
        self.fed = threading.Event()
        mine = hauki._Link(near)
        mine.admitted()
        self.channel.attach(mine)
        threading.Thread(target=self.read, args=(mine,), daemon=True).start()

    def read(self, link):
        try:
            while True:
                kind, payload = link.read()
                if kind == hauki.ACK:
                    self.channel.acknowledged(payload)
                else:
                    self.session.heard(kind, payload)
        except (OSError, hauki.MeshError) as error:
            self.session.finish(str(error), None)

    def hear(self):
        """The next message that the session sends."""
        while True:
            kind, payload = self.link.read()
            if kind in (hauki.LITERAL, hauki.TAGGED):
                text, attached = hauki.read_message(kind, payload)
                return json.loads(text), attached

    def play(self, sequence, act):
        failure = []

        def run():
            try:
                act(self)
            except BaseException as error:  # noqa: BLE001
                failure.append(error)

        self.link.sock.settimeout(5)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            for message in sequence["messages"]:
                attached = base64.b64decode(message["bytes"]) if "bytes" in message else None
                text = message["text"].replace("*", "x" * message["expand"]) if "expand" in message else message["text"]
                if message["from"] == "worker":
                    self.link.write(hauki.message_frame(text, None if attached is None else [attached]))
                else:
                    equal(self.hear(), (json.loads(text), attached), sequence["name"])
            self.fed.set()
            thread.join(5)
            self.link.sock.settimeout(0.05)
            try:
                raise AssertionError(f"{sequence['name']}: {self.hear()} was not expected")
            except socket.timeout:
                pass
        except Exception as error:
            raise (failure[0] if failure else error) from error
        finally:
            self.link.close()
            self.session.over.wait(2)
            self.channel.end("over", bye=False)
        if failure or thread.is_alive():
            raise failure[0] if failure else AssertionError(f"{sequence['name']}: it did not end")


def remote_error(run):
    try:
        run()
    except hauki.RemoteError as error:
        equal((error.message, error.fields), ("RangeError: too far", {"error_name": "RangeError"}), "the error")
        return error
    raise AssertionError("no error")


class RangeError(Exception):
    """Named as JavaScript's, for what the vectors say."""


def too_far():
    raise RangeError("too far")


def act_given_up(p):
    pending = p.root.patient.start()
    pending.cancel("enough")
    try:
        pending.result()
    except hauki.Cancelled:
        return
    raise AssertionError("not cancelled")


def act_no_method(p):
    try:
        p.root.fly()
    except hauki.NoSuchMethod as error:
        return equal("add" in error.fields["has"], True, "its methods")
    raise AssertionError("no error")


def act_cause(p):
    cause = remote_error(p.root.fail_with_cause).__cause__
    equal((cause.name, cause.cause), ("RangeError", "the road ends"), "the cause")


def act_object(p):
    with p.root.counter() as counter:
        equal(counter.up(), 1, "up()")
        equal(p.root.is_counter(counter), True, "is_counter()")


def act_twice(p):
    one, other = p.root.counters()
    equal(one is other, True, "the same")
    hauki.release(one)


def act_argument(p):
    line = hauki.Pipeline(p.root)
    equal(line.greet(line.user().name).result(), "hello, Ada", "greet()")


def act_concurrent(p):
    first = p.root.afterwards.start()
    equal((p.root.add(1, 2), first.result()), (3, "after it"), "both")


def act_leave(p):
    with p.root.drip() as stream:
        equal(next(stream), 0, "the item")


def act_broken(p):
    stream = p.root.broken()
    equal(next(stream), 1, "the item")
    remote_error(lambda: next(stream))


def act_credit(p):
    stream = p.root.blobs(4)
    next(stream), next(stream)
    p.fed.wait(5)
    time.sleep(0.05)
    equal(len(list(stream)), 2, "the rest")


def act_aborted(p):
    signal = hauki.Signal()
    pending = p.root.watch.start(signal)
    signal.abort("enough")
    equal(pending.result(), "enough", "the reason")


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ACTS = {
    "a call and its answer": lambda p: equal(p.root.add(1, 2), 3, "add()"),
    "two calls, answered as they finish": act_concurrent,
    "no result is undefined, and so is said with a tag": lambda p: equal(p.root.nothing(), hauki.undefined, "nothing()"),
    "bytes lie behind the text": lambda p: equal(p.root.reversed(b"\1\2\3"), b"\3\2\1", "reversed()"),
    "a deadline and a trace go with a call": lambda p: equal(
        hauki.with_options(p.root, timeout_ms=5000, traceparent=TRACE).told(), [5000, TRACE], "told()"
    ),
    "an error that the worker threw": lambda p: remote_error(p.root.fail),
    "an error with its cause comes with itself": act_cause,
    "a method that there is not": act_no_method,
    "a call is given up, and its late answer is ignored": act_given_up,
    "a function is given, called back, and let go of": lambda p: equal(
        p.root.each([1, 2], lambda n: n * 10), [10, 20], "each()"
    ),
    "a function fails, and the worker hears of it": lambda p: equal(
        p.root.hears(too_far), "RangeError: too far", "hears()"
    ),
    "an object stays with the worker, is called, comes home, and is let go of": act_object,
    "the same object twice goes under one number, and is let go of twice": act_twice,
    "a property of a result that is not there yet": lambda p: equal(
        hauki.Pipeline(p.root).user().name.result(), "Ada", "the name"
    ),
    "a method of a result that is not there yet": lambda p: equal(
        hauki.Pipeline(p.root).counter().up().result(), 1, "up()"
    ),
    "a result as argument before it is there": act_argument,
    "a call on a failed result fails likewise": lambda p: remote_error(hauki.Pipeline(p.root).fail().name.result),
    "the worker streams": lambda p: equal(list(p.root.count(3)), [0, 1, 2], "count()"),
    "the reader leaves a stream": act_leave,
    "a stream fails": act_broken,
    "a stream waits for credit": act_credit,
    "the caller streams": lambda p: equal(p.root.sum(iter([1, 2])), 3, "sum()"),
    "a signal is aborted while its call runs": act_aborted,
    "a signal that is of no more use when its call is over": lambda p: equal(
        p.root.ignore(hauki.Signal()), None, "ignore()"
    ),
}


def calls():
    count = 0
    for sequence in read("calls.json")["sequences"]:
        if not sequence.get("worker_only"):
            Peer().play(sequence, ACTS[sequence["name"]])
            count += 1
    return count


if __name__ == "__main__":
    for run in (handshake, resume, frames, values, calls):
        print(f"{run.__name__}: {run()} hold")
    sys.exit(0)
