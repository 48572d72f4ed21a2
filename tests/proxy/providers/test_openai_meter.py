import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import Usage
from proxy.providers.base import Facts, Reading
from proxy.providers.openai import OpenAI
from proxy.providers.openai_meter import usage_from
from proxy.providers.usage_chunk import HELD_BYTES_MAX
from tests.cuts import cut, offsets

OPENAI = OpenAI()
CHAT = "/v1/chat/completions"
SSE = "text/event-stream; charset=utf-8"


def facts_of(body: object, path: str = CHAT) -> Facts:
    route = OPENAI.route("POST", path)
    assert route is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OPENAI.facts(route, path, b"", raw)


def a_chat(**fields: object) -> dict[str, object]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        ({}, None),
        ({"cost": 1}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        ({"prompt_tokens": 5}, Usage(input_tokens=5)),
        ({"total_tokens": 5}, Usage(input_tokens=5)),
        ({"prompt_tokens": -5, "completion_tokens": 2}, Usage(output_tokens=2)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, Usage(output_tokens=2)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2}, Usage(5, 2)),
        # xAI: reasoning outside completion_tokens
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 3,
                "total_tokens": 33,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(10, 23, reasoning_tokens=20),
        ),
        # OpenAI: inside
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 30,
                "total_tokens": 40,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(10, 30, reasoning_tokens=20),
        ),
        # Gemini's compatible endpoint: only the total shows thoughts
        (
            {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100},
            Usage(66, 34, reasoning_tokens=28),
        ),
        # Mistral: audio outside prompt_tokens
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 248,
                "total_tokens": 632,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            Usage(384, 248, input_audio_tokens=375),
        ),
        # Grok on Azure: more cached than prompted
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 161},
            },
            Usage(10, 1, cache_read_tokens=10),
        ),
        # DeepSeek, Mistral, Together
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 4},
            Usage(10, 1, cache_read_tokens=4),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "num_cached_tokens": 4},
            Usage(10, 1, cache_read_tokens=4),
        ),
        # OpenRouter
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "cost": 6e-08, "is_byok": False},
            Usage(10, 1, provider_cost_nano=60),
        ),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost": 0, "is_byok": True}, Usage(1, 1)),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0},
            Usage(1, 1, provider_cost_nano=0),
        ),
        # Perplexity, xAI
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "cost": {"total_cost": 0.00502}},
            Usage(1, 1, provider_cost_nano=5_020_000),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": 12345},
            Usage(1, 1, provider_cost_nano=1234),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": 12346},
            Usage(1, 1, provider_cost_nano=1235),
        ),
        ({"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": 0}, Usage(1, 1)),
    ],
)
def test_usage_of_every_host(block: dict[str, object], usage: Usage | None) -> None:
    assert usage_from(block) == usage


counts = st.integers(-5, 60) | st.none() | st.just("7") | st.just(10**15)
names = st.sampled_from(
    [
        *("cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "video_tokens"),
        "reasoning_tokens",
    ]
)


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), counts
    ),
    st.dictionaries(names, counts),
    st.dictionaries(names, counts),
)
def test_no_bucket_is_ever_negative(
    block: dict[str, object], inputs: dict[str, object], outputs: dict[str, object]
) -> None:
    usage = usage_from(
        {**block, "prompt_tokens_details": inputs, "completion_tokens_details": outputs}
    )
    if usage is None:
        return
    cached_media = usage.cache_read_audio_tokens + usage.cache_read_image_tokens
    media = usage.input_audio_tokens + usage.input_image_tokens
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    assert 0 <= cached_media <= usage.cache_read_tokens
    assert 0 <= media - cached_media <= fresh - usage.input_video_tokens
    parts = usage.reasoning_tokens + usage.output_audio_tokens + usage.output_image_tokens
    assert 0 <= parts <= usage.output_tokens


# --- streams -------------------------------------------------------------------------------


def chunk(**fields: object) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06"}
    return b"data: " + json.dumps({**head, **fields}, separators=(",", ":")).encode() + b"\n\n"


def said(text: str, finish: str | None = None) -> bytes:
    return chunk(
        choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}], usage=None
    )


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
USAGE_CHUNK = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
STREAM = [said("Hello"), said(" world"), said("", "stop"), USAGE_CHUNK, DONE]


def metered(
    pieces: list[bytes], *, asked: bool = False, path: str = CHAT, finish: bool = True
) -> tuple[list[bytes], Reading]:
    body = a_chat(stream=True, input="x", prompt="x")
    if asked:
        body["stream_options"] = {"include_usage": True}
    meter = OPENAI.meter(facts_of(body, path), status=200, content_type=SSE, inject_usage=True)
    passed = [meter.feed(piece) for piece in pieces]
    if finish:
        passed.append(meter.finish())
    return passed, meter.reading()


def test_a_stream_with_usage() -> None:
    passed, reading = metered(STREAM, asked=True)
    assert passed[:-1] == STREAM
    assert reading == Reading(Usage(9, 3), "gpt-4o-2024-08-06", "chatcmpl-1", complete=True)


def test_whole_events_pass_at_once_and_the_usage_chunk_is_withheld() -> None:
    passed, reading = metered(STREAM)
    assert passed == [*STREAM[:3], b"", DONE, b""]
    assert passed[0] is STREAM[0]
    assert reading.usage == Usage(9, 3)


@given(offsets(), st.booleans())
def test_withholding_does_not_depend_on_the_cuts(at: list[int], crlf: bool) -> None:
    events = [event.replace(b"\n", b"\r\n") if crlf else event for event in STREAM]
    passed, reading = metered(cut(b"".join(events), at))
    assert b"".join(passed) == b"".join(events[:3] + events[4:])
    assert reading.usage == Usage(9, 3)
    assert reading.complete


def test_an_event_is_held_only_while_it_may_be_the_usage_chunk() -> None:
    event = said("x" * 300)
    start = event[:150]
    assert b'"choices":[{' in start
    passed, _ = metered([start, event[150:200], event[200:] + USAGE_CHUNK, DONE])
    assert passed == [start, event[150:200], event[200:], DONE, b""]


def test_too_much_to_hold_is_passed_on() -> None:
    start = b'data: {"choices":[],"padding":"' + b"x" * HELD_BYTES_MAX
    passed, _ = metered([start, b'","usage":{"prompt_tokens":1}}\n\n', DONE])
    assert passed == [start, b'","usage":{"prompt_tokens":1}}\n\n', DONE, b""]


def test_a_chunk_with_choices_is_never_withheld() -> None:
    last = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    passed, reading = metered([said("a"), last])
    assert b"".join(passed) == said("a") + last
    assert reading.usage == Usage(9, 3)
    assert reading.complete


def test_azures_first_chunk_is_not_the_usage_chunk() -> None:
    first = chunk(choices=[], model="", prompt_filter_results=[{"usage": {"a": 1}}])
    passed, reading = metered([first, *STREAM])
    assert b"".join(passed) == first + b"".join([*STREAM[:3], DONE])
    assert reading.model == "gpt-4o-2024-08-06"


def test_the_last_usage_wins() -> None:
    """Perplexity repeats cumulative usage in every chunk."""
    pieces = [
        chunk(choices=[{"delta": {"content": "a"}}], usage={**USAGE, "completion_tokens": n})
        for n in (1, 2, 3)
    ]
    _, reading = metered(pieces)
    assert reading.usage == Usage(9, 3)
    assert reading.partial
    assert not reading.complete


def test_groqs_usage() -> None:
    last = chunk(choices=[{"delta": {}, "finish_reason": "stop"}], x_groq={"usage": USAGE})
    assert metered([said("a"), last, DONE])[1].usage == Usage(9, 3)


def test_a_usage_chunk_without_its_blank_line() -> None:
    passed, reading = metered([*STREAM[:3], USAGE_CHUNK[:-2]])
    assert b"".join(passed) == b"".join(STREAM[:3])
    assert reading.usage == Usage(9, 3)


def test_a_cut_stream_is_estimated() -> None:
    events = [said("word "), *([said("four")] * 50)]
    passed, reading = metered([*events, said("half")[:40]], finish=False)
    assert reading.usage is None
    assert not reading.complete
    assert reading.delivered_output_tokens == 52
    assert reading.model == "gpt-4o-2024-08-06"
    assert len(b"".join(passed)) >= len(b"".join(events))


def test_an_error_event() -> None:
    error = b'data: {"error":{"message":"m","type":"server_error","code":null}}\n\n'
    _, reading = metered([said("a"), error])
    assert reading.error == "server_error"
    assert reading.usage is None
    assert not reading.complete


def test_a_search_model_bills_one_search() -> None:
    facts = facts_of(a_chat(model="gpt-4o-search-preview"))
    meter = OPENAI.meter(facts, status=200, content_type="application/json", inject_usage=False)
    meter.feed(json.dumps({"usage": USAGE}).encode())
    usage = meter.reading().usage
    assert usage is not None
    assert usage.units == {"web_search": 1}


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        ({"search_context_size": "low"}, {"web_search@low": 1}),
        ({"search_context_size": "HIGH", "num_search_queries": 3}, {"web_search@high": 3}),
        ({"search_context_size": "vast"}, {"web_search": 1}),
        ({"citation_tokens": 700}, {"citation_tokens": 700}),
        ({"citation_tokens": None, "num_search_queries": 0}, {}),
    ],
)
def test_what_perplexity_bills_besides_tokens(
    fields: dict[str, object], units: dict[str, int]
) -> None:
    facts = facts_of(a_chat(model="sonar"))
    meter = OPENAI.meter(facts, status=200, content_type="application/json", inject_usage=False)
    meter.feed(json.dumps({"usage": USAGE | fields}).encode())
    usage = meter.reading().usage
    assert usage is not None
    assert usage.units == units


def a_response(kind: str, **fields: object) -> bytes:
    event = {"type": kind, "response": {"id": "resp_1", "model": "gpt-5", "usage": None, **fields}}
    return f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode()


RESPONSE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 15},
    "total_tokens": 70,
}
ITEMS = [
    {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}},
    {"type": "web_search_call", "id": "ws_2", "action": {"type": "open_page"}},
    {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"},
    {"type": "code_interpreter_call", "id": "ci_2", "container_id": "cntr_1"},
    {"type": "file_search_call", "id": "fs_1"},
    {"type": "image_generation_call", "id": "ig_1"},
    {"type": "function_call", "id": "fc_1"},
]


@pytest.mark.parametrize("ending", ["completed", "incomplete", "failed"])
def test_a_response_stream(ending: str) -> None:
    done = [
        b"data: "
        + json.dumps({"type": "response.output_item.done", "item": item}).encode()
        + b"\n\n"
        for item in ITEMS
    ]
    last = a_response(
        f"response.{ending}", usage=RESPONSE_USAGE, output=ITEMS, service_tier="priority"
    )
    pieces = [a_response("response.created", service_tier="auto"), *done, last]
    passed, reading = metered(pieces, path="/v1/responses")
    assert b"".join(passed) == b"".join(pieces)
    usage = Usage(50, 20, 10, 5, reasoning_tokens=15, service_tier="priority")
    usage.units = {
        "web_search": 1,
        "file_search": 1,
        "image_generation": 1,
        "code_interpreter": 1,
    }
    assert reading == Reading(usage, "gpt-5", "resp_1", complete=True)


def test_image_tokens_of_a_response_are_a_pass_of_their_own() -> None:
    image = {"input_tokens": 12, "output_tokens": 1000, "total_tokens": 1012}
    body = {
        "model": "gpt-5",
        "usage": RESPONSE_USAGE,
        "tools": [{"type": "image_generation", "model": "gpt-image-1-mini"}],
        "tool_usage": {"image_gen": image},
    }
    facts = facts_of({"model": "gpt-5", "input": "x"}, "/v1/responses")
    meter = OPENAI.meter(facts, status=200, content_type="application/json", inject_usage=False)
    meter.feed(json.dumps(body).encode())
    usage = meter.reading().usage
    assert usage is not None
    assert usage.passes == (("gpt-image-1-mini", Usage(12, 1000)),)


def test_a_cut_response_stream_counts_its_deltas() -> None:
    deltas = [
        b'data: {"type":"response.output_text.delta","delta":"word"}\n\n',
        b'data: {"type":"response.audio.delta","delta":"AAAAAAAAAAAAAAAA"}\n\n',
        b'data: {"type":"response.output_text.done","text":"wordwordword"}\n\n',
    ]
    pieces = [a_response("response.created", instructions="x" * 400), deltas[0], *deltas]
    _, reading = metered(pieces, path="/v1/responses", finish=False)
    assert reading.usage is None
    assert not reading.complete
    assert reading.delivered_output_tokens == 2


def test_a_failed_response_is_named() -> None:
    last = a_response("response.failed", error={"code": "server_error", "message": "m"})
    _, reading = metered([last], path="/v1/responses")
    assert reading.error == "server_error"
    assert reading.complete
    event = b'event: error\ndata: {"type":"error","code":"rate_limit","message":"m"}\n\n'
    _, reading = metered([event], path="/v1/responses")
    assert reading.error == "rate_limit"
