"""Temporary raises of limits: as `tollkeeper budgets raise` and `raises`."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from db.catalog import load_budgets
from db.catalog_types import BudgetRow
from db.errors import NotKnown
from db.raises import RaiseRow, list_raises
from proxy.control.api.backend import Backend
from proxy.control.api.paging import id_of, page_of
from proxy.control.api.table import Caller, Endpoint, Id, Page, PageRequest, Request, Text
from proxy.control.figures import figure, moment
from proxy.control.identity import Role
from proxy.control.raising import Asked, customers_budget, raise_limit, raised_budgets

When = Annotated[str, Meta(max_length=64, description="Date, weekday or timestamp.")]


class Raise(Struct, frozen=True, kw_only=True):
    """`by` is exact decimal text in USD, or a whole number of tokens or requests."""

    id: int
    budget_id: int
    scope: str
    customer: str  # whose budget it is; "": no customer's
    period: str
    unit: str
    by: str | int
    since: str
    until: str
    in_force: bool
    made_by: str
    reason: str


class ListRaises(PageRequest, frozen=True, kw_only=True):
    ended: bool = False  # those that have ended, too


class NewRaise(Request, frozen=True, kw_only=True):
    """In the budget's unit and time zone; below zero takes back what was raised. `customer`: of a
    budget for each customer, whose limit it is."""

    id: Id
    customer: Text = ""
    by: Annotated[str, Meta(max_length=40, pattern=r"^-?[0-9]{1,19}(\.[0-9]{1,9})?$")]
    until: When
    since: When = ""
    reason: Text = ""


def _raise(row: RaiseRow, budget: BudgetRow) -> Raise:
    return Raise(
        id=row.id,
        budget_id=budget.id,
        scope=budget.scope,
        customer=budget.customer,
        period=budget.period,
        unit=budget.unit,
        by=figure(budget.unit, row.amount),
        since=moment(row.from_ms) or "",
        until=moment(row.until_ms) or "",
        in_force=row.in_force,
        made_by=row.made_by,
        reason=row.reason,
    )


async def list_all(backend: Backend, caller: Caller, asked: ListRaises) -> Page[Raise]:
    """Of the live budgets that the caller may see."""
    snapshot = backend.control.snapshot
    keys = snapshot.keys if snapshot is not None else ()

    def look(connection: Any) -> list[Raise]:
        rows = list_raises(connection, ended=asked.ended)
        budgets = raised_budgets(connection, rows)
        return [
            _raise(row, budgets[row.budget_id])
            for row in rows
            if row.budget_id in budgets
            and caller.identity.sees_scope(budgets[row.budget_id].scope, keys)
        ]

    found = await backend.read(lambda connection: connection.run_sync(look))
    after = id_of(asked.cursor)
    rows = [each for each in found if each.id > after]
    return page_of(rows, asked.limit, lambda row: row, lambda row: row.id)


async def raise_budget(backend: Backend, caller: Caller, asked: NewRaise) -> Raise:
    now_ms = backend.now_ms
    wanted = Asked(asked.by, asked.until, asked.since, asked.reason)

    def work(connection: Any) -> Raise:
        budget = _budget(load_budgets(connection), asked.id)
        if asked.customer:
            budget = customers_budget(connection, budget, asked.customer, now_ms)
        return _raise(raise_limit(connection, caller.actor, budget, wanted, now_ms), budget)

    return await backend.change(work)


def _budget(budgets: list[BudgetRow], budget_id: int) -> BudgetRow:
    for budget in budgets:
        if budget.id == budget_id:
            return budget
    raise NotKnown(f"no budget has the id {budget_id}")


ENDPOINTS = (
    Endpoint(
        "GET", "/raises", list_all, ListRaises, Page[Raise], Role.VIEWER,
        "Temporary raises of limits, in force and to come.",
    ),
    Endpoint(
        "POST", "/budgets/{id}/raises", raise_budget, NewRaise, Raise, Role.ADMIN,
        "Raise a budget's limit for a while; over by itself.", 201,
    ),
)  # fmt: skip
