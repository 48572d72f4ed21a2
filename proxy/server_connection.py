"""Client connections: uvicorn's httptools protocol with limits on heads and bodies, and one that
serves the call path without ASGI in between.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.arrival import Arrival
from proxy.client import Headers
from proxy.server_client import ServerClient

Handler = Callable[[ServerClient], Awaitable[None]]
log = logging.getLogger(__name__)

_TOO_LARGE_BODY = (
    b'{"error":{"message":"The request head is too large (server.max_header_kb).",'
    b'"type":"invalid_request_error","param":null,"code":"request_too_large"}}'
)
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"x-should-retry: false\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY)
)


class Connection(HttpToolsProtocol):
    """A connection to an ASGI application."""

    header_bytes_max = 64 * 1024
    head_timeout_s = 60.0
    body_timeout_s = 600.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._active_at = self.loop.time()  # when bytes came last, or a response ended
        self._in_head = True
        self._received = 0  # size of the piece being parsed
        self._head_bytes = 0  # of the pieces that began inside this head

    def data_received(self, data: bytes) -> None:
        self._active_at = self.loop.time()
        self._received = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.header_bytes_max:
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._in_head = True

    def on_headers_complete(self) -> None:
        if self._head_fits():
            super().on_headers_complete()

    def _head_fits(self) -> bool:
        """The head is here: whether it is served. The sizes are added up only where they could
        be too large."""
        self._in_head = False
        if self._received + self._head_bytes > self.header_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self.header_bytes_max:
                self._refuse_head()
        return not self.transport.is_closing()

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

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
        idle = now - self._active_at
        if (self._in_head and idle > self.head_timeout_s) or (
            self._waits_for_body() and idle > self.body_timeout_s
        ):
            self.transport.close()

    def _waits_for_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body


class LastHead:
    """The head of the request before: most clients send the same one with every call of a
    connection, but for the length of the body."""

    __slots__ = (
        *("_after", "_before", "_count", "_method", "_url"),
        *("arrival", "length_at", "path", "query"),
    )

    def __init__(self, client: ServerClient, arrival: Arrival, length_at: int) -> None:
        path, query = client.raw_path, client.query
        self._url = path + b"?" + query if query else path
        self._method = client.method
        self.path, self.query = path, query
        self.arrival = arrival
        self.length_at = length_at
        self._count = len(client.headers)
        self._before = client.headers[:length_at]
        self._after = client.headers[length_at + 1 :]

    @classmethod
    def of(cls, client: ServerClient) -> "LastHead | None":
        """None: not one to be repeated."""
        names = [name for name, _ in client.headers]
        if client.arrival is None or b"content-length" not in names or b"expect" in names:
            return None
        return cls(client, client.arrival, names.index(b"content-length"))

    def is_repeated(self, method: str, url: bytes, headers: Headers) -> bool:
        """Whether a head differs in nothing but the length of its body."""
        at = self.length_at
        return (
            len(headers) == self._count
            and headers[at][0] == b"content-length"
            and url == self._url
            and method == self._method
            and headers[:at] == self._before
            and headers[at + 1 :] == self._after
        )


class DirectConnection(Connection):
    """A connection to the call path: a task per request and nothing else that costs time, no
    scope, no messages, no timer (bench/README.md). Requests are served one after the other."""

    handler: Handler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._serve = type(self).handler
        self._client: ServerClient | None = None  # whose head came last
        self._last: LastHead | None = None  # of a request that was metered
        self._waiting: deque[ServerClient] = deque()  # pipelined
        self._serving: ServerClient | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.clear()
        if self._serving is not None:
            self._serving.on_connection_lost()

    # --- parser callbacks ---

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._head_bytes = 0
        self._in_head = True
        self._client = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if not self._head_fits():
            return
        parser, headers, last = self.parser, self.headers, self._last
        method = parser.get_method().decode("ascii")
        if last is not None and last.is_repeated(method, self.url, headers):
            client = ServerClient(self, method, last.path, last.query, headers)
            client.arrival = last.arrival
            client.length = headers[last.length_at][1]
        else:
            client = self._first(method)
        self._client = client
        client.version = version = parser.get_http_version()
        client.keep_alive = version != "1.0" and parser.should_keep_alive()
        if self._serving is None:
            self._start(client)
        else:
            self.flow.pause_reading()
            self._waiting.append(client)

    def _first(self, method: str) -> ServerClient:
        """A request whose head is not that of the request before."""
        url = self.url
        if url.startswith(b"/") and b"#" not in url:
            path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            path, query = parsed.path, parsed.query or b""
        if path is None or not path.isascii():
            raise ValueError("no such path")
        client = ServerClient(self, method, path, query, self.headers)
        for name, value in self.headers:
            if name == b"content-length":
                client.length = value
            elif name == b"expect" and value.lower() == b"100-continue":
                client.expect_continue()
        return client

    def on_body(self, body: bytes) -> None:
        client = self._client
        if client is not None and not client.complete:
            client.on_body(body)

    def on_message_complete(self) -> None:
        if self._client is not None:
            self._client.on_body_end()

    # --- requests ---

    def _start(self, client: ServerClient) -> None:
        self._serving = client
        # The task is held by whatever it waits for; the gateway keeps its calls besides.
        self.loop.create_task(self._run(client))

    async def _run(self, client: ServerClient) -> None:
        try:
            await self._serve(client)
        except Exception:
            log.exception("request failed")
        finally:
            if not client.complete and not client.disconnected:
                self.transport.close()

    def response_ended(self) -> None:
        client, self._serving = self._serving, None
        if client is not None and client.arrival is not None:
            last = self._last
            if last is None or last.arrival is not client.arrival:
                self._last = LastHead.of(client)
        self.server_state.total_requests += 1
        self._active_at = self.loop.time()
        if self.transport.is_closing():
            return
        if self._waiting:
            self._start(self._waiting.popleft())
        if not self._waiting:
            self.flow.resume_reading()

    # --- time ---

    def shutdown(self) -> None:
        """Close once the request being served is answered."""
        if self._serving is None:
            self.transport.close()
        else:
            self._serving.keep_alive = False

    def sweep(self, now: float) -> None:
        super().sweep(now)
        idle = self._serving is None and not self._in_head and not self._waits_for_body()
        if idle and now - self._active_at > self.timeout_keep_alive:
            self.transport.close()

    def _waits_for_body(self) -> bool:
        return self._client is not None and self._client.more_body
