"""Prices of tokens by size, service tier and kind: each rule as arithmetic, with its source.
"litellm" is its `litellm_core_utils/llm_cost_calc/utils.py`, which `test_oracle.py` runs beside us.
"""

from fractions import Fraction

import pytest

from pricing.errors import PricingError
from pricing.rates import Rates, atto_of, compile_bands, rates_for

MICRO = 10**12  # atto-USD of a USD per million tokens

SIZED = {
    "input_cost_per_token": "0.000001",
    "input_cost_per_token_above_200k_tokens": "0.000002",
    "input_cost_per_token_above_200k_tokens_priority": "0.000004",
    "input_cost_per_token_priority": "0.0000018",
    "output_cost_per_token": "0.00001",
    "output_cost_per_token_above_200k_tokens": "0.000015",
    "cache_read_input_token_cost": "0.0000001",
    "cache_creation_input_token_cost": "0.00000125",
    "cache_creation_input_token_cost_above_1hr": "0.000002",
    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": "0.000004",
}


def rates(entry: dict[str, object], tokens: int = 1, tier: str = "", provider: str = "p") -> Rates:
    return rates_for(compile_bands(provider, entry, tier), tokens)


@pytest.mark.parametrize(("tokens", "usd_per_m"), [(1, 1), (200_000, 1), (200_001, 2)])
def test_the_whole_request_moves_to_a_size_once_it_is_exceeded(tokens: int, usd_per_m: int) -> None:
    # Gemini 2.5 Pro has one price up to 200k tokens of prompt and one above. litellm:
    # _prompt_exceeds_threshold, for every kind of token of the request.
    assert rates(SIZED, tokens).input == usd_per_m * MICRO


def test_xai_moves_once_it_is_reached() -> None:
    # litellm: _uses_inclusive_token_thresholds.
    assert rates(SIZED, 199_999, provider="xai").input == MICRO
    assert rates(SIZED, 200_000, provider="xai").input == 2 * MICRO


def test_a_size_replaces_what_it_prices_and_keeps_the_rest() -> None:
    # Anthropic, Sonnet above 200k: cache writes and reads are multiples of the larger input price.
    above = rates(SIZED, 200_001)
    assert above.output == 15 * MICRO
    assert above.cache_read == MICRO // 10
    assert above.cache_write == 1_250_000_000_000
    assert above.cache_write_1h == 4 * MICRO


def test_the_highest_size_exceeded_wins() -> None:
    # litellm: _get_token_base_cost goes through the sizes from the largest down.
    entry = SIZED | {"input_cost_per_token_above_128k_tokens": "0.0000015"}
    steps = [rates(entry, tokens).input for tokens in (128_000, 128_001, 200_001)]
    assert steps == [MICRO, 1_500_000_000_000, 2 * MICRO]


def test_sizes_without_k_are_plain_tokens() -> None:
    entry = SIZED | {"input_cost_per_token_above_500_tokens": "0.0000015"}
    assert [over for over, _ in compile_bands("p", entry, "")] == [-1, 500, 200_000]


def test_a_tier_falls_back_to_the_standard_key_of_the_same_size() -> None:
    # litellm: get_service_tier_cost_key, then the key without its suffix.
    assert rates(SIZED, 1, "priority").input == 1_800_000_000_000
    assert rates(SIZED, 1, "priority").output == 10 * MICRO
    assert rates(SIZED, 200_001, "priority").input == 4 * MICRO
    assert rates(SIZED, 200_001, "priority").output == 15 * MICRO
    assert rates(SIZED, 1, "batch") == rates(SIZED, 1)


def test_missing_prices_are_those_of_plain_tokens() -> None:
    # What the cached tokens of a model without a price for them cost: litellm and the recorded
    # traffic both say the price of input (Azure-hosted Grok).
    only = rates({"input_cost_per_token": "0.000001", "output_cost_per_token": "0.00001"})
    assert set(only[:9]) == {MICRO}
    assert set(only[9:]) == {10 * MICRO}


def test_an_explicit_zero_is_a_price() -> None:
    assert rates(SIZED | {"cache_read_input_token_cost": "0"}).cache_read == 0


def test_modalities_have_their_own_prices() -> None:
    # OpenAI, gpt-audio and gpt-image: text, audio and image tokens have a column each.
    entry = SIZED | {
        "input_cost_per_audio_token": "0.00004",
        "input_cost_per_image_token": "0.00005",
        "input_cost_per_video_token": "0.00006",
        "cache_read_input_audio_token_cost": "0.000004",
        "cache_read_input_image_token_cost": "0.000005",
        "output_cost_per_audio_token": "0.00008",
        "output_cost_per_image_token": "0.00003",
        "output_cost_per_image_token_batches": "0.000015",
    }
    found = rates(entry)
    assert found[4:9] == tuple(n * MICRO for n in (40, 50, 60, 4, 5))
    assert (found.output_audio, found.output_image) == (80 * MICRO, 30 * MICRO)
    assert rates(entry, tier="batch").output_image == 15 * MICRO
    # A model that answers with images alone has no other output price.
    entry.pop("output_cost_per_token")
    assert rates(entry).output == 30 * MICRO


def test_reasoning_has_its_own_price_unless_the_tier_prices_output() -> None:
    # litellm: output_cost_per_reasoning_token is of the standard tier.
    entry = SIZED | {"output_cost_per_reasoning_token": "0.00003"}
    assert rates(entry).reasoning == 30 * MICRO
    assert rates(entry, tier="flex").reasoning == 30 * MICRO
    entry["output_cost_per_token_flex"] = "0.000005"
    assert rates(entry, tier="flex").reasoning == 5 * MICRO
    entry["output_cost_per_reasoning_token_flex"] = "0.000007"
    assert rates(entry, tier="flex").reasoning == 7 * MICRO


def test_the_old_name_of_a_cached_read_price() -> None:
    # litellm: DeepSeek's entries of before there was cache_read_input_token_cost.
    entry = {"input_cost_per_token": "0.000001", "input_cost_per_token_cache_hit": "0.0000002"}
    assert rates(entry).cache_read == MICRO // 5


RANGES = {
    "output_cost_per_token": "0.00009",
    "output_cost_per_reasoning_token": "0.0001",
    "input_cost_per_audio_token": "0.00004",
    "tiered_pricing": [
        {"range": [32_000, 128_000], "input_cost_per_token": "0.000002"},
        {
            "range": [0, 32_000],
            "input_cost_per_token": "0.000001",
            "cache_read_input_token_cost": "0.0000001",
            "output_cost_per_token": "0.00001",
        },
    ],
}


@pytest.mark.parametrize(
    ("tokens", "usd_per_m"), [(0, 1), (32_000, 1), (32_001, 2), (128_000, 2), (999_999, 2)]
)
def test_ranges_price_the_whole_request(tokens: int, usd_per_m: int) -> None:
    # Qwen's ranges of prompt sizes. litellm: select_tier_for_input.
    assert rates(RANGES, tokens).input == usd_per_m * MICRO


def test_a_range_never_borrows_from_a_smaller_one() -> None:
    low, high = rates(RANGES, 1), rates(RANGES, 32_001)
    assert (low.cache_read, low.output, low.reasoning) == (MICRO // 10, 10 * MICRO, 10 * MICRO)
    # Without an output price of its own, a range takes the model's.
    assert (high.cache_read, high.output, high.reasoning) == (2 * MICRO, 90 * MICRO, 100 * MICRO)
    assert low.input_audio == high.input_audio == 40 * MICRO


def test_a_factor_is_exact_and_rounds_half_to_even() -> None:
    entry = {"input_cost_per_token": "0.000000000000000005"}
    assert [atto_of(entry, "input_cost_per_token", Fraction(n, 10)) for n in (1, 3, 5, 9)] == [
        0,  # 0.5
        2,  # 1.5
        2,  # 2.5
        4,  # 4.5
    ]
    assert compile_bands("p", SIZED, "", Fraction(11, 10))[0][1].input == 1_100_000_000_000


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity", "cheap", True, 0.1, [], {}])
def test_what_is_no_price(value: object) -> None:
    with pytest.raises(PricingError, match=r"input_cost_per_token: .* is not a price"):
        atto_of({"input_cost_per_token": value}, "input_cost_per_token")
