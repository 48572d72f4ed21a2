"""Routes that cost nothing, or that the config allows unmetered: relayed, not metered."""

import time
from collections.abc import AsyncIterator

from proxy.call import Call
from proxy.forward import own_framing, reply_headers, request_head
from proxy.model_list import ModelList, lists_models
from proxy.objects import Objects
from proxy.upstream import Pool
from proxy.watch import Watch, watch_of

Reader = Watch | ModelList  # of replies that tell something


async def pass_through(
    call: Call, pool: Pool, body_bytes_max: int, objects: Objects | None = None
) -> None:
    """Relay request and reply as they come, both ways streamed."""
    watch: Reader | None = watch_of(call, objects)
    if lists_models(call):
        watch = ModelList(call)
    client, provider = call.client, call.provider
    assert provider is not None
    client.check_length(body_bytes_max)
    start, host = call.start_line, provider.origin.host_header
    body: bytes | AsyncIterator[bytes]
    if provider.auth is None:
        body = _body(call, body_bytes_max, watch)
        framing, credential = own_framing(call.head), call.credential
    else:  # a signature is over the whole body
        await provider.auth.ready()
        body = whole = await client.body(body_bytes_max)
        if watch is not None:
            watch.feed_request(whole)
        framing = b"content-length: %d" % len(whole) if own_framing(call.head) else b""
        credential = provider.auth.lines(start, host, call.head, whole)
    head = request_head(start, host, call.head, credential, framing)
    tracer = call.state.tracer
    if tracer is not None:
        head = head[:-2] + tracer.begin(call) + head[-2:]
    exchange = call.exchange = pool.exchange()
    call.forwarded_ns = time.perf_counter_ns()
    await pool.send(exchange, provider.origin, head, body)
    call.status = exchange.status
    call.first_byte_ns = time.perf_counter_ns()
    headers = reply_headers(exchange.headers, keep_length=True)
    headers.append((b"x-tollkeeper-request-id", call.request_id.encode("ascii")))
    if watch is not None and exchange.status == 200:
        await watch.relay(exchange, headers)
        return
    await client.start(exchange.status, headers)
    while data := await exchange.read():
        await client.write(data)
    await client.end()


def _body(call: Call, body_bytes_max: int, watch: Reader | None) -> bytes | AsyncIterator[bytes]:
    """The client's body in the client's own framing."""
    framing = own_framing(call.head)
    if not framing:
        return b""
    stream = call.client.body_stream(body_bytes_max)
    if watch is not None:
        stream = _watched(stream, watch)
    return stream if framing.startswith(b"content-length") else _chunked(stream)


async def _watched(stream: AsyncIterator[bytes], watch: Reader) -> AsyncIterator[bytes]:
    async for part in stream:
        watch.feed_request(part)
        yield part


async def _chunked(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in stream:
        yield b"%x\r\n%b\r\n" % (len(part), part)
    yield b"0\r\n\r\n"
