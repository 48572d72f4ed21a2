import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.openai import OpenAI

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


def with_part(part: object) -> dict[str, object]:
    return a_chat(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])


# --- routes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "name", "kind"),
    [
        ("POST", "/v1/chat/completions", "chat.completions", "metered"),
        ("POST", "/chat/completions", "chat.completions", "metered"),
        ("POST", "/openai/v1/chat/completions", "chat.completions", "metered"),
        ("POST", "/api/v1/chat/completions", "chat.completions", "metered"),
        ("POST", "//openai/deployments/d/chat/completions", "chat.completions", "metered"),
        ("POST", "/v1/chat/completions/", "chat.completions", "metered"),
        ("POST", "/v1/chat%2Fcompletions", "chat.completions", "metered"),
        ("POST", "/v1/completions", "completions", "metered"),
        ("POST", "/v1/responses", "responses", "metered"),
        ("POST", "/v1/responses/compact", "responses.compact", "metered"),
        ("POST", "/v1/responses/input_tokens", "responses.input_tokens", "free"),
        ("POST", "/v1/embeddings", "embeddings", "metered"),
        ("POST", "/v1/moderations", "moderations", "free"),
        ("POST", "/v1/images/generations", "images.generations", "metered"),
        ("POST", "/v1/batches", "batches", "metered"),
        ("POST", "/v1/batches/batch_1/cancel", "batches.read", "free"),
        ("POST", "/v1/responses/resp_1/cancel", "responses.read", "free"),
        ("POST", "/v1/fine_tuning/jobs/ft_1/cancel", "other", "unmetered"),
        ("GET", "/v1/files/file-1/content", "files.content", "free"),
        ("GET", "/v1/files/file-1", "read", "free"),
        ("DELETE", "/v1/batches/batch_1", "read", "free"),
        ("POST", "/v1/Chat/Completions", "other", "unmetered"),
        ("POST", "/v1/messages", "other", "unmetered"),
        ("POST", "/v1/chat/completions/x", "other", "unmetered"),
        ("POST", "/", "other", "unmetered"),
        ("PUT", "/v1/chat/completions", "other", "unmetered"),
        ("GET", "/v1/chat/completions/chatcmpl_1", "read", "free"),
        ("DELETE", "/v1/responses/resp_1", "read", "free"),
    ],
)
def test_the_end_of_the_path_decides(method: str, path: str, name: str, kind: str) -> None:
    route = OPENAI.route(method, path)
    assert route is not None
    assert (route.name, route.kind) == (name, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions#/v1/moderations",
        "/v1/chat/completions%23/v1/moderations",
        "/v1/chat/completions?x=/moderations",
        "/v1/chat/completions;/moderations",
        "/v1/x/../moderations",
        "/v1/x/%2e%2e/moderations",
        "/v1/chat/completions\\moderations",
    ],
)
def test_a_path_that_may_mean_something_else_is_never_free(path: str) -> None:
    route = OPENAI.route("POST", path)
    assert route is not None
    assert route.kind == "unmetered"


def test_nonsense_has_no_route() -> None:
    assert OPENAI.route("POST", "v1/chat/completions") is None
    assert OPENAI.route("BREW", CHAT) is None


# --- facts ---------------------------------------------------------------------------------


def test_facts_of_a_chat() -> None:
    facts = facts_of(a_chat(max_tokens=100, n=3, stream=True, service_tier="flex"))
    size = facts.size
    assert (facts.model, facts.stream, facts.wants_usage_chunk) == ("gpt-4o", True, False)
    assert (size.output_limit, size.choices, size.service_tier) == (100, 3, "flex")
    assert (size.windowed, size.tool_windows, size.web_searches) == (False, 0, 0)
    assert size.generates
    assert not facts.reasoning


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        ({"messages": []}, "`model` is missing"),
        (a_chat(model=3), "`model` is missing or not a string"),
        (a_chat(model="m" * 300), "longer than"),
        ({"model": "m"}, "`messages` is missing"),
        (a_chat(n="many"), "`n` must be"),
        (a_chat(n=-1), "`n` must be"),
        (a_chat(max_tokens=True), "`max_tokens` must be"),
        (a_chat(stream="yes"), "`stream` must be true or false"),
        (a_chat(tools={"type": "function"}), "`tools` must be an array"),
    ],
)
def test_bad_requests_say_what_is_wrong(body: object, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        facts_of(body)
    assert refusal.value.code == "bad_request"
    assert says in refusal.value.message


@pytest.mark.parametrize(
    ("part", "images", "windowed"),
    [
        ({"type": "text", "text": "y"}, 0, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, 1, False),
        ({"type": "image_url", "image_url": "DATA:image/png;base64,AA"}, 1, False),
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, 0, True),
        ({"type": "image_url", "image_url": {"url": "data:application/pdf;base64,AA"}}, 0, True),
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, 0, False),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}, 0, True),
        ({"type": "file", "file": {"file_id": "file_1"}}, 0, True),
        ({"type": "video_url", "video_url": {"url": "https://x"}}, 0, True),
        ({"type": ["odd"]}, 0, True),
        ("odd", 0, False),
    ],
)
def test_media_in_a_chat(part: object, images: int, windowed: bool) -> None:
    size = facts_of(with_part(part)).size
    assert (size.inline_images, size.windowed) == (images, windowed)


def test_stored_audio_is_bounded_by_the_window() -> None:
    messages = [{"role": "assistant", "audio": {"id": "audio_1"}}]
    assert facts_of(a_chat(messages=messages)).size.windowed
    assert not facts_of(a_chat(messages=[{"role": "assistant", "audio": None}])).size.windowed


@pytest.mark.parametrize(
    ("fields", "windows", "searches"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 0, 0),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, 0, 0),
        ({"tools": [{"type": "openrouter:web_search"}]}, -1, 10),
        ({"tools": [{"type": "code_interpreter"}]}, -1, 0),
        ({"web_search_options": {}}, -1, 1),
        ({"model": "gpt-4o-mini-search-preview"}, -1, 1),
        ({"model": "gpt-5-search-api"}, -1, 1),
        ({"model": "x-ai/grok-4:online"}, -1, 1),
        ({"plugins": [{"id": "web"}]}, -1, 10),
        ({"search_parameters": {"mode": "auto"}}, -1, 10),
        ({"model": "groq/compound"}, -1, 10),
    ],
)
def test_server_side_tools_of_a_chat(
    fields: dict[str, object], windows: int, searches: int
) -> None:
    size = facts_of(a_chat(**fields)).size
    assert (size.tool_windows, size.web_searches) == (windows, searches)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": "9"}, 9),
        ({"max_tokens": 10.0}, 10),
        ({"max_tokens": 0}, 0),
    ],
)
def test_output_limit(fields: dict[str, object], limit: int | None) -> None:
    assert facts_of(a_chat(**fields)).size.output_limit == limit


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({}, False),
        ({"reasoning_effort": "low"}, True),
        ({"model": "o3-mini"}, True),
        ({"model": "openai/o1"}, True),
        ({"model": "gpt-5.2"}, True),
        ({"model": "deepseek-reasoner"}, True),
        ({"model": "gpt-4.1"}, False),
    ],
)
def test_reasoning(fields: dict[str, object], reasoning: bool) -> None:
    assert facts_of(a_chat(**fields)).reasoning is reasoning


@pytest.mark.parametrize(
    ("prompt", "fields", "inputs", "choices"),
    [
        ("one", {}, 1, 1),
        (["one", "two"], {"n": 3}, 2, 6),
        ([1, 2, 3], {}, 1, 1),
        ([[1, 2], [3]], {"best_of": 4, "n": 2}, 2, 8),
    ],
)
def test_facts_of_completions(
    prompt: object, fields: dict[str, object], inputs: int, choices: int
) -> None:
    size = facts_of({"model": "m", "prompt": prompt, **fields}, "/v1/completions").size
    assert (size.inputs, size.choices) == (inputs, choices)


@pytest.mark.parametrize(
    ("value", "inputs"), [("one", 1), (["a", "b"], 2), ([1, 2], 1), ([[1]], 1)]
)
def test_facts_of_embeddings(value: object, inputs: int) -> None:
    facts = facts_of({"model": "m", "input": value}, "/v1/embeddings")
    assert facts.size.inputs == inputs
    assert not facts.size.generates


@pytest.mark.parametrize(
    ("fields", "windowed", "images"),
    [
        ({"input": "hi"}, False, 0),
        ({"input": [{"role": "user", "content": "hi"}]}, False, 0),
        ({"input": "hi", "previous_response_id": "resp_1"}, True, 0),
        ({"input": "hi", "previous_response_id": None}, False, 0),
        ({"input": "hi", "conversation": "conv_1"}, True, 0),
        ({"input": "hi", "prompt": {"id": "pmpt_1"}}, True, 0),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, True, 0),
        (
            {"input": [{"content": [{"type": "input_image", "image_url": "data:image/png;,A"}]}]},
            False,
            1,
        ),
        ({"input": [{"content": [{"type": "input_image", "file_id": "file_1"}]}]}, True, 0),
        ({"input": [{"content": [{"type": "input_file", "file_data": "data:x"}]}]}, True, 0),
        (
            {
                "input": [
                    {
                        "type": "computer_call_output",
                        "output": {"type": "computer_screenshot", "image_url": "data:image/png;,A"},
                    }
                ]
            },
            False,
            1,
        ),
        ({"input": [{"type": "image_generation_call", "result": "AAAA"}]}, False, 1),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, False, 0),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, False, 0),
    ],
)
def test_facts_of_responses(fields: dict[str, object], windowed: bool, images: int) -> None:
    size = facts_of({"model": "gpt-5", **fields}, "/v1/responses").size
    assert (size.windowed, size.inline_images) == (windowed, images)


def test_tool_calls_of_responses_can_be_bounded() -> None:
    tools = [{"type": "web_search"}, {"type": "function", "name": "f"}]
    body = {"model": "gpt-5", "input": "x", "tools": tools, "max_output_tokens": 50}
    size = facts_of(body, "/v1/responses").size
    assert (size.tool_windows, size.web_searches, size.output_limit) == (-1, 10, 50)
    size = facts_of({**body, "max_tool_calls": 2}, "/v1/responses").size
    assert (size.tool_windows, size.web_searches) == (3, 2)


def test_files_searched_and_containers_are_held() -> None:
    tools = [{"type": "file_search"}, {"type": "code_interpreter"}, {"type": "code_interpreter"}]
    body = {"model": "gpt-5", "input": "x", "tools": tools}
    size = facts_of(body, "/v1/responses").size
    assert (size.units, size.web_searches) == ({"file_search": 10, "code_interpreter": 2}, 0)
    size = facts_of({**body, "max_tool_calls": 3}, "/v1/responses").size
    assert size.units == {"file_search": 3, "code_interpreter": 2}


def test_the_usage_of_background_responses_comes_later() -> None:
    body = {"model": "gpt-5", "input": "x", "background": True}
    assert facts_of(body, "/v1/responses").later == "response"
    assert facts_of(body | {"background": False}, "/v1/responses").later == ""


def test_background_responses_of_other_hosts_are_refused() -> None:
    host = OpenAI(inner=True)
    route = host.route("POST", "/v1/responses")
    assert route is not None
    with pytest.raises(Refusal, match="background") as refusal:
        host.facts(route, "", b"", b'{"model": "gpt-5", "input": "x", "background": true}')
    assert refusal.value.code == "route_not_metered"
    kinds = {row.kind for path in ("/v1/files", "/v1/batches") if (row := host.route("POST", path))}
    assert kinds == {"unmetered"}


def test_the_model_of_a_deployment_is_in_the_path() -> None:
    body = {"messages": []}
    assert facts_of(body, "/openai/deployments/my%20gpt/chat/completions").model == "my gpt"


# --- edits ---------------------------------------------------------------------------------


def edited(body: bytes, clamp: int | None, inject: bool, path: str = CHAT) -> bytes:
    return OPENAI.edit(facts_of(body, path), body, clamp=clamp, inject_usage=inject)


def test_nothing_to_edit_is_the_same_object() -> None:
    for fields in ({}, {"stream": True, "stream_options": {"include_usage": True}}):
        body = json.dumps(a_chat(**fields)).encode()
        assert edited(body, None, True) is body
    streamed = json.dumps(a_chat(stream=True)).encode()
    assert edited(streamed, None, False) is streamed


def test_a_new_key_is_spliced_in_front() -> None:
    body = b' { "model" : "gpt-4o", "messages":[],"stream":true, "x": 1e2}'
    assert edited(body, None, True) == (
        b' {"stream_options":{"include_usage":true}, "model" : "gpt-4o", '
        b'"messages":[],"stream":true, "x": 1e2}'
    )


keys = st.sampled_from(["max_tokens", "max_completion_tokens", "stream_options", "user", "é"])
plain = st.none() | st.integers(0, 10**6)


@given(
    st.dictionaries(keys, plain, max_size=4).filter(lambda d: d.get("stream_options") is None),
    st.booleans(),
    st.none() | st.integers(1, 9999),
    st.booleans(),
)
def test_an_edit_changes_nothing_else(
    fields: dict[str, object], stream: bool, clamp: int | None, inject: bool
) -> None:
    request = a_chat(**fields, stream=stream)
    body = json.dumps(request).encode()
    expected: dict[str, Any] = dict(request)
    if clamp is not None:
        used = [k for k in ("max_completion_tokens", "max_tokens") if fields.get(k) is not None]
        expected.update(dict.fromkeys(used or ["max_completion_tokens"], clamp))
    if stream and inject:
        expected["stream_options"] = {"include_usage": True}
    assert json.loads(edited(body, clamp, inject)) == expected


def test_other_stream_options_are_kept() -> None:
    options = {"include_usage": False, "include_obfuscation": False}
    body = json.dumps(a_chat(stream=True, stream_options=options)).encode()
    assert json.loads(edited(body, None, True))["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/responses", {"model": "m", "input": "x"}, "max_output_tokens"),
        ("/v1/completions", {"model": "m", "prompt": "x"}, "max_tokens"),
        (CHAT, a_chat(), "max_completion_tokens"),
    ],
)
def test_the_field_clamped_is_the_apis_own(path: str, body: object, field: str) -> None:
    raw = json.dumps(body).encode()
    assert json.loads(edited(raw, 5, True, path))[field] == 5


def test_the_clamp_field_is_a_setting() -> None:
    raw = json.dumps(a_chat()).encode()
    dialect = OpenAI("max_tokens")
    assert (
        json.loads(dialect.edit(facts_of(raw), raw, clamp=5, inject_usage=False))["max_tokens"] == 5
    )


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("budget_exceeded", "insufficient_quota"),
        ("cost_cap_exceeded", "insufficient_quota"),
        ("rate_limited", "rate_limit_error"),
        ("budget_busy", "rate_limit_error"),
        ("bad_request", "invalid_request_error"),
        ("invalid_api_key", "authentication_error"),
        ("route_not_metered", "permission_error"),
        ("upstream_timeout", "server_error"),
    ],
)
def test_error_bodies(code: str, kind: str) -> None:
    body = json.loads(OPENAI.error_body(Refusal(code, "m", {"limit": 1}), "r"))
    assert body == {
        "error": {
            "message": "m",
            "type": kind,
            "param": None,
            "code": code,
            "details": {"limit": 1},
        }
    }


def test_error_events() -> None:
    refusal = Refusal("upstream_timeout", "m")
    error = {"message": "m", "type": "server_error", "param": None, "code": "upstream_timeout"}
    event = OPENAI.error_event(facts_of(a_chat(stream=True)), refusal, "r")
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert json.loads(event[6:]) == {"error": error}
    facts = facts_of({"model": "m", "input": "x", "stream": True}, "/v1/responses")
    event = OPENAI.error_event(facts, refusal, "r")
    head, data = event.split(b"\ndata: ")
    assert head == b"event: error"
    parsed = json.loads(data)
    assert parsed["type"] == "error"
    assert parsed["error"] == error
