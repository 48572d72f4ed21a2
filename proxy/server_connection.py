"""Client connections: uvicorn's httptools protocol with limits on heads and bodies."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
