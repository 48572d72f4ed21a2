"""Every budget: how it stands, how fast it goes, and when it will be spent."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from db.catalog_types import BudgetRow
from db.models import Budget
from db.report_sums import COST
from db.reports import BudgetStatus, budget_status
from proxy.control.dashboard.charts import Chart, stacked
from proxy.control.dashboard.render import usd
from proxy.control.dashboard.site import Missing, Visit
from proxy.control.forecasting import exhaustion
from proxy.control.reporting import Question, period_sums
from proxy.windows import FOREVER, current_window

HOUR_S, DAY_S = 3_600, 86_400
SHARE = 1000  # a meter's width


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget in its current window."""

    status: BudgetStatus
    source: str  # config: only the file changes it
    now_s: float

    @property
    def budget(self) -> BudgetRow:
        return self.status.budget

    @property
    def capped(self) -> bool:
        """A cap per call has no window, and nothing is spent in it."""
        return self.budget.period == "request"

    @property
    def resets_at_ms(self) -> int | None:
        ends_at = None if self.capped else window_of(self.budget, self.now_s)[1]
        return None if ends_at is None or ends_at >= FOREVER else ends_at * 1000

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
        if self.capped:
            return "cap per call"
        if self.status.spent >= self.status.limit:
            return "spent"
        return "nearly spent" if self.percent >= 80 else "within"


def window_of(budget: BudgetRow, now_s: float) -> tuple[int, int]:
    zone, week_start, month_day = budget.timezone, budget.week_start, budget.month_day
    return current_window(budget.period, zone, week_start, month_day, now_s)


def starts_at(budget: BudgetRow, now_s: float) -> int | None:
    return None if budget.period == "request" else window_of(budget, now_s)[0]


async def standings(visit: Visit, connection: AsyncConnection) -> list[Standing]:
    """Those that may be seen: a viewer's are of the team, its projects and its keys."""
    now_s = visit.backend.now_ms / 1000
    statuses = await budget_status(connection, partial(starts_at, now_s=now_s))
    sources = dict((await connection.execute(select(Budget.id, Budget.source))).tuples().all())
    return [
        Standing(status, sources.get(status.budget.id, ""), now_s)
        for status in statuses
        if sees(visit, status.budget.scope)
    ]


def sees(visit: Visit, scope: str) -> bool:
    team = visit.identity.team
    if not team:
        return True
    kind, _, name = scope.partition("/")
    if kind == "key":
        snapshot = visit.backend.control.snapshot
        keys = snapshot.keys if snapshot is not None else ()
        return any(key.name == name and f"{key.organization}/{key.team}" == team for key in keys)
    return scope == f"team/{team}" or (kind == "project" and name.startswith(f"{team}/"))


async def listed(visit: Visit) -> Response:
    found = await visit.backend.read(lambda connection: standings(visit, connection))
    found.sort(key=lambda each: (-each.percent, each.budget.scope, each.budget.period))
    return visit.page("budgets.html", standings=found)


async def shown(visit: Visit) -> Response:
    async def ask(connection: AsyncConnection) -> tuple[Standing, Chart]:
        standing = _one(visit, await standings(visit, connection))
        return standing, await _chart(visit, connection, standing.budget)

    standing, chart = await visit.backend.read(ask)
    return visit.page("budget.html", standing=standing, chart=chart)


async def projection(visit: Visit) -> Response:
    """The part of a page that is asked for once the rest is there: it reads months."""

    async def ask(connection: AsyncConnection) -> tuple[str, str]:
        standing = _one(visit, await standings(visit, connection))
        return await exhaustion(connection, standing.status, visit.backend.now_ms)

    at, because = await visit.backend.read(ask)
    return visit.page("parts/projection.html", at=at, because=because)


def _one(visit: Visit, found: list[Standing]) -> Standing:
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
    found = await period_sums(connection, question, visit.backend.now_ms)
    groups: dict[str, list[int]] = {}
    for (number, model), values in found.sums.items():
        groups.setdefault(model, [0] * len(found.periods))[number] += values[COST]
    return stacked([period.label for period in found.periods], groups, usd)
