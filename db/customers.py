"""Budgets of end customers: each made from a template when its customer is first met.

A template is a budget whose options say `each: customer`. It has no money of its own. What is made
from it is a budget like any other, with windows and leases, that follows the template's limit and
options. Two hosts that meet the same customer at once find the same one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, exists, func, select, update

from db.catalog_budgets import (
    CUSTOMER,
    budget_row,
    load_budgets,
    load_some,
    options_of_customer,
    shortened,
)
from db.catalog_types import BudgetRow
from db.errors import CatalogError
from db.journal_records import SHARED
from db.models import Budget, CustomerBudget, Window
from db.raises import amount_in_force
from db.statements import insert_new, table_of

TEMPLATE = "template"  # who made these rows
SAME = (
    "unit", "limit_value", "period", "timezone", "week_start", "month_day", "models", "providers",
)  # fmt: skip
IDS_PER_QUERY = 500
DAY_S = 86_400
LONGEST_S = {  # of each period, with a change of clocks
    "minute": 60,
    "hour": 3_600,
    "day": 2 * DAY_S,
    "week": 8 * DAY_S,
    "month": 32 * DAY_S,
    "quarter": 93 * DAY_S,
    "year": 367 * DAY_S,
}

Asked = tuple[int, str]  # the template's id, the customer


class Met(NamedTuple):
    """`budgets`: who pays for a customer, or all that share one; `beyond`: templates that track
    as many as they may. Of a template that is gone there is nothing."""

    budgets: dict[Asked, BudgetRow]
    beyond: set[Asked]


def meet(connection: Connection, asked: Collection[Asked], now_ms: int) -> Met:
    """The budgets of customers, made where missing."""
    templates = _templates(connection, {template_id for template_id, _ in asked})
    known = _load(connection, templates, _named(asked))
    beyond: set[Asked] = set()
    missing: dict[int, set[str]] = {}
    for template_id, customer in asked:
        if template_id in templates and (template_id, customer) not in known:
            missing.setdefault(template_id, set()).add(customer)
    for template_id in sorted(missing):
        made, left = _make(connection, templates[template_id], missing[template_id], now_ms)
        known |= _load(connection, templates, _named((template_id, name) for name in made))
        if left and templates[template_id].beyond == "share":
            _make_one(connection, template_id, SHARED, now_ms)
            shared = _load(connection, templates, _named([(template_id, SHARED)]))
            known |= dict.fromkeys(((template_id, name) for name in left), *shared.values())
        else:
            beyond |= {(template_id, name) for name in left}
    return Met({each: known[each] for each in asked if each in known}, beyond)


def find_customers(connection: Connection, asked: Collection[Asked]) -> dict[Asked, BudgetRow]:
    """Those of them that there are."""
    templates = _templates(connection, {template_id for template_id, _ in asked})
    return _load(connection, templates, _named(asked))


def load_customers(connection: Connection, ids: Sequence[int]) -> list[BudgetRow]:
    """Those of these budgets that are live, with the limits in force."""
    templates = _templates(connection, None) if ids else {}
    found: list[BudgetRow] = []
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = CustomerBudget.budget_id.in_(ids[start : start + IDS_PER_QUERY])
        found.extend(_load(connection, templates, [some]).values())
    return sorted(found)


def budget_of(connection: Connection, template: BudgetRow, customer: str, now_ms: int) -> BudgetRow:
    """A customer's budget, made where it has not been yet. Raises CatalogError."""
    if not template.each:
        raise CatalogError("it is not a budget for each customer")
    if customer == SHARED:
        raise CatalogError("customers who share a budget have no raises: track more of them")
    met = meet(connection, [(template.id, customer)], now_ms)
    budget = met.budgets.get((template.id, customer))
    if budget is None or budget.customer != customer:
        raise CatalogError(
            f"the customer {customer!r} has no budget, and {template.customers_max} are tracked "
            "already (customers.tracked_max)"
        )
    return budget


def count_customers(connection: Connection, template_id: int | None = None) -> dict[int, int]:
    """How many each template tracks, or one of them, by its id."""
    query = (
        select(CustomerBudget.template_id, func.count())
        .join(Budget, Budget.id == CustomerBudget.budget_id)
        .where(Budget.tombstoned_at_ms.is_(None), CustomerBudget.customer != SHARED)
        .group_by(CustomerBudget.template_id)
    )
    if template_id is not None:
        query = query.where(CustomerBudget.template_id == template_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def forget_customers(connection: Connection, before_s: int, now_ms: int, at_most: int) -> int:
    """Tombstone budgets of customers who have had no call since; those for ever (`total`) stay.
    One who comes again finds what was spent. Returns how many there were."""
    idle = [
        ~exists(
            select(Window.id).where(
                Window.budget_id == Budget.id, Window.starts_at > before_s - longest_s
            )
        )
        & (Budget.period == period)
        for period, longest_s in LONGEST_S.items()
    ]
    candidates = (
        select(Budget.id)
        .where(
            Budget.scope_kind == CUSTOMER,
            Budget.tombstoned_at_ms.is_(None),
            Budget.created_at_ms < before_s * 1000,
        )
        .where(_any(idle))
        .order_by(Budget.id)
        .limit(at_most)
    )
    ids = list(connection.execute(candidates).scalars())
    if ids:
        gone = update(Budget).where(Budget.id.in_(ids)).values(tombstoned_at_ms=now_ms)
        connection.execute(gone)
    return len(ids)


def scope_of_customer(template_scope: str, customer: str) -> str:
    return f"{CUSTOMER}/{template_scope}/{customer}"


# --- how it is done -------------------------------------------------------------------------------


def _any(conditions: Iterable[Any]) -> Any:
    first, *others = conditions
    for condition in others:
        first |= condition
    return first


def _templates(connection: Connection, ids: Collection[int] | None) -> dict[int, BudgetRow]:
    """By id; None: all there are."""
    rows = load_budgets(connection) if ids is None else load_some(connection, ids)
    return {row.id: row for row in rows if row.each}


def _named(asked: Iterable[Asked]) -> list[Any]:
    """Conditions, each of a query of its own: some of the customers of one template."""
    by_template: dict[int, list[str]] = {}
    for template_id, customer in asked:
        by_template.setdefault(template_id, []).append(customer)
    return [
        (CustomerBudget.template_id == template_id)
        & CustomerBudget.customer.in_(names[start : start + IDS_PER_QUERY])
        for template_id, names in by_template.items()
        for start in range(0, len(names), IDS_PER_QUERY)
    ]


def _load(
    connection: Connection, templates: Mapping[int, BudgetRow], conditions: Iterable[Any]
) -> dict[Asked, BudgetRow]:
    """Live budgets of live templates."""
    found: dict[Asked, BudgetRow] = {}
    for condition in conditions:
        query = (
            select(
                Budget.__table__,
                CustomerBudget.template_id,
                CustomerBudget.customer,
                amount_in_force(connection).label("raised"),
            )
            .join(CustomerBudget, CustomerBudget.budget_id == Budget.id)
            .where(condition, Budget.tombstoned_at_ms.is_(None))
        )
        for row in connection.execute(query):
            template = templates.get(row.template_id)
            if template is not None:
                scope = scope_of_customer(template.scope, row.customer)
                made = budget_row(row, scope, row.template_id, row.customer)
                found[row.template_id, row.customer] = made
    return found


def _make(
    connection: Connection, template: BudgetRow, customers: Collection[str], now_ms: int
) -> tuple[set[str], set[str]]:
    """As many as there is room for: those made, and those left."""
    lock = select(Budget.id).where(Budget.id == template.id).with_for_update(key_share=True)
    connection.execute(lock).all()
    found = _load(connection, {template.id: template}, _named((template.id, c) for c in customers))
    made = {customer for _, customer in found}  # by another host, a moment ago
    room = template.customers_max - count_customers(connection, template.id).get(template.id, 0)
    for customer in sorted(set(customers) - made)[: max(room, 0)]:
        _make_one(connection, template.id, customer, now_ms)
        made.add(customer)
    return made, set(customers) - made


def identity_of_customer(template_identity: str, customer: str) -> str:
    return shortened(f"{template_identity}|customer={customer}")


def id_of(identity: str) -> int:
    """The id that a customer's budget gets wherever and whenever it is made, so that journals name
    the same one after the database was restored from a backup. Below zero, where no others are."""
    return -(2**40 + (int.from_bytes(sha256(identity.encode()).digest()[:7], "big") >> 4))


def _free_id(connection: Connection, identity: str) -> int:
    table, id_ = table_of(Budget), id_of(identity)
    while connection.execute(
        select(table.c.id).where(table.c.id == id_, table.c.identity != identity)
    ).first():
        id_ -= 1  # chance, once in some 10^15 pairs
    return id_


def remake(connection: Connection, missing: Collection[int], customer: str, now_ms: int) -> bool:
    """Make again what a database that was restored from a backup lacks. False: none of these ids is
    a budget of this customer."""
    table = table_of(Budget)
    query = select(table.c.id, table.c.identity, table.c.options, table.c.tombstoned_at_ms)
    made = False
    for row in connection.execute(query.where(table.c.scope_kind != CUSTOMER)).all():
        for name in (customer, SHARED) if row.options.get("each") else ():
            if id_of(identity_of_customer(row.identity, name)) in missing:
                budget_id = _make_one(connection, row.id, name, now_ms)
                if row.tombstoned_at_ms is not None:
                    gone = update(table).where(table.c.id == budget_id)
                    connection.execute(gone.values(tombstoned_at_ms=row.tombstoned_at_ms))
                made = True
    return made


def _make_one(connection: Connection, template_id: int, customer: str, now_ms: int) -> int:
    """Also again: one that was forgotten comes back with what was spent. Returns the id."""
    table = table_of(Budget)
    template = connection.execute(select(table).where(table.c.id == template_id)).one()
    identity = identity_of_customer(template.identity, customer)
    new = {
        "id": _free_id(connection, identity),
        "identity": identity,
        "scope_kind": CUSTOMER,
        "source": TEMPLATE,
        "created_at_ms": now_ms,
        "options": options_of_customer(template.options),
        **{name: getattr(template, name) for name in SAME},
    }
    connection.execute(insert_new(connection, table, ("identity",)), new)
    row = connection.execute(select(table.c.id).where(table.c.identity == identity)).one()
    # Limit and options have followed the template's, also of one that was forgotten.
    again = update(table).where(table.c.id == row.id, table.c.tombstoned_at_ms.is_not(None))
    connection.execute(again.values(tombstoned_at_ms=None, created_at_ms=now_ms))
    link = {"budget_id": row.id, "template_id": template_id, "customer": customer}
    connection.execute(insert_new(connection, table_of(CustomerBudget), ("budget_id",)), link)
    return int(row.id)
