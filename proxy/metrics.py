"""Counting calls in a worker, and the form in which the counts travel to control.

A worker keeps one row of integers per distinct set of labels and sends the rows that changed, as
totals since its start: a message that comes twice or gets lost does no harm. Control adds the
workers up and renders. No label ever holds what a caller can choose freely.
"""

from bisect import bisect_left

import msgspec
from msgspec import Struct

US_PER_S = 1_000_000
OTHER = "other"
SERIES_MAX = 1_000  # rows per worker; beyond it, calls are counted as `other`
NOTABLE_MAX = 50  # names per kind of alert: callers choose models freely

# Upper bounds in microseconds; one more bucket takes everything above.
DURATION_US = tuple(
    int(seconds * US_PER_S)
    for seconds in (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
)
OVERHEAD_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000)

Labels = tuple[str, str, str, str, str]  # provider, model, operation, status, error_type

# --- a row: places of its integers ---------------------------------------------------------

CALLS = 0
COST_NANO = 1
TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")
FIRST_TOKEN_COUNT = 2
DURATION = FIRST_TOKEN_COUNT + len(TOKENS)  # sum in microseconds, then the buckets
FIRST_CHUNK = DURATION + 1 + len(DURATION_US) + 1
OVERHEAD = FIRST_CHUNK + 1 + len(DURATION_US) + 1
ROW_LENGTH = OVERHEAD + 1 + len(OVERHEAD_US) + 1


class Totals(Struct, array_like=True):
    """What a worker has counted. Rows and counters that are missing have not changed."""

    rows: list[tuple[Labels, list[int]]] = []
    blocked: dict[str, int] = {}  # by kind of scope
    lookups: dict[str, int] = {}  # "priced", "unpriced"
    problems: dict[str, int] = {}  # by event
    in_flight: int = 0
    provider_costs: dict[str, list[int]] = {}  # by provider, as `PROVIDER_COST` names the places
    notable: dict[str, dict[str, int]] = {}  # by kind of alert and "provider/model"; no metric
    spared: dict[str, int] = {}  # by kind of scope


# Of calls whose reply has the provider's own figure: how many, how many of these we price
# otherwise, the sum of the figures and of our prices in nano-USD.
PROVIDER_COST = ("calls", "drifted", "reported_nano", "priced_nano")
ROUNDING_NANO = 1  # figures that differ by no more are equal

_encode = msgspec.msgpack.Encoder().encode
decode_totals = msgspec.msgpack.Decoder(Totals).decode


class _Row:
    __slots__ = ("changed", "labels", "values")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.values = [0] * ROW_LENGTH
        self.changed = False


class Metrics:
    """One worker's counters. Not thread-safe."""

    def __init__(self) -> None:
        self.in_flight = 0  # set by whoever admits calls
        self._rows: dict[Labels, _Row] = {}
        self._changed: list[_Row] = []
        self._blocked: dict[str, int] = {}
        self._lookups: dict[str, int] = {}
        self._problems: dict[str, int] = {}
        self._provider_costs: dict[str, list[int]] = {}
        self._notable: dict[str, dict[str, int]] = {}
        self._spared: dict[str, int] = {}
        self._counted = False
        self._in_flight_sent = 0

    def call(
        self,
        provider: str,
        model: str,
        operation: str,
        status: str,
        error_type: str,
        *,
        duration_us: int,
        first_chunk_us: int = -1,
        overhead_us: int = -1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        cost_nano: int = 0,
    ) -> None:
        """Count a call that ended. `provider` is one of the configuration, `model` an entry of
        the price table, "" or "other" if neither; -1: there is no such time."""
        row = self._rows.get((provider, model, operation, status, error_type))
        if row is None:
            row = self._row((provider, model, operation, status, error_type))
        values = row.values
        values[0] += 1
        values[1] += cost_nano
        values[2] += input_tokens
        values[3] += output_tokens
        values[4] += cache_read_tokens
        values[5] += cache_write_tokens
        values[6] += reasoning_tokens
        values[DURATION] += duration_us
        values[DURATION + 1 + bisect_left(DURATION_US, duration_us)] += 1
        if first_chunk_us >= 0:
            values[FIRST_CHUNK] += first_chunk_us
            values[FIRST_CHUNK + 1 + bisect_left(DURATION_US, first_chunk_us)] += 1
        if overhead_us >= 0:
            values[OVERHEAD] += overhead_us
            values[OVERHEAD + 1 + bisect_left(OVERHEAD_US, overhead_us)] += 1
        if not row.changed:
            row.changed = True
            self._changed.append(row)

    def blocked(self, scope_kind: str) -> None:
        """A call was refused for a budget on this kind of scope."""
        self._count(self._blocked, scope_kind)

    def spared(self, scope_kind: str) -> None:
        """A budget that is not enforced would have refused a call."""
        self._count(self._spared, scope_kind)

    def price_lookup(self, *, priced: bool) -> None:
        self._count(self._lookups, "priced" if priced else "unpriced")

    def provider_cost(self, provider: str, reported_nano: int, priced_nano: int) -> None:
        """A reply carried the provider's own figure."""
        drifted = abs(reported_nano - priced_nano) > ROUNDING_NANO
        sums = self._provider_costs.setdefault(provider, [0] * len(PROVIDER_COST))
        for place, value in enumerate((1, int(drifted), reported_nano, priced_nano)):
            sums[place] += value
        self._counted = True

    def problem(self, what: str) -> None:
        """An operational error or a bug; `what` is one of the texts of our own code."""
        self._count(self._problems, what)

    def notable(self, kind: str, name: str) -> None:
        """Something that somebody is to be told of, by name."""
        counts = self._notable.setdefault(kind, {})
        self._count(counts, name if name in counts or len(counts) < NOTABLE_MAX else OTHER)

    def encode(self) -> bytes:
        """What has changed since the last time, as totals; b"" if nothing has."""
        unchanged = not self._changed and not self._counted
        if unchanged and self.in_flight == self._in_flight_sent:
            return b""
        rows = [(row.labels, row.values) for row in self._changed]
        counts = (self._blocked, self._lookups, self._problems)
        totals = Totals(
            rows, *counts, self.in_flight, self._provider_costs, self._notable, self._spared
        )
        data = _encode(totals)
        for row in self._changed:
            row.changed = False
        self._changed.clear()
        self._counted = False
        self._in_flight_sent = self.in_flight
        return data

    def _count(self, counters: dict[str, int], name: str) -> None:
        counters[name] = counters.get(name, 0) + 1
        self._counted = True

    def _row(self, labels: Labels) -> _Row:
        if len(self._rows) >= SERIES_MAX:
            labels = (OTHER, OTHER, OTHER, labels[3], OTHER)
            known = self._rows.get(labels)
            if known is not None:
                return known
        row = self._rows[labels] = _Row(labels)
        return row
