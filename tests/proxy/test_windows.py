import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.windows import FOREVER, PERIODS, current_window

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # midnight skipped in spring
    "Africa/Cairo",  # midnight skipped in spring
    "America/St_Johns",  # clocks changed at 00:01 until 2011
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # no 2011-12-30
    "Asia/Kathmandu",  # +05:45
    "Asia/Kolkata",
    "America/Havana",
    "Asia/Gaza",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Pacific/Kiritimati",
)
CALENDAR = ("day", "week", "month", "quarter", "year")
instants = st.integers(
    int(datetime(2005, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(2037, 1, 1, tzinfo=UTC).timestamp()),
)
budgets = st.fixed_dictionaries(
    {
        "period": st.sampled_from([p for p in PERIODS if p not in ("request", "total")]),
        "timezone": st.sampled_from(ZONES),
        "week_start": st.integers(0, 6),
        "month_day": st.integers(1, 31),
    }
)


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


def local(instant: int, zone: str) -> datetime:
    return datetime.fromtimestamp(instant, ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def changes_near(instant: int, zone: str) -> list[int]:
    """Instants within two days at which the zone's offset changes."""
    info = ZoneInfo(zone)
    offsets = [
        (t, datetime.fromtimestamp(t, info).utcoffset())
        for t in range(instant - 172_800, instant + 172_800, 60)
    ]
    return [at for (_, before), (at, after) in itertools.pairwise(offsets) if before != after]


transitions = [
    change
    for zone, day in [
        ("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"),
        ("America/Santiago", "2026-09-06"), ("America/Santiago", "2026-04-05"),
        ("Africa/Cairo", "2026-04-24"), ("Africa/Cairo", "2026-10-30"),
        ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
        ("America/St_Johns", "2010-11-07"), ("America/St_Johns", "2010-03-14"),
        ("Pacific/Apia", "2011-12-31"), ("America/Havana", "2026-11-01"),
    ]
    for change in changes_near(at(day, zone), zone)
]  # fmt: skip
near_changes = st.builds(
    lambda change, delta: change + delta, st.sampled_from(transitions), st.integers(-7200, 7200)
)


@given(budget=budgets, now=instants | near_changes)
def test_a_window_contains_now_and_meets_its_neighbours(budget, now):
    start, end = current_window(**budget, now_s=now)
    assert start <= now < end
    for inside in (start, end - 1, (start + end) // 2):
        assert current_window(**budget, now_s=inside) == (start, end)
    assert current_window(**budget, now_s=start - 1)[1] == start
    assert current_window(**budget, now_s=end)[0] == end


@given(budget=budgets, now=instants | near_changes)
def test_a_window_begins_when_the_local_clock_says_so(budget, now):
    start, _ = current_window(**budget, now_s=now)
    zone = budget["timezone"]
    wall, just_before = local(start, zone), local(start - 1, zone)
    if budget["period"] in ("minute", "hour"):
        boundary = wall.replace(second=0)
        if budget["period"] == "hour":
            boundary = boundary.replace(minute=0)
        clock_changed = wall - just_before != timedelta(seconds=1)
        assert wall == boundary or clock_changed
        return
    midnight = wall.replace(hour=0, minute=0, second=0)
    assert just_before < midnight <= wall
    if wall != midnight:  # skipped
        assert wall - just_before > timedelta(seconds=1)
        return
    if zone == "Pacific/Apia" and wall.isoformat() == "2011-12-31T00:00:00":
        return  # may stand for the day before, which never was
    last_day = (wall.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    if budget["period"] == "week":
        assert wall.weekday() == budget["week_start"]
    if budget["period"] in ("month", "quarter", "year"):
        assert wall.day == min(budget["month_day"], last_day.day)
    if budget["period"] == "quarter":
        assert wall.month in (1, 4, 7, 10)
    if budget["period"] == "year":
        assert wall.month == 1


@given(now=instants, zone=st.sampled_from(ZONES))
def test_hours_are_never_longer_than_an_hour(now, zone):
    start, end = current_window("hour", zone, 0, 1, now)
    assert end - start <= 3600


@pytest.mark.parametrize(
    ("period", "zone", "now", "start", "end"),
    [
        ("minute", "UTC", "2026-05-01T12:34:56", "2026-05-01T12:34", "2026-05-01T12:35"),
        ("hour", "Asia/Kolkata", "2026-05-01T12:34:56", "2026-05-01T12:00", "2026-05-01T13:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("week", "UTC", "2026-05-01T00:00", "2026-04-27T00:00", "2026-05-04T00:00"),
        ("month", "UTC", "2026-02-14T00:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("quarter", "UTC", "2026-02-14T00:00", "2026-01-01T00:00", "2026-04-01T00:00"),
        ("year", "UTC", "2026-02-14T00:00", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("day", "America/Santiago", "2026-09-06T12:00", "2026-09-06T01:00", "2026-09-07T00:00"),
        ("day", "Africa/Cairo", "2026-04-24T12:00", "2026-04-24T01:00", "2026-04-25T00:00"),
        ("day", "Pacific/Apia", "2011-12-31T12:00", "2011-12-31T00:00", "2012-01-01T00:00"),
        ("day", "Pacific/Apia", "2011-12-29T12:00", "2011-12-29T00:00", "2011-12-31T00:00"),
    ],
)  # fmt: skip
def test_windows_of_the_local_clock(period, zone, now, start, end):
    window = current_window(period, zone, 0, 1, at(now, zone))
    assert window == (at(start, zone), at(end, zone))


@pytest.mark.parametrize(
    ("month_day", "now", "start", "end"),
    [
        (31, "2026-02-27", "2026-01-31", "2026-02-28"),
        (31, "2026-02-28", "2026-02-28", "2026-03-31"),
        (31, "2028-02-29", "2028-02-29", "2028-03-31"),
        (31, "2026-04-30", "2026-04-30", "2026-05-31"),
        (15, "2026-01-14", "2025-12-15", "2026-01-15"),
    ],
)
def test_month_days_beyond_a_short_month_are_its_last(month_day, now, start, end):
    assert current_window("month", "UTC", 0, month_day, at(now)) == (at(start), at(end))


def test_a_day_is_as_long_as_the_clock_makes_it():
    def hours(day: str, zone: str) -> float:
        start, end = current_window("day", zone, 0, 1, at(day + "T12:00", zone))
        return (end - start) / 3600

    assert hours("2026-03-29", "Europe/Berlin") == 23
    assert hours("2026-10-25", "Europe/Berlin") == 25
    assert hours("2026-04-05", "Australia/Lord_Howe") == 24.5
    assert hours("2026-10-04", "Australia/Lord_Howe") == 23.5


def test_an_hour_that_happens_twice_is_two_windows():
    zone = "America/New_York"
    first, second = (at("2026-11-01T01:30", zone, fold) for fold in (0, 1))
    assert (
        current_window("hour", zone, 0, 1, first)[1]
        == current_window("hour", zone, 0, 1, second)[0]
    )


def test_total_has_one_window():
    assert current_window("total", "UTC", 0, 1, 0) == (0, FOREVER)
    assert current_window("total", "Asia/Tokyo", 0, 1, 2_000_000_000) == (0, FOREVER)


@pytest.mark.parametrize("period", ["request", "fortnight"])
def test_what_has_no_window_says_so(period):
    with pytest.raises(ValueError, match=period):
        current_window(period, "UTC", 0, 1, 0)
