"""Sums per period of a time zone: the same as counting each call by its own local time."""

import re
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product

import pytest
from sqlalchemy import event

from db import report_sums
from db.engine import reader
from db.errors import ReportError
from db.models import UsageCost
from db.report_filters import Filters
from db.report_periods import PERIODS_MAX
from db.report_sums import COST, group_fields, sums, time_span
from db.verify import verify
from tests.db.zones import ZONES, between, label_of
from tests.factories import NOW_MS, a_row, a_stored_key, a_stored_price, insert_rows, roll_up

HOUR_MS = 3_600_000
START = int(datetime(2026, 2, 20, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
async def connection(engine):
    async with reader(engine).connect() as connection:
        yield connection


@pytest.fixture
async def rows(write):
    """A call every 95 minutes, through the changes of clocks in March and April, rolled up."""
    key = await write(a_stored_key)
    price_id = await write(a_stored_price)
    rows = [
        a_row(key, at_ms=START + n * 95 * 60_000, price_id=price_id, model=f"gpt-{n % 2}")
        for n in range(800)
    ]
    await write(insert_rows, *rows)
    await write(roll_up, *rows)
    return rows


def expected_sums(rows, granularity, zone, since, until):
    """Calls and cost by label of the period and model, each call by itself."""
    expected = defaultdict(lambda: [0, 0])
    for row in rows:
        if since <= row["at_ms"] < until:
            of = expected[label_of(granularity, zone, row["at_ms"]), row["model"]]
            of[0] += 1
            of[1] += row["cost_nano"]
    return expected


async def test_each_call_is_in_the_period_of_its_local_time(connection, rows):
    since, until = START + 12_345, START + 790 * 95 * 60_000
    for granularity, zone in product(("hour", "day", "week", "month"), ZONES):
        periods = between(granularity, zone, since, until)
        found = await sums(connection, ["model"], Filters(since, until), periods)
        named = {
            (periods.periods[number].label, model): [values[0], values[COST]]
            for (number, model), values in found.items()
        }
        expected = expected_sums(rows, granularity, zone, since, until)
        assert named == expected, (granularity, zone)


async def test_the_ledger_that_reports_read_verifies(engine, connection, rows):
    assert await verify(engine) == []
    total = await sums(connection, [])
    assert total[()][COST] == sum(row["cost_nano"] for row in rows)
    by_day = await sums(connection, [], Filters(), between("day", "Asia/Kathmandu", *span_of(rows)))
    assert sum(values[COST] for values in by_day.values()) == total[()][COST]


def span_of(rows):
    return rows[0]["at_ms"], rows[-1]["at_ms"] + 1


@pytest.mark.parametrize(("zone", "edges"), [("Europe/Berlin", 0), ("Asia/Kolkata", 40)])
async def test_of_rows_only_those_beside_a_periods_begin_are_read(
    engine, connection, rows, zone, edges
):
    since, until = START, START + 40 * 24 * HOUR_MS
    periods = between("day", zone, since, until)
    assert len(periods.edges(since, until)) == edges
    with statements_of(engine) as seen:
        found = await sums(connection, [], Filters(since, until), periods)
    assert len(found) >= 40
    of_rows = [each for each in seen if UsageCost.__tablename__ in each[0]]
    assert len(of_rows) == bool(edges)
    for statement, parameters in of_rows:  # a look into the index for each edge
        plan = await plan_of(connection, statement, parameters)
        assert re.search(
            r"SEARCH ai_usage_costs .*\(at_ms>\? AND|Index Cond: \(\(at_ms >= ", plan
        ), plan


@contextmanager
def statements_of(engine):
    seen = []

    def record(_connection, _cursor, statement, parameters, *_):
        seen.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    yield seen
    event.remove(engine.sync_engine, "before_cursor_execute", record)


async def plan_of(connection, statement, parameters):
    explain = "EXPLAIN QUERY PLAN"
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN"
    rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


async def test_autumn_has_one_hour_twice(write, connection):
    key = await write(a_stored_key)
    change = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp() * 1000)
    rows = [a_row(key, at_ms=change + n * HOUR_MS) for n in (-1, 0)]
    await write(insert_rows, *rows)
    await write(roll_up, *rows)
    since, until = change - 2 * HOUR_MS, change + 2 * HOUR_MS
    periods = between("hour", "Europe/Berlin", since, until)
    found = await sums(connection, [], Filters(since, until), periods)
    assert [periods.periods[number].label for (number,) in sorted(found)] == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
    ]


async def test_the_span_is_what_rows_and_rollups_know(engine, write):
    async def span():
        async with reader(engine).connect() as connection:
            return await time_span(connection)

    assert await span() is None
    key = await write(a_stored_key)
    early, late = a_row(key, at_ms=NOW_MS + 5), a_row(key, at_ms=NOW_MS + 9 * HOUR_MS + 7)
    await write(insert_rows, late)
    assert await span() == (late["at_ms"], late["at_ms"] + 1)
    await write(roll_up, early)
    assert await span() == (NOW_MS, late["at_ms"] + 1)


async def test_too_many_groups_are_refused(connection, rows, monkeypatch):
    monkeypatch.setattr(report_sums, "GROUPS_MAX", 1)
    with pytest.raises(ReportError, match="more than 1 groups"):
        await sums(connection, ["model"])


def test_too_many_periods_are_refused():
    with pytest.raises(ReportError, match=f"more than {PERIODS_MAX} periods"):
        between("hour", "UTC", 0, (PERIODS_MAX + 5) * HOUR_MS)


def test_an_unknown_granularity_is_named():
    with pytest.raises(ReportError, match="no such granularity: 'decade'"):
        between("decade", "UTC", 0, 1000)


def test_the_fields_of_a_group():
    fields = group_fields([2, 10, 0, 0, 5, 0, 1_500, -500, 0, 0])
    assert (fields["calls"], fields["output_tokens"]) == (2, 5)
    assert (fields["cost_usd"], fields["original_usd"]) == ("0.0000015", "0.000002")
