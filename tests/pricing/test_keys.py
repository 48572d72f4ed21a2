from decimal import Decimal

import pytest

from pricing.keys import is_price_key, scale_prices


@pytest.mark.parametrize(
    "key",
    [
        "input_cost_per_token",
        "output_cost_per_token_above_200k_tokens_priority",
        "cache_creation_input_token_cost_above_1hr",
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
        "cache_read_input_audio_token_cost",
        "output_cost_per_reasoning_token",
        "output_cost_per_image_token_batches",
        "web_search_cost_per_query",
    ],
)
def test_prices(key: str) -> None:
    assert is_price_key(key)


@pytest.mark.parametrize(
    "key", ["", "input_cost_per_tokn", "max_tokens", "input_cost_per_token_cheap", "mode"]
)
def test_everything_else(key: str) -> None:
    assert not is_price_key(key)


def test_scaling_reaches_every_price_and_nothing_else() -> None:
    entry = {
        "input_cost_per_token": "0.00000125",
        "max_tokens": 1000,
        "mode": "chat",
        "provider_specific_entry": {"us": "1.1"},
        "regional_endpoint_uplift_multiplier": "1.1",
        "search_context_cost_per_query": {"search_context_size_low": "0.01"},
        "tiered_pricing": [{"range": [0, 32000], "input_cost_per_token": "1"}, 7],
        "supports_reasoning": True,
    }
    assert scale_prices(entry, Decimal("0.875")) == entry | {
        "input_cost_per_token": "0.00000109375",
        "search_context_cost_per_query": {"search_context_size_low": "0.00875"},
        "tiered_pricing": [{"range": [0, 32000], "input_cost_per_token": "0.875"}, 7],
    }


def test_scaling_is_exact_beyond_the_usual_precision() -> None:
    digits = "0." + "123456789" * 5
    scaled = scale_prices({"cost": digits}, Decimal("0." + "9" * 20))["cost"]
    assert Decimal(scaled).as_tuple().exponent == -65
