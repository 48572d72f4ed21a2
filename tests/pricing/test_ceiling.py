import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.calculator import cost
from pricing.ceiling import ceiling, ceiling_cost, ceiling_usage, output_limit_for, with_tools
from pricing.errors import MissingMaximum, PricingError
from pricing.price import Price, is_priced
from pricing.table import TABLES_DIR, PriceTable, list_tables
from pricing.tiers import reachable_tiers
from pricing.units import UNITS
from pricing.usage import RequestSize, Usage
from tests.factories import a_price

TABLE_FROM_S = 1_795_219_200  # 2026-11-21: bounds hold from the first day of the table on
TIERS_ASKED = ["", "auto", "default", "flex", "priority", "batch", "ultrafast", "unheard of"]
VARIANTS = ["low", "high", "720p", "4k", "1K", "15s", "hd/1024x1024", "standard/1024x1792", "?"]
GEOS = ["", "global", "us", "eu", "europe-west4"]


def every_price() -> list[Price]:
    table = PriceTable.open(list_tables(TABLES_DIR)[-1].path)
    return [Price.compile(*item) for item in table.items() if is_priced(item[2])]


EVERY_PRICE = every_price()


# --- what a request can use ----------------------------------------------------------------


def input_bound(price: Price | None = None, passes: int = 4, **size: object) -> int:
    request = RequestSize(**({"body_bytes": 1_000} | size))  # type: ignore[arg-type]
    return ceiling_usage(request, price or a_price(), server_tool_passes=passes).input_tokens


def test_input_is_at_most_a_token_per_byte_and_what_providers_add() -> None:
    assert input_bound() == 1_000 + 2_048


def test_an_inline_image_adds_the_largest_image() -> None:
    assert input_bound(inline_images=2) == 1_000 + 2_048 + 2 * 8_500
    assert input_bound(a_price(max_tokens_per_image=9), inline_images=2) == 1_000 + 2_048 + 18


def test_the_window_caps_each_input() -> None:
    assert input_bound(body_bytes=10**6) == 100_000
    assert input_bound(body_bytes=10**6, inputs=3) == 300_000
    assert input_bound(body_bytes=200_000, inputs=3) == 202_048
    assert input_bound(body_bytes=10**6, inputs=0) == 100_000
    assert input_bound(a_price(max_input_tokens=None), body_bytes=10**6) == 1_002_048


def test_content_that_is_not_inline_takes_the_window() -> None:
    assert input_bound(windowed=True) == 100_000
    assert input_bound(windowed=True, inputs=3) == 300_000


@pytest.mark.parametrize(("asked", "windows"), [(1, 1), (3, 3), (-1, 4)])
def test_server_tools_take_windows(asked: int, windows: int) -> None:
    assert input_bound(tool_windows=asked) == windows * 100_000


def test_tools_without_a_limit_take_what_the_budget_says() -> None:
    assert input_bound(tool_windows=-1, passes=2) == 200_000
    assert input_bound(tool_windows=3, passes=2) == 300_000


def output_bound(price: Price | None = None, **size: object) -> int:
    request = RequestSize(**({"body_bytes": 1} | size))  # type: ignore[arg-type]
    return ceiling_usage(request, price or a_price()).output_tokens


def test_output_is_the_requests_limit_or_the_models_for_each_choice() -> None:
    assert output_bound() == 8_000
    assert output_bound(output_limit=100) == 100
    assert output_bound(output_limit=9_000) == 9_000  # the map's maximum may be out of date
    assert output_bound(output_limit=100, choices=3) == 300
    assert output_bound(choices=0) == 8_000
    assert output_bound(output_limit=-5) == 0


def test_what_generates_nothing_has_no_output() -> None:
    assert output_bound(generates=False) == 0
    assert output_bound(a_price(mode="embedding", max_output_tokens=None)) == 0


@pytest.mark.parametrize(
    ("lacking", "size"),
    [
        ("max_output_tokens", RequestSize(1)),
        ("max_input_tokens", RequestSize(1, output_limit=1, windowed=True)),
        ("max_input_tokens", RequestSize(1, output_limit=1, tool_windows=2)),
    ],
)
def test_no_bound_without_a_maximum(lacking: str, size: RequestSize) -> None:
    price = a_price("acme", "m", **{lacking: None})
    with pytest.raises(MissingMaximum, match=rf"acme/m has no {lacking}.* overlay") as caught:
        ceiling(size, price)
    assert (caught.value.key, caught.value.lacking) == ("acme/m", lacking)


def test_tokens_are_input_and_output() -> None:
    bound = ceiling(RequestSize(1_000, output_limit=500, choices=2), a_price())
    assert bound.tokens == 3_048 + 1_000
    assert bound.tokens == bound.usage.total_tokens


# --- what that can cost --------------------------------------------------------------------


def bound_nano(price: Price, tokens: int = 1_000_000, out: int = 0, **usage: object) -> int:
    return ceiling_cost(Usage(tokens, out, **usage), price)  # type: ignore[arg-type]


def test_the_dearest_way_to_use_a_token_counts() -> None:
    assert bound_nano(a_price()) == 10**9
    assert bound_nano(a_price(cache_creation_input_token_cost_above_1hr="0.000002")) == 2 * 10**9
    assert bound_nano(a_price(input_cost_per_audio_token="0.00004")) == 40 * 10**9
    assert bound_nano(a_price(), 0, 10**6) == 10 * 10**9
    assert bound_nano(a_price(output_cost_per_image_token="0.00012"), 0, 10**6) == 120 * 10**9


def test_only_context_sizes_within_reach_count() -> None:
    price = a_price(input_cost_per_token_above_200k_tokens="0.000002")
    assert bound_nano(price, 200_000) == 200_000_000
    assert bound_nano(price, 200_001) == 400_002_000
    # A smaller size that is dearer is still within reach.
    assert bound_nano(a_price(input_cost_per_token_above_200k_tokens="0"), 300_000) == 300_000_000


@pytest.mark.parametrize(
    ("window", "held"), [(199_000, 199_000), (200_000, 1_000_000), (400_000, 400_000)]
)
def test_prices_beyond_the_very_window_tell_of_a_larger_one(window: int, held: int) -> None:
    # Claude Sonnet 4.5: 200,000 tokens, and a million for those who send the beta's header.
    rates = {"input_cost_per_token_above_200k_tokens": "0.000006"}
    price = a_price(max_input_tokens=window, **rates)
    assert input_bound(price, windowed=True) == held
    assert input_bound(price, body_bytes=2_000_000) == held


def test_only_tiers_within_reach_count() -> None:
    prices = {"input_cost_per_token_priority": "0.000002", "input_cost_per_token_ultrafast": "1"}
    assert bound_nano(a_price(**prices)) == 2 * 10**9
    assert bound_nano(a_price(**prices), service_tier="default") == 10**9
    assert bound_nano(a_price("gemini", **prices)) == 10**9
    assert bound_nano(a_price("gemini", **prices), service_tier="priority") == 2 * 10**9


def test_regions_always_count_and_speed_when_asked_for() -> None:
    price = a_price(provider_specific_entry={"us": "1.1", "fast": "2"})
    assert bound_nano(price) == 1_100_000_000
    assert bound_nano(price, speed="fast") == 2_200_000_000
    cheaper = a_price(provider_specific_entry={"us": "0.5", "fast": "0.5"})
    assert bound_nano(cheaper, speed="fast") == 10**9


def test_searches_are_held() -> None:
    price = a_price(web_search_cost_per_query="0.01")
    size = RequestSize(1_000, output_limit=0, web_searches=3)
    assert ceiling(size, price).usage.units == {"web_search": 3}
    assert ceiling(size, price).nano == 3_048_000 + 30_000_000


def test_bounds_are_rounded_up() -> None:
    assert bound_nano(a_price(input_cost_per_token="0.0000000001"), 1) == 1


def some_usage(rng: random.Random, bound: Usage, price: Price) -> Usage:
    """Any usage a reply could report for a call held with this bound."""

    def up_to(limit: int) -> int:
        return rng.choice((0, limit, rng.randint(0, limit)))

    tokens, out = up_to(bound.input_tokens), up_to(bound.output_tokens)
    usage = Usage(
        input_tokens=tokens,
        output_tokens=out,
        cache_read_tokens=up_to(tokens),
        cache_write_tokens=up_to(tokens),
        cache_write_1h_tokens=up_to(tokens),
        reasoning_tokens=up_to(out),
        input_audio_tokens=up_to(tokens),
        cache_read_audio_tokens=up_to(tokens),
        output_audio_tokens=up_to(out),
        input_image_tokens=up_to(tokens),
        cache_read_image_tokens=up_to(tokens),
        output_image_tokens=up_to(out),
        input_video_tokens=up_to(tokens),
        units=dict(some_unit(rng, name, count) for name, count in bound.units.items()),
        service_tier=rng.choice(reachable_tiers(price.provider, bound.service_tier)),
        inference_geo=rng.choice(GEOS),
        speed=rng.choice(("", bound.speed)),
    )
    if rng.random() < 0.3:
        rest_in, rest_out = bound.input_tokens - tokens, bound.output_tokens - out
        usage.passes = (("", Usage(up_to(rest_in), up_to(rest_out))),)
    return usage


def some_unit(rng: random.Random, name: str, most: int) -> tuple[str, int]:
    """A bound without a variant holds for every variant."""
    if "@" not in name:
        name += rng.choice(("", f"@{rng.choice(VARIANTS)}"))
    return name, rng.choice((0, most, rng.randint(0, most)))


def some_request(rng: random.Random, price: Price) -> RequestSize:
    names = [name for name in UNITS if price.by_units and price.unit_atto(name)]
    names = [rng.choice(names)] if names else rng.sample(sorted(UNITS), rng.choice((0, 0, 2)))
    variant = rng.choice(("", "", f"@{rng.choice(VARIANTS)}"))
    return RequestSize(
        units={name + variant: rng.choice((1, 7, 2_000)) for name in names},
        body_bytes=rng.choice((0, 150, 5_000, 199_000, 300_000, 10**7)),
        output_limit=rng.choice((0, 1, 4_096, 10**6)),
        choices=rng.choice((1, 1, 3)),
        inputs=rng.choice((1, 1, 40)),
        inline_images=rng.choice((0, 0, 2)),
        web_searches=rng.choice((0, 0, 5)),
        service_tier=rng.choice(TIERS_ASKED),
        speed=rng.choice(("", "fast")),
    )


def test_no_usage_within_a_ceiling_costs_more_at_any_model() -> None:
    rng = random.Random(20261121)
    for price in EVERY_PRICE:
        bound = ceiling(some_request(rng, price), price)
        for _ in range(5):
            usage = some_usage(rng, bound.usage, price)
            assert cost(usage, price).nano <= bound.nano, (price.key, usage, bound)
            assert cost(usage, price, at_s=rng.randrange(TABLE_FROM_S, 2**31)).nano <= bound.nano
            assert usage.total_tokens <= bound.tokens


@settings(max_examples=300)
@given(st.sampled_from(EVERY_PRICE), st.randoms(use_true_random=False))
def test_no_usage_within_a_ceiling_costs_more(price: Price, rng: random.Random) -> None:
    bound = ceiling(some_request(rng, price), price)
    usage = some_usage(rng, bound.usage, price)
    assert cost(usage, price).nano <= bound.nano


@given(st.sampled_from(EVERY_PRICE), st.randoms(use_true_random=False))
def test_a_lost_call_can_be_priced_again_from_its_row(price: Price, rng: random.Random) -> None:
    bound = ceiling(some_request(rng, price), price)
    stored = Usage.from_dict(bound.usage.as_dict())
    again = Price.compile(price.provider, price.model, price.entry)
    assert ceiling_cost(stored, again) == bound.nano


# --- clamping ------------------------------------------------------------------------------


@given(
    st.sampled_from(EVERY_PRICE),
    st.integers(0, 10**7),
    st.none() | st.integers(-1, 10**6),
    st.sampled_from(TIERS_ASKED),
    st.sampled_from(["", "fast"]),
)
def test_the_short_way_to_a_ceiling_is_the_long_one(
    price: Price, body_bytes: int, limit: int | None, tier: str, speed: str
) -> None:
    size = RequestSize(body_bytes, limit, service_tier=tier, speed=speed)
    assert size.simple
    try:
        usage = ceiling_usage(size, price)
    except PricingError:
        with pytest.raises(PricingError):
            ceiling(size, price)
        return
    bound = ceiling(size, price)
    assert (bound.usage, bound.nano) == (usage, ceiling_cost(usage, price))
    assert bound.tokens == usage.input_tokens + usage.output_tokens


@given(
    st.sampled_from([price for price in EVERY_PRICE if price.max_output_tokens]),
    st.randoms(use_true_random=False),
    st.integers(0, 10**10),
    st.none() | st.integers(0, 10**6),
)
def test_a_limit_is_the_largest_that_fits(
    price: Price, rng: random.Random, nano: int, tokens: int | None
) -> None:
    size = some_request(rng, price)
    size.output_limit = rng.choice((None, 100, 10**6))
    own = price.max_output_tokens if size.output_limit is None else size.output_limit
    assert own is not None
    limit = output_limit_for(size, price, nano, tokens=tokens)

    def fits(output_limit: int) -> bool:
        size.output_limit = output_limit
        bound = ceiling(size, price)
        return bound.nano <= nano and (tokens is None or bound.tokens <= tokens)

    if not price.generates or price.by_units:
        assert limit is None
    elif limit is None:
        assert not fits(1)
    else:
        assert 1 <= limit <= own
        assert fits(limit)
        assert limit == own or not fits(limit + 1)


def test_a_limit_needs_no_maximum_where_money_sets_one() -> None:
    price = a_price(max_output_tokens=None)
    assert output_limit_for(RequestSize(1_000), price, 3_048_000 + 10_000 * 77) == 77
    free = a_price(input_cost_per_token="0", output_cost_per_token="0", max_output_tokens=None)
    with pytest.raises(MissingMaximum):
        output_limit_for(RequestSize(1_000), free, 10**9)
    assert output_limit_for(RequestSize(1_000), free, 0, tokens=3_050) == 2


def test_no_limit_makes_a_request_fit_whose_input_does_not() -> None:
    assert output_limit_for(RequestSize(1_000), a_price(), 3_047_999) is None
    assert output_limit_for(RequestSize(1_000), a_price(), 3_048_000) is None
    assert output_limit_for(RequestSize(1_000), a_price(), 3_058_000) == 1


# --- tools at models of their own ----------------------------------------------------------


def test_a_tool_is_held_on_top_at_its_own_price() -> None:
    price, other = a_price(), a_price(output_cost_per_token="0.00002")
    alone, tool = ceiling(RequestSize(100), price), ceiling(RequestSize(50, 10), other)
    both = with_tools(alone, price, [("other", tool.usage, other)] * 2)
    assert both.nano == alone.nano + 2 * tool.nano
    assert both.tokens == alone.tokens + 2 * tool.tokens == both.usage.total_tokens
    assert both.tools_nano == 2 * tool.nano
    assert alone.usage.passes == ()
    assert ceiling_cost(both.usage, price, {"other": other}.get) == both.nano
    assert ceiling_cost(both.usage, other) == ceiling_cost(alone.usage, other) + 2 * tool.nano
