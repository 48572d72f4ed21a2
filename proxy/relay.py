"""From the held call to the end of the reply: forward, relay, settle.

The settlement is in the journal before the client has the last byte: a small reply is read in
full, settled and then sent with its cost in a header; a stream is settled when its own end has
been read, before the piece that holds it is passed on.
"""

import time
from collections.abc import Callable

from pricing.money import usd_from_nano
from proxy.call import Call
from proxy.client import Headers
from proxy.decoding import Decoder, decoder
from proxy.forward import reply_headers, request_head
from proxy.providers.base import Meter
from proxy.upstream import Exchange, Pool

SMALL_REPLY_BYTES = 256 * 1024
Settle = Callable[[Call, str], None]  # (call, ending); does nothing the second time
Feed = Callable[[bytes], bytes]  # reply bytes in; bytes for the client out


async def forward(call: Call, pool: Pool) -> Exchange:
    """Send the request; the head of the answer is there when this returns."""
    provider, facts = call.provider, call.facts
    assert provider is not None
    assert facts is not None
    inject = injects_usage(call)
    body = call.dialect.edit(facts, call.body, clamp=call.clamped, inject_usage=inject)
    head = request_head(
        call.start_line,
        provider.origin.host_header,
        call.head,
        call.credential,
        b"content-length: %d" % len(body),
    )
    exchange = call.exchange = pool.exchange()
    call.forwarded_ns = time.perf_counter_ns()
    await pool.send(exchange, provider.origin, head, body)
    call.status = exchange.status
    call.first_byte_ns = time.perf_counter_ns()
    call.meter = call.dialect.meter(
        facts,
        status=exchange.status,
        content_type=_header(exchange.headers, b"content-type").decode("latin-1"),
        inject_usage=inject,
    )
    return exchange


def injects_usage(call: Call) -> bool:
    """Whether a streamed chat completion is asked for its usage on the client's behalf."""
    assert call.provider is not None
    assert call.own is not None
    return call.provider.inject_usage and call.own.include_usage


def _header(headers: Headers, wanted: bytes) -> bytes:
    for name, value in headers:
        if name == wanted:
            return value
    return b""


async def relay(call: Call, exchange: Exchange, settle: Settle) -> None:
    """Pass the reply on while the meter reads a copy."""
    assert call.facts is not None
    assert call.meter is not None
    feed = _metered(call.meter, decoder(_header(exchange.headers, b"content-encoding")))
    if call.facts.stream and exchange.status < 400:
        await _relay_stream(call, exchange, settle, feed, b"")
        return
    data, whole = await _read_small(exchange, feed)
    if whole:
        await _relay_whole(call, exchange, settle, data)
    else:
        await _relay_stream(call, exchange, settle, feed, data)


def _metered(meter: Meter, decode: Decoder | None) -> Feed:
    """The meter's feed; for an encoded reply the meter reads a decoded copy and edits nothing."""
    if decode is None:
        return meter.feed

    def feed(data: bytes) -> bytes:
        meter.feed(decode.decode(data))
        return data

    return feed


async def _read_small(exchange: Exchange, feed: Feed) -> tuple[bytes, bool]:
    """Read and meter up to SMALL_REPLY_BYTES; (bytes, whether that was all)."""
    data = feed(await exchange.read())
    if exchange.complete:
        return data, True
    parts, size = [data], len(data)
    while size <= SMALL_REPLY_BYTES:
        data = await exchange.read()
        if not data:
            return b"".join(parts), True
        parts.append(feed(data))
        size += len(data)
    return b"".join(parts), False


async def _relay_whole(call: Call, exchange: Exchange, settle: Settle, data: bytes) -> None:
    assert call.meter is not None
    data += call.meter.finish()
    settle(call, ending(exchange))
    headers = reply_headers(exchange.headers, keep_length=False)
    _add_own(call, headers)
    if call.outcome is not None and call.outcome.usage is not None:
        headers.append(
            (b"x-tollkeeper-cost-usd", usd_from_nano(call.outcome.cost.nano).encode("ascii"))
        )
    await call.client.answer(exchange.status, headers, data)


async def _relay_stream(
    call: Call, exchange: Exchange, settle: Settle, feed: Feed, metered: bytes
) -> None:
    """Relay piece by piece; `metered` was read, and fed to the meter, already."""
    client, meter, facts = call.client, call.meter, call.facts
    assert meter is not None
    assert facts is not None
    # The length would be wrong once a usage chunk is withheld, and no stream needs one.
    headers = reply_headers(exchange.headers, keep_length=not facts.stream)
    _add_own(call, headers)
    await client.start(exchange.status, headers)
    if metered:
        await client.write(metered)
    while data := await exchange.read():
        data = feed(data)
        if exchange.complete:
            data += meter.finish()
        if exchange.complete or meter.ended:
            settle(call, ending(exchange))
        if data and (waiting := client.put(data)) is not None:
            await waiting
    tail = meter.finish()
    settle(call, ending(exchange))
    if tail:
        await client.write(tail)
    await client.end()


def ending(exchange: Exchange) -> str:
    """The ending of a reply that was relayed in full."""
    return "complete" if exchange.status < 400 else "upstream_error"


def _add_own(call: Call, headers: Headers) -> None:
    """Our headers on a provider's reply."""
    headers.append((b"x-tollkeeper-request-id", call.request_id.encode("ascii")))
    if call.held is not None:
        hold = usd_from_nano(call.held.ceiling_nano).encode("ascii")
        headers.append((b"x-tollkeeper-hold-usd", hold))
        if call.held.remaining_nano is not None:
            remaining = usd_from_nano(max(call.held.remaining_nano, 0)).encode("ascii")
            headers.append((b"x-tollkeeper-remaining-usd", remaining))
    if call.clamped is not None:
        headers.append((b"x-tollkeeper-clamped-max-tokens", b"%d" % call.clamped))
