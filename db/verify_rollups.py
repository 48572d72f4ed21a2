"""Rollups are the sums of the rows they stand for, and days are those of their hours."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import Integer, func, literal_column, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from db.ledger_rollups import folded_until
from db.ledger_rows import ROLLUP_WHO
from db.models import Retention
from db.report_dimensions import DAY_MS, DAYS, HOUR_MS, ROLLUPS, ROWS, TOKENS, Source, expression
from db.retention import read_horizon
from db.streaming import stream
from db.verify_types import Finding

SUMS = (*TOKENS, "cost_nano", "provider_cost_nano", "drift_nano")


async def check_rollups(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """One by one since the horizon of retention; of all time, removed rows included, in total."""
    since_ms = await read_horizon(connection)
    rows = _sums(ROWS, "hour", "1").where(ROWS.time >= since_ms)
    hours = _sums(ROLLUPS, "hour", "-1").where(ROLLUPS.time >= since_ms // HOUR_MS)
    async for finding in _differences(connection, "hour", rows, hours, "rows"):
        yield finding
    if since_ms:
        async for finding in _check_total(connection):
            yield finding


async def check_days(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """Of all time: hourly rollups stay. There is none of a day that is not folded."""
    until = await connection.run_sync(folded_until) * DAY_MS // HOUR_MS
    hours = _sums(ROLLUPS, "day", "1").where(ROLLUPS.time < until)
    async for finding in _differences(connection, "day", hours, _sums(DAYS, "day", "-1"), "hours"):
        yield finding


async def _differences(
    connection: AsyncConnection, unit: str, ours: Any, theirs: Any, of: str
) -> AsyncGenerator[Finding, None]:
    both = union_all(ours, theirs).subquery()
    names = ("calls", "adjusted_nano", *SUMS)
    differences = [func.sum(both.c[name] * both.c.sign).label(name) for name in names]
    query = (
        select(both.c.time, *(both.c[name] for name in ROLLUP_WHO), *differences)
        .group_by(both.c.time, *(both.c[name] for name in ROLLUP_WHO))
        .having(or_(*(difference.element != 0 for difference in differences)))
    )
    async for row in stream(connection, query):
        wrong = ", ".join(
            f"{name} by {-int(getattr(row, name)):+d}" for name in names if getattr(row, name)
        )
        who = ", ".join(f"{name} {getattr(row, name)}" for name in ROLLUP_WHO)
        yield Finding("rollups", f"unix {unit} {row.time}, {who}", f"differ from {of}: {wrong}")


async def _check_total(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    runs: Any = Retention.__table__.c
    removed = select(func.sum(runs.calls), func.sum(runs.cost_nano))
    queries = [
        select(source.calls, func.sum(source.table.c.cost_nano)) for source in (ROLLUPS, ROWS)
    ]
    totals = [(await connection.execute(query)).one() for query in (*queries, removed)]
    rolled, there, gone = (tuple(int(value or 0) for value in row) for row in totals)
    for name, ours, left, lost in zip(("calls", "nano-USD"), rolled, there, gone, strict=True):
        if ours != left + lost:
            message = f"{ours} {name}, rows have {left} and had {lost} more that were removed"
            yield Finding("rollups", "all of them", message)


def _sums(source: Source, unit: str, sign: str) -> Any:
    time = expression(source, unit).label("time")
    who = [source.table.c[name] for name in ROLLUP_WHO]
    return select(
        time,
        *who,
        literal_column(sign, Integer).label("sign"),
        source.calls.label("calls"),
        source.adjusted.label("adjusted_nano"),
        *(func.coalesce(func.sum(source.table.c[name]), 0).label(name) for name in SUMS),
    ).group_by("time", *who)
