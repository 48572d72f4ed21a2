"""Spans as we encode them are, message by message, what OpenTelemetry's own encoder makes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from proxy.call_record import CallRecord
from proxy.control.otel_encoding import CHARS_MAX, SpanEncoder
from proxy.control.otel_spans import Spans
from tests.proxy.control.test_otel import a_record

RESOURCE = Resource({"service.name": "gate", "service.version": "1", "n": 3})
ENCODER, SPANS = SpanEncoder(RESOURCE, "9"), Spans(RESOURCE, "9")
TEXT = st.text(max_size=12) | st.sampled_from(["", "x" * (CHARS_MAX + 1), "\u00e9" * 130])
NS = st.integers(0, 2**62)
HEX = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "span_id": HEX,
        "parent_id": HEX | st.just(""),
        "trace_state": st.sampled_from(["", "a=1,b=2", "not well formed", "a=1,a=2, c@d=e"]),
        "start_ns": NS,
        "duration_ns": NS,
        "forwarded_ns": st.sampled_from([-1, 0, 10**9]),
        "first_chunk_ns": st.sampled_from([-1, 0, 1_234_567]),
        "request_id": TEXT,
        "path": TEXT.map(lambda text: f"/{text}"),
        "answered": st.sampled_from([0, 200, 429, 503]),
        "status": st.sampled_from([0, 200, 500]),
        "refusal": st.sampled_from(["", "budget_exceeded", "overloaded"]),
        "refused_scope": TEXT,
        "error": st.sampled_from(["", "client_gone", "draining"]),
        "operation": st.sampled_from(["", "chat"]),
        "team": TEXT,
        "user": TEXT,
        "model": TEXT,
        "stream": st.booleans(),
        "max_tokens": st.integers(-1, 2**40),
        "choices": st.sampled_from([0, 1, 2]),
        "response_id": TEXT,
        "input_tokens": st.integers(0, 2**40),
        "cost_nano": st.integers(-1, 2**60),
        "ending": st.sampled_from(["", "complete", "upstream_error"]),
    },
)


def same(*calls: CallRecord) -> None:
    theirs = encode_spans([span for call in calls for span in SPANS.of(call)])
    ours = ENCODER.request([span for call in calls for span in ENCODER.of(call)])
    assert ExportTraceServiceRequest.FromString(ours) == theirs


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_the_messages_are_the_same(changes: dict[str, Any]) -> None:
    same(a_record(**changes))


def test_so_are_those_of_many_calls() -> None:
    same(*(a_record(port=port, choices=port % 3, stream=bool(port % 2)) for port in range(300)))


def test_a_truth_a_number_and_a_fraction_that_are_equal_stay_apart() -> None:
    same(a_record(stream=True, max_tokens=1, cost_nano=10**9, usage_source="reported"))


def test_no_id_is_taken_that_is_none() -> None:
    with pytest.raises(ValueError, match="base 16"):
        ENCODER.of(a_record(trace_id="x"))
