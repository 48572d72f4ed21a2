"""Budgets' amounts and windows, for rows."""

from datetime import UTC, datetime

from db.catalog_types import BudgetRow
from pricing.money import usd_from_nano
from proxy.windows import FOREVER, current_window


def figure(unit: str, value: int) -> str | int:
    """An amount of a budget: USD as exact text, counts as integers."""
    return usd_from_nano(value) if unit == "usd" else value


def starts_at(budget: BudgetRow, now_s: float) -> int | None:
    """Of its current window, unix seconds; None for a cap per call."""
    return None if budget.period == "request" else _window(budget, now_s)[0]


def resets_at(budget: BudgetRow, now_s: float) -> str:
    """When its current window ends; "" if never."""
    if budget.period == "request":
        return ""
    ends_at = _window(budget, now_s)[1]
    return "" if ends_at >= FOREVER else f"{datetime.fromtimestamp(ends_at, UTC):%Y-%m-%dT%H:%MZ}"


def _window(budget: BudgetRow, now_s: float) -> tuple[int, int]:
    return current_window(
        budget.period, budget.timezone, budget.week_start, budget.month_day, now_s
    )


def moment(at_ms: int | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if at_ms is None:
        return None
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"
