"""Traces and metrics of calls, by every ending, as a collector would get them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.control import otel
from tests.e2e.shapes import CHAT, CHAT_STREAM, MESSAGES, SHAPES, STREAMS, Shape
from tests.e2e.stage import Stage, eventually, id_of
from tests.replay import Gate, Reply, json_reply

BUDGETS = [{"scope": "team/acme/search", "limit_usd": 1, "period": "total", "clamp": False}]
QUICK = {"idle_timeout_s": 0.1, "first_byte_timeout_s": 0.1}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1,other=2"}
Attributes = dict[str, Any]


class Collector:
    """What is exported, in memory."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()

    def trace_of(self, request_id: str, count: int = 2) -> list[ReadableSpan]:
        """The spans of a call, the outer one first."""

        def found() -> list[ReadableSpan]:
            spans = self.spans.get_finished_spans()
            own = [
                span for span in spans if attributes(span)["tollkeeper.request.id"] == request_id
            ]
            return own if len(own) >= count else []

        spans = eventually(found)
        assert len(spans) == count
        return sorted(spans, key=lambda span: span.kind != SpanKind.SERVER)

    def points(self, name: str) -> list[Any]:
        data = self.metrics.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def attributes(span: ReadableSpan) -> Attributes:
    return dict(span.attributes or {})


@pytest.fixture(scope="module")
def collector() -> Collector:
    return Collector()


@pytest.fixture(scope="module")
def hall(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        patch.setattr(otel, "_span_exporter", lambda telemetry: collector.spans)
        patch.setattr(otel, "_metric_reader", lambda telemetry: collector.metrics)
        directory = tmp_path_factory.mktemp("traces")
        telemetry = {"traces": "on", "metrics": "on", "sampler": "parentbased_always_on"}
        with Stage(directory, budgets=BUDGETS, telemetry=telemetry) as stage:
            yield stage


@pytest.fixture
def stage(hall: Stage) -> Stage:
    hall.begin()
    return hall


def upstream(stage: Stage) -> dict[str, str]:
    """The headers of the last request the provider got."""
    stage.provider.wait(lambda provider: bool(provider.requests))
    return {name.lower(): value for name, value in stage.provider.requests[-1].headers}


# --- a call that ends well -----------------------------------------------------------------


def test_a_call_is_two_spans(stage: Stage, collector: Collector) -> None:
    answer = stage.paid(CHAT)
    server, client = collector.trace_of(id_of(answer))

    assert (server.name, server.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert (client.name, client.kind) == ("chat gpt-4o-mini", SpanKind.CLIENT)
    assert client.parent == server.context
    assert server.parent is None
    assert server.status.status_code is client.status.status_code is StatusCode.UNSET
    assert server.start_time is not None
    assert client.start_time is not None
    assert server.start_time <= client.start_time
    assert server.end_time == client.end_time
    origin = stage.provider.url.removeprefix("http://").partition(":")
    row = stage.row(answer)
    assert attributes(client) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.max_tokens": 200,
        "gen_ai.response.id": answer.json()["id"],
        "gen_ai.response.model": answer.json()["model"],
        "gen_ai.usage.input_tokens": row["input_tokens"],
        "gen_ai.usage.output_tokens": row["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": row["cache_read_tokens"],
        "gen_ai.usage.cache_creation.input_tokens": row["cache_write_tokens"],
        "gen_ai.usage.cache_write.input_tokens": row["cache_write_tokens"],
        "gen_ai.usage.reasoning.output_tokens": row["reasoning_tokens"],
        "gen_ai.usage.cost": float(row["cost_usd"]),
        "openai.api.type": "chat_completions",
        "server.address": origin[0],
        "server.port": int(origin[2]),
        "tollkeeper.cost.usd": float(row["cost_usd"]),
        "tollkeeper.ending": "complete",
        "tollkeeper.pricing.version": row["price_version"],
        "tollkeeper.usage.source": "reported",
    } | caller(answer)
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
    } | caller(answer)


def caller(answer: Any) -> Attributes:
    return {
        "tollkeeper.request.id": id_of(answer),
        "tollkeeper.key": "search-prod",
        "tollkeeper.organization": "acme",
        "tollkeeper.team": "search",
    }


def test_the_resource_is_named(stage: Stage, collector: Collector) -> None:
    server, _ = collector.trace_of(id_of(stage.paid(CHAT)))
    resource = server.resource.attributes
    assert resource["service.name"] == "tollkeeper"
    assert resource["deployment.environment.name"] == "test"
    assert {"service.version", "service.instance.id"} <= set(resource)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_totals_include_what_was_cached(stage: Stage, collector: Collector, shape: Shape) -> None:
    answer = stage.paid(shape)
    _, client = collector.trace_of(id_of(answer))
    found = attributes(client)
    assert found["gen_ai.usage.input_tokens"] == shape.usage["input_tokens"]
    assert found["gen_ai.usage.output_tokens"] == shape.usage["output_tokens"]
    assert found["tollkeeper.cost.usd"] == float(shape.cost)
    assert found["gen_ai.provider.name"] == {"gemini": "gcp.gemini"}.get(
        shape.dialect, shape.dialect
    )
    assert ("gen_ai.request.stream" in found) is shape.stream
    assert ("gen_ai.response.time_to_first_chunk" in found) is shape.stream


@pytest.mark.parametrize("shape", STREAMS, ids=str)
def test_a_stream_is_one_span_until_its_end(
    stage: Stage, collector: Collector, shape: Shape
) -> None:
    mark, row_of = stage.tagged()
    gate = Gate()
    passed = shape.parts[0]
    stage.provider.reply(shape.reply(stall_after=len(passed), until=gate))
    with stage.raw_call(shape, headers=mark) as call:
        call.read_until(passed)
        gate.open()
        call.read_until(shape.parts[-1])

    _, client = collector.trace_of(row_of()["request_id"])

    assert client.start_time is not None
    assert client.end_time is not None
    first_s = attributes(client)["gen_ai.response.time_to_first_chunk"]
    assert 0 < first_s < (client.end_time - client.start_time) / 1e9


# --- context -------------------------------------------------------------------------------


def test_the_callers_span_is_the_parent(stage: Stage, collector: Collector) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.call(CHAT, headers=PARENT | {"baggage": "user=somebody"})
    server, client = collector.trace_of(id_of(answer))

    assert server.parent is not None
    assert client.context is not None
    assert (server.parent.trace_id, server.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert server.parent.is_remote
    sent = upstream(stage)
    assert sent["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"
    assert sent["tracestate"] == "vendor=1,other=2"
    assert "baggage" not in sent
    names = [name.lower() for name, _ in stage.provider.requests[-1].headers]
    assert names.count("traceparent") == names.count("tracestate") == 1


def test_a_trace_of_our_own_goes_upstream(stage: Stage, collector: Collector) -> None:
    answer = stage.paid(CHAT)
    _, client = collector.trace_of(id_of(answer))
    assert client.context is not None
    sent = upstream(stage)["traceparent"]
    assert sent == f"00-{client.context.trace_id:032x}-{client.context.span_id:016x}-01"
    assert "tracestate" not in upstream(stage)


def test_what_cannot_be_read_starts_a_new_trace(stage: Stage, collector: Collector) -> None:
    stage.provider.reply(CHAT.reply())
    answer = stage.call(CHAT, headers={"traceparent": "00-junk", "tracestate": "a=1"})
    server, _ = collector.trace_of(id_of(answer))
    assert server.parent is None
    assert upstream(stage)["traceparent"] != "00-junk"
    assert "tracestate" not in upstream(stage)


def test_a_callers_decision_not_to_sample_is_kept(stage: Stage, collector: Collector) -> None:
    stage.provider.reply(CHAT.reply())
    unsampled = PARENT | {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    answer = stage.call(CHAT, headers=unsampled)
    assert upstream(stage)["traceparent"].endswith("-00")
    collector.trace_of(id_of(stage.paid(CHAT)))  # which came later
    found = [attributes(s)["tollkeeper.request.id"] for s in collector.spans.get_finished_spans()]
    assert id_of(answer) not in found


def test_each_call_of_a_connection_has_spans_of_its_own(stage: Stage, collector: Collector) -> None:
    answers = [stage.paid(CHAT) for _ in range(3)]
    traces = [collector.trace_of(id_of(answer)) for answer in answers]
    ids = {span.context.span_id for spans in traces for span in spans if span.context is not None}
    assert len(ids) == 6
    sent = {dict(request.headers)["traceparent"] for request in stage.provider.requests}
    assert len(sent) == 3


def test_a_free_route_is_traced_without_a_model(stage: Stage, collector: Collector) -> None:
    stage.provider.reply(json_reply({"data": []}))
    answer = stage.http.get("/v1/models/gpt-4o-mini", headers=stage.headers(CHAT) | PARENT)
    server, client = collector.trace_of(id_of(answer))
    assert (server.name, client.name) == ("GET /v1/models/{name}", "GET")
    assert not [name for name in attributes(client) if name.startswith("gen_ai.")]
    assert client.context is not None
    assert upstream(stage)["traceparent"] == f"00-{TRACE}-{client.context.span_id:016x}-01"


# --- the other endings ---------------------------------------------------------------------


def test_a_refusal_has_no_client_span(stage: Stage, collector: Collector) -> None:
    answer = stage.call(CHAT, model="gpt-4o", max_completion_tokens=10**9)
    (server,) = collector.trace_of(id_of(answer), count=1)
    found = attributes(server)
    assert server.status.status_code is StatusCode.UNSET
    assert found["http.response.status_code"] == 429
    assert found["tollkeeper.refusal.code"] == "budget_exceeded"
    assert found["tollkeeper.budget.decision"] == "blocked"
    assert found["tollkeeper.budget.scope"] == "team/acme/search"
    assert "error.type" not in found


def test_a_refusal_for_another_reason(stage: Stage, collector: Collector) -> None:
    answer = stage.call(CHAT, key="wrong")
    (server,) = collector.trace_of(id_of(answer), count=1)
    found = attributes(server)
    assert (found["http.response.status_code"], found["tollkeeper.refusal.code"]) == (
        401,
        "invalid_api_key",
    )
    assert not [name for name in found if name.startswith("tollkeeper.budget")]


@pytest.mark.parametrize(("status", "code"), [(429, StatusCode.UNSET), (500, StatusCode.ERROR)])
def test_an_error_of_the_provider(
    stage: Stage, collector: Collector, status: int, code: StatusCode
) -> None:
    stage.provider.reply(json_reply({"error": {"message": "no"}}, status=status))
    server, client = collector.trace_of(id_of(stage.call(CHAT)))
    assert client.status.status_code is StatusCode.ERROR
    assert attributes(client)["error.type"] == str(status)
    assert "gen_ai.usage.input_tokens" not in attributes(client)
    assert server.status.status_code is code
    assert attributes(server)["http.response.status_code"] == status


def test_an_error_event_in_a_stream(stage: Stage, collector: Collector) -> None:
    stage.provider.reply(CHAT_STREAM.reply((CHAT_STREAM.parts[0], CHAT_STREAM.error_part)))
    server, client = collector.trace_of(id_of(stage.call(CHAT_STREAM)))
    assert attributes(client)["error.type"] == "error_event"
    assert client.status.status_code is StatusCode.ERROR
    assert server.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("shape", [CHAT, CHAT_STREAM, MESSAGES], ids=str)
def test_a_client_that_hangs_up(stage: Stage, collector: Collector, shape: Shape) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(shape.reply(before=Gate()))
    with stage.raw_call(shape, headers=mark):
        stage.provider.wait(lambda provider: bool(provider.requests))

    server, client = collector.trace_of(row_of()["request_id"])

    assert attributes(client)["error.type"] == "client_gone"
    assert attributes(client)["tollkeeper.usage.source"] == "estimated"
    assert attributes(client)["tollkeeper.cost.usd"] > 0
    assert "gen_ai.usage.output_tokens" not in attributes(client)
    assert server.status.status_code is StatusCode.UNSET
    assert "http.response.status_code" not in attributes(server)


def test_a_stream_that_breaks(stage: Stage, collector: Collector) -> None:
    mark, row_of = stage.tagged()
    stage.provider.reply(CHAT_STREAM.reply(close_after=len(CHAT_STREAM.parts[0])))
    with stage.raw_call(CHAT_STREAM, headers=mark) as call:
        call.read_all()

    server, client = collector.trace_of(row_of()["request_id"])

    assert attributes(client)["tollkeeper.ending"] == "upstream_broken"
    for span in (server, client):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "upstream_unreachable"
    assert attributes(server)["http.response.status_code"] == 200


def test_a_provider_that_cannot_be_reached(stage: Stage, collector: Collector) -> None:
    stage.provider.on(lambda _: True, Reply(on_request="close"))
    server, client = collector.trace_of(id_of(stage.call(CHAT)))
    assert attributes(client)["error.type"] == "upstream_unreachable"
    assert attributes(server)["http.response.status_code"] == 502
    assert attributes(server)["error.type"] == "upstream_unreachable"


def test_a_provider_that_does_not_answer(stage: Stage, collector: Collector) -> None:
    with stage.configured(server=QUICK):
        stage.provider.reply(Reply(on_request="never"))
        server, client = collector.trace_of(id_of(stage.call(CHAT)))
    assert attributes(client)["error.type"] == "upstream_timeout"
    assert attributes(server)["http.response.status_code"] == 504


# --- metrics -------------------------------------------------------------------------------


def test_metrics_of_a_call(stage: Stage, collector: Collector) -> None:
    answer = stage.paid(CHAT_STREAM)
    collector.trace_of(id_of(answer))

    def of_chat(name: str) -> list[Any]:
        points = collector.points(name)
        return [p for p in points if p.attributes["gen_ai.provider.name"] == "openai"]

    durations = of_chat("gen_ai.client.operation.duration")
    good = [point for point in durations if "error.type" not in point.attributes]
    assert good[0].attributes["gen_ai.request.model"] == "gpt-4o-mini"
    assert len(good[0].explicit_bounds) == 14
    assert (good[0].explicit_bounds[0], good[0].explicit_bounds[-1]) == (0.01, 81.92)
    kinds = {p.attributes["gen_ai.token.type"] for p in of_chat("gen_ai.client.token.usage")}
    assert kinds == {"input", "output"}
    assert of_chat("gen_ai.client.operation.time_to_first_chunk")[0].count > 0
    assert of_chat("tollkeeper.cost.usd")[0].value > 0


def test_models_that_callers_invent_make_no_series(stage: Stage, collector: Collector) -> None:
    answer = stage.call(CHAT, model="made-up-by-somebody")
    collector.trace_of(id_of(answer), count=1)
    points = collector.points("gen_ai.client.operation.duration")
    assert "made-up-by-somebody" not in {p.attributes["gen_ai.request.model"] for p in points}


# --- the collector is away -----------------------------------------------------------------


def test_an_export_that_fails_or_hangs_delays_no_call(
    stage: Stage, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()

    def hang(spans: object) -> None:
        held.wait(10)
        raise OSError("no collector")

    with monkeypatch.context() as patch:
        patch.setattr(collector.spans, "export", hang)
        for _ in range(5):
            assert stage.paid(CHAT).status_code == 200
        held.set()
    collector.trace_of(id_of(stage.paid(CHAT)))
