"""Cohere's wire format, both versions."""

import json
from typing import Any

import pytest
from hypothesis import given

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts, Meter
from proxy.providers.cohere import Cohere
from tests.cuts import cut, offsets

COHERE = Cohere()
SSE, LINES = "text/event-stream", "application/stream+json"
MODEL = "command-a-03-2025"


def facts_of(path: str, **body: Any) -> Facts:
    route = COHERE.route("POST", path)
    assert route is not None
    assert route.kind == "metered"
    return COHERE.facts(route, path, b"", json.dumps({"model": MODEL, **body}).encode())


def a_chat(**fields: Any) -> Facts:
    return facts_of("/v2/chat", **{"messages": [{"role": "user", "content": "hi"}], **fields})


def a_meter(facts: Facts, kind: str = "application/json", status: int = 200) -> Meter:
    return COHERE.meter(facts, status=status, content_type=kind, inject_usage=True)


def test_bounds_of_a_chat() -> None:
    size = a_chat(max_tokens=100).size
    assert (size.output_limit, size.choices, size.windowed, size.tool_windows) == (100, 1, False, 0)
    assert facts_of("/v1/chat", message="hi", conversation_id="c").size.windowed
    size = facts_of("/v1/chat", message="hi", connectors=[{"id": "web-search"}]).size
    assert (size.tool_windows, size.web_searches) == (-1, 10)
    assert facts_of("/v1/generate", prompt="hi", num_generations=3).size.choices == 3
    assert a_chat(thinking={"type": "enabled"}).reasoning


@pytest.mark.parametrize(
    ("part", "images", "windowed"),
    [
        ({"type": "text", "text": "x"}, 0, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}, 1, False),
        ({"type": "image_url", "image_url": "DATA:image/png;base64,A"}, 1, False),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, 0, True),
        ({"type": "video"}, 0, True),
    ],
)
def test_content_that_is_no_text(part: dict[str, Any], images: int, windowed: bool) -> None:
    size = a_chat(messages=[{"role": "user", "content": [part]}]).size
    assert (size.inline_images, size.windowed) == (images, windowed)


def test_clamping_writes_the_apis_own_field() -> None:
    facts = a_chat()
    body = json.dumps(facts.body).encode()
    assert COHERE.edit(facts, body, clamp=None, inject_usage=True) is body
    assert json.loads(COHERE.edit(facts, body, clamp=9, inject_usage=True))["max_tokens"] == 9


def test_embedding() -> None:
    size = facts_of("/v2/embed", texts=["a", "b"], images=["data:image/png;base64,A"]).size
    assert (size.inputs, size.inline_images, size.generates) == (3, 1, False)
    assert size.units == {"input_images": 1}
    mixed = [{"content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}]}]
    assert facts_of("/v2/embed", inputs=mixed).size.units == {"input_images": 1}


@pytest.mark.parametrize(
    ("query", "documents", "units"),
    [
        ("q", ["short"], 1),
        ("q", ["short"] * 100, 1),
        ("q", ["short"] * 101, 2),
        ("q", [], 1),
        ("q" * 100, ["x" * 401] * 51, 2),  # two chunks each
        ("q" * 9_000, ["x" * 1_000] * 11, 2),  # ten chunks of a hundred each
        ("q", [{"text": "short"}], 1),
    ],
)
def test_search_units_of_a_rerank(query: str, documents: list[Any], units: int) -> None:
    size = facts_of("/v2/rerank", query=query, documents=documents).size
    assert size.units == {"search_units": units}
    assert not size.generates


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v2/chat", {}, "messages"),
        ("/v2/rerank", {"query": "q"}, "documents"),
        ("/v2/chat", {"model": None, "messages": []}, "model"),
        ("/v2/chat", {"messages": [], "stream": "yes"}, "stream"),
    ],
)
def test_what_is_wrong_is_named(path: str, body: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        facts_of(path, **body)


def billed(**units: int) -> dict[str, Any]:
    return {"billed_units": units, "tokens": {"input_tokens": 900, "output_tokens": 900}}


@pytest.mark.parametrize(
    ("path", "reply", "usage"),
    [
        (
            "/v2/chat",
            {"id": "i", "message": {}, "usage": billed(input_tokens=5, output_tokens=3)},
            Usage(5, 3),
        ),
        (
            "/v1/chat",
            {"generation_id": "i", "text": "x", "meta": billed(input_tokens=5, output_tokens=3)},
            Usage(5, 3),
        ),
        (
            "/v2/embed",
            {"id": "i", "meta": {"billed_units": {"input_tokens": 3, "image_tokens": 4}}},
            Usage(7, 0, input_image_tokens=4),
        ),
        ("/v2/embed", {"id": "i", "meta": billed(images=2)}, Usage(units={"input_images": 2})),
        (
            "/v2/rerank",
            {"id": "i", "meta": billed(search_units=1)},
            Usage(units={"search_units": 1}),
        ),
        ("/v2/chat", {"id": "i", "usage": {}}, None),
    ],
)
def test_billed_units_are_what_counts(
    path: str, reply: dict[str, Any], usage: Usage | None
) -> None:
    facts = facts_of(path, messages=[], documents=[], texts=[], query="q")
    meter = a_meter(facts)
    meter.feed(json.dumps(reply).encode())
    reading = meter.reading()
    assert (reading.usage, reading.response_id, reading.error) == (usage, "i", "")
    assert reading.complete


END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}
EVENTS = [
    {"id": "m1", "type": "message-start", "delta": {"message": {"role": "assistant"}}},
    {
        "type": "content-delta",
        "index": 0,
        "delta": {"message": {"content": {"text": '"type":"message-end"'}}},
    },
    {**END, "delta": {**END["delta"], "usage": billed(input_tokens=5, output_tokens=3)}},  # type: ignore[dict-item]
]
STREAM = b"".join(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS
)
OLD_EVENTS = [
    {"is_finished": False, "event_type": "stream-start", "generation_id": "m1"},
    {"is_finished": False, "event_type": "text-generation", "text": "stream-end"},
    {
        "is_finished": True,
        "event_type": "stream-end",
        "response": {"generation_id": "m1", "meta": billed(input_tokens=5, output_tokens=3)},
        "finish_reason": "COMPLETE",
    },
]
OLD_STREAM = b"".join(json.dumps(event).encode() + b"\n" for event in OLD_EVENTS)


@pytest.mark.parametrize(("stream", "kind"), [(STREAM, SSE), (OLD_STREAM, LINES)])
@given(at=offsets())
def test_streams(stream: bytes, kind: str, at: list[int]) -> None:
    meter = a_meter(a_chat(stream=True), kind)
    for piece in cut(stream, at):
        assert not meter.ended
        assert meter.feed(piece) == piece
    assert meter.ended
    assert meter.finish() == b""
    reading = meter.reading()
    assert (reading.usage, reading.response_id, reading.complete) == (Usage(5, 3), "m1", True)


@pytest.mark.parametrize(("stream", "kind"), [(STREAM, SSE), (OLD_STREAM, LINES)])
def test_a_stream_cut_short(stream: bytes, kind: str) -> None:
    meter = a_meter(a_chat(stream=True), kind)
    meter.feed(stream[: stream.rindex(b'"finish_reason"')])
    reading = meter.reading()
    assert (reading.usage, reading.complete, meter.ended) == (None, False, False)
    assert reading.delivered_output_tokens > 0


def test_an_error_at_the_end_of_a_stream() -> None:
    delta = {"finish_reason": "ERROR", "usage": {}, "error": "no", "error_type": "INVALID"}
    meter = a_meter(a_chat(stream=True), SSE)
    meter.feed(f"data: {json.dumps({'type': 'message-end', 'delta': delta})}\n\n".encode())
    reading = meter.reading()
    assert (reading.usage, reading.error, reading.complete) == (None, "INVALID", True)


def test_an_error() -> None:
    meter = a_meter(a_chat(stream=True), status=429)
    meter.feed(b'{"id":"i","message":"too many"}')
    assert (meter.reading().usage, meter.reading().error) == (None, "error")


def test_refusals() -> None:
    refusal = Refusal("budget_exceeded", "spent", {"limit": "1"})
    body = json.loads(COHERE.error_body(refusal, "r1"))
    assert body == {
        "id": "r1",
        "message": "spent",
        "code": "budget_exceeded",
        "details": {"limit": "1"},
    }
    assert COHERE.error_event(a_chat(stream=True), refusal, "r1") == b""
    assert COHERE.spent_status == 402


def test_the_compatible_api_is_read_as_such() -> None:
    path = "/compatibility/v1/chat/completions"
    facts = facts_of(path, messages=[{"role": "user", "content": "hi"}], stream=True)
    assert facts.route.name == "chat.completions"
    body = json.dumps(facts.body).encode()
    assert b"include_usage" in COHERE.edit(facts, body, clamp=None, inject_usage=True)
    assert COHERE.error_event(facts, Refusal("draining", "x"), "r1").startswith(b"data: ")
    reply = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3}}\n\n'
    meter = a_meter(facts, SSE)
    meter.feed(reply)
    assert meter.reading().usage == Usage(5, 3)
