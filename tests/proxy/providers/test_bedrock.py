import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from proxy.errors import Refusal
from proxy.providers.base import Facts, HeaderDialect, RefusalDialect
from proxy.providers.bedrock import CONVERSE, CONVERSE_STREAM, INVOKE, INVOKE_STREAM, Bedrock

NOVA = "us.amazon.nova-lite-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
HELLO = [{"role": "user", "content": [{"text": "hello"}]}]


def facts(
    body: dict[str, Any], *, model: str = NOVA, verb: str = "converse", **options: Any
) -> Facts:
    wire = Bedrock(**options)
    path = f"/model/{model}/{verb}"
    route = wire.route("POST", path)
    assert route is not None
    return wire.facts(route, path, b"", json.dumps(body).encode())


def refused(body: dict[str, Any], **how: Any) -> str:
    with pytest.raises(Refusal) as caught:
        facts(body, **how)
    return caught.value.code


# --- routes and models ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/model/us.amazon.nova-lite-v1%3A0/converse", CONVERSE),
        ("/model/us.amazon.nova-lite-v1:0/converse-stream", CONVERSE_STREAM),
        ("/model/m/invoke/", INVOKE),
        (
            "/model/arn%3Aaws%3Abedrock%3A%3A%3Aprompt%2FP/invoke-with-response-stream",
            INVOKE_STREAM,
        ),
    ],
)
def test_routes(path: str, route: object) -> None:
    assert Bedrock().route("POST", path) is route


@pytest.mark.parametrize(
    "path", ["/model/m/invoke/..", "/model/m/Converse", "/model/converse", "/model/m/invoke;a=b"]
)
def test_a_path_that_is_not_clear_is_not_metered(path: str) -> None:
    route = Bedrock().route("POST", path)
    assert route is not None
    assert route.kind == "unmetered"


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ("us.amazon.nova-lite-v1%3A0", NOVA),
        ("us.amazon.nova-lite-v1:0", NOVA),
        ("arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2F" + NOVA, NOVA),
        ("arn:aws:bedrock:us-east-1::foundation-model/" + NOVA, NOVA),
        (PROFILE.replace("/", "%2F"), "global.x"),
        ("arn:aws:bedrock:us-east-1:1:provisioned-model/p",) * 2,
    ],
)
def test_the_model_of_a_path(named: str, model: str) -> None:
    found = facts({"messages": HELLO}, model=named, models={PROFILE: "global.x"})
    assert found.model == model


def test_a_stored_prompt_is_bounded_by_the_window() -> None:
    prompt = "arn:aws:bedrock:us-east-1:1:prompt/P1"
    body = {"promptVariables": {"a": {"text": "b"}}}
    found = facts(body, model=prompt, models={prompt: NOVA})
    assert (found.model, found.size.windowed) == (NOVA, True)


def test_an_empty_request_is_refused() -> None:
    assert refused({}) == "bad_request"


# --- converse ------------------------------------------------------------------------------


def test_converse() -> None:
    body = {
        "messages": HELLO,
        "system": [{"text": "be brief"}, {"cachePoint": {"type": "default"}}],
        "inferenceConfig": {"maxTokens": 77},
        "serviceTier": {"type": "priority"},
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]},
    }
    found = facts(body)
    size = found.size
    assert (size.output_limit, size.choices, size.service_tier) == (77, 1, "priority")
    assert (size.inline_images, size.windowed, size.tool_windows) == (0, False, 0)
    assert size.body_bytes == len(json.dumps(body))
    assert not found.stream
    assert facts(body, verb="converse-stream").stream


def test_fields_for_the_model_may_raise_limit_and_choices() -> None:
    extra = {"max_tokens": 900, "n": 3, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    limits = {"inferenceConfig": {"maxTokens": 77}, "additionalModelRequestFields": extra}
    found = facts({"messages": HELLO, **limits})
    assert (found.size.output_limit, found.size.choices) == (900, 3)
    assert found.reasoning


IMAGE = {"image": {"format": "png", "source": {"bytes": "aGk="}}}
STORED = {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}}
PDF = {"document": {"format": "pdf", "name": "d", "source": {"bytes": "aGk="}}}
PLAIN = {"document": {"format": "txt", "name": "d", "source": {"text": "hi"}}}


@pytest.mark.parametrize(
    ("block", "images", "windowed"),
    [
        ({"text": "hi"}, 0, False),
        ({"toolUse": {"toolUseId": "1", "name": "f", "input": {"image": 1}}}, 0, False),
        ({"reasoningContent": {"reasoningText": {"text": "hm"}}}, 0, False),
        (IMAGE, 1, False),
        (STORED, 0, True),
        (PDF, 0, True),
        (PLAIN, 0, False),
        ({"document": {"source": {"content": [{"text": "a"}, IMAGE]}}}, 1, False),
        ({"video": {"format": "mp4", "source": {"bytes": "aGk="}}}, 0, True),
        ({"toolResult": {"toolUseId": "1", "content": [{"json": {}}, IMAGE, PDF]}}, 1, True),
        ({"guardContent": {"text": {"text": "hi"}}}, 0, False),
        ({"guardContent": IMAGE}, 1, False),
        ({"something": {"new": 1}}, 0, True),
    ],
)
def test_content_that_the_body_does_not_bound(block: Any, images: int, windowed: bool) -> None:
    size = facts({"messages": [{"role": "user", "content": [block]}]}).size
    assert (size.inline_images, size.windowed) == (images, windowed)


@pytest.mark.parametrize(
    "more",
    [
        {"performanceConfig": {"latency": "optimized"}},
        {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
        {"additionalModelRequestFields": {"tools": [{"type": "web_search_20250305"}]}},
    ],
)
def test_what_has_a_price_of_its_own_is_refused(more: dict[str, Any]) -> None:
    assert refused({"messages": HELLO, **more}) == "route_not_metered"


# --- invoke --------------------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("model", "body", "limit", "choices"),
    [
        (CLAUDE, {"messages": MESSAGES, "max_tokens": 9}, 9, 1),
        ("anthropic.claude-v2", {"prompt": "hi", "max_tokens_to_sample": 9}, 9, 1),
        (NOVA, {"messages": HELLO, "inferenceConfig": {"max_new_tokens": 9}}, 9, 1),
        ("amazon.titan-text-express-v1", {"textGenerationConfig": {"maxTokenCount": 9}}, 9, 1),
        ("us.meta.llama3-1-8b-instruct-v1:0", {"prompt": "hi", "max_gen_len": 9}, 9, 1),
        ("mistral.mistral-7b-instruct-v0:2", {"prompt": "hi", "max_tokens": 9}, 9, 1),
        ("cohere.command-text-v14", {"max_tokens": 9, "num_generations": 4}, 9, 4),
        ("ai21.jamba-1-5-mini-v1:0", {"messages": MESSAGES, "max_tokens": 9, "n": 2}, 9, 2),
        ("openai.gpt-oss-20b-1:0", {"messages": MESSAGES, "max_completion_tokens": 9}, 9, 1),
        # a limit that this model's API does not know is none
        ("us.meta.llama3-1-8b-instruct-v1:0", {"prompt": "hi", "max_tokens": 9}, None, 1),
        (NOVA, {"messages": HELLO, "max_tokens": 9}, None, 1),
    ],
)
def test_the_limit_in_each_vendors_body(
    model: str, body: dict[str, Any], limit: int | None, choices: int
) -> None:
    size = facts(body, model=model, verb="invoke").size
    assert (size.output_limit, size.choices, size.generates) == (limit, choices, True)


@pytest.mark.parametrize(
    ("model", "body", "inputs"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "hi"}, 1),
        ("cohere.embed-v4:0", {"texts": ["a", "b", "c"], "input_type": "search_query"}, 3),
        ("us.cohere.embed-v4:0", {"inputs": [{"content": [{"type": "text", "text": "a"}]}] * 2}, 2),
        (
            "amazon.nova-2-multimodal-embeddings-v1:0",
            {"singleEmbeddingParams": {"text": {"value": "hi"}}},
            1,
        ),
    ],
)
def test_embeddings_generate_nothing(model: str, body: dict[str, Any], inputs: int) -> None:
    size = facts(body, model=model, verb="invoke").size
    assert (size.inputs, size.generates) == (inputs, False)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("cohere.embed-v4:0", {"images": ["data:image/png;base64,aGk="]}),
        ("cohere.embed-v4:0", {"inputs": [{"content": [{"type": "image_url"}]}]}),
        (
            "amazon.nova-2-multimodal-embeddings-v1:0",
            {"singleEmbeddingParams": {"image": {"a": 1}}},
        ),
        ("amazon.titan-embed-image-v1", {"inputImage": "aGk="}),
        ("amazon.nova-canvas-v1:0", {"taskType": "TEXT_IMAGE"}),
        ("cohere.rerank-v3-5:0", {"query": "q", "documents": ["d"]}),
        (PROFILE, {"messages": MESSAGES, "max_tokens": 9}),
    ],
)
def test_what_is_not_paid_by_token_is_refused(model: str, body: dict[str, Any]) -> None:
    assert refused(body, model=model.replace("/", "%2F"), verb="invoke") == "route_not_metered"


def test_a_profile_is_read_as_the_model_behind_it() -> None:
    body = {"messages": MESSAGES, "max_tokens": 9, "anthropic_version": "bedrock-2023-05-31"}
    found = facts(body, model=PROFILE, verb="invoke", models={PROFILE: CLAUDE})
    assert (found.model, found.size.output_limit) == (CLAUDE, 9)


@pytest.mark.parametrize(
    ("lines", "tier"),
    [
        ([], ""),
        ([b"X-Amzn-Bedrock-Service-Tier: Flex"], "flex"),
        ([b"x-amzn-bedrock-service-tier: flex", b"x-amzn-bedrock-service-tier: priority"], "auto"),
    ],
)
def test_the_tier_of_invoke_stands_in_a_header(lines: list[bytes], tier: str) -> None:
    wire = Bedrock()
    assert isinstance(wire, HeaderDialect)
    found = facts({"messages": HELLO}, verb="invoke")
    wire.request_headers(found, lines)
    assert found.size.service_tier == tier


def test_converse_does_not_read_its_tier_from_a_header() -> None:
    found = facts({"messages": HELLO, "serviceTier": {"type": "priority"}})
    Bedrock().request_headers(found, [b"x-amzn-bedrock-service-tier: flex"])
    assert found.size.service_tier == "priority"


def test_a_latency_with_a_price_of_its_own_is_refused() -> None:
    found = facts({"messages": HELLO}, verb="invoke")
    with pytest.raises(Refusal):
        Bedrock().request_headers(found, [b"x-amzn-bedrock-performanceconfig-latency: optimized"])


# --- clamping ------------------------------------------------------------------------------


def clamped(body: dict[str, Any], **how: Any) -> Any:
    found = facts(body, **how)
    data = json.dumps(body).encode()
    return json.loads(Bedrock().edit(found, data, clamp=2000, inject_usage=True))


def test_without_a_clamp_nothing_is_edited() -> None:
    body = b'{"messages": []}'
    found = facts({"messages": []})
    assert Bedrock().edit(found, body, clamp=None, inject_usage=True) is body


def test_a_clamp_of_converse() -> None:
    assert clamped({"messages": HELLO}) == {
        "messages": HELLO,
        "inferenceConfig": {"maxTokens": 2000},
    }
    other = {"messages": HELLO, "inferenceConfig": {"temperature": 0.5, "maxTokens": 9999}}
    assert clamped(other)["inferenceConfig"] == {"temperature": 0.5, "maxTokens": 2000}


def test_a_clamp_lowers_every_limit_and_the_budget_for_thinking() -> None:
    extra = {
        "max_tokens": 8000,
        "inferenceConfig": {"topK": 5, "max_new_tokens": 9000},
        "thinking": {"type": "enabled", "budget_tokens": 5000},
    }
    assert clamped({"messages": HELLO, "additionalModelRequestFields": extra}) == {
        "messages": HELLO,
        "additionalModelRequestFields": {
            "max_tokens": 2000,
            "inferenceConfig": {"topK": 5, "max_new_tokens": 2000},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
    }


@pytest.mark.parametrize(
    ("model", "body", "edited"),
    [
        (CLAUDE, {"messages": MESSAGES, "max_tokens": 9999}, {"max_tokens": 2000}),
        (NOVA, {"messages": HELLO}, {"inferenceConfig": {"max_new_tokens": 2000}}),
        ("amazon.titan-text-lite-v1", {"a": 1}, {"textGenerationConfig": {"maxTokenCount": 2000}}),
        ("us.meta.llama3-1-8b-instruct-v1:0", {"prompt": "a"}, {"max_gen_len": 2000}),
    ],
)
def test_a_clamp_of_invoke(model: str, body: dict[str, Any], edited: dict[str, Any]) -> None:
    assert clamped(body, model=model, verb="invoke") == body | edited


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "exception"),
    [
        ("budget_exceeded", 400, "ServiceQuotaExceededException"),
        ("cost_cap_exceeded", 400, "ServiceQuotaExceededException"),
        ("budget_busy", 429, "ThrottlingException"),
        ("invalid_api_key", 401, "AccessDeniedException"),
        ("model_not_priced", 403, "AccessDeniedException"),
        ("unknown_route", 404, "ResourceNotFoundException"),
        ("bad_request", 400, "ValidationException"),
        ("internal_error", 500, "InternalServerException"),
        ("upstream_unreachable", 502, "ServiceUnavailableException"),
        ("draining", 503, "ServiceUnavailableException"),
        ("upstream_timeout", 504, "ModelTimeoutException"),
    ],
)
def test_refusals(code: str, status: int, exception: str) -> None:
    wire, refusal = Bedrock(), Refusal(code, "because", {"limit": 1})
    assert isinstance(wire, RefusalDialect)
    refusal.status_override = wire.refusal_status(refusal, refusal.status)
    assert refusal.status == status
    assert wire.refusal_headers(refusal) == [(b"x-amzn-errortype", exception.encode())]
    assert json.loads(wire.error_body(refusal, "id")) == {
        "message": "because",
        "error": {"code": code, "details": {"limit": 1}},
    }


def test_402_stays_402() -> None:
    refusal = Refusal("budget_exceeded", "because", status_override=402)
    assert Bedrock().refusal_status(refusal, 402) == 402
    assert Bedrock().refusal_headers(refusal)[0][1] == b"ServiceQuotaExceededException"


@pytest.mark.parametrize(
    ("code", "exception"),
    [
        ("draining", "serviceUnavailableException"),
        ("upstream_timeout", "modelStreamErrorException"),
    ],
)
def test_an_error_in_a_stream_is_an_exception_message(code: str, exception: str) -> None:
    found = facts({"messages": HELLO}, verb="converse-stream")
    buffer = EventStreamBuffer()
    buffer.add_data(Bedrock().error_event(found, Refusal(code, "because"), "id"))
    (event,) = list(buffer)
    assert event.headers[":message-type"] == "exception"
    assert event.headers[":exception-type"] == exception
    assert json.loads(event.payload) == {"message": "because"}
