"""Splitters of streamed replies, sans-IO: bytes in, in any pieces; whole events out.

`EventBlocks` cuts a server-sent event stream, `LineBlocks` newline-delimited JSON, `ArrayElements`
a JSON array of objects (Gemini without `alt=sse`). What is held is at most one incomplete event;
of one larger than `EVENT_BYTES_MAX` only the last `TAIL_BYTES` are kept, which is where providers
put usage.
"""

import re

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

EVENT_BYTES_MAX = 2**20
TAIL_BYTES = 2**16

EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")


def last_event_end(data: bytes | bytearray, start: int = 0) -> int:
    """Index just behind the last blank line at or after `start`; 0 if there is none."""
    end = 0
    for mark in EVENT_ENDS:
        at = data.rfind(mark, start)
        if at >= 0:
            end = max(end, at + len(mark))
    return end


def first_event_end(data: bytes, start: int = 0) -> int:
    """Index just behind the first blank line at or after `start`; 0 if there is none."""
    end = 0
    for mark in EVENT_ENDS:
        at = data.find(mark, start)
        if at >= 0 and (not end or at + len(mark) < end):
            end = at + len(mark)
    return end


class EventBlocks:
    """Whole events of an event stream, as few pieces as possible."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the events they complete, as one block (b"" if none).

        `data` itself is returned when it consists of whole events: the usual case.
        """
        held = self._held
        if not held:
            if data.endswith(EVENT_ENDS):
                return data
            end = last_event_end(data)
            held += data[end:]
            block = data[:end]
        else:
            start = max(0, len(held) - 2)  # a blank line may straddle the pieces
            held += data
            end = last_event_end(held, start)
            block = bytes(held[:end])
            del held[:end]
        if len(held) > EVENT_BYTES_MAX:
            held[:-TAIL_BYTES] = b"data: "
        return block

    def finish(self) -> bytes:
        """The incomplete event at the end of the stream, if any."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


class LineBlocks:
    """Whole lines of newline-delimited JSON, as few pieces as possible; blank ones do not count."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the lines they complete, as one block (b"" if none)."""
        held = self._held
        if not held and data.endswith(b"\n"):
            return data if data.strip() else b""
        end = data.rfind(b"\n") + 1
        if end:
            block = bytes(held + data[:end])
            held[:] = data[end:]
        else:
            block = b""
            held += data
        if len(held) > EVENT_BYTES_MAX:
            held[:-TAIL_BYTES] = b""
        return block if block.strip() else b""

    def finish(self) -> bytes:
        """The incomplete line at the end of the stream, if any."""
        rest = bytes(self._held)
        self._held.clear()
        return rest if rest.strip() else b""


def event_data(block: bytes) -> list[bytes]:
    """The data of each event of a block, its `data:` lines joined; events without are skipped."""
    if block.find(b"\n") == len(block) - 2 and block.startswith(b"data: ") and block[-1:] == b"\n":
        return [block[6:-2]]  # the usual case: one event, one line, no carriage return
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = []
    for event in block.split(b"\n\n"):
        lines = [
            line[6:] if line[5:6] == b" " else line[5:]
            for line in event.split(b"\n")
            if line.startswith(b"data:")
        ]
        if lines:
            found.append(lines[0] if len(lines) == 1 else b"\n".join(lines))
    return found


# Skips everything outside strings but brackets, whole strings included. Groups are not possessive:
# Python before 3.11.5 matches those wrongly. They never backtrack far, since nothing follows.
_skip = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*")*', re.DOTALL).match
_skip_in_string = re.compile(rb"[^\"\\]*+(?:\\.[^\"\\]*+)*", re.DOTALL).match
_validate = Decoder(Raw).decode
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")


def _is_json(data: bytes) -> bool:
    try:
        _validate(data)
    except (DecodeError, RecursionError):
        return False
    return True


class ArrayElements:
    """The objects of a streamed JSON array. A lone object counts as an array of one."""

    __slots__ = ("_at", "_depth", "_held", "_in_string", "_start", "_top")

    def __init__(self) -> None:
        self._held = bytearray()  # from the start of the current element
        self._at = 0  # scanned up to here
        self._depth = 0
        self._top = 0  # depth of the elements: 1 inside an array
        self._in_string = False
        self._start = -1  # index of the current element; -1: between elements

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the objects they complete."""
        held = self._held
        if not held and self._depth == self._top == 1:
            alone = data.strip(b", \t\r\n")
            if alone.startswith(b"{") and alone.endswith(b"}") and _is_json(alone):
                return [alone]  # the usual case: one piece is one element
        held += data
        elements: list[bytes] = []
        while self._advance(held):
            byte = held[self._at]
            self._at += 1
            if byte in _OPENING:
                self._open(byte)
            else:
                self._close(held, elements)
        self._trim(held)
        return elements

    def _advance(self, held: bytearray) -> bool:
        """Move to the next bracket outside strings; False: more bytes are needed."""
        if self._in_string:
            match = _skip_in_string(held, self._at)
            assert match is not None
            self._at = match.end()
            if self._at >= len(held) or held[self._at] == _BACKSLASH:
                return False
            self._at += 1
            self._in_string = False
        match = _skip(held, self._at)
        assert match is not None
        self._at = match.end()
        if self._at >= len(held):
            return False
        if held[self._at] == _QUOTE:  # a string that is not complete yet
            self._at += 1
            self._in_string = True
            return self._advance(held)
        return True

    def _open(self, byte: int) -> None:
        if self._depth == 0 and byte == ord("["):
            self._top = 1
        elif self._depth == self._top and self._start < 0:
            self._start = self._at - 1
        self._depth += 1

    def _close(self, held: bytearray, elements: list[bytes]) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth == self._top and self._start >= 0:
            elements.append(bytes(held[self._start : self._at]))
            self._start = -1

    def _trim(self, held: bytearray) -> None:
        keep_from = self._at if self._start < 0 else self._start
        if len(held) - keep_from > EVENT_BYTES_MAX:
            keep_from = max(keep_from, min(self._at, len(held) - TAIL_BYTES))
        if keep_from:
            del held[:keep_from]
            self._at -= keep_from
            self._start = 0 if self._start >= 0 else -1

    def finish(self) -> bytes:
        """The incomplete element at the end of the stream, if any."""
        rest = bytes(self._held) if self._start >= 0 else b""
        self._held.clear()
        self._at, self._start = 0, -1
        return rest
