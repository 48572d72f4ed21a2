"""Metrics that are added up here are, message by message, those of the SDK's instruments."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from proxy.control import otel_names as names
from proxy.control import otel_sums
from proxy.control.otel_metrics import Instruments
from proxy.control.otel_sums import MetricSums, fits
from tests.proxy.control.test_otel import a_record

RESOURCE = Resource({"service.name": "gate"})
TEMPORALITIES = list(AggregationTemporality)[1:]
# Values on the bounds of buckets, beside them, and beyond all.
NS = st.sampled_from([0, 9_999_999, 10**7, 10**7 + 1, 10**9, 81_920_000_000, 10**12])
RECORDS = st.fixed_dictionaries(
    {"forwarded_ns": st.sampled_from([-1, 0, 10**9]), "duration_ns": NS.map(lambda ns: ns + 10**9)},
    optional={
        "first_chunk_ns": st.just(-1) | NS,
        "provider": st.sampled_from(["openai", "azure", "mine"]),
        "operation": st.sampled_from(["", "chat", "embeddings"]),
        "priced_model": st.sampled_from(["", "gpt-4o-mini"]),
        "usage_source": st.sampled_from(["reported", "estimated", "none"]),
        "input_tokens": st.sampled_from([0, 1, 4, 5, 2**30]),
        "cost_nano": st.sampled_from([-1, 0, 1, 10**9]),
        "ending": st.sampled_from(["complete", "upstream_error"]),
        "status": st.sampled_from([200, 429]),
    },
)


def told(reader: InMemoryMetricReader) -> dict[tuple[Any, ...], Any]:
    """What goes over the wire but for its times, by metric and attributes."""
    data = reader.get_metrics_data()
    found: dict[tuple[Any, ...], Any] = {}
    message = encode_metrics(data).SerializeToString() if data is not None else b""
    for of_resource in ExportMetricsServiceRequest.FromString(message).resource_metrics:
        assert of_resource.resource.attributes[0].value.string_value == "gate"
        for of_scope in of_resource.scope_metrics:
            scope = of_scope.scope.SerializeToString(), of_scope.schema_url
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                assert kind is not None
                points = getattr(metric, kind)
                monotonic = kind == "sum" and points.is_monotonic
                about = (*scope, metric.name, metric.description, metric.unit, kind, monotonic)
                for point in points.data_points:
                    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
                    point.ClearField("start_time_unix_nano")
                    point.ClearField("time_unix_nano")
                    attributes = sorted(each.SerializeToString() for each in point.attributes)
                    point.ClearField("attributes")
                    if kind == "sum":  # ours is exact
                        point.as_double = round(point.as_double, 9)
                    key = (*about, points.aggregation_temporality, *attributes)
                    found[key] = point.SerializeToString()
    return found


def readers(temporality: AggregationTemporality) -> list[InMemoryMetricReader]:
    preferred: dict[type, AggregationTemporality] = {Counter: temporality, Histogram: temporality}
    return [InMemoryMetricReader(preferred) for _ in range(2)]


@pytest.mark.parametrize("temporality", TEMPORALITIES)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(RECORDS, max_size=6), min_size=1, max_size=3))
def test_the_messages_are_the_same(
    temporality: AggregationTemporality, batches: list[list[dict[str, Any]]]
) -> None:
    theirs, ours = readers(temporality)
    provider = MeterProvider([theirs], RESOURCE, shutdown_on_exit=False)
    instruments = Instruments(provider.get_meter("tollkeeper", "9"))
    sums = MetricSums(RESOURCE, "9", ours)
    for batch in batches:  # each is followed by an export
        for changes in batch:
            instruments.record(a_record(**changes))
            sums.record(a_record(**changes))
        instruments.add_costs()
        assert told(ours) == told(theirs)


def test_names_and_buckets_are_those_of_the_conventions() -> None:
    _, ours = readers(AggregationTemporality.CUMULATIVE)
    MetricSums(RESOURCE, "9", ours).record(a_record(first_chunk_ns=5))
    data = ours.get_metrics_data()
    assert data is not None
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    seconds = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
               81.92)  # fmt: skip
    assert {name: metric.unit for name, metric in found.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.operation.time_to_first_chunk": "s",
        "gen_ai.client.token.usage": "{token}",
        "tollkeeper.cost.usd": "{USD}",
    }
    for name in (names.DURATION_METRIC, names.FIRST_CHUNK_METRIC):
        assert found[name].data.data_points[0].explicit_bounds == pytest.approx(seconds)  # type: ignore[union-attr]
    tokens = found[names.TOKENS_METRIC].data.data_points
    assert [point.attributes["gen_ai.token.type"] for point in tokens] == ["input", "output"]  # type: ignore[index]
    assert tokens[0].explicit_bounds == tuple(4**power for power in range(14))  # type: ignore[union-attr]


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel_sums, "SERIES_MAX", 2)
    _, ours = readers(AggregationTemporality.CUMULATIVE)
    sums = MetricSums(RESOURCE, "9", ours)
    for n in (0, 1, 2, 3, 0):
        sums.record(a_record(priced_model=f"m{n}", usage_source="none"))
    data = ours.get_metrics_data()
    assert data is not None
    points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    counts = {point.attributes[names.REQUEST_MODEL]: point.count for point in points}  # type: ignore[union-attr, index]
    assert counts == {"m0": 2, "m1": 1, "other": 2}


def test_who_asks_for_other_buckets_gets_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    assert fits(reader)
    monkeypatch.setenv(otel_sums.EXPONENTIAL, "base2_exponential_bucket_histogram")
    assert not fits(reader)
    monkeypatch.delenv(otel_sums.EXPONENTIAL)
    monkeypatch.setattr(otel_sums, "COLLECT", "_of_another_release")
    assert not fits(reader)
