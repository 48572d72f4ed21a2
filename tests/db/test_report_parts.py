"""Whatever is read where, figures are those of the rows, to the nano-dollar."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.engine import open_engine
from db.ledger_rollups import fold_day, folded_until
from db.ledger_tags import fold_tags
from db.report_dimensions import DAYS, ROLLUPS, ROWS
from db.report_filters import Filters
from db.report_parts import Folded, Part, parts_of
from db.report_sums import COST, sums
from db.verify_rollups import check_days, check_rollups
from db.verify_tags import check_tags
from tests.db.zones import ZONES, between, label_of
from tests.factories import a_row, a_stored_key, a_uuid7, insert_rows, roll_up

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Clocks change on 29 March in Berlin, on 4 and 5 April in Santiago and on Lord Howe.
START_MS = int(datetime(2026, 3, 27, tzinfo=UTC).timestamp() * 1000)
START_DAY = START_MS // DAY_MS
DAYS_MAX = 12
TIMES = st.integers(0, DAYS_MAX * DAY_MS)
HOURS = st.integers(0, DAYS_MAX * 24).map(lambda hour: hour * HOUR_MS)
AMOUNTS = st.integers(0, 10**12)
NOTES = st.none() | st.fixed_dictionaries(
    {}, optional={"t": st.sampled_from(["x", "", "\u00e9:y"]), "u": st.just("z")}
)
CALLS = st.tuples(TIMES | HOURS, AMOUNTS, st.none() | AMOUNTS, st.sampled_from(["a", "b"]), NOTES)


def stored_calls(connection, made):
    """Calls as they arrive, after each lot a fold, and then the corrections of some of them."""
    key = a_stored_key(connection)
    stored = []
    for lot in made:
        rows, differences = [], []
        for after_ms, nano, adjusted, model, tags in lot:
            at = {"at_ms": START_MS + after_ms, "model": model, "tags": tags}
            rows.append(a_row(key, **at, cost_nano=nano))
            if adjusted is not None:
                at |= {"call_id": a_uuid7(START_MS + 90 * DAY_MS), "adjusts": rows[-1]["call_id"]}
                none = dict.fromkeys(("charged_requests", "input_tokens", "output_tokens"), 0)
                differences.append(a_row(key, **at, **none, cost_nano=adjusted - nano))
        insert_rows(connection, *rows)
        roll_up(connection, *rows)
        fold_day(connection, START_MS + (DAYS_MAX + 2) * DAY_MS)
        fold_tags(connection, START_MS + (DAYS_MAX + 2) * DAY_MS)  # of the first lots some calls
        if differences:
            insert_rows(connection, *differences)
            roll_up(connection, *differences)
        stored += rows + differences
    return stored


def tag_of(row):
    return (row["tags"] or {}).get("t")


def expected_sums(rows, times, name_of):
    """(calls, tokens, cost, adjustments) of each group."""
    since, until = times
    groups = defaultdict(lambda: [0, 0, 0, 0])
    for row in rows:
        if since <= row["at_ms"] < until:
            adjusts = row["adjusts"] is not None
            values = (not adjusts, row["input_tokens"], row["cost_nano"])
            of = groups[name_of(row)]
            for n, value in enumerate((*values, row["cost_nano"] if adjusts else 0)):
                of[n] += value
    return groups


def told(found, name_of):
    return {
        name_of(key): [values[0], values[1], values[COST], values[COST + 1]]
        for key, values in found.items()
    }


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(CALLS, min_size=1, max_size=9), min_size=1, max_size=3),
    st.sampled_from((*ZONES, "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati")),
    st.sampled_from(["hour", "day", "week", "month"]),
    st.tuples(TIMES | HOURS, TIMES | HOURS).filter(lambda times: times[0] != times[1]),
)
def test_all_paths_have_the_same_figures(migrated_sqlite, made, zone, granularity, times):
    since, until = (START_MS + after_ms for after_ms in sorted(times))

    async def ask(connection):
        rows = await connection.run_sync(stored_calls, made)
        filters = Filters(since, until)
        total = await sums(connection, ["model"], filters)
        assert told(total, lambda key: key) == expected_sums(
            rows, (since, until), lambda row: (row["model"],)
        )
        periods = between(granularity, zone, since, until)
        found = await sums(connection, ["model"], filters, periods)
        assert told(found, lambda key: (periods.periods[key[0]].label, key[1])) == expected_sums(
            rows, (since, until),
            lambda row: (label_of(granularity, zone, row["at_ms"]), row["model"]),
        )  # fmt: skip
        some = await sums(connection, ["model"], filters, periods, (COST,))
        assert some == {
            key: [value if place in (0, COST) else 0 for place, value in enumerate(values)]
            for key, values in found.items()
        }
        for where in ({}, {"tag:t": "x"}, {"tag:t": ""}):
            of_tag = await sums(
                connection, ["tag:t", "team"], Filters(since, until, where), periods
            )
            wanted = where.get("tag:t")
            some_rows = [row for row in rows if wanted in (None, tag_of(row))]
            assert told(
                of_tag, lambda key: (periods.periods[key[0]].label, key[1])
            ) == expected_sums(
                some_rows, (since, until),
                lambda row: (label_of(granularity, zone, row["at_ms"]), tag_of(row)),
            )  # fmt: skip
        for check in (check_rollups, check_days, check_tags):
            assert [finding async for finding in check(connection)] == []

    asyncio.run(undone(migrated_sqlite, ask))


async def undone(path, work):
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with engine.connect() as connection:
            return await work(connection)
    finally:
        await engine.dispose()


# --- which part is read where --------------------------------------------------------------

FOLDED = Folded(START_DAY + 10)
MIDNIGHT = START_MS + 2 * DAY_MS


def days(first, last):
    return Part(DAYS, MIDNIGHT + first * DAY_MS, MIDNIGHT + last * DAY_MS)


def test_whole_days_whole_hours_and_the_rest():
    since, until = MIDNIGHT - 90 * 60_000, MIDNIGHT + 3 * DAY_MS + 30 * 60_000
    assert parts_of({"team"}, Filters(since, until), None, FOLDED) == [
        days(0, 3),
        Part(ROLLUPS, MIDNIGHT - HOUR_MS, MIDNIGHT),
        Part(ROWS, since, MIDNIGHT - HOUR_MS),
        Part(ROWS, MIDNIGHT + 3 * DAY_MS, until),
    ]


def test_days_that_are_not_folded_are_read_by_the_hour():
    until = MIDNIGHT + 20 * DAY_MS
    filters = Filters(MIDNIGHT, until)
    assert parts_of({"day"}, filters, None, FOLDED) == [
        days(0, 8),
        Part(ROLLUPS, MIDNIGHT + 8 * DAY_MS, until),
    ]
    for folded in (0, START_DAY):
        assert parts_of({"day"}, filters, None, Folded(folded)) == [Part(ROLLUPS, MIDNIGHT, until)]


def test_of_all_time_there_is_no_begin_and_no_end():
    assert parts_of(set(), Filters(), None, FOLDED) == [
        Part(DAYS, None, START_MS + 10 * DAY_MS),
        Part(ROLLUPS, START_MS + 10 * DAY_MS, None),
    ]


@pytest.mark.parametrize("dimensions", [{"hour"}, {"team", "hour"}])
def test_hours_are_in_no_day(dimensions):
    filters = Filters(MIDNIGHT, MIDNIGHT + 3 * DAY_MS)
    assert parts_of(dimensions, filters, None, FOLDED) == [
        Part(ROLLUPS, MIDNIGHT, MIDNIGHT + 3 * DAY_MS)
    ]


@pytest.mark.parametrize(
    ("zone", "of_day"),
    [
        ("UTC", []),
        ("Europe/Berlin", [23]),  # before the change of clocks, then 22 and 23
        ("Asia/Tokyo", range(15, 24)),
        ("America/New_York", range(4)),
    ],
)
def test_only_the_hours_that_are_in_another_day_are_read(zone, of_day):
    filters = Filters(START_MS, START_MS + 2 * DAY_MS)
    periods = between("day", zone, filters.since_ms, filters.until_ms)
    first, *others = parts_of({"team"}, filters, periods, FOLDED)
    assert first == Part(DAYS, *filters_times(filters))
    hours = [
        day * 24 + hour for day in (START_DAY, START_DAY + 1) for hour in of_day
    ]  # fmt: skip
    assert others == ([Part(ROLLUPS, *filters_times(filters), hours)] if hours else [])


@pytest.mark.parametrize(
    ("zone", "low_minutes", "length_minutes", "of_day"),
    [("Asia/Kolkata", 18 * 60 + 30, 30, range(19, 24)),
     ("Asia/Kathmandu", 18 * 60 + 15, 45, range(19, 24)),
     ("America/St_Johns", 2 * 60 + 30, 30, range(3))],
)  # fmt: skip
def test_of_cut_hours_only_the_rest_is_read_from_rows(zone, low_minutes, length_minutes, of_day):
    filters = Filters(START_MS, START_MS + 2 * DAY_MS)
    periods = between("day", zone, filters.since_ms, filters.until_ms)
    whole, hours, edges = parts_of({"team"}, filters, periods, FOLDED)
    assert whole == Part(DAYS, *filters_times(filters))
    found = [day * 24 + hour for day in (START_DAY, START_DAY + 1) for hour in of_day]
    assert hours == Part(ROLLUPS, *filters_times(filters), found)
    lows = [START_MS + day * DAY_MS + low_minutes * 60_000 for day in range(2)]
    pairs = [(low, low + length_minutes * 60_000) for low in lows]
    assert edges == Part(ROWS, pairs[0][0], pairs[-1][1], edges=pairs)


def test_hours_that_are_all_cut_are_read_from_rows():
    filters = Filters(START_MS, START_MS + DAY_MS)
    periods = between("hour", "Asia/Kolkata", filters.since_ms, filters.until_ms)
    assert parts_of({"team"}, filters, periods, FOLDED) == [Part(ROWS, *filters_times(filters))]


def filters_times(filters):
    return filters.since_ms, filters.until_ms


def test_nothing_is_folded_at_first(migrated_sqlite):
    folded = asyncio.run(undone(migrated_sqlite, lambda c: c.run_sync(folded_until)))
    assert folded == 0
