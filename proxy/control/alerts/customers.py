"""Customers' budgets whose thresholds are crossed: like any other's, each once per window.

Of a template's customers so many are told of one by one, for each threshold and window; that there
are more is told once. So a limit that is too low for everybody is one page of alerts, not a flood.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from db.alert_configs import PERCENT, load_thresholds
from db.alerts import NewAlert, identity_of, raised_facts
from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.raises import LIMIT_MAX, count_raised_customers
from db.report_customers import customers_above
from proxy.alert_kinds import KINDS
from proxy.control.alerts.budgets import (
    Crossed,
    is_crossed,
    known_limits,
    name_of,
    percent_alert,
    window_to_look_at,
)
from proxy.control.alerts.figures import THOUSAND, iso_ms, thousandths

TOLD_MAX = 100  # customers, of a template, threshold and window


async def crossed_by_customers(connection: AsyncConnection, now_ms: int) -> list[NewAlert]:
    """In the current window of each template, and for a while in the one before."""
    thresholds = await connection.run_sync(load_thresholds)
    if not thresholds:
        return []
    found: list[NewAlert] = []
    for template in await connection.run_sync(load_budgets):
        of_template = thresholds.get(template.id, {}).get(PERCENT)
        if not template.each or not of_template or template.limit <= 0:
            continue
        for late in (False, True):
            start = window_to_look_at(template, now_ms, late=late)
            if start is not None:
                found += await _of_window(connection, template, of_template, start)
    return found


async def _of_window(
    connection: AsyncConnection, template: BudgetRow, thresholds: list[int], start: int
) -> list[NewAlert]:
    least = -(-min(thresholds) * template.limit // (100 * THOUSAND))
    if least > LIMIT_MAX:
        return []
    # Those that were told come first, and those whose own limit is raised may be far from it: what
    # is read has room for both, and for one more than may be told.
    limit = 2 * TOLD_MAX + 1 + await connection.run_sync(count_raised_customers, template.id)
    statuses = await customers_above(connection, template, start, least, limit)
    if not statuses:
        return []
    rows = [
        row
        for row in await connection.run_sync(raised_facts, PERCENT, [start])
        if row.facts.get("template") == template.id
    ]
    known = known_limits(rows)
    told = _count(row.facts for row in rows)
    found: list[NewAlert] = []
    for threshold in thresholds:
        new = [
            status
            for status in statuses
            if is_crossed(status, threshold)
            and known.get((status.budget.id, start, threshold), -1) < status.limit
        ]
        room = max(TOLD_MAX - told.get(threshold, 0), 0)
        found += [_alert(template, Crossed(status, threshold)) for status in new[:room]]
        if len(new) > room:
            found.append(_further(template, threshold, start))
    return found


def _count(facts: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for each in facts:
        counts[each["threshold"]] = counts.get(each["threshold"], 0) + 1
    return counts


def _alert(template: BudgetRow, each: Crossed) -> NewAlert:
    customer = each.status.budget.customer
    return percent_alert(each, template=template.id, customer=customer)


def _further(template: BudgetRow, threshold: int, start: int) -> NewAlert:
    at = thousandths(threshold)
    summary = (
        f"{name_of(template)}: more than {TOLD_MAX} customers have spent {at} % or more; no "
        "further one is told in this window. See `tollkeeper budgets list --customers "
        f"{template.scope}`"
    )
    facts = {
        "threshold": threshold,
        "at": at,
        "unit": template.unit,
        "period": template.period,
        "template": template.id,
        "customers_told": TOLD_MAX,
        "window_start": iso_ms(start * 1000),
    }
    identity = identity_of(PERCENT, template.id, start, threshold, "further")
    severity = KINDS[PERCENT].severity
    return NewAlert(PERCENT, identity, severity, summary, template.scope, facts)
