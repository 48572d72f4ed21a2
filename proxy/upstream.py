"""The upstream client: keep-alive connections to providers, and requests on them.

    pool = Pool(connect_timeout_s=10, first_byte_timeout_s=600, idle_timeout_s=600)
    origin = Origin.parse("https://api.openai.com/prefix")
    exchange = pool.exchange()
    await pool.send(exchange, origin, head, body)
    exchange.status, exchange.headers
    while data := await exchange.read(): ...
    exchange.release()

HTTP/1.1 over TCP or TLS, directly or through an HTTP proxy. A request costs one write, its answer
one callback per read of the socket; time is watched by one coarse timer for all connections, so
timeouts strike up to two ticks late and never early.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable

from proxy.upstream_connect import connect, default_tls
from proxy.upstream_connection import Connection
from proxy.upstream_errors import (
    Aborted,
    Unreachable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from proxy.upstream_exchange import Exchange
from proxy.upstream_origin import Origin, Proxies, Proxy

__all__ = [
    "Aborted",
    "Exchange",
    "Origin",
    "Pool",
    "Proxies",
    "Proxy",
    "Unreachable",
    "UpstreamBroken",
    "UpstreamError",
    "UpstreamTimeout",
]

Body = bytes | AsyncIterator[bytes]

IDLE_CONNECTION_S = 30  # shorter than any provider's, so that we close first
# A connection closed by its peer while idle dies as soon as something is sent on it. One that dies
# later than this died of the request, which may have been billed: it is not sent again.
STALE_S = 5.0


class Pool:
    """Connections of one event loop. Timeouts are attributes and may be changed at any time."""

    def __init__(
        self,
        *,
        connect_timeout_s: float = 10,
        first_byte_timeout_s: float = 600,
        idle_timeout_s: float = 600,
        max_idle_per_origin: int = 256,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float | None = None,
    ) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.first_byte_timeout_s = first_byte_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.max_idle_per_origin = max_idle_per_origin
        self._tls = tls
        self._clock = clock
        self._tick_s = tick_s
        self._timer: asyncio.TimerHandle | None = None
        self._idle: dict[str, list[Connection]] = {}
        self._connections: set[Connection] = set()
        self._connecting: set[asyncio.Task[Connection]] = set()
        self._closing: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def tls(self) -> ssl.SSLContext:
        """The context of every TLS connection. Making it takes tens of milliseconds: use this
        once at start-up where an https provider is configured."""
        if self._tls is None:
            self._tls = default_tls()
        return self._tls

    # --- requests -----------------------------------------------------------------------------

    def exchange(self) -> Exchange:
        """An exchange for `send`, so that it can be aborted from the very beginning."""
        return Exchange(self._loop or self.loop)

    async def request(
        self, origin: Origin, head: bytes, body: Body = b"", *, retryable: bool = True
    ) -> Exchange:
        """`send` with an exchange of its own."""
        exchange = self.exchange()
        await self.send(exchange, origin, head, body, retryable=retryable)
        return exchange

    async def send(
        self,
        exchange: Exchange,
        origin: Origin,
        head: bytes,
        body: Body = b"",
        *,
        retryable: bool = True,
    ) -> None:
        """Send a request whose head (with `host` and the framing of the body, `connection`
        absent) the caller has built; returns when the head of the answer is here.

        An iterator's parts are written as they are, never faster than the provider reads. If a
        kept connection turns out to be dead before a byte of an answer, a request in bytes is
        sent once more on a new one. Raises UpstreamError; then the exchange is over.
        """
        if origin.proxy is not None and origin.absolute_form:
            head = origin.to_absolute_form(head)
        try:
            if exchange.error is not None:
                raise exchange.error
            kept = self._take(origin.key)
            if kept is not None:
                sent_at = self._clock()
                try:
                    return await exchange.run(kept, head, body)
                except UpstreamBroken as error:
                    fresh = self._clock() - sent_at < STALE_S
                    if error.answered or not (retryable and fresh and isinstance(body, bytes)):
                        raise
                    exchange.restart()
            await exchange.run(await self._connect(exchange, origin), head, body)
        except BaseException as error:
            if isinstance(error, UpstreamError):
                error.sent = exchange.sent  # by the first try, if the second could not connect
            exchange.abort()
            raise

    async def close(self) -> None:
        """Abort everything and wait until every connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closing = self.loop.create_future()
        for task in self._connecting:
            task.cancel()
        for connection in list(self._connections):
            if connection.exchange is not None:
                connection.exchange.abort()
            else:
                connection.abort()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        if self._connections:
            await self._closing

    # --- connections --------------------------------------------------------------------------

    def _take(self, key: str) -> Connection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _connect(self, exchange: Exchange, origin: Origin) -> Connection:
        """A new connection. It is opened in a task of its own, so that an exchange can be given
        up meanwhile; the connection then waits for the next one."""
        task = self.loop.create_task(self._open(origin))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        task.add_done_callback(lambda _: exchange.wake())
        try:
            while not task.done():
                await exchange.wait()
            if exchange.error is not None:
                raise exchange.error
        except BaseException:
            task.add_done_callback(self._keep_unclaimed)
            raise
        if task.cancelled():
            raise Aborted("the pool was closed")
        return task.result()

    async def _open(self, origin: Origin) -> Connection:
        connection = Connection(self, origin.key)
        tls = self.tls if origin.tls else None
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                await connect(self.loop, connection, origin, tls)
        except TimeoutError:
            raise UpstreamTimeout("connect") from None
        if not connection.closed:
            self._connections.add(connection)
            self._start_timer()
        return connection

    def _keep_unclaimed(self, task: asyncio.Task[Connection]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.connection_idle(task.result())

    def connection_idle(self, connection: Connection) -> None:
        """Keep a connection for the next request to its origin."""
        if connection.closed:
            return
        idle = self._idle.get(connection.key)
        if idle is None:
            idle = self._idle[connection.key] = []
        if len(idle) >= self.max_idle_per_origin or self._closing is not None:
            connection.abort()
            return
        connection.idle_since = None
        idle.append(connection)

    def connection_ended(self, connection: Connection) -> None:
        """The peer is gone or going: nobody must be given this connection."""
        idle = self._idle.get(connection.key)
        if idle and connection in idle:
            idle.remove(connection)

    def connection_lost(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if self._closing is not None and not self._connections and not self._closing.done():
            self._closing.set_result(None)

    # --- time ---------------------------------------------------------------------------------

    def _start_timer(self) -> None:
        if self._timer is None:
            shortest = min(self.first_byte_timeout_s, self.idle_timeout_s)
            delay = self._tick_s or min(1.0, max(0.02, shortest / 4))
            self._timer = self.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.tick()
        if self._connections:
            self._start_timer()

    def tick(self) -> None:
        """Fail what is overdue and close what has been idle for long."""
        now = self._clock()
        for connection in list(self._connections):
            if connection.exchange is not None:
                connection.exchange.overdue(now, self.first_byte_timeout_s, self.idle_timeout_s)
            elif connection.idle_since is None:
                connection.idle_since = now
            elif now - connection.idle_since >= IDLE_CONNECTION_S:
                connection.abort()
