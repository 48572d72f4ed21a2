"""Every budget: how it stands, how fast it goes, and when it will be spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from msgspec import ValidationError, convert
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.catalog_budget_edits import sources
from db.catalog_types import BudgetRow
from db.errors import CatalogError, ReportError
from db.raises import RaiseRow, list_raises
from db.report_sums import COST
from db.reports import BudgetStatus, budget_status
from proxy.config import Period
from proxy.control.api import budgets as api
from proxy.control.api import raises as raises_api
from proxy.control.api.failures import ApiError
from proxy.control.api.table import ById
from proxy.control.dashboard.charts import Chart, stacked
from proxy.control.dashboard.render import usd
from proxy.control.dashboard.site import Missing, Visit, sentence
from proxy.control.figures import resets_at, starts_at
from proxy.control.forecasting import exhaustion
from proxy.control.raising import raised_budgets
from proxy.control.reporting import Question, period_sums

HOUR_S, DAY_S = 3_600, 86_400
SHARE = 1000  # a meter's width
PERIODS: tuple[str, ...] = Period.__args__  # type: ignore[attr-defined]
UNITS = ("usd", "tokens", "requests")


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget in its current window."""

    status: BudgetStatus
    source: str  # config: only the file changes it
    now_s: float
    raises: Sequence[RaiseRow] = ()  # in force and to come, the one that ends first in front

    @property
    def budget(self) -> BudgetRow:
        return self.status.budget

    @property
    def capped(self) -> bool:
        """A cap per call has no window, and nothing is spent in it; nor in a budget that every
        customer has one like."""
        return self.budget.period == "request" or bool(self.budget.each)

    @property
    def resets_at(self) -> str:
        return resets_at(self.budget, self.now_s)

    @property
    def burn(self) -> tuple[int, str] | None:
        """Spent per hour or day of the window so far, on average; None: nothing can be said."""
        starts_at = self.status.starts_at
        if not starts_at:
            return None
        name, unit_s = ("day", DAY_S) if self._is_long() else ("hour", HOUR_S)
        elapsed_ms = max(int((self.now_s - starts_at) * 1000), 1000)
        return self.status.spent * unit_s * 1000 // elapsed_ms, name

    def _is_long(self) -> bool:
        return self.budget.period not in ("minute", "hour", "day")

    def share(self, value: int) -> int:
        """Of the limit, in parts of SHARE."""
        return min(max(value, 0) * SHARE // max(self.status.limit, 1), SHARE)

    @property
    def percent(self) -> int:
        return self.status.spent * 100 // max(self.status.limit, 1)

    @property
    def state(self) -> str:
        if self.budget.each:
            return "for each customer"
        if self.capped:
            return "cap per call"
        if self.status.spent >= self.status.limit:
            return "spent" if self.budget.enforce else "above its limit"
        return "nearly spent" if self.percent >= 80 else "within"

    @property
    def raised_until_ms(self) -> int | None:
        """When the limit is lower again; None: it is not raised."""
        return next((each.until_ms for each in self.raises if each.in_force), None)


async def standings(visit: Visit, connection: AsyncConnection) -> list[Standing]:
    """Those that may be seen: a viewer's are of the team, its projects and its keys."""
    now_s = visit.backend.now_ms / 1000
    statuses = await budget_status(connection, partial(starts_at, now_s=now_s))
    of = await connection.run_sync(sources)
    raises = await connection.run_sync(_raises)
    return [
        Standing(status, of.get(status.budget.id, ""), now_s, raises.get(status.budget.id, ()))
        for status in statuses
        if sees(visit, status.budget.scope)
    ]


def _raises(connection: Connection) -> dict[int, list[RaiseRow]]:
    found: dict[int, list[RaiseRow]] = {}
    for each in sorted(list_raises(connection), key=lambda each: (each.until_ms, each.id)):
        found.setdefault(each.budget_id, []).append(each)
    return found


def sees(visit: Visit, scope: str) -> bool:
    snapshot = visit.backend.control.snapshot
    return visit.identity.sees_scope(scope, snapshot.keys if snapshot is not None else ())


async def listed(visit: Visit) -> Response:
    return await _list(visit)


async def _list(visit: Visit, problem: str = "", status: int = 200) -> Response:
    found = await visit.backend.read(lambda connection: standings(visit, connection))
    found.sort(key=lambda each: (-each.percent, each.budget.scope, each.budget.period))
    return visit.page(
        "budgets.html",
        status,
        standings=found,
        problem=problem,
        form=visit.form,
        periods=PERIODS,
        units=UNITS,
    )


async def shown(visit: Visit) -> Response:
    return await _show(visit)


async def _show(visit: Visit, problem: str = "", status: int = 200) -> Response:
    async def ask(connection: AsyncConnection) -> tuple[Standing, list[_Raised], Chart]:
        standing = find_one(visit, await standings(visit, connection))
        raises = [_Raised(each) for each in standing.raises]
        if standing.budget.each:
            raises = await connection.run_sync(_of_customers, standing.budget.id)
        return standing, raises, await _chart(visit, connection, standing.budget)

    standing, raises, chart = await visit.backend.read(ask)
    return visit.page(
        "budget.html",
        status,
        standing=standing,
        raises=raises,
        chart=chart,
        problem=problem,
        form=visit.form if problem else {},
    )


class _Raised(NamedTuple):
    row: RaiseRow
    customer: str = ""  # whose budget's it is


def _of_customers(connection: Connection, template_id: int) -> list[_Raised]:
    """Raises of the customers of a budget for each of them, in force and to come."""
    by_budget = _raises(connection)
    rows = [row for found in by_budget.values() for row in found]
    budgets = raised_budgets(connection, rows)
    return [
        _Raised(row, budgets[id_].customer)
        for id_, found in by_budget.items()
        if id_ in budgets and budgets[id_].template == template_id
        for row in found
    ]


async def create(visit: Visit) -> Response:
    form = visit.form
    limit = {f"limit_{form.get('unit', '')}": form.get("limit", "")}
    names = ("scope", "each", "period", "timezone", "enforce")
    try:
        wanted = {name: form[name] for name in names if form.get(name)}
        asked = convert({**wanted, **limit}, api.NewBudget, strict=False)
        made = await api.create_budget(visit.backend, visit.caller, asked)
    except (CatalogError, ReportError, ApiError, ValidationError) as exc:
        return await _list(visit, sentence(exc), 400)
    return visit.to(f"/budgets/{made.id}")


async def change(visit: Visit) -> Response:
    """A new limit, in the budget's own unit."""
    number = visit.request.path_params["number"]
    limit = {f"limit_{visit.form.get('unit', '')}": visit.form.get("limit", "")}
    try:
        asked = convert({"id": number, **limit}, api.ChangeBudget, strict=False)
        await api.change_budget(visit.backend, visit.caller, asked)
    except (CatalogError, ApiError, ValidationError) as exc:
        return await _show(visit, sentence(exc), 400)
    return visit.to(f"/budgets/{number}")


async def raise_limit(visit: Visit) -> Response:
    """For a while, in the budget's own unit."""
    number = visit.request.path_params["number"]
    names = ("customer", "by", "until", "since", "reason")
    wanted = {name: visit.form[name] for name in names if visit.form.get(name)}
    try:
        asked = convert({"id": number, **wanted}, raises_api.NewRaise, strict=False)
        await raises_api.raise_budget(visit.backend, visit.caller, asked)
    except (CatalogError, ApiError, ValidationError) as exc:
        return await _show(visit, sentence(exc), 400)
    return visit.to(f"/budgets/{number}")


async def delete(visit: Visit) -> Response:
    number = visit.request.path_params["number"]
    try:
        await api.delete_budget(visit.backend, visit.caller, ById(id=number))
    except CatalogError as exc:
        return await _show(visit, sentence(exc), 400)
    return visit.to("/budgets")


async def projection(visit: Visit) -> Response:
    """The part of a page that is asked for once the rest is there: it reads months."""

    async def ask(connection: AsyncConnection) -> tuple[str, str]:
        standing = find_one(visit, await standings(visit, connection))
        return await exhaustion(connection, standing.status, visit.backend.now_ms)

    at, because = await visit.backend.read(ask)
    return visit.page("parts/projection.html", at=at, because=because)


def find_one(visit: Visit, found: list[Standing]) -> Standing:
    """The one that the path names. Raises Missing."""
    number = visit.request.path_params["number"]
    standing = next((each for each in found if each.budget.id == number), None)
    if standing is None:
        raise Missing("There is no such budget.")
    return standing


async def _chart(visit: Visit, connection: AsyncConnection, budget: BudgetRow) -> Chart:
    """What its scope spent on each of the last 30 days, in its own time zone."""
    kind, _, name = budget.scope.partition("/")
    question = Question(
        by=("model",),
        since="30d",
        where={kind: name},
        granularity="day",
        timezone=budget.timezone,
    )
    found = await period_sums(connection, question, visit.backend.now_ms, (COST,))
    groups: dict[str, list[int]] = {}
    for (number, model), values in found.sums.items():
        groups.setdefault(model, [0] * len(found.periods))[number] += values[COST]
    return stacked([period.label for period in found.periods], groups, usd)
