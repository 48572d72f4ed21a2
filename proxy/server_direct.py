"""Client connections that serve the call path without ASGI in between."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import httptools

from proxy.arrival import Arrival
from proxy.client import Headers
from proxy.server_client import ServerClient
from proxy.server_connection import Connection

Handler = Callable[[ServerClient], Awaitable[None]]
log = logging.getLogger(__name__)

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_DIGITS_MAX = 16


class LastHead(NamedTuple):
    """The head of a metered request. Most clients send the same one, byte for byte but for the
    length of the body, with every call of a connection: it needs no parsing then."""

    before: bytes  # up to the digits of the length
    after: bytes  # from there to the body
    method: str
    path: bytes
    query: bytes
    headers: Headers
    length_at: int  # index in `headers`
    version: str
    arrival: Arrival

    @classmethod
    def of(cls, raw: bytes, client: ServerClient) -> "LastHead | None":
        """`raw` begins with the head of `client`. None: it is not one to be repeated."""
        if not raw or client.arrival is None or client.length is None:
            return None
        end, at = raw.find(_HEAD_END), raw.lower().find(_LENGTH)
        if not 0 <= at < end or not raw.startswith(client.method.encode() + b" "):
            return None
        start = at + len(_LENGTH)
        while raw[start : start + 1] == b" ":
            start += 1
        stop = start + len(client.length)
        names = [name for name, _ in client.headers]
        if raw[start:stop] != client.length or b"expect" in names or not client.keep_alive:
            return None
        return cls(
            raw[:start],
            raw[stop : end + len(_HEAD_END)],
            client.method,
            client.raw_path,
            client.query,
            client.headers,
            names.index(b"content-length"),
            client.version,
            client.arrival,
        )

    def find(self, data: bytes) -> tuple[bytes, int] | None:
        """The length's digits and where the body begins, if `data` begins with the same head."""
        before, after = self.before, self.after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _DIGITS_MAX)
        if end < 0 or not data.startswith(after, end):
            return None
        digits = data[start:end]
        return (digits, end + len(after)) if digits.isdigit() else None

    def headers_with(self, length: bytes) -> Headers:
        headers = self.headers.copy()
        headers[self.length_at] = (b"content-length", length)
        return headers


class DirectConnection(Connection):
    """A connection to the call path: a task per request and nothing else that costs time, no
    scope, no messages, no timer (bench/README.md). Requests are served one after the other."""

    handler: Handler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._serve = type(self).handler
        self._client: ServerClient | None = None  # whose head came last
        self._last: LastHead | None = None
        self._missing = 0  # bytes of a body whose head was not parsed
        self._in_message = False  # the parser is
        self._raw = b""  # the piece that begins with the head being parsed; b"": none does
        self._waiting: deque[ServerClient] = deque()  # pipelined
        self._serving: ServerClient | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._waiting.clear()
        if self._serving is not None:
            self._serving.on_connection_lost()

    # --- bytes ---

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._active_at = self.loop.time()
            data = self._take_body(data)
            if not data:
                return
        if self._serving is None and not self._in_message:
            last = self._last
            found = last.find(data) if last is not None else None
            if last is not None and found is not None:
                data = self._repeat(last, found[0], data[found[1] :])
                if not data:
                    return
            else:
                self._raw = data
        super().data_received(data)

    def _repeat(self, last: LastHead, length: bytes, body: bytes) -> bytes:
        """Serve a request whose head is that of the request before; what comes behind it."""
        self._active_at = self.loop.time()
        headers = last.headers_with(length)
        client = self._client = ServerClient(self, last.method, last.path, last.query, headers)
        client.arrival, client.length, client.version = last.arrival, length, last.version
        client.repeats = last
        self._start(client)
        self._missing = int(length)
        return self._take_body(body)

    def _take_body(self, data: bytes) -> bytes:
        """Pass on what belongs to the body; the rest."""
        client, missing = self._client, self._missing
        assert client is not None
        part = data if len(data) <= missing else data[:missing]
        self._missing = missing = missing - len(part)
        if part and not client.complete:
            client.on_body(part)
        if not missing:
            client.on_body_end()
        return data[len(part) :]

    # --- parser callbacks ---

    def on_message_begin(self) -> None:
        self._in_message = True
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
        parser, url = self.parser, self.url
        if url.startswith(b"/") and b"#" not in url:
            path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            path, query = parsed.path, parsed.query or b""
        if path is None or not path.isascii():
            raise ValueError("no such path")
        method = parser.get_method().decode("ascii")
        client = self._client = ServerClient(self, method, path, query, self.headers)
        client.raw, self._raw = self._raw, b""  # a pipelined one has none
        client.version = version = parser.get_http_version()
        client.keep_alive = version != "1.0" and parser.should_keep_alive()
        for name, value in self.headers:
            if name == b"content-length":
                client.length = value
            elif name == b"expect" and value.lower() == b"100-continue":
                client.expect_continue()
        if self._serving is None:
            self._start(client)
        else:
            self.flow.pause_reading()
            self._waiting.append(client)

    def on_body(self, body: bytes) -> None:
        client = self._client
        if client is not None and not client.complete:
            client.on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        if self._client is not None:
            self._client.on_body_end()

    # --- requests ---

    def _start(self, client: ServerClient) -> None:
        self._serving = client
        # The task is held by whatever it waits for; the gateway keeps its calls besides.
        client.task = self.loop.create_task(self._run(client))

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
        assert client is not None
        last, arrival = client.repeats, client.arrival
        if last is None:
            self._last = LastHead.of(client.raw, client)
        elif arrival is not None and arrival is not last.arrival:
            self._last = last._replace(arrival=arrival)  # a snapshot came in between
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
