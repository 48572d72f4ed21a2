"""Reading calls to be repriced: pages in the order of time, each a transaction of its own.

Pages follow each other by key, so memory and the cost of a page do not grow with the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Text, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import reader
from db.ledger_types import Read
from db.models import UsageCost
from db.statements import table_of

PAGE_CALLS = 2_000

_COSTS = table_of(UsageCost)
_NAMES = (
    "call_id", "at_ms", "team_id", "charge_set_id", "provider", "model", "ending", "usage_source",
    "price_id", "cost_nano", "flags",
)  # fmt: skip
_COLUMNS = (*(_COSTS.c[name] for name in _NAMES), cast(_COSTS.c.usage, Text).label("usage"))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls: [since, until) in unix milliseconds, of these teams (none: of all)."""

    since_ms: int | None
    until_ms: int
    team_ids: tuple[int, ...] = ()

    def conditions(self, after: Read | None) -> list[Any]:
        """One lower bound: with two an engine may take the wrong one for its index."""
        at_ms = _COSTS.c.at_ms
        conditions = [_COSTS.c.adjusts.is_(None), at_ms < self.until_ms]
        if after is not None:
            later = or_(at_ms > after.at_ms, _COSTS.c.call_id > after.call_id)
            conditions += [at_ms >= after.at_ms, later]
        elif self.since_ms is not None:
            conditions.append(at_ms >= self.since_ms)
        if self.team_ids:
            conditions.append(_COSTS.c.team_id.in_(self.team_ids))
        return conditions


class StoredCall(NamedTuple):
    """A call as its last row has it, with the sum of its costs."""

    call_id: bytes
    at_ms: int
    team_id: int
    charge_set_id: int | None
    provider: str
    model: str  # as requested
    ending: str
    usage_source: str
    price_id: int | None
    cost_nano: int
    flags: int
    usage: str | None  # JSON
    kept_nano: int = 0  # of the cost: adjustments that budgets were not charged


async def count_calls(engine: AsyncEngine, selection: Selection, after: Read | None) -> int:
    query = select(func.count()).select_from(_COSTS).where(*selection.conditions(after))
    async with reader(engine).connect() as connection:
        return int((await connection.execute(query)).scalar_one())


async def read_page(
    engine: AsyncEngine, selection: Selection, after: Read | None
) -> list[StoredCall]:
    """The next calls, in the order of (at_ms, call_id); none: that was all."""
    async with reader(engine).connect() as connection:
        rows = (await connection.execute(page_query(selection, after))).all()
        if not rows:
            return []
        adjustments = (await connection.execute(_adjustments([row[0] for row in rows]))).all()
    calls = [StoredCall(*row) for row in rows]
    return _adjusted(calls, adjustments) if adjustments else calls


def page_query(selection: Selection, after: Read | None) -> Any:
    return (
        select(*_COLUMNS)
        .where(*selection.conditions(after))
        .order_by(_COSTS.c.at_ms, _COSTS.c.call_id)
        .limit(PAGE_CALLS)
    )


def _adjustments(call_ids: Sequence[bytes]) -> Any:
    """In the order of their ids, so that the last one of a call comes last. Ids are in the order
    of time, as pages are, so a range of them has few that are not of the page."""
    adjusts = _COSTS.c.adjusts
    query = select(adjusts, *_COLUMNS).where(adjusts.between(min(call_ids), max(call_ids)))
    return query.order_by(_COSTS.c.call_id)


def _adjusted(calls: list[StoredCall], adjustments: Sequence[Any]) -> list[StoredCall]:
    by_id = {call.call_id: call for call in calls}
    for row in adjustments:
        call = by_id.get(row.adjusts)
        if call is None:
            continue
        kept = row.cost_nano if row.charge_set_id != call.charge_set_id else 0
        by_id[row.adjusts] = call._replace(
            ending=row.ending,
            usage_source=row.usage_source,
            price_id=row.price_id,
            usage=row.usage,
            flags=row.flags,
            cost_nano=call.cost_nano + row.cost_nano,
            kept_nano=call.kept_nano + kept,
        )
    return list(by_id.values())
