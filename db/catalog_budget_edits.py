"""Budgets by command: beside those the configuration declares."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from db.alert_configs import sync_alert_configs
from db.catalog_budgets import (
    CUSTOMER,
    SCOPES,
    bury_budgets,
    find_owner,
    identity_of,
    set_limit,
    set_options,
    store_budget,
)
from db.catalog_types import DeclaredBudget
from db.errors import AlreadyThere, FromConfig, NotKnown
from db.models import Budget


def budget_state(connection: Connection, budget_id: int) -> dict[str, Any] | None:
    """All that makes a live budget what it is; None: there is none of this id."""
    query = select(Budget.__table__).where(Budget.id == budget_id)
    row = connection.execute(query.where(Budget.tombstoned_at_ms.is_(None))).first()
    if row is None or row.scope_kind == CUSTOMER:
        return None
    names = ("unit", "period", "timezone", "week_start", "month_day", "models", "providers")
    return {
        "scope": scope_of(connection, budget_id, row.scope_kind),
        "limit": row.limit_value,
        **{name: getattr(row, name) for name in names},
        "options": dict(row.options),
        "source": row.source,
    }


def scope_of(connection: Connection, budget_id: int, kind: str) -> str:
    """The path of what it hangs on; "" once that is deleted."""
    scope = SCOPES[kind]
    joined: Any = scope.joined.__table__
    owner = select(joined.c[scope.owner]).where(joined.c.budget_id == budget_id).scalar_subquery()
    first = next(iter(scope.alive.selected_columns))
    row = connection.execute(scope.alive.where(first == owner)).first()
    return "" if row is None else "/".join((kind, *row[1:]))


def sources(connection: Connection) -> dict[int, str]:
    """Who declared each live budget, by id; those made from templates are not among them."""
    query = select(Budget.id, Budget.source).where(
        Budget.tombstoned_at_ms.is_(None), Budget.scope_kind != CUSTOMER
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def create_budget(
    connection: Connection, budget: DeclaredBudget, now_ms: int, source: str = "api"
) -> int:
    """One that was deleted comes back with what was spent. Raises CatalogError."""
    kind, owner_id = find_owner(connection, budget.scope)
    identity = identity_of(budget)
    query = select(Budget.__table__).where(Budget.identity == identity)
    row = connection.execute(query).first()
    if row is not None and row.tombstoned_at_ms is None:
        what = f"{budget.scope} in {budget.unit} per {budget.period}"
        raise AlreadyThere(f"there is such a budget on {what} already, of id {row.id}: change it")
    store_budget(connection, row, identity, budget, kind, owner_id, now_ms, source)
    sync_alert_configs(connection)
    made = connection.execute(select(Budget.id).where(Budget.identity == identity))
    return int(made.scalar_one())


def change_budget(
    connection: Connection,
    budget_id: int,
    *,
    limit: int | None = None,
    options: Mapping[str, Any],
) -> None:
    """A new limit, in the budget's own unit, and options to put in the place of others. Raises
    NotKnown, FromConfig."""
    row = _own(connection, budget_id)
    if limit is not None and limit != row.limit_value:
        set_limit(connection, budget_id, limit)
    if options:
        merged = {**row.options, **options}
        set_options(connection, budget_id, merged)
        sync_alert_configs(connection)


def delete_budget(connection: Connection, budget_id: int, now_ms: int) -> None:
    """Calls in flight settle as ever. Raises NotKnown, FromConfig."""
    _own(connection, budget_id)
    bury_budgets(connection, [budget_id], now_ms)
    sync_alert_configs(connection)


def _own(connection: Connection, budget_id: int) -> Any:
    query = select(Budget.__table__).where(Budget.id == budget_id)
    row = connection.execute(query.with_for_update(key_share=True)).first()
    if row is None or row.tombstoned_at_ms is not None or row.scope_kind == CUSTOMER:
        raise NotKnown(f"no budget has the id {budget_id}")
    if row.source == "config":
        raise FromConfig(f"budget {budget_id} is declared in the configuration: change it there")
    return row
