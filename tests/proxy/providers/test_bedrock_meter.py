import base64
import json
from typing import Any

import pytest

from pricing.usage import Usage
from proxy.providers.base import Meter, Reading
from proxy.providers.bedrock import Bedrock
from proxy.providers.event_stream import message
from tests.proxy.providers.test_bedrock import CLAUDE, HELLO, NOVA, facts

STREAM = "application/vnd.amazon.eventstream"
METRICS = "amazon-bedrock-invocationMetrics"


def event(kind: str, body: dict[str, Any]) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, json.dumps(body).encode())


def chunk(body: dict[str, Any]) -> bytes:
    data = base64.b64encode(json.dumps(body).encode()).decode()
    return event("chunk", {"bytes": data, "p": "abc"})


def a_meter(
    verb: str = "converse",
    *,
    request: dict[str, Any] | None = None,
    request_headers: list[bytes] | None = None,
    reply_headers: dict[str, str] | None = None,
    model: str = NOVA,
    status: int = 200,
) -> Meter:
    wire = Bedrock()
    found = facts({"messages": HELLO} | (request or {}), verb=verb, model=model)
    wire.request_headers(found, request_headers or [])
    headers = {"content-type": STREAM if found.stream and status < 400 else "application/json"}
    headers |= reply_headers or {}
    wire.reply_headers(found, [(name.encode(), value.encode()) for name, value in headers.items()])
    return wire.meter(found, status=status, content_type=headers["content-type"], inject_usage=True)


def reading(meter: Meter, *pieces: bytes) -> Reading:
    for piece in pieces:
        assert meter.feed(piece) == piece
    assert meter.finish() == b""
    return meter.reading()


def of_json(body: dict[str, Any], **how: Any) -> Reading:
    return reading(a_meter(**how), json.dumps(body).encode())


# --- converse ------------------------------------------------------------------------------


def test_input_is_what_is_fresh_read_and_written() -> None:
    usage = {
        "inputTokens": 10,
        "outputTokens": 7,
        "cacheReadInputTokens": 100,
        "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 20}, {"ttl": "1h", "inputTokens": 10}],
    }
    assert of_json({"usage": usage}).usage == Usage(
        input_tokens=140,
        output_tokens=7,
        cache_read_tokens=100,
        cache_write_tokens=30,
        cache_write_1h_tokens=10,
    )


@pytest.mark.parametrize(
    ("asked", "echoed", "tier"),
    [
        ("", "", ""),
        ("priority", "priority", "priority"),
        ("priority", "default", ""),
        ("priority", "", "priority"),
        ("flex", "flex", "flex"),
        ("reserved", "reserved", ""),
    ],
)
@pytest.mark.parametrize("verb", ["converse", "invoke"])
def test_the_tier_is_the_one_echoed(verb: str, asked: str, echoed: str, tier: str) -> None:
    body: dict[str, Any] = {"usage": {"inputTokens": 1, "outputTokens": 1}}
    how: dict[str, Any] = {}
    if verb == "converse":
        how["request"] = {"serviceTier": {"type": asked}} if asked else {}
        body |= {"serviceTier": {"type": echoed}} if echoed else {}
    else:
        name = "x-amzn-bedrock-service-tier"
        how["request_headers"] = [f"{name}: {asked}".encode()] if asked else []
        how["reply_headers"] = {name: echoed} if echoed else {}
    usage = of_json(body, verb=verb, **how).usage
    assert usage is not None
    assert usage.service_tier == tier


def test_a_stream_of_converse() -> None:
    meter = a_meter("converse-stream", reply_headers={"x-amzn-requestid": "r-1"})
    meter.feed(event("messageStart", {"role": "assistant"}))
    meter.feed(event("contentBlockDelta", {"delta": {"text": "hello there"}}))
    meter.feed(event("messageStop", {"stopReason": "end_turn"}))
    assert not meter.ended
    last = {"usage": {"inputTokens": 5, "outputTokens": 3}, "metrics": {"latencyMs": 1}}
    found = reading(meter, event("metadata", last))
    assert meter.ended
    assert found == Reading(
        Usage(input_tokens=5, output_tokens=3), response_id="r-1", complete=True
    )


def test_a_stream_cut_before_its_usage_is_estimated_by_its_text() -> None:
    deltas = [event("contentBlockDelta", {"delta": {"text": "x" * 40}}) for _ in range(9)]
    found = reading(a_meter("converse-stream"), *deltas)
    assert (found.usage, found.complete, found.delivered_output_tokens) == (None, False, 90)


def test_an_exception_in_a_stream_is_an_error() -> None:
    headers = {":exception-type": "throttlingException", ":message-type": "exception"}
    found = reading(
        a_meter("converse-stream"),
        event("contentBlockDelta", {"delta": {"text": "he"}}),
        message(headers, b'{"message":"slow down"}'),
    )
    assert (found.error, found.usage, found.complete) == ("throttlingException", None, False)


def test_text_that_talks_of_usage_is_text() -> None:
    text = '"usage": {"inputTokens": 9}, "metrics": 1, :exception-type'
    meter = a_meter("converse-stream")
    found = reading(meter, event("contentBlockDelta", {"delta": {"text": text}}))
    assert (found.usage, found.error, meter.ended) == (None, "", False)


def test_an_error_is_named_by_its_header() -> None:
    headers = {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/"}
    for verb in ("converse", "converse-stream", "invoke"):
        found = of_json({"message": "no"}, verb=verb, status=400, reply_headers=headers)
        assert (found.error, found.usage) == ("ValidationException", None)


# --- invoke --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            {"usage": {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokenCount": 3}},
            Usage(input_tokens=8, output_tokens=2, cache_read_tokens=3),
        ),
        (
            {"type": "message", "usage": {"input_tokens": 5, "output_tokens": 2}},
            Usage(input_tokens=5, output_tokens=2),
        ),
        (
            {"generation": "hi", "prompt_token_count": 5, "generation_token_count": 2},
            Usage(input_tokens=5, output_tokens=2),
        ),
        (
            {"inputTextTokenCount": 5, "results": [{"tokenCount": 2}, {"tokenCount": 3}]},
            Usage(input_tokens=5, output_tokens=5),
        ),
        ({"inputTextTokenCount": 5, "embedding": [0.5]}, Usage(input_tokens=5)),
        (
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
            Usage(input_tokens=5, output_tokens=2),
        ),
        ({"generations": [{"text": "hi"}]}, None),
    ],
)
def test_the_shapes_of_bodies(body: dict[str, Any], usage: Usage | None) -> None:
    found = of_json(body, verb="invoke")
    assert found.usage == usage
    assert found.complete
    assert found.model == ""


HEADERS = {
    "x-amzn-bedrock-input-token-count": "11",
    "x-amzn-bedrock-output-token-count": "4",
    "x-amzn-bedrock-cache-read-input-token-count": "6",
}


def test_headers_count_where_the_body_says_nothing() -> None:
    body = {"generations": [{"text": "hi"}]}
    found = of_json(body, verb="invoke", reply_headers=HEADERS)
    assert found.usage == Usage(input_tokens=17, output_tokens=4, cache_read_tokens=6)
    told = of_json({"usage": {"inputTokens": 5}}, verb="invoke", reply_headers=HEADERS)
    assert told.usage == Usage(input_tokens=5)


def test_a_header_that_is_no_count_is_none() -> None:
    for value in ("", "-1", "1e3", "many"):
        headers = {"x-amzn-bedrock-input-token-count": value}
        assert of_json({"text": "hi"}, verb="invoke", reply_headers=headers).usage is None


def stream_of(*documents: dict[str, Any], model: str = CLAUDE) -> tuple[Meter, Reading]:
    meter = a_meter("invoke-with-response-stream", model=model)
    return meter, reading(meter, *(chunk(document) for document in documents))


START = {
    "type": "message_start",
    "message": {"model": "claude", "usage": {"input_tokens": 12, "output_tokens": 1}},
}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}}
END = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 130}}
STOP = {"type": "message_stop", METRICS: {"inputTokenCount": 12, "outputTokenCount": 98}}


def test_a_models_own_counts_come_before_the_metrics() -> None:
    meter, found = stream_of(START, DELTA, END, STOP)
    assert meter.ended
    assert found == Reading(Usage(input_tokens=12, output_tokens=130), complete=True)


def test_metrics_complete_a_stream_without_a_last_count() -> None:
    _, found = stream_of(START, DELTA, STOP)
    assert found.usage == Usage(input_tokens=12, output_tokens=98)
    assert not found.partial


def test_a_stream_cut_short_is_partial() -> None:
    meter, found = stream_of(START, DELTA)
    assert (found.partial, found.complete, meter.ended) == (True, False, False)
    assert found.usage == Usage(input_tokens=12, output_tokens=1)
    assert found.delivered_output_tokens == 2
    _, found = stream_of(START, DELTA, END)
    assert (found.partial, found.usage) == (False, Usage(input_tokens=12, output_tokens=130))


def test_metrics_alone() -> None:
    first = {"outputText": "hi", "inputTextTokenCount": 3}
    metrics = {"inputTokenCount": 5, "outputTokenCount": 9, "cacheWriteInputTokenCount": 2}
    meter, found = stream_of(first, {"outputText": "", METRICS: metrics}, model=NOVA)
    assert meter.ended
    assert found.usage == Usage(input_tokens=7, output_tokens=9, cache_write_tokens=2)
    assert found.complete


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"bytes": 1}', b'{"bytes": "%%"}', b'{"bytes": "bm90IGpzb24="}', b"\xff"]
)
def test_a_chunk_of_nonsense_is_read_as_nothing(body: bytes) -> None:
    meter = a_meter("invoke-with-response-stream", model=CLAUDE)
    found = reading(meter, message({":event-type": "chunk"}, body), chunk(START), chunk(END))
    assert found.usage == Usage(input_tokens=12, output_tokens=130)


def test_a_reply_too_large_to_parse_is_read_from_its_end() -> None:
    end = '"usage": {"inputTokens": 5, "outputTokens": 2}}'
    body = ('{"text": "' + "x" * 3 * 2**20 + '", ' + end).encode()
    for verb in ("converse", "invoke"):
        meter = a_meter(verb)
        pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
        assert reading(meter, *pieces).usage == Usage(input_tokens=5, output_tokens=2)
