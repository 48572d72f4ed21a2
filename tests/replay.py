"""A provider that plays scripted replies on raw sockets and remembers every request.

    with ReplayServer() as server:             # its own loop in a thread, for synchronous SDKs
        server.reply(json_reply({"ok": True}))
        ...call server.url...
        assert server.requests[0].json() == {...}

    async with ReplayServer() as server: ...   # on the loop of the test

Replies come from `on()` rules, first match first, else from the queue `reply()` fills, in order.
Delays are gates that a test opens, never sleeps. A reply says how its bytes are framed and cut,
and how it goes wrong.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.replay_script import (
    Gate,
    Reply,
    Request,
    frame,
    head_of,
    json_reply,
    last_chunk,
    parts_of,
    split,
    sse,
    sse_reply,
)

__all__ = ["Gate", "ReplayServer", "Reply", "Request", "json_reply", "sse", "sse_reply"]

Match = Callable[[Request], bool]
Maker = Callable[[Request], Reply]
Condition = Callable[["ReplayServer"], bool]

NOTHING_SCRIPTED = json_reply({"error": {"message": "no reply scripted"}}, status=599, close=True)


class ReplayServer:
    """See the module. `url` has no trailing slash; TLS if a server-side context is given."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host_name: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.connections_opened = 0
        self.connections_open = 0
        self.port = 0
        self.reading = True
        self._tls = tls
        self._host_name = host_name
        self._rules: list[tuple[Match, Maker]] = []
        self._queue: deque[Reply] = deque()
        self._watchers: list[tuple[Condition, Gate]] = []
        self._watching = threading.RLock()
        self._players: set[_Player] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host_name}:{self.port}"

    # --- scripting ----------------------------------------------------------------------------

    def reply(self, *replies: Reply) -> None:
        """Queue replies; each answers one request that no rule matches."""
        self._queue.extend(replies)

    def on(self, match: str | Match, reply: Reply | Maker, *, first: bool = False) -> None:
        """Answer every request that matches (a str: whose path ends so). `first`: before the
        rules there are."""
        ends = (lambda request: request.path.endswith(match)) if isinstance(match, str) else match
        rule = (ends, (lambda _: reply) if isinstance(reply, Reply) else reply)
        self._rules.insert(0 if first else len(self._rules), rule)

    def reset(self) -> None:
        """Forget script and requests; connections stay."""
        self._rules.clear()
        self._queue.clear()
        self.requests.clear()
        with self._watching:
            self._watchers.clear()

    # --- what happened ------------------------------------------------------------------------

    def wait(self, condition: Condition, timeout_s: float = 10) -> None:
        """Block until the condition holds; not for tests that share the server's loop."""
        assert self._gate(condition).wait_blocking(timeout_s), "the condition never came true"

    async def until(self, condition: Condition, timeout_s: float = 10) -> None:
        """`wait`, on any loop."""
        await asyncio.wait_for(self._gate(condition).wait(), timeout_s)

    def _gate(self, condition: Condition) -> Gate:
        gate = Gate()
        self._watchers.append((condition, gate))
        self.changed()
        return gate

    def changed(self) -> None:
        """Something happened: open the gates whose condition holds now."""
        with self._watching:
            for watcher in list(self._watchers):
                condition, gate = watcher
                if condition(self):
                    gate.open()
                    self._watchers.remove(watcher)

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(
            lambda: _Player(self), "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        players = list(self._players)
        for player in players:
            player.abort()
        await asyncio.gather(*(player.task for player in players))
        await self._server.wait_closed()

    def stop_listening(self) -> None:
        """Refuse new connections; those there are go on. On the server's own loop only."""
        assert self._server is not None
        self._server.close()

    def pause_reading(self) -> None:
        """Take nothing from connections accepted from now on, until `resume_reading`."""
        self.reading = False

    def resume_reading(self) -> None:
        """On the server's own loop only."""
        self.reading = True
        for player in self._players:
            player.transport.resume_reading()

    def drop_idle(self) -> None:
        """Close every connection in order, one that is answering now as soon as it has."""
        assert self._loop is not None
        for player in list(self._players):
            self._loop.call_soon_threadsafe(player.close_when_idle)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), loop).result()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- for players --------------------------------------------------------------------------

    def pick(self, request: Request) -> Reply:
        for match, maker in self._rules:
            if match(request):
                return maker(request)
        return self._queue.popleft() if self._queue else NOTHING_SCRIPTED

    def opened(self, player: "_Player") -> int:
        self._players.add(player)
        self.connections_opened += 1
        self.connections_open += 1
        self.changed()
        return self.connections_opened

    def closed(self, player: "_Player") -> None:
        self._players.discard(player)
        self.connections_open -= 1
        self.changed()


class _HangUp(Exception):
    """The client is gone, or the reply is to end here."""


class _Player(asyncio.Protocol):
    """One connection: reads requests, plays replies."""

    def __init__(self, server: ReplayServer) -> None:
        self.server = server
        self.transport: Any = None
        self.number = 0
        self._busy = False
        self._last = False  # close after the answer that is being played
        self.gone = asyncio.Event()
        self._data = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()

    # transport callbacks

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writable.set()
        if not self.server.reading:  # uvloop begins to read after this callback
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)
        self.number = self.server.opened(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._arrived.set()
        self._writable.set()
        self.server.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close_when_idle(self) -> None:
        if self._busy:
            self._last = True
        else:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    # the conversation

    async def _serve(self) -> None:
        with contextlib.suppress(_HangUp):
            while True:
                head = await self._take_until(b"\r\n\r\n")
                self._busy = True
                request = self._parse(head)
                if request.header("expect") == "100-continue":
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.body = await self._body(request)
                reply = self.server.pick(request)
                self.server.requests.append(request)
                self.server.changed()
                try:
                    await self._play(request, reply)
                except _HangUp:
                    request.hung_up = self.gone.is_set()
                    raise
                finally:
                    self._busy = False
                    self.server.changed()
                if self._last:
                    self._end(reset=False)

    def _parse(self, head: bytes) -> Request:
        line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (at.partition(":") for at in lines)]
        return Request(self.number, head, method, target, headers)

    async def _body(self, request: Request) -> bytes:
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            parts = []
            while size := int((await self._take_until(b"\r\n")).split(b";")[0], 16):
                parts.append(await self._take(size))
                await self._take_until(b"\r\n")
            await self._take_until(b"\r\n")
            return b"".join(parts)
        return await self._take(int(request.header("content-length") or 0))

    async def _take_until(self, mark: bytes) -> bytes:
        while (at := self._data.find(mark)) < 0:
            await self._more()
        return self._pop(at + len(mark))

    async def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            await self._more()
        return self._pop(count)

    def _pop(self, count: int) -> bytes:
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    async def _more(self) -> None:
        self._arrived.clear()
        if self.gone.is_set():
            raise _HangUp
        await self._arrived.wait()

    # playing

    async def _play(self, request: Request, reply: Reply) -> None:
        if reply.before is not None:
            await self._or_gone(reply.before.wait())
        if reply.on_request == "never":
            await self._or_gone(None)
        if reply.on_request != "answer":
            self._end(reset=reply.on_request == "reset")
        if reply.raw is not None:
            await self._write(reply.raw, reply.cuts)
        else:
            await self._write_answer(request, reply)
        if reply.close or reply.then_close or reply.framing == "eof":
            self._end(reset=False)

    async def _write_answer(self, request: Request, reply: Reply) -> None:
        head = b"".join((*reply.informational, head_of(reply)))
        bodiless = request.method == "HEAD" or reply.status in (204, 304)
        if reply.cuts:
            framed = b"".join(frame(reply.framing, part) for part in parts_of(reply))
            await self._write(head + framed + last_chunk(reply.framing), reply.cuts)
            return
        await self._write(head)
        if bodiless:
            return
        await self._at(request, reply)
        for part in parts_of(reply):
            for piece in split(part, request.sent_bytes, reply):
                await self._write(frame(reply.framing, piece))
                request.sent_bytes += len(piece)
                await self._at(request, reply)
        await self._write(last_chunk(reply.framing))

    async def _at(self, request: Request, reply: Reply) -> None:
        """Do what is scripted for this point of the body."""
        if reply.stall_after == request.sent_bytes:
            await self._or_gone(reply.until.wait() if reply.until is not None else None)
        if request.sent_bytes in (reply.close_after, reply.reset_after):
            self._end(reset=request.sent_bytes == reply.reset_after)

    async def _write(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
        for start, end in itertools.pairwise(edges):
            if self.gone.is_set():
                raise _HangUp
            self.transport.write(data[start:end])
            await self._writable.wait()
            await asyncio.sleep(0)  # lets the peer see this piece apart, most of the time

    async def _or_gone(self, awaitable: Any) -> None:
        """Wait for something (None: for ever) or for the client to hang up."""
        gone = asyncio.ensure_future(self.gone.wait())
        tasks = [gone] if awaitable is None else [gone, asyncio.ensure_future(awaitable)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self.gone.is_set():
            raise _HangUp

    def _end(self, *, reset: bool) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        else:
            self.transport.close()
        raise _HangUp
