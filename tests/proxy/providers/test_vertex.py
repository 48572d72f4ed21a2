import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.calculator import cost
from pricing.table import PriceTable, list_tables
from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.gemini import BATCH_EMBED, EMBED, GENERATE, STREAM
from proxy.providers.vertex import (
    COUNT_TOKENS,
    PREDICT,
    RAW_PREDICT,
    STREAM_RAW_PREDICT,
    PredictMeter,
    Vertex,
)
from tests.cuts import cut, offsets

GOOGLE = "/v1/projects/p/locations/us-central1/publishers/google/models/"
ANTHROPIC = "/v1/projects/p/locations/us-east5/publishers/anthropic/models/"
GENERATED = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
MESSAGES = {
    "anthropic_version": "vertex-2023-10-16",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 50,
}
INSTANCES = {"instances": [{"content": "a"}, {"content": "b"}]}


def facts(path: str, body: dict[str, Any], query: bytes = b"") -> Facts:
    wire = Vertex()
    route = wire.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    return wire.facts(route, path, query, json.dumps(body).encode())


# --- routes and facts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (GOOGLE + "gemini-2.5-flash:generateContent", GENERATE),
        (GOOGLE + "gemini-2.5-flash:streamGenerateContent", STREAM),
        (GOOGLE + "gemini-embedding-2:embedContent", EMBED),
        (GOOGLE + "gemini-embedding-2:batchEmbedContents", BATCH_EMBED),
        (GOOGLE + "text-embedding-005:predict", PREDICT),
        (GOOGLE + "gemini-2.5-flash:countTokens", COUNT_TOKENS),
        ("/v1beta1/publishers/google/models/gemini-2.5-flash:generateContent", GENERATE),
        (ANTHROPIC + "claude-sonnet-4-5@20250929:rawPredict", RAW_PREDICT),
        (ANTHROPIC + "claude-sonnet-4-5@20250929:streamRawPredict", STREAM_RAW_PREDICT),
        (ANTHROPIC.removeprefix("/v1") + "claude-sonnet-4-5:rawPredict", RAW_PREDICT),
        (ANTHROPIC + "count-tokens:rawPredict", COUNT_TOKENS),
    ],
)
def test_routes(path: str, route: object) -> None:
    assert Vertex().route("POST", path) is route


@pytest.mark.parametrize(
    "path",
    [
        GOOGLE + "imagen-4:predictLongRunning",
        GOOGLE + "gemini-2.5-flash:rawPredict",
        ANTHROPIC + "claude-sonnet-4-5:generateContent",
        ANTHROPIC.replace("anthropic", "mistralai") + "mistral-medium-3:rawPredict",
        "/v1/projects/p/locations/l/endpoints/1:predict",
        "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        GOOGLE + "m:generateContent/../m:countTokens",
    ],
)
def test_everything_else_is_unmetered(path: str) -> None:
    route = Vertex().route("POST", path)
    assert route is not None
    assert route.kind == "unmetered"


def test_gemini() -> None:
    found = facts(GOOGLE + "gemini-2.5-flash:streamGenerateContent", GENERATED, b"alt=sse")
    assert (found.model, found.stream, found.json_array) == ("gemini-2.5-flash", True, False)
    assert found.provider_options["inference_geo"] == "us-central1"
    express = facts("/v1beta1/publishers/google/models/gemini-2.5-flash:generateContent", GENERATED)
    assert "inference_geo" not in express.provider_options


@pytest.mark.parametrize(("verb", "stream"), [("rawPredict", False), ("streamRawPredict", True)])
def test_anthropic(verb: str, stream: bool) -> None:
    found = facts(f"{ANTHROPIC}claude-sonnet-4-5@20250929:{verb}", MESSAGES)
    assert (found.model, found.stream) == ("claude-sonnet-4-5@20250929", stream)
    assert found.size.output_limit == 50
    assert found.provider_options["inference_geo"] == "us-east5"


def test_embeddings_by_predict() -> None:
    size = facts(GOOGLE + "text-embedding-005:predict", INSTANCES).size
    assert (size.inputs, size.generates) == (2, False)


@pytest.mark.parametrize("model", ["imagen-4.0-generate-001", "multimodalembedding@001", "veo-3"])
def test_predict_of_anything_else_is_refused(model: str) -> None:
    with pytest.raises(Refusal) as caught:
        facts(f"{GOOGLE}{model}:predict", INSTANCES)
    assert caught.value.code == "route_not_metered"


@pytest.mark.parametrize(
    ("lines", "body_tier", "tier"),
    [
        ([], "", ""),
        ([b"X-Vertex-AI-LLM-Shared-Request-Type: priority"], "", "priority"),
        ([b"x-vertex-ai-llm-shared-request-type: flex"], "priority", "auto"),
        ([b"x-goog-user-project: p"], "", ""),
    ],
)
def test_a_tier_asked_for_in_a_header(lines: list[bytes], body_tier: str, tier: str) -> None:
    more = {"serviceTier": body_tier} if body_tier else {}
    found = facts(GOOGLE + "gemini-2.5-flash:generateContent", GENERATED | more)
    Vertex().request_headers(found, lines)
    assert found.size.service_tier == tier


def test_clamps_are_those_of_the_publisher() -> None:
    def edited(path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        return json.loads(Vertex().edit(facts(path, body), data, clamp=9, inject_usage=True))

    gemini = edited(GOOGLE + "gemini-2.5-flash:generateContent", GENERATED)
    assert gemini["generationConfig"] == {"maxOutputTokens": 9}
    assert edited(ANTHROPIC + "claude-sonnet-4-5:rawPredict", MESSAGES)["max_tokens"] == 9
    assert edited(GOOGLE + "text-embedding-005:predict", INSTANCES) == INSTANCES


# --- replies -------------------------------------------------------------------------------

GENERATED_REPLY = {
    "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100},
    "modelVersion": "gemini-3.5-flash",
}
MESSAGE_REPLY = {
    "type": "message",
    "model": "claude-sonnet-4-5-20250929",
    "usage": {"input_tokens": 1000, "output_tokens": 100, "inference_geo": "not_available"},
}
PREDICTED = {
    "predictions": [
        {"embeddings": {"values": [0.1], "statistics": {"token_count": 4, "truncated": False}}},
        {"embeddings": {"statistics": {"truncated": False, "token_count": 6.0}, "values": [0.2]}},
    ],
    "metadata": {"billableCharacterCount": 29},
}


def usage_of(path: str, request: dict[str, Any], reply: dict[str, Any]) -> Usage:
    meter = Vertex().meter(
        facts(path, request), status=200, content_type="application/json", inject_usage=True
    )
    meter.feed(json.dumps(reply).encode())
    usage = meter.reading().usage
    assert usage is not None
    return usage


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable.open(list_tables()[-1].path)


@pytest.mark.parametrize(
    ("path", "request_body", "reply", "model"),
    [
        ("google/models/{}:generateContent", GENERATED, GENERATED_REPLY, "gemini-3.5-flash"),
        ("anthropic/models/{}:rawPredict", MESSAGES, MESSAGE_REPLY, "claude-sonnet-4-5@20250929"),
    ],
)
def test_a_regional_endpoint_costs_a_tenth_more(
    path: str, request_body: Any, reply: Any, model: str, table: PriceTable
) -> None:
    price = table.quote("vertex", model)
    assert price is not None
    costs = {}
    for location in ("global", "europe-west4", "us"):
        where = f"/v1/projects/p/locations/{location}/publishers/" + path.format(model)
        usage = usage_of(where, request_body, reply)
        assert usage.inference_geo == ("" if location == "global" else location)
        costs[location] = cost(usage, price).nano
    assert costs["europe-west4"] == costs["us"]
    assert costs["europe-west4"] * 10 == costs["global"] * 11 > 0


def test_an_invoice_of_claude_in_a_region(table: PriceTable) -> None:
    """$3 and $15 per million tokens, and 10 % for the region:
    1,000 x 3,300 nano-USD + 100 x 16,500 nano-USD."""
    price = table.quote("vertex", "claude-sonnet-4-5@20250929")
    assert price is not None
    usage = usage_of(ANTHROPIC + "claude-sonnet-4-5@20250929:rawPredict", MESSAGES, MESSAGE_REPLY)
    assert cost(usage, price).nano == 1_000 * 3_300 + 100 * 16_500


def test_streams_of_both_publishers() -> None:
    def stream(path: str, body: Any, events: list[Any], query: bytes = b"") -> Any:
        meter = Vertex().meter(
            facts(path, body, query), status=200, content_type="", inject_usage=True
        )
        for event in events:
            data = f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode()
            assert meter.feed(data) == data
        return meter.reading()

    gemini = GOOGLE + "gemini-2.5-flash:streamGenerateContent"
    found = stream(gemini, GENERATED, [GENERATED_REPLY], b"alt=sse")
    assert found.usage == Usage(1000, 100, inference_geo="us-central1")
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
        {"type": "message_delta", "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    found = stream(ANTHROPIC + "claude-sonnet-4-5:streamRawPredict", MESSAGES, events)
    assert found.usage == Usage(7, 5, inference_geo="us-east5")
    assert found.complete


def test_a_stream_as_a_json_array() -> None:
    found = facts(GOOGLE + "gemini-2.5-flash:streamGenerateContent", GENERATED)
    meter = Vertex().meter(found, status=200, content_type="application/json", inject_usage=True)
    meter.feed(b"[" + json.dumps(GENERATED_REPLY).encode() + b"]")
    assert meter.reading().usage == Usage(1000, 100, inference_geo="us-central1")


def test_predictions_are_added_up() -> None:
    usage = usage_of(GOOGLE + "text-embedding-005:predict", INSTANCES, PREDICTED)
    assert usage == Usage(input_tokens=10, inference_geo="us-central1")


@given(
    st.lists(st.integers(0, 10**6), max_size=5),
    st.sampled_from([None, 0, 2, 8]),
    offsets(),
)
def test_counts_of_predictions_however_cut(
    counts: list[int], indent: int | None, at: list[int]
) -> None:
    predictions = [{"embeddings": {"statistics": {"token_count": n}}} for n in counts]
    data = json.dumps({"predictions": predictions}, indent=indent).encode()
    meter = PredictMeter("")
    assert b"".join(meter.feed(piece) for piece in cut(data, at)) == data
    reading = meter.reading()
    assert reading.usage == (Usage(input_tokens=sum(counts)) if counts else None)
    assert len(meter._held) < 200


def test_an_error_of_predict_is_named() -> None:
    meter = Vertex().meter(
        facts(GOOGLE + "text-embedding-005:predict", INSTANCES),
        status=403,
        content_type="application/json",
        inject_usage=True,
    )
    meter.feed(b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}')
    reading = meter.reading()
    assert (reading.usage, reading.error) == (None, "PERMISSION_DENIED")


# --- refusals ------------------------------------------------------------------------------


def test_errors_in_streams_are_those_of_the_publisher() -> None:
    refusal = Refusal("upstream_timeout", "because")
    gemini = facts(GOOGLE + "m:streamGenerateContent", GENERATED, b"alt=sse")
    claude = facts(ANTHROPIC + "m:streamRawPredict", MESSAGES)
    assert Vertex().error_event(gemini, refusal, "id").startswith(b'data: {"error":{"code":504')
    assert Vertex().error_event(claude, refusal, "id").startswith(b"event: error\n")
    assert json.loads(Vertex().error_body(refusal, "id"))["error"]["status"] == "DEADLINE_EXCEEDED"
