"""Thresholds of budgets as rows, made from what each budget's options declare."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from db.models import AlertConfig, Budget

THOUSAND = 1_000
PERCENT, EXHAUSTION = "budget_threshold", "budget_exhaustion"
OPTIONS = {PERCENT: "alert_at", EXHAUSTION: "alert_exhaustion_h"}  # kind -> option

Thresholds = dict[int, dict[str, list[int]]]  # by budget and kind, in thousandths, rising


def sync_alert_configs(connection: Connection) -> None:
    """Make the rows what the options of the live budgets say. To be called by whoever has changed
    budgets, in the same transaction."""
    query = select(Budget.id, Budget.options).where(
        Budget.tombstoned_at_ms.is_(None), Budget.scope_kind != "customer"
    )
    wanted = {
        (id_, kind, threshold)
        for id_, options in connection.execute(query)
        for kind, threshold in _declared(options)
    }
    rows = connection.execute(select(AlertConfig.__table__)).all()
    there = {(row.budget_id, row.kind, row.threshold): row.id for row in rows}
    gone = [there[key] for key in there.keys() - wanted]
    if gone:
        connection.execute(delete(AlertConfig).where(AlertConfig.id.in_(gone)))
    new = [
        {"budget_id": budget_id, "kind": kind, "threshold": threshold}
        for budget_id, kind, threshold in sorted(wanted - there.keys())
    ]
    if new:
        connection.execute(insert(AlertConfig), new)


def load_thresholds(connection: Connection) -> Thresholds:
    """Of live budgets; their scopes may be gone."""
    query = (
        select(AlertConfig.budget_id, AlertConfig.kind, AlertConfig.threshold)
        .join(Budget, AlertConfig.budget_id == Budget.id)
        .where(Budget.tombstoned_at_ms.is_(None))
        .order_by(AlertConfig.budget_id, AlertConfig.kind, AlertConfig.threshold)
    )
    found: Thresholds = {}
    for budget_id, kind, threshold in connection.execute(query):
        found.setdefault(budget_id, {}).setdefault(kind, []).append(threshold)
    return found


def _declared(options: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {
        (kind, round(value * THOUSAND))
        for kind, option in OPTIONS.items()
        for value in options.get(option) or ()
    }
