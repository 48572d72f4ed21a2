"""The metrics of `otel_metrics`, added up here: the SDK is called once per export, where counting
each call with it takes ten times as long. A test holds every message to what the SDK makes.
"""

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pricing.money import NANO_PER_USD
from proxy.call_record import CallRecord
from proxy.control import otel_names as names
from proxy.control.otel_metrics import COST, DURATION, FIRST_CHUNK, TOKENS, Calls, Told
from proxy.control.otel_spans import error_type

SERIES_MAX = 2_000  # of one metric; what is beyond has no model's name. The SDK's own limit.
# By which the SDK asks for what there is. It is no promise of theirs: see `fits`.
COLLECT = "_set_collect_callback"
EXPONENTIAL = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"

Series = tuple[Calls, str]  # and what one metric tells apart besides: a kind of tokens, an error
ERRORS, KINDS = names.ERROR_TYPE, names.TOKEN_TYPE


def fits(reader: MetricReader) -> bool:
    """Whether this reader takes sums of our own, and no other kind of them is asked for."""
    return hasattr(reader, COLLECT) and not os.environ.get(EXPONENTIAL)


class Spread:
    """Values in buckets."""

    __slots__ = ("buckets", "high", "low", "total")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.total: float = 0
        self.low, self.high = inf, -inf


class MetricSums:
    """What `Instruments` is, for one reader, which is given to it."""

    def __init__(self, resource: Resource, version: str, reader: MetricReader) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("tollkeeper", version, "")
        self._reader = reader
        self._lock = threading.Lock()
        self._durations: dict[Series, Spread] = {}
        self._first_chunks: dict[Series, Spread] = {}
        self._tokens: dict[Series, Spread] = {}
        self._nanos: dict[Series, int] = {}
        self._since = self._asked = time.time_ns()
        getattr(reader, COLLECT)(self.collect)

    def record(self, call: CallRecord) -> None:
        """As `Instruments.record`."""
        if call.forwarded_ns < 0 or not call.operation:
            return
        calls = Calls.of(call)
        with self._lock:
            if call.first_chunk_ns >= 0:
                _add(self._first_chunks, (calls, ""), names.SECONDS, call.first_chunk_ns / 1e9)
            if call.usage_source == "reported":
                _add(self._tokens, (calls, "input"), names.TOKENS, call.input_tokens)
                _add(self._tokens, (calls, "output"), names.TOKENS, call.output_tokens)
            if call.cost_nano > 0:
                series = _bounded(self._nanos, (calls, ""))
                self._nanos[series] = self._nanos.get(series, 0) + call.cost_nano
            seconds = (call.duration_ns - call.forwarded_ns) / 1e9
            _add(self._durations, (calls, error_type(call)), names.SECONDS, seconds)

    def collect(self, reader: Any, timeout_millis: float = 0) -> MetricsData | None:
        """What there is; of what is told by differences, what there is since the last time."""
        now = time.time_ns()
        with self._lock:
            metrics = [
                *self._histogram(DURATION, self._durations, ERRORS, names.SECONDS, now),
                *self._histogram(FIRST_CHUNK, self._first_chunks, "", names.SECONDS, now),
                *self._histogram(TOKENS, self._tokens, KINDS, names.TOKENS, now),
                *self._counter(COST, self._nanos, now),
            ]
            self._asked = now
        if not metrics:
            return None
        scope = ScopeMetrics(self._scope, metrics, self._scope.schema_url or "")
        return MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])

    def shutdown(self) -> None:
        self._reader.shutdown()

    def _histogram(
        self, told: Told, found: dict[Series, Spread], name: str, bounds: Sequence[float], now: int
    ) -> list[Metric]:
        def point(series: Series, spread: Spread, start: int) -> HistogramDataPoint:
            counts = tuple(spread.buckets)
            return HistogramDataPoint(
                _attributes(series, name), start, now, sum(counts), spread.total, counts,
                tuple(bounds), spread.low, spread.high,
            )  # fmt: skip

        points, temporality = self._points(found, Histogram, point)
        return [Metric(*told, HistogramData(points, temporality))] if points else []

    def _counter(self, told: Told, found: dict[Series, int], now: int) -> list[Metric]:
        def point(series: Series, nano: int, start: int) -> NumberDataPoint:
            return NumberDataPoint(_attributes(series, ""), start, now, nano / NANO_PER_USD)

        points, temporality = self._points(found, Counter, point)
        return [Metric(*told, Sum(points, temporality, is_monotonic=True))] if points else []

    def _points(
        self, found: dict[Series, Any], kind: type, point: Callable[[Series, Any, int], Any]
    ) -> tuple[list[Any], AggregationTemporality]:
        preferred: Mapping[type, AggregationTemporality] = (
            getattr(self._reader, "_preferred_temporality", None) or {}
        )
        temporality = AggregationTemporality.CUMULATIVE
        for each, wanted in preferred.items():
            if issubclass(each, kind):
                temporality = wanted
        by_difference = temporality is AggregationTemporality.DELTA
        start = self._asked if by_difference else self._since
        points = [point(series, value, start) for series, value in found.items()]
        if by_difference:
            found.clear()
        return points, temporality


def _add(
    found: dict[Series, Spread], series: Series, bounds: Sequence[float], value: float
) -> None:
    spread = found.get(series)
    if spread is None:
        series = _bounded(found, series)
        spread = found.setdefault(series, Spread(len(bounds) + 1))
    spread.buckets[bisect_left(bounds, value)] += 1
    spread.total += value
    spread.low, spread.high = min(spread.low, value), max(spread.high, value)


def _bounded(found: Mapping[Series, Any], series: Series) -> Series:
    if series in found or len(found) < SERIES_MAX:
        return series
    return series[0]._replace(model=names.OTHER), series[1]


def _attributes(series: Series, name: str) -> dict[str, Any]:
    calls, value = series
    attributes = calls.attributes()
    return attributes | {name: value} if value else attributes
