"""Costs worked by hand from the providers' price lists, in nano-USD."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.buckets import NAMES, split
from pricing.calculator import Cost, cost, reported_cost
from pricing.money import nano_from_atto
from pricing.price import Price
from pricing.table import TABLES_DIR, PriceTable, list_tables
from pricing.usage import Usage
from tests.factories import a_price

MICRO = 10**12  # atto-USD per token of a USD per million tokens


def usd_per_m(price: str, tokens: int) -> int:
    """Nano-USD of tokens at a price in USD per million."""
    whole, _, part = price.partition(".")
    thousandths = int(whole) * 1_000 + int(part.ljust(3, "0")[:3])
    return tokens * thousandths


@pytest.fixture(scope="module")
def table() -> PriceTable:
    info = next(i for i in list_tables(TABLES_DIR) if i.id == "2026-11-21-litellm-1.106.2")
    return PriceTable.open(info.path, info.sha256)


def quote(table: PriceTable, key: str) -> Price:
    provider, _, model = key.partition("/")
    price = table.quote(provider, model)
    assert price is not None
    return price


def test_openai_with_cached_prompt_and_reasoning(table: PriceTable) -> None:
    # gpt-5: 1.25 in, 0.125 cached, 10 out; reasoning is billed as output.
    usage = Usage(
        input_tokens=2_006, cache_read_tokens=1_920, output_tokens=300, reasoning_tokens=192
    )
    expected = usd_per_m("1.25", 86) + usd_per_m("0.125", 1_920) + usd_per_m("10", 300)
    assert expected == 3_347_500
    assert cost(usage, quote(table, "openai/gpt-5")) == Cost(
        3_347_500,
        [
            ("input", 86, 1_250_000_000_000),
            ("cache_read", 1_920, 125_000_000_000),
            ("output", 108, 10 * MICRO),
            ("reasoning", 192, 10 * MICRO),
        ],
    )


@pytest.mark.parametrize(
    ("tier", "in_price", "out_price"),
    [("default", "1.25", "10"), ("flex", "0.625", "5"), ("priority", "2.5", "20")],
)
def test_openai_service_tiers(table: PriceTable, tier: str, in_price: str, out_price: str) -> None:
    usage = Usage(input_tokens=1_000, output_tokens=500, service_tier=tier)
    expected = usd_per_m(in_price, 1_000) + usd_per_m(out_price, 500)
    assert cost(usage, quote(table, "openai/gpt-5")).nano == expected


def test_openai_audio(table: PriceTable) -> None:
    # gpt-audio: text 2.5 in, 10 out; audio 32 in, 64 out.
    usage = Usage(
        input_tokens=150, input_audio_tokens=100, output_tokens=80, output_audio_tokens=60
    )
    expected = usd_per_m("2.5", 50) + usd_per_m("32", 100)
    expected += usd_per_m("10", 20) + usd_per_m("64", 60)
    assert cost(usage, quote(table, "openai/gpt-audio")).nano == expected == 7_365_000


def test_anthropic_with_cache_reads_and_writes(table: PriceTable) -> None:
    # Sonnet 4.5: 3 in, 15 out, cached 0.3, written for 5 minutes 3.75, for an hour 6.
    usage = Usage(
        input_tokens=21_017,
        cache_read_tokens=18_000,
        cache_write_tokens=3_000,
        cache_write_1h_tokens=1_000,
        output_tokens=489,
        service_tier="standard",
        inference_geo="not_available",
    )
    expected = usd_per_m("3", 17) + usd_per_m("0.3", 18_000)
    expected += usd_per_m("3.75", 2_000) + usd_per_m("6", 1_000) + usd_per_m("15", 489)
    assert cost(usage, quote(table, "anthropic/claude-sonnet-4-5-20250929")).nano == expected
    assert expected == 26_286_000


def test_anthropic_in_the_us_and_fast(table: PriceTable) -> None:
    # Opus 4.8: 5 in, 25 out; inference in the US is 1.1 times that, fast twice.
    price = quote(table, "anthropic/claude-opus-4-8")
    usage = Usage(input_tokens=1_000, output_tokens=100, inference_geo="us")
    assert cost(usage, price).nano == usd_per_m("5.5", 1_000) + usd_per_m("27.5", 100)
    usage.speed = "fast"
    assert cost(usage, price).nano == usd_per_m("11", 1_000) + usd_per_m("55", 100)


def test_anthropic_web_searches_are_ten_dollars_a_thousand(table: PriceTable) -> None:
    usage = Usage(input_tokens=1_000, output_tokens=100, units={"web_search": 3, "web_fetch": 2})
    found = cost(usage, quote(table, "anthropic/claude-sonnet-4-5"))
    assert found.nano == usd_per_m("3", 1_000) + usd_per_m("15", 100) + 30_000_000
    assert found.items[-1] == ("web_search", 3, 10**16)


@pytest.mark.parametrize(
    ("prompt", "in_price", "out_price", "cached"),
    [(200_000, "1.25", "10", "0.125"), (200_001, "2.5", "15", "0.25")],
)
def test_gemini_above_200k(
    table: PriceTable, prompt: int, in_price: str, out_price: str, cached: str
) -> None:
    usage = Usage(
        input_tokens=prompt,
        cache_read_tokens=50_000,
        output_tokens=2_000,
        reasoning_tokens=1_500,
        service_tier="ON_DEMAND",
    )
    expected = usd_per_m(in_price, prompt - 50_000)
    expected += usd_per_m(cached, 50_000) + usd_per_m(out_price, 2_000)
    assert cost(usage, quote(table, "gemini/gemini-2.5-pro")).nano == expected


def test_gemini_audio_input_and_image_output(table: PriceTable) -> None:
    # 2.5 Flash: text 0.3, audio 1, out 2.5. Flash Image: an image of 1,290 tokens at 30.
    usage = Usage(input_tokens=300, input_audio_tokens=200, output_tokens=40)
    flash = cost(usage, quote(table, "gemini/models/gemini-2.5-flash"))
    assert flash.nano == usd_per_m("0.3", 100) + usd_per_m("1", 200) + usd_per_m("2.5", 40)
    usage = Usage(input_tokens=10, output_tokens=1_300, output_image_tokens=1_290)
    image = cost(usage, quote(table, "gemini/gemini-2.5-flash-image"))
    assert image.nano == usd_per_m("0.3", 10) + usd_per_m("2.5", 10) + usd_per_m("30", 1_290)


def test_passes_are_billed_on_top_each_at_its_own_model() -> None:
    own, advisor = a_price(), a_price(model="advisor", input_cost_per_token="0.000005")
    usage = Usage(
        input_tokens=10,
        output_tokens=1,
        passes=(
            ("", Usage(input_tokens=100)),
            ("advisor", Usage(input_tokens=1_000)),
            ("unheard of", Usage(input_tokens=10_000)),
        ),
    )
    found = cost(usage, own, {"advisor": advisor}.get)
    assert found.items == [
        ("input", 10, MICRO),
        ("output", 1, 10 * MICRO),
        ("input", 100, MICRO),
        ("input@advisor", 1_000, 5 * MICRO),
        ("input@unheard of", 10_000, MICRO),  # never free
    ]
    assert found.nano == 10_000 + 10_000 + 100_000 + 5_000_000 + 10_000_000
    assert cost(usage, own).nano == found.nano - 4_000_000


def test_context_sizes_are_tested_pass_by_pass() -> None:
    price = a_price(input_cost_per_token_above_200k_tokens="0.000002")
    usage = Usage(input_tokens=150_000, passes=(("", Usage(input_tokens=150_000)),))
    assert cost(usage, price).nano == 300_000_000


def test_off_peak_is_by_the_time_of_the_call() -> None:
    price = a_price(
        off_peak_pricing={"input_cost_per_token": "0.0000005", "hours_utc": "16:30-00:30"}
    )
    usage = Usage(input_tokens=1_000, passes=(("", Usage(input_tokens=1_000)),))
    at_noon, at_night = 1_795_262_400, 1_795_262_400 + 6 * 3_600
    assert cost(usage, price).nano == cost(usage, price, at_s=at_noon).nano == 2_000_000
    assert cost(usage, price, at_s=at_night).nano == 1_000_000


def test_the_providers_own_figure_counts_for_models_no_table_knows() -> None:
    flat = Price.flat("openrouter", "m", MICRO)
    usage = Usage(input_tokens=1_000, provider_cost_nano=1_234)
    assert cost(usage, flat) == Cost(1_234, [("provider_figure", 1_234, 10**9)])
    assert cost(usage, a_price()).nano == 1_000_000
    usage.provider_cost_nano = 0  # bring your own key: somebody else is billed
    assert cost(usage, flat).nano == 1_000_000


@pytest.mark.parametrize(
    ("figure", "priced", "most", "charged"),
    [(7, 5, 10, 7), (0, 5, 10, 0), (11, 5, 10, 10), (11, 12, 10, 11), (99, 12, 10, 12)],
)
def test_the_providers_own_figure_is_charged_up_to_what_a_call_may_cost(
    figure: int, priced: int, most: int, charged: int
) -> None:
    found = reported_cost(figure, Cost(priced, []), most)
    assert found == Cost(charged, [("provider_figure", charged, 10**9)])


def test_nothing_used_costs_nothing() -> None:
    assert cost(Usage(), a_price()) == Cost(0, [])


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_cost_is_the_sum_of_its_items_rounded_once(tokens: int, cached: int, out: int) -> None:
    price = a_price(input_cost_per_token="0.0000000001234567", cache_read_input_token_cost="1e-13")
    usage = Usage(input_tokens=tokens, cache_read_tokens=cached, output_tokens=out)
    found = cost(usage, price)
    assert found.nano == nano_from_atto(sum(count * atto for _, count, atto in found.items))


COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
RARE = ("cache_write_tokens", "cache_write_1h_tokens", "input_audio_tokens", "output_image_tokens")


@given(
    st.fixed_dictionaries(
        dict.fromkeys(COUNTS, st.integers(-10, 2_000)),
        optional=dict.fromkeys(RARE, st.integers(0, 500)),
    )
)
def test_every_usage_is_billed_by_its_buckets(counts: dict[str, int]) -> None:
    usage = Usage(**counts)
    price = a_price(cache_read_input_token_cost="0.0000001", output_cost_per_reasoning_token="0.1")
    rates = price.plain[0][1]
    parts = zip(NAMES, split(usage), rates, strict=True)
    assert cost(usage, price).items == [part for part in parts if part[1]]
