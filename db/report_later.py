"""Calls that were charged their hold and turned out to cost more once the provider told."""

from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.models import ProviderObject, UsageCost
from db.retention import first_id
from db.statements import table_of

_CALLS = table_of(UsageCost).alias("call")
_CORRECTIONS = table_of(UsageCost).alias("correction")
_OBJECTS = table_of(ProviderObject)


class AboveHold(NamedTuple):
    """Of a model: how many calls, and by how much all together, in nano-USD."""

    provider: str
    model: str
    calls: int
    above_nano: int


async def above_hold(
    connection: AsyncConnection, since_ms: int, until_ms: int, limit: int
) -> list[AboveHold]:
    """Batches and background responses that were settled in [since_ms, until_ms), by model; those
    of most money first, so many of them."""
    above = func.sum(_CORRECTIONS.c.cost_nano)
    settled: Any = _OBJECTS.c.adjustment_id  # its id begins with the time of settling
    query = (
        select(_CALLS.c.provider, _CALLS.c.model, func.count(), above)
        .select_from(_OBJECTS)
        .join(_CORRECTIONS, _CORRECTIONS.c.call_id == settled)
        .join(_CALLS, _CALLS.c.call_id == _OBJECTS.c.call_id)
        .where(
            settled >= first_id(since_ms),
            settled < first_id(until_ms),
            _CORRECTIONS.c.cost_nano > 0,
        )
        .group_by(_CALLS.c.provider, _CALLS.c.model)
        .order_by(above.desc(), _CALLS.c.provider, _CALLS.c.model)
        .limit(limit)
    )
    rows = await connection.execute(query)
    return [AboveHold(row[0], row[1], int(row[2]), int(row[3])) for row in rows]
