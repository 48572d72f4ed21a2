"""Open calls: each is settled once, by the correction its object names."""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.journal_records import CHARGED_AT_HOLD
from db.models import ProviderObject, UsageCost
from db.streaming import stream
from db.verify_types import Finding, call_name


async def check_objects(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    call, correction = aliased(UsageCost), aliased(UsageCost)
    query = (
        select(
            ProviderObject.kind,
            ProviderObject.object_id,
            ProviderObject.call_id,
            ProviderObject.adjustment_id,
            ProviderObject.ready,
            ProviderObject.result,
            call.ending,
            call.adjusts.label("of_call"),
            correction.adjusts,
        )
        .join(call, ProviderObject.call_id == call.call_id)
        .join(correction, ProviderObject.adjustment_id == correction.call_id, isouter=True)
    )
    async for row in stream(connection, query):
        problem = _problem(row)
        if problem:
            yield Finding("I4", call_name(row.call_id), f"{row.kind} {row.object_id}: {problem}")


def _problem(row: Any) -> str | None:
    if row.ending not in CHARGED_AT_HOLD or row.of_call is not None:
        return "was made by a row that is no open call"
    if row.adjustment_id is not None and row.adjusts != row.call_id:
        return "is settled by a row that does not correct its call"
    if row.adjustment_id is None and row.ready and row.result is None:
        return "is ready without its usage"
    return None
