"""From the held call to the end of the reply: forward, relay, settle.

The settlement is in the journal before the client has the last byte: a small reply is read in
full, settled and then sent with its cost in a header; a stream is settled when its own end has
been read, before the piece that holds it is passed on.
"""

import time
from collections.abc import Awaitable, Callable

from pricing.money import usd_from_nano
from proxy.call import Call
from proxy.client import split_lines
from proxy.decoding import Decoder, decoder
from proxy.forward import ReplyHead
from proxy.providers.base import Meter
from proxy.upstream import Exchange, Pool

SMALL_REPLY_BYTES = 256 * 1024
Settle = Callable[[Call, str], None]  # (call, ending); does nothing the second time
Feed = Callable[[bytes], bytes]  # reply bytes in; bytes for the client out


async def forward(call: Call, pool: Pool) -> Exchange:
    """Send the request; the head of the answer is there when this returns."""
    arrival, facts, own = call.arrival, call.facts, call.own
    assert arrival is not None
    assert facts is not None
    assert own is not None
    # Whether a streamed chat completion is asked for its usage on the client's behalf.
    inject = facts.stream and arrival.provider.inject_usage and own.include_usage
    body = call.body
    if inject or call.clamped is not None:
        body = arrival.dialect.edit(facts, body, clamp=call.clamped, inject_usage=inject)
    front, provider = arrival.upstream_head, arrival.provider
    if provider.auth is not None:
        host = provider.origin.host_header
        front += provider.auth.lines(call.start_line, host, arrival.head, body) + b"\r\n"
    tracer = call.state.tracer
    if tracer is not None:
        front += tracer.begin(call)
    head = b"%bcontent-length: %d\r\n\r\n" % (front, len(body))
    exchange = call.exchange = pool.exchange()
    call.forwarded_ns = time.perf_counter_ns()
    await pool.send(exchange, provider.origin, head, body)
    call.status = exchange.status
    call.first_byte_ns = time.perf_counter_ns()
    reply = call.reply = ReplyHead(exchange.headers)
    if provider.headers is not None:
        provider.headers.reply_headers(facts, exchange.headers)
    call.meter = arrival.dialect.meter(
        facts,
        status=exchange.status,
        content_type=reply.content_type.decode("latin-1"),
        inject_usage=inject,
    )
    return exchange


async def relay(call: Call, exchange: Exchange, settle: Settle) -> None:
    """Pass the reply on while the meter reads a copy."""
    facts, reply, meter = call.facts, call.reply, call.meter
    assert facts is not None
    assert reply is not None
    assert meter is not None
    encoding = reply.content_encoding
    feed = _metered(meter, decoder(encoding)) if encoding else meter.feed
    if facts.stream and exchange.status < 400:
        await _relay_stream(call, exchange, settle, feed, b"")
        return
    data, whole = feed(exchange.read_now()), exchange.complete
    if not whole:
        data, whole = await _read_small(exchange, feed, data)
    if not whole:
        await _relay_stream(call, exchange, settle, feed, data)
        return
    data += meter.finish()
    settle(call, ending(exchange))
    lines = reply.lines + _own_lines(call, costs=True)
    if not call.client.answer_lines(exchange.status, lines, data):
        await call.client.answer(exchange.status, split_lines(lines), data)


def _metered(meter: Meter, decode: Decoder | None) -> Feed:
    """The feed of an encoded reply: its meter reads a decoded copy and edits nothing."""
    if decode is None:
        return meter.feed

    def feed(data: bytes) -> bytes:
        meter.feed(decode.decode(data))
        return data

    return feed


async def _read_small(exchange: Exchange, feed: Feed, first: bytes) -> tuple[bytes, bool]:
    """Read and meter up to SMALL_REPLY_BYTES; (bytes, whether that was all)."""
    parts, size = [first], len(first)
    while size <= SMALL_REPLY_BYTES:
        data = await exchange.read()
        if not data:
            return b"".join(parts), True
        parts.append(feed(data))
        size += len(data)
    return b"".join(parts), False


async def _relay_stream(
    call: Call, exchange: Exchange, settle: Settle, feed: Feed, metered: bytes
) -> None:
    """Relay piece by piece; `metered` was read, and fed to the meter, already."""
    client, meter, facts, reply = call.client, call.meter, call.facts, call.reply
    assert meter is not None
    assert facts is not None
    assert reply is not None
    headers = reply.headers
    # The length would be wrong once a usage chunk is withheld, and no stream needs one.
    if reply.length is not None and not facts.stream:
        headers.append((b"content-length", reply.length))
    headers += split_lines(_own_lines(call))
    await client.start(exchange.status, headers)
    if metered:
        await client.write(metered)

    def pass_on(data: bytes) -> Awaitable[None] | None:
        data = feed(data)
        if exchange.complete:
            data += meter.finish()
        if exchange.complete or meter.ended:
            settle(call, ending(exchange))
        return client.put(data) if data else None

    trace = call.trace
    while data := await exchange.read():
        if trace is not None:
            trace.chunk()
        waiting = pass_on(data)
        if waiting is None:
            waiting = await exchange.pump(pass_on)
        if waiting is not None:
            await waiting
    tail = meter.finish()
    settle(call, ending(exchange))
    if tail:
        await client.write(tail)
    await client.end()


def ending(exchange: Exchange) -> str:
    """The ending of a reply that was relayed in full."""
    return "complete" if exchange.status < 400 else "upstream_error"


def _header_text(text: str) -> str:
    """What a client has sent, in a header of ours."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _own_lines(call: Call, *, costs: bool = False) -> bytes:
    """Our headers on a provider's reply, each after a line break. `costs`: the cost is known
    before it is sent."""
    lines = f"\r\nx-tollkeeper-request-id: {call.request_id}"
    held, done = call.held, call.outcome
    if held is not None:
        call.hold_usd = usd_from_nano(held.ceiling_nano)
        lines += f"\r\nx-tollkeeper-hold-usd: {call.hold_usd}"
        remaining = held.remaining_nano
        if remaining is not None:
            left = usd_from_nano(remaining if remaining > 0 else 0)
            lines += f"\r\nx-tollkeeper-remaining-usd: {left}"
    if call.downgraded_from:
        assert call.facts is not None
        lines += f"\r\nx-tollkeeper-downgraded-from: {_header_text(call.downgraded_from)}"
        lines += f"\r\nx-tollkeeper-downgraded-model: {_header_text(call.facts.model)}"
    if call.clamped is not None:
        lines += f"\r\nx-tollkeeper-clamped-max-tokens: {call.clamped}"
    if costs and done is not None and done.usage is not None and done.ending != "open":
        call.cost_usd = usd_from_nano(done.cost.nano)
        lines += f"\r\nx-tollkeeper-cost-usd: {call.cost_usd}"
    return lines.encode("ascii")
