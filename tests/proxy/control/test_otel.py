"""Records to OpenTelemetry: names of routes and providers, OTLP over HTTP, what is lost."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.call_record import CallRecord, encode_record
from proxy.config import Telemetry
from proxy.control import otel, otel_names, otel_sums
from proxy.control.otel import BATCHES_MAX, OtelExport
from proxy.control.otel_spans import client_attributes, error_type, http_route, server_error


def a_record(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "trace_id": "1" * 32,
        "span_id": "2" * 16,
        "client_span_id": "3" * 16,
        "parent_id": "",
        "sampled": True,
        "trace_state": "",
        "start_ns": 10**18,
        "duration_ns": 3 * 10**9,
        "forwarded_ns": 10**9,
        "first_chunk_ns": -1,
        "request_id": "call-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "answered": 200,
        "status": 200,
        "provider": "openai",
        "prices": "openai",
        "route": "chat.completions",
        "operation": "chat",
        "model": "gpt-4o-mini",
        "priced_model": "gpt-4o-mini",
        "ending": "complete",
        "usage_source": "reported",
        "cost_nano": 1500,
    }
    return CallRecord(**values | changes)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/mine/completions", "/openai/deployments/{name}/completions"),
        (
            "/v1beta/models/gemini-2.5-flash:generateContent",
            "/v1beta/models/{name}:generateContent",
        ),
        ("/v1/files/file-abc123", "/v1/files/{name}"),
        ("/v1/responses/resp_1/input_items", "/v1/responses/{name}/input_items"),
        ("/bedrock/model/us.amazon.nova-lite-v1:0/converse", "/bedrock/model/{name}:0/converse"),
        ("/v1/projects/p/models/m:predict", "/v1/projects/{name}/models/{name}:predict"),
        ("/", "/"),
    ],
)
def test_a_route_names_no_id(path: str, route: str) -> None:
    assert http_route(path) == route


@given(st.text(max_size=50))
def test_any_path_has_a_route(path: str) -> None:
    assert http_route(path).count("/") == path.count("/")


@pytest.mark.parametrize(
    ("name", "prices", "expected"),
    [
        ("openai", "openai", "openai"),
        ("azure", "azure", "azure.ai.openai"),
        ("eu", "azure", "azure.ai.openai"),
        ("bedrock", "bedrock", "aws.bedrock"),
        ("vertex", "vertex_ai", "gcp.vertex_ai"),
        ("gemini", "gemini", "gcp.gemini"),
        ("xai", "xai", "x_ai"),
        ("mistral", "mistral", "mistral_ai"),
        ("second", "anthropic", "anthropic"),
        ("ollama", "free", "ollama"),
        ("together", "together_ai", "together"),
    ],
)
def test_names_of_providers(name: str, prices: str, expected: str) -> None:
    assert otel_names.provider_name(name, prices) == expected


@pytest.mark.parametrize(
    ("changes", "client", "server"),
    [
        ({}, "", ""),
        ({"ending": "upstream_error", "status": 429, "answered": 429}, "429", ""),
        ({"ending": "upstream_error", "status": 503, "answered": 503}, "503", "503"),
        ({"error": "client_gone", "ending": "client_gone"}, "client_gone", ""),
        ({"error": "draining", "ending": "cut"}, "draining", "draining"),
        ({"error": "client_gone", "ending": "complete"}, "", ""),
        ({"refusal": "budget_exceeded", "answered": 429, "ending": ""}, "", ""),
    ],
)
def test_why_a_call_failed(changes: dict[str, Any], client: str, server: str) -> None:
    record = a_record(**changes)
    if record.forwarded_ns >= 0 and not record.refusal:
        assert error_type(record) == client
    assert server_error(record) == server


def test_a_call_without_a_price_has_no_cost() -> None:
    assert "tollkeeper.cost.usd" not in client_attributes(a_record(cost_nano=-1))
    assert client_attributes(a_record(cost_nano=0))["tollkeeper.cost.usd"] == 0.0


def test_tiers_are_named_where_the_api_has_them() -> None:
    found = client_attributes(a_record(service_tier="auto", billed_tier="flex", choices=2))
    assert found["openai.request.service_tier"] == "auto"
    assert found["openai.response.service_tier"] == "flex"
    assert found["gen_ai.request.choice.count"] == 2
    other = client_attributes(a_record(provider="groq", prices="groq", service_tier="flex"))
    assert not [name for name in other if name.startswith("openai.")]


# --- over the wire -------------------------------------------------------------------------


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                secret = self.headers.get("x-secret", "")
                endpoint.received.append((self.path, secret, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("own", [True, False])
async def test_otlp_over_http(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """With spans and sums of our own, and where the SDK takes none."""
    if not own:
        monkeypatch.setattr(otel, "SENDER", "_of_another_release")
        monkeypatch.setattr(otel_sums, "COLLECT", "_of_another_release")
    export = OtelExport(
        Telemetry(
            endpoint=f"http://127.0.0.1:{endpoint.server_port}/",
            headers={"x-secret": "s"},
            traces="on",
            metrics="on",
            service_name="gate",
        )
    )
    export.add([encode_record(a_record()), encode_record(a_record(sampled=False))])
    await export.close()

    bodies = {path: body for path, secret, body in endpoint.received if secret == "s"}
    traces = ExportTraceServiceRequest.FromString(bodies["/v1/traces"])
    resource = traces.resource_spans[0].resource
    assert "gate" in {a.value.string_value for a in resource.attributes if a.key == "service.name"}
    spans = traces.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["chat gpt-4o-mini", "POST /v1/chat/completions"]
    metrics = ExportMetricsServiceRequest.FromString(bodies["/v1/metrics"])
    found = {m.name: m for m in metrics.resource_metrics[0].scope_metrics[0].metrics}
    durations = found["gen_ai.client.operation.duration"].histogram.data_points
    assert [(point.count, point.sum) for point in durations] == [(2, 4.0)]  # both calls
    assert found["tollkeeper.cost.usd"].sum.data_points[0].as_double == pytest.approx(3e-6)


async def test_what_a_slow_collector_cannot_take_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    entered, go = threading.Event(), threading.Event()
    export = OtelExport(Telemetry(traces="on"), InMemorySpanExporter())
    send = export._send

    def slow(call: CallRecord) -> None:
        entered.set()
        go.wait(10)
        send(call)

    export._send = slow  # type: ignore[method-assign]
    record = [encode_record(a_record())]
    export.add(record)
    entered.wait(10)
    for _ in range(BATCHES_MAX + 2):
        export.add(record)
    assert export.lost == 2
    assert "cannot keep up" in caplog.text
    go.set()
    await export.close()


async def test_a_record_that_cannot_be_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    memory = InMemorySpanExporter()
    export = OtelExport(Telemetry(traces="on"), memory)
    export.add([encode_record(a_record(trace_id="x")), encode_record(a_record())])
    await export.close()
    assert "call-1 is lost" in caplog.text
    assert len(memory.get_finished_spans()) == 2


def test_every_fact_of_a_record_has_a_default_or_is_given() -> None:
    decoded = msgspec.msgpack.decode(encode_record(a_record()), type=CallRecord)
    assert decoded == a_record()
    assert otel.CLOSE_S < 10
