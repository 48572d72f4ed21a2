"""Prices of another time: which days each part of an entry is in force. Source:
genai-prices, many of whose prices have a start date."""

from datetime import UTC, datetime

import pytest

from pricing.calculator import cost
from pricing.ceiling import ceiling_cost
from pricing.dated import DATED, day_of, parse_dated
from pricing.errors import PricingError
from pricing.price import Price
from pricing.usage import Usage
from tests.factories import a_price

# gpt-4o: $5 until 2024-08-06, $2.50 since; a made-up rise to $4 from 2027 on.
PARTS = [
    {"from": "2027-01-01", "input_cost_per_token": "0.000004"},
    {"until": "2024-08-06", "input_cost_per_token": "0.000005", "output_cost_per_token": "0.00003"},
    {"until": "2024-05-13", "input_cost_per_token": "0.00003"},
    {"from": "2028-01-01", "input_cost_per_token": "0.000003"},
]


def dated(**entry: object) -> Price:
    return a_price(input_cost_per_token="0.0000025", **({DATED: PARTS} | entry))


def at(day: str, hour: int = 0) -> float:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("day", "usd_per_m"),
    [
        ("2020-01-01", "30"),
        ("2024-05-12", "30"),
        ("2024-05-13", "5"),
        ("2024-08-05", "5"),
        ("2024-08-06", "2.5"),
        ("2026-12-31", "2.5"),
        ("2027-01-01", "4"),
        ("2028-01-01", "3"),
        ("2040-01-01", "3"),
    ],
)
def test_a_call_has_the_price_of_its_day(day: str, usd_per_m: str) -> None:
    expected = int(float(usd_per_m) * 1_000_000)
    for hour in (0, 23):
        assert cost(Usage(1_000), dated(), at_s=at(day, hour)).nano == expected


def test_without_a_time_prices_are_those_of_the_table() -> None:
    assert cost(Usage(1_000), dated()).nano == 2_500_000


def test_a_part_has_all_the_prices_of_its_time() -> None:
    price = dated(cache_read_input_token_cost="0.000001", search_context_cost_per_query={})
    usage = Usage(1_000, 10, 1_000)
    assert cost(usage, price).nano == 1_000_000 + 100_000
    assert cost(usage, price, at_s=at("2024-08-01")).nano == 5_000_000 + 300_000
    part = parse_dated(price.entry)[1]
    assert (part.start, part.end, part.upcoming) == ("2024-05-13", "2024-08-06", False)
    assert part.entry["max_output_tokens"] == 8_000


def test_a_bound_holds_for_what_is_to_come_and_not_for_what_is_past() -> None:
    assert ceiling_cost(Usage(1_000), dated()) == 4_000_000
    units = [{"from": "2027-01-01", "file_search_cost_per_call": "0.5"}]
    price = a_price(file_search_cost_per_call="0.1", **{DATED: units})
    assert price.dearest_unit("file_search") == 5 * 10**17


def test_hours_apply_within_a_part() -> None:
    off_peak = {"hours_utc": "16:00-18:00", "input_cost_per_token": "0.000001"}
    part = {"until": "2025-01-01", "input_cost_per_token": "0.000002", "off_peak_pricing": off_peak}
    price = a_price(**{DATED: [part]})
    rates = [cost(Usage(1_000), price, at_s=at("2024-06-01", hour)).nano for hour in (15, 16)]
    assert rates == [2_000_000, 1_000_000]
    assert cost(Usage(1_000), price, at_s=at("2025-06-01", 16)).nano == 1_000_000
    assert price.at(at("2024-06-01")).entry == price.entry  # what rows store


def test_days_are_utc() -> None:
    assert day_of(0) == "1970-01-01"
    assert day_of(86_399) == "1970-01-01"
    assert day_of(86_400) == "1970-01-02"


@pytest.mark.parametrize("part", [{"until": "soon"}, {}, {"from": 5}, "1"])
def test_a_malformed_part_is_refused_by_name(part: object) -> None:
    with pytest.raises(PricingError, match="openai/model-1"):
        a_price(**{DATED: [part]})
