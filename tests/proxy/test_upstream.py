"""The pool against real sockets: keeping connections, retries, timeouts, giving up, memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from proxy.upstream import (
    Aborted,
    Exchange,
    Origin,
    Pool,
    Proxies,
    Unreachable,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from proxy.upstream_exchange import BUFFERED_BYTES_MAX
from tests.replay import Gate, ReplayServer, Reply, json_reply, sse, sse_reply

PROMPT = b'{"model":"gpt-5"}'
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[ReplayServer]:
    async with ReplayServer() as running:
        yield running


@pytest.fixture
async def pool(clock: Clock) -> AsyncIterator[Pool]:
    """A pool whose time stands still but for `clock` and `tick`."""
    made = Pool(first_byte_timeout_s=20, idle_timeout_s=10, clock=clock, tick_s=3600)
    yield made
    await made.close()


def origin_of(server: ReplayServer) -> Origin:
    return Origin.parse(server.url, Proxies())


def post(body: bytes | None = PROMPT, length: int | None = None) -> bytes:
    size = len(body or b"") if length is None else length
    return b"POST /v1/messages HTTP/1.1\r\nHost: x\r\ncontent-length: %d\r\n\r\n" % size


async def read_into(parts: list[bytes], exchange: Exchange) -> None:
    while part := await exchange.read():
        parts.append(part)


async def read_all(exchange: Exchange) -> bytes:
    parts: list[bytes] = []
    await read_into(parts, exchange)
    return b"".join(parts)


async def turns(count: int) -> None:
    """Let the loop go round: time for callbacks, none on the clock."""
    for _ in range(count):
        await asyncio.sleep(0)


async def turns_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await turns(1)


async def settled(value: Callable[[], int]) -> int:
    """The value once it has stopped changing."""
    last = -1
    while value() != last:
        last = value()
        await turns(200)
    return last


async def call(pool: Pool, server: ReplayServer, body: bytes = PROMPT) -> bytes:
    exchange = await pool.request(origin_of(server), post(body), body)
    data = await read_all(exchange)
    exchange.release()
    return data


# --- the plain course of things ------------------------------------------------------------


async def test_request_and_answer(pool: Pool, server: ReplayServer) -> None:
    server.reply(json_reply({"ok": True}, status=201, headers=[("X-Request-Id", "r1")]))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    assert exchange.status == 201
    assert (b"x-request-id", b"r1") in exchange.headers
    assert await read_all(exchange) == b'{"ok": true}'
    assert (exchange.sent, exchange.answered, exchange.complete) == (True, True, True)
    (request,) = server.requests
    assert (request.raw_head, request.body) == (post(), PROMPT)


async def test_a_stream_arrives_piece_by_piece(pool: Pool, server: ReplayServer) -> None:
    gates = [Gate() for _ in range(3)]
    first, second = sse({"n": 1}), sse("[DONE]")
    server.reply(sse_reply([first, second], stall_after=len(first), until=gates[0]))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    assert await exchange.read() == first
    assert not exchange.complete
    gates[0].open()
    assert await read_all(exchange) == second


async def test_connections_are_kept_and_shared(pool: Pool, server: ReplayServer) -> None:
    server.on("/messages", json_reply({}))
    for _ in range(3):
        await call(pool, server)
    assert [request.connection for request in server.requests] == [1, 1, 1]
    await asyncio.gather(*(call(pool, server) for _ in range(5)))
    assert server.connections_opened == 5


async def test_not_more_than_the_limit_is_kept(pool: Pool, server: ReplayServer) -> None:
    pool.max_idle_per_origin = 2
    gate = Gate()
    server.on("/messages", json_reply({}, before=gate))
    calls = asyncio.gather(*(call(pool, server) for _ in range(5)))
    await server.until(lambda s: len(s.requests) == 5)
    gate.open()
    await calls
    await server.until(lambda s: s.connections_open == 2)


async def test_a_connection_the_provider_ends_is_not_kept(pool: Pool, server: ReplayServer) -> None:
    server.reply(json_reply({}, close=True), Reply(body=b"to the end", framing="eof"))
    assert await call(pool, server) == b"{}"
    assert await call(pool, server) == b"to the end"
    server.reply(json_reply({}))
    assert await call(pool, server) == b"{}"
    assert [request.connection for request in server.requests] == [1, 2, 3]


async def test_idle_connections_are_closed(pool: Pool, server: ReplayServer, clock: Clock) -> None:
    server.on("/messages", json_reply({}))
    await call(pool, server)
    pool.tick()
    clock.now += 29
    pool.tick()
    assert server.connections_open == 1
    clock.now += 2
    pool.tick()
    await server.until(lambda s: s.connections_open == 0)
    await call(pool, server)
    assert server.connections_opened == 2


async def test_a_connection_closed_while_idle_is_removed_at_once(
    pool: Pool, server: ReplayServer
) -> None:
    server.on("/messages", json_reply({}))
    await call(pool, server)
    server.drop_idle()
    await server.until(lambda s: s.connections_open == 0)
    body = b"not sent twice"
    exchange = await pool.request(origin_of(server), post(body), body, retryable=False)
    exchange.abort()
    assert len(server.requests) == 2


# --- dead connections ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection_is_tried_again_once(
    pool: Pool, server: ReplayServer, how: str
) -> None:
    server.reply(json_reply({}), Reply(on_request=how), json_reply({"again": 1}))  # type: ignore[arg-type]
    await call(pool, server)
    assert await call(pool, server) == b'{"again": 1}'
    assert [request.connection for request in server.requests] == [1, 1, 2]
    assert server.requests[1].body == server.requests[2].body


async def test_a_new_connection_is_not_tried_again(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(on_request="close"))
    with pytest.raises(UpstreamBroken) as caught:
        await call(pool, server)
    assert (caught.value.sent, caught.value.answered) == (True, False)
    assert len(server.requests) == 1


async def test_the_second_try_is_the_last(pool: Pool, server: ReplayServer) -> None:
    server.reply(json_reply({}), Reply(on_request="close"), Reply(on_request="close"))
    await call(pool, server)
    with pytest.raises(UpstreamBroken):
        await call(pool, server)
    assert len(server.requests) == 3


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\nx: y"])
async def test_nothing_is_tried_again_after_a_first_byte(
    pool: Pool, server: ReplayServer, part: bytes
) -> None:
    server.reply(json_reply({}), Reply(raw=part, then_close=True))
    await call(pool, server)
    with pytest.raises(UpstreamBroken) as caught:
        await call(pool, server)
    assert caught.value.answered
    assert len(server.requests) == 2


async def test_a_request_that_was_worked_on_is_not_tried_again(
    pool: Pool, server: ReplayServer, clock: Clock
) -> None:
    gate = Gate()
    server.reply(json_reply({}), Reply(before=gate, on_request="close"))
    await call(pool, server)
    calling = asyncio.create_task(call(pool, server))
    await server.until(lambda s: len(s.requests) == 2)
    clock.now += 6
    gate.open()
    with pytest.raises(UpstreamBroken):
        await calling
    assert len(server.requests) == 2


async def test_what_is_not_retryable_is_not_tried_again(pool: Pool, server: ReplayServer) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield PROMPT

    for body, retryable in ((PROMPT, False), (parts(), True)):
        server.reply(json_reply({}), Reply(on_request="close"))
        await call(pool, server)
        with pytest.raises(UpstreamBroken):
            await pool.request(origin_of(server), post(), body, retryable=retryable)
    assert len(server.requests) == 4


async def test_a_second_try_that_cannot_connect_says_that_something_was_sent(
    pool: Pool, server: ReplayServer
) -> None:
    origin, gate = origin_of(server), Gate()
    server.reply(json_reply({}), Reply(before=gate, on_request="close"))
    await call(pool, server)
    calling = asyncio.create_task(pool.request(origin, post(), PROMPT))
    await server.until(lambda s: len(s.requests) == 2)
    server.stop_listening()
    gate.open()
    with pytest.raises(Unreachable) as caught:
        await calling
    assert (caught.value.sent, caught.value.answered) == (True, False)


# --- answers that end badly ----------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("fault", ["close_after", "reset_after"])
async def test_an_answer_cut_short_raises(
    pool: Pool, server: ReplayServer, framing: str, fault: str
) -> None:
    server.reply(Reply(body=b"x" * 1000, framing=framing, **{fault: 600}))  # type: ignore[arg-type]
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    parts: list[bytes] = []
    with pytest.raises(UpstreamBroken) as caught:
        await read_into(parts, exchange)
    assert caught.value.answered
    # A reset may overtake what came before it.
    assert fault == "reset_after" or sum(map(len, parts)) == 600
    exchange.release()
    assert not exchange.complete


async def test_a_reset_does_not_end_an_answer_without_length(
    pool: Pool, server: ReplayServer
) -> None:
    server.reply(Reply(body=b"x" * 1000, framing="eof", reset_after=600))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    with pytest.raises(UpstreamBroken):
        await read_all(exchange)


async def test_garbage(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(raw=b"220 mail.example ESMTP\r\n"))
    with pytest.raises(UpstreamBroken, match="invalid HTTP"):
        await call(pool, server)
    await server.until(lambda s: s.connections_open == 0)


# --- time ----------------------------------------------------------------------------------


async def test_first_byte_timeout(pool: Pool, server: ReplayServer, clock: Clock) -> None:
    server.reply(Reply(on_request="never"))
    calling = asyncio.create_task(call(pool, server))
    await server.until(lambda s: len(s.requests) == 1)
    pool.tick()
    clock.now += 19.9
    pool.tick()
    await asyncio.sleep(0)
    assert not calling.done()
    clock.now += 0.2
    pool.tick()
    with pytest.raises(UpstreamTimeout, match="first byte timeout") as caught:
        await calling
    assert (caught.value.kind, caught.value.sent, caught.value.answered) == (
        "first_byte",
        True,
        False,
    )
    await server.until(lambda s: s.requests[0].hung_up)


async def test_a_head_that_trickles_is_late_too(
    pool: Pool, server: ReplayServer, clock: Clock
) -> None:
    gate = Gate()
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    server.reply(Reply(informational=[hints], raw=hints, before=gate))
    exchange = pool.exchange()
    calling = asyncio.create_task(pool.send(exchange, origin_of(server), post(), PROMPT))
    await server.until(lambda s: len(s.requests) == 1)
    pool.tick()
    gate.open()
    await turns_until(lambda: exchange.answered)
    clock.now += 20
    pool.tick()
    with pytest.raises(UpstreamTimeout) as caught:
        await calling
    assert (caught.value.kind, caught.value.answered) == ("first_byte", True)


async def test_idle_timeout_counts_from_the_last_bytes(
    pool: Pool, server: ReplayServer, clock: Clock
) -> None:
    first = sse({"n": 1})
    gate = Gate()
    server.reply(sse_reply([first, first, first], stall_after=2 * len(first), until=gate))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    assert await exchange.read() == first
    pool.tick()
    clock.now += 9
    while await exchange.read() != first:
        pass
    reading = asyncio.create_task(exchange.read())
    await asyncio.sleep(0)
    for _ in range(2):  # late by up to two ticks, never early
        pool.tick()
        await asyncio.sleep(0)
        assert not reading.done()
        clock.now += 9.9
    clock.now += 0.2
    pool.tick()
    with pytest.raises(UpstreamTimeout) as caught:
        await reading
    assert (caught.value.kind, caught.value.answered) == ("idle", True)
    await server.until(lambda s: s.requests[0].hung_up)


async def test_a_slow_consumer_is_no_idle_provider(
    pool: Pool, server: ReplayServer, clock: Clock
) -> None:
    server.reply(json_reply({}))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    for _ in range(5):
        pool.tick()
        clock.now += 60
    assert await read_all(exchange) == b"{}"


async def test_the_timer_works_by_itself_and_stops(server: ReplayServer) -> None:
    pool = Pool(first_byte_timeout_s=0.05, tick_s=0.01)
    server.reply(Reply(on_request="never"))
    with pytest.raises(UpstreamTimeout):
        await call(pool, server)
    await server.until(lambda s: s.connections_open == 0)
    async with asyncio.timeout(10):
        while pool._timer is not None:
            await turns(1)
    await pool.close()


# --- giving up -----------------------------------------------------------------------------


async def test_cancelling_a_request_hangs_up(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(on_request="never"))
    calling = asyncio.create_task(call(pool, server))
    await server.until(lambda s: len(s.requests) == 1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await server.until(lambda s: s.requests[0].hung_up and s.connections_open == 0)


async def test_abort_before_the_head(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(on_request="never"))
    exchange = pool.exchange()
    calling = asyncio.create_task(pool.send(exchange, origin_of(server), post(), PROMPT))
    await server.until(lambda s: len(s.requests) == 1)
    exchange.abort()
    with pytest.raises(Aborted) as caught:
        await calling
    assert (caught.value.sent, caught.value.answered) == (True, False)
    await server.until(lambda s: s.requests[0].hung_up)


@pytest.mark.parametrize("cancel", [True, False])
async def test_giving_up_while_connecting_leaves_the_connection_to_the_next(
    pool: Pool, server: ReplayServer, cancel: bool
) -> None:
    server.reply(json_reply({}))
    exchange = pool.exchange()
    calling = asyncio.create_task(pool.send(exchange, origin_of(server), post(), PROMPT))
    await asyncio.sleep(0)
    if cancel:
        calling.cancel()
    else:
        exchange.abort()
    with pytest.raises((asyncio.CancelledError, Aborted)):
        await calling
    assert not exchange.sent
    await server.until(lambda s: s.connections_open == 1)
    await asyncio.gather(*pool._connecting)
    await asyncio.sleep(0)  # from Python 3.12 on, gather() is ahead of a done task's callbacks
    assert await call(pool, server) == b"{}"
    assert server.connections_opened == 1
    assert len(server.requests) == 1


async def test_an_exchange_aborted_before_it_is_sent_sends_nothing(
    pool: Pool, server: ReplayServer
) -> None:
    exchange = pool.exchange()
    exchange.abort()
    with pytest.raises(Aborted):
        await pool.send(exchange, origin_of(server), post(), PROMPT)
    assert server.connections_opened == 0


async def test_close_ends_everything(server: ReplayServer) -> None:
    pool = Pool()
    gate = Gate()
    server.reply(json_reply({}), Reply(body=b"some", stall_after=0, until=gate))
    await call(pool, server)
    idle = await pool.request(origin_of(server), post(), PROMPT)
    server.reply(json_reply({}))
    await call(pool, server)
    tasks = [asyncio.create_task(call(pool, server)) for _ in range(2)]  # one has to connect
    tasks.append(asyncio.create_task(idle.read()))
    await turns(1)
    assert len(pool._connecting) == 1
    await pool.close()
    for task in tasks:
        with pytest.raises(UpstreamError):
            await task
    await server.until(lambda s: s.connections_open == 0)
    await pool.close()


# --- flow ----------------------------------------------------------------------------------

BLOCK = bytes(64 * 1024)
BLOCKS = 800  # 50 MB


def blocks() -> Iterator[bytes]:
    for _ in range(BLOCKS):
        yield BLOCK


async def test_a_slow_consumer_holds_the_provider_back(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(body=blocks(), framing="chunked"))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    got = largest = 0
    while part := await exchange.read():
        got += len(part)
        largest = max(largest, len(part))
        await turns(10)  # in which the provider could go on
    assert got == len(BLOCK) * BLOCKS
    assert largest <= BUFFERED_BYTES_MAX + 512 * 1024  # what one read of the socket may add
    exchange.release()


async def test_a_consumer_that_stops_stops_the_provider(pool: Pool, server: ReplayServer) -> None:
    server.reply(Reply(body=blocks(), framing="chunked"))
    exchange = await pool.request(origin_of(server), post(), PROMPT)
    sent = await settled(lambda: server.requests[0].sent_bytes)
    assert sent < len(BLOCK) * BLOCKS / 2  # what the kernel's buffers and ours hold
    assert exchange._size < BUFFERED_BYTES_MAX + 512 * 1024
    exchange.abort()


async def test_an_upload_is_sent_no_faster_than_it_is_read(
    pool: Pool, server: ReplayServer
) -> None:
    taken = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal taken
        for block in blocks():
            taken += 1
            yield block

    server.pause_reading()
    server.reply(json_reply({"ok": 1}))
    head = post(length=len(BLOCK) * BLOCKS)
    calling = asyncio.create_task(pool.request(origin_of(server), head, parts()))
    await turns_until(lambda: taken > 0)
    assert await settled(lambda: taken) < BLOCKS / 2
    server.resume_reading()
    exchange = await calling
    assert len(server.requests[0].body) == len(BLOCK) * BLOCKS
    assert await read_all(exchange) == b'{"ok": 1}'
    exchange.release()


async def test_an_upload_that_fails_hangs_up(pool: Pool, server: ReplayServer) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError, match="the client is gone"):
        await pool.request(origin_of(server), post(length=100), parts())
    await server.until(lambda s: s.connections_opened == 1 and s.connections_open == 0)
    assert not server.requests


async def test_large_bodies_in_bytes(pool: Pool, server: ReplayServer) -> None:
    server.on("/messages", lambda request: Reply(body=request.body))
    body = bytes(range(256)) * 40_000
    assert await call(pool, server, body) == body


async def test_head_requests(pool: Pool, server: ReplayServer) -> None:
    server.on(lambda _: True, Reply(body=b"x" * 10))
    head = GET.replace(b"GET", b"HEAD")
    exchange = await pool.request(origin_of(server), head)
    assert await read_all(exchange) == b""
    exchange.release()
    assert await call(pool, server) == b"x" * 10
