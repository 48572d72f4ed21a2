"""What cost rows charge to budgets, added up: for checking windows, and kept of removed rows."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import and_, case, func, select

from db.journal_records import FLAGS_OVERAGE
from db.models import UsageCost

ADJUSTS = UsageCost.adjusts.is_not(None)
FLAGGED = and_(UsageCost.flags.bitwise_and(FLAGS_OVERAGE) != 0, UsageCost.adjusts.is_(None))

# What a row charges to a window, by the unit of the window's budget.
CHARGES: dict[str, Any] = {
    "usd": UsageCost.cost_nano,
    "tokens": UsageCost.charged_tokens,
    "requests": UsageCost.charged_requests,
}
SUMS = (*CHARGES, *(f"{kind}_{unit}" for kind in ("flagged", "raised") for unit in CHARGES))


def row_sums() -> Any:
    """A charge set and SUMS of its rows; to be grouped by the set. `flagged` are rows that explain
    overage, `raised` adjustments upwards."""
    kinds: list[Callable[[Any], Any]] = [
        func.sum,
        lambda column: func.sum(case((FLAGGED, column), else_=0)),
        lambda column: func.sum(case((and_(ADJUSTS, column > 0), column), else_=0)),
    ]
    sums = (kind(column) for kind in kinds for column in CHARGES.values())
    return select(
        UsageCost.charge_set_id, *(each.label(name) for name, each in zip(SUMS, sums, strict=True))
    ).where(UsageCost.charge_set_id.is_not(None))
