"""Budgets and spend for alerts to look at."""

from datetime import UTC, datetime

from sqlalchemy import select, update

from db import alerts
from db.alert_configs import sync_alert_configs
from db.catalog_sync import sync_config
from db.catalog_types import Declared, DeclaredBudget
from db.models import Budget, Epoch, Lease, Window
from tests.factories import a_lease, stored

USD = 10**9
NOW_MS = int(datetime(2026, 11, 18, 12, 30, tzinfo=UTC).timestamp() * 1000)  # a Wednesday
DAY_S = 86_400
TODAY = NOW_MS // 1000 // DAY_S * DAY_S
SCOPE = "team/acme/search"


def a_budget(*, limit=20 * USD, period="day", unit="usd", scope=SCOPE, **options):
    options = {"alert_at": [50, 80]} | options
    return DeclaredBudget(scope, unit, limit, period, options=options)


def declare(connection, *budgets, now_ms=NOW_MS):
    """Make these the budgets; the first one's id."""
    sync_config(connection, Declared(teams=(("acme", "search"),), budgets=budgets), now_ms)
    return connection.execute(select(Budget.id).order_by(Budget.id)).scalar()


def spend(connection, budget_id, spent, starts_at=TODAY):
    """What is spent in a window now, in all."""
    query = select(Window.id).where(Window.budget_id == budget_id, Window.starts_at == starts_at)
    window_id = connection.execute(query).scalar()
    if window_id is None:
        window_id = stored(connection, Window, budget_id=budget_id, starts_at=starts_at)
        epoch_id = stored(
            connection, Epoch,
            host_id="h", boot_id="b", state="open", opened_at_ms=1, seen_at_ms=1,
        )  # fmt: skip
        a_lease(connection, window_id, epoch_id, 10**15, 0)
    lease = update(Lease).where(Lease.window_id == window_id)
    connection.execute(lease.values(spent=spent))


def raise_limit(connection, budget_id, limit):
    connection.execute(update(Budget).where(Budget.id == budget_id).values(limit_value=limit))
    sync_alert_configs(connection)


def told(connection, kind=None):
    """What was raised, the oldest first; at the same time, the lowest threshold."""
    found = alerts.recent(connection, kinds=[kind] if kind else ())
    messages = [each.message for each in found]
    return sorted(messages, key=lambda each: (each.raised_at_ms, each.facts.get("threshold", 0)))
