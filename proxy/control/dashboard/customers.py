"""The part of a budget's page that lists its customers, asked for once the rest is there."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.customers import TEMPLATE, count_customers
from db.report_customers import customer_status
from proxy.control.dashboard.budgets import Standing, find_one, standings
from proxy.control.dashboard.site import Visit
from proxy.control.figures import starts_at

SHOWN = 50


async def listed(visit: Visit) -> Response:
    """Those that have spent most; none of a budget that is not for each of them."""
    now_s = visit.backend.now_ms / 1000

    async def ask(connection: AsyncConnection) -> tuple[Standing, list[Standing], int]:
        template = find_one(visit, await standings(visit, connection))
        if not template.budget.each:
            return template, [], 0
        at = partial(starts_at, now_s=now_s)
        statuses = await customer_status(connection, template.budget, at, SHOWN)
        counts = await connection.run_sync(count_customers, template.budget.id)
        found = [Standing(status, TEMPLATE, now_s) for status in statuses]
        return template, found, counts.get(template.budget.id, 0)

    template, found, tracked = await visit.backend.read(ask)
    return visit.page(
        "parts/customers.html", budget=template.budget, standings=found, tracked=tracked
    )
