"""W3C Trace Context: reading what a caller sent, and what is sent on."""

import re
from collections.abc import Iterable
from typing import NamedTuple

TRACE_HEADERS = (b"traceparent:", b"tracestate:")
SAMPLED = 1
STATE_MEMBERS_MAX = 32
STATE_CHARS_MAX = 8192
_PARENT = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]*)?\Z"
)
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_STATE = re.compile(r"[\x20-\x7e\t]*\Z")


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: str
    span_id: str
    flags: int
    state: str  # `tracestate`, as it came


def parse_parent(headers: Iterable[tuple[bytes, bytes]]) -> Parent | None:
    """The caller's span; None: none was sent, or none that can be continued.

    `headers` have lower-case names. `tracestate` counts only beside a valid `traceparent`.
    """
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    found = _PARENT.match(parents[0].strip()) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    state = _state(b",".join(states)) if states else ""
    return Parent(trace_id.decode(), span_id.decode(), int(flags, 16), state)


def _state(value: bytes) -> str:
    """The members in their order, "" where they cannot be passed on."""
    text = value.decode("latin-1")
    members = [member for part in text.split(",") if (member := part.strip())]
    whole = ",".join(members)
    if len(members) > STATE_MEMBERS_MAX or len(whole) > STATE_CHARS_MAX:
        return ""
    return whole if _STATE.match(whole) and all("=" in member for member in members) else ""


def header_lines(trace_id: str, span_id: str, *, sampled: bool, state: str) -> bytes:
    """What goes upstream, each line with its end."""
    line = f"traceparent: 00-{trace_id}-{span_id}-{sampled:02x}\r\n"
    return (line + f"tracestate: {state}\r\n" if state else line).encode("ascii")
