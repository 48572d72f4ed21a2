from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from proxy.control.report_ranges import previous_range

BERLIN = ZoneInfo("Europe/Berlin")


def ms(*parts):
    return int(datetime(*parts, tzinfo=BERLIN).timestamp() * 1000)


@pytest.mark.parametrize(
    ("since", "until", "before"),
    [
        ((2026, 3, 1), (2026, 4, 1), (2026, 2, 1)),  # a month, of another length
        ((2026, 3, 1), (2026, 6, 1), (2025, 12, 1)),  # three of them
        ((2026, 3, 23), (2026, 3, 30), (2026, 3, 16)),  # the week of the change, an hour short
        ((2026, 3, 29), (2026, 3, 30), (2026, 3, 28)),  # the day of it
        ((2026, 3, 10), (2026, 3, 15), (2026, 3, 5)),
    ],
)
def test_whole_periods_are_followed_by_the_calendar(since, until, before):
    found = previous_range(ms(*since), ms(*until), "Europe/Berlin")
    assert found == (ms(*before), ms(*since))


def test_any_other_time_by_its_length():
    assert previous_range(5_000_123, 7_000_000, "UTC") == (3_000_246, 5_000_123)
    noon = ms(2026, 3, 10, 12)
    assert previous_range(noon, noon + 1000, "Europe/Berlin") == (noon - 1000, noon)


def test_days_of_another_zone_are_no_whole_days():
    since, until = ms(2026, 3, 28), ms(2026, 3, 30)  # 47 hours
    assert previous_range(since, until, "UTC")[0] == since - 47 * 3_600_000
