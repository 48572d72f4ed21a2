"""Rollups are the sums of the rows they stand for."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import func, literal_column, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from db.report_dimensions import ROLLUPS, ROWS, TOKENS, Source, expression
from db.streaming import stream
from db.verify_types import Finding

WHO = ("key_id", "organization_id", "team_id", "project_id", "user_id", "provider", "model")
SUMS = (*TOKENS, "cost_nano", "provider_cost_nano", "drift_nano")


async def check_rollups(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    both = union_all(_sums(ROWS, "1"), _sums(ROLLUPS, "-1")).subquery()
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


def _sums(source: Source, sign: str) -> Any:
    hour = expression(source, "hour").label("hour")
    who = [source.table.c[name] for name in WHO]
    return select(
        hour,
        *who,
        literal_column(sign).label("sign"),
        source.calls.label("calls"),
        source.adjusted.label("adjusted_nano"),
        *(func.coalesce(func.sum(source.table.c[name]), 0).label(name) for name in SUMS),
    ).group_by("hour", *who)
