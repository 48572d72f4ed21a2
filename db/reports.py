"""Reading the ledger: one object per cost row, and sums by any dimension.

Everything runs on a connection of the caller's, in one transaction of `engine.reader`: a report
is one snapshot however long it takes, and blocks nobody.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.catalog_budgets import load_budgets
from db.catalog_types import BudgetRow
from db.journal_records import CUSTOMER_TAG, FLAG_WOULD_REFUSE
from db.models import (
    ApiKey,
    CostAdjustment,
    Lease,
    ModelCost,
    Organization,
    PriceVersion,
    Project,
    Team,
    UsageCost,
    User,
    Window,
)
from db.report_dimensions import ROWS, TOKENS
from db.report_filters import Filters, parse_time_range
from db.report_sums import GROUP_FIELDS, USD_FIELDS, conditions, grouped
from db.retention import require_rows
from db.streaming import stream
from pricing.money import usd_from_atto, usd_from_nano

__all__ = [
    "CALL_FIELDS",
    "GROUP_FIELDS",
    "USD_FIELDS",
    "BudgetStatus",
    "Filters",
    "budget_status",
    "calls",
    "grouped",
    "parse_time_range",
]

CALL_FIELDS = (
    "request_id", "at", "provider", "model", "organization", "team", "project", "user", "key",
    "tags", "http_status", "ending", "usage_source", *TOKENS, "cost_usd", "hold_usd", "cost_items",
    "price_version", "route", "stream", "duration_ms", "client_retry",
)  # fmt: skip


# --- one object per cost row ---------------------------------------------------------------


async def calls(
    connection: AsyncConnection,
    filters: Filters = Filters(),  # noqa: B008 (immutable)
) -> AsyncGenerator[dict[str, Any], None]:
    """Cost rows in the order of time, each with the fields of CALL_FIELDS in that order.

    Where the reply had the provider's own figure, there is `provider_cost_usd`, too;
    `would_refuse` is true, and there, where a budget that is not enforced would have refused.
    An adjustment is a row of its own: it holds differences, so that sums are right, and two fields
    more: `adjusts`, the request id of the call, and `previous_price_version`. The call's own row
    stays as it was. Raises ReportError.
    """
    await require_rows(connection, filters.since_ms, "a list of calls")
    query = calls_query().where(*await conditions(connection, ROWS, filters))
    query = query.order_by(UsageCost.at_ms, UsageCost.call_id)
    async with aclosing(stream(connection, query)) as rows:
        async for row in rows:
            yield call_of(row)


def calls_query() -> Any:
    names = (
        "call_id", "at_ms", "provider", "model", "tags", "http_status", "ending", "usage_source",
        *TOKENS, "cost_nano", "hold_nano", "cost_items", "route", "stream", "duration_ms",
        "client_retry", "adjusts", "provider_cost_nano", "flags",
    )  # fmt: skip
    before, of_before = aliased(ModelCost), aliased(PriceVersion)
    return (
        select(
            *(getattr(UsageCost, name) for name in names),
            Organization.name.label("organization"),
            Team.name.label("team"),
            Project.name.label("project"),
            User.name.label("user_name"),
            ApiKey.name.label("key"),
            PriceVersion.version.label("price_version"),
            of_before.version.label("previous_price_version"),
        )
        .join(Organization, UsageCost.organization_id == Organization.id)
        .join(Team, UsageCost.team_id == Team.id)
        .join(ApiKey, UsageCost.key_id == ApiKey.id)
        .join(Project, UsageCost.project_id == Project.id, isouter=True)
        .join(User, UsageCost.user_id == User.id, isouter=True)
        .join(ModelCost, UsageCost.price_id == ModelCost.id, isouter=True)
        .join(PriceVersion, ModelCost.price_version_id == PriceVersion.id, isouter=True)
        .join(CostAdjustment, CostAdjustment.call_id == UsageCost.call_id, isouter=True)
        .join(before, CostAdjustment.from_price_id == before.id, isouter=True)
        .join(of_before, before.price_version_id == of_before.id, isouter=True)
    )


def call_of(row: Any) -> dict[str, Any]:
    call = {
        "request_id": str(uuid.UUID(bytes=row.call_id)),
        "at": _iso(row.at_ms),
        "provider": row.provider,
        "model": row.model,
        "organization": row.organization,
        "team": row.team,
        "project": row.project,
        "user": row.user_name,
        "key": row.key,
        "tags": row.tags or {},
        "http_status": row.http_status,
        "ending": row.ending,
        "usage_source": row.usage_source,
        "input_tokens": row.input_tokens,
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "output_tokens": row.output_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "cost_usd": usd_from_nano(row.cost_nano),
        "hold_usd": usd_from_nano(row.hold_nano),
        "cost_items": [
            {"item": item, "count": count, "usd": usd_from_atto(count * atto)}
            for item, count, atto in row.cost_items or ()
        ],
        "price_version": row.price_version,
        "route": row.route,
        "stream": row.stream,
        "duration_ms": row.duration_ms,
        "client_retry": row.client_retry,
    }
    if CUSTOMER_TAG in call["tags"]:
        call["customer"] = call["tags"][CUSTOMER_TAG]
    if row.flags & FLAG_WOULD_REFUSE:
        call["would_refuse"] = True
    if row.provider_cost_nano is not None:
        call["provider_cost_usd"] = usd_from_nano(row.provider_cost_nano)
    if row.adjusts is not None:
        call["adjusts"] = str(uuid.UUID(bytes=row.adjusts))
        call["previous_price_version"] = row.previous_price_version
    return call


def _iso(at_ms: int) -> str:
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03d}Z"


# --- budgets -------------------------------------------------------------------------------


class BudgetStatus(NamedTuple):
    """A budget's current window, in the budget's unit."""

    budget: BudgetRow
    starts_at: int | None  # unix seconds; None: a cap per call, which has no window
    limit: int  # a temporary raise included
    committed: int  # granted to anybody: spent, held or at hand in a worker
    spent: int
    overage: int
    spared: int = 0  # calls that it would have refused, were it enforced

    @property
    def leased(self) -> int:
        """Granted and not spent: the holds of calls in flight, and what workers have at hand."""
        return self.committed - self.spent

    @property
    def remaining(self) -> int:
        return max(self.limit - self.spent, 0)


async def budget_status(
    connection: AsyncConnection,
    starts_at: Callable[[BudgetRow], int | None],
    budgets: Sequence[BudgetRow] | None = None,
) -> list[BudgetStatus]:
    """These budgets, or every live one; of a template nothing is spent but by what was made from
    it, which is not among them. `starts_at` computes the start of a budget's current window."""
    if budgets is None:
        budgets = await connection.run_sync(load_budgets)
    starts = {budget.id: starts_at(budget) for budget in budgets}
    wanted = {start for start in starts.values() if start is not None}
    spent = func.coalesce(func.sum(Lease.spent), 0)
    query = (
        select(Window.__table__, spent.label("spent"))
        .join(Lease, Lease.window_id == Window.id, isouter=True)
        .where(Window.budget_id.in_(starts), Window.starts_at.in_(wanted))
        .group_by(Window.id)
    )
    windows = {(row.budget_id, row.starts_at): row for row in await connection.execute(query)}
    return [_status(budget, starts[budget.id], windows) for budget in budgets]


def _status(budget: BudgetRow, start: int | None, windows: dict[Any, Any]) -> BudgetStatus:
    row = windows.get((budget.id, start))
    if row is None:
        return BudgetStatus(budget, start, budget.limit, 0, 0, 0)
    limit = budget.limit + row.extra
    sums = (row.committed, int(row.spent), row.overage, row.spared)
    return BudgetStatus(budget, start, limit, *sums)
