"""Prices by the hour. Source: litellm's entries of DeepSeek, whose hours are UTC, and its
`_is_off_peak`, which `test_oracle.py` runs beside us.
"""

from datetime import UTC, datetime

import pytest

from pricing.off_peak import off_peak_entry, parse_off_peak
from pricing.usage import Usage
from tests.factories import a_price

DEEPSEEK = {
    "input_cost_per_token": "0.00000015",
    "windows": [
        {"hours_utc": ["00:00-01:00", "04:00-06:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
        {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
    ],
}


def is_open(block: dict[str, object], when: str) -> bool:
    at = datetime.fromisoformat(when).replace(tzinfo=UTC)
    return parse_off_peak(block).open_at(at.timestamp())


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-20T00:59:59", True),  # a Friday
        ("2026-11-20T01:00:00", False),
        ("2026-11-20T03:59:59", False),
        ("2026-11-20T04:00:00", True),
        ("2026-11-20T06:00:00", False),
        ("2026-11-20T10:00:00", True),
        ("2026-11-20T23:59:59", True),
        ("2026-11-21T02:00:00", True),  # Saturday
        ("2026-11-22T23:59:59", True),
        ("2026-11-23T01:00:00", False),  # Monday
    ],
)
def test_windows_of_weekdays(when: str, expected: bool) -> None:
    assert is_open(DEEPSEEK, when) is expected


def test_hours_of_every_day_may_wrap_past_midnight() -> None:
    block = {"hours_utc": "16:30-00:30"}
    found = [is_open(block, f"2026-11-20T{t}") for t in ("16:29", "16:30", "00:29", "00:30")]
    assert found == [False, True, True, False]


def test_weekdays_are_those_of_the_zone() -> None:
    block = {"windows": [{"hours_utc": "00:00-00:00", "weekdays": [6]}]}
    shanghai = block | {"weekday_timezone": "Asia/Shanghai"}
    friday_evening = "2026-11-20T17:00"  # Saturday 01:00 in Shanghai
    assert not is_open(block, friday_evening)
    assert is_open(shanghai, friday_evening)


def test_off_peak_prices_replace_those_of_every_size_and_tier() -> None:
    entry = {
        "input_cost_per_token": "3",
        "input_cost_per_token_priority": "6",
        "input_cost_per_token_above_200k_tokens": "5",
        "input_cost_per_token_above_200k_tokens_flex": "5",
        "input_cost_per_audio_token": "9",
        "output_cost_per_token": "4",
        "tiered_pricing": [],
        "off_peak_pricing": {"input_cost_per_token": "1", "hours_utc": "00:00-00:00"},
    }
    assert off_peak_entry(entry) == {
        "input_cost_per_token": "1",
        "input_cost_per_audio_token": "9",
        "output_cost_per_token": "4",
    }


def test_a_price_at_a_time() -> None:
    price = a_price(
        off_peak_pricing=DEEPSEEK,
        input_cost_per_token_flex="0.0000005",
        provider_specific_entry={"us": "1.1"},
    )
    saturday, monday = 1_795_262_400, 1_795_262_400 + 42 * 3_600
    off = price.at(saturday)
    assert off.plain[0][1].input == 150_000_000_000
    assert off.plain[0][1].output == price.plain[0][1].output
    assert off.bands(Usage(service_tier="flex"))[0][1].input == 150_000_000_000
    assert off.bands(Usage(inference_geo="us"))[0][1].input == 165_000_000_000
    assert off.entry == price.entry  # so that a row can be priced again from its entry and time
    assert price.at(saturday) is off
    assert price.at(monday) is price
    assert a_price().at(saturday).plain == a_price().plain
