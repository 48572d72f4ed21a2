"""Invariants I1 to I3, and what of I4 the database alone can tell."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.models import Budget, ChargeSetWindow, Epoch, Lease, PrunedCharges, UsageCost, Window
from db.raises import extremes, spans
from db.streaming import stream
from db.verify_charges import FLAGGED, SUMS, row_sums
from db.verify_types import Finding, call_name
from pricing.money import usd_from_nano


async def check_windows(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """I1 and I3 of each window."""
    raises = await connection.run_sync(spans)
    async for row in stream(connection, _windows_query()):
        raised = extremes(raises.get(row.budget_id, ()), row.starts_at * 1000)[1]
        for invariant, message in _window_problems(row, raised):
            subject = f"window {row.id} ({row.identity}, from {row.starts_at})"
            yield Finding(invariant, subject, message)


def _windows_query() -> Any:
    """Each window with the sums of its leases and of the rows charged to it.

    Rows are summed per charge set first: few sets, many rows. Those that were removed left sums.
    """
    rows = row_sums().group_by(UsageCost.charge_set_id)
    carried = select(PrunedCharges.charge_set_id, *(getattr(PrunedCharges, name) for name in SUMS))
    sets = union_all(rows, carried).subquery()
    charges = (
        select(
            ChargeSetWindow.window_id,
            *(func.sum(sets.c[name]).label(name) for name in SUMS),
        )
        .join(sets, sets.c.charge_set_id == ChargeSetWindow.charge_set_id)
        .group_by(ChargeSetWindow.window_id)
        .subquery()
    )
    leases = (
        select(
            Lease.window_id,
            func.sum(Lease.granted).label("granted"),
            func.sum(Lease.spent).label("spent"),
        )
        .group_by(Lease.window_id)
        .subquery()
    )
    return (
        select(
            Window.__table__,
            Budget.identity,
            Budget.unit,
            Budget.limit_value,
            leases.c.granted,
            leases.c.spent,
            *(charges.c[name] for name in SUMS),
        )
        .join(Budget, Window.budget_id == Budget.id)
        .join(leases, leases.c.window_id == Window.id, isouter=True)
        .join(charges, charges.c.window_id == Window.id, isouter=True)
        .order_by(Window.id)
    )


def _window_problems(row: Any, raised_most: int) -> Iterator[tuple[str, str]]:
    granted, spent = int(row.granted or 0), int(row.spent or 0)
    charged, flagged, raised = (
        int(getattr(row, f"{kind}{row.unit}") or 0) for kind in ("", "flagged_", "raised_")
    )
    # What was granted while a raise was in force stays when it has ended.
    bound = max(row.limit_value + row.extra + raised_most, row.lowered_from)
    # Adjustments are booked whatever the limit: the calls were made. One upwards may follow when
    # the room that one downwards made was leased, so only those upwards count.
    leased = row.committed - row.overage - raised
    if leased > bound:
        yield "I1a", f"{leased} {row.unit} are committed and not overage, its limit is {bound}"
    if row.overage > flagged:
        yield "I1c", f"overage is {row.overage} {row.unit}, flagged calls explain {flagged}"
    if row.committed != granted:
        yield "I3", f"{row.committed} {row.unit} are committed, its leases sum up to {granted}"
    if spent != charged:
        yield "I3", f"its leases spent {spent} {row.unit}, calls were charged {charged}"


async def check_leases(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """I2: a lease spends no more than it was granted."""
    query = select(Lease.__table__).where(Lease.spent > Lease.granted)
    async for row in stream(connection, query):
        yield Finding(
            "I2",
            f"lease of epoch {row.epoch_id} in window {row.window_id}",
            f"spent {row.spent} of {row.granted} granted",
        )


async def check_epochs(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """A closed epoch has given back what it did not spend."""
    query = (
        select(Lease.__table__)
        .join(Epoch, Lease.epoch_id == Epoch.id)
        .where(Epoch.state == "closed", Lease.granted != Lease.spent)
    )
    async for row in stream(connection, query):
        yield Finding(
            "I4",
            f"lease of epoch {row.epoch_id} in window {row.window_id}",
            f"its epoch is closed, but it keeps {row.granted - row.spent} it did not spend",
        )


async def check_rows(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """What a single row says of itself: a cost above its hold is flagged (I1c), and a correction
    corrects a call."""
    unflagged = select(UsageCost.call_id, UsageCost.cost_nano, UsageCost.hold_nano).where(
        UsageCost.cost_nano > UsageCost.hold_nano, UsageCost.adjusts.is_(None), ~FLAGGED
    )
    async for row in stream(connection, unflagged):
        cost, hold = usd_from_nano(row.cost_nano), usd_from_nano(row.hold_nano)
        message = f"cost {cost} USD with a hold of {hold}, and is not flagged"
        yield Finding("I1c", call_name(row.call_id), message)
    corrected = aliased(UsageCost)
    chained = (
        select(UsageCost.call_id)
        .join(corrected, UsageCost.adjusts == corrected.call_id)
        .where(corrected.adjusts.is_not(None))
    )
    async for row in stream(connection, chained):
        yield Finding("I4", call_name(row.call_id), "corrects a correction instead of a call")


async def check_references(connection: AsyncConnection) -> AsyncGenerator[Finding, None]:
    """Foreign keys can be off on SQLite; PostgreSQL keeps them always."""
    if connection.dialect.name == "sqlite":
        rows: Any = await connection.exec_driver_sql("PRAGMA foreign_key_check")
        for row in rows:
            yield Finding("references", f"{row[0]} row {row[1]}", f"refers to no row of {row[2]}")
