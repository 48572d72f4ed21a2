"""Tracing in a worker: the context that goes upstream, and one record per call at its end.

There is a `Tracer` only where calls are traced. It knows nothing of exporters: control takes the
records and sends them on, so that encoding and a slow collector cost no call anything.
"""

import random
import time
from typing import TYPE_CHECKING

from proxy.call_record import CallRecord, encode_record
from proxy.trace_context import SAMPLED, header_lines, parse_parent
from proxy.wire import TracingEntry

if TYPE_CHECKING:
    from proxy.call import Call

PENDING_MAX = 2_048  # records between two statuses to control; what is more is lost
_bits = random.Random().getrandbits  # noqa: S311 - ids, not secrets


class Trace:
    """The spans of one call: that of the request that came in, and of the one that went out."""

    __slots__ = (
        "client_span_id",
        "first_chunk_ns",
        "parent_id",
        "sampled",
        "span_id",
        "state",
        "trace_id",
    )

    def __init__(self, trace_id: str, parent_id: str, state: str, *, sampled: bool) -> None:
        self.trace_id, self.parent_id, self.state = trace_id, parent_id, state
        self.sampled = sampled
        self.span_id, self.client_span_id = f"{_bits(64) or 1:016x}", f"{_bits(64) or 1:016x}"
        self.first_chunk_ns = 0

    def chunk(self) -> None:
        """A piece of a streamed reply has come."""
        if not self.first_chunk_ns:
            self.first_chunk_ns = time.perf_counter_ns()


class Tracer:
    """What a worker does about traces. `take` gives what has gathered."""

    def __init__(self, entry: TracingEntry, *, propagate: bool) -> None:
        self.entry = entry
        self.propagate = propagate and entry.spans
        self.lost = 0
        self._bound = round(entry.ratio * 2**64)
        self._pending: list[bytes] = []

    def begin(self, call: "Call") -> bytes:
        """The request is about to go out: the header lines that go with it."""
        trace = call.trace = self._trace(call)
        if not self.propagate:
            return b""
        return header_lines(
            trace.trace_id, trace.client_span_id, sampled=trace.sampled, state=trace.state
        )

    def _trace(self, call: "Call") -> Trace:
        parent = parse_parent(call.client.headers)
        if parent is None:
            trace_id = f"{_bits(128) or 1:032x}"
            return Trace(trace_id, "", "", sampled=self._samples(trace_id))
        sampled = self._samples(parent.trace_id)
        if self.entry.follow_parent:
            sampled = bool(parent.flags & SAMPLED) and self.entry.spans
        return Trace(parent.trace_id, parent.span_id, parent.state, sampled=sampled)

    def _samples(self, trace_id: str) -> bool:
        """By the trace's id, as every other service of the trace decides."""
        return self.entry.spans and int(trace_id[16:], 16) < self._bound

    def ended(self, call: "Call", duration_ns: int) -> None:
        """The call has ended, however it did."""
        trace = call.trace or self._trace(call)
        if not (trace.sampled or self.entry.metrics):
            return
        if len(self._pending) >= PENDING_MAX:
            self.lost += 1
            return
        self._pending.append(encode_record(record(call, trace, duration_ns)))

    def take(self) -> list[bytes]:
        """The records since the last time."""
        pending, self._pending = self._pending, []
        return pending


def record(call: "Call", trace: Trace, duration_ns: int) -> CallRecord:
    """The facts of a call that has ended just now."""
    refusal, provider, route = call.refusal, call.provider, call.route
    known: dict[str, object] = {}
    if provider is not None:
        known |= {"provider": provider.name, "prices": provider.prices}
        known |= {"host": provider.origin.host, "port": provider.origin.port}
    if route is not None:
        known |= {"route": route.name, "operation": route.operation}
    if refusal is not None:
        known["refusal"] = refusal.code
        known["refused_scope"] = str(refusal.details.get("scope", ""))
    _add_principal(known, call)
    _add_request(known, call)
    _add_outcome(known, call)
    forwarded_ns = call.forwarded_ns
    first_ns = trace.first_chunk_ns
    return CallRecord(
        trace.trace_id,
        trace.span_id,
        trace.client_span_id,
        trace.parent_id,
        trace.sampled,
        trace.state,
        time.time_ns() - duration_ns,
        duration_ns,
        forwarded_ns - call.began_ns if forwarded_ns else -1,
        first_ns - forwarded_ns if first_ns else -1,
        call.request_id,
        call.client.method,
        call.client.raw_path.decode("ascii", "replace"),
        refusal.status if refusal is not None else call.status if call.client.started else 0,
        call.status,
        error=call.error,
        key=call.key_name,
        **known,  # type: ignore[arg-type]
    )


def _add_principal(known: dict[str, object], call: "Call") -> None:
    principal = call.principal
    if principal is not None:
        key = principal.key
        known["organization"], known["team"] = key.organization, key.team
        known["project"], known["user"] = principal.project, principal.user


def _add_request(known: dict[str, object], call: "Call") -> None:
    facts, price = call.facts, call.price
    if facts is None:
        return
    size = facts.size
    known["model"], known["stream"] = facts.model, facts.stream
    known["choices"], known["service_tier"] = size.choices, size.service_tier
    if size.output_limit is not None:
        known["max_tokens"] = size.output_limit
    if call.clamped is not None:
        known["clamped"] = call.clamped
    if price is not None and not price.unpriced:
        known["priced_model"] = price.model


def _add_outcome(known: dict[str, object], call: "Call") -> None:
    done = call.outcome
    if done is None:
        return
    known["ending"], known["usage_source"] = done.ending, done.usage_source
    known["price_version"] = call.state.prices.version
    if not done.price.unpriced:
        known["cost_nano"] = done.cost.nano
    reading, usage = done.reading, done.usage
    if reading is not None:
        known["reply_error"] = bool(reading.error)
        known["response_id"], known["response_model"] = reading.response_id, reading.model
    if usage is not None:
        known["input_tokens"], known["output_tokens"] = usage.input_tokens, usage.output_tokens
        known["cache_read_tokens"] = usage.cache_read_tokens
        known["cache_write_tokens"] = usage.cache_write_tokens
        known["reasoning_tokens"] = usage.reasoning_tokens
        known["billed_tier"] = usage.service_tier
