"""Which time a report is about."""

from datetime import UTC, datetime

import pytest

from db.errors import ReportError
from db.report_filters import parse_time_range

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


def ms(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, (None, None)),
        ("2026-03-01", None, (ms(2026, 3, 1), None)),
        (None, "2026-03-31", (None, ms(2026, 4, 1))),
        ("2026-03-01", "2026-03-01", (ms(2026, 3, 1), ms(2026, 3, 2))),
        ("2026-03-01T08:00:00Z", None, (ms(2026, 3, 1, 8), None)),
        ("2026-03-01T08:00", None, (ms(2026, 3, 1, 8), None)),
        ("2026-03-01 08:00:00+02:00", None, (ms(2026, 3, 1, 6), None)),
        (None, "2026-03-01T00:00:00.250Z", (None, ms(2026, 3, 1) + 250)),
        ("7d", None, (ms(2026, 3, 8, 12, 30), None)),
        ("90m", "1h", (ms(2026, 3, 15, 11), ms(2026, 3, 15, 11, 30))),
        ("2w", "12h", (ms(2026, 3, 1, 12, 30), ms(2026, 3, 15, 0, 30))),
    ],
)
def test_ranges(since, until, expected):
    assert parse_time_range(since, until, ms(2026, 3, 15, 12, 30)) == expected


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("yesterday", None, "--since: 'yesterday' is no date"),
        (None, "2026-02-30", "--until: '2026-02-30' is no date"),
        ("7y", None, r"span \(90m, 12h, 7d, 2w\)"),
        ("", None, "--since: ''"),
        ("1h", "2h", "--since 1h is not before --until 2h"),
        ("2026-03-02", "2026-03-01", "is not before"),
    ],
)
def test_what_makes_no_range_is_named(since, until, message):
    with pytest.raises(ReportError, match=message):
        parse_time_range(since, until, ms(2026, 3, 15, 12, 30))


def test_dates_are_days_of_the_time_zone():
    """The day of the change to summer time has 23 hours; what says its offset is left alone."""
    berlin = ms(2026, 3, 28, 23), ms(2026, 3, 29, 22)
    assert parse_time_range("2026-03-29", "2026-03-29", 0, "Europe/Berlin") == berlin
    at_noon = parse_time_range("2026-03-29T12:00", None, 0, "Asia/Kolkata")
    assert at_noon == (ms(2026, 3, 29, 6, 30), None)
    assert parse_time_range("2026-03-29T12:00Z", None, 0, "Asia/Kolkata")[0] == ms(2026, 3, 29, 12)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_unknown_time_zones_are_named(zone):
    with pytest.raises(ReportError, match="no such time zone"):
        parse_time_range(None, None, 0, zone)


def test_the_end_of_all_days_is_no_error_of_ours():
    with pytest.raises(ReportError, match="reckoned with"):
        parse_time_range(None, "9999-12-31", 0, "UTC")
