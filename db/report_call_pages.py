"""Calls page by page, the newest first."""

from typing import Any, NamedTuple

from sqlalchemy import and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import UsageCost
from db.report_dimensions import ROWS
from db.report_filters import Filters
from db.report_sums import conditions
from db.reports import call_of, calls_query


class Place(NamedTuple):
    """Of a row in the order of time."""

    at_ms: int
    call_id: bytes


async def call_page(
    connection: AsyncConnection, filters: Filters, limit: int, before: Place | None = None
) -> list[tuple[Place, dict[str, Any]]]:
    """Cost rows as `reports.calls` has them, those older than `before`. Raises ReportError."""
    query = calls_query().where(*await conditions(connection, ROWS, filters))
    if before is not None:  # the first part is what the index by time can be used for
        older = or_(UsageCost.at_ms < before.at_ms, UsageCost.call_id < before.call_id)
        query = query.where(and_(UsageCost.at_ms <= before.at_ms, older))
    query = query.order_by(UsageCost.at_ms.desc(), UsageCost.call_id.desc()).limit(limit)
    rows = await connection.execute(query)
    return [(Place(row.at_ms, row.call_id), call_of(row)) for row in rows]
