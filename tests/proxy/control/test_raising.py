"""When a raise begins and ends: weekdays, dates and timestamps, in the budget's time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from db.errors import CatalogError
from proxy.control.raising import _moment

BERLIN = ZoneInfo("Europe/Berlin")
WEDNESDAY = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)
FRIDAY = datetime(2026, 11, 20, 22, 59, tzinfo=UTC)  # the last minute of it in Berlin


@pytest.mark.parametrize(
    ("text", "now", "until"),
    [
        ("FRIDAY", WEDNESDAY, "2026-11-21T00:00+01:00"),
        ("friday", FRIDAY, "2026-11-21T00:00+01:00"),  # this one
        ("thursday", FRIDAY, "2026-11-27T00:00+01:00"),
        ("sunday", datetime(2026, 10, 23, tzinfo=UTC), "2026-10-26T00:00+01:00"),  # clocks change
        ("2026-12-04", WEDNESDAY, "2026-12-05T00:00+01:00"),
        ("2026-12-04T12:00", WEDNESDAY, "2026-12-04T12:00+01:00"),
        ("2026-12-04T12:00Z", WEDNESDAY, "2026-12-04T13:00+01:00"),
    ],
)
def test_until_is_the_end_of_a_day_or_a_moment(text: str, now: datetime, until: str) -> None:
    found = _moment(text, BERLIN, now.timestamp(), end=True)
    assert datetime.fromtimestamp(found, BERLIN) == datetime.fromisoformat(until)


def test_since_is_its_begin() -> None:
    found = _moment("friday", BERLIN, WEDNESDAY.timestamp(), end=False)
    assert datetime.fromtimestamp(found, BERLIN) == datetime(2026, 11, 20, tzinfo=BERLIN)


@pytest.mark.parametrize("text", ["", "soon", "fri", "2026-02-30", "9999-12-31"])
def test_anything_else_is_said_to_be_none(text: str) -> None:
    with pytest.raises(CatalogError, match="expected a date"):
        _moment(text, BERLIN, WEDNESDAY.timestamp(), end=True)
