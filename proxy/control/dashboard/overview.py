"""What was spent, by whom and when: the same answers as `report`, and a picture of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import QueryParams
from starlette.responses import Response

from db.errors import ReportError
from db.refusals import DIMENSIONS, refusal_sums
from db.report_filters import find_zone
from db.report_sums import COST, in_rollups
from proxy.control.dashboard.charts import Chart, stacked
from proxy.control.dashboard.render import PREFIX, nano, usd
from proxy.control.dashboard.site import Visit
from proxy.control.forecasting import Outlook, period_end
from proxy.control.reporting import Answer, Question, answer, change, iso, period_sums
from proxy.windows import current_window

GROUPS = ("organization", "team", "project", "user", "key", "model", "provider", "tag")
# name -> what people read, whole days before today, and the granularity of its picture
PERIODS = {
    "today": ("Today", 0, "hour"),
    "7d": ("7 days", 6, "day"),
    "30d": ("30 days", 29, "day"),
    "90d": ("90 days", 89, "week"),
    "month": ("This month", -1, "day"),
}
Refused = Sequence[tuple[str, int]] | None  # calls by reason
SHOWN_MAX = 25
TEXT_MAX = 256
HOUR_S = 3600
NONE = "(none)"


@dataclass(frozen=True, slots=True)
class View:
    """What of it somebody looks at."""

    period: str
    by: str  # one of GROUPS
    tag: str
    timezone: str
    where: Mapping[str, str]

    @classmethod
    def of(cls, query: QueryParams) -> "View":
        """Raises ReportError."""
        period, by = query.get("period", "7d"), query.get("by", "team")
        if period not in PERIODS or by not in GROUPS:
            raise ReportError("there is no such period, or no such group")
        where = {
            name: value[:TEXT_MAX]
            for name, value in query.items()
            if value and (name in GROUPS[:-1] or name.startswith("tag:"))
        }
        timezone, tag = query.get("timezone") or "UTC", query.get("tag", "")[:TEXT_MAX]
        find_zone(timezone)
        return cls(period, "team" if by == "tag" and not tag else by, tag, timezone, where)

    @property
    def dimension(self) -> str:
        return f"tag:{self.tag}" if self.by == "tag" else self.by

    @property
    def dimensions(self) -> set[str]:
        return {self.dimension, *self.where}

    def since_s(self, now_s: float) -> int:
        """The begin of a day of the zone: what rollups have whole."""
        days = PERIODS[self.period][1]
        if days < 0:
            return current_window("month", self.timezone, 0, 1, now_s)[0]
        start = current_window("day", self.timezone, 0, 1, now_s)[0]
        for _ in range(days):
            start = current_window("day", self.timezone, 0, 1, start - 1)[0]
        return start

    def cuts_hours(self, now_s: float) -> bool:
        """Whether it is of a tag, and calls have to be read where days begin within an hour."""
        return self.by == "tag" and self.since_s(now_s) % HOUR_S != 0

    def url(self, **changes: str) -> str:
        """This view with something else about it; "" leaves a condition out."""
        values = {
            "period": self.period, "by": self.by, "tag": self.tag, "timezone": self.timezone,
            **self.where, **changes,
        }  # fmt: skip
        return f"{PREFIX}?{urlencode({name: value for name, value in values.items() if value})}"


async def overview(visit: Visit) -> Response:
    view = View.of(visit.request.query_params)
    now_ms = visit.backend.now_ms
    where = visit.identity.narrow(view.where)
    headers, query = visit.request.headers, visit.request.query_params
    at_once = "hx-request" in headers or "whole" in query
    if not at_once and (
        view.cuts_hours(now_ms / 1000)
        or not await visit.backend.read(lambda c: in_rollups(c, view.dimensions))
    ):
        return visit.page("overview_later.html", view=view)  # it may take seconds

    async def ask(connection: AsyncConnection) -> tuple[Answer, Chart, Refused]:
        table = await answer(connection, _question(view, where, now_ms), now_ms)
        chart = await _chart(connection, view, where, now_ms)
        return table, chart, await _refused(connection, view, where, now_ms)

    table, chart, refused = await visit.backend.read(ask)
    whole = total(table.rows)
    return visit.page(
        "overview.html",
        view=view,
        periods=PERIODS,
        groups=GROUPS,
        zones=_zones(visit, view),
        rows=table.rows[:SHOWN_MAX],
        others=table.rows[SHOWN_MAX:],
        total=whole,
        change=change(whole["nano"], whole["previous_nano"]),
        chart=chart,
        dimension=view.dimension,
        refused=refused,
    )


async def _refused(
    connection: AsyncConnection, view: View, where: Mapping[str, str], now_ms: int
) -> Refused:
    """By reason, of every host; None where they are not counted by what is asked for."""
    if where.keys() - DIMENSIONS.keys():
        return None
    since_ms = view.since_s(now_ms / 1000) * 1000
    found = await refusal_sums(connection, ("code",), since_ms, now_ms + 1, where)
    return [(each.group[0], each.calls) for each in found]


def _question(view: View, where: Mapping[str, str], now_ms: int) -> Question:
    return Question(
        by=(view.dimension,),
        since=iso(view.since_s(now_ms / 1000)),
        where=where,
        timezone=view.timezone,
        compare=True,
    )


async def _chart(
    connection: AsyncConnection, view: View, where: Mapping[str, str], now_ms: int
) -> Chart:
    question = Question(
        by=(view.dimension,),
        since=iso(view.since_s(now_ms / 1000)),
        where=where,
        granularity=PERIODS[view.period][2],
        timezone=view.timezone,
    )
    found = await period_sums(connection, question, now_ms, (COST,))
    groups: dict[str, list[int]] = {}
    for (number, name), values in found.sums.items():
        of_group = groups.setdefault(name or NONE, [0] * len(found.periods))
        of_group[number] += values[COST]
    labels = [period.label for period in found.periods]
    if view.period == "today":
        labels = [label[11:16] for label in labels]
    return await asyncio.to_thread(stacked, labels, groups, usd)


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Of all groups, exact."""
    names = ("calls", "input_tokens", "output_tokens", "cache_read_tokens")
    counts = {name: sum(row[name] for row in rows) for name in names}
    return {
        **counts,
        "nano": sum(nano(row["cost_usd"]) for row in rows),
        "previous_nano": sum(nano(row["previous_usd"]) for row in rows),
    }


def _zones(visit: Visit, view: View) -> list[str]:
    """UTC, those of budgets, and the one that is looked at."""
    snapshot = visit.backend.control.snapshot
    of_budgets = {budget.timezone for budget in snapshot.budgets} if snapshot is not None else ()
    return sorted({"UTC", view.timezone, *of_budgets})


async def outlook(visit: Visit) -> Response:
    """The part of the overview that is asked for once the rest is there: it reads months."""
    view = View.of(visit.request.query_params)
    asked = Outlook(where=visit.identity.narrow(view.where), timezone=view.timezone)
    now_ms = visit.backend.now_ms
    rows = await visit.backend.read(lambda connection: period_end(connection, asked, now_ms))
    return visit.page("parts/outlook.html", row=rows[0] if rows else None)
