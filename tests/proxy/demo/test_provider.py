"""The simulated provider against the official SDKs directly, without the proxy between."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from proxy.demo.provider import LIST_PRICES, SimulatedProvider
from proxy.demo.serving import served

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
genai = pytest.importorskip("google.genai")

KEY = "sk-upstream"
PROMPT = "Why is the search page slow since the last release?"


@pytest.fixture
def provider() -> SimulatedProvider:
    return SimulatedProvider(KEY, seed=7)


@pytest.fixture
def url(provider: SimulatedProvider) -> Iterator[str]:
    with served(provider) as url:
        yield url


def usd(model: str, input: int, output: int, cached: int = 0, written: int = 0) -> Decimal:
    price = LIST_PRICES[model]
    fresh = (input - cached - written) * price.input
    return (
        fresh + cached * price.cache_read + written * price.cache_write + output * price.output
    ) / 1_000_000


@pytest.fixture
def oai(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def ant(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def gem(url: str) -> Iterator[genai.Client]:
    client = genai.Client(api_key=KEY, http_options={"base_url": url})
    yield client
    client.close()


def test_openai_chat(oai: openai.OpenAI, provider: SimulatedProvider) -> None:
    system = {"role": "system", "content": "You are terse. " * 30}
    for cached in (0, 113):
        reply = oai.chat.completions.create(
            model="gpt-5.2", messages=[system, {"role": "user", "content": PROMPT}]
        )
        usage = reply.usage
        assert len(reply.choices[0].message.content) > 100
        assert reply.choices[0].finish_reason == "stop"
        assert usage.prompt_tokens_details.cached_tokens == cached
        assert usage.completion_tokens_details.reasoning_tokens > 0
        expected = usd("gpt-5.2", usage.prompt_tokens, usage.completion_tokens, cached)
        assert provider.bills[-1].usd == expected


def test_openai_chat_stream(oai: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    whole = oai.chat.completions.create(model="gpt-5-mini", messages=messages)
    for options in ({}, {"stream_options": {"include_usage": True}}):
        chunks = list(
            oai.chat.completions.create(
                model="gpt-5-mini", messages=messages, stream=True, **options
            )
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert usages == ([whole.usage] if options else [])


def test_openai_output_limit(oai: openai.OpenAI) -> None:
    reply = oai.chat.completions.create(
        model="gpt-5-mini",
        messages=[{"role": "user", "content": PROMPT}],
        max_completion_tokens=210,
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 210


def test_openai_responses(oai: openai.OpenAI, provider: SimulatedProvider) -> None:
    reply = oai.responses.create(model="gpt-5-mini", input=PROMPT, instructions="Be brief.")
    assert reply.status == "completed"
    events = list(
        oai.responses.create(
            model="gpt-5-mini",
            input=[{"role": "user", "content": PROMPT}],
            instructions="Be brief.",
            stream=True,
        )
    )
    assert events[0].type == "response.created"
    final = events[-1].response
    assert events[-1].type == "response.completed"
    assert final.output_text == reply.output_text
    assert "".join(e.delta for e in events if e.type.endswith("delta")) == reply.output_text
    assert final.usage.input_tokens_details.cached_tokens == 3
    counts = (final.usage.input_tokens, final.usage.output_tokens)
    assert provider.bills[-1].usd == usd("gpt-5-mini", *counts, cached=3)


def test_openai_embeddings(oai: openai.OpenAI, provider: SimulatedProvider) -> None:
    reply = oai.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    plain = oai.embeddings.create(
        model="text-embedding-3-small", input=["one", "two"], encoding_format="float"
    )
    assert [len(entry.embedding) for entry in reply.data] == [64, 64]
    assert reply.data[0].embedding == pytest.approx(plain.data[0].embedding, rel=1e-6)
    assert provider.bills[-1].usd == usd("text-embedding-3-small", reply.usage.prompt_tokens, 0)


def test_anthropic(ant: anthropic.Anthropic, provider: SimulatedProvider) -> None:
    system = [
        {"type": "text", "text": "House style. " * 40, "cache_control": {"type": "ephemeral"}}
    ]
    request = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 2000,
        "system": system,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    first = ant.messages.create(**request)
    assert first.usage.cache_creation_input_tokens == 130
    assert first.stop_reason == "end_turn"
    with ant.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == first.content[0].text == last.content[0].text
    assert last.usage.cache_read_input_tokens == 130
    assert last.usage.output_tokens == first.usage.output_tokens
    total = first.usage.input_tokens + 130
    output = first.usage.output_tokens
    assert [bill.usd for bill in provider.bills] == [
        usd("claude-sonnet-4-6", total, output, written=130),
        usd("claude-sonnet-4-6", total, output, cached=130),
    ]


def test_anthropic_output_limit(ant: anthropic.Anthropic) -> None:
    reply = ant.messages.create(
        model="claude-haiku-4-5", max_tokens=5, messages=[{"role": "user", "content": PROMPT}]
    )
    assert (reply.stop_reason, reply.usage.output_tokens) == ("max_tokens", 5)


def test_gemini(gem: genai.Client, provider: SimulatedProvider) -> None:
    reply = gem.models.generate_content(model="gemini-2.5-flash", contents=PROMPT)
    usage = reply.usage_metadata
    chunks = list(gem.models.generate_content_stream(model="gemini-2.5-flash", contents=PROMPT))
    assert "".join(chunk.text for chunk in chunks) == reply.text
    assert chunks[-1].usage_metadata == usage
    assert chunks[0].usage_metadata.candidates_token_count == 20
    output = usage.candidates_token_count + usage.thoughts_token_count
    assert usage.total_token_count == usage.prompt_token_count + output
    expected = usd("gemini-2.5-flash", usage.prompt_token_count, output)
    assert [bill.usd for bill in provider.bills] == [expected, expected]


def test_gemini_stream_as_array(url: str) -> None:
    import httpx

    reply = httpx.post(
        f"{url}/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        headers={"x-goog-api-key": KEY},
        json={"contents": [{"parts": [{"text": PROMPT}]}]},
    )
    chunks = reply.json()
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    tokens = chunks[-1]["usageMetadata"]["candidatesTokenCount"]
    assert len(chunks) == -(-tokens // 20)


def test_models(oai: openai.OpenAI, ant: anthropic.Anthropic, gem: genai.Client) -> None:
    assert "gpt-5.2" in [model.id for model in oai.models.list()]
    assert "models/gemini-2.5-flash" in [model.name for model in gem.models.list()]


def test_wrong_key_is_refused_in_each_shape(url: str, provider: SimulatedProvider) -> None:
    messages = [{"role": "user", "content": "x"}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="gpt-5.2", messages=messages)
        assert caught.value.code == "invalid_api_key"
    with (
        anthropic.Anthropic(base_url=url, api_key="x") as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=messages)
    client = genai.Client(api_key="x", http_options={"base_url": url})
    with pytest.raises(genai.errors.ClientError, match="UNAUTHENTICATED"):
        client.models.generate_content(model="gemini-2.5-flash", contents="x")
    client.close()
    assert provider.rejected == 3
    assert provider.billed_usd == 0


def test_unknown_model_and_bad_body(oai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        oai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError):
        oai.post("/chat/completions", body={"model": "gpt-5.2"}, cast_to=object)


def test_same_seed_same_answers(url: str) -> None:
    def answers(seed: int) -> list[Decimal]:
        provider = SimulatedProvider(KEY, seed=seed)
        with served(provider) as own, openai.OpenAI(base_url=f"{own}/v1", api_key=KEY) as client:
            client.responses.create(model="gpt-5.2", input=PROMPT)
        return [bill.usd for bill in provider.bills]

    assert answers(1) == answers(1) != answers(2)
