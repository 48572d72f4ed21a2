"""Temporary raises of limits. A limit is its budget's own, plus the raises in force, whenever it is
asked for: none is begun or ended by a job. The database's clock decides, which all hosts share.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, cast, func, insert, select

from db.errors import CatalogError
from db.models import Budget, CustomerBudget, Raise, Revision
from db.statements import database_now_ms

LIMIT_MAX = 2**63 - 1


class Span(NamedTuple):
    """What a raise adds, and when: [from_ms, until_ms)."""

    from_ms: int
    until_ms: int
    amount: int


class RaiseRow(NamedTuple):
    """A raise for people to look at."""

    id: int
    budget_id: int
    amount: int
    from_ms: int
    until_ms: int
    made_by: str
    reason: str
    created_at_ms: int
    in_force: bool


def amount_in_force(connection: Connection) -> Any:
    """What the raises in force add to the limit of a budget: an expression of a query on it."""
    now = database_now_ms(connection)
    # PostgreSQL adds up to a type without bounds, which arrives as a Decimal.
    amount = cast(func.coalesce(func.sum(Raise.amount), 0), BigInteger)
    return (
        select(amount)
        .where(Raise.budget_id == Budget.id, Raise.from_ms <= now, Raise.until_ms > now)
        .correlate(Budget)
        .scalar_subquery()
    )


def read_mark(connection: Connection) -> tuple[int, int, int]:
    """Another one whenever the catalog has changed, or a raise has begun or ended."""
    now = database_now_ms(connection)
    begun = select(func.count()).where(Raise.from_ms <= now).scalar_subquery()
    ended = select(func.count()).where(Raise.until_ms <= now).scalar_subquery()
    revision, *counts = connection.execute(select(Revision.revision, begun, ended)).one()
    return int(revision), int(counts[0]), int(counts[1])


def add_raise(
    connection: Connection, budget_id: int, span: Span, *, made_by: str, reason: str, now_ms: int
) -> int:
    """Returns the id. Raises CatalogError for one that ends before it begins, or that would leave a
    limit below the budget's own."""
    if span.until_ms <= max(span.from_ms, now_ms):
        raise CatalogError("a raise ends after it has begun, and in the future")
    if span.amount == 0:
        raise CatalogError("a raise by nothing changes nothing")
    query = select(Budget.limit_value, Budget.options).where(Budget.id == budget_id)
    limit, options = connection.execute(query.with_for_update(key_share=True)).one()
    if options.get("each"):
        raise CatalogError(
            "it is a budget for each customer: say which customer's is raised, or change its limit"
        )
    others = spans(connection, [budget_id]).get(budget_id, [])
    low, high = extremes([*others, span], max(span.from_ms, now_ms))
    if low < 0:
        raise CatalogError("a raise may be taken back, but not more than there is of it")
    if limit + high > LIMIT_MAX:
        raise CatalogError("the limit would be above what can be counted")
    new = insert(Raise).values(
        budget_id=budget_id,
        amount=span.amount,
        from_ms=span.from_ms,
        until_ms=span.until_ms,
        made_by=made_by[:128],
        reason=reason[:512],
        created_at_ms=now_ms,
    )
    return int(connection.execute(new.returning(Raise.id)).scalar_one())


def list_raises(
    connection: Connection,
    *,
    ended: bool = False,
    budget_id: int | None = None,
    raise_id: int | None = None,
) -> list[RaiseRow]:
    """Those in force and to come, by id; `ended`: all there ever were."""
    now = connection.execute(select(database_now_ms(connection))).scalar_one()
    query = select(Raise.__table__).order_by(Raise.id)
    if not ended:
        query = query.where(Raise.until_ms > now)
    if budget_id is not None:
        query = query.where(Raise.budget_id == budget_id)
    if raise_id is not None:
        query = query.where(Raise.id == raise_id)
    rows = connection.execute(query)
    return [RaiseRow._make((*row, row.from_ms <= now < row.until_ms)) for row in rows]


def count_raised_customers(connection: Connection, template_id: int) -> int:
    """Of a template: those whose own budget is raised now."""
    now = database_now_ms(connection)
    query = (
        select(func.count(Raise.budget_id.distinct()))
        .join(CustomerBudget, CustomerBudget.budget_id == Raise.budget_id)
        .where(
            CustomerBudget.template_id == template_id, Raise.from_ms <= now, Raise.until_ms > now
        )
    )
    return int(connection.execute(query).scalar_one())


def spans(connection: Connection, budget_ids: Iterable[int] | None = None) -> dict[int, list[Span]]:
    """By budget; None: of all of them."""
    query = select(Raise.budget_id, Raise.from_ms, Raise.until_ms, Raise.amount)
    if budget_ids is not None:
        query = query.where(Raise.budget_id.in_(budget_ids))
    found: dict[int, list[Span]] = {}
    for budget_id, *span in connection.execute(query):
        found.setdefault(budget_id, []).append(Span(*span))
    return found


def extremes(found: Iterable[Span], since_ms: int) -> tuple[int, int]:
    """The least and the most that all of them add at any one time from `since_ms` on."""
    changes = sorted(
        change
        for span in found
        if span.until_ms > since_ms
        for change in ((max(span.from_ms, since_ms), span.amount), (span.until_ms, -span.amount))
    )
    low = high = total = 0
    for index, (at_ms, amount) in enumerate(changes):
        total += amount
        if index + 1 == len(changes) or changes[index + 1][0] > at_ms:
            low, high = min(low, total), max(high, total)
    return low, high
