"""Our costs against litellm's own calculators (`oracle`); a rule that is listed must be needed."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from types import SimpleNamespace

import pytest

from pricing.usage import Usage
from tests.pricing.oracle import (
    AVAILABLE,
    LONG_SHAPES,
    PEAK,
    RULES,
    SHAPES,
    TOLERANCE_NANO,
    WEEKEND,
    Model,
    compare,
    distinct_models,
    exact_nano,
    oracle,
    theirs,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not AVAILABLE, reason="needs litellm"),
]


@pytest.fixture(scope="module")
def litellm() -> Iterator[SimpleNamespace]:
    with oracle() as found:
        yield found


@pytest.fixture(scope="module")
def models() -> list[Model]:
    found = distinct_models()
    assert len(found) > 1_000
    return found


def as_tier(usage: Usage, tier: str) -> Usage:
    return Usage.from_dict(usage.as_dict() | {"service_tier": tier})


def assert_equal(usd: float, usage: Usage, model: Model, at: datetime = PEAK) -> None:
    nano = exact_nano(usage, model.price, at.timestamp())
    assert abs(usd * 10**9 - nano) < TOLERANCE_NANO, (model.key, usage, usd * 10**9, nano)


def test_the_whole_map_by_name(litellm: SimpleNamespace) -> None:
    """Every priced entry: equal, or explained by a rule. `make oracle` takes every shape."""
    rules: Counter[str] = Counter()
    shapes = {name: SHAPES[name] for name in ("plain", "cached images")}
    for each in compare(litellm, shapes):
        assert each.rule != "?", each
        rules[each.rule] += 1
    assert rules[""] > 6_000
    assert rules.keys() == {"", *RULES}


def has_own_cached_image_price(model: Model) -> bool:
    """Rule: litellm's calculator bills cached image tokens as cached text even where the entry has
    a price of their own, which we take (gpt-image and gpt-realtime)."""
    return "cache_read_input_image_token_cost" in model.price.entry


@pytest.mark.parametrize("tier", ["", "flex", "priority", "ultrafast"])
def test_every_shape_at_every_model(
    litellm: SimpleNamespace, models: list[Model], tier: str
) -> None:
    excused = 0
    shapes = {name: theirs(usage, litellm.types) for name, usage in (SHAPES | LONG_SHAPES).items()}
    for model in models:
        sized = any("_above_" in key or key == "tiered_pricing" for key in model.raw)
        if tier and not any(f"_{tier}" in key for key in model.raw):
            continue
        for name, usage in (SHAPES | LONG_SHAPES if sized else SHAPES).items():
            if name == "cached images" and has_own_cached_image_price(model):
                excused += 1
                continue
            usd = litellm.generic(
                model=model.price.model,
                usage=shapes[name],
                custom_llm_provider=model.raw["litellm_provider"],
                service_tier=tier or None,
                model_info=model.raw,
                current_time=PEAK,
            )
            assert_equal(sum(usd), as_tier(usage, tier), model)
    assert excused or tier


@pytest.mark.parametrize("at", [PEAK, WEEKEND])
def test_off_peak(litellm: SimpleNamespace, models: list[Model], at: datetime) -> None:
    found = [model for model in models if "off_peak_pricing" in model.raw]
    assert found
    for model in found:
        for usage in SHAPES.values():
            usd = litellm.generic(
                model=model.price.model,
                usage=theirs(usage, litellm.types),
                custom_llm_provider=model.price.provider,
                model_info=model.raw,
                current_time=at,
            )
            assert_equal(sum(usd), usage, model, at)


def test_regions_and_speed_at_anthropic(litellm: SimpleNamespace, models: list[Model]) -> None:
    found = [
        m for m in models if m.price.provider == "anthropic" and "provider_specific_entry" in m.raw
    ]
    assert any("fast" in model.raw["provider_specific_entry"] for model in found)
    for model in found:
        for geo in ("us", "global", "not_available", ""):
            for speed in ("fast", ""):
                said = SHAPES["written 1h"].as_dict() | {"inference_geo": geo, "speed": speed}
                usage = Usage.from_dict(said)
                block = theirs(usage, litellm.types)
                usd = litellm.anthropic(model.price.model, block, model_info=model.raw)
                assert_equal(sum(usd), usage, model)


@pytest.mark.parametrize(
    ("multiplier", "option", "geo"),
    [
        ("regional_processing_uplift_multiplier_eu", {"data_residency": "eu"}, "eu"),
        ("regional_processing_uplift_multiplier_us", {"data_residency": "us"}, "us"),
        ("regional_endpoint_uplift_multiplier", {"vertex_location": "us-east5"}, "us-east5"),
        ("regional_endpoint_uplift_multiplier", {"vertex_location": "global"}, "global"),
    ],
)
def test_regional_uplifts(
    litellm: SimpleNamespace,
    models: list[Model],
    multiplier: str,
    option: dict[str, str],
    geo: str,
) -> None:
    found = [model for model in models if multiplier in model.raw]
    assert found
    for model in found:
        usd = litellm.generic(
            model=model.price.model,
            usage=theirs(SHAPES["cached"], litellm.types),
            custom_llm_provider=model.price.provider,
            model_info=model.raw,
            **option,
        )
        usage = Usage.from_dict(SHAPES["cached"].as_dict() | {"inference_geo": geo})
        assert_equal(sum(usd), usage, model)


BATCH_KEYS: dict[str, Callable[[Usage], int]] = {
    "cache_read_input_token_cost": lambda usage: usage.cache_read_tokens,
    "input_cost_per_audio_token": lambda usage: usage.input_audio_tokens,
    "input_cost_per_image_token": lambda usage: usage.input_image_tokens,
    "output_cost_per_image_token": lambda usage: usage.output_image_tokens,
}


def batch_key_missing(model: Model, usage: Usage) -> bool:
    """Rule: a batch price that is missing is the standard one with us, and with litellm's batch
    calculator the batch price of plain tokens; it also knows neither audio and reasoning output,
    nor cache writes for an hour, nor, without keys of their own, larger context sizes."""
    raw = model.raw
    if "input_cost_per_token_batches" not in raw or "output_cost_per_token_batches" not in raw:
        return True
    return any(
        used(usage) and raw.get(f"{key}_batches") is None for key, used in BATCH_KEYS.items()
    )


def test_batch_prices(litellm: SimpleNamespace, models: list[Model]) -> None:
    compared = 0
    for model in models:
        for usage in (SHAPES["plain"], SHAPES["cached"], Usage(900, 9, input_image_tokens=500)):
            if batch_key_missing(model, usage):
                continue
            usd = litellm.batch(
                usage=theirs(usage, litellm.types),
                model=model.price.model,
                custom_llm_provider=model.price.provider,
                model_info=model.raw,
            )
            assert_equal(sum(usd), as_tier(usage, "batch"), model)
            compared += 1
    assert compared > 200


def test_web_searches(litellm: SimpleNamespace, models: list[Model]) -> None:
    """Rule: where the map has no price of a search, ours is the one written into the table."""
    compared = 0
    for model in models:
        provider = model.price.provider
        if provider not in ("anthropic", "gemini", "vertex_ai", "groq"):
            continue
        if not model.raw.get("search_context_cost_per_query"):
            continue
        server_tools = litellm.types.ServerToolUse(web_search_requests=3)
        block = litellm.types.Usage(server_tool_use=server_tools)
        usd = litellm.search(provider, block, model.raw | {"key": model.key})
        assert_equal(usd, Usage(units={"web_search": 3}), model)
        compared += 1
    assert compared > 30
