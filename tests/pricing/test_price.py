import json

import pytest

from pricing.errors import PricingError
from pricing.price import Price, is_priced
from pricing.rates import TIERS, rates_for
from pricing.tiers import normal_tier, reachable_tiers
from pricing.usage import Usage
from tests.factories import a_price, an_entry

MICRO = 10**12


def input_rate(price: Price, **usage: str) -> int:
    return rates_for(price.bands(Usage(**usage)), 1).input  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("", ""),
        ("default", ""),
        ("on_demand", ""),
        ("ON_DEMAND", ""),
        ("standard", ""),
        ("nobody_knows", ""),
        ("flex", "flex"),
        ("ON_DEMAND_FLEX", "flex"),
        ("priority", "priority"),
        ("ON_DEMAND_PRIORITY", "priority"),
        ("fast", "priority"),
        ("batch", "batch"),
        ("ultrafast", "ultrafast"),
    ],
)
def test_tiers_as_replies_name_them(name: str, tier: str) -> None:
    assert normal_tier(name) == tier


@pytest.mark.parametrize(
    ("provider", "requested", "tiers"),
    [
        ("openai", "", {"", "flex", "priority"}),  # the project's setting decides
        ("openai", "auto", {"", "flex", "priority"}),
        ("gemini", "", {""}),
        ("gemini", "auto", {"", "flex", "priority"}),
        ("openai", "default", {""}),
        ("anthropic", "standard_only", {""}),
        ("openai", "priority", {"", "priority"}),  # may be denied
        ("openai", "flex", {"", "flex"}),
        ("openai", "warp", set(TIERS)),
    ],
)
def test_tiers_a_request_can_end_up_in(provider: str, requested: str, tiers: set[str]) -> None:
    assert set(reachable_tiers(provider, requested)) == tiers


def test_regions_and_speed_multiply() -> None:
    # Anthropic: `inference_geo: us` is 1.1 times every token price, fast mode its own multiple.
    price = a_price(provider_specific_entry={"us": "1.1", "fast": "2"})
    assert input_rate(price) == MICRO
    assert input_rate(price, inference_geo="global") == MICRO
    assert input_rate(price, inference_geo="not_available") == MICRO
    assert input_rate(price, inference_geo="eu") == MICRO
    assert input_rate(price, inference_geo="US") == 1_100_000_000_000
    assert input_rate(price, speed="fast") == 2 * MICRO
    assert input_rate(price, speed="fast", inference_geo="us") == 2_200_000_000_000
    assert input_rate(price, speed="standard") == MICRO
    assert input_rate(price, inference_geo="fast") == MICRO
    assert input_rate(a_price(), speed="fast") == MICRO


def test_uplifts_of_regional_hosts_and_locations() -> None:
    # litellm: OpenAI's hosts with data residency cost 1.1 times for newer models, Vertex AI's
    # regional endpoints likewise; the global one is the list price.
    host = a_price(regional_processing_uplift_multiplier_eu="1.1")
    assert input_rate(host, inference_geo="eu") == 1_100_000_000_000
    assert input_rate(host, inference_geo="us") == MICRO
    location = a_price(regional_endpoint_uplift_multiplier="1.1")
    assert input_rate(location, inference_geo="europe-west1") == 1_100_000_000_000
    assert input_rate(location, inference_geo="global") == MICRO


def test_what_a_price_says_of_its_model() -> None:
    price = a_price("xai", "grok", supports_reasoning=True)
    assert (price.key, price.provider, price.model) == ("xai/grok", "xai", "grok")
    assert (price.max_input_tokens, price.max_output_tokens) == (100_000, 8_000)
    assert price.supports_reasoning
    assert not price.unpriced
    assert not a_price().supports_reasoning


def test_old_entries_have_one_maximum() -> None:
    price = Price.compile("p", "m", {"input_cost_per_token": "1", "max_tokens": 512})
    assert (price.max_input_tokens, price.max_output_tokens) == (None, 512)


@pytest.mark.parametrize("mode", ["embedding", "rerank", "moderation"])
def test_some_modes_generate_nothing(mode: str) -> None:
    assert not a_price(mode=mode).generates
    assert a_price().generates


@pytest.mark.parametrize(
    ("provider", "model", "entry", "searches"),
    [
        ("gemini", "g", {}, 1),
        ("gemini", "g", {"web_search_billing_unit": "per_query"}, 3),
        ("vertex_ai", "g", {}, 1),
        ("vertex_ai", "claude-9", {}, 3),
        ("openai", "g", {}, 3),
    ],
)
def test_searches_are_billed_each_or_once_per_prompt(
    provider: str, model: str, entry: dict[str, object], searches: int
) -> None:
    # Google: $35 per 1,000 grounded prompts up to Gemini 2.5, $14 per 1,000 queries since 3;
    # OpenAI and Anthropic: $10 per 1,000 searches.
    price = a_price(provider, model, **entry)
    assert price.billable("web_search", 3) == searches
    assert price.billable("google_maps@any", 3) == searches
    assert price.billable("file_search", 3) == 3
    assert price.billable("web_search", 0) == price.billable("web_search", -1) == 0


def test_an_entry_from_json_compiles_to_the_same_price() -> None:
    price = a_price(provider_specific_entry={"us": "1.1"}, tiered_pricing=[])
    again = Price.compile(price.provider, price.model, json.loads(json.dumps(price.entry)))
    assert again.plain == price.plain
    assert again.entry == price.entry


def test_flat_and_free_prices() -> None:
    flat = Price.flat("p", "m", 5 * 10**12 + 1)
    assert set(flat.plain[0][1]) == {5 * 10**12 + 1}
    assert flat.unpriced
    assert Price.compile("p", "m", flat.entry).plain == flat.plain
    free = Price.free("p", "m")
    assert set(free.plain[0][1]) == {0}
    assert not free.unpriced


@pytest.mark.parametrize(
    "entry",
    [
        {"input_cost_per_token": "-1"},
        {"max_output_tokens": "many"},
        {"max_output_tokens": True},
        {"max_input_tokens": -5},
        {"tiered_pricing": [{"input_cost_per_token": "1"}]},
        {"tiered_pricing": [{"input_cost_per_token": "1", "range": ["a"]}]},
        {"provider_specific_entry": {"us": "more"}},
        {"off_peak_pricing": {"hours_utc": "noon"}},
        {"off_peak_pricing": {"hours_utc": [], "weekday_timezone": "Mars/Olympus"}},
    ],
)
def test_a_malformed_entry_is_refused_by_name(entry: dict[str, object]) -> None:
    with pytest.raises(PricingError, match=r"^acme/model-1: "):
        a_price("acme", **entry)


@pytest.mark.parametrize(
    ("entry", "priced"),
    [
        (an_entry(), True),
        (an_entry(input_cost_per_token="0"), True),
        (an_entry(input_cost_per_token="0", output_cost_per_token="0"), False),
        ({"input_cost_per_token": "1", "mode": "chat"}, False),
        ({"input_cost_per_token": "1", "output_cost_per_image_token": "1"}, True),
        ({"output_cost_per_token": "1", "input_cost_per_second": "1"}, False),
        ({"tiered_pricing": [{"input_cost_per_token": "1", "range": [0, 9]}]}, True),
        ({"tiered_pricing": [{"input_cost_per_query": "1"}], "mode": "search"}, False),
        ({"input_cost_per_token": "1", "mode": "embedding"}, True),
        ({"input_cost_per_token": "0", "mode": "embedding"}, False),
        ({"input_cost_per_token": "0", "mode": "moderation"}, True),
        ({"output_cost_per_image": "0.04", "mode": "image_generation"}, True),
        ({"output_cost_per_image": "0", "mode": "image_generation"}, False),
        ({"output_cost_per_image@hd/1024x1024": "0.08", "mode": "image_generation"}, True),
        ({"input_cost_per_second": "0.0001", "mode": "audio_transcription"}, True),
        ({"input_cost_per_query": "0.002", "input_cost_per_token": "0", "mode": "rerank"}, True),
        ({"output_cost_per_image": "0.04"}, True),  # as an overlay declares it
        ({"input_cost_per_second": "0.0001", "mode": "chat"}, False),  # provisioned time
        ({"code_interpreter_cost_per_session": "0.03", "mode": "image_edit"}, False),
    ],
)
def test_which_entries_have_a_price(entry: dict[str, object], priced: bool) -> None:
    assert is_priced(entry) is priced
