"""Budgets whose thresholds are crossed: of what is spent, or of the time until all of it is.

A threshold is told once per window. Where the limit was raised since, it is told again once it is
crossed again: the money it warned of is there once more. A lowered limit tells nothing twice.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from db.alert_configs import EXHAUSTION, PERCENT, Thresholds, load_thresholds
from db.alerts import NewAlert, identity_of, raised_facts
from db.catalog_types import BudgetRow
from db.journal_records import SHARED
from db.reports import BudgetStatus, budget_status
from proxy.alert_kinds import KINDS
from proxy.control.alerts.figures import THOUSAND, amount, exact, iso_ms, thousandths
from proxy.control.forecasting import exhausted_at_ms
from proxy.windows import current_window

LATE_S = 15 * 60  # charges of calls that began before a window's end come after it
HOUR_MS = 3_600_000

Known = dict[tuple[int, int, int], int]  # (budget, window, threshold) -> the limit it was told of


class Crossed(NamedTuple):
    status: BudgetStatus
    threshold: int


async def crossed(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """Thresholds in per cent, in the current window, and for a while in the one before."""
    thresholds = await connection.run_sync(load_thresholds)
    if not thresholds:
        return []
    statuses = [
        status
        for late in (False, True)
        for status in await budget_status(connection, _starts_at(thresholds, PERCENT, now_ms, late))
        if status.starts_at is not None and status.limit > 0
    ]
    found = [
        Crossed(status, threshold)
        for status in statuses
        for threshold in thresholds[status.budget.id][PERCENT]
        if is_crossed(status, threshold)
    ]
    return [percent_alert(each) for each in await _untold(connection, PERCENT, found)]


def is_crossed(status: BudgetStatus, threshold: int) -> bool:
    return status.spent * 100 * THOUSAND >= threshold * status.limit


async def exhausting(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """Budgets that are expected to be spent within a threshold of hours. Forecasting reads weeks
    of history, so it is left out where there is nothing to tell any more."""
    thresholds = await connection.run_sync(load_thresholds)
    starts_at = _starts_at(thresholds, EXHAUSTION, now_ms, late=False)
    found = [
        Crossed(status, threshold)
        for status in await budget_status(connection, starts_at)
        if status.starts_at is not None and 0 < status.spent < status.limit
        for threshold in thresholds[status.budget.id][EXHAUSTION]
    ]
    alerts: list[NewAlert] = []
    expected: dict[int, int | None] = {}
    for each in await _untold(connection, EXHAUSTION, found):
        id_ = each.status.budget.id
        if id_ not in expected:
            expected[id_], _ = await exhausted_at_ms(connection, each.status, now_ms)
        at_ms = expected[id_]
        if at_ms is not None and (at_ms - now_ms) * THOUSAND <= each.threshold * HOUR_MS:
            alerts.append(_exhaustion_alert(each, at_ms))
    return alerts


def _starts_at(
    thresholds: Thresholds, kind: str, now_ms: int, late: bool
) -> Callable[[BudgetRow], int | None]:
    """The window to look at; None: none of this budget's."""

    def starts_at(budget: BudgetRow) -> int | None:
        if kind not in thresholds.get(budget.id, {}):
            return None
        return window_to_look_at(budget, now_ms, late=late)

    return starts_at


def window_to_look_at(budget: BudgetRow, now_ms: int, *, late: bool) -> int | None:
    """The current one's start; `late`: that of the one before, for a while. None: there is none."""
    if budget.period == "request":
        return None
    now_s = now_ms // 1000
    start = _window(budget, now_s)
    if not late:
        return start
    return _window(budget, start - 1) if start > 0 and now_s - start < LATE_S else None


def _window(budget: BudgetRow, at_s: float) -> int:
    zone, week_start, month_day = budget.timezone, budget.week_start, budget.month_day
    return current_window(budget.period, zone, week_start, month_day, at_s)[0]


async def _untold(
    connection: AsyncConnection, kind: str, found: list[Crossed]
) -> Iterable[Crossed]:
    windows = {each.status.starts_at or 0 for each in found}
    rows = await connection.run_sync(raised_facts, kind, windows)
    known = known_limits(rows)
    return [
        each
        for each in found
        if known.get((each.status.budget.id, each.status.starts_at or 0, each.threshold), -1)
        < each.status.limit
    ]


def known_limits(rows: Iterable[Any]) -> Known:
    known: Known = {}
    for budget_id, starts_at, facts in rows:
        key = (budget_id, starts_at, facts["threshold"])
        known[key] = max(known.get(key, 0), facts["limit_value"])
    return known


def percent_alert(each: Crossed, **more: Any) -> NewAlert:
    status, budget = each.status, each.status.budget
    percent = status.spent * 100 // status.limit
    spent, limit = amount(budget.unit, status.spent), amount(budget.unit, status.limit)
    summary = f"{name_of(budget)}: {percent} % is spent, {spent} of {limit}"
    return _alert(PERCENT, each, summary, **more)


def _exhaustion_alert(each: Crossed, at_ms: int) -> NewAlert:
    status, budget = each.status, each.status.budget
    spent, limit = amount(budget.unit, status.spent), amount(budget.unit, status.limit)
    summary = (
        f"{name_of(budget)} is expected to be spent at {iso_ms(at_ms)}; {spent} of {limit} are"
    )
    return _alert(EXHAUSTION, each, summary, expected_at=iso_ms(at_ms))


def _alert(kind: str, each: Crossed, summary: str, **more: Any) -> NewAlert:
    status, budget = each.status, each.status.budget
    assert status.starts_at is not None
    facts = {
        "threshold": each.threshold,  # in thousandths, as configured
        "at": thousandths(each.threshold),
        "unit": budget.unit,
        "period": budget.period,
        "limit_value": status.limit,
        "limit": exact(budget.unit, status.limit),
        "spent": exact(budget.unit, status.spent),
        "window_start": iso_ms(status.starts_at * 1000),
        **more,
    }
    identity = identity_of(kind, budget.id, status.starts_at, each.threshold, status.limit)
    return NewAlert(
        kind, identity, KINDS[kind].severity, summary, budget.scope, facts, budget.id,
        status.starts_at,
    )  # fmt: skip


def name_of(budget: BudgetRow) -> str:
    only = ", ".join(_only(budget))
    return f"budget of {_whose(budget)} per {budget.period}" + (f" ({only})" if only else "")


def _whose(budget: BudgetRow) -> str:
    if not budget.customer:
        return f"each customer of {budget.scope}" if budget.each else budget.scope
    of = budget.scope.removeprefix("customer/").removesuffix(f"/{budget.customer}")
    whom = "all further customers" if budget.customer == SHARED else f"customer {budget.customer}"
    return f"{whom} of {of}"


def _only(budget: BudgetRow) -> Iterator[str]:
    yield from budget.providers
    yield from budget.models
