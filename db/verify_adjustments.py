"""Adjustments: each names its call's price before and after, and is charged where its run says."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.models import CostAdjustment, ModelCost, Repricing, UsageCost
from db.streaming import stream
from db.verify_types import Finding, call_name


async def check_adjustments(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """In the order of calls, and of each call's adjustments."""
    before: Any = None
    async for row in stream(connection, _query()):
        same_call = before is not None and before.adjusts == row.adjusts
        for invariant, message in _problems(row, before if same_call else None):
            yield Finding(invariant, call_name(row.call_id), message)
        before = row


def _query() -> Any:
    call = aliased(UsageCost)
    return (
        select(
            UsageCost.call_id,
            UsageCost.adjusts,
            UsageCost.price_id,
            UsageCost.charge_set_id,
            call.price_id.label("first_price_id"),
            call.charge_set_id.label("of_call"),
            CostAdjustment.call_id.label("named"),
            CostAdjustment.from_price_id,
            CostAdjustment.to_price_id,
            CostAdjustment.repricing_id,
            Repricing.restated,
            Repricing.price_version_id.label("asked_version"),
            ModelCost.price_version_id.label("version"),
        )
        .join(call, UsageCost.adjusts == call.call_id)
        .join(CostAdjustment, CostAdjustment.call_id == UsageCost.call_id, isouter=True)
        .join(Repricing, CostAdjustment.repricing_id == Repricing.id, isouter=True)
        .join(ModelCost, UsageCost.price_id == ModelCost.id, isouter=True)
        .where(UsageCost.adjusts.is_not(None))
        .order_by(UsageCost.adjusts, UsageCost.call_id)
    )


def _problems(row: Any, before: Any) -> Iterator[tuple[str, str]]:
    if row.named is None:
        yield "I5", "is an adjustment that names no prices"
        return
    if row.to_price_id != row.price_id:
        yield "I5", f"is an adjustment to price {row.to_price_id}, its row has {row.price_id}"
    # A correction may be two rows, the second one taking back what budgets were not charged.
    known = {row.first_price_id} if before is None else {before.price_id, before.from_price_id}
    if row.from_price_id not in known:
        yield "I5", f"is an adjustment from price {row.from_price_id}, which was {min(known)}"
    if row.repricing_id is not None and row.version != row.asked_version:
        yield "I5", f"is of price version {row.version}, its repricing of {row.asked_version}"
    if row.charge_set_id is not None and row.charge_set_id != row.of_call:
        yield "I3", "is an adjustment that charges other windows than its call"
    if row.restated is False and row.charge_set_id is not None:
        yield "I3", "charges budgets, its repricing was to leave them as they were"


async def check_repricings(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """A run tells what its adjustments sum up to; what is named one, is one."""
    sums = (
        select(
            CostAdjustment.repricing_id,
            func.count(UsageCost.adjusts.distinct()).label("calls"),
            func.sum(UsageCost.cost_nano).label("nano"),
        )
        .join(UsageCost, UsageCost.call_id == CostAdjustment.call_id)
        .group_by(CostAdjustment.repricing_id)
        .subquery()
    )
    query = select(Repricing.__table__, sums.c.calls, sums.c.nano).join(
        sums, sums.c.repricing_id == Repricing.id, isouter=True
    )
    async for row in stream(connection, query):
        said = (row.calls_adjusted, row.adjusted_nano)
        found = (row.pruned_calls + int(row.calls or 0), row.pruned_nano + int(row.nano or 0))
        if said != found:
            message = f"says {said[0]} calls, {said[1]} nano-USD; its rows {found[0]}, {found[1]}"
            yield Finding("I5", f"repricing {row.id}", message)
    orphans = (
        select(CostAdjustment.call_id)
        .join(UsageCost, UsageCost.call_id == CostAdjustment.call_id)
        .where(UsageCost.adjusts.is_(None))
    )
    async for row in stream(connection, orphans):
        yield Finding("I5", call_name(row.call_id), "is named an adjustment and adjusts no call")
