"""Corrections: read what a call has cost so far, and insert the difference. Moves no money."""

from typing import Any

from sqlalchemy import Connection, func, or_, select

from db.ledger_rows import SUMMED, Row, correction_row, rollups
from db.ledger_types import Correction, LedgerError
from db.models import Budget, ChargeSetWindow, UsageCost, Window
from db.references import References
from db.statements import INSERT_COSTS, UPSERT_ROLLUPS, table_of


class UnknownCall(LedgerError):
    """A correction of a call that has no row."""


def insert_correction(
    connection: Connection, references: References, correction: Correction, host_id: str
) -> Row | None:
    """The row of differences; None: it was there already. Raises UnknownCall."""
    costs = table_of(UsageCost)
    query = select(costs).where(costs.c.call_id == correction.adjusts).with_for_update()
    original = connection.execute(query).mappings().first()
    if original is None:
        raise UnknownCall(f"call {correction.adjusts.hex()} has no row")
    sums = select(*(func.sum(costs.c[name]).label(name) for name in SUMMED)).where(
        or_(costs.c.call_id == correction.adjusts, costs.c.adjusts == correction.adjusts)
    )
    so_far = {name: int(value) for name, value in connection.execute(sums).mappings().one().items()}
    price_id = references.price_id(connection, correction.price_version, correction.model)
    row = correction_row(dict(original), so_far, correction, price_id)
    if INSERT_COSTS.one(connection, row).rowcount == 0:
        return None
    UPSERT_ROLLUPS.many(connection, rollups([row], host_id, calls=0))
    return row


def charged_windows(connection: Connection, charge_set_id: int | None) -> list[tuple[int, Any]]:
    """(window id, unit of its budget), in the order of ids."""
    query = (
        select(Window.id, Budget.unit)
        .join(ChargeSetWindow, ChargeSetWindow.window_id == Window.id)
        .join(Budget, Budget.id == Window.budget_id)
        .where(ChargeSetWindow.charge_set_id == charge_set_id)
        .order_by(Window.id)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]
