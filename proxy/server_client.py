"""The client's side of a request under our own server: straight to and from the transport."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from proxy.client import AsgiClient, Headers, join_lines

if TYPE_CHECKING:
    from proxy.server_direct import LastHead

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {status: line.rstrip() for status, line in STATUS_LINE.items()}
_BODILESS = frozenset([204, 304])


class Owner(Protocol):
    """The connection, as its requests see it."""

    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def response_ended(self) -> None:
        """The response is complete: the next request may be served."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""


class ServerClient(AsgiClient):
    """One request: filled by its connection, read and answered by the call path.

    Headers are written as they are: they come from a parser or from our own constants.
    """

    upgradable = True

    __slots__ = (
        "_chunked",
        "_connection",
        "_expects_continue",
        "_on_gone",
        "_parts",
        "_room",
        "_transport",
        "_unread",
        "_waiter",
        "complete",
        "disconnected",
        "keep_alive",
        "length",
        "more_body",
        "raw",
        "repeats",
        "version",
    )

    def __init__(
        self, connection: Owner, method: str, raw_path: bytes, query: bytes, headers: Headers
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.query = query
        self.headers = headers
        self.started = False
        self.gone = False
        self.arrival = None
        self.task = None
        # connection
        self.version = "1.1"
        self.keep_alive = True
        self.disconnected = False
        self._connection = connection
        self._transport = connection.transport
        self._on_gone: Callable[[], None] | None = None
        # request body
        self.length: bytes | None = None  # as announced
        self.raw = b""  # what began with the head, as it came
        self.repeats: LastHead | None = None  # the head that it repeats
        self.more_body = True
        self._expects_continue = False
        self._parts: list[bytes] = []
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        # response
        self.complete = False
        self._chunked = False
        self._room = 0  # body bytes still to come, of those announced

    # --- what the connection calls ---

    def expect_continue(self) -> None:
        """The client waits for a go-ahead before it sends the body."""
        self._expects_continue = True

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._unread += len(data)
        if self._unread > HIGH_WATER_LIMIT:
            self._connection.flow.pause_reading()
        if self._waiter is not None:
            self._wake()

    def on_body_end(self) -> None:
        self.more_body = False
        if self._waiter is not None:
            self._wake()

    def on_connection_lost(self) -> None:
        self.disconnected = True
        self._wake()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            self.gone = True
            on_gone()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- request body ---

    def check_length(self, limit: int) -> None:
        length = self.length
        if length is not None and (not length.isdigit() or int(length) > limit):
            self._too_large(limit)

    def body_now(self, limit: int) -> bytes | None:
        self.check_length(limit)
        if self.more_body or self.disconnected:
            return None
        self._check_size(self._unread, limit)
        return self._take()

    async def body(self, limit: int) -> bytes:
        self.check_length(limit)
        while self.more_body or self.disconnected:
            self._check_size(self._unread, limit)
            await self._wait_for_body()
        self._check_size(self._unread, limit)
        return self._take()

    async def body_stream(self, limit: int) -> AsyncIterator[bytes]:
        self.check_length(limit)
        size = 0
        while self.more_body or self._unread:
            if not self._unread or self.disconnected:
                await self._wait_for_body()
                continue
            part = self._take()
            size += len(part)
            self._check_size(size, limit)
            yield part

    def _check_size(self, size: int, limit: int) -> None:
        if size > limit:
            self._too_large(limit)

    def _take(self) -> bytes:
        parts = self._parts
        self._parts = []
        self._unread = 0
        self._connection.flow.resume_reading()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait_for_body(self) -> None:
        if self.disconnected:
            raise self._left()
        if self._expects_continue:
            self._expects_continue = False
            self._transport.write(_CONTINUE)
        self._connection.flow.resume_reading()
        self._waiter = waiter = self._connection.loop.create_future()
        await waiter

    # --- response ---

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        if self.disconnected:
            return
        bodiless = self.method == "HEAD" or status in _BODILESS
        if not bodiless:
            self._chunked = True
            for name, value in headers:
                if name == b"content-length":
                    self._chunked = False
                    self._room = int(value)
        lines = self._head(status, headers)
        if self._chunked:
            lines.append(b"transfer-encoding: chunked")
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n")

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        """The lines of the response's head."""
        self._expects_continue = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
        lines += [b": ".join(header) for header in headers]
        if not self.keep_alive:
            lines.append(b"connection: close")
        return lines

    async def write(self, data: bytes) -> None:
        waiting = self.put(data)
        if waiting is not None:
            await waiting

    def put(self, data: bytes) -> Awaitable[None] | None:
        if self.disconnected or not data:
            return None
        if self._chunked:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif len(data) <= self._room:
            self._room -= len(data)
            self._transport.write(data)
        elif self._room or self.method != "HEAD":
            self.cut()
            return None
        flow = self._connection.flow
        return flow.drain() if flow.write_paused else None

    async def end(self) -> None:
        if self.disconnected:
            return
        if self._room:
            self.cut()
            return
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._complete()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        self._answer(status, join_lines(headers), body)

    def answer_lines(self, status: int, lines: bytes, body: bytes) -> bool:
        if self._connection.flow.write_paused and not self.disconnected:
            return False
        self._answer(status, lines, body)
        return True

    def _answer(self, status: int, lines: bytes, body: bytes) -> None:
        self.started = True
        if self.disconnected:
            return
        self._expects_continue = False
        start = _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
        close = b"" if self.keep_alive else b"connection: close\r\n"
        head = b"%b%b\r\ncontent-length: %d\r\n%b\r\n" % (start, lines, len(body), close)
        if self.method != "HEAD" and status not in _BODILESS:
            head += body
        self._transport.write(head)
        self._complete()

    def _complete(self) -> None:
        self.complete = True
        if not self.keep_alive:
            self._transport.close()
        self._connection.response_ended()

    def cut(self) -> None:
        """Close without the end of the body: what was written goes out, then the connection."""
        if self.version == "1.1":
            self._transport.close()
        else:  # a 1.0 client may take a clean close for the end of the body
            self._transport.abort()
        self.disconnected = True

    def upgrade(self, headers: Headers, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        self.started = True
        if self.disconnected:
            return None
        transport = self._transport
        lines = [b"HTTP/1.1 101 Switching Protocols", *(b": ".join(each) for each in headers)]
        transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        transport.pause_reading()
        transport.set_protocol(protocol)
        return transport

    def lost(self, exc: Exception | None) -> None:
        """The connection that was handed over is closed."""
        self._connection.connection_lost(exc)

    # --- hang-ups ---

    def watch(self, on_gone: Callable[[], None]) -> None:
        if self.disconnected:
            self.gone = True
            on_gone()
        else:
            self._on_gone = on_gone

    def unwatch(self) -> None:
        self._on_gone = None
