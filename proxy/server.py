"""Our HTTP server: uvicorn's httptools protocol, with hang-ups seen at once and lean writes.

uvicorn does the parsing, keep-alive, pipelining and shutdown. What is ours: a limit on the size
and duration of request heads, no WebSocket upgrade (answered 426 by the call path), a callback
when the client hangs up, and a client that writes to the transport without ASGI messages, which
halves the cost of a response (bench/README.md).
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from proxy.client import AsgiClient, Headers, Receive, Scope, Send

_EXTENSION = "tollkeeper.connection"
_TOO_LARGE_BODY = (
    b'{"error":{"message":"The request head is too large (server.max_header_kb).",'
    b'"type":"invalid_request_error","param":null,"code":"request_too_large"}}'
)
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"x-should-retry: false\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY)
)
_SWEEP_S = 5.0


class Connection(HttpToolsProtocol):
    """One client connection."""

    header_bytes_max = 64 * 1024
    head_timeout_s = 60.0
    body_timeout_s = 600.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_gone: Callable[[], None] | None = None
        self._header_bytes = 0
        self._last_data = self.loop.time()
        self._in_head = True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone()

    def data_received(self, data: bytes) -> None:
        self._last_data = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {_EXTENSION: self}
        self.scope["extensions"] = extensions
        self._header_bytes = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        super().on_url(url)
        self._limit_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        super().on_header(name, value)
        self._limit_head()

    def _limit_head(self) -> None:
        if self._header_bytes > self.header_bytes_max and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """The call path answers an upgrade with 426; there is nothing to warn about."""

    def sweep(self, now: float) -> None:
        """Close a connection whose request head or body does not arrive."""
        idle = now - self._last_data
        waiting_for_body = self.cycle is not None and self.cycle.more_body
        if (self._in_head and idle > self.head_timeout_s) or (
            waiting_for_body and idle > self.body_timeout_s
        ):
            self.transport.close()


class ServerClient(AsgiClient):
    """A request under our own server. Writes skip ASGI's messages and its header checks: the
    headers come from httptools' parser or from our own constants."""

    __slots__ = ("_connection", "_cycle")

    def __init__(self, scope: Scope, receive: Receive, send: Send, connection: Connection) -> None:
        super().__init__(scope, receive, send)
        self._connection = connection
        self._cycle: RequestResponseCycle = receive.__self__  # type: ignore[attr-defined]

    async def start(self, status: int, headers: Headers) -> None:
        if self.method == "HEAD" or status in (204, 304):
            await super().start(status, headers)
            return
        self.started = True
        cycle = self._cycle
        if cycle.disconnected:
            return
        sized = [value for name, value in headers if name == b"content-length"]
        if sized:
            cycle.expected_content_length = int(sized[0])
            cycle.chunked_encoding = False
        else:
            cycle.chunked_encoding = True
        cycle.transport.write(self._head(status, headers, chunked=not sized))

    def _head(self, status: int, headers: Headers, *, chunked: bool) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        parts = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected or not data:
            return
        if cycle.chunked_encoding:
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif len(data) <= cycle.expected_content_length:
            cycle.expected_content_length -= len(data)
            cycle.transport.write(data)
        else:
            self.cut()

    async def end(self) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        if cycle.chunked_encoding is None or self.method == "HEAD":
            await super().end()
        elif cycle.expected_content_length:
            self.cut()
        else:
            if cycle.chunked_encoding:
                cycle.transport.write(b"0\r\n\r\n")
            self._complete()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self.method == "HEAD" or status in (204, 304):
            await super().answer(status, headers, body)
            return
        self.started = True
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        headers.append((b"content-length", b"%d" % len(body)))
        cycle.chunked_encoding = False
        cycle.transport.write(self._head(status, headers, chunked=False) + body)
        self._complete()

    def _complete(self) -> None:
        """What uvicorn does at the end of a response."""
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def cut(self) -> None:
        """Close without the end of the body: what was written goes out, then the connection."""
        cycle = self._cycle
        if cycle.scope["http_version"] == "1.1":
            cycle.transport.close()
        else:  # a 1.0 client may take a clean close for the end of the body
            cycle.transport.abort()
        cycle.disconnected = True

    def watch(self, on_gone: Callable[[], None]) -> None:
        if self._cycle.disconnected:
            self._gone(on_gone)
        else:
            self._connection.on_gone = lambda: self._gone(on_gone)

    def _gone(self, on_gone: Callable[[], None]) -> None:
        self.gone = True
        on_gone()

    def unwatch(self) -> None:
        self._connection.on_gone = None


def client_for(scope: Scope, receive: Receive, send: Send) -> AsgiClient:
    """The leanest client that the server under us allows."""
    connection = scope.get("extensions", {}).get(_EXTENSION)
    if connection is None:
        return AsgiClient(scope, receive, send)
    return ServerClient(scope, receive, send, connection)


class Server:
    """uvicorn on given sockets, without its signal handling: the worker decides when to stop."""

    def __init__(self, app: Any, *, keep_alive_s: float, header_bytes_max: int) -> None:
        protocol = type("Connection", (Connection,), {"header_bytes_max": header_bytes_max})
        self._config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # the provider's own date goes through
            timeout_keep_alive=int(keep_alive_s),
        )
        self._server = uvicorn.Server(self._config)
        self._server.servers = []  # uvicorn makes the list when it starts
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, sockets: list[socket.socket]) -> None:
        """Begin to accept."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets)
        self._sweep()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._server.server_state.connections):
            connection.sweep(now)  # type: ignore[union-attr]
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)

    def close_listeners(self) -> None:
        """Stop accepting at once; open connections go on."""
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    async def stop(self) -> None:
        """Close what is left: idle connections, and those whose call has ended."""
        if self._sweeper is None:
            return  # never started
        self._sweeper.cancel()
        self.close_listeners()
        for connection in list(self._server.server_state.connections):
            connection.transport.close()
        for server in self._server.servers:
            server.close()
