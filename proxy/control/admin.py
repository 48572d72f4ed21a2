"""Control's own port: health and metrics, open to whoever reaches it, and the admin API."""

import asyncio

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount, Route, Router
from starlette.types import Receive, Scope, Send

from db.catalog_types import BudgetRow
from db.errors import DatabaseError
from db.reports import budget_status
from proxy import __version__
from proxy.control.api.backend import Backend
from proxy.control.api.endpoints import ENDPOINTS
from proxy.control.api.explain import Explain
from proxy.control.api.failures import on_http_exception
from proxy.control.api.routes import routes
from proxy.control.control import Control
from proxy.control.counts import BudgetFigures, OwnFigures
from proxy.metrics import Labels, Totals
from proxy.windows import current_window

BUDGET_SERIES_MAX = 100
GAUGED_SCOPES = ("organization", "team")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_app(control: Control, explain: Explain) -> Starlette:
    backend = Backend(control, explain)
    admin = Admin(backend)
    return Starlette(
        routes=[
            Route("/healthz", admin.healthz),
            Route("/readyz", admin.readyz),
            Route("/metrics", admin.metrics),
            *routes(backend, ENDPOINTS),
            Pages("", Dashboard(backend)),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )


class Pages(Mount):
    """Their own paths are whole ones."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if not scope["path"].startswith("/dashboard"):
            return Match.NONE, {}
        return super().matches(scope)


class Dashboard:
    """The pages, loaded when somebody looks at the first: templates take megabytes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pages: Router | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.pages()(scope, receive, send)

    def pages(self) -> Router:
        if self._pages is None:
            from proxy.control.dashboard.routes import routes as pages  # noqa: PLC0415

            self._pages = Router(pages(self._backend))
        return self._pages


class Admin:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._control = backend.control

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
        text = await asyncio.to_thread(_rendered, rows, sums, own)
        return Response(text, media_type=METRICS_TYPE)

    async def _budgets(self) -> tuple[BudgetFigures, ...]:
        """One per scope and period; none while the ledger is out of reach."""
        now_s = self._control.clock.now_ms() / 1000
        try:
            async with self._backend.reading() as connection:
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
    narrowed = budget.models or budget.providers or budget.each
    if not gauged or budget.period == "request" or narrowed:
        return None
    zone, week_start, month_day = budget.timezone, budget.week_start, budget.month_day
    return current_window(budget.period, zone, week_start, month_day, now_s)[0]


def _rendered(rows: dict[Labels, list[int]], sums: Totals, own: OwnFigures) -> bytes:
    from proxy.control.metrics import render  # noqa: PLC0415 - with the first scrape

    return render(rows, sums, own)
