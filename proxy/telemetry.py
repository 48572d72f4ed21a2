"""One structured line and one set of counters per call, written at its end, never per chunk."""

import asyncio
import contextlib
import os
import time
import traceback
from functools import lru_cache

import msgspec

from db.journal_records import FLAG_CEILING_VIOLATION
from pricing.money import usd_from_nano
from pricing.usage import Usage
from proxy.call import Call
from proxy.errors import Refusal
from proxy.metrics import OTHER, Metrics
from proxy.refused import RefusedCalls

ABOVE_CEILING = "cost above ceiling"
MODEL_CHARS_MAX = 128  # of a name that a caller chose, in what is counted
_FLUSH_S = 0.1
_BUFFER_BYTES_MAX = 1024 * 1024
_TOLD_TOGETHER = 8  # calls at least; many more would hold up whoever comes then
_KEPT_BODY_BYTES_MAX = 65_536  # of a request: a larger one does not wait for others
_BLOCKED = frozenset(["budget_exceeded", "budget_busy", "cost_cap_exceeded"])
NO_USAGE = Usage()  # as counted; never changed
_encode_lines = msgspec.json.Encoder().encode_lines


class LineLog:
    """JSON lines to a file descriptor, written in blocks; lossy rather than blocking or growing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int = 2) -> None:
        self._loop = loop
        self._fd = fd
        self._lines: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, *entries: dict[str, object]) -> None:
        """Add lines; they are on their way within a tenth of a second."""
        lines = _encode_lines(entries)
        self._lines.append(lines)
        self._bytes += len(lines)
        if self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self.flush)
        elif self._bytes > _BUFFER_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._bytes = self._lines, [], 0
        if lines:
            with contextlib.suppress(OSError):  # nobody reads the log: calls go on
                os.write(self._fd, b"".join(lines))


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s))


def timestamp(at_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


class Telemetry:
    """What a worker tells about its calls: of several at a time, because code that runs a few
    times in a row costs half of what it costs between other code (bench/README.md)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: LineLog | None = None) -> None:
        self._metrics = Metrics()
        self.refused = RefusedCalls()
        self.log_calls = True
        self._loop = loop
        self._log = log or LineLog(loop)
        self._ended: list[tuple[Call, int]] = []  # calls to be told of, with their durations
        self._timer: asyncio.TimerHandle | None = None

    @property
    def metrics(self) -> Metrics:
        """The counts, with every call that has ended."""
        self._tell()
        return self._metrics

    def ended(self, call: Call) -> None:
        """Record a call that has ended, however it did."""
        duration_ns = time.perf_counter_ns() - call.began_ns
        tracer = call.state.tracer
        if tracer is not None:
            tracer.ended(call, duration_ns)
        call.meter = None  # with the reply in it
        ended = self._ended
        ended.append((call, duration_ns))
        if len(ended) == _TOLD_TOGETHER or len(call.body) > _KEPT_BODY_BYTES_MAX:
            self._loop.call_soon(self._tell)  # what is written to clients by now goes out first
        elif self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._tell()

    def _tell(self) -> None:
        ended, self._ended = self._ended, []
        lines = []
        for call, duration_ns in ended:
            try:
                record_metrics(self._metrics, call, duration_ns)
                if call.refusal is not None:
                    self.refused.add(call, call.refusal)
                if call.outcome is not None and call.outcome.flags & FLAG_CEILING_VIOLATION:
                    self._above_ceiling(call, call.outcome.cost.nano)
                if self.log_calls:
                    lines.append(call_line(call, duration_ns))
            except Exception as exc:  # a bug of ours: the others are told of all the same
                self.problem("internal error", call.request_id, exc)
        if lines:
            self._log.write(*lines)

    def problem(self, what: str, request_id: str, exc: BaseException) -> None:
        """An operational error or a bug of ours: once, with the request id."""
        self._metrics.problem(what)
        self._log.write(
            {
                "at": timestamp(time.time_ns() // 1_000_000),
                "level": "error",
                "event": what,
                "request_id": request_id,
                "error": f"{type(exc).__name__}: {exc}",
                "trace": "".join(traceback.format_exception(exc)[-3:]),
            }
        )

    def _above_ceiling(self, call: Call, cost_nano: int) -> None:
        """A call cost more than the most it could: a price table or a ceiling's rule is wrong."""
        assert call.bounds is not None
        self._metrics.problem(ABOVE_CEILING)
        self._metrics.notable("ceiling_violation", _provider_model(call))
        self._log.write(
            {
                "at": timestamp(call.at_ms),
                "level": "error",
                "event": ABOVE_CEILING,
                "request_id": call.request_id,
                "cost_usd": usd_from_nano(cost_nano),
                "ceiling_usd": usd_from_nano(call.bounds.ceiling.nano),
            }
        )

    def close(self) -> None:
        """Write what is buffered; the worker ends."""
        self._tell()
        self._log.flush()


def record_metrics(metrics: Metrics, call: Call, duration_ns: int) -> None:
    """Count a call under closed, low-cardinality labels: a model is one of the price table."""
    refusal, done = call.refusal, call.outcome
    if done is not None and done.ending == "open":
        done = None  # what it uses and costs is not known yet
    usage = (done.usage if done is not None else None) or NO_USAGE
    price = done.price if done is not None else call.price
    priced = price is not None and not price.unpriced
    if call.facts is not None:
        metrics.price_lookup(priced=priced)
        if (price is not None and price.unpriced) or _not_priced(refusal):
            metrics.notable("unpriced_model", _provider_model(call))
    if refusal is not None and refusal.code in _BLOCKED:
        metrics.blocked(str(refusal.details.get("scope", "call")).partition("/")[0])
    if call.held is not None and call.held.spared:
        for _, budget in call.held.spared:
            metrics.spared(budget.scope.partition("/")[0])
    first_ns = call.first_byte_ns
    metrics.call(
        call.provider.name if call.provider is not None else OTHER,
        price.model if price is not None and priced else OTHER,
        call.route.operation or call.route.name if call.route is not None else OTHER,
        str(call.refusal_status(refusal) if refusal is not None else call.status),
        refusal.code if refusal is not None else call.error,
        duration_us=duration_ns // 1000,
        first_chunk_us=(first_ns - call.began_ns) // 1000 if first_ns and call.streams else -1,
        overhead_us=_overhead_us(call, duration_ns) if first_ns else -1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nano=done.cost.nano if done is not None else 0,
    )
    if usage.provider_cost_nano is not None and done is not None and call.provider is not None:
        ours = done.cost.nano if done.priced_nano is None else done.priced_nano
        metrics.provider_cost(call.provider.name, usage.provider_cost_nano, ours)


def _not_priced(refusal: Refusal | None) -> bool:
    return refusal is not None and refusal.code == "model_not_priced"


def _provider_model(call: Call) -> str:
    assert call.provider is not None
    assert call.facts is not None
    return f"{call.provider.name}/{call.facts.model[:MODEL_CHARS_MAX]}"


def _overhead_us(call: Call, duration_ns: int) -> int:
    """Time before the request went out, and after the answer to one that is not a stream began."""
    before = call.forwarded_ns - call.began_ns
    after = 0 if call.streams else duration_ns - (call.first_byte_ns - call.began_ns)
    return (before + after) // 1000


def call_line(call: Call, duration_ns: int) -> dict[str, object]:
    """The log line of one call: who, what, how it ended, what it cost. Never a secret."""
    provider, route, refusal = call.provider, call.route, call.refusal
    line: dict[str, object] = {
        "at": timestamp(call.at_ms),
        "level": "info" if refusal is None else "warning",
        "event": "call" if refusal is None else "refused",
        "request_id": call.request_id,
        "method": call.client.method,
        "provider": provider.name if provider is not None else "",
        "route": route.name if route is not None else "",
        "key": call.key_name,
        "status": call.status if call.refusal is None else call.refusal.status,
        "duration_ms": duration_ns // 1_000_000,
    }
    principal, facts = call.principal, call.facts
    if principal is not None:
        line["team"] = principal.key.team
        if principal.user:
            line["user"] = principal.user
    if facts is not None:
        line["model"] = facts.model
        line["stream"] = facts.stream
    if call.outcome is not None:
        _add_outcome(line, call)
    if refusal is not None:
        line["code"] = refusal.code
        line["message"] = refusal.message
    if call.error:
        line["error"] = call.error
    return line


def _add_outcome(line: dict[str, object], call: Call) -> None:
    done, held = call.outcome, call.held
    assert done is not None
    assert held is not None
    usage = done.usage
    if held.spared:
        line["would_refuse"] = [budget.scope for _, budget in held.spared]
    line["ending"] = done.ending
    line["usage_source"] = done.usage_source
    line["cost_usd"] = call.cost_usd or usd_from_nano(done.cost.nano)
    line["hold_usd"] = call.hold_usd or usd_from_nano(held.ceiling_nano)
    if usage is not None:
        line["input_tokens"] = usage.input_tokens
        line["output_tokens"] = usage.output_tokens
    if call.first_byte_ns:
        line["first_byte_ms"] = (call.first_byte_ns - call.began_ns) // 1_000_000
    if call.downgraded_from:
        line["downgraded_from"] = call.downgraded_from
    if call.clamped is not None:
        line["clamped_max_tokens"] = call.clamped
