"""What a period's spend will be at its end, and when budgets are spent.

History is whole days of the asked time zone; today counts for what it has left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from db.catalog_types import BudgetRow
from db.errors import ReportError
from db.forecast import HISTORY_MIN, days_until, forecast
from db.report_filters import find_zone
from db.report_sums import COST
from db.reports import BudgetStatus
from pricing.money import usd_from_nano
from proxy.control.reporting import Question, iso, period_sums
from proxy.windows import FOREVER, current_window

PERIODS = ("week", "month", "quarter", "year")
HISTORY_DAYS = 84
HISTORY_DAYS_MAX = 730
DAYS_AHEAD_MAX = 366
DAY_MS = 86_400_000
FIELDS = (
    "period_start", "period_end", "spent_usd", "expected_usd", "low_usd", "high_usd",
    "days_of_history",
)  # fmt: skip

Series = dict[tuple[Any, ...], list[int]]


@dataclass(frozen=True, slots=True)
class Outlook:
    by: Sequence[str] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    period: str = "month"
    timezone: str = "UTC"
    history_days: int = HISTORY_DAYS
    coverage: float = 0.8


async def period_end(
    connection: AsyncConnection, outlook: Outlook, now_ms: int
) -> list[dict[str, Any]]:
    """Per group: spent in the current period, and expected at its end. Raises ReportError."""
    find_zone(outlook.timezone)
    if outlook.period not in PERIODS:
        raise ReportError(f"no forecast for {outlook.period!r}; possible: {', '.join(PERIODS)}")
    start_s, end_s = current_window(outlook.period, outlook.timezone, 0, 1, now_ms / 1000)
    question = Question(
        by=outlook.by, where=outlook.where, granularity="day", timezone=outlook.timezone
    )
    since = replace(question, since=iso(start_s), until=_iso_ms(now_ms))
    spent = await period_sums(connection, since, now_ms, (COST,))
    so_far: dict[tuple[Any, ...], int] = {}
    for key, values in spent.sums.items():
        so_far[key[1:]] = so_far.get(key[1:], 0) + values[COST]
    histories = await _histories(connection, question, outlook.history_days, now_ms, COST)
    today_s, elapsed = _today(outlook.timezone, now_ms)
    days = (end_s - today_s) * 1000 / DAY_MS
    rows = []
    for group in so_far.keys() | histories.keys():
        history = histories.get(group, [])
        rest = forecast(history, days, outlook.coverage, elapsed)
        done = so_far.get(group, 0)
        rows.append(
            {
                **dict(zip(outlook.by, group, strict=True)),
                "period_start": iso(start_s),
                "period_end": iso(end_s),
                "spent_usd": usd_from_nano(done),
                "expected_usd": usd_from_nano(done + rest.expected),
                "low_usd": None if rest.low is None else usd_from_nano(done + rest.low),
                "high_usd": None if rest.high is None else usd_from_nano(done + rest.high),
                "days_of_history": len(history),
                "_order": (-done - rest.expected, tuple(part or "" for part in group)),
            }
        )
    rows.sort(key=lambda row: row.pop("_order"))
    return rows


def _today(timezone: str, now_ms: int) -> tuple[int, float]:
    """When it began, and what part of it is over."""
    start_s, end_s = current_window("day", timezone, 0, 1, now_ms / 1000)
    return start_s, (now_ms / 1000 - start_s) / (end_s - start_s)


async def _histories(
    connection: AsyncConnection, question: Question, days: int, now_ms: int, column: int
) -> Series:
    """Whole days up to yesterday, from the first one with a call of anybody on; the sums of a
    group that had none are zeros."""
    if not 1 <= days <= HISTORY_DAYS_MAX:
        raise ReportError(f"history is 1 to {HISTORY_DAYS_MAX} days, not {days}")
    today_s, _ = _today(question.timezone, now_ms)
    first_s = today_s
    for _ in range(days):
        first_s = current_window("day", question.timezone, 0, 1, first_s - 1)[0]
    asked = replace(question, since=iso(first_s), until=iso(today_s))
    found = await period_sums(connection, asked, now_ms, (column,))
    if not found.sums:
        return {}
    first = min(key[0] for key in found.sums)
    series: Series = {}
    for (number, *group), values in found.sums.items():
        of_group = series.setdefault(tuple(group), [0] * (len(found.periods) - first))
        of_group[number - first] += values[column]
    return series


# --- budgets -------------------------------------------------------------------------------


async def exhaustion(
    connection: AsyncConnection,
    status: BudgetStatus,
    now_ms: int,
    history_days: int = HISTORY_DAYS,
) -> tuple[str, str]:
    """When a budget's money is expected to be spent, in UTC, and what that rests on: "" and a
    reason where it is not within its window, or nothing can be said."""
    at_ms, why = await exhausted_at_ms(connection, status, now_ms, history_days)
    return "" if at_ms is None else _iso_ms(at_ms), why


async def exhausted_at_ms(
    connection: AsyncConnection,
    status: BudgetStatus,
    now_ms: int,
    history_days: int = HISTORY_DAYS,
) -> tuple[int | None, str]:
    """`exhaustion` in unix milliseconds."""
    budget = status.budget
    if budget.each:
        return None, "every customer has a budget of its own"
    if budget.period in ("request", "minute", "hour"):
        return None, "periods of a day and longer are forecast"
    if not status.remaining:
        return now_ms, "spent"
    kind, _, name = budget.scope.partition("/")
    question = Question(
        by=("provider", "model"),
        where={kind: name},
        granularity="day",
        timezone=budget.timezone,
    )
    columns = {"usd": (COST,), "requests": (0,), "tokens": (1, COST - 2)}[budget.unit]
    history: list[int] = []
    for column in columns:
        series = await _histories(connection, question, history_days, now_ms, column)
        for (provider, model), values in series.items():
            if _applies(budget, provider, model):
                history = history or [0] * len(values)
                history = [a + b for a, b in zip(history, values, strict=True)]
    if len(history) < HISTORY_MIN:
        return None, f"{len(history)} days of history are too few"
    today_s, elapsed = _today(budget.timezone, now_ms)
    ahead = days_until(history, status.remaining, DAYS_AHEAD_MAX, elapsed)
    at_ms = None if ahead is None else today_s * 1000 + round(ahead * DAY_MS)
    end_s = _end_s(budget, now_ms)
    if at_ms is None or at_ms >= end_s * 1000:
        return None, "not in a year" if end_s >= FOREVER else "not in this period"
    return at_ms, f"{len(history)} days of history"


def _applies(budget: BudgetRow, provider: str, model: str) -> bool:
    globs = ((budget.models, model), (budget.providers, provider))
    return all(
        not some or any(fnmatchcase(name.lower(), glob.lower()) for glob in some)
        for some, name in globs
    )


def _end_s(budget: BudgetRow, now_ms: int) -> int:
    zone, week_start, month_day = budget.timezone, budget.week_start, budget.month_day
    return current_window(budget.period, zone, week_start, month_day, now_ms / 1000)[1]


def _iso_ms(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
