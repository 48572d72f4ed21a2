"""Our costs against litellm's own calculators, for every entry of its map that prices tokens.

The oracle computes in floats and we do not, so equal means to a thousandth of a nano-USD. Where we
differ on purpose, a rule says why, and the rule must have been needed.
"""

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from pricing.calculator import cost
from pricing.price import Price, is_priced
from pricing.sources.files import LITELLM, installed
from pricing.sources.litellm import convert
from pricing.sources.load import load
from pricing.usage import Usage

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="needs litellm"),
]

PEAK = datetime(2026, 11, 23, 8, tzinfo=UTC)  # a Monday morning: no off-peak window is open
WEEKEND = datetime(2026, 11, 21, 8, tzinfo=UTC)


class Model(NamedTuple):
    key: str  # in the map
    raw: dict[str, Any]  # its entry there
    price: Price


@pytest.fixture(scope="module")
def litellm() -> Iterator[SimpleNamespace]:
    """The oracle, offline and silent."""
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        warnings.simplefilter("ignore")
        import litellm
        from litellm import cost_calculator, types
        from litellm.litellm_core_utils.llm_cost_calc import utils
        from litellm.llms import get_cost_for_web_search_request
        from litellm.llms.anthropic import cost_calculation as anthropic

        litellm.suppress_debug_info = True
        yield SimpleNamespace(
            cost_per_token=litellm.cost_per_token,
            generic=utils.generic_cost_per_token,
            batch=cost_calculator.batch_cost_calculator,
            anthropic=anthropic.cost_per_token,
            search=get_cost_for_web_search_request,
            types=types.utils,
        )


@pytest.fixture(scope="module")
def models() -> list[Model]:
    """Every entry that prices tokens, one of each set that has the same prices.

    Rule: a model listed both bare and with its provider's prefix is one entry of ours, with the
    keys of both; it is compared where that is the same as one of the two.
    """
    found_map = installed(LITELLM)
    text = found_map.data.decode()
    raw, table = json.loads(text), load(found_map, "2026-11-21").entries
    found: dict[str, Model] = {}
    for key, entry in json.loads(text, parse_float=Decimal).items():
        for (provider, model), alone in convert({key: entry}).items():
            if table[provider, model] == alone and is_priced(alone):
                same = json.dumps([provider, alone], sort_keys=True)
                found.setdefault(same, Model(key, raw[key], Price.compile(provider, model, alone)))
    assert len(found) > 1_000
    return list(found.values())


SHAPES = {
    "plain": Usage(1_234, 567),
    "cached": Usage(5_000, 10, cache_read_tokens=4_096),
    "written": Usage(5_000, 10, cache_write_tokens=3_000),
    "written 1h": Usage(
        5_000, 10, cache_read_tokens=1_000, cache_write_tokens=3_000, cache_write_1h_tokens=2_000
    ),
    "reasoning": Usage(100, 900, reasoning_tokens=700),
    "audio": Usage(
        1_000,
        900,
        input_audio_tokens=600,
        output_audio_tokens=500,
        cache_read_tokens=200,
        cache_read_audio_tokens=100,
    ),
    "images": Usage(
        3_000, 1_300, input_image_tokens=2_000, output_image_tokens=1_290, input_video_tokens=500
    ),
    "cached images": Usage(
        3_000, 9, input_image_tokens=2_000, cache_read_tokens=1_500, cache_read_image_tokens=1_000
    ),
}
LONG_PROMPTS = (32_001, 100_000, 100_001, 128_001, 200_000, 200_001, 256_001, 272_000, 272_001)
LONG_SHAPES = {
    f"{tokens} tokens": Usage(
        tokens,
        10_000,
        cache_read_tokens=20_000,
        cache_write_tokens=2_000,
        cache_write_1h_tokens=500,
        reasoning_tokens=300,
    )
    for tokens in (*LONG_PROMPTS, 512_001)
}


def theirs(usage: Usage, types: Any) -> Any:
    details = types.PromptTokensDetailsWrapper(
        cached_tokens=usage.cache_read_tokens,
        audio_tokens=usage.input_audio_tokens,
        image_tokens=usage.input_image_tokens,
        video_tokens=usage.input_video_tokens,
        cache_creation_tokens=usage.cache_write_tokens,
        cached_tokens_details={
            "audio_tokens": usage.cache_read_audio_tokens,
            "image_tokens": usage.cache_read_image_tokens,
        },
        cache_creation_token_details=types.CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=usage.cache_write_tokens - usage.cache_write_1h_tokens,
            ephemeral_1h_input_tokens=usage.cache_write_1h_tokens,
        )
        if usage.cache_write_tokens
        else None,
    )
    return types.Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=details,
        completion_tokens_details=types.CompletionTokensDetailsWrapper(
            reasoning_tokens=usage.reasoning_tokens,
            audio_tokens=usage.output_audio_tokens,
            image_tokens=usage.output_image_tokens,
        ),
        inference_geo=usage.inference_geo or None,
        speed=usage.speed or None,
    )


def as_tier(usage: Usage, tier: str) -> Usage:
    return Usage.from_dict(usage.as_dict() | {"service_tier": tier})


def exact_nano(usage: Usage, price: Price, at: datetime = PEAK) -> float:
    """Rule: litellm leaves out the fee per request that some Perplexity models have."""
    items = cost(usage, price, at_s=at.timestamp()).items
    return sum(count * atto for name, count, atto in items if name != "request") / 10**9


def assert_equal(usd: float, usage: Usage, model: Model, at: datetime = PEAK) -> None:
    nano = exact_nano(usage, model.price, at)
    assert abs(usd * 10**9 - nano) < 0.001, (model.key, usage, usd * 10**9, nano)


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


def test_by_name(litellm: SimpleNamespace, models: list[Model]) -> None:
    """The whole way, from a model's name. Rules: off-peak prices go by the wall clock there;
    Perplexity's calculator knows no cached prompts and keeps a second price of `perplexity/sonar`;
    some legacy completion models are not found by their own name."""
    compared = 0
    for model in models:
        if "off_peak_pricing" in model.raw or model.key == "perplexity/perplexity/sonar":
            continue
        for name in ("plain", "cached", "reasoning"):
            if name == "cached" and model.price.provider == "perplexity":
                continue
            try:
                usd = litellm.cost_per_token(
                    model=model.key,
                    custom_llm_provider=model.price.provider,
                    usage_object=theirs(SHAPES[name], litellm.types),
                )
            except Exception as error:
                assert "ModelNotMapped" in type(error).__name__, model.key  # noqa: PT017
                continue
            assert_equal(sum(usd), SHAPES[name], model)
            compared += 1
    assert compared > 2 * len(models)


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
