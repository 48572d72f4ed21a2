"""Answers in every framing and in any pieces, on a transport that only takes notes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream import Aborted, UpstreamBroken
from proxy.upstream_connection import Connection
from proxy.upstream_exchange import (
    BUFFERED_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    JOINED_BYTES_MAX,
    Exchange,
)

POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
BODY = b"".join(b"data: %d\n\n" % number for number in range(40))

LENGTH = b"HTTP/1.1 200 OK\r\nX-Id: A\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nx-id: A\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"".join(b"%x;ext=1\r\n%b\r\n" % (len(p), p) for p in (BODY[:7], BODY[7:100], BODY[100:]))
    + b"0\r\nx-trailer: dropped\r\n\r\n"
)
UNTIL_EOF = b"HTTP/1.1 200 OK\r\nx-id: A\r\n\r\n" + BODY
EARLY_HINTS = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


@dataclass
class Notes:
    """A transport and an owner of connections in one, that remember what they were told."""

    written: list[bytes] = field(default_factory=list)
    paused: bool = False
    aborted: bool = False
    idle: list[Connection] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    def connection_idle(self, connection: Connection) -> None:
        self.idle.append(connection)

    def connection_ended(self, connection: Connection) -> None: ...

    def connection_lost(self, connection: Connection) -> None: ...


def started(head: bytes = POST) -> tuple[Exchange, Connection, Notes, "asyncio.Task[None]"]:
    notes = Notes()
    connection = Connection(notes, "key")
    connection.connection_made(notes)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop)
    return exchange, connection, notes, loop.create_task(exchange.run(connection, head, b""))


async def received(
    *pieces: bytes, head: bytes = POST, eof: bool = True
) -> tuple[Exchange, Notes, bytes]:
    """An exchange whose answer came in these pieces, read to its end."""
    exchange, connection, notes, running = started(head)
    await asyncio.sleep(0)
    for piece in pieces:
        if piece and not notes.aborted:
            connection.data_received(piece)
    if eof:
        connection.eof_received()
        connection.connection_lost(None)
    await running
    parts = []
    while part := await exchange.read():
        parts.append(part)
    exchange.release()
    return exchange, notes, b"".join(parts)


def cut(data: bytes, positions: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({at % len(data) for at in positions} - {0}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


# --- framings ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, UNTIL_EOF, EARLY_HINTS + CHUNKED])
@given(positions=st.lists(st.integers(min_value=0, max_value=10_000), max_size=60))
def test_any_cut_gives_the_same_answer(
    loop: asyncio.AbstractEventLoop, answer: bytes, positions: list[int]
) -> None:
    exchange, _, body = loop.run_until_complete(received(*cut(answer, positions)))
    assert (exchange.status, body) == (200, BODY)
    assert exchange.headers[0] == (b"x-id", b"A")
    assert b"x-trailer" not in dict(exchange.headers)
    assert b"link" not in dict(exchange.headers)
    assert exchange.complete


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, EARLY_HINTS + LENGTH])
async def test_byte_by_byte(answer: bytes) -> None:
    exchange, notes, body = await received(*(bytes([b]) for b in answer), eof=False)
    assert body == BODY
    assert exchange.answered
    assert len(notes.idle) == 1


@given(position=st.integers(min_value=0), answer=st.sampled_from([LENGTH, CHUNKED]))
def test_a_cut_answer_is_never_complete(
    loop: asyncio.AbstractEventLoop, position: int, answer: bytes
) -> None:
    part = answer[: position % len(answer)]
    with pytest.raises(UpstreamBroken) as caught:
        loop.run_until_complete(received(part))
    assert caught.value.answered is bool(part)


async def test_what_came_before_a_cut_is_read_first() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(LENGTH[:-5])
    connection.connection_lost(ConnectionResetError("reset by peer"))
    await running
    assert await exchange.read() == BODY[:-5]
    with pytest.raises(UpstreamBroken, match="reset by peer"):
        await exchange.read()


async def test_an_unclean_end_does_not_complete_an_answer_without_length() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(UNTIL_EOF)
    connection.connection_lost(None)  # as uvloop reports TLS cut without close_notify
    await running
    assert await exchange.read() == BODY
    with pytest.raises(UpstreamBroken):
        await exchange.read()


@pytest.mark.parametrize(
    ("answer", "head"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", POST),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 50\r\n\r\n", POST),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", POST),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n"),
    ],
)
async def test_answers_without_a_body_end_with_their_head(answer: bytes, head: bytes) -> None:
    exchange, _, body = await received(answer, head=head, eof=False)
    assert exchange.complete
    assert body == b""


async def test_headers_keep_order_case_of_values_and_repetitions() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: A=1\r\nset-cookie: B\r\nX-E:\r\ncontent-length: 0\r\n\r\n"
    )
    exchange, _, _ = await received(answer)
    assert exchange.headers == [
        (b"set-cookie", b"A=1"),
        (b"set-cookie", b"B"),
        (b"x-e", b""),
        (b"content-length", b"0"),
    ]


# --- keeping the connection ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\0garbage", False),
        (
            b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: h2\r\ncontent-length: 2\r\n\r\nok",
            True,
        ),
    ],
)
async def test_which_connections_are_kept(answer: bytes, kept: bool) -> None:
    _, notes, body = await received(answer, eof=False)
    assert body == b"ok"
    assert (len(notes.idle), notes.aborted) == (int(kept), not kept)


async def test_more_bytes_after_the_answer_spoil_the_connection() -> None:
    _, notes, body = await received(LENGTH, b"more", eof=False)
    assert body == BODY
    assert not notes.idle


async def test_bytes_nobody_asked_for_spoil_an_idle_connection() -> None:
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    connection.data_received(LENGTH)
    await running
    exchange.release()
    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert connection.closed
    assert notes.aborted


async def test_release_before_the_end_drops_the_connection() -> None:
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    connection.data_received(LENGTH[:-1])
    await running
    exchange.release()
    assert notes.aborted
    exchange.release()
    exchange.abort()


# --- limits and nonsense -------------------------------------------------------------------

PADDING = b"x" * (HEAD_BYTES_MAX + 10)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"\x16\x03\x01\x02\x00 not HTTP at all", "invalid HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "invalid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n", "invalid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n", "invalid HTTP"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "another",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nx-large: " + PADDING + b"\r\n\r\n", "larger than"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (HEADERS_MAX + 1) + b"\r\n", "headers"),
        (EARLY_HINTS * 2000, "larger than"),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1 << 30, 1000])
async def test_nonsense_breaks_the_exchange(answer: bytes, message: str, piece_bytes: int) -> None:
    pieces = [answer[at : at + piece_bytes] for at in range(0, len(answer), piece_bytes)]
    with pytest.raises(UpstreamBroken, match=message) as caught:
        await received(*pieces)
    assert caught.value.answered


async def test_endless_trailers_break_the_exchange() -> None:
    with pytest.raises(UpstreamBroken, match="framing without a body"):
        await received(CHUNKED[:-2], *([b"x-trailer: y\r\n" * 100] * 100))


async def test_a_head_just_below_the_limit_passes() -> None:
    start = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: "
    answer = start + b"y" * (HEAD_BYTES_MAX - len(start) - 4) + b"\r\n\r\nok"
    assert (await received(answer))[2] == b"ok"


async def test_the_framing_of_a_long_stream_is_no_overhead() -> None:
    count = HEAD_BYTES_MAX
    pieces = (piece for _ in range(count) for piece in (b"1\r\n", b"x", b"\r\n"))
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await running
    for piece in pieces:
        connection.data_received(piece)
    assert await exchange.read() == b"x" * count


# --- flow ----------------------------------------------------------------------------------


async def test_reading_pauses_while_nobody_takes_the_body() -> None:
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n")
    await running
    fed = 0
    while not notes.paused:
        connection.data_received(bytes(16_384))
        fed += 16_384
    assert BUFFERED_BYTES_MAX < fed <= BUFFERED_BYTES_MAX + 16_384
    assert len(await exchange.read()) == fed
    assert not notes.paused


async def test_an_answer_unread_when_released_leaves_the_connection_reading() -> None:
    size = BUFFERED_BYTES_MAX + 1
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
    await running
    assert notes.paused
    exchange.release()
    assert notes.idle == [connection]
    assert not notes.paused


async def test_head_and_small_body_leave_in_one_write_and_large_ones_uncopied() -> None:
    loop = asyncio.get_running_loop()
    for size, writes in ((JOINED_BYTES_MAX, 1), (JOINED_BYTES_MAX + 1, 2)):
        notes = Notes()
        connection = Connection(notes, "key")
        connection.connection_made(notes)  # type: ignore[arg-type]
        body = bytes(size)
        exchange = Exchange(loop)
        running = loop.create_task(exchange.run(connection, POST, body))
        await asyncio.sleep(0)
        assert len(notes.written) == writes
        assert b"".join(notes.written) == POST + body
        connection.data_received(LENGTH)
        await running


async def test_an_upload_waits_while_the_provider_does_not_read() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"1", b"2", b"3"):
            yield part

    notes = Notes()
    connection = Connection(notes, "key")
    connection.connection_made(notes)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    connection.pause_writing()
    exchange = Exchange(loop)
    running = loop.create_task(exchange.run(connection, POST, parts()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert notes.written == [POST, b"1"]
    connection.resume_writing()
    await asyncio.sleep(0)
    assert notes.written == [POST, b"1", b"2", b"3"]
    connection.data_received(LENGTH)
    await running
    exchange.release()
    assert notes.idle


async def test_an_answer_before_the_end_of_the_upload_ends_it() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def parts() -> AsyncIterator[bytes]:
        yield b"1"
        await gate
        yield b"2"

    notes = Notes()
    connection = Connection(notes, "key")
    connection.connection_made(notes)  # type: ignore[arg-type]
    exchange = Exchange(asyncio.get_running_loop())
    running = asyncio.create_task(exchange.run(connection, POST, parts()))
    await asyncio.sleep(0)
    connection.data_received(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
    gate.set_result(None)
    await running
    assert exchange.status == 413
    assert notes.written == [POST, b"1"]
    exchange.release()
    assert notes.aborted  # the provider still expects the rest of the body on it


# --- pumping -------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n"


async def test_a_sink_gets_the_body_without_waking_its_caller() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(HEAD + b"one.")
    await running
    taken = [await exchange.read()]
    pumping = asyncio.create_task(exchange.pump(taken.append))
    await asyncio.sleep(0)
    connection.data_received(b"two.")
    assert taken == [b"one.", b"two."]  # in the callback itself
    await asyncio.sleep(0)
    assert not pumping.done()
    connection.data_received(b"six.")
    assert (await pumping, await exchange.read()) == (None, b"")
    assert (taken, exchange.complete) == ([b"one.", b"two.", b"six."], True)
    assert await exchange.pump(taken.append) is None


async def test_a_sink_that_must_wait_gets_nothing_meanwhile() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(HEAD)
    await running
    room = asyncio.get_running_loop().create_future()
    taken = []

    def sink(data: bytes) -> asyncio.Future[None] | None:
        taken.append(data)
        return room

    pumping = asyncio.create_task(exchange.pump(sink))
    await asyncio.sleep(0)
    connection.data_received(b"one.")
    connection.data_received(b"two.")
    assert await pumping is room
    assert (taken, await exchange.read()) == ([b"one."], b"two.")


async def test_what_a_sink_raises_reaches_its_caller() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(HEAD)
    await running

    def sink(data: bytes) -> None:
        raise ValueError(data)

    pumping = asyncio.create_task(exchange.pump(sink))
    await asyncio.sleep(0)
    connection.data_received(b"one.")
    connection.data_received(b"two.")
    with pytest.raises(ValueError, match=r"one\."):
        await pumping
    assert await exchange.read() == b"two."


async def test_a_cut_ends_the_pumping_and_read_tells() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(HEAD)
    await running
    taken: list[bytes] = []
    pumping = asyncio.create_task(exchange.pump(taken.append))
    await asyncio.sleep(0)
    connection.data_received(b"one.")
    connection.connection_lost(ConnectionResetError())
    assert await pumping is None
    with pytest.raises(UpstreamBroken):
        await exchange.read()
    assert taken == [b"one."]


async def test_a_cancelled_pump_lets_go() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(HEAD)
    await running
    taken: list[bytes] = []
    pumping = asyncio.create_task(exchange.pump(taken.append))
    await asyncio.sleep(0)
    pumping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pumping
    connection.data_received(b"one.")
    assert (taken, await exchange.read()) == ([], b"one.")


# --- giving up -----------------------------------------------------------------------------


async def test_read_is_cancellation_safe() -> None:
    exchange, connection, _, running = started()
    await asyncio.sleep(0)
    connection.data_received(LENGTH[: -len(BODY)])
    await running
    reading = asyncio.create_task(exchange.read())
    await asyncio.sleep(0)
    reading.cancel()
    connection.data_received(BODY)  # arrives between the cancellation and its delivery
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await exchange.read() == BODY
    assert await exchange.read() == b""


@pytest.mark.parametrize("sent", [b"", LENGTH[:20], LENGTH[:-5]])
async def test_abort_wakes_whoever_waits(sent: bytes) -> None:
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    if sent:
        connection.data_received(sent)

    async def use() -> None:
        await running
        while await exchange.read():
            pass

    using = asyncio.create_task(use())
    for _ in range(3):
        await asyncio.sleep(0)
    exchange.abort()
    exchange.abort()
    with pytest.raises(Aborted) as caught:
        await using
    assert caught.value.answered is bool(sent)
    assert notes.aborted
    connection.connection_lost(None)
    assert not exchange.complete


async def test_abort_after_release_does_not_touch_the_next_exchange() -> None:
    exchange, connection, notes, running = started()
    await asyncio.sleep(0)
    connection.data_received(LENGTH)
    await running
    exchange.release()
    following = Exchange(asyncio.get_running_loop())
    running = asyncio.create_task(following.run(connection, POST, b""))
    await asyncio.sleep(0)
    exchange.abort()
    connection.data_received(LENGTH)
    await running
    assert not notes.aborted
    assert await following.read() == BODY
