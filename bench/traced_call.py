"""What tracing adds to a call: in the worker, where calls wait for it, and in control's thread.

    python bench/traced_call.py

The worker's part is `call_path.py` with and without a tracer, taken in turns; control's is a
record decoded and counted, and decoded and made into two spans as OTLP has them, in batches as
they are exported.
"""

import time

import uvloop
from call_path import measure
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from proxy.call_record import CallRecord, decode_record, encode_record
from proxy.control.otel_encoding import EncodedSpan, SpanEncoder
from proxy.control.otel_sums import MetricSums
from proxy.tracing import Tracer
from proxy.wire import TracingEntry

ROUNDS = 3
EXPORT_BATCH = 512  # spans, as the SDK exports them
RECORD = CallRecord(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    client_span_id="b7ad6b7169203332",
    parent_id="b7ad6b7169203330",
    sampled=True,
    trace_state="",
    start_ns=10**18,
    duration_ns=10**9,
    forwarded_ns=10**6,
    first_chunk_ns=-1,
    request_id="019c0000-0000-7000-8000-000000000000",
    method="POST",
    path="/v1/chat/completions",
    answered=200,
    status=200,
    provider="openai",
    prices="openai",
    host="api.openai.com",
    port=443,
    route="chat.completions",
    operation="chat",
    key="search-prod",
    organization="acme",
    team="search",
    model="gpt-4o-mini",
    priced_model="gpt-4o-mini",
    ending="complete",
    response_id="chatcmpl-1",
    response_model="gpt-4o-mini-2024-07-18",
    usage_source="reported",
    input_tokens=412,
    output_tokens=23,
    cost_nano=75_600,
    price_version="2026-11-21",
)


async def worker() -> tuple[float, float]:
    """Microseconds a call without and with tracing."""
    entry = TracingEntry(spans=True, metrics=True, follow_parent=True, ratio=1.0)
    off = on = float("inf")
    for _ in range(ROUNDS):
        off = min(off, await measure(None))
        on = min(on, await measure(None, Tracer(entry, propagate=True)))
    return off, on


def control() -> tuple[float, float]:
    """Microseconds a call: of metrics, and of encoded spans."""
    encoder = SpanEncoder(Resource({"service.name": "tollkeeper"}), "1")
    reader, data = InMemoryMetricReader(), encode_record(RECORD)
    sums = MetricSums(Resource({"service.name": "tollkeeper"}), "1", reader)
    counted = encoded = float("inf")
    for _ in range(ROUNDS * 10):
        found: list[EncodedSpan] = []
        start = time.process_time()
        for _ in range(EXPORT_BATCH // 2):
            sums.record(decode_record(data))
        reader.collect()
        middle = time.process_time()
        for _ in range(EXPORT_BATCH // 2):
            found += encoder.of(decode_record(data))
        encoder.request(found)
        counted = min(counted, middle - start)
        encoded = min(encoded, time.process_time() - middle)
    calls = EXPORT_BATCH / 2
    return counted / calls * 1e6, encoded / calls * 1e6


async def main() -> None:
    off, on = await worker()
    counted, encoded = control()
    print(f"worker: {off:.1f} us a call, {on:.1f} us traced: {on - off:.1f} us")
    print(f"control's thread: {counted:.1f} us for metrics, {encoded:.1f} us for encoded spans")


if __name__ == "__main__":
    uvloop.run(main())
