"""The client's side of one request: body in; status, headers and chunks out.

The call path knows only this interface. `AsgiClient` works under any ASGI server (tests, an
application that mounts Tollkeeper); `proxy/server_client.py` has the one for our own server, which
writes to the transport without ASGI messages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from proxy.errors import Refusal

if TYPE_CHECKING:
    from proxy.arrival import Arrival

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
_PATH_SAFE = "/:@!$&'()*+,;=~"


def join_lines(headers: Headers) -> bytes:
    """The lines of a head, each after a line break."""
    return b"\r\n".join([b"", *[b": ".join(header) for header in headers]])


def split_lines(lines: bytes) -> Headers:
    """The inverse."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n")[1:])
    return [(name, value) for name, _, value in pairs]


def path_of(scope: Scope) -> bytes:
    """The raw path below wherever the application is mounted."""
    path: bytes = scope.get("raw_path") or quote(scope["path"], safe=_PATH_SAFE).encode()
    root = quote(scope.get("root_path", ""), safe=_PATH_SAFE).encode().rstrip(b"/")
    return path[len(root) :] if root and path.startswith(root + b"/") else path


class ClientGoneError(Exception):
    """The client hung up while its request body was being read."""


class AsgiClient:
    """One request under plain ASGI."""

    upgradable = False  # whether `upgrade` can be used

    __slots__ = (
        "_receive",
        "_send",
        "_watcher",
        "arrival",
        "gone",
        "headers",
        "method",
        "query",
        "raw_path",
        "started",
        "task",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.raw_path = path_of(scope)
        self.query: bytes = scope["query_string"]
        self.headers: Headers = scope["headers"]
        self.started = False  # the status line is out: an error can only cut the stream now
        self.gone = False
        self.arrival: Arrival | None = None  # of the call before with the same head
        self.task: asyncio.Task[None] | None = None  # that serves it, where it is its own
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None

    def header(self, wanted: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        for name, value in self.headers:
            if name == wanted:
                return value
        return None

    # --- request body ---

    def body_now(self, limit: int) -> bytes | None:
        """`body`, if all of it is here already; else None."""
        return None

    async def body(self, limit: int) -> bytes:
        """The whole request body. Raises Refusal `request_too_large`, ClientGoneError."""
        self.check_length(limit)
        message = await self._receive()
        if message["type"] != "http.request":
            raise self._left()
        if not message.get("more_body"):
            data: bytes = message.get("body", b"")
            return data if len(data) <= limit else self._too_large(limit)
        return await self._body_in_pieces(message.get("body", b""), limit)

    async def _body_in_pieces(self, first: bytes, limit: int) -> bytes:
        parts, size, more = [first], len(first), True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise self._left()
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > limit:
                self._too_large(limit)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def body_stream(self, limit: int) -> AsyncIterator[bytes]:
        """The request body piece by piece, for bodies that are not metered."""
        self.check_length(limit)
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise self._left()
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                self._too_large(limit)
            if part:
                yield part
            more = message.get("more_body", False)

    def check_length(self, limit: int) -> None:
        """Refuse a body by its announced length, before a byte of it is read."""
        length = self.header(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > limit):
            self._too_large(limit)

    def _too_large(self, limit: int) -> bytes:
        raise Refusal(
            "request_too_large",
            f"The request body is larger than {limit} bytes (server.max_body_mb).",
        )

    def _left(self) -> ClientGoneError:
        self.gone = True
        return ClientGoneError()

    # --- response ---

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and headers; chunks follow."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a chunk; waits while the client is slower than the provider."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def put(self, data: bytes) -> Awaitable[None] | None:
        """`write` for loops: hands the chunk over and returns None, or what must be awaited."""
        return self.write(data)

    async def end(self) -> None:
        """End the response cleanly: the client may take it as complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response; `headers` must not hold a content-length."""
        headers.append((b"content-length", b"%d" % len(body)))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def answer_lines(self, status: int, lines: bytes, body: bytes) -> bool:
        """`answer` with the lines of the head as they are to go out, each after a line break, if
        nothing has to be waited for; else False, and nothing was done."""
        return False

    def cut(self) -> None:
        """Cut the connection, so that no SDK takes what it has for a complete answer.

        Under plain ASGI the only way to say so is to fail.
        """
        raise ConnectionAbortedError("reply cut: the provider's connection broke")

    def upgrade(self, headers: Headers, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """Answer 101: the connection is `protocol`'s from now on. None: the client is gone."""
        raise NotImplementedError

    def lost(self, exc: Exception | None) -> None:
        """The connection that was handed over is closed."""

    # --- hang-ups ---

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` as soon as the client hangs up; the body must have been read."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(on_gone))

    async def _watch(self, on_gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        on_gone()

    def unwatch(self) -> None:
        """The call has ended: hang-ups no longer matter."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
