"""Reading the ledger: one object per cost row, and sums by any dimension.

Everything runs on a connection of the caller's, in one transaction of `engine.reader`: a report
is one snapshot however long it takes, and blocks nobody.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from db.catalog_budgets import load_budgets
from db.catalog_types import BudgetRow
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
from db.report_dimensions import (
    HOUR_MS,
    IN_ROLLUPS,
    ROLLUPS,
    ROWS,
    TIMES,
    TOKENS,
    Source,
    check_dimensions,
    condition,
    expression,
    from_clause,
    labels,
)
from db.report_filters import Filters, parse_time_range
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
# cost_usd is net: original_usd plus adjustment_usd. What providers reported in replies, and that
# less our price of the same calls, come last.
USD_FIELDS = ("cost_usd", "original_usd", "adjustment_usd", "provider_cost_usd", "drift_usd")
GROUP_FIELDS = ("calls", *TOKENS, *USD_FIELDS)
COST = 1 + len(TOKENS)  # the place of the cost in a group's sums


# --- one object per cost row ---------------------------------------------------------------


async def calls(
    connection: AsyncConnection,
    filters: Filters = Filters(),  # noqa: B008 (immutable)
) -> AsyncGenerator[dict[str, Any], None]:
    """Cost rows in the order of time, each with the fields of CALL_FIELDS in that order.

    Where the reply had the provider's own figure, there is `provider_cost_usd`, too.
    An adjustment is a row of its own: it holds differences, so that sums are right, and two fields
    more: `adjusts`, the request id of the call, and `previous_price_version`. The call's own row
    stays as it was. Raises ReportError.
    """
    query = _calls_query().where(*await _conditions(connection, ROWS, filters))
    query = query.order_by(UsageCost.at_ms, UsageCost.call_id)
    async with aclosing(stream(connection, query)) as rows:
        async for row in rows:
            yield _call(row)


def _calls_query() -> Any:
    names = (
        "call_id", "at_ms", "provider", "model", "tags", "http_status", "ending", "usage_source",
        *TOKENS, "cost_nano", "hold_nano", "cost_items", "route", "stream", "duration_ms",
        "client_retry", "adjusts", "provider_cost_nano",
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


def _call(row: Any) -> dict[str, Any]:
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
    if row.provider_cost_nano is not None:
        call["provider_cost_usd"] = usd_from_nano(row.provider_cost_nano)
    if row.adjusts is not None:
        call["adjusts"] = str(uuid.UUID(bytes=row.adjusts))
        call["previous_price_version"] = row.previous_price_version
    return call


def _iso(at_ms: int) -> str:
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03d}Z"


# --- sums ----------------------------------------------------------------------------------


class _Part(NamedTuple):
    source: Source
    since_ms: int | None
    until_ms: int | None


async def grouped(
    connection: AsyncConnection,
    by: Sequence[str],
    filters: Filters = Filters(),  # noqa: B008 (immutable)
) -> list[dict[str, Any]]:
    """Sums per distinct value of the dimensions `by`, then GROUP_FIELDS; days and months in UTC.

    Whole hours are read from rollups where these have the dimensions, the rest from cost rows.
    In the order of time where that is a dimension, else dearest first. Raises ReportError.
    """
    check_dimensions(by)
    dimensions = {*by, *filters.where}
    sums: dict[tuple[Any, ...], list[int]] = {}
    for part in _parts(dimensions, filters):
        part_filters = Filters(part.since_ms, part.until_ms, filters.where)
        columns = [expression(part.source, name).label(f"d{n}") for n, name in enumerate(by)]
        query = (
            select(*columns, part.source.calls, *_sum_columns(part.source))
            .select_from(from_clause(part.source, dimensions))
            .where(*await _conditions(connection, part.source, part_filters))
            .group_by(*(column.name for column in columns))
        )
        for row in await connection.execute(query):
            _add(sums, tuple(row[: len(by)]), row[len(by) :])
    return await _with_labels(connection, by, sums)


def _parts(dimensions: Iterable[str], filters: Filters) -> list[_Part]:
    since, until = filters.since_ms, filters.until_ms
    if not IN_ROLLUPS.issuperset(dimensions):
        return [_Part(ROWS, since, until)]
    first = None if since is None else -(-since // HOUR_MS) * HOUR_MS
    last = None if until is None else until // HOUR_MS * HOUR_MS
    if first is not None and last is not None and first >= last:
        return [_Part(ROWS, since, until)]
    parts = [_Part(ROLLUPS, first, last)]
    if since != first:
        parts.append(_Part(ROWS, since, first))
    if until != last:
        parts.append(_Part(ROWS, last, until))
    return parts


async def _conditions(connection: AsyncConnection, source: Source, filters: Filters) -> list[Any]:
    check_dimensions(filters.where)
    conditions: list[Any] = []
    if filters.since_ms is not None:
        conditions.append(source.time >= filters.since_ms // source.unit_ms)
    if filters.until_ms is not None:
        conditions.append(source.time < filters.until_ms // source.unit_ms)
    for dimension, value in filters.where.items():
        conditions.append(await condition(connection, source, dimension, value))
    return conditions


def _sum_columns(source: Source) -> list[Any]:
    columns = source.table.c
    return [
        *(func.sum(columns[name]) for name in (*TOKENS, "cost_nano")),
        source.adjusted,
        func.sum(columns.provider_cost_nano),
        func.sum(columns.drift_nano),
    ]


def _add(
    sums: dict[tuple[Any, ...], list[int]], key: tuple[Any, ...], values: Iterable[Any]
) -> None:
    """Sums come as None of no rows, and as Decimal from PostgreSQL."""
    numbers = [int(value or 0) for value in values]
    known = sums.get(key)
    sums[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


async def _with_labels(
    connection: AsyncConnection, by: Sequence[str], sums: dict[tuple[Any, ...], list[int]]
) -> list[dict[str, Any]]:
    names = [
        await labels(connection, dimension, list({key[n] for key in sums}))
        for n, dimension in enumerate(by)
    ]
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for key, values in sums.items():
        _add(groups, tuple(names[n][value] for n, value in enumerate(key)), values)
    in_time = any(dimension in TIMES for dimension in by)

    def order(group: tuple[tuple[str | None, ...], list[int]]) -> Any:
        text = tuple(label or "" for label in group[0])
        return text if in_time else (-group[1][COST], text)

    return [
        {
            **dict(zip(by, key, strict=True)),
            **dict(zip(GROUP_FIELDS, values[:COST], strict=False)),
            **_usd_fields(*values[COST:]),
        }
        for key, values in sorted(groups.items(), key=order)
    ]


def _usd_fields(net: int, adjusted: int, reported: int, drift: int) -> dict[str, str]:
    values = (net, net - adjusted, adjusted, reported, drift)
    return dict(zip(USD_FIELDS, map(usd_from_nano, values), strict=True))


# --- budgets -------------------------------------------------------------------------------


class BudgetStatus(NamedTuple):
    """A budget's current window, in the budget's unit."""

    budget: BudgetRow
    starts_at: int | None  # unix seconds; None: a cap per call, which has no window
    limit: int  # a temporary raise included
    committed: int  # granted to anybody: spent, held or at hand in a worker
    spent: int
    overage: int

    @property
    def leased(self) -> int:
        """Granted and not spent: the holds of calls in flight, and what workers have at hand."""
        return self.committed - self.spent

    @property
    def remaining(self) -> int:
        return max(self.limit - self.spent, 0)


async def budget_status(
    connection: AsyncConnection, starts_at: Callable[[BudgetRow], int | None]
) -> list[BudgetStatus]:
    """Every live budget. `starts_at` computes the start of its current window."""
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
    return BudgetStatus(budget, start, limit, row.committed, int(row.spent), row.overage)
