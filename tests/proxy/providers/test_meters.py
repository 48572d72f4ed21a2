import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import Usage
from proxy.providers.anthropic import MessageReader
from proxy.providers.gemini_meter import GenerateReader
from proxy.providers.meters import (
    BODY_BYTES_MAX,
    ArrayMeter,
    EventMeter,
    JsonMeter,
    is_event_stream,
    text_bytes,
)
from proxy.providers.openai_meter import ChatReader, ResponsesReader
from proxy.sse import EVENT_BYTES_MAX
from tests.cuts import cut, offsets

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
FILLER = "x" * (BODY_BYTES_MAX + 10)


@pytest.mark.parametrize(
    ("content_type", "expected", "events"),
    [
        ("text/event-stream", False, True),
        ("Text/Event-Stream; charset=utf-8", True, True),
        ("application/json", True, False),
        ("", True, True),
        ("text/plain", True, True),
        ("", False, False),
    ],
)
def test_the_content_type_decides(content_type: str, expected: bool, events: bool) -> None:
    assert is_event_stream(content_type, expected=expected) is events


def test_a_json_reply() -> None:
    meter = JsonMeter(ChatReader())
    body = json.dumps({"id": "c", "model": "m", "choices": [], "usage": USAGE}).encode()
    for i in range(len(body)):
        assert meter.feed(body[i : i + 1]) == body[i : i + 1]
        assert meter.reading().complete is (i == len(body) - 1)
    assert meter.finish() == b""
    assert meter.reading().usage == Usage(9, 3)


@pytest.mark.parametrize("body", [b"", b"<html>", b'"text"', b"[1, 2]", b"\xff", b"[" * 99_999])
def test_nonsense_reads_as_nothing(body: bytes) -> None:
    for reader in (ChatReader(), ResponsesReader(), MessageReader({}), GenerateReader()):
        meter = JsonMeter(reader)
        meter.feed(body)
        reading = meter.reading()
        assert (reading.usage, reading.model, reading.error) == (None, "", "")


FIELDS = st.sampled_from(
    [
        *("usage", "usageMetadata", "choices", "error", "model", "id", "type", "response"),
        *("output", "delta", "message", "content", "prompt_tokens", "completion_tokens"),
        *("input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "x_groq"),
        *("cached_tokens", "iterations", "cache_creation", "server_tool_use", "candidates"),
        *("groundingMetadata", "webSearchQueries", "promptTokenCount", "tool_usage", "image_gen"),
        *("promptTokensDetails", "finish_reason", "service_tier", "action", "item", "cost"),
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(FIELDS, anything, max_size=8))
def test_no_document_makes_a_meter_raise(document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    event = b"data: " + body + b"\n\n"
    for make in (ChatReader, ResponsesReader, lambda: MessageReader({}), GenerateReader):
        for meter, data in (
            (JsonMeter(make()), body),
            (EventMeter(make()), event),
            (ArrayMeter(make()), b"[" + body + b"]"),
        ):
            assert meter.feed(data) is data
            reading = meter.reading()
            assert reading.usage is None or reading.usage.input_tokens >= 0


def test_of_a_huge_reply_the_usage_at_its_end_is_read() -> None:
    meter = JsonMeter(ChatReader())
    body = json.dumps({"model": "m", "data": FILLER, "usage": USAGE}).encode()
    for piece in cut(body, list(range(0, len(body), 2**16))):
        meter.feed(piece)
    reading = meter.reading()
    assert (reading.usage, reading.model, reading.complete) == (Usage(9, 3), "m", True)


def test_of_a_huge_reply_cut_short_nothing_is_known() -> None:
    meter = JsonMeter(ChatReader())
    meter.feed(json.dumps({"model": "m", "data": FILLER, "usage": USAGE}).encode()[:-60])
    reading = meter.reading()
    assert (reading.usage, reading.complete) == (None, False)


def test_of_a_huge_event_the_usage_at_its_end_is_read() -> None:
    filler = "x" * EVENT_BYTES_MAX
    usage = {"input_tokens": 9, "output_tokens": 3}
    response = {"model": "m", "output": filler, "usage": usage, "tools": []}
    event = json.dumps({"type": "response.completed", "response": response}).encode()
    meter = EventMeter(ResponsesReader())
    for piece in cut(b"data: " + event + b"\n\n", list(range(0, len(event), 2**16))):
        meter.feed(piece)
    assert meter.reading().usage == Usage(9, 3)
    assert meter.reading().complete
    chunk = {"data": filler, "usageMetadata": {"promptTokenCount": 4}, "modelVersion": "g"}
    array = ArrayMeter(GenerateReader())
    for piece in cut(b"[" + json.dumps(chunk).encode() + b"]", list(range(0, 2**20, 2**16))):
        array.feed(piece)
    assert array.reading().usage == Usage(4)


CHUNK = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'


@given(st.integers(1, 2000), offsets())
def test_output_of_a_long_cut_stream_is_scaled_from_a_sample(events: int, at: list[int]) -> None:
    meter = EventMeter(ChatReader())
    for piece in cut(CHUNK % b"four" * events, at):
        meter.feed(piece)
    assert meter.reading().delivered_output_tokens == pytest.approx(events, rel=0.05, abs=2)


def test_comments_are_not_the_last_event() -> None:
    meter = EventMeter(ChatReader())
    meter.feed(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n')
    meter.feed(b": keep-alive\n\n")
    assert meter.reading().complete


@pytest.mark.parametrize(
    ("reader", "end"),
    [
        (ChatReader(), b"data: [DONE]\n\n"),
        (ResponsesReader(), b'data: {"type":"response.completed"}\n\n'),
        (ResponsesReader(), b'data: {"type":"response.failed"}\n\n'),
        (MessageReader({}), b'data: {"type": "message_stop"}\n\n'),
    ],
)
def test_the_last_event_is_noticed_at_once(reader: ChatReader, end: bytes) -> None:
    meter = EventMeter(reader)
    meter.feed(b'data: {"text":"[DONE] response.completed message_stop"}\n\n')
    assert not meter.ended
    meter.feed(end[:-1])
    assert not meter.ended
    meter.feed(end[-1:])
    assert meter.ended


def test_text_bytes_counts_what_was_generated() -> None:
    part = {
        "index": 0,
        "id": "not text",
        "delta": {
            "content": "four",
            "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
            "functionCall": {"args": {"a": 1}},
        },
    }
    assert text_bytes([part, None, "loose"]) == len("four" + "f" + "{}" + '{"a":1}')
