"""Control's own port: health, metrics, and reports as JSON.

Reports run on a read-only connection of their own: on SQLite readers do not block the flush, and
neither loop waits for a query.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from db.catalog_types import BudgetRow
from db.engine import open_engine, reader
from db.errors import DatabaseError, ReportError
from db.reports import budget_status
from proxy import __version__
from proxy.control.control import Control
from proxy.control.forecasting import Outlook, period_end
from proxy.control.metrics import BudgetFigures, OwnFigures, render
from proxy.control.reporting import Question, answer
from proxy.windows import current_window

REPORTS_MAX = 2  # at the same time
REPORT_S_MAX = 60.0
BUDGET_SERIES_MAX = 100
GAUGED_SCOPES = ("organization", "team")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OWN_PARAMETERS = ("by", "since", "until", "granularity", "timezone", "compare", "trend")
FORECAST_PARAMETERS = ("by", "period", "timezone")
TOTAL = "total"  # of everything: no dimension
YES = ("1", "true", "yes")

Endpoint = Callable[[Request], Awaitable[Response]]
Rows = list[dict[str, Any]]


def admin_app(control: Control) -> Starlette:
    admin = Admin(control)
    return Starlette(
        routes=[
            Route("/healthz", admin.healthz),
            Route("/readyz", admin.readyz),
            Route("/metrics", admin.metrics),
            Route("/admin/api/report", admin.authorized(admin.report)),
            Route("/admin/api/forecast", admin.authorized(admin.forecast)),
            Route("/admin/api/status", admin.authorized(admin.status)),
        ]
    )


class Admin:
    def __init__(self, control: Control) -> None:
        self._control = control
        self._reports = asyncio.Semaphore(REPORTS_MAX)

    # --- open to whoever reaches the port

    async def healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        """Ready when a worker has put a snapshot in force; an outage of the ledger is told."""
        ready = self._control.in_force > 0
        body = {"status": "ready" if ready else "starting", "outage": self._control.outage}
        return JSONResponse(body, 200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        rows, sums = self._control.counts.sums()
        own = self._figures(await self._budgets())
        text = await asyncio.to_thread(render, rows, sums, own)
        return Response(text, media_type=METRICS_TYPE)

    # --- with the admin key

    def authorized(self, endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            key = self._control.config.admin.key
            if not key:
                return _error(403, "admin.key is not set in the configuration")
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
                return _error(401, "give the admin key as `Authorization: Bearer KEY`")
            return await endpoint(request)

        return checked

    async def status(self, _request: Request) -> Response:
        control = self._control
        return JSONResponse(
            {
                "version": __version__,
                "revision": control.snapshot.revision if control.snapshot is not None else 0,
                "revision_in_force": control.in_force,
                "workers": control.workers,
                "outage": control.outage,
            }
        )

    async def report(self, request: Request) -> Response:
        """`?by=team,model&since=7d&granularity=day`, and any dimension to filter by."""
        question = _question(request.query_params)

        async def rows(connection: AsyncConnection, now_ms: int) -> Rows:
            return (await answer(connection, question, now_ms)).rows

        return await self._reported(rows)

    async def forecast(self, request: Request) -> Response:
        """`?by=team&period=month`, and any dimension to filter by."""
        outlook = _outlook(request.query_params)
        return await self._reported(lambda connection, now: period_end(connection, outlook, now))

    async def _reported(self, ask: Callable[[AsyncConnection, int], Awaitable[Rows]]) -> Response:
        now_ms = self._control.clock.now_ms()
        try:
            async with self._reports, asyncio.timeout(REPORT_S_MAX), self._reading() as connection:
                rows = await ask(connection, now_ms)
        except ReportError as exc:
            return _error(400, str(exc))
        except TimeoutError:
            return _error(503, f"took longer than {REPORT_S_MAX:.0f} s: ask for less time")
        except (DatabaseError, SQLAlchemyError, OSError):
            return _error(503, "the ledger is out of reach")
        return JSONResponse(rows)

    # --- what they read

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        control = self._control
        engine = open_engine(control.config.database.url, read_only=True, nice=control.ledger_nice)
        try:
            async with reader(engine).connect() as connection:
                yield connection
        finally:
            await engine.dispose()

    async def _budgets(self) -> tuple[BudgetFigures, ...]:
        """One per scope and period; none while the ledger is out of reach."""
        now_s = self._control.clock.now_ms() / 1000
        try:
            async with self._reading() as connection:
                statuses = await budget_status(connection, lambda b: _starts_at(b, now_s))
        except (DatabaseError, SQLAlchemyError, OSError):
            return ()
        figures: dict[tuple[str, str], BudgetFigures] = {}
        for status in statuses:
            budget = status.budget
            if status.starts_at is not None and len(figures) < BUDGET_SERIES_MAX:
                figures.setdefault(
                    (budget.scope, budget.period),
                    BudgetFigures(
                        budget.scope, budget.period, status.limit, status.spent, status.committed
                    ),
                )
        return tuple(figures.values())

    def _figures(self, budgets: tuple[BudgetFigures, ...]) -> OwnFigures:
        control = self._control
        parts, snapshot = control.parts, control.snapshot
        assert parts is not None
        counters = parts.writer.counters
        return OwnFigures(
            version=__version__,
            pricing_version=snapshot.prices.version if snapshot is not None else "",
            retries=counters.retries,
            rows=counters.rows,
            duplicates=counters.duplicates,
            dead_letters=control.dead_letters,
            queue_bytes=parts.writer.backlog_bytes(),
            waiting=parts.leases.waiting,
            workers=len(control.workers),
            outage=control.outage,
            budgets=budgets,
            alerts=dict(control.counts.alerts),
            deliveries=dict(control.counts.deliveries),
        )


def _starts_at(budget: BudgetRow, now_s: float) -> int | None:
    """The current window of a budget that has a gauge; None: it has none."""
    gauged = budget.scope.partition("/")[0] in GAUGED_SCOPES and budget.unit == "usd"
    if not gauged or budget.period == "request" or budget.models or budget.providers:
        return None
    zone, week_start, month_day = budget.timezone, budget.week_start, budget.month_day
    return current_window(budget.period, zone, week_start, month_day, now_s)[0]


def _by(query: QueryParams, default: str) -> list[str]:
    by = [name for name in query.get("by", default).split(",") if name]
    return [] if by == [TOTAL] else by


def _where(query: QueryParams, own: Container[str]) -> dict[str, str]:
    return {name: query[name] for name in query if name not in own}


def _outlook(query: QueryParams) -> Outlook:
    return Outlook(
        by=_by(query, TOTAL),
        where=_where(query, FORECAST_PARAMETERS),
        period=query.get("period", "month"),
        timezone=query.get("timezone", "UTC"),
    )


def _question(query: QueryParams) -> Question:
    return Question(
        by=_by(query, "team"),
        since=query.get("since"),
        until=query.get("until"),
        where=_where(query, OWN_PARAMETERS),
        granularity=query.get("granularity", ""),
        timezone=query.get("timezone", "UTC"),
        compare=query.get("compare") in YES,
        trend=query.get("trend") in YES,
    )


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status)
