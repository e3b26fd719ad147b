"""The inner end of the bridge (guest/bridge.ts): frames of many channels over fd 4.

It never speaks first. Whoever sends writes the frame itself: the gate outside always reads, so that a flood is held up
by the pipe and by nothing in here.
"""
import os
import struct
import threading

import hauki_peer as peer

LITERAL, TAGGED, OPEN, CLOSE, PRESSURE = 1, 2, 3, 4, 5
_HEADER = struct.Struct(">IBI")
_READ_BYTES = 256 * 1024


class Bridge:
    """Frames over a descriptor."""

    def __init__(self, fd: int):
        os.set_blocking(fd, True)
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, kind: int, channel: int, text: str, attachments=None) -> None:
        data = text.encode()
        parts = [data] if attachments is None else [struct.pack(">I", len(data)), data, *attachments]
        frame = b"".join((_HEADER.pack(5 + sum(map(len, parts)), kind, channel), *parts))
        with self._lock:
            done = os.write(self._fd, frame)
            while done < len(frame):
                done += os.write(self._fd, memoryview(frame)[done:])

    def frames(self):
        """Gives (kind, channel, payload) until the gate is gone."""
        buffer = bytearray()
        while True:
            at = 0
            while len(buffer) - at >= _HEADER.size:
                length, kind, channel = _HEADER.unpack_from(buffer, at)
                if len(buffer) - at < 4 + length:
                    break
                yield kind, channel, bytes(memoryview(buffer)[at + _HEADER.size : at + 4 + length])
                at += 4 + length
            if at:
                del buffer[:at]
            chunk = os.read(self._fd, _READ_BYTES)
            if not chunk:
                return
            buffer += chunk


class Channel:
    """One channel, as a session of `hauki_peer` wants it."""

    def __init__(self, bridge: Bridge, number: int):
        self._bridge, self.number = bridge, number
        self.kept_bytes = 0
        """What the gate says that the caller has not taken."""
        self.handed = 0
        self.ended = None

    def send(self, text: str, attachments) -> int:
        if self.ended is None:
            self._bridge.send(LITERAL if attachments is None else TAGGED, self.number, text, attachments)
            self.handed += 1
        return self.handed

    def end(self, reason: str, bye: bool) -> None:
        if self.ended is not None:
            return
        self.ended = reason
        if bye:
            self._bridge.send(CLOSE, self.number, reason)

