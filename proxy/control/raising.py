"""Limits that are higher for a while, in the words of commands, the API and the dashboard."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from db import edits
from db.audit import Actor
from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.customers import budget_of, load_customers
from db.errors import CatalogError
from db.raises import LIMIT_MAX, RaiseRow, Span, list_raises
from pricing.money import NANO_PER_USD
from proxy.config import WEEKDAYS
from proxy.scopes import NAME

DATE_CHARS = len("2026-12-04")


class Asked(NamedTuple):
    """As somebody writes it. Dates and weekdays are of the budget's time zone."""

    by: str  # in the budget's unit; below zero to take back what was raised
    until: str  # date (to its end), weekday or timestamp
    since: str = ""  # the same, from its beginning; "": now
    reason: str = ""


def raise_limit(
    connection: Connection, actor: Actor, budget: BudgetRow, asked: Asked, now_ms: int
) -> RaiseRow:
    """Raise it, with an entry in the audit log. Raises CatalogError."""
    if not asked.reason.isprintable():
        raise CatalogError("the reason: printable characters, please")
    amount, zone, now_s = _amount(budget.unit, asked.by), ZoneInfo(budget.timezone), now_ms / 1000
    begins = _moment(asked.since, zone, now_s, end=False) if asked.since else now_s
    ends = _moment(asked.until, zone, now_s, end=True)
    span = Span(int(begins * 1000), int(ends * 1000), amount)
    id_ = edits.raise_limit(connection, actor, budget, span, asked.reason, now_ms)
    (made,) = list_raises(connection, ended=True, raise_id=id_)
    return made


def customers_budget(
    connection: Connection, template: BudgetRow, customer: str, now_ms: int
) -> BudgetRow:
    """Of one customer, to be raised, made where it has not called yet. Raises CatalogError."""
    if not NAME.fullmatch(customer):
        raise CatalogError("the customer: 1 to 128 letters, digits or . _ @ : + / -, please")
    return budget_of(connection, template, customer, now_ms)


def raised_budgets(connection: Connection, rows: Iterable[RaiseRow]) -> dict[int, BudgetRow]:
    """The live budgets that were raised, customers' included, by id."""
    ids = {row.budget_id for row in rows}
    customers = load_customers(connection, sorted(ids)) if ids else []
    return {row.id: row for row in (*load_budgets(connection), *customers) if row.id in ids}


def _amount(unit: str, text: str) -> int:
    try:
        value = Decimal(text) * (NANO_PER_USD if unit == "usd" else 1)
        if value.is_finite() and not value % 1 and abs(value) <= LIMIT_MAX:
            return int(value)
    except ArithmeticError:
        pass
    expected = "an amount in USD, down to 0.000000001" if unit == "usd" else f"a number of {unit}"
    raise CatalogError(f"by {text!r}: expected {expected}")


def _moment(text: str, zone: ZoneInfo, now_s: float, *, end: bool) -> float:
    """Unix seconds; `end`: a day is meant to its end."""
    today = datetime.fromtimestamp(now_s, zone).date()
    try:
        if text.lower() in WEEKDAYS:
            ahead = (WEEKDAYS.index(text.lower()) - today.weekday()) % 7
            day = today + timedelta(days=ahead)
        else:
            moment = datetime.fromisoformat(text)
            if len(text) > DATE_CHARS:
                return moment.replace(tzinfo=moment.tzinfo or zone).timestamp()
            day = moment.date()
        day += timedelta(days=int(end))
        return datetime.combine(day, time_of_day.min, zone).timestamp()
    except (ValueError, OverflowError) as exc:
        raise CatalogError(
            f"{text!r}: expected a date like 2026-12-04, a timestamp or a weekday"
        ) from exc
