"""What a scripted provider says: replies, their framing and cuts, and how they go wrong."""

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Framing = Literal["length", "chunked", "eof"]
Headers = Sequence[tuple[str, str]]


class Gate:
    """Closed until `open()`, which may be called from any thread."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        with self._lock:
            self._opened.set()
            for loop, event in self._waiters:
                with contextlib.suppress(RuntimeError):  # that loop is closed already
                    loop.call_soon_threadsafe(event.set)

    def wait_blocking(self, timeout_s: float) -> bool:
        """True once it is open, False after the timeout."""
        return self._opened.wait(timeout_s)

    async def wait(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._opened.is_set():
                return
            self._waiters.append((asyncio.get_running_loop(), event))
        await event.wait()


@dataclass
class Reply:
    """One answer, and what becomes of it. Counts of bytes are of `body`, before framing."""

    status: int = 200
    headers: Headers = ()
    body: bytes | Iterable[bytes] = b""  # an iterable is sent part by part, as the peer reads
    framing: Framing = "length"
    cuts: Sequence[int] = ()  # positions in the framed answer (head included) to send apart
    informational: Sequence[bytes] = ()  # whole 1xx heads sent first
    raw: bytes | None = None  # sent instead of everything above
    # delays
    before: Gate | None = None  # nothing is sent until it opens
    stall_after: int | None = None  # body bytes after which `until` is waited for
    until: Gate | None = None  # None: for ever
    # faults
    close_after: int | None = None  # body bytes after which the connection is closed in order
    reset_after: int | None = None  # body bytes after which it is reset
    on_request: Literal["answer", "close", "reset", "never"] = "answer"
    close: bool = False  # the last answer on this connection, as its header says
    then_close: bool = False  # close after the answer although nothing said so


@dataclass
class Request:
    """A request as it came."""

    connection: int  # 1 for the first connection accepted
    raw_head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]  # as written
    body: bytes = b""
    hung_up: bool = False  # the client was gone before the end of the answer
    sent_bytes: int = 0  # body bytes of the answer handed to the socket so far

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


def json_reply(data: object, *, status: int = 200, headers: Headers = (), **how: Any) -> Reply:
    body = json.dumps(data).encode()
    return Reply(status, [("content-type", "application/json"), *headers], body, **how)


def sse(event: object, name: str = "") -> bytes:
    """One server-sent event; a str goes in as it is, anything else as JSON."""
    data = event if isinstance(event, str) else json.dumps(event)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def sse_reply(events: Iterable[bytes], *, headers: Headers = (), **how: Any) -> Reply:
    """A stream of events made with `sse`, chunked, each event sent apart."""
    parts = list(events)
    how.setdefault("framing", "chunked")
    body: bytes | list[bytes] = b"".join(parts) if how["framing"] == "length" else parts
    return Reply(200, [("content-type", "text/event-stream"), *headers], body, **how)


def head_of(reply: Reply) -> bytes:
    headers = list(reply.headers)
    if reply.framing == "chunked":
        headers.append(("transfer-encoding", "chunked"))
    elif reply.framing == "length" and reply.status != 204:
        assert isinstance(reply.body, bytes), "a content-length needs the whole body"
        headers.append(("content-length", str(len(reply.body))))
    if reply.close:
        headers.append(("connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} Reason", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def parts_of(reply: Reply) -> Iterable[bytes]:
    return [reply.body] if isinstance(reply.body, bytes) else reply.body


def split(part: bytes, start: int, reply: Reply) -> Iterable[bytes]:
    """Cut a part where something is scripted to happen."""
    marks = (reply.stall_after, reply.close_after, reply.reset_after)
    at = sorted({mark - start for mark in marks if mark and start < mark < start + len(part)})
    edges = [0, *at, len(part)]
    return [part[a:b] for a, b in itertools.pairwise(edges)]


def frame(framing: Framing, data: bytes) -> bytes:
    if framing != "chunked":
        return data
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(framing: Framing) -> bytes:
    return b"0\r\n\r\n" if framing == "chunked" else b""
