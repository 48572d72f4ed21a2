"""Budgets as rows: the scope each hangs on, and what makes two of them the same."""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, insert, or_, select, update

from db.catalog_types import BudgetRow, DeclaredBudget
from db.errors import CatalogError
from db.models import (
    ApiKey,
    Base,
    Budget,
    CustomerBudget,
    KeyBudget,
    Organization,
    OrganizationBudget,
    Project,
    ProjectBudget,
    Team,
    TeamBudget,
    User,
    UserBudget,
    Window,
)
from db.paths import PATHS, Query
from db.raises import amount_in_force

IDENTITY_CHARS_MAX = 512
ROW_OPTIONS = BudgetRow._fields[BudgetRow._fields.index("clamp") :]
OF_TEMPLATES = frozenset(  # options
    {"each", "customers_max", "beyond", "customer_required", "customer_from_body"}
)
CUSTOMER = "customer"  # the kind of the budgets that are made from templates


class Scope(NamedTuple):
    """A kind of scope: its joined table, the column that names the owner, and the owners alive,
    as (id, the parts of its path)."""

    joined: type[Base]
    owner: str
    alive: Query


_ORGANIZATION = Organization.tombstoned_at_ms.is_(None)
_TEAM = Team.tombstoned_at_ms.is_(None)
_PROJECT = Project.tombstoned_at_ms.is_(None)
_USER = User.tombstoned_at_ms.is_(None)
_KEY = ApiKey.revoked_at_ms.is_(None)

SCOPES = {
    "organization": Scope(
        OrganizationBudget, "organization_id", PATHS["organization"].where(_ORGANIZATION)
    ),
    "team": Scope(TeamBudget, "team_id", PATHS["team"].where(_TEAM, _ORGANIZATION)),
    "project": Scope(
        ProjectBudget, "project_id", PATHS["project"].where(_PROJECT, _TEAM, _ORGANIZATION)
    ),
    "user": Scope(UserBudget, "user_id", PATHS["user"].where(_USER, _ORGANIZATION)),
    "key": Scope(KeyBudget, "key_id", PATHS["key"].where(_KEY)),
}


def identity_of(budget: DeclaredBudget) -> str:
    """What makes a budget the same one again, so that it finds what was spent already.

    Neither the limit nor the options are part of it.
    """
    parts = (
        budget.scope,
        budget.unit,
        budget.period,
        budget.timezone,
        f"w{budget.week_start}",
        f"d{budget.month_day}",
        f"models={','.join(sorted(budget.models))}",
        f"providers={','.join(sorted(budget.providers))}",
        *(f"each={each}" for each in (budget.options.get("each"),) if each),
    )
    return shortened("|".join(parts))


def shortened(identity: str) -> str:
    """As long as the column is; still nobody else's."""
    if len(identity) <= IDENTITY_CHARS_MAX:
        return identity
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return f"{identity[: IDENTITY_CHARS_MAX - len(digest) - 1]}#{digest}"


def sync_budgets(connection: Connection, declared: Iterable[DeclaredBudget], now_ms: int) -> bool:
    """Make the declared budgets the live ones of source `config`. True: something changed."""
    owners = {kind: _paths(connection, kind) for kind in SCOPES}
    # In the order in which LEASE locks them, so that the two never wait for each other in a circle.
    everything = (
        select(Budget.__table__)
        .where(Budget.scope_kind != CUSTOMER)
        .order_by(Budget.id)
        .with_for_update(key_share=True)
    )
    rows = {row.identity: row for row in connection.execute(everything)}
    seen: set[str] = set()
    changed = False
    for budget in declared:
        kind = budget.scope.partition("/")[0]
        owner_id = owners.get(kind, {}).get(budget.scope)
        if owner_id is None:
            raise CatalogError(_unknown_scope(budget.scope))
        identity = identity_of(budget)
        if identity in seen:
            raise CatalogError(
                f"budget on {budget.scope} in {budget.unit} per {budget.period} is declared twice"
            )
        seen.add(identity)
        row = rows.get(identity)
        changed |= store_budget(connection, row, identity, budget, kind, owner_id, now_ms, "config")
    gone = [
        row.id
        for identity, row in rows.items()
        if identity not in seen and row.source == "config" and row.tombstoned_at_ms is None
    ]
    if gone:
        bury_budgets(connection, gone, now_ms)
    return changed or bool(gone)


def bury_budgets(connection: Connection, ids: Collection[int], now_ms: int) -> None:
    """Tombstone budgets, and what was made from them."""
    made = select(CustomerBudget.budget_id).where(CustomerBudget.template_id.in_(ids))
    connection.execute(
        update(Budget)
        .where(or_(Budget.id.in_(ids), Budget.id.in_(made)), Budget.tombstoned_at_ms.is_(None))
        .values(tombstoned_at_ms=now_ms)
    )


def load_budgets(connection: Connection) -> list[BudgetRow]:
    """The live budgets on live scopes, by id, with the limits in force. Of a template the template
    alone: what was made from it is in `customers`."""
    return sorted(row for kind in SCOPES for row in _load(connection, kind))


def load_some(connection: Connection, ids: Collection[int]) -> list[BudgetRow]:
    """Those of a few budgets that `load_budgets` would return."""
    query = select(Budget.scope_kind).where(Budget.id.in_(ids), Budget.scope_kind != CUSTOMER)
    kinds = set(connection.execute(query).scalars())
    return sorted(row for kind in kinds for row in _load(connection, kind, ids))


def _load(connection: Connection, kind: str, ids: Collection[int] | None = None) -> list[BudgetRow]:
    scope = SCOPES[kind]
    joined: Any = scope.joined.__table__
    query = (
        select(
            Budget.__table__,
            joined.c[scope.owner].label("owner_id"),
            amount_in_force(connection).label("raised"),
        )
        .join(joined, joined.c.budget_id == Budget.id)
        .where(Budget.tombstoned_at_ms.is_(None))
    )
    if ids is not None:
        query = query.where(Budget.id.in_(ids))
    rows = connection.execute(query).all()
    owners = None if ids is None else {row.owner_id for row in rows}
    paths = {owner_id: path for path, owner_id in _paths(connection, kind, owners).items()}
    return [budget_row(row, paths[row.owner_id]) for row in rows if row.owner_id in paths]


def set_limit(connection: Connection, budget_id: int, limit: int) -> None:
    """Change a limit, and those of budgets made from this one. What was committed above a lowered
    one stays, and may only shrink."""
    ids = _with_made(connection, budget_id)
    connection.execute(update(Budget).where(Budget.id.in_(ids)).values(limit_value=limit))
    granted = Window.committed - Window.overage
    kept = case((granted > limit + Window.extra, granted), else_=0)
    connection.execute(update(Window).where(Window.budget_id.in_(ids)).values(lowered_from=kept))


def set_options(connection: Connection, budget_id: int, options: dict[str, Any]) -> None:
    """Change the options of a budget, and of those made from it."""
    connection.execute(update(Budget).where(Budget.id == budget_id).values(options=options))
    made = _with_made(connection, budget_id)
    follow = update(Budget).where(Budget.id.in_(made), Budget.id != budget_id)
    connection.execute(follow.values(options=options_of_customer(options)))


def options_of_customer(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a budget that is made from a template with `options`."""
    return {name: value for name, value in options.items() if name not in OF_TEMPLATES}


def _with_made(connection: Connection, budget_id: int) -> Any:
    """A budget's id and those of what was made from it, these locked in the order of LEASE."""
    made = select(CustomerBudget.budget_id).where(CustomerBudget.template_id == budget_id)
    lock = select(Budget.id).where(Budget.id.in_(made)).order_by(Budget.id)
    connection.execute(lock.with_for_update(key_share=True)).all()
    return made.union_all(select(Budget.id).where(Budget.id == budget_id))


def _paths(connection: Connection, kind: str, ids: Collection[int] | None = None) -> dict[str, int]:
    """Of all owners that are alive, or of some."""
    query = SCOPES[kind].alive
    if ids is not None:
        query = query.where(next(iter(query.selected_columns)).in_(ids))
    return {"/".join((kind, *names)): owner_id for owner_id, *names in connection.execute(query)}


def _unknown_scope(scope: str) -> str:
    kind = scope.partition("/")[0]
    if kind not in SCOPES:
        return f"budget scope {scope!r}: {kind!r} is not a kind of scope ({', '.join(SCOPES)})"
    return f"budget scope {scope!r}: no such {kind}"


def find_owner(connection: Connection, path: str) -> tuple[str, int]:
    """The kind and the id of what a scope names. Raises CatalogError."""
    kind = path.partition("/")[0]
    owner_id = _paths(connection, kind).get(path) if kind in SCOPES else None
    if owner_id is None:
        raise CatalogError(_unknown_scope(path))
    return kind, owner_id


def store_budget(
    connection: Connection,
    row: Any,
    identity: str,
    budget: DeclaredBudget,
    kind: str,
    owner_id: int,
    now_ms: int,
    source: str,
) -> bool:
    """Make the budget live: `row` is the one of its identity, if there is one. True: something
    changed."""
    scope = SCOPES[kind]
    values = {
        "options": dict(budget.options),
        "source": source,
        "tombstoned_at_ms": None,
    }
    joined: Any = scope.joined.__table__
    if row is None:
        new = insert(Budget).values(
            identity=identity,
            scope_kind=kind,
            unit=budget.unit,
            limit_value=budget.limit,
            period=budget.period,
            timezone=budget.timezone,
            week_start=budget.week_start,
            month_day=budget.month_day,
            models=list(budget.models),
            providers=list(budget.providers),
            created_at_ms=now_ms,
            **values,
        )
        budget_id = connection.execute(new.returning(Budget.id)).scalar_one()
        connection.execute(insert(joined).values({"budget_id": budget_id, scope.owner: owner_id}))
        return True
    changed = any(getattr(row, name) != value for name, value in values.items())
    if changed:
        connection.execute(update(Budget).where(Budget.id == row.id).values(values))
        if row.options != values["options"]:
            set_options(connection, row.id, dict(budget.options))
    if row.limit_value != budget.limit:
        set_limit(connection, row.id, budget.limit)
        changed = True
    # A path can have come to name another row: a key renamed, and a new one of the old name.
    moved = connection.execute(
        update(joined)
        .where(joined.c.budget_id == row.id, joined.c[scope.owner] != owner_id)
        .values({scope.owner: owner_id})
    )
    return changed or moved.rowcount > 0


def budget_row(row: Any, scope: str, template: int = 0, customer: str = "") -> BudgetRow:
    options = {name: row.options[name] for name in ROW_OPTIONS if name in row.options}
    if not options.get("enforce", True):
        options["clamp"] = False  # it changes no request
    if "downgrade" in options:
        options["downgrade"] = tuple((glob, model) for glob, model in options["downgrade"])
    return BudgetRow(
        row.id,
        scope,
        row.unit,
        row.limit_value + int(row.raised),
        row.period,
        row.timezone,
        row.week_start,
        row.month_day,
        tuple(row.models),
        tuple(row.providers),
        raised=int(row.raised),
        template=template,
        customer=customer,
        **options,
    )
