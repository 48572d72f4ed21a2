"""Google's interactions."""

import json
from typing import Any

import pytest
from hypothesis import given

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts, Meter
from proxy.providers.gemini import Gemini
from tests.cuts import cut, offsets

GEMINI = Gemini()
PATH = "/v1beta/interactions"
MODEL = "gemini-2.5-flash"


def facts_of(**body: Any) -> Facts:
    route = GEMINI.route("POST", PATH)
    assert route is not None
    whole = {"model": MODEL, "input": "hi", **body}
    return GEMINI.facts(route, PATH, b"", json.dumps(whole).encode())


def a_meter(facts: Facts, kind: str = "application/json") -> Meter:
    return GEMINI.meter(facts, status=200, content_type=kind, inject_usage=True)


def test_bounds() -> None:
    facts = facts_of(generation_config={"max_output_tokens": 64}, stream=True, service_tier="FLEX")
    assert (facts.model, facts.stream, facts.reasoning) == (MODEL, True, True)
    assert (facts.size.output_limit, facts.size.service_tier) == (64, "flex")
    assert not facts.size.windowed
    assert facts_of(previous_interaction_id="v1_x").size.windowed


@pytest.mark.parametrize(
    ("part", "images", "windowed"),
    [
        ({"type": "text", "text": "x"}, 0, False),
        ({"text": "x"}, 0, False),
        ({"type": "image", "data": "AA", "mime_type": "image/png"}, 1, False),
        ({"type": "image", "uri": "https://x"}, 0, True),
        ({"type": "document", "data": "AA"}, 0, True),
        ({"role": "user", "content": "hi"}, 0, False),
        ({"role": "user", "content": [{"type": "image", "data": "AA"}]}, 1, False),
        ({"role": "user", "content": {"type": "video", "uri": "x"}}, 0, True),
    ],
)
def test_input(part: dict[str, Any], images: int, windowed: bool) -> None:
    size = facts_of(input=[part]).size
    assert (size.inline_images, size.windowed) == (images, windowed)
    assert facts_of(input=part).size.inline_images == images


def test_tools() -> None:
    assert facts_of(tools=[{"type": "function", "name": "f"}]).size.tool_windows == 0
    size = facts_of(tools=[{"type": "google_search"}]).size
    assert (size.tool_windows, size.web_searches) == (-1, 10)
    assert facts_of(tools=[{"type": "code_execution"}]).size.web_searches == 0


@pytest.mark.parametrize("body", [{"agent": "deep-research"}, {"background": True}])
def test_what_nothing_bounds_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        facts_of(**body)
    assert caught.value.code == "route_not_metered"


def test_clamping() -> None:
    facts = facts_of(generation_config={"temperature": 0})
    edited = GEMINI.edit(facts, json.dumps(facts.body).encode(), clamp=9, inject_usage=True)
    assert json.loads(edited)["generation_config"] == {"temperature": 0, "max_output_tokens": 9}


COUNTS = {
    "total_tokens": 100,
    "total_input_tokens": 11,
    "input_tokens_by_modality": [{"modality": "image", "tokens": 4}],
    "total_cached_tokens": 2,
    "total_output_tokens": 42,
    "total_tool_use_tokens": 5,
    "total_thought_tokens": 40,
}
SEARCH = {"type": "google_search_call", "arguments": {"queries": ["a", "b", ""]}}
DONE = {"id": "v1_x", "status": "completed", "usage": COUNTS, "model": MODEL, "outputs": [SEARCH]}
EXPECTED = Usage(16, 82, 2, reasoning_tokens=40, input_image_tokens=4, units={"web_search": 2})


def test_a_whole_reply() -> None:
    meter = a_meter(facts_of())
    meter.feed(json.dumps({**DONE, "service_tier": "standard"}).encode())
    reading = meter.reading()
    assert (reading.usage, reading.model, reading.response_id) == (EXPECTED, MODEL, "v1_x")
    assert reading.complete


EVENTS = [
    {
        "event_type": "interaction.created",
        "interaction": {"id": "v1_x", "model": MODEL},
        "metadata": {"usage": {"total_input_tokens": 1, "total_output_tokens": 1}},
    },
    {"event_type": "step.delta", "delta": {"text": "interaction.completed", "type": "text"}},
    {"event_type": "step.delta", "delta": SEARCH},
    {"event_type": "interaction.completed", "interaction": DONE},
]
STREAM = b"".join(
    f"event: {event['event_type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS
)


@given(offsets())
def test_a_stream(at: list[int]) -> None:
    meter = a_meter(facts_of(stream=True), "text/event-stream")
    for piece in cut(STREAM, at):
        assert not meter.ended
        assert meter.feed(piece) == piece
    assert meter.ended
    reading = meter.reading()
    assert (reading.usage, reading.model, reading.complete) == (EXPECTED, MODEL, True)


def test_a_stream_that_breaks_tells_nothing() -> None:
    meter = a_meter(facts_of(stream=True), "text/event-stream")
    meter.feed(STREAM[: STREAM.rindex(b"event: ")])
    reading = meter.reading()
    assert (reading.usage, reading.complete) == (None, False)
    assert reading.delivered_output_tokens > 0
