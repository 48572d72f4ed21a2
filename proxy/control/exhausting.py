"""When a budget is spent, as a row."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from db.reports import BudgetStatus
from proxy.control.figures import figure, resets_at
from proxy.control.forecasting import exhaustion

COLUMNS = (
    "scope", "unit", "period", "limit", "spent", "remaining", "exhausted_at", "because",
    "resets_at",
)  # fmt: skip


async def exhaustion_row(
    connection: AsyncConnection, status: BudgetStatus, now_ms: int, history_days: int
) -> dict[str, Any]:
    """With the fields of COLUMNS. Raises ReportError."""
    budget = status.budget
    at, because = await exhaustion(connection, status, now_ms, history_days)
    return {
        "scope": budget.scope,
        "unit": budget.unit,
        "period": budget.period,
        "limit": figure(budget.unit, status.limit),
        "spent": figure(budget.unit, status.spent),
        "remaining": figure(budget.unit, status.remaining),
        "exhausted_at": at,
        "because": because,
        "resets_at": resets_at(budget, now_ms / 1000),
    }
