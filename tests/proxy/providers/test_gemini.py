import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.usage import Usage
from proxy.errors import Refusal
from proxy.providers.base import Facts, Meter, Reading
from proxy.providers.gemini import Gemini
from tests.cuts import cut, offsets

GEMINI = Gemini()
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent"
COMPATIBLE = "/v1beta/openai/chat/completions"


def facts_of(body: object, path: str = GENERATE, query: bytes = b"") -> Facts:
    route = GEMINI.route("POST", path)
    assert route is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return GEMINI.facts(route, path, query, raw)


def a_prompt(*parts: object, **fields: object) -> dict[str, object]:
    return {"contents": [{"role": "user", "parts": [{"text": "hi"}, *parts]}], **fields}


@pytest.mark.parametrize(
    ("method", "path", "name", "kind"),
    [
        ("POST", GENERATE, "generateContent", "metered"),
        ("POST", "/v1/models/gemini-2.5-flash:generateContent", "generateContent", "metered"),
        ("POST", "/models/gemini-2.5-flash:generateContent", "generateContent", "metered"),
        ("POST", "/v1beta/models/gemini%2D2.5%3AgenerateContent", "generateContent", "metered"),
        (
            "POST",
            "/v1beta1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent",
            "streamGenerateContent",
            "metered",
        ),
        ("POST", "/v1beta/models/m:embedContent", "embedContent", "metered"),
        ("POST", "/v1beta/models/m:batchEmbedContents", "batchEmbedContents", "metered"),
        ("POST", "/v1beta/models/m:countTokens", "countTokens", "free"),
        ("POST", "/v1beta/models/m:predict", "predict", "unmetered"),
        ("POST", "/v1beta/models/m:somethingNew", "other", "unmetered"),
        ("POST", "/v1beta/models/:generateContent", "other", "unmetered"),
        ("POST", "/v1beta/models/m:generateContent#:countTokens", "other", "unmetered"),
        ("POST", "/v1beta/interactions", "interactions", "metered"),
        ("POST", "/v1beta/cachedContents", "cachedContents", "unmetered"),
        ("POST", "/upload/v1beta/files", "files", "unmetered"),
        ("POST", COMPATIBLE, "chat.completions", "metered"),
        ("POST", "/v1beta/openai/embeddings", "embeddings", "metered"),
        ("POST", "/v1beta/openai/images/generations", "images.generations", "metered"),
        ("GET", "/v1beta/models", "read", "free"),
        ("DELETE", "/v1beta/files/abc", "read", "free"),
        ("PATCH", "/v1beta/cachedContents/abc", "other", "unmetered"),
    ],
)
def test_routes(method: str, path: str, name: str, kind: str) -> None:
    route = GEMINI.route(method, path)
    assert route is not None
    assert (route.name, route.kind) == (name, kind)


# --- facts and edits -----------------------------------------------------------------------


def test_facts_of_a_prompt() -> None:
    config = {"maxOutputTokens": 100, "candidateCount": 2}
    facts = facts_of(a_prompt(generationConfig=config, serviceTier="FLEX"))
    size = facts.size
    assert (facts.model, facts.stream, facts.reasoning) == ("gemini-2.5-flash", False, True)
    assert (size.output_limit, size.choices, size.service_tier) == (100, 2, "flex")
    assert (size.windowed, size.inline_images, size.tool_windows) == (False, 0, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta1/publishers/google/models/gemini-2.0-flash:generateContent",
        "/models/gemini%2D2.0-flash:generateContent",
    ],
)
def test_the_model_is_in_the_path(path: str) -> None:
    assert facts_of(a_prompt(), path).model == "gemini-2.0-flash"


@pytest.mark.parametrize(
    ("query", "json_array"), [(b"alt=sse", False), (b"key=k&alt=sse", False), (b"", True)]
)
def test_streams_come_as_events_or_as_an_array(query: bytes, json_array: bool) -> None:
    facts = facts_of(a_prompt(), STREAM, query)
    assert facts.stream
    assert facts.json_array is json_array


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        ({}, "`contents` is missing"),
        (a_prompt(generationConfig={"maxOutputTokens": "lots"}), "`maxOutputTokens` must be"),
        (a_prompt(generation_config={"candidate_count": -1}), "`candidate_count` must be"),
    ],
)
def test_bad_requests_say_what_is_wrong(body: object, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        facts_of(body)
    assert refusal.value.code == "bad_request"
    assert says in refusal.value.message


def inline(kind: str) -> dict[str, object]:
    return {"inlineData": {"mimeType": kind, "data": "AA"}}


@pytest.mark.parametrize(
    ("part", "images", "windowed"),
    [
        ({"functionCall": {"name": "f", "args": {}}}, 0, False),
        ({"text": "x", "thoughtSignature": "s"}, 0, False),
        (inline("image/png"), 1, False),
        ({"inline_data": {"mime_type": "IMAGE/PNG", "data": "AA"}}, 1, False),
        (inline("audio/wav"), 0, False),
        (inline("application/pdf"), 0, True),
        (inline("video/mp4"), 0, True),
        ({"fileData": {"fileUri": "https://x"}}, 0, True),
        ({"file_data": {"file_uri": "https://x"}}, 0, True),
        ({"functionResponse": {"name": "f", "parts": [inline("image/png")]}}, 1, False),
        ({"functionResponse": {"name": "f", "parts": [inline("application/pdf")]}}, 0, True),
        ("odd", 0, False),
    ],
)
def test_media_in_a_prompt(part: object, images: int, windowed: bool) -> None:
    size = facts_of(a_prompt(part)).size
    assert (size.inline_images, size.windowed) == (images, windowed)


def test_cached_content_is_bounded_by_the_window() -> None:
    assert facts_of(a_prompt(cachedContent="cachedContents/x")).size.windowed
    assert facts_of(a_prompt(cached_content="cachedContents/x")).size.windowed


@pytest.mark.parametrize(
    ("tools", "windows", "searches"),
    [
        ([{"functionDeclarations": []}], 0, 0),
        ([{"function_declarations": []}, {"computerUse": {}}], 0, 0),
        ([{"googleSearch": {}}], -1, 10),
        ({"google_search": {}}, -1, 10),
        ([{"codeExecution": {}}], -1, 0),
        ([{"urlContext": {}}, {"functionDeclarations": []}], -1, 0),
        ([{"somethingNew": {}}], -1, 10),
    ],
)
def test_server_side_tools(tools: object, windows: int, searches: int) -> None:
    size = facts_of(a_prompt(tools=tools)).size
    assert (size.tool_windows, size.web_searches) == (windows, searches)


@pytest.mark.parametrize("name", ["googleMaps", "google_maps"])
def test_grounding_with_maps_is_held(name: str) -> None:
    size = facts_of(a_prompt(tools=[{name: {}}])).size
    assert (size.tool_windows, size.units) == (-1, {"google_maps": 10})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, None),
        ({"maxOutputTokens": 5}, 5),
        ({"max_output_tokens": "6"}, 6),
        ({"maxOutputTokens": 5, "max_output_tokens": 6}, 6),
        ({"maxOutputTokens": 0}, None),
    ],
)
@pytest.mark.parametrize("name", ["generationConfig", "generation_config"])
def test_output_limit(name: str, config: dict[str, object], limit: int | None) -> None:
    assert facts_of(a_prompt(**{name: config})).size.output_limit == limit


def test_facts_of_embeddings() -> None:
    one = {"content": {"parts": [inline("image/png")]}}
    facts = facts_of(one, "/v1beta/models/e:embedContent")
    assert (facts.size.inputs, facts.size.inline_images, facts.size.generates) == (1, 1, False)
    facts = facts_of({"requests": [one, one]}, "/v1beta/models/e:batchEmbedContents")
    assert (facts.size.inputs, facts.size.inline_images) == (2, 2)


limits = st.sampled_from(["maxOutputTokens", "max_output_tokens", "temperature"])
configs = st.dictionaries(limits, st.integers(1, 9), max_size=3)


@given(
    st.dictionaries(st.sampled_from(["generationConfig", "generation_config"]), configs),
    st.none() | st.integers(1, 9999),
)
def test_an_edit_changes_nothing_else(fields: dict[str, dict[str, int]], clamp: int | None) -> None:
    raw = json.dumps(a_prompt(**fields)).encode()
    body = GEMINI.edit(facts_of(raw), raw, clamp=clamp, inject_usage=True)
    if clamp is None:
        assert body is raw
        return
    expected = {name: dict(config) for name, config in fields.items()}
    for config in expected.values():
        used = [name for name in config if name != "temperature"] or ["maxOutputTokens"]
        config.update(dict.fromkeys(used, clamp))
    expected = expected or {"generationConfig": {"maxOutputTokens": clamp}}
    assert json.loads(body) == a_prompt(**expected)


# --- replies -------------------------------------------------------------------------------


def chunk(text: str = "", finish: str = "", **usage: object) -> dict[str, object]:
    candidate: dict[str, object] = {"content": {"parts": [{"text": text}]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    reply: dict[str, object] = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash-001"}
    if usage:
        reply["usageMetadata"] = usage
    return {**reply, "responseId": "r-1"}


def as_events(chunks: list[dict[str, object]]) -> bytes:
    return b"".join(b"data: " + json.dumps(c).encode() + b"\r\n\r\n" for c in chunks)


def as_array(chunks: list[dict[str, object]]) -> bytes:
    return b"[" + b"\n,\r\n".join(json.dumps(c, indent=2).encode() for c in chunks) + b"\n]"


def a_meter(*, array: bool = False) -> Meter:
    facts = facts_of(a_prompt(), STREAM, b"" if array else b"alt=sse")
    kind = "application/json; charset=UTF-8" if array else "text/event-stream"
    return GEMINI.meter(facts, status=200, content_type=kind, inject_usage=True)


def metered(pieces: list[bytes], *, array: bool = False) -> Reading:
    meter = a_meter(array=array)
    assert [meter.feed(piece) for piece in pieces] == pieces
    assert meter.finish() == b""
    return meter.reading()


def read(body: object, status: int = 200) -> Reading:
    meter = GEMINI.meter(
        facts_of(a_prompt()), status=status, content_type="application/json", inject_usage=False
    )
    meter.feed(json.dumps(body).encode())
    return meter.reading()


CHUNKS = [
    chunk("a", promptTokenCount=9, candidatesTokenCount=1, thoughtsTokenCount=30),
    chunk("b } ] \\", promptTokenCount=10, candidatesTokenCount=5, thoughtsTokenCount=30),
    chunk(
        "c",
        "STOP",
        promptTokenCount=12,
        cachedContentTokenCount=4,
        candidatesTokenCount=8,
        thoughtsTokenCount=30,
        toolUsePromptTokenCount=100,
        totalTokenCount=150,
    ),
    chunk(trafficType="ON_DEMAND"),
]
READING = Reading(
    Usage(112, 38, 4, reasoning_tokens=30), "gemini-2.5-flash-001", "r-1", complete=True
)


@given(offsets(), st.booleans())
def test_the_last_counts_win_however_the_stream_is_cut(at: list[int], array: bool) -> None:
    stream = as_array(CHUNKS) if array else as_events(CHUNKS)
    assert metered(cut(stream, at), array=array) == READING


def test_a_single_reply() -> None:
    assert read(CHUNKS[2]) == READING
    assert read(CHUNKS) == READING


def test_absent_means_zero() -> None:
    assert read(chunk(promptTokenCount=7)).usage == Usage(7)


def test_a_blocked_prompt_reports_nothing() -> None:
    body = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"trafficType": 1}}
    reading = read(body)
    assert (reading.usage, reading.complete) == (None, True)


def test_modalities() -> None:
    details = [
        {"modality": "TEXT", "tokenCount": 1},
        {"modality": "AUDIO", "tokenCount": 10},
        {"modality": "IMAGE", "tokenCount": 20},
        {"modality": "VIDEO", "tokenCount": 30},
    ]
    reading = read(
        chunk(
            promptTokenCount=61,
            promptTokensDetails=details,
            cachedContentTokenCount=15,
            cacheTokensDetails=[
                {"modality": "AUDIO", "tokenCount": 5},
                {"modality": "IMAGE", "tokenCount": 10},
            ],
            candidatesTokenCount=60,
            candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 50}],
        )
    )
    assert reading.usage == Usage(
        input_tokens=61,
        output_tokens=60,
        cache_read_tokens=15,
        input_audio_tokens=10,
        cache_read_audio_tokens=5,
        input_image_tokens=20,
        cache_read_image_tokens=10,
        input_video_tokens=30,
        output_image_tokens=50,
    )


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({"trafficType": "ON_DEMAND"}, ""),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned_throughput"),
        ({"trafficType": 1}, ""),
        ({"serviceTier": "standard"}, ""),
        ({"serviceTier": "flex"}, "flex"),
        ({}, ""),
    ],
)
def test_tiers(fields: dict[str, object], tier: str) -> None:
    usage = read(chunk(promptTokenCount=1, **fields)).usage
    assert usage is not None
    assert usage.service_tier == tier


@pytest.mark.parametrize("array", [False, True])
def test_searches_are_counted_once(array: bool) -> None:
    """Chunks repeat the queries; empty ones are not billed."""
    grounded = chunk("a", promptTokenCount=3)
    (candidate,) = grounded["candidates"]  # type: ignore[misc]
    candidate["groundingMetadata"] = {
        "webSearchQueries": ["", "one", "two"],
        "groundingChunks": [{"web": {}}, {"maps": {}}],
    }
    chunks = [chunk("x", promptTokenCount=2), grounded, grounded, chunk("", "STOP")]
    usage = metered([as_array(chunks) if array else as_events(chunks)], array=array).usage
    assert usage is not None
    assert usage.input_tokens == 3
    assert usage.units == {"web_search": 2, "google_maps": 1}


def test_a_cut_stream_gives_what_it_had() -> None:
    meter = a_meter()
    meter.feed(as_events(CHUNKS)[:-200])
    reading = meter.reading()
    assert reading.partial
    assert reading.usage == Usage(10, 35, reasoning_tokens=30)


def test_errors() -> None:
    error = {"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}
    assert read(error, status=503).error == "UNAVAILABLE"
    assert read([error], status=503).error == "UNAVAILABLE"
    reading = metered([as_events(CHUNKS[:1]), as_events([error])])
    assert reading.error == "UNAVAILABLE"
    assert reading.partial


# --- the compatible endpoint ---------------------------------------------------------------


def test_the_compatible_endpoint_speaks_the_other_dialect() -> None:
    body = {"model": "models/gemini-2.5-flash", "messages": [], "stream": True}
    raw = json.dumps(body).encode()
    facts = facts_of(raw, COMPATIBLE)
    assert facts.model == "gemini-2.5-flash"
    sent = json.loads(GEMINI.edit(facts, raw, clamp=9, inject_usage=True))
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["max_completion_tokens"] == 9
    meter = GEMINI.meter(facts, status=200, content_type="text/event-stream", inject_usage=True)
    usage = b'{"prompt_tokens":66,"completion_tokens":6,"total_tokens":100}'
    assert meter.feed(b'data: {"choices":[],"usage":' + usage + b"}\n\n") == b""
    assert meter.reading().usage == Usage(66, 34, reasoning_tokens=28)
    event = GEMINI.error_event(facts, Refusal("draining", "m"), "r")
    assert json.loads(event[6:])["error"]["code"] == "draining"


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal("bad_request", "m"), "INVALID_ARGUMENT"),
        (Refusal("invalid_api_key", "m"), "UNAUTHENTICATED"),
        (Refusal("route_not_metered", "m"), "PERMISSION_DENIED"),
        (Refusal("unknown_route", "m"), "NOT_FOUND"),
        (Refusal("rate_limited", "m"), "RESOURCE_EXHAUSTED"),
        (Refusal("ledger_unavailable", "m"), "UNAVAILABLE"),
        (Refusal("upstream_unreachable", "m"), "UNAVAILABLE"),
        (Refusal("upstream_timeout", "m"), "DEADLINE_EXCEEDED"),
        (Refusal("internal_error", "m"), "INTERNAL"),
    ],
)
def test_error_bodies(refusal: Refusal, status: str) -> None:
    error = json.loads(GEMINI.error_body(refusal, "r"))["error"]
    assert (error["code"], error["status"]) == (refusal.status, status)
    assert error["message"] == "m"
    assert error["details"][0]["reason"] == refusal.code.upper()


def test_a_final_refusal_says_so_to_clients_that_read_retry_info() -> None:
    """gemini-cli gives up at once above 300 s."""
    refusal = Refusal("budget_exceeded", "m", {"limit": "20"})
    info, retry = json.loads(GEMINI.error_body(refusal, "r"))["error"]["details"]
    assert info["metadata"] == {"limit": "20"}
    assert retry["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
    assert int(retry["retryDelay"].removesuffix("s")) > 300
    busy = Refusal("budget_busy", "m", retry_after_s=7)
    assert json.loads(GEMINI.error_body(busy, "r"))["error"]["details"][1]["retryDelay"] == "7s"


def test_error_events() -> None:
    refusal = Refusal("upstream_timeout", "m")
    event = GEMINI.error_event(facts_of(a_prompt(), STREAM, b"alt=sse"), refusal, "r")
    assert event.startswith(b"data: {")
    assert json.loads(event[6:])["error"]["status"] == "DEADLINE_EXCEEDED"
    assert GEMINI.error_event(facts_of(a_prompt(), STREAM), refusal, "r") == b""
