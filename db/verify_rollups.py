"""Rollups are the sums of the rows they stand for."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import func, literal_column, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import Retention
from db.report_dimensions import ROLLUPS, ROWS, TOKENS, Source, expression
from db.retention import read_horizon
from db.streaming import stream
from db.verify_types import Finding

WHO = ("key_id", "organization_id", "team_id", "project_id", "user_id", "provider", "model")
SUMS = (*TOKENS, "cost_nano", "provider_cost_nano", "drift_nano")


async def check_rollups(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """One by one since the horizon of retention; of all time, removed rows included, in total."""
    since_ms = await read_horizon(connection)
    both = union_all(_sums(ROWS, "1", since_ms), _sums(ROLLUPS, "-1", since_ms)).subquery()
    names = ("calls", "adjusted_nano", *SUMS)
    differences = [func.sum(both.c[name] * both.c.sign).label(name) for name in names]
    query = (
        select(both.c.hour, *(both.c[name] for name in WHO), *differences)
        .group_by(both.c.hour, *(both.c[name] for name in WHO))
        .having(or_(*(difference.element != 0 for difference in differences)))
    )
    async for row in stream(connection, query):
        wrong = ", ".join(
            f"{name} by {-int(getattr(row, name)):+d}" for name in names if getattr(row, name)
        )
        who = ", ".join(f"{name} {getattr(row, name)}" for name in WHO)
        yield Finding("rollups", f"unix hour {row.hour}, {who}", f"differ from rows: {wrong}")
    if since_ms:
        async for finding in _check_total(connection):
            yield finding


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


def _sums(source: Source, sign: str, since_ms: int) -> Any:
    hour = expression(source, "hour").label("hour")
    who = [source.table.c[name] for name in WHO]
    return (
        select(
            hour,
            *who,
            literal_column(sign).label("sign"),
            source.calls.label("calls"),
            source.adjusted.label("adjusted_nano"),
            *(func.coalesce(func.sum(source.table.c[name]), 0).label(name) for name in SUMS),
        )
        .where(source.time >= since_ms // source.unit_ms)
        .group_by("hour", *who)
    )
