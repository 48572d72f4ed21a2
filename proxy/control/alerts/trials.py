"""Trial budgets (`enforce: false`) that would have refused a call: told once per window, at the
first one. A cap per call has no window, and is told nobody: its calls are marked in their rows."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts import NewAlert, identity_of
from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.report_customers import customers_spared
from db.reports import BudgetStatus, budget_status
from proxy.alert_kinds import KINDS
from proxy.control.alerts.budgets import name_of, window_to_look_at
from proxy.control.alerts.figures import amount, exact, iso_ms

KIND = "trial_refusal"


async def sparing(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """In the current window, and for a while in the one before."""
    statuses = [
        status
        for late in (False, True)
        for status in await budget_status(connection, partial(_starts_at, now_ms=now_ms, late=late))
    ]
    return [
        _alert(status, status.starts_at)
        for status in statuses
        if status.spared and status.starts_at is not None
    ] + await _sparing_customers(connection, now_ms)


async def _sparing_customers(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """Of a budget for each customer: the first call of any of them."""
    found = []
    for template in await connection.run_sync(load_budgets):
        for late in (False, True) if template.each else ():
            start = _starts_at(template, now_ms, late)
            if start is not None:
                calls, customers = await customers_spared(connection, template, start)
                if calls:
                    found.append(_customers_alert(template, start, calls, customers))
    return found


def _starts_at(budget: BudgetRow, now_ms: int, late: bool) -> int | None:
    return None if budget.enforce else window_to_look_at(budget, now_ms, late=late)


def _alert(status: BudgetStatus, starts_at: int) -> NewAlert:
    budget = status.budget
    spent, limit = amount(budget.unit, status.spent), amount(budget.unit, status.limit)
    calls = _calls(status.spared)
    summary = (
        f"trial {name_of(budget)}: were it enforced, it would have refused {calls} by now; "
        f"{spent} of {limit} are spent"
    )
    facts = {
        "would_refuse": status.spared,
        "unit": budget.unit,
        "period": budget.period,
        "limit": exact(budget.unit, status.limit),
        "spent": exact(budget.unit, status.spent),
        "window_start": iso_ms(starts_at * 1000),
    }
    identity = identity_of(KIND, budget.id, starts_at)
    return NewAlert(
        KIND, identity, KINDS[KIND].severity, summary, budget.scope, facts, budget.id, starts_at
    )


def _customers_alert(template: BudgetRow, start: int, calls: int, customers: int) -> NewAlert:
    of = "one customer" if customers == 1 else f"{customers:,} customers"
    summary = (
        f"trial {name_of(template)}: were it enforced, it would have refused {_calls(calls)} of "
        f"{of} by now"
    )
    facts = {
        "would_refuse": calls,
        "customers": customers,
        "unit": template.unit,
        "period": template.period,
        "limit": exact(template.unit, template.limit),
        "window_start": iso_ms(start * 1000),
    }
    identity = identity_of(KIND, template.id, start)
    severity = KINDS[KIND].severity
    return NewAlert(KIND, identity, severity, summary, template.scope, facts, template.id, start)


def _calls(count: int) -> str:
    return "a call" if count == 1 else f"{count:,} calls"
