"""When something is due, and what it covers."""

from datetime import UTC, datetime

import pytest

from proxy.schedules import last_due, last_whole, parse_schedule

BERLIN = "Europe/Berlin"


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "now", "due"),
    [
        ("daily 08:00", "UTC", "2026-11-18T07:59:59", "2026-11-17T08:00"),
        ("daily 08:00", "UTC", "2026-11-18T08:00", "2026-11-18T08:00"),
        ("Daily 00:00", BERLIN, "2026-11-18T12:00", "2026-11-17T23:00"),
        ("weekly monday 08:00", BERLIN, "2026-11-18T12:00", "2026-11-16T07:00"),
        ("weekly sunday 23:59", "UTC", "2026-11-18T12:00", "2026-11-15T23:59"),
        ("monthly 1 08:00", "UTC", "2026-11-18T12:00", "2026-11-01T08:00"),
        ("monthly 31 08:00", "UTC", "2026-11-18T12:00", "2026-10-31T08:00"),
        ("monthly 31 08:00", "UTC", "2027-03-02T12:00", "2027-02-28T08:00"),
        ("daily 02:30", BERLIN, "2026-03-29T12:00", "2026-03-29T01:30"),  # that time is skipped
        ("daily 02:30", BERLIN, "2026-10-25T12:00", "2026-10-25T00:30"),  # that one comes twice
    ],
)
def test_when_it_was_due_last(text, zone, now, due):
    assert last_due(parse_schedule(text), zone, at(now)) == at(due)


@pytest.mark.parametrize(
    "text",
    ["", "08:00", "daily", "daily 8:00", "daily 24:00", "daily monday 08:00", "weekly 08:00",
     "weekly someday 08:00", "monthly 0 08:00", "monthly 32 08:00", "hourly 08:00",
     "monthly ² 08:00"],
)  # fmt: skip
def test_what_is_no_schedule(text):
    with pytest.raises(ValueError, match="expected `daily 08:00`"):
        parse_schedule(text)


def test_what_a_report_covers():
    assert last_whole("day", BERLIN, at("2026-11-18T07:00")) == (
        at("2026-11-16T23:00"), at("2026-11-17T23:00"),
    )  # fmt: skip
    assert last_whole("quarter", "UTC", at("2026-11-18T07:00")) == (
        at("2026-07-01T00:00"), at("2026-10-01T00:00"),
    )  # fmt: skip
