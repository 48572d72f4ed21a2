"""What OpenAI's image generation tool can cost: held on top, at the image model's own prices."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import PriceBook
from pricing.calculator import ceiling, cost
from pricing.table import TABLES_DIR, PriceTable, list_tables
from pricing.usage import RequestSize, Usage
from proxy.admission import Terms, find_ceiling, with_tools
from proxy.errors import Refusal
from proxy.providers.base import Facts
from proxy.providers.image_tool import DEFAULT_MODELS
from proxy.providers.openai import OpenAI
from tests.factories import a_budget

BOOK = PriceBook(PriceTable.open(list_tables(TABLES_DIR)[-1].path))
CHAT = BOOK.quote("openai", "gpt-5-mini")
TOOL = {"type": "image_generation"}
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


def facts_of(tools: list[Any], content: Any = "Draw a cat.", **body: Any) -> Facts:
    request = {"model": "gpt-5-mini", "input": [{"role": "user", "content": content}]}
    data = json.dumps(request | {"tools": tools} | body).encode()
    dialect = OpenAI()
    route = dialect.route("POST", "/v1/responses")
    assert route is not None
    return dialect.facts(route, "/v1/responses", b"", data)


def quote(model: str) -> Any:
    price = BOOK.quote("openai", model)
    if price is None:
        raise Refusal("model_not_priced", f"{model} has no price")
    return price


def bound_of(facts: Facts) -> Any:
    assert CHAT is not None
    return find_ceiling(facts, with_tools(facts, Terms.of(CHAT, (a_budget(),)), quote))


def test_without_the_tool_nothing_is_added() -> None:
    facts = facts_of([{"type": "web_search"}], max_output_tokens=100)
    assert facts.tool_models == ()
    assert bound_of(facts).tools_nano == 0


def test_one_image_worked_by_hand() -> None:
    """gpt-image-1-mini: $2.50 for a million image tokens in, the dearest of its inputs, $8 out.
    One call: a prompt of 32,000 + 2,048 tokens, one image of 8,500, 6,540 tokens made. The table
    has a price for the image itself, too, at most $0.015: a reply is billed at one of the two."""
    facts = facts_of(
        [TOOL | {"model": "gpt-image-1-mini"}],
        [{"type": "input_text", "text": "Draw."}, PICTURE],
        max_output_tokens=100,
        max_tool_calls=1,
    )
    bound = bound_of(facts)
    # what providers add to a request is added once more
    tokens_in = 32_000 + 2_048 + 2_048 + 8_500
    assert bound.tools_nano == tokens_in * 2_500 + 6_540 * 8_000 + 15_000_000
    assert bound.usage.passes == (
        ("gpt-image-1-mini", Usage(tokens_in, 6_540, units={"images": 1})),
    )
    alone = ceiling(facts.size, quote("gpt-5-mini"))
    assert (bound.nano, bound.tokens) == (
        alone.nano + bound.tools_nano,
        alone.tokens + tokens_in + 6_540,
    )


def test_every_call_may_see_the_images_made_before() -> None:
    """0 + 1 + ... + 9 images for ten calls, and at most 16 for each."""
    (tool,) = facts_of([TOOL]).tool_models
    assert tool.size.units == {"images": 10}
    assert tool.size.inline_images == 45
    (tool,) = facts_of([TOOL], max_tool_calls=20).tool_models
    assert tool.size.inline_images == sum(range(16)) + 4 * 16
    (tool,) = facts_of([TOOL], previous_response_id="resp_1", max_tool_calls=2).tool_models
    assert tool.size.inline_images == 2 * 16
    assert facts_of([TOOL], max_tool_calls=0).tool_models == ()


def test_a_tool_without_a_model_is_held_at_the_dearest() -> None:
    bound = bound_of(facts_of([TOOL], max_tool_calls=1))
    named = [
        bound_of(facts_of([TOOL | {"model": model}], max_tool_calls=1)).tools_nano
        for model in DEFAULT_MODELS
    ]
    assert bound.tools_nano == max(named) > min(named)
    two = facts_of([TOOL | {"model": "gpt-image-1-mini"}, TOOL], max_tool_calls=1)
    assert bound_of(two).tools_nano == max(named)


def test_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(Refusal, match="gpt-image-99"):
        bound_of(facts_of([TOOL | {"model": "gpt-image-99"}]))


IMAGE_MODELS = sorted(
    model
    for provider, model, entry in PriceTable.open(list_tables(TABLES_DIR)[-1].path).items()
    if provider == "openai" and "gpt-image" in model and "/" not in model
)


@given(
    model=st.sampled_from(IMAGE_MODELS),
    calls=st.integers(1, 12),
    pictures=st.integers(0, 20),
    share=st.floats(0, 1),
    seen=st.floats(0, 1),
)
def test_no_drawing_costs_more_than_is_held(
    model: str, calls: int, pictures: int, share: float, seen: float
) -> None:
    """Every call takes the longest prompt and all images it can, and makes the largest."""
    content = [{"type": "input_text", "text": "Draw."}, *[PICTURE] * pictures]
    facts = facts_of([TOOL | {"model": model}], content, max_output_tokens=99, max_tool_calls=calls)
    price = quote(model)
    images = sum(min(pictures + made, 16) for made in range(calls)) * price.image_tokens_max
    used_images, text = int(images * seen), int(calls * 32_000 * share)
    drawn = Usage(
        text + used_images,
        calls * price.output_image_tokens_max,
        input_image_tokens=used_images,
        output_image_tokens=calls * price.output_image_tokens_max,
    )
    usage = Usage(facts.size.body_bytes, 99, passes=((model, drawn),))
    bound = bound_of(facts)
    assert cost(usage, quote("gpt-5-mini"), quote).nano <= bound.nano
    assert usage.total_tokens <= bound.tokens


def test_the_size_of_a_request_is_not_changed() -> None:
    facts = facts_of([TOOL], max_tool_calls=1)
    plain = facts_of([{"type": "other"}], max_tool_calls=1)
    assert facts.size.units == plain.size.units == {}
    assert facts.size.inline_images == 0
    assert isinstance(facts.tool_models[0].size, RequestSize)
