"""Why calls were refused: counts of every host, and the newest calls of this one."""

from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.errors import DatabaseError
from db.refusals import RefusedSum, refusal_sums
from proxy.control.dashboard.reasons import by_kind
from proxy.control.dashboard.site import Visit

HOUR_MS = 3_600_000
PERIODS = {"24h": ("24 hours", 24), "7d": ("7 days", 7 * 24), "30d": ("30 days", 30 * 24)}
GROUPED = ("organization", "team", "key", "provider", "model", "code", "scope")
GROUPS_MAX = 100
NEWEST_MAX = 100
TEXT_MAX = 64

Counts = tuple[Sequence[RefusedSum], Sequence[RefusedSum]]  # by code; alike, of those asked for


async def listed(visit: Visit) -> Response:
    query = visit.request.query_params
    wanted = query.get("code", "")[:TEXT_MAX]
    period = query.get("since", "")
    if period not in PERIODS:
        period = "24h"
    counts = await _counts(visit, wanted, PERIODS[period][1] * HOUR_MS)
    newest = visit.backend.control.refusals.newest(visit.identity.sees)
    rows = [each for each in newest if not wanted or each.code == wanted]
    return visit.page(
        "refusals.html",
        periods=PERIODS,
        period=period,
        wanted=wanted,
        known=counts is not None,
        kinds=by_kind([(each.group[0], each.calls) for each in counts[0]] if counts else []),
        groups=counts[1] if counts else (),
        groups_max=GROUPS_MAX,
        rows=rows[:NEWEST_MAX],
        more=len(rows) - NEWEST_MAX,
    )


async def _counts(visit: Visit, wanted: str, back_ms: int) -> Counts | None:
    """None: the ledger is out of reach, which is itself a reason to look at this page."""
    now_ms = visit.backend.now_ms
    where = visit.identity.narrow({})
    of_code = {**where, "code": wanted} if wanted else where

    async def ask(connection: AsyncConnection) -> Counts:
        times = (now_ms - back_ms, now_ms + 1)
        return (
            await refusal_sums(connection, ("code",), *times, where),
            await refusal_sums(connection, GROUPED, *times, of_code, GROUPS_MAX),
        )

    try:
        return await visit.backend.read(ask)
    except (DatabaseError, SQLAlchemyError, OSError):
        return None
