"""One request and its answer on one connection: the hot path of the upstream client.

No task, no timer and no lock per exchange: the transport's callbacks fill the exchange, and its
one consumer waits on a future only when there is nothing to take. `Pool` decides which connection
an exchange runs on and watches the time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httptools

from proxy.upstream_connection import Connection
from proxy.upstream_errors import (
    Aborted,
    TimeoutKind,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)

HEAD_BYTES_MAX = 65_536  # also bounds trailers, 1xx heads and chunk extensions in a row
HEADERS_MAX = 256
BUFFERED_BYTES_MAX = 262_144  # unread body above this pauses the connection
JOINED_BYTES_MAX = 65_536  # a head and a body up to this leave in one write

Sink = Callable[[bytes], Awaitable[None] | None]


class Exchange:
    """One request and its answer.

    `status` and `headers` (names in lower case, as received otherwise) are set once the request
    has been sent and the head of the answer is here. Then `read()` until b"", and `release()` in
    any case. `abort()` is safe at any time and from any callback on the loop.
    """

    __slots__ = (
        "_bodiless",
        "_chunks",
        "_connection",
        "_fields",
        "_head_done",
        "_loop",
        "_overhead",
        "_parser",
        "_paused",
        "_sink",
        "_size",
        "_sunk",
        "_uploaded",
        "_waiter",
        "answered",
        "complete",
        "error",
        "headers",
        "keep_alive",
        "may_upgrade",
        "quiet_since",
        "rest",
        "sent",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # the answer
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        # facts for charge rules
        self.sent = False  # some of the request may have reached the provider
        self.answered = False  # at least one byte came back
        self.complete = False  # the answer came to its clean end
        self.error: UpstreamError | None = None
        # another protocol
        self.may_upgrade = False  # set by a caller that asks for one
        self.rest: bytes | None = None  # what came behind a 101; None: there was none
        # state
        self.keep_alive = False
        self.quiet_since: float | None = None  # clock of the first tick after the last progress
        self._connection: Connection | None = None
        self._parser: Any = None  # an HttpResponseParser while there is a connection
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None  # takes the body, while `pump` runs
        self._sunk: Awaitable[None] | Exception | None = None  # why it took no more
        self._fields: list[tuple[bytes, bytes]] = []
        self._bodiless = False
        self._head_done = False
        self._uploaded = False
        self._paused = False
        self._size = 0  # body bytes not read yet
        self._overhead = 0  # bytes received in a row that were no body

    # --- what a caller uses -------------------------------------------------------------------

    def read_now(self) -> bytes:
        """`read` of what is here already; b"" if nothing is."""
        chunks = self._chunks
        if not chunks:
            return b""
        self._chunks = []
        self._size = 0
        if self._paused:
            self._resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        """The next body bytes as they came, b"" after the last.

        Raises UpstreamError if the answer is cut; what came before the cut is returned first.
        Cancelling it loses nothing: the next call goes on.
        """
        while True:
            if self._chunks:
                return self.read_now()
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            self._waiter = waiter = self._loop.create_future()
            await waiter

    async def pump(self, sink: Sink) -> Awaitable[None] | None:
        """Hand the body to `sink` as it comes, in the transport's own callback, so that a piece of
        a stream wakes no task. Returns at the end of the answer or at an error, which `read` then
        tells, or with what `sink` wants awaited before the next piece. Raises what `sink` raises.
        """
        self._sink, self._sunk = sink, None
        try:
            while self._sink is not None and not self.complete and self.error is None:
                self._waiter = waiter = self._loop.create_future()
                await waiter
        finally:
            self._sink = None
        if isinstance(self._sunk, Exception):
            raise self._sunk
        return self._sunk

    def _sink_body(self, sink: Sink) -> bool:
        """True: the sink takes more, and the end has not come."""
        try:
            self._sunk = sink(self.read_now())
        except Exception as exc:
            self._sunk = exc
        if self._sunk is not None:
            self._sink = None
        return self._sunk is None and not self.complete and self.error is None

    def release(self) -> None:
        """Done with the exchange: keep the connection for the next one if that is possible."""
        connection = self._connection
        if connection is None:
            return
        if self.complete and self.keep_alive and self._uploaded and not connection.closed:
            if self._paused:
                self._resume()
            connection.exchange = self._connection = self._parser = None
            connection.owner.connection_idle(connection)
        else:
            self.abort()

    def take_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """The connection after a 101, its reading paused: `protocol`'s from now on, not the
        pool's. `rest` is what has been read of it."""
        connection = self._connection
        assert connection is not None
        assert self.rest is not None
        self._detach()
        connection.owner.connection_lost(connection)
        connection.transport.set_protocol(protocol)
        return connection.transport

    def abort(self) -> None:
        """Drop the connection; whoever waits in `read()` or for the head gets `Aborted`."""
        self._chunks = []
        self.fail(Aborted("aborted", sent=self.sent, answered=self.answered))

    # --- what the pool uses -------------------------------------------------------------------

    async def run(
        self, connection: Connection, head: bytes, body: bytes | AsyncIterator[bytes]
    ) -> None:
        """Send the request; returns when the head of the answer is here. Raises UpstreamError."""
        self._connection = connection
        connection.exchange = self
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = head.startswith(b"HEAD ")
        self.quiet_since = None
        self.sent = True
        if isinstance(body, bytes):
            if len(body) <= JOINED_BYTES_MAX:
                connection.transport.write(head + body)
            else:
                connection.transport.write(head)
                connection.transport.write(body)
            self._uploaded = True
        else:
            await self._upload(connection, head, body)
        while not self._head_done:
            if self.error is not None:
                raise self.error
            self._waiter = waiter = self._loop.create_future()
            await waiter

    async def wait(self) -> None:
        """Wait for the next thing to happen. Raises `error` if there is one, before or after."""
        if self.error is None:
            self._waiter = waiter = self._loop.create_future()
            await waiter
        if self.error is not None and not self._head_done:
            raise self.error

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with an error, unless it has ended already."""
        if self.error is None and not self.complete:
            self.error = error
        connection = self._connection
        if connection is not None:
            self._detach()
            connection.abort()
        self.wake()

    def restart(self) -> None:
        """Forget a try that ended before a byte of the answer, to run on another connection."""
        assert not self.answered
        self.error = None
        if self._connection is not None:
            self._detach()

    def overdue(self, now: float, first_byte_s: float, idle_s: float) -> bool:
        """Called on every tick: fail if somebody has waited for the provider for too long."""
        waiter = self._waiter
        if self.quiet_since is None or waiter is None or waiter.done():
            self.quiet_since = now  # there was progress, or it is the consumer who is slow
            return False
        waits_for_head = self._uploaded and not self._head_done
        if now - self.quiet_since < (first_byte_s if waits_for_head else idle_s):
            return False
        kind: TimeoutKind = "first_byte" if waits_for_head else "idle"
        self.fail(UpstreamTimeout(kind, sent=True, answered=self.answered))
        return True

    # --- sending ------------------------------------------------------------------------------

    async def _upload(
        self, connection: Connection, head: bytes, body: AsyncIterator[bytes]
    ) -> None:
        connection.transport.write(head)
        async for part in body:
            if self._head_done or self.error is not None:
                return  # answered before the end of the request: the rest is not wanted
            connection.transport.write(part)
            self.quiet_since = None
            while connection.write_paused and not self._head_done:
                await self.wait()
        self._uploaded = True
        self.quiet_since = None

    # --- receiving ----------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes off the connection."""
        if self.complete:
            self.keep_alive = False  # more than was asked for: not to be used again
            return
        size = self._size
        try:
            if self._head_done:
                self.quiet_since = None
                self._parser.feed_data(data)
            else:
                self.answered = True
                self._feed_head(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._unparsable(error, data)
        if self._size == size:
            self._feed_overhead(len(data))
        else:
            self._overhead = 0
            if self._size > BUFFERED_BYTES_MAX and not self._paused:
                self._pause()
        if self._sink is not None and self._chunks and self._sink_body(self._sink):
            return
        waiter = self._waiter
        if waiter is not None and (self._head_done or self.error is not None):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _feed_head(self, data: bytes) -> None:
        parser = self._parser
        room = HEAD_BYTES_MAX - self._overhead
        if len(data) <= room:
            parser.feed_data(data)
            return
        parser.feed_data(data[:room])
        if not self._head_done:
            raise httptools.HttpParserError(f"the head is larger than {HEAD_BYTES_MAX} bytes")
        parser.feed_data(data[room:])

    def _feed_overhead(self, count: int) -> None:
        self._overhead += count
        if self._overhead > HEAD_BYTES_MAX and not self.complete:
            self._break(f"more than {HEAD_BYTES_MAX} bytes of framing without a body")

    def _unparsable(self, error: Exception, data: bytes) -> None:
        if isinstance(error, httptools.HttpParserUpgrade) and self.status == 101:
            self.rest, self.keep_alive = data[error.args[0] :], False
            self._pause()
        elif self.complete:
            self.keep_alive = False  # whatever came after the answer is not ours
        else:
            self._break(f"invalid HTTP: {error.__context__ or error}")

    def _break(self, reason: str) -> None:
        self.fail(UpstreamBroken(reason, sent=True, answered=self.answered))

    def connection_ended(self, exc: Exception | None, *, clean: bool) -> None:
        """The peer closed (`clean`: with an orderly end of its stream), or the network did."""
        if not self.complete:
            if clean and self._head_done and self._ends_with_connection():
                self.complete = True
            elif self.error is None:
                reason = f"connection lost: {exc}" if exc else "connection closed by the provider"
                self.error = UpstreamBroken(reason, sent=self.sent, answered=self.answered)
        self.wake()

    def _ends_with_connection(self) -> bool:
        """The answer has neither a length nor chunks: its end is the end of the connection."""
        for name, value in self.headers:
            if name == b"content-length":
                return False
            if name == b"transfer-encoding" and value.lower().rstrip().endswith(b"chunked"):
                return False
        return True

    def _pause(self) -> None:
        connection = self._connection
        if connection is not None and not connection.closed:
            self._paused = True
            connection.transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        connection = self._connection
        if connection is not None and not connection.closed:
            connection.transport.resume_reading()

    def _detach(self) -> None:
        assert self._connection is not None
        # The parser holds our methods: a cycle.
        self._connection.exchange = self._connection = self._parser = None

    # --- parser callbacks ---------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._head_done:
            raise httptools.HttpParserError("a second answer")
        status: int = self._parser.get_status_code()
        if status == 101 and not self.may_upgrade:
            raise httptools.HttpParserError("switched to another protocol")
        if len(self._fields) > HEADERS_MAX:
            raise httptools.HttpParserError(f"more than {HEADERS_MAX} headers")
        if status < 200 and status != 101:
            return
        self.status = status
        self.headers = self._fields
        self._fields = []  # trailers, which are dropped
        self._head_done = True
        if self._bodiless:
            self.complete = True
            raise httptools.HttpParserError("the answer to HEAD has no body")

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        if not self._head_done:
            self._fields = []  # that was a 1xx: the answer is still to come
            return
        self.complete = True
        self.keep_alive = self._parser.should_keep_alive()
