"""Calls page by page, the newest first."""

from typing import Any, NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import UsageCost
from db.report_dimensions import ROWS, from_clause
from db.report_filters import Filters
from db.report_sums import conditions
from db.reports import call_of, calls_query
from db.retention import require_rows


class Place(NamedTuple):
    """Of a row in the order of time."""

    at_ms: int
    call_id: bytes


async def call_page(
    connection: AsyncConnection, filters: Filters, limit: int, before: Place | None = None
) -> list[tuple[Place, dict[str, Any]]]:
    """Cost rows as `reports.calls` has them, those older than `before`, while there are any.
    Raises ReportError."""
    if filters.since_ms is not None:
        await require_rows(connection, filters.since_ms, "a list of calls")
    # Rows are picked from the index by time before anything is joined to them, by a query of its
    # own: a planner that may do it the other way round reads the whole ledger.
    query = (
        select(UsageCost.call_id)
        .select_from(from_clause(ROWS, filters.where))
        .where(*await conditions(connection, ROWS, filters))
    )
    if before is not None:  # the first part is what the index by time can be used for
        older = or_(UsageCost.at_ms < before.at_ms, UsageCost.call_id < before.call_id)
        query = query.where(and_(UsageCost.at_ms <= before.at_ms, older))
    newest_first = (UsageCost.at_ms.desc(), UsageCost.call_id.desc())
    picked = (await connection.execute(query.order_by(*newest_first).limit(limit))).scalars().all()
    page = calls_query().where(UsageCost.call_id.in_(picked))
    rows = await connection.execute(page.order_by(*newest_first))
    return [(Place(row.at_ms, row.call_id), call_of(row)) for row in rows]
