"""The server on real sockets: lean writes, hang-ups, limits; and the same client under ASGI."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from proxy.client import AsgiClient
from proxy.errors import Refusal
from proxy.server import Server
from proxy.server_client import ServerClient
from proxy.server_direct import DirectConnection

Handler = Callable[[AsgiClient], Awaitable[None]]


class Conversation:
    """One raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, raw: bytes) -> bytes:
        """Send raw bytes; read until the server closes."""
        self.writer.write(raw)
        return await asyncio.wait_for(self.reader.read(), 5)

    async def read_until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), 5)


@asynccontextmanager
async def serving(handler: Handler, header_bytes_max: int = 4096) -> AsyncIterator[Conversation]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(None, direct=handler, keep_alive_s=75, header_bytes_max=header_bytes_max)
    await server.start([listener])
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield Conversation(reader, writer)
    finally:
        writer.close()
        await server.stop()


def get(path: str = "/", *headers: str, close: bool = True) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: t", *headers]
    if close:
        lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


async def test_a_whole_answer_in_one_write() -> None:
    async def handler(client: AsgiClient) -> None:
        await client.answer(200, [(b"content-type", b"text/plain")], b"hello")

    async with serving(handler) as talk:
        raw = await talk.ask(get())
    assert raw == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
        b"connection: close\r\n\r\nhello"
    )


async def test_a_stream_is_chunked_and_keeps_the_connection() -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(200, [(b"content-type", b"text/event-stream")])
        await client.write(b"data: 1\n\n")
        await client.write(b"")
        await client.write(b"data: 2\n\n")
        await client.end()

    async with serving(handler) as talk:
        for _ in range(2):
            talk.writer.write(get(close=False))
            raw = await talk.read_until(b"0\r\n\r\n")
            assert raw.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n")


async def test_a_sized_stream_keeps_its_length() -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(200, [(b"content-length", b"6")])
        await client.write(b"abc")
        await client.write(b"def")
        await client.end()

    async with serving(handler) as talk:
        raw = await talk.ask(get())
    assert raw.endswith(b"content-length: 6\r\nconnection: close\r\n\r\nabcdef")


@pytest.mark.parametrize("written", [b"abc", b"abcdefg"])
async def test_a_body_of_another_length_than_announced_is_cut(written: bytes) -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(200, [(b"content-length", b"6")])
        await client.write(written)
        await client.end()

    async with serving(handler) as talk:
        raw = await talk.ask(get(close=False))
    body = raw.partition(b"\r\n\r\n")[2]
    assert len(body) < 6


async def test_a_cut_never_ends_a_body_cleanly() -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(200, [])
        await client.write(b"data: 1\n\n")
        client.cut()

    async with serving(handler) as talk:
        raw = await talk.ask(get(close=False))
    assert raw.endswith(b"9\r\ndata: 1\n\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(status: int) -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(status, [])
        await client.end()

    async with serving(handler) as talk:
        raw = await talk.ask(get())
    assert raw.partition(b"\r\n\r\n")[2] == b""
    assert b"transfer-encoding" not in raw


async def test_head_has_headers_and_no_body() -> None:
    async def handler(client: AsgiClient) -> None:
        await client.start(200, [(b"content-length", b"6")])
        await client.write(b"")
        await client.end()

    async with serving(handler) as talk:
        raw = await talk.ask(get().replace(b"GET", b"HEAD"))
    assert raw.endswith(b"content-length: 6\r\nconnection: close\r\n\r\n")


async def test_a_hang_up_is_seen_at_once() -> None:
    gone = asyncio.Event()
    waiting = asyncio.Event()

    async def handler(client: AsgiClient) -> None:
        await client.body(100)
        client.watch(gone.set)
        waiting.set()
        await gone.wait()
        assert client.gone
        await client.start(200, [])
        await client.write(b"into the void")
        await client.end()

    async with serving(handler) as talk:
        talk.writer.write(get(close=False))
        await asyncio.wait_for(waiting.wait(), 5)
        talk.writer.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_nobody_is_told_after_unwatch() -> None:
    called: list[bool] = []
    ended = asyncio.Event()

    async def handler(client: AsgiClient) -> None:
        client.watch(lambda: called.append(True))
        client.unwatch()
        await client.answer(200, [], b"")
        ended.set()

    async with serving(handler) as talk:
        talk.writer.write(get(close=False))
        await asyncio.wait_for(ended.wait(), 5)
    assert called == []


async def test_a_head_that_is_too_large() -> None:
    async def handler(client: AsgiClient) -> None:
        raise AssertionError("never reached")

    async with serving(handler, header_bytes_max=1000) as talk:
        raw = await talk.ask(get("/", f"x-big: {'a' * 1000}"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"max_header_kb" in body
    assert f"content-length: {len(body)}".encode() in head


async def test_garbage_gets_400() -> None:
    async def handler(client: AsgiClient) -> None:
        raise AssertionError("never reached")

    async with serving(handler) as talk:
        raw = await talk.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400 ")


async def test_body_in_pieces_and_its_limit() -> None:
    seen: list[bytes] = []
    refused: list[str] = []

    async def handler(client: AsgiClient) -> None:
        try:
            seen.append(await client.body(10))
        except Refusal as refusal:
            refused.append(refusal.code)
        await client.answer(200, [], b"")

    chunked = b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(handler) as talk:
        talk.writer.write(chunked + b"3\r\nabc\r\n")
        await asyncio.sleep(0)
        talk.writer.write(b"2\r\nde\r\n0\r\n\r\n")
        await talk.read_until(b"\r\n\r\n")
        sized = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 11\r\n\r\n"
        talk.writer.write(sized + b"a" * 11)
        await talk.read_until(b"\r\n\r\n")
        talk.writer.write(chunked + b"b\r\naaaaaaaaaaa\r\n0\r\n\r\n")
        await talk.read_until(b"\r\n\r\n")
    assert seen == [b"abcde"]
    assert refused == ["request_too_large"] * 2


async def test_a_head_or_body_that_does_not_arrive_is_given_up() -> None:
    entered = asyncio.Event()
    connections: list[DirectConnection] = []

    async def handler(client: AsgiClient) -> None:
        assert isinstance(client, ServerClient)
        assert isinstance(client._connection, DirectConnection)
        connections.append(client._connection)
        entered.set()
        await client.body(100)

    async with serving(handler) as talk:
        talk.writer.write(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nab")
        await asyncio.wait_for(entered.wait(), 5)
        [connection] = connections
        now = asyncio.get_running_loop().time()
        connection.sweep(now + connection.body_timeout_s - 1)
        assert not connection.transport.is_closing()
        connection.sweep(now + connection.body_timeout_s + 1)
        assert connection.transport.is_closing()
        assert await talk.ask(b"") == b""


def post(path: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(
        [f"POST {path} HTTP/1.1", "host: t", f"Content-Length: {len(body)}", *headers, "", ""]
    )
    return head.encode() + body


@pytest.mark.parametrize(
    ("second", "repeated"),
    [
        (post("/a", b"12345", "x: 1"), True),
        (post("/a", b"", "x: 1"), True),
        (post("/a?q=1", b"12345", "x: 1"), False),
        (post("/b", b"12345", "x: 1"), False),
        (post("/a", b"12345", "x: 2"), False),
        (post("/a", b"12345", "X: 1", "x: 1"), False),
        (post("/a", b"12345"), False),
        (post("/a", b"123", "x: 1").replace(b"POST", b"PUT"), False),
        (b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nhost: t\r\nx: 1\r\n\r\n1", False),
        (
            b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\nx: 1\r\n\r\n0\r\n\r\n",
            False,
        ),
    ],
)
async def test_a_head_is_repeated_if_nothing_but_the_length_differs(
    second: bytes, repeated: bool
) -> None:
    arrival: Any = object()  # what the call path made of the first head
    seen = []

    async def handler(client: AsgiClient) -> None:
        seen.append((client.arrival, client.method, client.raw_path, client.query))
        client.arrival = client.arrival or arrival
        await client.answer(200, [], await client.body(100))

    async with serving(handler) as talk:
        talk.writer.write(post("/a", b"123", "x: 1"))
        await talk.read_until(b"123")
        talk.writer.write(second)
        await talk.read_until(b"\r\n\r\n")
    assert seen[0][0] is None
    assert (seen[1][0] is arrival) is repeated
    assert not repeated or seen[1][1:] == seen[0][1:]


async def test_what_a_repeated_head_says_anew_is_kept() -> None:
    said: list[Any] = [object(), object()]
    seen = []

    async def handler(client: AsgiClient) -> None:
        seen.append(client.arrival)
        client.arrival = said[len(seen) > 1]
        await client.answer(200, [], b"ok")

    async with serving(handler) as talk:
        for _ in range(3):
            talk.writer.write(post("/a", b"123"))
            await talk.read_until(b"ok")
    assert seen == [None, *said]


async def test_heads_are_not_mixed_up() -> None:
    """What one head says is never said of another, however heads and bodies arrive."""
    arrivals: dict[bytes, object] = {}

    async def handler(client: AsgiClient) -> None:
        body = await client.body(100)
        meant: Any = arrivals.setdefault(client.raw_path, object())
        assert client.arrival in (None, meant)
        client.arrival = meant
        await client.answer(200, [], client.raw_path + b":" + body)

    random = Random(7)
    async with serving(handler) as talk:
        for _ in range(40):
            paths = [random.choice("ab") for _ in range(random.randint(1, 3))]
            bodies = [b"x" * random.randint(1, 12) for _ in paths]
            raw = b"".join(post(f"/{p}", b) for p, b in zip(paths, bodies, strict=True))
            cuts = sorted(random.sample(range(1, len(raw)), random.randint(0, 3)))
            for start, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
                talk.writer.write(raw[start:stop])
                await asyncio.sleep(0.001)
            for path, body in zip(paths, bodies, strict=True):
                await talk.read_until(f"/{path}:".encode() + body)


async def test_the_body_of_a_repeated_head_comes_in_pieces() -> None:
    async def handler(client: AsgiClient) -> None:
        client.arrival: Any = client.arrival or object()
        body = await client.body(100)
        await client.answer(200, [], body + b";" + client.method.encode() + client.raw_path)

    first, second, third = post("/a", b"123"), post("/a", b"4567"), get("/b", close=False)
    async with serving(handler) as talk:
        talk.writer.write(first)
        await talk.read_until(b"123;POST/a")
        for cut in (second[:-4], b"4", b"56", b"7" + third):
            await asyncio.sleep(0.01)
            talk.writer.write(cut)
        await talk.read_until(b"4567;POST/a")
        await talk.read_until(b";GET/b")
        talk.writer.write(second[:20])
        await asyncio.sleep(0.01)
        talk.writer.write(second[20:] + second + first)
        for body in (b"4567;POST/a", b"4567;POST/a", b"123;POST/a"):
            await talk.read_until(body)


async def test_a_repeated_head_has_its_own_length() -> None:
    async def handler(client: AsgiClient) -> None:
        client.arrival: Any = client.arrival or object()
        try:
            await client.answer(200, [], await client.body(4))
        except Refusal as refusal:
            await client.answer(refusal.status, [], b"")

    async with serving(handler) as talk:
        for body, status in ((b"123", b"200"), (b"1234", b"200"), (b"12345", b"413")):
            talk.writer.write(post("/a", body))
            assert status in await talk.read_until(b"\r\n\r\n")


async def test_under_plain_asgi() -> None:
    inbox = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"c", "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[object] = []

    async def receive() -> dict[str, object]:
        return inbox.pop(0)

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x y", "query_string": b"", "headers": []}
    client = AsgiClient(scope, receive, send)
    assert client.raw_path == b"/x%20y"
    assert await client.body(10) == b"abc"
    gone = asyncio.Event()
    client.watch(gone.set)
    await asyncio.wait_for(gone.wait(), 5)
    await client.answer(200, [(b"a", b"b")], b"hi")
    assert sent == [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"a", b"b"), (b"content-length", b"2")],
        },
        {"type": "http.response.body", "body": b"hi", "more_body": False},
    ]
    with pytest.raises(ConnectionAbortedError):
        client.cut()
