"""Who spends most of the budgets that are made from a template."""

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from db.catalog_types import BudgetRow
from db.customers import find_customers, load_customers, scope_of_customer
from db.models import Budget, CustomerBudget, Lease, Window
from db.reports import BudgetStatus, budget_status


async def customer_status(
    connection: AsyncConnection,
    template: BudgetRow,
    starts_at: Callable[[BudgetRow], int | None],
    limit: int,
) -> list[BudgetStatus]:
    """The customers that have spent most in the current window, the first most; those that have
    not spent anything come last, by name."""
    spent = func.coalesce(func.sum(Lease.spent), 0)
    query = (
        select(CustomerBudget.budget_id)
        .join(Budget, Budget.id == CustomerBudget.budget_id)
        .join(
            Window,
            (Window.budget_id == Budget.id) & (Window.starts_at == starts_at(template)),
            isouter=True,
        )
        .join(Lease, Lease.window_id == Window.id, isouter=True)
        .where(CustomerBudget.template_id == template.id, Budget.tombstoned_at_ms.is_(None))
        .group_by(CustomerBudget.budget_id, CustomerBudget.customer)
        .order_by(spent.desc(), CustomerBudget.customer)
        .limit(limit)
    )
    ids = list((await connection.execute(query)).scalars())
    rows = await connection.run_sync(load_customers, ids)
    found = {each.budget.id: each for each in await budget_status(connection, starts_at, rows)}
    return [found[id_] for id_ in ids if id_ in found]


async def customers_above(
    connection: AsyncConnection, template: BudgetRow, start: int, least: int, limit: int
) -> list[BudgetStatus]:
    """The customers that have spent `least` or more in the window that begins then: so many of
    them, who spent most first."""
    spent = func.sum(Lease.spent)
    query = (
        _windows_of(template, start, CustomerBudget.budget_id)
        .join(Lease, Lease.window_id == Window.id)
        .group_by(CustomerBudget.budget_id, CustomerBudget.customer)
        .having(spent >= least)
        .order_by(spent.desc(), CustomerBudget.customer)
        .limit(limit)
    )
    ids = list((await connection.execute(query)).scalars())
    rows = await connection.run_sync(load_customers, ids)
    found = {
        each.budget.id: each for each in await budget_status(connection, lambda _: start, rows)
    }
    return [found[id_] for id_ in ids if id_ in found]


async def customers_spared(
    connection: AsyncConnection, template: BudgetRow, start: int
) -> tuple[int, int]:
    """Calls that a template on trial would have refused in a window, and of how many customers."""
    query = _windows_of(template, start, func.sum(Window.spared), func.count())
    calls, customers = (await connection.execute(query.where(Window.spared > 0))).one()
    return int(calls or 0), int(customers)


def _windows_of(template: BudgetRow, start: int, *columns: Any) -> Any:
    return (
        select(*columns)
        .select_from(CustomerBudget)
        .join(Budget, Budget.id == CustomerBudget.budget_id)
        .join(Window, Window.budget_id == Budget.id)
        .where(
            CustomerBudget.template_id == template.id,
            Budget.tombstoned_at_ms.is_(None),
            Window.starts_at == start,
        )
    )


async def budgets_of_customer(
    connection: AsyncConnection,
    templates: Iterable[BudgetRow],
    customer: str,
    starts_at: Callable[[BudgetRow], int | None],
) -> list[BudgetStatus]:
    """What pays for a customer, as it would be made where it has not been yet."""
    by_id = {template.id: template for template in templates}
    found = await connection.run_sync(find_customers, [(id_, customer) for id_ in by_id])
    rows = [
        found.get((id_, customer)) or _like(template, customer) for id_, template in by_id.items()
    ]
    return await budget_status(connection, starts_at, rows)


def _like(template: BudgetRow, customer: str) -> BudgetRow:
    """A budget that does not exist, of which nothing is spent. Its id is nobody's."""
    return template._replace(
        id=-template.id,
        scope=scope_of_customer(template.scope, customer),
        each="",
        customers_max=0,
        beyond="",
        customer_required=False,
        customer_from_body=False,
        template=template.id,
        customer=customer,
    )
