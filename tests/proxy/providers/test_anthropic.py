import json

import pytest
from hypothesis import given

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.anthropic import Anthropic
from proxy.providers.base import Facts, Reading
from tests.cuts import cut, offsets

ANTHROPIC = Anthropic()
MESSAGES = "/v1/messages"
SSE = "text/event-stream; charset=utf-8"


def facts_of(body: object, path: str = MESSAGES) -> Facts:
    route = ANTHROPIC.route("POST", path)
    assert route is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ANTHROPIC.facts(route, path, b"", raw)


def a_message(**fields: object) -> dict[str, object]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "hi"}],
        **fields,
    }


def with_block(block: object) -> dict[str, object]:
    return a_message(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, block]}])


@pytest.mark.parametrize(
    ("method", "path", "name", "kind"),
    [
        ("POST", "/v1/messages", "messages", "metered"),
        ("POST", "/any/prefix/v1/messages", "messages", "metered"),
        ("POST", "/v1/messages/count_tokens", "messages.count_tokens", "free"),
        ("POST", "/v1/complete", "complete", "metered"),
        ("POST", "/v1/messages/batches", "messages.batches", "metered"),
        ("POST", "/v1/messages/batches/msgbatch_1/cancel", "messages.batches.read", "free"),
        ("POST", "/v1/chat/completions", "other", "unmetered"),
        ("POST", "/v1/files", "files", "unmetered"),
        ("GET", "/v1/messages/batches/msgbatch_1/results", "messages.batches.results", "free"),
        ("GET", "/v1/models", "read", "free"),
        ("POST", "/v1/messages/#/count_tokens", "other", "unmetered"),
    ],
)
def test_routes(method: str, path: str, name: str, kind: str) -> None:
    route = ANTHROPIC.route(method, path)
    assert route is not None
    assert (route.name, route.kind) == (name, kind)


# --- facts and edits -----------------------------------------------------------------------


def test_facts_of_a_message() -> None:
    facts = facts_of(a_message(stream=True, service_tier="auto", speed="fast", inference_geo="us"))
    size = facts.size
    assert (facts.model, facts.stream, facts.reasoning) == ("claude-sonnet-4-5", True, False)
    assert facts.provider_options == {"speed": "fast", "inference_geo": "us"}
    assert (size.output_limit, size.service_tier, size.speed) == (1000, "auto", "fast")
    assert (size.windowed, size.inline_images, size.tool_windows) == (False, 0, 0)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        ({"messages": []}, "`model` is missing"),
        ({"model": "m"}, "`messages` is missing"),
        (a_message(max_tokens="lots"), "`max_tokens` must be"),
        (a_message(stream=1), "`stream` must be"),
        (a_message(tools="none"), "`tools` must be an array"),
    ],
)
def test_bad_requests_say_what_is_wrong(body: object, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        facts_of(body)
    assert refusal.value.code == "bad_request"
    assert says in refusal.value.message


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}


@pytest.mark.parametrize(
    ("block", "images", "windowed"),
    [
        ({"type": "thinking", "thinking": "x", "signature": "s"}, 0, False),
        (IMAGE, 1, False),
        ({"type": "image", "source": {"type": "url", "url": "https://x"}}, 0, True),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, 0, True),
        (PDF, 0, True),
        ({"type": "document", "source": {"type": "text", "data": "x"}}, 0, False),
        ({"type": "document", "source": {"type": "content", "content": [IMAGE, IMAGE]}}, 2, False),
        ({"type": "tool_result", "content": "x"}, 0, False),
        ({"type": "tool_result", "content": [IMAGE, {"type": "text", "text": "x"}]}, 1, False),
        ({"type": "tool_result", "content": [PDF]}, 0, True),
        ({"type": "web_fetch_tool_result", "content": {"content": PDF}}, 0, True),
        (
            {
                "type": "web_fetch_tool_result",
                "content": {
                    "type": "web_fetch_result",
                    "content": {"type": "document", "source": {"type": "text", "data": "x"}},
                },
            },
            0,
            False,
        ),
        ({"type": "web_search_tool_result", "content": [{"encrypted_content": "x"}]}, 0, False),
        ({"type": "container_upload", "file_id": "file_1"}, 0, True),
        ({"type": None}, 0, True),
        ("odd", 0, False),
    ],
)
def test_media_in_a_message(block: object, images: int, windowed: bool) -> None:
    size = facts_of(with_block(block)).size
    assert (size.inline_images, size.windowed) == (images, windowed)


@pytest.mark.parametrize(
    ("fields", "windows", "searches"),
    [
        ({"tools": [{"name": "f", "input_schema": {}}]}, 0, 0),
        ({"tools": [{"type": "custom", "name": "f"}]}, 0, 0),
        ({"tools": [{"type": "bash_20250124"}, {"type": "text_editor_20250728"}]}, 0, 0),
        ({"tools": [{"type": "web_search_20250305"}]}, -1, 10),
        ({"tools": [{"type": "web_search_20250305", "max_uses": 5}]}, 6, 5),
        (
            {
                "tools": [
                    {"type": "web_search_20250305", "max_uses": 5},
                    {"type": "web_fetch_20250910", "max_uses": 2},
                ]
            },
            8,
            5,
        ),
        (
            {
                "tools": [
                    {"type": "web_search_20250305", "max_uses": 5},
                    {"type": "code_execution_20250825"},
                ]
            },
            -1,
            5,
        ),
        ({"tools": [{"type": "advisor_20260301", "max_uses": 1}]}, -1, 0),
        ({"mcp_servers": [{"url": "https://x"}]}, -1, 0),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, -1, 0),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, 0, 0),
    ],
)
def test_server_side_tools(fields: dict[str, object], windows: int, searches: int) -> None:
    size = facts_of(a_message(**fields)).size
    assert (size.tool_windows, size.web_searches) == (windows, searches)


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"output_config": {"effort": "low"}}, True),
    ],
)
def test_reasoning(fields: dict[str, object], reasoning: bool) -> None:
    assert facts_of(a_message(**fields)).reasoning is reasoning


def edited(body: dict[str, object], clamp: int | None, path: str = MESSAGES) -> bytes:
    raw = json.dumps(body).encode()
    return ANTHROPIC.edit(facts_of(raw, path), raw, clamp=clamp, inject_usage=True)


def test_edits() -> None:
    raw = json.dumps(a_message()).encode()
    assert ANTHROPIC.edit(facts_of(raw), raw, clamp=None, inject_usage=True) is raw
    assert json.loads(edited(a_message(), 7)) == a_message(max_tokens=7)
    assert edited({"model": "m", "messages": []}, 7).startswith(b'{"max_tokens":7,"model": "m"')
    legacy = {"model": "claude-2.1", "prompt": "x", "max_tokens_to_sample": 300}
    assert json.loads(edited(legacy, 7, "/v1/complete")) == {**legacy, "max_tokens_to_sample": 7}


def test_a_clamp_leaves_thinking_valid() -> None:
    """The API wants thinking.budget_tokens below max_tokens."""
    thinking = {"type": "enabled", "budget_tokens": 10_000}
    body = json.loads(edited(a_message(max_tokens=20_000, thinking=thinking), 4096))
    assert body == a_message(max_tokens=4096, thinking={**thinking, "budget_tokens": 3072})
    roomy = a_message(max_tokens=20_000, thinking={**thinking, "budget_tokens": 2000})
    assert json.loads(edited(roomy, 4096))["thinking"]["budget_tokens"] == 2000


# --- replies -------------------------------------------------------------------------------


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}  \n\n".encode()


def started(**usage: object) -> bytes:
    message = {"id": "msg_1", "model": "claude-sonnet-4-5-20250929", "usage": usage}
    return event("message_start", message=message)


def said(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


STOP = event("message_stop")


def metered(pieces: list[bytes], *, finish: bool = True, **fields: object) -> Reading:
    facts = facts_of(a_message(stream=True, **fields))
    meter = ANTHROPIC.meter(facts, status=200, content_type=SSE, inject_usage=True)
    passed = [meter.feed(piece) for piece in pieces]
    assert passed == pieces
    if finish:
        assert meter.finish() == b""
    return meter.reading()


def read(body: object, status: int = 200, path: str = MESSAGES) -> Reading:
    facts = facts_of({**a_message(), "prompt": "x"}, path)
    meter = ANTHROPIC.meter(
        facts, status=status, content_type="application/json", inject_usage=False
    )
    meter.feed(json.dumps(body).encode())
    return meter.reading()


START = started(
    input_tokens=14,
    cache_creation_input_tokens=100,
    cache_read_input_tokens=1000,
    cache_creation={"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    output_tokens=2,
    service_tier="standard",
    inference_geo="global",
)
DELTA = event(
    "message_delta",
    delta={"stop_reason": "end_turn"},
    usage={
        "output_tokens": 11,
        "input_tokens": None,
        "output_tokens_details": {"thinking_tokens": 4},
    },
)
STREAM = [START, said("Paris"), event("ping"), DELTA, STOP]


@given(offsets())
def test_later_fields_win(at: list[int]) -> None:
    reading = metered(cut(b"".join(STREAM), at))
    usage = Usage(1114, 11, 1000, 100, 40, reasoning_tokens=4)
    assert reading == Reading(usage, "claude-sonnet-4-5-20250929", "msg_1", complete=True)


def test_a_delta_may_change_the_input() -> None:
    delta = event(
        "message_delta",
        usage={
            "input_tokens": 404_500,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "output_tokens": 90,
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        },
    )
    usage = metered([START, delta, STOP]).usage
    assert usage == Usage(404_500, 90, units={"web_search": 2})


def test_a_cut_stream_gives_a_lower_bound() -> None:
    reading = metered([START, *[said("four")] * 20], finish=False)
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (1114, 2)
    assert reading.partial
    assert not reading.complete
    assert 15 <= reading.delivered_output_tokens <= 25


def test_final_counts_are_not_partial_without_the_stop() -> None:
    reading = metered([START, said("x"), DELTA], finish=False)
    assert (reading.partial, reading.complete) == (False, False)


def test_an_error_event() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "m"})
    reading = metered([START, error])
    assert reading.error == "overloaded_error"
    assert reading.partial


@pytest.mark.parametrize(
    ("usage", "requested", "expected"),
    [
        ({"service_tier": "priority"}, {}, ("priority", "", "")),
        ({"inference_geo": "us", "speed": "fast"}, {}, ("", "us", "fast")),
        ({"inference_geo": "not_available", "speed": "standard"}, {}, ("", "", "")),
        ({}, {"inference_geo": "us", "speed": "fast"}, ("", "us", "fast")),
        ({"inference_geo": "global"}, {"inference_geo": "us"}, ("", "", "")),
    ],
)
def test_terms_are_those_of_the_reply(
    usage: dict[str, object], requested: dict[str, object], expected: tuple[str, str, str]
) -> None:
    reading = metered([started(input_tokens=1, output_tokens=1, **usage), STOP], **requested)
    assert reading.usage is not None
    found = (reading.usage.service_tier, reading.usage.inference_geo, reading.usage.speed)
    assert found == expected


def test_hidden_passes_are_billed_on_top() -> None:
    iterations = [
        {"type": "message", "input_tokens": 220, "output_tokens": 30},
        {"type": "compaction", "input_tokens": 55_196, "output_tokens": 300},
        {
            "type": "advisor_message",
            "model": "claude-opus-4-5",
            "input_tokens": 5,
            "cache_read_input_tokens": 10,
            "output_tokens": 7,
        },
    ]
    usage = {
        "input_tokens": 220,
        "output_tokens": 30,
        "iterations": iterations,
        "inference_geo": "us",
    }
    reading = read({"type": "message", "id": "msg_1", "model": "claude-sonnet-4-5", "usage": usage})
    assert reading.complete
    assert reading.usage == Usage(
        220,
        30,
        inference_geo="us",
        passes=(
            ("", Usage(55_196, 300, inference_geo="us")),
            ("claude-opus-4-5", Usage(15, 7, 10, inference_geo="us")),
        ),
    )
    assert reading.usage.total_tokens == 250 + 55_496 + 22


def test_old_replies_do_not_split_cache_writes() -> None:
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 9, "output_tokens": 1}
    assert read({"type": "message", "usage": usage}).usage == Usage(10, 1, 0, 9)


def test_legacy_completions_report_nothing() -> None:
    body = {"type": "completion", "id": "compl_1", "model": "claude-2.1", "completion": "x" * 40}
    assert read(body, path="/v1/complete") == Reading(
        None, "claude-2.1", "compl_1", complete=True, delivered_output_tokens=10
    )
    facts = facts_of({"model": "claude-2.1", "prompt": "x", "stream": True}, "/v1/complete")
    meter = ANTHROPIC.meter(facts, status=200, content_type=SSE, inject_usage=True)
    meter.feed(event("completion", model="claude-2.1", completion=" Light", stop_reason=None))
    assert not meter.reading().complete
    meter.feed(event("completion", model="claude-2.1", completion="", stop_reason="stop_sequence"))
    reading = meter.reading()
    assert (reading.usage, reading.complete, reading.delivered_output_tokens) == (None, True, 2)


def test_an_error_body() -> None:
    error = {"type": "rate_limit_error", "message": "m"}
    reading = read({"type": "error", "error": error, "request_id": "req_1"}, status=429)
    assert (reading.error, reading.usage) == ("rate_limit_error", None)


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refusal("bad_request", "m"), "invalid_request_error"),
        (Refusal("invalid_api_key", "m"), "authentication_error"),
        (Refusal("route_not_metered", "m"), "permission_error"),
        (Refusal("unknown_route", "m"), "not_found_error"),
        (Refusal("request_too_large", "m"), "request_too_large"),
        (Refusal("budget_exceeded", "m"), "rate_limit_error"),
        (Refusal("overloaded", "m"), "overloaded_error"),
        (Refusal("upstream_timeout", "m"), "timeout_error"),
        (Refusal("upstream_unreachable", "m"), "api_error"),
    ],
)
def test_error_bodies(refusal: Refusal, kind: str) -> None:
    refusal.details = {"scope": "team/a"}
    details = {"scope": "team/a", "error_code": refusal.code}
    body = {
        "type": "error",
        "error": {"type": kind, "message": "m", "details": details},
        "request_id": "req_9",
    }
    assert json.loads(ANTHROPIC.error_body(refusal, "req_9")) == body
    head, data = ANTHROPIC.error_event(facts_of(a_message()), refusal, "req_9").split(b"\ndata: ")
    assert head == b"event: error"
    assert data.endswith(b"\n\n")
    assert json.loads(data) == body
