"""Changes of the catalog with their entries in the audit log: what commands and the API call.

Functions take a synchronous connection inside a transaction of the caller's. They raise
CatalogError and its kinds; then nothing of them may be committed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, select

from db import catalog, catalog_budget_edits, catalog_places
from db.audit import Actor, State, record
from db.catalog_places import Place
from db.catalog_types import BudgetRow, CreatedKey, DeclaredBudget
from db.errors import NotKnown
from db.models import ApiKey
from db.raises import Span, add_raise

T = TypeVar("T")

# --- keys ----------------------------------------------------------------------------------


def create_key(connection: Connection, by: Actor, *, now_ms: int, **asked: Any) -> CreatedKey:
    """As `catalog.create_key`."""
    made = catalog.create_key(connection, now_ms=now_ms, **asked)
    state = _key_state(connection, made.name)
    record(connection, by, now_ms, "key.create", f"key/{made.name}", None, state)
    return made


def revoke_key(connection: Connection, by: Actor, name: str, now_ms: int) -> None:
    _on_key(connection, by, now_ms, "key.revoke", name, lambda: _revoke(connection, name, now_ms))


def rotate_key(connection: Connection, by: Actor, name: str, now_ms: int) -> CreatedKey:
    def rotate() -> CreatedKey:
        return catalog.rotate_key(connection, name)

    return _on_key(connection, by, now_ms, "key.rotate", name, rotate)


def key_name(connection: Connection, key_id: int) -> str:
    """Raises NotKnown."""
    name = connection.execute(select(ApiKey.name).where(ApiKey.id == key_id)).scalar_one_or_none()
    if name is None:
        raise NotKnown(f"no key has the id {key_id}")
    return str(name)


def _revoke(connection: Connection, name: str, now_ms: int) -> None:
    catalog.revoke_key(connection, name, now_ms)


def _on_key(
    connection: Connection,
    by: Actor,
    now_ms: int,
    action: str,
    name: str,
    change: Callable[[], T],
) -> T:
    before = _key_state(connection, name)
    result = change()
    record(connection, by, now_ms, action, f"key/{name}", before, _key_state(connection, name))
    return result


def _key_state(connection: Connection, name: str) -> State | None:
    row = connection.execute(select(ApiKey.__table__).where(ApiKey.name == name)).first()
    return None if row is None else without_secret(row)


def without_secret(row: Row[Any]) -> dict[str, Any]:
    """A key; of its secret only what tells that it is another one."""
    return {**row._mapping, "sha256": f"{row.sha256[:8]}..."}


# --- organizations, teams, projects, users -------------------------------------------------


def create_place(
    connection: Connection, by: Actor, kind: str, name: str, now_ms: int, **more: Any
) -> Place:
    """As `catalog_places.create_place`."""
    place = catalog_places.create_place(connection, kind, name, now_ms, **more)
    record(connection, by, now_ms, f"{kind}.create", _target(kind, place), None, place.state())
    catalog.bump_revision(connection)
    return place


def set_email(connection: Connection, by: Actor, user_id: int, email: str, now_ms: int) -> Place:
    before = catalog_places.find_place(connection, "user", user_id)
    catalog_places.set_email(connection, user_id, email)
    after = catalog_places.find_place(connection, "user", user_id)
    target = _target("user", after)
    record(connection, by, now_ms, "user.change", target, before.state(), after.state())
    return after


def delete_place(connection: Connection, by: Actor, kind: str, place_id: int, now_ms: int) -> None:
    place = catalog_places.find_place(connection, kind, place_id)
    revoked = catalog_places.delete_place(connection, kind, place_id, now_ms)
    before = place.state() | ({"keys": revoked} if revoked else {})
    record(connection, by, now_ms, f"{kind}.delete", _target(kind, place), before, None)
    catalog.bump_revision(connection)


def _target(kind: str, place: Place) -> str:
    return "/".join((kind, *place.path))


# --- budgets -------------------------------------------------------------------------------


def create_budget(
    connection: Connection, by: Actor, budget: DeclaredBudget, now_ms: int, source: str = "api"
) -> int:
    budget_id = catalog_budget_edits.create_budget(connection, budget, now_ms, source)
    after = catalog_budget_edits.budget_state(connection, budget_id)
    record(connection, by, now_ms, "budget.create", f"budget/{budget_id}", None, after)
    catalog.bump_revision(connection)
    return budget_id


def change_budget(
    connection: Connection,
    by: Actor,
    budget_id: int,
    now_ms: int,
    *,
    limit: int | None,
    options: Mapping[str, Any],
) -> None:
    before = catalog_budget_edits.budget_state(connection, budget_id)
    catalog_budget_edits.change_budget(connection, budget_id, limit=limit, options=options)
    after = catalog_budget_edits.budget_state(connection, budget_id)
    record(connection, by, now_ms, "budget.change", f"budget/{budget_id}", before, after)
    catalog.bump_revision(connection)


def delete_budget(connection: Connection, by: Actor, budget_id: int, now_ms: int) -> None:
    before = catalog_budget_edits.budget_state(connection, budget_id)
    catalog_budget_edits.delete_budget(connection, budget_id, now_ms)
    record(connection, by, now_ms, "budget.delete", f"budget/{budget_id}", before, None)
    catalog.bump_revision(connection)


def raise_limit(
    connection: Connection, by: Actor, budget: BudgetRow, span: Span, reason: str, now_ms: int
) -> int:
    """For a while; returns the raise's id. In force and over by itself."""
    id_ = add_raise(connection, budget.id, span, made_by=by.who, reason=reason, now_ms=now_ms)
    after = {
        "raise": id_,
        "scope": budget.scope,
        "period": budget.period,
        "unit": budget.unit,
        "amount": span.amount,
        "from_ms": span.from_ms,
        "until_ms": span.until_ms,
        "reason": reason,
    }
    record(connection, by, now_ms, "budget.raise", f"budget/{budget.id}", None, after)
    catalog.bump_revision(connection)
    return id_
