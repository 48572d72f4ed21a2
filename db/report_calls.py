"""One call, for people to look at, with all that it rests on."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.catalog_budgets import load_budgets
from db.catalog_types import BudgetRow
from db.customers import load_customers
from db.journal_records import (
    FLAG_CEILING_VIOLATION,
    FLAG_CLAMPED,
    FLAG_LEARNED,
    FLAG_REPORTED_COST,
    FLAG_UNBACKED,
    FLAG_UNPRICED,
    FLAG_WOULD_REFUSE,
)
from db.models import ChargeSetWindow, ModelCost, UsageCost, Window
from db.reports import call_of, calls_query

ADJUSTMENTS_MAX = 50
FLAGS = {
    FLAG_CLAMPED: "clamped",
    FLAG_UNPRICED: "unpriced",
    FLAG_CEILING_VIOLATION: "above its ceiling",
    FLAG_UNBACKED: "not backed by a budget",
    FLAG_LEARNED: "more than was held",
    FLAG_REPORTED_COST: "charged as the provider says",
    FLAG_WOULD_REFUSE: "a budget that is not enforced would have refused it",
}


class Charge(NamedTuple):
    """A budget the call was charged to. `budget` is None where it is not live any more."""

    budget: BudgetRow | None
    budget_id: int
    starts_at: int  # of its window, unix seconds
    amount: int  # in the budget's unit


class OneCall(NamedTuple):
    call: dict[str, Any]  # as `reports.calls` has it
    cost_nano: int  # of the call itself
    net_nano: int  # with its adjustments
    details: dict[str, Any]  # first_byte_ms, flags, error, response_id, usage, price_model, items
    charges: list[Charge]
    adjustments: list[dict[str, Any]]  # as `reports.calls` has them
    price: dict[str, Any]  # the entry of the price table, as it was


async def one_call(connection: AsyncConnection, call_id: bytes) -> OneCall | None:
    """A call, be it named by its adjustment. None: there is no such row."""
    query = select(UsageCost.__table__).where(UsageCost.call_id == call_id)
    own = (await connection.execute(query)).first()
    if own is not None and own.adjusts is not None:
        return await one_call(connection, own.adjusts)
    if own is None:
        return None
    query = calls_query().where(or_(UsageCost.call_id == call_id, UsageCost.adjusts == call_id))
    query = query.order_by(UsageCost.at_ms, UsageCost.call_id).limit(ADJUSTMENTS_MAX + 1)
    rows = list(await connection.execute(query))
    first = next(row for row in rows if row.call_id == call_id)
    price_query = select(ModelCost.model, ModelCost.entry).where(ModelCost.id == own.price_id)
    price = (await connection.execute(price_query)).first()
    return OneCall(
        call=call_of(first),
        cost_nano=own.cost_nano,
        net_nano=sum(row.cost_nano for row in rows),
        details={
            "first_byte_ms": own.first_byte_ms,
            "flags": [text for flag, text in FLAGS.items() if own.flags & flag],
            "error": own.error,
            "response_id": own.response_id,
            "usage": own.usage or {},
            "items": own.cost_items or [],
            "price_model": price.model if price is not None else "",
        },
        charges=await connection.run_sync(_charges, own),
        adjustments=[call_of(row) for row in rows if row.call_id != call_id],
        price=dict(price.entry or {}) if price is not None else {},
    )


def _charges(connection: Connection, row: Any) -> list[Charge]:
    amounts = {
        "usd": row.cost_nano,
        "tokens": row.charged_tokens,
        "requests": row.charged_requests,
    }
    query = (
        select(Window.budget_id, Window.starts_at)
        .join(ChargeSetWindow, ChargeSetWindow.window_id == Window.id)
        .where(ChargeSetWindow.charge_set_id == row.charge_set_id)
        .order_by(Window.budget_id)
    )
    windows = connection.execute(query).all()
    budgets = {budget.id: budget for budget in load_budgets(connection)}
    others = [row.budget_id for row in windows if row.budget_id not in budgets]
    budgets |= {budget.id: budget for budget in load_customers(connection, others)}
    found = []
    for budget_id, starts_at in windows:
        budget = budgets.get(budget_id)
        amount = amounts[budget.unit] if budget is not None else row.cost_nano
        found.append(Charge(budget, budget_id, starts_at, amount))
    return found
